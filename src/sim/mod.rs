//! Simulated devices over real sockets: `panda-breath simulate`, the peer of the tests, and the
//! demo's default.
//!
//! * [`Device`]: one device without sockets and clock.
//! * [`esphome::Node`]: one ESPHome node, likewise.
//! * [`Simulator`]: devices on ports or at a broker, on a thread of their own.

mod broker;
mod clock;
mod connection;
mod device;
mod door;
pub mod esphome;
mod firmware;
mod frame;
mod http;
mod identity;
mod inject;
mod json;
mod link;
mod log;
mod simulator;
mod thermal;
mod unit;

pub use broker::{address, broker};
pub use device::{Button, Device, Effect, Fault, Setup, State};
pub use firmware::{Firmware, Mode};
pub use identity::Identity;
pub use log::{Entry, Event};
pub use simulator::{Dialect, Options, Simulator};
pub use thermal::{Cavity, Enclosure, Thermal};
