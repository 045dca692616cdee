//! What the guard needs: the process that turns the device off when this one cannot (rule R8).
//!
//! A session tells what it would leave behind if it ended now ([`Session::bequest`]), and until
//! when it must have been heard of again ([`Session::good_until`]). The guard goes on from there
//! with a session of its own ([`Session::bequeathed`]), which only turns off.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::dialect::{Dialect, Identity};

use super::{Config, Millis, Reason, Session, Trouble};

/// So much longer than the lease a frozen process is waited for: its own driver is the first to
/// turn off.
const GRACE: Millis = 3_000;
/// So long heating goes on while no guard runs, because another one is being started.
const UNGUARDED: Millis = 10_000;
/// An ESPHome node saves its mode once per minute: a power cut right after the off may bring heat
/// back.
const VIGIL: Millis = 70_000;

/// What is left behind if a session ends now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bequest {
    /// Where the device, or its broker, was when it was last verified.
    pub address: Option<SocketAddr>,
    /// Who it is.
    pub identity: Option<Identity>,
    /// It is not known to be off.
    pub may_be_on: bool,
    /// Heat may still be on its way to it (rule R4).
    pub undelivered: bool,
}

/// Whether there is a guard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Guard {
    /// It is being started.
    #[default]
    Starting,
    /// It watches.
    Watching,
    /// It is turning the device off, because this process was not heard of.
    Busy,
    /// There is none, and why.
    Gone(Arc<str>),
}

/// What a session knows about its guard.
#[derive(Clone, Debug, Default)]
pub(super) struct Guarded {
    guard: Guard,
    /// Since when there is none that watches.
    since: Option<Millis>,
    /// This session is the guard's own.
    is_guard: bool,
}

impl Session {
    /// What somebody else would have to take care of if this session ended now.
    pub fn bequest(&self) -> Bequest {
        let written = self.main.as_ref().and_then(|main| {
            let heat_at = main.heat_at?;
            Some(!main.delivered(heat_at))
        });
        Bequest {
            address: self.address,
            identity: self.pinned,
            may_be_on: self.ever_live && !self.off.was_seen(),
            undelivered: written.unwrap_or(false) || self.off.is_undelivered(),
        }
    }

    /// By when this session must have been heard of again. The reactor's last sign of life counts
    /// while heat is wanted: it is a second judge of the lease.
    pub fn good_until(&self, now: Millis) -> Millis {
        let since = if self.wants_heat() {
            self.renewed_at.min(now)
        } else {
            now
        };
        since + self.config.lease + GRACE
    }

    /// Goes on where a process has ended, or stopped: turns the device off and ends.
    pub fn bequeathed(config: Config, seed: u64, bequest: &Bequest, now: Millis) -> Self {
        let mut session = Self::new(config, seed);
        session.owned = false;
        session.orphaned_at = now;
        session.started_at = now;
        session.ever_live = true;
        session.outage_told = false;
        session.address = bequest.address;
        session.pinned = bequest.identity;
        session.guarded.is_guard = true;
        session.off.heat_connection_ended(now, bequest.undelivered);
        session
    }

    /// Whether this session is the guard's.
    pub(super) fn is_guard(&self) -> bool {
        self.guarded.is_guard
    }

    pub(super) fn guard_is(&mut self, now: Millis, guard: &Guard) {
        self.guarded.guard = guard.clone();
        self.guarded.since = match guard {
            Guard::Watching => None,
            Guard::Starting | Guard::Busy | Guard::Gone(_) => self.guarded.since.or(Some(now)),
        };
    }

    /// No heat is commanded while nobody would turn it off after us.
    pub(super) fn is_guarded(&self) -> bool {
        !self.config.guard || self.guarded.guard == Guard::Watching
    }

    pub(super) fn check_guard(&mut self, now: Millis) {
        if self.unguarded_due().is_some_and(|at| now >= at) {
            let text = format!(
                "no guard process for {} s{}",
                UNGUARDED / 1000,
                self.no_guard()
            );
            self.force_off(now, Reason::Unguarded, text);
        }
    }

    pub(super) fn unguarded_due(&self) -> Option<Millis> {
        let since = self.guarded.since.unwrap_or(self.started_at);
        let late = (since + UNGUARDED).max(self.wish_changed_at + UNGUARDED);
        (self.wants_heat() && !self.is_guarded()).then_some(late)
    }

    fn no_guard(&self) -> String {
        match &self.guarded.guard {
            Guard::Gone(why) => format!(": {why}"),
            Guard::Starting | Guard::Watching | Guard::Busy => String::new(),
        }
    }

    pub(super) fn guard_trouble(&self) -> Option<Trouble> {
        match &self.guarded.guard {
            Guard::Gone(why) if self.config.guard => Some(Trouble::Unguarded(Arc::clone(why))),
            Guard::Gone(_) | Guard::Starting | Guard::Watching | Guard::Busy => None,
        }
    }

    /// How long after off is known the guard looks on.
    pub(super) fn vigil(&self) -> Millis {
        if self.is_guard() && self.dialect() == Some(Dialect::Esphome) {
            VIGIL
        } else {
            0
        }
    }
}
