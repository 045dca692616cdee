//! All devices of the process: a task each, what is kept beside it, and what becomes of one that
//! fails.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};

use crate::dialect::Identity;
use crate::session::{Bequest, Config, Event, Guard, Session, Snapshot};

use super::clock;
use super::guard::board::{Duty, Way};
use super::keeper::{Keeper, Waiting};
use super::mqtt::Broker;
use super::owner::{Acquired, Asker, Ownership};
use super::shared::Shared;
use super::task::Task;
use super::{Launch, Order, REGISTRY};

/// A device whose session keeps failing is left alone, with the link in `error`.
const MOST_PANICS: u32 = 3;

/// Who has which device (rule "two sections with one identity").
pub(super) type Claims = Rc<RefCell<BTreeMap<Identity, Holder>>>;

pub(super) struct Holder {
    pub(super) key: String,
    pub(super) entry: Rc<Entry>,
    /// Other processes are being asked.
    pub(super) acquiring: bool,
    /// What tells other processes, once it is ours.
    pub(super) ownership: Option<Ownership>,
}

/// What the driver keeps of a device beside its task.
pub(super) struct Entry {
    pub(super) shared: Arc<Shared>,
    /// The handle that was opened last, as far as the orders have been read.
    pub(super) handle: Cell<u64>,
    pub(super) running: Cell<bool>,
    pub(super) wake: Notify,
    pub(super) orders: RefCell<Vec<TaskOrder>>,
    pub(super) config: RefCell<Config>,
    /// The way in at its broker, for a device that has one.
    pub(super) broker: RefCell<Option<Broker>>,
    pub(super) owned: Cell<bool>,
    panics: Cell<u32>,
    pub(super) asker: Asker,
    /// What is on the guard's board; in a guard, what its process has left there.
    pub(super) bequest: Cell<Bequest>,
    /// The guard of this process, if this device has one.
    pub(super) keeper: RefCell<Option<Rc<Keeper>>>,
    /// What was published last, for the session that follows a failed one.
    pub(super) last: RefCell<Snapshot>,
}

pub(super) enum TaskOrder {
    Adopt,
    Orphan,
    /// Somebody else has verified the same device and looks after it from now on.
    End,
    /// Somebody else had it, and had not seen it off.
    Doubt,
    /// What came of asking for it.
    Acquired(Identity, Acquired),
    /// There is a guard, or there is none any more.
    Guard(Guard),
}

/// All devices of the process.
#[derive(Default)]
pub(super) struct Devices {
    entries: BTreeMap<String, Rc<Entry>>,
    tasks: JoinSet<()>,
    keys: BTreeMap<Id, String>,
    claims: Claims,
    keeper: Option<Rc<Keeper>>,
}

impl Devices {
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(super) fn obey(&mut self, order: Order, guard: &mut Waiting) {
        match order {
            Order::Open {
                key,
                number,
                config,
                broker,
                launch,
                shared,
            } => {
                if let Some(launch) = launch.filter(|_| config.guard) {
                    self.start_guard(launch, guard);
                }
                self.open(key, number, *config, broker.map(|broker| *broker), shared);
            }
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

    fn open(
        &mut self,
        key: String,
        number: u64,
        config: Config,
        broker: Option<Broker>,
        shared: Arc<Shared>,
    ) {
        let Some(entry) = self.entries.get(&key).map(Rc::clone) else {
            let before = Snapshot {
                identity: REGISTRY.lock().pinned.get(&key).copied(),
                ..Snapshot::default()
            };
            let session = Session::after(config.clone(), seed(), &before);
            let entry = Rc::new(Entry::new(number, config, broker, shared));
            self.guard_entry(&entry);
            self.spawn(key.clone(), &entry, session);
            self.entries.insert(key, entry);
            return;
        };
        entry.handle.set(number);
        entry.config.replace(config);
        entry.broker.replace(broker);
        entry.owned.set(true);
        self.guard_entry(&entry);
        if entry.running.get() {
            entry.order(TaskOrder::Adopt);
        } else {
            self.spawn_after(key, &entry);
        }
    }

    // The guard

    fn start_guard(&mut self, launch: Launch, waiting: &mut Waiting) {
        if self.keeper.is_some() {
            return;
        }
        match Keeper::new(launch) {
            Ok(keeper) => {
                keeper.start(waiting);
                self.keeper = Some(Rc::new(keeper));
            }
            Err(_) => self.keeper = None, // no memory for a board: its devices stay unguarded
        }
    }

    fn guard_entry(&self, entry: &Rc<Entry>) {
        let wanted = entry.config.borrow().guard;
        let keeper = self.keeper.as_ref().filter(|_| wanted).map(Rc::clone);
        if wanted && keeper.is_none() {
            let why = "there is no memory to share with it, or no program to start";
            entry.order(TaskOrder::Guard(Guard::Gone(why.into())));
        }
        entry.keeper.replace(keeper);
    }

    pub(super) fn keeper(&self) -> Option<Rc<Keeper>> {
        self.keeper.clone()
    }

    /// Tells all devices what has become of the guard, and people, if there is anything to say.
    pub(super) fn tell_guard(&self, line: Option<&str>) {
        for entry in self.entries.values() {
            let Some(keeper) = &*entry.keeper.borrow() else {
                continue;
            };
            if let Some(text) = line.filter(|_| entry.owned.get()) {
                let text = text.to_owned();
                entry.shared.tell(Event { text });
            }
            entry.order(TaskOrder::Guard(keeper.state()));
        }
    }

    /// In a guard: goes on where the process it watches has ended, or stands still.
    pub(super) fn take_over(&mut self, duty: &Duty, of: u32) -> Result<Rc<Entry>, String> {
        let broker = duty.broker.as_ref().map(Way::broker).transpose()?;
        let mut entry = Entry::new(0, duty.config.clone(), broker, Arc::new(Shared::new()));
        entry.asker = Asker::Guard { of };
        entry.bequest.set(duty.bequest);
        entry.owned.set(false);
        let entry = Rc::new(entry);
        let session = entry.bequeathed();
        self.spawn(duty.key.clone(), &entry, session);
        self.entries.insert(duty.key.clone(), Rc::clone(&entry));
        Ok(entry)
    }

    /// In a guard: leaves a device alone, now.
    pub(super) fn let_go(&self, key: &str) {
        if let Some(entry) = self.entries.get(key) {
            entry.order(TaskOrder::End);
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
        let task = Task::new(
            key.clone(),
            Rc::clone(entry),
            Rc::clone(&self.claims),
            session,
        );
        let handle = self.tasks.spawn_local(task.run());
        self.keys.insert(handle.id(), key);
        let guard = entry.keeper.borrow().as_ref().map(|keeper| keeper.state());
        if let Some(guard) = guard {
            entry.order(TaskOrder::Guard(guard));
        }
        if !entry.owned.get() && !entry.is_guards() {
            entry.order(TaskOrder::Orphan); // its printer left while it failed
        }
    }

    /// Wakes the tasks whose wish has changed.
    pub(super) fn notify_changed(&self) {
        for entry in self.entries.values() {
            if entry.shared.changed.swap(false, Ordering::AcqRel) {
                entry.wake.notify_one();
            }
        }
    }

    /// Waits for a task to end, and looks at how (rule R7). Returns the device that is looked
    /// after no more.
    pub(super) async fn next_ended(&mut self) -> Option<String> {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => self.ended(id),
            Some(Err(error)) => self.failed(&error),
            None => std::future::pending().await,
        }
    }

    fn ended(&mut self, id: Id) -> Option<String> {
        let key = self.keys.remove(&id)?;
        let entry = self.entries.get(&key).map(Rc::clone)?;
        entry.running.set(false);
        if entry.owned.get() {
            // A printer took it over when its task had ended already.
            self.spawn_after(key, &entry);
            return None;
        }
        let mut registry = REGISTRY.lock();
        if entry.shared.handle.load(Ordering::Acquire) != entry.handle.get() {
            return None; // open again: the order is in the inbox
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
        if let Some(keeper) = &*entry.keeper.borrow() {
            let _ = keeper.board().clear(&key); // a board that cannot be written says that it is on
        }
        Some(key)
    }

    /// A bug ended a session that may have left heat behind: another one turns it off.
    fn failed(&mut self, error: &JoinError) -> Option<String> {
        let key = self.keys.remove(&error.id())?;
        let entry = self.entries.get(&key).map(Rc::clone)?;
        entry.running.set(false);
        entry.panics.set(entry.panics.get() + 1);
        if entry.panics.get() > MOST_PANICS {
            // Its handle sees a driver that does not turn; and its guard, that it was given up.
            entry.give_up(&key);
            return entry.is_guards().then_some(key);
        }
        if entry.is_guards() {
            let session = entry.bequeathed();
            self.spawn(key, &entry, session);
            return None;
        }
        let before = entry.last.borrow().clone();
        let config = entry.config.borrow().clone();
        let what = "a task of the driver failed";
        let session = Session::after_panic(config, seed(), &before, what, clock::now());
        self.spawn(key, &entry, session);
        None
    }
}

/// Differs from session to session, so that a thousand of them do not knock in step.
pub(super) fn seed() -> u64 {
    RandomState::new().hash_one(0)
}

impl Entry {
    fn new(number: u64, config: Config, broker: Option<Broker>, shared: Arc<Shared>) -> Self {
        Self {
            shared,
            handle: Cell::new(number),
            running: Cell::new(false),
            wake: Notify::new(),
            orders: RefCell::default(),
            config: RefCell::new(config),
            broker: RefCell::new(broker),
            owned: Cell::new(true),
            panics: Cell::new(0),
            asker: Asker::Driver,
            bequest: Cell::default(),
            keeper: RefCell::default(),
            last: RefCell::default(),
        }
    }

    /// Whether this is the guard's own.
    pub(super) fn is_guards(&self) -> bool {
        matches!(self.asker, Asker::Guard { .. })
    }

    fn bequeathed(&self) -> Session {
        let config = self.config.borrow().clone();
        Session::bequeathed(config, seed(), &self.bequest.get(), clock::now())
    }

    fn give_up(&self, key: &str) {
        let keeper = self.keeper.borrow();
        let Some(keeper) = &*keeper else { return };
        let Some(slot) = keeper.board().slot(key) else {
            return;
        };
        let duty = Duty {
            key: key.to_owned(),
            config: self.config.borrow().clone(),
            broker: self.broker.borrow().as_ref().map(Way::of),
            bequest: Bequest {
                may_be_on: true,
                undelivered: true,
                ..self.bequest.get()
            },
            abandoned: true,
        };
        let _ = keeper.board().set(slot, &duty);
    }

    pub(super) fn order(&self, order: TaskOrder) {
        self.orders.borrow_mut().push(order);
        self.wake.notify_one();
    }
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
            devices.open(key.clone(), 1, config, None, Arc::clone(&shared));
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
            devices.open(key.clone(), 1, config, None, Arc::clone(&shared));
            tokio::task::yield_now().await;

            devices.obey(Order::Close { key, number: 1 }, &mut Waiting::default());
            let wish = crate::session::Wish {
                target: 50.0,
                dry: false,
                armed: true,
                ack: 0,
                hand: 0,
            };
            shared.want(2, wish); // and the order of its printer comes after this turn
            tokio::task::yield_now().await;
            assert_eq!(shared.take_wish(2), Some(wish));
        });
    }
}
