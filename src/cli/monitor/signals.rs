//! Signals as something to wait for, so that a command ends in its own time and tidies up.

use std::io;
use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use tokio::net::unix::pipe;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Come to an end.
    End,
    /// The terminal has another size.
    Resize,
    /// Ctrl-Z.
    Pause,
}

/// While this lives, signals wait to be read.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Not a pipe, but read like one.
    file: pipe::Receiver,
    before: SigSet,
}

impl Signals {
    /// Only inside of a runtime, and before it has threads.
    pub(crate) fn new() -> io::Result<Self> {
        let set: SigSet = [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGWINCH,
            Signal::SIGTSTP,
        ]
        .into_iter()
        .collect();
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let file = SignalFd::with_flags(&set, flags)?;
        let file = pipe::Receiver::from_owned_fd_unchecked(file.as_fd().try_clone_to_owned()?)?;
        Ok(Self { file, before })
    }

    /// The next one. May be dropped at any time.
    pub(crate) async fn next(&self) -> Asked {
        loop {
            if self.file.readable().await.is_err() {
                return std::future::pending().await; // never: there is a runtime
            }
            // The number of the signal comes first in what is read (signalfd(2)).
            let mut bytes = [0; size_of::<siginfo>()];
            if !self
                .file
                .try_read(&mut bytes)
                .is_ok_and(|len| len == bytes.len())
            {
                continue;
            }
            let number = i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            return if number == Signal::SIGWINCH as i32 {
                Asked::Resize
            } else if number == Signal::SIGTSTP as i32 {
                Asked::Pause
            } else {
                Asked::End
            };
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}
