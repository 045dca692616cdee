//! One device: what Klipper wants, what the device says, and every safety rule between them.
//!
//! Pure: no sockets, clocks, threads or Python. Everything that happens comes in through
//! [`Session::handle`] with the time it happened; everything to do comes out of [`Session::poll`];
//! [`Session::deadline`] says when to call again. The driver obeys and decides nothing.
//!
//! * [`mod@self`]: the words, and the order in which a turn is worked through
//! * `link`: connecting, silence, identity
//! * `device`: what reports mean: faults, hands at the device, readings
//! * `steer`: what to send, and when to look again
//! * `off`: what is known about the device being off
//! * `backoff`, `budget`: how often

mod backoff;
mod budget;
mod config;
mod device;
mod link;
mod off;
mod snapshot;
mod steer;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

pub use config::{Config, OnExternalOff, OnExternalOn};
pub use snapshot::{Event, ForcedOff, Link, Reading, Reason, Snapshot, Trouble};

use crate::dialect::{Dialect, Identity};
use backoff::Jitter;
use budget::Budget;
use device::Device;
use link::{Main, Probe};
use off::OffWatch;

/// Milliseconds on a clock that also counts while the machine sleeps.
pub type Millis = u64;

/// Two turns further apart than this mean that we slept, or were starved: whatever is buffered is
/// of unknown age (rule R5).
const LONGEST_TURN: Millis = 2_000;
/// A turn at least this often, so that only a real gap looks like one.
const HEARTBEAT: Millis = 1_000;

/// One connection, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn(pub u32);

/// What Klipper wants: always the whole wish, the latest counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wish {
    /// C; 0 is off.
    pub target: f64,
    /// Klipper is ready and not in shutdown.
    pub armed: bool,
    /// The number of the last forced off that Klipper's side had obeyed when it made this wish.
    pub ack: u32,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Time has passed.
    Tick,
    /// Klipper wants something.
    Wish(Wish),
    /// A printer wants this device, with possibly new options. Also after every RESTART.
    Adopted(&'a Config),
    /// No printer wants this device any more: turn it off and end.
    Orphaned,
    /// The other side answered; the handshake follows.
    Reached(Conn),
    /// The connection is open.
    Opened(Conn, SocketAddr),
    /// A whole message.
    Frame(Conn, &'a [u8]),
    /// A message that could not even be turned into bytes; counted.
    Unreadable(Conn),
    /// The connection is gone or never came, and why.
    Closed(Conn, &'a str),
    /// The answer to [`Command::Claim`].
    Claimed(Claim<'a>),
}

/// Who has a device.
#[derive(Clone, Copy, Debug)]
pub enum Claim<'a> {
    /// It is this session's.
    Ours {
        /// Another session had it and had not seen it off.
        doubt: bool,
    },
    /// Another section has the same device.
    Taken(&'a str),
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Open a connection: try `address` and whatever the host's name resolves to, at once.
    Connect {
        /// Its name from now on.
        conn: Conn,
        /// Where the device was last.
        address: Option<SocketAddr>,
    },
    /// Send one message.
    Send(Conn, String),
    /// Drop the connection so that nothing buffered on it can still arrive (`SO_LINGER` 0).
    Abort(Conn),
    /// Ask whether the device is anybody else's.
    Claim(Identity),
    /// Say it to people.
    Tell(Event),
    /// Nothing is left to do: this session may be dropped.
    End,
}

/// One device. See the module's description.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, not a state"
)]
pub struct Session {
    config: Config,
    commands: VecDeque<Command>,
    jitter: Jitter,
    last_turn: Option<Millis>,
    started_at: Millis,

    // What Klipper wants.
    owned: bool,
    wish: Wish,
    wish_changed_at: Millis,
    renewed_at: Millis,
    forced_offs: u32,
    failures: u32,
    forced_off: Option<(ForcedOff, Millis)>,

    // The connection.
    next_conn: u32,
    main: Option<Main>,
    probe: Option<Probe>,
    connect_at: Millis,
    attempts: u32,
    outage_since: Option<Millis>,
    outage_told: bool,
    lost_at: Millis,
    ever_live: bool,
    reconnects: u32,
    address: Option<SocketAddr>,
    pinned: Option<Identity>,
    wrong: bool,
    broken: bool,
    last_error: Option<Arc<str>>,

    // The device.
    device: Device,
    reading: Option<Reading>,
    lost: bool,
    ignored: u64,
    off: OffWatch,
    ended: bool,

    // How often.
    heat_budget: Budget,
    repeat_budget: Budget,
    correction_budget: Budget,
    reassert_budget: Budget,
    line_budget: Budget,
    lines_dropped: u32,
}

impl Session {
    /// A session that belongs to a printer and has not connected yet. `seed` is for jitter.
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            commands: VecDeque::new(),
            jitter: Jitter(seed),
            last_turn: None,
            started_at: 0,
            owned: true,
            wish: Wish::default(),
            wish_changed_at: 0,
            renewed_at: 0,
            forced_offs: 0,
            failures: 0,
            forced_off: None,
            next_conn: 1,
            main: None,
            probe: None,
            connect_at: 0,
            attempts: 0,
            outage_since: None,
            outage_told: false,
            lost_at: 0,
            ever_live: false,
            reconnects: 0,
            address: None,
            pinned: None,
            wrong: false,
            broken: false,
            last_error: None,
            device: Device::default(),
            reading: None,
            lost: false,
            ignored: 0,
            off: OffWatch::default(),
            ended: false,
            // The device saves each to flash. Waiting for a report keeps them to two per second;
            // this bounds them for a device that reports much more often than it should.
            heat_budget: Budget::new(10, 100),
            repeat_budget: Budget::new(4, 1_000),
            correction_budget: Budget::new(3, 200_000),
            reassert_budget: Budget::new(3, 200_000),
            line_budget: Budget::new(20, 30_000),
            lines_dropped: 0,
        }
    }

    /// Goes on where an earlier session of the same device ended: the numbers that Klipper's side
    /// compares with go on too, and the device is still the only one that is accepted.
    pub fn after(config: Config, seed: u64, before: &Snapshot) -> Self {
        let mut session = Self::new(config, seed);
        session.forced_offs = before.forced_offs;
        session.failures = before.failures;
        session.reconnects = before.reconnects;
        session.pinned = before.identity;
        session
    }

    /// Goes on after a bug ended the session that was `before`: it may have left heat behind, so
    /// this one only turns the device off, and says why (rule R7).
    pub fn after_panic(
        config: Config,
        seed: u64,
        before: &Snapshot,
        what: &str,
        now: Millis,
    ) -> Self {
        let mut session = Self::after(config, seed, before);
        session.ever_live = before.identity.is_some();
        session.started_at = now;
        session.last_turn = Some(now);
        session.broken = true;
        session.last_error = Some(
            format!("internal error: {what}; restart the Klipper service and report it").into(),
        );
        session.off.heat_connection_ended(now, true);
        session.force_off(
            now,
            Reason::Internal,
            "internal error in the panda_breath driver".into(),
        );
        session
    }

    /// Works through one thing that happened. Never fails: bad input is counted.
    pub fn handle(&mut self, now: Millis, input: Input<'_>) {
        self.note_turn(now);
        match input {
            Input::Tick => {}
            Input::Wish(wish) => self.wish(now, wish),
            Input::Adopted(config) => self.adopted(now, config),
            Input::Orphaned => self.owned = false,
            Input::Reached(conn) => self.reached(now, conn),
            Input::Opened(conn, address) => self.opened(now, conn, address),
            Input::Frame(conn, bytes) => self.frame(now, conn, bytes),
            Input::Unreadable(_) => self.ignored += 1,
            Input::Closed(conn, why) => self.closed(now, conn, why),
            Input::Claimed(claim) => self.claimed(now, claim),
        }
        self.check_wish(now);
        self.check_device(now);
        self.check_links(now);
        self.steer(now);
        self.check_end(now);
    }

    /// The reactor was alive at this time: renews the lease. Say it before [`Session::handle`].
    pub fn renew(&mut self, at: Millis) {
        self.renewed_at = self.renewed_at.max(at);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When to call [`Session::handle`] with a tick if nothing else happens before.
    pub fn deadline(&mut self, now: Millis) -> Millis {
        let mut deadline = self
            .link_deadline()
            .min(self.last_turn.unwrap_or(now) + HEARTBEAT);
        let others = [
            self.wish_deadline(),
            self.device_deadline(),
            self.steer_deadline(now),
        ];
        for at in others.into_iter().flatten() {
            deadline = deadline.min(at);
        }
        deadline.max(now + 1) // whatever is due now was done in this turn
    }

    /// What Klipper must know.
    pub fn snapshot(&self, now: Millis) -> Snapshot {
        Snapshot {
            link: self.link(),
            reading: self.reading,
            lost: self.lost,
            device_on: self.device.on,
            device_target: self.device.target,
            mode: self.device.mode,
            drying: self.device.drying,
            remaining: self.device.remaining,
            settings: self.device.settings.clone(),
            firmware: self.device.firmware,
            identity: self.pinned,
            fault: self.device.trouble,
            external_off: self.device.external_off,
            forced_offs: self.forced_offs,
            failures: self.failures,
            forced_off: self.forced_off.as_ref().map(|(forced, _)| forced.clone()),
            reconnects: self.reconnects,
            ignored: self.ignored,
            off_known: self.off.is_known(now),
            last_error: self.last_error.clone(),
        }
    }

    /// How the device speaks.
    pub fn dialect(&self) -> Dialect {
        Dialect::Stock
    }

    /// Ends at once, because the device is somebody else's duty now.
    pub fn end(&mut self, now: Millis) {
        self.ended = true;
        self.drop_connections(now, "no longer configured");
        self.commands.push_back(Command::End);
    }

    /// The device's address when it was last verified.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Notices that we were not running (suspend, SIGSTOP, starvation).
    fn note_turn(&mut self, now: Millis) {
        let Some(last) = self.last_turn.replace(now) else {
            self.started_at = now;
            self.renewed_at = now;
            self.connect_at = now;
            return;
        };
        if now.saturating_sub(last) > LONGEST_TURN {
            let why = format!(
                "this computer slept or stalled for {} s",
                (now - last) / 1000
            );
            self.drop_connections(now, &why);
        }
    }

    fn wish(&mut self, now: Millis, wish: Wish) {
        if wish.target.total_cmp(&self.wish.target).is_ne() {
            self.wish_changed_at = now;
            self.device.external_on_allowed = false;
            if wish.target > 0.0 {
                self.device.new_target();
            }
        }
        self.wish = wish;
    }

    fn adopted(&mut self, now: Millis, config: &Config) {
        self.config = config.clone();
        self.owned = true;
        self.ended = false;
        self.renewed_at = now;
        // A new printer starts with off, and its wishes count only once it is ready.
        self.wish(
            now,
            Wish {
                ack: self.forced_offs,
                ..Wish::default()
            },
        );
        if self.reading.is_none() {
            self.started_at = now;
        }
    }

    /// Whether Klipper wants heat and knows of everything that was forced off (rule R3).
    fn wants_heat(&self) -> bool {
        self.owned && self.wish.armed && self.wish.target > 0.0 && self.wish.ack == self.forced_offs
    }

    fn check_wish(&mut self, now: Millis) {
        if self.wants_heat() && now >= self.renewed_at + self.config.lease {
            let text = format!("Klipper did not answer for {} s", self.config.lease / 1000);
            self.force_off(now, Reason::Lease, text);
        }
    }

    fn wish_deadline(&self) -> Option<Millis> {
        self.wants_heat()
            .then_some(self.renewed_at + self.config.lease)
    }

    /// Drops Klipper's target. What it wants from now on counts only if it knows of this.
    fn force_off(&mut self, now: Millis, reason: Reason, text: String) {
        self.forced_offs += 1;
        self.failures += u32::from(reason.is_failure());
        self.device.external_off = reason == Reason::ExternalOff;
        self.forced_off = Some((
            ForcedOff {
                reason,
                text: text.into(),
            },
            now,
        ));
    }

    /// One line for people; too many of them are counted instead (rule R6).
    fn tell(&mut self, now: Millis, text: String) {
        if !self.line_budget.take(now) {
            self.lines_dropped += 1;
            return;
        }
        let text = match std::mem::take(&mut self.lines_dropped) {
            0 => text,
            n => format!("{text} ({n} earlier messages left out)"),
        };
        self.commands.push_back(Command::Tell(Event { text }));
    }

    fn check_end(&mut self, now: Millis) {
        let nothing_to_turn_off = !self.ever_live && !self.broken;
        if !self.owned && !self.ended && (nothing_to_turn_off || self.off.is_known(now)) {
            self.end(now);
        }
    }
}

#[cfg(test)]
mod tests;
