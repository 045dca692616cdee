//! `panda-breath replay`: a recording, told to a session of the driver once more.
//!
//! * `observer`: a session that only looks; `behind`: what it needs of a broker
//! * `compare`: what it concludes, next to what was concluded then

mod behind;
mod compare;
pub(crate) mod observer;

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::plain::{plain, plain_json};
use crate::cli::record::format::{Line, Recording, What};
use crate::cli::record::{about, clock};
use compare::{At, Comparison};
use observer::{Conclusion, Observer, State, Wanted};

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

/// Begins to read a recording.
pub(crate) fn open(path: &Path) -> io::Result<Recording<BufReader<File>>> {
    let file = File::open(path).map_err(|error| about(path, &error))?;
    Recording::read(BufReader::new(file)).map_err(|bad| about(path, &bad))
}

/// Plays a recording back. Different conclusions are an error.
pub fn replay(path: &Path, options: Options, out: &mut impl Write) -> io::Result<()> {
    let mut recording = open(path)?;
    let wanted = options.target.map_or(Wanted::WhatItDoes, |target| {
        Wanted::Always(f64::from(target))
    });
    let mut observer = Observer::new(wanted, recording.header.options());
    let mut teller = Teller {
        out,
        json: options.json,
        before: State::default(),
    };
    let mut compared = Comparison::default();
    let (mut last, mut ended) = (0, false);
    for line in recording.by_ref() {
        let line = line.map_err(|bad| about(path, &bad))?;
        last = line.ms;
        ended = line.what == What::Ended;
        for one in observer.play(&line) {
            teller.tell(&one)?;
            compared.now(one);
        }
        if let What::Concluded { conclusion } = line.what {
            compared.then((line.ms, conclusion));
        } else {
            compared.settle(line.ms);
        }
    }
    if !ended {
        // The last conclusion may be what time had brought.
        observer.advance(last);
        for one in observer.concluded() {
            teller.tell(&one)?;
            compared.now(one);
        }
    }
    compared.finish(!ended);
    if recording.cut {
        teller.note("The recording's last line is not whole; it was left out.")?;
    }
    if options.target.is_some() {
        return Ok(());
    }
    if compared.different == 0 {
        let count = compared.count;
        return teller.note(&format!(
            "The same {count} conclusions as in the recording."
        ));
    }
    for (sign, (ms, conclusion)) in &compared.shown {
        let text = plain_json(&serde_json::to_string(conclusion)?);
        writeln!(teller.out, "{sign} {} {text}", clock(*ms))?;
    }
    let count = compared.different;
    let name = plain(&recording.header.program);
    Err(io::Error::other(format!(
        "{count} conclusions differ (- then, by version {name}; + now)"
    )))
}

/// Writes what is concluded. A recording may come from anybody.
struct Teller<'a, W> {
    out: &'a mut W,
    json: bool,
    before: State,
}

impl<W: Write> Teller<'_, W> {
    fn tell(&mut self, (ms, conclusion): &At) -> io::Result<()> {
        if self.json {
            let what = What::Concluded {
                conclusion: conclusion.clone(),
            };
            let line = serde_json::to_string(&Line { ms: *ms, what })?;
            writeln!(self.out, "{}", plain_json(&line))?;
        } else {
            let text = plain(&words(conclusion, &self.before));
            writeln!(self.out, "{} {text}", clock(*ms))?;
        }
        if let Conclusion::State(state) = conclusion {
            self.before = state.clone();
        }
        Ok(())
    }

    /// For people only.
    fn note(&mut self, text: &str) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        writeln!(self.out, "{text}")
    }
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
