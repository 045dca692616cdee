//! One writer per device: whoever commands it holds an abstract socket that is named after it.
//!
//! The kernel gives the name to one process at a time and takes it back when that process ends;
//! nothing is left on disk. Who finds the name taken asks its holder to stand down. A guard, or a
//! driver whose printer is gone, does and leaves its duty to the other; a klippy that still has a
//! section for the device does not.

use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::dialect::Identity;

use super::device::{Entry, TaskOrder};

/// A holder that runs answers in no time.
const ANSWER: Duration = Duration::from_secs(1);
/// So often a name that is just being given up is tried.
const TRIES: u32 = 20;
const AGAIN: Duration = Duration::from_millis(50);

const STAND_DOWN: u8 = b's';
const HEIR: u8 = b'h';
const YOURS: u8 = b'y';
const MINE: u8 = b'm';

/// What came of asking for a device.
#[derive(Debug)]
pub(super) enum Acquired {
    /// It is ours; `doubt`: somebody had it and had not seen it off.
    Ours {
        listener: Option<UnixListener>,
        doubt: bool,
    },
    /// Another process has it.
    Held { pid: u32, answers: bool },
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    /// A driver, for a printer.
    Driver,
    /// The guard of this process.
    Guard { of: u32 },
}

/// The name of a device. Users are apart: what another user's process says is nobody's business.
fn name(identity: Identity) -> io::Result<SocketAddr> {
    let uid = rustix::process::getuid().as_raw();
    SocketAddr::from_abstract_name(format!("panda-breath/{uid}/{:016x}", identity.0))
}

/// Takes the device's name if it is free, at once.
pub(super) fn take(identity: Identity) -> Option<UnixListener> {
    name(identity).and_then(|name| listen(&name)).ok()
}

/// Takes the device's name, asking whoever has it.
pub(super) async fn acquire(identity: Identity, asker: Asker) -> Acquired {
    let mut doubt = false;
    let free = |doubt| Acquired::Ours {
        listener: None,
        doubt,
    };
    for _ in 0..TRIES {
        let Ok(name) = name(identity) else { break };
        match listen(&name) {
            Ok(listener) => {
                return Acquired::Ours {
                    listener: Some(listener),
                    doubt,
                };
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(_) => break, // without the kernel's help everybody is alone
        }
        let Ok(stream) = connect(&name) else {
            tokio::time::sleep(AGAIN).await; // its holder has just ended, or has too many callers
            continue;
        };
        let Ok(peer) = stream.peer_cred() else {
            continue;
        };
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
        if peer.uid() != rustix::process::getuid().as_raw() {
            break; // somebody else's joke
        }
        let word = match asker {
            // The process that it guards stands still, or has given the device up.
            Asker::Guard { of } if pid == Some(of) => return free(doubt),
            Asker::Guard { .. } => HEIR,
            Asker::Driver => STAND_DOWN,
        };
        let held = |answers| Acquired::Held {
            pid: pid.unwrap_or(0),
            answers,
        };
        match timeout(ANSWER, ask(stream, word)).await {
            Err(_) => return held(false),
            Ok(Err(_)) => {
                doubt = true; // it ended while it was asked
                tokio::time::sleep(AGAIN).await;
            }
            Ok(Ok(YOURS)) if word == STAND_DOWN => doubt = true,
            Ok(Ok(_)) => return held(true),
        }
    }
    free(doubt)
}

fn listen(name: &SocketAddr) -> io::Result<UnixListener> {
    let listener = StdListener::bind_addr(name)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn connect(name: &SocketAddr) -> io::Result<UnixStream> {
    // Never waits: a full backlog would make it, so it is told not to before.
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
        None,
    )?;
    let bytes = name.as_abstract_name().unwrap_or_default();
    let address = rustix::net::SocketAddrUnix::new_abstract_name(bytes)?;
    rustix::net::connect(&socket, &address)?;
    UnixStream::from_std(StdStream::from(socket))
}

async fn ask(mut stream: UnixStream, word: u8) -> io::Result<u8> {
    stream.write_all(&[word]).await?;
    stream.read_u8().await
}

/// The name of a device, for as long as this is kept.
#[derive(Debug)]
pub(super) struct Ownership(JoinHandle<()>);

impl Ownership {
    /// Answers whoever asks for the device.
    pub(super) fn keep(listener: UnixListener, entry: &Rc<Entry>) -> Self {
        Self(tokio::task::spawn_local(serve(listener, Rc::clone(entry))))
    }
}

impl Drop for Ownership {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(listener: UnixListener, entry: Rc<Entry>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(ANSWER).await; // no descriptors left
            continue;
        };
        let own = rustix::process::getuid().as_raw();
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own) {
            continue;
        }
        match timeout(ANSWER, stream.read_u8()).await {
            Ok(Ok(STAND_DOWN)) if !entry.owned.get() => {
                // Not before the last byte of ours is gone.
                entry.order(TaskOrder::End);
                let ended = async {
                    while entry.running.get() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                if timeout(ANSWER, ended).await.is_err() {
                    continue;
                }
                drop(listener);
                let _ = stream.write_all(&[YOURS]).await;
                return;
            }
            Ok(Ok(STAND_DOWN)) => {
                let _ = stream.write_all(&[MINE]).await;
            }
            Ok(Ok(HEIR)) => {
                entry.order(TaskOrder::Doubt);
                let _ = stream.write_all(&[YOURS]).await;
            }
            Ok(_) | Err(_) => {}
        }
    }
}
