//! What stays in memory of a provider across a network once it was dropped: nothing that could open a message or get in.
//!
//! As in the other test binary, a process looks through its own memory for secrets that it knows by hashes, which its parent
//! made. The servers are in the parent. What is freed is set to zero in that process, since `hyper` and `rustls` do not do
//! that with their buffers ([`ReqwestTransport`](envelock::ReqwestTransport) says so): what is found is in use by somebody.
//! By a transport that wipes, no data key and no token of Vault's is found without that either. AWS's credentials may be: copies
//! that `reqsign` makes of them while it signs are freed and not wiped.

#[path = "../it/memory/scan.rs"]
#[allow(dead_code, reason = "the other test binary uses the rest")]
mod scan;

use crate::support::child::{Running, hear, tell, words};
use crate::support::faults::{FaultServer, Reply};
use crate::support::http::Message;
use crate::support::kms::{FakeKms, KEY};
use crate::support::zeroing;
use crate::support::{run, say};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use envelock::http::{Request, Response};
use envelock::{
    AwsCredentials, AwsKmsProvider, CacheLimits, EncryptionContext, Envelope, ExchangeLimits, HttpTransport,
    KeyProvider, ReqwestTransport, TransportError, TransportFailure, VaultAuth, VaultProvider, async_trait,
};
use scan::{Needle, Scanner};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use zeroize::Zeroizing;

/// The parent's side: it makes secrets, and says by which hashes they are found.
struct Parent {
    kms: Arc<FakeKms>,
    vault: Arc<Vault>,
    secrets: HashMap<String, String>,
}

/// A Transit engine with one key, which keeps what it is sent.
#[derive(Default)]
struct Vault {
    wrapped: Mutex<HashMap<String, (String, String)>>,
}

impl Vault {
    fn answer(&self, request: &Message) -> Reply {
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        let text = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
        let mut wrapped = self.wrapped.lock().unwrap();
        if request.path() == "/v1/transit/encrypt/orders" {
            let ciphertext = format!("vault:v1:{}", STANDARD.encode(random(60)));
            wrapped.insert(ciphertext.clone(), (text("plaintext"), text("associated_data")));
            return Reply::json(200, json!({"data": {"ciphertext": ciphertext}}));
        }
        match wrapped.get(&text("ciphertext")) {
            Some((plaintext, bound)) if *bound == text("associated_data") => {
                Reply::json(200, json!({"data": {"plaintext": plaintext}}))
            }
            _ => Reply::json(400, json!({"errors": ["cipher: message authentication failed"]})),
        }
    }

    fn data_keys(&self) -> Vec<Vec<u8>> {
        let wrapped = self.wrapped.lock().unwrap();
        wrapped.values().map(|(plaintext, _)| STANDARD.decode(plaintext).unwrap()).collect()
    }
}

fn random(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Parent {
    fn answer(&mut self, request: &str) -> String {
        match request.split_once(' ') {
            // A secret of 40 characters, masked.
            Some(("make", name)) => {
                let secret = STANDARD.encode(random(30));
                let mask = random(secret.len());
                let masked: Vec<u8> = secret.bytes().zip(&mask).map(|(byte, mask)| byte ^ mask).collect();
                self.secrets.insert(name.to_owned(), secret);
                format!("{} {}", hex(&masked), hex(&mask))
            }
            Some(("needle", name)) => Needle::line_of(name, self.secrets[name].as_bytes()),
            Some(("needles", "of-data-keys")) => {
                let keys = [self.kms.data_keys(), self.vault.data_keys()].concat();
                assert!(!keys.is_empty());
                let lines = keys.iter().enumerate().flat_map(|(number, key)| {
                    let text = STANDARD.encode(key);
                    let text = Needle::line_of(&format!("data-key-{number}-in-base64"), text.as_bytes());
                    [Needle::line_of(&format!("data-key-{number}"), key), text]
                });
                lines.collect::<Vec<_>>().join(";")
            }
            _ => panic!("{request}"),
        }
    }
}

/// Runs `test` again as a child that looks through its memory, and answers what it asks for.
fn watched(test: &str, scene: fn(&str, &str)) {
    if let Some(words) = words() {
        return scene(&words[0], &words[1]);
    }
    let (kms, vault) = (FakeKms::new(), Arc::new(Vault::default()));
    let (aws, transit) = (kms.serve(), Arc::clone(&vault));
    let transit = FaultServer::new(move |request| transit.answer(request));
    let mut parent = Parent { kms, vault, secrets: HashMap::new() };
    let mut running = Running::start(test, &[&aws.url(), &transit.url()]);
    let (mut in_use, mut afterwards) = (0, String::new());
    while let Some(line) = running.line() {
        match line.split_once(' ') {
            Some(("in-use", _)) => in_use += 1,
            Some(("afterwards", sought)) => sought.clone_into(&mut afterwards),
            _ => {
                let answer = parent.answer(&line);
                running.say(answer);
            }
        }
    }
    running.succeed();
    say(format!("{test}: found in {in_use} searches while in use, none of {afterwards} afterwards"));
    assert!(in_use >= 1 && !afterwards.is_empty());
}

/// A secret of the parent's, and its needle.
fn secret(name: &str) -> Zeroizing<String> {
    tell(format!("make {name}"));
    let answer = hear();
    let (masked, mask) = answer.split_once(' ').unwrap();
    let unhex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let (masked, mask) = (unhex(masked), unhex(mask));
    let mut secret = Zeroizing::new(String::with_capacity(masked.len()));
    masked.iter().zip(&mask).for_each(|(masked, mask)| secret.push(char::from(masked ^ mask)));
    secret
}

/// Uses providers on both servers by `transport`, looks for their secrets while they are there, and for all afterwards.
fn scene(aws: &str, transit: &str, transport: Arc<dyn HttpTransport>, sought: &[&str]) {
    let mut scanner = Scanner::new();
    let context = EncryptionContext::from([("tenant", "acme")]);
    let [key, session, token] = ["secret-key", "session-token", "vault-token"].map(secret);
    sought.iter().for_each(|name| scanner.learn(&format!("needle {name}")));
    let providers: [Arc<dyn KeyProvider>; 2] = [
        Arc::new(
            AwsKmsProvider::strict([KEY])
                .environment([("PATH", "")])
                .endpoint(aws)
                // A copy of exactly its length, which becomes the provider's.
                .credentials(AwsCredentials::new("AKIATESTING000000000", key.as_str()).session_token(session.as_str()))
                .transport(Arc::clone(&transport))
                .build()
                .unwrap(),
        ),
        Arc::new(
            VaultProvider::builder("orders")
                .address(transit)
                .auth(VaultAuth::token(token.as_str()))
                .transport(transport)
                .build()
                .unwrap(),
        ),
    ];
    drop((key, session, token));
    run(async {
        for provider in &providers {
            let envelope = |provider: &Arc<dyn KeyProvider>| {
                Envelope::builder(Arc::clone(provider)).cache(CacheLimits::default()).build().unwrap()
            };
            let (writing, reading) = (envelope(provider), envelope(provider).without_cache());
            let sealed = writing.encrypt(b"attack at dawn", &context).await.unwrap();
            assert_eq!(reading.decrypt(&sealed, &context).await.unwrap(), b"attack at dawn");
            let other = EncryptionContext::from([("tenant", "evil")]);
            reading.decrypt(&sealed, &other).await.unwrap_err();
        }
    });
    // They are known to somebody, and the search finds that.
    apart(&mut scanner, |scanner| scanner.expect(sought));
    drop(providers);
    scanner.learn("needles of-data-keys");
    // The connections of what was proved and logged in belong to another thread, which closes them when it comes to it.
    apart(&mut scanner, |scanner| scanner.expect_nothing_within(Duration::from_secs(5)));
}

/// On a stack of its own, so that the search does not overwrite what it looks for.
fn apart(scanner: &mut Scanner, search: impl FnOnce(&mut Scanner) + Send) {
    std::thread::scope(|scope| scope.spawn(|| search(scanner)).join().unwrap());
}

#[test]
fn a_transport_that_wipes_leaves_no_token_and_no_data_key_behind() {
    watched("memory::a_transport_that_wipes_leaves_no_token_and_no_data_key_behind", |aws, transit| {
        scene(aws, transit, Arc::new(Wiping), &["vault-token"]);
    });
}

#[test]
fn nobody_keeps_a_credential_or_a_data_key_of_a_provider_that_was_dropped() {
    watched("memory::nobody_keeps_a_credential_or_a_data_key_of_a_provider_that_was_dropped", |aws, transit| {
        zeroing::begin();
        let transport = Arc::new(ReqwestTransport::new().unwrap());
        scene(aws, transit, transport, &["secret-key", "session-token", "vault-token"]);
    });
}

/// HTTP by std, whose buffers are wiped.
#[derive(Debug)]
struct Wiping;

#[async_trait]
impl HttpTransport for Wiping {
    async fn send(
        &self,
        request: Request<bytes::Bytes>,
        _: &ExchangeLimits,
    ) -> Result<Response<bytes::Bytes>, TransportError> {
        exchange(&request).map_err(|error| TransportError::new(TransportFailure::Broken, format!("{:?}", error.kind())))
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

fn exchange(request: &Request<bytes::Bytes>) -> std::io::Result<Response<bytes::Bytes>> {
    let host = request.uri().authority().unwrap().as_str();
    // Room for all of it, so that nothing is copied elsewhere as it grows.
    let mut sent = Zeroizing::new(Vec::with_capacity(64 << 10));
    write!(sent, "{} {} HTTP/1.1\r\nHost: {host}\r\n", request.method(), request.uri().path())?;
    for (name, value) in request.headers() {
        write!(sent, "{name}: ")?;
        sent.extend_from_slice(value.as_bytes());
        sent.extend_from_slice(b"\r\n");
    }
    write!(sent, "Content-Length: {}\r\n\r\n", request.body().len())?;
    sent.extend_from_slice(request.body());
    let mut connection = std::net::TcpStream::connect(host)?;
    connection.write_all(&sent)?;
    let mut received = Zeroizing::new(vec![0; 64 << 10]);
    let mut len = 0;
    let (head, end) = loop {
        if let Some(found) = ends(&received[..len]) {
            break found;
        }
        len += some(connection.read(&mut received[len..])?)?;
    };
    while len < end {
        len += some(connection.read(&mut received[len..])?)?;
    }
    let mut body = Zeroizing::new(Vec::with_capacity(end - head));
    body.extend_from_slice(&received[head..end]);
    let status = std::str::from_utf8(&received[9..12]).ok().and_then(|status| status.parse::<u16>().ok());
    let mut response = Response::new(bytes::Bytes::from_owner(body));
    *response.status_mut() = status.and_then(|status| status.try_into().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    Ok(response)
}

fn some(read: usize) -> std::io::Result<usize> {
    if read == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(read) }
}

/// Where the head of an answer ends, and where its body does, once the head is whole.
fn ends(received: &[u8]) -> Option<(usize, usize)> {
    let head = received.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let lines = std::str::from_utf8(&received[..head]).ok()?;
    let len: usize = lines.lines().find_map(|line| line.strip_prefix("Content-Length: "))?.parse().ok()?;
    Some((head, head + len))
}
