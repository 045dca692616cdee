//! A device behind a broker. The connection is the broker's: whether the device is there must show.
//!
//! As in a session of the driver it must speak twice, a second apart, in messages that the broker
//! had not kept (rule R5). What the broker had kept is history: it is shown apart from what is
//! known, and only until the device speaks.

use super::{Link, View};
use crate::cli::discover::{merge, printable};
use crate::dialect::mqtt::{Delivery, LEARNT_WRONG, Mqtt, Options};
use crate::dialect::{BrokerNews, Dialect, Mode, Report, is_temperature};
use crate::driver::stay::Arrival;
use crate::session::Millis;

/// So far apart are two messages that prove a device to be there.
const PROOF: Millis = 1_000;
/// A device that has not spoken by then is worth a line.
const WORTH_A_LINE: Millis = 10_000;
/// Why a device is not there when the broker is; at first, and when it has been for a while.
const WAITING: &str = "the broker answers; waiting for the device to speak";
const SILENT: &str = "the broker answers, but nothing is heard from the device; check its topic \
                      prefix, and whether the broker lets this user read there";
const OFFLINE: &str = "the broker says that the device is offline";
/// More commands that a broker keeps than there are topics for them.
const MOST_RETAINED: usize = 8;

/// What is known beside the device's state.
#[derive(Clone, Debug)]
pub(super) struct Behind {
    /// What the user has said of it.
    options: Options,
    mqtt: Mqtt,
    /// What the broker has kept, read as if it were news. The stock firmware tells everything anew
    /// twice a second: nothing needs to be kept of it.
    history: Mqtt,
    kept: Report,
    /// Since when it is waited for, if it is.
    since: Millis,
    /// The connection was left to listen to other topics.
    pub(super) refreshed: bool,
    /// When the device spoke first, and last, since it was last gone.
    first: Option<Millis>,
    last: Option<Millis>,
    /// Commands that the broker has kept.
    retained: Vec<String>,
}

impl Behind {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            options: options.clone(),
            mqtt: Mqtt::new(options),
            history: Mqtt::new(&Options {
                dialect: Some(Dialect::Esphome),
                ..options.clone()
            }),
            kept: Report::default(),
            since: 0,
            refreshed: false,
            first: None,
            last: None,
            retained: Vec::new(),
        }
    }

    /// Whether what was learnt is to be doubted: one stray message may have taught it.
    fn is_in_vain(&self, now: Millis) -> bool {
        let since = self.last.unwrap_or(0).max(self.since);
        self.mqtt.has_learnt() && now >= since + LEARNT_WRONG
    }

    fn quiet(&mut self) {
        self.first = None;
        self.last = None;
    }
}

impl View {
    /// Of a device behind a broker.
    pub(crate) fn behind_broker(options: &Options) -> Self {
        Self {
            behind: Some(Box::new(Behind::new(options))),
            ..Self::default()
        }
    }

    /// How the device speaks, once that is known.
    pub(crate) fn dialect(&self) -> Option<Dialect> {
        match &self.behind {
            None => Some(Dialect::Stock),
            Some(behind) => behind.mqtt.dialect(),
        }
    }

    /// Whether the device says itself what its heating element does.
    pub(crate) fn tells_heating(&self) -> bool {
        self.heating.is_some()
    }

    /// What the broker had kept of the device, as long as it has not spoken itself.
    pub(crate) fn kept(&self) -> Option<&Report> {
        let behind = self.behind.as_ref()?;
        let is_esphome = behind.mqtt.dialect() != Some(Dialect::StockMqtt);
        let report = &behind.kept;
        let says = report.on.is_some() || report.reading.is_some() || report.target.is_some();
        (says && is_esphome && self.stated_at.is_none() && self.reading.is_none()).then_some(report)
    }

    /// Whether the device itself has been heard of late.
    pub(crate) fn speaks(&self, now: Millis) -> bool {
        let behind = self.behind.as_ref();
        behind.is_some_and(|behind| {
            let silence = behind.mqtt.silence();
            behind.last.is_some_and(|last| now < last + silence)
        })
    }

    /// The target that the broker had kept.
    pub(crate) fn target_kept(&self) -> Option<f64> {
        self.behind.as_ref().and_then(|behind| behind.kept.target)
    }

    /// A command that the broker keeps for the device, which obeys it at every connect.
    pub(crate) fn retained_command(&self) -> Option<String> {
        let topic = self.behind.as_ref()?.retained.first()?;
        Some(format!(
            "the broker keeps a command on {}; clear it: mosquitto_pub -r -n -t {0}",
            printable(topic)
        ))
    }

    /// Time passes; `Some`: when something was noticed that only time can tell.
    pub(crate) fn advance(&mut self, now: Millis) -> Option<Millis> {
        let never_came = matches!(self.link, Link::Connecting | Link::Failed(_));
        if let Some(behind) = self.behind.as_mut().filter(|_| never_came) {
            if behind.is_in_vain(now) {
                behind.mqtt = Mqtt::new(&behind.options);
            }
        }
        let behind = self.behind.as_ref()?;
        let silence = behind.mqtt.silence();
        let (at, why) = if self.link == Link::Connected {
            let why = format!("nothing heard from the device for {} s", silence / 1_000);
            (behind.last.unwrap_or(behind.since) + silence, why)
        } else if self.link.why() == Some(WAITING) {
            let since = behind.last.unwrap_or(0).max(behind.since);
            (since + WORTH_A_LINE, SILENT.to_owned())
        } else {
            return None;
        };
        if now < at {
            return None;
        }
        self.gone(at, &why);
        Some(at)
    }

    pub(super) fn broker_opened(&mut self, now: Millis) {
        let Some(behind) = self.behind.as_mut() else {
            return;
        };
        behind.mqtt.forget_state();
        behind.history.forget_state();
        if std::mem::take(&mut behind.refreshed) {
            return; // whoever has spoken before has spoken
        }
        behind.retained.clear();
        self.wait(now);
    }

    pub(super) fn broker_left(&mut self) {
        if let Some(behind) = self.behind.as_mut() {
            behind.refreshed = true;
        }
    }

    /// From now on it must show that it is there.
    fn wait(&mut self, now: Millis) {
        if let Some(behind) = self.behind.as_mut() {
            behind.quiet();
            behind.since = now;
        }
        self.link = match &self.link {
            Link::Lost(_) | Link::Connected => Link::Lost(WAITING.to_owned()),
            Link::Connecting | Link::Failed(_) => Link::Failed(WAITING.to_owned()),
        };
    }

    /// The device is gone, the broker is not.
    fn gone(&mut self, now: Millis, why: &str) {
        if let Some(behind) = self.behind.as_mut() {
            behind.quiet();
        }
        self.closed(now, why);
    }

    pub(super) fn delivered(&mut self, now: Millis, arrival: &Arrival) {
        let Some(behind) = self.behind.as_mut() else {
            return;
        };
        let delivery = Delivery {
            topic: &arrival.topic,
            payload: &arrival.payload,
            retained: arrival.retained,
        };
        if arrival.retained {
            let news = Delivery {
                retained: false,
                ..delivery
            };
            if let Ok(report) = behind.history.decode(news) {
                merge(&mut behind.kept, &report);
            }
        }
        let Ok(mut report) = behind.mqtt.decode(delivery) else {
            self.ignored += 1;
            return;
        };
        self.ignored += u64::from(report.ignored);
        self.who(now, &report);
        let is_voice = !arrival.retained && report.is_from_device();
        if let Some(news) = report.broker.take() {
            let several = matches!(news, BrokerNews::SeveralDevices(_));
            self.broker_news(now, news);
            if several {
                return; // whose word this is cannot be told
            }
        }
        match report.present {
            Some(false) => return self.gone(now, OFFLINE),
            Some(true) if !arrival.retained => self.came(now),
            Some(true) | None => {}
        }
        if is_voice {
            self.spoken(now, &report);
        }
    }

    /// It says who it is; the broker keeps that, and there is nothing in it that grows old.
    fn who(&mut self, now: Millis, report: &Report) {
        self.firmware = report.firmware.or(self.firmware);
        if self.identity.is_some() && report.identity.is_some() && report.identity != self.identity
        {
            self.event(now, "another device answers here now".to_owned());
        }
        self.identity = report.identity.or(self.identity);
    }

    fn broker_news(&mut self, now: Millis, news: BrokerNews) {
        let Some(behind) = self.behind.as_mut() else {
            return;
        };
        match news {
            BrokerNews::RetainedCommand(topic) => {
                if behind.retained.contains(&topic) || behind.retained.len() >= MOST_RETAINED {
                    return;
                }
                let text = format!("the broker keeps a command on {}", printable(&topic));
                behind.retained.push(topic);
                self.event(now, text);
            }
            BrokerNews::CommandCleared(topic) => {
                let before = behind.retained.len();
                behind.retained.retain(|kept| *kept != topic);
                if behind.retained.len() < before {
                    let topic = printable(&topic);
                    self.event(
                        now,
                        format!("the broker no longer keeps a command on {topic}"),
                    );
                }
            }
            // Words of the dialect, and ids that are known to be such.
            BrokerNews::Refused(why) => self.event(now, why),
            BrokerNews::SeveralDevices(names) => {
                let why = format!("several devices answer: {names}; choose one (mqtt_device_id)");
                self.gone(now, &why);
            }
        }
    }

    /// It has connected to the broker, now.
    fn came(&mut self, now: Millis) {
        if self.link == Link::Connected {
            self.event(
                now,
                "the device has connected to the broker anew".to_owned(),
            );
        }
        self.wait(now);
    }

    /// The device itself speaks, now.
    fn spoken(&mut self, now: Millis, report: &Report) {
        self.count(now);
        let Some(behind) = self.behind.as_mut() else {
            return;
        };
        let silence = behind.mqtt.silence();
        if behind.last.is_some_and(|last| now >= last + silence) {
            behind.first = None;
        }
        behind.last = Some(now);
        let first = *behind.first.get_or_insert(now);
        if self.link != Link::Connected {
            if now < first + PROOF {
                // What it does is known from its first word; its temperature is believed later.
                return self.told(now, report);
            }
            let again = matches!(self.link, Link::Lost(_));
            self.reconnects += u32::from(again);
            let what = self.spoken_by();
            self.event(now, format!("connected, {what}"));
            self.link = Link::Connected;
        }
        self.told(now, report);
        if let Some(celsius) = report.reading.filter(|celsius| is_temperature(*celsius)) {
            self.reading = Some((celsius, now));
            self.point(now, celsius);
        }
    }

    fn told(&mut self, now: Millis, report: &Report) {
        let mut report = report.clone();
        if self.dialect() == Some(Dialect::Esphome) {
            self.heating = report.heating.or(self.heating);
            // It has no mode beside its switch; another one is somebody else's doing.
            if report.on == Some(false) {
                self.mode = None;
            } else if report.mode == Some(Mode::On) {
                self.mode = report.mode.take();
            }
        }
        self.state(now, &report);
    }

    /// What speaks there, in words for people.
    pub(crate) fn spoken_by(&self) -> String {
        let version = self.firmware.as_ref();
        let version = version.map_or(String::new(), |known| format!(" {}", known.as_str()));
        match self.dialect() {
            Some(Dialect::Esphome) => format!("ESPHome{version}"),
            Some(Dialect::StockMqtt) => "stock firmware over MQTT".to_owned(),
            Some(Dialect::Stock) => format!("firmware{version}"),
            None => "firmware unknown".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
