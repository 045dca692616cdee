//! `record`, `replay` and `report`: what is in a recording, and what is made of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use _core::cli::record::{Options, Recorded, record};
use _core::cli::replay::{self, replay};
use _core::cli::report::page_of;
use _core::sim::{Firmware, Setup, Simulator};
use roxmltree::{Document, ParsingOptions};
use serde_json::Value;

use super::{json, most_connections, place};

const SECRETS: [&str; 8] = [
    "geheim",        // all names and passwords
    "0A0B0C",        // the MAC address in the name of the access point
    "127.0.0.1",     // where the device is
    "192.168.254.1", // its access point's address
    "PandaBreath",   // its host name
    "01S00A",        // the printer's serial number
    "192.0.2.",      // the stand-in for where it is
    "Simulated",
];

fn device() -> Simulator {
    let setup = Setup {
        firmware: Firmware::V1_0_2, // knows a printer with access code and serial number
        identity: "02:50:42:0A:0B:0C".parse().unwrap(),
        wifi_ssid: "geheim-network".to_owned(),
        wifi_password: "geheim-password".to_owned(),
        ap_password: "geheim-access-point".to_owned(),
        access_code: Some("geheim-code".to_owned()),
        ..Setup::default()
    };
    let options = _core::sim::Options {
        setup,
        ..Default::default()
    };
    Simulator::start(options).unwrap()
}

#[tokio::test]
async fn a_device_that_dries_is_played_back_as_one_that_nobody_stops() {
    let simulator = Simulator::start(_core::sim::Options::default()).unwrap();
    let options = Options {
        place: place(simulator.address(0)).into(),
        refresh: Some(Duration::from_millis(1_300)),
        time: Some(Duration::from_secs(9)),
        most: 1_000_000,
    };
    let mut file = Vec::new();
    let events = async {
        for event in ["button dry", "button power", "button dry"] {
            tokio::time::sleep(Duration::from_millis(1_800)).await;
            simulator.inject(event).unwrap();
        }
        std::future::pending::<()>().await;
    };
    record(&options, &mut file, events).await.unwrap();
    let text = String::from_utf8(file).unwrap();
    let (result, out) = replayed(&text, None);
    assert_eq!(result, Ok(()), "{out}");
    for part in ["mode auto", "mode drying", "device off", "device on"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    for wrong in ["turning it off", "fault", "would send"] {
        assert!(!out.contains(wrong), "{wrong}: {out}");
    }
    // Klipper would turn it off, of course.
    let (_, out) = replayed(&text, Some(0));
    assert!(out.contains("the device is on; turning it off"), "{out}");
}

/// A device that is turned on, told nonsense about, cut off and broken.
async fn eventful() -> (String, Recorded) {
    let simulator = device();
    let options = Options {
        place: place(simulator.address(0)).into(),
        refresh: Some(Duration::from_millis(1_300)),
        time: Some(Duration::from_secs(9)),
        most: 1_000_000,
    };
    let mut file = Vec::new();
    let events = async {
        for event in [
            "button on",
            r#"raw {"wifi":{"list":[{"ssid":"geheim-neighbour"}]},"settings":{"geheim":1}}"#,
            "raw geheim, and no JSON",
            "drop",
            "fault ptc-open",
        ] {
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            simulator.inject(event).unwrap();
        }
        std::future::pending::<()>().await;
    };
    let recorded = record(&options, &mut file, events).await.unwrap();
    assert_eq!(most_connections(&simulator), 1);
    (String::from_utf8(file).unwrap(), recorded)
}

pub(super) struct File(PathBuf);

impl File {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let name = format!("panda-breath-{name}-{}.jsonl", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(super) fn replayed(text: &str, target: Option<u8>) -> (Result<(), String>, String) {
    let name = std::thread::current()
        .name()
        .unwrap_or("")
        .replace("::", "-");
    let file = File::new(&name, text);
    let mut out = Vec::new();
    let options = replay::Options {
        target,
        json: false,
    };
    let result = replay(file.path(), options, &mut out);
    let result = result.map_err(|error| error.to_string());
    (result, String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn r11_a_recording_is_played_back_and_becomes_a_page_and_no_secret_is_in_either() {
    let (text, recorded) = eventful().await;
    assert!(recorded.messages > 10 && !recorded.full, "{recorded:?}");
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let lines: Vec<Value> = text.lines().map(json).collect();
    for event in [
        "opened",
        "refreshed",
        "message",
        "unreadable",
        "closed",
        "concluded",
        "ended",
    ] {
        assert!(
            lines.iter().any(|line| line["event"] == event),
            "{event}: {text}"
        );
    }
    let snapshot = lines
        .iter()
        .find(|line| line["event"] == "message")
        .unwrap();
    assert_eq!(snapshot["message"]["ap"]["ssid"], "unit 1");
    assert_eq!(
        snapshot["removed"],
        serde_json::json!(["ap", "printer", "sta", "wifi"])
    );
    let settings = &snapshot["message"]["settings"];
    assert_eq!(settings["fw_version"], "V1.0.2");
    assert_eq!(settings["set_temp"], 60);

    // What was concluded then is concluded again.
    let (result, out) = replayed(&text, None);
    assert_eq!(result, Ok(()), "{out}");
    assert!(out.contains("link connected, firmware V1.0.2"), "{out}");
    assert!(out.contains("heating element sensor disconnected"), "{out}");
    assert!(out.contains("conclusions as in the recording"), "{out}");

    // A driver that concludes something else is one that has changed.
    let other = text.replacen("heating element sensor disconnected", "nothing at all", 1);
    let (result, out) = replayed(&other, None);
    assert!(result.unwrap_err().contains("conclusions differ"), "{out}");
    assert!(
        out.contains("\n- ") && out.contains("nothing at all"),
        "{out}"
    );
    assert!(out.contains("\n+ "), "{out}");

    // What would have been sent, had Klipper wanted the device off.
    let (result, out) = replayed(&text, Some(0));
    assert_eq!(result, Ok(()), "{out}");
    assert!(
        out.contains(r#"would send {"settings":{"work_on":false}}"#),
        "{out}"
    );

    check_page(&text);
}

/// Everything that belongs on the page is there, and it is a page.
fn check_page(text: &str) {
    let file = File::new("page", text);
    let html = page_of(file.path()).unwrap();
    for secret in SECRETS {
        assert!(!html.contains(secret), "{secret}: {html}");
    }
    for outside in ["<script", "<link", "src=", "href=", "url(", "@import"] {
        assert!(!html.contains(outside), "it loads something: {outside}");
    }
    assert!(html.contains("default-src 'none'"));
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    let page = Document::parse_with_options(&html, options).unwrap();
    let with_class = |class: &str| {
        let nodes = page.descendants();
        nodes
            .filter(|node| node.attribute("class") == Some(class))
            .count()
    };
    // The temperature has a line for each stretch; the connection was cut, but not for long.
    for class in ["temperature", "target"] {
        assert!(
            with_class(class) >= 2,
            "{class}: one in the legend, and {html}"
        );
    }
    for class in ["heater", "switch", "link", "off", "lost", "unknown"] {
        assert!(with_class(class) >= 1, "{class}: {html}");
    }
    let all: String = page.descendants().filter_map(|node| node.text()).collect();
    for part in [
        "V1.0.2",
        "mode on",
        "connection lost",
        "fault: heating element sensor disconnected",
        "heater (calc.)",
        "°C",
    ] {
        assert!(all.contains(part), "{part}: {html}");
    }
}

#[tokio::test]
async fn a_recording_is_no_larger_than_it_may_be() {
    let simulator = device();
    let options = Options {
        place: place(simulator.address(0)).into(),
        refresh: None,
        time: None,
        most: 3_000,
    };
    let mut file = Vec::new();
    let recording = record(&options, &mut file, std::future::pending());
    let recorded = tokio::time::timeout(super::LIMIT, recording).await;
    assert!(recorded.unwrap().unwrap().full);
    assert!(file.len() < 4_500, "{}", file.len());
    let text = String::from_utf8(file).unwrap();
    assert!(text.ends_with("\"event\":\"ended\"}\n"), "{text}");
    assert_eq!(replayed(&text, None).0, Ok(()));
}

#[test]
fn what_is_in_a_recording_of_others_does_no_harm_to_a_page() {
    let header = r#"{"panda_breath_recording":1,"program":"<b>&","started":"<script>x</script>"}"#;
    let text = format!(
        "{header}\n{}\n{}\n",
        r#"{"ms":0,"event":"closed","why":"<script>alert(1)</script>\u0007"}"#,
        r#"{"ms":99999999999,"event":"ended"}"#
    );
    let file = File::new("hostile", &text);
    let html = page_of(file.path()).unwrap();
    assert!(!html.contains("<script"), "{html}");
    assert!(html.len() < 100_000, "{}", html.len());
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(&html, options).unwrap();
}

#[test]
fn what_is_no_recording_is_told_with_its_name() {
    let (result, _) = replayed("[heater_bed]\n", None);
    let error = result.unwrap_err();
    assert!(error.contains(".jsonl: line 1: not a recording"), "{error}");
    let error = page_of(Path::new("/nonexistent/file")).unwrap_err();
    assert!(
        error.to_string().starts_with("/nonexistent/file: "),
        "{error}"
    );
}

#[test]
fn an_old_recording_is_replaced_when_the_device_is_heard() {
    let simulator = device();
    let file = File::new("forced", "old");
    let name = file.path().to_str().unwrap();
    let address = simulator.address(0).to_string();
    let words = ["panda-breath", "record", &address, name, "--for", "2"];
    let words = words.map(std::ffi::OsString::from);
    assert_eq!(_core::cli::run(words.clone().into_iter()), 1, "it exists");
    assert_eq!(std::fs::read_to_string(name).unwrap(), "old");
    let forced = words.into_iter().chain(["--force".into()]);
    assert_eq!(_core::cli::run(forced), 0);
    let text = std::fs::read_to_string(name).unwrap();
    assert!(text.starts_with(r#"{"panda_breath_recording":1"#), "{text}");
    assert!(text.ends_with("\"event\":\"ended\"}\n"), "{text}");
    assert_eq!(replayed(&text, None).0, Ok(()));
}
