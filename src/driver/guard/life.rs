//! Whether a process is still alive, and when it ends.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::net::unix::pipe;

/// How often it is looked at where the kernel (before 5.3) cannot say when it ends.
const LOOK: Duration = Duration::from_millis(100);

/// One process, not to be mistaken for another that is given its number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// When it was started, in the kernel's ticks.
    pub(crate) started: u64,
}

impl Process {
    pub(crate) fn this() -> io::Result<Self> {
        let pid = std::process::id();
        let (started, _) = stat(pid)?;
        Ok(Self { pid, started })
    }

    pub(crate) fn is_alive(self) -> bool {
        // A zombie has ended; nobody has asked for its status yet.
        stat(self.pid).is_ok_and(|(started, state)| {
            started == self.started && !matches!(state, 'Z' | 'X' | 'x')
        })
    }
}

/// When the process was started, and its state.
fn stat(pid: u32) -> io::Result<(u64, char)> {
    // Its first thread's, which are the process's. qemu-user makes `/proc/{pid}/stat` up for the
    // process itself, with another start than everybody else sees.
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/stat"))?;
    // The name in parentheses may contain anything, parentheses too.
    let after = text.rsplit_once(')').map_or("", |(_, after)| after);
    let mut fields = after.split_whitespace();
    let state = fields.next().and_then(|field| field.chars().next());
    let started = fields.nth(18).and_then(|field| field.parse().ok());
    match (started, state) {
        (Some(started), Some(state)) => Ok((started, state)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Waits for a process to end.
#[derive(Debug)]
pub(crate) struct Life {
    process: Process,
    pidfd: Option<pipe::Receiver>,
}

impl Life {
    pub(crate) fn of(process: Process) -> Self {
        let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
        let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Self {
            process,
            // No pipe, but waited for like one.
            pidfd: pidfd.and_then(|fd| pipe::Receiver::from_owned_fd_unchecked(fd).ok()),
        }
    }

    /// As with a kernel that has no word for the end of a process.
    #[cfg(test)]
    fn without_pidfd(process: Process) -> Self {
        Self {
            process,
            pidfd: None,
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    /// Returns when the process has ended; never when it had before.
    pub(crate) async fn ended(&self) {
        if !self.is_alive() {
            return std::future::pending().await;
        }
        if let Some(pidfd) = &self.pidfd {
            let _ = pidfd.readable().await;
        }
        while self.is_alive() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn sleeper() -> (Child, Process) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let (started, _) = stat(child.id()).unwrap();
        let pid = child.id();
        (child, Process { pid, started })
    }

    #[test]
    fn this_process_is_alive_and_another_one_of_its_number_is_not() {
        let this = Process::this().unwrap();
        assert!(this.is_alive());
        let earlier = Process {
            started: this.started - 1,
            ..this
        };
        assert!(!earlier.is_alive());
    }

    #[tokio::test]
    async fn r8_the_end_of_a_process_is_noticed_at_once_although_nobody_buries_it() {
        for pidfd in [true, false] {
            let (mut child, process) = sleeper();
            let life = if pidfd {
                Life::of(process)
            } else {
                Life::without_pidfd(process)
            };
            assert!(life.is_alive());
            assert_eq!(life.pidfd.is_some(), pidfd);
            let mut ended = std::pin::pin!(life.ended());
            let early = tokio::time::timeout(Duration::from_millis(20), &mut ended);
            assert!(early.await.is_err(), "it lives");
            child.kill().unwrap();
            let late = tokio::time::timeout(Duration::from_secs(5), ended);
            assert!(late.await.is_ok());
            assert!(!life.is_alive(), "a zombie has ended");
            child.wait().unwrap();
        }
    }
}
