//! `panda-breath record`: what a device says, in a file, without anything that is secret.
//!
//! * `clean`: what of a message may be kept; `format`: the file

pub(crate) mod clean;
pub(crate) mod format;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::cli::monitor::signals::Signals;
use crate::cli::monitor::{Refresh, in_runtime, over, place, refresh, signals_end};
use crate::cli::replay::observer::{Observer, Wanted};
use crate::driver::visit::Place;
use crate::driver::watch::{Heard, Watch, now};
use crate::session::Millis;
use clean::Cleaner;
use format::{Header, Line, What};

/// Record what a device says, for a bug report or a test.
///
/// Reads only: like monitor it holds one of the device's seven connections and never sends anything.
/// What the device tells about networks, addresses, printers, brokers, serial numbers and passwords
/// is not written to the file; neither is where the device is. FILE can be shown to anybody.
#[derive(Debug, Args)]
#[command(after_help = "\
Only stock firmware is recorded, not ESPHome. Ctrl-C ends the recording.\n\n\
Example:\n  panda-breath record PandaBreath.local heat-up.jsonl --for 3600\n  \
panda-breath report heat-up.jsonl\n\n\
Exit status: 0 when it was ended or --for is over, 1 if the device was never heard or FILE cannot \
be\nwritten, 2 for wrong arguments.")]
pub(super) struct Arguments {
    /// The device: name or address, with or without :PORT.
    #[arg(value_name = "HOST", value_parser = place)]
    host: Place,
    /// Where to write: JSON lines. It must not exist.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// End after so many seconds.
    #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    time: Option<u64>,
    /// Connect anew every so many seconds (5 or more; 0: never), to be told what others have set.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = refresh)]
    refresh: Refresh,
    /// End when FILE has so many megabytes; a day has about 20.
    #[arg(long, value_name = "MB", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    max_size: u64,
    /// Write over FILE if it exists.
    #[arg(long)]
    force: bool,
}

/// What to record.
#[derive(Clone, Debug)]
pub struct Options {
    /// The device.
    pub place: Place,
    /// How often to connect anew.
    pub refresh: Option<Duration>,
    /// How long.
    pub time: Option<Duration>,
    /// No more bytes than this.
    pub most: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Messages of the device.
    pub messages: u64,
    /// There would have been more, but the file is as large as it may be.
    pub full: bool,
    /// Why there was no connection, the last time.
    pub last_error: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> io::Result<()> {
    let name = arguments.file.display();
    let file = create(&arguments.file, arguments.force)?;
    let options = Options {
        place: arguments.host.clone(),
        refresh: arguments.refresh.0,
        time: arguments.time.map(Duration::from_secs),
        most: arguments.max_size * 1_000_000,
    };
    let mut stderr = io::stderr();
    let _ = writeln!(stderr, "Recording to {name}; Ctrl-C ends it.");
    in_runtime(async {
        let signals = Signals::new()?;
        let mut file = BufWriter::new(file);
        let recorded = record(&options, &mut file, signals_end(&signals)).await;
        let recorded = recorded.map_err(|error| about(&arguments.file, &error))?;
        if recorded.messages == 0 {
            let why = recorded.last_error.unwrap_or("no answer".to_owned());
            let place = &options.place;
            return Err(io::Error::other(format!(
                "nothing was recorded: {place}: {why}"
            )));
        }
        let why = if recorded.full {
            "; the file is full (--max-size)"
        } else {
            ""
        };
        let messages = recorded.messages;
        let _ = writeln!(stderr, "{messages} messages are in {name}{why}.");
        Ok(())
    })
}

fn create(path: &Path, force: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options.open(path).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            let name = path.display();
            io::Error::other(format!(
                "{name} exists already: choose another name, or add --force"
            ))
        } else {
            about(path, &error)
        }
    })
}

/// Never an error of the arguments' kind: those end with another exit status.
pub(crate) fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

/// Counts what is written.
struct Counted<'a, W> {
    out: &'a mut W,
    bytes: u64,
}

impl<W: Write> Counted<'_, W> {
    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(line)?;
        self.bytes += text.len() as u64 + 1;
        writeln!(self.out, "{text}")
    }
}

/// Records until it is ended, the time is over, or the file is full.
pub async fn record(
    options: &Options,
    out: &mut impl Write,
    ended: impl Future<Output = ()>,
) -> io::Result<Recorded> {
    let mut out = Counted { out, bytes: 0 };
    out.line(&Header::now())?;
    let mut recorded = Recorded {
        messages: 0,
        full: false,
        last_error: None,
    };
    let mut watch = Watch::new(options.place.clone(), options.refresh);
    let mut cleaner = Cleaner::default();
    let mut observer = Observer::new(Wanted::WhatItDoes);
    let started = now();
    let end = options.time.map(|time| Instant::now() + time);
    let mut ended = std::pin::pin!(ended);
    let mut turns = interval(Duration::from_secs(1));
    turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let heard = tokio::select! {
            heard = watch.next() => Some(heard),
            _ = turns.tick() => None,
            () = &mut ended => break,
            () = over(end) => break,
        };
        let ms = now() - started;
        let Some(heard) = heard else {
            observer.advance(ms);
            write_concluded(&mut observer, &mut out)?;
            out.out.flush()?;
            continue;
        };
        let what = cleaned(heard, options, &mut cleaner);
        match &what {
            What::Message { .. } | What::Unreadable { .. } => recorded.messages += 1,
            What::Closed { why } => recorded.last_error = Some(why.clone()),
            What::Opened | What::Refreshed | What::Concluded { .. } | What::Ended => {}
        }
        // What time has brought comes before what has happened.
        observer.advance(ms);
        write_concluded(&mut observer, &mut out)?;
        observer.happened(ms, &what);
        out.line(&Line { ms, what })?;
        write_concluded(&mut observer, &mut out)?;
        if out.bytes >= options.most {
            recorded.full = true;
            break;
        }
    }
    let ms = now() - started;
    observer.advance(ms);
    write_concluded(&mut observer, &mut out)?;
    let what = What::Ended;
    out.line(&Line { ms, what })?;
    out.out.flush()?;
    Ok(recorded)
}

fn write_concluded(observer: &mut Observer, out: &mut Counted<'_, impl Write>) -> io::Result<()> {
    for (ms, conclusion) in observer.concluded() {
        let what = What::Concluded { conclusion };
        out.line(&Line { ms, what })?;
    }
    Ok(())
}

/// What was heard, as it may be written.
fn cleaned(heard: Heard, options: &Options, cleaner: &mut Cleaner) -> What {
    match heard {
        Heard::Opened => What::Opened,
        Heard::Refreshed => What::Refreshed,
        Heard::Unreadable => What::Unreadable {
            why: "not text".to_owned(),
        },
        // Where the device is, is nobody's business.
        Heard::Closed(why) => What::Closed {
            why: why.replace(&options.place.host, "the device"),
        },
        Heard::Message(bytes) => match cleaner.clean(&bytes) {
            Ok(clean) => What::Message {
                message: clean.message,
                removed: clean.removed,
            },
            Err(why) => What::Unreadable { why },
        },
    }
}

/// The time of a line, for people.
pub(crate) fn clock(ms: Millis) -> String {
    let (seconds, tenths) = (ms / 1_000, ms / 100 % 10);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{hours}:{minutes:02}:{seconds:02}.{tenths}")
}
