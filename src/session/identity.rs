//! Who answers, whether it is the one, and what is said when it is.

use crate::dialect::{Dialect, Identity, Report};

use super::link::Phase;
use super::{Claim, Millis, Session};

impl Session {
    /// Every unit has the same host name: whoever answers must show that it is the one.
    pub(super) fn is_expected(&self, identity: Option<Identity>) -> Result<(), String> {
        let shown = identity.map(Identity::last4);
        let shown = shown.as_deref().unwrap_or("unknown");
        if let Some(wanted) = &self.config.device_id {
            if shown != wanted {
                return Err(format!(
                    "device {shown} answers at {}, but option 'device_id' asks for {wanted}",
                    self.place()
                ));
            }
        }
        match self.pinned {
            Some(pinned) if identity != Some(pinned) => Err(format!(
                "device {shown} answers at {}, but this was device {}; \
                 if you replaced it, restart the Klipper service",
                self.place(),
                pinned.last4()
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn wrong_device(&mut self, now: Millis, why: &str) {
        let told = self.wrong && self.last_error.as_deref() == Some(why);
        self.wrong = true;
        if !told {
            self.tell(now, why.to_owned());
        }
        self.outage_told = true;
        if self.mqtt.is_some() {
            self.last_error = Some(why.into());
            self.wait_for_device(now);
        } else {
            self.abort_main(now, why);
        }
    }

    pub(super) fn claimed(&mut self, now: Millis, identity: Option<Identity>, claim: Claim<'_>) {
        let Some(main) = self.main.as_mut() else {
            return;
        };
        let Phase::Claiming(report) = &main.phase else {
            return; // the answer to what an earlier connection has asked
        };
        if report.identity != identity {
            return; // another device answers by now
        }
        let mut report = report.clone();
        if now > main.claimed_at {
            report.reading = None; // it has got older meanwhile, and the next one comes soon
        }
        main.phase = Phase::Live;
        match claim {
            Claim::Taken(by) => {
                let why =
                    format!("this is the same device as in [{by}]; remove one of the sections");
                self.wrong_device(now, &why);
            }
            Claim::Held { pid, answers } => {
                let shown = self.shown(&report);
                let manner = if answers { "" } else { " and does not answer" };
                let why = format!(
                    "device {shown} is controlled by another process ({pid}){manner}; \
                     only one Klipper may have a section for it"
                );
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

    fn shown(&self, report: &Report) -> String {
        let identity = self.pinned.or(report.identity);
        identity.map_or_else(|| "unknown".into(), Identity::last4)
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
        self.device.firmware = report.firmware.or(self.device.firmware);
        if self.mqtt.is_none() {
            self.snapshot_seen(now, opened_at, report);
        } else {
            self.take(now, report); // the message that has proved it may have a reading, too
        }
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
        let dialect = match self.dialect() {
            Some(Dialect::StockMqtt) => "stock_mqtt, ",
            Some(Dialect::Esphome) => "esphome, ",
            Some(Dialect::Stock) | None => "",
        };
        let firmware = report
            .firmware
            .as_ref()
            .map_or("unknown", |firmware| firmware.as_str());
        self.tell(
            now,
            format!(
                "connected to {}{at}, {dialect}firmware {firmware}{device}",
                self.place()
            ),
        );
    }
}
