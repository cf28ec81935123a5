//! The transport against real sockets: what each failure is called, how long it takes, and what it shows.

use super::scripted::ms;
use super::server::{Server, read_request};
use crate::provider::http::reqwest::ReqwestTransport;
use crate::provider::http::transport::{ExchangeLimits, HttpTransport, TransportError, TransportFailure};
use bytes::Bytes;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const ROOT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/root.pem"));

pub(super) fn transport() -> ReqwestTransport {
    ReqwestTransport::builder().only_roots(ROOT).without_proxy().build().unwrap()
}

pub(super) fn limits() -> ExchangeLimits {
    ExchangeLimits { connect: Duration::from_secs(5), total: Duration::from_secs(10), body: 4096 }
}

/// A request whose query, header and body hold a secret.
pub(super) fn request(url: &str) -> http::Request<Bytes> {
    let request = http::Request::post(url).header("authorization", "Bearer hunter2");
    request.body(Bytes::from_static(b"{\"plaintext\":\"hunter2\"}")).unwrap()
}

pub(super) async fn send(
    transport: &ReqwestTransport,
    url: &str,
    limits: &ExchangeLimits,
) -> Result<http::Response<Bytes>, TransportError> {
    let answer = transport.send(request(url), limits).await;
    if let Err(error) = &answer {
        let mut shown = format!("{error} {error:?}");
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next {
            shown += &format!(" {cause} {cause:?}");
            next = cause.source();
        }
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    answer
}

async fn failure(url: &str, limits: &ExchangeLimits) -> (TransportFailure, String, Duration) {
    let started = Instant::now();
    let error = send(&transport(), url, limits).await.unwrap_err();
    (error.failure(), error.to_string(), started.elapsed())
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Request-Id: 7\r\n\r\nhello";

#[tokio::test]
async fn a_request_goes_out_as_it_is_and_the_answer_comes_back_whole() {
    let (server, requests) = Server::answering(OK);
    let answer = send(&transport(), &server.url("http"), &limits()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (200, b"hello".as_slice()));
    assert_eq!(answer.headers()["x-request-id"], "7");
    let request = requests.recv().unwrap();
    assert!(request.starts_with("POST /v1/key?nonce=hunter2 HTTP/1.1\r\n"), "{request}");
    let lower = request.to_lowercase();
    assert!(lower.contains(&format!("user-agent: envelock/{}\r\n", env!("CARGO_PKG_VERSION"))), "{request}");
    assert!(lower.contains("authorization: bearer hunter2\r\n") && !lower.contains("accept-encoding"), "{request}");
    assert!(request.ends_with("{\"plaintext\":\"hunter2\"}"), "{request}");
}

#[tokio::test]
async fn a_chunked_answer_and_one_that_ends_with_the_connection_come_back_whole() {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
    let (server, _requests) = Server::answering(chunked.as_slice());
    assert_eq!(send(&transport(), &server.url("http"), &limits()).await.unwrap().body().as_ref(), b"hello");
    let server = Server::new(|mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello");
    });
    assert_eq!(send(&transport(), &server.url("http"), &limits()).await.unwrap().body().as_ref(), b"hello");
}

#[tokio::test]
async fn connections_are_used_again() {
    let (server, _requests) = Server::answering(OK);
    let transport = transport();
    for _ in 0..5 {
        send(&transport, &server.url("http"), &limits()).await.unwrap();
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let (aim, aimed) = Server::answering(OK);
    let redirect = format!("HTTP/1.1 307 Go\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n", aim.address);
    let (server, _requests) = Server::answering(redirect);
    let answer = send(&transport(), &server.url("http"), &limits()).await.unwrap();
    assert_eq!(answer.status().as_u16(), 307);
    assert!(aimed.try_recv().is_err());
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_a_refused_connection() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (failure, text, took) = failure(&format!("http://{closed}/"), &limits()).await;
    assert_eq!((failure, text.as_str()), (TransportFailure::Connect, "the connection was refused"));
    assert!(took < Duration::from_secs(2));
}

#[tokio::test]
async fn a_name_without_an_address_is_a_failure_of_dns() {
    let (failure, ..) = failure("http://kms.invalid/?nonce=hunter2", &limits()).await;
    assert_eq!(failure, TransportFailure::Dns);
}

#[tokio::test]
async fn connecting_takes_its_own_time_at_most_tls_included_as_each_request_says() {
    // It accepts, and never says a word of TLS.
    let server = Server::new(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let transport = transport();
    for connect in [200, 600, 200] {
        let limits = ExchangeLimits { connect: ms(connect), ..limits() };
        let started = Instant::now();
        let error = send(&transport, &server.url("https"), &limits).await.unwrap_err();
        let took = started.elapsed();
        assert_eq!(error.failure(), TransportFailure::Connect, "{error:?}");
        assert!(took >= ms(connect) && took < ms(connect + 350), "{connect} took {took:?}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_or_stops_in_the_middle_is_a_time_out() {
    let limits = ExchangeLimits { total: ms(300), ..limits() };
    for said in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhel"] {
        let server = Server::new(move |mut stream| {
            read_request(&mut stream);
            let _ = stream.write_all(said.as_bytes());
            drop(stream.read_to_end(&mut Vec::new()));
        });
        let (failure, _, took) = failure(&server.url("http"), &limits).await;
        assert_eq!(failure, TransportFailure::Timeout, "{said}");
        assert!(took >= ms(300) && took < ms(900), "{said} took {took:?}");
    }
}

#[tokio::test]
async fn a_body_that_trickles_is_a_time_out_however_lively_it_is() {
    let server = Server::new(|mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        while stream.write_all(b".").is_ok() {
            std::thread::sleep(ms(20));
        }
    });
    let (failure, _, took) = failure(&server.url("http"), &ExchangeLimits { total: ms(300), ..limits() }).await;
    assert_eq!(failure, TransportFailure::Timeout);
    assert!(took < ms(900), "{took:?}");
}

#[tokio::test]
async fn a_connection_that_ends_before_the_answer_does_is_broken() {
    for said in ["", "HTTP/1.1 200 OK\r\nConte", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhel"] {
        let server = Server::new(move |mut stream| {
            read_request(&mut stream);
            let _ = stream.write_all(said.as_bytes());
        });
        assert_eq!(failure(&server.url("http"), &limits()).await.0, TransportFailure::Broken, "{said}");
    }
    // Closed with bytes unread: a reset.
    let server = Server::new(|mut stream| drop(stream.read(&mut [0; 4])));
    assert_eq!(failure(&server.url("http"), &limits()).await.0, TransportFailure::Broken);
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n";
    let server = Server::new(move |mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(chunks.as_bytes());
    });
    assert_eq!(failure(&server.url("http"), &limits()).await.0, TransportFailure::Broken);
}

#[tokio::test]
async fn what_is_not_http_is_called_so() {
    let garbage: [&[u8]; 5] = [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x16\x03\x03\0\x07hunter2",
        b"HTTP/7.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhunter2\r\n",
    ];
    for garbage in garbage {
        let (server, _requests) = Server::answering(garbage);
        let (failure, text, _) = failure(&server.url("http"), &limits()).await;
        assert_eq!(failure, TransportFailure::NotHttp, "{text} for {}", garbage.escape_ascii());
    }
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_by_its_announcement_or_once_it_is_too_long() {
    let announced = b"HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n";
    let (server, _requests) = Server::answering(announced.as_slice());
    let (failed, _, took) = failure(&server.url("http"), &limits()).await;
    assert_eq!(failed, TransportFailure::TooLarge);
    assert!(took < Duration::from_secs(2));
    let endless = Server::new(|mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while stream.write_all(format!("400\r\n{}\r\n", "x".repeat(0x400)).as_bytes()).is_ok() {}
    });
    let (failed, _, took) = failure(&endless.url("http"), &limits()).await;
    assert_eq!(failed, TransportFailure::TooLarge);
    assert!(took < Duration::from_secs(2));
    // To the byte.
    for (length, fits) in [(4096, true), (4097, false)] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length));
        let (server, _requests) = Server::answering(answer);
        assert_eq!(send(&transport(), &server.url("http"), &limits()).await.is_ok(), fits);
    }
}

#[tokio::test]
async fn an_address_that_is_not_absolute_is_unusable() {
    for url in ["/v1/key", "kms.example:443"] {
        assert_eq!(failure(url, &limits()).await.0, TransportFailure::Unusable, "{url}");
    }
}

#[test]
fn without_a_runtime_it_says_so_and_still_waits() {
    let (server, _requests) = Server::answering(OK);
    let transport = transport();
    let error = pollster::block_on(send(&transport, &server.url("http"), &limits())).unwrap_err();
    assert_eq!(error.failure(), TransportFailure::Unusable);
    assert!(error.to_string().contains("no tokio runtime"), "{error}");
    let started = Instant::now();
    pollster::block_on(transport.sleep(ms(50)));
    assert!(started.elapsed() >= ms(50));
}

#[tokio::test]
async fn a_dropped_request_closes_its_connection() {
    let (sender, closed) = std::sync::mpsc::channel();
    let server = Server::new(move |mut stream| {
        read_request(&mut stream);
        let _ = sender.send(stream.read(&mut [0]).is_ok_and(|read| read == 0));
    });
    let transport = transport();
    let _ = tokio::time::timeout(ms(200), send(&transport, &server.url("http"), &limits())).await;
    // Its task needs this thread for that.
    let closed = tokio::task::spawn_blocking(move || closed.recv_timeout(Duration::from_secs(5))).await.unwrap();
    assert_eq!(closed, Ok(true));
}

#[tokio::test]
async fn a_proxy_serves_other_hosts_and_never_this_machine() {
    let (proxy, proxied) = Server::answering(OK);
    let (server, direct) = Server::answering(OK);
    let by_proxy = ReqwestTransport::builder().only_roots(ROOT).proxy(format!("http://u:hunter2@{}", proxy.address));
    assert!(!format!("{by_proxy:?}").contains("hunter2"));
    let by_proxy = by_proxy.build().unwrap();
    send(&by_proxy, &server.url("http"), &limits()).await.unwrap();
    let at_localhost = format!("http://localhost:{}/", server.address.port());
    send(&by_proxy, &at_localhost, &limits()).await.unwrap();
    assert!(direct.try_recv().is_ok() && direct.try_recv().is_ok() && proxied.try_recv().is_err());
    send(&by_proxy, "http://kms.invalid/v1/key", &limits()).await.unwrap();
    let seen = proxied.recv().unwrap();
    assert!(seen.starts_with("POST http://kms.invalid/v1/key HTTP/1.1\r\n"), "{seen}");
    assert!(!format!("{by_proxy:?}").contains("hunter2"));
    // The services that give an instance its credentials are asked directly; here there is none.
    let limits = ExchangeLimits { connect: ms(100), total: ms(300), ..limits() };
    for metadata in ["169.254.169.254", "169.254.170.23", "[fd00:ec2::254]"] {
        let _ = send(&by_proxy, &format!("http://{metadata}/latest/api/token"), &limits).await;
    }
    assert!(proxied.try_recv().is_err());
    assert_eq!(proxy.connections.load(Ordering::SeqCst), 1);
}
