//! An HTTP server in this process that does what a test says, and counts.

use super::http::{self, Message};
use super::sockets::reset_on_close;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A status, headers and a body.
    Answer(u16, Vec<(String, String)>, Vec<u8>),
    /// The same, its body in pieces of so many bytes with so long between them.
    Slow(Vec<u8>, usize, Duration),
    /// An answer whose body ends before its length, with an end of the connection.
    CutShort(Vec<u8>),
    /// Bytes that are no HTTP, and an end.
    Garbage,
    /// Nothing, until the other side or the server goes.
    Hang,
    /// A reset instead of an answer.
    Reset,
    /// Sent on to `HOST:PORT`, whose answer comes back.
    Forward(String),
    /// Sent on, and the answer is lost in a reset.
    Half(String),
}

impl Reply {
    pub(crate) fn json(status: u16, body: impl fmt::Display) -> Self {
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        Self::Answer(status, headers, body.to_string().into_bytes())
    }

    /// The same with one more header.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        if let Self::Answer(_, headers, _) = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

type Handler = dyn Fn(&Message) -> Reply + Send + Sync;

struct State {
    handler: Box<Handler>,
    connections: AtomicUsize,
    requests: Mutex<BTreeMap<String, usize>>,
    log: Mutex<Vec<Message>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    over: AtomicBool,
}

/// A server on a port of its own, until it is dropped.
pub(crate) struct FaultServer {
    address: SocketAddr,
    state: Arc<State>,
}

impl FaultServer {
    pub(crate) fn new(handler: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            handler: Box::new(handler),
            connections: AtomicUsize::new(0),
            requests: Mutex::default(),
            log: Mutex::default(),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let server = Self { address, state: Arc::clone(&state) };
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if state.over.load(Ordering::SeqCst) {
                    break;
                }
                let state = Arc::clone(&state);
                std::thread::spawn(move || {
                    let _client_may_go = serve(&connection, &state);
                });
            }
        });
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.state.requests.lock().unwrap().values().sum()
    }

    /// Requests so far, by operation: `TrentService.Decrypt`, `/v1/transit/decrypt/key`.
    pub(crate) fn by_operation(&self) -> BTreeMap<String, usize> {
        self.state.requests.lock().unwrap().clone()
    }

    /// The requests themselves, in their order.
    pub(crate) fn seen(&self) -> Vec<Message> {
        self.state.log.lock().unwrap().clone()
    }

    /// Most requests that were being answered at once.
    pub(crate) fn most_at_once(&self) -> usize {
        self.state.most_at_once.load(Ordering::SeqCst)
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
        // Wakes the accept, which then ends.
        let _ = TcpStream::connect(self.address);
    }
}

/// The operation that `request` is for: AWS's target, or a path.
pub(crate) fn operation(request: &Message) -> String {
    request.header("x-amz-target").unwrap_or_else(|| request.path()).to_owned()
}

fn serve(connection: &TcpStream, state: &State) -> io::Result<()> {
    state.connections.fetch_add(1, Ordering::SeqCst);
    let mut input = BufReader::new(connection);
    let mut output = connection;
    while let Some(request) = Message::read(&mut input)? {
        *state.requests.lock().unwrap().entry(operation(&request)).or_default() += 1;
        state.log.lock().unwrap().push(request.clone());
        let now = state.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        state.most_at_once.fetch_max(now, Ordering::SeqCst);
        let reply = (state.handler)(&request);
        let done = answer(&mut output, connection, &request, reply, state);
        state.at_once.fetch_sub(1, Ordering::SeqCst);
        match done? {
            Then::Next => {}
            Then::End => return connection.shutdown(Shutdown::Both),
            Then::Reset => {
                reset_on_close(connection);
                return Ok(());
            }
        }
    }
    Ok(())
}

enum Then {
    Next,
    End,
    Reset,
}

fn answer(
    mut output: impl Write,
    connection: &TcpStream,
    request: &Message,
    reply: Reply,
    state: &State,
) -> io::Result<Then> {
    let head = |status: u16, len: usize| format!("HTTP/1.1 {status} Said\r\nContent-Length: {len}\r\n\r\n");
    match reply {
        Reply::Answer(status, headers, body) => {
            Message { start: format!("HTTP/1.1 {status} Said"), headers, body }.write(&mut output)?;
        }
        Reply::Slow(body, size, pause) => {
            output.write_all(head(200, body.len()).as_bytes())?;
            for piece in body.chunks(size) {
                std::thread::sleep(pause);
                output.write_all(piece)?;
            }
        }
        Reply::CutShort(body) => {
            output.write_all(head(200, body.len()).as_bytes())?;
            output.write_all(&body[..body.len() / 2])?;
            return Ok(Then::End);
        }
        Reply::Garbage => {
            output.write_all(&b"\x00\xffnot HTTP\r\n".repeat(8))?;
            return Ok(Then::End);
        }
        Reply::Hang => {
            connection.set_read_timeout(Some(Duration::from_millis(200)))?;
            let mut byte = [0];
            while !state.over.load(Ordering::SeqCst) {
                match connection.peek(&mut byte) {
                    Ok(0) => break,
                    // Another request behind the first is not read either.
                    Ok(_) => std::thread::sleep(Duration::from_millis(50)),
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                    Err(error) => return Err(error),
                }
            }
            return Ok(Then::End);
        }
        Reply::Reset => return Ok(Then::Reset),
        Reply::Forward(host) => http::forward(&alone(request), &host)?.write(&mut output)?,
        Reply::Half(host) => {
            http::forward(&alone(request), &host)?;
            return Ok(Then::Reset);
        }
    }
    Ok(Then::Next)
}

/// `request`, on a connection that ends with its answer. The header `Host` stays, since it is signed.
fn alone(request: &Message) -> Message {
    let mut alone = request.clone();
    alone.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("connection"));
    alone.headers.push(("Connection".to_owned(), "close".to_owned()));
    alone
}
