//! The device behind a virtual broker: either of the simulated ones, without its sockets.

use std::time::Duration;

use super::super::Millis;
use crate::driver::mqtt::{Publication, Terms};
use crate::sim::esphome::{self, Node};
use crate::sim::{Button, Device, Fault, Firmware, Setup};

/// A stock device publishes its state this often.
const STATE_EVERY: Millis = 500;

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Esphome(Box<esphome::Setup>),
    Stock,
}

pub(crate) enum Peer {
    Esphome(Box<Node>),
    Stock(Box<Stock>),
}

pub(crate) struct Stock {
    device: Device,
    connected: bool,
    since_state: Millis,
    outbox: Vec<Publication>,
}

/// What it does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerState {
    /// It is on, to heat to its target.
    pub(crate) heat: bool,
    pub(crate) target_c: f64,
    /// Its element has power.
    pub(crate) relay: bool,
    /// It dries filament, and at what.
    pub(crate) dries: bool,
    pub(crate) dry_c: f64,
}

impl Peer {
    pub(crate) fn new(kind: &Kind) -> Self {
        match kind {
            Kind::Esphome(setup) => Self::Esphome(Box::new(Node::new(setup))),
            Kind::Stock => Self::Stock(Box::new(Stock {
                device: Device::new(&Setup {
                    firmware: Firmware::V1_0_4,
                    ..Setup::default()
                }),
                connected: false,
                since_state: 0,
                outbox: Vec::new(),
            })),
        }
    }

    pub(crate) fn terms(&self) -> Terms {
        match self {
            Self::Esphome(node) => node.terms(),
            Self::Stock(stock) => stock.device.terms(),
        }
    }

    pub(crate) fn connected(&mut self) {
        match self {
            Self::Esphome(node) => node.connected(),
            Self::Stock(stock) => {
                stock.connected = true;
                stock.outbox.push(stock.device.availability("online"));
                stock.outbox.push(stock.device.published_state());
            }
        }
    }

    pub(crate) fn disconnected(&mut self) {
        match self {
            Self::Esphome(node) => node.disconnected(),
            Self::Stock(stock) => {
                stock.connected = false;
                stock.outbox.clear();
            }
        }
    }

    pub(crate) fn handle(&mut self, topic: &str, payload: &[u8]) {
        match self {
            Self::Esphome(node) => node.handle(topic, payload),
            Self::Stock(stock) => drop(stock.device.handle_mqtt(payload)),
        }
    }

    pub(crate) fn step(&mut self, time: Millis) {
        match self {
            Self::Esphome(node) => node.step(Duration::from_millis(time)),
            Self::Stock(stock) => {
                stock.device.step(Duration::from_millis(time));
                stock.since_state += time;
                if stock.since_state >= STATE_EVERY {
                    stock.since_state = 0;
                    if stock.connected {
                        stock.outbox.push(stock.device.published_state());
                    }
                }
            }
        }
    }

    pub(crate) fn take_publications(&mut self) -> Vec<Publication> {
        match self {
            Self::Esphome(node) => node.take_publications(),
            Self::Stock(stock) => std::mem::take(&mut stock.outbox),
        }
    }

    pub(crate) fn state(&self) -> PeerState {
        match self {
            Self::Esphome(node) => {
                let state = node.state();
                // A band that is not ours is as warm as its upper end: what counts is that it is no
                // warmer than wished.
                let is_ours = state.high_c - state.target_c < 0.6;
                let target_c = if is_ours {
                    state.target_c
                } else {
                    state.high_c
                };
                PeerState {
                    heat: state.heat,
                    target_c,
                    relay: state.relay,
                    dries: state.heat, // all the same to it
                    dry_c: target_c,
                }
            }
            Self::Stock(stock) => {
                let state = stock.device.state();
                PeerState {
                    heat: state.work_on,
                    target_c: state.set_temp.into(),
                    relay: state.heater,
                    dries: state.drying,
                    dry_c: state.programme.0.into(),
                }
            }
        }
    }

    pub(crate) fn switch(&mut self, on: bool) {
        match self {
            Self::Esphome(node) => node.switch(on),
            Self::Stock(stock) => {
                let button = if on { Button::On } else { Button::Power };
                let _ = stock.device.press(button);
            }
        }
    }

    /// A node has no buttons but those that its owner gave it: see [`Peer::switch`].
    pub(crate) fn press(&mut self, button: Button) {
        if let Self::Stock(stock) = self {
            let _ = stock.device.press(button);
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        match self {
            Self::Esphome(node) => node.fault(fault),
            Self::Stock(stock) => stock.device.fault(fault),
        }
    }

    pub(crate) fn clear_faults(&mut self) {
        match self {
            Self::Esphome(node) => node.clear_faults(),
            Self::Stock(stock) => stock.device.clear_faults(),
        }
    }

    pub(crate) fn shut_down(&mut self) {
        match self {
            Self::Esphome(node) => node.shut_down(),
            Self::Stock(stock) => {
                let goodbye = stock.device.availability("offline");
                stock.outbox.push(goodbye);
                stock.device.power_off();
                stock.connected = false;
            }
        }
    }

    /// How often its flash was written.
    pub(crate) fn saves(&self) -> u64 {
        match self {
            Self::Esphome(node) => node.saves(),
            Self::Stock(stock) => stock.device.saves(),
        }
    }

    pub(crate) fn power_off(&mut self) {
        match self {
            Self::Esphome(node) => node.power_off(),
            Self::Stock(stock) => {
                stock.device.power_off();
                stock.connected = false;
                stock.outbox.clear();
            }
        }
    }

    pub(crate) fn boot(&mut self) {
        match self {
            Self::Esphome(node) => node.boot(),
            Self::Stock(stock) => {
                stock.outbox.clear();
                stock.device.boot();
            }
        }
    }
}
