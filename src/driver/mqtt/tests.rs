//! The connection against a scripted broker, over loopback. Time is only ever the clock's of the
//! test.

mod handshake;
mod keep_alive;
mod messages;

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{
    ConnAck, ConnectReturnCode, Packet, PubAck, PubRel, Publish, SubAck, SubscribeReasonCode,
};
use rumqttc::mqttbytes::{Error, QoS};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::{Broker, Connection, Incoming, Login, Publication, Terms};

const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long anything may take that happens at all. Only a failing test waits so long.
const LIMIT: Duration = Duration::from_secs(30);
const PING_RESPONSE: [u8; 2] = [0xd0, 0];
const NOT_MQTT: &str = "not an MQTT message";
const NOT_A_BROKER: &str = "it answers, but not as an MQTT broker does";

/// The broker's end.
struct Peer {
    stream: TcpStream,
    bytes: BytesMut,
}

impl Peer {
    /// The next packet of the client; nothing when it has closed.
    async fn hear(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.bytes, 1024 * 1024) {
                Ok(packet) => return Some(packet),
                Err(Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("{error}"),
            }
            if self.stream.read_buf(&mut self.bytes).await.unwrap() == 0 {
                return None;
            }
        }
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Answers a handshake that is all right, with `early` before the last answer and `late`
    /// right behind it.
    async fn answer(&mut self, early: &[u8], late: &[u8]) -> (Packet, Packet) {
        let connect = self.hear().await.unwrap();
        self.say(&accepted()).await;
        let subscribe = self.hear().await.unwrap();
        let bytes = [early, &granted(2), late].concat();
        self.say(&bytes).await;
        (connect, subscribe)
    }
}

fn written(packet: &Packet) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, usize::MAX).unwrap();
    bytes.to_vec()
}

fn accepted() -> Vec<u8> {
    answered(ConnectReturnCode::Success)
}

fn answered(code: ConnectReturnCode) -> Vec<u8> {
    written(&Packet::ConnAck(ConnAck::new(code, false)))
}

fn granted(filters: usize) -> Vec<u8> {
    let code = SubscribeReasonCode::Success(QoS::AtMostOnce);
    written(&Packet::SubAck(SubAck::new(1, vec![code; filters])))
}

fn message(topic: &str, payload: &str) -> Vec<u8> {
    written(&Packet::Publish(Publish::new(
        topic,
        QoS::AtMostOnce,
        payload,
    )))
}

fn incoming(topic: &str, payload: &str) -> Incoming {
    Incoming::Message {
        topic: topic.into(),
        payload: payload.to_owned().into(),
        retained: false,
    }
}

fn ended(why: &str) -> Incoming {
    Incoming::Ended(why.into())
}

fn publication(topic: &str, payload: impl Into<Vec<u8>>) -> Publication {
    Publication {
        topic: topic.into(),
        payload: payload.into(),
        retain: false,
    }
}

fn broker() -> Broker {
    Broker {
        host: "127.0.0.1".into(),
        port: 1883,
        login: None,
        tls: None,
    }
}

fn terms() -> Terms {
    Terms {
        client_id: "klipper".into(),
        keep_alive: KEEP_ALIVE,
        clean_session: true,
        will: None,
        subscriptions: vec!["one".into(), "two/+".into()],
    }
}

async fn pair() -> (TcpStream, Peer) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (client, (stream, _)) = (client.unwrap(), server.unwrap());
    for stream in [&client, &stream] {
        stream.set_nodelay(true).unwrap();
    }
    SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    let bytes = BytesMut::new();
    (client, Peer { stream, bytes })
}

/// A connection that is open, and its other end.
async fn open() -> (Connection, Peer) {
    open_with(&terms()).await
}

async fn open_with(terms: &Terms) -> (Connection, Peer) {
    let (client, mut peer) = pair().await;
    let broker = broker();
    let (connection, _) = tokio::join!(
        Connection::handshake(client, &broker, terms),
        peer.answer(&[], &[])
    );
    (connection.unwrap(), peer)
}

/// What a handshake comes to with a broker that says this and closes.
async fn handshake_with(broker: &Broker, answer: &[u8]) -> Result<Connection, String> {
    let (client, mut peer) = pair().await;
    let terms = terms();
    let said = async {
        peer.hear().await.unwrap();
        peer.say(answer).await;
        peer.stream.shutdown().await.unwrap();
    };
    let (result, ()) = tokio::join!(Connection::handshake(client, broker, &terms), said);
    result
}

async fn next(connection: &mut Connection) -> Incoming {
    loop {
        if let Some(incoming) = connection.take() {
            return incoming;
        }
        poll_fn(|cx| connection.poll_ready(cx)).await;
    }
}

/// Looks once, as the driver does whenever anything else happens.
fn glance(connection: &mut Connection) -> Poll<()> {
    connection.poll_ready(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn another_login_is_another_access() {
    let broker = |login: Option<(&str, &str)>| Broker {
        host: "10.0.0.2".into(),
        port: 1883,
        login: login.map(|(username, password)| Login {
            username: username.into(),
            password: password.into(),
        }),
        tls: None,
    };
    let access = |login| broker(login).access();
    assert_eq!(
        access(Some(("klipper", "a"))),
        access(Some(("klipper", "a")))
    );
    assert_ne!(
        access(Some(("klipper", "a"))),
        access(Some(("klipper", "b")))
    );
    assert_ne!(access(Some(("klipper", "a"))), access(Some(("other", "a"))));
    assert_ne!(access(Some(("klipper", ""))), access(None));
}
