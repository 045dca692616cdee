//! The commands that make a simulated device misbehave while it runs.

use std::str::FromStr;
use std::time::Duration;

use super::device::{Button, Fault};
use super::esphome::unit::knows;
use super::identity::{Identity, from_hex};
use super::simulator::Dialect;
use crate::driver::mqtt::Publication;

/// A command and the device it is for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Injection {
    /// `@INDEX`; without it all devices are meant.
    pub(crate) device: Option<usize>,
    pub(crate) command: Command,
    /// As it was written.
    pub(crate) text: String,
}

/// What can be done to a device.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    Button(Button),
    Fault(Fault),
    ClearFaults,
    Drop,
    Hang {
        new_ones_too: bool,
    },
    Resume,
    Refuse(Duration),
    Reboot,
    PowerCut(Duration),
    Garbage,
    Raw(String),
    /// As `raw` over MQTT, and the broker keeps it.
    RawRetain(String),
    RawHex(Vec<u8>),
    Mute(Duration),
    Drip {
        on: bool,
    },
    Chamber(f64),
    Door {
        open: bool,
    },
    Bed(u8),
    Printer {
        away: bool,
    },
    Upload(Uploads),
    Identity(Identity),
    Flood {
        per_second: u32,
        time: Duration,
    },
}

/// What becomes of firmware uploads (section 7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Uploads {
    /// They are taken as fast as they come.
    #[default]
    Normal,
    /// One chunk of 4096 bytes in 100 ms.
    Slow,
    /// The connection breaks after 64 KiB.
    Broken,
    /// What came of it is not said.
    Silent,
}

impl FromStr for Injection {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let text = line.trim_end_matches(['\r', '\n']).trim_start();
        let (device, rest) = match text.strip_prefix('@') {
            None => (None, text),
            Some(addressed) => {
                let (index, rest) = split(addressed);
                let index = index
                    .parse()
                    .map_err(|_| format!("'@{index}' is not a device"))?;
                (Some(index), rest)
            }
        };
        let command = rest.parse()?;
        Ok(Injection {
            device,
            command,
            text: text.to_owned(),
        })
    }
}

impl FromStr for Command {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let (word, rest) = split(line);
        // `raw` keeps its text as it is; the others have words.
        let argument = rest.trim();
        match (word, argument) {
            ("button", _) => argument.parse().map(Command::Button),
            ("fault", "clear") => Ok(Command::ClearFaults),
            ("fault", _) => argument.parse().map(Command::Fault),
            ("drop", "") => Ok(Command::Drop),
            ("hang", "") => Ok(Command::Hang {
                new_ones_too: false,
            }),
            ("hang", "all") => Ok(Command::Hang { new_ones_too: true }),
            ("resume", "") => Ok(Command::Resume),
            ("refuse", _) => seconds(argument).map(Command::Refuse),
            ("reboot", "") => Ok(Command::Reboot),
            ("powercut", _) => seconds(argument).map(Command::PowerCut),
            ("garbage", "") => Ok(Command::Garbage),
            ("raw", _) => Ok(Command::Raw(rest.to_owned())),
            ("rawretain", _) => Ok(Command::RawRetain(rest.to_owned())),
            ("rawhex", _) => {
                let digits: String = argument.split_whitespace().collect();
                let bytes = from_hex(&digits).ok_or("rawhex needs pairs of hex digits")?;
                Ok(Command::RawHex(bytes))
            }
            ("mute", _) => seconds(argument).map(Command::Mute),
            ("drip", "" | "on") => Ok(Command::Drip { on: true }),
            ("drip", "off") => Ok(Command::Drip { on: false }),
            ("chamber", _) => temperature(argument).map(Command::Chamber),
            ("door", "open") => Ok(Command::Door { open: true }),
            ("door", "closed") => Ok(Command::Door { open: false }),
            ("door", _) => Err(format!("the door is open or closed, not '{argument}'")),
            ("bed", _) => {
                let bed_c = argument.parse();
                bed_c
                    .map(Command::Bed)
                    .map_err(|_| format!("'{argument}' is not a bed target"))
            }
            ("printer", "away") => Ok(Command::Printer { away: true }),
            ("printer", "back") => Ok(Command::Printer { away: false }),
            ("printer", _) => Err(format!("the printer is away or back, not '{argument}'")),
            ("upload", "normal") => Ok(Command::Upload(Uploads::Normal)),
            ("upload", "slow") => Ok(Command::Upload(Uploads::Slow)),
            ("upload", "broken") => Ok(Command::Upload(Uploads::Broken)),
            ("upload", "silent") => Ok(Command::Upload(Uploads::Silent)),
            ("upload", _) => Err(format!(
                "uploads are normal, slow, broken or silent, not '{argument}'"
            )),
            ("identity", _) => {
                let identity = argument.parse().map(Command::Identity);
                identity.map_err(|error| format!("'{argument}' is {error}"))
            }
            ("flood", _) => {
                let (rate, time) = split(argument);
                let per_second = rate
                    .parse()
                    .map_err(|_| format!("'{rate}' is not a number of frames"))?;
                Ok(Command::Flood {
                    per_second,
                    time: seconds(time)?,
                })
            }
            ("drop" | "hang" | "resume" | "reboot" | "garbage" | "drip", _) => {
                Err(format!("'{word}' does not take '{argument}'"))
            }
            _ => Err(format!("unknown command '{word}'; known are: {KNOWN}")),
        }
    }
}

impl Command {
    /// Says what is wrong with it for devices of this dialect.
    pub(crate) fn fits(&self, dialect: Dialect) -> Result<(), String> {
        let over_mqtt = dialect != Dialect::Stock;
        let node = dialect == Dialect::Esphome;
        let wrong = match self {
            Command::RawRetain(_) if !over_mqtt => "'rawretain' needs a broker",
            Command::Raw(text) | Command::RawRetain(text) if over_mqtt => {
                let topic = split(text).0;
                if !topic.is_empty() && !topic.contains(['#', '+']) {
                    return Ok(());
                }
                "over MQTT it is 'raw TOPIC PAYLOAD'"
            }
            Command::RawHex(_) if node => "'rawhex' needs a WebSocket",
            Command::Drip { .. } if node => "'drip' needs a WebSocket",
            Command::Bed(_) | Command::Printer { .. } if node => "an ESPHome node knows no printer",
            Command::Upload(_) if node => "an ESPHome node takes no uploads here",
            Command::Identity(_) if node => "an ESPHome node keeps its MAC address",
            Command::Button(button) if node && !matches!(button, Button::Power | Button::On) => {
                "an ESPHome node has 'button power' and 'button on' only"
            }
            Command::Fault(fault) if node && !knows(*fault) => {
                "an ESPHome node has the faults chamber-open, ptc-open and heater only"
            }
            Command::Button(_)
            | Command::Fault(_)
            | Command::ClearFaults
            | Command::Drop
            | Command::Hang { .. }
            | Command::Resume
            | Command::Refuse(_)
            | Command::Reboot
            | Command::PowerCut(_)
            | Command::Garbage
            | Command::Raw(_)
            | Command::RawRetain(_)
            | Command::RawHex(_)
            | Command::Mute(_)
            | Command::Drip { .. }
            | Command::Chamber(_)
            | Command::Door { .. }
            | Command::Bed(_)
            | Command::Printer { .. }
            | Command::Upload(_)
            | Command::Identity(_)
            | Command::Flood { .. } => return Ok(()),
        };
        Err(wrong.to_owned())
    }
}

/// What `raw` and `rawretain` publish: a topic, a space, and the payload as it is.
pub(crate) fn publication(text: &str, retain: bool) -> Publication {
    let (topic, payload) = split(text);
    Publication {
        topic: topic.to_owned(),
        payload: payload.into(),
        retain,
    }
}

/// The frames that `garbage` sends, one of each kind a client must survive. A client that takes at
/// most 64 KiB still takes each of them.
pub(crate) fn garbage() -> Vec<Vec<u8>> {
    let reading = |value: &str| format!("{{\"settings\":{{\"warehouse_temper\":{value}}}}}");
    let mut texts: Vec<String> = [
        "garbage",
        "",
        "null",
        "42",
        "[1,2]",
        r#"{"settings":null}"#,
        r#"{"settings":[{"warehouse_temper":30}]}"#,
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push("[".repeat(30_000) + &"]".repeat(30_000));
    texts.push("9".repeat(400));
    for value in [
        "null", "[[30]]", "\"NaN\"", "NaN", "Infinity", "1e400", "-300", "500", "true",
    ] {
        texts.push(reading(value));
    }
    let mut frames: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    frames.push(b"\xff\xfe{\"settings\":{\"warehouse_temper\":30}}".to_vec());
    frames
}

fn split(text: &str) -> (&str, &str) {
    text.split_once([' ', '\t']).unwrap_or((text, ""))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .trim()
        .parse()
        .ok()
        .filter(|seconds| (0.0..=MAX_S).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("'{text}' is not a number of seconds from 0 to {MAX_S}"))
}

fn temperature(text: &str) -> Result<f64, String> {
    let temperature = text
        .parse()
        .ok()
        .filter(|celsius| (-50.0..=150.0).contains(celsius));
    temperature.ok_or_else(|| format!("'{text}' is not a temperature from -50 to 150"))
}

const MAX_S: f64 = 86_400.0;
const KNOWN: &str = "button, fault, drop, hang, resume, refuse, reboot, powercut, garbage, raw, \
                     rawretain, rawhex, mute, drip, chamber, door, bed, \
                     printer, upload, identity, flood";

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> Command {
        text.parse::<Injection>().unwrap().command
    }

    #[test]
    fn every_command_is_read() {
        assert_eq!(command("button power"), Command::Button(Button::Power));
        assert_eq!(command("fault ptc-open"), Command::Fault(Fault::PtcOpen));
        assert_eq!(command("fault clear"), Command::ClearFaults);
        assert_eq!(command("drop"), Command::Drop);
        assert_eq!(
            command("hang"),
            Command::Hang {
                new_ones_too: false
            }
        );
        assert_eq!(command("hang all"), Command::Hang { new_ones_too: true });
        assert_eq!(command("resume\n"), Command::Resume);
        assert_eq!(
            command("refuse 2.5"),
            Command::Refuse(Duration::from_millis(2500))
        );
        assert_eq!(command("reboot"), Command::Reboot);
        assert_eq!(
            command("powercut 3"),
            Command::PowerCut(Duration::from_secs(3))
        );
        assert_eq!(command("garbage"), Command::Garbage);
        assert_eq!(
            command("raw {\"a\":  1} "),
            Command::Raw("{\"a\":  1} ".into())
        );
        assert_eq!(
            command("rawhex 81 00ff"),
            Command::RawHex(vec![0x81, 0, 0xff])
        );
        assert_eq!(command("mute 1"), Command::Mute(Duration::from_secs(1)));
        assert_eq!(command("drip"), Command::Drip { on: true });
        assert_eq!(command("chamber 41.5"), Command::Chamber(41.5));
        assert_eq!(command("door open"), Command::Door { open: true });
        assert_eq!(command("door closed"), Command::Door { open: false });
        assert_eq!(command("bed 90"), Command::Bed(90));
        assert_eq!(command("printer away"), Command::Printer { away: true });
        assert_eq!(command("upload slow"), Command::Upload(Uploads::Slow));
        let mac = Identity([0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]);
        assert_eq!(
            command("identity AA:BB:CC:DD:EE:FF"),
            Command::Identity(mac)
        );
        let flood = Command::Flood {
            per_second: 1000,
            time: Duration::from_secs(60),
        };
        assert_eq!(command("flood 1000 60"), flood);
    }

    #[test]
    fn not_every_command_fits_every_dialect() {
        let fits = |text: &str, dialect| text.parse::<Command>().unwrap().fits(dialect).is_ok();
        for (text, stock, stock_mqtt, esphome) in [
            ("drop", true, true, true),
            ("raw {}", true, true, true),
            ("raw a/b 1 2", true, true, true),
            ("raw ", true, false, false),
            ("raw a/# 1", true, false, false),
            ("rawretain a/b ", false, true, true),
            ("rawhex 81", true, true, false),
            ("drip", true, true, false),
            ("bed 90", true, true, false),
            ("printer away", true, true, false),
            ("upload broken", true, true, false),
            ("identity AABBCCDDEEFF", true, true, false),
            ("button on", true, true, true),
            ("button dry", true, true, false),
            ("fault chamber-open", true, true, true),
            ("fault chamber-short", true, true, false),
        ] {
            assert_eq!(fits(text, Dialect::Stock), stock, "{text}");
            assert_eq!(fits(text, Dialect::StockMqtt), stock_mqtt, "{text}");
            assert_eq!(fits(text, Dialect::Esphome), esphome, "{text}");
        }
        let raw = publication("a/b  1 2", true);
        assert_eq!(
            (raw.topic.as_str(), raw.payload.as_slice()),
            ("a/b", b" 1 2".as_slice())
        );
    }

    #[test]
    fn a_device_can_be_named() {
        let injection: Injection = "@12 drop".parse().unwrap();
        assert_eq!(
            (injection.device, injection.command),
            (Some(12), Command::Drop)
        );
        assert_eq!(injection.text, "@12 drop");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("", "unknown command ''"),
            ("explode", "unknown command 'explode'"),
            ("button red", "unknown button 'red'"),
            ("fault none", "unknown fault 'none'"),
            ("refuse", "'' is not a number of seconds"),
            ("refuse NaN", "'NaN' is not a number of seconds"),
            ("refuse 1e99", "'1e99' is not a number of seconds"),
            ("powercut -1", "'-1' is not a number of seconds"),
            ("hang some", "'hang' does not take 'some'"),
            ("rawhex 8", "pairs of hex digits"),
            ("chamber inf", "'inf' is not a temperature"),
            ("door ajar", "the door is open or closed, not 'ajar'"),
            ("printer gone", "the printer is away or back, not 'gone'"),
            ("upload fast", "normal, slow, broken or silent, not 'fast'"),
            ("@x drop", "'@x' is not a device"),
            ("identity 12", "'12' is not a MAC address"),
        ] {
            let error = text.parse::<Injection>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn garbage_stays_below_64_kib_per_frame() {
        assert!(garbage().iter().all(|frame| frame.len() < 64 * 1024));
    }
}
