//! Just enough HTTP for commands: asking a Moonraker one question, and handing a device a file.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::reach::{io_text, reach};
use super::resolve::Resolver;
use super::visit::Place;

/// No answer that is asked for here is longer.
const MOST: u64 = 64 * 1024;
/// As the device reads it.
const CHUNK: usize = 4096;
/// What has been written is what has left, but for so much.
const SEND_BUFFER: usize = 16 * 1024;

/// How an upload failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Bytes that were written before.
    pub sent: usize,
    /// In words for people.
    pub why: String,
}

/// The body of an answer with status 200. The error says why there is none.
pub async fn get(place: &Place, path: &str, within: Duration) -> Result<String, String> {
    let asking = async {
        let mut stream = open(place).await?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n");
        let written = stream.write_all(head.as_bytes()).await;
        written.map_err(|error| io_text(&error))?;
        let answer = answer(&mut stream).await?;
        match status(&answer) {
            Some(200) => {
                let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                Ok(body.to_owned())
            }
            Some(other) => Err(format!("HTTP {other}")),
            None => Err("no HTTP".to_owned()),
        }
    };
    let asked = timeout(within, asking).await;
    asked.unwrap_or_else(|_| Err("no answer".to_owned()))
}

/// Posts a file as it is, and returns the status of the answer. `stall`: how long the other side
/// may take nothing, or may take to answer.
pub async fn post(
    place: &Place,
    path: &str,
    headers: &str,
    body: &[u8],
    stall: Duration,
    mut progress: impl FnMut(usize),
) -> Result<u16, Broken> {
    let mut sent = 0;
    let broken = |sent, why: String| Broken { sent, why };
    let silent = |_| Err("it takes nothing more".to_owned());
    let opened = timeout(stall, open(place)).await;
    let mut stream = opened
        .unwrap_or_else(|_| Err("no answer".to_owned()))
        .map_err(|why| broken(0, why))?;
    // What the kernel holds back for the device would count as sent.
    let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {place}\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    for chunk in std::iter::once(head.as_bytes()).chain(body.chunks(CHUNK)) {
        let writing = async {
            let written = stream.write_all(chunk).await;
            written.map_err(|error| io_text(&error))
        };
        let written = timeout(stall, writing).await.unwrap_or_else(silent);
        written.map_err(|why| broken(sent, why))?;
        if chunk.as_ptr() != head.as_ptr() {
            sent += chunk.len();
            progress(sent);
        }
    }
    let answered = timeout(stall, answer(&mut stream)).await;
    let answer = answered.unwrap_or_else(|_| Err("no answer".to_owned()));
    let answer = answer.map_err(|why| broken(sent, why))?;
    status(&answer).ok_or_else(|| broken(sent, "closed by the device".to_owned()))
}

async fn open(place: &Place) -> Result<TcpStream, String> {
    reach(Resolver::default(), place.host.clone(), place.port, None).await
}

/// Everything up to the end of the connection, or of what a `Content-Length` says.
async fn answer(stream: &mut TcpStream) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut limited = stream.take(MOST);
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if is_complete(&text) {
            return Ok(text.into_owned());
        }
        match limited.read(&mut buffer).await {
            Ok(0) => return Ok(text.into_owned()),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) => return Err(io_text(&error)),
        }
    }
}

fn is_complete(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_it = name.eq_ignore_ascii_case("content-length");
        is_it.then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_some_and(|length| body.len() >= length)
}

fn status(answer: &str) -> Option<u16> {
    let rest = answer.strip_prefix("HTTP/1.")?;
    rest.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_when_its_length_says_so() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n";
        assert!(!is_complete(head) && !is_complete(&format!("{head}abc")));
        assert!(is_complete(&format!("{head}abcd")));
        assert!(!is_complete("HTTP/1.1 200 OK\r\n\r\nabcd"));
        assert_eq!(status(head), Some(200));
        assert_eq!(status("SSH-2.0"), None);
    }
}
