//! A recording: JSON lines, the first of which says what it is.

use std::fmt;
use std::io::BufRead;

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::delivery::Behind;
use crate::cli::replay::observer::Conclusion;
use crate::dialect::mqtt::Options;
use crate::driver::stay::Arrival;
use crate::driver::watch::Heard;
use crate::session::Millis;

/// Changes when recordings of before cannot be read any more.
const VERSION: u32 = 1;
/// The longest line that is read. What is left of a message when its secrets are gone has some hundred bytes.
const LONGEST: usize = 64 * 1024;
/// No recording is longer: so late a line is no time, and what is calculated from it would be nonsense.
const MOST_MS: Millis = 10 * 366 * 86_400_000;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Which form the other lines have.
    pub(crate) panda_breath_recording: u32,
    /// Which program wrote it.
    pub(crate) program: String,
    /// When it was begun, UTC.
    pub(crate) started: String,
    /// Of a device behind a broker: how it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mqtt: Option<Behind>,
}

impl Header {
    pub(crate) fn now(spot: Option<&Options>) -> Self {
        Self {
            panda_breath_recording: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            started: utc_now(),
            mqtt: spot.map(Behind::of),
        }
    }

    /// How to find the device in what follows, if it is behind a broker.
    pub(crate) fn options(&self) -> Option<Options> {
        self.mqtt.as_ref().map(Behind::options)
    }
}

/// Any other line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Since the beginning.
    pub(crate) ms: Millis,
    #[serde(flatten)]
    pub(crate) what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum What {
    /// There is a connection.
    Opened,
    /// It was left on purpose, to be told everything anew over the next one.
    Refreshed,
    /// The device said this, and more that is a secret.
    Message {
        message: Value,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        removed: Vec<String>,
    },
    /// The broker passed this on, or had kept it.
    Delivered {
        topic: String,
        payload: Value,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        retained: bool,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        removed: Vec<String>,
    },
    /// The device said something that is no message.
    Unreadable { why: String },
    /// The connection is gone or did not come.
    Closed { why: String },
    /// What the driver made of it.
    Concluded { conclusion: Conclusion },
    /// The recording ends here, on purpose.
    Ended,
}

impl What {
    /// What was heard then, if anything was.
    pub(crate) fn heard(&self) -> Option<Heard> {
        Some(match self {
            Self::Opened => Heard::Opened,
            Self::Refreshed => Heard::Refreshed,
            Self::Message { message, .. } => Heard::Message(message.to_string().into_bytes()),
            Self::Delivered {
                topic,
                payload,
                retained,
                ..
            } => Heard::Delivered(Arrival {
                topic: topic.clone(),
                payload: bytes_of(payload),
                retained: *retained,
            }),
            Self::Unreadable { .. } => Heard::Unreadable,
            Self::Closed { why } => Heard::Closed(why.clone()),
            Self::Concluded { .. } | Self::Ended => return None,
        })
    }
}

fn bytes_of(payload: &Value) -> Bytes {
    if let Value::String(text) = payload {
        text.clone().into_bytes().into()
    } else {
        payload.to_string().into_bytes().into()
    }
}

/// A recording that is read line by line: it may be larger than the memory (rule R6).
#[derive(Debug)]
pub(crate) struct Recording<R> {
    pub(crate) header: Header,
    from: R,
    /// The newest line: its number, its text and its time.
    number: usize,
    text: Vec<u8>,
    last: Millis,
    /// Its last line is not whole: whoever recorded was killed. Known when it has been read.
    pub(crate) cut: bool,
}

/// Why a file is no recording.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bad {
    line: usize,
    why: String,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl<R: BufRead> Recording<R> {
    /// Reads what it says of itself; its other lines come from [`Iterator::next`].
    pub(crate) fn read(mut from: R) -> Result<Self, Bad> {
        let mut text = Vec::new();
        let header = match read_line(&mut from, &mut text) {
            Ok(0) => Err("the file is empty".to_owned()),
            Ok(_) => read_header(&text),
            Err(error) => Err(error.to_string()),
        };
        Ok(Self {
            header: header.map_err(|why| Bad { line: 1, why })?,
            from,
            number: 1,
            text,
            last: 0,
            cut: false,
        })
    }

    fn line(&mut self) -> Result<Option<Line>, Bad> {
        // Whoever pastes a recording leaves empty lines.
        loop {
            self.number += 1;
            self.text.clear();
            match read_line(&mut self.from, &mut self.text) {
                Ok(0) => return Ok(None),
                Ok(_) if self.text.trim_ascii().is_empty() => {}
                Ok(_) => break,
                Err(error) => return Err(self.bad(&error.to_string())),
            }
        }
        let Ok(line) = serde_json::from_slice::<Line>(&self.text) else {
            let bad = self.bad("not a line of a recording");
            self.cut = !self.text.ends_with(b"\n") && self.text.len() < LONGEST;
            return if self.cut { Ok(None) } else { Err(bad) };
        };
        if line.ms < self.last {
            return Err(self.bad("earlier than the line before it"));
        }
        if line.ms > MOST_MS {
            return Err(self.bad("more than ten years after the beginning"));
        }
        self.last = line.ms;
        Ok(Some(line))
    }

    fn bad(&self, why: &str) -> Bad {
        Bad {
            line: self.number,
            why: why.to_owned(),
        }
    }
}

/// After an error there is nothing more to be had.
impl<R: BufRead> Iterator for Recording<R> {
    type Item = Result<Line, Bad>;

    fn next(&mut self) -> Option<Self::Item> {
        self.line().transpose()
    }
}

/// One line, of at most [`LONGEST`] bytes: what is longer is cut there, and no recording.
fn read_line(from: &mut impl BufRead, text: &mut Vec<u8>) -> std::io::Result<usize> {
    std::io::Read::take(from, LONGEST as u64).read_until(b'\n', text)
}

fn read_header(text: &[u8]) -> Result<Header, String> {
    let header = serde_json::from_slice::<Header>(text)
        .map_err(|_| "not a recording; 'panda-breath record' makes one".to_owned())?;
    if header.panda_breath_recording == VERSION {
        Ok(header)
    } else {
        Err(format!(
            "a recording in form {}, and this program reads form {VERSION}",
            header.panda_breath_recording
        ))
    }
}

/// Now, as people and programs read it: `2026-11-21T19:30:05Z`.
pub(crate) fn utc_now() -> String {
    let now = clock_gettime(ClockId::Realtime);
    utc(u64::try_from(now.tv_sec).unwrap_or(0))
}

/// Seconds since 1970 as a date and a time.
fn utc(seconds: u64) -> String {
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    loop {
        let of_year = if is_leap(year) { 366 } else { 365 };
        if days < of_year {
            break;
        }
        days -= of_year;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for of_month in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < of_month {
            break;
        }
        days -= of_month;
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let day = days + 1;
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn is_leap(year: u64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines, and whether the last one was cut.
    fn read_all(text: &str) -> Result<(Vec<Line>, bool), Bad> {
        let mut recording = Recording::read(text.as_bytes())?;
        let lines = recording.by_ref().collect::<Result<_, _>>()?;
        Ok((lines, recording.cut))
    }

    fn read(text: &str) -> Result<(Vec<Line>, bool), String> {
        read_all(text).map_err(|bad| bad.to_string())
    }

    fn header() -> String {
        serde_json::to_string(&Header::now(None)).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let line = Line {
            ms: 1_500,
            what: What::Message {
                message: serde_json::json!({"settings": {"work_on": 1}}),
                removed: vec!["wifi".to_owned()],
            },
        };
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(
            text,
            r#"{"ms":1500,"event":"message","message":{"settings":{"work_on":1}},"removed":["wifi"]}"#
        );
        let read = read(&format!("{}\n{text}\n", header()));
        assert_eq!(read, Ok((vec![line], false)));
    }

    #[test]
    fn a_recording_whose_writer_was_killed_is_read_up_to_there() {
        let whole = format!("{}\n{}\n", header(), r#"{"ms":1,"event":"opened"}"#);
        let (lines, cut) = read(&format!("{whole}{{\"ms\":2,\"ev")).unwrap();
        assert_eq!((lines.len(), cut), (1, true));
        let (lines, cut) = read(&format!("{whole}\r\n\n")).unwrap();
        assert_eq!((lines.len(), cut), (1, false));
        // A line that has an end was not cut.
        let error = read(&format!("{whole}{{\"ms\":2,\"ev\n")).unwrap_err();
        assert_eq!(error, "line 3: not a line of a recording");
    }

    #[test]
    fn what_is_no_recording_is_told_with_its_line() {
        let header = header();
        for (text, why) in [
            (String::new(), "line 1: the file is empty"),
            (
                "[heater_bed]\n".to_owned(),
                "line 1: not a recording; 'panda-breath record' makes one",
            ),
            (
                header.replace(":1,", ":7,"),
                "line 1: a recording in form 7, and this program reads form 1",
            ),
            (
                format!("{header}\nnonsense\n{{\"ms\":1,\"event\":\"opened\"}}\n"),
                "line 2: not a line of a recording",
            ),
            (
                format!(
                    "{header}\n{{\"ms\":2,\"event\":\"opened\"}}\n{{\"ms\":1,\"event\":\"ended\"}}\n"
                ),
                "line 3: earlier than the line before it",
            ),
            (
                format!("{header}\n{{\"ms\":18446744073709551615,\"event\":\"opened\"}}\n"),
                "line 2: more than ten years after the beginning",
            ),
            (
                format!("{header}\n{{\"ms\":-1,\"event\":\"opened\"}}\n"),
                "line 2: not a line of a recording",
            ),
            (
                format!("{header}\n{}", "x".repeat(LONGEST)),
                "line 2: not a line of a recording",
            ),
        ] {
            assert_eq!(read(&text).unwrap_err(), why);
        }
    }

    #[test]
    fn a_time_is_a_date() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_795_289_405), "2026-11-21T19:30:05Z");
        assert_eq!(utc(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
