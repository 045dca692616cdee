//! `panda-breath record`: what a device says, in a file, without anything that is secret.
//!
//! * `clean`: what of a device's message may be kept; `delivery`: what of a broker's; `format`: the
//!   file

pub(crate) mod clean;
pub(crate) mod delivery;
pub(crate) mod format;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::cli::at_broker::{DeviceAtBroker, in_arguments};
use crate::cli::beside::Beside;
use crate::cli::bind::wrong;
use crate::cli::monitor::signals::Signals;
use crate::cli::monitor::{Refresh, in_runtime, over, place, refresh, signals_end, spot};
use crate::cli::plain::plain;
use crate::cli::replay::observer::{Observer, Wanted};
use crate::driver::visit::Place;
use crate::driver::watch::{Heard, Spot, Watch, now};
use crate::session::Millis;
use clean::Cleaner;
use delivery::{Behind, Deliveries};
use format::{Header, Line, What};

/// Record what a device says, for a bug report or a test.
///
/// Reads only: like monitor it holds one of the device's seven connections and never sends anything;
/// at a broker it subscribes, and publishes nothing. What the device tells about networks, addresses,
/// printers, brokers, serial numbers and passwords is not written to the file; neither is where the
/// device is. FILE can be shown to anybody.
#[derive(Debug, Args)]
#[command(
    override_usage = "panda-breath record [OPTIONS] <HOST> <FILE>\n       \
                      panda-breath record [OPTIONS] --broker <HOST> <FILE>",
    after_help = "\
Ctrl-C ends the recording.\n\n\
Examples:\n  panda-breath record PandaBreath.local heat-up.jsonl --for 3600\n  \
panda-breath report heat-up.jsonl\n  \
panda-breath record --broker 192.168.1.10 --username klipper heat-up.jsonl\n\n\
Exit status: 0 when it was ended or --for is over, 1 if the device was never heard or FILE cannot \
be\nwritten, 2 for wrong arguments. FILE is there, or written over, from the device's first message on."
)]
pub(super) struct Arguments {
    /// The device, name or address, with or without :PORT, unless it is behind a --broker; and where
    /// to write: JSON lines. The file must not exist.
    #[arg(value_name = "HOST> <FILE", required = true, num_args = 1..=2)]
    words: Vec<OsString>,
    #[command(flatten)]
    behind: DeviceAtBroker,
    /// End after so many seconds.
    #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    time: Option<u64>,
    /// Connect anew every so many seconds (5 or more; 0: never), to be told what others have set.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = refresh, conflicts_with = "broker")]
    refresh: Refresh,
    /// End when FILE has so many megabytes; a day has 10 to 40.
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
    pub place: Spot,
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
    let (host, path) = arguments.words()?;
    let name = plain(&path.to_string_lossy());
    let spot = spot(host.as_ref(), &arguments.behind)?;
    let file = create(&path, arguments.force)?;
    let options = Options {
        place: spot,
        refresh: arguments.refresh.0,
        time: arguments.time.map(Duration::from_secs),
        most: arguments.max_size * 1_000_000,
    };
    let mut stderr = io::stderr();
    let _ = writeln!(stderr, "Recording to {name}; Ctrl-C ends it.");
    in_runtime(async {
        let signals = Signals::new()?;
        let mut file = BufWriter::new(file);
        let heard = |file: &mut BufWriter<Beside>| file.get_mut().put(arguments.force);
        let recorded = record_and(&options, &mut file, heard, signals_end(&signals)).await;
        let recorded = recorded.map_err(|error| about(&path, &error))?;
        if recorded.messages == 0 {
            let why = recorded.last_error.unwrap_or("no answer".to_owned());
            let why = in_arguments(&why);
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

impl Arguments {
    /// The device, if it has an address of its own, and the file.
    fn words(&self) -> io::Result<(Option<Place>, PathBuf)> {
        match (&self.words[..], self.behind.broker.broker.is_some()) {
            ([file], true) => Ok((None, file.into())),
            ([host, file], false) => {
                let host = host.to_string_lossy();
                let place = place(&host).map_err(|why| wrong(format!("'{host}': {why}")))?;
                Ok((Some(place), file.into()))
            }
            ([word], false) if word.to_string_lossy().ends_with(".jsonl") => Err(wrong(
                "which device? Its HOST comes before FILE; or name a --broker",
            )),
            (_, false) => Err(wrong("which file? FILE comes after HOST")),
            (_, true) => Err(wrong("with --broker there is no HOST, only FILE")),
        }
    }
}

/// A file beside the one that it becomes when the device has been heard.
fn create(path: &Path, force: bool) -> io::Result<Beside> {
    if !force && path.symlink_metadata().is_ok() {
        let name = path.display();
        return Err(io::Error::other(format!(
            "{name} exists already: choose another name, or add --force"
        )));
    }
    Beside::create(path).map_err(|error| about(path, &error))
}

/// Never an error of the arguments' kind: those end with another exit status.
pub(crate) fn about(path: &Path, error: &impl Display) -> io::Error {
    io::Error::other(plain(&format!("{}: {error}", path.display())))
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
    record_and(options, out, |_| Ok(()), ended).await
}

/// The same; `heard_first` is called when the device is heard for the first time.
async fn record_and<W: Write>(
    options: &Options,
    out: &mut W,
    heard_first: impl FnOnce(&mut W) -> io::Result<()>,
    ended: impl Future<Output = ()>,
) -> io::Result<Recorded> {
    let mut heard_first = Some(heard_first);
    let mut out = Counted { out, bytes: 0 };
    let behind = options.place.options();
    out.line(&Header::now(behind))?;
    let mut recorded = Recorded {
        messages: 0,
        full: false,
        last_error: None,
    };
    let mut watch = Watch::new(&options.place, options.refresh);
    let mut cleaner = Cleaners {
        device: Cleaner::default(),
        broker: behind.map(Deliveries::new),
        host: options.place.host().to_owned(),
    };
    let wanted = Wanted::WhatItDoes;
    let mut observer = Observer::new(wanted, behind.map(|spot| Behind::of(spot).options()));
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
        let what = cleaner.clean(heard);
        match &what {
            // What a broker has kept, or is told by others, is not heard from the device.
            What::Delivered { retained: true, .. } => {}
            What::Delivered { topic, .. } if topic.ends_with("/command") => {}
            What::Message { .. } | What::Delivered { .. } => recorded.messages += 1,
            What::Unreadable { .. } => recorded.messages += u64::from(behind.is_none()),
            What::Closed { why } => recorded.last_error = Some(why.clone()),
            What::Opened if behind.is_some() => {
                let why = "the broker answers, but nothing was heard from the device";
                recorded.last_error = Some(why.to_owned());
            }
            What::Opened | What::Refreshed | What::Concluded { .. } | What::Ended => {}
        }
        if let Some(first) = heard_first.take_if(|_| recorded.messages > 0) {
            first(out.out)?;
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

/// Makes what was heard fit to be written.
struct Cleaners {
    device: Cleaner,
    broker: Option<Deliveries>,
    /// Where it is, is nobody's business.
    host: String,
}

impl Cleaners {
    fn clean(&mut self, heard: Heard) -> What {
        let unreadable = |why: &str| What::Unreadable {
            why: why.to_owned(),
        };
        match heard {
            Heard::Opened => {
                if let Some(broker) = &mut self.broker {
                    broker.opened();
                }
                What::Opened
            }
            Heard::Refreshed => What::Refreshed,
            Heard::Unreadable => unreadable("not text"),
            Heard::Closed(why) => What::Closed {
                why: self.without_names(&why),
            },
            Heard::Message(bytes) => match self.device.clean(&bytes) {
                Ok(clean) => What::Message {
                    message: clean.message,
                    removed: clean.removed,
                },
                Err(why) => unreadable(&why),
            },
            Heard::Delivered(arrival) => {
                let clean = self
                    .broker
                    .as_mut()
                    .and_then(|broker| broker.clean(&arrival));
                match clean {
                    Some(clean) => What::Delivered {
                        topic: clean.topic,
                        payload: clean.payload,
                        retained: arrival.retained,
                        removed: clean.removed,
                    },
                    None => unreadable("not of this device"),
                }
            }
        }
    }

    fn without_names(&self, why: &str) -> String {
        match &self.broker {
            None => why.replace(&self.host, "the device"),
            // It may name a topic.
            Some(_) if why.contains("does not allow to read") => {
                "the broker does not allow to read a topic; check its access rules".to_owned()
            }
            Some(_) => why.replace(&self.host, "the broker"),
        }
    }
}

/// The time of a line, for people.
pub(crate) fn clock(ms: Millis) -> String {
    let (seconds, tenths) = (ms / 1_000, ms / 100 % 10);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{hours}:{minutes:02}:{seconds:02}.{tenths}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r11_why_there_is_no_connection_names_neither_the_broker_nor_a_topic() {
        let cleaners = |broker| Cleaners {
            device: Cleaner::default(),
            broker,
            host: "geheim.lan".to_owned(),
        };
        let options = crate::dialect::mqtt::Options::default();
        let mut broker = cleaners(Some(Deliveries::new(&options)));
        for (why, kept) in [
            (
                "geheim.lan cannot be resolved",
                "the broker cannot be resolved",
            ),
            (
                "the broker does not allow to read geheim/status; check its access rules",
                "the broker does not allow to read a topic; check its access rules",
            ),
            ("connection refused", "connection refused"),
        ] {
            let what = broker.clean(Heard::Closed(why.to_owned()));
            let why = kept.to_owned();
            assert_eq!(what, What::Closed { why });
        }
        let what = cleaners(None).clean(Heard::Closed("geheim.lan is gone".to_owned()));
        let why = "the device is gone".to_owned();
        assert_eq!(what, What::Closed { why });
    }
}
