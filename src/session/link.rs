//! Connecting, silence and identity.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::dialect::stock::Stock;
use crate::dialect::{Identity, Report};

use super::{Claim, Command, Conn, Link, Millis, Session, backoff};

/// A connection attempt to a known address: long enough for two retransmissions of a lost SYN
/// (1 s, 3 s), short enough that a device that comes back is not waited for at a dead socket.
const ATTEMPT: Millis = 3_200;
/// The first attempt may have to wait for a name server.
const FIRST_ATTEMPT: Millis = 10_000;
/// From the first answer of the other side to its snapshot.
const HANDSHAKE: Millis = 5_000;
/// The stock firmware sends readings at 2 Hz and nothing else: silence is a dead link.
const SILENCE: Millis = 5_000;
/// A connection that lasted this long was a good one: the next one is tried at once.
const GOOD: Millis = 10_000;

/// How far a connection has come.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Phase {
    /// Nobody has answered yet, or the handshake is under way, or its snapshot is awaited.
    Opening,
    /// The snapshot is there; whether the device is another section's is being asked.
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
    address: Option<SocketAddr>,
    pub(super) stock: Stock,
    pub(super) opened_at: Millis,
    live_at: Millis,
    last_report_at: Millis,
    /// The last heat and the last off that were written to it.
    pub(super) heat_at: Option<Millis>,
    pub(super) off_at: Option<Millis>,
    /// Heat was written and no report has come since.
    pub(super) unanswered: bool,
}

impl Main {
    fn new(conn: Conn, deadline: Millis) -> Self {
        Self {
            conn,
            phase: Phase::Opening,
            deadline,
            address: None,
            stock: Stock::default(),
            opened_at: 0,
            live_at: 0,
            last_report_at: 0,
            heat_at: None,
            off_at: None,
            unanswered: false,
        }
    }

    /// A write was delivered if reports arrived on the same connection at least 1 s after it.
    pub(super) fn delivered(&self, written: Millis) -> bool {
        self.last_report_at >= written + 1_000
    }

    pub(super) fn last_write(&self) -> Option<Millis> {
        self.heat_at.max(self.off_at)
    }

    fn due(&self) -> Millis {
        match self.phase {
            Phase::Live => self.last_report_at + SILENCE,
            Phase::Opening | Phase::Claiming(_) => self.deadline,
        }
    }
}

/// A second, short connection that only fetches a snapshot: the firmware has no other question.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) conn: Conn,
    pub(super) opened_at: Millis,
    deadline: Millis,
    stock: Stock,
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

    fn new_conn(&mut self) -> Conn {
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
        self.main = Some(Main::new(conn, now + attempt));
        self.commands.push_back(Command::Connect {
            conn,
            address: self.address,
        });
    }

    /// Opens the short connection, to the device that the main one has verified.
    pub(super) fn connect_probe(&mut self, now: Millis) {
        let conn = self.new_conn();
        self.probe = Some(Probe {
            conn,
            opened_at: 0,
            deadline: now + HANDSHAKE,
            stock: Stock::default(),
        });
        self.commands.push_back(Command::Connect {
            conn,
            address: self.address,
        });
    }

    pub(super) fn reached(&mut self, now: Millis, conn: Conn) {
        if let Some(main) = self.main.as_mut().filter(|main| main.conn == conn) {
            main.deadline = now + HANDSHAKE;
        }
    }

    pub(super) fn opened(&mut self, now: Millis, conn: Conn, address: SocketAddr) {
        if let Some(main) = self.main.as_mut().filter(|main| main.conn == conn) {
            main.opened_at = now;
            main.address = Some(address);
        } else if let Some(probe) = self.probe.as_mut().filter(|probe| probe.conn == conn) {
            probe.opened_at = now;
        }
    }

    pub(super) fn frame(&mut self, now: Millis, conn: Conn, bytes: &[u8]) {
        if self.main.as_ref().is_some_and(|main| main.conn == conn) {
            self.main_frame(now, bytes);
        } else if self.probe.as_ref().is_some_and(|probe| probe.conn == conn) {
            self.probe_frame(now, bytes);
        }
    }

    fn main_frame(&mut self, now: Millis, bytes: &[u8]) {
        let Some(main) = self.main.as_mut() else {
            return;
        };
        let Ok(report) = main.stock.decode(bytes) else {
            self.ignored += 1;
            return;
        };
        self.ignored += u64::from(report.ignored);
        match main.phase {
            // Whoever this is, it has not said so yet (rule R5).
            Phase::Opening if !report.is_snapshot() => {}
            Phase::Opening => self.identify(now, &report),
            Phase::Claiming(_) => {}
            Phase::Live => {
                // What says nothing we know is no sign of life either: out of step with the
                // stream, a reader finds such things for ever.
                if report
                    != (Report {
                        ignored: report.ignored,
                        ..Report::default()
                    })
                {
                    main.last_report_at = now;
                    main.unanswered = false;
                }
                self.report(now, &report);
            }
        }
    }

    fn identify(&mut self, now: Millis, report: &Report) {
        if let Err(why) = self.is_expected(report.identity) {
            return self.wrong_device(now, &why);
        }
        let Some(main) = self.main.as_mut() else {
            return;
        };
        main.phase = Phase::Claiming(Box::new(report.clone()));
        match report.identity {
            Some(identity) => self.commands.push_back(Command::Claim(identity)),
            None => self.claimed(now, Claim::Ours { doubt: false }),
        }
    }

    /// Every unit has the same host name: whoever answers must show that it is the one.
    fn is_expected(&self, identity: Option<Identity>) -> Result<(), String> {
        let shown = identity.map(Identity::last4);
        let shown = shown.as_deref().unwrap_or("unknown");
        if let Some(wanted) = &self.config.device_id {
            if shown != wanted {
                return Err(format!(
                    "device {shown} answers at {}, but option 'device_id' asks for {wanted}",
                    self.config.host
                ));
            }
        }
        match self.pinned {
            Some(pinned) if identity != Some(pinned) => Err(format!(
                "device {shown} answers at {}, but this was device {}; \
                 if you replaced it, restart the Klipper service",
                self.config.host,
                pinned.last4()
            )),
            _ => Ok(()),
        }
    }

    fn wrong_device(&mut self, now: Millis, why: &str) {
        let told = self.wrong && self.last_error.as_deref() == Some(why);
        self.wrong = true;
        if !told {
            self.tell(now, why.to_owned());
        }
        self.outage_told = true;
        self.abort_main(now, why);
    }

    pub(super) fn claimed(&mut self, now: Millis, claim: Claim<'_>) {
        let Some(main) = self.main.as_mut() else {
            return;
        };
        let Phase::Claiming(report) = std::mem::replace(&mut main.phase, Phase::Live) else {
            return;
        };
        match claim {
            Claim::Taken(by) => {
                let why =
                    format!("this is the same device as in [{by}]; remove one of the sections");
                self.wrong_device(now, &why);
            }
            Claim::Ours { doubt } => {
                if doubt {
                    self.off.heat_connection_ended(now, true);
                }
                self.live(now, &report);
            }
        }
    }

    fn live(&mut self, now: Millis, report: &Report) {
        let Some(main) = self.main.as_mut() else {
            return;
        };
        main.live_at = now;
        main.last_report_at = now;
        self.address = main.address;
        let opened_at = main.opened_at;
        self.pinned = self.pinned.or(report.identity);
        self.wrong = false;
        if !self.broken {
            self.last_error = None;
        }
        self.tell_live(now, report);
        self.reconnects += u32::from(self.ever_live);
        self.ever_live = true;
        self.snapshot_seen(now, opened_at, report);
    }

    fn tell_live(&mut self, now: Millis, report: &Report) {
        if self.ever_live {
            if std::mem::take(&mut self.outage_told) {
                let away = now.saturating_sub(self.lost_at);
                #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
                let away = away as f64 / 1000.0;
                self.tell(now, format!("connected again after {away:.1} s"));
            }
            return;
        }
        self.outage_told = false;
        let device = self
            .pinned
            .map_or_else(String::new, |id| format!(", device {}", id.last4()));
        let ip = self.address.map(|address| address.ip().to_string());
        let at = match ip {
            Some(ip) if ip != self.config.host => format!(" at {ip}"),
            _ => String::new(),
        };
        let firmware = report
            .firmware
            .as_ref()
            .map_or("unknown", |firmware| firmware.as_str());
        self.tell(
            now,
            format!(
                "connected to {}{at}, firmware {firmware}{device}",
                self.config.host
            ),
        );
    }

    fn probe_frame(&mut self, now: Millis, bytes: &[u8]) {
        let Some(probe) = self.probe.as_mut() else {
            return;
        };
        let Ok(report) = probe.stock.decode(bytes) else {
            return;
        };
        if !report.is_snapshot() {
            return;
        }
        let opened_at = probe.opened_at;
        self.abort_probe();
        if report.identity == self.pinned {
            self.snapshot_seen(now, opened_at, &report);
        } else {
            self.look_failed(now);
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
        if main
            .last_write()
            .is_some_and(|written| !main.delivered(written))
        {
            self.device.on = None; // what was written may never have been read
        }
        if main.phase == Phase::Live && now >= main.live_at + GOOD {
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
        self.connect_at = now + backoff::delay(attempts, now - since, jitter);
        self.attempts = self.attempts.saturating_add(1);
        if !self.broken {
            self.last_error = Some(Arc::from(why));
        }
        if main.phase == Phase::Live {
            self.lost_at = now;
        }
        if !self.outage_told && self.owned {
            self.outage_told = true;
            let host = &self.config.host;
            let text = if self.ever_live {
                format!("connection to {host} lost: {why}; trying again")
            } else {
                format!("cannot connect to {host}: {why}; trying again")
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
        if let Some(main) = self.main.as_ref().filter(|main| now >= main.due()) {
            let why = match main.phase {
                Phase::Live => "no report for 5 s",
                Phase::Opening | Phase::Claiming(_) if main.address.is_some() => {
                    "it accepts connections but does not send its state"
                }
                Phase::Opening | Phase::Claiming(_) => "no answer",
            };
            self.abort_main(now, why);
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

    pub(super) fn link_deadline(&self) -> Millis {
        let main = self.main.as_ref().map_or(self.connect_at, Main::due);
        let probe = self
            .probe
            .as_ref()
            .map_or(Millis::MAX, |probe| probe.deadline);
        main.min(probe)
    }
}
