//! The HTTP side of the server: just what the routes of the firmware need (PROTOCOL section 1.1).

use tungstenite::handshake::derive_accept_key;

/// What a request head asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// The head is not complete yet.
    Incomplete,
    /// A WebSocket; with the answer that accepts it.
    WebSocket { answer: Vec<u8>, taken: usize },
    /// An upload of `length` bytes; whether its type is the one that works.
    Upload {
        length: usize,
        known_type: bool,
        taken: usize,
    },
    /// Anything else; with the answer. Keep-alive: the connection stays and counts.
    Plain { answer: Vec<u8>, taken: usize },
    /// Not HTTP, or a head that is too long: the answer is the last thing on this connection.
    Refused { answer: Vec<u8> },
}

/// Reads one request head.
pub(crate) fn parse(stream: &[u8]) -> Request {
    let Some(end) = stream.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if stream.len() > LONGEST_HEAD {
            refused("431 Request Header Fields Too Large")
        } else {
            Request::Incomplete
        };
    };
    let taken = end + 4;
    let Ok(head) = std::str::from_utf8(&stream[..end]) else {
        return refused("400 Bad Request");
    };
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (Some(method), Some(path), Some(_)) = (words.next(), words.next(), words.next()) else {
        return refused("400 Bad Request");
    };
    let path = path.split('?').next().unwrap_or_default();
    match (method, path) {
        ("GET", "/ws") => match accept(head) {
            Some(answer) => Request::WebSocket { answer, taken },
            None => Request::Plain {
                answer: plain("400 Bad Request", "", ""),
                taken,
            },
        },
        ("GET", "/") => Request::Plain {
            answer: plain("200 OK", "", PAGE),
            taken,
        },
        ("POST", "/ota") => match header(head, "content-length").map(str::parse) {
            Some(Ok(length)) => Request::Upload {
                length,
                known_type: header(head, "ota-type") == Some("ota_fw"),
                taken,
            },
            _ => refused("411 Length Required"),
        },
        ("GET" | "HEAD" | "POST", _) => Request::Plain {
            answer: plain(
                "302 Temporary Redirect",
                "Location: /\r\n",
                "Redirect to the captive portal",
            ),
            taken,
        },
        _ => refused("405 Method Not Allowed"),
    }
}

/// The answer to every upload: it says nothing about success, the `response` root does.
pub(crate) fn upload_answer() -> Vec<u8> {
    plain("200 OK", "Connection: close\r\n", "")
}

fn accept(head: &str) -> Option<Vec<u8>> {
    let upgrade = header(head, "upgrade")?;
    let key =
        header(head, "sec-websocket-key").filter(|_| upgrade.eq_ignore_ascii_case("websocket"))?;
    let accept = derive_accept_key(key.as_bytes());
    let asked = header(head, "sec-websocket-protocol").unwrap_or_default();
    let protocol = if asked.split(',').any(|name| name.trim() == "chat") {
        "Sec-WebSocket-Protocol: chat\r\n"
    } else {
        ""
    };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{protocol}\r\n"
    );
    Some(answer.into_bytes())
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn plain(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n");
    format!("{head}{headers}\r\n{body}").into_bytes()
}

fn refused(status: &str) -> Request {
    Request::Refused {
        answer: plain(status, "Connection: close\r\n", ""),
    }
}

const PAGE: &str = "<!DOCTYPE html><title>Panda Breath</title><p>A simulated Panda Breath: the \
                    state is at <code>/ws</code>.</p>\n";
const LONGEST_HEAD: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_websocket_is_accepted_on_its_path_only() {
        let head = |path| {
            format!(
                "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
        };
        let Request::WebSocket { answer, taken } = parse(head("/ws").as_bytes()) else {
            panic!("not accepted");
        };
        assert_eq!(taken, head("/ws").len());
        assert!(
            String::from_utf8(answer)
                .unwrap()
                .contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        let Request::Plain { answer, .. } = parse(head("/other").as_bytes()) else {
            panic!("not redirected");
        };
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 302 Temporary Redirect\r\n"));
        assert!(answer.contains("\r\nLocation: /\r\n"));
    }

    #[test]
    fn half_a_head_waits_and_an_endless_one_is_refused() {
        assert_eq!(parse(b"GET /ws HTTP/1.1\r\nHost"), Request::Incomplete);
        assert!(matches!(parse(&[b'x'; 5000]), Request::Refused { .. }));
        assert!(matches!(parse(b"\r\n\r\n"), Request::Refused { .. }));
        assert!(matches!(
            parse(b"\xff\xfe x y\r\n\r\n"),
            Request::Refused { .. }
        ));
    }

    #[test]
    fn an_upload_needs_its_type_and_length() {
        let head = b"POST /ota HTTP/1.1\r\nOTA-Type: ota_fw\r\nContent-Length: 5\r\n\r\n";
        let expected = Request::Upload {
            length: 5,
            known_type: true,
            taken: head.len(),
        };
        assert_eq!(parse(head), expected);
        let head = b"POST /ota HTTP/1.1\r\nOTA-Type: ota_img\r\nContent-Length: 5\r\n\r\n";
        assert!(matches!(
            parse(head),
            Request::Upload {
                known_type: false,
                ..
            }
        ));
        assert!(matches!(
            parse(b"POST /ota HTTP/1.1\r\n\r\n"),
            Request::Refused { .. }
        ));
    }
}
