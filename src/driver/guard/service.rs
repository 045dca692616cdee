//! The guard service: optional, in a unit of its own, outside of klippy's control group.
//!
//! Whatever ends all of klippy's group (systemd's SIGKILL after a stop, the kernel when memory runs
//! out) ends the guard too. The service has from each guard the same board and a connection whose
//! end it sees; what a guard has not settled when it ends, the service goes on with.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::SigSet;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch::Receiver;
use tokio::task::{AbortHandle, JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use super::board::Reader;
use super::decide::Role;
use super::life::Process;
use super::process::Watcher;
use super::record::Record;

/// How often a guard looks for a service that was started later.
const LOOK: Duration = Duration::from_secs(3);
/// What a guard has to say is said at once.
const HEARD: Duration = Duration::from_secs(1);
/// More guards than a machine has printers (rule R6).
const MOST: usize = 256;

fn name() -> io::Result<SocketAddr> {
    let uid = rustix::process::getuid().as_raw();
    SocketAddr::from_abstract_name(format!("panda-breath/{uid}/guard"))
}

// A guard's side

/// Makes a guard known to the service, whenever there is one, until the result is dropped.
pub(super) fn introduce(process: Process, board: OwnedFd) -> AbortOnDrop {
    let task = tokio::task::spawn_local(async move {
        loop {
            if let Ok(stream) = show(process, &board) {
                ended(&stream).await;
            }
            sleep(LOOK).await;
        }
    });
    AbortOnDrop(task.abort_handle())
}

/// Ends a task with its owner.
pub(super) struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn show(process: Process, board: &OwnedFd) -> io::Result<UnixStream> {
    let stream = StdStream::connect_addr(&name()?)?;
    stream.set_nonblocking(true)?;
    if !is_ours(&stream) {
        return Err(ErrorKind::PermissionDenied.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    let fds = [board.as_fd()];
    with.push(SendAncillaryMessage::ScmRights(&fds));
    let text = format!("{} {}\n", process.pid, process.started);
    let flags = SendFlags::NOSIGNAL;
    sendmsg(&stream, &[IoSlice::new(text.as_bytes())], &mut with, flags)?;
    UnixStream::from_std(stream)
}

/// Waits until the other end, which says nothing more, has ended. Not merely until the stream is
/// readable: it is said to be so once more after what was there has been read.
async fn ended(stream: &UnixStream) {
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut [0; 16]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

/// Whether the other end is this user's.
fn is_ours(stream: &StdStream) -> bool {
    let peer = rustix::net::sockopt::socket_peercred(stream);
    peer.is_ok_and(|peer| peer.uid == rustix::process::getuid())
}

// The service's side

/// Runs the service until a SIGTERM, and then for as long as a device has to be turned off.
/// The error says why it cannot run.
pub fn run() -> io::Result<()> {
    SigSet::all().thread_block()?;
    let listener = StdListener::bind_addr(&name()?)?;
    listener.set_nonblocking(true)?;
    super::block_on(serve(listener))?
}

type Watched = Rc<RefCell<BTreeMap<(u32, u64), AbortHandle>>>;

async fn serve(listener: StdListener) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let mut terminations = super::terminations()?;
    let mut record = Record::aloud();
    record.say("the guard service is running");
    let watched = Watched::default();
    let mut watchers = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = watchers.join_next(), if !watchers.is_empty() => continue,
            _ = terminations.changed() => break,
        };
        let Ok((stream, _)) = accepted else {
            sleep(HEARD).await; // no descriptors left
            continue;
        };
        let heard = timeout(HEARD, hear(&stream)).await;
        let Ok(Ok((process, reader))) = heard else {
            continue;
        };
        if watchers.len() >= MOST {
            record.say("too many guards; one more is not watched");
            continue;
        }
        let key = (process.pid, process.started);
        let watching = watch(process, reader, stream, terminations.clone());
        let handle = watchers.spawn_local(watching);
        // Another guard of the same process has taken the place of one that was killed.
        if let Some(before) = watched.borrow_mut().insert(key, handle) {
            before.abort();
        }
        watched
            .borrow_mut()
            .retain(|_, handle| !handle.is_finished());
    }
    drop(listener);
    while watchers.join_next().await.is_some() {}
    record.say("the guard service has ended");
    Ok(())
}

async fn hear(stream: &UnixStream) -> io::Result<(Process, Reader)> {
    let (text, board) = loop {
        stream.readable().await?;
        match stream.try_io(tokio::io::Interest::READABLE, || receive(stream)) {
            Ok(message) => break message,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    };
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(started))) = (numbers.next(), numbers.next()) else {
        return Err(ErrorKind::InvalidData.into());
    };
    let pid = u32::try_from(pid).map_err(|_| ErrorKind::InvalidData)?;
    Ok((Process { pid, started }, Reader::new(board)?))
}

fn receive(stream: &UnixStream) -> io::Result<(String, OwnedFd)> {
    let peer = stream.peer_cred()?;
    if peer.uid() != rustix::process::getuid().as_raw() {
        return Err(ErrorKind::PermissionDenied.into());
    }
    let mut bytes = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut with, flags)?;
    let mut board = None;
    for message in with.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            board = fds.last();
        }
    }
    let board = board.ok_or(ErrorKind::InvalidData)?;
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(ErrorKind::InvalidData.into());
    }
    let text = String::from_utf8_lossy(&bytes[..message.bytes]).into_owned();
    Ok((text, board))
}

/// Waits for the guard to end, and goes on where it was.
async fn watch(
    process: Process,
    reader: Reader,
    stream: UnixStream,
    mut terminations: Receiver<u32>,
) {
    tokio::select! {
        () = ended(&stream) => {}
        _ = terminations.changed() => return, // its guard is there, and needs no other
    }
    // All of them in one set: so none of a watcher's tasks outlives it.
    let set = LocalSet::new();
    let watcher = Watcher::new(Role::Service, process, reader, Record::aloud());
    set.run_until(watcher.run(terminations)).await;
}
