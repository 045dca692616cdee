//! The simulated device over real sockets (PROTOCOL sections 1, 3, 7 and 13).
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers may panic as its tests do"
)]

use std::time::Duration;

use _core::sim::{Entry, Event, Firmware, Options, Setup, Simulator};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

type Socket = WebSocketStream<TcpStream>;

const LIMIT: Duration = Duration::from_secs(10);

fn start() -> Simulator {
    start_with(|_| {})
}

fn start_with(change: impl FnOnce(&mut Options)) -> Simulator {
    let mut options = Options {
        reboot_s: 0.3,
        ..Options::default()
    };
    change(&mut options);
    Simulator::start(options).unwrap()
}

async fn tcp(simulator: &Simulator) -> TcpStream {
    TcpStream::connect(simulator.address(0)).await.unwrap()
}

async fn connect(simulator: &Simulator) -> Socket {
    connect_to(simulator, 0).await
}

async fn connect_to(simulator: &Simulator, index: usize) -> Socket {
    let address = simulator.address(index);
    let stream = TcpStream::connect(address).await.unwrap();
    client_async(format!("ws://{address}/ws"), stream)
        .await
        .unwrap()
        .0
}

/// A WebSocket without a library around it, after its handshake.
async fn connect_raw(simulator: &Simulator) -> TcpStream {
    let mut stream = tcp(simulator).await;
    stream.write_all(HANDSHAKE).await.unwrap();
    stream
}

async fn next(socket: &mut Socket) -> Value {
    let message = timeout(LIMIT, socket.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    serde_json::from_str(message.to_text().unwrap()).unwrap()
}

/// The next frame that has this key in its settings.
async fn next_with(socket: &mut Socket, key: &str) -> Value {
    loop {
        let frame = next(socket).await;
        if !frame["settings"][key].is_null() {
            return frame["settings"][key].clone();
        }
    }
}

async fn send(socket: &mut Socket, text: &str) {
    socket.send(Message::text(text)).await.unwrap();
}

async fn read_to_the_end(stream: &mut TcpStream) -> (Vec<u8>, std::io::Result<usize>) {
    let mut bytes = Vec::new();
    let end = timeout(LIMIT, stream.read_to_end(&mut bytes))
        .await
        .unwrap();
    (bytes, end)
}

fn frame_arrived(simulator: &Simulator, part: &str) -> Entry {
    let fits =
        |entry: &Entry| matches!(&entry.event, Event::Frame { text, .. } if text.contains(part));
    simulator.wait_for(fits, LIMIT).unwrap()
}

fn wait(simulator: &Simulator, event: &Event) {
    simulator
        .wait_for(|entry| entry.event == *event, LIMIT)
        .unwrap();
}

fn state_arrived(simulator: &Simulator, on: u8, target: u8) {
    let fits = |entry: &Entry| matches!(entry.event, Event::State { work_on, set_temp, .. } if (work_on, set_temp) == (on, target));
    simulator.wait_for(fits, LIMIT).unwrap();
}

const HANDSHAKE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[tokio::test]
async fn a_client_gets_the_snapshot_first_and_then_readings_twice_a_second() {
    for firmware in Firmware::ALL {
        let simulator = start_with(|options| options.setup.firmware = firmware);
        let mut socket = connect(&simulator).await;
        let snapshot = next(&mut socket).await;
        assert_eq!(snapshot["settings"]["fw_version"], firmware.reported());
        assert_eq!(snapshot["settings"]["work_on"], 1);
        assert!(snapshot["settings"][firmware.target_key()] == 60);
        let first = next(&mut socket).await;
        assert!(first["settings"]["warehouse_temper"].is_i64(), "{first}");
        let before = Instant::now();
        for _ in 0..2 {
            next(&mut socket).await;
        }
        let passed = before.elapsed().as_secs_f64();
        assert!((0.6..2.0).contains(&passed), "{passed} s for two readings");
    }
}

#[tokio::test]
async fn a_write_is_logged_obeyed_and_not_echoed() {
    let simulator = start();
    let mut socket = connect(&simulator).await;
    next(&mut socket).await;
    send(&mut socket, r#"{"settings":{"work_on":0}}"#).await;
    send(
        &mut socket,
        r#"{"settings":{"work_on":true,"work_mode":2,"set_temp":45}}"#,
    )
    .await;
    let frame = frame_arrived(&simulator, "\"set_temp\":45");
    state_arrived(&simulator, 1, 45);
    assert!(frame.t > 0.0 && frame.device.is_none());
    for _ in 0..3 {
        let frame = next(&mut socket).await;
        assert_eq!(frame["settings"].as_object().unwrap().len(), 1, "{frame}");
    }
    let fresh = next(&mut connect(&simulator).await).await;
    assert_eq!(fresh["settings"]["work_on"], 1, "the number 0 was ignored");
    assert_eq!(fresh["settings"]["set_temp"], 45);
}

#[tokio::test]
async fn binary_frames_count_like_text() {
    let simulator = start();
    let mut socket = connect(&simulator).await;
    let text = &br#"{"settings":{"set_temp":41}}"#[..];
    socket.send(Message::binary(text)).await.unwrap();
    state_arrived(&simulator, 1, 41);
}

#[tokio::test]
async fn a_button_is_pushed_to_every_client() {
    let simulator = start();
    let mut sockets = [connect(&simulator).await, connect(&simulator).await];
    for socket in &mut sockets {
        next(socket).await;
    }
    simulator.inject("button power").unwrap();
    for socket in &mut sockets {
        assert_eq!(next_with(socket, "work_on").await, 0);
    }
}

#[tokio::test]
async fn the_eighth_connection_evicts_the_one_that_was_quiet_longest() {
    let simulator = start();
    let mut sockets = Vec::new();
    for _ in 0..7 {
        let mut socket = connect(&simulator).await;
        next(&mut socket).await;
        sockets.push(socket);
    }
    for index in [0, 2, 3, 4, 5, 6] {
        send(&mut sockets[index], &format!("\"hello {index}\"")).await;
        frame_arrived(&simulator, &format!("hello {index}"));
    }
    // A plain HTTP connection counts too.
    let _idle = tcp(&simulator).await;
    wait(&simulator, &Event::Close { client: 2, open: 6 });
    next(&mut sockets[0]).await;
    let ended = async {
        while let Some(Ok(message)) = sockets[1].next().await {
            assert!(message.is_text());
        }
    };
    timeout(LIMIT, ended).await.unwrap();
}

#[tokio::test]
async fn a_ping_is_never_answered_and_breaks_the_connection() {
    let simulator = start();
    let mut stream = connect_raw(&simulator).await;
    // Its payload, left in the stream, looks like the head of an unmasked frame.
    stream
        .write_all(&[0x89, 0x82, 0, 0, 0, 0, 0x01, 0x01])
        .await
        .unwrap();
    let (bytes, end) = read_to_the_end(&mut stream).await;
    assert!(end.is_ok(), "{end:?}");
    assert!(!bytes.contains(&0x8a), "a pong");
}

#[tokio::test]
async fn a_close_frame_ends_the_connection_without_an_answer() {
    let simulator = start();
    let mut stream = connect_raw(&simulator).await;
    stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
    let (bytes, end) = read_to_the_end(&mut stream).await;
    assert!(end.is_ok(), "{end:?}");
    assert!(!bytes.contains(&0x88), "a close frame");
}

#[tokio::test]
async fn drop_resets_every_connection() {
    let simulator = start();
    let mut stream = connect_raw(&simulator).await;
    wait(&simulator, &Event::Open { client: 1, open: 1 });
    simulator.inject("drop").unwrap();
    let (_, end) = read_to_the_end(&mut stream).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    next(&mut connect(&simulator).await).await;
}

#[tokio::test]
async fn a_hung_connection_is_read_after_it_thaws_and_new_ones_work_meanwhile() {
    let simulator = start();
    let mut old = connect(&simulator).await;
    next(&mut old).await;
    simulator.inject("hang").unwrap();
    send(&mut old, r#"{"settings":{"work_on":false}}"#).await;
    let mut new = connect(&simulator).await;
    let snapshot = next(&mut new).await;
    assert_eq!(snapshot["settings"]["work_on"], 1);
    next_with(&mut new, "warehouse_temper").await;
    assert!(
        !simulator
            .entries()
            .iter()
            .any(|entry| matches!(entry.event, Event::Frame { .. }))
    );
    simulator.inject("resume").unwrap();
    frame_arrived(&simulator, "false");
    next_with(&mut old, "warehouse_temper").await;
}

#[tokio::test]
async fn hang_all_also_hangs_what_connects_later() {
    let simulator = start();
    simulator.inject("hang all").unwrap();
    let mut stream = connect_raw(&simulator).await;
    wait(&simulator, &Event::Open { client: 1, open: 1 });
    let mut byte = [0];
    assert!(
        timeout(Duration::from_millis(300), stream.read(&mut byte))
            .await
            .is_err()
    );
    simulator.inject("resume").unwrap();
    assert_eq!(
        timeout(LIMIT, stream.read(&mut byte))
            .await
            .unwrap()
            .unwrap(),
        1
    );
}

#[tokio::test]
async fn refuse_closes_the_listener_for_a_while() {
    let simulator = start();
    let mut socket = connect(&simulator).await;
    simulator.inject("refuse 0.3").unwrap();
    let refused = TcpStream::connect(simulator.address(0)).await;
    assert_eq!(
        refused.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    next_with(&mut socket, "warehouse_temper").await;
    let back = async { while TcpStream::connect(simulator.address(0)).await.is_err() {} };
    timeout(LIMIT, back).await.unwrap();
}

#[tokio::test]
async fn a_reboot_drops_everybody_and_brings_the_stored_settings_back() {
    let simulator = start();
    let mut socket = connect(&simulator).await;
    send(&mut socket, r#"{"settings":{"set_temp":41,"work_mode":2}}"#).await;
    send(&mut socket, r#"{"settings":{"reset":1}}"#).await;
    wait(&simulator, &Event::Close { client: 1, open: 0 });
    let refused = TcpStream::connect(simulator.address(0)).await;
    assert!(refused.is_err());
    wait(&simulator, &Event::Up);
    let back = async {
        loop {
            if TcpStream::connect(simulator.address(0)).await.is_ok() {
                return;
            }
        }
    };
    timeout(LIMIT, back).await.unwrap();
    let snapshot = next(&mut connect(&simulator).await).await;
    assert_eq!(snapshot["settings"]["set_temp"], 41);
    assert_eq!(snapshot["settings"]["work_mode"], 2);
}

#[tokio::test]
async fn printer_type_is_acknowledged_before_the_restart() {
    let simulator = start();
    let mut socket = connect(&simulator).await;
    next(&mut socket).await;
    send(&mut socket, r#"{"settings":{"printer_type":2}}"#).await;
    let response = loop {
        let frame = next(&mut socket).await;
        if !frame["response"].is_null() {
            break frame["response"].clone();
        }
    };
    assert_eq!(response["type"], "printer_type");
    assert_eq!(response["ok"], 1);
    wait(&simulator, &Event::Down);
}

#[tokio::test]
async fn a_power_cut_is_silent_and_old_connections_are_reset_when_they_speak() {
    let simulator = start();
    let mut old = connect_raw(&simulator).await;
    wait(&simulator, &Event::Open { client: 1, open: 1 });
    simulator.inject("powercut 1").unwrap();
    let connecting = TcpStream::connect(simulator.address(0));
    assert!(
        timeout(Duration::from_millis(500), connecting)
            .await
            .is_err(),
        "nobody answers"
    );
    wait(&simulator, &Event::Up);
    let mut buffer = [0; 8192];
    loop {
        match old.try_read(&mut buffer) {
            Ok(0) => panic!("closed"),
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                break;
            }
        }
    }
    old.write_all(b"x").await.unwrap();
    let (_, end) = read_to_the_end(&mut old).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    next(&mut connect(&simulator).await).await;
}

#[tokio::test]
async fn raw_frames_and_bytes_reach_the_client_as_they_are() {
    let simulator = start();
    let mut socket = connect(&simulator).await;
    next(&mut socket).await;
    simulator.inject(r#"raw {"settings":{"mine":1}}"#).unwrap();
    assert_eq!(next_with(&mut socket, "mine").await, 1);
    simulator.inject("rawhex 8100").unwrap();
    let empty = async {
        loop {
            let message = socket.next().await.unwrap().unwrap();
            if message == Message::text("") {
                return;
            }
        }
    };
    timeout(LIMIT, empty).await.unwrap();
    assert!(simulator.inject("rawhex 1").is_err());
    assert!(simulator.inject("@1 drop").unwrap_err().contains("@0"));
}

#[tokio::test]
async fn garbage_leaves_the_connection_in_step() {
    let simulator = start();
    let mut stream = connect_raw(&simulator).await;
    wait(&simulator, &Event::Open { client: 1, open: 1 });
    simulator.inject("raw ready").unwrap();
    simulator.inject("garbage").unwrap();
    simulator.inject("raw the end").unwrap();
    let mut bytes = Vec::new();
    let end = async {
        while !bytes.windows(7).any(|window| window == b"the end") {
            stream.read_buf(&mut bytes).await.unwrap();
        }
    };
    timeout(LIMIT, end).await.unwrap();
    assert!(bytes.len() > 60_000);
}

#[tokio::test]
async fn mute_stops_the_readings_and_keeps_the_connection() {
    let simulator = start();
    let mut socket = connect(&simulator).await;
    next_with(&mut socket, "warehouse_temper").await;
    let before = Instant::now();
    simulator.inject("mute 1.5").unwrap();
    next_with(&mut socket, "warehouse_temper").await;
    assert!(before.elapsed().as_secs_f64() >= 1.4);
}

#[tokio::test]
async fn drip_answers_the_handshake_one_byte_per_second() {
    let simulator = start();
    simulator.inject("drip").unwrap();
    let mut stream = connect_raw(&simulator).await;
    let mut buffer = [0; 100];
    let first = timeout(LIMIT, stream.read(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    let before = Instant::now();
    let second = timeout(LIMIT, stream.read(&mut buffer[first..]))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((first, second), (1, 1));
    assert_eq!(&buffer[..2], b"HT");
    assert!(before.elapsed().as_secs_f64() > 0.5);
}

#[tokio::test]
async fn a_flood_sends_that_many_readings() {
    let simulator = start();
    let mut socket = connect(&simulator).await;
    next(&mut socket).await;
    simulator.inject("flood 1000 0.5").unwrap();
    let before = Instant::now();
    for _ in 0..500 {
        next_with(&mut socket, "warehouse_temper").await;
    }
    assert!(before.elapsed().as_secs_f64() < 5.0);
}

#[tokio::test]
async fn pages_redirects_and_uploads_are_answered_as_by_the_firmware() {
    let simulator = start();
    let mut stream = tcp(&simulator).await;
    let mut buffer = [0; 2048];
    for (request, answer) in [
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n"),
        (
            "GET /generate_204 HTTP/1.1\r\n\r\n",
            "HTTP/1.1 302 Temporary Redirect\r\n",
        ),
        ("GET /ws HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"),
    ] {
        stream.write_all(request.as_bytes()).await.unwrap();
        let length = timeout(LIMIT, stream.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]);
        assert!(text.starts_with(answer), "{text}");
    }
    let mut socket = connect(&simulator).await;
    next(&mut socket).await;
    for (body, ok) in [
        (b"bad image", 0),
        (b"\xe9ood image"[..9].try_into().unwrap(), 1),
    ] {
        let mut upload = tcp(&simulator).await;
        let head = b"POST /ota HTTP/1.1\r\nOTA-Type: ota_fw\r\nContent-Length: 9\r\n\r\n";
        upload.write_all(head).await.unwrap();
        upload.write_all(body).await.unwrap();
        let response = loop {
            let frame = next(&mut socket).await;
            if !frame["response"].is_null() {
                break frame["response"].clone();
            }
        };
        assert_eq!(response["type"], "ota_fw");
        assert_eq!(response["ok"], ok);
    }
    wait(&simulator, &Event::Up);
}

#[tokio::test]
async fn acceleration_is_for_heat_and_not_for_the_wire() {
    let simulator = start_with(|options| options.speed = 500.0);
    let mut socket = connect(&simulator).await;
    next(&mut socket).await;
    send(
        &mut socket,
        r#"{"settings":{"work_on":true,"work_mode":2,"set_temp":45}}"#,
    )
    .await;
    let hot = |entry: &Entry| {
        matches!(
            entry.event,
            Event::State {
                reading: 45,
                heater: false,
                ..
            }
        )
    };
    let hot = simulator.wait_for(hot, LIMIT).unwrap();
    let took = hot.t - frame_arrived(&simulator, "45").t;
    assert!((1.0..3.0).contains(&took), "10 to 15 min took {took} s");
    let mut socket = connect(&simulator).await;
    next_with(&mut socket, "warehouse_temper").await;
    let before = Instant::now();
    next_with(&mut socket, "warehouse_temper").await;
    assert!(before.elapsed().as_secs_f64() > 0.3);
}

#[tokio::test]
async fn several_devices_listen_on_consecutive_ports_and_are_addressed_by_index() {
    let simulator = start_with(|options| options.count = 3);
    let ports: Vec<_> = simulator
        .addresses()
        .iter()
        .map(std::net::SocketAddr::port)
        .collect();
    assert_eq!(ports, [ports[0], ports[0] + 1, ports[0] + 2]);
    let mut identities = Vec::new();
    for index in 0..3 {
        let snapshot = next(&mut connect_to(&simulator, index).await).await;
        identities.push(snapshot["ap"]["ssid"].clone());
    }
    identities.dedup();
    assert_eq!(identities.len(), 3);
    let mut other = connect_to(&simulator, 1).await;
    simulator.inject("@1 button power").unwrap();
    while next_with(&mut other, "work_on").await != 0 {}
    let off = |entry: &Entry| matches!(entry.event, Event::State { work_on: 0, .. });
    assert_eq!(simulator.wait_for(off, LIMIT).unwrap().device, Some(1));
    simulator.inject("@2 identity AA:BB:CC:DD:EE:FF").unwrap();
    let snapshot = next(&mut connect_to(&simulator, 2).await).await;
    assert_eq!(snapshot["ap"]["ssid"], "Panda_Breath_AABBCCDDEEFF");
}

#[tokio::test]
async fn what_is_in_flash_can_outlive_the_simulator() {
    let folder = std::env::temp_dir().join(format!("panda-breath-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("state.json");
    let log = folder.join("log.jsonl");
    let options = || Options {
        state: Some(file.clone()),
        log: Some(log.clone()),
        setup: Setup {
            firmware: Firmware::V1_0_2,
            ..Setup::default()
        },
        ..Options::default()
    };
    let simulator = Simulator::start(options()).unwrap();
    send(
        &mut connect(&simulator).await,
        r#"{"settings":{"set_temp":33}}"#,
    )
    .await;
    let written = async {
        while !std::fs::read_to_string(&file).is_ok_and(|text| text.contains("\"target\":33")) {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, written).await.unwrap();
    drop(simulator);
    let lines = std::fs::read_to_string(&log).unwrap();
    for line in lines.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert!(entry["t"].is_f64() && entry["event"].is_string(), "{line}");
    }
    assert!(lines.contains("\"event\":\"frame\"") && lines.contains("\"heater\":false"));
    let simulator = Simulator::start(options()).unwrap();
    let snapshot = next(&mut connect(&simulator).await).await;
    assert_eq!(snapshot["settings"]["set_temp"], 33);
    std::fs::remove_dir_all(folder).unwrap();
}
