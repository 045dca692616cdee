//! The other half of every test: Klipper's reactor as `python/panda_breath.py` plays it, and a
//! simulated device with an address and an identity of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use _core::driver::mqtt::Broker;
use _core::driver::{Handle, Launch};
use _core::session::{Config, Link, Snapshot, Wish};
use _core::sim::{Entry, Event, Identity, Options, Simulator};
use rustix::time::{ClockId, clock_gettime};

/// How long anything may take that happens at all. Only a failing test waits so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// How the stock firmware is told to be off.
pub(crate) const OFF: &str = r#"{"settings":{"work_on":false}}"#;

/// How firmware 1.x is told to heat.
pub(crate) fn heat(celsius: u8) -> String {
    format!(r#"{{"settings":{{"work_mode":2,"set_temp":{celsius},"work_on":true}}}}"#)
}

/// Seconds on the clock of the simulator's log.
#[expect(clippy::cast_precision_loss, reason = "seconds of a test")]
pub(crate) fn now_s() -> f64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A number that no other test of this process has.
fn unique() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// An address of its own for each device: what an earlier test left behind in the process-wide
/// driver never meets a later one on a port that the system gave out again.
pub(crate) fn loopback() -> IpAddr {
    let [high, low] = unique().to_be_bytes();
    Ipv4Addr::new(127, 1, high, low).into()
}

/// A MAC of its own for each device: one process may have each device only once.
pub(crate) fn mac() -> Identity {
    let [high, low] = unique().to_be_bytes();
    Identity([0x02, 0x50, 0x42, 0x77, high, low])
}

/// The options of a section for a device at this address.
pub(crate) fn config(address: SocketAddr) -> Config {
    Config {
        host: address.ip().to_string(),
        port: address.port(),
        ..Config::default()
    }
}

/// Klipper's reactor: owns the handle, drains it, and obeys it.
pub(crate) struct Klipper {
    pub(crate) handle: Handle,
    pub(crate) wish: Wish,
    /// What the device was told to be off for counts only if the target was dropped: the real one
    /// always obeys.
    pub(crate) obeys: bool,
    /// Every line for people so far.
    pub(crate) lines: Vec<String>,
    obeyed: u32,
    readings: u64,
    /// Every temperature it was ever shown.
    pub(crate) temperatures: Vec<f64>,
}

impl Klipper {
    /// A printer that is ready at once.
    pub(crate) fn ready(config: Config) -> Self {
        let mut klipper = Self::starting(config);
        klipper.wish.armed = true;
        klipper.drain();
        klipper
    }

    /// The same, with a guard that is started so.
    pub(crate) fn guarded(config: Config, launch: Launch) -> Self {
        let mut klipper = Self::opened(Handle::open(config, None, Some(launch)));
        klipper.wish.armed = true;
        klipper.drain();
        klipper
    }

    /// A printer that is not ready yet.
    pub(crate) fn starting(config: Config) -> Self {
        Self::opened(Handle::open(config, None, None))
    }

    /// The same, for a device behind a broker.
    pub(crate) fn ready_at(config: Config, broker: Broker) -> Self {
        let mut klipper = Self::opened(Handle::open(config, Some(broker), None));
        klipper.wish.armed = true;
        klipper.drain();
        klipper
    }

    fn opened(handle: std::io::Result<Handle>) -> Self {
        Self {
            handle: handle.unwrap(),
            wish: Wish::default(),
            obeys: true,
            lines: Vec::new(),
            obeyed: 0,
            readings: 0,
            temperatures: Vec::new(),
        }
    }

    /// `SET_HEATER_TEMPERATURE`: leaves at once.
    pub(crate) fn want(&mut self, target: f64) {
        self.wish.target = target;
        self.wish.ack = self.obeyed;
        self.handle.want(self.wish);
    }

    /// What the shim does once per second, as often as the test likes.
    pub(crate) fn drain(&mut self) -> Snapshot {
        let snapshot = self.handle.drain(self.wish);
        self.lines.extend(self.handle.events());
        if let Some(reading) = snapshot.reading {
            assert!(reading.number >= self.readings, "readings are counted");
            if reading.number > self.readings {
                self.readings = reading.number;
                self.temperatures.push(reading.celsius);
            }
        }
        if snapshot.forced_offs != self.obeyed {
            self.obeyed = snapshot.forced_offs;
            if self.obeys {
                self.wish.target = 0.0;
                self.wish.ack = self.obeyed;
                self.handle.want(self.wish);
            }
        }
        snapshot
    }

    /// Drains until the state is as wanted.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, what: &str, fits: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let end = now_s() + LIMIT.as_secs_f64();
        loop {
            let snapshot = self.drain();
            if fits(&snapshot) {
                return snapshot;
            }
            assert!(
                now_s() < end,
                "never {what}: {snapshot:#?}\n{:#?}",
                self.lines
            );
            pause();
        }
    }

    #[track_caller]
    pub(crate) fn wait_connected(&mut self) -> Snapshot {
        self.wait_until("connected", |snapshot| snapshot.link == Link::Connected)
    }

    #[track_caller]
    pub(crate) fn wait_off_known(&mut self) -> Snapshot {
        self.wait_until("known off", |snapshot| snapshot.off_known)
    }

    /// Waits for that many more readings.
    #[track_caller]
    pub(crate) fn wait_readings(&mut self, more: u64) -> Snapshot {
        let before = self.drain().reading.map_or(0, |reading| reading.number);
        self.wait_until("more readings", |snapshot| {
            snapshot
                .reading
                .is_some_and(|reading| reading.number >= before + more)
        })
    }

    /// Waits for a line for people with this part.
    #[track_caller]
    pub(crate) fn wait_line(&mut self, part: &str) {
        let end = now_s() + LIMIT.as_secs_f64();
        while !self.lines.iter().any(|line| line.contains(part)) {
            self.drain();
            assert!(now_s() < end, "no line with '{part}': {:#?}", self.lines);
            pause();
        }
    }

    /// Drains at 10 Hz for a while, for what must *not* happen.
    pub(crate) fn drain_for(&mut self, time: Duration) -> Snapshot {
        let end = now_s() + time.as_secs_f64();
        while now_s() < end {
            self.drain();
            std::thread::park_timeout(Duration::from_millis(100));
        }
        self.drain()
    }
}

/// Between two looks at something that cannot wake us.
pub(crate) fn pause() {
    std::thread::park_timeout(Duration::from_millis(5));
}

/// A simulated device.
pub(crate) struct Rig {
    pub(crate) simulator: Simulator,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options {
            listen: SocketAddr::new(loopback(), 0),
            reboot_s: 0.5,
            ..Options::default()
        };
        options.setup.identity = mac();
        change(&mut options);
        Self {
            simulator: Simulator::start(options).unwrap(),
        }
    }

    /// The options of a section for this device.
    pub(crate) fn config(&self) -> Config {
        config(self.simulator.address(0))
    }

    /// A printer that is ready, connected, and knows that the device is off.
    #[track_caller]
    pub(crate) fn off(&self) -> Klipper {
        self.off_with(|_| {})
    }

    #[track_caller]
    pub(crate) fn off_with(&self, change: impl FnOnce(&mut Config)) -> Klipper {
        let mut config = self.config();
        change(&mut config);
        let mut klipper = Klipper::ready(config);
        klipper.wait_off_known();
        klipper
    }

    /// A printer that heats to 45 C, with the heat delivered.
    #[track_caller]
    pub(crate) fn heating(&self) -> Klipper {
        self.heating_with(|_| {})
    }

    #[track_caller]
    pub(crate) fn heating_with(&self, change: impl FnOnce(&mut Config)) -> Klipper {
        let mut klipper = self.off_with(change);
        klipper.want(45.0);
        klipper.wait_until("heating", |snapshot| snapshot.device_on == Some(true));
        self.wait_state(1, 45);
        klipper.wait_readings(4); // for 1 s and more: delivered, and whatever crossed it is over
        klipper
    }

    #[track_caller]
    pub(crate) fn inject(&self, command: &str) {
        self.simulator.inject(command).unwrap();
    }

    /// How much has happened, for [`Rig::frames_since`] and the like.
    pub(crate) fn mark(&self) -> usize {
        self.simulator.entries().len()
    }

    #[track_caller]
    pub(crate) fn wait_since(
        &self,
        mark: usize,
        what: &str,
        fits: impl Fn(&Event) -> bool,
    ) -> Entry {
        let found = self
            .simulator
            .wait_for_new(mark, |entry| fits(&entry.event), LIMIT);
        found.unwrap_or_else(|| panic!("never {what}: {:#?}", self.story(mark)))
    }

    /// Waits until the device has this master switch and target.
    #[track_caller]
    pub(crate) fn wait_state(&self, on: u8, target: u8) -> Entry {
        self.wait_state_since(0, on, target)
    }

    #[track_caller]
    pub(crate) fn wait_state_since(&self, mark: usize, on: u8, target: u8) -> Entry {
        self.wait_since(mark, "in that state", |event| {
            matches!(event, Event::State { work_on, set_temp, .. } if (*work_on, *set_temp) == (on, target))
        })
    }

    #[track_caller]
    pub(crate) fn wait_frame_since(&self, mark: usize, wanted: &str) -> Entry {
        self.wait_since(
            mark,
            wanted,
            |event| matches!(event, Event::Frame { text, .. } if text == wanted),
        )
    }

    #[track_caller]
    pub(crate) fn wait_open_since(&self, mark: usize) -> Entry {
        self.wait_since(mark, "a new connection", |event| {
            matches!(event, Event::Open { .. })
        })
    }

    /// The texts the device was sent, and a panic for anything that is not a text: never a ping.
    #[track_caller]
    pub(crate) fn frames_since(&self, mark: usize) -> Vec<String> {
        let frames = self.client_frames_since(mark);
        frames.into_iter().map(|(_, text)| text).collect()
    }

    #[track_caller]
    pub(crate) fn client_frames_since(&self, mark: usize) -> Vec<(u64, String)> {
        let entries = self.simulator.entries();
        let mut frames = Vec::new();
        for entry in &entries[mark..] {
            if let Event::Frame {
                text,
                client,
                opcode,
            } = &entry.event
            {
                assert_eq!(*opcode, "text", "{text}");
                frames.push((*client, text.clone()));
            }
        }
        frames
    }

    /// Which connections were accepted.
    pub(crate) fn opened_since(&self, mark: usize) -> Vec<u64> {
        let entries = self.simulator.entries();
        let mut clients = Vec::new();
        for entry in &entries[mark..] {
            if let Event::Open { client, .. } = entry.event {
                clients.push(client);
            }
        }
        clients
    }

    /// Which connections have ended.
    pub(crate) fn closed_since(&self, mark: usize) -> Vec<u64> {
        let entries = self.simulator.entries();
        let mut clients = Vec::new();
        for entry in &entries[mark..] {
            if let Event::Close { client, .. } = entry.event {
                clients.push(client);
            }
        }
        clients
    }

    /// Whether the device is on now.
    #[track_caller]
    pub(crate) fn is_on(&self) -> bool {
        let mut on = None;
        for entry in self.simulator.entries() {
            if let Event::State { work_on, .. } = entry.event {
                on = Some(work_on == 1);
            }
        }
        on.unwrap()
    }

    /// What happened, for a message.
    pub(crate) fn story(&self, mark: usize) -> Vec<String> {
        let entries = self.simulator.entries();
        entries[mark..]
            .iter()
            .map(|entry| format!("{:.3} {:?}", entry.t, entry.event))
            .collect()
    }
}
