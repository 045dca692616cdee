//! Commands that the device confirms by what it says afterwards: a device behind a broker tells
//! every change of its state.
//!
//! One wish is open at a time. What the device says within [`CROSSING`] of a command may have been
//! on its way before, and settles nothing.

use crate::dialect::mqtt::Mqtt;
use crate::dialect::{Setting, Target};

use super::device::CROSSING;
use super::link::Phase;
use super::steer::Want;
use super::{Command, Millis, Reason, Session, Trouble};

/// A command that is not confirmed by then is said again.
const CONFIRM: Millis = 3_000;
/// How often heat is said before the device is taken not to want it.
const TRIES: u32 = 2;
/// A device that says nothing at all about it is given up by then.
const NO_ANSWER: Millis = 15_000;
/// Off is said again this often for as long as it takes.
const OFF_AGAIN: Millis = 5_000;
/// Off that is not confirmed by then is a fault that the user must see.
const OFF_OVERDUE: Millis = 30_000;

/// What the device was asked to be and has not yet confirmed.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    setting: Setting,
    first_at: Millis,
    at: Millis,
    tries: u32,
    /// The device has said what it does since this was last said to it.
    pub(super) told: bool,
}

impl Session {
    /// What to publish now. The connection is the broker's, and open.
    pub(super) fn steer_broker(&mut self, now: Millis) {
        match self.want() {
            Want::LeaveOn => {}
            Want::Off => {
                if self.off_due(now).is_some_and(|at| now >= at) {
                    self.publish_off(now);
                }
            }
            Want::Heat(setting) => {
                if self.heat_due(now, setting).is_some_and(|at| now >= at) {
                    self.publish_heat(now, setting);
                }
            }
        }
    }

    /// Takes note of what has been confirmed, and of what has not for too long.
    pub(super) fn check_asked(&mut self, now: Millis) {
        let Some(asked) = self.asked.clone() else {
            return;
        };
        let told = asked.told && now >= asked.at + CROSSING;
        let is_so = match asked.setting {
            Setting::Off => self.is_told_off(),
            Setting::Heat(_) | Setting::Dry { .. } => self.device.is(asked.setting),
        };
        if told && is_so {
            self.asked = None;
            self.device.heat_confirmed = asked.setting != Setting::Off;
            self.confirm_off(now);
            return;
        }
        let live = self.main.as_ref().filter(|main| main.phase == Phase::Live);
        let Some(live_at) = live.map(|main| main.live_at) else {
            return;
        };
        match asked.setting {
            Setting::Off => {
                let overdue = now >= asked.first_at.max(live_at) + OFF_OVERDUE;
                if overdue && self.device.trouble != Some(Trouble::StillHeats) {
                    self.device.trouble = Some(Trouble::StillHeats);
                    self.tell(now, Trouble::StillHeats.text());
                }
            }
            Setting::Heat(target) | Setting::Dry { target, .. } => {
                let tried = asked.tries >= TRIES && now >= asked.at + CONFIRM;
                let overdue = (tried && !self.is_unanswered()) || now >= asked.first_at + NO_ANSWER;
                if overdue && self.wants_heat() {
                    let why = self.why_not(asked.setting, target);
                    self.asked = None;
                    if self.is_unanswered() {
                        self.device.forget_state(); // it is older than what was asked
                    }
                    self.force_off(now, Reason::Refused, why);
                }
            }
        }
    }

    /// Heat was published, and the device has not said anything about itself since.
    fn is_unanswered(&self) -> bool {
        self.main.as_ref().is_some_and(|main| main.unanswered)
    }

    fn why_not(&self, setting: Setting, target: Target) -> String {
        let mqtt = self.mqtt.as_ref();
        if let Some(missing) = mqtt.and_then(Mqtt::what_is_missing) {
            return missing;
        }
        match (self.device.on, self.device.target) {
            (Some(true), Some(told))
                if setting == Setting::Heat(target) && !self.device.is_near(target.celsius()) =>
            {
                let remedy = if told < target.celsius() {
                    mqtt.map_or("", Mqtt::limit_remedy)
                } else {
                    "look for another program that controls it" // nothing clamps upwards
                };
                format!("the device set its target to {told} C instead of {target} C; {remedy}")
            }
            (Some(false), _) => "the device was told to heat, twice, and stays off".into(),
            _ if setting != Setting::Heat(target) => "the device does not begin to dry".into(),
            _ => "the device does not answer to its target".into(),
        }
    }

    /// Off is known when the device has said so, of itself and of its element, late enough.
    pub(super) fn confirm_off(&mut self, now: Millis) {
        let live = self
            .main
            .as_ref()
            .is_some_and(|main| main.phase == Phase::Live);
        let ready = live && now >= self.off.proof_from() && self.asked.is_none();
        if !ready || self.want() != Want::Off || !self.is_told_off() || !self.off.seen_off(now) {
            return;
        }
        let over = matches!(
            self.device.trouble,
            Some(Trouble::StillHeats | Trouble::WillNotStayOff)
        );
        if over {
            if self.device.trouble == Some(Trouble::StillHeats) {
                self.tell(now, "the device is off now".to_owned());
            }
            self.device.trouble = None;
        }
    }

    /// The device says that it is off, and that its element is.
    fn is_told_off(&self) -> bool {
        self.device.on == Some(false) && self.device.heating == Some(false)
    }

    /// When off is to be said. Never later than now, the first time.
    fn off_due(&mut self, now: Millis) -> Option<Millis> {
        let main = self.main.as_ref()?;
        let owes = self
            .device
            .last_sent
            .is_some_and(|sent| sent != Setting::Off);
        if self.wrong && !owes {
            return None; // somebody else's device
        }
        match &self.asked {
            Some(asked) if asked.setting == Setting::Off => {
                // Into silence it is said once: it would only be heard if somebody listened.
                let heard = main.last_report_at >= asked.at;
                heard.then_some(asked.at + OFF_AGAIN)
            }
            None if self.is_told_off() => None,
            None if main.off_at.is_some() => Some(self.repeat_budget.ready_at(now)),
            None | Some(_) => Some(0),
        }
    }

    fn publish_off(&mut self, now: Millis) {
        let Some(main) = self.main.as_mut() else {
            return;
        };
        if main.off_at.is_some() && self.asked.is_none() {
            self.repeat_budget.take(now);
        }
        main.off_at = Some(now);
        self.publish(now, Setting::Off, true);
    }

    /// When heat is to be said; `None` while it waits for something that is not time.
    fn heat_due(&mut self, now: Millis, setting: Setting) -> Option<Millis> {
        let main = self.main.as_ref()?;
        if main.phase != Phase::Live || self.device.declined_at.is_some() || !self.is_guarded() {
            return None;
        }
        let ready = self.heat_budget.ready_at(now);
        match &self.asked {
            // Rule R4: one unanswered at the most.
            _ if main.unanswered => None,
            Some(asked) if asked.setting.is_like(setting) => {
                (asked.tries < TRIES).then_some(ready.max(asked.at + CONFIRM))
            }
            None if self.device.is(setting) => None,
            None if self.is_correction(setting) => {
                Some(ready.max(self.correction_budget.ready_at(now)))
            }
            _ => Some(ready),
        }
    }

    fn publish_heat(&mut self, now: Millis, setting: Setting) {
        self.heat_budget.take(now);
        if self.asked.is_none() && self.is_correction(setting) && self.device.on == Some(true) {
            self.correct(now);
        }
        let again = matches!(&self.asked, Some(asked) if asked.setting.is_like(setting));
        let Some(main) = self.main.as_mut() else {
            return;
        };
        main.heat_at = Some(now);
        self.device.external_off = false;
        self.off
            .heat_sent(setting.target().map_or(0.0, Target::celsius));
        // Where it is on already, only the target changes; what was not confirmed is said whole.
        let on = self.device.on == Some(true) && self.asked.is_none() && !again;
        self.publish(now, setting, on);
    }

    fn publish(&mut self, now: Millis, setting: Setting, on: bool) {
        let (Some(main), Some(mqtt)) = (&self.main, &self.mqtt) else {
            return;
        };
        let conn = main.conn;
        let messages = mqtt.encode(setting, on);
        if let (true, false, Some(main)) = (
            setting != Setting::Off,
            messages.is_empty(),
            self.main.as_mut(),
        ) {
            main.unanswered = true;
        }
        let publish = |message| Command::Publish(conn, message);
        self.commands.extend(messages.into_iter().map(publish));
        self.device.last_sent = Some(setting);
        self.device.heat_confirmed &= setting != Setting::Off;
        let asked = self.asked.as_mut();
        match asked.filter(|asked| asked.setting.is_like(setting)) {
            Some(asked) => {
                asked.at = now;
                asked.tries += 1;
                asked.told = false;
            }
            None => {
                self.asked = Some(Asked {
                    setting,
                    first_at: now,
                    at: now,
                    tries: 1,
                    told: false,
                });
            }
        }
    }

    pub(super) fn ask_deadline(&mut self, now: Millis) -> Option<Millis> {
        self.mqtt.as_ref()?;
        let main = self.main.as_ref()?;
        let (open, live_at) = (main.phase != Phase::Opening, main.live_at);
        let send = match self.want() {
            Want::LeaveOn => None,
            Want::Off => self.off_due(now),
            Want::Heat(setting) => self.heat_due(now, setting),
        };
        let asked = self.asked.as_ref().map(|asked| match asked.setting {
            _ if now < asked.at + CROSSING => asked.at + CROSSING,
            Setting::Off => asked.first_at.max(live_at) + OFF_OVERDUE,
            _ if now < asked.at + CONFIRM => asked.at + CONFIRM,
            Setting::Heat(_) | Setting::Dry { .. } => asked.first_at + NO_ANSWER,
        });
        // What is overdue already waits for the device, not for time.
        let asked = asked.filter(|at| *at > now);
        send.filter(|_| open).into_iter().chain(asked).min()
    }
}
