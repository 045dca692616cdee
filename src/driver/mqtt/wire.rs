//! Packets to and from a broker, without ever waiting, and never more of them than fits.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::time::Instant;

use super::inbox::{CHUNK, Frame, Inbox, Nonsense};
use super::stream::Stream;

/// What may wait for a broker that does not read (rule R6).
const MAX_UNSENT: usize = 64 * 1024;
/// So often something is read before anybody else gets a turn.
const ROUNDS: u32 = 16;

/// A stream, cut into packets.
pub(super) struct Wire {
    stream: Stream,
    inbox: Inbox,
    unsent: BytesMut,
    /// Nothing can be sent any more; reading says why.
    mute: bool,
    /// When bytes came last.
    pub(super) heard: Instant,
    /// When something was sent last.
    pub(super) said: Instant,
}

/// Why nothing more comes.
#[derive(Debug)]
pub(super) enum End {
    Closed,
    Nonsense,
    Io(io::Error),
    /// The broker does not read.
    Unread,
    /// What was to be sent is no packet.
    Unsendable,
}

impl End {
    /// Whether it was the broker who ended it.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::Io(error) => is_closed(error),
            Self::Nonsense | Self::Unread | Self::Unsendable => false,
        }
    }
}

/// Whether the other side has hung up. One that has not read everything by then, resets.
pub(super) fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Self {
        let now = Instant::now();
        Self {
            stream,
            inbox: Inbox::default(),
            unsent: BytesMut::new(),
            mute: false,
            heard: now,
            said: now,
        }
    }

    pub(super) fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// What has arrived and is not understood yet.
    pub(super) fn peek(&self) -> &[u8] {
        self.inbox.peek()
    }

    /// The next packet that is there already.
    pub(super) fn take(&mut self) -> Result<Option<Frame>, End> {
        for _ in 0..ROUNDS {
            if let Some(frame) = self.inbox.next().map_err(|Nonsense| End::Nonsense)? {
                return Ok(Some(frame));
            }
            if !self.fill()? {
                break;
            }
        }
        Ok(None)
    }

    /// The next packet. May be dropped at any time: nothing is lost.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, End>> {
        for _ in 0..ROUNDS {
            if let Some(frame) = self.inbox.next().map_err(|Nonsense| End::Nonsense)? {
                return Poll::Ready(Ok(frame));
            }
            if !self.fill()? {
                ready!(self.stream.poll_read_ready(cx)).map_err(End::Io)?;
            }
        }
        cx.waker().wake_by_ref(); // there is more, after the others
        Poll::Pending
    }

    /// Reads once; says whether anything was there.
    fn fill(&mut self) -> Result<bool, End> {
        let mut chunk = [0; CHUNK];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(End::Closed),
            Ok(length) => {
                self.inbox.push(&chunk[..length]);
                self.heard = Instant::now();
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(End::Io(error)),
        }
    }

    /// Hands what `write` says to the kernel, or keeps it until the kernel takes it.
    pub(super) fn send<T, E>(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> Result<T, E>,
    ) -> Result<(), End> {
        if self.mute {
            return Ok(());
        }
        self.said = Instant::now();
        let before = self.unsent.len();
        if write(&mut self.unsent).is_err() {
            self.unsent.truncate(before); // larger than any packet may be
            return Err(End::Unsendable);
        }
        self.flush();
        if self.unsent.len() > MAX_UNSENT {
            return Err(End::Unread);
        }
        Ok(())
    }

    fn flush(&mut self) {
        let failed = loop {
            if self.unsent.is_empty() {
                break self.stream.flush().err();
            }
            match self.stream.write(&self.unsent) {
                Ok(0) => break Some(io::ErrorKind::WriteZero.into()),
                Ok(length) => self.unsent.advance(length),
                Err(error) => break Some(error),
            }
        };
        if failed.is_some_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
            self.mute = true;
            self.unsent.clear();
        }
        if self.unsent.is_empty() && self.unsent.capacity() > CHUNK {
            self.unsent = BytesMut::new();
        }
    }

    pub(super) fn is_flushed(&self) -> bool {
        !self.mute && self.unsent.is_empty() && !self.stream.wants_flush()
    }

    /// Writes what could not be written, and asks to be woken up for the rest.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) {
        while !self.mute && !self.is_flushed() && self.stream.poll_write_ready(cx).is_ready() {
            self.flush();
        }
    }

    /// Throws away what has arrived, so that closing does not reset the connection because of it.
    pub(super) fn drain(&mut self) {
        for _ in 0..ROUNDS {
            if !matches!(self.fill(), Ok(true)) {
                break;
            }
            self.inbox = Inbox::default();
        }
    }
}
