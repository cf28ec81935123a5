//! Ports at which nothing can be had, and connections that end badly: what std has no name for.

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A port that refuses: it is taken, and nobody listens.
#[derive(Debug)]
pub(crate) struct Refusing {
    address: SocketAddr,
    _socket: OwnedFd,
}

impl Refusing {
    pub(crate) fn new() -> Self {
        let (socket, address) = bound();
        Self { address, _socket: socket }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A port whose queue is full: a connection is neither made nor refused.
#[derive(Debug)]
pub(crate) struct Unreachable {
    address: SocketAddr,
    _queue: Vec<TcpStream>,
    _socket: OwnedFd,
}

impl Unreachable {
    pub(crate) fn new() -> Self {
        let (socket, address) = bound();
        listen(&socket, 0).unwrap();
        // As many as the kernel takes: the first that is not made at once says that the queue is full.
        let mut queue = Vec::new();
        while let Ok(one) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            queue.push(one);
            assert!(queue.len() < 64, "the queue has no end");
        }
        Self { address, _queue: queue, _socket: socket }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A socket at a free port of this machine, which does not listen.
fn bound() -> (OwnedFd, SocketAddr) {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    // Only to ask it for its address.
    let named = TcpListener::from(socket);
    let address = named.local_addr().unwrap();
    (OwnedFd::from(named), address)
}

/// Once the last owner of `connection` closes it, the other side sees a reset and not an end.
pub(crate) fn reset_on_close(connection: &TcpStream) {
    sockopt::set_socket_linger(connection, Some(Duration::ZERO)).unwrap();
}
