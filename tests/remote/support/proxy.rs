//! A proxy below HTTP and TLS: it carries bytes to a peer, and does so badly on demand.

use super::sockets::reset_on_close;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It goes through.
    Pass,
    /// It goes through, each answer's first byte after a while.
    Delay(Duration),
    /// Reset once it is made, before anything is read.
    ResetAtOnce,
    /// Reset once something was sent, which does not reach the peer.
    ResetAfterRequest,
    /// What was sent reaches the peer, and the peer's answer is lost in a reset: did it happen?
    Half,
    /// Read, and never answered.
    BlackHole,
    /// Answered by bytes that are no protocol.
    Garbage,
    /// The answer comes in pieces of so many bytes, ten a second.
    Slow(usize),
    /// The answer ends after so many bytes.
    Truncate(usize),
}

#[derive(Debug, Default)]
struct State {
    way: Mutex<Option<(Way, Option<usize>)>>,
    connections: AtomicUsize,
    faults: AtomicUsize,
    /// Not owned, since a reset is sent when the last owner closes.
    open: Mutex<Vec<Weak<TcpStream>>>,
}

/// A proxy to one peer, on a port of its own.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

impl Proxy {
    /// A proxy to what listens at `upstream` (`HOST:PORT`, or the address of a peer).
    pub(crate) fn before(upstream: &str) -> Self {
        let upstream = upstream.rsplit("//").next().unwrap().trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let proxy = Self { address, state: Arc::clone(&state) };
        // Ends with the process: an accept cannot be interrupted.
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (state, upstream) = (Arc::clone(&state), upstream.clone());
                std::thread::spawn(move || {
                    let _either_side_may_go = carry(connection, &upstream, &state);
                });
            }
        });
        proxy
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// All connections from now on go this way; those that stand are closed.
    pub(crate) fn set(&self, way: Way) {
        self.set_times(way, None);
    }

    /// The next `times` connections go this way, those after them pass.
    pub(crate) fn next(&self, times: usize, way: Way) {
        self.set_times(way, Some(times));
    }

    fn set_times(&self, way: Way, times: Option<usize>) {
        *self.state.way.lock().unwrap() = Some((way, times));
        for one in self.state.open.lock().unwrap().drain(..).filter_map(|one| one.upgrade()) {
            let _ = one.shutdown(Shutdown::Both);
        }
    }

    /// Connections that were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Connections that did not pass.
    pub(crate) fn faults(&self) -> usize {
        self.state.faults.load(Ordering::SeqCst)
    }
}

impl State {
    fn way(&self) -> Way {
        let mut set = self.way.lock().unwrap();
        match &mut *set {
            None | Some((_, Some(0))) => Way::Pass,
            Some((way, left)) => {
                if let Some(left) = left {
                    *left -= 1;
                }
                *way
            }
        }
    }
}

fn carry(client: TcpStream, upstream: &str, state: &State) -> io::Result<()> {
    state.connections.fetch_add(1, Ordering::SeqCst);
    let way = state.way();
    if way != Way::Pass {
        state.faults.fetch_add(1, Ordering::SeqCst);
    }
    let client = Arc::new(client);
    {
        let mut open = state.open.lock().unwrap();
        open.retain(|one| one.strong_count() > 0);
        open.push(Arc::downgrade(&client));
    }
    let mut buffer = [0; 65_536];
    match way {
        Way::ResetAtOnce => {
            reset_on_close(&client);
            return Ok(());
        }
        Way::ResetAfterRequest => {
            let _ = (&*client).read(&mut buffer)?;
            reset_on_close(&client);
            return Ok(());
        }
        Way::BlackHole => {
            while (&*client).read(&mut buffer)? > 0 {}
            return Ok(());
        }
        Way::Garbage => {
            let _ = (&*client).read(&mut buffer)?;
            return (&*client).write_all(&b"\x00\xffnot a protocol\r\n".repeat(8));
        }
        Way::Pass | Way::Delay(_) | Way::Half | Way::Slow(_) | Way::Truncate(_) => {}
    }
    let server = Arc::new(TcpStream::connect(upstream)?);
    let (requests, to_server) = (Arc::clone(&client), Arc::clone(&server));
    std::thread::spawn(move || {
        let _ = io::copy(&mut &*requests, &mut &*to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let mut sent = 0;
    loop {
        let read = (&*server).read(&mut buffer)?;
        if read == 0 {
            return client.shutdown(Shutdown::Both);
        }
        let mut piece = &buffer[..read];
        match way {
            Way::Half => {
                let _ = server.shutdown(Shutdown::Both);
                reset_on_close(&client);
                // Sends nothing, and lets the other thread go.
                return client.shutdown(Shutdown::Read);
            }
            Way::Delay(time) if sent == 0 => std::thread::sleep(time),
            Way::Slow(size) => {
                for piece in piece.chunks(size) {
                    (&*client).write_all(piece)?;
                    std::thread::sleep(Duration::from_millis(100));
                }
                sent += read;
                continue;
            }
            Way::Truncate(most) => piece = &piece[..piece.len().min(most - sent)],
            _ => {}
        }
        (&*client).write_all(piece)?;
        sent += piece.len();
        if matches!(way, Way::Truncate(most) if sent >= most) {
            let _ = server.shutdown(Shutdown::Both);
            return client.shutdown(Shutdown::Both);
        }
    }
}
