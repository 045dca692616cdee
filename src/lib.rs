//! The compiled half of Panda Breath for Klipper: everything that touches the network.
//!
//! * [`dialect`]: how a firmware speaks. Pure functions between bytes and words.
//! * [`session`]: one device's state and every safety rule. Pure: time comes in as `now`.
//! * [`driver`]: the one background thread with sockets and clock. Decides nothing.
//! * [`sim`]: simulated devices over real sockets.
//! * [`cli`]: the `panda-breath` command.

pub mod cli;
pub mod dialect;
pub mod driver;
#[cfg(feature = "python")]
mod python;
pub mod session;
pub mod sim;
