//! WebSocket frames as this server reads and writes them. Not a library's, because the real
//! server has bugs that a library would hide (PROTOCOL section 1.2).

/// What the next bytes of a stream are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// More bytes are needed.
    Incomplete,
    /// A frame, and how many bytes the server takes from the stream for it.
    Frame {
        opcode: Opcode,
        payload: Vec<u8>,
        taken: usize,
    },
    /// The server gives the connection up.
    Broken,
}

/// The kinds of frames the server tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    /// Ignored, whatever it continues.
    Continuation,
    /// Parsed as JSON.
    Text,
    /// Parsed as JSON.
    Binary,
    /// The client leaves; it gets no answer.
    Close,
    /// Neither answered nor drained.
    Ping,
    /// As for a ping.
    Other,
}

impl Opcode {
    /// The word for the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Opcode::Continuation => "continuation",
            Opcode::Text => "text",
            Opcode::Binary => "binary",
            Opcode::Close => "close",
            Opcode::Ping => "ping",
            Opcode::Other => "other",
        }
    }

    /// The handler takes control frames over from the server and then does not read their payload:
    /// the next frame is parsed from the middle of this one.
    fn leaves_its_payload(self) -> bool {
        matches!(self, Opcode::Ping | Opcode::Other)
    }
}

/// Reads one frame of a client.
pub(crate) fn parse(stream: &[u8]) -> Parsed {
    let &[first, second, ref rest @ ..] = stream else {
        return Parsed::Incomplete;
    };
    let opcode = match first & 0x0f {
        0x0 => Opcode::Continuation,
        0x1 => Opcode::Text,
        0x2 => Opcode::Binary,
        0x8 => Opcode::Close,
        0x9 => Opcode::Ping,
        _ => Opcode::Other,
    };
    if second & 0x80 == 0 {
        return Parsed::Broken; // ESP-IDF refuses unmasked frames
    }
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some((extension, rest)) = rest.split_at_checked(extended) else {
        return Parsed::Incomplete;
    };
    let length = if extended == 0 {
        usize::from(second & 0x7f)
    } else {
        extension.iter().fold(0_usize, |length, byte| {
            length.saturating_mul(256) + usize::from(*byte)
        })
    };
    if length > LONGEST {
        return Parsed::Broken; // there is no memory for it
    }
    let Some((mask, rest)) = rest.split_at_checked(4) else {
        return Parsed::Incomplete;
    };
    let header = 2 + extended + 4;
    if opcode.leaves_its_payload() {
        return Parsed::Frame {
            opcode,
            payload: Vec::new(),
            taken: header,
        };
    }
    let Some(masked) = rest.get(..length) else {
        return Parsed::Incomplete;
    };
    let payload = masked
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    Parsed::Frame {
        opcode,
        payload,
        taken: header + length,
    }
}

/// One unfragmented text frame of the server.
pub(crate) fn text(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => frame.push(length),
        (_, Ok(length)) => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// More than any page sends, less than the memory of an ESP32-C3 holds.
const LONGEST: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let length = u8::try_from(payload.len()).unwrap();
        let mut frame = vec![first, 0x80 | length];
        frame.extend(mask);
        frame.extend(
            payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        frame
    }

    #[test]
    fn a_frame_is_unmasked_once_it_is_complete() {
        let bytes = masked(0x81, b"hello");
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Parsed::Incomplete);
        }
        let expected = Parsed::Frame {
            opcode: Opcode::Text,
            payload: b"hello".to_vec(),
            taken: 11,
        };
        assert_eq!(parse(&bytes), expected);
    }

    #[test]
    fn the_payload_of_a_ping_stays_in_the_stream() {
        let bytes = masked(0x89, b"ping");
        let Parsed::Frame {
            opcode: Opcode::Ping,
            taken: 6,
            ..
        } = parse(&bytes)
        else {
            panic!("{:?}", parse(&bytes));
        };
    }

    #[test]
    fn unmasked_and_huge_frames_break_the_connection() {
        assert_eq!(parse(&[0x81, 0x01, b'x']), Parsed::Broken);
        let huge = [0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        assert_eq!(parse(&huge), Parsed::Broken);
    }

    #[test]
    fn lengths_of_sent_frames_are_written_in_all_three_ways() {
        assert_eq!(text(b"x"), [0x81, 1, b'x']);
        assert_eq!(text(&[0; 126])[..4], [0x81, 126, 0, 126]);
        assert_eq!(
            text(&vec![0; 65_536])[..10],
            [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]
        );
    }
}
