//! What the simulator has for these commands, seen from its clients.

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::*;

#[tokio::test]
async fn a_slow_upload_takes_its_time_and_longer_than_the_timeout_of_a_silent_one() {
    let simulator = device(Firmware::V1_0_3);
    simulator.inject("upload slow").unwrap();
    // Chunks of 4096 bytes, one in 100 ms.
    let body = vec![0xe9; 70 * 4096];
    let head = format!(
        "POST /ota HTTP/1.1\r\nOTA-Type: ota_fw\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(simulator.address(0)).await.unwrap();
    let start = Instant::now();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let mut answer = [0; 15];
    let answered = timeout(LIMIT, stream.read_exact(&mut answer)).await;
    answered.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    assert!(start.elapsed() > Duration::from_millis(5500));
}

#[tokio::test]
async fn a_device_between_two_networks_drops_everybody_and_is_not_there() {
    let simulator = start(|options| options.speed = 1.0);
    let address = simulator.address(0);
    let stream = TcpStream::connect(address).await.unwrap();
    let url = format!("ws://{address}/ws");
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let join = r#"{"wifi":{"ssid":"Neighbour","password":"not-their-password"}}"#;
    socket.send(Message::text(join)).await.unwrap();
    let dropped = async { while let Some(Ok(_)) = socket.next().await {} };
    timeout(LIMIT, dropped).await.unwrap();
    assert!(
        TcpStream::connect(address).await.is_err(),
        "it has left its network"
    );
    let back = async { while TcpStream::connect(address).await.is_err() {} };
    timeout(LIMIT, back).await.unwrap();
}
