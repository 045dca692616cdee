//! What happened to the simulated devices: JSON lines in a file, and entries for tests to wait for.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use super::clock::now_s;
use super::device::State;
use super::esphome;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// `CLOCK_MONOTONIC`, in seconds.
    pub t: f64,
    /// Which device; left out of the file when there is only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<usize>,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A frame arrived from a client.
    Frame {
        /// Its payload.
        text: String,
        /// Which connection, counted from 1.
        client: u64,
        /// `text`, or another kind of frame, whose payload may be empty; `publish` over MQTT,
        /// where `text` is the topic, a space and the payload.
        opcode: &'static str,
    },
    /// The device does something else now, or 10 simulated seconds are over.
    State {
        /// Master switch, 0 or 1 as on the wire.
        work_on: u8,
        /// Mode, in the numbers of this firmware.
        work_mode: u8,
        /// Target of the modes Auto and On.
        set_temp: u8,
        /// Whether the heating element has power.
        heater: bool,
        /// The air in the chamber, °C.
        chamber: f64,
        /// The rest of the chamber, °C; left out where that is simulated as one.
        #[serde(skip_serializing_if = "Option::is_none")]
        cavity: Option<f64>,
        /// The temperature the device reports, °C.
        reading: i32,
    },
    /// The same for an ESPHome node: a line has the same form, and its numbers are not whole.
    #[serde(rename = "state")]
    Node {
        /// 1 in mode `heat`.
        work_on: u8,
        /// Always 2, which is the stock firmware's word for heating to a target.
        work_mode: u8,
        /// Target, or the middle between low and high.
        set_temp: f64,
        /// Whether the relay is closed.
        heater: bool,
        /// The air in the chamber, °C.
        chamber: f64,
        /// The rest of the chamber, °C; left out where that is simulated as one.
        #[serde(skip_serializing_if = "Option::is_none")]
        cavity: Option<f64>,
        /// What the chamber sensor published last, °C; none while that is nothing or NaN.
        reading: Option<f64>,
    },
    /// A connection was accepted, or the broker has accepted ours.
    Open {
        /// Which one, counted from 1.
        client: u64,
        /// How many there are now.
        open: usize,
    },
    /// A connection has ended.
    Close {
        /// Which one, counted from 1.
        client: u64,
        /// How many are left.
        open: usize,
    },
    /// A command was injected.
    Inject {
        /// The command, as written.
        text: String,
    },
    /// The broker cannot be reached; said again only when the reason changes.
    Unreachable {
        /// Why not.
        text: String,
    },
    /// The device lost power or restarts.
    Down,
    /// The device answers again.
    Up,
}

/// Collects entries.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<Mutex<File>>,
    /// With several devices each entry names its own.
    names_devices: bool,
    entries: Option<Mutex<Vec<Entry>>>,
    grown: Condvar,
}

impl Event {
    pub(crate) fn state(state: &State) -> Self {
        Event::State {
            work_on: state.work_on.into(),
            work_mode: state.work_mode,
            set_temp: state.set_temp,
            heater: state.heater,
            chamber: hundredths(state.chamber),
            cavity: state.cavity.map(hundredths),
            reading: state.reading,
        }
    }
}

impl Event {
    pub(crate) fn node(state: &esphome::State) -> Self {
        Event::Node {
            work_on: state.heat.into(),
            work_mode: 2,
            set_temp: hundredths(state.target_c),
            heater: state.relay,
            chamber: hundredths(state.chamber_c),
            cavity: state.cavity_c.map(hundredths),
            reading: state.reading_c.map(hundredths),
        }
    }

    /// A message from the broker.
    pub(crate) fn message(client: u64, topic: &str, payload: &[u8]) -> Self {
        Event::Frame {
            text: format!("{topic} {}", String::from_utf8_lossy(payload)),
            client,
            opcode: "publish",
        }
    }
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

impl Log {
    /// A log into a file, into memory, both or nowhere.
    pub(crate) fn create(file: Option<&Path>, keep: bool, names_devices: bool) -> io::Result<Self> {
        Ok(Log {
            file: file.map(File::create).transpose()?.map(Mutex::new),
            names_devices,
            entries: keep.then(Mutex::default),
            grown: Condvar::new(),
        })
    }

    /// Notes what happened to a device, now.
    pub(crate) fn note(&self, device: usize, event: Event) {
        self.note_at(now_s(), device, event);
    }

    /// Notes what happened to a device at `t`.
    pub(crate) fn note_at(&self, t: f64, device: usize, event: Event) {
        let device = self.names_devices.then_some(device);
        let entry = Entry {
            t: (t * 1e6).round() / 1e6,
            device,
            event,
        };
        if let Some(file) = &self.file {
            // A full disk must not end a simulation: the log simply has a gap then.
            if let Ok(mut line) = serde_json::to_vec(&entry) {
                line.push(b'\n');
                let _ = file.lock().write_all(&line);
            }
        }
        if let Some(entries) = &self.entries {
            entries.lock().push(entry);
            self.grown.notify_all();
        }
    }

    /// Everything so far.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.entries
            .as_ref()
            .map(|entries| entries.lock().clone())
            .unwrap_or_default()
    }

    /// The first entry from number `start` on that fits, waiting for it if need be.
    pub(crate) fn wait_for(
        &self,
        start: usize,
        fits: impl Fn(&Entry) -> bool,
        timeout: Duration,
    ) -> Option<Entry> {
        let end = now_s() + timeout.as_secs_f64();
        let mut seen = start;
        let mut entries = self.entries.as_ref()?.lock();
        loop {
            let new = entries.get(seen..).unwrap_or_default();
            if let Some(found) = new.iter().find(|entry| fits(entry)) {
                return Some(found.clone());
            }
            seen = seen.max(entries.len());
            let left = Duration::try_from_secs_f64(end - now_s()).ok()?;
            self.grown.wait_for(&mut entries, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_documented_form() {
        let line = |device, event| {
            serde_json::to_string(&Entry {
                t: 1.5,
                device,
                event,
            })
            .unwrap()
        };
        assert_eq!(
            line(
                None,
                Event::Frame {
                    text: "{}".into(),
                    client: 1,
                    opcode: "text"
                }
            ),
            r#"{"t":1.5,"event":"frame","text":"{}","client":1,"opcode":"text"}"#
        );
        let state = State {
            work_on: true,
            work_mode: 2,
            set_temp: 45,
            drying: false,
            programme: (60, 12),
            heater: true,
            chamber: 30.126,
            cavity: None,
            reading: 30,
        };
        assert_eq!(
            line(Some(3), Event::state(&state)),
            r#"{"t":1.5,"device":3,"event":"state","work_on":1,"work_mode":2,"set_temp":45,"heater":true,"chamber":30.13,"reading":30}"#
        );
        let state = esphome::State {
            heat: true,
            target_c: 45.0,
            high_c: 45.0,
            relay: false,
            chamber_c: 30.126,
            cavity_c: Some(24.004),
            reading_c: None,
        };
        assert_eq!(
            line(None, Event::node(&state)),
            r#"{"t":1.5,"event":"state","work_on":1,"work_mode":2,"set_temp":45.0,"heater":false,"chamber":30.13,"cavity":24.0,"reading":null}"#
        );
        assert_eq!(line(None, Event::Up), r#"{"t":1.5,"event":"up"}"#);
    }

    #[test]
    fn waiting_ends_with_the_entry_or_the_timeout() {
        let log = Log::create(None, true, false).unwrap();
        log.note(0, Event::Down);
        let found = log.wait_for(0, |entry| entry.event == Event::Down, Duration::ZERO);
        assert!(found.is_some());
        let later = log.wait_for(1, |entry| entry.event == Event::Down, Duration::ZERO);
        assert_eq!(later, None);
    }
}
