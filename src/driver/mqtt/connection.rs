//! From CONNECT to DISCONNECT.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    self, ConnAck, Connect, ConnectReturnCode, LastWill, Packet, PingReq, PubAck, PubComp, PubRec,
    Publish, SubAck, Subscribe, SubscribeFilter, SubscribeReasonCode,
};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::inbox::Frame;
use super::stream::Stream;
use super::wire::{End, Wire};
use super::{Broker, Incoming, Publication, Terms, Tls};
use crate::driver::reach::io_text;

/// What may come in before the broker has answered the subscription: a session that it kept for
/// us, and everything retained (rule R6).
const MAX_EARLY: usize = 1024 * 1024;
/// What a message costs besides its text.
const OVERHEAD: usize = 128;
/// So many packets that are no message are worked through before anybody else gets a turn.
const FRAMES: u32 = 1024;
/// The only packet of ours that is acknowledged by number.
const SUBSCRIBE_ID: u16 = 1;
/// The port that brokers keep for TLS.
const TLS_PORT: u16 = 8883;
/// How TLS begins when it complains.
const TLS_ALERT: u8 = 0x15;
/// So much less than the keep alive is any silence borne: a frozen broker has to be noticed within
/// twice that, and timers and wires take their time.
const MARGIN: Duration = Duration::from_millis(250);
/// The protocol counts in whole seconds, and 0 would mean never.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// An open connection: accepted by the broker, with all subscriptions granted.
///
/// Dropping it drops the socket. Whoever opened that has set `SO_LINGER` to 0, so the kernel resets
/// it: nothing that was still on its way arrives (rule R4), and the broker publishes the will. The
/// same with TLS, which says no goodbye of its own on a drop.
pub struct Connection {
    address: SocketAddr,
    wire: Wire,
    tls: Option<Tls>,
    /// What came in before the subscription was answered.
    early: VecDeque<Incoming>,
    next: Option<Incoming>,
    over: Option<String>,
    /// How long silence is borne, before it is asked and after.
    patience: Duration,
    /// When the question was asked that is not answered yet.
    pinged: Option<Instant>,
    /// Never later than the next thing to do, and moved only when it has run out: messages move
    /// what is due, and each of them would leave an entry behind in the runtime's wheel.
    timer: Pin<Box<Sleep>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its buffers may hold the password (rule R11).
        f.debug_struct("Connection")
            .field("address", &self.address)
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// TLS if asked for, then CONNECT and SUBSCRIBE, each answered. How long that may take is for
    /// the caller to say, who may drop it at any time: that resets the connection.
    pub async fn handshake(
        stream: TcpStream,
        broker: &Broker,
        terms: &Terms,
    ) -> Result<Self, String> {
        check_lengths(broker, terms)?;
        let address = stream.peer_addr().map_err(|error| io_text(&error))?;
        let stream = match &broker.tls {
            None => Stream::new(stream, None),
            Some(tls) => {
                let (stream, session) = tls.connect(&broker.host, stream).await?;
                Stream::new(stream, Some(session))
            }
        };
        let keep_alive = terms.keep_alive.max(SHORTEST_KEEP_ALIVE);
        let mut wire = Wire::new(stream);
        connect(&mut wire, broker, terms, keep_alive).await?;
        let mut early = VecDeque::new();
        subscribe(&mut wire, broker, &terms.subscriptions, &mut early).await?;
        let patience = keep_alive.saturating_sub(MARGIN);
        let due = wire.said.min(wire.heard) + patience;
        Ok(Self {
            address,
            wire,
            tls: broker.tls.clone(),
            early,
            next: None,
            over: None,
            patience,
            pinged: None,
            timer: Box::pin(sleep_until(due)),
        })
    }

    /// The broker's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hands one message to the kernel, or keeps it until the kernel takes it.
    pub fn publish(&mut self, publication: &Publication) {
        if usize::from(u16::MAX) < publication.topic.len() {
            self.end("a topic longer than MQTT allows");
            return;
        }
        let payload = Bytes::copy_from_slice(&publication.payload);
        let mut packet = Publish::from_bytes(&publication.topic, QoS::AtMostOnce, payload);
        packet.retain = publication.retain;
        self.send(|buffer| packet.write(buffer));
    }

    /// Says goodbye, so that the will is not published, and hands that to the kernel. The
    /// connection is of no use afterwards.
    ///
    /// What was published before still arrives then: the socket is closed in the usual way when
    /// it is dropped, not reset. Only for a connection that is well; any other is dropped as it
    /// is (rule R4), and so is one whose kernel does not take the goodbye at once.
    pub fn disconnect(&mut self) {
        if self.over.is_none() {
            self.send(|buffer| v4::Disconnect.write(buffer));
            let said = self.wire.stream().close_notify().is_ok();
            if said && self.wire.is_flushed() {
                // Closing with something unread would reset it all the same.
                self.wire.drain();
                let socket = SockRef::from(self.wire.stream().tcp());
                let _ = socket.set_linger(None); // else it is reset: no worse than a lost one
            }
        }
        self.end("closed");
    }

    /// The next thing that is there already. The end is said again and again.
    pub fn take(&mut self) -> Option<Incoming> {
        if let Some(early) = self.early.pop_front() {
            if self.early.is_empty() {
                self.early = VecDeque::new();
            }
            return Some(early);
        }
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        for _ in 0..FRAMES {
            if self.over.is_some() {
                break;
            }
            match self.wire.take() {
                Ok(None) => return None,
                Ok(Some(frame)) => {
                    if let Some(incoming) = self.hear(frame) {
                        return Some(incoming);
                    }
                }
                Err(end) => self.fail(&end),
            }
        }
        self.over.clone().map(Incoming::Ended)
    }

    /// Says when [`Connection::take`] may have something; writes what could not be written, and
    /// keeps the connection alive. May be dropped at any time: nothing is lost.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_next(cx);
        // After reading: what has arrived counts as an answer, however late it is read. And in any
        // case, because a broker that never stops talking wants to hear from us, too.
        self.poll_keep_alive(cx);
        self.wire.poll_flush(cx);
        if self.next.is_some() || !self.early.is_empty() || self.over.is_some() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) {
        for _ in 0..FRAMES {
            if self.next.is_some() || !self.early.is_empty() || self.over.is_some() {
                return;
            }
            match self.wire.poll_frame(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(frame)) => self.next = self.hear(frame),
                Poll::Ready(Err(end)) => self.fail(&end),
            }
        }
        cx.waker().wake_by_ref(); // there may be more, after the others
    }

    /// Asks when one side has been silent for too long, and gives up when there is no answer.
    fn poll_keep_alive(&mut self, cx: &mut Context<'_>) {
        while self.over.is_none() && self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            self.pinged = self.pinged.filter(|at| self.wire.heard < *at);
            // Silence of either side: a broker must not wait for us, and one that is frozen is
            // noticed even while we have much to say.
            let silent = self.pinged.unwrap_or(self.wire.said.min(self.wire.heard));
            let mut due = silent + self.patience;
            if due <= now {
                if self.pinged.is_some() {
                    return self.end("the broker does not answer");
                }
                self.send(|buffer| PingReq.write(buffer));
                self.pinged = Some(now);
                due = now + self.patience;
            }
            self.timer.as_mut().reset(due);
        }
    }

    /// What a packet means for whoever listens, if anything.
    fn hear(&mut self, frame: Frame) -> Option<Incoming> {
        let result = match frame {
            Frame::Packet(Packet::PingResp) => return None,
            Frame::Packet(_) | Frame::Unreadable => listen(&mut self.wire, frame),
        };
        match result {
            Ok(incoming) => incoming,
            Err(end) => {
                self.fail(&end);
                None
            }
        }
    }

    fn send<T, E>(&mut self, write: impl FnOnce(&mut BytesMut) -> Result<T, E>) {
        if self.over.is_none() {
            if let Err(end) = self.wire.send(write) {
                self.fail(&end);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn wire_is_flushed(&self) -> bool {
        self.wire.is_flushed()
    }

    fn fail(&mut self, end: &End) {
        let text = end_text(end, self.tls.as_ref());
        self.end(&text);
    }

    fn end(&mut self, why: &str) {
        self.over.get_or_insert_with(|| why.to_owned());
    }
}

/// CONNECT, and the answer to it.
async fn connect(
    wire: &mut Wire,
    broker: &Broker,
    terms: &Terms,
    keep_alive: Duration,
) -> Result<(), String> {
    let tls = broker.tls.as_ref();
    let mut packet = Connect::new(&terms.client_id);
    let seconds = keep_alive.as_secs() + u64::from(keep_alive.subsec_nanos() > 0);
    packet.keep_alive = u16::try_from(seconds).unwrap_or(u16::MAX);
    packet.clean_session = terms.clean_session;
    packet.last_will = terms.will.as_ref().map(|will| {
        let payload = will.payload.clone();
        LastWill::new(&will.topic, payload, QoS::AtMostOnce, will.retain)
    });
    packet.login = broker
        .login
        .as_ref()
        .map(|login| v4::Login::new(&login.username, &login.password));
    wire.send(|buffer| packet.write(buffer))
        .map_err(|end| end_text(&end, tls))?;
    drop(packet);

    match std::future::poll_fn(|cx| wire.poll_frame(cx)).await {
        Ok(Frame::Packet(Packet::ConnAck(ConnAck { code, .. }))) => match code {
            ConnectReturnCode::Success => Ok(()),
            ConnectReturnCode::RefusedProtocolVersion
            | ConnectReturnCode::BadClientId
            | ConnectReturnCode::ServiceUnavailable
            | ConnectReturnCode::BadUserNamePassword
            | ConnectReturnCode::NotAuthorized => Err(refusal(code, broker).to_owned()),
        },
        Err(End::Nonsense) if tls.is_none() && wire.peek().starts_with(&[TLS_ALERT]) => {
            Err("the broker wants TLS on this port (mqtt_tls: True)".into())
        }
        Ok(_) | Err(End::Nonsense) => Err("it answers, but not as an MQTT broker does".into()),
        Err(end) if end.is_closed() && tls.is_none() && broker.port == TLS_PORT => Err(format!(
            "closed by the broker; port {TLS_PORT} usually is for TLS (mqtt_tls: True)"
        )),
        // One that closes before it has read everything resets the connection; that is all one.
        Err(end) if end.is_closed() => Err(end_text(&End::Closed, tls)),
        Err(end) => Err(end_text(&end, tls)),
    }
}

/// One SUBSCRIBE for everything, and the answer to it. Messages do not wait for that.
async fn subscribe(
    wire: &mut Wire,
    broker: &Broker,
    filters: &[String],
    early: &mut VecDeque<Incoming>,
) -> Result<(), String> {
    if filters.is_empty() {
        return Ok(());
    }
    let tls = broker.tls.as_ref();
    let mut packet = Subscribe::new_many(
        filters
            .iter()
            .map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtMostOnce)),
    );
    packet.pkid = SUBSCRIBE_ID;
    wire.send(|buffer| packet.write(buffer))
        .map_err(|end| end_text(&end, tls))?;
    let mut size = 0;
    loop {
        let frame = std::future::poll_fn(|cx| wire.poll_frame(cx)).await;
        let incoming = match frame {
            Ok(Frame::Packet(Packet::SubAck(answer))) => return granted(&answer, filters),
            Ok(frame) => listen(wire, frame),
            Err(end) => Err(end),
        };
        if let Some(incoming) = incoming.map_err(|end| end_text(&end, tls))? {
            size += OVERHEAD;
            if let Incoming::Message { topic, payload, .. } = &incoming {
                size += topic.len() + payload.len();
            }
            if size > MAX_EARLY {
                return Err("the broker talks instead of granting the subscription".into());
            }
            early.push_back(incoming);
        }
    }
}

fn granted(answer: &SubAck, filters: &[String]) -> Result<(), String> {
    if answer.pkid != SUBSCRIBE_ID || answer.return_codes.len() != filters.len() {
        return Err(end_text(&End::Nonsense, None));
    }
    for (filter, code) in filters.iter().zip(&answer.return_codes) {
        if *code == SubscribeReasonCode::Failure {
            return Err(format!(
                "the broker does not allow to read {filter}; check its access rules"
            ));
        }
    }
    Ok(())
}

/// Messages, whenever they come.
///
/// Nothing is subscribed to above quality of service 0. But a broker that kept the session of
/// another program with our client id may have such messages for us. Each is acknowledged, or it
/// would come again at every connection; one of quality 2 may be seen twice.
fn listen(wire: &mut Wire, frame: Frame) -> Result<Option<Incoming>, End> {
    match frame {
        Frame::Unreadable => Ok(Some(Incoming::Unreadable)),
        Frame::Packet(Packet::Publish(message)) => {
            match message.qos {
                QoS::AtMostOnce => {}
                QoS::AtLeastOnce => wire.send(|buffer| PubAck::new(message.pkid).write(buffer))?,
                QoS::ExactlyOnce => wire.send(|buffer| PubRec::new(message.pkid).write(buffer))?,
            }
            Ok(Some(Incoming::Message {
                topic: message.topic,
                payload: message.payload,
                retained: message.retain,
            }))
        }
        Frame::Packet(Packet::PubRel(message)) => {
            wire.send(|buffer| PubComp::new(message.pkid).write(buffer))?;
            Ok(None)
        }
        Frame::Packet(_) => Err(End::Nonsense),
    }
}

fn refusal(code: ConnectReturnCode, broker: &Broker) -> &'static str {
    match code {
        ConnectReturnCode::Success | ConnectReturnCode::RefusedProtocolVersion => {
            "the broker does not speak MQTT 3.1.1"
        }
        ConnectReturnCode::BadClientId => "the broker refuses our client id",
        ConnectReturnCode::ServiceUnavailable => "the broker is not available",
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
            if broker.login.is_some() {
                "the broker refuses this user name or password (mqtt_username, mqtt_password_file)"
            } else {
                "the broker wants a user name and password (mqtt_username, mqtt_password_file)"
            }
        }
    }
}

/// The protocol counts lengths in 16 bits, and the library does not look.
fn check_lengths(broker: &Broker, terms: &Terms) -> Result<(), String> {
    let login = broker.login.iter();
    let will = terms.will.iter();
    let longest = login
        .flat_map(|login| [login.username.len(), login.password.len()])
        .chain(will.flat_map(|will| [will.topic.len(), will.payload.len()]))
        .chain(terms.subscriptions.iter().map(String::len))
        .chain([terms.client_id.len()])
        .max();
    if longest > Some(usize::from(u16::MAX)) {
        return Err("a name, password or topic longer than MQTT allows".into());
    }
    Ok(())
}

/// Fixed texts only: nothing that the broker sent (rule R11).
fn end_text(end: &End, tls: Option<&Tls>) -> String {
    match end {
        End::Closed => "closed by the broker".into(),
        End::Nonsense => "not an MQTT message".into(),
        End::Unread => "the broker does not read what it is sent".into(),
        End::Unsendable => "a message that MQTT does not allow".into(),
        End::Io(error) => tls
            .and_then(|tls| tls.error_text(error))
            .unwrap_or_else(|| io_text(error)),
    }
}
