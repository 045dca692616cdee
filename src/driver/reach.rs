//! A TCP connection to a name or an address: what every transport begins with.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::resolve::Resolver;

/// Long enough for two retransmissions of a lost SYN.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an address may keep silent before the next one is tried as well.
const STAGGER: Duration = Duration::from_millis(250);
/// How long to wait before the same address is tried again while its name is being asked for.
const AGAIN: Duration = Duration::from_millis(250);

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
pub(super) fn io_text(error: &io::Error) -> String {
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
