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
use crate::session::{Config, Session, Snapshot};

use super::clock;
use super::mqtt::Broker;
use super::shared::Shared;
use super::task::Task;
use super::{Order, REGISTRY};

/// A device whose session keeps failing is left alone, with the link in `error`.
const MOST_PANICS: u32 = 3;

/// Who has which device (rule "two sections with one identity").
pub(super) type Claims = Rc<RefCell<BTreeMap<Identity, Holder>>>;

#[derive(Clone)]
pub(super) struct Holder {
    pub(super) key: String,
    pub(super) entry: Rc<Entry>,
}

/// What the driver keeps of a device beside its task.
pub(super) struct Entry {
    pub(super) shared: Arc<Shared>,
    /// The handle that was opened last, as far as the orders have been read.
    pub(super) handle: Cell<u64>,
    running: Cell<bool>,
    pub(super) wake: Notify,
    pub(super) orders: RefCell<Vec<TaskOrder>>,
    pub(super) config: RefCell<Config>,
    /// The way in at its broker, for a device that has one.
    pub(super) broker: RefCell<Option<Broker>>,
    pub(super) owned: Cell<bool>,
    panics: Cell<u32>,
    /// What was published last, for the session that follows a failed one.
    pub(super) last: RefCell<Snapshot>,
}

pub(super) enum TaskOrder {
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
                broker,
                shared,
            } => self.open(key, number, *config, broker, shared),
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
            self.spawn(key.clone(), &entry, session);
            self.entries.insert(key, entry);
            return;
        };
        entry.handle.set(number);
        entry.config.replace(config);
        entry.broker.replace(broker);
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
        let task = Task::new(
            key.clone(),
            Rc::clone(entry),
            Rc::clone(&self.claims),
            session,
        );
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
            last: RefCell::default(),
        }
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
