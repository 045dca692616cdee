//! One WebSocket connection: from a name to messages, without ever waiting in a call.
//!
//! Uses `tungstenite` directly over a non-blocking stream. Its asynchronous wrapper ends the stream
//! at the first text that is not UTF-8, where we only count it.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket};

use crate::dialect::stock::MAX_MESSAGE;

use super::resolve::Resolver;

/// Long enough for two retransmissions of a lost SYN.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an address may keep silent before the next one is tried as well.
const STAGGER: Duration = Duration::from_millis(250);
/// How long to wait before the same address is tried again while its name is being asked for.
const AGAIN: Duration = Duration::from_millis(250);
/// The library's default is ten times what a device ever sends, for each of a thousand devices.
const BUFFER: usize = 4 * 1024;

/// Opens a TCP connection to where the device was last and to whatever its name resolves to; the
/// first that answers counts.
pub(super) async fn reach(
    mut resolver: Resolver,
    host: String,
    port: u16,
    known: Option<SocketAddr>,
) -> Result<TcpStream, String> {
    let mut attempts = FuturesUnordered::new();
    let mut tried = Vec::new();
    if let Some(address) = known {
        tried.push(address);
        attempts.push(open(address, Duration::ZERO));
    }
    let mut lookup = std::pin::pin!(resolver.lookup(&host));
    let mut asking = true;
    let mut error = None;
    loop {
        tokio::select! {
            answer = &mut lookup, if asking => {
                asking = false;
                match answer {
                    Ok(found) => {
                        for (n, ip) in (0_u32..).zip(found) {
                            let address = SocketAddr::new(ip, port);
                            if !tried.contains(&address) {
                                tried.push(address);
                                attempts.push(open(address, STAGGER * n));
                            }
                        }
                    }
                    Err(text) => error = error.or(Some(text)),
                }
            }
            Some(result) = attempts.next(), if !attempts.is_empty() => match result {
                Ok(stream) => return Ok(stream),
                Err(text) => {
                    error = Some(text);
                    // A device that restarts does not answer to its own name either: it is met
                    // where it was as soon as it is back, however long the question takes.
                    if let (true, true, Some(address)) = (asking, attempts.is_empty(), known) {
                        attempts.push(open(address, AGAIN));
                    }
                }
            },
            else => return Err(error.unwrap_or_else(|| "no address".to_owned())),
        }
    }
}

async fn open(address: SocketAddr, after: Duration) -> Result<TcpStream, String> {
    tokio::time::sleep(after).await;
    let stream = match timeout(CONNECT, TcpStream::connect(address)).await {
        Err(_) => return Err("no answer".to_owned()),
        Ok(Err(error)) => return Err(io_text(&error)),
        Ok(Ok(stream)) => stream,
    };
    let socket = SockRef::from(&stream);
    socket
        .set_tcp_nodelay(true)
        .map_err(|error| io_text(&error))?;
    // However this connection ends, what its buffers still hold must not arrive (rule R4).
    socket
        .set_linger(Some(Duration::ZERO))
        .map_err(|error| io_text(&error))?;
    Ok(stream)
}

/// The operating system's words, shorter, and without numbers.
#[expect(clippy::wildcard_enum_match_arm, reason = "not our enum")]
fn io_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset".into(),
        io::ErrorKind::TimedOut => "no answer".into(),
        io::ErrorKind::HostUnreachable => "host unreachable".into(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".into(),
        io::ErrorKind::UnexpectedEof => "closed by the device".into(),
        kind => kind.to_string(),
    }
}

/// What came in.
#[derive(Debug)]
pub(super) enum Incoming {
    Message(Message),
    /// A text that is none; the connection is fine.
    Unreadable,
    /// Over, and why.
    Ended(String),
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: WebSocket<NonBlocking>,
    /// Something is left to write.
    unsent: bool,
}

impl Connection {
    /// The WebSocket handshake, however many segments it comes in.
    pub(super) async fn handshake(stream: TcpStream) -> Result<Self, String> {
        let address = stream.peer_addr().map_err(|error| io_text(&error))?;
        let host = match address {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        };
        let url = format!("ws://{host}:{}/ws", address.port());
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(BUFFER)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let mut step =
            tungstenite::client::client_with_config(url, NonBlocking(stream), Some(config));
        loop {
            match step {
                Ok((socket, _)) => {
                    return Ok(Self {
                        socket,
                        unsent: false,
                    });
                }
                Err(HandshakeError::Failure(error)) => return Err(handshake_text(&error)),
                Err(HandshakeError::Interrupted(middle)) => {
                    let stream = &middle.get_ref().get_ref().0;
                    stream.readable().await.map_err(|error| io_text(&error))?;
                    step = middle.handshake();
                }
            }
        }
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().0.peer_addr()
    }

    /// Hands one message to the kernel, or keeps it until the kernel takes it.
    pub(super) fn send(&mut self, text: String) {
        // An error here ends the connection, which the next read reports with its reason.
        let _ = self.socket.write(Message::text(text));
        self.flush();
    }

    fn flush(&mut self) {
        self.unsent = matches!(
            self.socket.flush(),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock
        );
    }

    /// The next thing that is there already.
    pub(super) fn take(&mut self) -> Option<Incoming> {
        loop {
            return Some(match self.socket.read() {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => Incoming::Message(message),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {
                    self.flush(); // the pong
                    continue;
                }
                Ok(Message::Close(_)) => Incoming::Ended("closed by the device".into()),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(Error::Utf8(_)) => Incoming::Unreadable,
                Err(error) => Incoming::Ended(error_text(&error)),
            });
        }
    }

    /// Says when [`Connection::take`] may have something, and writes what could not be written.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unsent && self.socket.get_ref().0.poll_write_ready(cx).is_ready() {
            self.flush();
        }
        self.socket.get_ref().0.poll_read_ready(cx).map(|_| ()) // an error is read as one
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "not our enum")]
fn handshake_text(error: &Error) -> String {
    match error {
        Error::Io(error) => io_text(error),
        Error::Http(response) => {
            format!(
                "it answers, but not as a Panda Breath does (HTTP {})",
                response.status().as_u16()
            )
        }
        _ => "it answers, but not as a Panda Breath does".into(),
    }
}

/// Fixed texts only: the library's may quote what the device sent (rule R11).
#[expect(clippy::wildcard_enum_match_arm, reason = "not our enum")]
fn error_text(error: &Error) -> String {
    match error {
        Error::Io(error) => io_text(error),
        Error::ConnectionClosed | Error::AlreadyClosed => "closed by the device".into(),
        Error::Capacity(_) => "a message larger than 64 KiB".into(),
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            "closed by the device".into()
        }
        Error::Protocol(_) => "not a WebSocket frame".into(),
        _ => "the connection failed".into(),
    }
}

/// A tokio stream as the library wants it: reading and writing never wait.
#[derive(Debug)]
struct NonBlocking(TcpStream);

impl Read for NonBlocking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for NonBlocking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[tokio::test]
    async fn r4_a_device_that_restarts_is_met_where_it_was_while_its_name_is_still_asked_for() {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 2, 0, 1), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let reaching = reach(
            Resolver::silent(),
            "silent".into(),
            address.port(),
            Some(address),
        );
        let mut reaching = std::pin::pin!(reaching);
        // It is refused, and goes on: the name may have another answer.
        assert!(
            timeout(Duration::from_millis(100), &mut reaching)
                .await
                .is_err()
        );
        let listener = TcpListener::bind(address).unwrap();
        let stream = timeout(CONNECT, reaching).await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        drop(listener);
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_tried_once_when_nothing_is_asked_for() {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 2, 0, 2), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let host = address.ip().to_string();
        let reaching = reach(Resolver::default(), host, address.port(), Some(address));
        let error = timeout(CONNECT, reaching).await.unwrap().unwrap_err();
        assert_eq!(error, "connection refused");
    }
}
