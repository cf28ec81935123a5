//! What every key provider must keep, as a suite that runs against any of them (feature `test-util`).
//!
//! ```
//! use envelock::{RawKeyProvider, conformance};
//! # fn main() -> Result<(), envelock::Error> {
//! # pollster::block_on(async {
//! let provider = RawKeyProvider::generate("mine")?;
//! let stranger = RawKeyProvider::generate("another")?;
//! let report = conformance::check(&provider, &stranger).await.expect("the provider keeps its promises");
//! assert!(report.checks >= 10);
//! # Ok(())
//! # })
//! # }
//! ```

use crate::context::{EncryptionContext, KmsContext};
use crate::error::Result as Answer;
use crate::material::{DataKey, DataKeyLength, EncryptedDataKey};
use crate::provider::{DataKeyAnswer, GeneratedDataKey, KeyProvider};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

/// What [`check`] found in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// How many single checks passed.
    pub checks: usize,
    /// Whether the provider re-encrypts inside its KMS.
    pub re_encrypts: bool,
    /// In how many places calls were dropped while they were under way.
    pub dropped: usize,
}

/// A promise that the KMS behind a provider is known to break: for emulators, which err. A real KMS has no such flaw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// Two contexts are one to it where their keys and values, joined, are the same text.
    JoinsContexts,
    /// It opens wrapped keys that were changed, to other keys.
    OpensDamage,
    /// It does not know the operation that re-encrypts, where the real one does.
    LacksReEncryption,
}

/// A promise that a provider broke, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(String);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// Runs the suite: round trips, binding to the context, damage, what is not its own, re-encryption, calls that are dropped
/// at each place where they wait, and several calls at once.
///
/// `stranger` is a provider of the same kind on another key: neither may open what the other wrapped.
///
/// # Errors
/// [`Broken`] names the first promise that is not kept.
pub async fn check(provider: &dyn KeyProvider, stranger: &dyn KeyProvider) -> Result<Report, Broken> {
    check_but(provider, stranger, &[]).await
}

/// As [`check`], with an emulator behind the provider that is known to have these `flaws`.
///
/// # Errors
/// As [`check`]; also where a flaw turns out to be none, so that the list stays true.
pub async fn check_but(
    provider: &dyn KeyProvider,
    stranger: &dyn KeyProvider,
    flaws: &[Flaw],
) -> Result<Report, Broken> {
    let mut suite = Suite { provider, checks: 0, flaws, found: Vec::new() };
    let context = context([("conformance", "yes"), ("tenant", "acme")])?;
    suite.recipients_name_what_is_written(&context).await?;
    let slots = suite.a_generated_key_comes_back(&context).await?;
    suite.data_keys_are_fresh(&context).await?;
    suite.a_key_of_the_callers_comes_back(&context).await?;
    suite.the_context_is_bound(&slots).await?;
    suite.damage_is_a_failed_try(&slots, &context).await?;
    suite.other_slots_are_not_mine(&slots, &context).await?;
    suite.a_stranger_opens_nothing(stranger, &slots, &context).await?;
    let re_encrypts = suite.re_encryption_keeps_the_key(&slots, &context).await?;
    suite.many_at_once_are_answered_one_by_one(&slots, &context).await?;
    let dropped = suite.dropped_calls_do_no_harm(&slots, &context).await?;
    suite.calls_at_once_do_not_mix(&context).await?;
    for flaw in flaws {
        suite.expect(
            suite.found.contains(flaw),
            "a flaw that is known is there; if it is mended, take it off the list",
        )?;
    }
    Ok(Report { checks: suite.checks, re_encrypts, dropped })
}

/// Calls under way at once.
const AT_ONCE: usize = 16;

/// A call that waits in more places than this is dropped in the first of them only.
const PLACES_MAX: usize = 24;

struct Suite<'a> {
    provider: &'a dyn KeyProvider,
    checks: usize,
    flaws: &'a [Flaw],
    found: Vec<Flaw>,
}

impl Suite<'_> {
    fn expect(&mut self, holds: impl Into<Option<bool>>, promise: &str) -> Result<(), Broken> {
        self.checks += 1;
        if holds.into() == Some(true) { Ok(()) } else { Err(Broken(format!("{:?}: {promise}", self.provider))) }
    }

    /// As [`expect`](Self::expect), where a known `flaw` may break the promise.
    fn expect_but(&mut self, flaw: Flaw, holds: bool, promise: &str) -> Result<(), Broken> {
        if !holds && self.flaws.contains(&flaw) {
            self.found.push(flaw);
            return Ok(());
        }
        self.expect(holds, promise)
    }

    async fn recipients_name_what_is_written(&mut self, context: &KmsContext) -> Result<(), Broken> {
        let generated = self.generate(context).await?;
        let recipients = self.provider.recipients();
        let named = generated.1.iter().all(|slot| {
            recipients.iter().any(|it| it.provider == slot.provider())
                && !slot.provider().is_empty()
                && slot.provider().is_ascii()
                && slot.provider().len() <= 255
        });
        self.expect(named && !generated.1.is_empty(), "every slot is of a recipient that the provider names")
    }

    async fn a_generated_key_comes_back(&mut self, context: &KmsContext) -> Result<Vec<EncryptedDataKey>, Broken> {
        let (key, slots) = self.generate(context).await?;
        self.expect(key.expose().len() == 32, "a data key of 32 bytes was asked for")?;
        self.expect(slots.iter().any(|slot| !slot.is_missing()), "at least one slot holds a wrapped key")?;
        for slot in slots.iter().filter(|slot| !slot.is_missing()) {
            let plain = slot.wrapped().windows(32).any(|window| window == key.expose());
            self.expect(!plain, "a wrapped key does not show the data key")?;
            let opened = self.open(slot, context).await;
            self.expect(opened.map(|it| it.expose() == key.expose()), "each slot opens to the generated key")?;
        }
        Ok(slots)
    }

    async fn data_keys_are_fresh(&mut self, context: &KmsContext) -> Result<(), Broken> {
        let (one, one_slots) = self.generate(context).await?;
        let (two, two_slots) = self.generate(context).await?;
        self.expect(one.expose() != two.expose(), "two data keys differ")?;
        let again = self.encrypt(&one, context).await?;
        let differ = one_slots.iter().zip(&two_slots).all(|(a, b)| a.wrapped() != b.wrapped())
            && one_slots.iter().zip(&again).all(|(a, b)| a.is_missing() || a.wrapped() != b.wrapped());
        self.expect(differ, "wrapping one key twice gives different bytes")
    }

    async fn a_key_of_the_callers_comes_back(&mut self, context: &KmsContext) -> Result<(), Broken> {
        let key = DataKey::from_slice(&[0x5A; 32]).map_err(|e| Broken(e.to_string()))?;
        for slot in self.encrypt(&key, context).await?.iter().filter(|slot| !slot.is_missing()) {
            let opened = self.open(slot, context).await;
            self.expect(opened.map(|it| it.expose() == key.expose()), "a key that the caller brings comes back")?;
        }
        Ok(())
    }

    async fn the_context_is_bound(&mut self, slots: &[EncryptedDataKey]) -> Result<(), Broken> {
        let others = [context([("conformance", "yes"), ("tenant", "acmf")])?, context([("conformance", "yes")])?];
        let joined = context([("conformance", "yes"), ("tenan", "tacme")])?;
        for slot in slots.iter().filter(|slot| !slot.is_missing()) {
            for other in &others {
                let failed = matches!(self.provider.decrypt_data_key(slot, other).await, DataKeyAnswer::Failed(_));
                self.expect(failed, "a slot fails under another context")?;
            }
            let failed = matches!(self.provider.decrypt_data_key(slot, &joined).await, DataKeyAnswer::Failed(_));
            let promise = "a slot fails under another context, also if that is the same text once it is joined";
            self.expect_but(Flaw::JoinsContexts, failed, promise)?;
        }
        Ok(())
    }

    async fn damage_is_a_failed_try(&mut self, slots: &[EncryptedDataKey], context: &KmsContext) -> Result<(), Broken> {
        for slot in slots.iter().filter(|slot| !slot.is_missing()) {
            let wrapped = slot.wrapped();
            let mut flipped = wrapped.to_vec();
            if let Some(byte) = flipped.last_mut() {
                *byte ^= 1;
            }
            let cut = wrapped.get(..wrapped.len() / 2).unwrap_or_default().to_vec();
            for damaged in [flipped, cut, vec![0xFF]] {
                let damaged = EncryptedDataKey::new(slot.provider(), slot.key_id(), damaged);
                let answer = self.provider.decrypt_data_key(&damaged, context).await;
                let failed = matches!(answer, DataKeyAnswer::Failed(_));
                self.expect_but(Flaw::OpensDamage, failed, "a damaged wrapped key is a failed try")?;
            }
        }
        Ok(())
    }

    async fn other_slots_are_not_mine(
        &mut self,
        slots: &[EncryptedDataKey],
        context: &KmsContext,
    ) -> Result<(), Broken> {
        for slot in slots.iter().filter(|slot| !slot.is_missing()) {
            let renamed = EncryptedDataKey::new("com.example.nobody", slot.key_id(), slot.wrapped());
            let rekeyed = EncryptedDataKey::new(slot.provider(), &b"no key of anybody"[..], slot.wrapped());
            for other in [renamed, rekeyed] {
                let answer = self.provider.decrypt_data_key(&other, context).await;
                self.expect(matches!(answer, DataKeyAnswer::NotMine), "a slot of another name is not mine")?;
            }
        }
        Ok(())
    }

    async fn a_stranger_opens_nothing(
        &mut self,
        stranger: &dyn KeyProvider,
        slots: &[EncryptedDataKey],
        context: &KmsContext,
    ) -> Result<(), Broken> {
        for slot in slots.iter().filter(|slot| !slot.is_missing()) {
            let answer = stranger.decrypt_data_key(slot, context).await;
            self.expect(!matches!(answer, DataKeyAnswer::Key(_)), "another key opens nothing of this one")?;
        }
        Ok(())
    }

    async fn many_at_once_are_answered_one_by_one(
        &mut self,
        slots: &[EncryptedDataKey],
        context: &KmsContext,
    ) -> Result<(), Broken> {
        self.expect(self.provider.batch_len() >= 1, "a call takes one data key at least")?;
        let Some(slot) = slots.iter().find(|slot| !slot.is_missing()) else { return Ok(()) };
        let stranger = EncryptedDataKey::new("com.example.nobody", slot.key_id(), slot.wrapped());
        let asked = [(slot, context), (&stranger, context), (slot, context)];
        let answers = self.provider.decrypt_data_keys(&asked).await;
        let as_alone = matches!(
            answers.as_slice(),
            [DataKeyAnswer::Key(one), DataKeyAnswer::NotMine, DataKeyAnswer::Key(two)] if one.expose() == two.expose()
        );
        self.expect(as_alone, "each of several slots is answered in its place")?;
        let keys = [[0x11; 32], [0x22; 32]].map(|bytes| DataKey::from_slice(&bytes).map_err(|e| Broken(e.to_string())));
        let [one, two] = keys;
        let (one, two) = (one?, two?);
        let answers = self.provider.encrypt_data_keys(&[(&one, context), (&two, context)]).await;
        self.expect(answers.len() == 2, "each of several data keys is answered")?;
        for (key, answer) in [one, two].iter().zip(answers) {
            let slots = answer.map_err(|e| Broken(format!("{:?}: cannot encrypt several: {e}", self.provider)))?;
            for slot in slots.iter().filter(|slot| !slot.is_missing()) {
                let opened = self.open(slot, context).await;
                self.expect(opened.map(|it| it.expose() == key.expose()), "each of several opens to its own data key")?;
            }
        }
        Ok(())
    }

    async fn re_encryption_keeps_the_key(
        &mut self,
        slots: &[EncryptedDataKey],
        context: &KmsContext,
    ) -> Result<bool, Broken> {
        let mut re_encrypts = false;
        for slot in slots.iter().filter(|slot| !slot.is_missing()) {
            let before = self.open(slot, context).await;
            let answer = self.provider.re_encrypt_data_key(slot, context).await;
            let fresh = match answer {
                Ok(fresh) => fresh,
                Err(error) => {
                    let promise = format!("re-encryption does not fail: {error}");
                    self.expect_but(Flaw::LacksReEncryption, false, &promise)?;
                    continue;
                }
            };
            for new in fresh.iter().flatten() {
                re_encrypts = true;
                let after = self.open(new, context).await;
                let same = before.as_ref().zip(after).map(|(a, b)| a.expose() == b.expose());
                self.expect(same, "a re-encrypted key is the same key")?;
                self.expect(new.wrapped() != slot.wrapped(), "a re-encrypted key has new bytes")?;
            }
        }
        Ok(re_encrypts)
    }

    /// Drops each kind of call after each time that it waited, until it is done before that; then it must still work.
    async fn dropped_calls_do_no_harm(
        &mut self,
        slots: &[EncryptedDataKey],
        context: &KmsContext,
    ) -> Result<usize, Broken> {
        let provider = self.provider;
        let key = DataKey::from_slice(&[0xA5; 32]).map_err(|e| Broken(e.to_string()))?;
        let mut dropped = waits(|| provider.generate_data_key(DataKeyLength::Bytes32, context)).await;
        dropped += waits(|| provider.encrypt_data_key(&key, context)).await;
        for slot in slots.iter().filter(|slot| !slot.is_missing()) {
            dropped += waits(|| provider.decrypt_data_key(slot, context)).await;
            dropped += waits(|| provider.re_encrypt_data_key(slot, context)).await;
        }
        let (made, encrypted) = self.generate(context).await?;
        for slot in encrypted.iter().filter(|slot| !slot.is_missing()) {
            let opened = self.open(slot, context).await;
            self.expect(
                opened.map(|it| it.expose() == made.expose()),
                "calls that were dropped leave others in order",
            )?;
        }
        Ok(dropped)
    }

    async fn calls_at_once_do_not_mix(&mut self, context: &KmsContext) -> Result<(), Broken> {
        let provider = self.provider;
        let made: Vec<Answer<GeneratedDataKey>> =
            together((0..AT_ONCE).map(|_| provider.generate_data_key(DataKeyLength::Bytes32, context))).await;
        let mut keys = Vec::new();
        for made in made {
            keys.push(made.map_err(|e| Broken(format!("{provider:?}: no data key among several at once: {e}")))?);
        }
        let slots = keys.iter().flat_map(|made| made.encrypted.iter().map(move |slot| (slot, &made.key)));
        let slots: Vec<_> = slots.filter(|(slot, _)| !slot.is_missing()).collect();
        let opened = together(slots.iter().map(|(slot, _)| provider.decrypt_data_key(slot, context))).await;
        for (answer, (_, key)) in opened.iter().zip(&slots) {
            let same = matches!(answer, DataKeyAnswer::Key(opened) if opened.expose() == key.expose());
            self.expect(same, "of several calls at once each gets its own key")?;
        }
        Ok(())
    }

    async fn generate(&self, context: &KmsContext) -> Result<(DataKey, Vec<EncryptedDataKey>), Broken> {
        let generated = self.provider.generate_data_key(DataKeyLength::Bytes32, context).await;
        let generated = generated.map_err(|e| Broken(format!("{:?}: no data key: {e}", self.provider)))?;
        Ok((generated.key, generated.encrypted))
    }

    async fn encrypt(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>, Broken> {
        let encrypted = self.provider.encrypt_data_key(key, context).await;
        encrypted.map_err(|e| Broken(format!("{:?}: cannot encrypt a data key: {e}", self.provider)))
    }

    async fn open(&self, slot: &EncryptedDataKey, context: &KmsContext) -> Option<DataKey> {
        match self.provider.decrypt_data_key(slot, context).await {
            DataKeyAnswer::Key(key) => Some(key),
            DataKeyAnswer::Failed(_) | DataKeyAnswer::NotMine => None,
        }
    }
}

/// Makes a call again and again, and drops it once it has waited never, once, twice and so on, until it is done before
/// that. In how many places it was dropped.
async fn waits<F: Future>(call: impl Fn() -> F) -> usize {
    for places in 0..PLACES_MAX {
        let mut call = pin!(call());
        let mut left = places;
        let done = poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => {
                left -= 1;
                Poll::Pending
            }
        });
        if done.await {
            return places;
        }
    }
    PLACES_MAX
}

/// Drives all of `calls` on this task, and gives their outcomes in order.
async fn together<F: Future>(calls: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut calls: Vec<Pin<Box<F>>> = calls.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = calls.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut waiting = false;
        for (call, done) in calls.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            match call.as_mut().poll(cx) {
                Poll::Ready(output) => *done = Some(output),
                Poll::Pending => waiting = true,
            }
        }
        if waiting { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    done.into_iter().flatten().collect()
}

fn context<const N: usize>(entries: [(&str, &str); N]) -> Result<KmsContext, Broken> {
    KmsContext::new(&EncryptionContext::from(entries)).map_err(|e| Broken(e.to_string()))
}
