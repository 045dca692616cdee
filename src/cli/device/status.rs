//! `device status` and `device language`: what the page shows, and in which language.

use std::io;

use serde_json::{Value, json};

use super::desk::{Desk, doing, firmware, until};
use crate::cli::bind::{Visit, failed};
use crate::dialect::stock::ha::Bound;
use crate::dialect::stock::page;
use crate::dialect::{Fault, Language};

/// Shows what the device says about itself, and nothing of its networks (rule R11): this is what
/// people paste into forums.
pub(super) async fn show(desk: &mut Desk<'_, '_>, as_json: bool) -> io::Result<()> {
    let mut visit = desk.visit().await?;
    let (mut reading, mut fault) = (None, None);
    // Readings are not in the snapshot; the next one comes within half a second.
    let heard = until(&mut visit, desk.world.patience.answer, |heard| {
        fault = fault.or(heard.report.fault);
        reading = reading.or(heard.report.reading);
        reading.map(|_| ())
    });
    let _ = heard.await; // a device that tells no temperature has other things to tell
    let value = describe(&visit, reading, fault);
    if as_json {
        return desk.say(value.to_string());
    }
    desk.say(desk.where_is(&visit))?;
    let Value::Object(fields) = value else {
        return Ok(());
    };
    for (name, label, unit) in LINES {
        let text = match fields.get(name) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(on)) => if *on { "yes" } else { "no" }.to_owned(),
            // Whole degrees, as the device has them.
            Some(other) => other.as_f64().map_or_else(String::new, |n| n.to_string()),
        };
        desk.say(format!("  {label:<22} {text}{unit}"))?;
    }
    Ok(())
}

/// Name in the JSON, words for people, unit.
const LINES: [(&str, &str, &str); 20] = [
    ("firmware", "firmware", ""),
    ("device_id", "device_id", ""),
    ("hostname", "name", ""),
    ("ip", "address it has", ""),
    ("wifi", "Wi-Fi", ""),
    ("access_point", "access point always on", ""),
    ("doing", "is", ""),
    ("temperature", "temperature", " C"),
    ("target", "target", " C"),
    ("fault", "fault", ""),
    ("drying", "drying", ""),
    ("remaining_minutes", "drying for another", " min"),
    ("custom_temp", "own drying profile", " C"),
    ("custom_hours", "for", " h"),
    ("filter_from_bed", "fan from bed target", " C"),
    ("heat_from_bed", "heat from bed target", " C"),
    ("printer_type", "printers", ""),
    ("printer", "printer", ""),
    ("broker", "MQTT broker", ""),
    ("language", "language", ""),
];

fn describe(visit: &Visit, reading: Option<f64>, fault: Option<Fault>) -> Value {
    let (report, page) = (&visit.report, &visit.page);
    let settings = &report.settings;
    let printer = page.printer.as_ref();
    let running = report.drying == Some(true);
    json!({
        "firmware": firmware(report),
        "device_id": report.identity.map(crate::dialect::Identity::last4),
        "hostname": page.hostname.as_deref().map(printable),
        "ip": page.ip.as_deref().map(printable),
        "wifi": page.wifi_state.map(wifi_words),
        "access_point": page.ap.as_ref().and_then(|ap| ap.on),
        "doing": doing(report),
        "on": report.on,
        "mode": report.mode.map(crate::dialect::Mode::name),
        "temperature": reading,
        "target": report.target,
        "fault": fault.or(report.fault).map(Fault::text),
        "drying": report.drying,
        "remaining_minutes": report.remaining_seconds.filter(|_| running).map(|s| s.div_ceil(60)),
        "custom_temp": settings.custom_temp,
        "custom_hours": settings.custom_hours,
        "filter_from_bed": settings.filter_temp,
        "heat_from_bed": settings.bed_temp,
        "printer_type": settings.printer_type.map(type_words),
        "printer": printer.map(printer_words),
        "broker": visit.mqtt.ha.map(|ha| match (ha.bound, ha.is_connected()) {
            (Bound::Nowhere, _) => "none",
            (_, true) => "bound, connected",
            (_, false) => "bound, not connected",
        }),
        "language": settings.language.map(code),
    })
}

/// Names come from the device, or from whoever is there: nothing of them may reach the terminal as
/// anything but text.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn wifi_words(state: u8) -> String {
    match state {
        1 => "no network set".to_owned(),
        2 => "connecting".to_owned(),
        3 => "connected".to_owned(),
        4 => "reconnecting".to_owned(),
        5 => "wrong password".to_owned(),
        other => format!("state {other}"),
    }
}

fn type_words(kind: u8) -> String {
    match kind {
        1 => "bambu".to_owned(),
        2 => "klipper".to_owned(),
        other => format!("type {other}"),
    }
}

pub(super) fn printer_words(printer: &page::Printer) -> String {
    match (printer.bound, printer.state) {
        (false, _) => "not bound".to_owned(),
        (true, Some(0 | 1)) => "bound, with data that make no sense".to_owned(),
        (true, Some(2)) => "bound, connecting".to_owned(),
        (true, Some(3)) => "bound, connected".to_owned(),
        (true, Some(4)) => "bound, not reached".to_owned(),
        (true, Some(other)) => format!("bound, not connected (state {other})"),
        (true, None) => "bound".to_owned(),
    }
}

fn code(language: Language) -> &'static str {
    match language {
        Language::English => "en",
        Language::Chinese => "zh",
    }
}

/// Sets the language of the page.
pub(super) async fn set_language(desk: &mut Desk<'_, '_>, language: Language) -> io::Result<()> {
    let mut visit = desk.first().await?;
    if visit.report.settings.language == Some(language) {
        return desk.say("It is in that language already; nothing was sent.");
    }
    visit.say(page::language(language));
    // The only setting that is echoed.
    let echoed = until(&mut visit, desk.world.patience.answer, |heard| {
        (heard.report.settings.language == Some(language)).then_some(())
    });
    let echoed = echoed.await;
    echoed.map_err(|why| failed(format!("the device has not taken the language: {why}")))?;
    desk.say(format!("The page is in '{}' now.", code(language)))
}
