//! `panda-breath device` against simulated devices.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers may panic as its tests do"
)]

#[path = "device/network.rs"]
mod network;
#[path = "device/printer.rs"]
mod printer;
#[path = "device/refused.rs"]
mod refused;
#[path = "device/restart.rs"]
mod restart;
#[path = "device/simulated.rs"]
mod simulated;
#[path = "device/status.rs"]
mod status;
#[path = "device/update.rs"]
mod update;

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use _core::cli::bind::visit;
use _core::cli::device::{Patience, Person, World, run_words};
use _core::sim::{Dialect, Event, Firmware, Options, Simulator};
use futures_util::SinkExt;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

const LIMIT: Duration = Duration::from_secs(20);
/// What every simulated device has in its snapshot, and nobody may see (rule R11).
const SECRETS: [&str; 4] = ["not-a-password", "987654321", "geheim12", "ACCESSCODE"];

/// Who answers in a test.
struct Script {
    agrees: Option<bool>,
    password: &'static str,
    questions: Vec<String>,
    progress: Vec<usize>,
    /// Done when a question is asked, before it is answered.
    meanwhile: Option<Box<dyn FnMut()>>,
}

impl Person for Script {
    fn agrees(&mut self, question: &str) -> io::Result<bool> {
        self.questions.push(question.to_owned());
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile();
        }
        self.agrees
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
    }

    fn password(&mut self, _: Option<&Path>, prompt: &str) -> io::Result<(String, String)> {
        self.questions.push(prompt.to_owned());
        Ok((self.password.to_owned(), "the password".to_owned()))
    }

    fn progress(&mut self, sent: usize, _: usize) {
        self.progress.push(sent);
    }
}

fn script() -> Script {
    Script {
        agrees: None,
        password: "geheim12",
        questions: Vec::new(),
        progress: Vec::new(),
        meanwhile: None,
    }
}

fn patience() -> Patience {
    Patience {
        visit: visit::Patience {
            open: Duration::from_secs(3),
            ..visit::Patience::default()
        },
        answer: Duration::from_secs(3),
        silence: Duration::from_secs(2),
        between: Duration::from_millis(100),
        back: LIMIT,
        join: Duration::from_secs(10),
        ..Patience::default()
    }
}

/// For what never comes.
fn impatience() -> Patience {
    Patience {
        answer: Duration::from_millis(700),
        silence: Duration::from_millis(1500),
        leave: Duration::from_secs(1),
        back: Duration::from_millis(700),
        join: Duration::from_secs(2),
        scan: Duration::from_millis(300),
        stall: Duration::from_secs(1),
        ..patience()
    }
}

/// A device that is off; time goes ten times as fast where it scans and connects.
fn device(firmware: Firmware) -> Simulator {
    let simulator = start(|options| options.setup.firmware = firmware);
    simulator.inject("button power").unwrap();
    simulator
}

fn start(change: impl FnOnce(&mut Options)) -> Simulator {
    let mut options = Options {
        reboot_s: 0.3,
        speed: 10.0,
        ..Options::default()
    };
    change(&mut options);
    Simulator::start(options).unwrap()
}

/// Runs a command line with `HOST` in it; nobody prints anywhere near here.
async fn run(simulator: &Simulator, line: &str) -> (Result<(), String>, String) {
    run_with(simulator, line, &mut script(), patience()).await
}

async fn run_with(
    simulator: &Simulator,
    line: &str,
    person: &mut Script,
    patience: Patience,
) -> (Result<(), String>, String) {
    let nobody = format!("--moonraker {}", closed());
    let host = simulator.address(0).to_string();
    let words = line.replace("HOST", &host);
    let words = words.replace("NOBODY", &nobody);
    let mut out = Vec::new();
    let mut world = World {
        patience,
        person,
        out: &mut out,
    };
    let result = run_words(words.split_whitespace(), &mut world).await;
    let result = result.map_err(|error| error.to_string());
    let text = String::from_utf8(out).unwrap();
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret}: {text}");
        if let Err(error) = &result {
            assert!(!error.contains(secret), "{secret}: {error}");
        }
    }
    (result, text)
}

/// Where nobody listens.
fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// The frames that a device got.
fn frames(simulator: &Simulator) -> Vec<Value> {
    let entries = simulator.entries();
    let texts = entries.iter().filter_map(|entry| {
        let Event::Frame { text, opcode, .. } = &entry.event else {
            return None;
        };
        assert_eq!(*opcode, "text", "no ping, no close, nothing else");
        Some(serde_json::from_str(text).unwrap())
    });
    texts.collect()
}

/// The most connections that there were at once.
fn most_open(simulator: &Simulator) -> usize {
    let entries = simulator.entries();
    let open = entries.iter().filter_map(|entry| {
        let Event::Open { open, .. } = entry.event else {
            return None;
        };
        Some(open)
    });
    open.max().unwrap_or(0)
}

fn downs(simulator: &Simulator) -> usize {
    let entries = simulator.entries();
    entries
        .iter()
        .filter(|entry| entry.event == Event::Down)
        .count()
}

/// A Moonraker that says this about its print, once per connection.
fn moonraker(state: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 1024];
            let length = stream.read(&mut head).unwrap();
            let asked = b"GET /printer/objects/query?print_stats HTTP/1.1\r\n";
            assert!(head[..length].starts_with(asked));
            let body =
                format!(r#"{{"result":{{"status":{{"print_stats":{{"state":"{state}"}}}}}}}}"#);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).unwrap();
        }
    });
    address
}

/// A file with an image that a device takes, of about so many bytes.
fn image(name: &str, length: usize) -> PathBuf {
    let mut bytes = vec![0; 24];
    (bytes[0], bytes[1], bytes[12]) = (0xe9, 1, 5);
    bytes.extend([0; 4]);
    bytes.extend(u32::try_from(length).unwrap().to_le_bytes());
    let mut part = vec![7; length];
    part[..80].fill(0);
    part[..4].copy_from_slice(&0xabcd_5432_u32.to_le_bytes());
    part[16..21].copy_from_slice(b"9.8.7");
    part[48..54].copy_from_slice(b"breath");
    let sum = part.iter().fold(0xef, |sum, byte| sum ^ byte);
    bytes.extend(part);
    bytes.resize((bytes.len() / 16 + 1) * 16, 0);
    *bytes.last_mut().unwrap() = sum;
    let path = std::env::temp_dir().join(format!("device-{}-{name}.bin", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    path
}
