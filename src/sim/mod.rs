//! Simulated devices over real sockets: `panda-breath simulate`, the peer of the tests, and the
//! demo's default.
//!
//! * [`Device`]: one device without sockets and clock.
//! * [`Simulator`]: devices on ports, on a thread of their own.

mod clock;
mod connection;
mod device;
mod door;
mod firmware;
mod frame;
mod http;
mod identity;
mod inject;
mod json;
mod log;
mod simulator;
mod thermal;
mod unit;

pub use device::{Button, Device, Effect, Fault, Setup, State};
pub use firmware::{Firmware, Mode};
pub use identity::Identity;
pub use log::{Entry, Event};
pub use simulator::{Options, Simulator};
pub use thermal::{Enclosure, Thermal};
