//! Connections: when to make one, when to give one up, and what to say about it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::dialect::Report;
use crate::dialect::mqtt::{Mqtt, Terms};
use crate::dialect::stock::Stock;

use super::broker::Voice;
use super::{Command, Conn, Link, Millis, Session, backoff};

/// A connection attempt to a known address: long enough for two retransmissions of a lost SYN
/// (1 s, 3 s), short enough that a device that comes back is not waited for at a dead socket.
const ATTEMPT: Millis = 3_200;
/// The first attempt may have to wait for a name server.
const FIRST_ATTEMPT: Millis = 10_000;
/// From the first answer of the other side to the device's snapshot, or to the broker's consent.
pub(super) const HANDSHAKE: Millis = 5_000;
/// The stock firmware sends readings at 2 Hz and nothing else: silence is a dead link.
const SILENCE: Millis = 5_000;
/// A broker that answers and does not let us in will not for a while: each attempt may cost it a
/// TLS handshake.
const KEPT_OUT: Millis = 2_000;
/// A connection that lasted this long was a good one: the next one is tried at once.
const GOOD: Millis = 10_000;

/// How far a connection has come.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Phase {
    /// Nobody has answered yet, or the handshake is under way, or its snapshot is awaited.
    Opening,
    /// The broker is there; whether the device is, must still show.
    Waiting,
    /// It has shown who it is; whether the device is another section's is being asked.
    Claiming(Box<Report>),
    /// The device is the right one and its state is known.
    Live,
}

/// The connection that stays.
#[derive(Clone, Debug)]
pub(super) struct Main {
    pub(super) conn: Conn,
    pub(super) phase: Phase,
    deadline: Millis,
    reached: bool,
    pub(super) address: Option<SocketAddr>,
    pub(super) stock: Stock,
    pub(super) voice: Voice,
    pub(super) opened_at: Millis,
    /// When it was asked whether the device is another section's.
    pub(super) claimed_at: Millis,
    pub(super) live_at: Millis,
    pub(super) last_report_at: Millis,
    /// The last heat and the last off that were written to it.
    pub(super) heat_at: Option<Millis>,
    pub(super) off_at: Option<Millis>,
    /// Heat was written and no report has come since.
    pub(super) unanswered: bool,
    /// It was said that the device tells no temperature.
    pub(super) silent_sensor_told: bool,
}

impl Main {
    fn new(conn: Conn, deadline: Millis) -> Self {
        Self {
            conn,
            phase: Phase::Opening,
            deadline,
            reached: false,
            address: None,
            stock: Stock::default(),
            voice: Voice::default(),
            opened_at: 0,
            claimed_at: 0,
            live_at: 0,
            last_report_at: 0,
            heat_at: None,
            off_at: None,
            unanswered: false,
            silent_sensor_told: false,
        }
    }

    /// A write was delivered if reports arrived on the same connection at least 1 s after it.
    pub(super) fn delivered(&self, written: Millis) -> bool {
        self.last_report_at >= written + 1_000
    }

    pub(super) fn last_write(&self) -> Option<Millis> {
        self.heat_at.max(self.off_at)
    }
}

impl Session {
    pub(super) fn link(&self) -> Link {
        let live = self
            .main
            .as_ref()
            .is_some_and(|main| main.phase == Phase::Live);
        if self.broken || (self.wrong && !live) {
            Link::Error
        } else if live {
            Link::Connected
        } else if self.ever_live {
            Link::Reconnecting
        } else if self.next_conn > 1 {
            Link::Connecting
        } else {
            Link::Pending
        }
    }

    pub(super) fn new_conn(&mut self) -> Conn {
        let conn = Conn(self.next_conn);
        self.next_conn = self.next_conn.wrapping_add(1).max(1);
        conn
    }

    fn connect(&mut self, now: Millis) {
        let conn = self.new_conn();
        let attempt = if self.address.is_some() {
            ATTEMPT
        } else {
            FIRST_ATTEMPT
        };
        let learnt = self.mqtt.as_ref().is_some_and(Mqtt::has_learnt);
        if learnt && self.wrong && !self.ever_live {
            // Whoever is not the one may have taught where the device is: all from the beginning.
            self.wrong = false;
            self.mqtt = self.config.mqtt.as_ref().map(Mqtt::new);
        }
        let mut main = Main::new(conn, now + attempt);
        let terms = self.mqtt.as_ref().map(Mqtt::terms);
        main.voice.terms = terms.clone().unwrap_or_default();
        self.main = Some(main);
        // Of the guard's end nobody needs to be told: off is all that it says.
        let terms = terms.map(|terms| Terms {
            will: terms.will.filter(|_| !self.is_guard()),
            ..terms
        });
        self.commands.push_back(Command::Connect {
            conn,
            address: self.address,
            terms,
        });
    }

    pub(super) fn reached(&mut self, now: Millis, conn: Conn) {
        if let Some(main) = self.main.as_mut().filter(|main| main.conn == conn) {
            main.deadline = now + HANDSHAKE;
            main.reached = true;
        }
    }

    pub(super) fn opened(&mut self, now: Millis, conn: Conn, address: SocketAddr) {
        if let Some(main) = self.main.as_mut().filter(|main| main.conn == conn) {
            main.opened_at = now;
            main.address = Some(address);
            if self.mqtt.is_some() {
                self.broker_opened(now);
            }
        } else if let Some(probe) = self.probe.as_mut().filter(|probe| probe.conn == conn) {
            probe.opened_at = now;
        }
    }

    pub(super) fn closed(&mut self, now: Millis, conn: Conn, why: &str) {
        if self.main.as_ref().is_some_and(|main| main.conn == conn) {
            self.main_ended(now, why);
        } else if self.probe.as_ref().is_some_and(|probe| probe.conn == conn) {
            self.probe = None;
            self.look_failed(now);
        }
    }

    /// Everything that must happen when the connection is gone, whoever ended it.
    fn main_ended(&mut self, now: Millis, why: &str) {
        let Some(main) = self.main.take() else { return };
        self.abort_probe(); // it has nothing to compare with any more
        if let Some(heat_at) = main.heat_at {
            self.off
                .heat_connection_ended(now, !main.delivered(heat_at));
        }
        let undelivered = main
            .last_write()
            .is_some_and(|written| !main.delivered(written));
        if undelivered || self.mqtt.is_some() {
            // What was written may never have been read; and where our will is, it is off now.
            self.device.forget_state();
        }
        self.drying_unheard();
        self.asked = None;
        // Attempts that fail in between take nothing back.
        self.will_was_due |= main.opened_at > 0 && main.voice.terms.will.is_some();
        let good_since = match main.phase {
            Phase::Live => Some(main.live_at),
            // The broker is well; that the device is away is no reason to stay away too.
            Phase::Waiting | Phase::Claiming(_) => Some(main.opened_at),
            Phase::Opening => None,
        };
        if good_since.is_some_and(|since| now >= since + GOOD) {
            self.outage_since = Some(now);
            self.attempts = 0;
        }
        let since = *self.outage_since.get_or_insert(now);
        let jitter = self.jitter.next();
        // A device that answers and is not ours is no reason to hurry.
        let attempts = if self.wrong {
            self.attempts.max(1)
        } else {
            self.attempts
        };
        let delay = backoff::delay(attempts, now - since, jitter);
        let kept_out = self.mqtt.is_some() && main.reached && main.opened_at == 0;
        self.connect_at = now + if kept_out { delay.max(KEPT_OUT) } else { delay };
        self.attempts = self.attempts.saturating_add(1);
        if !self.broken && !self.ended {
            self.last_error = Some(Arc::from(why));
        }
        if main.phase == Phase::Live {
            self.lost_at = now;
        }
        if !self.outage_told && self.owned {
            self.outage_told = true;
            let peer = self.config.peer();
            let text = if self.ever_live || main.opened_at > 0 {
                format!("connection to {peer} lost: {why}; trying again")
            } else {
                format!("cannot connect to {peer}: {why}; trying again")
            };
            self.tell(now, text);
        }
    }

    pub(super) fn abort_main(&mut self, now: Millis, why: &str) {
        if let Some(main) = &self.main {
            self.commands.push_back(Command::Abort(main.conn));
            self.main_ended(now, why);
        }
    }

    /// Goodbye instead of a will, where there is one.
    pub(super) fn leave_main(&mut self, now: Millis, why: &str) {
        let Some(main) = &self.main else { return };
        if self.mqtt.is_some() && main.phase != Phase::Opening {
            self.commands.push_back(Command::Leave(main.conn));
            self.main_ended(now, why);
            self.will_was_due = false;
        } else {
            self.abort_main(now, why);
        }
    }

    pub(super) fn abort_probe(&mut self) {
        if let Some(probe) = self.probe.take() {
            self.commands.push_back(Command::Abort(probe.conn));
        }
    }

    pub(super) fn drop_connections(&mut self, now: Millis, why: &str) {
        self.abort_probe();
        self.abort_main(now, why);
    }

    pub(super) fn check_links(&mut self, now: Millis) {
        if self.link_due().is_some_and(|due| now >= due) {
            self.link_is_due(now);
        }
        if self
            .probe
            .as_ref()
            .is_some_and(|probe| now >= probe.deadline)
        {
            self.abort_probe();
            self.look_failed(now);
        }
        if self.main.is_none() && now >= self.connect_at && !self.ended {
            self.connect(now);
        }
    }

    /// When the connection's patience ends.
    fn link_due(&self) -> Option<Millis> {
        let main = self.main.as_ref()?;
        match main.phase {
            Phase::Opening => Some(main.deadline),
            // A second's work for the driver; and for the broker, only the device is waited for.
            Phase::Claiming(_) if self.mqtt.is_none() => Some(main.deadline),
            Phase::Live if self.mqtt.is_none() => Some(main.last_report_at + SILENCE),
            Phase::Waiting | Phase::Claiming(_) | Phase::Live => None,
        }
    }

    fn link_is_due(&mut self, now: Millis) {
        let Some(main) = &self.main else { return };
        let why = match main.phase {
            Phase::Live => "no report for 5 s",
            Phase::Opening | Phase::Waiting | Phase::Claiming(_) if main.address.is_some() => {
                "it accepts connections but does not send its state"
            }
            Phase::Opening | Phase::Waiting | Phase::Claiming(_) => "no answer",
        };
        self.abort_main(now, why);
    }

    pub(super) fn link_deadline(&self) -> Millis {
        let main = match &self.main {
            None => Some(self.connect_at),
            Some(_) => self.link_due(),
        };
        let probe = self.probe.as_ref().map(|probe| probe.deadline);
        main.into_iter().chain(probe).min().unwrap_or(Millis::MAX)
    }
}
