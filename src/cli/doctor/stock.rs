//! A device that is spoken to directly: one connection, on which it is listened to for a while.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Plan;
use super::finding::Findings;
use super::firmware;
use crate::cli::bind::visit::{self, Step};
use crate::cli::bind::{Place, Visit};
use crate::cli::discover::{counted, doing, merge, printable};
use crate::dialect::{Identity, Mode, Report};
use crate::driver::browse::browse;
use crate::driver::ping::{Echoes, ping};

/// How long to listen for a second device with the same name.
const NAMESAKES: Duration = Duration::from_millis(1200);
/// Sockets of the device, web page and all other clients included.
const SOCKETS: usize = 7;
/// Twice a second it says something.
const PERIOD: Duration = Duration::from_millis(500);
/// A longer silence is noticed, but does no harm yet.
const LATE: Duration = Duration::from_secs(2);
/// After this the driver gives a connection up.
const DEAD: Duration = Duration::from_secs(5);
/// A slower answer is felt.
const SLOW: Duration = Duration::from_millis(250);
/// So many percent lost are usual for Wi-Fi, and so many are too many to work with.
const LOSS: [usize; 2] = [5, 30];

/// What was heard in a while.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Watch {
    pub(super) time: Duration,
    pub(super) messages: usize,
    pub(super) unreadable: usize,
    pub(super) readings: usize,
    pub(super) longest_gap: Duration,
    /// When it was over before its time, and why.
    pub(super) ended: Option<(Duration, String)>,
}

/// Looks at a device; who it is, if that is known.
pub(super) async fn check(
    place: &Place,
    device_id: Option<&str>,
    plan: &Plan,
    said: &mut Findings,
) -> Option<Identity> {
    let addresses = resolve(place, plan, said).await?;
    let counts = addresses
        .iter()
        .map(|ip| clients(&plan.proc, *ip, place.port));
    let clients = counts.max().unwrap_or(0);
    if clients + 1 >= SOCKETS {
        // Ours could be the one that throws Klipper's out.
        judge_clients(clients, &Watch::default(), said);
        return None;
    }
    let mut visit = reach(place, &addresses, plan, said).await?;
    let ip: IpAddr = visit.address().host.parse().ok()?;
    let mut report = visit.report.clone();
    match report.ignored {
        0 => {
            said.ok("snapshot", "it says what a Panda Breath says first");
        }
        ignored => said.warning(
            "snapshot",
            format!(
                "{} of its snapshot make no sense",
                counted(ignored as usize, "field")
            ),
            "please report it with its firmware version: this program may be too old for it",
        ),
    }
    if let Some(firmware) = &report.firmware {
        firmware::check(firmware, said);
    }
    identity(report.identity, device_id, said);
    let times = visit.times;
    let (watch, echoes) = tokio::join!(
        watch(&mut visit, &mut report, plan.time),
        ping(ip, plan.time)
    );
    let identity = report.identity;
    drop(visit);
    judge_watch(&watch, said);
    judge_echoes(
        echoes.ok().as_ref(),
        times.connect.max(times.handshake),
        said,
    );
    judge_clients(clients, &watch, said);
    judge_state(&report, watch.readings, said);
    identity
}

async fn resolve(place: &Place, plan: &Plan, said: &mut Findings) -> Option<Vec<IpAddr>> {
    let group = plan.group.filter(|_| is_local(&place.host));
    let namesakes = async {
        let Some(group) = group else {
            return Vec::new();
        };
        let pages = browse(&[&place.host], group, NAMESAKES).await;
        let pages = pages.unwrap_or_default().into_iter();
        let same = pages.filter(|page| page.host.eq_ignore_ascii_case(&place.host));
        same.flat_map(|page| page.addresses).collect()
    };
    let (found, others) = tokio::join!(visit::addresses(&place.host), namesakes);
    let mut addresses = found.clone().unwrap_or_default();
    for address in others {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if let (true, Err(why)) = (addresses.is_empty(), found) {
        said.problem(
            "resolves",
            why,
            "is it on Wi-Fi, and in this network? Its address is in the router's list; an \
             address the router keeps for it works without a name ('panda-breath discover')",
        );
        return None;
    }
    // An address is its own.
    if place.host.parse::<IpAddr>().is_err() {
        judge_addresses(&place.host, &addresses, said);
    }
    Some(addresses)
}

fn is_local(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    let (_, domain) = host.rsplit_once('.').unwrap_or_default();
    domain.eq_ignore_ascii_case("local")
}

fn judge_addresses(host: &str, addresses: &[IpAddr], said: &mut Findings) {
    let shown: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let text = format!("{} is {}", printable(host), shown.join(" and "));
    let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    if v4 > 1 {
        said.warning(
            "resolves",
            format!("{text}: perhaps {v4} devices with one name"),
            "every unit is called PandaBreath: use addresses and device_id, or give each a name \
             of its own on its web page",
        );
    } else {
        said.ok("resolves", text);
    }
}

/// The first address where a device is.
async fn reach(
    place: &Place,
    addresses: &[IpAddr],
    plan: &Plan,
    said: &mut Findings,
) -> Option<Visit> {
    let mut failure = None;
    for address in addresses {
        let at = Place {
            host: address.to_string(),
            port: place.port,
        };
        match Visit::try_pay(&at, &plan.patience).await {
            Ok(visit) => {
                let times = visit.times;
                said.ok(
                    "connects",
                    format!(
                        "connected to {at} in {} ms, snapshot {} ms later",
                        times.connect.as_millis(),
                        (times.handshake + times.snapshot).as_millis()
                    ),
                );
                return Some(visit);
            }
            // How far it came at the best of them.
            Err(why) => {
                let further = failure
                    .as_ref()
                    .is_none_or(|(_, last): &(Place, visit::Failure)| {
                        (last.step as u8) < (why.step as u8)
                    });
                if further {
                    failure = Some((at, why));
                }
            }
        }
    }
    let (at, failure) = failure?;
    let (check, remedy) = match failure.step {
        Step::Connect if failure.why == "connection refused" => (
            "connects",
            "it restarts, or something else is at this address: 'panda-breath discover' finds \
             it; 'port' is 80 for every real device",
        ),
        Step::Connect => (
            "connects",
            "is it switched on? Are printer and device in one network, without guest isolation? \
             Has its address changed?",
        ),
        Step::Handshake => (
            "connects",
            "another device has this address, or a firmware that is not BIQU's: an ESPHome node \
             needs mqtt_broker; or all of the device's sockets hang: pull its plug for 10 s",
        ),
        Step::Snapshot => (
            "snapshot",
            "the device hangs: pull its plug for 10 s. If that helps only for a while, close its \
             web page everywhere",
        ),
    };
    said.problem(check, format!("{at}: {}", failure.why), remedy);
    None
}

fn identity(identity: Option<Identity>, device_id: Option<&str>, said: &mut Findings) {
    let Some(found) = identity.map(Identity::last4) else {
        if device_id.is_some() {
            said.problem(
                "identity",
                "the device does not say who it is, but the section has a device_id",
                "remove device_id",
            );
        }
        return;
    };
    match device_id {
        Some(wanted) if wanted != found => said.problem(
            "identity",
            format!("another device is here: {found}, not {wanted}"),
            "addresses may have been swapped: 'panda-breath discover' shows where each is; else \
             correct device_id",
        ),
        _ => {
            said.ok("identity", format!("device_id {found}"));
        }
    }
}

/// Listens for so long.
async fn watch(visit: &mut Visit, report: &mut Report, time: Duration) -> Watch {
    let start = Instant::now();
    let end = start + time;
    let mut watch = Watch {
        time,
        ..Watch::default()
    };
    let mut last = start;
    loop {
        let heard = timeout_at(end, visit.next()).await;
        let gap = last.elapsed();
        watch.longest_gap = watch.longest_gap.max(gap);
        match heard {
            Err(_) => return watch,
            Ok(Err(why)) => {
                watch.ended = Some((start.elapsed(), why));
                return watch;
            }
            Ok(Ok(None)) => watch.unreadable += 1,
            Ok(Ok(Some(said))) => {
                watch.messages += 1;
                watch.readings += usize::from(said.reading.is_some());
                merge(report, &said);
                last = Instant::now();
            }
        }
    }
}

fn judge_watch(watch: &Watch, said: &mut Findings) {
    let seconds = watch.time.as_secs_f32();
    if let Some((after, why)) = &watch.ended {
        said.problem(
            "reports",
            format!(
                "the connection was over after {:.1} s: {why}",
                after.as_secs_f32()
            ),
            "the device restarts (a weak plug or cable?), or more than seven clients fight for \
             its sockets: close its web page everywhere",
        );
        return;
    }
    if watch.unreadable > 0 {
        said.warning(
            "unreadable",
            format!("{} could not be read", counted(watch.unreadable, "message")),
            "please report it with its firmware version",
        );
    }
    let gap = watch.longest_gap.as_secs_f32();
    let text = format!(
        "{} in {seconds:.0} s, longest silence {gap:.1} s",
        counted(watch.messages, "report")
    );
    let least = (watch.time.as_millis() / PERIOD.as_millis() / 2) as usize;
    if watch.longest_gap >= DEAD || watch.messages == 0 {
        said.problem(
            "reports",
            text,
            "Klipper gives a connection up after 5 s of silence: better Wi-Fi (see wifi below); if \
             it stays silent, pull its plug for 10 s",
        );
    } else if watch.longest_gap >= LATE || watch.messages < least {
        said.warning(
            "reports",
            format!("{text}; twice a second is right"),
            "Wi-Fi is weak or busy: bring the access point nearer, or choose a free channel",
        );
    } else {
        said.ok("reports", text);
    }
}

/// Round trip and loss. Without pings the connection itself says how long a round trip takes.
fn judge_echoes(echoes: Option<&Echoes>, opening: Duration, said: &mut Findings) {
    let median = echoes.and_then(Echoes::median);
    let trip = median.unwrap_or(opening);
    let text = format!("{:.1} ms", trip.as_secs_f64() * 1000.0);
    if trip > SLOW {
        said.warning(
            "round_trip",
            format!("{text} there and back"),
            "Wi-Fi is weak or busy; it works, but a change takes that long to arrive",
        );
    } else {
        said.ok("round_trip", text);
    }
    let Some(echoes) = echoes.filter(|echoes| echoes.sent > 0) else {
        said.ok("wifi", "loss not measured: this system allows no pings");
        return;
    };
    if median.is_none() {
        said.ok(
            "wifi",
            "loss not measured: no ping was answered, though the device talks",
        );
        return;
    }
    let percent = echoes.lost() * 100 / echoes.sent;
    let text = format!("{} of {} pings lost", echoes.lost(), echoes.sent);
    let remedy = "bring the access point nearer, choose a free 2.4 GHz channel, and keep the \
                  device's antenna out of metal enclosures";
    if percent >= LOSS[1] {
        said.problem("wifi", text, remedy);
    } else if percent > LOSS[0] {
        said.warning("wifi", text, remedy);
    } else {
        said.ok("wifi", text);
    }
}

/// Only this computer's connections can be seen from here.
fn judge_clients(clients: usize, watch: &Watch, said: &mut Findings) {
    let text = format!(
        "this computer has {clients} of the device's {SOCKETS} sockets; those of others cannot be \
         seen from here"
    );
    let remedy = "the eighth connection throws one out: close the device's web page, and programs \
                  that keep connections to it";
    if clients + 1 >= SOCKETS {
        let text = format!("{text}; so it was not connected to");
        said.problem("sockets", text, remedy);
    } else if watch.ended.is_some() && clients > 1 {
        said.problem("sockets", text, remedy);
    } else if clients > 2 {
        said.warning("sockets", text, remedy);
    } else {
        said.ok("sockets", text);
    }
}

fn judge_state(report: &Report, readings: usize, said: &mut Findings) {
    if let Some(fault) = report.fault {
        said.problem(
            "state",
            format!("the device reports a fault: {}", fault.text()),
            "it stopped itself; once that is mended, set a target again",
        );
        return;
    }
    if readings == 0 {
        said.problem(
            "state",
            format!("{}: it tells no temperature", doing(report)),
            "the chamber sensor's plug and cable; Klipper takes no target without a reading",
        );
    } else if report.on == Some(true) && report.mode == Some(Mode::Auto) {
        said.warning(
            "state",
            format!(
                "{}: it follows the bed of the printer it is bound to",
                doing(report)
            ),
            "Klipper turns it off when it connects; unbind the printer on the device's page",
        );
    } else {
        said.ok("state", doing(report));
    }
}

/// Established connections of this computer to there.
fn clients(proc: &Path, ip: IpAddr, port: u16) -> usize {
    const ESTABLISHED: &str = "01";
    let table = |name: &str| {
        let text = std::fs::read_to_string(proc.join("net").join(name));
        text.unwrap_or_default()
    };
    let tables = [table("tcp"), table("tcp6")];
    let remotes = tables.iter().flat_map(|table| table.lines().skip(1));
    let fits = |line: &&str| {
        let mut words = line.split_whitespace().skip(2);
        let remote = words.next().and_then(socket_address);
        words.next() == Some(ESTABLISHED) && remote == Some((ip, port))
    };
    remotes.filter(fits).count()
}

/// `0100007F:0050`: the address in groups of 32 bits as the processor has them.
fn socket_address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let group = |at: usize| {
        let digits = address.get(at..at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    if address.len() == 8 {
        return Some((group(0)?.into(), port));
    }
    let mut bytes = [0; 16];
    for (n, part) in bytes.chunks_mut(4).enumerate() {
        part.copy_from_slice(&group(n * 8)?);
    }
    let ip = std::net::Ipv6Addr::from(bytes);
    Some((ip.to_ipv4_mapped().map_or(ip.into(), IpAddr::V4), port))
}

#[cfg(test)]
mod tests;
