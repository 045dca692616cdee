//! A recording as what is drawn of it.

use crate::cli::monitor::view::{Event, Link, View};
use crate::cli::record::format::Recording;
use crate::dialect::Dialect;
use crate::session::Millis;

/// Readings further apart than this are not joined by a line: Klipper stops believing them, too.
pub(crate) const GAP: Millis = 7_000;
/// Nobody reads more.
const MOST_EVENTS: usize = 500;

/// From when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Millis,
    pub(crate) to: Millis,
}

/// A switch over time: where it was on, and where that is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) on: Vec<Span>,
    pub(crate) unknown: Vec<Span>,
    since: Millis,
    state: Option<bool>,
}

impl Lane {
    fn say(&mut self, now: Millis, state: Option<bool>) {
        if state != self.state {
            self.close(now);
            self.since = now;
            self.state = state;
        }
    }

    fn close(&mut self, now: Millis) {
        let span = Span {
            from: self.since,
            to: now,
        };
        match self.state {
            _ if span.from >= span.to => {}
            Some(true) => self.on.push(span),
            Some(false) => {}
            None => self.unknown.push(span),
        }
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    /// When the recording ends.
    pub(crate) end: Millis,
    pub(crate) temperature: Vec<(Millis, f64)>,
    /// The target from then on.
    pub(crate) target: Vec<(Millis, Option<f64>)>,
    pub(crate) link: Lane,
    pub(crate) on: Lane,
    pub(crate) heater: Lane,
    pub(crate) events: Vec<Event>,
    pub(crate) more_events: usize,
    pub(crate) firmware: Option<String>,
    /// The device says itself what its heating element does.
    pub(crate) tells_heating: bool,
    pub(crate) messages: u64,
    pub(crate) ignored: u64,
    pub(crate) reconnects: u32,
}

impl Series {
    /// Of everything that was recorded.
    pub(crate) fn of(recording: &Recording) -> Self {
        let mut series = Self::default();
        let options = recording.header.options();
        let mut view = options.map_or_else(View::default, |options| View::behind_broker(&options));
        for line in &recording.lines {
            let now = line.ms;
            series.end = now;
            if let Some(at) = view.advance(now) {
                series.take(at, &mut view);
            }
            let Some(heard) = line.what.heard() else {
                continue;
            };
            view.heard(now, &heard);
            series.take(now, &mut view);
        }
        series.finish(&view);
        series
    }

    fn take(&mut self, now: Millis, view: &mut View) {
        if let Some((celsius, at)) = view.reading.filter(|(_, at)| *at == now) {
            self.temperature.push((at, celsius));
        }
        let connected = view.link == Link::Connected;
        let target = view.followed().filter(|_| connected);
        if self.target.last().map(|(_, last)| *last) != Some(target) {
            self.target.push((now, target));
        }
        self.link.say(now, Some(connected));
        self.on.say(now, view.on.filter(|_| connected));
        self.heater.say(now, view.heats().filter(|_| connected));
        let room = MOST_EVENTS.saturating_sub(self.events.len());
        self.more_events += view.events.len().saturating_sub(room);
        self.events.extend(view.events.drain(..).take(room));
    }

    fn finish(&mut self, view: &View) {
        for lane in [&mut self.link, &mut self.on, &mut self.heater] {
            lane.close(self.end);
        }
        let version = view.firmware;
        self.firmware = match view.dialect() {
            Some(Dialect::Stock) => version.map(|known| known.as_str().to_owned()),
            Some(_) if view.messages > 0 => Some(view.spoken_by()),
            Some(_) | None => None,
        };
        self.tells_heating = view.tells_heating();
        self.messages = view.messages;
        self.ignored = view.ignored;
        self.reconnects = view.reconnects;
    }

    /// Lowest and highest temperature.
    pub(crate) fn extremes(&self) -> Option<(f64, f64)> {
        let celsius = self.temperature.iter().map(|(_, celsius)| *celsius);
        celsius.fold(None, |extremes, celsius| {
            let (low, high) = extremes.unwrap_or((celsius, celsius));
            Some((celsius.min(low), celsius.max(high)))
        })
    }
}
