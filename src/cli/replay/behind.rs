//! What a session that only looks needs of a broker: what that would tell whoever subscribes anew,
//! and what the device does.

use std::collections::BTreeMap;

use crate::cli::monitor::view::View;
use crate::dialect::Mode;
use crate::dialect::mqtt::Options;
use crate::driver::stay::Arrival;
use crate::driver::watch::Heard;
use crate::session::Millis;

/// More topics than a device has (rule R6).
const MOST_TOPICS: usize = 64;

pub(super) struct Behind {
    view: View,
    /// The newest message on each topic.
    newest: BTreeMap<String, Arrival>,
}

impl Behind {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            view: View::behind_broker(options),
            newest: BTreeMap::new(),
        }
    }

    pub(super) fn heard(&mut self, now: Millis, heard: &Heard) {
        self.view.heard(now, heard);
        match heard {
            // The next one is told everything anew.
            Heard::Closed(_) => self.newest.clear(),
            Heard::Delivered(arrival) => self.keep(arrival),
            Heard::Opened | Heard::Refreshed | Heard::Message(_) | Heard::Unreadable => {}
        }
    }

    /// A device has its state kept; a command is kept only by mistake.
    fn keep(&mut self, arrival: &Arrival) {
        let topic = &arrival.topic;
        if topic.ends_with("/command") && !arrival.retained {
            if arrival.payload.is_empty() {
                self.newest.remove(topic);
            }
            return;
        }
        if self.newest.len() < MOST_TOPICS || self.newest.contains_key(topic) {
            let kept = Arrival {
                retained: true,
                ..arrival.clone()
            };
            self.newest.insert(topic.clone(), kept);
        }
    }

    /// What the broker has for whoever subscribes.
    pub(super) fn kept(&self) -> Vec<Arrival> {
        self.newest.values().cloned().collect()
    }

    /// What a node would answer now: its card, if it has one, while it is heard.
    pub(super) fn answer(&self, now: Millis) -> Option<Arrival> {
        let mut newest = self.newest.values();
        let card = newest.find(|one| one.topic.starts_with("esphome/discover/"));
        let card = card.filter(|_| self.view.speaks(now))?;
        Some(Arrival {
            retained: false,
            ..card.clone()
        })
    }

    /// The target that the device follows, if it says so. In other modes it is not Klipper's.
    pub(super) fn target(&self) -> Option<f64> {
        let on = self.view.on?;
        if !on || matches!(self.view.mode, Some(Mode::Auto | Mode::Drying)) {
            return Some(0.0);
        }
        let kept = self.view.target_kept();
        self.view.target.or(kept)
    }
}
