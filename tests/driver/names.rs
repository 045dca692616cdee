//! Names and addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use _core::driver::mdns;
use _core::session::{Config, Link};
use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Name, Packet, ResourceRecord};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use crate::klipper::{Klipper, LIMIT, Rig, heat};

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Connects, heats and is turned off at an address of this family, under this name.
fn works(listen: SocketAddr, host: &str) {
    let rig = Rig::with(|options| options.listen = listen);
    let mut klipper = Klipper::ready(Config {
        host: host.into(),
        ..rig.config()
    });
    klipper.wait_off_known();
    klipper.want(45.0);
    rig.wait_frame_since(0, &heat(45));
    klipper.wait_readings(3);
    klipper.want(0.0);
    klipper.wait_off_known();
    // And it is found again, now that its address is known.
    let mark = rig.mark();
    rig.inject("drop");
    rig.wait_open_since(mark);
    klipper.wait_connected();
}

#[test]
fn an_ipv6_address_works() {
    if has_ipv6() {
        works((Ipv6Addr::LOCALHOST, 0).into(), "::1");
        works((Ipv6Addr::LOCALHOST, 0).into(), "[::1]");
    }
}

#[test]
fn a_name_works_whichever_family_the_device_has() {
    works((Ipv4Addr::LOCALHOST, 0).into(), "localhost");
    let both: Vec<_> = std::net::ToSocketAddrs::to_socket_addrs("localhost:80")
        .unwrap()
        .collect();
    if has_ipv6() && both.iter().any(SocketAddr::is_ipv6) {
        works((Ipv6Addr::LOCALHOST, 0).into(), "localhost");
    }
}

#[test]
fn a_name_that_nobody_knows_is_named() {
    let unknown = |host: &str, error: &str| {
        let mut klipper = Klipper::ready(Config {
            host: host.into(),
            ..Config::default()
        });
        klipper.want(45.0);
        let snapshot = klipper.wait_until("an error", |now| {
            now.last_error
                .as_deref()
                .is_some_and(|text| text.contains(error))
        });
        assert!(snapshot.last_error.unwrap().contains(host));
        assert_eq!((snapshot.link, snapshot.reconnects), (Link::Connecting, 0));
        assert!(!klipper.handle.is_stuck());
        klipper.wait_line(host);
        klipper.handle.close();
    };
    std::thread::scope(|scope| {
        for (host, error) in [
            ("no-such-host.invalid", "cannot be resolved"),
            (
                "no-such-device.local",
                "nobody on this network answers to the name",
            ),
            (&"a".repeat(70), "cannot be resolved"),
        ] {
            let host = host.to_owned();
            scope.spawn(move || unknown(&host, error));
        }
    });
}

/// Answers each question with these packets, built from it.
async fn responder(answers: Vec<Vec<u8>>) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            let question = Packet::parse(&buffer[..len]).unwrap();
            assert_eq!(question.questions.len(), 2, "A and AAAA");
            for question in &question.questions {
                assert_eq!(question.qname.to_string(), "Breath.local");
                assert!(question.unicast_response);
            }
            for answer in &answers {
                socket.send_to(answer, from).await.unwrap();
            }
        }
    });
    address
}

fn packet(records: &[(&'static str, IpAddr)]) -> Vec<u8> {
    let mut packet = Packet::new_reply(0);
    for (name, ip) in records {
        let data = match ip {
            IpAddr::V4(ip) => RData::A(A::from(*ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA::from(*ip)),
        };
        let name = Name::new(name).unwrap();
        packet
            .answers
            .push(ResourceRecord::new(name, CLASS::IN, 120, data));
    }
    packet.build_bytes_vec().unwrap()
}

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));
const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7));

#[tokio::test]
async fn mdns_finds_both_families_and_ignores_what_is_not_about_it() {
    for (answers, expected) in [
        (vec![packet(&[("Breath.local", V4)])], vec![V4]),
        (vec![packet(&[("Breath.local", V6)])], vec![V6]),
        (
            vec![packet(&[("BREATH.LOCAL", V6), ("breath.local", V4)])],
            vec![V4, V6],
        ),
        (
            vec![packet(&[
                ("Breath.local", LINK_LOCAL),
                ("Breath.local", V4),
            ])],
            vec![V4],
        ),
        (
            vec![
                packet(&[("other.local", Ipv4Addr::new(192, 0, 2, 8).into())]),
                b"garbage".to_vec(),
                Vec::new(),
                vec![0xff; 1400],
                packet(&[("Breath.local", LINK_LOCAL)]),
                packet(&[("other.local", V6), ("Breath.local", V4)]),
            ],
            vec![V4],
        ),
    ] {
        let group = responder(answers).await;
        let found = timeout(LIMIT, mdns::query("Breath.local.".into(), group))
            .await
            .unwrap();
        assert_eq!(found.unwrap(), expected);
    }
}

#[tokio::test]
async fn mdns_gives_up_within_3_s_whatever_else_is_said() {
    for answers in [
        Vec::new(),
        vec![packet(&[("other.local", V4)]), b"garbage".to_vec()],
    ] {
        let group = responder(answers).await;
        let start = Instant::now();
        let error = mdns::query("Breath.local".into(), group).await.unwrap_err();
        assert!(error.contains("'Breath.local'"), "{error}");
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{:?}",
            start.elapsed()
        );
    }
}

/// Our own question comes back to whoever listens in the group.
#[tokio::test]
async fn mdns_does_not_take_a_question_for_an_answer() {
    let mut query = Packet::new_query(0);
    let data = RData::A(A::from(Ipv4Addr::new(192, 0, 2, 9)));
    let name = Name::new("Breath.local").unwrap();
    query
        .answers
        .push(ResourceRecord::new(name, CLASS::IN, 120, data));
    let known_answer = query.build_bytes_vec().unwrap();
    let group = responder(vec![known_answer, packet(&[("Breath.local", V4)])]).await;
    let found = timeout(LIMIT, mdns::query("Breath.local".into(), group))
        .await
        .unwrap();
    assert_eq!(found.unwrap(), [V4]);
}

#[tokio::test]
async fn mdns_refuses_a_name_that_is_none() {
    let group = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let error = mdns::query(format!("{}.local", "x".repeat(64)), group)
        .await
        .unwrap_err();
    assert!(error.contains("not a legal host name"), "{error}");
}
