//! The visits that a command pays to one device, what it refuses to interrupt, and what it asks.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::World;
use crate::cli::bind::{Place, Visit, failed};
use crate::dialect::stock::page::{CONNECTED, Page, Response};
use crate::dialect::{Identity, Mode, Report};
use crate::driver::http;
use crate::driver::visit::Heard;

/// The versions whose code was read; of the others only hearsay is known.
const READ: [&str; 4] = ["V1.0.0", "V1.0.1", "V1.0.2", "V1.0.3"];

/// What a command must not interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// It interrupts nothing.
    None,
    /// Not while the device may heat.
    Heat,
    /// Not while a print runs, either.
    Print,
}

/// Where one command works.
pub(super) struct Desk<'d, 'w> {
    pub(super) world: &'d mut World<'w>,
    /// As the user calls the device.
    pub(super) place: Place,
    yes: bool,
    moonraker: Option<Place>,
    /// Where it was found, and who it is.
    met: Option<(Place, Option<Identity>)>,
}

impl<'d, 'w> Desk<'d, 'w> {
    pub(super) fn new(
        world: &'d mut World<'w>,
        place: Place,
        yes: bool,
        moonraker: Option<Place>,
    ) -> Self {
        Self {
            world,
            place,
            yes,
            moonraker,
            met: None,
        }
    }

    /// Tells the user something.
    pub(super) fn say(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.world.out, "{}", text.as_ref())
    }

    /// Visits the device: always the same one, whatever its name leads to later.
    pub(super) async fn visit(&mut self) -> io::Result<Visit> {
        let at = self.met.as_ref().map(|(place, _)| place.clone());
        self.visit_at(&at.unwrap_or_else(|| self.place.clone()))
            .await
    }

    /// The same where its address may have changed.
    pub(super) async fn visit_by_name(&mut self) -> io::Result<Visit> {
        let place = self.place.clone();
        self.visit_at(&place).await
    }

    async fn visit_at(&mut self, at: &Place) -> io::Result<Visit> {
        let visit = Visit::pay(at, &self.world.patience.visit).await;
        let visit = visit.map_err(|why| failed(self.not_reached(&why)))?;
        match &self.met {
            Some((_, identity)) if *identity != visit.report.identity => Err(failed(format!(
                "{}: another device answers there now",
                self.place
            ))),
            _ => {
                self.met = Some((visit.address(), visit.report.identity));
                Ok(visit)
            }
        }
    }

    fn not_reached(&self, why: &str) -> String {
        let hint = if why.contains("not as a Panda Breath") || why.contains("refused") {
            ". A device with ESPHome has none of these commands, only the stock firmware has"
        } else {
            ""
        };
        format!("{}: {why}{hint}", self.place)
    }

    /// The first visit: says which device it is.
    pub(super) async fn first(&mut self) -> io::Result<Visit> {
        let visit = self.visit().await?;
        let (firmware, does) = (firmware(&visit.report), doing(&visit.report));
        let place = self.where_is(&visit);
        self.say(format!("{place}: firmware {firmware}, {does}"))?;
        Ok(visit)
    }

    /// What the user calls it, and where that leads.
    pub(super) fn where_is(&self, visit: &Visit) -> String {
        let (at, place) = (visit.address().to_string(), self.place.to_string());
        if at == place {
            place
        } else {
            format!("{place} at {at}")
        }
    }

    /// Everything before something is done: the first visit, what speaks against it, the question.
    /// Nobody's answer is waited for with a connection open, so there may be a second visit.
    pub(super) async fn ready(&mut self, care: Care, question: Option<&str>) -> io::Result<Visit> {
        let visit = self.first().await?;
        self.check(visit, care, question).await
    }

    /// What speaks against it, and the question, after the first visit.
    pub(super) async fn check(
        &mut self,
        visit: Visit,
        care: Care,
        question: Option<&str>,
    ) -> io::Result<Visit> {
        self.refuse(&visit.report, &visit.page, care, true).await?;
        if question.is_some() && !READ.contains(&firmware(&visit.report).as_str()) {
            self.say(
                "Nobody has read this firmware: what is sent is what 1.0.3 understands, and is \
                 thought to work here.",
            )?;
        }
        let Some(question) = question.filter(|_| !self.yes) else {
            return Ok(visit);
        };
        drop(visit);
        if !self.world.person.agrees(question)? {
            return Err(failed("nothing was done"));
        }
        let visit = self.visit().await?;
        self.refuse(&visit.report, &visit.page, care, false).await?;
        Ok(visit)
    }

    async fn refuse(
        &mut self,
        report: &Report,
        page: &Page,
        care: Care,
        aloud: bool,
    ) -> io::Result<()> {
        if care == Care::None {
            return Ok(());
        }
        if let Some(why) = may_heat(report, page) {
            return Err(failed(format!(
                "refused: the device {why}. Turn it off first, with target 0 in Klipper or its \
                 power button"
            )));
        }
        if care == Care::Print {
            self.refuse_while_printing(page, aloud).await?;
        }
        Ok(())
    }

    async fn refuse_while_printing(&mut self, page: &Page, aloud: bool) -> io::Result<()> {
        let within = self.world.patience.moonraker;
        let bound = page
            .printer
            .as_ref()
            .filter(|printer| printer.state == Some(CONNECTED))
            .and_then(|printer| printer.klipper.as_ref())
            .and_then(|(_, at)| at.to_string().parse().ok());
        // The address that the device has is nobody's business.
        let bound =
            bound.map(|place| (place, "the printer that the device is bound to".to_owned()));
        let here = self.moonraker.clone();
        let here = here.map(|place| (place.clone(), format!("Moonraker at {place}")));
        let mut known = false;
        let told = here.iter().map(|(_, who)| who.clone()).next();
        for (place, who) in here.into_iter().chain(bound) {
            match print_state(&place, within).await {
                Ok(state) if state == "printing" || state == "paused" => {
                    return Err(failed(format!(
                        "refused: a print runs ({who} says '{state}')"
                    )));
                }
                Ok(_) => known = true,
                Err(_) => {}
            }
        }
        if let (false, true, Some(who)) = (known, aloud, told) {
            self.say(format!(
                "Whether a print runs is not known: {who} does not answer (--moonraker names \
                 another)."
            ))?;
        }
        Ok(())
    }

    /// Waits for the answer to what was just sent.
    pub(super) async fn acknowledged(
        &self,
        visit: &mut Visit,
        kinds: &[&str],
    ) -> Result<Response, String> {
        let within = self.world.patience.answer;
        until(visit, within, |heard| {
            let response = heard.page.response.take();
            response.filter(|response| kinds.contains(&response.kind.as_str()))
        })
        .await
    }

    /// Waits until a device that was told to restart has done so.
    pub(super) async fn restarted(&mut self, mut visit: Visit) -> io::Result<Visit> {
        let patience = self.world.patience;
        let leaving = async {
            // It is gone when the connection ends, or when it says nothing more.
            while let Ok(Ok(_)) = timeout(patience.silence, visit.hear()).await {}
        };
        if timeout(patience.leave, leaving).await.is_err() {
            return Err(failed(format!(
                "{}: it goes on as before, and has not restarted within {} s",
                self.place,
                patience.leave.as_secs()
            )));
        }
        drop(visit);
        let mut last = String::new();
        let coming = async {
            loop {
                sleep(patience.between).await;
                match self.visit().await {
                    Ok(visit) => return visit,
                    Err(error) => last = error.to_string(),
                }
            }
        };
        let back = timeout(patience.back, coming).await;
        back.map_err(|_| {
            failed(format!(
                "it has not come back within {} s ({last}). Look whether its LEDs are on; it may \
                 have another address now",
                patience.back.as_secs()
            ))
        })
    }
}

/// Hears the device until something fits. The error says why nothing did.
pub(super) async fn until<T>(
    visit: &mut Visit,
    within: Duration,
    mut fits: impl FnMut(&mut Heard) -> Option<T>,
) -> Result<T, String> {
    let hearing = async {
        loop {
            let mut heard = visit.hear().await?;
            if let Some(found) = fits(&mut heard) {
                return Ok(found);
            }
        }
    };
    let heard = timeout(within, hearing).await;
    heard.unwrap_or_else(|_| Err(format!("no answer within {} s", within.as_secs())))
}

/// Its version, as it spells it.
pub(super) fn firmware(report: &Report) -> String {
    let firmware = report.firmware.as_ref();
    firmware.map_or_else(|| "unknown".to_owned(), |known| known.as_str().to_owned())
}

/// What it does, in two words.
pub(super) fn doing(report: &Report) -> String {
    match (report.on, report.mode) {
        (Some(false), _) => "off".to_owned(),
        (Some(true), Some(mode)) => format!("on (mode {})", mode.name()),
        (Some(true), None) => "on".to_owned(),
        (None, _) => "not saying whether it is on".to_owned(),
    }
}

/// Why the device may heat now or in a moment: the firmware does not tell whether its element has
/// power.
fn may_heat(report: &Report, page: &Page) -> Option<String> {
    let printer = page.printer.as_ref().and_then(|printer| printer.state);
    match (report.on, report.mode) {
        (Some(false), _) => None,
        // Only a printer that it is connected to makes it heat, and only a cycle that runs.
        (Some(true), Some(Mode::Auto)) if printer.is_some_and(|state| state != CONNECTED) => None,
        (Some(true), Some(Mode::Drying)) if report.drying == Some(false) => None,
        (Some(true), _) => Some(format!("is {} and may heat", doing(report))),
        (None, _) => Some("does not say that it is off".to_owned()),
    }
}

/// What a Moonraker says about its print.
async fn print_state(place: &Place, within: Duration) -> Result<String, String> {
    let body = http::get(place, "/printer/objects/query?print_stats", within).await?;
    let value: Value = serde_json::from_str(&body).map_err(|_| "no JSON".to_owned())?;
    let state = &value["result"]["status"]["print_stats"]["state"];
    state
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| "no state".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::stock::page;

    fn report(on: Option<bool>, mode: Option<Mode>, drying: Option<bool>) -> Report {
        Report {
            on,
            mode,
            drying,
            ..Report::default()
        }
    }

    #[test]
    fn a_device_may_heat_unless_it_says_what_keeps_it_from_heating() {
        let unbound = page::decode(br#"{"printer":{"name":"","state":0}}"#);
        let bound = page::decode(br#"{"printer":{"name":"x","state":3}}"#);
        let silent = Page::default();
        for (on, mode, drying, page, heats) in [
            (Some(false), Some(Mode::On), None, &bound, false),
            (Some(true), Some(Mode::On), None, &unbound, true),
            (Some(true), Some(Mode::Auto), None, &unbound, false),
            (Some(true), Some(Mode::Auto), None, &bound, true),
            (Some(true), Some(Mode::Auto), None, &silent, true),
            (Some(true), Some(Mode::Drying), Some(false), &bound, false),
            (Some(true), Some(Mode::Drying), Some(true), &unbound, true),
            (Some(true), Some(Mode::Drying), None, &unbound, true),
            (Some(true), None, None, &unbound, true),
            (None, Some(Mode::On), None, &unbound, true),
        ] {
            let report = report(on, mode, drying);
            assert_eq!(may_heat(&report, page).is_some(), heats, "{report:?}");
        }
    }
}
