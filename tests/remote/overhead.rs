//! What a call costs beside the request itself: retries, breaker, budget, signature and JSON, against bare `reqwest`.

use crate::support::faults::{FaultServer, Reply};
use crate::support::say;
use crate::support::transport::shared;
use envelock::{DataKeyAnswer, EncryptedDataKey, EncryptionContext, KeyProvider, KmsContext, VaultAuth, VaultProvider};
use serde_json::json;
use std::time::{Duration, Instant};

const ROUNDS: usize = 400;
const CIPHERTEXT: &str = "vault:v2:qnkyVpeB/R5ffKPqwwVxNJ9z/cBTbHO61aHfBUpqB2vVnUkaNzFqBtSoflavIyRrcpxQDuQrb/UUpsR1";

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The wall time of a call to a local server is at most 1.15 times that of the same request by bare `reqwest`: the medians of
/// calls that take turns. The server takes the millisecond that the nearest KMS does.
#[test]
fn a_call_takes_little_longer_than_its_request() {
    let server = FaultServer::new(|request| {
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(request.path(), "/v1/transit/decrypt/orders");
        Reply::json(200, json!({"data": {"plaintext": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}}))
    });
    let provider = VaultProvider::builder("orders")
        .address(server.url())
        .auth(VaultAuth::token("s.token"))
        .transport(shared())
        .dangerous_without_binding_proof()
        .build()
        .unwrap();
    let slot = EncryptedDataKey::new("vault", "transit/orders", CIPHERTEXT);
    let context = KmsContext::new(&EncryptionContext::from([("tenant", "acme")])).unwrap();
    let bare = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v1/transit/decrypt/orders", server.url());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        for round in 0..ROUNDS {
            let started = Instant::now();
            let answer = provider.decrypt_data_key(&slot, &context).await;
            let took = started.elapsed();
            assert!(matches!(answer, DataKeyAnswer::Key(_)), "{answer:?}");
            let seen = server.seen().pop().unwrap();
            let started = Instant::now();
            let request = bare.post(&url).header("X-Vault-Token", "s.token").body(seen.body.clone());
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200);
            assert!(answer.bytes().await.unwrap().starts_with(b"{\"data\""));
            // The first ones make connections.
            if round >= 20 {
                ours.push(took);
                theirs.push(started.elapsed());
            }
        }
    });
    let (ours, theirs) = (median(ours), median(theirs));
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    say(format!("a call takes {ours:?}, its request by bare reqwest {theirs:?}: {ratio:.2} times as long"));
    assert!(ratio <= 1.15, "{ratio:.2}");
}
