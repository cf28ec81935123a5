//! What people want to know of providers that did not write: why one of several did not, and who was to write first.

use async_trait::async_trait;
use envelock::{
    DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, Error, GeneratedDataKey, KeyProvider, KmsContext,
    ProviderIdentity, Recipient, Revocations,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Why members did not encrypt when they were asked last, by the recipients that they write.
static WHY: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
/// Whom the first member of a failover writes for.
static FIRST: Mutex<Vec<Recipient>> = Mutex::new(Vec::new());

/// Why this recipient's provider did not encrypt, where that is known.
pub(crate) fn why(recipient: &Recipient) -> Option<String> {
    WHY.lock().unwrap_or_else(PoisonError::into_inner).get(&recipient.to_string()).cloned()
}

pub(crate) fn first_of_failover(recipients: Vec<Recipient>) {
    *FIRST.lock().unwrap_or_else(PoisonError::into_inner) = recipients;
}

/// Whether a message for `recipients` was written by a failover's standby, and its first member does not open it.
pub(crate) fn is_by_standby(recipients: &[Recipient]) -> bool {
    let first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
    // A multi-Region key of AWS is one key, in whatever Region.
    let multi_region = |it: &Recipient| {
        let at = it.key_id.windows(5).rposition(|part| part == b"/mrk-")?;
        it.key_id.get(at..).map(<[u8]>::to_vec)
    };
    let same = |one: &Recipient, other: &Recipient| {
        let mrk = multi_region(one);
        one == other || (one.provider == other.provider && mrk.is_some() && mrk == multi_region(other))
    };
    !first.is_empty()
        && !recipients.is_empty()
        && !recipients.iter().any(|it| first.iter().any(|first| same(it, first)))
}

/// The same provider, which keeps why it did not encrypt.
pub(crate) fn noted(member: Arc<dyn KeyProvider>) -> Arc<dyn KeyProvider> {
    Arc::new(Noted(member))
}

#[derive(Debug)]
struct Noted(Arc<dyn KeyProvider>);

impl Noted {
    fn note(&self, why: Option<&str>) {
        let mut all = WHY.lock().unwrap_or_else(PoisonError::into_inner);
        for recipient in self.0.recipients() {
            match why {
                Some(why) => all.insert(recipient.to_string(), why.to_owned()),
                None => all.remove(&recipient.to_string()),
            };
        }
    }

    /// Whoever is waited for no longer has its future dropped: what was noted before it is why.
    fn begun(&self) {
        self.note(Some("it had not answered when enough others had"));
    }

    fn ended<T>(&self, made: Result<T, Error>) -> Result<T, Error> {
        match &made {
            Ok(_) => self.note(None),
            // What to do is said for all of them.
            Err(error) => self.note(error.to_string().split("; ").next()),
        }
        made
    }
}

#[async_trait]
impl KeyProvider for Noted {
    fn recipients(&self) -> Vec<Recipient> {
        self.0.recipients()
    }

    fn alternatives(&self) -> Vec<Vec<Recipient>> {
        self.0.alternatives()
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey, Error> {
        self.begun();
        self.ended(self.0.generate_data_key(length, context).await)
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>, Error> {
        self.begun();
        self.ended(self.0.encrypt_data_key(key, context).await)
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        self.0.decrypt_data_key(slot, context).await
    }

    async fn re_encrypt_data_key(
        &self,
        slot: &EncryptedDataKey,
        context: &KmsContext,
    ) -> Result<Option<Vec<EncryptedDataKey>>, Error> {
        self.0.re_encrypt_data_key(slot, context).await
    }

    fn revocations(&self) -> Option<Revocations> {
        self.0.revocations()
    }

    fn identity(&self) -> Option<ProviderIdentity> {
        self.0.identity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_is_another_key_than_the_firsts_and_no_replica_of_it() {
        let aws = |region: &str, key: &str| Recipient::new("aws-kms", format!("arn:aws:kms:{region}:1:key/{key}"));
        assert!(!is_by_standby(&[aws("eu-west-1", "mrk-1")]), "nobody is the first");
        first_of_failover(vec![aws("eu-west-1", "mrk-1")]);
        assert!(!is_by_standby(&[aws("eu-west-1", "mrk-1")]));
        assert!(!is_by_standby(&[aws("eu-central-1", "mrk-1")]));
        assert!(is_by_standby(&[aws("eu-central-1", "mrk-2")]));
        assert!(is_by_standby(&[aws("eu-west-1", "1")]) && is_by_standby(&[Recipient::new("vault", "transit/k")]));
    }
}
