//! What the target `vault_answer` does with its input: a Vault that answers anything. Apart from the others, since it
//! needs the feature `vault`.

use envelock::blocking::wait;
use envelock::http::{Request, Response};
use envelock::{
    DataKey, DataKeyAnswer, EncryptedDataKey, EncryptionContext, Error, ExchangeLimits, HttpPolicy, HttpTransport,
    KeyProvider, KmsContext, TransportError, VaultAuth, VaultProvider, async_trait,
};
use std::time::Duration;

const TOKEN: &str = "s.THE-TOKEN-THAT-IS-PLANTED";
const WRAPPED: &str = "vault:v2:qnkyVpeB/R5ffKPqwwVxNJ9z/cBTbHO61aHfBUpqB2vVnUkaNzFqBtSoflavIyRrcpxQDuQrb/UUpsR1";
const STATUSES: [u16; 12] = [200, 204, 400, 403, 404, 405, 412, 429, 307, 500, 503, 418];

/// Answers everything at once, with one status and body.
#[derive(Debug)]
struct Always(u16, Vec<u8>);

#[async_trait]
impl HttpTransport for Always {
    async fn send(
        &self,
        _: Request<bytes::Bytes>,
        _: &ExchangeLimits,
    ) -> Result<Response<bytes::Bytes>, TransportError> {
        let answer = Response::builder().status(self.0).body(bytes::Bytes::from(self.1.clone()));
        Ok(answer.expect("a status of the list"))
    }

    /// What bounds a wait never comes before the answer, which is there at once.
    async fn sleep(&self, time: Duration) {
        if time > Duration::from_secs(1) {
            std::future::pending::<()>().await;
        }
    }
}

/// One byte for the status, one for the login and the proof, the rest is the body of every answer.
pub fn vault_answer(data: &[u8]) {
    let [status, way, body @ ..] = data else { return };
    let transport = Always(STATUSES[usize::from(*status) % STATUSES.len()], body.to_vec());
    let auth = if way & 1 == 0 { VaultAuth::token(TOKEN) } else { VaultAuth::app_role("the-role", TOKEN) };
    let mut builder = VaultProvider::builder("orders").address("https://vault.example").transport(transport);
    if way & 2 == 0 {
        builder = builder.dangerous_without_binding_proof();
    }
    let policy = HttpPolicy::default().attempts(1);
    let provider = builder.auth(auth).policy(policy).build().expect("it makes no call");
    let context = KmsContext::new(&EncryptionContext::from([("tenant", "acme")])).expect("a short context");
    let (slot, key) = (
        EncryptedDataKey::new("vault", "transit/orders", WRAPPED),
        DataKey::from_slice(&[0x5A; 32]).expect("a length that there is"),
    );

    match wait(provider.encrypt_data_key(&key, &context)) {
        Ok(slots) => slots.iter().for_each(|slot| judge_slot(slot, body)),
        Err(error) => judge_error(&error),
    }
    judge_answer(&wait(provider.decrypt_data_key(&slot, &context)));
    for answer in wait(provider.encrypt_data_keys(&[(&key, &context), (&key, &context)])) {
        match answer {
            Ok(slots) => slots.iter().for_each(|slot| judge_slot(slot, body)),
            Err(error) => judge_error(&error),
        }
    }
    wait(provider.decrypt_data_keys(&[(&slot, &context), (&slot, &context)])).iter().for_each(judge_answer);
    let _ = wait(provider.check()).map_err(|error| judge_error(&error));
}

/// A slot is a text of Transit's own form, and out of the answer.
fn judge_slot(slot: &EncryptedDataKey, body: &[u8]) {
    assert!(VaultProvider::key_version(slot).is_some());
    assert!(body.windows(slot.wrapped().len()).any(|window| window == slot.wrapped()));
}

fn judge_answer(answer: &DataKeyAnswer) {
    match answer {
        DataKeyAnswer::Key(key) => assert!(matches!(key.expose().len(), 16 | 24 | 32)),
        DataKeyAnswer::Failed(error) => judge_error(error),
        DataKeyAnswer::NotMine => panic!("the slot is this provider's"),
    }
}

/// A server's words are cut and escaped, and a secret among them is not shown.
fn judge_error(error: &Error) {
    let text = format!("{error:?}");
    assert!(text.len() < 4_000, "{text}");
    assert!(!text.chars().any(|c| c.is_control()), "{text:?}");
    assert!(!text.contains(TOKEN) && !text.contains("WlpaWlpaWlpa"), "{text}");
}
