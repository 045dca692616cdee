//! `panda-breath monitor`: a device, live. It listens and sends nothing.
//!
//! * `view`: what is known of the device; `screen`: how that looks
//! * `terminal`: a terminal that is left as it was found; `signals`: being asked to end

pub(crate) mod screen;
pub(crate) mod signals;
mod terminal;
pub(crate) mod view;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use nix::sys::signal::{Signal, raise};
use rustix::fs::{OFlags, open};
use serde_json::json;
use tokio::net::unix::pipe;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::cli::at_broker::{DeviceAtBroker, in_arguments};
use crate::cli::bind::wrong;
use crate::cli::record::format::utc_now;
use crate::dialect::{Dialect, Firmware, Identity, Mode};
use crate::driver::visit::Place;
use crate::driver::watch::{Heard, Spot, Watch, now};
use crate::session::Millis;
use screen::{Style, page, span};
use signals::{Asked, Signals};
use terminal::Page;
use view::View;

/// How often the page is drawn.
const DRAW: Duration = Duration::from_millis(500);

/// Watch a device, live: temperature, target, what it does, the connection, the last events.
///
/// Reads only. It holds one of the device's seven connections for as long as it runs and never sends
/// anything over it, so a Klipper that heats with the device goes on as before. A device behind a
/// broker (ESPHome, stock firmware 1.0.4) is watched there: it subscribes, and publishes nothing.
#[derive(Debug, Args)]
#[command(
    override_usage = "panda-breath monitor [OPTIONS] <HOST>\n       \
                      panda-breath monitor [OPTIONS] --broker <HOST>",
    after_help = "\
The firmware tells what others set only to new connections: after a change by Klipper, target and \
state\nare right after the next --refresh. The temperature is live. Behind a broker everything is.\n\n\
Where standard output is no terminal, it writes lines instead of a page.\n\n\
Examples:\n  panda-breath monitor PandaBreath.local\n  \
panda-breath monitor 192.168.1.50 --json --for 10 | jq .temperature\n  \
panda-breath monitor --broker 192.168.1.10 --username klipper\n\n\
Exit status: 0 when it was ended or --for is over, 1 if the device was never heard, 2 for wrong \
arguments."
)]
pub(super) struct Arguments {
    /// The device: name or address, with or without :PORT.
    #[arg(value_name = "HOST", value_parser = place, required_unless_present = "broker", conflicts_with = "broker")]
    host: Option<Place>,
    #[command(flatten)]
    behind: DeviceAtBroker,
    /// One line of JSON per second instead of a page.
    #[arg(long)]
    json: bool,
    /// End after so many seconds.
    #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    time: Option<u64>,
    /// Connect anew every so many seconds (5 or more; 0: never), to be told what others have set.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = refresh, conflicts_with = "broker")]
    refresh: Refresh,
    /// What the plot shows, in minutes, up to 60.
    #[arg(long, value_name = "MINUTES", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    window: u64,
}

/// How often to connect anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refresh(pub(crate) Option<Duration>);

/// A device that can be listened to at its own address.
pub(crate) fn place(text: &str) -> Result<Place, String> {
    if text.starts_with("mqtt://") || text.starts_with("mqtts://") {
        return Err("a device behind a broker is named with --broker HOST, without mqtt://".into());
    }
    text.parse()
}

/// The device at this place, or behind that broker: one of the two is there.
pub(in crate::cli) fn spot(place: Option<&Place>, behind: &DeviceAtBroker) -> io::Result<Spot> {
    match (place, behind.read()?) {
        (None, Some((broker, options))) => Ok(Spot::Broker(Box::new(broker), Box::new(options))),
        (Some(place), None) => Ok(Spot::Device(place.clone())),
        (None, None) | (Some(_), Some(_)) => Err(wrong("name a device, or a --broker")),
    }
}

pub(crate) fn refresh(text: &str) -> Result<Refresh, String> {
    match text.parse::<u64>() {
        Ok(0) => Ok(Refresh(None)),
        Ok(seconds @ 5..=86_400) => Ok(Refresh(Some(Duration::from_secs(seconds)))),
        _ => Err("not a number of seconds, 5 or more, or 0".to_owned()),
    }
}

/// What to watch, and how to tell of it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The device.
    pub place: Spot,
    /// How often to connect anew.
    pub refresh: Option<Duration>,
    /// How long.
    pub time: Option<Duration>,
    /// JSON, not words.
    pub json: bool,
    /// From one line to the next.
    pub every: Duration,
}

pub(super) fn run(arguments: &Arguments) -> io::Result<()> {
    let options = Options {
        place: spot(arguments.host.as_ref(), &arguments.behind)?,
        refresh: arguments.refresh.0,
        time: arguments.time.map(Duration::from_secs),
        json: arguments.json,
        every: Duration::from_secs(if arguments.json { 1 } else { 10 }),
    };
    let style = Style {
        colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        unicode: speaks_unicode(),
        window: arguments.window * 60,
    };
    in_runtime(async {
        if !options.json && io::stdout().is_terminal() && can_be_drawn_on() {
            on_page(&options, style).await
        } else {
            let signals = Signals::new()?;
            lines(&options, &mut io::stdout(), signals_end(&signals)).await
        }
    })
}

/// Runs a command that waits for the network.
pub(crate) fn in_runtime(command: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let result = runtime.block_on(command);
    // A thread may still be waiting for a name server: it is not waited for.
    runtime.shutdown_background();
    match result {
        // Whoever read it has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Waits for a signal to end; what else one may ask for means nothing without a page.
pub(crate) async fn signals_end(signals: &Signals) {
    loop {
        match signals.next().await {
            Asked::End => return,
            Asked::Pause => stop_here(),
            Asked::Resize => {}
        }
    }
}

/// Ctrl-Z, for real: goes on when the shell says so.
fn stop_here() {
    // To this thread, so that it does nothing more before: another might be the one to take it.
    let _ = raise(Signal::SIGSTOP);
}

/// Not in an editor's shell window, for one.
fn can_be_drawn_on() -> bool {
    std::env::var_os("TERM").is_none_or(|kind| kind != "dumb" && !kind.is_empty())
}

fn speaks_unicode() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL")
        .or_else(|| set("LC_CTYPE"))
        .or_else(|| set("LANG"));
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Until then; without a time, never.
pub(crate) async fn over(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// With the words of the command line.
fn for_people(heard: Heard) -> Heard {
    if let Heard::Closed(why) = heard {
        Heard::Closed(in_arguments(&why))
    } else {
        heard
    }
}

fn never_heard(options: &Options, view: &View) -> io::Result<()> {
    if view.messages > 0 || options.time.is_none() {
        return Ok(());
    }
    let why = view.link.why().unwrap_or("no answer");
    Err(io::Error::other(format!("{}: {why}", options.place)))
}

async fn on_page(options: &Options, style: Style) -> io::Result<()> {
    let signals = Signals::new()?;
    let keys = Keys::new();
    let mut watch = Watch::new(&options.place, options.refresh);
    let mut view = View::of(&options.place);
    let end = options.time.map(|time| Instant::now() + time);
    let screen = Page::enter(&io::stdout())?;
    let mut draws = interval(DRAW);
    draws.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            heard = watch.next() => {
                view.heard(now(), &for_people(heard));
                continue;
            }
            _ = draws.tick() => {}
            asked = signals.next() => match asked {
                Asked::End => break,
                Asked::Resize => {}
                Asked::Pause => {
                    Page::pause();
                    stop_here();
                    screen.resume()?;
                }
            },
            key = keys.next() => {
                if matches!(key, b'q' | b'Q') {
                    break;
                }
                continue;
            }
            () = over(end) => break,
        }
        view.advance(now());
        let place = options.place.name(view.dialect());
        screen.draw(&page(&view, &place, now(), screen.size(), style))?;
    }
    drop(screen);
    never_heard(options, &view)
}

/// What is typed.
struct Keys(Option<pipe::Receiver>);

impl Keys {
    /// Of the terminal that this was started on. Opened anew: to read without waiting is a property
    /// that everybody shares who has the same opening of it, the shell too.
    fn new() -> Self {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = open("/dev/tty", flags, rustix::fs::Mode::empty()).ok();
        let file = file.filter(|_| io::stdin().is_terminal());
        Self(file.and_then(|file| pipe::Receiver::from_owned_fd_unchecked(file).ok()))
    }

    /// The next key. May be dropped at any time.
    async fn next(&self) -> u8 {
        let Some(file) = &self.0 else {
            return std::future::pending().await;
        };
        loop {
            let mut byte = [0];
            if file.readable().await.is_err() {
                return std::future::pending().await;
            }
            match file.try_read(&mut byte) {
                Ok(1) => return byte[0],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The terminal is gone, and a signal says so.
                Ok(_) | Err(_) => return std::future::pending().await,
            }
        }
    }
}

/// Writes lines until it is ended, or the time is over.
pub async fn lines(
    options: &Options,
    out: &mut impl Write,
    ended: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut watch = Watch::new(&options.place, options.refresh);
    let mut view = View::of(&options.place);
    let mut told = 0;
    let end = options.time.map(|time| Instant::now() + time);
    let mut ended = std::pin::pin!(ended);
    let mut turns = interval(options.every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
    turns.tick().await; // the first comes at once, and nothing is known then
    loop {
        let is_turn = tokio::select! {
            heard = watch.next() => {
                view.heard(now(), &for_people(heard));
                false
            }
            _ = turns.tick() => true,
            () = &mut ended => break,
            () = over(end) => break,
        };
        view.advance(now());
        if options.json {
            if is_turn {
                tell_json(&view, &mut told, out)?;
            }
        } else {
            tell_events(&view, &mut told, out)?;
            if is_turn {
                writeln!(out, "{} {}", utc_now(), summary(&view, now()))?;
                out.flush()?;
            }
        }
    }
    never_heard(options, &view)
}

/// The events that have not been told yet.
fn untold<'a>(view: &'a View, told: &mut u64) -> impl Iterator<Item = &'a str> + use<'a> {
    let new = view.event_count - std::mem::replace(told, view.event_count);
    let new = usize::try_from(new).unwrap_or(usize::MAX);
    let known = view.events.len();
    let events = view.events.iter().skip(known.saturating_sub(new));
    events.map(|event| event.text.as_str())
}

fn tell_events(view: &View, told: &mut u64, out: &mut impl Write) -> io::Result<()> {
    for text in untold(view, told) {
        writeln!(out, "{} {text}", utc_now())?;
        out.flush()?;
    }
    Ok(())
}

fn summary(view: &View, now: Millis) -> String {
    let temperature =
        view.reading
            .map_or("no temperature yet".to_owned(), |(celsius, at)| {
                match now.saturating_sub(at) / 1_000 {
                    0..7 => format!("{celsius} C"),
                    age => format!("{celsius} C {} ago", span(age)),
                }
            });
    let target = view
        .followed()
        .map_or("no target".to_owned(), |c| format!("target {c} C"));
    let on = view
        .on
        .map_or("unknown", |on| if on { "on" } else { "off" });
    let mode = view
        .mode
        .map_or(String::new(), |mode| format!(", mode {}", mode.name()));
    let rate = view.rate(now);
    let link = view.link.name();
    format!("{temperature}, {target}, device {on}{mode}, link {link}, {rate:.1} messages/s")
}

fn tell_json(view: &View, told: &mut u64, out: &mut impl Write) -> io::Result<()> {
    let now = now();
    let age = |at: Millis| seconds(now.saturating_sub(at));
    let events: Vec<_> = untold(view, told).collect();
    let firmware = view.firmware;
    // A drying programme has a target of its own, which is not told.
    let idle = view.on == Some(false);
    let kept = view.kept().map(|kept| {
        json!({"temperature": kept.reading, "device_on": kept.on, "device_target": kept.target})
    });
    let fault = view.fault(now).map(|fault| fault.text().to_owned());
    let line = json!({
        "time": utc_now(),
        "link": view.link.name(),
        "error": view.link.why(),
        "temperature": view.reading.map(|(celsius, _)| celsius),
        "reading_age": view.reading.map(|(_, at)| age(at)),
        "target": view.followed().or(idle.then_some(0.0)),
        "device_target": view.target,
        "device_on": view.on,
        "mode": view.mode.map(Mode::name),
        "heating": view.heats(),
        "drying": view.drying,
        "remaining_seconds": view.remaining(now),
        "state_age": view.stated_at.map(age),
        "fault": fault.or_else(|| view.retained_command()),
        "kept": kept,
        "dialect": view.dialect().map(Dialect::name),
        "firmware_version": firmware.as_ref().map(Firmware::as_str),
        "device_id": view.identity.map(Identity::last4),
        "messages_per_second": view.rate(now),
        "not_understood": view.ignored,
        "reconnects": view.reconnects,
        "events": events,
    });
    writeln!(out, "{line}")?;
    out.flush()
}

fn seconds(millis: Millis) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
    let millis = millis as f64;
    millis / 1e3
}
