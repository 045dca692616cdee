//! The stock firmware's own WebSocket: a stream of reports, and a second, short connection when a
//! fresh snapshot is wanted, because the firmware has no other question and acknowledges nothing.

use crate::dialect::stock::Stock;
use crate::dialect::{Report, Target};

use super::device::CROSSING;
use super::link::{HANDSHAKE, Main, Phase};
use super::off::KNOWN_FOR;
use super::steer::Want;
use super::{Claim, Command, Conn, Millis, Session, Trouble};

/// While heating and below target another client's off would otherwise go unnoticed.
const LOOK_HEATING: Millis = 60_000;
/// After a look that failed.
const LOOK_AGAIN: Millis = 2_000;
/// Off whose effect cannot be looked at is said again this often. Each is a flash save there.
const OFF_UNSEEN: Millis = 60_000;
/// Reports only prove that the device is heard, not that it hears: heat may be on its way for a
/// few retransmissions more, and whoever looks too early takes that for somebody's off.
const HEAT_ARRIVES: Millis = 5_000;

/// A second, short connection that only fetches a snapshot: the firmware has no other question.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) conn: Conn,
    pub(super) opened_at: Millis,
    pub(super) deadline: Millis,
    stock: Stock,
}

impl Session {
    pub(super) fn socket_frame(&mut self, now: Millis, conn: Conn, bytes: &[u8]) {
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
            Phase::Waiting | Phase::Claiming(_) => {}
            Phase::Live => {
                if report.is_from_device() {
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
        main.claimed_at = now;
        match report.identity {
            Some(identity) => self.commands.push_back(Command::Claim(identity)),
            None => self.claimed(now, None, Claim::Ours { doubt: false }),
        }
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
            terms: None,
        });
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

    /// A snapshot of the verified device, from a connection opened at `opened_at`.
    pub(super) fn snapshot_seen(&mut self, now: Millis, opened_at: Millis, report: &Report) {
        let written = self.main.as_ref().and_then(Main::last_write);
        if written.is_some_and(|written| opened_at < written + CROSSING) {
            return; // older than what it should tell about
        }
        self.device.last_look = now;
        if self.device.trouble == Some(Trouble::CannotAsk) {
            self.device.trouble = None;
        }
        self.device.doubt_at = None;
        self.device.firmware = report.firmware.or(self.device.firmware);
        match report.on {
            Some(true) => self.snapshot_says_on(now),
            Some(false) => self.snapshot_says_off(now, opened_at),
            None => {}
        }
        self.take(now, report);
    }

    fn snapshot_says_on(&mut self, now: Millis) {
        match self.want() {
            Want::Heat(_) => return,
            Want::LeaveOn => return self.off.seen_on(),
            Want::Off => {}
        }
        let was_off = self.device.on == Some(false);
        self.device.on = Some(true);
        if !was_off {
            self.off.seen_on();
            self.tell(now, "the device is on; turning it off".to_owned());
        } else if self.may_stay_on() {
            self.off.seen_on();
            self.external_on(now, "the device was turned on by another client");
        } else {
            self.found_on(now);
        }
    }

    fn found_on(&mut self, now: Millis) {
        let fault = self.count_found_on(now);
        if !fault && self.off.was_off() {
            self.tell(
                now,
                "the device was found on again; turning it off".to_owned(),
            );
        }
    }

    fn snapshot_says_off(&mut self, now: Millis, opened_at: Millis) {
        if self.wants_heat() && self.device.on == Some(true) {
            self.declined(now);
        }
        self.device.on = Some(false);
        if opened_at >= self.off.proof_from()
            && self.off.seen_off(now)
            && self.device.trouble == Some(Trouble::WillNotStayOff)
        {
            self.device.trouble = None;
        }
    }

    /// A message on the live connection that is not a snapshot asked for.
    pub(super) fn report(&mut self, now: Millis, report: &Report) {
        let crossing = self
            .main
            .as_ref()
            .and_then(Main::last_write)
            .is_some_and(|written| now < written + CROSSING);
        if crossing && (report.on.is_some() || report.mode.is_some()) {
            self.device.doubt_at = Some(now + CROSSING);
            // Off may not wait for the doubt: an on that is not ours is taken at once.
            if report.on == Some(true) && self.want() == Want::Off {
                self.pushed_on(now);
            }
            let measured = Report {
                reading: report.reading,
                fault: report.fault,
                ..Report::default()
            };
            return self.take(now, &measured);
        }
        match report.on {
            Some(true) => self.pushed_on(now),
            Some(false) => {
                if self.wants_heat() && self.device.on == Some(true) {
                    self.declined(now);
                }
                self.device.on = Some(false);
            }
            None => {}
        }
        self.take(now, report);
    }

    /// A button, most likely: other clients' writes are not pushed.
    fn pushed_on(&mut self, now: Millis) {
        self.device.declined_at = None; // the last press counts
        if let Want::Heat(_) = self.want() {
            return;
        }
        let was_off = self.device.on == Some(false);
        self.device.on = Some(true);
        self.off.seen_on();
        if was_off {
            self.external_on(now, "the device was turned on by hand");
        }
    }

    /// A fresh snapshot could not be had. A device that takes no new connection can still be told on
    /// the one there is, and is, for as long as it is not known to be off.
    pub(super) fn look_failed(&mut self, now: Millis) {
        self.device.last_look = now;
        let (Want::Off, Some(main)) = (self.want(), &self.main) else {
            return;
        };
        let due = main.off_at.is_none_or(|at| now >= at + OFF_UNSEEN);
        if main.phase != Phase::Live || !self.off.is_doubtful(now) || !due {
            return;
        }
        if main.off_at.is_some() && self.device.trouble.is_none() {
            self.device.trouble = Some(Trouble::CannotAsk);
            self.tell(now, Trouble::CannotAsk.text());
        }
        self.device.on = None;
    }

    /// From when on a connection must be opened so that its snapshot proves something: after our
    /// last write has been delivered, and after ended connections have drained.
    fn proof_from(&self) -> Option<Millis> {
        let main = self.main.as_ref()?;
        let written = match main.last_write() {
            Some(written) if main.delivered(written) => written + CROSSING,
            Some(_) => return None,
            None => 0,
        };
        Some(written.max(self.off.proof_from()))
    }

    pub(super) fn look_due(&self) -> Option<Millis> {
        let earliest = self.proof_from()?.max(self.device.last_look + LOOK_AGAIN);
        let wanted = if let Some(doubt) = self.device.doubt_at {
            doubt
        } else {
            match self.want() {
                Want::Off => self.off.next_look(earliest, self.device.last_look),
                Want::Heat(setting) => {
                    let below = setting.target().is_some_and(|target| self.is_below(target));
                    let every = if below { LOOK_HEATING } else { KNOWN_FOR };
                    (self.device.last_look + every).max(self.heat_at() + HEAT_ARRIVES)
                }
                Want::LeaveOn => self.device.last_look + KNOWN_FOR,
            }
        };
        Some(wanted.max(earliest))
    }

    fn heat_at(&self) -> Millis {
        let main = self.main.as_ref();
        main.and_then(|main| main.heat_at).unwrap_or_default()
    }

    fn is_below(&self, target: Target) -> bool {
        self.reading
            .is_none_or(|reading| reading.celsius < target.celsius())
    }
}
