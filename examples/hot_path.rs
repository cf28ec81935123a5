//! A web service that keeps a small value for each request, sealed, for many tenants: a handful of calls to the
//! key provider, however many requests there are.
//!
//! `PUT /TENANT/ORDER` seals the body, `GET /TENANT/ORDER` opens it again. The server speaks as much HTTP as this
//! needs, on 127.0.0.1 and a free port; some clients keep it busy, and both end.
//!
//! `cargo run --example hot_path`

use envelock::{CacheLimits, DataKeyCache, EncryptionContext, Envelope, ErrorKind, LocalKms, RootKey, blocking};
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const TENANTS: usize = 50;
const CLIENTS: usize = 4;
/// Of each client, and each is two requests: one that stores, one that reads.
const ORDERS: usize = 5_000;
const BODY_MAX: usize = 4_096;

/// What the handlers share. The envelope is made once; another view of it for each request costs next to nothing.
struct Service {
    envelope: blocking::Envelope,
    /// Stands for a database: what lies here is sealed.
    stored: Mutex<HashMap<String, Vec<u8>>>,
}

impl Service {
    /// The tenant decides which cached data keys serve, and stands in the context, so that no value opens as
    /// another tenant's. The order does not: a context of its own would have a data key of its own.
    fn of(&self, tenant: &str) -> (blocking::Envelope, EncryptionContext) {
        let context = EncryptionContext::from([("tenant", tenant), ("column", "orders.address")]);
        (self.envelope.for_tenant(tenant), context)
    }

    /// What differs from row to row stands in the value.
    fn put(&self, tenant: &str, order: &str, address: &[u8]) -> Result<(), envelock::Error> {
        let (envelope, context) = self.of(tenant);
        let sealed = envelope.encrypt(&[order.as_bytes(), b"\n", address].concat(), &context)?;
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).insert(format!("{tenant}/{order}"), sealed);
        Ok(())
    }

    /// And is compared when it is opened.
    fn get(&self, tenant: &str, order: &str) -> Result<Option<Vec<u8>>, envelock::Error> {
        let stored =
            self.stored.lock().unwrap_or_else(PoisonError::into_inner).get(&format!("{tenant}/{order}")).cloned();
        let Some(sealed) = stored else { return Ok(None) };
        let (envelope, context) = self.of(tenant);
        let value = envelope.decrypt(&sealed, &context)?;
        match value.strip_prefix(order.as_bytes()).and_then(|rest| rest.strip_prefix(b"\n")) {
            Some(address) => Ok(Some(address.to_vec())),
            None => Err(envelock::Error::new(ErrorKind::AuthenticationFailed, "the value of another order")),
        }
    }

    /// One connection, until the client closes it.
    fn serve(&self, connection: TcpStream) -> io::Result<()> {
        connection.set_nodelay(true)?;
        let (mut reader, mut writer) = (BufReader::new(connection.try_clone()?), connection);
        while let Some((line, body)) = message(&mut reader)? {
            // Who a request is from, a real service knows by its credentials, and not by the path.
            let mut words = line.split([' ', '/']).filter(|word| !word.is_empty());
            let (status, answer) = match (words.next(), words.next(), words.next()) {
                (Some("PUT"), Some(tenant), Some(order)) => match self.put(tenant, order, &body) {
                    Ok(()) => ("204 No Content", Vec::new()),
                    Err(error) => failed(&error),
                },
                (Some("GET"), Some(tenant), Some(order)) => match self.get(tenant, order) {
                    Ok(Some(address)) => ("200 OK", address),
                    Ok(None) => ("404 Not Found", Vec::new()),
                    Err(error) => failed(&error),
                },
                _ => ("400 Bad Request", Vec::new()),
            };
            send(&mut writer, &format!("HTTP/1.1 {status}"), &answer)?;
        }
        Ok(())
    }
}

/// The client is told whether to come again, and the operator the rest.
fn failed(error: &envelock::Error) -> (&'static str, Vec<u8>) {
    eprintln!("{error}");
    (if error.is_retryable() { "503 Service Unavailable" } else { "500 Internal Server Error" }, Vec::new())
}

/// The first line and the body of a request or an answer; `None` when the other side has closed.
fn message(reader: &mut impl BufRead) -> io::Result<Option<(String, Vec<u8>)>> {
    let too_long = || io::Error::from(io::ErrorKind::InvalidData);
    let mut head = reader.take(8_192);
    let (mut first, mut line, mut len) = (String::new(), String::new(), 0);
    if head.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(too_long());
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                len = value.parse().ok().filter(|len| *len <= BODY_MAX).ok_or_else(too_long)?;
            }
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    Ok(Some((first, body)))
}

fn send(writer: &mut impl Write, first: &str, body: &[u8]) -> io::Result<()> {
    let head = format!("{first}\r\nContent-Length: {}\r\n\r\n", body.len());
    writer.write_all(&[head.as_bytes(), body].concat())
}

/// Stores orders of all tenants in turn, and reads each back.
fn client(address: SocketAddr, number: usize) -> Result<()> {
    let connection = TcpStream::connect(address)?;
    connection.set_nodelay(true)?;
    let (mut reader, mut writer) = (BufReader::new(connection.try_clone()?), connection);
    let mut ask = |request: String, body: &[u8]| -> Result<(String, Vec<u8>)> {
        send(&mut writer, &format!("{request} HTTP/1.1\r\nHost: localhost"), body)?;
        Ok(message(&mut reader)?.ok_or("the server closed")?)
    };
    for order in 0..ORDERS {
        let path = format!("/tenant-{}/{number}-{order}", order % TENANTS);
        let (put, _) = ask(format!("PUT {path}"), b"1 Infinite Loop")?;
        let (get, body) = ask(format!("GET {path}"), b"")?;
        assert!(put.contains("204") && get.contains("200") && body == b"1 Infinite Loop", "{put}{get}");
    }
    Ok(())
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let kms = LocalKms::open(folder.path().join("keys.db"), RootKey::file(folder.path().join("root.key"))?)?;
    let limits = CacheLimits::default().max_age(Duration::from_secs(60)).max_entries(4 * TENANTS);
    let cache = DataKeyCache::new(limits)?;
    let envelope = Envelope::builder(kms.provider("alias/envelock/default")?).shared_cache(&cache).build()?;
    let service = Service { envelope: blocking::Envelope::new(envelope), stored: Mutex::default() };

    let start = Instant::now();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(address, number))).collect();
        for _ in 0..CLIENTS {
            let (connection, _) = listener.accept()?;
            let service = &service;
            scope.spawn(move || service.serve(connection));
        }
        clients.into_iter().try_for_each(|client| client.join().expect("no client panics"))
    })?;
    println!("{} requests in {:?}", 2 * CLIENTS * ORDERS, start.elapsed());

    let statistics = cache.statistics();
    let (calls, saved) =
        statistics.iter().fold((0, 0), |(calls, saved), of| (calls + of.calls(), saved + of.calls_saved()));
    println!("{calls} calls to the key provider for {TENANTS} tenants; {saved} saved");
    // One to encrypt and one to decrypt for each tenant, whatever the number of requests: more only where
    // these took longer than the cache's `max_age`.
    assert!(calls >= 2 * TENANTS as u64 && calls + saved >= (2 * CLIENTS * ORDERS) as u64);
    assert!(start.elapsed() > Duration::from_secs(40) || calls == 2 * TENANTS as u64);

    // A value in the place of another is refused.
    let moved = service.stored.lock().unwrap_or_else(PoisonError::into_inner).remove("tenant-1/0-1").expect("stored");
    service.stored.lock().unwrap_or_else(PoisonError::into_inner).insert("tenant-2/0-2".to_owned(), moved);
    assert!(service.get("tenant-2", "0-2").is_err());

    // A tenant leaves: nothing of its keys stays in this process.
    cache.invalidate_tenant(Some("tenant-7"));
    println!("{} data keys are left", cache.len());
    Ok(())
}
