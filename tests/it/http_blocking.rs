//! The transport under `blocking`, in programs with a runtime and without.

use bytes::Bytes;
use envelock::{ExchangeLimits, HttpTransport, ReqwestTransport, blocking, http};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// A server that answers every request, each after `pause`.
fn server(pause: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                let mut byte = [0];
                while stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    seen.push(byte[0]);
                    if seen.ends_with(b"\r\n\r\n") {
                        std::thread::sleep(pause);
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
                        seen.clear();
                    }
                }
            });
        }
    });
    address
}

fn call(transport: &ReqwestTransport, address: SocketAddr) -> Bytes {
    let request = http::Request::get(format!("http://{address}/")).body(Bytes::new()).unwrap();
    let answer = blocking::wait(transport.send(request, &ExchangeLimits::default()));
    answer.unwrap().into_body()
}

fn transport() -> ReqwestTransport {
    let root = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/root.pem"));
    ReqwestTransport::builder().only_roots(root).without_proxy().build().unwrap()
}

/// How many threads of this process have that name.
#[cfg(target_os = "linux")]
fn threads_named(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|found| found.trim() == name).count()
}

#[test]
fn threads_without_a_runtime_share_connections_and_one_thread() {
    let (transport, address) = (transport(), server(Duration::from_millis(5)));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..20).for_each(|_| assert_eq!(call(&transport, address), "hello")));
        }
    });
    #[cfg(target_os = "linux")]
    assert_eq!(threads_named("envelock-net"), 1);
}

#[test]
fn inside_a_runtime_that_stands_still_meanwhile_it_works_all_the_same() {
    let (transport, address) = (transport(), server(Duration::from_millis(20)));
    for threads in [1, 2] {
        let mut builder = if threads == 1 {
            tokio::runtime::Builder::new_current_thread()
        } else {
            tokio::runtime::Builder::new_multi_thread()
        };
        let runtime = builder.enable_all().build().unwrap();
        runtime.block_on(async {
            assert_eq!(call(&transport, address), "hello");
            // And by that runtime itself, in between.
            let request = http::Request::get(format!("http://{address}/")).body(Bytes::new()).unwrap();
            let answer = transport.send(request, &ExchangeLimits::default()).await.unwrap();
            assert_eq!(answer.body().as_ref(), b"hello");
            assert_eq!(call(&transport, address), "hello");
            let inside = transport.clone();
            let done = tokio::task::spawn_blocking(move || call(&inside, address)).await.unwrap();
            assert_eq!(done, "hello");
        });
        drop(runtime);
        // Connections of a runtime that is gone do not fail a call.
        assert_eq!(call(&transport, address), "hello");
    }
}

#[test]
fn a_time_out_and_a_wait_end_without_a_runtime() {
    let (transport, address) = (transport(), server(Duration::from_secs(5)));
    let mut limits = ExchangeLimits::default();
    limits.total = Duration::from_millis(100);
    let started = Instant::now();
    let request = http::Request::get(format!("http://{address}/")).body(Bytes::new()).unwrap();
    let error = blocking::wait(transport.send(request, &limits)).unwrap_err();
    assert_eq!(error.failure(), envelock::TransportFailure::Timeout);
    blocking::wait(transport.sleep(Duration::from_millis(50)));
    assert!((150..2000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
}

#[test]
fn a_call_that_was_begun_while_waiting_may_be_dropped_anywhere() {
    let (transport, address) = (transport(), server(Duration::from_secs(5)));
    let limits = ExchangeLimits::default();
    let request = http::Request::get(format!("http://{address}/")).body(Bytes::new()).unwrap();
    let mut begun = transport.send(request, &limits);
    blocking::wait(std::future::poll_fn(|context| {
        assert!(begun.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    }));
    drop(begun);
}

#[test]
fn connections_of_a_runtime_that_stands_still_are_not_used_by_another() {
    let (transport, address) = (transport(), server(Duration::from_millis(5)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for _ in 0..2 {
            let request = http::Request::get(format!("http://{address}/")).body(Bytes::new()).unwrap();
            transport.send(request, &ExchangeLimits::default()).await.unwrap();
        }
        // By now the connection waits for its next use.
        tokio::time::sleep(Duration::from_millis(50)).await;
    });
    let started = Instant::now();
    assert_eq!(call(&transport, address), "hello");
    runtime.block_on(async { assert_eq!(call(&transport, address), "hello") });
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    drop(runtime);
}
