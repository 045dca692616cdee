//! The one background thread: sockets and the clock. It obeys [`crate::session`] and decides
//! nothing about heat.
//!
//! * [`mod@self`]: the process-wide thread, and the handle that the reactor's side holds
//! * `shared`: the lock-free slots and the queue between the two threads
//! * `device`: all devices of the process, and what becomes of a task that fails
//! * `task`: one device's task: its session and its connections
//! * `owner`: that nobody else commands a device
//! * `testament`: what the guard finds on its board
//! * `keeper`: that a guard runs; [`guard`]: the guard itself, a process of its own
//! * `link`: one connection, from a name to messages
//! * `websocket`, `mqtt`: how messages travel; `reach`, `resolve`, `mdns`: how bytes get there
//! * `clock`: the only clock
//! * [`visit`], [`stay`]: beside the thread, one short connection to a device or a broker, for
//!   commands; [`watch`]: one that only listens; [`http`], [`browse`], [`ping`]: what else
//!   they ask

pub mod browse;
#[cfg(test)]
mod bug;
mod clock;
mod device;
pub mod guard;
pub mod http;
mod keeper;
mod link;
pub mod mdns;
pub mod mqtt;
mod owner;
pub mod ping;
mod reach;
mod resolve;
mod shared;
pub mod stay;
mod task;
mod testament;
pub mod visit;
pub mod watch;
mod websocket;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_queue::SegQueue;
use nix::sys::signal::SigSet;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use tokio::net::unix::pipe;

use crate::dialect::Identity;
use crate::session::{Config, Sample, Snapshot, Surroundings, Wish, refusal, refusal_to_dry};
pub use keeper::Launch;
use mqtt::Broker;
use shared::Shared;

/// Name servers answer when they like; more than two of their threads are never kept waiting.
const RESOLVER_THREADS: usize = 2;

/// One process has one driver: devices outlive the printer objects that ask for them.
static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    hub: None,
    devices: BTreeMap::new(),
    pinned: BTreeMap::new(),
});

struct Registry {
    hub: Option<Arc<Hub>>,
    devices: BTreeMap<String, Arc<Shared>>,
    /// Who was found where, for the life of the process: sessions end, and printers come again.
    pinned: BTreeMap<String, Identity>,
}

/// The way to the driver's thread.
#[derive(Debug)]
struct Hub {
    inbox: SegQueue<Order>,
    wake: OwnedFd,
}

/// What the driver's thread is told besides wishes.
#[derive(Debug)]
enum Order {
    /// A printer wants this device: handle number so-and-so was opened.
    Open {
        key: String,
        number: u64,
        config: Box<Config>,
        broker: Option<Box<Broker>>,
        launch: Option<Launch>,
        shared: Arc<Shared>,
    },
    /// It was closed.
    Close { key: String, number: u64 },
}

impl Hub {
    /// Wakes the driver. An eventfd, because writing to it takes no lock at all.
    fn wake(&self) {
        // Fails only when its counter is full, and then the driver is being woken anyway.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// A device, as the reactor's side holds it. None of its methods waits for anything.
#[derive(Debug)]
pub struct Handle {
    key: String,
    number: u64,
    shared: Arc<Shared>,
    hub: Arc<Hub>,
    config: Config,
    // The reactor's side only, never locked by the driver.
    last: Mutex<Option<Wish>>,
    around: Mutex<Surroundings>,
}

impl Handle {
    /// Starts to look after a device, or takes it over from the printer before a RESTART: same
    /// session, same connection. The driver's thread is started when there is none.
    ///
    /// `broker` is the way in for a device that is behind one; `launch` starts the guard, which
    /// a device with `config.guard` needs.
    pub fn open(
        config: Config,
        broker: Option<Broker>,
        launch: Option<Launch>,
    ) -> io::Result<Self> {
        let key = key(&config);
        let own_config = config.clone();
        let mut registry = REGISTRY.lock();
        let hub = if let Some(hub) = &registry.hub {
            Arc::clone(hub)
        } else {
            let hub = start()?;
            registry.hub = Some(Arc::clone(&hub));
            hub
        };
        let shared = registry
            .devices
            .entry(key.clone())
            .or_insert_with(|| Arc::new(Shared::new()));
        let shared = Arc::clone(shared);
        let number = shared.handle.fetch_add(1, Ordering::AcqRel) + 1;
        shared.renew();
        shared.want(number, Wish::default()); // whatever the printer before wanted last
        let order = Order::Open {
            key: key.clone(),
            number,
            config: Box::new(config),
            broker: broker.map(Box::new),
            launch,
            shared: Arc::clone(&shared),
        };
        hub.inbox.push(order);
        drop(registry);
        hub.wake();
        Ok(Self {
            key,
            number,
            shared,
            hub,
            config: own_config,
            last: Mutex::new(None),
            around: Mutex::default(),
        })
    }

    fn is_current(&self) -> bool {
        self.shared.handle.load(Ordering::Acquire) == self.number
    }

    /// Says what Klipper wants. The driver is woken only when that changes.
    pub fn want(&self, wish: Wish) {
        let mut last = self.last.lock();
        if *last == Some(wish) || !self.is_current() {
            return;
        }
        *last = Some(wish);
        drop(last);
        self.shared.want(self.number, wish);
        self.hub.wake();
    }

    /// Says what Klipper wants, and that its reactor is alive.
    pub fn drain(&self, wish: Wish) -> Snapshot {
        if self.is_current() {
            self.shared.renew();
        }
        self.want(wish);
        self.shared.fetch()
    }

    /// Says what Klipper's sensors say: the last word of each, and when that was.
    pub fn surround(&self, around: Surroundings) {
        *self.around.lock() = around;
        if self.is_current() {
            self.shared.surround(self.number, around);
        }
    }

    /// Why the sensors allow no target above 0 now, as far as it has been said here; `dry`: for
    /// filament.
    pub fn refusal(&self, dry: bool) -> Option<String> {
        let tripped = self.shared.fetch().tripped;
        let why = if dry { refusal_to_dry } else { refusal };
        why(&self.config, &self.around.lock(), tripped, clock::now())
    }

    /// A reading that arrived in Klipper so many seconds ago.
    pub fn sample(celsius: f64, age: f64) -> Sample {
        let at = clock::before(age);
        Sample { celsius, at }
    }

    /// The lines for people since the last call; those to come are the next printer's.
    pub fn events(&self) -> Vec<String> {
        if self.is_current() {
            self.shared.events()
        } else {
            Vec::new()
        }
    }

    /// Whether the driver has stopped turning (rule R7).
    pub fn is_stuck(&self) -> bool {
        self.shared.is_stuck()
    }

    /// How old something is that arrived at this time, seconds.
    pub fn age(at: crate::session::Millis) -> f64 {
        clock::age_seconds(at)
    }

    /// Lets go of the device: it is turned off, and forgotten once that is confirmed.
    pub fn close(&self) {
        if self.is_current() {
            self.shared.want(self.number, Wish::default()); // the last wish may not have been fetched yet
            self.hub.inbox.push(Order::Close {
                key: self.key.clone(),
                number: self.number,
            });
            self.hub.wake();
        }
    }
}

/// What makes a device the same over a RESTART: where it is.
fn key(config: &Config) -> String {
    let place = format!("{}:{}", config.host.to_ascii_lowercase(), config.port);
    match &config.mqtt {
        None => format!("stock {place}"),
        Some(mqtt) => {
            let id = mqtt.device_id.as_deref().unwrap_or_default();
            format!("mqtt {place}/{}/{id}", mqtt.place(None))
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

fn start() -> io::Result<Arc<Hub>> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let hub = Arc::new(Hub {
        inbox: SegQueue::new(),
        wake,
    });
    let for_thread = Arc::clone(&hub);
    std::thread::Builder::new()
        .name("panda_breath".into())
        .stack_size(512 * 1024)
        .spawn(move || run(&for_thread))?;
    Ok(hub)
}

/// Makes room for another driver, however this one ends: the handles of a driver that failed see
/// one that does not turn, which is *lost*, and the next printer starts a new one (rule R7).
struct Farewell;

impl Drop for Farewell {
    fn drop(&mut self) {
        let mut registry = REGISTRY.lock();
        registry.hub = None;
        registry.devices.clear();
    }
}

/// The driver's thread, from its first breath to its last.
fn run(hub: &Arc<Hub>) {
    let farewell = Farewell;
    // Signals are for klippy's main thread. What is started from here inherits this.
    let _ = SigSet::all().thread_block();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(RESOLVER_THREADS)
        .thread_keep_alive(Duration::from_secs(1))
        .thread_name("panda_breath_dns")
        .build();
    let Ok(runtime) = runtime else { return }; // no descriptors left
    let local = tokio::task::LocalSet::new();
    if local.block_on(&runtime, serve(hub)) {
        std::mem::forget(farewell); // said under the lock, when nothing was left to do
    }
    drop(local);
    // A resolver thread may still be waiting for a name server: it is not waited for.
    runtime.shutdown_background();
}

/// Serves orders until nothing is left to look after; returns whether that is how it ended.
async fn serve(hub: &Arc<Hub>) -> bool {
    let wake = hub.wake.try_clone().ok();
    // Not a pipe, but read like one; the general wrapper for descriptors cannot be used safely.
    let wake = wake.and_then(|fd| pipe::Receiver::from_owned_fd_unchecked(fd).ok());
    let Some(wake) = wake else { return false };
    let mut devices = device::Devices::default();
    let mut guard = keeper::Waiting::default();
    loop {
        while let Some(order) = hub.inbox.pop() {
            devices.obey(order, &mut guard);
        }
        devices.notify_changed();
        if devices.is_empty() {
            let mut registry = REGISTRY.lock();
            if hub.inbox.is_empty() {
                registry.hub = None;
                registry.devices.clear();
                return true;
            }
            continue;
        }
        let keeper = devices.keeper();
        let guard_changed = async {
            match &keeper {
                Some(keeper) => keeper.changed(&mut guard).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = wake.readable() => {
                let mut counter = [0; 8];
                let _ = wake.try_read(&mut counter); // resets it; a second wake-up does no harm
            }
            _ = devices.next_ended() => {}
            line = guard_changed => devices.tell_guard(line.as_deref()),
        }
    }
}
