//! Key policies: put, read, and asked what they would say.

use crate::context::{EncryptionContext, KmsContext};
use crate::error::{Error, KeystoreCause, Result};
use crate::kms::LocalKms;
use crate::kms::authorise::With;
use crate::kms::permissions::{policy_of, put_policy};
use crate::kms::policy::{Decision, KeyPolicy, PolicyAction, would_lock_out};
use crate::kms::records::KeyRecord;
use crate::kms::state::KeyOperation;
use std::time::Duration;

/// Who may use a key: AWS's key policies, of which every key has one, `default`.
impl LocalKms {
    /// The policy of a key, as it was put; of a key that was given none, the one that lets the owner do everything.
    ///
    /// # Errors
    /// NotFoundException, ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn get_key_policy(&self, key: &str) -> Result<KeyPolicy> {
        let name = key.to_owned();
        self.call(self.asks("GetKeyPolicy").key(key), move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::GetKeyPolicy, None)?;
            Ok(KeyPolicy::clone(&*policy_of(tx, &key)?))
        })
        .await
    }

    /// Puts a policy in the place of the one that a customer key has. It counts from the next call on, for data keys
    /// in caches too.
    ///
    /// ```no_run
    /// # async fn example(kms: envelock::LocalKms) -> Result<(), envelock::Error> {
    /// use envelock::kms::KeyPolicy;
    /// let policy = KeyPolicy::parse(
    ///     r#"{"Version": "2012-10-17", "Statement": [
    ///         {"Effect": "Allow", "Principal": {"AWS": "owner"}, "Action": "kms:*", "Resource": "*"},
    ///         {"Effect": "Allow", "Principal": {"AWS": "billing"}, "Action": "kms:Decrypt", "Resource": "*"}
    ///     ]}"#,
    /// )?;
    /// kms.put_key_policy("alias/orders", &policy).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// MalformedPolicyDocumentException if the caller could not put another policy afterwards
    /// ([`put_key_policy_locking_out`](Self::put_key_policy_locking_out) does it all the same);
    /// UnsupportedOperationException for a managed key; NotFoundException, ValidationException,
    /// AccessDeniedException; the keystore's own failures.
    pub async fn put_key_policy(&self, key: &str, policy: &KeyPolicy) -> Result<()> {
        self.put_policy(key, policy, false).await
    }

    /// As [`put_key_policy`](Self::put_key_policy), also if the caller cannot put another one afterwards. If nobody
    /// can, the key stays under this policy for good. AWS's `BypassPolicyLockoutSafetyCheck`.
    ///
    /// # Errors
    /// As [`put_key_policy`](Self::put_key_policy), but for the first.
    pub async fn put_key_policy_locking_out(&self, key: &str, policy: &KeyPolicy) -> Result<()> {
        self.put_policy(key, policy, true).await
    }

    async fn put_policy(&self, key: &str, policy: &KeyPolicy, bypass: bool) -> Result<()> {
        let (name, policy) = (key.to_owned(), policy.clone());
        let call = self.asks("PutKeyPolicy").key(key).policy(policy.text());
        let call = call.with("bypassPolicyLockoutSafetyCheck", bypass);
        self.call(call, move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            tx.event.key_id.clone_from(&key.key_id);
            tx.permit_with(&key, KeyOperation::PutKeyPolicy, With { bypass, ..With::default() })?;
            tx.check_state(&key, KeyOperation::PutKeyPolicy)?;
            let now = Duration::from_millis(u64::try_from(tx.now).unwrap_or(0));
            if !bypass && would_lock_out(&policy, &tx.principal, &tx.realm.full_name(&key.key_id), now) {
                return Err(Error::invalid_input(format!(
                    "with this policy {} could not put another one on the key {}",
                    tx.principal, key.key_id
                ))
                .with_code("MalformedPolicyDocumentException")
                .with_cause(KeystoreCause::LocksOut)
                .with_advice("let the policy allow it kms:PutKeyPolicy, or say that you mean to be locked out"));
            }
            tx.revoked = true;
            put_policy(tx, &key.key_id, &policy)
        })
        .await
    }

    /// What would become of a request by `principal`, and which statement or grant decides it; nothing is done. For
    /// whoever may read the policy. The key's state is not looked at. The context is that of the request: for a message it
    /// has the entry `envelock-use` = `message/1` too, for records `records/1`.
    ///
    /// ```no_run
    /// # async fn example(kms: envelock::LocalKms) -> Result<(), envelock::Error> {
    /// use envelock::{EncryptionContext, kms::KeyOperation};
    /// let context = EncryptionContext::from([("tenant", "acme")]);
    /// println!("{}", kms.simulate("billing", KeyOperation::Decrypt, "alias/orders", &context).await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`get_key_policy`](Self::get_key_policy); [`InvalidInput`](crate::ErrorKind::InvalidInput) for the context.
    pub async fn simulate(
        &self,
        principal: &str,
        action: impl Into<PolicyAction>,
        key: &str,
        context: &EncryptionContext,
    ) -> Result<Decision> {
        let (name, principal, action) = (key.to_owned(), principal.to_owned(), action.into());
        let context = KmsContext::asked_about(context)?;
        let call = self.asks("SimulatePrincipalPolicy").key(key).context(&context);
        let call = call.with("principal", principal.as_str()).with("action", action.name());
        self.call(call, move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::GetKeyPolicy, None)?;
            tx.decide(&key, &principal, action, With { context: Some(&context), ..With::default() })
        })
        .await
    }
}
