//! What the fuzz targets share: the pure half of the project, compiled from its sources, and a
//! world of nothing but rules around a session.
//!
//! * [`dialect`], [`session`]: the project's
//! * [`inbox`]: bytes of a broker to packets, the project's
//! * [`frame`]: the simulated device's reader of WebSocket frames
//! * [`script`]: bytes of the fuzzer as a list of things that happen; [`words`]: what it need not
//!   find by itself
//! * [`world`]: checks every command of a session against the rules; `said`: reads them; `sensors`:
//!   what Klipper's sensors and the bed have to do with them

#![allow(dead_code)]

#[path = "../../src/dialect/mod.rs"]
pub mod dialect;
#[path = "../../src/session/mod.rs"]
pub mod session;

/// The project's own limit is 64 KiB; with a small one a fuzzer comes to it.
pub const MAX_MESSAGE: usize = 300;
#[path = "../../src/sim/frame.rs"]
mod frame;
#[path = "../../src/driver/mqtt/inbox.rs"]
mod inbox;

mod said;
pub mod script;
mod sensors;
pub mod words;
pub mod world;

/// Reads a stream of a broker in pieces of so many bytes. Returns what it says, in short; an end
/// that is nonsense is `!`.
pub fn packets(bytes: &[u8], piece: usize) -> Vec<String> {
    let mut inbox = inbox::Inbox::default();
    let mut said = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        inbox.push(piece);
        loop {
            let kept = inbox.peek().len();
            assert!(kept <= MAX_MESSAGE + 8 + piece.len(), "R6: {kept} bytes");
            match inbox.next() {
                Ok(Some(frame)) => said.push(format!("{frame:?}")),
                Ok(None) => break,
                Err(inbox::Nonsense) => {
                    said.push("!".into());
                    return said;
                }
            }
        }
    }
    said
}

/// Reads a client's stream as the simulated device does.
pub fn frames(mut bytes: &[u8]) {
    while let frame::Parsed::Frame { taken, payload, .. } = frame::parse(bytes) {
        assert!(taken >= 6 && taken <= bytes.len(), "it takes what is there");
        assert!(payload.len() <= taken);
        bytes = &bytes[taken..];
    }
}
