//! From the bytes of a broker to packets, however they are cut. Pure.

use bytes::{Buf, BytesMut};
use rumqttc::mqttbytes::v4::Packet;
use rumqttc::mqttbytes::{Error, check};

use super::MAX_MESSAGE;

/// What is read at once; a connection at rest keeps less than that.
pub(super) const CHUNK: usize = 4 * 1024;

/// Bytes that have arrived and were not understood yet: never more than one packet of the largest
/// size and one chunk (rule R6).
#[derive(Default)]
pub(super) struct Inbox {
    bytes: BytesMut,
    /// So many bytes of a message that is too large are still to come.
    skip: usize,
}

/// One thing that a broker has said.
#[derive(Debug)]
pub(super) enum Frame {
    Packet(Packet),
    /// A message that is too large, or whose topic is no text.
    Unreadable,
}

/// Not MQTT, and nothing that follows can be understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nonsense;

impl Inbox {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.bytes.extend_from_slice(&bytes[skipped..]);
    }

    /// What begins the next packet, for whoever wants to know who is talking.
    pub(super) fn peek(&self) -> &[u8] {
        &self.bytes
    }

    /// The next packet that is there as a whole.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Nonsense> {
        let Some(first) = self.bytes.first().copied() else {
            return Ok(None);
        };
        if !may_begin(first) {
            return Err(Nonsense); // at once: what seems to be a length may never be reached
        }
        let header = match check(self.bytes.iter(), MAX_MESSAGE) {
            Ok(header) => header,
            Err(Error::InsufficientBytes(missing)) => {
                self.bytes.reserve(missing + CHUNK); // else it doubles on the way
                return Ok(None);
            }
            Err(Error::PayloadSizeLimitExceeded(length)) if is_publish(first) => {
                self.skip_packet(length);
                return Ok(Some(Frame::Unreadable));
            }
            Err(_) => return Err(Nonsense),
        };
        let packet = match Packet::read(&mut self.bytes, MAX_MESSAGE) {
            Ok(packet) => Frame::Packet(packet),
            Err(Error::TopicNotUtf8) if is_publish(first) => Frame::Unreadable,
            Err(_) => return Err(Nonsense),
        };
        if header.frame_length() > CHUNK {
            // The room for it goes with it.
            self.bytes = BytesMut::from(&self.bytes[..]);
        }
        Ok(Some(packet))
    }

    fn skip_packet(&mut self, length: usize) {
        let of_length = self.bytes[1..].iter().take_while(|byte| **byte >= 0x80);
        let whole = 1 + of_length.count() + 1 + length;
        let here = whole.min(self.bytes.len());
        self.bytes.advance(here);
        self.skip = whole - here;
    }
}

/// Whether a broker may say this: CONNACK, PUBLISH, PUBREL, SUBACK, PINGRESP. What it would say to
/// a client that publishes at a higher quality of service is not for us.
fn may_begin(first: u8) -> bool {
    is_publish(first) || matches!(first, 0x20 | 0x62 | 0x90 | 0xd0)
}

fn is_publish(first: u8) -> bool {
    first >> 4 == 3
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rumqttc::mqttbytes::QoS;
    use rumqttc::mqttbytes::v4::Publish;

    use super::*;

    const PING_RESPONSE: [u8; 2] = [0xd0, 0];

    fn publish(topic: &str, length: usize) -> BytesMut {
        let mut bytes = BytesMut::new();
        Publish::new(topic, QoS::AtMostOnce, vec![b'x'; length])
            .write(&mut bytes)
            .unwrap();
        bytes
    }

    /// What is told, in short, and how much was kept meanwhile at most.
    fn told(bytes: &[u8], cut: usize) -> (Vec<String>, usize) {
        let mut inbox = Inbox::default();
        let mut told = Vec::new();
        let mut kept = 0;
        for piece in bytes.chunks(cut) {
            inbox.push(piece);
            loop {
                kept = kept.max(inbox.bytes.capacity());
                match inbox.next() {
                    Ok(None) => break,
                    Ok(Some(Frame::Unreadable)) => told.push("unreadable".into()),
                    Ok(Some(Frame::Packet(Packet::Publish(message)))) => {
                        told.push(format!("{} {}", message.topic, message.payload.len()));
                    }
                    Ok(Some(Frame::Packet(_))) => told.push("packet".into()),
                    Err(Nonsense) => {
                        told.push("nonsense".into());
                        return (told, kept);
                    }
                }
            }
        }
        assert!(inbox.bytes.capacity() <= 2 * CHUNK, "and little at rest");
        (told, kept)
    }

    #[test]
    fn packets_are_the_same_however_they_are_cut() {
        let mut bytes = publish("one", 5);
        bytes.extend_from_slice(&PING_RESPONSE);
        bytes.extend_from_slice(&publish("none", 0));
        bytes.extend_from_slice(&[0x30, 4, 0, 2, 0xff, 0xfe]); // a topic that is no text
        bytes.extend_from_slice(&publish("two", 300));
        bytes.extend_from_slice(&[0x90, 3, 0, 1, 0]);
        for cut in 1..=bytes.len() {
            let (told, _) = told(&bytes, cut);
            assert_eq!(
                told,
                [
                    "one 5",
                    "packet",
                    "none 0",
                    "unreadable",
                    "two 300",
                    "packet"
                ],
                "in pieces of {cut}"
            );
        }
    }

    #[test]
    fn r6_a_message_that_is_too_large_is_skipped_as_it_comes() {
        // 2 bytes of length, and the topic.
        let largest = MAX_MESSAGE - 2 - 1;
        for (length, expected) in [
            (largest, "t 65533".to_owned()),
            (largest + 1, "unreadable".into()),
            (1024 * 1024, "unreadable".into()),
        ] {
            let mut bytes = publish("t", length);
            bytes.extend_from_slice(&publish("after", 1));
            for cut in [7, CHUNK - 1, CHUNK] {
                let (told, kept) = told(&bytes, cut);
                assert_eq!(told, [expected.clone(), "after 1".into()]);
                assert!(kept <= MAX_MESSAGE + 2 * CHUNK, "{kept}");
            }
        }
        // 256 MiB, the most there is.
        let mut inbox = Inbox::default();
        inbox.push(&[0x30, 0xff, 0xff, 0xff, 0x7f]);
        assert!(matches!(inbox.next(), Ok(Some(Frame::Unreadable))));
        assert_eq!(inbox.skip, 268_435_455);
    }

    #[test]
    fn what_is_not_mqtt_is_found_at_once() {
        let cases: &[&[u8]] = &[
            b"HTTP/1.1 400 Bad Request\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            &[0x30, 0xff, 0xff, 0xff, 0xff, 0x01], // a length without an end
            &[0x00, 0x00],
            &[0x10, 0x02, 0x00, 0x00], // CONNECT
            &[0x40, 0x02, 0x00, 0x01], // PUBACK, for what never was
            &[0x82, 0x02, 0x00, 0x01], // SUBSCRIBE
            &[0xc0, 0x00],             // PINGREQ
            &[0xe0, 0x00],             // DISCONNECT
            &[0xf0, 0x00],
            &[0x20, 0x00],                         // CONNACK with nothing in it
            &[0x30, 0x02, 0x00, 0x05],             // a topic that goes on behind the end
            &[0x30, 0x00],                         // none at all
            &[0x36, 0x05, 0, 1, b't', 0, 1],       // quality of service 3
            &[0x32, 0x05, 0, 1, b't', 0, 0],       // a packet without a number
            &[0x90, 0x80, 0x80, 0x80, 0x01, 0x00], // an answer of 2 MiB
        ];
        for bytes in cases {
            for cut in [1, bytes.len()] {
                assert_eq!(told(bytes, cut).0, ["nonsense"], "{bytes:02x?}");
            }
        }
    }

    proptest! {
        #[test]
        fn r6_no_bytes_take_it_down(
            bytes in prop::collection::vec(
                prop_oneof![Just(0x30_u8), Just(0xd0), Just(0x90), Just(0), any::<u8>()],
                0..300,
            ),
            cut in 1..100_usize,
        ) {
            let mut inbox = Inbox::default();
            for piece in bytes.chunks(cut) {
                inbox.push(piece);
                loop {
                    prop_assert!(inbox.bytes.capacity() <= MAX_MESSAGE + 2 * CHUNK);
                    match inbox.next() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(Nonsense) => return Ok(()),
                    }
                }
            }
        }
    }
}
