//! A device behind a broker: whether it is there, whether what is delivered is it, and what the
//! broker itself has to say.
//!
//! The connection is the broker's and stays when the device goes. A device counts as there when it
//! has spoken twice, a second apart, in messages that the broker had not kept (rule R5): a bridge
//! that replays what it had kept does so at once.

use std::sync::Arc;

use crate::dialect::mqtt::{Delivery, LEARNT_WRONG, Mqtt, Terms};
use crate::dialect::{BrokerNews, Firmware, Identity, Report, Setting};

use super::link::Phase;
use super::{Claim, Command, Conn, Millis, Reason, Session, Trouble};

/// So far apart are two messages that prove a device to be there.
const PROOF: Millis = 1_000;
/// How often a device that says nothing is asked to.
const ASK_AGAIN: Millis = 3_000;
/// The same while it is away, or while another answers.
const ASK_AWAY: Millis = 10_000;
/// So long after the broker was reached a device that is not there is worth a line.
const WORTH_A_LINE: Millis = 10_000;
/// So long after another device has answered in its place neither is believed.
const STRANGER: Millis = 60_000;
/// Why a device is not there when the broker is; at first, and when it has been for a while.
const NOT_YET: &str = "the broker answers; waiting for the device to speak";
const SILENT: &str = "the broker answers, but nothing is heard from the device; check \
                      mqtt_topic_prefix, and whether the broker lets us read there";
/// More retained commands than there are topics for them.
const MOST_RETAINED: usize = 8;

/// What is known of a device on this connection to its broker.
#[derive(Clone, Debug, Default)]
pub(super) struct Voice {
    /// What the connection was made with.
    pub(super) terms: Terms,
    /// Who it says it is.
    identity: Option<Identity>,
    /// Another one that spoke in its place, and when.
    stranger: Option<(Identity, Millis)>,
    firmware: Option<Firmware>,
    /// When it spoke first, and last, since it was last gone.
    first: Option<Millis>,
    last: Option<Millis>,
    asked_at: Option<Millis>,
    /// An off has been taken for our own will's, or none is due.
    pub(super) will_seen: bool,
    /// Commands that the broker has kept.
    retained: Vec<Arc<str>>,
}

impl Session {
    /// The broker has accepted us and every subscription.
    pub(super) fn broker_opened(&mut self, now: Millis) {
        let Some(main) = self.main.as_mut() else {
            return;
        };
        main.phase = Phase::Waiting;
        main.voice.will_seen = !std::mem::take(&mut self.will_was_due);
        self.address = main.address;
        if let Some(mqtt) = self.mqtt.as_mut() {
            mqtt.forget_state();
        }
        if !self.wrong && !self.broken {
            self.last_error = Some(NOT_YET.into());
        }
        self.ask_device(now);
    }

    /// A message from the broker.
    pub(super) fn delivered(&mut self, now: Millis, conn: Conn, delivery: Delivery<'_>) {
        let (Some(main), Some(mqtt)) = (self.main.as_mut(), self.mqtt.as_mut()) else {
            return;
        };
        if main.conn != conn || main.phase == Phase::Opening {
            return;
        }
        let Ok(report) = mqtt.decode(delivery) else {
            self.ignored += 1;
            return;
        };
        self.ignored += u64::from(report.ignored);
        if mqtt.take_changed() && mqtt.terms() != main.voice.terms {
            return self.renew_terms(now);
        }
        match (self.pinned.or(main.voice.identity), report.identity) {
            (Some(known), Some(other)) if other != known => {
                if self.pinned.is_some() {
                    if !delivery.retained {
                        main.voice.stranger = Some((other, now));
                    }
                    main.voice.identity = main.voice.identity.or(Some(other));
                } else if !delivery.retained {
                    // Who spoke first may have been the stray one: who goes on speaking is it.
                    main.voice.stranger = Some((known, now));
                    main.voice.identity = Some(other);
                }
            }
            (_, told) => main.voice.identity = told.or(main.voice.identity),
        }
        main.voice.firmware = report.firmware.or(main.voice.firmware);
        self.device.target_limit = report.target_limit.or(self.device.target_limit);
        if let Some(news) = &report.broker {
            self.broker_news(now, news);
            if matches!(news, BrokerNews::SeveralDevices(_)) {
                return; // whose word this is cannot be told
            }
        }
        match report.present {
            Some(false) => {
                return self.device_away(now, "the broker says that the device is offline");
            }
            Some(true) if !delivery.retained => self.device_came(now),
            Some(true) | None => {}
        }
        if !delivery.retained && report.is_from_device() {
            self.spoken(now, &report);
        }
    }

    /// What was learnt moves our will, or what must be listened to.
    fn renew_terms(&mut self, now: Millis) {
        let heats = self
            .device
            .last_sent
            .is_some_and(|sent| sent != Setting::Off);
        let why = "its topics have changed";
        if heats {
            return self.abort_main(now, why); // with a will that still means something
        }
        let told = std::mem::replace(&mut self.outage_told, true);
        self.leave_main(now, why);
        self.outage_told = told;
        self.connect_at = if self.terms_budget.take(now) {
            now
        } else {
            now + ASK_AGAIN
        };
    }

    fn broker_news(&mut self, now: Millis, news: &BrokerNews) {
        match news {
            BrokerNews::RetainedCommand(topic) => self.retained_command(now, topic),
            BrokerNews::CommandCleared(topic) => {
                if let Some(main) = self.main.as_mut() {
                    main.voice.retained.retain(|kept| **kept != **topic);
                }
                let before = self.retained.len();
                self.retained.retain(|kept| **kept != **topic);
                if self.retained.len() < before {
                    self.tell(
                        now,
                        format!("the broker no longer keeps a command on {topic}"),
                    );
                }
            }
            BrokerNews::Refused(why) => {
                self.tell(now, why.clone());
                self.last_error = Some(why.as_str().into());
            }
            BrokerNews::SeveralDevices(names) => {
                let place = self.place();
                let why = format!(
                    "several devices answer below {place}: {names}; \
                     choose one with mqtt_device_id"
                );
                self.wrong_device(now, &why);
            }
        }
    }

    fn retained_command(&mut self, now: Millis, topic: &str) {
        let topic: Arc<str> = topic.into();
        let Some(main) = self.main.as_mut() else {
            return;
        };
        if !main.voice.retained.contains(&topic) {
            main.voice.retained.push(Arc::clone(&topic));
        }
        if self.retained.contains(&topic) || self.retained.len() >= MOST_RETAINED {
            return;
        }
        let text = Trouble::RetainedCommand(Arc::clone(&topic)).text();
        let wanted_heat = self.wants_heat();
        self.retained.push(topic);
        if wanted_heat {
            self.force_off(now, Reason::Refused, text);
        } else {
            self.tell(now, text);
        }
    }

    /// It has connected to the broker, now. It may have restarted, and then it is what its firmware
    /// makes it.
    fn device_came(&mut self, now: Millis) {
        self.wait_for_device(now);
        self.device.restarted = true;
        self.device.forget_state();
        self.asked = None;
        self.ask_device(now);
    }

    /// It is gone: by the broker's word, which is its will or its own goodbye, or for all we hear.
    fn device_away(&mut self, now: Millis, why: &str) {
        let was_live = self
            .main
            .as_ref()
            .is_some_and(|main| main.phase == Phase::Live);
        self.wait_for_device(now);
        self.device.forget_state();
        self.asked = None;
        if !self.broken && !self.wrong {
            self.last_error = Some(why.into());
        }
        if was_live && self.owned && !self.outage_told {
            self.outage_told = true;
            let place = self.place();
            self.tell(
                now,
                format!("connection to {place} lost: {why}; waiting for it"),
            );
        }
    }

    /// From now on it must show once more that it is there.
    pub(super) fn wait_for_device(&mut self, now: Millis) {
        let Some(main) = self.main.as_mut() else {
            return;
        };
        if main.phase == Phase::Live {
            self.lost_at = now;
        }
        main.phase = Phase::Waiting;
        main.voice.first = None;
        main.voice.last = None;
    }

    /// The device itself speaks, now.
    fn spoken(&mut self, now: Millis, report: &Report) {
        let silence = self.silence();
        let Some(main) = self.main.as_mut() else {
            return;
        };
        main.last_report_at = now;
        let gap = main.voice.last.is_some_and(|last| now >= last + silence);
        if gap {
            main.voice.first = None;
        }
        main.voice.last = Some(now);
        let first = *main.voice.first.get_or_insert(now);
        match main.phase {
            Phase::Opening | Phase::Claiming(_) => {}
            Phase::Waiting => {
                self.state_told(now, report);
                if now >= first + PROOF {
                    self.identify_voice(now, report);
                }
            }
            Phase::Live => {
                if self.two_devices(now) {
                    return;
                }
                self.state_told(now, report);
                self.take(now, report);
                self.confirm_off(now);
            }
        }
    }

    /// Whether another device answers in the place of this one: then neither is believed.
    fn two_devices(&mut self, now: Millis) -> bool {
        let voice = self.main.as_ref().map(|main| &main.voice);
        let stranger = voice.and_then(|voice| voice.stranger);
        let Some((stranger, _)) = stranger.filter(|(_, at)| now < at + STRANGER) else {
            return false;
        };
        let known = self.pinned.or(voice.and_then(|voice| voice.identity));
        let known = known.map_or_else(|| "unknown".into(), Identity::last4);
        let why = format!(
            "devices {known} and {} both answer at {}; give each a topic_prefix of its own, or \
             restart the Klipper service if one replaces the other",
            stranger.last4(),
            self.place()
        );
        self.wrong_device(now, &why);
        true
    }

    fn identify_voice(&mut self, now: Millis, report: &Report) {
        let Some(main) = self.main.as_mut() else {
            return;
        };
        let (identity, firmware) = (main.voice.identity, main.voice.firmware);
        if self.two_devices(now) {
            return;
        }
        if let Err(why) = self.is_expected(identity) {
            return self.wrong_device(now, &why);
        }
        let Some(main) = self.main.as_mut() else {
            return;
        };
        // Commands that are no longer kept were cleared while we were away.
        self.retained.clone_from(&main.voice.retained);
        main.phase = Phase::Claiming(Box::new(Report {
            firmware,
            identity,
            ..report.clone()
        }));
        main.claimed_at = now;
        match identity {
            Some(identity) => self.commands.push_back(Command::Claim(identity)),
            None => self.claimed(now, None, Claim::Ours { doubt: false }),
        }
    }

    /// Says why a device that is waited for does not come, and asks one that is silent.
    pub(super) fn check_voice(&mut self, now: Millis) {
        let silence = self.silence();
        let Some(main) = self.main.as_ref().filter(|_| self.mqtt.is_some()) else {
            return;
        };
        if main.phase == Phase::Live && now >= main.last_report_at + silence {
            let why = format!("no word from the device for {} s", silence / 1000);
            self.device_away(now, &why);
        }
        if self.line_due().is_some_and(|at| now >= at) {
            self.outage_told = true;
            if self.last_error.as_deref() == Some(NOT_YET) {
                self.last_error = Some(SILENT.into());
            }
            let place = self.place();
            let why = self.last_error.clone().unwrap_or_default();
            self.tell(now, format!("cannot reach {place}: {why}; waiting for it"));
        }
        if self.question_due().is_some_and(|at| now >= at) {
            self.ask_device(now);
        }
        if self.doubt_due().is_some_and(|at| now >= at) {
            self.mqtt = self.config.mqtt.as_ref().map(Mqtt::new);
            self.renew_terms(now);
        }
    }

    /// When what was learnt from somebody who never came is to be doubted.
    fn doubt_due(&self) -> Option<Millis> {
        let main = self.main.as_ref()?;
        let in_vain = main.phase == Phase::Waiting && !self.ever_live;
        let learnt = self.mqtt.as_ref().is_some_and(Mqtt::has_learnt);
        let last = main.voice.last.unwrap_or(main.opened_at);
        (in_vain && learnt && !self.wrong).then_some(last + LEARNT_WRONG)
    }

    fn line_due(&self) -> Option<Millis> {
        let main = self.main.as_ref()?;
        let waits = main.phase == Phase::Waiting && self.owned && !self.outage_told;
        waits.then_some(main.opened_at.max(self.lost_at) + WORTH_A_LINE)
    }

    fn question_due(&self) -> Option<Millis> {
        let main = self.main.as_ref()?;
        self.mqtt.as_ref().filter(|mqtt| mqtt.answers())?;
        let asked = main.voice.asked_at.unwrap_or_default();
        match main.phase {
            Phase::Waiting if self.wrong => Some(asked + ASK_AWAY),
            Phase::Waiting => Some(match main.voice.first {
                Some(first) => (first + PROOF).max(asked + PROOF),
                None => asked + ASK_AWAY,
            }),
            Phase::Live => Some((main.last_report_at + self.silence() / 2).max(asked + ASK_AGAIN)),
            Phase::Opening | Phase::Claiming(_) => None,
        }
    }

    fn ask_device(&mut self, now: Millis) {
        let question = self.mqtt.as_ref().and_then(Mqtt::question);
        let Some(main) = self.main.as_mut() else {
            return;
        };
        main.voice.asked_at = Some(now);
        if let Some(question) = question {
            self.commands
                .push_back(Command::Publish(main.conn, question));
        }
    }

    fn silence(&self) -> Millis {
        self.mqtt.as_ref().map_or(0, Mqtt::silence)
    }

    pub(super) fn voice_deadline(&self) -> Option<Millis> {
        self.mqtt.as_ref()?;
        let main = self.main.as_ref()?;
        let silent = (main.phase == Phase::Live).then(|| main.last_report_at + self.silence());
        [
            silent,
            self.line_due(),
            self.question_due(),
            self.doubt_due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
