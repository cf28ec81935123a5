//! Servers on 127.0.0.1 that do what a test says with each connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A server until the test ends: its address, and how many connections it took.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<AtomicUsize>,
}

impl Server {
    /// Every connection is `handle`d by a thread of its own.
    pub(super) fn new(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let (counted, handle) = (connections.clone(), Arc::new(handle));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                let (stream, handle) = (stream.unwrap(), handle.clone());
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                std::thread::spawn(move || handle(stream));
            }
        });
        Self { address, connections }
    }

    /// Every request is answered with `answer`, bytes as they are, and its own bytes come out of the receiver.
    pub(super) fn answering(answer: impl Into<Vec<u8>>) -> (Self, Receiver<String>) {
        let (sender, requests) = channel();
        let answer = answer.into();
        let server = Self::new(move |mut stream| {
            while let Some(request) = read_request(&mut stream) {
                let _ = sender.send(request);
                if stream.write_all(&answer).is_err() {
                    return;
                }
            }
        });
        (server, requests)
    }

    pub(super) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/v1/key?nonce=hunter2", self.address)
    }
}

/// A whole request with its body, or `None` at the connection's end.
pub(super) fn read_request(stream: &mut impl Read) -> Option<String> {
    let mut request = Vec::new();
    loop {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        request.push(byte[0]);
        if request.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8_lossy(&request).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    request.extend_from_slice(&body);
    Some(String::from_utf8_lossy(&request).into_owned())
}
