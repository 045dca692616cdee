//! One short visit to a device: connect, read what it says first, perhaps send it one frame, leave.
//!
//! For commands that a person runs beside a klippy, on a thread of their own. The device has few
//! sockets, so there is one visit at a time; it never sends a WebSocket ping, and it ends with a
//! reset like every connection of this driver.

mod talk;

use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tungstenite::Message;

use crate::dialect::Report;
use crate::dialect::stock::page::{self, Page};
use crate::dialect::stock::{Stock, ha};

use super::reach::reach;
use super::resolve::Resolver;
use super::websocket::{Connection, Incoming};

pub use talk::Heard;

/// Where a device is: a name or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// The port of every unit.
const PORT: u16 = 80;

impl FromStr for Place {
    type Err = String;

    /// `NAME`, `ADDRESS`, either with `:PORT`; an IPv6 address with a port is in brackets.
    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = match text.rsplit_once(':') {
            _ if text.contains("://") || text.ends_with(']') => (text, PORT),
            _ if text.parse::<Ipv6Addr>().is_ok() => (text, PORT),
            Some((host, port)) => {
                let port = port.parse().ok().filter(|port| *port != 0);
                (
                    host,
                    port.ok_or("the port is not a number from 1 to 65535")?,
                )
            }
            None => (text, PORT),
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let is_address = match bare {
            Some(host) => host.parse::<Ipv6Addr>().is_ok(),
            None => host
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.is_ipv4() || host == text),
        };
        let is_name = bare.is_none()
            && !host.is_empty()
            && host.len() <= 253
            && host
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if is_address || is_name {
            Ok(Self {
                host: host.to_owned(),
                port,
            })
        } else {
            Err("not a name or an address, without http://".to_owned())
        }
    }
}

/// As it is written in a URL, without the usual port.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if self.port == PORT {
            Ok(())
        } else {
            write!(f, ":{}", self.port)
        }
    }
}

/// How long the parts of a visit may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until there is a connection, finding the name included.
    pub open: Duration,
    /// Until the device has said what it says first.
    pub snapshot: Duration,
    /// From a frame sent until reports count as later than it.
    pub settle: Duration,
    /// Until such a report has come.
    pub later_report: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            open: Duration::from_secs(10),
            snapshot: Duration::from_secs(5),
            settle: Duration::from_secs(1),
            later_report: Duration::from_secs(5),
        }
    }
}

/// How far a visit had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// No connection.
    Connect,
    /// A connection, but nobody there who speaks as a device does.
    Handshake,
    /// The device did not say what it says first.
    Snapshot,
}

/// Why there was no visit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How far it had come.
    pub step: Step,
    /// In words for people.
    pub why: String,
}

/// How long the parts of a visit took.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Until there was a TCP connection: one round trip, and the name's lookup where it is a name.
    pub connect: Duration,
    /// For the WebSocket's handshake: one more.
    pub handshake: Duration,
    /// Until the device had said what it says first.
    pub snapshot: Duration,
}

/// The addresses of a name or an address.
pub async fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    Resolver::default().lookup(host).await
}

/// A connection to a device that has said what it says first.
pub struct Visit {
    connection: Connection,
    address: SocketAddr,
    stock: Stock,
    /// How long it took to get here.
    pub times: Times,
    /// What the device does.
    pub report: Report,
    /// What it says about its broker.
    pub mqtt: ha::Snapshot,
    /// What its page shows beside that.
    pub page: Page,
}

impl Visit {
    /// Connects, and reads the first frame. The error says why not, in words for people.
    pub async fn pay(place: &Place, patience: &Patience) -> Result<Self, String> {
        let visit = Self::try_pay(place, patience).await;
        visit.map_err(|failure| failure.why)
    }

    /// The same, with an error that says how far it had come.
    pub async fn try_pay(place: &Place, patience: &Patience) -> Result<Self, Failure> {
        let failed = |step| move |why| Failure { step, why };
        let start = Instant::now();
        let reaching = reach(Resolver::default(), place.host.clone(), place.port, None);
        let reached = timeout(patience.open, reaching).await;
        let stream = reached.unwrap_or_else(|_| Err("no answer".to_owned()));
        let stream = stream.map_err(failed(Step::Connect))?;
        let connect = start.elapsed();
        let shaking = Connection::handshake(stream);
        let shaken = timeout(patience.open.saturating_sub(connect), shaking).await;
        let connection = shaken.unwrap_or_else(|_| Err("no answer".to_owned()));
        let mut connection = connection.map_err(failed(Step::Handshake))?;
        let handshake = start.elapsed().saturating_sub(connect);
        let address = connection.address();
        let address = address.map_err(|error| super::reach::io_text(&error));
        let address = address.map_err(failed(Step::Handshake))?;
        let mut stock = Stock::default();
        let first = timeout(patience.snapshot, first(&mut connection, &mut stock)).await;
        let first = first.unwrap_or_else(|_| {
            Err("it takes connections, but does not say what a Panda Breath says first".to_owned())
        });
        let (report, mqtt, page) = first.map_err(failed(Step::Snapshot))?;
        Ok(Self {
            connection,
            address,
            stock,
            times: Times {
                connect,
                handshake,
                snapshot: start.elapsed().saturating_sub(connect + handshake),
            },
            report,
            mqtt,
            page,
        })
    }

    /// The next thing it says; `None`: something that cannot be read. The error says why it is
    /// over. May be dropped at any time.
    pub async fn next(&mut self) -> Result<Option<Report>, String> {
        match next(&mut self.connection).await {
            Incoming::Message(message) => Ok(self.stock.decode(&message.into_data()).ok()),
            Incoming::Unreadable => Ok(None),
            Incoming::Ended(why) => Err(why),
        }
    }

    /// Where it really is: its name may lead to another unit the next time.
    pub fn address(&self) -> Place {
        Place {
            host: self.address.ip().to_string(),
            port: self.address.port(),
        }
    }

    /// Sends one frame, and leaves. The firmware answers nothing: a frame counts as delivered when
    /// the device goes on to report a while after it. The error says why that is not known.
    pub async fn send(mut self, frame: String, patience: &Patience) -> Result<(), String> {
        self.connection.send(frame);
        let mut settled = std::pin::pin!(sleep(patience.settle));
        loop {
            tokio::select! {
                () = &mut settled => break,
                incoming = next(&mut self.connection) => ended(incoming)?,
            }
        }
        let later = timeout(patience.later_report, next(&mut self.connection)).await;
        later.map_or_else(|_| Err("the device has gone silent".to_owned()), ended)
    }
}

fn ended(incoming: Incoming) -> Result<(), String> {
    match incoming {
        Incoming::Ended(why) => Err(why),
        Incoming::Message(_) | Incoming::Unreadable => Ok(()),
    }
}

async fn first(
    connection: &mut Connection,
    stock: &mut Stock,
) -> Result<(Report, ha::Snapshot, Page), String> {
    loop {
        let message = match next(connection).await {
            Incoming::Message(message) => message,
            Incoming::Unreadable => continue,
            Incoming::Ended(why) => return Err(why),
        };
        let bytes = Message::into_data(message);
        // Only the first frame is full; readings may come before it has been made.
        if let (Ok(report), Ok(mqtt)) = (stock.decode(&bytes), ha::decode(&bytes)) {
            if report.is_snapshot() {
                return Ok((report, mqtt, page::decode(&bytes)));
            }
        }
    }
}

async fn next(connection: &mut Connection) -> Incoming {
    loop {
        if let Some(incoming) = connection.take() {
            return incoming;
        }
        poll_fn(|cx| connection.poll_ready(cx)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_name_or_an_address_with_or_without_a_port() {
        for (text, host, port, shown) in [
            (
                "PandaBreath.local",
                "PandaBreath.local",
                80,
                "PandaBreath.local",
            ),
            ("192.0.2.7", "192.0.2.7", 80, "192.0.2.7"),
            ("192.0.2.7:8080", "192.0.2.7", 8080, "192.0.2.7:8080"),
            ("fd00::7", "fd00::7", 80, "[fd00::7]"),
            ("[fd00::7]", "fd00::7", 80, "[fd00::7]"),
            ("[fd00::7]:81", "fd00::7", 81, "[fd00::7]:81"),
        ] {
            let place: Place = text.parse().unwrap();
            assert_eq!((place.host.as_str(), place.port), (host, port), "{text}");
            assert_eq!(place.to_string(), shown);
        }
        for text in [
            "",
            ":80",
            "host:0",
            "host:http",
            "http://192.0.2.7",
            "http://192.0.2.7:80",
            "a b",
            "[name]:80",
            "192.0.2.7/ws",
        ] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
