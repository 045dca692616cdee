//! A short stay at a broker, for commands that a person runs beside a klippy: connect, listen,
//! perhaps say something, leave. It has no will, and says goodbye.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::mqtt::{Broker, Connection, Incoming, Publication, Terms};
use super::reach::reach;
use super::resolve::Resolver;

/// Longer than a short stay, so that there is nothing to keep alive.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// A message that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// The broker had kept it.
    pub retained: bool,
}

/// A connection to a broker, with everything subscribed to.
#[derive(Debug)]
pub struct Stay {
    connection: Connection,
}

impl Stay {
    /// Connects, logs in and subscribes. The error says why not, in words for people.
    pub async fn at(
        broker: &Broker,
        subscriptions: Vec<String>,
        patience: Duration,
    ) -> Result<Self, String> {
        Self::long(broker, subscriptions, patience, KEEP_ALIVE).await
    }

    /// The same for a stay without an end, in which each side is to be heard this often.
    pub async fn long(
        broker: &Broker,
        subscriptions: Vec<String>,
        patience: Duration,
        keep_alive: Duration,
    ) -> Result<Self, String> {
        let terms = Terms {
            // Nobody else's, and another one each time: a broker throws out who has it already.
            client_id: format!("pb-look-{:016x}", super::device::seed()),
            keep_alive,
            clean_session: true,
            will: None,
            subscriptions,
        };
        let opening = async {
            let host = broker.host.clone();
            let stream = reach(Resolver::default(), host, broker.port, None).await?;
            Connection::handshake(stream, broker, &terms).await
        };
        let opened = timeout(patience, opening).await;
        let connection = opened.unwrap_or_else(|_| Err("no answer".to_owned()))?;
        Ok(Self { connection })
    }

    /// Says something that the broker does not keep.
    pub fn publish(&mut self, topic: &str, payload: &str) {
        self.connection.publish(&Publication {
            topic: topic.to_owned(),
            payload: payload.into(),
            retain: false,
        });
    }

    /// The next message; `None`: one that cannot be read. The error says why it is over. May be
    /// dropped at any time.
    pub async fn next(&mut self) -> Result<Option<Arrival>, String> {
        loop {
            match self.connection.take() {
                None => poll_fn(|cx| self.connection.poll_ready(cx)).await,
                Some(Incoming::Unreadable) => return Ok(None),
                Some(Incoming::Ended(why)) => return Err(why),
                Some(Incoming::Message {
                    topic,
                    payload,
                    retained,
                }) => {
                    return Ok(Some(Arrival {
                        topic,
                        payload,
                        retained,
                    }));
                }
            }
        }
    }

    /// Says goodbye.
    pub fn leave(mut self) {
        self.connection.disconnect();
    }
}
