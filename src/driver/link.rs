//! One connection of a device's task, from a name to messages: a WebSocket to the device, or MQTT
//! to its broker.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tungstenite::Message as Frame;

use crate::dialect::Identity;
use crate::dialect::mqtt::{Message, Terms};
use crate::session::Conn;

use super::mqtt::{self, Broker, Publication};
use super::reach::reach;
use super::resolve::Resolver;
use super::websocket;

/// A broker that does not answer is given up after twice this; one that does not hear us says our
/// will after one and a half times this.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

type Opening<T> = Pin<Box<dyn Future<Output = Result<T, String>>>>;

/// How far a connection has come.
pub(super) enum Link {
    Reaching(Opening<TcpStream>, Plan),
    Shaking(Opening<Open>),
    Open(Open),
}

/// What to do once the other side has been reached.
pub(super) enum Plan {
    Device,
    Broker(Box<Broker>, mqtt::Terms),
}

/// A connection that works.
pub(super) enum Open {
    Device(Box<websocket::Connection>),
    Broker(Box<mqtt::Connection>),
}

/// What a link has to say.
pub(super) enum LinkEvent {
    Reached,
    Opened(SocketAddr),
    Readable,
    Failed(String),
}

/// What came in.
pub(super) enum Heard {
    Frame(Bytes),
    Delivery {
        topic: String,
        payload: Bytes,
        retained: bool,
    },
    Unreadable,
    Ended(String),
}

impl Plan {
    pub(super) fn device() -> Self {
        Self::Device
    }

    pub(super) fn broker(broker: &Broker, terms: Terms, key: &str) -> Self {
        let terms = mqtt::Terms {
            client_id: client_id(key),
            keep_alive: KEEP_ALIVE,
            clean_session: true,
            will: terms.will.map(publication),
            subscriptions: terms.subscriptions,
        };
        Self::Broker(Box::new(broker.clone()), terms)
    }

    fn shake(self, stream: TcpStream) -> Opening<Open> {
        match self {
            Self::Device => Box::pin(async {
                let connection = websocket::Connection::handshake(stream).await?;
                Ok(Open::Device(Box::new(connection)))
            }),
            Self::Broker(broker, terms) => Box::pin(async move {
                let connection = mqtt::Connection::handshake(stream, &broker, &terms).await?;
                Ok(Open::Broker(Box::new(connection)))
            }),
        }
    }
}

/// Always the same for a device as long as this process lives: a connection that is left over at
/// the broker is taken over by the next one, and its will comes before anything new. Never that of
/// another process, which would be thrown out.
fn client_id(key: &str) -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    let process = *PROCESS.get_or_init(super::device::seed);
    let device = Identity::of(key).0;
    format!("pb-{:08x}-{:08x}", process >> 32, device & 0xffff_ffff)
}

fn publication(message: Message) -> Publication {
    Publication {
        topic: message.topic,
        payload: message.payload.into_bytes(),
        retain: false, // a command that is kept comes back to life (rule R4)
    }
}

impl Link {
    pub(super) fn reach(
        resolver: Resolver,
        host: String,
        port: u16,
        address: Option<SocketAddr>,
        plan: Plan,
    ) -> Self {
        Self::Reaching(Box::pin(reach(resolver, host, port, address)), plan)
    }

    /// The next thing that is there already.
    pub(super) fn take(&mut self) -> Option<Heard> {
        let Self::Open(open) = self else { return None };
        match open {
            Open::Device(connection) => loop {
                return Some(match connection.take()? {
                    websocket::Incoming::Message(Frame::Text(text)) => Heard::Frame(text.into()),
                    websocket::Incoming::Message(Frame::Binary(bytes)) => Heard::Frame(bytes),
                    websocket::Incoming::Message(_) => continue,
                    websocket::Incoming::Unreadable => Heard::Unreadable,
                    websocket::Incoming::Ended(why) => Heard::Ended(why),
                });
            },
            Open::Broker(connection) => Some(match connection.take()? {
                mqtt::Incoming::Message {
                    topic,
                    payload,
                    retained,
                } => Heard::Delivery {
                    topic,
                    payload,
                    retained,
                },
                mqtt::Incoming::Unreadable => Heard::Unreadable,
                mqtt::Incoming::Ended(why) => Heard::Ended(why),
            }),
        }
    }

    pub(super) fn send(&mut self, text: String) {
        if let Self::Open(Open::Device(connection)) = self {
            connection.send(text);
        }
    }

    pub(super) fn publish(&mut self, message: Message) {
        if let Self::Open(Open::Broker(connection)) = self {
            connection.publish(&publication(message));
        }
    }

    /// Says goodbye, so that the broker does not say our will.
    pub(super) fn leave(&mut self) {
        if let Self::Open(Open::Broker(connection)) = self {
            connection.disconnect();
        }
    }

    /// Goes on as far as it can without waiting. Nothing is taken out of it that is not returned.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        match self {
            Self::Reaching(reaching, plan) => match std::task::ready!(reaching.as_mut().poll(cx)) {
                Ok(stream) => {
                    let plan = std::mem::replace(plan, Plan::Device);
                    *self = Self::Shaking(plan.shake(stream));
                    Poll::Ready(LinkEvent::Reached)
                }
                Err(why) => Poll::Ready(LinkEvent::Failed(why)),
            },
            Self::Shaking(shaking) => match std::task::ready!(shaking.as_mut().poll(cx)) {
                Ok(open) => {
                    let address = match &open {
                        Open::Device(connection) => connection.address().ok(),
                        Open::Broker(connection) => Some(connection.address()),
                    };
                    *self = Self::Open(open);
                    Poll::Ready(match address {
                        Some(address) => LinkEvent::Opened(address),
                        None => LinkEvent::Failed("closed by the device".into()),
                    })
                }
                Err(why) => Poll::Ready(LinkEvent::Failed(why)),
            },
            Self::Open(Open::Device(connection)) => {
                connection.poll_ready(cx).map(|()| LinkEvent::Readable)
            }
            Self::Open(Open::Broker(connection)) => {
                connection.poll_ready(cx).map(|()| LinkEvent::Readable)
            }
        }
    }
}

/// The next thing that happens on any link. Safe to drop at any time: nothing is taken out of a
/// link before it is returned.
pub(super) async fn next_event(links: &mut [(Conn, Link)]) -> (Conn, LinkEvent) {
    std::future::poll_fn(|cx| {
        for (conn, link) in links.iter_mut() {
            if let Poll::Ready(event) = link.poll(cx) {
                return Poll::Ready((*conn, event));
            }
        }
        Poll::Pending
    })
    .await
}
