//! `device wifi`, `hostname` and `ap`: the networks of the device.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use tokio::time::{sleep, timeout};

use super::desk::{Care, Desk, until};
use super::status::printable;
use crate::cli::bind::{Visit, failed};
use crate::dialect::Identity;
use crate::dialect::stock::page::{self, CONNECTED, Private, WRONG_PASSWORD};

/// As Wi-Fi has it.
const LONGEST_SSID: usize = 32;
/// Of WPA.
const PASSWORD: std::ops::RangeInclusive<usize> = 8..=63;
/// What the page takes.
const LONGEST_HOSTNAME: usize = 32;

/// Lists the networks that the device sees.
pub(super) async fn scan(desk: &mut Desk<'_, '_>) -> io::Result<()> {
    // Its radio leaves the channel meanwhile, which a Klipper that heats must not have to bear.
    let mut visit = desk.ready(Care::Heat, None).await?;
    let found = scanned(desk, &mut visit).await?;
    if found.is_empty() {
        return desk.say("It sees no network.");
    }
    for ssid in &found {
        desk.say(format!("  {}", printable(ssid.expose())))?;
    }
    Ok(())
}

async fn scanned(desk: &Desk<'_, '_>, visit: &mut Visit) -> io::Result<Vec<Private>> {
    visit.say(page::scan_wifi());
    let found = until(visit, desk.world.patience.scan, |heard| {
        heard.page.wifi_found.take()
    });
    let found = found.await;
    found.map_err(|why| failed(format!("the device has not told what it sees: {why}")))
}

/// Takes the device to another network.
pub(super) async fn join(
    desk: &mut Desk<'_, '_>,
    ssid: &str,
    password: &str,
    hidden: bool,
) -> io::Result<()> {
    let mut visit = desk.first().await?;
    let shown = printable(ssid);
    if !hidden {
        // Checked before anything is asked: a name that is mistyped would cost the device its
        // network.
        visit = desk.check(visit, Care::Heat, None).await?;
        let found = scanned(desk, &mut visit).await?;
        if !found.iter().any(|found| found.is(ssid)) {
            return Err(failed(format!(
                "the device does not see a network '{shown}': 'panda-breath device wifi scan {}' \
                 lists those it sees (2.4 GHz only); --hidden joins it all the same",
                desk.place
            )));
        }
    }
    let question = format!(
        "The device will leave its network and join '{shown}'. If it cannot, it is gone from \
         here until it is set up again in its own access point."
    );
    let mut visit = desk.check(visit, Care::Print, Some(&question)).await?;
    visit.say(page::join_wifi(ssid, password));
    let patience = desk.world.patience;
    // It may leave at once, or tell how it gets on if its access point carries this connection.
    let told = until(&mut visit, patience.silence, |heard| {
        match heard.page.wifi_state {
            Some(state @ (CONNECTED | WRONG_PASSWORD)) => Some(state),
            _ => None,
        }
    });
    let told = told.await;
    drop(visit);
    if told == Ok(WRONG_PASSWORD) {
        return Err(failed(wrong_password(&shown)));
    }
    let mut last = String::new();
    let looking = async {
        loop {
            sleep(patience.between).await;
            // Its address may be another now, or only its name may be found again.
            let visit = match desk.visit_by_name().await {
                Ok(visit) => Ok(visit),
                Err(_) => desk.visit().await,
            };
            match visit {
                Err(error) => last = error.to_string(),
                Ok(visit) => {
                    let there = visit.page.wifi_ssid.as_ref();
                    let is_set = there.is_some_and(|there| there.is(ssid));
                    match visit.page.wifi_state {
                        Some(CONNECTED) if is_set => return Ok(visit.page.ip.clone()),
                        Some(WRONG_PASSWORD) if is_set => return Err(()),
                        _ if is_set => "it is not connected there yet".clone_into(&mut last),
                        _ => "it is set to another network".clone_into(&mut last),
                    }
                }
            }
        }
    };
    let looked = timeout(patience.join, looking).await;
    match looked {
        Ok(Ok(ip)) => {
            let ip = ip.map_or(String::new(), |ip| format!(", address {}", printable(&ip)));
            desk.say(format!("It is in '{shown}' now{ip}."))
        }
        Ok(Err(())) => Err(failed(wrong_password(&shown))),
        Err(_) => Err(failed(format!(
            "the device has not been seen in '{shown}' within {} s ({last}). It may have another \
             address now, or this computer be in another network; if the password is wrong it \
             opens its own access point after about 20 s (Panda_Breath_ and its MAC address): \
             join that, and try again at 192.168.254.1",
            patience.join.as_secs()
        ))),
    }
}

fn wrong_password(shown: &str) -> String {
    format!(
        "the device says that the password of '{shown}' is wrong. It keeps it until it is given \
         another, and opens its own access point meanwhile"
    )
}

/// Gives the device another name.
pub(super) async fn hostname(desk: &mut Desk<'_, '_>, name: &str) -> io::Result<()> {
    let mut visit = desk.first().await?;
    visit.say(page::hostname(name));
    accepted(desk, &mut visit, &["set_hostname"], "the name").await?;
    desk.say(format!(
        "It will be {name}.local after a restart: panda-breath device reboot {}",
        desk.place
    ))?;
    desk.say(format!(
        "If printer.cfg has it by its old name, change that then: host: {name}.local"
    ))
}

/// Turns the access point on for good, or not.
pub(super) async fn ap_switch(desk: &mut Desk<'_, '_>, on: bool) -> io::Result<()> {
    let visit = desk.first().await?;
    let word = if on { "on" } else { "off" };
    if visit.page.ap.as_ref().and_then(|ap| ap.on) == Some(on) {
        return desk.say(format!(
            "Its access point is {word} already; nothing was sent."
        ));
    }
    let question = "Who reaches the device through its access point will lose it.";
    let mut visit = if on {
        visit
    } else {
        desk.check(visit, Care::Heat, Some(question)).await?
    };
    visit.say(page::access_point_on(on));
    accepted(desk, &mut visit, &["set_ap"], "that").await?;
    desk.say(if on {
        "Its access point stays on now."
    } else {
        "Its access point is off now, while the device is in a network."
    })
}

/// Changes the access point. What is not given stays: the firmware wants all of it at once.
pub(super) async fn ap_set(
    desk: &mut Desk<'_, '_>,
    name: Option<String>,
    password: Option<String>,
    ip: Option<Ipv4Addr>,
) -> io::Result<()> {
    let mut question = "The device's access point will be changed.".to_owned();
    if name.is_some() {
        question += " Klipper knows the device by its name: it takes it for another one until \
                     its service is restarted.";
    }
    let mut visit = desk.ready(Care::Heat, Some(&question)).await?;
    let Some(now) = visit.page.ap.clone() else {
        return Err(failed("the device does not tell what its access point is"));
    };
    let other = name.as_deref().filter(|name| !now.ssid.is(name));
    let ssid = name.as_deref().unwrap_or(now.ssid.expose());
    let secret = password.as_deref().unwrap_or(now.password.expose());
    let ip = ip.map_or_else(|| now.ip.expose().to_owned(), |ip| ip.to_string());
    visit.say(page::set_access_point(ssid, secret, &ip));
    let kinds = ["set_ap", "set_hotspot_ip"];
    let kind = accepted(desk, &mut visit, &kinds, "that").await?;
    desk.say("Its access point is changed.")?;
    if let Some(name) = other {
        desk.say(format!(
            "Klipper takes it for another device now: restart the Klipper service (RESTART is not \
             enough). If printer.cfg has a device_id, write device_id: {}",
            Identity::of(name).last4()
        ))?;
    }
    if kind == "set_hotspot_ip" {
        desk.say(format!(
            "Its address in it counts after a restart: panda-breath device reboot {}",
            desk.place
        ))?;
    }
    Ok(())
}

async fn accepted(
    desk: &Desk<'_, '_>,
    visit: &mut Visit,
    kinds: &[&str],
    what: &str,
) -> io::Result<String> {
    match desk.acknowledged(visit, kinds).await {
        Ok(response) if response.ok => Ok(response.kind),
        Ok(_) => Err(failed(format!("the device refuses {what}"))),
        Err(why) => Err(failed(format!(
            "the device has not acknowledged it ({why}); it may have taken {what} all the same"
        ))),
    }
}

/// The password of a network.
pub(super) fn wifi_password(
    desk: &mut Desk<'_, '_>,
    ssid: &str,
    file: Option<&Path>,
    open: bool,
) -> io::Result<String> {
    if open {
        return Ok(String::new());
    }
    let prompt = format!("Password of the network '{}': ", printable(ssid));
    asked(desk, file, &prompt)
}

/// A new password for the access point.
pub(super) fn ap_password(desk: &mut Desk<'_, '_>, file: Option<&Path>) -> io::Result<String> {
    asked(desk, file, "New password of the device's access point: ")
}

fn asked(desk: &mut Desk<'_, '_>, file: Option<&Path>, prompt: &str) -> io::Result<String> {
    let (password, whence) = desk.world.person.password(file, prompt)?;
    if !PASSWORD.contains(&password.len()) {
        return Err(failed(format!(
            "{whence}: a Wi-Fi password has 8 to 63 characters (--open: none, where there is one)"
        )));
    }
    if password.chars().any(char::is_control) {
        return Err(failed(format!(
            "{whence}: it has a control character in it"
        )));
    }
    Ok(password)
}

/// A name for a network.
pub(super) fn ssid(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > LONGEST_SSID || text.chars().any(char::is_control) {
        Err("the name of a network has 1 to 32 bytes, and no control characters".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// A name for the device, as DNS has it.
pub(super) fn hostname_of(text: &str) -> Result<String, String> {
    let bare = text.strip_suffix(".local").unwrap_or(text);
    let is_good = (1..=LONGEST_HOSTNAME).contains(&bare.len())
        && bare.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !bare.starts_with('-')
        && !bare.ends_with('-');
    if is_good {
        Ok(bare.to_owned())
    } else {
        Err("1 to 32 letters, digits and hyphens, no hyphen at either end".to_owned())
    }
}

/// An address for the access point.
pub(super) fn ap_address(text: &str) -> Result<Ipv4Addr, String> {
    let ip: Option<Ipv4Addr> = text.parse().ok();
    ip.filter(Ipv4Addr::is_private)
        .ok_or_else(|| "not a private IPv4 address such as 192.168.254.1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_such_that_the_device_can_have() {
        assert_eq!(hostname_of("Breath2.local").unwrap(), "Breath2");
        for text in ["", "-a", "a-", "a b", "a.b", "ä", &"a".repeat(33)] {
            assert!(hostname_of(text).is_err(), "{text}");
        }
        for text in ["", "a\x1b[2J", &"a".repeat(33)] {
            assert!(ssid(text).is_err(), "{text}");
        }
        assert!(ssid("Mein Netz ä").is_ok());
        for text in ["8.8.8.8", "127.0.0.1", "host", "0.0.0.0"] {
            assert!(ap_address(text).is_err(), "{text}");
        }
        assert!(ap_address("192.168.254.1").is_ok());
    }
}
