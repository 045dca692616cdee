//! A recording as what is drawn of it. It may be larger than the memory (rule R6): what is finer than
//! the picture is thinned out as it comes.

use crate::cli::monitor::view::{Event, Link, View};
use crate::cli::record::format::{Header, Line};
use crate::dialect::Dialect;
use crate::session::Millis;

/// Readings further apart than this are not joined by a line: Klipper stops believing them, too.
pub(crate) const GAP: Millis = 7_000;
/// The picture is less than half as many pixels wide.
const GRAINS: Millis = 2_048;
/// So many of anything are kept until they are thinned out. More than four of each grain.
const MOST: usize = 16_384;
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

    /// What ends in a grain that is drawn already is left out.
    fn thin(&mut self, grain: Millis) {
        for spans in [&mut self.on, &mut self.unknown] {
            if spans.len() > MOST {
                spans.dedup_by(|next, last| next.to < last.to + grain);
            }
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

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) at: Millis,
    pub(crate) celsius: f64,
    /// There is a line to it from the one before.
    pub(crate) joined: bool,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    /// When the recording ends.
    pub(crate) end: Millis,
    pub(crate) temperature: Vec<Reading>,
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
    measured_at: Option<Millis>,
}

/// Makes a series of a recording, line by line.
#[derive(Debug)]
pub(crate) struct Plotter {
    view: View,
    series: Series,
}

impl Plotter {
    pub(crate) fn new(header: &Header) -> Self {
        let options = header.options();
        Self {
            view: options.map_or_else(View::default, |options| View::behind_broker(&options)),
            series: Series::default(),
        }
    }

    pub(crate) fn line(&mut self, line: &Line) {
        let (now, view) = (line.ms, &mut self.view);
        self.series.end = now;
        if let Some(at) = view.advance(now) {
            self.series.take(at, view);
        }
        if let Some(heard) = line.what.heard() {
            view.heard(now, &heard);
            self.series.take(now, view);
        }
    }

    pub(crate) fn finish(mut self) -> Series {
        self.series.finish(&self.view);
        self.series
    }
}

impl Series {
    fn take(&mut self, now: Millis, view: &mut View) {
        if let Some((celsius, at)) = view.reading.filter(|(_, at)| *at == now) {
            let before = self.measured_at.replace(at);
            let joined = before.is_some_and(|before| at <= before + GAP);
            self.temperature.push(Reading {
                at,
                celsius,
                joined,
            });
        }
        let connected = view.link == Link::Connected;
        let target = view.followed().filter(|_| connected);
        if self.target.last().map(|(_, last)| *last) != Some(target) {
            self.target.push((now, target));
        }
        self.link.say(now, Some(connected));
        self.on.say(now, view.on.filter(|_| connected));
        self.heater.say(now, view.heats().filter(|_| connected));
        self.thin(now);
        let room = MOST_EVENTS.saturating_sub(self.events.len());
        self.more_events += view.events.len().saturating_sub(room);
        self.events.extend(view.events.drain(..).take(room));
    }

    /// Leaves out what the picture cannot show.
    fn thin(&mut self, now: Millis) {
        let grain = now / GRAINS + 1;
        if self.temperature.len() > MOST {
            let runs = self
                .temperature
                .chunk_by(|a, b| a.at / grain == b.at / grain);
            self.temperature = runs.flat_map(thinned).collect();
        }
        if self.target.len() > MOST {
            let runs = self.target.chunk_by(|a, b| a.0 / grain == b.0 / grain);
            let ends = |run: &[(Millis, Option<f64>)]| {
                let first = (run.len() > 1).then(|| run[0]);
                first.into_iter().chain(run.last().copied())
            };
            self.target = runs.flat_map(ends).collect();
        }
        for lane in [&mut self.link, &mut self.on, &mut self.heater] {
            lane.thin(grain);
        }
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
        let celsius = self.temperature.iter().map(|reading| reading.celsius);
        celsius.fold(None, |extremes, celsius| {
            let (low, high) = extremes.unwrap_or((celsius, celsius));
            Some((celsius.min(low), celsius.max(high)))
        })
    }
}

/// Of the readings in one grain the first, the lowest, the highest and the last.
fn thinned(run: &[Reading]) -> Vec<Reading> {
    let by = |a: &usize, b: &usize| run[*a].celsius.total_cmp(&run[*b].celsius);
    let low = (0..run.len()).min_by(by).unwrap_or(0);
    let high = (0..run.len()).max_by(by).unwrap_or(0);
    let mut kept = vec![0, low, high, run.len() - 1];
    kept.sort_unstable();
    kept.dedup();
    let mut from = 0;
    let kept = kept.into_iter().map(|at| {
        // The line to it is as whole as it was.
        let joined = run[from..=at].iter().all(|reading| reading.joined);
        from = at + 1;
        Reading { joined, ..run[at] }
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::record::format::What;

    /// A device that is read twice per second, and goes on and off.
    fn plotted(count: u64, every: Millis, celsius: impl Fn(u64) -> u64) -> Series {
        let mut plotter = Plotter::new(&Header::now(None));
        let mut message = |ms: Millis, settings: serde_json::Value| {
            let message = json!({"ap": {"ssid": "unit 1"}, "settings": settings});
            let what = What::Message {
                message,
                removed: Vec::new(),
            };
            plotter.line(&Line { ms, what });
        };
        for n in 0..count {
            message(
                n * every,
                json!({"fw_version": "V1.0.3", "work_on": n % 2, "work_mode": 2, "set_temp": 40 + n % 3,
                    "warehouse_temper": celsius(n)}),
            );
        }
        plotter.finish()
    }

    #[test]
    fn r6_what_is_finer_than_the_picture_is_not_kept() {
        for every in [0, 1, 500] {
            let series = plotted(40_000, every, |n| 30 + u64::from(n == 33_333) * 30);
            let kept = [
                series.temperature.len(),
                series.target.len(),
                series.on.on.len(),
                series.heater.on.len(),
                series.events.len(),
            ];
            assert!(
                kept.iter().all(|count| *count <= MOST + 1),
                "{every}: {kept:?}"
            );
            assert_eq!(series.extremes(), Some((30.0, 60.0)), "{every}");
            assert_eq!(series.messages, 40_000);
            let gaps = series.temperature.iter().filter(|one| !one.joined);
            assert_eq!(
                gaps.count(),
                1,
                "{every}: only the first has none before it"
            );
        }
    }

    #[test]
    fn a_gap_stays_one_when_it_is_thinned_out() {
        let one = |at, celsius, joined| Reading {
            at,
            celsius,
            joined,
        };
        let run = [
            one(0, 30.0, true),
            one(1, 31.0, true),
            one(2, 30.5, false),
            one(3, 40.0, true),
            one(4, 39.0, true),
            one(5, 35.0, true),
        ];
        let kept = [one(0, 30.0, true), one(3, 40.0, false), one(5, 35.0, true)];
        assert_eq!(thinned(&run), kept);
    }
}
