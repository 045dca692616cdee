//! A client of a broker, as the driver would be one.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use _core::driver::mqtt::{Broker, Connection, Files, Incoming, Login, Publication, Terms, Tls};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::mosquitto::{Certificates, Mosquitto, PASSWORD, USERNAME};

/// How long anything may take that happens at all. Only a failing test waits so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// How to get in at a broker that lets everybody in.
pub(crate) fn plain(broker: &Mosquitto) -> Broker {
    Broker {
        host: broker.address.ip().to_string(),
        port: broker.address.port(),
        login: None,
        tls: None,
    }
}

/// How to get in at a broker that wants a password.
pub(crate) fn with_password(broker: &Mosquitto) -> Broker {
    Broker {
        login: Some(login(PASSWORD)),
        ..plain(broker)
    }
}

pub(crate) fn login(password: &str) -> Login {
    Login {
        username: USERNAME.into(),
        password: password.into(),
    }
}

/// TLS that believes the test authority, with one of its clients.
pub(crate) fn tls(ca: &str, client: Option<&str>) -> Tls {
    let files = Certificates::get();
    Tls::load(Files {
        ca: Some(files.certificate(ca)),
        cert: client.map(|name| files.certificate(name)),
        key: client.map(|name| files.key(name)),
    })
    .unwrap()
}

/// What a client asks for that only listens.
pub(crate) fn terms(client_id: &str, filters: &[&str]) -> Terms {
    Terms {
        client_id: client_id.into(),
        keep_alive: Duration::from_secs(5),
        clean_session: true,
        will: None,
        subscriptions: filters.iter().map(|&filter| filter.to_owned()).collect(),
    }
}

pub(crate) fn publication(topic: &str, payload: impl Into<Vec<u8>>) -> Publication {
    Publication {
        topic: topic.into(),
        payload: payload.into(),
        retain: false,
    }
}

pub(crate) fn retained(topic: &str, payload: impl Into<Vec<u8>>) -> Publication {
    Publication {
        retain: true,
        ..publication(topic, payload)
    }
}

/// A connection as the driver opens one: at once, and reset when it is dropped.
pub(crate) async fn open(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    stream
}

pub(crate) struct Client {
    pub(crate) connection: Connection,
}

impl Client {
    pub(crate) async fn try_connect(
        mosquitto: &Mosquitto,
        broker: &Broker,
        terms: &Terms,
    ) -> Result<Self, String> {
        let stream = open(mosquitto.address).await;
        let handshake = Connection::handshake(stream, broker, terms);
        let connection = timeout(LIMIT, handshake).await.expect("no answer")?;
        Ok(Self { connection })
    }

    /// At a broker that lets everybody in.
    pub(crate) async fn connect(mosquitto: &Mosquitto, terms: &Terms) -> Self {
        Self::try_connect(mosquitto, &plain(mosquitto), terms)
            .await
            .unwrap()
    }

    /// The next thing that comes in.
    pub(crate) async fn next(&mut self) -> Incoming {
        let next = async {
            loop {
                if let Some(incoming) = self.connection.take() {
                    return incoming;
                }
                poll_fn(|cx| self.connection.poll_ready(cx)).await;
            }
        };
        timeout(LIMIT, next).await.expect("nothing comes in")
    }

    /// The next message, if it is one: topic, payload, and whether it was kept.
    pub(crate) async fn message(&mut self) -> (String, String, bool) {
        match self.next().await {
            Incoming::Message {
                topic,
                payload,
                retained,
            } => (
                topic,
                String::from_utf8(payload.to_vec()).unwrap(),
                retained,
            ),
            other @ (Incoming::Unreadable | Incoming::Ended(_)) => panic!("{other:?}"),
        }
    }

    /// Why it ends; messages do not count.
    pub(crate) async fn end(&mut self) -> String {
        loop {
            if let Incoming::Ended(why) = self.next().await {
                return why;
            }
        }
    }

    /// Waits until the broker has worked through everything that was published so far. Needs a
    /// subscription to `sync/` and this name.
    pub(crate) async fn sync(&mut self, name: &str) {
        let topic = format!("sync/{name}");
        self.connection.publish(&publication(&topic, "now"));
        loop {
            if self.message().await.0 == topic {
                return;
            }
        }
    }
}
