//! Restarts, and devices that do nothing they are told.

use super::*;

/// A device that says that it is off, and does nothing that it is told.
async fn stubborn() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else {
                    return;
                };
                let snapshot = r#"{"settings":{"fw_version":"V1.0.3","printer_type":1,"work_on":0,
                    "work_mode":2,"language":"en"},"ap":{"ssid":"a","password":"geheim12",
                    "ip":"192.168.254.1","on":0},"printer":{"name":"x","state":3}}"#;
                let mut text = snapshot.to_owned();
                while socket.send(Message::text(text.clone())).await.is_ok() {
                    r#"{"settings":{"warehouse_temper":22}}"#.clone_into(&mut text);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn reboot_waits_until_the_device_is_back() {
    let simulator = device(Firmware::V1_0_3);
    let (result, text) = run(&simulator, "reboot HOST --yes NOBODY").await;
    assert_eq!(result, Ok(()), "{text}");
    assert!(text.contains("Whether a print runs is not known"), "{text}");
    assert!(text.ends_with("It has restarted, and is off.\n"), "{text}");
    assert_eq!(downs(&simulator), 1);
    assert_eq!(frames(&simulator)[0]["settings"]["reset"], 1);
    assert_eq!(most_open(&simulator), 1);
}

#[tokio::test]
async fn a_device_that_does_not_restart_or_does_not_come_back_is_a_failure() {
    let simulator = start(|options| options.reboot_s = 60.0);
    simulator.inject("button power").unwrap();
    let (result, _) = run_with(&simulator, "reboot HOST --yes", &mut script(), impatience()).await;
    let error = result.unwrap_err();
    assert!(error.contains("has not come back within"), "{error}");
}

#[tokio::test]
async fn what_is_not_acknowledged_is_never_called_done() {
    let address = stubborn().await;
    let file = image("stubborn", 300);
    let update = format!("update HOST {} --yes NOBODY", file.display());
    for (line, part) in [
        ("reboot HOST --yes NOBODY", "goes on as before"),
        (
            "printer-type HOST klipper --yes NOBODY",
            "goes on as before",
        ),
        ("factory-reset HOST --yes NOBODY", "has not acknowledged it"),
        (
            "hostname HOST Breath2",
            "may have taken the name all the same",
        ),
        ("ap on HOST", "has not acknowledged it"),
        (
            "ap set HOST --new-password --yes",
            "has not acknowledged it",
        ),
        ("language HOST zh", "has not taken the language"),
        ("unbind HOST --yes", "does not say that it is unbound"),
        ("wifi scan HOST", "has not told what it sees"),
        (&update, "the upload broke off after"),
    ] {
        let mut out = Vec::new();
        let mut person = script();
        let mut world = World {
            patience: impatience(),
            person: &mut person,
            out: &mut out,
        };
        let line = line.replace("HOST", &address);
        let line = line.replace("NOBODY", &format!("--moonraker {}", closed()));
        let error = run_words(line.split_whitespace(), &mut world).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains(part), "{line}: {error}");
        assert!(
            !error.contains('\n') && !error.contains("geheim12"),
            "{error}"
        );
    }
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn a_factory_reset_is_acknowledged_and_says_what_comes_next() {
    for firmware in [Firmware::V0_0_0, Firmware::V1_0_3] {
        let simulator = device(firmware);
        let (result, text) = run(&simulator, "factory-reset HOST --yes NOBODY").await;
        assert_eq!(result, Ok(()), "{text}");
        assert!(text.contains("192.168.254.1"), "{text}");
        let down = |entry: &_core::sim::Entry| entry.event == Event::Down;
        assert!(simulator.wait_for(down, LIMIT).is_some());
    }
}

#[tokio::test]
async fn a_firmware_that_nobody_has_read_is_said_to_be_one() {
    let simulator = start(|options| options.dialect = Dialect::StockMqtt);
    simulator.inject("button power").unwrap();
    let (result, text) = run(&simulator, "reboot HOST --yes NOBODY").await;
    assert_eq!(result, Ok(()));
    assert!(text.contains("Nobody has read this firmware"), "{text}");
}
