//! Who is on this network? Multicast DNS service discovery (RFC 6763) for web pages, which is how
//! BIQU's firmware announces itself.
//!
//! Everything that answers is a stranger: what it says is bounded, and believed only as far as
//! that it may be worth a visit.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::reach::io_text;

/// What every web page on a network is announced as.
const SERVICE: &str = "_http._tcp.local";
/// Wi-Fi loses multicast readily: ask again after so long, each time.
const AGAIN: Duration = Duration::from_millis(700);
/// More web pages than a home has; what comes after them is not looked at (rule R6).
const MOST: usize = 64;
/// More addresses than a heater has.
const MOST_ADDRESSES: usize = 8;
/// Follow-up questions in one packet.
const MOST_QUESTIONS: usize = 16;

/// A web page that is announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// What it is called, if it is announced as a service; else empty.
    pub title: String,
    /// The name of its host, such as `PandaBreath.local`.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Where the host is, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// The keys of its TXT record.
    pub keys: Vec<String>,
}

/// Listens for so long to all that announce a web page, and to all that answer to one of these
/// names. `group` is [`super::mdns::GROUP`] outside of tests.
pub async fn browse(
    hosts: &[&str],
    group: SocketAddr,
    time: Duration,
) -> Result<Vec<Page>, String> {
    let failed = |error: io::Error| format!("no multicast DNS: {}", io_text(&error));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await;
    let socket = socket.map_err(failed)?;
    socket.set_multicast_ttl_v4(255).map_err(failed)?;
    let end = Instant::now() + time;
    let mut heard = Heard::default();
    let mut buffer = [0; 9000];
    while Instant::now() < end {
        for question in heard.questions(hosts) {
            socket.send_to(&question, group).await.map_err(failed)?;
        }
        let until = end.min(Instant::now() + AGAIN);
        // An error is a port that is closed somewhere: the time is waited for all the same.
        while let Ok(received) = timeout_at(until, socket.recv_from(&mut buffer)).await {
            if let Ok((len, from)) = received {
                heard.take(&buffer[..len], from.ip());
            }
        }
    }
    Ok(heard.pages(hosts))
}

/// What was said so far; the keys are in small letters.
#[derive(Default)]
struct Heard {
    /// Announced services, as they are written.
    titles: BTreeMap<String, String>,
    /// Where each is: host and port.
    places: BTreeMap<String, (String, u16)>,
    keys: BTreeMap<String, Vec<String>>,
    addresses: BTreeMap<String, Vec<IpAddr>>,
}

impl Heard {
    /// Packets with everything that is still to be asked.
    fn questions(&self, hosts: &[&str]) -> Vec<Vec<u8>> {
        let mut wanted = vec![(SERVICE.to_owned(), TYPE::PTR)];
        let hosts = hosts.iter().map(|host| (*host).to_owned());
        let known = self.places.values().map(|(host, _)| host.clone());
        for host in hosts.chain(known) {
            if !self.addresses.contains_key(&host.to_ascii_lowercase()) {
                wanted.push((host.clone(), TYPE::A));
                wanted.push((host, TYPE::AAAA));
            }
        }
        for (key, title) in &self.titles {
            if !self.places.contains_key(key) {
                wanted.push((title.clone(), TYPE::SRV));
                wanted.push((title.clone(), TYPE::TXT));
            }
        }
        let packets = wanted.chunks(MOST_QUESTIONS).filter_map(|chunk| {
            let mut packet = Packet::new_query(0);
            for (name, kind) in chunk {
                // A name that is none is not asked for.
                if let Ok(name) = Name::new(name) {
                    let kind = QTYPE::TYPE(*kind);
                    // "QU": answer to me, not to everybody.
                    let question = Question::new(name, kind, QCLASS::CLASS(CLASS::IN), true);
                    packet.questions.push(question);
                }
            }
            packet.build_bytes_vec().ok()
        });
        packets.collect()
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all other record types")]
    fn take(&mut self, packet: &[u8], from: IpAddr) {
        let Ok(packet) = Packet::parse(packet) else {
            return;
        };
        // A question may carry the answers its sender knows already, as stale as they may be.
        if !packet.has_flags(PacketFlag::RESPONSE) {
            return;
        }
        for record in packet.answers.iter().chain(&packet.additional_records) {
            if record.ttl == 0 {
                continue; // a goodbye
            }
            let name = record.name.to_string();
            let key = name.to_ascii_lowercase();
            match &record.rdata {
                RData::PTR(title) if key == SERVICE => {
                    let title = title.0.to_string();
                    put(&mut self.titles, title.to_ascii_lowercase(), title);
                }
                RData::SRV(place) if key.ends_with(SERVICE) => {
                    let place = (place.target.to_string(), place.port);
                    put(&mut self.places, key.clone(), place);
                    put(&mut self.titles, key, name);
                }
                RData::TXT(text) if key.ends_with(SERVICE) => {
                    let mut keys: Vec<_> = text.attributes().into_keys().take(MOST).collect();
                    keys.sort();
                    put(&mut self.keys, key, keys);
                }
                RData::A(a) => self.add(&key, Ipv4Addr::from(a.address).into(), from),
                RData::AAAA(a) => {
                    self.add(&key, std::net::Ipv6Addr::from(a.address).into(), from);
                }
                _ => {}
            }
        }
    }

    fn add(&mut self, host: &str, address: IpAddr, from: IpAddr) {
        if !can_be(address, from) {
            return;
        }
        if !self.addresses.contains_key(host) {
            put(&mut self.addresses, host.to_owned(), Vec::new());
        }
        if let Some(addresses) = self.addresses.get_mut(host) {
            if addresses.len() < MOST_ADDRESSES && !addresses.contains(&address) {
                addresses.push(address);
                addresses.sort_by_key(IpAddr::is_ipv6);
            }
        }
    }

    /// Everything that has an address.
    fn pages(&self, hosts: &[&str]) -> Vec<Page> {
        let addresses = |host: &str| {
            let found = self.addresses.get(&host.to_ascii_lowercase());
            found.cloned().unwrap_or_default()
        };
        let mut pages: Vec<Page> = self
            .places
            .iter()
            .map(|(key, (host, port))| Page {
                title: self.title(key),
                host: host.clone(),
                port: *port,
                addresses: addresses(host),
                keys: self.keys.get(key).cloned().unwrap_or_default(),
            })
            .collect();
        for host in hosts {
            if !pages
                .iter()
                .any(|page| page.host.eq_ignore_ascii_case(host))
            {
                pages.push(Page {
                    host: (*host).to_owned(),
                    port: 80,
                    addresses: addresses(host),
                    ..Page::default()
                });
            }
        }
        pages.retain(|page| !page.addresses.is_empty());
        pages
    }

    fn title(&self, key: &str) -> String {
        let title = self.titles.get(key).map_or(key, String::as_str);
        let end = title.len().saturating_sub(SERVICE.len() + 1);
        title.get(..end).unwrap_or(title).to_owned()
    }
}

/// The first word counts, and there is room for so many.
fn put<T>(map: &mut BTreeMap<String, T>, key: String, value: T) {
    if map.len() < MOST {
        map.entry(key).or_insert(value);
    }
}

/// Whether a device can be there. A link-local IPv6 address is of no use without knowing the link;
/// and nobody else on the network can send us to this computer itself.
fn can_be(address: IpAddr, from: IpAddr) -> bool {
    let is_usable = match address {
        IpAddr::V4(ip) => !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    };
    let is_honest = !address.is_loopback() || from.is_loopback();
    is_usable && is_honest && !address.is_unspecified() && !address.is_multicast()
}

#[cfg(test)]
mod tests {
    use simple_dns::ResourceRecord;

    use super::*;

    #[test]
    fn a_stranger_cannot_send_us_to_this_computer_or_to_everybody() {
        let stranger: IpAddr = "192.0.2.9".parse().unwrap();
        for address in [
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "::",
            "255.255.255.255",
            "224.0.0.251",
            "ff02::1",
            "fe80::1",
        ] {
            assert!(!can_be(address.parse().unwrap(), stranger), "{address}");
        }
        for address in ["192.0.2.7", "2001:db8::7", "169.254.1.1"] {
            assert!(can_be(address.parse().unwrap(), stranger), "{address}");
        }
        let here = Ipv4Addr::LOCALHOST.into();
        assert!(can_be(here, here), "a simulated device");
    }

    #[test]
    fn only_an_answer_that_still_holds_is_one() {
        let from: IpAddr = "192.0.2.9".parse().unwrap();
        let name = Name::new("PandaBreath.local").unwrap();
        let said = |mut packet: Packet<'_>, ttl| {
            let data = RData::A(Ipv4Addr::new(192, 0, 2, 7).into());
            let record = ResourceRecord::new(name.clone(), CLASS::IN, ttl, data);
            packet.answers.push(record);
            let mut heard = Heard::default();
            heard.take(&packet.build_bytes_vec().unwrap(), from);
            heard.pages(&["PandaBreath.local"]).len()
        };
        assert_eq!(said(Packet::new_reply(0), 120), 1);
        assert_eq!(said(Packet::new_reply(0), 0), 0, "a goodbye");
        assert_eq!(
            said(Packet::new_query(0), 120),
            0,
            "what somebody else has heard"
        );
    }

    #[test]
    fn r6_what_strangers_say_is_bounded() {
        let from: IpAddr = "192.0.2.9".parse().unwrap();
        let mut heard = Heard::default();
        for n in 0..1000_u32 {
            let name = format!("host{}.local", n / 20);
            heard.add(&name, Ipv4Addr::from(0xc000_0200 + n).into(), from);
            put(&mut heard.titles, format!("t{n}"), String::new());
        }
        assert!(heard.addresses.len() <= MOST && heard.titles.len() == MOST);
        assert!(
            heard
                .addresses
                .values()
                .all(|all| all.len() <= MOST_ADDRESSES)
        );
        assert!(heard.questions(&[]).len() <= 2 + 4 * MOST / MOST_QUESTIONS);
    }
}
