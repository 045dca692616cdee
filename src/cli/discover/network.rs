//! Devices on this network: those that announce themselves, and addresses that the user names.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;

use super::{Device, Found, Plan, merge, printable};
use crate::cli::bind::{Place, Visit, visit};
use crate::dialect::{Dialect, Identity, Report};
use crate::driver::browse::{Page, browse};

/// What every unit is called that nobody has renamed.
const USUAL: &str = "PandaBreath.local";
/// More visits than anybody has devices: what pretends to be one costs time.
const MOST: usize = 16;
/// A reading comes twice a second.
const READING: Duration = Duration::from_millis(1500);

/// Somewhere a device may be.
struct Candidate {
    /// As the user or the device itself calls it.
    label: String,
    places: Vec<Place>,
    /// Its own name, if it has announced one.
    host: Option<String>,
    /// It is worth a word if it is none.
    is_expected: bool,
}

pub(super) async fn look(plan: &Plan, found: &mut Found) {
    let mut candidates = Vec::new();
    for host in &plan.hosts {
        match visit::addresses(&host.host).await {
            Ok(addresses) => add(
                &mut candidates,
                Candidate {
                    label: host.to_string(),
                    places: places(&addresses, host.port),
                    host: None,
                    is_expected: true,
                },
            ),
            Err(why) => found.failures.push((host.to_string(), why)),
        }
    }
    if let Some(group) = plan.group {
        match browse(&[USUAL], group, plan.time).await {
            Ok(pages) => {
                for page in pages {
                    match candidate(&page) {
                        Some(candidate) => add(&mut candidates, candidate),
                        None => found.others += 1,
                    }
                }
            }
            Err(why) => found.failures.push(("this network".into(), why)),
        }
    }
    if candidates.len() > MOST {
        found.others += candidates.len() - MOST;
        candidates.truncate(MOST);
    }
    // One after the other: what looks like two may be one device, with few sockets.
    let mut met: Vec<(Device, Option<String>)> = Vec::new();
    for candidate in candidates {
        match visit_one(&candidate, plan).await {
            Ok((place, report, mac)) => {
                let is_known = |known: &&mut (Device, Option<String>)| {
                    let same = known.0.report.identity == report.identity;
                    same && report.identity.is_some()
                };
                match met.iter_mut().find(is_known) {
                    Some((_, host)) if host.is_none() => *host = candidate.host,
                    Some(_) => {}
                    None => {
                        let mut device = device(&candidate, &place, report);
                        device.mac = mac;
                        met.push((device, candidate.host));
                    }
                }
            }
            Err(why) if candidate.is_expected => {
                found.failures.push((printable(&candidate.label), why));
            }
            Err(_) => found.others += 1,
        }
    }
    found.devices.extend(named(met));
}

/// A name leads to one device only as long as there is one.
fn named(met: Vec<(Device, Option<String>)>) -> Vec<Device> {
    let is_alone = met.len() == 1;
    let name = |(mut device, host): (Device, Option<String>)| {
        if let (true, Some(host)) = (is_alone, host) {
            device.name.clone_from(&host);
            device.options[0].1 = host;
        }
        device
    };
    met.into_iter().map(name).collect()
}

/// What may be a Panda Breath: it has that in a name, or a TXT record as this firmware makes it. A
/// stranger's web page is nobody's business.
fn candidate(page: &Page) -> Option<Candidate> {
    let says = |text: &str| {
        let text = text.to_ascii_lowercase();
        text.contains("panda") || text.contains("breath")
    };
    let is_named = says(&page.title) || says(&page.host);
    if !is_named && !page.keys.iter().any(|key| key == "board") {
        return None;
    }
    let host = page.host.trim_end_matches('.');
    // It is printed for printer.cfg: only a name that is one.
    let is_name = host.parse::<Place>().is_ok_and(|place| place.host == host);
    Some(Candidate {
        label: host.to_owned(),
        places: places(&page.addresses, page.port),
        host: (is_name && page.port == 80).then(|| host.to_owned()),
        is_expected: is_named,
    })
}

fn places(addresses: &[IpAddr], port: u16) -> Vec<Place> {
    let place = |address: &IpAddr| Place {
        host: address.to_string(),
        port,
    };
    addresses.iter().map(place).collect()
}

/// What is at the same place is the same.
fn add(candidates: &mut Vec<Candidate>, new: Candidate) {
    let shares = |known: &&mut Candidate| known.places.iter().any(|at| new.places.contains(at));
    match candidates.iter_mut().find(shares) {
        None => candidates.push(new),
        Some(known) => {
            for place in new.places {
                if !known.places.contains(&place) {
                    known.places.push(place);
                }
            }
            known.host = known.host.take().or(new.host);
            known.is_expected |= new.is_expected;
        }
    }
}

/// The first of its places where a device is: the others lead to the same one, or are a lie.
async fn visit_one(
    candidate: &Candidate,
    plan: &Plan,
) -> Result<(Place, Report, Option<String>), String> {
    let mut error = "no address".to_owned();
    for place in &candidate.places {
        match Visit::pay(place, &plan.patience).await {
            Ok(mut visit) => {
                let mut report = visit.report.clone();
                let reading = async {
                    while report.reading.is_none() {
                        match visit.next().await {
                            Ok(Some(later)) => merge(&mut report, &later),
                            Ok(None) => {}
                            Err(_) => return,
                        }
                    }
                };
                // Without one it is worth showing all the more.
                let _ = timeout(READING, reading).await;
                let mac = visit.mqtt.id.as_ref().map(|id| id.as_str().to_owned());
                return Ok((place.clone(), report, mac));
            }
            Err(why) => error = why,
        }
    }
    Err(error)
}

fn device(candidate: &Candidate, place: &Place, report: Report) -> Device {
    let mut options = vec![("host", place.host.clone())];
    if place.port != 80 {
        options.push(("port", place.port.to_string()));
    }
    Device {
        name: printable(&candidate.label),
        place: place.to_string(),
        dialect: Dialect::Stock,
        firmware: report.firmware.map(|known| known.as_str().to_owned()),
        id: report.identity.map(Identity::last4),
        mac: None,
        same_as: None,
        report,
        options,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(title: &str, host: &str, keys: &[&str]) -> Page {
        Page {
            title: title.into(),
            host: host.into(),
            port: 80,
            addresses: vec!["192.0.2.7".parse().unwrap()],
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        }
    }

    #[test]
    fn a_strangers_web_page_is_left_alone() {
        assert!(candidate(&page("NAS", "nas.local", &["path"])).is_none());
        let renamed = candidate(&page("web", "chamber.local", &["board", "path"])).unwrap();
        assert!(!renamed.is_expected, "an ESP of any kind");
        let known = candidate(&page("", "PandaBreath-2.local", &[])).unwrap();
        assert!(known.is_expected);
        assert_eq!(known.host.as_deref(), Some("PandaBreath-2.local"));
    }

    #[test]
    fn a_name_that_is_none_is_not_for_printer_cfg() {
        let liar = page("", "panda\n[include evil].local", &[]);
        assert_eq!(candidate(&liar).unwrap().host, None);
    }

    #[test]
    fn what_is_at_the_same_place_is_visited_once() {
        let mut candidates = Vec::new();
        for host in ["a-panda.local", "b-panda.local"] {
            add(&mut candidates, candidate(&page("", host, &[])).unwrap());
        }
        assert_eq!(candidates.len(), 1);
    }

    #[test]
    fn a_name_is_for_printer_cfg_as_long_as_there_is_one_device() {
        let met = |host: &str| {
            let candidate = candidate(&page("", host, &[])).unwrap();
            let device = device(&candidate, &candidate.places[0], Report::default());
            (device, candidate.host)
        };
        let one = named(vec![met("PandaBreath.local")]);
        assert_eq!(one[0].options, [("host", "PandaBreath.local".to_owned())]);
        assert_eq!(
            (one[0].name.as_str(), one[0].place.as_str()),
            ("PandaBreath.local", "192.0.2.7")
        );
        for device in named(vec![met("PandaBreath.local"), met("PandaBreath-2.local")]) {
            assert_eq!(device.options, [("host", "192.0.2.7".to_owned())]);
        }
    }
}
