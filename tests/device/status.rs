//! What it says about itself, and the mistakes of who asks.

use futures_util::StreamExt;
use tokio::net::TcpStream;

use super::*;

/// Every text in the roots of a device's snapshot that rule R11 keeps.
async fn kept(simulator: &Simulator) -> Vec<String> {
    let address = simulator.address(0);
    let stream = TcpStream::connect(address).await.unwrap();
    let url = format!("ws://{address}/ws");
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let text = socket.next().await.unwrap().unwrap().into_text().unwrap();
    let snapshot: Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    let mut left: Vec<&Value> = ["wifi", "ap", "printer", "ha"]
        .iter()
        .filter_map(|root| snapshot.get(root))
        .collect();
    while let Some(value) = left.pop() {
        match value {
            Value::String(text) if !text.is_empty() => found.push(text.clone()),
            Value::Object(fields) => left.extend(fields.values()),
            Value::Array(values) => left.extend(values),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    found
}

#[tokio::test]
async fn r11_status_shows_no_text_of_what_is_kept() {
    for firmware in Firmware::ALL {
        let simulator = start(|options| {
            options.setup.firmware = firmware;
            options.setup.wifi_ssid = "geheim12".to_owned();
            options.setup.access_code = Some("ACCESSCODE".to_owned());
        });
        let mut kept = kept(&simulator).await;
        kept.retain(|text| text != "bambu"); // the printer's name here, and a word of ours
        assert!(kept.len() > 5, "{kept:?}");
        for words in ["status HOST", "status HOST --json"] {
            let (result, text) = run(&simulator, words).await;
            assert_eq!(result, Ok(()));
            for secret in &kept {
                assert!(!text.contains(secret), "{firmware:?}: {secret}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn status_shows_every_firmware_and_nothing_of_its_networks() {
    for firmware in Firmware::ALL {
        let simulator = start(|options| {
            options.setup.firmware = firmware;
            options.setup.wifi_ssid = "geheim12".to_owned();
            options.setup.access_code = Some("ACCESSCODE".to_owned());
        });
        simulator.inject("button power").unwrap();
        let (result, text) = run(&simulator, "status HOST").await;
        assert_eq!(result, Ok(()));
        let version = format!("firmware               {}", firmware.reported());
        for part in [
            &version,
            "is                     off",
            "temperature            22 C",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(
            text.contains("printer                bound, connected"),
            "{text}"
        );
        assert_eq!(text.contains("MQTT broker"), firmware.has_mqtt(), "{text}");
        assert_eq!(
            text.contains("printers  "),
            firmware.has_klipper(),
            "{text}"
        );
        let (result, text) = run(&simulator, "status HOST --json").await;
        assert_eq!(result, Ok(()));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["on"], false, "{value}");
        assert_eq!(value["temperature"], 22.0);
        assert_eq!(value["device_id"].as_str().unwrap().len(), 4);
        assert_eq!(value["hostname"], "PandaBreath");
        assert!(frames(&simulator).is_empty(), "it only looks");
        assert_eq!(most_open(&simulator), 1);
    }
}

#[tokio::test]
async fn status_shows_a_fault() {
    let simulator = device(Firmware::V1_0_3);
    simulator.inject("fault chamber-open").unwrap();
    // It takes some samples.
    let looking = async {
        let mut text = String::new();
        while !text.contains("chamber sensor disconnected") {
            text = run(&simulator, "status HOST").await.1;
        }
    };
    tokio::time::timeout(LIMIT, looking).await.unwrap();
}

#[tokio::test]
async fn a_device_that_is_not_there_or_is_something_else_is_a_message() {
    let simulator = device(Firmware::V1_0_3);
    let mut out = Vec::new();
    let mut person = script();
    for (words, part) in [
        (
            format!("status {}", closed()),
            "connection refused. A device with ESPHome",
        ),
        (
            format!("status {}", moonraker("standby")),
            "not as a Panda Breath does",
        ),
        ("status mqtt://127.0.0.1".to_owned(), "a broker"),
        ("status http://127.0.0.1/".to_owned(), "without http://"),
        ("language HOST de".to_owned(), "knows en and zh"),
        (
            "printer-type HOST prusa".to_owned(),
            "knows bambu and klipper",
        ),
        (
            "bind-klipper HOST --moonraker voron.local".to_owned(),
            "takes no names",
        ),
        (
            "bind-klipper HOST --moonraker 127.0.0.1".to_owned(),
            "--loopback",
        ),
        ("ap set HOST".to_owned(), "--new-password"),
        (
            "hostname HOST a_b".to_owned(),
            "letters, digits and hyphens",
        ),
        (
            "wifi join HOST n --password geheim".to_owned(),
            "unexpected argument",
        ),
        (
            "update HOST /nonexistent.bin".to_owned(),
            "/nonexistent.bin: ",
        ),
    ] {
        let words = words.replace("HOST", &simulator.address(0).to_string());
        let mut world = World {
            patience: impatience(),
            person: &mut person,
            out: &mut out,
        };
        let error = run_words(words.split_whitespace(), &mut world)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(part), "{words}: {error}");
    }
    assert!(frames(&simulator).is_empty());
}

#[tokio::test]
async fn the_language_is_echoed_and_not_sent_twice() {
    let simulator = device(Firmware::V0_0_0);
    let (result, text) = run(&simulator, "language HOST zh").await;
    assert_eq!(result, Ok(()));
    assert!(text.contains("in 'zh' now"), "{text}");
    let (_, text) = run(&simulator, "language HOST zh").await;
    assert!(text.contains("already; nothing was sent"), "{text}");
    assert_eq!(frames(&simulator).len(), 1);
}
