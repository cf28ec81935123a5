//! The harness itself: every peer does what it is there for, every fault is the one that it is called, and nothing is
//! left of either.

use crate::support::aws::{Account, text};
use crate::support::child::{Running, tell, words};
use crate::support::faults::{FaultServer, Reply};
use crate::support::http;
use crate::support::openbao::Bao;
use crate::support::peers::{Peer, microburst, ministack, moto, openbao};
use crate::support::proxy::{Proxy, Way};
use crate::support::say;
use crate::support::sockets::{Refusing, Unreachable};
use serde_json::json;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn moto_makes_keys_and_binds_the_context() {
    let account = Account::moto("eu-west-1");
    let key = account.key();
    assert!(key.starts_with("arn:aws:kms:eu-west-1:123456789012:key/"), "{key}");
    let made = account
        .kms("GenerateDataKey", json!({"KeyId": key, "NumberOfBytes": 32, "EncryptionContext": {"tenant": "acme"}}));
    let decrypt = |tenant: &str| {
        let context = json!({"tenant": tenant});
        account.call("kms", "Decrypt", json!({"CiphertextBlob": made["CiphertextBlob"], "EncryptionContext": context}))
    };
    assert_eq!(text(&decrypt("acme").unwrap(), "Plaintext"), text(&made, "Plaintext"));
    assert_eq!(decrypt("other").unwrap_err().code, "InvalidCiphertextException");
}

#[test]
fn ministack_looks_at_signatures() {
    let account = Account::ministack("us-east-1");
    let key = account.key();
    let ask = |account: &Account| account.call("kms", "DescribeKey", json!({"KeyId": key}));
    assert_eq!(text(&ask(&account).unwrap()["KeyMetadata"], "Arn"), key);
    let wrong = Account { secret: "not the secret of this identity".to_owned(), ..account.clone() };
    let refused = ask(&wrong).unwrap_err();
    assert!(matches!(refused.code.as_str(), "SignatureDoesNotMatch" | "InvalidSignatureException"), "{refused:?}");
    let stranger = Account { id: "AKIAENVELOCKNOBODY00".to_owned(), ..account };
    let refused = ask(&stranger).unwrap_err();
    assert!(matches!(refused.code.as_str(), "InvalidClientTokenId" | "UnrecognizedClientException"), "{refused:?}");
}

#[test]
fn openbao_encrypts_with_associated_data_and_speaks_tls() {
    let bao = Bao::shared();
    let key = bao.key();
    let body = json!({"plaintext": "AAEC", "associated_data": "YWFk"});
    let sealed = bao.must("POST", &format!("transit/encrypt/{key}"), body)["data"]["ciphertext"].clone();
    let open = |data: &str| {
        bao.call("POST", &format!("transit/decrypt/{key}"), &json!({"ciphertext": sealed, "associated_data": data}))
    };
    assert_eq!(open("YWFk").1["data"]["plaintext"], "AAEC");
    assert_eq!(open("YmFk").0, 400);
    // A TLS record of a server that found no ClientHello to its taste: an alert, version 3.x.
    let mut plain = TcpStream::connect(bao.tls_url.strip_prefix("https://").unwrap()).unwrap();
    plain.write_all(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00").unwrap();
    let mut record = [0; 2];
    plain.read_exact(&mut record).unwrap();
    assert_eq!(record, [0x15, 0x03]);
    for file in ["ca", "wrong_ca", "client", "client_key"] {
        assert!(std::fs::read_to_string(openbao().text(file)).unwrap().starts_with("-----BEGIN "), "{file}");
    }
}

#[test]
fn microburst_fails_what_it_is_told_to_and_says_how_often() {
    let (url, account) = (microburst().text("url"), Account::moto("us-east-1"));
    let key = account.key();
    let through = account.at(url);
    let rules = json!([{
        "service": "kms", "operation": "DescribeKey", "error": {"code": "ThrottlingException", "status": 400},
        "times": 2,
    }]);
    let set = http::send("POST", &format!("{url}/_microburst/rules"), &[], rules.to_string().as_bytes()).unwrap();
    assert_eq!(set.status(), 200, "{}", String::from_utf8_lossy(&set.body));
    let ask = || through.call("kms", "DescribeKey", json!({"KeyId": key}));
    for _ in 0..2 {
        assert_eq!(ask().unwrap_err().code, "ThrottlingException");
    }
    ask().unwrap();
    let fired = http::send("GET", &format!("{url}/_microburst/fired"), &[], b"").unwrap();
    let fired = String::from_utf8(fired.body).unwrap();
    assert_eq!(fired.matches("DescribeKey").count(), 2, "{fired}");
    http::send("DELETE", &format!("{url}/_microburst/rules"), &[], b"").unwrap();
}

/// A server that answers `ok`.
fn well() -> FaultServer {
    FaultServer::new(|_| Reply::json(200, "\"ok\""))
}

/// What one request through `proxy` comes to, by hand: the bytes of the answer, or the error.
fn ask_through(proxy: &Proxy) -> Result<Vec<u8>, ErrorKind> {
    let run = || {
        let mut connection = TcpStream::connect(proxy.address())?;
        connection.set_read_timeout(Some(Duration::from_secs(3)))?;
        connection.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        // The server keeps its connections open: what comes until it is whole, or ends.
        let mut piece = [0; 4_096];
        while !answer.ends_with(b"\"ok\"") {
            match connection.read(&mut piece)? {
                0 => break,
                read => answer.extend_from_slice(&piece[..read]),
            }
        }
        Ok(answer)
    };
    run().map_err(|error: std::io::Error| error.kind())
}

#[test]
fn the_proxy_does_each_fault_as_it_is_called() {
    let server = well();
    let proxy = Proxy::before(&server.url());
    let whole = ask_through(&proxy).unwrap();
    assert!(whole.ends_with(b"\r\n\r\n\"ok\""));
    assert_eq!((proxy.connections(), proxy.faults(), server.requests()), (1, 0, 1));
    let timed = |way| {
        proxy.next(1, way);
        let before = (server.requests(), Instant::now());
        let result = ask_through(&proxy);
        (result, server.requests() - before.0, before.1.elapsed())
    };
    assert_eq!(timed(Way::ResetAtOnce).0, Err(ErrorKind::ConnectionReset));
    let (result, reached, _) = timed(Way::ResetAfterRequest);
    assert_eq!((result, reached), (Err(ErrorKind::ConnectionReset), 0));
    let (result, reached, _) = timed(Way::Half);
    assert_eq!((result, reached), (Err(ErrorKind::ConnectionReset), 1));
    let (result, reached, spent) = timed(Way::BlackHole);
    assert!(matches!(result, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "{result:?}");
    assert!(reached == 0 && spent >= Duration::from_secs(3), "{spent:?}");
    assert!(timed(Way::Garbage).0.unwrap().starts_with(b"\x00\xff"));
    let (result, _, spent) = timed(Way::Delay(Duration::from_millis(500)));
    assert!(result.as_ref() == Ok(&whole) && spent >= Duration::from_millis(500), "{result:?} {spent:?}");
    let (result, _, spent) = timed(Way::Slow(20));
    assert!(result.as_ref() == Ok(&whole) && spent >= Duration::from_millis(100), "{result:?} {spent:?}");
    assert_eq!(timed(Way::Truncate(30)).0.as_deref(), Ok(&whole[..30]));
    // After each single fault the next passes.
    assert_eq!(ask_through(&proxy), Ok(whole));
    assert_eq!((proxy.connections(), proxy.faults()), (10, 8));
}

#[test]
fn the_ports_that_refuse_and_that_do_not_answer_do_so() {
    let refusing = Refusing::new();
    let limit = Duration::from_millis(500);
    let refused = TcpStream::connect_timeout(&refusing.address(), limit).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let unreachable = Unreachable::new();
    let lost = TcpStream::connect_timeout(&unreachable.address(), limit).unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::TimedOut);
}

#[test]
fn the_server_counts_and_fails_as_it_is_told() {
    let behind = well();
    let host = behind.address().to_string();
    let server = FaultServer::new(move |request| match request.path() {
        "/reset" => Reply::Reset,
        "/garbage" => Reply::Garbage,
        "/short" => Reply::CutShort(vec![b'x'; 100]),
        "/busy" => Reply::json(429, "{}").with("Retry-After", "7"),
        "/slow" => Reply::Slow(b"slow".to_vec(), 1, Duration::from_millis(50)),
        "/half" => Reply::Half(host.clone()),
        _ => Reply::Forward(host.clone()),
    });
    let get = |path: &str| http::send("GET", &format!("{}{path}", server.url()), &[], b"");
    assert_eq!(get("/pass").unwrap().body, b"\"ok\"");
    assert_eq!(get("/reset").unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(get("/garbage").unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(get("/short").unwrap_err().kind(), ErrorKind::UnexpectedEof);
    let busy = get("/busy").unwrap();
    assert_eq!((busy.status(), busy.header("retry-after")), (429, Some("7")));
    let started = Instant::now();
    assert_eq!(get("/slow").unwrap().body, b"slow");
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!(behind.requests(), 1);
    assert_eq!(get("/half").unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!((behind.requests(), server.requests(), server.by_operation().len()), (2, 7, 7));
}

/// Whether a process is there, and no zombie.
fn runs(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// Processes whose working folder is or was `folder`, or which name it: a peer's, and what it started.
fn all_gone(folder: &str, pids: &[u64]) -> bool {
    !Path::new(folder).exists() && !pids.iter().any(|pid| runs(*pid))
}

#[test]
fn nothing_is_left_of_any_peer_when_the_test_that_started_it_is_killed() {
    if words().is_some() {
        for peer in [moto(), ministack(), openbao(), microburst()] {
            tell(format!("{} {} {}", peer.pid(), peer.supervisor(), peer.folder().display()));
        }
        tell("all");
        loop {
            std::thread::park();
        }
    }
    let test = "harness::nothing_is_left_of_any_peer_when_the_test_that_started_it_is_killed";
    let mut running = Running::start(test, &["start"]);
    let mut started = Vec::new();
    while let Some(line) = running.line().filter(|line| line != "all") {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap().to_owned();
        let pids = [word(), word()].map(|pid| pid.parse::<u64>().unwrap());
        started.push((word(), pids));
    }
    assert_eq!(started.len(), 4);
    for (folder, pids) in &started {
        assert!(Path::new(folder).exists() && pids.iter().all(|pid| runs(*pid)), "{folder} {pids:?}");
    }
    let killed = Instant::now();
    running.kill();
    while !started.iter().all(|(folder, pids)| all_gone(folder, pids)) {
        assert!(killed.elapsed() < Duration::from_secs(30), "left: {started:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    say(format!("peers: 4 of a killed process were gone after {} ms", killed.elapsed().as_millis()));
}

#[test]
fn a_peer_that_does_not_start_is_a_failure_that_shows_its_log() {
    // Nothing stands where it is told to look, and it has no such rule as an address: it ends by itself.
    let failed = std::panic::catch_unwind(|| drop(Peer::start("microburst", &["--no-such-argument"]))).unwrap_err();
    let why = failed.downcast_ref::<String>().expect("a sentence");
    assert!(why.contains("microburst is not there") && why.contains("usage:"), "{why}");
}
