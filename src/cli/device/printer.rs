//! `device bind-klipper` and `unbind`: the printer whose bed the device's own mode Auto follows.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::desk::{Care, Desk, firmware, until};
use super::status::printer_words;
use crate::cli::bind::failed;
use crate::dialect::stock::page::{self, CONNECTED, PrinterType};

/// Where Moonrakers are.
pub(super) const PORT: u16 = 7125;
/// More than anybody wants; how many the device keeps is not known.
const LONGEST_NAME: usize = 32;
/// `printer.state`.
const INVALID: u8 = 1;
const FAILED: u8 = 4;

/// Binds the device to a Klipper, and waits until it says that it is connected to its Moonraker.
pub(super) async fn bind(
    desk: &mut Desk<'_, '_>,
    name: &str,
    moonraker: SocketAddrV4,
) -> io::Result<()> {
    let visit = desk.first().await?;
    match visit.report.settings.printer_type {
        None => {
            return Err(failed(format!(
                "firmware {} knows no Klipper: that came with 1.0.3",
                firmware(&visit.report)
            )));
        }
        Some(kind) if kind != PrinterType::Klipper.number() => {
            return Err(failed(format!(
                "the device is set to Bambu printers: first 'panda-breath device printer-type {} \
                 klipper', which restarts it",
                desk.place
            )));
        }
        Some(_) => {}
    }
    let is_it = |printer: &page::Printer| {
        let bound = printer.klipper.as_ref();
        bound.is_some_and(|(_, at)| *at == moonraker)
    };
    let before = visit.page.printer.as_ref();
    if before.is_some_and(|printer| is_it(printer) && printer.state == Some(CONNECTED)) {
        return desk.say(format!(
            "It is bound to {moonraker} already, and connected; nothing was sent."
        ));
    }
    // The one that it has would be forgotten.
    let question = before
        .is_some_and(|printer| printer.bound && !is_it(printer))
        .then_some("The device is bound to another printer, and will forget that.");
    let mut visit = desk.check(visit, Care::Heat, question).await?;
    visit.say(page::bind_klipper(name, moonraker));
    let patience = desk.world.patience;
    let mut last = None;
    let state = until(&mut visit, patience.join, |heard| {
        let printer = heard.page.printer.take().filter(is_it)?;
        last = printer.state;
        let is_final = matches!(printer.state, Some(INVALID | CONNECTED | FAILED));
        is_final.then_some(printer)
    });
    match state.await {
        Ok(printer) if printer.state == Some(CONNECTED) => {
            desk.say(format!("It is bound to {moonraker}, and connected."))
        }
        Ok(printer) => Err(failed(format!(
            "the device has taken {moonraker}, but says '{}'. Check that Moonraker answers there \
             from the device's network and trusts its address ([authorization] trusted_clients): \
             the firmware cannot log in. It goes on trying; 'panda-breath device unbind {}' ends \
             that",
            printer_words(&printer),
            desk.place
        ))),
        Err(why) => {
            let seen = if last.is_some() {
                "has taken it, but does not get there"
            } else {
                "says nothing about it"
            };
            Err(failed(format!(
                "the device {seen} ({why}): 'panda-breath device status {}' shows how far it is",
                desk.place
            )))
        }
    }
}

/// Unbinds the device from its printer, whatever kind that is.
pub(super) async fn unbind(desk: &mut Desk<'_, '_>) -> io::Result<()> {
    let visit = desk.first().await?;
    match &visit.page.printer {
        None => return Err(failed("the device says nothing about a printer")),
        Some(printer) if !printer.bound => {
            return desk.say("It is not bound to a printer; nothing was sent.");
        }
        Some(_) => {}
    }
    let question = "The device will forget its printer, which its mode auto follows.";
    let mut visit = desk.check(visit, Care::Heat, Some(question)).await?;
    visit.say(page::unbind_printer());
    let unbound = until(&mut visit, desk.world.patience.answer, |heard| {
        let printer = heard.page.printer.take();
        printer.filter(|printer| !printer.bound).map(|_| ())
    });
    let unbound = unbound.await;
    unbound.map_err(|why| failed(format!("the device does not say that it is unbound: {why}")))?;
    desk.say("It is bound to no printer any more.")
}

/// Where a Moonraker is, as the device reaches it.
pub(super) fn moonraker(text: &str) -> Result<SocketAddrV4, String> {
    let with_port = text.parse::<SocketAddrV4>();
    let found = with_port.or_else(|_| text.parse().map(|ip| SocketAddrV4::new(ip, PORT)));
    let Ok(found) = found else {
        return Err(
            "not an IPv4 address such as 192.168.1.10 or 192.168.1.10:7125; the firmware takes \
             no names"
                .to_owned(),
        );
    };
    let ip = found.ip();
    let is_host = !ip.is_unspecified() && !ip.is_multicast() && *ip != Ipv4Addr::BROADCAST;
    if is_host && found.port() != 0 {
        Ok(found)
    } else {
        Err("no Moonraker can be there".to_owned())
    }
}

/// What the page calls the printer; the firmware ignores one without a name.
pub(super) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > LONGEST_NAME || text.chars().any(char::is_control) {
        Err("1 to 32 bytes, and no control characters".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moonraker_is_an_address_that_a_device_can_reach() {
        assert_eq!(moonraker("192.0.2.5").unwrap().port(), 7125);
        assert_eq!(moonraker("192.0.2.5:80").unwrap().port(), 80);
        assert!(moonraker("voron.local").unwrap_err().contains("no names"));
        assert!(moonraker("0.0.0.0").is_err() && moonraker("192.0.2.5:0").is_err());
        assert!(name("").is_err() && name(&"n".repeat(33)).is_err() && name("voron").is_ok());
    }
}
