//! One simulated device on its port: its connections, what is injected into it, and its ticks.

mod broker;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::clock::now_s;
use super::connection::{self, Client, End, Hold};
use super::device::{Device, Effect, State};
use super::door::{self, Door};
use super::frame;
use super::inject::{Command, Uploads, garbage, publication};
use super::link::{self, Cut, Link};
use super::log::{Event, Log};
use super::simulator::{Dialect, Options, Simulated};
use crate::driver::mqtt::Publication;

/// A device and everything around it.
#[derive(Debug)]
pub(crate) struct Unit {
    index: usize,
    address: SocketAddr,
    speed: f64,
    reboot_s: f64,
    log: Arc<Log>,
    device: RefCell<Device>,
    clients: RefCell<Vec<Rc<Client>>>,
    door: Cell<Door>,
    door_changed: Notify,
    listener: RefCell<Option<Rc<TcpListener>>>,
    power: Cell<Power>,
    refuses_until_s: Cell<f64>,
    muted_until_s: Cell<f64>,
    hangs_new: Cell<bool>,
    drips: Cell<bool>,
    uploads: Cell<Uploads>,
    accepted: Cell<u64>,
    receipts: Cell<u64>,
    noted: Cell<Option<State>>,
    since_noted: Cell<Duration>,
    /// Only 1.0.4 uses it.
    link: Link,
    /// Its number among the connections; 0 while there is none.
    link_client: Cell<u64>,
    link_hangs: Cell<bool>,
    /// Whether `raw` and `flood` go to the broker.
    over_mqtt: bool,
    complain: fn(&str),
    trouble: RefCell<String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Power {
    On,
    Rebooting { until_s: f64 },
    Cut { until_s: f64 },
}

impl Unit {
    pub(crate) fn new(
        index: usize,
        address: SocketAddr,
        device: Device,
        options: &Options,
        log: Arc<Log>,
    ) -> Self {
        let link = Link::new(device.broker(), options.reconnect_s);
        let unit = Unit {
            index,
            address,
            speed: options.speed,
            reboot_s: options.reboot_s,
            log,
            device: RefCell::new(device),
            clients: RefCell::default(),
            door: Cell::new(Door::Open),
            door_changed: Notify::new(),
            listener: RefCell::default(),
            power: Cell::new(Power::On),
            refuses_until_s: Cell::new(0.0),
            muted_until_s: Cell::new(0.0),
            hangs_new: Cell::new(false),
            drips: Cell::new(false),
            uploads: Cell::default(),
            accepted: Cell::new(0),
            receipts: Cell::new(0),
            noted: Cell::new(None),
            since_noted: Cell::new(Duration::ZERO),
            link,
            link_client: Cell::new(0),
            link_hangs: Cell::new(false),
            over_mqtt: options.dialect == Dialect::StockMqtt,
            complain: options.complain,
            trouble: RefCell::default(),
        };
        unit.note_state();
        unit
    }

    /// Every 100 ms: real time for the wire, `speed` times as much for the device.
    fn tick(&self, now_s: f64, elapsed_s: f64, reading_due: bool) {
        self.look_at_timers(now_s);
        self.step(Duration::try_from_secs_f64(elapsed_s * self.speed).unwrap_or_default());
        if reading_due && now_s >= self.muted_until_s.get() {
            self.device.borrow_mut().mark_reading();
        }
        self.push();
        if reading_due && self.power.get() == Power::On && self.link_client.get() > 0 {
            let state = self.device.borrow().published_state();
            self.link.publish(vec![state]);
        }
        for client in self.clients().iter() {
            client.tick(self, now_s);
        }
    }

    /// Takes a new connection, and evicts the quietest if there are too many. Connections that
    /// hang don't count: a device that hangs accepts nothing at all.
    pub(crate) fn accept(self: &Rc<Self>, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let clients = self.clients();
        let live = clients.iter().filter(|client| client.hold() == Hold::Live);
        if live.clone().count() >= SOCKETS {
            if let Some(quietest) = live.min_by_key(|client| client.received.get()) {
                self.end(quietest, End::Fin);
            }
        }
        let number = self.accepted.get() + 1;
        self.accepted.set(number);
        let hold = if self.hangs_new.get() {
            Hold::Hung
        } else {
            Hold::Live
        };
        let client = Rc::new(Client::new(number, stream, hold, self.next_receipt()));
        self.clients.borrow_mut().push(Rc::clone(&client));
        self.note(Event::Open {
            client: number,
            open: self.open_count(),
        });
        tokio::task::spawn_local(connection::serve(Rc::clone(self), client));
    }

    /// Ends a connection.
    pub(crate) fn end(&self, client: &Client, end: End) {
        let before = self.clients.borrow().len();
        let broke_off = client.was_uploading();
        self.clients
            .borrow_mut()
            .retain(|other| other.number != client.number);
        let closed = self.clients.borrow().len() < before;
        client.finish(end);
        if closed {
            self.note(Event::Close {
                client: client.number,
                open: self.open_count(),
            });
            if broke_off && self.power.get() == Power::On {
                self.finish_upload(true, false);
            }
        }
    }

    /// Handles what a client wrote.
    pub(crate) fn handle_text(&self, text: &[u8]) {
        let effect = self.device.borrow_mut().handle_text(text);
        self.obey(effect);
        let broker = self.device.borrow().broker();
        self.link.set_broker(broker);
        self.note_state();
    }

    /// Announces the end of an upload.
    pub(crate) fn finish_upload(&self, known_type: bool, good_image: bool) {
        let effect = self
            .device
            .borrow_mut()
            .finish_upload(known_type, good_image);
        if self.uploads.get() == Uploads::Silent {
            self.device.borrow_mut().say_nothing();
        }
        self.obey(effect);
    }

    /// Does something to the device.
    fn inject(self: &Rc<Self>, command: &Command, text: &str) {
        self.note(Event::Inject {
            text: text.to_owned(),
        });
        let now_s = now_s();
        match command {
            Command::Button(button) => {
                if self.power.get() == Power::On {
                    let effect = self.device.borrow_mut().press(*button);
                    self.obey(effect);
                }
            }
            Command::Fault(fault) => self.device.borrow_mut().fault(*fault),
            Command::ClearFaults => self.device.borrow_mut().clear_faults(),
            Command::Drop => {
                self.end_all();
                self.link.cut(Cut::Reset);
            }
            Command::Hang { new_ones_too } => {
                self.link_hangs.set(true);
                self.hangs_new.set(*new_ones_too);
                self.change_hold(Hold::Live, Hold::Hung);
            }
            Command::Resume => {
                self.link_hangs.set(false);
                self.hangs_new.set(false);
                self.drips.set(false);
                self.change_hold(Hold::Hung, Hold::Live);
            }
            Command::Refuse(time) => {
                self.refuses_until_s.set(now_s + time.as_secs_f64());
                self.link.cut(Cut::Reset);
            }
            Command::Reboot => self.reboot(),
            Command::PowerCut(time) => {
                self.power.set(Power::Cut {
                    until_s: now_s + time.as_secs_f64(),
                });
                self.link_hangs.set(false);
                self.device.borrow_mut().power_off();
                for client in self.clients().iter() {
                    client.set_hold(Hold::Dead);
                }
                self.note(Event::Down);
            }
            Command::Garbage => {
                for payload in garbage() {
                    self.broadcast(&frame::text(&payload));
                    let state = self.device.borrow().topic("state");
                    self.link.publish(vec![Publication {
                        topic: state,
                        payload,
                        retain: false,
                    }]);
                }
            }
            Command::Raw(text) if self.over_mqtt => {
                self.link.publish(vec![publication(text, false)]);
            }
            Command::RawRetain(text) => self.link.publish(vec![publication(text, true)]),
            Command::Raw(text) => self.broadcast(&frame::text(text.as_bytes())),
            Command::RawHex(bytes) => self.broadcast(bytes),
            Command::Mute(time) => {
                self.muted_until_s.set(now_s + time.as_secs_f64());
                self.link.mute_until(now_s + time.as_secs_f64());
            }
            Command::Drip { on } => self.drips.set(*on),
            Command::Chamber(chamber_c) => self.device.borrow_mut().set_chamber(*chamber_c),
            Command::Door { open } => self.device.borrow_mut().set_door(*open),
            Command::Bed(bed_c) => self.device.borrow_mut().set_bed(*bed_c),
            Command::Printer { away } => self.device.borrow_mut().set_printer_away(*away),
            Command::Upload(uploads) => self.uploads.set(*uploads),
            Command::Identity(identity) => self.device.borrow_mut().set_identity(*identity),
            Command::Flood { per_second, time } => {
                tokio::task::spawn_local(flood(Rc::clone(self), *per_second, *time));
            }
        }
        self.look_at_timers(now_s);
        self.note_state();
    }

    pub(crate) fn note(&self, event: Event) {
        self.log.note(self.index, event);
    }

    pub(crate) fn snapshot(&self) -> String {
        self.device.borrow().snapshot()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn door(&self) -> Door {
        self.door.get()
    }

    pub(crate) fn set_listener(&self, listener: Option<Rc<TcpListener>>) {
        *self.listener.borrow_mut() = listener;
    }

    pub(crate) fn has_listener(&self) -> bool {
        self.listener.borrow().is_some()
    }

    pub(crate) async fn door_changed(&self) {
        self.door_changed.notified().await;
    }

    pub(crate) fn drips(&self) -> bool {
        self.drips.get()
    }

    pub(crate) fn uploads(&self) -> Uploads {
        self.uploads.get()
    }

    pub(crate) fn is_uploading(&self) -> bool {
        self.clients
            .borrow()
            .iter()
            .any(|client| client.was_uploading())
    }

    /// Numbers what is received, to know who was quiet the longest.
    pub(crate) fn next_receipt(&self) -> u64 {
        self.receipts.set(self.receipts.get() + 1);
        self.receipts.get()
    }

    /// Connections of clients, and that to the broker.
    fn open_count(&self) -> usize {
        self.clients.borrow().len() + usize::from(self.link_client.get() > 0)
    }

    /// A list of its own, because almost everything that is done to a client may end it.
    fn clients(&self) -> Rc<[Rc<Client>]> {
        self.clients.borrow().as_slice().into()
    }

    /// Steps the device so that no change of the heater goes unnoticed in the log.
    fn step(&self, mut time: Duration) {
        while !time.is_zero() {
            let part = time.min(LONGEST_STEP);
            self.device.borrow_mut().step(part);
            self.since_noted.set(self.since_noted.get() + part);
            self.note_state();
            time -= part;
        }
    }

    fn note_state(&self) {
        let state = self.device.borrow().state();
        let same = self.noted.get().is_some_and(|noted| {
            // The chamber itself changes all the time.
            State {
                chamber: noted.chamber,
                cavity: noted.cavity,
                ..state
            } == noted
        });
        if !same || self.since_noted.get() >= NOTE_EVERY {
            self.noted.set(Some(state));
            self.since_noted.set(Duration::ZERO);
            self.note(Event::state(&state));
        }
    }

    /// What became due in the last 100 ms, as one frame. Without clients it is lost.
    fn push(&self) {
        let push = self.device.borrow_mut().take_push();
        if let Some(push) = push {
            self.broadcast(&frame::text(push.as_bytes()));
        }
    }

    fn broadcast(&self, bytes: &[u8]) {
        for client in self.clients().iter().filter(|client| client.listens()) {
            client.send(self, bytes);
        }
    }

    fn obey(&self, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Restart => self.reboot(),
            Effect::RestartAfterPush => {
                self.push();
                self.reboot();
            }
        }
    }

    fn reboot(&self) {
        self.power.set(Power::Rebooting {
            until_s: now_s() + self.reboot_s,
        });
        self.link_hangs.set(false);
        self.device.borrow_mut().power_off();
        self.set_door(Door::Closed);
        self.end_all();
        self.link.cut(Cut::Reset);
        self.note(Event::Down);
    }

    /// The device has left its network: its server stops, and drops everybody.
    fn shut_down(&self) {
        let clients = self.clients();
        for client in clients.iter().filter(|client| client.hold() == Hold::Live) {
            self.end(client, End::Fin);
        }
    }

    fn end_all(&self) {
        for client in self.clients().iter() {
            self.end(client, End::Rst);
        }
    }

    fn change_hold(&self, from: Hold, to: Hold) {
        for client in self.clients().iter().filter(|client| client.hold() == from) {
            client.set_hold(to);
        }
    }

    fn look_at_timers(&self, now_s: f64) {
        match self.power.get() {
            Power::Rebooting { until_s } | Power::Cut { until_s } if now_s >= until_s => {
                self.power.set(Power::On);
                self.device.borrow_mut().boot();
                self.change_hold(Hold::Dead, Hold::Ghost);
                self.note(Event::Up);
                self.note_state();
            }
            Power::On | Power::Rebooting { .. } | Power::Cut { .. } => {}
        }
        self.set_door(match self.power.get() {
            Power::Cut { .. } => Door::Silent,
            Power::Rebooting { .. } => Door::Closed,
            Power::On if now_s < self.refuses_until_s.get() => Door::Closed,
            Power::On if !self.device.borrow().is_served() => Door::Closed,
            Power::On => Door::Open,
        });
        if self.power.get() == Power::On && !self.device.borrow().is_served() {
            self.shut_down();
        }
        self.link.set_hold(match self.power.get() {
            Power::Cut { .. } => link::Hold::Dead,
            Power::Rebooting { .. } => link::Hold::Away,
            Power::On if self.link_hangs.get() => link::Hold::Hung,
            Power::On if now_s < self.refuses_until_s.get() => link::Hold::Away,
            Power::On => link::Hold::Live,
        });
    }

    fn set_door(&self, door: Door) {
        if self.door.replace(door) != door {
            // Who is thrown out and comes back at once must not find the door still open.
            if door == Door::Closed {
                if let Some(listener) = self.listener.take() {
                    door::shut(&listener);
                }
            }
            self.door_changed.notify_one();
        }
    }
}

impl Simulated for Unit {
    fn tick(self: Rc<Self>, now_s: f64, elapsed_s: f64, reading_due: bool) {
        Unit::tick(&self, now_s, elapsed_s, reading_due);
    }

    fn inject(self: Rc<Self>, command: &Command, text: &str) {
        Unit::inject(&self, command, text);
    }

    fn saves(&self) -> u64 {
        self.device.borrow().saves()
    }

    fn cavity_c(&self) -> Option<f64> {
        self.device.borrow().state().cavity
    }

    fn stored(&self) -> serde_json::Value {
        serde_json::to_value(self.device.borrow().stored()).unwrap_or_default()
    }
}

/// Sends that many readings per second, as evenly as the runtime's timer of 1 ms allows.
async fn flood(unit: Rc<Unit>, per_second: u32, time: Duration) {
    let start_s = now_s();
    let total = time.as_micros() * u128::from(per_second) / 1_000_000;
    let mut turns = tokio::time::interval(Duration::from_millis(1));
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut sent = 0;
    while sent < total {
        turns.tick().await;
        let passed = Duration::try_from_secs_f64(now_s() - start_s).unwrap_or_default();
        let due = (passed.as_micros() * u128::from(per_second) / 1_000_000).min(total);
        let reading = unit.device.borrow().reading_frame();
        let reading = frame::text(reading.as_bytes());
        while sent < due {
            unit.broadcast(&reading);
            if unit.over_mqtt {
                let state = unit.device.borrow().published_state();
                unit.link.publish(vec![state]);
            }
            sent += 1;
        }
    }
}

/// Sockets the server has, HTTP and WebSocket together (PROTOCOL section 1.1).
const SOCKETS: usize = 7;
const LONGEST_STEP: Duration = Duration::from_millis(500);
const NOTE_EVERY: Duration = Duration::from_secs(10);
