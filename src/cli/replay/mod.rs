//! `panda-breath replay`: a recording, told to a session of the driver once more.
//!
//! * `observer`: a session that only looks; `behind`: what it needs of a broker

mod behind;
pub(crate) mod observer;

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::record::format::{Line, Recording, What};
use crate::cli::record::{about, clock};
use crate::session::Millis;
use observer::{Conclusion, Observer, State, Wanted};

/// More differences than anybody reads.
const MOST_DIFFERENCES: usize = 50;

/// Play a recording back through the driver, and say what it concludes.
///
/// The recording holds what the driver concluded when it was made. Where the driver of this version
/// concludes something else, that is printed, and the exit status is 1: a recording of a bug that is
/// mended is a test that it stays so. Talks to no device.
#[derive(Debug, Args)]
#[command(after_help = "\
What Klipper wanted is not in a recording: the driver is told to want what the device does, and \
what it\nwould send is left out. With --target it is told to want that, and nothing is compared.\n\n\
Examples:\n  panda-breath replay heat-up.jsonl\n  panda-breath replay heat-up.jsonl --target 45\n\n\
Exit status: 0 if it concludes the same, 1 if not or if FILE is no recording, 2 for wrong arguments.")]
pub(super) struct Arguments {
    /// A recording, made by 'panda-breath record'.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Klipper wants this target all the time, in C (0: off): what would be said and sent?
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u8).range(0..=60))]
    target: Option<u8>,
    /// Conclusions as JSON lines.
    #[arg(long)]
    json: bool,
}

/// What to do with a recording.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What Klipper wants, if that is to be tried.
    pub target: Option<u8>,
    /// JSON, not words.
    pub json: bool,
}

pub(super) fn run(arguments: &Arguments) -> io::Result<()> {
    let options = Options {
        target: arguments.target,
        json: arguments.json,
    };
    match replay(&arguments.file, options, &mut io::stdout()) {
        // Whoever read it has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Reads a recording.
pub(crate) fn open(path: &Path) -> io::Result<Recording> {
    let file = File::open(path).map_err(|error| about(path, &error))?;
    Recording::read(BufReader::new(file))
        .map_err(|bad| io::Error::other(format!("{}: {bad}", path.display())))
}

/// Plays a recording back. Different conclusions are an error.
pub fn replay(path: &Path, options: Options, out: &mut impl Write) -> io::Result<()> {
    let recording = open(path)?;
    let wanted = options.target.map_or(Wanted::WhatItDoes, |target| {
        Wanted::Always(f64::from(target))
    });
    let concluded = conclude(&recording, wanted);
    let mut before = State::default();
    for (ms, conclusion) in &concluded {
        if options.json {
            let what = What::Concluded {
                conclusion: conclusion.clone(),
            };
            let line = Line { ms: *ms, what };
            writeln!(out, "{}", serde_json::to_string(&line)?)?;
        } else {
            let text = words(conclusion, &before);
            // A recording may come from anybody.
            let text = text.replace(char::is_control, "?");
            writeln!(out, "{} {text}", clock(*ms))?;
        }
        if let Conclusion::State(state) = conclusion {
            before = state.clone();
        }
    }
    if recording.cut && !options.json {
        writeln!(
            out,
            "The recording's last line is not whole; it was left out."
        )?;
    }
    if options.target.is_some() {
        return Ok(());
    }
    compare(&recording, &concluded, options, out)
}

/// What a session of this version concludes.
pub(crate) fn conclude(recording: &Recording, wanted: Wanted) -> Vec<(Millis, Conclusion)> {
    let mut observer = Observer::new(wanted, recording.header.options());
    let mut concluded = Vec::new();
    for line in &recording.lines {
        // A conclusion's time is not told: it would be a hint.
        if !matches!(line.what, What::Concluded { .. }) {
            observer.advance(line.ms);
            observer.happened(line.ms, &line.what);
            concluded.extend(observer.concluded());
        }
    }
    concluded
}

fn compare(
    recording: &Recording,
    now: &[(Millis, Conclusion)],
    options: Options,
    out: &mut impl Write,
) -> io::Result<()> {
    let then: Vec<_> = recording
        .lines
        .iter()
        .filter_map(|line| match &line.what {
            What::Concluded { conclusion } => Some((line.ms, conclusion.clone())),
            What::Opened
            | What::Refreshed
            | What::Message { .. }
            | What::Delivered { .. }
            | What::Unreadable { .. }
            | What::Closed { .. }
            | What::Ended => None,
        })
        .collect();
    // Whoever was killed while writing had not yet written all that follows from the last line.
    let ended = matches!(recording.lines.last(), Some(line) if line.what == What::Ended);
    let now = if ended {
        now
    } else {
        &now[..now.len().min(then.len())]
    };
    let differences = differences(&then, now);
    if differences.is_empty() {
        if !options.json {
            let count = then.len();
            writeln!(out, "The same {count} conclusions as in the recording.")?;
        }
        return Ok(());
    }
    let most = differences.iter().take(MOST_DIFFERENCES);
    for (sign, (ms, conclusion)) in most {
        let text = serde_json::to_string(conclusion)?;
        writeln!(out, "{sign} {} {text}", clock(*ms))?;
    }
    let count = differences.len();
    let name = &recording.header.program;
    Err(io::Error::other(format!(
        "{count} conclusions differ (- then, by version {name}; + now)"
    )))
}

type At = (Millis, Conclusion);

/// Conclusions that are only on one side, in the order of their times.
fn differences<'a>(then: &'a [At], now: &'a [At]) -> Vec<(char, &'a At)> {
    let mut all: Vec<(char, &At)> = Vec::new();
    let mut rest: Vec<&At> = now.iter().collect();
    for one in then {
        if let Some(at) = rest.iter().position(|other| *other == one) {
            rest.remove(at);
        } else {
            all.push(('-', one));
        }
    }
    all.extend(rest.into_iter().map(|one| ('+', one)));
    all.sort_by_key(|(_, (ms, _))| *ms);
    all
}

fn words(conclusion: &Conclusion, before: &State) -> String {
    match conclusion {
        Conclusion::Says(text) => text.clone(),
        Conclusion::WouldSend(text) => format!("would send {text}"),
        Conclusion::State(state) => changes(state, before),
    }
}

/// What is new in a state.
fn changes(state: &State, before: &State) -> String {
    fn show<T: ToString>(value: Option<&T>) -> String {
        value.map_or("unknown".to_owned(), ToString::to_string)
    }
    let mut parts = Vec::new();
    let mut part = |changed: bool, text: String| {
        if changed {
            parts.push(text);
        }
    };
    part(state.link != before.link, format!("link {}", state.link));
    part(
        state.firmware != before.firmware,
        format!("firmware {}", show(state.firmware.as_ref())),
    );
    part(
        state.temperature != before.temperature,
        format!("temperature {}", show(state.temperature.as_ref())),
    );
    let on = state.device_on.map(|on| if on { "on" } else { "off" });
    part(
        state.device_on != before.device_on,
        format!("device {}", show(on.as_ref())),
    );
    part(
        state.mode != before.mode,
        format!("mode {}", show(state.mode.as_ref())),
    );
    part(
        state.device_target != before.device_target,
        format!("device's target {}", show(state.device_target.as_ref())),
    );
    let drying = state
        .drying
        .map(|drying| if drying { "drying" } else { "not drying" });
    part(state.drying != before.drying, show(drying.as_ref()));
    let lost = if state.lost {
        "lost"
    } else {
        "not lost any more"
    };
    part(state.lost != before.lost, lost.to_owned());
    let fault = state.fault.as_ref();
    let fault = fault.map_or("no fault any more".to_owned(), |text| {
        format!("fault: {text}")
    });
    part(state.fault != before.fault, fault);
    parts.join(", ")
}

#[cfg(test)]
mod tests;
