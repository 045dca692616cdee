//! [`_core::driver::mqtt::Connection`] against a real broker. Skipped where mosquitto is not
//! installed.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers may panic as its tests do"
)]

#[path = "broker/client.rs"]
mod client;
#[path = "broker/files.rs"]
mod files;
#[path = "broker/handshake.rs"]
mod handshake;
#[path = "broker/messages.rs"]
mod messages;
mod mosquitto;
#[path = "broker/wills.rs"]
mod wills;
