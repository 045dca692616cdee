//! One-shot multicast DNS (RFC 6762 section 5.1): who has this `.local` name?

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Where everybody listens.
pub const GROUP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)), 5353);

/// Wi-Fi loses multicast readily: ask three times, and wait this long after each.
const WAITS: [Duration; 3] = [
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1_300),
];

/// The addresses that answer to `host`, IPv4 first. `group` is [`GROUP`] outside of tests.
pub async fn query(host: String, group: SocketAddr) -> Result<Vec<IpAddr>, String> {
    let name = host.trim_end_matches('.').to_owned();
    let question = question(&name).ok_or_else(|| format!("'{host}' is not a legal host name"))?;
    let failed = |error: io::Error| format!("multicast DNS: {error}");
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .await
        .map_err(failed)?;
    socket.set_multicast_ttl_v4(255).map_err(failed)?;
    for wait in WAITS {
        socket.send_to(&question, group).await.map_err(failed)?;
        if let Ok(addresses) = timeout(wait, answer(&socket, &name)).await {
            return Ok(addresses);
        }
    }
    Err(format!(
        "nobody on this network answers to the name '{host}'"
    ))
}

fn question(name: &str) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(0);
    for kind in [TYPE::A, TYPE::AAAA] {
        let name = Name::new(name).ok()?;
        // "QU": answer to me, not to everybody.
        packet.questions.push(Question::new(
            name,
            QTYPE::TYPE(kind),
            QCLASS::CLASS(CLASS::IN),
            true,
        ));
    }
    packet.build_bytes_vec().ok()
}

async fn answer(socket: &UdpSocket, name: &str) -> Vec<IpAddr> {
    let mut buffer = [0; 1500];
    loop {
        let Ok((len, _)) = socket.recv_from(&mut buffer).await else {
            return std::future::pending().await; // the caller's timeout decides
        };
        let addresses = addresses(&buffer[..len], name);
        if !addresses.is_empty() {
            return addresses;
        }
    }
}

/// What a packet says about `name`, IPv4 first; nothing if it is not an answer to us.
#[expect(clippy::wildcard_enum_match_arm, reason = "all other record types")]
fn addresses(packet: &[u8], name: &str) -> Vec<IpAddr> {
    let Ok(packet) = Packet::parse(packet) else {
        return Vec::new();
    };
    // A question may carry the answers its sender knows already, as stale as they may be.
    if !packet.has_flags(PacketFlag::RESPONSE) {
        return Vec::new();
    }
    let mut addresses: Vec<IpAddr> = packet
        .answers
        .iter()
        .chain(&packet.additional_records)
        .filter(|record| record.name.to_string().eq_ignore_ascii_case(name))
        .filter_map(|record| match &record.rdata {
            RData::A(a) => Some(IpAddr::V4(Ipv4Addr::from(a.address))),
            // A link-local address is of no use without knowing the link.
            RData::AAAA(a) => {
                let address = std::net::Ipv6Addr::from(a.address);
                (!address.is_unicast_link_local()).then_some(IpAddr::V6(address))
            }
            _ => None,
        })
        .collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
}
