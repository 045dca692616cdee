//! Klipper, as far as the shim shows it, and what it may expect.

use super::super::{Millis, Snapshot, Wish};
use super::coverage::Want;

/// How often the shim looks.
pub(crate) const DRAIN: Millis = 1_000;

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Klipper {
    pub(crate) target: f64,
    /// It is filament that the target is for.
    pub(crate) dry: bool,
    /// When the device was first asked to.
    pub(crate) dry_since: Millis,
    pub(crate) armed: bool,
    pub(crate) stalled: bool,
    /// There is no printer: the device is orphaned.
    pub(crate) gone: bool,
    pub(crate) obeyed: u32,
    /// How many targets were set by somebody.
    pub(crate) hand: u32,
    /// The bed's target has been 0 since then, and since the last forced off.
    pub(crate) bed_was_off: bool,
    pub(crate) renewed_at: Millis,
    pub(crate) next_drain: Millis,
    pub(crate) said: Option<Wish>,
}

impl Klipper {
    pub(crate) fn new(now: Millis) -> Self {
        Self {
            target: 0.0,
            dry: false,
            dry_since: 0,
            armed: true,
            stalled: false,
            gone: false,
            obeyed: 0,
            hand: 0,
            bed_was_off: true,
            renewed_at: now,
            next_drain: now,
            said: None,
        }
    }

    /// A new printer: off, until somebody sets a target.
    pub(crate) fn starts(&mut self, now: Millis, forced_offs: u32) {
        *self = Self {
            obeyed: forced_offs,
            stalled: self.stalled,
            ..Self::new(now)
        };
    }

    /// Whether drying is over or as good as over. The device's clock began when it was last told, which
    /// may have been some seconds earlier: what came between was too soon after it to be written.
    pub(crate) fn has_dried(&self, now: Millis, hours: u8) -> bool {
        self.dry && now + 10_000 >= self.dry_since + u64::from(hours) * 3_600_000
    }

    /// Its wish, if it is another than the last.
    pub(crate) fn new_wish(&mut self, now: Millis) -> Option<Wish> {
        if self.gone {
            return None;
        }
        let wish = Wish {
            target: if self.armed { self.target } else { 0.0 },
            dry: self.dry,
            armed: self.armed,
            ack: self.obeyed,
            hand: self.hand,
        };
        let said = self.said.replace(wish);
        if said.is_none_or(|said| (said.target, said.dry) != (wish.target, wish.dry)) {
            self.dry_since = now;
        }
        (said != Some(wish)).then_some(wish)
    }

    /// Whether its reactor turns.
    pub(crate) fn turns(&self) -> bool {
        !self.stalled && !self.gone
    }

    /// Follows a forced off; returns whether there was one.
    pub(crate) fn obeys(&mut self, snapshot: &Snapshot) -> bool {
        let new = snapshot.forced_offs != self.obeyed;
        if new {
            self.obeyed = snapshot.forced_offs;
            self.bed_was_off = false;
            self.target = 0.0;
            self.dry = false;
        }
        new
    }

    /// Somebody sets a target.
    pub(crate) fn set(&mut self, target: f64) {
        self.target = target;
        self.dry = false;
        self.hand += 1;
        self.bed_was_off = false;
    }

    /// Somebody sets the dryer's target, and the chamber's goes to 0.
    pub(crate) fn dry(&mut self, target: f64) {
        self.set(target);
        self.dry = target > 0.0;
    }

    /// Follows the bed; returns whether it made a difference.
    pub(crate) fn follows(&mut self, snapshot: &Snapshot) -> bool {
        let follow = snapshot.follow.filter(|follow| follow.hand == self.hand);
        let target = follow.map_or(self.target, |follow| follow.target);
        let is_new = self.armed && target.total_cmp(&self.target).is_ne();
        if is_new {
            let holds = target > 0.0 && !self.bed_was_off;
            assert!(!holds, "the bed goes before what was set by hand");
            self.target = target;
            self.dry = false;
        }
        is_new
    }

    /// What a heater must make of it: the target, if all of rule R3 holds.
    pub(crate) fn wants(&self, now: Millis, lease: Millis, forced_offs: u32) -> Option<f64> {
        let is_good =
            !self.gone && self.armed && self.obeyed == forced_offs && now < self.renewed_at + lease;
        // What it has not said nobody can know.
        let said = self.said.is_some_and(|said| said.armed);
        (is_good && said && self.target > 0.0).then_some(self.target)
    }

    pub(crate) fn want(&self) -> Want {
        if self.gone {
            Want::Gone
        } else if !self.armed {
            Want::Shut
        } else if self.target > 0.0 {
            Want::Heat
        } else {
            Want::Off
        }
    }

    /// Rule R3, said a second time. Returns the target that heat must have.
    pub(crate) fn check_heat(&self, now: Millis, lease: Millis, forced_offs: u32) -> f64 {
        assert!(!self.gone, "R3: heat without a printer");
        assert!(self.armed, "R3: heat in shutdown");
        assert!(self.target > 0.0, "R3: heat without a target");
        assert!(now < self.renewed_at + lease, "R3: heat without a lease");
        assert_eq!(self.obeyed, forced_offs, "R3: heat after a forced off");
        self.target
    }
}
