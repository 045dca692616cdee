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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::stock::Stock;
    use crate::driver::device::Devices;
    use crate::driver::guard::board::Duty;
    use crate::session::{Bequest, Config, Link};
    use crate::sim::{Device, Identity as Mac, Options, Setup, Simulator};

    const LIMIT: Duration = Duration::from_secs(30);

    /// What klippy leaves behind: a device here, which may be on.
    fn duty(address: std::net::SocketAddr, identity: Identity) -> Duty {
        Duty {
            key: format!("stock {address}"),
            config: Config {
                host: address.ip().to_string(),
                port: address.port(),
                ..Config::default()
            },
            broker: None,
            bequest: Bequest {
                address: Some(address),
                identity: Some(identity),
                may_be_on: true,
                undelivered: true, // so that it looks twice, 10 s apart
            },
            abandoned: false,
        }
    }

    /// Takes over from the guard as the next klippy does, and waits for the end of its task.
    async fn succeed(identity: Identity, devices: &mut Devices) {
        let acquired = acquire(identity, Asker::Driver);
        let (acquired, _) = tokio::join!(acquired, devices.next_ended());
        let whole = matches!(
            acquired,
            Acquired::Ours {
                listener: Some(_),
                doubt: true
            }
        );
        assert!(whole, "{acquired:?}");
    }

    /// A klippy that was frozen, or that has not quite ended, has the name although its guard is at
    /// work. When it lets go of it, its successor must find somebody to ask.
    #[tokio::test]
    async fn r8_a_guard_gets_the_name_as_soon_as_its_klippy_lets_go_of_it() {
        let setup = Setup {
            identity: Mac([0x02, 0x50, 0x42, 0x78, 0, 1]),
            ..Setup::default()
        };
        let snapshot = Device::new(&setup).snapshot();
        let report = Stock::default().decode(snapshot.as_bytes()).unwrap();
        let identity = report.identity.unwrap();
        let simulator = Simulator::start(Options {
            setup,
            ..Options::default()
        });
        let simulator = simulator.unwrap();
        let duty = duty(simulator.address(0), identity);
        let at_work = async {
            let klippys = take(identity).unwrap();
            let mut devices = Devices::default();
            let this = std::process::id();
            let entry = devices.take_over(&duty, this).unwrap();
            let connected = async {
                while entry.last.borrow().link != Link::Connected {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(LIMIT, connected).await.unwrap();
            drop(klippys);
            let taken = async {
                while let Some(name) = take(identity) {
                    drop(name);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(LIMIT, taken).await.expect("the guard takes it");
            assert!(entry.running.get(), "it has not seen the device off yet");
            succeed(identity, &mut devices).await;
            assert!(!entry.running.get(), "it writes no more");
        };
        tokio::task::LocalSet::new().run_until(at_work).await;
    }

    /// The next klippy may be at the device before it answers the guard.
    #[tokio::test]
    async fn r8_a_guard_has_the_name_before_the_device_answers() {
        let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let identity = Identity(0x7801);
        let at_work = async {
            let mut devices = Devices::default();
            devices.take_over(&duty(nobody, identity), 1).unwrap();
            tokio::task::yield_now().await;
            assert!(take(identity).is_none());
            timeout(LIMIT, succeed(identity, &mut devices))
                .await
                .unwrap();
        };
        tokio::task::LocalSet::new().run_until(at_work).await;
    }
}
