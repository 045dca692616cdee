//! A session in a world without a device: whatever a fuzzer makes of times, wishes, connections and
//! messages, the rules that can be seen from outside hold.
//!
//! What a guard and an owner of the device will say to a session are more things for `happen`; what
//! it will tell them are more commands for `obey`.

use std::net::SocketAddr;

use crate::dialect::mqtt::{Delivery, Message, Mqtt, Options, Terms};
use crate::dialect::stock::Stock;
use crate::dialect::{Dialect, Identity, MAX_MESSAGE, Report};
use crate::script::Script;
use crate::session::{
    Claim, Command, Config, Conn, Input, Link, Millis, OnExternalOff, OnExternalOn, Session, Wish,
};

/// No line for people is longer (rule R6).
pub const LONGEST_LINE: usize = 600;
/// In every message of the fuzzer's device that has secrets.
const SECRET: &str = "a-password-of-wifi";
/// So many turns of a session are enough for one input.
const MOST_TURNS: u32 = 1_000;

const TIMES: [Millis; 20] = [
    0, 1, 99, 250, 500, 999, 1_000, 1_001, 1_200, 2_001, 3_001, 5_000, 5_001, 10_001, 15_001,
    30_001, 60_001, 120_001, 300_001, 600_001,
];
const TARGETS: [f64; 12] = [
    0.0,
    45.0,
    45.5,
    60.0,
    20.0,
    60.4,
    0.3,
    300.0,
    -1.0,
    f64::NAN,
    f64::INFINITY,
    1e300,
];

const FRAMES: [&str; 16] = [
    r#"{"wifi":{"ssid":"n","password":"a-password-of-wifi"},"ap":{"ssid":"Panda_Breath_AABBCCDDEEFF","password":"a-password-of-wifi"},"settings":{"fw_version":"V1.0.3","work_on":0,"work_mode":2,"set_temp":45}}"#,
    r#"{"ap":{"ssid":"Panda_Breath_AABBCCDDEEFF"},"settings":{"fw_version":"V1.0.3","work_on":1,"work_mode":2,"set_temp":45}}"#,
    r#"{"settings":{"warehouse_temper":31,"cal_warehouse_temp":30}}"#,
    r#"{"settings":{"warehouse_temper":35}}"#,
    r#"{"settings":{"work_on":1}}"#,
    r#"{"settings":{"work_on":0}}"#,
    r#"{"settings":{"work_mode":1,"set_temp":20,"work_on":1}}"#,
    r#"{"settings":{"ptc_sensor_status":2}}"#,
    r#"{"settings":{"ptc_heater_status":0}}"#,
    r#"{"ap":{"ssid":"Panda_Breath_AABBCCDDEE00"},"settings":{"fw_version":"V1.0.3","work_on":1,"work_mode":2,"set_temp":45}}"#,
    r#"{"ap":{"ssid":"Panda_Breath_AABBCCDDEEFF"},"settings":{"fw_version":"V1.0.0","work_on":0,"work_mode":2,"temp":45}}"#,
    r#"{"settings":{"fw_version":"V1.0.2","work_on":0}}"#,
    r#"{"settings":{"isrunning":1,"remaining_seconds":60}}"#,
    r#"{"settings":null}"#,
    "{}",
    "garbage",
];

/// Topics of all dialects, as the options of [`mqtt_options`] have them.
pub const TOPICS: [&str; 18] = [
    "panda-breath/status",
    "panda-breath/sensor/chamber_temperature/state",
    "panda-breath/climate/chamber/mode/state",
    "panda-breath/climate/chamber/action/state",
    "panda-breath/climate/chamber/target_temperature/state",
    "panda-breath/climate/chamber/target_temperature_low/state",
    "panda-breath/climate/chamber/target_temperature_high/state",
    "panda-breath/climate/chamber/mode/command",
    "panda-breath/climate/chamber/target_temperature/command",
    "esphome/discover/panda-breath",
    "homeassistant/climate/panda-breath/chamber/config",
    "homeassistant/sensor/panda-breath/chamber_temperature/config",
    "panda_breath/AABBCCDDEE01/state",
    "panda_breath/AABBCCDDEE01/availability",
    "panda_breath/AABBCCDDEE01/command",
    "panda_breath/AABBCCDDEE02/state",
    "panda_breath/AABBCCDDEE02/availability",
    "panda-breath/c/there",
];

/// Messages by the number of their topic.
const MESSAGES: [(usize, &str); 27] = [
    (0, "online"),
    (0, "offline"),
    (1, "30.5"),
    (1, "nan"),
    (2, "off"),
    (2, "heat"),
    (3, "idle"),
    (3, "heating"),
    (4, "45"),
    (4, "20.5"),
    (5, "44.5"),
    (6, "45.5"),
    (7, "heat"),
    (8, "70"),
    (8, ""),
    (
        9,
        r#"{"name":"panda-breath","version":"2026.6.5","mac":"aabbccddee01"}"#,
    ),
    (
        9,
        r#"{"name":"panda-breath","version":"2026.6.5","mac":"aabbccddee02"}"#,
    ),
    (
        10,
        r#"{"mode_cmd_t":"panda-breath/climate/chamber/mode/command","temp_cmd_t":"panda-breath/t","max_temp":50,"avty_t":"panda-breath/c/there"}"#,
    ),
    (10, r#"{"mode_cmd_tpl":"{{ value }}"}"#),
    (10, ""),
    (
        12,
        r#"{"chamber_temp":31,"work_on":"ON","mode":"power on","target_temp":45}"#,
    ),
    (
        12,
        r#"{"chamber_temp":30,"work_on":"OFF","mode":"power on","target_temp":45}"#,
    ),
    (13, "online"),
    (13, "offline"),
    (15, r#"{"chamber_temp":30,"work_on":"OFF"}"#),
    (14, r#"{"work_on":"ON"}"#),
    (17, "online"),
];

/// Where a device is on a broker, one of a few ways.
pub fn mqtt_options(how: u8) -> Options {
    Options {
        dialect: match how & 3 {
            0 => None,
            1 => Some(Dialect::StockMqtt),
            _ => Some(Dialect::Esphome),
        },
        device_id: (how & 7 == 5).then(|| "AABBCCDDEE01".into()),
        foreign_topics: how & 8 != 0,
        ..Options::default()
    }
}

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
        let mut world = Self::new(dialect, first, u64::from(second));
        world.secret_is_out = data
            .windows(SECRET.len())
            .any(|part| part == SECRET.as_bytes());
        world.tell(Input::Tick);
        while world.turns < MOST_TURNS && world.happen(&mut script).is_some() {}
    }

    fn new(dialect: Dialect, options: u8, seed: u64) -> Self {
        let config = Config {
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
        Self {
            session: Session::new(config.clone(), seed),
            config,
            dialect,
            now: 5_000,
            started: 5_000,
            turns: 0,
            wires: Vec::new(),
            dead: Vec::new(),
            wish: Wish::default(),
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
        match script.byte()? % 20 {
            0 => self.run(script.pick(&TIMES)?),
            1 => self.run(script.number()? % 8_192),
            2 => {
                self.now += script.pick(&TIMES)?;
                self.tell(Input::Tick);
            }
            3 | 4 => {
                let target = script.pick(&TARGETS)?;
                self.want(target, true);
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
        self.say(Wish {
            target,
            armed,
            ack,
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
                let said = if text == r#"{"settings":{"work_on":false}}"# {
                    None
                } else {
                    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                    let settings = &value["settings"];
                    assert_eq!(settings["work_on"].as_bool(), Some(true), "{text}");
                    assert_eq!(settings["work_mode"].as_u64(), Some(2), "{text}");
                    let temp = settings["set_temp"].as_f64().or(settings["temp"].as_f64());
                    Some(temp.expect("a target"))
                };
                self.command(conn, said, 0.0);
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
        if message.topic.starts_with("esphome/ping/") {
            self.wire(conn);
            return;
        }
        let payload = &*message.payload;
        let (said, band) = if payload == "off" || payload == r#"{"work_on":"OFF"}"# {
            (None, 0.0)
        } else if payload == "heat" {
            // With the target before it, which was checked.
            return assert!(
                self.wire(conn).last_word_is_heat,
                "R3: heat without a target"
            );
        } else if payload.starts_with('{') {
            let value: serde_json::Value = serde_json::from_str(payload).expect("JSON");
            assert_eq!(value["work_on"], "ON", "{message}");
            (value["target_temp"].as_f64(), 0.0)
        } else {
            let number: f64 = payload.parse().expect("a number");
            let two = message.topic.contains("_low") || message.topic.contains("_high");
            if message.topic.contains("_low") {
                // The two of a band are one command.
                self.wire(conn).unanswered = false;
                (Some(number + 0.5), 0.5)
            } else {
                if two {
                    self.wire(conn).unanswered = false;
                }
                (Some(if two { number - 0.5 } else { number }), 0.5)
            }
        };
        self.command(conn, said, band);
    }

    /// Heat to so many degrees, or off: rules R2, R3 and R4, said a second time.
    fn command(&mut self, conn: Conn, heat: Option<f64>, step: f64) {
        let snapshot = self.session.snapshot(self.now);
        let (now, wish, most) = (self.now, self.wish, f64::from(self.config.max_target));
        if let Some(target) = heat {
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
            assert!(target <= most, "above max_target: {target}");
            let wanted = wish.target.min(most);
            let near = if step > 0.0 || wanted < 1.0 { 1.0 } else { 0.5 };
            assert!(
                (target - wanted).abs() <= near + 1e-6,
                "not the current wish: {target}"
            );
            self.heats += 1;
            let bound = 12 + (now - self.started) / 100;
            assert!(self.heats <= 2 * bound, "R6: {} heats", self.heats);
            self.heat_is_newer = true;
        }
        let wire = self.wire(conn);
        assert!(
            heat.is_none() || !wire.unanswered,
            "R4: two heats are unanswered"
        );
        wire.unanswered |= heat.is_some();
        wire.last_word_is_heat = heat.is_some();
    }

    /// What must be so after every turn.
    fn check(&mut self) {
        let snapshot = self.session.snapshot(self.now);
        assert!(
            snapshot.forced_offs >= self.forced_offs,
            "forgotten: a forced off"
        );
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

/// Whether a topic filter without `#` takes a topic.
fn takes(filter: &str, topic: &str) -> bool {
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
