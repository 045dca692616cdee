//! A virtual world with a broker in it: the broker keeps messages, says wills, freezes and
//! restarts; a simulated device comes and goes; Klipper obeys as the shim does.
//!
//! Every command is checked against the rules at the moment it is given.

use std::collections::{BTreeMap, VecDeque};

use super::super::{
    Claim, Command, Config, Conn, Input, Link, Millis, Reason, Sample, Session, Snapshot,
    Surroundings,
};
use super::klipper::{DRAIN, Klipper};
use super::peer::{Kind, Peer};
use super::reference::{Moment, Reference};
use super::weather::Weather;
use super::world::assert_nothing_was_due;
use crate::dialect::Setting;
use crate::dialect::mqtt::{Delivery, Message, Terms};
use crate::driver::mqtt::Publication;

/// How often the device's own time is looked at.
const STEP: Millis = 20;
/// Nothing that matters to the reference comes and goes faster.
const JUDGED_EVERY: Millis = 100;
/// One way between anybody and the broker.
const LATENCY: Millis = 3;
/// How long a device waits before it connects again.
const DEVICE_AGAIN: Millis = 10_000;
/// One and a half times our keep alive: then a broker misses us.
const MISSED: Millis = 7_500;

/// What is on its way to the broker on our connection.
enum ToBroker {
    Publish(Message),
    /// DISCONNECT: no will.
    Goodbye,
    /// A reset: the will.
    Reset,
}

/// Our connection, as the broker sees it.
struct Ours {
    conn: Conn,
    terms: Terms,
    opens_at: Millis,
    open: bool,
    /// Our side has let go of it.
    gone: bool,
    to_broker: VecDeque<(Millis, ToBroker)>,
    to_us: VecDeque<(Millis, String, Vec<u8>, bool)>,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct BrokerWorld {
    pub(crate) session: Session,
    pub(crate) now: Millis,
    pub(crate) node: Peer,
    /// What the network does between the device and the broker, and between us and the broker.
    pub(crate) weather: Weather,
    pub(crate) our_weather: Weather,
    /// How often the device's own time is looked at.
    pub(crate) step: Millis,
    pub(crate) klipper: Klipper,
    pub(crate) config: Config,
    ours: Vec<Ours>,
    retained: BTreeMap<String, Vec<u8>>,
    /// It accepts connections, and does nothing else.
    pub(crate) frozen: bool,
    /// It refuses connections.
    pub(crate) down: bool,
    device_online: bool,
    /// The device does nothing at all; what it is sent waits.
    pub(crate) device_frozen: bool,
    device_connects_at: Millis,
    to_device: VecDeque<(Millis, String, Vec<u8>)>,
    from_device: VecDeque<(Millis, Publication)>,
    next_step: Millis,
    silent_since: Option<Millis>,
    /// Every message of ours that is a command, when.
    pub(crate) sent: Vec<(Millis, String)>,
    pub(crate) lines: Vec<String>,
    pub(crate) connects: Vec<Millis>,
    /// The wills of ours that the broker has said.
    pub(crate) wills: Vec<Message>,
    pub(crate) ended: bool,
    /// What Klipper's sensor in the chamber says all the time, if there is one.
    pub(crate) chamber: Option<f64>,
    readings: Vec<(Millis, f64)>,
    heat_unanswered: bool,
    /// What the device said last that we heard: that it is on.
    told_on: bool,
    /// Everything that the device says arrives twice.
    pub(crate) echo: bool,
    /// The device was told by the test to have a fault.
    pub(crate) faulty: bool,
    /// Another section says that the device is its.
    pub(crate) taken: bool,
    /// Another process has it, and whether that one answers.
    pub(crate) held: Option<(u32, bool)>,
    pub(crate) reference: Reference,
    judged_at: Millis,
    /// So many times running it wanted to be called again in the next millisecond.
    hurry: u32,
    /// When the session wants its next turn, unless something was said to it since.
    turn_at: Option<Millis>,
}

impl BrokerWorld {
    pub(crate) fn new(config: Config, kind: &Kind) -> Self {
        Self::absent(config, kind, false)
    }

    /// A world in which the broker may not be there at the start.
    pub(crate) fn absent(config: Config, kind: &Kind, down: bool) -> Self {
        let mut world = Self {
            session: Session::new(config.clone(), 1),
            now: 5_000,
            node: Peer::new(kind),
            weather: Weather::default(),
            our_weather: Weather::default(),
            step: STEP,
            klipper: Klipper::new(5_000),
            config,
            ours: Vec::new(),
            retained: BTreeMap::new(),
            frozen: false,
            down,
            device_online: false,
            device_frozen: false,
            device_connects_at: 5_000,
            to_device: VecDeque::new(),
            from_device: VecDeque::new(),
            next_step: 5_000,
            silent_since: None,
            sent: Vec::new(),
            lines: Vec::new(),
            connects: Vec::new(),
            wills: Vec::new(),
            ended: false,
            chamber: None,
            readings: Vec::new(),
            heat_unanswered: false,
            told_on: false,
            echo: false,
            faulty: false,
            taken: false,
            held: None,
            reference: Reference::default(),
            judged_at: 0,
            hurry: 0,
            turn_at: None,
        };
        world.tell(Input::Tick);
        world
    }

    /// A world in which the device is there, off, and known to be.
    pub(crate) fn connected(config: Config, kind: &Kind) -> Self {
        let mut world = Self::new(config, kind);
        world.run(12_000);
        assert_eq!(world.snapshot().link, Link::Connected, "{:?}", world.lines);
        assert!(world.snapshot().off_known, "{:?}", world.sent);
        world.sent.clear();
        world.lines.clear();
        world
    }

    /// The same, heating to 45 C.
    pub(crate) fn heating(config: Config, kind: &Kind) -> Self {
        let mut world = Self::connected(config, kind);
        world.set_target(45.0);
        world.run(8_000);
        assert!(world.node.state().heat, "{:?}", world.sent);
        world.sent.clear();
        world.lines.clear();
        world
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.session.snapshot(self.now)
    }

    pub(crate) fn texts(&self) -> Vec<&str> {
        self.sent.iter().map(|(_, text)| text.as_str()).collect()
    }

    pub(crate) fn said_wills(&self) -> Vec<String> {
        self.wills.iter().map(Message::to_string).collect()
    }

    // Klipper's side

    pub(crate) fn set_target(&mut self, target: f64) {
        self.klipper.set(target);
        self.say_wish();
    }

    pub(crate) fn dry(&mut self, target: f64) {
        self.klipper.dry(target);
        self.say_wish();
    }

    pub(crate) fn shut_down(&mut self) {
        self.klipper.armed = false;
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
        let config = self.config.clone();
        if self.ended {
            self.begin();
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

    /// Klipper's process is killed, without a guard, and started anew at once.
    pub(crate) fn kill(&mut self) {
        self.reborn();
    }

    fn reborn(&mut self) {
        self.lose_connections();
        self.klipper.starts(self.now, 0);
        self.begin();
    }

    fn lose_connections(&mut self) {
        for one in self.ours.iter_mut().filter(|one| !one.gone) {
            one.gone = true;
            one.to_us.clear();
            one.to_broker.push_back((self.now, ToBroker::Reset));
        }
        self.ours.retain(|one| one.open);
        for one in self.ours.iter_mut().filter(|one| one.gone) {
            one.conn = Conn(u32::MAX); // a new session counts from 1 again
        }
    }

    fn begin(&mut self) {
        for one in self.ours.iter_mut().filter(|one| one.gone) {
            one.conn = Conn(u32::MAX); // a new session counts from 1 again
        }
        self.ended = false;
        self.session = Session::new(self.config.clone(), 1);
        self.reference.starts_anew(0);
        self.tell(Input::Tick);
    }

    fn say_wish(&mut self) {
        if let Some(wish) = self.klipper.new_wish(self.now) {
            let before = self.sent.len();
            self.tell(Input::Wish(wish));
            self.check_off(wish.target, before);
            self.judge();
        }
    }

    fn drain(&mut self) {
        self.turn_at = None;
        self.klipper.renewed_at = self.now;
        self.session.renew(self.now);
        if let Some(celsius) = self.chamber {
            let at = self.now;
            self.session.surround(Surroundings {
                chamber: Some(Sample { celsius, at }),
                ..Surroundings::default()
            });
        }
        self.say_wish();
        if self.klipper.obeys(&self.snapshot()) {
            self.say_wish();
        }
        if self.klipper.follows(&self.snapshot()) {
            self.say_wish();
        }
    }

    // The broker's side

    /// Somebody else publishes.
    pub(crate) fn publish(&mut self, topic: &str, payload: &str, retain: bool) {
        self.route(topic, payload.as_bytes(), retain);
    }

    /// Delivers what it has kept as if it were new, as a bridge does that connects again.
    pub(crate) fn replay(&mut self) {
        for (topic, payload) in self.retained.clone() {
            self.deliver_to_us(&topic, &payload, false);
        }
    }

    /// Cuts our connection, seen by both sides.
    pub(crate) fn cut(&mut self) {
        let cut = std::mem::take(&mut self.ours);
        for one in cut {
            self.say_will(&one);
            if !one.gone {
                self.tell(Input::Closed(one.conn, "connection reset"));
            }
        }
    }

    /// Our side loses the connection, and the broker does not notice.
    pub(crate) fn half_open(&mut self) {
        for one in &mut self.ours {
            one.gone = true;
        }
        let conns: Vec<Conn> = self.ours.iter().map(|one| one.conn).collect();
        for conn in conns {
            self.tell(Input::Closed(conn, "host unreachable"));
        }
    }

    /// It restarts; the device finds it again when it tries.
    pub(crate) fn restart_broker(&mut self, persistent: bool) {
        if !persistent {
            self.retained.clear();
        }
        self.to_device.clear();
        self.from_device.clear();
        for one in std::mem::take(&mut self.ours) {
            if !one.gone {
                self.tell(Input::Closed(one.conn, "closed by the broker"));
            }
        }
        self.device_loses_broker();
    }

    // The device's side

    /// Its network is gone: the broker says its will.
    pub(crate) fn drop_device(&mut self) {
        let will = self.node.terms().will;
        self.device_loses_broker();
        if let Some(will) = will {
            self.route(&will.topic, &will.payload, will.retain);
        }
    }

    /// It loses power, and starts again.
    pub(crate) fn power_cut(&mut self) {
        self.node.power_off();
        self.drop_device();
        self.node.boot();
        self.device_connects_at = self.now + 2_000;
    }

    /// It restarts faster than the broker notices: no will is said.
    pub(crate) fn restart_unnoticed(&mut self) {
        self.node.power_off();
        self.device_loses_broker();
        self.node.boot();
        self.device_connects_at = self.now + 1_000;
    }

    /// It restarts in an orderly way.
    pub(crate) fn reboot_device(&mut self) {
        self.node.shut_down();
        for publication in self.node.take_publications() {
            self.route(&publication.topic, &publication.payload, publication.retain);
        }
        self.device_loses_broker();
        self.node.boot();
        self.device_connects_at = self.now + 2_000;
    }

    fn device_loses_broker(&mut self) {
        self.node.disconnected();
        self.device_online = false;
        self.to_device.clear();
        self.from_device.clear();
        self.device_connects_at = self.now + DEVICE_AGAIN;
    }

    // Time

    /// Lets time pass, everything in its order.
    pub(crate) fn run(&mut self, time: Millis) {
        let end = self.now + time;
        let mut turns = 0_u64;
        loop {
            let next = self.next_event().min(end);
            assert_nothing_was_due(&self.session, self.now, next);
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
        let started = self.now;
        let end = started + time;
        while self.now < end {
            self.now = (self.now + STEP).min(end);
            if self.now >= started + MISSED {
                for one in std::mem::take(&mut self.ours) {
                    self.say_will(&one); // and our side learns of it when it wakes
                    self.ours.push(Ours {
                        open: false,
                        opens_at: Millis::MAX,
                        ..one
                    });
                }
            }
            self.world_turn();
        }
        self.klipper.next_drain = self.now;
        let dead: Vec<Conn> = self
            .ours
            .iter()
            .filter(|one| one.opens_at == Millis::MAX)
            .map(|one| one.conn)
            .collect();
        self.tell(Input::Tick);
        for conn in dead {
            self.tell(Input::Closed(conn, "closed by the broker"));
        }
        self.ours.retain(|one| one.opens_at != Millis::MAX);
    }

    fn next_event(&mut self) -> Millis {
        let now = self.now;
        let turn = self.session.deadline(now);
        self.turn_at = Some(turn);
        assert!(turn <= now + 1_000, "R7: it would look stuck");
        let hurries = turn == now + 1 && !self.ended;
        self.hurry = if hurries { self.hurry + 1 } else { 0 };
        assert!(self.hurry < 20, "it wakes up every millisecond");
        let mut next = turn.min(self.next_step);
        if self.klipper.turns() {
            next = next.min(self.klipper.next_drain);
        }
        for one in &self.ours {
            if !one.open && !one.gone && !self.frozen {
                next = next.min(one.opens_at);
            }
            if !self.frozen {
                next = next.min(one.to_broker.front().map_or(Millis::MAX, |(at, _)| *at));
            }
            if !one.gone {
                next = next.min(one.to_us.front().map_or(Millis::MAX, |(at, ..)| *at));
            }
        }
        next.max(now)
    }

    fn happen(&mut self) {
        self.world_turn();
        self.hear();
        self.missed_broker();
        if self.klipper.turns() && self.now >= self.klipper.next_drain {
            self.klipper.next_drain = self.now + DRAIN;
            self.drain();
        }
        let turn_at = self.turn_at.take();
        if self.now >= turn_at.unwrap_or_else(|| self.session.deadline(self.now - 1)) {
            self.tell(Input::Tick);
        }
        if self.now >= self.judged_at + JUDGED_EVERY {
            self.judge();
        }
    }

    /// Asks the reference.
    fn judge(&mut self) {
        self.judged_at = self.now;
        let snapshot = self.snapshot();
        let in_the_way = self.frozen
            || self.down
            || self.device_frozen
            || !self.device_online
            || self.taken
            || self.ended;
        let state = self.node.state();
        let lease = self.config.lease;
        let blocked = snapshot.fault.is_some_and(|fault| fault.blocks_heat());
        if self.klipper.stalled {
            self.reference.unrest(self.now); // the lease ends whatever it wants then
        }
        let wanted = self.klipper.wants(self.now, lease, snapshot.forced_offs);
        let dry = self.klipper.dry && wanted.is_some();
        let over = self.klipper.has_dried(self.now, self.config.drying_hours);
        if snapshot
            .forced_off
            .is_some_and(|f| f.reason == Reason::Dried)
        {
            self.reference.starts_anew(snapshot.forced_offs); // its end is no alarm
        }
        self.reference.judge(&Moment {
            now: self.now,
            wanted,
            dry,
            reached: snapshot.link == Link::Connected && !in_the_way,
            excused: snapshot.lost || blocked || self.faulty || over,
            faulty: self.faulty,
            on: if dry { state.dries } else { state.heat },
            target: if dry { state.dry_c } else { state.target_c },
            forced_offs: snapshot.forced_offs,
        });
    }

    /// The driver notices a broker that answers no ping within twice the keep alive.
    fn missed_broker(&mut self) {
        if !self.frozen {
            self.silent_since = None;
            return;
        }
        let since = *self.silent_since.get_or_insert(self.now);
        if self.now >= since + 10_000 {
            let open = self.ours.iter_mut().find(|one| one.open && !one.gone);
            if let Some(one) = open {
                one.gone = true; // the driver drops it: what the broker has not read stays there
                one.to_broker.push_back((self.now, ToBroker::Reset));
                let conn = one.conn;
                self.tell(Input::Closed(conn, "the broker does not answer"));
            }
        }
    }

    fn world_turn(&mut self) {
        if self.now >= self.next_step {
            let step = self.now + self.step - self.next_step;
            self.next_step = self.now + self.step;
            if !self.device_frozen {
                self.device_turn(step);
            }
        }
        if !self.frozen {
            self.broker_turn();
        }
    }

    fn device_turn(&mut self, step: Millis) {
        let reachable = !self.down && !self.frozen;
        if !self.device_online && reachable && self.now >= self.device_connects_at {
            self.device_online = true;
            self.node.connected();
            for (topic, payload) in self.retained.clone() {
                if self.device_listens(&topic) {
                    self.to_device.push_back((self.now, topic, payload));
                }
            }
        }
        while self
            .to_device
            .front()
            .is_some_and(|(at, ..)| self.now >= *at)
        {
            if let Some((_, topic, payload)) = self.to_device.pop_front() {
                self.node.handle(&topic, &payload);
            }
        }
        self.node.step(step);
        for publication in self.node.take_publications() {
            let before = self.from_device.back().map_or(0, |(at, _)| *at);
            let at = self.weather.arrival(self.now + LATENCY).max(before);
            self.from_device.push_back((at, publication));
        }
    }

    fn device_listens(&self, topic: &str) -> bool {
        if topic.ends_with("/state") {
            return false; // its own words, and most of what there is
        }
        let filters = self.node.terms().subscriptions;
        filters.iter().any(|filter| matches(filter, topic))
    }

    fn broker_turn(&mut self) {
        while self
            .from_device
            .front()
            .is_some_and(|(at, _)| self.now >= *at)
        {
            if let Some((_, publication)) = self.from_device.pop_front() {
                if self.echo {
                    self.route(&publication.topic, &publication.payload, publication.retain);
                }
                self.route(&publication.topic, &publication.payload, publication.retain);
            }
        }
        loop {
            let now = self.now;
            let due = |one: &Ours| one.to_broker.front().is_some_and(|(at, _)| now >= *at);
            let Some(index) = self.ours.iter().position(due) else {
                break;
            };
            match self.ours[index].to_broker.pop_front() {
                Some((_, ToBroker::Publish(message))) => {
                    self.route(&message.topic, message.payload.as_bytes(), false);
                }
                Some((_, ToBroker::Goodbye)) => drop(self.ours.remove(index)),
                Some((_, ToBroker::Reset)) => {
                    let one = self.ours.remove(index);
                    self.say_will(&one);
                }
                None => {}
            }
        }
        let now = self.now;
        let opening = self
            .ours
            .iter()
            .position(|one| !one.open && !one.gone && now >= one.opens_at);
        let Some(index) = opening else { return };
        let conn = self.ours[index].conn;
        if self.down {
            self.ours.remove(index);
            return self.tell(Input::Closed(conn, "connection refused"));
        }
        // Our client id is always the same: what is left of an earlier connection is thrown out.
        let (old, new): (Vec<Ours>, Vec<Ours>) = std::mem::take(&mut self.ours)
            .into_iter()
            .partition(|one| one.conn != conn);
        self.ours = new;
        for one in old {
            self.say_will(&one);
        }
        let Some(one) = self.ours.first_mut() else {
            return;
        };
        one.open = true;
        let terms = one.terms.clone();
        for (topic, payload) in &self.retained {
            if terms
                .subscriptions
                .iter()
                .any(|filter| matches(filter, topic))
            {
                one.to_us
                    .push_back((now + LATENCY, topic.clone(), payload.clone(), true));
            }
        }
        self.tell(Input::Reached(conn));
        self.tell(Input::Opened(conn, "192.0.2.20:1883".parse().unwrap()));
    }

    fn say_will(&mut self, one: &Ours) {
        if let (true, Some(will)) = (one.open, &one.terms.will) {
            self.wills.push(will.clone());
            self.route(&will.topic, will.payload.as_bytes(), false);
        }
    }

    fn route(&mut self, topic: &str, payload: &[u8], retain: bool) {
        if retain && payload.is_empty() {
            self.retained.remove(topic);
        } else if retain {
            self.retained.insert(topic.to_owned(), payload.to_vec());
        }
        if self.device_online && self.device_listens(topic) {
            let before = self.to_device.back().map_or(0, |(at, ..)| *at);
            let at = self.weather.arrival(self.now + LATENCY).max(before);
            self.to_device
                .push_back((at, topic.to_owned(), payload.to_vec()));
        }
        self.deliver_to_us(topic, payload, false);
    }

    fn deliver_to_us(&mut self, topic: &str, payload: &[u8], retained: bool) {
        let sent = self.now + LATENCY;
        for one in self.ours.iter_mut().filter(|one| one.open && !one.gone) {
            if one
                .terms
                .subscriptions
                .iter()
                .any(|filter| matches(filter, topic))
            {
                let before = one.to_us.back().map_or(0, |(at, ..)| *at);
                let at = self.our_weather.arrival(sent).max(before);
                one.to_us
                    .push_back((at, topic.to_owned(), payload.to_vec(), retained));
            }
        }
    }

    fn hear(&mut self) {
        loop {
            let now = self.now;
            let due = self
                .ours
                .iter_mut()
                .find(|one| !one.gone && one.to_us.front().is_some_and(|(at, ..)| now >= *at));
            let Some(one) = due else { return };
            let Some((_, topic, payload, retained)) = one.to_us.pop_front() else {
                return;
            };
            let conn = one.conn;
            if topic.ends_with("/state") && !retained {
                let text = String::from_utf8_lossy(&payload);
                let reading = reading_in(&topic, &text).map(|c| (now, c));
                self.readings.extend(reading);
                match &*text {
                    "heat" if topic.contains("/mode/") => self.told_on = true,
                    "heating" if topic.contains("/action/") => self.told_on = true,
                    "off" if topic.contains("/mode/") => self.told_on = false,
                    text if text.starts_with('{') => {
                        self.told_on = word_of(text, "work_on") == Some(r#""ON""#);
                    }
                    _ => {}
                }
                if !topic.contains("/sensor/") {
                    self.heat_unanswered = false;
                }
            }
            let delivery = Delivery {
                topic: &topic,
                payload: &payload,
                retained,
            };
            self.tell(Input::Delivered(conn, delivery));
        }
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
        let at = self.now + LATENCY;
        match command {
            Command::Connect { conn, terms, .. } => {
                self.connects.push(self.now);
                self.heat_unanswered = false;
                assert!(
                    !self.ours.iter().any(|one| !one.gone),
                    "R6: two connections to one broker"
                );
                self.ours.push(Ours {
                    conn,
                    terms: terms.unwrap(),
                    opens_at: self.our_weather.arrival(self.now + 2 * LATENCY),
                    open: false,
                    gone: false,
                    to_broker: VecDeque::new(),
                    to_us: VecDeque::new(),
                });
            }
            Command::Publish(conn, message) => {
                if !message.topic.starts_with("esphome/ping/") {
                    self.check_command(&message);
                    self.sent.push((self.now, message.to_string()));
                }
                let one = self
                    .ours
                    .iter_mut()
                    .find(|one| one.conn == conn && one.open && !one.gone);
                let one = one.expect("R4: published on a connection that is not open");
                let before = one.to_broker.back().map_or(0, |(at, _)| *at);
                let at = self.our_weather.arrival(at).max(before);
                one.to_broker.push_back((at, ToBroker::Publish(message)));
            }
            Command::Abort(conn) => self.let_go(conn, ToBroker::Reset),
            Command::Leave(conn) => {
                let sent = self.session.device.last_sent;
                let ours = sent.is_some_and(|sent| sent != Setting::Off);
                assert!(!self.told_on || !ours, "R8: goodbye while it heats for us");
                self.let_go(conn, ToBroker::Goodbye);
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
            Command::Tell(event) => self.lines.push(event.text),
            Command::End => self.ended = true,
            Command::Send(..) => panic!("there is no device to send to"),
        }
    }

    fn let_go(&mut self, conn: Conn, last: ToBroker) {
        let Some(index) = self.ours.iter().position(|one| one.conn == conn) else {
            return;
        };
        let frozen = self.frozen;
        let one = &mut self.ours[index];
        one.gone = true;
        one.to_us.clear();
        if !one.open {
            self.ours.remove(index);
            return;
        }
        if matches!(last, ToBroker::Reset) && !frozen {
            one.to_broker.clear(); // a reset overtakes what was under way
        }
        one.to_broker.push_back((self.now, last));
    }

    fn check_command(&mut self, message: &Message) {
        if is_off(&message.payload) {
            return;
        }
        let forced_offs = self.snapshot().forced_offs;
        let target = self
            .klipper
            .check_heat(self.now, self.config.lease, forced_offs)
            + f64::from(self.snapshot().boost);
        let said: Option<f64> = if message.payload.starts_with('{') {
            let value: serde_json::Value = serde_json::from_str(&message.payload).unwrap();
            if self.klipper.dry && value["custom_temp"].is_number() {
                assert_eq!(value["custom_temp"].as_f64(), Some(target.round()));
                return; // and what it is for follows
            }
            if self.klipper.dry {
                assert_eq!(value["filament_drying_mode"], "custom");
                let before = self
                    .sent
                    .last()
                    .map(|(_, text)| text.contains("custom_temp"));
                assert_eq!(before, Some(true));
            } else {
                assert_eq!(value["target_temp"].as_f64(), Some(target.round()));
            }
            Some(target)
        } else {
            message.payload.parse().ok()
        };
        if let Some(said) = said.filter(|_| !message.topic.contains("_low/")) {
            let band = if message.topic.contains("_high/") {
                0.5
            } else {
                0.0
            };
            assert!(
                (said - band - target).abs() <= 0.06,
                "not the current wish: {message}"
            );
            assert!(!self.heat_unanswered, "R4: two heat commands unanswered");
            self.heat_unanswered = true;
        }
    }

    /// Rule R2: off leaves in the same turn if heat was the last word on an open connection.
    fn check_off(&self, target: f64, before: usize) {
        let open = self.ours.iter().any(|one| one.open && !one.gone);
        let heat_last = before > 0
            && self
                .sent
                .get(before - 1)
                .is_some_and(|(_, text)| !is_off(text));
        let snapshot = self.snapshot();
        let may_heat = snapshot.link == Link::Connected && snapshot.device_on != Some(false);
        if target <= 0.0 && open && heat_last && may_heat {
            let said = self.sent[before..].iter().any(|(_, text)| is_off(text));
            assert!(said, "R2: off waits");
        }
    }

    fn check(&self) {
        if let Some(reading) = self.snapshot().reading {
            let real = self
                .readings
                .iter()
                .rev()
                .any(|&(at, c)| at == reading.at && c.total_cmp(&reading.celsius).is_eq());
            assert!(real, "R5: a reading nobody sent: {reading:?}");
        }
    }
}

/// Whether a topic filter without `#` takes a topic.
fn matches(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// Whether a command, or its payload alone, is off.
fn is_off(text: &str) -> bool {
    text == "off" || text.ends_with(" off") || text.ends_with(r#"{"work_on":"OFF"}"#)
}

fn reading_in(topic: &str, text: &str) -> Option<f64> {
    if topic.contains("/sensor/") {
        return text.parse().ok();
    }
    word_of(text, "chamber_temp")?.parse().ok()
}

/// A member of a flat JSON object, as it is written. Parsing all of it takes most of a long
/// history's time.
fn word_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("\"{key}\""))?;
    let value = rest.trim_start().strip_prefix(':')?;
    let end = value.find([',', '}'])?;
    Some(value[..end].trim())
}
