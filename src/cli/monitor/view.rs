//! What is known of a device that is listened to: pure, told what was heard and when.
//!
//! * [`mod@self`]: what any device says, and one that is spoken to directly
//! * `broker`: one behind a broker

mod broker;

use std::collections::VecDeque;

use crate::dialect::stock::Stock;
use crate::dialect::{Fault, Firmware, Identity, Mode, Report, is_temperature};
use crate::driver::watch::{Heard, Spot};
use crate::session::Millis;
use broker::Behind;

/// The message rate is a mean over this long.
const RATE_OVER: Millis = 10_000;
/// A flood is counted only up to here (rule R6).
const MOST_COUNTED: usize = 20_000;
/// A sensor's fault is repeated twice per second while it lasts.
const FAULT_LASTS: Millis = 3_000;
/// So many events are kept.
const EVENTS: usize = 100;
/// One point per second of what is drawn, for an hour.
const POINTS: usize = 3_600;

/// The connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Not there yet.
    Connecting,
    /// The device speaks.
    Connected,
    /// It was there, and is not now; why.
    Lost(String),
    /// It was never there; why.
    Failed(String),
}

impl Link {
    /// One word.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Connecting | Self::Failed(_) => "connecting",
            Self::Connected => "connected",
            Self::Lost(_) => "reconnecting",
        }
    }

    /// Why not.
    pub(crate) fn why(&self) -> Option<&str> {
        match self {
            Self::Connecting | Self::Connected => None,
            Self::Lost(why) | Self::Failed(why) => Some(why),
        }
    }
}

/// Something worth a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) at: Millis,
    pub(crate) text: String,
}

/// What was so in one second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// Seconds on the same clock as everything else.
    pub(crate) second: u64,
    pub(crate) celsius: f64,
    /// The target, where the device is on.
    pub(crate) target: Option<f64>,
}

/// What is known of a device.
#[derive(Clone, Debug)]
pub(crate) struct View {
    stock: Stock,
    /// What else there is to know where a broker is in between.
    behind: Option<Box<Behind>>,
    pub(crate) link: Link,
    pub(crate) firmware: Option<Firmware>,
    pub(crate) identity: Option<Identity>,
    /// Newest temperature, and when it came.
    pub(crate) reading: Option<(f64, Millis)>,
    pub(crate) on: Option<bool>,
    pub(crate) mode: Option<Mode>,
    /// What the element does, where the device says so.
    heating: Option<bool>,
    pub(crate) target: Option<f64>,
    pub(crate) drying: Option<bool>,
    remaining: Option<(u32, Millis)>,
    fault: Option<(Fault, Millis)>,
    /// When the device last said all of this.
    pub(crate) stated_at: Option<Millis>,
    pub(crate) reconnects: u32,
    /// Messages or fields that mean nothing.
    pub(crate) ignored: u64,
    pub(crate) messages: u64,
    arrivals: VecDeque<Millis>,
    /// When the first one came.
    first_at: Option<Millis>,
    pub(crate) events: VecDeque<Event>,
    /// All that there ever were.
    pub(crate) event_count: u64,
    pub(crate) points: VecDeque<Point>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            stock: Stock::default(),
            behind: None,
            link: Link::Connecting,
            firmware: None,
            identity: None,
            reading: None,
            on: None,
            mode: None,
            heating: None,
            target: None,
            drying: None,
            remaining: None,
            fault: None,
            stated_at: None,
            reconnects: 0,
            ignored: 0,
            messages: 0,
            arrivals: VecDeque::new(),
            first_at: None,
            events: VecDeque::new(),
            event_count: 0,
            points: VecDeque::new(),
        }
    }
}

impl View {
    /// Of a device that is there.
    pub(crate) fn of(spot: &Spot) -> Self {
        spot.options()
            .map_or_else(Self::default, Self::behind_broker)
    }

    /// Takes in what was heard.
    pub(crate) fn heard(&mut self, now: Millis, heard: &Heard) {
        match heard {
            Heard::Refreshed if self.behind.is_some() => self.broker_left(),
            Heard::Opened if self.behind.is_some() => self.broker_opened(now),
            Heard::Delivered(arrival) => self.delivered(now, arrival),
            Heard::Unreadable if self.behind.is_some() => self.ignored += 1,
            Heard::Opened | Heard::Refreshed => self.stock = Stock::default(),
            Heard::Closed(why) => self.closed(now, why),
            Heard::Unreadable => {
                self.count(now);
                self.ignored += 1;
            }
            Heard::Message(bytes) => {
                self.count(now);
                match self.stock.decode(bytes) {
                    Ok(report) => self.report(now, &report),
                    Err(_) => self.ignored += 1,
                }
            }
        }
    }

    fn count(&mut self, now: Millis) {
        self.messages += 1;
        self.arrivals.push_back(now);
        self.first_at.get_or_insert(now);
        let since = now.saturating_sub(RATE_OVER);
        while self.arrivals.front().is_some_and(|at| *at < since)
            || self.arrivals.len() > MOST_COUNTED
        {
            self.arrivals.pop_front();
        }
    }

    /// Messages per second, of the last ten.
    pub(crate) fn rate(&self, now: Millis) -> f64 {
        let since = now.saturating_sub(RATE_OVER);
        let count = self.arrivals.iter().filter(|at| **at >= since).count();
        let age = now.saturating_sub(self.first_at.unwrap_or(now));
        let over = age.clamp(1_000, RATE_OVER);
        #[expect(clippy::cast_precision_loss, reason = "a few thousands")]
        let (count, over) = (count as f64, over as f64);
        count / over * 1e3
    }

    fn closed(&mut self, now: Millis, why: &str) {
        if let Some(behind) = self.behind.as_mut() {
            behind.refreshed = false;
        }
        let next = match &self.link {
            Link::Connected | Link::Lost(_) => Link::Lost(why.to_owned()),
            Link::Connecting | Link::Failed(_) => Link::Failed(why.to_owned()),
        };
        if self.link != next {
            let first = if self.link == Link::Connected {
                "connection lost"
            } else {
                "no connection"
            };
            self.event(now, format!("{first}: {why}"));
            self.link = next;
        }
    }

    fn report(&mut self, now: Millis, report: &Report) {
        self.ignored += u64::from(report.ignored);
        if report.is_snapshot() {
            self.snapshot(now, report);
        }
        if let Some(fault) = report.fault {
            if self.fault(now) != Some(fault) {
                self.event(now, format!("fault: {}", fault.text()));
            }
            self.fault = Some((fault, now));
        }
        self.state(now, report);
        let sensor_is_broken = self.fault(now).is_some_and(Fault::is_sensor);
        let reading = report.reading.filter(|celsius| is_temperature(*celsius));
        if let Some(celsius) = reading.filter(|_| !sensor_is_broken) {
            self.reading = Some((celsius, now));
            self.point(now, celsius);
        }
    }

    fn snapshot(&mut self, now: Millis, report: &Report) {
        if self.link != Link::Connected {
            let again = matches!(self.link, Link::Lost(_));
            self.reconnects += u32::from(again);
            let firmware = report.firmware;
            let firmware = firmware.as_ref().map_or("unknown", |known| known.as_str());
            self.event(now, format!("connected, firmware {firmware}"));
            self.link = Link::Connected;
        }
        if self.identity.is_some() && report.identity.is_some() && report.identity != self.identity
        {
            self.event(now, "another device answers here now".to_owned());
        }
        self.firmware = report.firmware;
        self.identity = report.identity.or(self.identity);
    }

    fn state(&mut self, now: Millis, report: &Report) {
        // Before the first word about it there is nothing that could have changed.
        let told = self.stated_at.is_some();
        if let Some(on) = report.on {
            self.stated_at = Some(now);
            if told && self.on != Some(on) {
                let word = if on { "on" } else { "off" };
                self.event(now, format!("the device is {word}"));
            }
            self.on = Some(on);
            if on {
                self.fault = self.fault.filter(|(fault, _)| fault.is_sensor());
            }
        }
        if let Some(mode) = report.mode {
            if told && self.mode.is_some_and(|before| before != mode) {
                self.event(now, format!("mode {}", mode.name()));
            }
            self.mode = Some(mode);
        }
        if let Some(target) = report.target {
            if self.target.is_some() && self.target != Some(target) {
                self.event(now, format!("target {target} C"));
            }
            self.target = Some(target);
        }
        if let Some(drying) = report.drying {
            if self.drying.is_some_and(|before| before != drying) {
                let word = if drying { "has begun" } else { "has ended" };
                self.event(now, format!("drying {word}"));
            }
            self.drying = Some(drying);
        }
        if let Some(seconds) = report.remaining_seconds {
            self.remaining = Some((seconds, now));
        }
    }

    /// What is wrong with the device now.
    pub(crate) fn fault(&self, now: Millis) -> Option<Fault> {
        let (fault, at) = self.fault?;
        let lasts = !fault.is_sensor() || now < at + FAULT_LASTS;
        lasts.then_some(fault)
    }

    /// What is left of a drying cycle, seconds: the device does not count aloud.
    pub(crate) fn remaining(&self, now: Millis) -> Option<u64> {
        let (seconds, at) = self.remaining.filter(|_| self.drying == Some(true))?;
        Some(u64::from(seconds).saturating_sub(now.saturating_sub(at) / 1_000))
    }

    /// The target, where the device follows it: a drying programme has its own.
    pub(crate) fn followed(&self) -> Option<f64> {
        let follows = self.on == Some(true) && self.mode != Some(Mode::Drying);
        self.target.filter(|_| follows)
    }

    /// Whether the element has power as far as can be known: the firmware does not say it, but what
    /// it does is known. In mode *auto* it depends on a printer that we do not see.
    pub(crate) fn heats(&self) -> Option<bool> {
        if let (Some(heating), Some(_)) = (self.heating, self.on) {
            return Some(heating);
        }
        let (celsius, _) = self.reading?;
        match (self.on?, self.mode?) {
            (false, _) => Some(false),
            (true, Mode::On) => Some(celsius < self.target?),
            (true, Mode::Drying) => (self.drying == Some(false)).then_some(false),
            (true, Mode::Auto) => None,
        }
    }

    fn point(&mut self, now: Millis, celsius: f64) {
        let second = now / 1_000;
        let target = self.followed();
        if self.points.back().is_some_and(|last| last.second == second) {
            self.points.pop_back();
        }
        self.points.push_back(Point {
            second,
            celsius,
            target,
        });
        if self.points.len() > POINTS {
            self.points.pop_front();
        }
    }

    fn event(&mut self, at: Millis, text: String) {
        self.event_count += 1;
        self.events.push_back(Event { at, text });
        if self.events.len() > EVENTS {
            self.events.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNAPSHOT: &str = r#"{"ap":{"ssid":"a"},"settings":{"fw_version":"V1.0.3","work_on":1,
        "work_mode":2,"set_temp":50,"isrunning":0,"remaining_seconds":0}}"#;

    fn said(view: &mut View, now: Millis, text: &str) {
        view.heard(now, &Heard::Message(text.as_bytes().to_vec()));
    }

    fn reading(celsius: f64) -> String {
        format!(r#"{{"settings":{{"warehouse_temper":{celsius}}}}}"#)
    }

    fn events(view: &View) -> Vec<&str> {
        view.events
            .iter()
            .map(|event| event.text.as_str())
            .collect()
    }

    #[test]
    fn what_changes_is_an_event_and_what_stays_is_none() {
        let mut view = View::default();
        view.heard(0, &Heard::Opened);
        assert_eq!(view.link.name(), "connecting");
        said(&mut view, 100, SNAPSHOT);
        said(&mut view, 600, &reading(30.0));
        view.heard(30_000, &Heard::Refreshed);
        view.heard(30_100, &Heard::Opened);
        said(&mut view, 30_200, SNAPSHOT);
        assert_eq!(events(&view), ["connected, firmware V1.0.3"]);
        assert_eq!((view.followed(), view.heats()), (Some(50.0), Some(true)));
        said(&mut view, 31_000, &reading(50.0));
        assert_eq!(view.heats(), Some(false));
        said(
            &mut view,
            31_500,
            r#"{"settings":{"work_on":0,"set_temp":45}}"#,
        );
        assert_eq!(events(&view)[1..], ["the device is off", "target 45 C"]);
        assert_eq!(view.followed(), None);
        view.heard(40_000, &Heard::Closed("connection reset".to_owned()));
        view.heard(41_000, &Heard::Closed("connection refused".to_owned()));
        view.heard(43_000, &Heard::Closed("connection refused".to_owned()));
        said(&mut view, 50_000, &SNAPSHOT.replace("\"a\"", "\"b\""));
        assert_eq!(
            events(&view)[3..6],
            [
                "connection lost: connection reset",
                "no connection: connection refused",
                "connected, firmware V1.0.3",
            ]
        );
        assert_eq!(events(&view)[6], "another device answers here now");
        assert_eq!(view.reconnects, 1);
    }

    #[test]
    fn r5_what_is_no_temperature_is_no_reading() {
        let mut view = View::default();
        said(&mut view, 0, SNAPSHOT);
        for text in [
            reading(500.0).as_str(),
            r#"{"settings":{"warehouse_temper":"40"}}"#,
            r#"{"settings":{"warehouse_temper":40,"warehouse_sensor_status":2}}"#,
            "not JSON",
        ] {
            said(&mut view, 500, text);
        }
        assert_eq!(view.reading, None);
        assert_eq!(view.fault(500), Some(Fault::ChamberSensorOpen));
        assert_eq!(view.fault(3_500), None, "it would have been said again");
        assert!(view.ignored >= 2);
    }

    #[test]
    fn r6_a_flood_is_counted_and_not_kept() {
        let mut view = View::default();
        for n in 0..50_000 {
            said(&mut view, n / 10, &reading(30.0));
        }
        assert_eq!(view.messages, 50_000);
        assert!(view.arrivals.len() <= MOST_COUNTED);
        assert_eq!(view.points.len(), 5);
        for n in 0..500 {
            said(
                &mut view,
                5_000 + n,
                &format!(r#"{{"settings":{{"work_on":{}}}}}"#, n % 2),
            );
        }
        assert_eq!(view.events.len(), EVENTS);
    }

    #[test]
    fn the_rate_is_a_mean_over_ten_seconds() {
        let mut view = View::default();
        for n in 0..60 {
            said(&mut view, n * 500, &reading(30.0));
            if n == 4 {
                assert!((view.rate(2_400) - 2.0).abs() < 0.2, "from the beginning");
            }
        }
        assert!(
            (view.rate(29_500) - 2.0).abs() < 0.2,
            "{}",
            view.rate(29_500)
        );
        assert!(view.rate(60_000) < f64::EPSILON);
    }

    #[test]
    fn drying_counts_down_by_itself() {
        let mut view = View::default();
        let text =
            r#"{"settings":{"work_on":1,"work_mode":3,"isrunning":1,"remaining_seconds":60}}"#;
        said(&mut view, 1_000, text);
        assert_eq!(view.remaining(11_500), Some(50));
        assert_eq!(view.remaining(200_000), Some(0));
    }
}
