//! A scripted device: what the simulator is too well-behaved for.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use _core::session::Config;
use _core::sim::{Device, Setup};
use socket2::SockRef;
use tungstenite::handshake::derive_accept_key;

use crate::klipper::{self, LIMIT};

/// A listener, and what a device there would say about itself.
pub(crate) struct Peer {
    listener: TcpListener,
    pub(crate) snapshot: String,
}

impl Peer {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind((klipper::loopback(), 0)).unwrap();
        SockRef::from(&listener)
            .set_read_timeout(Some(LIMIT))
            .unwrap();
        let setup = Setup {
            identity: klipper::mac(),
            ..Setup::default()
        };
        let mut device = Device::new(&setup);
        assert_eq!(
            device.press(_core::sim::Button::Power),
            _core::sim::Effect::None
        );
        Self {
            listener,
            snapshot: device.snapshot(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) fn config(&self) -> Config {
        klipper::config(self.address())
    }

    /// The next connection, before anything was said on it.
    #[track_caller]
    pub(crate) fn accept(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().expect("nobody connects");
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// The next connection with its handshake answered, and the snapshot sent.
    #[track_caller]
    pub(crate) fn accept_live(&self) -> TcpStream {
        let mut stream = self.accept();
        let answer = answer(&request(&mut stream));
        stream.write_all(&answer).unwrap();
        stream.write_all(&text(self.snapshot.as_bytes())).unwrap();
        stream
    }
}

/// Reads a whole HTTP request.
#[track_caller]
pub(crate) fn request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

/// What a WebSocket server answers to it.
pub(crate) fn answer(request: &str) -> Vec<u8> {
    let key = request
        .lines()
        .find_map(|line| {
            line.split_once(':')
                .filter(|(name, _)| name.eq_ignore_ascii_case("Sec-WebSocket-Key"))
        })
        .map(|(_, key)| derive_accept_key(key.trim().as_bytes()))
        .unwrap();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {key}\r\n\r\n"
    )
    .into_bytes()
}

/// A whole text message.
pub(crate) fn text(payload: &[u8]) -> Vec<u8> {
    frame(0x81, payload)
}

/// A server's frame: `first` is FIN, RSV and opcode.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(u8::try_from(len).unwrap()),
        len @ 126..=0xffff => {
            bytes.push(126);
            bytes.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            bytes.push(127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

pub(crate) fn reading(celsius: &str) -> Vec<u8> {
    format!(r#"{{"settings":{{"warehouse_temper":{celsius}}}}}"#).into_bytes()
}

/// The client's next frame: its first byte, whether it is masked, and its payload.
#[track_caller]
pub(crate) fn client_frame(stream: &mut TcpStream) -> (u8, bool, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let masked = head[1] & 0x80 != 0;
    let len = match head[1] & 0x7f {
        126 => {
            let mut len = [0; 2];
            stream.read_exact(&mut len).unwrap();
            usize::from(u16::from_be_bytes(len))
        }
        127 => panic!("a client's frame of 64 KiB and more"),
        len => usize::from(len),
    };
    let mut mask = [0; 4];
    if masked {
        stream.read_exact(&mut mask).unwrap();
    }
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).unwrap();
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    (head[0], masked, payload)
}

/// Reads until the other side ends the connection, and says how.
pub(crate) fn read_to_the_end(stream: &mut TcpStream) -> io::Result<usize> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
