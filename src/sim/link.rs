//! The connection of a simulated device to its broker: made, served, lost and made again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::clock::now_s;
use crate::driver::mqtt::{Broker, Connection, Incoming, Publication, Terms};

/// What a device does with its connection.
pub(crate) trait Face {
    /// The connection.
    fn link(&self) -> &Link;
    /// How it connects.
    fn terms(&self) -> Terms;
    /// Connected, subscriptions granted.
    fn opened(&self);
    /// Not connected any more.
    fn closed(&self);
    /// A message came in.
    fn received(self: Rc<Self>, topic: &str, payload: &[u8]);
    /// The broker cannot be reached, or not like this.
    fn unreachable(&self, text: &str);
}

/// A connection, and what is to become of it.
#[derive(Debug)]
pub(crate) struct Link {
    broker: RefCell<Option<Broker>>,
    retry: Duration,
    hold: Cell<Hold>,
    cut: Cell<Option<Cut>>,
    /// The next attempt is made at once, as after booting.
    hurries: Cell<bool>,
    outbox: RefCell<Vec<Publication>>,
    muted_until_s: Cell<f64>,
    is_open: Cell<bool>,
    changed: Notify,
}

/// Whether the device looks after its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Yes.
    Live,
    /// It stays away from the broker.
    Away,
    /// It hangs: nothing is read or sent, pings included.
    Hung,
    /// It has no power. When that comes back, whatever was open is reset.
    Dead,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Without a word: the broker publishes the will.
    Reset,
    /// What was published leaves first, then DISCONNECT: no will.
    Goodbye,
}

impl Link {
    /// A link that is made as soon as [`keep`] runs; without a broker it waits for one.
    pub(crate) fn new(broker: Option<Broker>, retry_s: f64) -> Self {
        Link {
            broker: RefCell::new(broker),
            retry: Duration::try_from_secs_f64(retry_s).unwrap_or_default(),
            hold: Cell::new(Hold::Live),
            cut: Cell::new(None),
            hurries: Cell::new(true),
            outbox: RefCell::default(),
            muted_until_s: Cell::new(0.0),
            is_open: Cell::new(false),
            changed: Notify::new(),
        }
    }

    /// Publishes, if there is a connection and nobody has muted it.
    pub(crate) fn publish(&self, publications: Vec<Publication>) {
        let audible = self.is_open.get()
            && self.hold.get() == Hold::Live
            && now_s() >= self.muted_until_s.get();
        if audible && !publications.is_empty() {
            self.outbox.borrow_mut().extend(publications);
            self.changed.notify_one();
        }
    }

    /// Publishes nothing for a while.
    pub(crate) fn mute_until(&self, until_s: f64) {
        self.muted_until_s.set(until_s);
    }

    pub(crate) fn set_hold(&self, hold: Hold) {
        let before = self.hold.replace(hold);
        if before != hold {
            if matches!(before, Hold::Away | Hold::Dead) {
                self.hurries.set(true);
            }
            self.changed.notify_one();
        }
    }

    pub(crate) fn hold(&self) -> Hold {
        self.hold.get()
    }

    /// Ends the connection; a new one is made after the usual pause.
    pub(crate) fn cut(&self, cut: Cut) {
        if self.is_open.get() {
            self.cut.set(Some(cut));
            self.changed.notify_one();
        }
    }

    /// Goes to another broker, or to none. That a stock device says goodbye then, which leaves its
    /// `online` behind at the old one, is unconfirmed.
    pub(crate) fn set_broker(&self, broker: Option<Broker>) {
        if *self.broker.borrow() != broker {
            *self.broker.borrow_mut() = broker;
            self.cut(Cut::Goodbye);
            self.hurries.set(true);
            self.changed.notify_one();
        }
    }

    /// Waits until something may be connected to, and says what.
    async fn destination(&self) -> Broker {
        loop {
            if self.hold.get() == Hold::Live {
                if let Some(broker) = self.broker.borrow().clone() {
                    return broker;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Waits until `broker` may not be connected to any more.
    async fn not_to(&self, broker: &Broker) {
        while self.hold.get() == Hold::Live && self.broker.borrow().as_ref() == Some(broker) {
            self.changed.notified().await;
        }
    }

    async fn pause(&self) {
        let end = tokio::time::sleep(self.retry);
        tokio::pin!(end);
        while !self.hurries.get() {
            tokio::select! {
                () = &mut end => return,
                () = self.changed.notified() => {}
            }
        }
    }
}

/// Keeps a device connected, for as long as the simulator runs.
pub(crate) async fn keep<F: Face + 'static>(face: Rc<F>) {
    let link = face.link();
    loop {
        let broker = link.destination().await;
        link.hurries.set(false);
        let terms = face.terms();
        let attempt = tokio::select! {
            biased;
            () = link.not_to(&broker) => continue,
            attempt = tokio::time::timeout(CONNECT_TIMEOUT, connect(&broker, &terms)) => attempt,
        };
        match attempt.unwrap_or_else(|_| Err("no answer".to_owned())) {
            Ok(connection) => {
                link.cut.set(None);
                link.outbox.borrow_mut().clear();
                link.is_open.set(true);
                face.opened();
                serve(&face, connection).await;
                link.is_open.set(false);
                face.closed();
            }
            Err(text) => face.unreachable(&text),
        }
        link.pause().await;
    }
}

async fn connect(broker: &Broker, terms: &Terms) -> Result<Connection, String> {
    let stream = TcpStream::connect((broker.host.as_str(), broker.port)).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let _ = stream.set_nodelay(true);
    // A device that is gone is gone with everything it had not sent; see `Connection`.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    Connection::handshake(stream, broker, terms).await
}

async fn serve<F: Face>(face: &Rc<F>, mut connection: Connection) {
    let link = face.link();
    loop {
        match link.hold.get() {
            Hold::Live | Hold::Away => {}
            Hold::Hung => {
                // Where a device hangs there is nobody to end a connection; `cut` waits too.
                link.changed.notified().await;
                continue;
            }
            Hold::Dead => {
                while link.hold.get() == Hold::Dead {
                    link.changed.notified().await;
                }
                return;
            }
        }
        let cut = link.cut.take();
        if cut == Some(Cut::Reset) {
            return;
        }
        for publication in link.outbox.take() {
            connection.publish(&publication);
        }
        if cut == Some(Cut::Goodbye) || link.hold.get() == Hold::Away {
            connection.disconnect();
            return;
        }
        while let Some(incoming) = connection.take() {
            match incoming {
                Incoming::Message { topic, payload, .. } => {
                    Rc::clone(face).received(&topic, &payload);
                }
                Incoming::Unreadable => {}
                Incoming::Ended(_) => return,
            }
        }
        tokio::select! {
            biased;
            () = link.changed.notified() => {}
            () = std::future::poll_fn(|cx| connection.poll_ready(cx)) => {}
        }
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
