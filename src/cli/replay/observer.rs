//! A session that only looks: it is told what was recorded, on the recording's own clock, and says
//! what it concludes. What it wants sent goes nowhere.
//!
//! The same while recording and in a replay: it turns when it is due, not when somebody looks.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::behind::Behind;
use crate::cli::record::format::{Line, What};
use crate::dialect::mqtt::{Delivery, Options};
use crate::driver::stay::Arrival;
use crate::driver::watch::Heard;
use crate::session::{Claim, Command, Config, Conn, Input, Millis, OnExternalOn, Session, Wish};

/// Where all recorded devices are: of their real addresses nothing is kept.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 80);
/// Always the same, so that a replay does what the recording did.
const SEED: u64 = 1;
/// While recording something happens much more often than this, if only an attempt to connect:
/// whoever recorded slept meanwhile.
const SLEPT: Millis = 3_600_000;

/// Something a session concludes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Conclusion {
    /// What Klipper's status object would say now.
    State(State),
    /// A line for the console.
    Says(String),
    /// A frame that would be sent to the device.
    WouldSend(String),
}

/// A part of Klipper's status object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) link: String,
    pub(crate) firmware: Option<String>,
    pub(crate) temperature: Option<f64>,
    pub(crate) device_on: Option<bool>,
    pub(crate) device_target: Option<f64>,
    pub(crate) mode: Option<String>,
    pub(crate) drying: Option<bool>,
    pub(crate) lost: bool,
    pub(crate) fault: Option<String>,
}

/// What Klipper is taken to want.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wanted {
    /// Whatever the device does: nothing is known of it.
    WhatItDoes,
    /// This target all the time, C; 0 is off.
    Always(f64),
}

/// The session, and where its connections stand.
pub(crate) struct Observer {
    session: Session,
    wanted: Wanted,
    /// What there is beside, where a broker is in between.
    behind: Option<Box<Behind>>,
    /// The latest wish, and the number of the forced off that it knows of.
    wished: f64,
    acked: u32,
    /// The last forced off that was told.
    told: u32,
    turned_at: Millis,
    /// The connection that stays, and whether it has been answered.
    main: Option<(Conn, bool)>,
    /// The short one beside it.
    look: Option<(Conn, bool)>,
    /// The recorded connection is there; what came over it first.
    open: bool,
    first: Option<Vec<u8>>,
    refreshed: bool,
    state: State,
    concluded: VecDeque<(Millis, Conclusion)>,
}

impl Observer {
    /// `options`: how to find the device at its broker, if it is behind one.
    pub(crate) fn new(wanted: Wanted, options: Option<Options>) -> Self {
        let behind = options.as_ref().map(Behind::new).map(Box::new);
        let config = Config {
            host: if behind.is_some() {
                NOWHERE.ip().to_string()
            } else {
                "the device".to_owned()
            },
            mqtt: options,
            on_external_on: match wanted {
                // Also what Klipper has no wish for: it dries, or obeys a printer.
                Wanted::WhatItDoes => OnExternalOn::LookOn,
                Wanted::Always(_) => OnExternalOn::Off,
            },
            ..Config::default()
        };
        let mut observer = Self {
            session: Session::new(config, SEED),
            wanted,
            behind,
            wished: 0.0,
            acked: 0,
            told: 0,
            turned_at: 0,
            main: None,
            look: None,
            open: false,
            first: None,
            refreshed: false,
            state: State::default(),
            concluded: VecDeque::new(),
        };
        observer.turn(0, Input::Tick);
        observer.want(
            0,
            match wanted {
                Wanted::WhatItDoes => 0.0,
                Wanted::Always(target) => target,
            },
        );
        observer
    }

    /// What has been concluded since the last time, and when.
    pub(crate) fn concluded(&mut self) -> impl Iterator<Item = (Millis, Conclusion)> + '_ {
        self.concluded.drain(..)
    }

    /// A line of a recording, and what follows from it.
    pub(crate) fn play(
        &mut self,
        line: &Line,
    ) -> impl Iterator<Item = (Millis, Conclusion)> + '_ + use<'_> {
        // A conclusion's time is not told: it would be a hint.
        if !matches!(line.what, What::Concluded { .. }) {
            self.happened(line.ms, &line.what);
        }
        self.concluded()
    }

    /// Time passes.
    pub(crate) fn advance(&mut self, to: Millis) {
        if to.saturating_sub(self.turned_at) > SLEPT {
            self.turn(to, Input::Tick);
        }
        loop {
            let due = self.session.deadline(self.turned_at);
            if due > to {
                return;
            }
            self.turn(due, Input::Tick);
        }
    }

    /// Something was recorded.
    pub(crate) fn happened(&mut self, now: Millis, what: &What) {
        self.advance(now);
        if let (Some(behind), Some(heard)) = (self.behind.as_mut(), what.heard()) {
            behind.heard(now, &heard);
            if let Heard::Delivered(arrival) = heard {
                return self.delivered(now, &arrival);
            }
        }
        match what {
            // Whoever goes on listening to other topics has not left the broker.
            What::Refreshed if self.behind.is_some() => {}
            What::Opened => self.opened(now),
            What::Refreshed => {
                self.refreshed = true;
                self.open = false;
                self.first = None;
            }
            What::Message { message, .. } => self.message(now, message),
            What::Unreadable { .. } => {
                if let Some((conn, true)) = self.main {
                    self.turn(now, Input::Unreadable(conn));
                }
            }
            What::Closed { why } => self.closed(now, why),
            What::Delivered { .. } | What::Concluded { .. } | What::Ended => {}
        }
    }

    /// The broker passes something on.
    fn delivered(&mut self, now: Millis, arrival: &Arrival) {
        let mirrors = self.wanted == Wanted::WhatItDoes;
        let behind = self.behind.as_ref().filter(|_| mirrors);
        let target = behind.and_then(|behind| behind.target());
        let acked = self.session.snapshot(now).forced_offs == self.acked;
        let new = target.filter(|target| !acked || (target - self.wished).abs() > f64::EPSILON);
        // The device is first: a wish that it does not fulfil yet would be said to it.
        if new.is_some() {
            self.want(now, 0.0);
        }
        if let Some((conn, true)) = self.main {
            self.turn(now, Input::Delivered(conn, delivery(arrival)));
        }
        if let Some(target) = new.filter(|target| *target > 0.0) {
            self.want(now, target);
        }
    }

    fn opened(&mut self, now: Millis) {
        self.open = true;
        self.first = None;
        if let Some((conn, false)) = self.main {
            self.answer(now, conn);
        }
    }

    fn closed(&mut self, now: Millis, why: &str) {
        self.open = false;
        self.first = None;
        self.refreshed = false;
        if let Some((conn, _)) = self.main.take() {
            self.turn(now, Input::Closed(conn, why));
        }
    }

    fn message(&mut self, now: Millis, message: &Value) {
        let bytes = message.to_string().into_bytes();
        let settings = message.get("settings");
        let is_fault = settings.is_some_and(says_fault);
        let mirrored = settings.filter(|_| self.wanted == Wanted::WhatItDoes);
        let mirrored = mirrored.and_then(|settings| target_of(settings, self.state.device_target));
        // Nobody wished that the device stops itself.
        if let Some(target) = mirrored.filter(|_| !is_fault) {
            self.want(now, target);
        }
        let is_first = self.first.is_none();
        if is_first {
            self.first = Some(bytes.clone());
        }
        let refreshed = is_first && std::mem::take(&mut self.refreshed);
        match (self.look, self.main) {
            // A fresh snapshot is what a look is for.
            (Some((conn, _)), _) if refreshed => {
                self.turn(now, Input::Reached(conn));
                self.turn(now, Input::Opened(conn, NOWHERE));
                self.turn(now, Input::Frame(conn, &bytes));
            }
            (_, Some((conn, true))) => self.turn(now, Input::Frame(conn, &bytes)),
            (_, Some((_, false)) | None) => {}
        }
        if let Some(target) = mirrored.filter(|_| is_fault) {
            self.want(now, target);
        }
    }

    /// Whoever recorded asks nothing. A node that speaks would have answered.
    fn asked(&mut self, now: Millis) {
        let behind = self.behind.as_ref();
        if let (Some(answer), Some((conn, true))) =
            (behind.and_then(|behind| behind.answer(now)), self.main)
        {
            self.turn(now, Input::Delivered(conn, delivery(&answer)));
        }
    }

    /// The recorded device answers this connection, too.
    fn answer(&mut self, now: Millis, conn: Conn) {
        self.main = Some((conn, true));
        self.turn(now, Input::Reached(conn));
        self.turn(now, Input::Opened(conn, NOWHERE));
        if let Some(first) = self.first.clone() {
            self.turn(now, Input::Frame(conn, &first));
        }
        // As the broker does to whoever subscribes.
        let kept = self.behind.as_ref().map(|behind| behind.kept());
        for arrival in kept.into_iter().flatten() {
            if let Some((conn, true)) = self.main {
                self.turn(now, Input::Delivered(conn, delivery(&arrival)));
            }
        }
    }

    fn want(&mut self, now: Millis, target: f64) {
        let ack = self.session.snapshot(now).forced_offs;
        (self.wished, self.acked) = (target, ack);
        let wish = Wish {
            target,
            armed: true,
            ack,
            ..Wish::default()
        };
        self.turn(now, Input::Wish(wish));
    }

    fn turn(&mut self, now: Millis, input: Input<'_>) {
        self.turned_at = self.turned_at.max(now);
        self.session.renew(now);
        self.session.handle(now, input);
        while let Some(command) = self.session.poll() {
            self.obey(now, command);
        }
        self.tell_forced_off(now);
        let state = self.look_at(now);
        if state != self.state {
            self.state = state.clone();
            self.concluded.push_back((now, Conclusion::State(state)));
        }
    }

    /// Klipper would obey it, and say why; of a wish that is tried out that is all there is to see.
    fn tell_forced_off(&mut self, now: Millis) {
        let snapshot = self.session.snapshot(now);
        let is_new = snapshot.forced_offs > std::mem::replace(&mut self.told, snapshot.forced_offs);
        let forced = snapshot.forced_off.filter(|_| is_new);
        if let (Some(forced), Wanted::Always(_)) = (forced, self.wanted) {
            let text = format!("Klipper's target becomes 0: {}", forced.text);
            self.concluded.push_back((now, Conclusion::Says(text)));
        }
    }

    fn obey(&mut self, now: Millis, command: Command) {
        match command {
            Command::Connect { conn, .. } if self.main.is_some() => {
                self.look = Some((conn, false));
            }
            Command::Connect { conn, .. } => {
                self.main = Some((conn, false));
                if self.open {
                    self.answer(now, conn);
                }
            }
            Command::Send(_, text) => {
                if self.wanted != Wanted::WhatItDoes {
                    let would = Conclusion::WouldSend(text);
                    self.concluded.push_back((now, would));
                }
            }
            Command::Abort(conn) | Command::Leave(conn) => {
                let is_it = |link: &Option<(Conn, bool)>| link.is_some_and(|(it, _)| it == conn);
                if is_it(&self.main) {
                    self.main = None;
                }
                if is_it(&self.look) {
                    self.look = None;
                }
            }
            Command::Claim(identity) => {
                let ours = Claim::Ours { doubt: false };
                self.turn(now, Input::Claimed(identity, ours));
            }
            Command::Tell(event) => {
                let nowhere = NOWHERE.ip();
                let text = event.text.replace(&format!(" at {nowhere}"), "");
                let text = text.replace(&format!(" on broker {nowhere}"), "");
                let text = text.replace(&format!("broker {nowhere}"), "the broker");
                self.concluded.push_back((now, Conclusion::Says(text)));
            }
            Command::Publish(_, message) => {
                // A question changes nothing.
                if message.topic.starts_with("esphome/") {
                    return self.asked(now); // a question changes nothing
                }
                if self.wanted != Wanted::WhatItDoes {
                    let would = Conclusion::WouldSend(message.to_string());
                    self.concluded.push_back((now, would));
                }
            }
            Command::End => {}
        }
    }

    fn look_at(&self, now: Millis) -> State {
        let snapshot = self.session.snapshot(now);
        State {
            link: snapshot.link.name().to_owned(),
            firmware: snapshot.firmware.map(|known| known.as_str().to_owned()),
            temperature: snapshot.reading.map(|reading| reading.celsius),
            device_on: snapshot.device_on,
            device_target: snapshot.device_target,
            mode: snapshot.mode.map(|mode| mode.name().to_owned()),
            drying: snapshot.drying,
            lost: snapshot.lost,
            fault: snapshot.fault.map(|fault| fault.text()),
        }
    }
}

fn delivery(arrival: &Arrival) -> Delivery<'_> {
    Delivery {
        topic: &arrival.topic,
        payload: &arrival.payload,
        retained: arrival.retained,
    }
}

/// The target that the device follows, if the message says whether it does.
fn target_of(settings: &Value, before: Option<f64>) -> Option<f64> {
    let on = settings.get("work_on").and_then(Value::as_u64)?;
    let target = settings.get("set_temp").or_else(|| settings.get("temp"));
    let target = target.and_then(Value::as_f64).or(before)?;
    // In other modes it is not Klipper's.
    let is_mode_on = settings.get("work_mode").and_then(Value::as_u64) == Some(2);
    Some(if on == 1 && is_mode_on { target } else { 0.0 })
}

fn says_fault(settings: &Value) -> bool {
    let faults = [
        "ptc_sensor_status",
        "warehouse_sensor_status",
        "ptc_heater_status",
    ];
    faults.iter().any(|fault| settings.get(fault).is_some())
}
