//! Echo requests to one host, as `ping` sends them: the only way to see what Wi-Fi loses, because TCP
//! hides it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdUdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, interval, sleep_until};

/// From one request to the next.
const EVERY: Duration = Duration::from_millis(500);
/// How long the last answer is waited for.
const LAST: Duration = Duration::from_secs(1);

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Echoes {
    /// Requests sent.
    pub sent: usize,
    /// How long each answer took.
    pub answers: Vec<Duration>,
}

impl Echoes {
    /// How many were not answered.
    pub fn lost(&self) -> usize {
        self.sent.saturating_sub(self.answers.len())
    }

    /// The middle one of the round trips.
    pub fn median(&self) -> Option<Duration> {
        let mut sorted = self.answers.clone();
        sorted.sort();
        sorted.get(sorted.len() / 2).copied()
    }
}

/// Asks twice a second for so long. The error says that this system does not let us.
pub async fn ping(host: IpAddr, time: Duration) -> io::Result<Echoes> {
    let socket = open(host)?;
    let mut echoes = Echoes::default();
    let mut sent_at = Vec::new();
    let mut buffer = [0; 256];
    let start = Instant::now();
    let mut next = interval(EVERY);
    let mut answered = Vec::new();
    loop {
        let is_sending = start.elapsed() < time;
        let end = sent_at.last().copied().unwrap_or(start) + LAST;
        if !is_sending && (echoes.answers.len() >= sent_at.len() || Instant::now() >= end) {
            return Ok(echoes);
        }
        tokio::select! {
            _ = next.tick() => {
                if let (true, Ok(number)) = (is_sending, u16::try_from(sent_at.len())) {
                    let request = request(host, number);
                    sent_at.push(Instant::now());
                    answered.push(false);
                    echoes.sent += 1;
                    // What cannot be sent is lost, too.
                    let _ = socket.send(&request).await;
                }
            }
            () = sleep_until(end), if !is_sending => {}
            received = socket.recv(&mut buffer) => {
                // An error is the word of somebody on the way: not an answer.
                let number = received.ok().and_then(|len| answer(host, &buffer[..len]));
                if let Some(number) = number.map(usize::from) {
                    if answered.get(number) == Some(&false) {
                        answered[number] = true;
                        echoes.answers.push(sent_at[number].elapsed());
                    }
                }
            }
        }
    }
}

fn open(host: IpAddr) -> io::Result<UdpSocket> {
    let (domain, protocol) = match host {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    // Not a raw socket: that is for root only.
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.connect(&SocketAddr::new(host, 0).into())?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(StdUdpSocket::from(socket))
}

/// The kernel fills in identifier and checksum.
fn request(host: IpAddr, number: u16) -> [u8; 16] {
    let mut packet = [0; 16];
    packet[0] = if host.is_ipv4() { 8 } else { 128 };
    packet[6..8].copy_from_slice(&number.to_be_bytes());
    packet
}

fn answer(host: IpAddr, packet: &[u8]) -> Option<u16> {
    let wanted = if host.is_ipv4() { 0 } else { 129 };
    let number = packet.get(6..8)?;
    (packet[0] == wanted).then(|| u16::from_be_bytes([number[0], number[1]]))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn what_was_not_answered_is_lost() {
        let ms = Duration::from_millis;
        let echoes = Echoes {
            sent: 5,
            answers: vec![ms(9), ms(1), ms(5)],
        };
        assert_eq!((echoes.lost(), echoes.median()), (2, Some(ms(5))));
        assert_eq!(Echoes::default().median(), None);
    }

    #[tokio::test]
    async fn this_computer_answers_all_of_them_where_the_system_allows_to_ask() {
        if let Ok(echoes) = ping(Ipv4Addr::LOCALHOST.into(), Duration::from_millis(900)).await {
            assert_eq!((echoes.sent, echoes.lost()), (2, 0));
        }
    }

    #[test]
    fn only_an_answer_is_one() {
        let host = IpAddr::from(Ipv4Addr::LOCALHOST);
        let mut packet = request(host, 700);
        assert_eq!(answer(host, &packet), None, "our own question");
        packet[0] = 0;
        assert_eq!(answer(host, &packet), Some(700));
        assert_eq!(answer(host, &packet[..7]), None);
    }
}
