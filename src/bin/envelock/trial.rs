//! The steps of a check of one key provider. After one that fails, the rest is not tried.

use crate::failure::{Failure, transport_failure};
use crate::provider::Member;
use envelock::{
    DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, Error, ErrorKind, KeyProvider, KmsContext,
    TransportFailure, VaultProvider, blocking::wait,
};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;

/// What was tried, and what came of it.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) outcome: Outcome,
    pub(crate) took: Option<Duration>,
    pub(crate) said: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Works,
    /// It cannot, and need not.
    No,
    Fails,
    NotTried,
}

/// Everything that is tried with any provider.
const USES: [&str; 4] = ["generate", "decrypt", "context", "re-encrypt"];

/// Whether a key service moves a data key to its current key inside.
enum Moves {
    Inside,
    Not,
    /// It will not, or not for whoever asks.
    Refused(Error),
}

/// A check under way.
pub(crate) struct Trial {
    steps: Vec<Step>,
    failure: Option<Failure>,
    /// Whether its key service has answered.
    reached: bool,
}

impl Trial {
    /// A provider that could not be set up.
    pub(crate) fn not_begun(took: Duration, said: &str) -> Vec<Step> {
        let failed = Step { name: "set up", outcome: Outcome::Fails, took: Some(took), said: said.into() };
        std::iter::once(failed).chain(USES.map(Step::not_tried)).collect()
    }

    pub(crate) fn begin(took: Duration) -> Self {
        let begun = Step { name: "set up", outcome: Outcome::Works, took: Some(took), said: String::new() };
        Self { steps: vec![begun], failure: None, reached: false }
    }

    /// What the key service says of its key and of the one who asks, where it has a call for that.
    pub(crate) fn look(&mut self, member: &Member) {
        if let Member::Vault(vault) = member {
            self.look_at_vault(vault);
        }
    }

    fn look_at_vault(&mut self, vault: &VaultProvider) {
        let Some(found) = self.call("look", |_| wait(vault.check())) else { return };
        let mut said = Vec::new();
        if let Some(identity) = &found.identity {
            said.push(format!("as {identity} (the server's name for the token's holder)"));
        }
        if let Some(policies) = &found.policies {
            said.push(format!("policies {}", policies.join(", ")));
        }
        if let Some(left) = found.token_left {
            said.push(format!("the token has {} left", in_words(left)));
        }
        if let Some(key) = &found.key {
            said.push(format!("{}, version {}", key.key_type, key.latest_version));
            if key.min_decryption_version > 1 {
                said.push(format!("opens from version {} on", key.min_decryption_version));
            }
        }
        if said.is_empty() {
            said.push("the token may not look at itself and at the key, which using them does not need".into());
        }
        self.say(said.join("; "));
    }

    /// Makes a data key, and does with it all that is done with one.
    pub(crate) fn use_it(&mut self, provider: &dyn KeyProvider, contexts: &[KmsContext; 2], remote: bool) {
        let [context, other] = contexts;
        let generate = |_: &mut Self| wait(provider.generate_data_key(DataKeyLength::Bytes32, context));
        if remote && !self.reached && self.failure.is_none() {
            // The connection and the credentials are in its time.
            let _ = self.call("first call", generate);
        }
        let Some(generated) = self.call("generate", generate) else { return self.not_tried(&USES[1..]) };
        let Some(slot) = generated.encrypted.iter().find(|slot| !slot.is_missing()) else {
            self.fail(wrong("the key provider made a data key, and did not encrypt it"));
            return self.not_tried(&USES[1..]);
        };
        if self.call("decrypt", |_| opens(provider, slot, context, &generated.key)).is_none() {
            return self.not_tried(&USES[2..]);
        }
        if self.call("context", |_| refuses(provider, slot, other)).is_none() {
            return self.not_tried(&USES[3..]);
        }
        self.say("another encryption context is refused".into());
        let re_encrypted = self.call("re-encrypt", |_| {
            let slots = match wait(provider.re_encrypt_data_key(slot, context)) {
                Ok(slots) => slots,
                Err(error) if is_no(&error) => return Ok(Moves::Refused(error)),
                Err(error) => return Err(error),
            };
            match slots.iter().flatten().find(|slot| !slot.is_missing()) {
                Some(slot) => opens(provider, slot, context, &generated.key).map(|()| Moves::Inside),
                None => Ok(Moves::Not),
            }
        });
        let no = match re_encrypted {
            Some(Moves::Inside) => return self.say("inside the key service, also blind".into()),
            Some(Moves::Not) => "not inside the key service: a rewrap decrypts and encrypts".into(),
            Some(Moves::Refused(error)) => {
                let denied = if error.kind() == ErrorKind::KeyDenied { "not allowed here" } else { "refused here" };
                format!("{denied}: a rewrap decrypts and encrypts; what was said: {error}")
            }
            None => return,
        };
        self.say(no);
        self.last(|step| step.outcome = Outcome::No);
    }

    /// All steps, and the failure that ended them.
    pub(crate) fn end(self) -> (Vec<Step>, Option<Failure>) {
        (self.steps, self.failure)
    }

    /// Tries something, unless something before it failed.
    fn call<T>(&mut self, name: &'static str, call: impl FnOnce(&mut Self) -> Result<T, Error>) -> Option<T> {
        if self.failure.is_some() {
            self.steps.push(Step::not_tried(name));
            return None;
        }
        let begun = Instant::now();
        let result = call(self);
        let took = Some(begun.elapsed());
        let mut step = Step { name, outcome: Outcome::Works, took, said: String::new() };
        match result {
            Ok(answer) => {
                self.reached = true;
                self.steps.push(step);
                Some(answer)
            }
            Err(error) => {
                let way = transport_failure(&error).map(on_the_way);
                let failure = Failure::from(error);
                step.outcome = Outcome::Fails;
                step.said = match way {
                    Some(way) => format!("{way}: {}", failure.line()),
                    None => failure.line().into(),
                };
                self.steps.push(step);
                self.failure = Some(failure);
                None
            }
        }
    }

    fn fail(&mut self, error: Error) {
        let failure = Failure::from(error);
        self.last(|step| {
            step.outcome = Outcome::Fails;
            step.said = failure.line().into();
        });
        self.failure = Some(failure);
    }

    fn say(&mut self, said: String) {
        self.last(|step| step.said = said);
    }

    fn last(&mut self, change: impl FnOnce(&mut Step)) {
        if let Some(step) = self.steps.last_mut() {
            change(step);
        }
    }

    fn not_tried(&mut self, names: &[&'static str]) {
        self.steps.extend(names.iter().map(|name| Step::not_tried(name)));
    }
}

impl Step {
    fn not_tried(name: &'static str) -> Self {
        Self { name, outcome: Outcome::NotTried, took: None, said: String::new() }
    }
}

/// Whether an error of a re-encryption says that this key service has none, or not for this caller: nothing but blind
/// rewraps needs it.
fn is_no(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::KeyDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported)
}

fn opens(
    provider: &dyn KeyProvider,
    slot: &EncryptedDataKey,
    context: &KmsContext,
    key: &DataKey,
) -> Result<(), Error> {
    match wait(provider.decrypt_data_key(slot, context)) {
        DataKeyAnswer::Key(found) if bool::from(found.expose().ct_eq(key.expose())) => Ok(()),
        DataKeyAnswer::Key(_) => Err(wrong("the key provider decrypted to another data key than it had encrypted")),
        DataKeyAnswer::Failed(error) => Err(error),
        DataKeyAnswer::NotMine => Err(wrong("the key provider does not know what it encrypted itself")),
    }
}

/// What binds a data key to its context is the key service: one that ignores it is found out here.
fn refuses(provider: &dyn KeyProvider, slot: &EncryptedDataKey, other: &KmsContext) -> Result<(), Error> {
    match wait(provider.decrypt_data_key(slot, other)) {
        DataKeyAnswer::Key(_) => {
            Err(wrong("the key service ignores the encryption context: messages could be put in one another's place"))
        }
        DataKeyAnswer::Failed(error) => match error.kind() {
            ErrorKind::AuthenticationFailed | ErrorKind::ContextMismatch | ErrorKind::KeyDenied => Ok(()),
            // It has something else to say, and may well ignore the context.
            _ => Err(error),
        },
        DataKeyAnswer::NotMine => Err(wrong("the key provider does not know what it encrypted itself")),
    }
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, what).with_advice("do not use it before you know what answers there")
}

/// A time in the greatest unit of which it has two.
fn in_words(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    match minutes {
        2_880.. => format!("{} days", minutes / 1_440),
        120.. => format!("{} hours", minutes / 60),
        1 => "1 minute".to_owned(),
        _ => format!("{minutes} minutes"),
    }
}

fn on_the_way(failure: TransportFailure) -> &'static str {
    match failure {
        TransportFailure::Dns => "name of the host (DNS)",
        TransportFailure::Connect => "connection",
        TransportFailure::Tls => "TLS",
        TransportFailure::Timeout => "no answer in time",
        TransportFailure::Broken => "connection broke",
        TransportFailure::NotHttp | TransportFailure::TooLarge => "no answer of a key service",
        _ => "request",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use envelock::{EncryptionContext, GeneratedDataKey, RawKeyProvider, Recipient, async_trait};

    /// A key service that answers a re-encryption with an error.
    #[derive(Debug)]
    struct Refuses(RawKeyProvider, ErrorKind);

    #[async_trait]
    impl KeyProvider for Refuses {
        fn recipients(&self) -> Vec<Recipient> {
            self.0.recipients()
        }

        async fn generate_data_key(&self, len: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey, Error> {
            self.0.generate_data_key(len, context).await
        }

        async fn encrypt_data_key(&self, key: &DataKey, to: &KmsContext) -> Result<Vec<EncryptedDataKey>, Error> {
            self.0.encrypt_data_key(key, to).await
        }

        async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
            self.0.decrypt_data_key(slot, context).await
        }

        async fn re_encrypt_data_key(
            &self,
            _: &EncryptedDataKey,
            _: &KmsContext,
        ) -> Result<Option<Vec<EncryptedDataKey>>, Error> {
            Err(Error::new(self.1, "the operation is refused"))
        }
    }

    #[test]
    fn a_refused_re_encryption_is_no_failure_and_an_outage_is_one() {
        let context = |purpose| KmsContext::new(&EncryptionContext::from([("purpose", purpose)])).unwrap();
        for (kind, outcome) in [
            (ErrorKind::KeyDenied, Outcome::No),
            (ErrorKind::InvalidInput, Outcome::No),
            (ErrorKind::Unsupported, Outcome::No),
            (ErrorKind::Unavailable, Outcome::Fails),
            (ErrorKind::KeyState, Outcome::Fails),
        ] {
            let provider = Refuses(RawKeyProvider::generate("k").unwrap(), kind);
            let mut trial = Trial::begin(Duration::ZERO);
            trial.use_it(&provider, &[context("a"), context("b")], false);
            let (steps, failure) = trial.end();
            let last = steps.last().unwrap();
            assert_eq!(
                (last.name, last.outcome, failure.is_some()),
                ("re-encrypt", outcome, outcome == Outcome::Fails)
            );
            assert!(last.said.contains("the operation is refused"), "{}", last.said);
        }
    }
}
