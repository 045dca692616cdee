//! One connection to a simulated device: first HTTP, then perhaps a WebSocket.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::clock::now_s;
use super::frame::{self, Opcode, Parsed};
use super::http::{self, Request};
use super::inject::Uploads;
use super::log::Event;
use super::unit::Unit;

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    /// Counted from 1, for the log.
    pub(crate) number: u64,
    stream: TcpStream,
    /// Tells the task that something below has changed.
    wake: Notify,
    hold: Cell<Hold>,
    end: Cell<Option<End>>,
    phase: Cell<Phase>,
    inbox: RefCell<Vec<u8>>,
    outbox: RefCell<Vec<u8>>,
    /// What `drip` still has to send of the handshake.
    drops: RefCell<VecDeque<u8>>,
    next_drop_s: Cell<f64>,
    /// Set while a request, a frame or an upload is incomplete.
    incomplete_since_s: Cell<Option<f64>>,
    /// Set while the peer takes nothing.
    stuck_since_s: Cell<Option<f64>>,
    closes_when_sent: Cell<bool>,
    /// Number of the last receipt, for the eviction of the quietest.
    pub(crate) received: Cell<u64>,
}

/// Whether a connection is served at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Yes.
    Live,
    /// Hangs: nothing is read or sent until it thaws.
    Hung,
    /// The device has no power: nothing is read or sent, and its peer hears nothing of that.
    Dead,
    /// The device has power again and knows nothing of the connection: whatever comes gets a reset.
    Ghost,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As the firmware closes it: FIN, without a WebSocket close frame.
    Fin,
    /// As it ends when the device is gone: RST.
    Rst,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Http,
    /// The answer to the handshake is on its way, one byte per second.
    Dripping,
    WebSocket,
    Upload(Upload),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Upload {
    left: usize,
    taken: usize,
    known_type: bool,
    /// `None` until the first byte came.
    good: Option<bool>,
    fits: bool,
}

/// Serves a connection until it ends.
pub(crate) async fn serve(unit: Rc<Unit>, client: Rc<Client>) {
    loop {
        if let Some(end) = client.end.get() {
            if end == End::Rst {
                let _ = socket2::SockRef::from(&client.stream)
                    .set_linger(Some(std::time::Duration::ZERO));
            }
            return;
        }
        let interest = match client.hold.get() {
            Hold::Hung | Hold::Dead => None,
            Hold::Ghost => Some(Interest::READABLE),
            // Waits for the next turn; what its peer sends stays in the kernel.
            Hold::Live if client.is_full(&unit) => None,
            Hold::Live if client.outbox.borrow().is_empty() => Some(Interest::READABLE),
            Hold::Live => Some(Interest::READABLE | Interest::WRITABLE),
        };
        let Some(interest) = interest else {
            client.wake.notified().await;
            continue;
        };
        tokio::select! {
            biased;
            () = client.wake.notified() => {}
            ready = client.stream.ready(interest) => match ready {
                Err(_) => unit.end(&client, End::Fin),
                Ok(ready) => {
                    if ready.is_writable() {
                        client.flush(&unit);
                    }
                    if ready.is_readable() || ready.is_read_closed() {
                        client.receive(&unit);
                    }
                }
            }
        }
    }
}

impl Client {
    pub(crate) fn new(number: u64, stream: TcpStream, hold: Hold, received: u64) -> Self {
        Client {
            number,
            stream,
            wake: Notify::new(),
            hold: Cell::new(hold),
            end: Cell::new(None),
            phase: Cell::new(Phase::Http),
            inbox: RefCell::default(),
            outbox: RefCell::default(),
            drops: RefCell::default(),
            next_drop_s: Cell::new(0.0),
            incomplete_since_s: Cell::new(None),
            stuck_since_s: Cell::new(None),
            closes_when_sent: Cell::new(false),
            received: Cell::new(received),
        }
    }

    /// Ends the connection; the unit has already forgotten it.
    pub(crate) fn finish(&self, end: End) {
        if self.end.get().is_none() {
            self.end.set(Some(end));
            self.wake.notify_one();
        }
    }

    pub(crate) fn set_hold(&self, hold: Hold) {
        self.hold.set(hold);
        self.wake.notify_one();
    }

    pub(crate) fn hold(&self) -> Hold {
        self.hold.get()
    }

    /// Whether pushes go to this connection.
    pub(crate) fn listens(&self) -> bool {
        self.phase.get() == Phase::WebSocket && self.is_live()
    }

    /// Sends bytes as they are, now as far as the peer takes them.
    pub(crate) fn send(&self, unit: &Unit, bytes: &[u8]) {
        let waiting = !self.outbox.borrow().is_empty();
        self.outbox.borrow_mut().extend(bytes);
        if self.outbox.borrow().len() > MOST_WAITING {
            unit.end(self, End::Rst);
        } else if !waiting {
            self.flush(unit);
            if !self.outbox.borrow().is_empty() {
                self.wake.notify_one(); // the task waits for room from now on
            }
        }
    }

    /// Every 100 ms: drops that are due, and connections nothing happens on any more.
    pub(crate) fn tick(self: &Rc<Self>, unit: &Unit, now_s: f64) {
        if !self.is_live() {
            return;
        }
        let is_late =
            |since: &Cell<Option<f64>>| since.get().is_some_and(|since| now_s - since > TIMEOUT_S);
        if is_late(&self.incomplete_since_s) || is_late(&self.stuck_since_s) {
            unit.end(self, End::Fin);
            return;
        }
        if let Phase::Upload(upload) = self.phase.get() {
            if self.is_full(unit) {
                self.take_upload(unit, upload);
                self.incomplete_since_s.set(Some(now_s));
                self.wake.notify_one();
            }
        }
        if self.phase.get() == Phase::Dripping && now_s >= self.next_drop_s.get() {
            self.next_drop_s.set(now_s + 1.0);
            let drop = self.drops.borrow_mut().pop_front();
            if let Some(byte) = drop {
                self.send(unit, &[byte]);
            }
            if self.drops.borrow().is_empty() {
                self.open(unit);
                self.process(unit);
            }
        }
    }

    /// Whether a slow upload has enough for this turn.
    fn is_full(&self, unit: &Unit) -> bool {
        let slow = unit.uploads() == Uploads::Slow;
        slow && self.was_uploading() && !self.inbox.borrow().is_empty()
    }

    /// What the end of this connection leaves behind: whether an upload broke off.
    pub(crate) fn was_uploading(&self) -> bool {
        matches!(self.phase.get(), Phase::Upload(_))
    }

    fn is_live(&self) -> bool {
        self.end.get().is_none() && self.hold.get() == Hold::Live
    }

    fn flush(&self, unit: &Unit) {
        let mut outbox = self.outbox.borrow_mut();
        let mut failed = false;
        while !outbox.is_empty() {
            match self.stream.try_write(&outbox) {
                Ok(sent) => {
                    outbox.drain(..sent);
                    self.stuck_since_s.set(None);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.stuck_since_s.get().is_none() {
                        self.stuck_since_s.set(Some(now_s()));
                    }
                    break;
                }
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        let sent = outbox.is_empty();
        drop(outbox);
        if failed || (sent && self.closes_when_sent.get()) {
            unit.end(self, End::Fin);
        }
    }

    fn receive(self: &Rc<Self>, unit: &Unit) {
        let mut buffer = [0; 4096];
        match self.stream.try_read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ if self.hold.get() == Hold::Ghost => unit.end(self, End::Rst),
            Ok(0) | Err(_) => unit.end(self, End::Fin),
            Ok(length) => {
                self.received.set(unit.next_receipt());
                self.inbox.borrow_mut().extend(&buffer[..length]);
                self.process(unit);
            }
        }
    }

    /// Takes from the inbox what is complete.
    fn process(self: &Rc<Self>, unit: &Unit) {
        while self.is_live() && self.take_one(unit) {}
        let incomplete = !self.inbox.borrow().is_empty() || self.was_uploading();
        self.incomplete_since_s.set(incomplete.then(now_s));
    }

    fn take_one(self: &Rc<Self>, unit: &Unit) -> bool {
        match self.phase.get() {
            Phase::Http => self.take_request(unit),
            Phase::Dripping => false,
            Phase::WebSocket => self.take_frame(unit),
            Phase::Upload(_) if self.is_full(unit) => false,
            Phase::Upload(upload) => self.take_upload(unit, upload),
        }
    }

    fn take_request(&self, unit: &Unit) -> bool {
        let request = http::parse(&self.inbox.borrow());
        match request {
            Request::Incomplete => return false,
            Request::WebSocket { answer, taken } => {
                self.inbox.borrow_mut().drain(..taken);
                if unit.drips() {
                    self.drops.borrow_mut().extend(answer);
                    self.phase.set(Phase::Dripping);
                } else {
                    self.send(unit, &answer);
                    self.open(unit);
                }
            }
            Request::Upload {
                length,
                known_type,
                taken,
            } => {
                self.inbox.borrow_mut().drain(..taken);
                if unit.is_uploading() {
                    unit.end(self, End::Fin);
                } else {
                    let fits = length <= SLOT_BYTES;
                    let upload = Upload {
                        left: length,
                        taken: 0,
                        known_type,
                        good: None,
                        fits,
                    };
                    self.phase.set(Phase::Upload(upload));
                }
            }
            Request::Plain { answer, taken } => {
                self.inbox.borrow_mut().drain(..taken);
                self.send(unit, &answer);
            }
            Request::Refused { answer } => {
                self.inbox.borrow_mut().clear();
                self.closes_when_sent.set(true);
                self.send(unit, &answer);
            }
        }
        true
    }

    /// The handshake is answered: the snapshot follows at once.
    fn open(&self, unit: &Unit) {
        self.phase.set(Phase::WebSocket);
        self.send(unit, &frame::text(unit.snapshot().as_bytes()));
    }

    fn take_frame(&self, unit: &Unit) -> bool {
        let parsed = frame::parse(&self.inbox.borrow());
        let (opcode, payload, taken) = match parsed {
            Parsed::Incomplete => return false,
            Parsed::Broken => {
                unit.end(self, End::Fin);
                return false;
            }
            Parsed::Frame {
                opcode,
                payload,
                taken,
            } => (opcode, payload, taken),
        };
        self.inbox.borrow_mut().drain(..taken);
        unit.note(Event::Frame {
            text: String::from_utf8_lossy(&payload).into_owned(),
            client: self.number,
            opcode: opcode.name(),
        });
        match opcode {
            Opcode::Text | Opcode::Binary => unit.handle_text(&payload),
            Opcode::Close => unit.end(self, End::Fin), // without an answer
            Opcode::Continuation | Opcode::Ping | Opcode::Other => {}
        }
        true
    }

    fn take_upload(&self, unit: &Unit, mut upload: Upload) -> bool {
        let mut inbox = self.inbox.borrow_mut();
        if upload.left > 0 && inbox.is_empty() {
            return false;
        }
        if let (None, Some(first)) = (upload.good, inbox.first()) {
            upload.good = Some(*first == IMAGE_MAGIC);
        }
        let taken = upload.left.min(inbox.len());
        inbox.drain(..taken);
        drop(inbox);
        upload.left -= taken;
        upload.taken += taken;
        if unit.uploads() == Uploads::Broken && upload.taken > BREAKS_AFTER {
            unit.end(self, End::Rst);
            return false;
        }
        if upload.left > 0 {
            self.phase.set(Phase::Upload(upload));
            return true;
        }
        self.phase.set(Phase::Http);
        self.closes_when_sent.set(true);
        self.send(unit, &http::upload_answer());
        unit.finish_upload(upload.known_type, upload.fits && upload.good == Some(true));
        false
    }
}

/// The server's timeout for receiving and for sending (PROTOCOL section 1.1).
const TIMEOUT_S: f64 = 5.0;
/// More than `garbage` and a stuck peer's 5 s of readings need.
const MOST_WAITING: usize = 1024 * 1024;
/// The first byte of every ESP32 image; nothing else of it is looked at here.
const IMAGE_MAGIC: u8 = 0xe9;
/// Where `upload broken` breaks it.
const BREAKS_AFTER: usize = 64 * 1024;
/// Size of an application slot (section 7).
const SLOT_BYTES: usize = 0x1e_0000;
