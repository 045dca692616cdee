//! Listening to a device for as long as wanted, for commands that a person runs beside a klippy: one
//! connection at a time, on which nothing is ever sent.
//!
//! * [`mod@self`]: a device that is spoken to directly
//! * `broker`: a device behind a broker
//!
//! The stock firmware tells other clients' writes to nobody; only a new connection is told
//! everything. So the connection is made anew now and then: the old one is ended before the next
//! begins, because the device has seven sockets and Klipper needs one or two of them.

mod broker;

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::mqtt::Broker;
use super::reach::reach;
use super::resolve::Resolver;
use super::stay::Arrival;
use super::visit::Place;
use super::websocket::{Connection, Incoming};
use crate::dialect::Dialect;
use crate::dialect::mqtt::Options;
use crate::session::Millis;
use broker::BrokerWatch;

/// The firmware sends readings at 2 Hz and nothing else: silence is a dead link.
const SILENCE: Duration = Duration::from_secs(5);
/// Until there is a connection, finding the name included.
const OPEN: Duration = Duration::from_secs(10);
/// After an attempt that failed; twice as long each time.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Milliseconds since this computer started, sleep included.
pub fn now() -> Millis {
    super::clock::now()
}

/// Where a device is.
#[derive(Clone, Debug)]
pub enum Spot {
    /// At an address of its own.
    Device(Place),
    /// Behind a broker.
    Broker(Box<Broker>, Box<Options>),
}

impl Spot {
    /// How to find it at its broker, if it is behind one.
    pub fn options(&self) -> Option<&Options> {
        match self {
            Self::Device(_) => None,
            Self::Broker(_, options) => Some(options),
        }
    }

    /// As people call it; `found`: what it was found to speak.
    pub fn name(&self, found: Option<Dialect>) -> String {
        match self {
            Self::Device(place) => place.to_string(),
            Self::Broker(broker, options) => {
                let is_known = options.prefix.is_some() || found.or(options.dialect).is_some();
                if is_known {
                    format!("{} on broker {}", options.place(found), broker.host)
                } else {
                    format!("broker {}", broker.host)
                }
            }
        }
    }

    /// The host that is connected to.
    pub fn host(&self) -> &str {
        match self {
            Self::Device(place) => &place.host,
            Self::Broker(broker, _) => &broker.host,
        }
    }
}

impl From<Place> for Spot {
    fn from(place: Place) -> Self {
        Self::Device(place)
    }
}

/// As people call it.
impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name(None))
    }
}

/// What happens to somebody who listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// There is a connection.
    Opened,
    /// It is left on purpose, to be told everything anew over the next one; or, at a broker, to
    /// listen to other topics.
    Refreshed,
    /// A whole message of the device.
    Message(Vec<u8>),
    /// A whole message of the broker.
    Delivered(Arrival),
    /// Something that is no text.
    Unreadable,
    /// The connection is gone or did not come, and why; the next attempt follows by itself.
    Closed(String),
}

type Opening = Pin<Box<dyn Future<Output = Result<Connection, String>>>>;

enum State {
    Waiting(Instant),
    Opening(Opening),
    Open {
        connection: Box<Connection>,
        refresh_at: Option<Instant>,
        silent_at: Instant,
    },
}

/// A device that is listened to.
pub struct Watch(Kind);

enum Kind {
    Device(DeviceWatch),
    Broker(Box<BrokerWatch>),
}

impl Watch {
    /// Of the device that is there. The connection to a device itself is made anew this often;
    /// behind a broker every change is told.
    pub fn new(spot: &Spot, refresh: Option<Duration>) -> Self {
        Self(match spot {
            Spot::Device(place) => Kind::Device(DeviceWatch::new(place.clone(), refresh)),
            Spot::Broker(broker, options) => {
                Kind::Broker(Box::new(BrokerWatch::new(broker, options)))
            }
        })
    }

    /// The next thing that happens; it never ends. May be dropped at any time.
    pub async fn next(&mut self) -> Heard {
        match &mut self.0 {
            Kind::Device(watch) => watch.next().await,
            Kind::Broker(watch) => watch.next().await,
        }
    }
}

struct DeviceWatch {
    place: Place,
    refresh: Option<Duration>,
    state: State,
    known: Option<SocketAddr>,
    wait: Duration,
}

impl DeviceWatch {
    fn new(place: Place, refresh: Option<Duration>) -> Self {
        Self {
            place,
            refresh,
            state: State::Waiting(Instant::now()),
            known: None,
            wait: FIRST_WAIT,
        }
    }

    async fn next(&mut self) -> Heard {
        loop {
            match &mut self.state {
                State::Waiting(until) => {
                    sleep_until(*until).await;
                    self.state = State::Opening(self.open());
                }
                State::Opening(opening) => {
                    let opened = opening.await;
                    return self.opened(opened);
                }
                State::Open {
                    connection,
                    refresh_at,
                    silent_at,
                } => {
                    if refresh_at.is_some_and(|at| Instant::now() >= at) {
                        self.state = State::Waiting(Instant::now());
                        return Heard::Refreshed;
                    }
                    match connection.take() {
                        Some(Incoming::Message(message)) => {
                            *silent_at = Instant::now() + SILENCE;
                            self.wait = FIRST_WAIT;
                            return Heard::Message(message.into_data().to_vec());
                        }
                        Some(Incoming::Unreadable) => return Heard::Unreadable,
                        Some(Incoming::Ended(why)) => return self.ended(why),
                        None => {}
                    }
                    let due = refresh_at.map_or(*silent_at, |at| at.min(*silent_at));
                    tokio::select! {
                        () = poll_fn(|cx| connection.poll_ready(cx)) => {}
                        () = sleep_until(due) => {
                            if Instant::now() >= *silent_at {
                                return self.ended("nothing heard for 5 s".to_owned());
                            }
                        }
                    }
                }
            }
        }
    }

    fn open(&self) -> Opening {
        let (host, port, known) = (self.place.host.clone(), self.place.port, self.known);
        Box::pin(async move {
            let opening = async {
                let stream = reach(Resolver::default(), host, port, known).await?;
                Connection::handshake(stream).await
            };
            let opened = timeout(OPEN, opening).await;
            opened.unwrap_or_else(|_| Err("no answer".to_owned()))
        })
    }

    fn opened(&mut self, opened: Result<Connection, String>) -> Heard {
        match opened {
            Ok(connection) => {
                self.known = connection.address().ok();
                let now = Instant::now();
                self.state = State::Open {
                    connection: Box::new(connection),
                    refresh_at: self.refresh.map(|every| now + every),
                    silent_at: now + SILENCE,
                };
                Heard::Opened
            }
            Err(why) => self.ended(why),
        }
    }

    fn ended(&mut self, why: String) -> Heard {
        self.state = State::Waiting(Instant::now() + self.wait);
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        Heard::Closed(why)
    }
}
