//! A session in a world without a device: whatever a fuzzer makes of times, wishes, connections and
//! messages, the rules that can be seen from outside hold.
//!
//! What a guard and an owner of the device will say to a session are more things for `happen`; what
//! it will tell them are more commands for `obey`.

use std::net::SocketAddr;

use crate::dialect::mqtt::{Delivery, Message, Mqtt, Terms};
use crate::dialect::stock::Stock;
use crate::dialect::{Dialect, Identity, MAX_MESSAGE, Report};
use crate::said::{self, Said};
use crate::script::Script;
use crate::sensors::{self, Sensors};
use crate::session::{
    Claim, Command, Config, Conn, Input, Link, Millis, OnExternalOff, OnExternalOn, Session, Wish,
};
use crate::words::{
    FRAMES, LONGEST_LINE, MESSAGES, SECRET, TARGETS, TIMES, TOPICS, mqtt_options, takes,
};

/// So many turns of a session are enough for one input.
const MOST_TURNS: u32 = 1_000;

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Asked,
    Reached,
    Open,
}

/// One connection, as the driver sees it.
struct Wire {
    conn: Conn,
    stage: Stage,
    terms: Option<Terms>,
    /// What was read on it, by a reader of our own.
    stock: Stock,
    identity: Option<Option<Identity>>,
    unanswered: bool,
    last_word_is_heat: bool,
}

/// See the module's description.
pub struct World {
    session: Session,
    config: Config,
    dialect: Dialect,
    now: Millis,
    started: Millis,
    turns: u32,
    wires: Vec<Wire>,
    dead: Vec<Conn>,
    wish: Wish,
    sensors: Sensors,
    owned: bool,
    /// Klipper's reactor turns, so that it renews every second.
    alive: bool,
    renewed_at: Millis,
    asked_claim: Option<Identity>,
    ended: bool,
    readings: Vec<(Millis, f64)>,
    forced_offs: u32,
    number: u64,
    connects: u64,
    heats: u64,
    lines: u64,
    /// Heat was said after the device last said that it is off.
    heat_is_newer: bool,
    /// The device has said that it is on since the last wish: perhaps somebody's hand.
    told_on: bool,
    /// The fuzzer has put the secret where it is none.
    secret_is_out: bool,
    /// Says what happens, for whoever looks at a finding: FUZZ_TALK=1.
    talks: bool,
    /// Answers a claim at once, and opens connections at once.
    kind: bool,
}

impl World {
    /// Plays what a fuzzer has thought of.
    pub fn play(dialect: Dialect, data: &[u8]) {
        let mut script = Script(data);
        let (Some(first), Some(second)) = (script.byte(), script.byte()) else {
            return;
        };
        let mut world = Self::new(dialect, first, second);
        world.secret_is_out = data
            .windows(SECRET.len())
            .any(|part| part == SECRET.as_bytes());
        world.tell(Input::Tick);
        while world.turns < MOST_TURNS && world.happen(&mut script).is_some() {}
    }

    fn new(dialect: Dialect, options: u8, seed: u8) -> Self {
        let mut config = Config {
            mqtt: match dialect {
                Dialect::Stock => None,
                // One in four finds out for itself.
                Dialect::StockMqtt => Some(mqtt_options([1, 5, 1, 0][usize::from(options & 3)])),
                Dialect::Esphome => Some(mqtt_options([2, 2, 10, 0][usize::from(options & 3)])),
            },
            device_id: (options & 0x1c == 0x1c).then(|| "ee01".into()),
            on_external_off: if options & 0x20 == 0 {
                OnExternalOff::Accept
            } else {
                OnExternalOff::Reassert
            },
            on_external_on: if options & 0x40 == 0 {
                OnExternalOn::Off
            } else {
                OnExternalOn::Allow
            },
            ..Config::default()
        };
        sensors::options(seed, &mut config);
        Self {
            session: Session::new(config.clone(), u64::from(seed)),
            config,
            dialect,
            now: 5_000,
            started: 5_000,
            turns: 0,
            wires: Vec::new(),
            dead: Vec::new(),
            wish: Wish::default(),
            sensors: Sensors::default(),
            owned: true,
            alive: true,
            renewed_at: 5_000,
            asked_claim: None,
            ended: false,
            readings: Vec::new(),
            forced_offs: 0,
            number: 0,
            connects: 0,
            heats: 0,
            lines: 0,
            heat_is_newer: false,
            told_on: false,
            secret_is_out: false,
            talks: std::env::var_os("FUZZ_TALK").is_some(),
            kind: options & 0x80 == 0,
        }
    }

    fn is_broker(&self) -> bool {
        self.dialect != Dialect::Stock
    }

    /// One thing of the script.
    fn happen(&mut self, script: &mut Script<'_>) -> Option<()> {
        match script.byte()? % 24 {
            0 => self.run(script.pick(&TIMES)?),
            1 => self.run(script.number()? % 8_192),
            2 => {
                self.now += script.pick(&TIMES)?;
                self.tell(Input::Tick);
            }
            3 | 4 => {
                let target = script.pick(&TARGETS)?;
                self.wish.dry = false;
                self.want(target, true);
            }
            20 => {
                let target = script.pick(&TARGETS)?;
                self.wish.dry = true;
                self.want(target, true);
            }
            21 | 22 => {
                self.sensors.change(self.now, script)?;
                self.tell(Input::Tick);
            }
            23 => {
                self.sensors.warm_bed(script)?;
                self.tell(Input::Tick);
                self.follow();
            }
            5 => self.want(self.wish.target, false),
            6 => {
                let ack = script.byte()?;
                let wish = Wish {
                    ack: u32::from(ack),
                    ..self.wish
                };
                self.say(wish);
            }
            7 => {
                self.wish.ack = self.session.snapshot(self.now).forced_offs;
                self.want(0.0, true);
            }
            8 => self.alive = script.byte()? & 1 == 0,
            9 => self.open(script.byte()?),
            10 | 11 => self.known_message(script)?,
            12 => {
                let (wire, topic, retained) = (script.byte()?, script.byte()?, script.byte()?);
                let topic = TOPICS[usize::from(topic) % TOPICS.len()];
                let payload = script.text();
                self.message(wire, topic, payload, retained & 1 != 0);
            }
            13 => self.close(script.byte()?),
            14 => {
                let claim = match script.byte()? % 4 {
                    0 => Claim::Taken("panda_breath two"),
                    1 => Claim::Ours { doubt: true },
                    _ => Claim::Ours { doubt: false },
                };
                if let Some(identity) = self.asked_claim.take() {
                    self.tell(Input::Claimed(identity, claim));
                }
            }
            15 => {
                self.owned = false;
                self.tell(Input::Orphaned);
            }
            16 => self.adopt(script.byte()?),
            17 => {
                let conn = self.wires.first().map_or(Conn(77), |wire| wire.conn);
                self.tell(Input::Unreadable(conn));
            }
            18 => {
                // What was on its way when a connection was dropped.
                let conn = self.dead.last().copied().unwrap_or(Conn(1_000));
                let payload = script.text();
                let delivery = Delivery {
                    topic: TOPICS[2],
                    payload,
                    retained: false,
                };
                if self.is_broker() {
                    self.tell(Input::Delivered(conn, delivery));
                } else {
                    self.tell(Input::Frame(conn, payload));
                }
                self.tell(Input::Closed(conn, "late"));
            }
            _ => self.live(),
        }
        Some(())
    }

    /// A short way to a device that is there, off and itself.
    fn live(&mut self) {
        for _ in 0..4 {
            self.open(0);
        }
        if self.dialect == Dialect::Stock {
            self.message(0, "", FRAMES[0].as_bytes(), false);
            return self.run(500);
        }
        let messages = if self.dialect == Dialect::Esphome {
            [
                MESSAGES[15],
                MESSAGES[4],
                MESSAGES[6],
                MESSAGES[8],
                MESSAGES[2],
            ]
        } else {
            [
                MESSAGES[22],
                MESSAGES[21],
                MESSAGES[21],
                MESSAGES[21],
                MESSAGES[21],
            ]
        };
        for _ in 0..2 {
            for (topic, payload) in messages {
                self.message(0, TOPICS[topic], payload.as_bytes(), false);
            }
            self.run(1_001);
            for _ in 0..4 {
                self.open(0); // its topics may have changed
            }
        }
    }

    fn known_message(&mut self, script: &mut Script<'_>) -> Option<()> {
        let wire = script.byte()?;
        if self.dialect == Dialect::Stock {
            let text = script.pick(&FRAMES)?;
            self.message(wire >> 1, "", text.as_bytes(), false);
        } else {
            let (topic, payload) = script.pick(&MESSAGES)?;
            self.message(0, TOPICS[topic], payload.as_bytes(), wire & 15 == 0);
        }
        Some(())
    }

    fn want(&mut self, target: f64, armed: bool) {
        let ack = if target > 0.0 {
            self.wish.ack
        } else {
            self.session.snapshot(self.now).forced_offs
        };
        self.sensors.hold();
        self.say(Wish {
            target,
            armed,
            ack,
            hand: self.wish.hand + 1,
            ..self.wish
        });
    }

    /// Klipper sets the target that goes with the bed.
    fn follow(&mut self) {
        let Some(followed) = self.session.snapshot(self.now).follow else {
            return;
        };
        self.say(Wish {
            target: followed.target,
            ..self.wish
        });
    }

    fn say(&mut self, wish: Wish) {
        if self.ended || !self.owned {
            return; // nobody is there to say it
        }
        self.told_on &= wish.target.total_cmp(&self.wish.target).is_eq();
        self.wish = wish;
        self.tell(Input::Wish(wish));
    }

    fn adopt(&mut self, how: u8) {
        if how & 1 != 0 {
            self.config.access = u64::from(how);
        }
        if self.ended {
            // As the driver does.
            let before = self.session.snapshot(self.now);
            self.session = Session::after(self.config.clone(), 1, &before);
            self.ended = false;
            self.owned = true;
            self.wish = Wish {
                ack: before.forced_offs,
                ..Wish::default()
            };
            self.renewed_at = self.now;
            self.number = 0;
            (self.started, self.connects, self.heats, self.lines) = (self.now, 0, 0, 0);
            for wire in self.wires.drain(..) {
                self.dead.push(wire.conn);
            }
            self.dead.clear(); // connections are counted from 1 again
            return self.tell(Input::Tick);
        }
        self.owned = true;
        self.renewed_at = self.now;
        self.wish = Wish {
            ack: self.session.snapshot(self.now).forced_offs,
            ..Wish::default()
        };
        let config = self.config.clone();
        self.tell(Input::Adopted(&config));
    }

    // The network

    fn open(&mut self, which: u8) {
        let Some(index) = usize::from(which).checked_rem(self.wires.len()) else {
            return;
        };
        let wire = &mut self.wires[index];
        let conn = wire.conn;
        match wire.stage {
            Stage::Asked => {
                wire.stage = Stage::Reached;
                self.tell(Input::Reached(conn));
            }
            Stage::Reached => {
                wire.stage = Stage::Open;
                let address = SocketAddr::from(([192, 0, 2, 10], 80));
                self.tell(Input::Opened(conn, address));
            }
            Stage::Open => {}
        }
    }

    fn close(&mut self, which: u8) {
        let Some(index) = usize::from(which).checked_rem(self.wires.len()) else {
            return;
        };
        let wire = self.wires.remove(index);
        self.dead.push(wire.conn);
        self.tell(Input::Closed(wire.conn, "connection reset"));
    }

    fn message(&mut self, which: u8, topic: &str, payload: &[u8], retained: bool) {
        let Some(index) = usize::from(which).checked_rem(self.wires.len()) else {
            return;
        };
        let wire = &mut self.wires[index];
        if wire.stage != Stage::Open || payload.len() > MAX_MESSAGE {
            return;
        }
        let conn = wire.conn;
        if self.dialect == Dialect::Stock {
            if let Ok(report) = wire.stock.decode(payload) {
                if report.is_snapshot() {
                    wire.identity.get_or_insert(report.identity);
                }
                wire.unanswered &= !report.is_from_device();
                self.noted(&report);
            }
            return self.tell(Input::Frame(conn, payload));
        }
        let delivery = Delivery {
            topic,
            payload,
            retained,
        };
        // A broker delivers what was subscribed to.
        let subscribed = wire.terms.as_ref().is_some_and(|terms| {
            terms
                .subscriptions
                .iter()
                .any(|filter| takes(filter, topic))
        });
        if !subscribed {
            return;
        }
        if !retained {
            wire.unanswered = false;
            for how in [1, 10] {
                if let Ok(report) = Mqtt::new(&mqtt_options(how)).decode(delivery) {
                    self.noted(&report);
                }
            }
            // Two that make one word only together: nothing is known of them here.
            self.heat_is_newer &= !topic.starts_with("panda-breath/");
        }
        self.tell(Input::Delivered(conn, delivery));
    }

    fn noted(&mut self, report: &Report) {
        self.readings.extend(report.reading.map(|c| (self.now, c)));
        self.heat_is_newer &= report.on != Some(false);
        self.told_on |= report.on == Some(true);
    }

    // Time

    /// Lets time pass as the driver does: never past a deadline.
    fn run(&mut self, time: Millis) {
        let end = self.now + time;
        while self.now < end && self.turns < MOST_TURNS {
            let deadline = self.session.deadline(self.now);
            if self.ended {
                break;
            }
            assert!(deadline > self.now, "it is late already");
            assert!(deadline <= self.now + 1_000, "nobody notices a gap");
            self.now = deadline.min(end);
            if self.alive {
                self.renewed_at = self.now;
                self.session.renew(self.now);
            }
            self.tell(Input::Tick);
        }
    }

    // The session's side

    fn tell(&mut self, input: Input<'_>) {
        if self.ended {
            return;
        }
        if self.talks {
            eprintln!("{} {input:?}", self.now);
        }
        self.turns += 1;
        self.sensors.tick(self.now);
        self.session.surround(self.sensors.around);
        self.session.handle(self.now, input);
        let mut commands = 0;
        while let Some(command) = self.session.poll() {
            commands += 1;
            assert!(commands < 64, "R6: it does not stop");
            self.obey(command);
        }
        self.check();
        if let Some(identity) = self.asked_claim.take_if(|_| self.kind) {
            self.tell(Input::Claimed(identity, Claim::Ours { doubt: false }));
        }
    }

    fn obey(&mut self, command: Command) {
        assert!(!self.ended, "after its end: {command:?}");
        if self.talks {
            eprintln!("    {command:?}");
        }
        match command {
            Command::Connect { conn, terms, .. } => {
                self.connects += 1;
                // Two short ones a second at the most, whatever happens to them.
                let most = 20 + (self.now - self.started) / 150;
                assert!(
                    self.connects <= most + u64::from(self.turns) / 4,
                    "R6: {} connections",
                    self.connects
                );
                assert!(!self.dead.contains(&conn), "R4: a connection used twice");
                let most = if self.is_broker() { 0 } else { 1 };
                assert!(self.wires.len() <= most, "R6: too many connections at once");
                self.wires.push(Wire {
                    conn,
                    stage: Stage::Asked,
                    terms,
                    stock: Stock::default(),
                    identity: None,
                    unanswered: false,
                    last_word_is_heat: false,
                });
            }
            Command::Send(conn, text) => {
                assert!(!self.is_broker());
                self.command(conn, said::in_frame(&text));
                let pinned = self.session.snapshot(self.now).identity;
                let wire = self.wire(conn);
                assert_eq!(
                    wire.identity,
                    Some(pinned),
                    "R5: to a device that is not the one"
                );
            }
            Command::Publish(conn, message) => self.published(conn, &message),
            Command::Leave(conn) => {
                assert!(self.is_broker());
                let heat = self.wire(conn).last_word_is_heat;
                assert!(
                    !heat || !self.heat_is_newer,
                    "R8: goodbye while it heats for us"
                );
                self.let_go(conn);
            }
            Command::Abort(conn) => self.let_go(conn),
            Command::Claim(identity) => self.asked_claim = Some(identity),
            Command::Tell(event) => {
                self.lines += 1;
                let most = 21 + (self.now - self.started) / 30_000;
                assert!(self.lines <= most, "R6: {} lines", self.lines);
                assert!(
                    event.text.len() <= LONGEST_LINE,
                    "R6: {} bytes",
                    event.text.len()
                );
                assert!(
                    self.secret_is_out || !event.text.contains(SECRET),
                    "R11: {}",
                    event.text
                );
            }
            Command::End => {
                assert!(!self.owned, "it has a printer");
                assert!(!self.heat_is_newer, "R8: it ends and the device heats");
                self.ended = true;
            }
        }
    }

    fn wire(&mut self, conn: Conn) -> &mut Wire {
        let wire = self.wires.iter_mut().find(|wire| wire.conn == conn);
        let wire = wire.expect("R4: a connection that is gone");
        assert!(
            wire.stage == Stage::Open,
            "R4: a connection that is not open"
        );
        wire
    }

    fn let_go(&mut self, conn: Conn) {
        let before = self.wires.len();
        self.wires.retain(|wire| wire.conn != conn);
        assert_eq!(self.wires.len() + 1, before, "a connection that is gone");
        self.dead.push(conn);
    }

    fn published(&mut self, conn: Conn, message: &Message) {
        assert!(self.is_broker());
        self.command(conn, said::on_topic(message));
    }

    /// Heat, or off: rules R2, R3 and R4, said a second time.
    fn command(&mut self, conn: Conn, said: Said) {
        let is_heat = match said {
            Said::Question => {
                self.wire(conn);
                return;
            }
            Said::Go => {
                // With the target before it, which was checked.
                let heats = self.wire(conn).last_word_is_heat;
                return assert!(heats, "R3: heat without a target");
            }
            Said::Off => false,
            Said::Heat { .. } | Said::Dry { .. } | Said::HalfBand { .. } => true,
        };
        if is_heat {
            self.may_heat();
            self.is_the_wish(&said);
            self.heats += 1;
            let bound = 12 + (self.now - self.started) / 100;
            assert!(self.heats <= 2 * bound, "R6: {} heats", self.heats);
            self.heat_is_newer = true;
        }
        // The two of a band are one command.
        let is_half = matches!(said, Said::HalfBand { .. });
        let wire = self.wire(conn);
        assert!(
            !is_heat || is_half || !wire.unanswered,
            "R4: two heats are unanswered"
        );
        wire.unanswered |= is_heat && !is_half;
        wire.last_word_is_heat = is_heat;
    }

    fn may_heat(&self) {
        let snapshot = self.session.snapshot(self.now);
        let (now, wish) = (self.now, self.wish);
        assert!(self.owned && wish.armed, "R3: heat in shutdown");
        assert!(wish.target > 0.0, "R3: heat without a target");
        assert_eq!(
            wish.ack, snapshot.forced_offs,
            "R3: heat after a forced off"
        );
        assert!(
            now < self.renewed_at + self.config.lease,
            "R3: heat without a lease"
        );
        assert_eq!(snapshot.link, Link::Connected, "R3: heat to nobody");
        assert!(!snapshot.lost, "R3: heat to a lost device");
        assert!(
            self.sensors.are_cool(&self.config, now),
            "heat above the cutoff, or without its sensor"
        );
    }

    /// What the device is asked for is what Klipper wants now.
    fn is_the_wish(&self, said: &Said) {
        let (wish, dries) = (self.wish, matches!(said, Said::Dry { .. }));
        // An ESPHome node is heated to the same end.
        let may_dry = self.session.snapshot(self.now).dialect != Some(Dialect::Esphome);
        assert_eq!(dries, wish.dry && may_dry, "not the current wish: {said:?}");
        let (celsius, step) = match *said {
            Said::Heat { celsius, step } => (celsius, step),
            Said::HalfBand { celsius } => (celsius, 0.5),
            Said::Dry { celsius, hours } => {
                let most = u64::from(self.config.drying_hours);
                assert!((1..=most).contains(&hours), "{hours} h of drying");
                (celsius, 0.0)
            }
            Said::Off | Said::Go | Said::Question => return,
        };
        let most = f64::from(self.config.max_target);
        assert!(celsius <= most, "above max_target: {celsius}");
        let boost = if wish.dry {
            0.0
        } else {
            self.sensors.most_boost(&self.config, self.now)
        };
        let wanted = wish.target.min(most);
        let near = if step > 0.0 || wanted < 1.0 { 1.0 } else { 0.5 } + 1e-6;
        let range = wanted - near..=wanted + boost + near;
        assert!(
            range.contains(&celsius),
            "not the current wish: {celsius}, {range:?}"
        );
    }

    /// What must be so after every turn.
    fn check(&mut self) {
        let snapshot = self.session.snapshot(self.now);
        assert!(
            snapshot.forced_offs >= self.forced_offs,
            "forgotten: a forced off"
        );
        if snapshot.forced_offs > self.forced_offs {
            self.sensors.hold();
        }
        if !self.ended && self.owned {
            let follow = snapshot.follow;
            self.sensors.check(&self.config, self.wish, follow);
        }
        self.forced_offs = snapshot.forced_offs;
        let wants = self.owned
            && self.wish.armed
            && self.wish.target > 0.0
            && self.wish.ack == snapshot.forced_offs;
        let may_be_on = snapshot.device_on != Some(false);
        let is_allowed = self.told_on && self.config.on_external_on == OnExternalOn::Allow;
        let reachable = snapshot.link == Link::Connected && !self.ended;
        if !wants && reachable && may_be_on && !is_allowed {
            let heats = self.wires.iter().any(|wire| wire.last_word_is_heat);
            assert!(!heats, "R2: off waits");
        }
        if snapshot.off_known {
            assert!(!self.heat_is_newer, "R2: off is not known");
        }
        if let Some(reading) = snapshot.reading {
            assert!(reading.number >= self.number, "R5: counted backwards");
            if reading.number > self.number {
                assert!(
                    self.readings.contains(&(reading.at, reading.celsius)),
                    "R5: invented"
                );
                assert!((-40.0..=150.0).contains(&reading.celsius), "R5: absurd");
            }
            self.number = reading.number;
        }
        self.readings.retain(|(at, _)| *at == self.now);
        if let Some(error) = &snapshot.last_error {
            assert!(error.len() <= LONGEST_LINE, "R6: {} bytes", error.len());
            assert!(
                self.secret_is_out || !error.contains(SECRET),
                "R11: {error}"
            );
        }
    }
}
