//! What a device, or whatever answers in its place, may send: every row of the bad-input table of
//! `docs/`, with the heater at 45 C, then normal traffic again.

use std::io::{Read, Write};
use std::time::Duration;

use _core::session::Link;

use crate::klipper::{Klipper, LIMIT, OFF, Rig, heat, now_s};
use crate::peer::{self, Peer, client_frame, frame, hex, reading, text};

/// Back at once: even with a loaded machine around it, and a connection that was short.
const AT_ONCE_S: f64 = 3.0;

/// Runs a case for each row at the same time, because most of it is waiting.
fn each<T: Sync>(rows: &[(&str, T)], case: impl Fn(&str, &T) + Sync) {
    std::thread::scope(|scope| {
        let case = &case;
        for (name, row) in rows {
            scope.spawn(move || case(name, row));
        }
    });
}

/// The rest of the device is as always after the input.
#[track_caller]
fn goes_on_heating(name: &str, rig: &Rig, klipper: &mut Klipper, mark: usize) {
    let snapshot = klipper.wait_readings(2);
    assert_eq!(snapshot.link, Link::Connected, "{name}");
    assert!(rig.is_on(), "{name}");
    assert_eq!(
        rig.frames_since(mark),
        [""; 0],
        "{name}: nothing had to be said"
    );
    // No chamber of a test gets that warm; what the inputs pretend lies outside.
    let invented: Vec<_> = klipper
        .temperatures
        .iter()
        .filter(|c| !(20.0..=29.0).contains(*c))
        .collect();
    assert!(invented.is_empty(), "{name}: {invented:?}");
}

#[test]
fn r5_what_cannot_be_read_is_counted_and_the_link_kept() {
    let warehouse = |value: &str| reading(value);
    let mut rows: Vec<(&str, Vec<u8>)> = vec![
        ("garbage", b"garbage".to_vec()),
        ("empty text", Vec::new()),
        (
            "invalid UTF-8",
            b"\xff\xfe{\"settings\":{\"warehouse_temper\":31}}".to_vec(),
        ),
        (
            "invalid UTF-8 inside",
            b"{\"settings\":{\"warehouse_temper\":31,\"a\":\"\xc3\x28\"}}".to_vec(),
        ),
        (
            "nested arrays",
            ("[".repeat(30_000) + &"]".repeat(30_000)).into_bytes(),
        ),
        (
            "nested objects",
            "{\"settings\":".repeat(5_000).into_bytes(),
        ),
        ("settings null", br#"{"settings":null}"#.to_vec()),
        (
            "settings an array",
            br#"{"settings":[{"warehouse_temper":31}]}"#.to_vec(),
        ),
        ("null", b"null".to_vec()),
        ("42", b"42".to_vec()),
        ("[1,2]", b"[1,2]".to_vec()),
        ("a 400-digit integer", "9".repeat(400).into_bytes()),
        ("cut off", br#"{"settings":{"warehouse_temper":31"#.to_vec()),
        (
            "64 KiB",
            [b"{\"a\":\"".to_vec(), vec![b'x'; 64 * 1024 - 6]].concat(),
        ),
    ];
    for value in [
        "null",
        "[[31]]",
        "[31]",
        "{}",
        "\"NaN\"",
        "\"31\"",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-300",
        "500",
        "150.1",
        "-40.1",
        "true",
        "false",
    ] {
        rows.push((value, warehouse(value)));
    }
    rows.push(("a 400-digit temperature", warehouse(&"9".repeat(400))));
    // In one device's life rather than thirty: each is counted by itself.
    let rig = Rig::new();
    let mut klipper = rig.heating();
    let mark = rig.mark();
    for (name, payload) in &rows {
        let before = klipper.wait_readings(1);
        rig.inject("mute 2"); // what is made of the input stays to be seen
        rig.inject(&format!("rawhex {}", hex(&text(payload))));
        let after = klipper.wait_until(name, |now| now.ignored > before.ignored);
        assert_eq!(after.ignored, before.ignored + 1, "{name}: counted once");
        assert_eq!(after.link, Link::Connected, "{name}");
        assert_eq!(after.last_error, None, "{name}");
        let invented = after.reading.unwrap().number - before.reading.unwrap().number;
        assert!(
            invented <= 1,
            "{name}: one honest reading may have been on its way"
        );
        rig.inject("mute 0");
    }
    goes_on_heating("all", &rig, &mut klipper, mark);
    assert_eq!(
        rig.opened_since(mark),
        [0; 0],
        "the same connection through all of it"
    );
}

/// Text that turns bad in the middle of a message costs the connection, if more of it follows.
#[test]
fn r5_invalid_utf_8_in_fragments_is_survived() {
    let bad = [
        frame(0x01, b"{\"a\":\"\xff"),
        frame(0x00, b"\xfe"),
        frame(0x80, b"\"}"),
    ]
    .concat();
    let split = [frame(0x01, b"{\"a\":\"\xc3"), frame(0x80, b"\xa4\"}")].concat();
    let cut = [frame(0x01, b"{\"a\":\""), frame(0x80, b"\"}\xc3")].concat();
    let close = frame(0x88, b"\x03\xe8\xff\xfe");
    let rows = [
        ("bad", (bad, 1)),
        ("split", (split, 0)),
        ("cut", (cut, 1)),
        ("close", (close, 1)),
    ];
    each(&rows, |name, (bytes, ignored)| {
        let rig = Rig::new();
        let mut klipper = rig.heating();
        let mark = rig.mark();
        let before = klipper.drain();
        rig.inject(&format!("rawhex {}", hex(bytes)));
        let after = klipper.wait_readings(3);
        assert_eq!(after.ignored, before.ignored + ignored, "{name}");
        let kept = name != "bad";
        assert_eq!(rig.opened_since(mark).is_empty(), kept, "{name}");
        goes_on_heating(name, &rig, &mut klipper, mark);
        assert!(klipper.lines.len() < 8, "{name}: {:?}", klipper.lines);
    });
}

#[test]
fn r5_all_garbage_at_once_is_survived() {
    let rig = Rig::new();
    let mut klipper = rig.heating();
    let mark = rig.mark();
    let before = klipper.drain().ignored;
    for _ in 0..20 {
        rig.inject("garbage");
    }
    klipper.wait_until("ignored", |now| now.ignored >= before + 20 * 19);
    goes_on_heating("garbage", &rig, &mut klipper, mark);
    assert_eq!(rig.opened_since(mark), [0; 0]);
}

#[test]
fn r5_unusual_but_lawful_messages_are_read() {
    let whole = |celsius: &str| reading(celsius);
    let parts = |count: usize, celsius: &str, between: &[u8]| {
        let whole = whole(celsius);
        let size = whole.len().div_ceil(count);
        let chunks: Vec<_> = whole.chunks(size).collect();
        assert_eq!(chunks.len(), count);
        let mut bytes = Vec::new();
        for (n, chunk) in chunks.iter().enumerate() {
            let fin = if n + 1 == count { 0x80 } else { 0 };
            bytes.extend(frame(fin | u8::from(n == 0), chunk));
            if fin == 0 {
                bytes.extend(between);
            }
        }
        bytes
    };
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("2 fragments", parts(2, "31", b"")),
        ("5 fragments", parts(5, "31", b"")),
        (
            "a pong between fragments",
            parts(2, "31", &frame(0x8a, b"")),
        ),
        (
            "an empty fragment in between",
            parts(2, "31", &frame(0x00, b"")),
        ),
        ("binary", frame(0x82, &whole("31"))),
        ("a decimal number", text(&whole("31.0"))),
        ("an exponent", text(&whole("3.1e1"))),
        (
            "spaces and an unknown root",
            text(b" {\n\"x\":[{}] ,\t\"settings\" : { \"warehouse_temper\" : 31 } } "),
        ),
        (
            "a long length",
            [&[0x81, 127, 0, 0, 0, 0, 0, 0, 0, 36][..], &whole("31")].concat(),
        ),
    ];
    let rig = Rig::new();
    let mut klipper = rig.heating();
    let mark = rig.mark();
    for (name, bytes) in &rows {
        klipper.wait_until("an own reading", |now| {
            now.reading.is_some_and(|last| last.celsius < 30.0)
        });
        rig.inject("mute 4");
        rig.inject(&format!("rawhex {}", hex(bytes)));
        klipper.wait_until(name, |now| {
            now.reading
                .is_some_and(|last| last.celsius.total_cmp(&31.0).is_eq())
        });
        rig.inject("mute 0");
    }
    assert_eq!(klipper.drain().ignored, 0);
    assert_eq!(
        rig.opened_since(mark),
        [0; 0],
        "the same connection through all of it"
    );
}

#[test]
fn r6_what_breaks_the_protocol_or_the_limit_closes_the_link_and_it_is_back_at_once() {
    let normal = text(&reading("25"));
    let over = vec![b'x'; 64 * 1024 + 1];
    let too_large = "a message larger than 64 KiB";
    let broken = "not a WebSocket frame";
    let gone = "closed by the device";
    let rows: Vec<(&str, (Vec<u8>, &str))> = vec![
        (
            "length 2^62",
            (vec![0x81, 127, 0x40, 0, 0, 0, 0, 0, 0, 0], too_large),
        ),
        (
            "length 2^63",
            (vec![0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], too_large),
        ),
        (
            "4 GiB announced",
            (
                [&[0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0][..], &normal].concat(),
                too_large,
            ),
        ),
        ("64 KiB and a byte", (text(&over), too_large)),
        (
            "64 KiB and more in fragments",
            (
                [
                    frame(0x01, &over[..40_000]),
                    frame(0x00, &over[..40_000]),
                    frame(0x80, b""),
                ]
                .concat(),
                too_large,
            ),
        ),
        (
            "100k nested arrays",
            (
                text(("[".repeat(100_000) + &"]".repeat(100_000)).as_bytes()),
                too_large,
            ),
        ),
        (
            "masked",
            (
                [
                    &[0x81, 0x80 | 2, 1, 2, 3, 4, b'{' ^ 1, b'}' ^ 2][..],
                    &normal,
                ]
                .concat(),
                broken,
            ),
        ),
        ("RSV1", (frame(0xc1, &reading("31")), broken)),
        ("a reserved opcode", (frame(0x83, &reading("31")), broken)),
        (
            "a stray continuation",
            (frame(0x80, &reading("31")), broken),
        ),
        (
            "a text inside a text",
            ([frame(0x01, b"{"), normal.clone()].concat(), broken),
        ),
        ("a fragmented ping", (frame(0x09, b""), broken)),
        ("a ping of 126 bytes", (frame(0x89, &[0; 126]), broken)),
        ("one stray byte 0x81", (vec![0x81], broken)),
        ("a close frame", (frame(0x88, b""), gone)),
        (
            "a close frame with its reason",
            (frame(0x88, b"\x03\xe8going down"), gone),
        ),
        ("a close frame of one byte", (frame(0x88, b"\x03"), broken)),
    ];
    each(&rows, |name, (bytes, why)| {
        let rig = Rig::new();
        let mut klipper = rig.heating();
        let mark = rig.mark();
        klipper.lines.clear();
        let before = klipper.drain();
        let sent = now_s();
        rig.inject(&format!("rawhex {}", hex(bytes)));
        let reason = klipper.wait_until(name, |now| now.reconnects > 0 || now.last_error.is_some());
        if let Some(error) = &reason.last_error {
            assert_eq!(&**error, *why, "{name}");
            assert_eq!(
                reason.link,
                Link::Reconnecting,
                "{name}: the status says so"
            );
        }
        klipper.wait_line(why);
        klipper.wait_until("back", |now| {
            now.link == Link::Connected && now.reconnects == 1
        });
        let away = rig.wait_open_since(mark).t - sent;
        assert!(away < AT_ONCE_S, "{name}: {away} s");
        assert!(klipper.drain().ignored <= before.ignored + 1, "{name}");
        goes_on_heating(name, &rig, &mut klipper, mark);
        assert_eq!(rig.opened_since(mark).len(), 1, "{name}");
    });
}

#[test]
fn r6_of_a_64_mib_text_nothing_is_held() {
    let peer = Peer::new();
    let mut klipper = Klipper::ready(peer.config());
    let mut stream = peer.accept_live();
    klipper.wait_connected();
    let before = resident_kib();
    let mut most = before;
    stream
        .write_all(&[0x81, 127, 0, 0, 0, 0, 4, 0, 0, 0])
        .unwrap();
    let part = vec![b'['; 64 * 1024];
    let mut taken = 0;
    while taken < 64 * 1024 * 1024 && stream.write_all(&part).is_ok() {
        taken += part.len();
        most = most.max(resident_kib());
    }
    assert!(
        taken < 16 * 1024 * 1024,
        "{taken} bytes went into a closed connection"
    );
    // Other tests run in this process; the text would be 65,536 KiB.
    assert!(most < before + 32 * 1024, "{before} KiB became {most} KiB");
    klipper.wait_line("a message larger than 64 KiB");
    let _back = peer.accept_live();
    klipper.wait_connected();
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn r6_a_flood_is_read_and_bounded() {
    let rig = Rig::new();
    let mut klipper = rig.heating();
    let mark = rig.mark();
    rig.inject("flood 5000 2");
    let before = klipper.drain().reading.unwrap().number;
    klipper.wait_until("all of it", |now| {
        now.reading.unwrap().number >= before + 9_000
    });
    goes_on_heating("flood", &rig, &mut klipper, mark);
    assert_eq!(rig.opened_since(mark), [0; 0]);
}

#[test]
fn r6_a_flood_of_faults_is_a_few_lines() {
    let rig = Rig::new();
    let mut klipper = rig.off();
    klipper.lines.clear();
    for n in 0..400 {
        let fault = if n % 2 == 0 {
            "ptc_sensor_status"
        } else {
            "warehouse_sensor_status"
        };
        rig.inject(&format!("raw {{\"settings\":{{\"{fault}\":2}}}}"));
    }
    klipper.wait_readings(0);
    rig.inject("button on");
    rig.wait_state(1, 60);
    klipper.wait_off_known();
    assert!(klipper.lines.len() <= 30, "{} lines", klipper.lines.len());
}

#[test]
fn a_ping_is_answered_by_a_masked_pong() {
    let peer = Peer::new();
    let mut klipper = Klipper::ready(peer.config());
    let mut stream = peer.accept_live();
    klipper.wait_connected();
    for payload in [&b""[..], b"are you there?", &[0xff; 125]] {
        stream.write_all(&frame(0x89, payload)).unwrap();
        let (first, masked, answered) = client_frame(&mut stream);
        assert_eq!((first, masked), (0x8a, true));
        assert_eq!(answered, payload);
    }
    stream.write_all(&text(&reading("30"))).unwrap();
    klipper.wait_until("a reading", |now| now.reading.is_some());
    assert_eq!(klipper.drain().reconnects, 0);
}

#[test]
fn a_handshake_and_frames_in_one_segment_are_read() {
    let peer = Peer::new();
    let mut klipper = Klipper::ready(peer.config());
    let mut stream = peer.accept();
    let mut bytes = peer::answer(&peer::request(&mut stream));
    bytes.extend(text(peer.snapshot.as_bytes()));
    let frames = bytes.len();
    for n in 0..100 {
        bytes.extend(text(&reading(&format!("{}.5", 20 + n % 10))));
    }
    bytes.extend(text(&reading("33")));
    assert!(bytes.len() > frames + 3 * 1024);
    stream.write_all(&bytes).unwrap();
    let snapshot = klipper.wait_until("the last of them", |now| {
        now.reading
            .is_some_and(|last| last.celsius.total_cmp(&33.0).is_eq())
    });
    assert_eq!(snapshot.reading.unwrap().number, 101);
    assert_eq!((snapshot.ignored, snapshot.reconnects), (0, 0));
}

#[test]
fn a_handshake_in_crumbs_and_its_frames_byte_by_byte_are_read() {
    let peer = Peer::new();
    let mut klipper = Klipper::ready(peer.config());
    let mut stream = peer.accept();
    let answer = peer::answer(&peer::request(&mut stream));
    // The library takes more than 64 tiny packets of a handshake for an attack.
    for crumb in answer.chunks(4) {
        stream.write_all(crumb).unwrap();
    }
    let mut bytes = text(peer.snapshot.as_bytes());
    bytes.extend(text(&reading("33")));
    for byte in bytes {
        stream.write_all(&[byte]).unwrap(); // TCP_NODELAY: a segment each
    }
    klipper.wait_until("a reading", |now| now.reading.is_some());
    assert_eq!(klipper.drain().ignored, 0);
}

#[test]
fn who_answers_but_not_as_a_device_does_is_named() {
    let http = |status: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nLocation: http://a/\r\n\r\n")
    };
    let rows: Vec<(&str, (Vec<u8>, &str))> = vec![
        ("302", (http("302 Found").into_bytes(), "HTTP 302")),
        ("404", (http("404 Not Found").into_bytes(), "HTTP 404")),
        ("200", (http("200 OK").into_bytes(), "HTTP 200")),
        ("503", (http("503 Service Unavailable").into_bytes(), "HTTP 503")),
        ("garbage", (b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(), "not as a Panda Breath does")),
        ("binary garbage", (vec![0xff; 300], "not as a Panda Breath does")),
        (
            "a wrong key",
            (
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"
                    .to_vec(),
                "not as a Panda Breath does",
            ),
        ),
        ("headers without end", (vec![b'a'; 256 * 1024], "not as a Panda Breath does")),
        ("nothing at all", (Vec::new(), "not as a Panda Breath does")),
    ];
    each(&rows, |name, (bytes, error)| {
        let peer = Peer::new();
        let mut klipper = Klipper::starting(peer.config());
        for _ in 0..2 {
            let mut stream = peer.accept();
            peer::request(&mut stream);
            let _ = stream.write_all(bytes);
            drop(stream);
        }
        let snapshot = klipper.wait_until(name, |now| {
            now.last_error
                .as_deref()
                .is_some_and(|text| text.contains(error))
        });
        assert_eq!(snapshot.link, Link::Connecting, "{name}");
        // And the device comes back one day.
        let _stream = peer.accept_live();
        klipper.wait_connected();
        let told = klipper
            .lines
            .iter()
            .filter(|line| line.contains("cannot connect"))
            .count();
        assert_eq!(told, 1, "{name}: {:?}", klipper.lines);
    });
}

#[test]
fn who_says_nothing_after_accepting_is_left_and_tried_again() {
    let silent = |handshake: bool| {
        let peer = Peer::new();
        let mut klipper = Klipper::starting(peer.config());
        let mut stream = peer.accept();
        let request = peer::request(&mut stream);
        if handshake {
            stream.write_all(&peer::answer(&request)).unwrap();
            stream.write_all(&text(&reading("31"))).unwrap(); // but who is it?
        }
        let snapshot = klipper.wait_until("an error", |now| now.last_error.is_some());
        assert_eq!(snapshot.reading, None, "rule R5: it never said who it is");
        let _stream = peer.accept_live();
        klipper.wait_connected();
        snapshot.last_error.unwrap()
    };
    std::thread::scope(|scope| {
        let mute = scope.spawn(|| silent(false));
        let no_snapshot = scope.spawn(|| silent(true));
        assert_eq!(&*mute.join().unwrap(), "no answer");
        let text = "it accepts connections but does not send its state";
        assert_eq!(&*no_snapshot.join().unwrap(), text);
    });
}

/// Out of step with the stream a reader finds frames that mean nothing, for ever.
#[test]
fn frames_without_meaning_are_no_sign_of_life() {
    let peer = Peer::new();
    let mut klipper = Klipper::ready(peer.config());
    let mut stream = peer.accept_live();
    klipper.wait_connected();
    let started = now_s();
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let end = started + LIMIT.as_secs_f64();
    let mut buffer = [0; 256];
    loop {
        assert!(now_s() < end, "it stays");
        klipper.drain();
        let alive = stream.write_all(&text(b"{\"settings\":{\"x\":1}}")).is_ok();
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && alive => {}
            Err(_) => break,
        }
    }
    let lasted = now_s() - started;
    assert!((4.0..9.0).contains(&lasted), "{lasted} s");
    klipper.wait_line("no report for 5 s");
    let _back = peer.accept_live();
    klipper.wait_connected();
}

/// Rule R4: what was written to a connection that is given up must not arrive: a reset says so.
#[test]
fn r4_a_connection_is_given_up_with_a_reset() {
    let peer = Peer::new();
    let mut klipper = Klipper::ready(peer.config());
    let mut stream = peer.accept_live();
    klipper.wait_connected();
    klipper.want(45.0);
    let (_, masked, payload) = client_frame(&mut stream);
    assert!(masked);
    assert_eq!(payload, heat(45).as_bytes());
    klipper.want(0.0);
    assert_eq!(client_frame(&mut stream).2, OFF.as_bytes());
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let end = peer::read_to_the_end(&mut stream).unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}
