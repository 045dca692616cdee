//! `panda-breath monitor`, `record`, `replay` and `report` against simulated devices, and a real
//! broker. Those with a broker are skipped where mosquitto is not installed.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers may panic as its tests do"
)]

#[path = "view/behind_broker.rs"]
mod behind_broker;
#[path = "broker/client.rs"]
#[allow(dead_code, reason = "it serves other tests as well")]
mod client;
mod mosquitto;
#[path = "view/page.rs"]
mod page;
#[path = "view/recording.rs"]
mod recording;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use _core::cli::monitor::{Options, lines};
use _core::driver::visit::Place;
use _core::sim::{Event, Simulator};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::timeout;

/// For what must come; on a machine that does other things as well.
const LIMIT: Duration = Duration::from_secs(60);

fn device() -> Simulator {
    Simulator::start(_core::sim::Options::default()).unwrap()
}

fn place(address: SocketAddr) -> Place {
    address.to_string().parse().unwrap()
}

fn options(simulator: &Simulator) -> Options {
    Options {
        place: place(simulator.address(0)).into(),
        refresh: None,
        time: None,
        json: true,
        every: Duration::from_millis(100),
    }
}

/// How many connections there were at most, having made sure that nothing was ever sent.
#[track_caller]
fn most_connections(simulator: &Simulator) -> usize {
    let entries = simulator.entries();
    let open = entries.iter().filter_map(|entry| match &entry.event {
        Event::Frame { text, .. } => panic!("it has sent {text:?}"),
        Event::Open { open, .. } => Some(*open),
        Event::State { .. }
        | Event::Node { .. }
        | Event::Close { .. }
        | Event::Inject { .. }
        | Event::Unreachable { .. }
        | Event::Down
        | Event::Up => None,
    });
    open.max().unwrap_or(0)
}

/// What is written, until something in it fits.
struct Until<F> {
    text: Vec<u8>,
    fits: F,
    done: Arc<Notify>,
}

impl<F: FnMut(&str) -> bool> Write for Until<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        if let Some(line) = bytes.strip_suffix(b"\n") {
            let start = self.text.len() - bytes.len();
            let start = self.text[..start].iter().rposition(|byte| *byte == b'\n');
            let start = start.map_or(0, |at| at + 1);
            let end = self.text.len() - (bytes.len() - line.len());
            if (self.fits)(std::str::from_utf8(&self.text[start..end]).unwrap()) {
                self.done.notify_one();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Everything that the monitor writes until a line fits.
async fn monitored(options: &Options, fits: impl FnMut(&str) -> bool) -> String {
    let done = Arc::new(Notify::new());
    let mut out = Until {
        text: Vec::new(),
        fits,
        done: Arc::clone(&done),
    };
    let watching = lines(options, &mut out, done.notified());
    timeout(LIMIT, watching).await.unwrap().unwrap();
    String::from_utf8(out.text).unwrap()
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

#[tokio::test]
async fn what_the_device_says_is_a_line_of_json_and_nothing_is_sent() {
    let simulator = device();
    let text = monitored(&options(&simulator), |line| {
        json(line)["temperature"] == 22.0
    })
    .await;
    let last = json(text.lines().last().unwrap());
    for (key, value) in [
        ("link", Value::from("connected")),
        ("device_on", true.into()),
        ("mode", "auto".into()),
        ("device_target", 60.0.into()),
        ("firmware_version", "V1.0.3".into()),
        ("fault", Value::Null),
        ("error", Value::Null),
        ("reconnects", 0.into()),
    ] {
        assert_eq!(last[key], value, "{key}: {last}");
    }
    let events = text
        .lines()
        .flat_map(|line| json(line)["events"].as_array().cloned().unwrap());
    let events: Vec<_> = events.collect();
    assert_eq!(events, ["connected, firmware V1.0.3"]);
    assert_eq!(most_connections(&simulator), 1);
    for secret in ["Simulated", "not-a-password", "987654321", "025042"] {
        assert!(!text.contains(secret), "r11: {secret}: {text}");
    }
}

#[tokio::test]
async fn words_are_written_where_no_json_is_asked_for() {
    let simulator = device();
    let options = Options {
        json: false,
        ..options(&simulator)
    };
    let text = monitored(&options, |line| line.contains("22 C, target 60 C")).await;
    assert!(text.contains("Z connected, firmware V1.0.3\n"), "{text}");
    assert!(
        text.contains("device on, mode auto, link connected, "),
        "{text}"
    );
}

#[tokio::test]
async fn what_others_set_is_seen_after_a_refresh_and_it_holds_one_connection_at_a_time() {
    let simulator = device();
    let options = Options {
        refresh: Some(Duration::from_millis(700)),
        ..options(&simulator)
    };
    let mut seen = 0;
    let text = monitored(&options, |_| {
        seen += 1;
        seen > 30
    })
    .await;
    let last = json(text.lines().last().unwrap());
    assert_eq!(last["link"], "connected");
    assert_eq!(last["reconnects"], 0, "a refresh is no lost connection");
    assert_eq!(text.matches("connected, firmware").count(), 1);
    let entries = simulator.entries();
    let opened = entries
        .iter()
        .filter(|entry| matches!(entry.event, Event::Open { .. }));
    assert!(opened.count() >= 3, "it has refreshed");
    assert_eq!(most_connections(&simulator), 1);
}

#[tokio::test]
async fn a_lost_connection_is_told_and_made_again() {
    let simulator = device();
    let mut cut = false;
    let text = monitored(&options(&simulator), |line| {
        let line = json(line);
        if !cut && line["link"] == "connected" {
            cut = true;
            simulator.inject("drop").unwrap();
        }
        line["reconnects"] == 1 && line["link"] == "connected"
    })
    .await;
    assert!(text.contains("connection lost: "), "{text}");
    assert_eq!(text.matches("connected, firmware").count(), 2);
    assert_eq!(most_connections(&simulator), 1);
}

#[tokio::test]
async fn a_button_and_a_fault_are_events() {
    let simulator = device();
    let mut step = 0;
    let text = monitored(&options(&simulator), |line| {
        let line = json(line);
        match step {
            0 if line["link"] == "connected" => simulator.inject("button power").unwrap(),
            1 if line["device_on"] == false => simulator.inject("button on").unwrap(),
            2 if line["heating"] == true => simulator.inject("fault ptc-open").unwrap(),
            3 if line["fault"] != Value::Null => {}
            _ => return false,
        }
        step += 1;
        step == 4
    })
    .await;
    for event in [
        "the device is off",
        "the device is on",
        "mode on",
        "fault: heating element sensor disconnected",
    ] {
        assert!(text.contains(event), "{event}: {text}");
    }
}

#[tokio::test]
async fn a_device_that_is_not_there_is_a_failure_where_a_time_is_given() {
    let simulator = device();
    let options = Options {
        time: Some(Duration::from_millis(500)),
        ..options(&simulator)
    };
    drop(simulator);
    let error = lines(&options, &mut Vec::new(), std::future::pending()).await;
    let error = error.unwrap_err().to_string();
    assert_eq!(error, format!("{}: connection refused", options.place));
}
