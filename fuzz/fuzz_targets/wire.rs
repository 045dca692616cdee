//! Streams: a broker's, which must be the same however it is cut, and a WebSocket client's, as the
//! simulated device reads it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use panda_breath_fuzz::{frames, packets};

fuzz_target!(|data: &[u8]| {
    let Some((&piece, bytes)) = data.split_first() else {
        return;
    };
    let piece = usize::from(piece);
    if piece == 0 {
        return frames(bytes);
    }
    assert_eq!(
        packets(bytes, piece),
        packets(bytes, bytes.len()),
        "in pieces of {piece}"
    );
});
