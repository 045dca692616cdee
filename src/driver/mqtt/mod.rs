//! One connection to an MQTT broker: from a TCP stream to messages, without ever waiting in a call.
//!
//! Uses the codec of `rumqttc` over a stream of our own. Its event loop queues what is published
//! while it is offline and sends it after the reconnect, which rule R4 forbids; here there is no
//! queue to begin with.
//!
//! * [`mod@self`]: the words: a broker, the terms, what comes in and what goes out
//! * `connection`: the handshake, the keep alive, and the texts for people
//! * `wire`: packets over a stream, bounded both ways
//! * `inbox`: bytes to packets, pure
//! * `stream`, `tls`: plain or encrypted bytes

mod connection;
mod inbox;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::OnceLock;
use std::time::Duration;

pub use connection::Connection;
pub use tls::{Files, Tls};

/// The largest message, topic and payload together (rule R6).
const MAX_MESSAGE: usize = 64 * 1024;

/// How to get in at a broker.
#[derive(Clone, Debug, PartialEq)]
pub struct Broker {
    /// Host name or address, as the user wrote it; with TLS the certificate must be for it.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User name and password.
    pub login: Option<Login>,
    /// Encryption; none: plain TCP.
    pub tls: Option<Tls>,
}

impl Broker {
    /// A number that changes when the way in does: the login, or the files of the encryption.
    /// Of use in this process only, and nobody can work back from it to the password (rule R11).
    pub fn access(&self) -> u64 {
        static SEED: OnceLock<RandomState> = OnceLock::new();
        SEED.get_or_init(RandomState::new)
            .hash_one((&self.login, &self.tls))
    }
}

/// A user name and its password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Login {
    /// User name.
    pub username: String,
    /// Never in a log, an event or an error text (rule R11).
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

/// What a client asks for when it connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Two clients with one id throw each other out.
    pub client_id: String,
    /// How often something must be heard from each side, at least a second; an answer is waited for
    /// equally long.
    pub keep_alive: Duration,
    /// Whether the broker forgets the client when it is gone.
    pub clean_session: bool,
    /// What the broker publishes when the client is gone without a DISCONNECT.
    pub will: Option<Publication>,
    /// Topic filters, at quality of service 0.
    pub subscriptions: Vec<String>,
}

/// A message to publish, at quality of service 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it. Commands never are (rule R4).
    pub retain: bool,
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A message; `retained` says that it is history.
    Message {
        /// Topic.
        topic: String,
        /// Payload; with its topic at most 64 KiB.
        payload: bytes::Bytes,
        /// The broker had kept it from before the subscription.
        retained: bool,
    },
    /// A message that is too large or no message at all; the connection is fine.
    Unreadable,
    /// Over, and why.
    Ended(String),
}
