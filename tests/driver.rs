//! The driver over real sockets: [`_core::driver::Handle`] against simulated and scripted devices.
//! Each test is named after the rule it holds.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers may panic as its tests do"
)]

#[path = "driver/bad_input.rs"]
mod bad_input;
#[path = "broker/client.rs"]
#[allow(dead_code, reason = "it serves other tests as well")]
mod client;
#[path = "driver/guard.rs"]
mod guard;
#[path = "driver/heating.rs"]
mod heating;
#[path = "driver/identity.rs"]
mod identity;
#[path = "driver/klipper.rs"]
mod klipper;
mod mosquitto;
#[path = "driver/mqtt.rs"]
mod mqtt;
#[path = "driver/names.rs"]
mod names;
#[path = "driver/peer.rs"]
mod peer;
#[path = "driver/recovery.rs"]
mod recovery;
#[path = "driver/restart.rs"]
mod restart;
