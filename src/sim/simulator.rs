//! Simulated devices on a thread of their own.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::Socket;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

use super::clock::now_s;
use super::device::{Device, Setup};
use super::door;
use super::esphome::unit::Unit as NodeUnit;
use super::esphome::{self, Node};
use super::firmware::Firmware;
use super::inject::{Command, Injection};
use super::link;
use super::log::{Entry, Log};
use super::unit::Unit;
use crate::driver::mqtt::Broker;

/// What the devices speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The stock firmware's WebSocket.
    Stock,
    /// ESPHome over MQTT.
    Esphome,
    /// The stock firmware 1.0.4 over MQTT, which has its WebSocket as well.
    StockMqtt,
}

/// Which devices to simulate, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// What they speak.
    pub dialect: Dialect,
    /// What each stock device is like. The identities of several count up from this one.
    pub setup: Setup,
    /// What each ESPHome node is like. Several have the end of their MAC address in their name.
    pub node: esphome::Setup,
    /// The broker of ESPHome nodes, which need one. Stock devices over MQTT are bound to it; without
    /// it they are bound to none.
    pub broker: Option<Broker>,
    /// How long a device waits before it connects to the broker again.
    pub reconnect_s: f64,
    /// Gets to know why the broker cannot be reached, when the reason changes.
    pub complain: fn(&str),
    /// Where the first stock device listens; the others on the ports after it. Port 0: any free ones.
    pub listen: SocketAddr,
    /// How many devices.
    pub count: usize,
    /// How much faster than real time it warms up, cools down and dries. The rates on the wire
    /// stay as they are.
    pub speed: f64,
    /// How long a restart takes, in real time.
    pub reboot_s: f64,
    /// Where to write the log.
    pub log: Option<PathBuf>,
    /// Where the devices keep what they have in flash, over the end of the simulator.
    pub state: Option<PathBuf>,
    /// Where to write the temperature of the first device's cavity, once per second and in
    /// thousandths of a degree: Klipper's `temperature_host` reads it with `sensor_path`.
    pub cavity_file: Option<PathBuf>,
    /// Whether entries stay in memory, for [`Simulator::entries`] and [`Simulator::wait_for`].
    pub keep_entries: bool,
}

/// Running simulated devices. They stop when this is dropped.
#[derive(Debug)]
pub struct Simulator {
    dialect: Dialect,
    count: usize,
    addresses: Vec<SocketAddr>,
    log: Arc<Log>,
    requests: Option<UnboundedSender<Request>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// An injection, and where to say that it is done.
#[derive(Debug)]
struct Request {
    injection: Injection,
    done: mpsc::Sender<()>,
}

impl Simulator {
    /// Starts the devices. They accept connections when this returns.
    pub fn start(options: Options) -> io::Result<Self> {
        if options.count > MANY {
            raise_descriptor_limit();
        }
        if options.dialect == Dialect::Esphome && options.broker.is_none() {
            let error = "an ESPHome node needs a broker";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        let sockets = if options.dialect == Dialect::Esphome {
            Vec::new()
        } else {
            door::bind_all(options.listen, options.count)?
        };
        let addresses = sockets
            .iter()
            .map(door::address_of)
            .collect::<io::Result<Vec<_>>>()?;
        let log = Log::create(
            options.log.as_deref(),
            options.keep_entries,
            options.count > 1,
        );
        let log = Arc::new(log.map_err(|error| about(options.log.as_deref(), &error))?);
        let stored = options.state.as_deref().map_or(Ok(Vec::new()), load)?;
        let (requests, inbox) = unbounded_channel();
        let cavity = options.cavity_file.as_deref().map(CavityFile::create);
        let cavity = cavity.transpose()?;
        let thread_log = Arc::clone(&log);
        let (dialect, count) = (options.dialect, options.count);
        let places: Vec<_> = addresses.iter().copied().zip(sockets).collect();
        let thread = std::thread::Builder::new()
            .name("panda-sim".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                let world = run(options, places, stored, cavity, thread_log, inbox);
                runtime.block_on(LocalSet::new().run_until(world))
            })?;
        Ok(Simulator {
            dialect,
            count,
            addresses,
            log,
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    /// Where the n-th device listens.
    ///
    /// # Panics
    ///
    /// When there are not that many.
    pub fn address(&self, index: usize) -> SocketAddr {
        self.addresses[index]
    }

    /// Where the devices listen; ESPHome nodes don't.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Does one of the commands of `--inject`, and returns when it is done. The error says what is
    /// wrong with the command.
    pub fn inject(&self, line: &str) -> Result<(), String> {
        let injection: Injection = line.parse()?;
        injection.command.fits(self.dialect)?;
        let count = self.count;
        if let Some(device) = injection.device.filter(|device| *device >= count) {
            return Err(format!(
                "there is no device @{device}: the last one is @{}",
                count - 1
            ));
        }
        let (done, wait) = mpsc::channel();
        let request = Request { injection, done };
        let sent = self
            .requests
            .as_ref()
            .is_some_and(|requests| requests.send(request).is_ok());
        if sent && wait.recv().is_ok() {
            Ok(())
        } else {
            Err("the simulator has ended".to_owned())
        }
    }

    /// What has happened so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.log.entries()
    }

    /// The first entry that fits, waiting for it if need be.
    pub fn wait_for(&self, fits: impl Fn(&Entry) -> bool, timeout: Duration) -> Option<Entry> {
        self.log.wait_for(0, fits, timeout)
    }

    /// The first entry that fits from number `start` on, which is how many there were at some
    /// earlier moment: `simulator.entries().len()`.
    pub fn wait_for_new(
        &self,
        start: usize,
        fits: impl Fn(&Entry) -> bool,
        timeout: Duration,
    ) -> Option<Entry> {
        self.log.wait_for(start, fits, timeout)
    }

    /// Waits for ever, or until the simulation breaks down.
    pub fn join(mut self) -> io::Result<()> {
        let thread = self.thread.take();
        let ended = thread.map_or(Ok(Ok(())), JoinHandle::join);
        ended.unwrap_or_else(|_| Err(io::Error::other("the simulation has panicked")))
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.requests = None; // the thread ends when nobody can ask for anything any more
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            dialect: Dialect::Stock,
            setup: Setup::default(),
            node: esphome::Setup::default(),
            broker: None,
            reconnect_s: 10.0,
            complain: |_| {},
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            count: 1,
            speed: 1.0,
            reboot_s: 5.0,
            log: None,
            state: None,
            cavity_file: None,
            keep_entries: true,
        }
    }
}

/// What the simulator does to a device, whichever it is.
pub(crate) trait Simulated {
    /// Every 100 ms.
    fn tick(self: Rc<Self>, now_s: f64, elapsed_s: f64, reading_due: bool);
    /// Does something to it.
    fn inject(self: Rc<Self>, command: &Command, text: &str);
    /// How often settings went to flash.
    fn saves(&self) -> u64;
    /// The temperature where the print is, if that is simulated.
    fn cavity_c(&self) -> Option<f64>;
    /// What is in flash.
    fn stored(&self) -> serde_json::Value;
}

type Units = Vec<Rc<dyn Simulated>>;

async fn run(
    options: Options,
    places: Vec<(SocketAddr, Socket)>,
    stored: Vec<serde_json::Value>,
    mut cavity: Option<CavityFile>,
    log: Arc<Log>,
    mut inbox: UnboundedReceiver<Request>,
) -> io::Result<()> {
    let units = if options.dialect == Dialect::Esphome {
        start_nodes(&options, stored, &log)
    } else {
        start_devices(&options, places, stored, &log)?
    };
    if let Some(file) = &mut cavity {
        file.write(&units)?;
    }
    // One timer for all devices, however many there are.
    let mut turns = tokio::time::interval(TICK);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut last_s = now_s();
    let mut turn = 0;
    let mut stored_saves = 0;
    loop {
        tokio::select! {
            request = inbox.recv() => match request {
                Some(request) => carry_out(&units, request).await,
                None => return Ok(()),
            },
            _ = turns.tick() => {
                let now_s = now_s();
                turn += 1;
                for (index, unit) in units.iter().enumerate() {
                    // Spread, so that a thousand readings don't leave at the same moment.
                    let reading_due = (turn + index) % TICKS_PER_READING == 0;
                    Rc::clone(unit).tick(now_s, now_s - last_s, reading_due);
                }
                last_s = now_s;
                if let Some(file) = cavity.as_mut().filter(|_| turn % TICKS_PER_CAVITY == 0) {
                    file.write(&units)?;
                }
                if let Some(file) = &options.state {
                    let saves = units.iter().map(|unit| unit.saves()).sum();
                    if saves != stored_saves && store(file, &units).is_ok() {
                        stored_saves = saves;
                    }
                }
            }
        }
    }
}

fn start_devices(
    options: &Options,
    places: Vec<(SocketAddr, Socket)>,
    stored: Vec<serde_json::Value>,
    log: &Arc<Log>,
) -> io::Result<Units> {
    let firmware = if options.dialect == Dialect::StockMqtt {
        Firmware::V1_0_4 // the only one
    } else {
        options.setup.firmware
    };
    let mut stored = stored.into_iter();
    let mut units = Units::with_capacity(places.len());
    for (index, (address, socket)) in places.into_iter().enumerate() {
        let identity = options.setup.identity.offset(index);
        let mut device = Device::new(&Setup {
            firmware,
            identity,
            ..options.setup.clone()
        });
        if let Some(stored) = stored.next() {
            device.restore(serde_json::from_value(stored)?);
        }
        if let Some(broker) = options.broker.as_ref().filter(|_| firmware.has_mqtt()) {
            device.bind(broker);
        }
        let unit = Rc::new(Unit::new(index, address, device, options, Arc::clone(log)));
        let listener = door::into_listener(socket)?;
        tokio::task::spawn_local(door::keep(Rc::clone(&unit), listener));
        if firmware.has_mqtt() {
            tokio::task::spawn_local(link::keep(Rc::clone(&unit)));
        }
        units.push(unit);
    }
    Ok(units)
}

fn start_nodes(options: &Options, stored: Vec<serde_json::Value>, log: &Arc<Log>) -> Units {
    let mut stored = stored.into_iter();
    let mut units = Units::with_capacity(options.count);
    for index in 0..options.count {
        let mut setup = options.node.numbered(index, options.count);
        setup.speed = options.speed;
        let mut node = Node::new(&setup);
        if let Some(stored) = stored.next() {
            node.restore(stored);
        }
        let unit = Rc::new(NodeUnit::new(index, node, options, Arc::clone(log)));
        tokio::task::spawn_local(link::keep(Rc::clone(&unit)));
        units.push(unit);
    }
    units
}

async fn carry_out(units: &[Rc<dyn Simulated>], request: Request) {
    let Injection {
        device,
        command,
        text,
    } = request.injection;
    for (index, unit) in units.iter().enumerate() {
        if device.is_none_or(|device| device == index) {
            Rc::clone(unit).inject(&command, &text);
        }
    }
    // Let the tasks of the connections and of the listener act on it before it counts as done.
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    let _ = request.done.send(());
}

/// A file like those of `/sys/class/thermal`.
#[derive(Debug)]
struct CavityFile {
    path: PathBuf,
    file: File,
}

impl CavityFile {
    fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path).map_err(|error| about(Some(path), &error))?;
        let path = path.to_owned();
        Ok(CavityFile { path, file })
    }

    fn write(&mut self, units: &Units) -> io::Result<()> {
        let Some(celsius) = units.first().and_then(|unit| unit.cavity_c()) else {
            return Ok(());
        };
        // In place, because Klipper opens it once and reads from its beginning each time; and
        // always as long, so that it never reads a half of one number and a half of another.
        let text = format!("{:+08.0}\n", celsius * 1000.0);
        self.file
            .write_all_at(text.as_bytes(), 0)
            .map_err(|error| about(Some(&self.path), &error))
    }
}

fn load(file: &Path) -> io::Result<Vec<serde_json::Value>> {
    match std::fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(about(Some(file), &error)),
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|error| about(Some(file), &error.into()))
        }
    }
}

fn store(file: &Path, units: &[Rc<dyn Simulated>]) -> io::Result<()> {
    let stored: Vec<_> = units.iter().map(|unit| unit.stored()).collect();
    // Replaced in one go: the simulator may be killed at any time.
    let new = file.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(&stored)?)?;
    std::fs::rename(&new, file)
}

fn about(file: Option<&Path>, error: &io::Error) -> io::Error {
    let name = file.unwrap_or(Path::new("")).display();
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

/// A thousand devices and their connections need more than the usual 1024 descriptors.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// The firmware's sender loop (PROTOCOL section 1.3).
const TICK: Duration = Duration::from_millis(100);
/// From here on descriptors might run short: a device may have eight.
const MANY: usize = 50;
/// Once per second, as Klipper reads it.
const TICKS_PER_CAVITY: usize = 10;
/// A reading every 500 ms.
const TICKS_PER_READING: usize = 5;
