//! The listening socket of a device: open, closed, or silent as that of a device without power.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpListener;

use super::unit::Unit;

/// What happens to a client that wants to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Accepted.
    Open,
    /// Refused: there is no listener.
    Closed,
    /// Nothing at all: its SYN stays without an answer.
    Silent,
}

/// A socket that has its address but doesn't listen yet: the address cannot be lost to others.
pub(crate) fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Binds `count` consecutive ports. With port 0 the system chooses where they begin.
pub(crate) fn bind_all(listen: SocketAddr, count: usize) -> io::Result<Vec<Socket>> {
    let mut last_error = io::Error::from(io::ErrorKind::InvalidInput);
    for _ in 0..TRIES {
        match bind_row(listen, count) {
            Ok(sockets) => return Ok(sockets),
            Err(error) => last_error = error,
        }
        if listen.port() != 0 {
            break;
        }
    }
    Err(last_error)
}

fn bind_row(listen: SocketAddr, count: usize) -> io::Result<Vec<Socket>> {
    let mut sockets = vec![listening(bind(listen)?)?];
    let first = address_of(&sockets[0])?;
    for offset in 1..count {
        let port = u16::try_from(offset)
            .ok()
            .and_then(|offset| first.port().checked_add(offset));
        let port = port.ok_or_else(|| io::Error::other("there are not that many ports"))?;
        let mut address = first;
        address.set_port(port);
        sockets.push(listening(bind(address)?)?);
    }
    Ok(sockets)
}

/// The address a socket got.
pub(crate) fn address_of(socket: &Socket) -> io::Result<SocketAddr> {
    let address = socket.local_addr()?.as_socket();
    address.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

/// Closes a listener at once: on Linux this also refuses who is waiting to be accepted. The address
/// stays taken as long as the socket exists.
pub(crate) fn shut(listener: &TcpListener) {
    let _ = SockRef::from(listener).shutdown(Shutdown::Read);
}

/// Hands a listening socket to the runtime of this thread.
pub(crate) fn into_listener(socket: Socket) -> io::Result<TcpListener> {
    TcpListener::from_std(socket.into())
}

/// Looks after the listener of a device as long as the simulator runs.
pub(crate) async fn keep(unit: Rc<Unit>, listener: TcpListener) {
    let mut listener = Rc::new(listener);
    unit.set_listener(Some(Rc::clone(&listener)));
    loop {
        // A door that was closed and opened before this task had its turn needs a new listener too.
        let door = if unit.has_listener() {
            unit.door()
        } else {
            Door::Closed
        };
        match door {
            Door::Open => tokio::select! {
                biased;
                () = unit.door_changed() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => unit.accept(stream),
                    // Out of descriptors: others have to close some first.
                    Err(_) => tokio::time::sleep(RETRY).await,
                },
            },
            Door::Closed => {
                // Still there if the door was closed before this task had its first turn.
                unit.set_listener(None);
                drop(listener);
                let reserved = again(|| bind(unit.address())).await;
                while unit.door() == Door::Closed {
                    unit.door_changed().await;
                }
                let mut reserved = Some(reserved);
                let opened = again(|| {
                    let socket = reserved.take().map_or_else(|| bind(unit.address()), Ok)?;
                    into_listener(listening(socket)?)
                })
                .await;
                listener = Rc::new(opened);
                unit.set_listener(Some(Rc::clone(&listener)));
            }
            Door::Silent => {
                // Linux leaves a SYN unanswered while the queue of connections that wait to be
                // accepted is full: it is made small and filled with one of our own.
                let _ = SockRef::from(&*listener).listen(0);
                let filler = fill(unit.address());
                while unit.door() == Door::Silent {
                    unit.door_changed().await;
                }
                // Who got in is as dead as the older connections; a reset tells them.
                while let Ok((stream, _)) = SockRef::from(&*listener).accept() {
                    let _ = stream.set_linger(Some(Duration::ZERO));
                }
                drop(filler);
                let _ = SockRef::from(&*listener).listen(BACKLOG);
            }
        }
    }
}

fn listening(socket: Socket) -> io::Result<Socket> {
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Connects to our own listener, which must not wait for the answer.
fn fill(mut address: SocketAddr) -> Option<Socket> {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).ok()?;
    socket.set_nonblocking(true).ok()?;
    let _ = socket.connect(&address.into()); // in progress is as good as done
    Some(socket)
}

async fn again<T>(mut make: impl FnMut() -> io::Result<T>) -> T {
    loop {
        match make() {
            Ok(thing) => return thing,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// As in the firmware (PROTOCOL section 1.1).
const BACKLOG: i32 = 5;
const RETRY: Duration = Duration::from_millis(100);
/// How often a row of free ports is looked for.
const TRIES: usize = 50;
