//! One WebSocket connection: from a TCP stream to messages, without ever waiting in a call.
//!
//! Uses `tungstenite` directly over a non-blocking stream. Its asynchronous wrapper ends the stream
//! at the first text that is not UTF-8, where we only count it.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use tokio::net::TcpStream;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket};

use crate::dialect::MAX_MESSAGE;

use super::reach::io_text;

/// The library's default is ten times what a device ever sends, for each of a thousand devices.
const BUFFER: usize = 4 * 1024;

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
