//! Proves, once for each provider and direction, that the server binds associated data.
//!
//! A Vault that is too old to know `associated_data` takes no notice of it: it would open any data key under any context, and
//! say nothing. So before the first data key goes out, a random probe is encrypted, must decrypt to itself under what it was bound
//! to, and must not decrypt under other associated data: a server that takes notice in one direction only would make data keys
//! that nobody can open. It is a probe since what answers may be no Transit at all: a KV engine stores what it is sent.
//!
//! Who decrypts has a probe in the slot that was just opened: it must not decrypt under other associated data. That says nothing of
//! what the server encrypts, so that the first data key to go out is proved for all the same; what was proved before encrypting
//! holds for decrypting too.

use super::refusal::{NotAuthentic, Purpose};
use super::slot::Ciphertext;
use super::wire::{Body, Field};
use super::{Inner, answer};
use crate::context::{EncryptionContext, KmsContext};
use crate::crypto;
use crate::error::{ErrorKind, Result};
use crate::material::{DataKey, DataKeyLength};
use crate::provider::http::errand::Errand;
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use subtle::ConstantTimeEq;

/// Associated data of no message: the encoding of a context begins with its count of entries, and this with more than there are.
const OTHER: &[u8] = b"envelock: this must not decrypt";

/// What the server was seen to do.
pub(super) struct Proof {
    /// It opens nothing under other associated data.
    binds: Seen,
    /// It opens what it encrypts itself, and that under its own associated data alone.
    binds_its_own: Seen,
}

/// Something that is to be seen once.
struct Seen {
    done: AtomicBool,
    errand: Errand<()>,
}

impl Proof {
    /// Still to be given.
    pub(super) fn needed() -> Self {
        Self { binds: Seen::new(false), binds_its_own: Seen::new(false) }
    }

    /// Taken on trust.
    pub(super) fn waived() -> Self {
        Self { binds: Seen::new(true), binds_its_own: Seen::new(true) }
    }

    /// Whether nothing is left to be seen.
    pub(super) fn is_done(&self) -> bool {
        self.binds.is_done() && self.binds_its_own.is_done()
    }
}

impl Seen {
    fn new(done: bool) -> Self {
        Self { done: AtomicBool::new(done), errand: Errand::new() }
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    fn set(&self) {
        self.done.store(true, Ordering::Release);
    }
}

impl Inner {
    /// Three calls, the first time: encrypts a probe, decrypts it, and fails to decrypt it.
    pub(super) async fn prove_before_encrypting(self: &Arc<Self>) -> Result<()> {
        if self.proof.is_done() {
            return Ok(());
        }
        let inner = Arc::clone(self);
        let begin = || async move {
            if inner.proof.is_done() {
                return Ok(());
            }
            // Of no message: its failure is that of all who wait for it.
            let context = KmsContext::new(&EncryptionContext::from([("purpose", "proof")]))?;
            let probe = DataKey::try_init(DataKeyLength::Bytes32, crypto::random::fill)?;
            let text = inner.encrypt(&probe, &context).await?;
            inner.must_decrypt(&text, &context, &probe).await?;
            inner.must_not_decrypt(&text, &context).await?;
            inner.proof.binds.set();
            inner.proof.binds_its_own.set();
            Ok(())
        };
        self.proof.binds_its_own.errand.join(begin).await
    }

    /// One call, the first time.
    pub(super) async fn prove_after_decrypting(
        self: &Arc<Self>,
        opened: Ciphertext<'_>,
        context: &KmsContext,
    ) -> Result<()> {
        if self.proof.binds.is_done() {
            return Ok(());
        }
        let (inner, text, context) = (Arc::clone(self), opened.text.to_owned(), context.clone());
        let begin = || async move {
            if !inner.proof.binds.is_done() {
                inner.must_not_decrypt(&text, &context).await?;
                inner.proof.binds.set();
            }
            Ok(())
        };
        self.proof.binds.errand.join(begin).await
    }

    async fn must_decrypt(&self, text: &str, context: &KmsContext, probe: &DataKey) -> Result<()> {
        let mut fields = vec![("ciphertext", Field::Text(text))];
        self.bind(&mut fields, context, context.encoded());
        let call = self.decryption(Body::object(&fields)?, None).about(Purpose::Prove, self.key_id.clone());
        match self.server.call(&call.reading(&answer::decrypted)).await {
            Ok(opened) if bool::from(opened.expose().ct_eq(probe.expose())) => Ok(()),
            Err(error) if error.kind() != ErrorKind::AuthenticationFailed => Err(error),
            Ok(_) | Err(_) => Err(self.server.asked(Purpose::Prove, &self.key_id).opens_not_its_own()),
        }
    }

    /// Under the right context for the derivation, which proves nothing by itself, and other associated data.
    async fn must_not_decrypt(&self, text: &str, context: &KmsContext) -> Result<()> {
        let mut fields = vec![("ciphertext", Field::Text(text))];
        self.bind(&mut fields, context, OTHER);
        let call = self.decryption(Body::object(&fields)?, None).about(Purpose::Prove, self.key_id.clone());
        match self.server.call(&call.reading(&answer::opened)).await {
            Ok(()) => Err(self.server.asked(Purpose::Prove, &self.key_id).binds_nothing()),
            Err(error) if error.source().is_some_and(|source| source.is::<NotAuthentic>()) => Ok(()),
            // "Invalid ciphertext" is no word about what it is bound to.
            Err(error) if error.kind() == ErrorKind::AuthenticationFailed => {
                Err(self.server.asked(Purpose::Prove, &self.key_id).opens_not_its_own())
            }
            Err(error) => Err(error),
        }
    }
}
