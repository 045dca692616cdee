//! A virtual world for a session: a clock, a network that can be slow, cut, hung and thawed, the
//! simulated device without its sockets, and a Klipper that obeys as the shim does.
//!
//! Every command is checked against the rules at the moment it is given.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::{
    Claim, Command, Config, Conn, Input, Link, Millis, Reason, Sample, Session, Snapshot,
    Surroundings, Wish,
};
use super::klipper::{DRAIN, Klipper};
use super::reference::{Moment, Reference};
use super::weather::Weather;
use crate::sim::{Device, Setup};

/// The device's own periods.
const PUSH: Millis = 100;
const READING: Millis = 500;
/// One connection, as the network sees it.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Wire {
    conn: Conn,
    opens_at: Millis,
    open: bool,
    /// Neither side hears the other for now.
    hung: bool,
    /// Our side has dropped it; what is in its buffers may still arrive (a thawed peer).
    aborted: bool,
    to_device: VecDeque<(Millis, String)>,
    to_session: VecDeque<(Millis, String)>,
    /// Heat was sent and no report has been delivered since (rule R4).
    heat_unanswered: bool,
    last_word_is_heat: bool,
    first_frame: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct World {
    pub(crate) session: Session,
    pub(crate) now: Millis,
    pub(crate) device: Device,
    pub(crate) klipper: Klipper,
    pub(crate) config: Config,
    wires: Vec<Wire>,
    next_push: Millis,
    next_reading: Millis,
    /// New connections get no answer.
    pub(crate) unreachable: bool,
    /// Nothing is sent by the device.
    pub(crate) mute: bool,
    /// Everything the device says arrives twice.
    pub(crate) echo: bool,
    /// Which of two units is at the address, and which of them the session has met first.
    unit: usize,
    home: usize,
    /// The device was told by the test to have a fault.
    pub(crate) faulty: bool,
    /// Another section says that the device is its.
    pub(crate) taken: bool,
    /// Another process has it, and whether that one answers.
    pub(crate) held: Option<(u32, bool)>,
    pub(crate) reference: Reference,
    /// One way, milliseconds.
    pub(crate) latency: Millis,
    /// What is sent to the device takes so much longer than what comes from it.
    pub(crate) lag: Millis,
    /// What else the network does to what is on its way.
    pub(crate) weather: Weather,
    /// Everything sent to the device, when.
    pub(crate) sent: Vec<(Millis, String)>,
    pub(crate) lines: Vec<String>,
    pub(crate) connects: Vec<Millis>,
    pub(crate) ended: bool,
    /// What Klipper's sensors have said.
    pub(crate) around: Surroundings,
    /// How often Klipper hears of the cavity.
    pub(crate) cavity_every: Option<Millis>,
    /// How finely it is told, C.
    pub(crate) cavity_step: f64,
    /// Klipper hears of the limiting sensor all the time, and nothing bad.
    pub(crate) cutoff_is_well: bool,
    /// `cutoff_temp` was reached, said a second time.
    hot: bool,
    /// What the session was told of it.
    heard: Surroundings,
    /// The boost, since when, and for which wish.
    boosted: (u8, Millis, f64),
    readings: Vec<(Millis, f64)>,
    /// So many times running it wanted to be called again in the next millisecond.
    hurry: u32,
    /// When the session wants its next turn, unless something was said to it since.
    turn_at: Option<Millis>,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        Self::with(config, &Setup::default())
    }

    /// A world in which the device may not be there at the start.
    pub(crate) fn absent(config: Config, unreachable: bool) -> Self {
        let mut world = Self::untold(config, &Setup::default());
        world.unreachable = unreachable;
        world.tell(Input::Tick);
        world
    }

    pub(crate) fn with(config: Config, setup: &Setup) -> Self {
        let mut world = Self::untold(config, setup);
        world.tell(Input::Tick);
        world
    }

    fn untold(config: Config, setup: &Setup) -> Self {
        Self {
            session: Session::new(config.clone(), 1),
            now: 5_000,
            device: Device::new(setup),
            klipper: Klipper::new(5_000),
            config,
            wires: Vec::new(),
            next_push: 5_000,
            next_reading: 5_000,
            unreachable: false,
            mute: false,
            echo: false,
            unit: 0,
            home: 0,
            faulty: false,
            taken: false,
            held: None,
            reference: Reference::default(),
            latency: 5,
            lag: 0,
            weather: Weather::default(),
            sent: Vec::new(),
            lines: Vec::new(),
            connects: Vec::new(),
            ended: false,
            around: Surroundings::default(),
            cavity_every: None,
            cavity_step: 0.1,
            cutoff_is_well: false,
            hot: false,
            heard: Surroundings::default(),
            boosted: (0, 0, 0.0),
            readings: Vec::new(),
            hurry: 0,
            turn_at: None,
        }
    }

    /// A world in which the device is connected, off, and known to be.
    pub(crate) fn connected() -> Self {
        let mut world = Self::new(Config::default());
        world.run(4_000);
        assert_eq!(world.snapshot().link, Link::Connected);
        assert!(world.snapshot().off_known, "{:?}", world.sent);
        world.sent.clear();
        world.lines.clear();
        world
    }

    /// The same, heating to 45 C.
    pub(crate) fn heating() -> Self {
        let mut world = Self::connected();
        world.set_target(45.0);
        world.run(3_000);
        assert_eq!(world.state().0, 1);
        world.sent.clear();
        world.lines.clear();
        world
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.session.snapshot(self.now)
    }

    /// `work_on` and the target of the device itself.
    pub(crate) fn state(&self) -> (u8, u8) {
        let state = self.device.state();
        (u8::from(state.work_on), state.set_temp)
    }

    pub(crate) fn texts(&self) -> Vec<&str> {
        self.sent.iter().map(|(_, text)| text.as_str()).collect()
    }

    // Klipper's side

    pub(crate) fn set_target(&mut self, target: f64) {
        self.klipper.set(target);
        self.look_around();
        self.say_wish();
    }

    pub(crate) fn dry(&mut self, target: f64) {
        self.klipper.dry(target);
        self.look_around();
        self.say_wish();
    }

    pub(crate) fn shut_down(&mut self) {
        self.klipper.armed = false;
        self.klipper.bed_was_off = true; // when it is ready again, all its targets have been 0
        self.say_wish();
    }

    pub(crate) fn restart(&mut self) {
        self.orphan();
        self.adopt();
    }

    /// No printer wants the device any more.
    pub(crate) fn orphan(&mut self) {
        self.klipper.gone = true;
        self.tell(Input::Orphaned);
    }

    /// A new printer wants it, in the same process.
    pub(crate) fn adopt(&mut self) {
        self.klipper.armed = false;
        (self.around, self.heard, self.hot) = Default::default();
        let config = self.config.clone();
        if self.ended {
            self.begin(); // what the driver does when nothing is left
        } else {
            self.tell(Input::Adopted(&config));
        }
        let forced_offs = self.snapshot().forced_offs;
        self.klipper.starts(self.now, forced_offs);
    }

    /// Klipper's process is killed, and its guard goes on; what it had sent may still arrive. After
    /// so long Klipper is started anew, and the guard leaves the device to it.
    pub(crate) fn kill_guarded(&mut self, time: Millis) {
        self.die();
        self.run(time);
        if !self.ended {
            self.session.end(self.now);
            self.obey_all();
        }
        self.reborn();
        self.tell(Input::Doubt);
    }

    /// Klipper's process is killed, and its guard goes on.
    pub(crate) fn die(&mut self) {
        let bequest = self.session.bequest();
        self.lose_connections();
        self.klipper.gone = true;
        self.ended = !bequest.may_be_on;
        self.session = Session::bequeathed(self.config.clone(), 1, &bequest, self.now);
        self.reference.starts_anew(0);
        self.tell(Input::Tick);
    }

    /// Klipper's process is killed, without a guard, and started anew at once. What it had sent may
    /// still arrive.
    pub(crate) fn kill(&mut self) {
        self.lose_connections();
        self.reborn();
    }

    fn reborn(&mut self) {
        self.lose_connections();
        self.klipper.starts(self.now, 0);
        self.begin();
    }

    fn lose_connections(&mut self) {
        for wire in &mut self.wires {
            wire.aborted = true;
            wire.to_session.clear();
            wire.conn = Conn(u32::MAX);
        }
        self.wires.retain(|wire| !wire.to_device.is_empty());
    }

    fn begin(&mut self) {
        for wire in self.wires.iter_mut().filter(|wire| wire.aborted) {
            wire.conn = Conn(u32::MAX); // a new session counts from 1 again
        }
        self.ended = false;
        self.home = self.unit;
        self.session = Session::new(self.config.clone(), 1);
        self.reference.starts_anew(0);
        self.tell(Input::Tick);
    }

    fn say_wish(&mut self) {
        if let Some(wish) = self.klipper.new_wish(self.now) {
            self.tell(Input::Wish(wish));
            self.check_off(&wish);
            self.judge();
        }
    }

    fn drain(&mut self) {
        self.turn_at = None;
        self.klipper.renewed_at = self.now;
        self.session.renew(self.now);
        self.listen();
        self.look_around();
        self.say_wish();
        if self.klipper.obeys(&self.snapshot()) {
            self.say_wish();
        }
        if self.klipper.follows(&self.snapshot()) {
            self.say_wish();
        }
    }

    fn look_around(&mut self) {
        self.session.surround(self.around);
        self.heard = self.around;
        let bed = self.around.bed;
        self.klipper.bed_was_off |= bed.is_some_and(|bed| bed <= 0.0);
    }

    /// Klipper's own sensors.
    fn listen(&mut self) {
        if self.cutoff_is_well {
            self.around.cutoff = Some(Sample {
                celsius: 50.0,
                at: self.now,
            });
        }
        let due = |every| {
            let last = self.around.chamber.map(|sample| sample.at);
            last.is_none_or(|at| self.now >= at + every)
        };
        if let (true, Some(celsius)) = (
            self.cavity_every.is_some_and(due),
            self.device.state().cavity,
        ) {
            self.around.chamber = Some(Sample {
                celsius: (celsius / self.cavity_step).round() * self.cavity_step,
                at: self.now,
            });
        }
    }

    // The network's side

    /// Cuts every connection, seen by both sides.
    pub(crate) fn cut(&mut self) {
        for wire in std::mem::take(&mut self.wires) {
            if wire.aborted {
                self.wires.push(wire);
            } else {
                self.tell(Input::Closed(wire.conn, "connection reset"));
            }
        }
    }

    /// Freezes the connections there are; new ones work.
    pub(crate) fn hang(&mut self) {
        for wire in &mut self.wires {
            wire.hung = true;
        }
    }

    /// Thaws them: what our side wrote before it gave up is read now, as a frozen host does.
    pub(crate) fn thaw(&mut self) {
        for wire in &mut self.wires {
            wire.hung = false;
        }
        self.deliver();
    }

    /// The device restarts with what it has stored.
    pub(crate) fn reboot(&mut self) {
        self.device.power_off();
        self.wires.retain(|wire| !wire.aborted); // nothing outlives it in its buffers
        self.cut();
        self.device.boot();
    }

    /// It loses power for so long, and neither side is told. What it had in its buffers is gone.
    pub(crate) fn lose_power(&mut self, time: Millis) {
        self.device.power_off();
        self.wires.retain(|wire| !wire.aborted);
        for wire in &mut self.wires {
            wire.hung = true;
            wire.to_device.clear();
            wire.to_session.clear();
        }
        (self.mute, self.unreachable) = (true, true);
        self.run(time);
        (self.mute, self.unreachable) = (false, false);
        self.device.boot();
    }

    /// One of two units is at the address from now on.
    pub(crate) fn swap(&mut self, unit: usize) {
        self.unit = unit;
        if self.snapshot().identity.is_none() {
            self.home = unit; // whoever is met first is the one
        }
        let identity = crate::sim::Identity::default();
        self.device.set_identity(identity.offset(unit));
        self.reboot();
    }

    pub(crate) fn is_swapped(&self) -> bool {
        self.unit != self.home
    }

    pub(crate) fn swap_back(&mut self) {
        self.swap(self.home);
    }

    /// Says something to every open connection, out of the device's mouth.
    pub(crate) fn broadcast(&mut self, text: &str) {
        let sent = self.now + self.latency;
        for wire in self
            .wires
            .iter_mut()
            .filter(|wire| wire.open && !wire.aborted)
        {
            let before = wire.to_session.back().map_or(0, |(at, _)| *at);
            let at = self.weather.arrival(sent).max(before);
            wire.to_session.push_back((at, text.to_owned()));
        }
    }

    pub(crate) fn open_wires(&self) -> usize {
        self.wires
            .iter()
            .filter(|wire| wire.open && !wire.aborted)
            .count()
    }

    // Time

    /// Lets time pass, everything in its order.
    pub(crate) fn run(&mut self, time: Millis) {
        let end = self.now + time;
        let mut turns = 0_u64;
        loop {
            let next = self.next_event().min(end);
            assert_nothing_was_due(&self.session, self.now, next);
            let step = next.saturating_sub(self.now);
            self.device.step(Duration::from_millis(step));
            self.now = next;
            self.happen();
            if self.now >= end {
                return;
            }
            turns += 1;
            assert!(
                turns < 40 * time + 1_000,
                "the session wakes up for nothing"
            );
        }
    }

    /// A gap in which nobody of us ran: suspend, SIGSTOP.
    pub(crate) fn freeze(&mut self, time: Millis) {
        let end = self.now + time;
        while self.now < end {
            let step = PUSH.min(end - self.now);
            self.device.step(Duration::from_millis(step));
            self.now += step;
            self.device_turn();
        }
        self.klipper.next_drain = self.now;
    }

    fn next_event(&mut self) -> Millis {
        let now = self.now;
        let turn = self.session.deadline(now);
        self.turn_at = Some(turn);
        assert!(turn <= now + 1_000, "R7: it would look stuck");
        let hurries = turn == now + 1 && !self.ended;
        self.hurry = if hurries { self.hurry + 1 } else { 0 };
        assert!(self.hurry < 20, "it wakes up every millisecond");
        let mut next = turn.min(self.next_push).min(self.next_reading);
        if self.klipper.turns() {
            next = next.min(self.klipper.next_drain);
        }
        for wire in self.wires.iter().filter(|wire| !wire.hung) {
            if !wire.open && !wire.aborted && !self.unreachable {
                next = next.min(wire.opens_at);
            }
            for queue in [&wire.to_device, &wire.to_session] {
                next = next.min(queue.front().map_or(Millis::MAX, |(at, _)| *at));
            }
        }
        next.max(now)
    }

    fn happen(&mut self) {
        self.device_turn();
        self.deliver();
        if self.klipper.turns() && self.now >= self.klipper.next_drain {
            self.klipper.next_drain = self.now + DRAIN;
            self.drain();
        }
        let turn_at = self.turn_at.take();
        if self.now >= turn_at.unwrap_or_else(|| self.session.deadline(self.now - 1)) {
            self.tell(Input::Tick);
        }
        self.judge();
    }

    /// Asks the reference.
    fn judge(&mut self) {
        let snapshot = self.snapshot();
        let in_the_way = self.mute
            || self.is_swapped()
            || self.taken
            || self.ended
            || self.latency > 400
            || self.wires.iter().any(|wire| wire.hung);
        let state = self.device.state();
        let lease = self.config.lease;
        let blocked = snapshot.fault.is_some_and(|fault| fault.blocks_heat());
        if self.klipper.stalled {
            self.reference.unrest(self.now); // the lease ends whatever it wants then
        }
        let wanted = self.klipper.wants(self.now, lease, snapshot.forced_offs);
        let dry = self.klipper.dry && wanted.is_some();
        let over = self.klipper.has_dried(self.now, self.config.drying_hours);
        let dried = snapshot
            .forced_off
            .is_some_and(|f| f.reason == Reason::Dried);
        if dried {
            self.reference.starts_anew(snapshot.forced_offs); // its end is no alarm
        }
        self.reference.judge(&Moment {
            now: self.now,
            wanted,
            dry,
            reached: snapshot.link == Link::Connected && !in_the_way,
            excused: snapshot.lost || blocked || self.faulty || over,
            faulty: self.faulty,
            on: if dry { state.drying } else { state.work_on },
            target: f64::from(if dry {
                state.programme.0
            } else {
                state.set_temp
            }),
            forced_offs: snapshot.forced_offs,
        });
    }

    fn device_turn(&mut self) {
        if self.now >= self.next_reading {
            self.next_reading = self.now + READING;
            self.device.mark_reading();
        }
        if self.now >= self.next_push {
            self.next_push = self.now + PUSH;
            if let Some(text) = self.device.take_push() {
                if !self.mute {
                    self.broadcast(&text);
                }
                if self.echo {
                    self.broadcast(&text);
                }
            }
        }
    }

    fn deliver(&mut self) {
        self.deliver_to_device();
        loop {
            let now = self.now;
            let unreachable = self.unreachable;
            let opening = self.wires.iter_mut().find(|wire| {
                !wire.open && !wire.aborted && !wire.hung && now >= wire.opens_at && !unreachable
            });
            if let Some(wire) = opening {
                wire.open = true;
                let at = self.weather.arrival(now + self.latency);
                wire.to_session.push_back((at, self.device.snapshot()));
                let conn = wire.conn;
                self.tell(Input::Reached(conn));
                self.tell(Input::Opened(conn, "192.0.2.10:80".parse().unwrap()));
                continue;
            }
            let due = self.wires.iter_mut().find(|wire| {
                !wire.hung
                    && !wire.aborted
                    && wire.to_session.front().is_some_and(|(at, _)| now >= *at)
            });
            let Some(wire) = due else { return };
            let Some((_, text)) = wire.to_session.pop_front() else {
                return;
            };
            let conn = wire.conn;
            let verified = !wire.first_frame;
            wire.first_frame = false;
            if verified {
                wire.heat_unanswered = false;
            }
            if let Some(c) = reading_in(&text) {
                self.readings.push((now, c));
            }
            self.tell(Input::Frame(conn, text.as_bytes()));
        }
    }

    fn deliver_to_device(&mut self) {
        let now = self.now;
        for wire in self.wires.iter_mut().filter(|wire| !wire.hung) {
            while wire.to_device.front().is_some_and(|(at, _)| now >= *at) {
                if let Some((_, text)) = wire.to_device.pop_front() {
                    let _ = self.device.handle_text(text.as_bytes());
                }
            }
        }
        self.wires
            .retain(|wire| !wire.aborted || !wire.to_device.is_empty());
    }

    // The session's side

    pub(crate) fn tell(&mut self, input: Input<'_>) {
        self.turn_at = None;
        if self.ended {
            return;
        }
        self.session.handle(self.now, input);
        self.obey_all();
        self.check();
    }

    fn obey_all(&mut self) {
        while let Some(command) = self.session.poll() {
            self.obey(command);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Connect { conn, .. } => {
                self.connects.push(self.now);
                assert!(
                    self.live_wires() < 2,
                    "R6: more than two connections at once"
                );
                self.wires.push(Wire {
                    conn,
                    opens_at: self.weather.arrival(self.now + 2 * self.latency),
                    open: false,
                    hung: false,
                    aborted: false,
                    to_device: VecDeque::new(),
                    to_session: VecDeque::new(),
                    heat_unanswered: false,
                    last_word_is_heat: false,
                    first_frame: true,
                });
            }
            Command::Send(conn, text) => self.send(conn, text),
            Command::Abort(conn) => {
                for wire in self.wires.iter_mut().filter(|wire| wire.conn == conn) {
                    wire.aborted = true;
                    wire.to_session.clear();
                    if !wire.hung {
                        wire.to_device.clear(); // a reset overtakes what was under way
                    }
                }
                self.wires
                    .retain(|wire| !wire.aborted || !wire.to_device.is_empty());
            }
            Command::Claim(identity) => {
                let claim = if let Some((pid, answers)) = self.held {
                    Claim::Held { pid, answers }
                } else if self.taken {
                    Claim::Taken("panda_breath two")
                } else {
                    Claim::Ours { doubt: false }
                };
                self.session
                    .handle(self.now, Input::Claimed(identity, claim));
            }
            Command::Publish(..) | Command::Leave(_) => panic!("there is no broker here"),
            Command::Tell(event) => self.lines.push(event.text),
            Command::End => self.ended = true,
        }
    }

    fn live_wires(&self) -> usize {
        self.wires.iter().filter(|wire| !wire.aborted).count()
    }

    fn send(&mut self, conn: Conn, text: String) {
        let heat = text.contains("\"work_on\":true");
        if heat {
            self.check_heat(&text);
        } else {
            assert_eq!(text, r#"{"settings":{"work_on":false}}"#);
        }
        let at = self.weather.arrival(self.now + self.latency + self.lag);
        self.sent.push((self.now, text.clone()));
        let wire = self
            .wires
            .iter_mut()
            .find(|wire| wire.conn == conn && wire.open && !wire.aborted);
        let wire = wire.expect("R4: sent on a connection that is not open");
        assert!(
            !(heat && wire.heat_unanswered),
            "R4: two heat commands unanswered"
        );
        wire.heat_unanswered |= heat;
        wire.last_word_is_heat = heat;
        let at = at.max(wire.to_device.back().map_or(0, |(before, _)| *before));
        wire.to_device.push_back((at, text));
    }

    /// Rule R2: off leaves in the same turn if heat was the last word on a live connection.
    fn check_off(&self, wish: &Wish) {
        let snapshot = self.snapshot();
        let reachable = snapshot.link == Link::Connected && !self.ended;
        if wish.target > 0.0 || !reachable || snapshot.device_on != Some(true) {
            return;
        }
        let alive = |wire: &&Wire| wire.open && !wire.aborted && wire.last_word_is_heat;
        assert!(!self.wires.iter().any(|wire| alive(&wire)), "R2: off waits");
    }

    /// Rule R3, said a second time.
    fn check_heat(&self, text: &str) {
        let forced_offs = self.snapshot().forced_offs;
        let target = self
            .klipper
            .check_heat(self.now, self.config.lease, forced_offs);
        let max = f64::from(self.config.max_target);
        let snapshot = self.snapshot();
        let fresh = |at: Millis, longest| self.now < at + longest;
        if snapshot.boost > 0 {
            let chamber = self.around.chamber.expect("a boost without a sensor");
            assert!(fresh(chamber.at, 10_000), "boosted by a silent sensor");
            let reading = snapshot.reading.expect("a boost without a reading");
            assert!(fresh(reading.at, self.config.stale_after), "boosted blind");
        }
        if let Some(cutoff) = &self.config.cutoff {
            let sample = self
                .heard
                .cutoff
                .expect("heat before the cutoff has spoken");
            assert!(fresh(sample.at, 10_000), "heat with a silent cutoff");
            assert!((-40.0..cutoff.celsius).contains(&sample.celsius), "hot");
            assert!(!self.hot, "heat before it was 5 C cooler");
        }
        if self.klipper.dry {
            return self.check_dry(target, snapshot.boost, text);
        }
        let degrees = (target + f64::from(snapshot.boost)).round().clamp(1.0, max);
        let keys = ["set_temp", "temp"]; // the latter in 0.0.0
        assert!(
            keys.iter()
                .any(|key| text.contains(&format!("\"{key}\":{degrees},"))),
            "not the current wish: {text}"
        );
    }

    /// The current wish to dry, for as long as is left of it.
    fn check_dry(&self, target: f64, boost: u8, text: &str) {
        assert_eq!(boost, 0, "boosted for filament");
        let most = f64::from(self.config.max_target).min(60.0);
        let degrees = target.min(most).round();
        let gone = self.now - self.klipper.dry_since;
        let left = (u64::from(self.config.drying_hours) * 3_600_000).checked_sub(gone);
        let hours = left
            .expect("dries after the end")
            .div_ceil(3_600_000)
            .max(1);
        let is = format!("\"filament_temp\":{degrees},\"filament_timer\":{hours},");
        assert!(text.contains(&is), "not the current wish: {text}, {is}");
    }

    /// One degree in 120 s and within its limits, or away at once.
    fn check_boost(&mut self, boost: u8) {
        let (before, at, wish) = self.boosted;
        let same_wish = wish.total_cmp(&self.klipper.target).is_eq();
        if boost == before && same_wish {
            return;
        }
        self.boosted = (boost, self.now, self.klipper.target);
        if boost == 0 || !same_wish {
            return;
        }
        assert_eq!(boost.abs_diff(before), 1, "more than one step");
        assert!(self.now >= at + 120_000, "two steps within 120 s");
        let most = self.config.chamber.as_ref().expect("a boost").max_boost;
        assert!(boost <= most, "above max_boost");
        let target = self.klipper.target + f64::from(boost);
        assert!(
            target <= f64::from(self.config.max_target),
            "above max_target"
        );
    }

    fn check_cutoff(&mut self) {
        let (Some(cutoff), Some(sample)) = (&self.config.cutoff, self.heard.cutoff) else {
            return;
        };
        if self.now < sample.at + 10_000 && (-40.0..=150.0).contains(&sample.celsius) {
            self.hot = if self.hot {
                sample.celsius > cutoff.celsius - 5.0
            } else {
                sample.celsius >= cutoff.celsius
            };
        }
    }

    fn check(&mut self) {
        let snapshot = self.snapshot();
        self.check_boost(snapshot.boost);
        self.check_cutoff();
        if let Some(reading) = snapshot.reading {
            let real = self
                .readings
                .iter()
                .rev()
                .any(|&(at, c)| at == reading.at && c.total_cmp(&reading.celsius).is_eq());
            assert!(real, "R5: a reading nobody sent: {reading:?}");
        }
    }
}

/// A deadline is no later than what is due: just before the next thing happens there is nothing to do.
pub(crate) fn assert_nothing_was_due(session: &Session, now: Millis, next: Millis) {
    // A sample: each look is a copy of the session. The boost and the bed are in no hurry: they are
    // looked at in whichever turn comes.
    let no_hurry = session.config.chamber.is_some() || !session.config.follow.is_empty();
    if next > now + 1 && next % 29 == 0 && !no_hurry {
        let mut copy = session.clone();
        copy.handle(next - 1, Input::Tick);
        let done = copy.poll();
        assert_eq!(done, None, "due before its deadline, at {next} or earlier");
    }
}

fn reading_in(text: &str) -> Option<f64> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    value["settings"]["warehouse_temper"].as_f64()
}
