//! One task per device: it feeds the session what happens and does what the session says.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tungstenite::Message;

use crate::dialect::Identity;
use crate::session::{Claim, Command, Config, Conn, Input, Session, Snapshot};

use super::clock;
use super::reach::reach;
use super::resolve::Resolver;
use super::shared::Shared;
use super::websocket::{Connection, Incoming};
use super::{Order, REGISTRY};

/// So many messages are worked through before anybody else gets a turn.
const BATCH: usize = 64;
/// A device whose session keeps failing is left alone, with the link in `error`.
const MOST_PANICS: u32 = 3;

/// Who has which device (rule "two sections with one identity").
type Claims = Rc<RefCell<BTreeMap<Identity, Holder>>>;

#[derive(Clone)]
struct Holder {
    key: String,
    entry: Rc<Entry>,
}

/// What the driver keeps of a device beside its task.
struct Entry {
    shared: Arc<Shared>,
    /// The handle that was opened last, as far as the orders have been read.
    handle: Cell<u64>,
    running: Cell<bool>,
    wake: Notify,
    orders: RefCell<Vec<TaskOrder>>,
    config: RefCell<Config>,
    owned: Cell<bool>,
    panics: Cell<u32>,
    /// What was published last, for the session that follows a failed one.
    last: RefCell<Snapshot>,
}

enum TaskOrder {
    Adopt,
    Orphan,
    /// Another section has verified the same device and looks after it from now on.
    End,
}

/// All devices of the process.
#[derive(Default)]
pub(super) struct Devices {
    entries: BTreeMap<String, Rc<Entry>>,
    tasks: JoinSet<()>,
    keys: BTreeMap<Id, String>,
    claims: Claims,
}

impl Devices {
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(super) fn obey(&mut self, order: Order) {
        match order {
            Order::Open {
                key,
                number,
                config,
                shared,
            } => self.open(key, number, config, shared),
            Order::Close { key, number } => {
                let Some(entry) = self.entries.get(&key) else {
                    return;
                };
                if entry.handle.get() == number {
                    entry.owned.set(false);
                    entry.order(TaskOrder::Orphan);
                }
            }
        }
    }

    fn open(&mut self, key: String, number: u64, config: Config, shared: Arc<Shared>) {
        let Some(entry) = self.entries.get(&key).map(Rc::clone) else {
            let before = Snapshot {
                identity: REGISTRY.lock().pinned.get(&key).copied(),
                ..Snapshot::default()
            };
            let session = Session::after(config.clone(), seed(), &before);
            let entry = Rc::new(Entry::new(number, config, shared));
            self.spawn(key.clone(), &entry, session);
            self.entries.insert(key, entry);
            return;
        };
        entry.handle.set(number);
        entry.config.replace(config);
        entry.owned.set(true);
        if entry.running.get() {
            entry.order(TaskOrder::Adopt);
        } else {
            self.spawn_after(key, &entry);
        }
    }

    /// A new session where an earlier one has ended.
    fn spawn_after(&mut self, key: String, entry: &Rc<Entry>) {
        entry.orders.borrow_mut().clear();
        let config = entry.config.borrow().clone();
        let session = Session::after(config, seed(), &entry.last.borrow());
        self.spawn(key, entry, session);
    }

    fn spawn(&mut self, key: String, entry: &Rc<Entry>, session: Session) {
        entry.running.set(true);
        let task = Task {
            key: key.clone(),
            entry: Rc::clone(entry),
            claims: Rc::clone(&self.claims),
            session,
            resolver: Resolver::default(),
            links: Vec::new(),
            over: false,
        };
        let handle = self.tasks.spawn_local(task.run());
        self.keys.insert(handle.id(), key);
    }

    /// Wakes the tasks whose wish has changed.
    pub(super) fn notify_changed(&self) {
        for entry in self.entries.values() {
            if entry.shared.changed.swap(false, Ordering::AcqRel) {
                entry.wake.notify_one();
            }
        }
    }

    /// Waits for a task to end, and looks at how (rule R7).
    pub(super) async fn next_ended(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => self.ended(id),
            Some(Err(error)) => self.failed(&error),
            None => std::future::pending().await,
        }
    }

    fn ended(&mut self, id: Id) {
        let Some(key) = self.keys.remove(&id) else {
            return;
        };
        let Some(entry) = self.entries.get(&key).map(Rc::clone) else {
            return;
        };
        entry.running.set(false);
        if entry.owned.get() {
            // A printer took it over when its task had ended already.
            return self.spawn_after(key, &entry);
        }
        let mut registry = REGISTRY.lock();
        if entry.shared.handle.load(Ordering::Acquire) != entry.handle.get() {
            return; // open again: the order is in the inbox
        }
        registry.devices.remove(&key);
        if let Some(identity) = entry.last.borrow().identity {
            registry.pinned.insert(key.clone(), identity);
        }
        drop(registry);
        self.claims
            .borrow_mut()
            .retain(|_, holder| holder.key != key);
        self.entries.remove(&key);
    }

    /// A bug ended a session that may have left heat behind: another one turns it off.
    fn failed(&mut self, error: &JoinError) {
        let Some(key) = self.keys.remove(&error.id()) else {
            return;
        };
        let Some(entry) = self.entries.get(&key).map(Rc::clone) else {
            return;
        };
        entry.running.set(false);
        entry.panics.set(entry.panics.get() + 1);
        if entry.panics.get() > MOST_PANICS {
            return; // its handle sees a driver that does not turn
        }
        let before = entry.last.borrow().clone();
        let config = entry.config.borrow().clone();
        let what = "a task of the driver failed";
        let session = Session::after_panic(config, seed(), &before, what, clock::now());
        self.spawn(key, &entry, session);
    }
}

/// Differs from session to session, so that a thousand of them do not knock in step.
fn seed() -> u64 {
    RandomState::new().hash_one(0)
}

impl Entry {
    fn new(number: u64, config: Config, shared: Arc<Shared>) -> Self {
        Self {
            shared,
            handle: Cell::new(number),
            running: Cell::new(false),
            wake: Notify::new(),
            orders: RefCell::default(),
            config: RefCell::new(config),
            owned: Cell::new(true),
            panics: Cell::new(0),
            last: RefCell::default(),
        }
    }

    fn order(&self, order: TaskOrder) {
        self.orders.borrow_mut().push(order);
        self.wake.notify_one();
    }
}

/// One device at work.
struct Task {
    key: String,
    entry: Rc<Entry>,
    claims: Claims,
    session: Session,
    resolver: Resolver,
    /// At most two: the one that stays, and a short one.
    links: Vec<(Conn, Link)>,
    /// The session has said that nothing is left to do.
    over: bool,
}

type Opening<T> = Pin<Box<dyn Future<Output = Result<T, String>>>>;

/// How far a connection has come.
enum Link {
    Reaching(Opening<TcpStream>),
    Shaking(Opening<Connection>),
    Open(Box<Connection>),
}

/// What a link has to say.
enum LinkEvent {
    Reached(TcpStream),
    Opened(Box<Connection>),
    Readable,
    Failed(String),
}

impl Task {
    async fn run(mut self) {
        let entry = Rc::clone(&self.entry);
        self.turn(Input::Tick);
        loop {
            self.obey();
            if self.over {
                return;
            }
            let now = clock::now();
            let snapshot = self.session.snapshot(now);
            entry.last.replace(snapshot.clone());
            entry.shared.turned(now);
            entry.shared.publish(snapshot);
            let wait = self.session.deadline(now) - now;
            // A new timer each time: one that is set anew leaves its old entry in the runtime's
            // wheel, and the thread wakes up for that one as well.
            let due = sleep_until(Instant::now() + Duration::from_millis(wait));
            tokio::select! {
                () = entry.wake.notified() => self.told(),
                (conn, event) = next_event(&mut self.links) => self.happened(conn, event),
                () = due => self.turn(Input::Tick),
            }
        }
    }

    fn turn(&mut self, input: Input<'_>) {
        self.session.renew(self.entry.shared.renewed_at());
        self.session.handle(clock::now(), input);
    }

    /// The other thread, or another device, has something for us.
    fn told(&mut self) {
        let orders = std::mem::take(&mut *self.entry.orders.borrow_mut());
        for order in orders {
            match order {
                TaskOrder::Adopt => {
                    let config = self.entry.config.borrow().clone();
                    self.turn(Input::Adopted(&config));
                }
                TaskOrder::Orphan => self.turn(Input::Orphaned),
                TaskOrder::End => self.session.end(clock::now()),
            }
        }
        match self.entry.shared.take_wish(self.entry.handle.get()) {
            Some(wish) => self.turn(Input::Wish(wish)),
            None => self.turn(Input::Tick),
        }
    }

    fn happened(&mut self, conn: Conn, event: LinkEvent) {
        match event {
            LinkEvent::Reached(stream) => {
                self.set_link(conn, Link::Shaking(Box::pin(Connection::handshake(stream))));
                self.turn(Input::Reached(conn));
            }
            LinkEvent::Opened(connection) => match connection.address() {
                Ok(address) => {
                    self.set_link(conn, Link::Open(connection));
                    self.turn(Input::Opened(conn, address));
                    self.read(conn);
                }
                Err(_) => self.close(conn, "closed by the device"),
            },
            LinkEvent::Readable => self.read(conn),
            LinkEvent::Failed(why) => self.close(conn, &why),
        }
    }

    /// Works through what has arrived on a connection, up to a batch of it.
    fn read(&mut self, conn: Conn) {
        for _ in 0..BATCH {
            let Some((_, Link::Open(connection))) =
                self.links.iter_mut().find(|(other, _)| *other == conn)
            else {
                return;
            };
            match connection.take() {
                None => return,
                Some(Incoming::Unreadable) => self.turn(Input::Unreadable(conn)),
                Some(Incoming::Ended(why)) => return self.close(conn, &why),
                Some(Incoming::Message(message)) => {
                    let bytes: &[u8] = match &message {
                        Message::Text(text) => text.as_bytes(),
                        Message::Binary(bytes) => bytes,
                        Message::Ping(_)
                        | Message::Pong(_)
                        | Message::Close(_)
                        | Message::Frame(_) => {
                            continue;
                        }
                    };
                    self.turn(Input::Frame(conn, bytes));
                }
            }
            self.obey();
            if self.over {
                return;
            }
        }
    }

    fn close(&mut self, conn: Conn, why: &str) {
        self.links.retain(|(other, _)| *other != conn);
        self.turn(Input::Closed(conn, why));
    }

    fn set_link(&mut self, conn: Conn, link: Link) {
        self.links.retain(|(other, _)| *other != conn);
        self.links.push((conn, link));
    }

    /// Does what the session says.
    fn obey(&mut self) {
        while let Some(command) = self.session.poll() {
            match command {
                Command::Connect { conn, address } => self.connect(conn, address),
                Command::Send(conn, text) => {
                    for (other, link) in &mut self.links {
                        if let (true, Link::Open(connection)) = (*other == conn, link) {
                            connection.send(text);
                            break;
                        }
                    }
                }
                // Dropping the socket resets it: SO_LINGER is 0 from its first moment.
                Command::Abort(conn) => self.links.retain(|(other, _)| *other != conn),
                Command::Claim(identity) => self.claim(identity),
                Command::Tell(event) => self.entry.shared.tell(event),
                Command::End => self.over = !self.entry.owned.get(),
            }
        }
    }

    fn connect(&mut self, conn: Conn, address: Option<SocketAddr>) {
        let (host, port) = {
            let config = self.entry.config.borrow();
            (config.host.clone(), config.port)
        };
        // Asked here, so that an answer that comes after this attempt is there for the next one.
        drop(self.resolver.lookup(&host));
        let reaching = reach(self.resolver.clone(), host, port, address);
        self.set_link(conn, Link::Reaching(Box::pin(reaching)));
    }

    /// Whether another section has this very device.
    fn claim(&mut self, identity: Identity) {
        let holder = self.claims.borrow().get(&identity).cloned();
        let mut doubt = false;
        if let Some(holder) = holder.filter(|holder| holder.key != self.key) {
            if holder.entry.owned.get() {
                let name = holder.entry.config.borrow().name.clone();
                return self.turn(Input::Claimed(Claim::Taken(&name)));
            }
            // What is left of an earlier configuration: this session takes over its duty.
            holder.entry.order(TaskOrder::End);
            doubt = true;
        }
        let holder = Holder {
            key: self.key.clone(),
            entry: Rc::clone(&self.entry),
        };
        self.claims.borrow_mut().insert(identity, holder);
        self.turn(Input::Claimed(Claim::Ours { doubt }));
    }
}

/// The next thing that happens on any link. Safe to drop at any time: nothing is taken out of a
/// link before it is returned.
async fn next_event(links: &mut [(Conn, Link)]) -> (Conn, LinkEvent) {
    std::future::poll_fn(|cx| {
        for (conn, link) in links.iter_mut() {
            let event = match link {
                Link::Reaching(reaching) => reaching.as_mut().poll(cx).map(|result| match result {
                    Ok(stream) => LinkEvent::Reached(stream),
                    Err(why) => LinkEvent::Failed(why),
                }),
                Link::Shaking(shaking) => shaking.as_mut().poll(cx).map(|result| match result {
                    Ok(connection) => LinkEvent::Opened(Box::new(connection)),
                    Err(why) => LinkEvent::Failed(why),
                }),
                Link::Open(connection) => connection.poll_ready(cx).map(|()| LinkEvent::Readable),
            };
            if let std::task::Poll::Ready(event) = event {
                return std::task::Poll::Ready((*conn, event));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Link as LinkState, Reason};

    #[test]
    fn r7_a_panic_in_a_task_is_an_error_of_its_device_and_a_failure_for_klipper() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut devices = Devices::default();
            let shared = Arc::new(Shared::new());
            let config = Config {
                host: "127.0.0.1".into(),
                port: 1,
                ..Config::default()
            };
            let key = "stock 127.0.0.1:1".to_owned();
            devices.open(key.clone(), 1, config, Arc::clone(&shared));
            tokio::task::yield_now().await;
            assert_eq!(shared.fetch().failures, 0);

            for failures in 1..=MOST_PANICS + 1 {
                // As if the device's own task had failed.
                devices.tasks.abort_all();
                while devices.tasks.join_next().await.is_some() {}
                let failed = devices
                    .tasks
                    .spawn_local(async { panic!("a bug, for the test") });
                devices.keys.insert(failed.id(), key.clone());
                devices.next_ended().await;
                tokio::task::yield_now().await;
                let snapshot = shared.fetch();
                if failures <= MOST_PANICS {
                    assert_eq!(snapshot.failures, failures);
                    assert_eq!(snapshot.link, LinkState::Error);
                    assert_eq!(snapshot.forced_off.unwrap().reason, Reason::Internal);
                    assert!(snapshot.last_error.unwrap().contains("internal error"));
                }
                assert_eq!(devices.is_empty(), failures > MOST_PANICS);
            }
        });
    }

    #[test]
    fn r3_a_wish_of_the_next_printer_waits_for_its_order() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut devices = Devices::default();
            let shared = Arc::new(Shared::new());
            let config = Config {
                host: "127.0.0.1".into(),
                port: 1,
                ..Config::default()
            };
            let key = "stock 127.0.0.1:1".to_owned();
            devices.open(key.clone(), 1, config, Arc::clone(&shared));
            tokio::task::yield_now().await;

            devices.obey(Order::Close { key, number: 1 });
            let wish = crate::session::Wish {
                target: 50.0,
                armed: true,
                ack: 0,
            };
            shared.want(2, wish); // and the order of its printer comes after this turn
            tokio::task::yield_now().await;
            assert_eq!(shared.take_wish(2), Some(wish));
        });
    }
}
