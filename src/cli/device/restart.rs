//! `device reboot`, `factory-reset` and `printer-type`: what restarts the device.

use std::io;

use super::desk::{Care, Desk, doing, firmware};
use crate::cli::bind::failed;
use crate::dialect::stock::page::{self, PrinterType};

/// Restarts the device. The firmware acknowledges nothing: that it has restarted is seen.
pub(super) async fn reboot(desk: &mut Desk<'_, '_>) -> io::Result<()> {
    let question = "The device will restart, which takes some seconds.";
    let mut visit = desk.ready(Care::Print, Some(question)).await?;
    visit.say(page::restart());
    let visit = desk.restarted(visit).await?;
    let does = doing(&visit.report);
    desk.say(format!("It has restarted, and is {does}."))
}

/// Erases all settings.
pub(super) async fn factory_reset(desk: &mut Desk<'_, '_>) -> io::Result<()> {
    let question = "The device will forget everything, its Wi-Fi too: afterwards it can only be \
                    reached in its own access point.";
    let mut visit = desk.ready(Care::Print, Some(question)).await?;
    visit.say(page::factory_reset());
    match desk.acknowledged(&mut visit, &["factory_reset"]).await {
        Ok(response) if response.ok => desk.say("It has erased its settings, and restarts.")?,
        Ok(_) => return Err(failed("the device refuses to erase its settings")),
        Err(why) => {
            return Err(failed(format!(
                "the device has not acknowledged it ({why}): look whether it is still there, with \
                 'panda-breath device status {}'",
                desk.place
            )));
        }
    }
    desk.say(
        "It is on in mode auto now, as every new one, and bound to no printer, so it does not \
         heat. Join its access point (Panda_Breath_ and its MAC address; the password is in its \
         manual), and give it a network on http://192.168.254.1/",
    )
}

/// Sets which printers it can be bound to. It restarts at once, perhaps before its answer is out.
pub(super) async fn printer_type(desk: &mut Desk<'_, '_>, kind: PrinterType) -> io::Result<()> {
    let visit = desk.first().await?;
    let name = match kind {
        PrinterType::Bambu => "bambu",
        PrinterType::Klipper => "klipper",
    };
    match visit.report.settings.printer_type {
        None => {
            return Err(failed(format!(
                "firmware {} has no printer types: that came with 1.0.3",
                firmware(&visit.report)
            )));
        }
        Some(now) if now == kind.number() => {
            return desk.say(format!(
                "Its printers are of type {name} already; nothing was sent."
            ));
        }
        Some(_) => {}
    }
    let question = "The device will restart, and use the binding it has for that type of printer.";
    let mut visit = desk.check(visit, Care::Print, Some(question)).await?;
    visit.say(page::printer_type(kind));
    if let Ok(response) = desk.acknowledged(&mut visit, &["printer_type"]).await {
        if !response.ok {
            return Err(failed("the device refuses that type of printer"));
        }
    }
    let visit = desk.restarted(visit).await?;
    if visit.report.settings.printer_type == Some(kind.number()) {
        desk.say(format!(
            "It has restarted; its printers are of type {name} now."
        ))
    } else {
        Err(failed(format!(
            "it has restarted, but its printers are not of type {name}"
        )))
    }
}
