//! A call to a key provider over HTTP against the same request by bare `reqwest`: `cargo bench --features http,test-util --bench
//! http`.
//!
//! The server is a thread on 127.0.0.1 that answers at once, as the body of AWS's `Decrypt` is long. Both sides keep one connection open.
//! What differs is what envelock does around a request: the breaker, the budget, the places, the time for the whole call, the
//! wiped buffer of the answer.

#[path = "common/mod.rs"]
mod common;

use common::report::Report;
use common::{Amount, Clock, Group};
use envelock::{HttpPolicy, HttpProbe, ReqwestTransport};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

const ROUNDS: usize = 61;
/// How often a case runs in a row in one round.
const REPEAT: usize = 100;

fn main() {
    let mut report = Report::new("http", std::env::args().skip(1));
    let title = "a call over HTTP on this machine, one connection";
    if report.wants(title) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let url = format!("http://{}/", server());
        let body = bytes::Bytes::from(vec![b'x'; 400]);
        let bare = reqwest::Client::builder()
            .no_proxy()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client");
        let transport = ReqwestTransport::builder().without_proxy().build().expect("a transport");
        let probe = HttpProbe::new(Arc::new(transport), HttpPolicy::default(), &url).expect("an address");
        let by_bare = || {
            runtime.block_on(async {
                let request = bare.post(&url).header("content-type", "application/json").body(body.clone());
                request.send().await.expect("an answer").bytes().await.expect("a body")
            })
        };
        let by_ours = || runtime.block_on(probe.call(body.clone())).expect("an answer");
        assert_eq!(by_bare(), by_ours());
        let measured = Group::new("http-call", title, Amount::Message, REPEAT)
            .by(Clock::Wall)
            .case("bare `reqwest`", by_bare)
            .case("envelock's client", by_ours)
            .run(ROUNDS);
        report.add(&measured, &["bare `reqwest`"]);
    }
    report.write();
}

/// Answers whatever comes with 300 bytes.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).expect("a socket");
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 300\r\n\r\n{}", "y".repeat(300));
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(read) => seen.extend_from_slice(&buffer[..read]),
        }
        // Both cases send a body of 400 bytes.
        let head = seen.windows(4).position(|four| four == b"\r\n\r\n");
        if head.is_some_and(|head| seen.len() >= head + 4 + 400) {
            seen.clear();
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}
