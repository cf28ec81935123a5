//! Ranges of an object on a web server: a source as a user would write it, on std alone, against a
//! small server on this machine that counts.

use crate::support::providers::raw;
use crate::support::sample::pattern;
use crate::support::say;
use bytes::Bytes;
use envelock::{
    AsyncRangeReader, EncryptionContext, Envelope, Error, ErrorKind, FetchAnswer, Fetched, Header, RangeOptions,
    RangeSource, Result, SourceVersion, async_trait, blocking,
};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What the server holds, and how well it behaves.
#[derive(Default)]
struct Object {
    bytes: Vec<u8>,
    generation: u32,
    manners: Manners,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Manners {
    #[default]
    Good,
    /// Answers with the current object, whatever `If-Match` says.
    IgnoresIfMatch,
    /// Tells no ETag.
    NoEtag,
    /// Sends the whole object with status 200.
    IgnoresRange,
    /// Answers 503.
    Overloaded,
    /// Closes the connection in the middle of the body.
    HangsUp,
    /// Answers once several requests are there, or a minute has passed.
    WaitsFor(usize),
}

#[derive(Default)]
struct Counts {
    requests: usize,
    /// Bytes of bodies.
    bytes: usize,
    /// Requests with `If-Match`.
    conditional: usize,
    /// Answers 412.
    refused: usize,
    /// Most requests that were there at once.
    at_once: usize,
}

/// Requests that have arrived: those that are not answered yet, and all since the manners changed.
#[derive(Default)]
struct Here {
    now: usize,
    all: usize,
}

#[derive(Default)]
struct State {
    object: Mutex<Object>,
    counts: Mutex<Counts>,
    here: Mutex<Here>,
    arrived: Condvar,
}

struct Server {
    address: SocketAddr,
    state: Arc<State>,
}

impl Server {
    fn new(bytes: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        state.object.lock().unwrap().bytes = bytes;
        let server = Self { address, state: Arc::clone(&state) };
        // Ends with the process: an accept cannot be interrupted.
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                std::thread::spawn(move || {
                    let _client_may_have_gone = serve(&connection, &state);
                });
            }
        });
        server
    }

    fn replace(&self, bytes: Vec<u8>) {
        let mut object = self.state.object.lock().unwrap();
        object.bytes = bytes;
        object.generation += 1;
    }

    fn behaves(&self, manners: Manners) {
        self.state.object.lock().unwrap().manners = manners;
        self.state.here.lock().unwrap().all = 0;
    }

    /// The counts since the last call.
    fn counts(&self) -> Counts {
        std::mem::take(&mut *self.state.counts.lock().unwrap())
    }

    fn source(&self) -> HttpSource {
        HttpSource { address: self.address, path: "/bucket/message.elk".into() }
    }
}

/// One request on a connection.
fn serve(mut connection: &TcpStream, state: &State) -> io::Result<()> {
    let (mut range, mut if_match) = (None, None);
    for line in BufReader::new(connection).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("Range: bytes=") {
            let (start, last) = value.split_once('-').unwrap();
            range = Some((start.parse::<usize>().unwrap(), last.parse::<usize>().unwrap()));
        }
        if let Some(value) = line.strip_prefix("If-Match: ") {
            if_match = Some(value.to_owned());
        }
    }
    let (bytes, etag, manners) = {
        let object = state.object.lock().unwrap();
        (object.bytes.clone(), format!("\"generation-{}\"", object.generation), object.manners)
    };
    let wait_for = if let Manners::WaitsFor(count) = manners { count } else { 1 };
    let mut here = state.here.lock().unwrap();
    here.now += 1;
    here.all += 1;
    let at_once = here.now;
    // The first so many answer together, then the next.
    let together = here.all.next_multiple_of(wait_for);
    state.arrived.notify_all();
    while here.all < together {
        let (again, timeout) = state.arrived.wait_timeout(here, Duration::from_secs(60)).unwrap();
        here = again;
        if timeout.timed_out() {
            break;
        }
    }
    drop(here);
    let mut counts = state.counts.lock().unwrap();
    counts.requests += 1;
    counts.at_once = counts.at_once.max(at_once);
    counts.conditional += usize::from(if_match.is_some());
    let (start, last) = range.expect("every request has a range");
    let len = bytes.len();
    let (status, body): (_, &[u8]) = match manners {
        Manners::Overloaded => ("503 Service Unavailable", b""),
        Manners::IgnoresRange => ("200 OK", &bytes),
        _ if manners != Manners::IgnoresIfMatch && if_match.is_some_and(|tag| tag != etag) => {
            counts.refused += 1;
            ("412 Precondition Failed", b"")
        }
        _ if start >= len => ("416 Range Not Satisfiable", b""),
        _ => ("206 Partial Content", &bytes[start..len.min(last + 1)]),
    };
    counts.bytes += body.len();
    drop(counts);
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    if manners != Manners::NoEtag {
        head += &format!("ETag: {etag}\r\n");
    }
    match status.get(..3) {
        Some("206") => head += &format!("Content-Range: bytes {start}-{}/{len}\r\n", start + body.len() - 1),
        Some("416") => head += &format!("Content-Range: bytes */{len}\r\n"),
        _ => {}
    }
    let body = if manners == Manners::HangsUp { &body[..body.len() / 2] } else { body };
    // Before the answer, upon which the client may ask anew.
    state.here.lock().unwrap().now -= 1;
    connection.write_all((head + "\r\n").as_bytes()).and_then(|()| connection.write_all(body))
}

/// An object on a web server, as a user would write it: each request on a thread, off the executor.
#[derive(Clone)]
struct HttpSource {
    address: SocketAddr,
    path: String,
}

#[async_trait]
impl RangeSource for HttpSource {
    fn name(&self) -> String {
        format!("http://{}{}", self.address, self.path)
    }

    async fn fetch(&self, range: Range<u64>, pinned: Option<&SourceVersion>) -> Result<FetchAnswer> {
        let (this, pinned) = (self.clone(), pinned.cloned());
        let (sender, receiver) = futures_channel::oneshot::channel();
        std::thread::spawn(move || sender.send(this.get(&range, pinned.as_ref())));
        receiver.await.expect("the thread answers")
    }
}

impl HttpSource {
    fn get(&self, range: &Range<u64>, pinned: Option<&SourceVersion>) -> Result<FetchAnswer> {
        let mut connection = TcpStream::connect(self.address)?;
        let mut request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", self.path, self.address);
        request += &format!("Range: bytes={}-{}\r\n", range.start, range.end - 1);
        if let Some(pinned) = pinned {
            request += &format!("If-Match: {}\r\n", pinned.as_str());
        }
        connection.write_all((request + "Connection: close\r\n\r\n").as_bytes())?;
        let mut answer = BufReader::new(connection);
        let mut line = String::new();
        answer.read_line(&mut line)?;
        let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut len, mut object_len, mut version) = (0, None, None);
        loop {
            line.clear();
            answer.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some(("Content-Length", value)) => len = value.parse().unwrap_or(u64::MAX),
                Some(("Content-Range", value)) => {
                    object_len = value.rsplit('/').next().and_then(|value| value.parse().ok());
                }
                Some(("ETag", value)) if !value.starts_with("W/") => version = Some(SourceVersion::new(value)),
                Some(_) => {}
                None => break,
            }
        }
        match (status.as_str(), object_len) {
            ("206", Some(object_len)) if len <= range.end - range.start => {
                let mut bytes = vec![0; usize::try_from(len).unwrap()];
                answer.read_exact(&mut bytes)?;
                Ok(FetchAnswer::Fetched(Fetched { bytes: bytes.into(), object_len, version }))
            }
            ("416", Some(object_len)) => Ok(FetchAnswer::Fetched(Fetched { bytes: Bytes::new(), object_len, version })),
            ("412", _) => Ok(FetchAnswer::Changed),
            ("503", _) => Err(Error::new(ErrorKind::Unavailable, format!("{} is overloaded", self.name()))),
            _ => Err(Error::new(ErrorKind::Io, format!("{} answered {status} to a range", self.name()))),
        }
    }
}

const SEGMENT: u64 = 65_536;

struct Desk {
    envelope: Envelope,
    plaintext: Vec<u8>,
    head: u64,
    server: Server,
}

impl Desk {
    fn new(len: usize) -> Self {
        let envelope = Envelope::builder(raw("mine", 2)).build().unwrap();
        let plaintext = pattern(len);
        let message = blocking::wait(envelope.encrypt(&plaintext, &EncryptionContext::new())).unwrap();
        let head = Header::parse(&message).unwrap().len() as u64;
        Self { envelope, plaintext, head, server: Server::new(message) }
    }

    fn open(&self) -> Result<AsyncRangeReader<HttpSource>> {
        blocking::wait(self.envelope.async_range_reader(self.server.source(), &EncryptionContext::new()))
    }

    fn again(&self, plaintext: &[u8]) -> Vec<u8> {
        blocking::wait(self.envelope.encrypt(plaintext, &EncryptionContext::new())).unwrap()
    }

    #[track_caller]
    fn reads(&self, reader: &AsyncRangeReader<HttpSource>, range: Range<usize>) {
        let got = blocking::wait(reader.read_range(range.start as u64..range.end as u64)).unwrap();
        assert_eq!(got, self.plaintext[range]);
    }
}

#[test]
fn a_message_is_opened_by_two_requests_and_a_range_by_one() {
    let desk = Desk::new(10_000_000);
    let reader = desk.open().unwrap();
    let counts = desk.server.counts();
    let last = (desk.server.state.object.lock().unwrap().bytes.len() as u64 - desk.head) % SEGMENT;
    assert_eq!((counts.requests, counts.bytes as u64), (2, 16_384 + last));
    assert_eq!(counts.conditional, 1, "the second of them is bound to the version of the first");
    assert_eq!(reader.version().map(SourceVersion::as_str), Some("\"generation-0\""));

    let edge = 65_504 * 70;
    desk.reads(&reader, edge - 1_000..edge + 3_096);
    let counts = desk.server.counts();
    assert_eq!((counts.requests, counts.bytes as u64, counts.conditional), (1, 2 * SEGMENT, 1));

    desk.reads(&reader, 0..10_000_000);
    let counts = desk.server.counts();
    assert_eq!(counts.requests, 153_usize.div_ceil(16), "by 16 segments, a MiB");
    let body = desk.server.state.object.lock().unwrap().bytes.len() - usize::try_from(desk.head).unwrap();
    assert_eq!(counts.bytes, body, "each byte once");

    // 50 rows of 200 bytes over 50 segments: near ones share a request.
    let rows: Vec<_> = (0..50).map(|n| n * 3 * 65_504..n * 3 * 65_504 + 200).collect();
    let got = blocking::wait(reader.read_ranges(&rows)).unwrap();
    for (got, row) in got.iter().zip(&rows) {
        let at = |offset: u64| usize::try_from(offset).unwrap();
        assert_eq!(*got, desk.plaintext[at(row.start)..at(row.end)]);
    }
    let merged = desk.server.counts();
    assert_eq!(merged.requests, 9, "six rows of three segments each fit into a MiB");
    let reader = desk.open().unwrap().with_options(RangeOptions::remote().merge_gap(0));
    desk.server.counts();
    blocking::wait(reader.read_ranges(&rows)).unwrap();
    let apart = desk.server.counts();
    assert_eq!((apart.requests, apart.bytes as u64), (50, 50 * SEGMENT));
    say(format!(
        "50 rows of 200 bytes over HTTP: {} requests and {} bytes with gaps, {} and {} without",
        merged.requests, merged.bytes, apart.requests, apart.bytes
    ));
}

#[test]
fn an_object_that_is_replaced_between_two_reads_is_the_pinned_error() {
    for manners in [Manners::Good, Manners::IgnoresIfMatch] {
        let desk = Desk::new(1_000_000);
        desk.server.behaves(manners);
        let reader = desk.open().unwrap();
        desk.reads(&reader, 500_000..500_100);
        // Of the same length, and even the same content.
        desk.server.replace(desk.again(&desk.plaintext));
        desk.server.counts();
        for _ in 0..2 {
            let error = blocking::wait(reader.read_range(500_000..500_100)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(!error.is_retryable());
            let said = error.to_string();
            assert!(said.contains("/bucket/message.elk was changed or replaced"), "{said}");
            assert!(said.contains("open it anew"), "{said}");
            let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<io::Error>());
            assert_eq!(cause.map(io::Error::kind), Some(io::ErrorKind::StaleNetworkFileHandle));
        }
        let counts = desk.server.counts();
        let refused = if manners == Manners::Good { 2 } else { 0 };
        assert_eq!((counts.requests, counts.conditional, counts.refused), (2, 2, refused));
        let reader = desk.open().unwrap();
        desk.reads(&reader, 500_000..500_100);
    }
}

#[test]
fn without_etags_another_length_is_seen_and_another_body_is_not_authentic() {
    let desk = Desk::new(1_000_000);
    desk.server.behaves(Manners::NoEtag);
    let reader = desk.open().unwrap();
    assert_eq!(reader.version(), None);
    desk.server.replace(desk.again(&desk.plaintext[1..]));
    let error = blocking::wait(reader.read_range(0..10)).unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.to_string().contains("open it anew"), "{error}");
    desk.server.replace(desk.again(&desk.plaintext));
    let error = blocking::wait(reader.read_range(0..10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
}

#[test]
fn a_server_that_does_not_answer_as_it_should_is_a_clear_error() {
    let desk = Desk::new(300_000);
    let reader = desk.open().unwrap();
    for (manners, kind, text) in [
        (Manners::IgnoresRange, ErrorKind::Io, "answered 200 to a range"),
        (Manners::Overloaded, ErrorKind::Unavailable, "overloaded"),
        (Manners::HangsUp, ErrorKind::Io, "failed to fill whole buffer"),
    ] {
        desk.server.behaves(manners);
        for error in [desk.open().map(drop).unwrap_err(), blocking::wait(reader.read_range(0..10)).unwrap_err()] {
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
    desk.server.behaves(Manners::Good);
    desk.reads(&reader, 0..10);
    desk.server.replace(Vec::new());
    assert_eq!(desk.open().unwrap_err().kind(), ErrorKind::Truncated, "an empty object answers 416");
}

#[test]
fn several_requests_are_under_way_at_once_and_no_more_than_allowed() {
    let desk = Desk::new(4_000_000);
    for most in [1, 3, 4] {
        desk.server.behaves(Manners::Good);
        let options = RangeOptions::remote().max_read(1 << 18).concurrent_reads(most);
        let reader = desk.open().unwrap().with_options(options);
        desk.server.counts();
        desk.server.behaves(Manners::WaitsFor(most));
        desk.reads(&reader, 0..3_000_000);
        let counts = desk.server.counts();
        assert_eq!(counts.at_once, most);
        assert_eq!(counts.requests, 12);
    }
}
