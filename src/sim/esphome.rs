//! One simulated ESPHome node, without sockets and without a clock: messages go in, publications
//! come out, and time passes when [`Node::step`] says so.
//!
//! What it does was read in the source of ESPHome 2026.6.5 and seen on a running one, except
//! where "unconfirmed" says otherwise. What a broker does is not in here: it keeps retained
//! messages and repeats them, commands too, at each subscription.

mod climate;
mod discovery;
mod payload;
mod publish;
mod receive;
mod setup;
pub(crate) mod unit;

use std::collections::VecDeque;
use std::time::Duration;

use super::device::Fault;
use super::thermal::Thermal;
use crate::driver::mqtt::{Publication, Terms};
use climate::{Action, Change, Climate, Saved, micros};
pub use climate::{BangBang, Platform, Thermostat};
use payload::Mode;
pub use setup::{Discovery, Setup};

/// A simulated ESPHome node. It is switched on, and not connected to a broker.
#[derive(Debug)]
pub struct Node {
    setup: Setup,
    climate: Climate,
    fan: Fan,
    relay: bool,
    thermal: Thermal,
    faults: Vec<Fault>,
    /// What the sensors said last; `None` before their first sample, NaN when they are broken.
    chamber_c: Option<f64>,
    element_c: Option<f64>,
    /// What the chamber sensor published last.
    told_c: Option<f64>,
    /// In flash: what a restart brings back.
    flash: Option<Saved>,
    /// In memory, on its way to the flash.
    unsaved: Option<Saved>,
    saves: u64,
    powered: bool,
    connected: bool,
    inbox: VecDeque<(String, Vec<u8>)>,
    outbox: Vec<Publication>,
    /// Real time, which is that of the wire.
    wire_us: u64,
    /// When the main loop takes the next message.
    loop_us: u64,
    /// When the next reading may be published.
    publish_us: u64,
    /// When the native reboot for want of a broker is due.
    lonely_us: u64,
    /// Simulated time, which is that of the heat and of every timer of the node.
    now_us: u64,
    sample_us: u64,
    flush_us: u64,
    reboots: u64,
}

/// What a node is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct State {
    /// Whether the climate is in mode `heat`.
    pub heat: bool,
    /// Its target, or the middle between low and high.
    pub target_c: f64,
    /// What it heats up to: its target, or the upper end of its band.
    pub high_c: f64,
    /// Whether the heating element has power.
    pub relay: bool,
    /// The air in the chamber.
    pub chamber_c: f64,
    /// The rest of the chamber, if that is another temperature.
    pub cavity_c: Option<f64>,
    /// What the chamber sensor published last, or would have with a connection; none while that is
    /// nothing or NaN.
    pub reading_c: Option<f64>,
}

/// The fan, as an entity: the heater's own blowing is separate from it.
#[derive(Debug, Clone, Copy, Default)]
struct Fan {
    on: bool,
    level: i64,
}

impl Node {
    /// A node that has just been switched on for the first time.
    pub fn new(setup: &Setup) -> Self {
        let mut node = Node {
            climate: Climate::boot(setup.platform, None),
            fan: Fan::default(),
            relay: false,
            thermal: Thermal::new(setup.enclosure, setup.chamber_c, setup.ambient_c),
            faults: Vec::new(),
            chamber_c: None,
            element_c: None,
            told_c: None,
            flash: None,
            unsaved: None,
            saves: 0,
            powered: true,
            connected: false,
            inbox: VecDeque::new(),
            outbox: Vec::new(),
            wire_us: 0,
            loop_us: 0,
            publish_us: 0,
            lonely_us: 0,
            now_us: 0,
            sample_us: 0,
            flush_us: 0,
            reboots: 0,
            setup: setup.clone(),
        };
        node.boot();
        node
    }

    /// How it connects: its client id, a session that outlives the connection, a will, and the
    /// topics of its commands.
    pub fn terms(&self) -> Terms {
        let mac = self.setup.identity.to_string().to_lowercase();
        Terms {
            client_id: format!("{}-{mac}", self.setup.node),
            keep_alive: KEEP_ALIVE,
            clean_session: false,
            will: Some(self.status("offline")),
            subscriptions: self.command_topics(),
        }
    }

    /// The broker has accepted it and granted its subscriptions: everything is published.
    pub fn connected(&mut self) {
        if self.powered {
            self.connected = true;
            self.publish_everything();
        }
    }

    /// The connection is lost. It goes on regulating, and publishes nothing. What has arrived by
    /// then is obeyed: the end of a connection waits in the same queue, behind it.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.outbox.clear();
        self.lonely_us = self.wire_us + micros(self.setup.lonely_s);
    }

    /// Takes a message from the broker. The main loop obeys it, one per 16 ms of [`Node::step`];
    /// what doesn't fit into the queue before it is lost.
    pub fn handle(&mut self, topic: &str, payload: &[u8]) {
        if !self.powered || !self.connected {
            return;
        }
        if self.inbox.len() >= MOST_WAITING {
            self.log_line("W", "mqtt", "Dropped inbound message: queue full");
            return;
        }
        if self.inbox.is_empty() {
            self.loop_us = self.wire_us + LOOP_US;
        }
        self.inbox.push_back((topic.to_owned(), payload.to_vec()));
    }

    /// Lets real time pass: the main loop runs, and the chamber warms up or cools down.
    pub fn step(&mut self, time: Duration) {
        let end_us = self.wire_us + u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 2);
        while self.wire_us < end_us {
            let next_us = if self.inbox.is_empty() {
                end_us.min(self.wire_us + LONGEST_STEP_US)
            } else {
                end_us.min(self.loop_us)
            };
            let real_s = Duration::from_micros(next_us - self.wire_us).as_secs_f64();
            self.wire_us = next_us;
            self.live(micros(real_s * self.setup.speed));
            if self.powered && self.wire_us >= self.loop_us {
                if let Some((topic, payload)) = self.inbox.pop_front() {
                    self.loop_us = self.wire_us + LOOP_US;
                    self.obey(&topic, &payload);
                }
            }
            let is_lonely = self.powered && !self.connected && self.setup.lonely_s > 0.0;
            if is_lonely && self.wire_us >= self.lonely_us {
                self.shut_down();
                self.boot();
                self.reboots += 1;
            }
        }
    }

    /// What it publishes, in order.
    pub fn take_publications(&mut self) -> Vec<Publication> {
        std::mem::take(&mut self.outbox)
    }

    /// Switches the climate at the device, as a button or a script on it would.
    pub fn switch(&mut self, heat: bool) {
        if self.powered {
            let mode = if heat { Mode::Heat } else { Mode::Off };
            self.change(Change::Mode(Some(mode)));
        }
    }

    /// Breaks something. The node cannot tell a short circuit, nor a cold heater.
    pub fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Mends everything.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Puts the chamber at a temperature.
    pub fn set_chamber(&mut self, chamber_c: f64) {
        self.thermal.set_chamber(chamber_c);
    }

    /// Opens the chamber's door, or closes it.
    pub fn set_door(&mut self, is_open: bool) {
        self.thermal.set_door(is_open);
    }

    /// Restarts in an orderly way: says goodbye and writes to flash what is not there yet. What it
    /// publishes has to leave before [`Node::boot`].
    pub fn shut_down(&mut self) {
        if self.powered {
            self.flush();
            let goodbye = self.status("offline");
            self.publish(goodbye);
            self.powered = false;
            self.connected = false;
            self.relay = false;
            self.inbox.clear();
        }
    }

    /// Takes the power away: what is not in flash yet is lost, and nothing is said.
    pub fn power_off(&mut self) {
        self.powered = false;
        self.connected = false;
        self.relay = false;
        self.unsaved = None;
        self.inbox.clear();
        self.outbox.clear();
    }

    /// Boots from what is in flash.
    pub fn boot(&mut self) {
        self.powered = true;
        self.connected = false;
        self.climate = Climate::boot(self.setup.platform, self.flash);
        self.fan = Fan::default();
        self.relay = false;
        self.chamber_c = None;
        self.element_c = None;
        self.told_c = None;
        self.unsaved = None;
        self.inbox.clear();
        self.outbox.clear();
        self.sample_us = self.now_us + micros(FIRST_SAMPLE_S);
        self.flush_us = self.now_us + micros(self.setup.flash_s);
        self.publish_us = self.wire_us;
        self.lonely_us = self.wire_us + micros(self.setup.lonely_s);
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        State {
            heat: self.climate.mode == Mode::Heat,
            target_c: self.climate.middle_c(),
            high_c: self.climate.upper_c(),
            relay: self.relay,
            chamber_c: self.thermal.chamber_c(),
            cavity_c: self.thermal.cavity_c(),
            reading_c: self.told_c.filter(|c| !c.is_nan()),
        }
    }

    /// How often settings went to flash.
    pub fn saves(&self) -> u64 {
        self.saves
    }

    /// How often it has rebooted by itself, for want of a broker.
    pub fn reboots(&self) -> u64 {
        self.reboots
    }

    /// What is in flash.
    pub(crate) fn stored(&self) -> serde_json::Value {
        serde_json::to_value(self.flash).unwrap_or_default()
    }

    /// Replaces what is in flash and boots from it.
    pub(crate) fn restore(&mut self, stored: serde_json::Value) {
        self.flash = serde_json::from_value(stored).unwrap_or_default();
        self.boot();
    }

    /// Lets simulated time pass.
    fn live(&mut self, time_us: u64) {
        let end_us = self.now_us + time_us;
        while self.now_us < end_us {
            let mut next_us = end_us;
            if self.powered {
                next_us = next_us.min(self.sample_us).min(self.flush_us);
                next_us = next_us.min(self.climate.timer_us().unwrap_or(next_us));
            }
            let next_us = next_us.max(self.now_us + 1);
            let seconds = Duration::from_micros(next_us - self.now_us).as_secs_f64();
            let heating = self.relay && !self.faults.contains(&Fault::Heater);
            // The configuration blows whenever it heats.
            self.thermal
                .advance(seconds, heating, self.relay || self.fan.on);
            self.now_us = next_us;
            if self.powered {
                self.run_timers();
            }
        }
    }

    fn run_timers(&mut self) {
        let bursts = self.climate.look_at_timer(self.now_us);
        if bursts > 0 {
            self.follow(bursts);
        }
        if self.now_us >= self.sample_us {
            self.sample_us = self.now_us + micros(self.setup.update_s).max(1);
            self.sample();
        }
        if self.now_us >= self.flush_us {
            self.flush_us = self.now_us + micros(self.setup.flash_s).max(1);
            self.flush();
        }
    }

    fn sample(&mut self) {
        let or_nan = |fault, c: f64| {
            if self.faults.contains(&fault) {
                f64::NAN
            } else {
                c
            }
        };
        let chamber_c = or_nan(Fault::ChamberOpen, self.thermal.sensor_c());
        let element_c = or_nan(Fault::PtcOpen, self.thermal.element_c());
        self.chamber_c = Some(chamber_c);
        self.element_c = Some(element_c);
        let before = self.climate.action;
        let bursts = self.climate.sample(chamber_c, self.now_us);
        // A node that lives faster looks at its sensors more often than it may say so.
        let is_due = self.setup.speed <= 1.0 || self.wire_us >= self.publish_us;
        if is_due || self.climate.action != before {
            self.publish_us = self.wire_us + micros(self.setup.update_s);
            self.follow(bursts);
            self.publish_sensors();
        }
    }

    fn change(&mut self, change: Change) {
        let bursts = self.climate.command(change, self.now_us);
        self.follow(bursts);
    }

    /// What follows from whatever the climate has done.
    fn follow(&mut self, bursts: usize) {
        if self.climate.take_turn() {
            self.relay = self.climate.action == Action::Heating;
            self.publish_relay();
        }
        self.unsaved = Some(self.climate.saved());
        for _ in 0..bursts {
            self.publish_climate();
        }
    }

    fn flush(&mut self) {
        let Some(unsaved) = self.unsaved.take() else {
            return;
        };
        if self.flash != Some(unsaved) {
            self.flash = Some(unsaved);
            self.saves += 1;
        }
    }
}

const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The main loop of ESPHome, which takes one message at a time.
const LOOP_US: u64 = 16_000;
/// A queue of 32 slots of which 31 are usable (`mqtt_backend_esp32.h`); seen in source only.
const MOST_WAITING: usize = 31;
const LONGEST_STEP_US: u64 = 100_000;
/// Polling begins at a random moment in the first half of the interval; this is one.
const FIRST_SAMPLE_S: f64 = 1.0;

#[cfg(test)]
mod tests;
