//! A simulated ESPHome node at its broker: its connection, what is injected into it, and its ticks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Node, State};
use crate::driver::mqtt::{Publication, Terms};
use crate::sim::clock::now_s;
use crate::sim::device::{Button, Fault};
use crate::sim::inject::{Command, garbage, publication};
use crate::sim::link::{Cut, Face, Hold, Link};
use crate::sim::log::{Event, Log};
use crate::sim::simulator::{Options, Simulated};

/// A node and everything around it.
#[derive(Debug)]
pub(crate) struct Unit {
    index: usize,
    speed: f64,
    reboot_s: f64,
    log: Arc<Log>,
    node: RefCell<Node>,
    link: Link,
    /// Until then it is switched off or restarts.
    down_until_s: Cell<Option<f64>>,
    /// Until then it stays away from the broker.
    away_until_s: Cell<f64>,
    hangs: Cell<bool>,
    connections: Cell<u64>,
    stepped_s: Cell<f64>,
    noted: Cell<Option<State>>,
    since_noted: Cell<Duration>,
    reboots: Cell<u64>,
    complain: fn(&str),
    trouble: RefCell<String>,
}

impl Unit {
    pub(crate) fn new(index: usize, node: Node, options: &Options, log: Arc<Log>) -> Self {
        let link = Link::new(options.broker.clone(), options.reconnect_s);
        let unit = Unit {
            index,
            speed: options.speed,
            reboot_s: options.reboot_s,
            log,
            node: RefCell::new(node),
            link,
            down_until_s: Cell::new(None),
            away_until_s: Cell::new(0.0),
            hangs: Cell::new(false),
            connections: Cell::new(0),
            stepped_s: Cell::new(now_s()),
            noted: Cell::new(None),
            since_noted: Cell::new(Duration::ZERO),
            reboots: Cell::new(0),
            complain: options.complain,
            trouble: RefCell::default(),
        };
        unit.note_state();
        unit
    }

    /// Lets the node live until now, and publishes what it has to say. In steps, so that no change
    /// of the heater goes unnoticed in the log.
    fn advance(&self, now_s: f64) {
        let from_s = self.stepped_s.replace(now_s);
        let mut time = Duration::try_from_secs_f64(now_s - from_s).unwrap_or_default();
        let longest = LONGEST_STEP.div_f64(self.speed).max(SHORTEST_STEP);
        while !time.is_zero() {
            let part = time.min(longest);
            self.node.borrow_mut().step(part);
            let lived = self.since_noted.get() + part.mul_f64(self.speed);
            self.since_noted.set(lived);
            self.note_state();
            time -= part;
        }
        let reboots = self.node.borrow().reboots();
        if self.reboots.replace(reboots) != reboots {
            self.note(Event::Down);
            self.note(Event::Up);
        }
        self.publish();
    }

    fn publish(&self) {
        let publications = self.node.borrow_mut().take_publications();
        self.link.publish(publications);
    }

    fn look_at_timers(&self, now_s: f64) {
        if self.down_until_s.get().is_some_and(|until| now_s >= until) {
            self.down_until_s.set(None);
            self.node.borrow_mut().boot();
            self.note(Event::Up);
            self.note_state();
        }
        self.link.set_hold(match self.down_until_s.get() {
            // Set where it went down: one that restarts stays away, one without power is dead.
            Some(_) => self.link.hold(),
            None if self.hangs.get() => Hold::Hung,
            None if now_s < self.away_until_s.get() => Hold::Away,
            None => Hold::Live,
        });
    }

    fn go_down(&self, seconds: f64, hold: Hold) {
        self.down_until_s.set(Some(now_s() + seconds));
        self.hangs.set(false);
        self.link.set_hold(hold);
        self.note(Event::Down);
    }

    fn note(&self, event: Event) {
        self.log.note(self.index, event);
    }

    fn note_state(&self) {
        let state = self.node.borrow().state();
        let same = self.noted.get().is_some_and(|noted| {
            // The chamber itself changes all the time.
            State {
                chamber_c: noted.chamber_c,
                cavity_c: noted.cavity_c,
                ..state
            } == noted
        });
        if !same || self.since_noted.get() >= NOTE_EVERY {
            self.noted.set(Some(state));
            self.since_noted.set(Duration::ZERO);
            self.note(Event::node(&state));
        }
    }
}

impl Simulated for Unit {
    fn tick(self: Rc<Self>, now_s: f64, _: f64, _: bool) {
        self.look_at_timers(now_s);
        self.advance(now_s);
    }

    fn inject(self: Rc<Self>, command: &Command, text: &str) {
        self.note(Event::Inject {
            text: text.to_owned(),
        });
        let now_s = now_s();
        self.advance(now_s);
        let mut node = self.node.borrow_mut();
        match command {
            Command::Button(button) => node.switch(*button == Button::On),
            Command::Fault(fault) => node.fault(*fault),
            Command::ClearFaults => node.clear_faults(),
            Command::Chamber(chamber_c) => node.set_chamber(*chamber_c),
            Command::Door { open } => node.set_door(*open),
            Command::Drop => self.link.cut(Cut::Reset),
            Command::Hang { .. } => self.hangs.set(true),
            Command::Resume => self.hangs.set(false),
            Command::Refuse(time) => {
                self.away_until_s.set(now_s + time.as_secs_f64());
                self.link.cut(Cut::Reset);
            }
            Command::Reboot => {
                node.shut_down();
                self.link.publish(node.take_publications());
                self.link.cut(Cut::Goodbye);
                self.go_down(self.reboot_s, Hold::Away);
            }
            Command::PowerCut(time) => {
                node.power_off();
                self.go_down(time.as_secs_f64(), Hold::Dead);
            }
            Command::Garbage => self.link.publish(nonsense(&node.state_topics())),
            Command::Raw(text) => self.link.publish(vec![publication(text, false)]),
            Command::RawRetain(text) => self.link.publish(vec![publication(text, true)]),
            Command::Mute(time) => self.link.mute_until(now_s + time.as_secs_f64()),
            Command::Flood { per_second, time } => {
                tokio::task::spawn_local(flood(Rc::clone(&self), *per_second, *time));
            }
            // Refused before they come here: see `Command::fits`.
            Command::RawHex(_)
            | Command::Drip { .. }
            | Command::Bed(_)
            | Command::Printer { .. }
            | Command::Upload(_)
            | Command::Identity(_) => {}
        }
        drop(node);
        self.look_at_timers(now_s);
        self.note_state();
        self.publish();
    }

    fn saves(&self) -> u64 {
        self.node.borrow().saves()
    }

    fn cavity_c(&self) -> Option<f64> {
        self.node.borrow().state().cavity_c
    }

    fn stored(&self) -> serde_json::Value {
        self.node.borrow().stored()
    }
}

impl Face for Unit {
    fn link(&self) -> &Link {
        &self.link
    }

    fn terms(&self) -> Terms {
        self.node.borrow().terms()
    }

    fn opened(&self) {
        self.trouble.borrow_mut().clear();
        self.connections.set(self.connections.get() + 1);
        self.note(Event::Open {
            client: self.connections.get(),
            open: 1,
        });
        self.node.borrow_mut().connected();
        self.publish();
    }

    fn closed(&self) {
        // One that has no power or boots knows it already.
        self.node.borrow_mut().disconnected();
        self.note(Event::Close {
            client: self.connections.get(),
            open: 0,
        });
    }

    fn received(self: Rc<Self>, topic: &str, payload: &[u8]) {
        self.note(Event::message(self.connections.get(), topic, payload));
        self.advance(now_s());
        self.node.borrow_mut().handle(topic, payload);
        // Its main loop has its turn before the next tick.
        tokio::task::spawn_local(async move {
            tokio::time::sleep(LOOP).await;
            self.advance(now_s());
        });
    }

    fn unreachable(&self, text: &str) {
        if self.trouble.replace(text.to_owned()) != text {
            (self.complain)(text);
            self.note(Event::Unreachable {
                text: text.to_owned(),
            });
        }
    }
}

/// Whether a fault means anything to a node, and which it is.
pub(crate) fn knows(fault: Fault) -> bool {
    matches!(fault, Fault::ChamberOpen | Fault::PtcOpen | Fault::Heater)
}

/// Every kind of nonsense on every one of these topics, and numbers that are none a heater has.
fn nonsense(topics: &[String]) -> Vec<Publication> {
    let mut payloads = garbage();
    for text in [
        "nan", "inf", "-300", "500", "1e400", "30 ", "30,5", "none", "heat\0",
    ] {
        payloads.push(text.into());
    }
    let on_all = |payload: &Vec<u8>| {
        let payload = payload.clone();
        // What is large once is large enough: a broker that is slow would end the connection.
        let count = if payload.len() > 1000 {
            1
        } else {
            topics.len()
        };
        topics.iter().take(count).map(move |topic| Publication {
            topic: topic.clone(),
            payload: payload.clone(),
            retain: false,
        })
    };
    payloads.iter().flat_map(on_all).collect()
}

/// Publishes that many readings per second, as evenly as the runtime's timer of 1 ms allows.
async fn flood(unit: Rc<Unit>, per_second: u32, time: Duration) {
    let start_s = now_s();
    let total = time.as_micros() * u128::from(per_second) / 1_000_000;
    let mut turns = tokio::time::interval(Duration::from_millis(1));
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut sent = 0;
    while sent < total {
        turns.tick().await;
        let passed = Duration::try_from_secs_f64(now_s() - start_s).unwrap_or_default();
        let due = (passed.as_micros() * u128::from(per_second) / 1_000_000).min(total);
        let reading = unit.node.borrow().reading();
        let count = usize::try_from(due - sent).unwrap_or_default();
        unit.link.publish(vec![reading; count]);
        sent = due;
    }
}

/// A bit more than one turn of the main loop.
const LOOP: Duration = Duration::from_millis(20);
/// Both in simulated time.
const LONGEST_STEP: Duration = Duration::from_millis(500);
const NOTE_EVERY: Duration = Duration::from_secs(10);
/// In real time.
const SHORTEST_STEP: Duration = Duration::from_micros(100);
