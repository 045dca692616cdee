//! Klipper, as far as the shim shows it, and what it may expect.

use super::super::{Millis, Snapshot, Wish};

/// How often the shim looks.
pub(crate) const DRAIN: Millis = 1_000;

pub(crate) struct Klipper {
    pub(crate) target: f64,
    pub(crate) armed: bool,
    pub(crate) stalled: bool,
    pub(crate) obeyed: u32,
    pub(crate) renewed_at: Millis,
    pub(crate) next_drain: Millis,
    pub(crate) said: Option<Wish>,
}

impl Klipper {
    pub(crate) fn new(now: Millis) -> Self {
        Self {
            target: 0.0,
            armed: true,
            stalled: false,
            obeyed: 0,
            renewed_at: now,
            next_drain: now,
            said: None,
        }
    }

    /// Its wish, if it is another than the last.
    pub(crate) fn new_wish(&mut self) -> Option<Wish> {
        let wish = Wish {
            target: if self.armed { self.target } else { 0.0 },
            armed: self.armed,
            ack: self.obeyed,
        };
        (self.said.replace(wish) != Some(wish)).then_some(wish)
    }

    /// Follows a forced off; returns whether there was one.
    pub(crate) fn obeys(&mut self, snapshot: &Snapshot) -> bool {
        let new = snapshot.forced_offs != self.obeyed;
        if new {
            self.obeyed = snapshot.forced_offs;
            self.target = 0.0;
        }
        new
    }

    /// Rule R3, said a second time. Returns the target that heat must have.
    pub(crate) fn check_heat(&self, now: Millis, lease: Millis, forced_offs: u32) -> f64 {
        assert!(self.armed, "R3: heat in shutdown");
        assert!(self.target > 0.0, "R3: heat without a target");
        assert!(now < self.renewed_at + lease, "R3: heat without a lease");
        assert_eq!(self.obeyed, forced_offs, "R3: heat after a forced off");
        self.target
    }
}
