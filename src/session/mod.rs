//! One device: what Klipper wants, what the device says, and every safety rule between them.
//!
//! Pure: no sockets, clocks, threads or Python. Everything that happens comes in through
//! [`Session::handle`] with the time it happened; everything to do comes out of [`Session::poll`];
//! [`Session::deadline`] says when to call again. The driver obeys and decides nothing.
//!
//! * [`mod@self`]: the words, and the order in which a turn is worked through
//! * `link`: connections: when to make one, when to give one up
//! * `identity`: who answers, and whether it is the one
//! * `device`: what reports mean: faults, hands at the device, readings
//! * `steer`: what the rules make of the wish
//! * `socket`: a device spoken to directly: its reports, and looking at it a second time
//! * `broker`: a device behind a broker: whether it is there, and what the broker itself says
//! * `told`: what such a device says that it does
//! * `ask`: commands that it confirms by what it says afterwards
//! * `off`: what is known about the device being off
//! * `guard`: what is left to the process that turns the device off when this one cannot
//! * `surroundings`: what Klipper's own sensors say; `boost`: regulating by one of them; `cutoff`:
//!   being limited by one; `follow`: the chamber's target by the bed's
//! * `drying`: drying filament for some hours
//! * `backoff`, `budget`: how often

mod ask;
mod backoff;
mod boost;
mod broker;
mod budget;
mod config;
mod cutoff;
mod device;
mod drying;
mod follow;
mod guard;
mod identity;
mod link;
mod off;
mod snapshot;
mod socket;
mod steer;
mod surroundings;
mod told;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

pub use config::{Chamber, Config, Cutoff, OnExternalOff, OnExternalOn};
pub use follow::{Followed, Step};
pub use guard::{Bequest, Guard};
pub use snapshot::{Event, ForcedOff, Link, Reading, Reason, Snapshot, Trouble};
pub use surroundings::{Sample, Surroundings, refusal, refusal_to_dry};

use crate::dialect::mqtt::{Delivery, Message, Mqtt, Terms};
use crate::dialect::{Dialect, Identity};
use ask::Asked;
use backoff::Jitter;
use boost::Boost;
use budget::Budget;
use device::Device;
use drying::Drying;
use follow::Follow;
use guard::Guarded;
use link::Main;
use off::OffWatch;
use socket::Probe;

/// Milliseconds on a clock that also counts while the machine sleeps.
pub type Millis = u64;

/// Two turns further apart than this mean that we slept, or were starved: whatever is buffered is
/// of unknown age (rule R5).
const LONGEST_TURN: Millis = 2_000;
/// A turn at least this often, so that only a real gap looks like one.
const HEARTBEAT: Millis = 1_000;

/// How long a connection to a broker is kept for the printer after a RESTART, which then need not
/// wait for the device to show that it is there.
const LINGER: Millis = 2_000;

/// One connection, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn(pub u32);

/// What Klipper wants: always the whole wish, the latest counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wish {
    /// C; 0 is off.
    pub target: f64,
    /// It is filament that is to be heated, for `drying_hours`.
    pub dry: bool,
    /// Klipper is ready and not in shutdown.
    pub armed: bool,
    /// The number of the last forced off that Klipper's side had obeyed when it made this wish.
    pub ack: u32,
    /// How many targets were set by anybody but `follow_bed`.
    pub hand: u32,
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
    /// A whole message of the device.
    Frame(Conn, &'a [u8]),
    /// A whole message of the broker.
    Delivered(Conn, Delivery<'a>),
    /// A message that could not even be turned into bytes; counted.
    Unreadable(Conn),
    /// The connection is gone or never came, and why.
    Closed(Conn, &'a str),
    /// The answer to [`Command::Claim`].
    Claimed(Identity, Claim<'a>),
    /// Another process had the device, and had not seen it off.
    Doubt,
    /// Whether there is a guard has changed.
    Guard(&'a Guard),
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
    /// Another process has it.
    Held {
        /// Its number.
        pid: u32,
        /// Whether it says so itself, or just does not let go.
        answers: bool,
    },
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Open a connection: try `address` and whatever the host's name resolves to, at once.
    Connect {
        /// Its name from now on.
        conn: Conn,
        /// Where the device, or its broker, was last.
        address: Option<SocketAddr>,
        /// For a broker: what to ask of it.
        terms: Option<Terms>,
    },
    /// Send one message to the device.
    Send(Conn, String),
    /// Have the broker pass on one message, not to be kept.
    Publish(Conn, Message),
    /// Say goodbye to the broker, so that it does not say our will, and drop the connection.
    Leave(Conn),
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
    orphaned_at: Millis,
    wish: Wish,
    wish_changed_at: Millis,
    renewed_at: Millis,
    forced_offs: u32,
    failures: u32,
    forced_off: Option<(ForcedOff, Millis)>,

    // What Klipper's sensors say, and what follows from it.
    around: Surroundings,
    chamber_missing: bool,
    boost: Boost,
    /// `cutoff_temp` was reached, and the sensor has not cooled down since.
    tripped: bool,
    follow: Follow,
    drying: Drying,

    // The connection.
    next_conn: u32,
    main: Option<Main>,
    probe: Option<Probe>,
    /// How to speak to a device behind a broker; `None`: it is spoken to directly.
    mqtt: Option<Mqtt>,
    asked: Option<Asked>,
    /// The last connection ended without a goodbye, so the broker says our will.
    will_was_due: bool,
    /// Commands that the broker keeps for the device.
    retained: Vec<Arc<str>>,
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
    guarded: Guarded,
    ended: bool,

    // How often.
    heat_budget: Budget,
    repeat_budget: Budget,
    correction_budget: Budget,
    reassert_budget: Budget,
    /// A restart of the device that turned it off is excused this often.
    restart_budget: Budget,
    terms_budget: Budget,
    line_budget: Budget,
    lines_dropped: u32,
}

impl Session {
    /// A session that belongs to a printer and has not connected yet. `seed` is for jitter.
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            mqtt: config.mqtt.as_ref().map(Mqtt::new),
            asked: None,
            will_was_due: false,
            retained: Vec::new(),
            config,
            commands: VecDeque::new(),
            jitter: Jitter(seed),
            last_turn: None,
            started_at: 0,
            owned: true,
            orphaned_at: 0,
            wish: Wish::default(),
            wish_changed_at: 0,
            renewed_at: 0,
            forced_offs: 0,
            failures: 0,
            forced_off: None,
            around: Surroundings::default(),
            chamber_missing: false,
            boost: Boost::default(),
            tripped: false,
            follow: Follow::default(),
            drying: Drying::default(),
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
            guarded: Guarded::default(),
            ended: false,
            // The device saves each to flash. Waiting for a report keeps them to two per second;
            // this bounds them for a device that reports much more often than it should.
            heat_budget: Budget::new(10, 100),
            repeat_budget: Budget::new(4, 1_000),
            correction_budget: Budget::new(3, 200_000),
            reassert_budget: Budget::new(3, 200_000),
            restart_budget: Budget::new(1, 600_000),
            terms_budget: Budget::new(3, 10_000),
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
        let now = now.max(self.last_turn.unwrap_or(0)); // time that goes back is no time
        self.note_turn(now);
        match input {
            Input::Tick => {}
            Input::Wish(wish) => self.wish(now, wish),
            Input::Adopted(config) => self.adopted(now, config),
            Input::Orphaned => {
                self.owned = false;
                self.orphaned_at = now;
            }
            Input::Reached(conn) => self.reached(now, conn),
            Input::Opened(conn, address) => self.opened(now, conn, address),
            Input::Frame(conn, bytes) => self.socket_frame(now, conn, bytes),
            Input::Delivered(conn, delivery) => self.delivered(now, conn, delivery),
            Input::Unreadable(_) => self.ignored += 1,
            Input::Closed(conn, why) => self.closed(now, conn, why),
            Input::Claimed(identity, claim) => self.claimed(now, Some(identity), claim),
            Input::Doubt => self.off.heat_connection_ended(now, true),
            Input::Guard(guard) => self.guard_is(now, guard),
        }
        self.check_wish(now);
        self.check_drying(now);
        self.check_guard(now);
        self.check_cutoff(now);
        self.check_chamber(now);
        self.check_device(now);
        self.check_links(now);
        self.check_voice(now);
        self.check_asked(now);
        self.check_follow(now);
        self.check_boost(now);
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
            self.drying_deadline(),
            self.unguarded_due(),
            self.sensors_deadline(now),
            self.device_deadline(),
            self.end_due(now),
            self.voice_deadline(),
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
            device_target: self.device.target(),
            boost: self.boost(),
            tripped: self.tripped,
            follow: self.followed(),
            target_limit: self.device.target_limit,
            dialect: self.dialect(),
            mode: self.device.mode,
            drying: self.is_drying(),
            remaining: self.drying_remaining(now),
            settings: self.device.settings.clone(),
            firmware: self.device.firmware,
            identity: self.pinned,
            fault: self.trouble(),
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

    /// How the device speaks, once that is known.
    pub fn dialect(&self) -> Option<Dialect> {
        match &self.mqtt {
            None => Some(Dialect::Stock),
            Some(mqtt) => mqtt.dialect(),
        }
    }

    /// What to call the device's place in messages.
    fn place(&self) -> String {
        self.config.place(self.dialect())
    }

    fn trouble(&self) -> Option<Trouble> {
        let kept = self.retained.first().map(Arc::clone);
        let kept = kept.map(Trouble::RetainedCommand);
        let all = [kept, self.device.trouble.clone(), self.guard_trouble()];
        // What stands in the way of heat comes first: who sets a target must be told of it.
        let blocks = all.iter().flatten().find(|trouble| trouble.blocks_heat());
        blocks.or_else(|| all.iter().flatten().next()).cloned()
    }

    /// Ends at once, because the device is off, or somebody else's duty now: without a will.
    pub fn end(&mut self, now: Millis) {
        self.ended = true;
        self.abort_probe();
        self.leave_main(now, "no longer configured");
        self.commands.push_back(Command::End);
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
            // Whoever of the two wakes first: nobody heard the reactor for all that time.
            if self.wants_heat() && now >= last + self.config.lease {
                self.lease_ended(now);
            }
        }
    }

    fn wish(&mut self, now: Millis, wish: Wish) {
        // A target that is there when Klipper becomes ready is somebody's, too.
        let found = wish.armed && !self.wish.armed && wish.target > 0.0;
        if wish.hand != self.wish.hand || found {
            self.look_at_bed(); // it may have gone off just before
            self.follow.hold();
        }
        // After a forced off the same target is a new one: somebody has set it again.
        let again = wish.target > 0.0 && wish.ack != self.wish.ack;
        let other = wish.target.total_cmp(&self.wish.target).is_ne() || wish.dry != self.wish.dry;
        if again || other {
            self.wish_changed_at = now;
            self.drying_wish(now);
            self.device.external_on_allowed = false;
            if wish.target > 0.0 {
                self.device.new_target();
                self.boost.follow(now, wish.target);
            }
        }
        self.wish = wish;
    }

    fn adopted(&mut self, now: Millis, config: &Config) {
        let other_way = config.mqtt != self.config.mqtt || config.access != self.config.access;
        self.config = config.clone();
        if other_way {
            self.mqtt = config.mqtt.as_ref().map(Mqtt::new);
            self.drop_connections(now, "its options have changed");
        }
        self.owned = true;
        self.ended = false;
        // They were the printer's before. A RESTART forgives a cutoff, too: its target is gone.
        self.around = Surroundings::default();
        self.tripped = false;
        self.chamber_missing = false;
        self.device.external_on_allowed = false;
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
            self.lease_ended(now);
        }
    }

    fn lease_ended(&mut self, now: Millis) {
        let text = format!("Klipper did not answer for {} s", self.config.lease / 1000);
        self.force_off(now, Reason::Lease, text);
    }

    fn wish_deadline(&self) -> Option<Millis> {
        self.wants_heat()
            .then_some(self.renewed_at + self.config.lease)
    }

    /// Drops Klipper's target. What it wants from now on counts only if it knows of this.
    fn force_off(&mut self, now: Millis, reason: Reason, text: String) {
        self.follow.hold();
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
        if self.end_due(now).is_some_and(|at| now >= at) {
            self.end(now);
        }
    }

    /// When nothing is left to do, as far as is known now.
    fn end_due(&self, now: Millis) -> Option<Millis> {
        let nothing_to_turn_off = !self.ever_live && !self.broken;
        let over = !self.owned && !self.ended && (nothing_to_turn_off || self.off.is_known(now));
        let linger = if self.mqtt.is_some() { LINGER } else { 0 };
        let vigil = self.off.known_since().unwrap_or(0) + self.vigil();
        over.then_some(vigil.max(self.orphaned_at + linger))
    }
}

#[cfg(test)]
mod tests;
