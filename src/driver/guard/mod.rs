//! The guard: a process of its own that turns devices off when klippy's cannot (rule R8).
//!
//! It holds no connection while klippy lives and is heard of. It shares nothing with klippy but the
//! board, has all signals blocked from birth, and runs the same sessions over the same connections
//! as the driver does; they begin where the driver's have ended, and only turn off.
//!
//! * [`mod@self`]: the process, from its arguments to its end
//! * `process`: what it does all the time
//! * `service`: the optional guard service, which goes on where a guard has to end
//! * `board`: the memory that is shared with the driver
//! * `decide`: when to act and when to let go, pure
//! * `life`: whether a process is alive
//! * `record`: the log file

pub(crate) mod board;
mod decide;
pub(crate) mod life;
mod process;
mod record;
pub mod service;

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use board::Reader;
use decide::Role;
use life::Process;
use process::Watcher;
use record::Record;

/// Runs a guard until it is not needed any more; returns the exit status. `arguments`: the number
/// of the process to watch, when that was started, and the log file, if there is to be one.
/// The board is its standard input.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> i32 {
    let _ = SigSet::all().thread_block(); // it was born so; but it may be started by hand
    let mut arguments = arguments.into_iter();
    let mut number = || arguments.next()?.to_str()?.parse::<u64>().ok();
    let (Some(pid), Some(started)) = (number(), number()) else {
        return 2;
    };
    let Ok(pid) = u32::try_from(pid) else {
        return 2;
    };
    let log = arguments.next().map(PathBuf::from);
    let result = serve(Process { pid, started }, Record::file(log.clone()));
    match result {
        Ok(()) => 0,
        Err(error) => {
            Record::file(log).say(&format!("the guard cannot run: {error}"));
            1
        }
    }
}

fn serve(process: Process, record: Record) -> io::Result<()> {
    let reader = Reader::new(rustix::stdio::stdin().try_clone_to_owned()?)?;
    let board = reader.file().try_clone_to_owned()?;
    block_on(async {
        let terminations = terminations()?;
        ready();
        // Its other end sees when we have ended, however we end.
        let _introduced = service::introduce(process, board);
        Watcher::new(Role::Guard, process, reader, record)
            .run(terminations)
            .await;
        Ok(())
    })?
}

/// Says that it is ready: one byte through the pipe whose other end the driver holds. If nobody does
/// any more, klippy has ended while we were starting, and there is all the more to do.
fn ready() {
    let _ = rustix::io::write(rustix::stdio::stdout(), b"r");
}

/// Counts SIGTERM and SIGINT, both of which are blocked.
fn terminations() -> io::Result<watch::Receiver<u32>> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    // No pipe, but read like one.
    let waiting = pipe::Receiver::from_owned_fd_unchecked(signals.as_fd().try_clone_to_owned()?)?;
    let (sender, receiver) = watch::channel(0);
    tokio::task::spawn_local(async move {
        let mut signal = [0; 128];
        while waiting.readable().await.is_ok() {
            if waiting.try_read(&mut signal).is_ok() {
                sender.send_modify(|count| *count += 1);
            }
        }
    });
    Ok(receiver)
}

/// Runs one future and all that it starts, on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(super::RESOLVER_THREADS)
        .thread_keep_alive(Duration::from_secs(1))
        .build()?;
    let local = tokio::task::LocalSet::new();
    let result = local.block_on(&runtime, future);
    drop(local);
    runtime.shutdown_background(); // a name server may still be silent
    Ok(result)
}
