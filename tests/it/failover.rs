//! Several providers for one purpose: who is asked, in which order, when another stands in, and what is said if none can.
//! And several at once, which do not wait for one another.

#[cfg(feature = "http")]
mod hedged;

use crate::providers::known;
use crate::support::providers::{Down, Scripted, all, at_least, raw};
use crate::support::virtual_time::VirtualClock;
use envelock::{
    DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, EncryptionContext, Error, ErrorKind, FailoverProvider,
    GeneratedDataKey, KeyProvider, KmsContext, ProviderIdentity, Recipient, Result, Revocations, async_trait,
};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ErrorKind::{AuthenticationFailed, Busy, InvalidInput, KeyDenied, KeyState, NoMatchingKey, Unavailable};

const MS: Duration = Duration::from_millis(1);

/// A key behind a line: it takes its time, fails as told, and counts.
#[derive(Debug)]
struct Far {
    key_id: String,
    inner: Arc<dyn KeyProvider>,
    clock: Arc<VirtualClock>,
    takes: Mutex<Duration>,
    fails: Mutex<Option<(ErrorKind, &'static str)>>,
    /// Opens what others of this name wrote, as replicas do.
    replica_of: Option<&'static str>,
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Far {
    fn new(clock: &Arc<VirtualClock>, key_id: &str, takes: Duration) -> Arc<Self> {
        Self::replica(clock, key_id, takes, None)
    }

    fn replica(
        clock: &Arc<VirtualClock>,
        key_id: &str,
        takes: Duration,
        replica_of: Option<&'static str>,
    ) -> Arc<Self> {
        Arc::new(Self {
            key_id: key_id.into(),
            inner: raw(replica_of.unwrap_or(key_id), 1),
            clock: Arc::clone(clock),
            takes: Mutex::new(takes),
            fails: Mutex::default(),
            replica_of,
            begun: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
        })
    }

    fn fail(&self, with: impl Into<Option<(ErrorKind, &'static str)>>) {
        *self.fails.lock().unwrap() = with.into();
    }

    fn take(&self, time: Duration) {
        *self.takes.lock().unwrap() = time;
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    async fn travel(&self) -> Result<()> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let time = *self.takes.lock().unwrap();
        self.clock.sleep(time).await;
        self.ended.fetch_add(1, Ordering::SeqCst);
        match *self.fails.lock().unwrap() {
            Some((kind, code)) => Err(Error::new(kind, format!("{} says {code}", self.key_id)).with_code(code)),
            None => Ok(()),
        }
    }

    fn named(&self, slots: Vec<EncryptedDataKey>) -> Vec<EncryptedDataKey> {
        let named = |slot: EncryptedDataKey| EncryptedDataKey::new("far", self.key_id.as_bytes(), slot.wrapped());
        slots.into_iter().map(named).collect()
    }

    /// The slot as the key behind the line knows it, if it is its own.
    fn own(&self, slot: &EncryptedDataKey) -> Option<EncryptedDataKey> {
        let replica = self.replica_of.is_some_and(|of| slot.key_id().ends_with(of.as_bytes()));
        let own = slot.provider() == "far" && (slot.key_id() == self.key_id.as_bytes() || replica);
        own.then(|| EncryptedDataKey::new("raw", self.replica_of.unwrap_or(&self.key_id), slot.wrapped()))
    }
}

#[async_trait]
impl KeyProvider for Far {
    fn recipients(&self) -> Vec<Recipient> {
        vec![Recipient::new("far", self.key_id.as_bytes())]
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        self.travel().await?;
        let made = self.inner.generate_data_key(length, context).await?;
        Ok(GeneratedDataKey { key: made.key, encrypted: self.named(made.encrypted) })
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        self.travel().await?;
        Ok(self.named(self.inner.encrypt_data_key(key, context).await?))
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        let Some(slot) = self.own(slot) else { return DataKeyAnswer::NotMine };
        match self.travel().await {
            Ok(()) => self.inner.decrypt_data_key(&slot, context).await,
            Err(error) => DataKeyAnswer::Failed(error),
        }
    }

    async fn re_encrypt_data_key(
        &self,
        slot: &EncryptedDataKey,
        context: &KmsContext,
    ) -> Result<Option<Vec<EncryptedDataKey>>> {
        let Some(own) = self.own(slot) else { return Ok(None) };
        self.travel().await?;
        match self.inner.decrypt_data_key(&own, context).await {
            DataKeyAnswer::Key(key) => Ok(Some(self.named(self.inner.encrypt_data_key(&key, context).await?))),
            DataKeyAnswer::Failed(error) => Err(error),
            DataKeyAnswer::NotMine => Ok(None),
        }
    }

    fn identity(&self) -> Option<ProviderIdentity> {
        Some(ProviderIdentity::new(format!("far {}", self.key_id)))
    }
}

fn members(of: &[&Arc<Far>]) -> Vec<Arc<dyn KeyProvider>> {
    of.iter().map(|far| Arc::clone(far) as Arc<dyn KeyProvider>).collect()
}

fn in_order(of: &[&Arc<Far>]) -> FailoverProvider {
    FailoverProvider::in_order(members(of)).unwrap()
}

fn context() -> KmsContext {
    KmsContext::new(&EncryptionContext::from([("tenant", "acme")])).unwrap()
}

/// Drives `work`, moving the clock whenever all wait for it.
fn run<T>(clock: &VirtualClock, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let mut waker = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut waker) {
            return done;
        }
        assert!(clock.advance_to_next(), "it waits for nothing");
    }
}

fn generate(clock: &VirtualClock, provider: &FailoverProvider) -> Result<GeneratedDataKey> {
    run(clock, provider.generate_data_key(DataKeyLength::Bytes32, &context()))
}

/// By whom a data key was encrypted.
fn writer(made: &GeneratedDataKey) -> String {
    assert_eq!(made.encrypted.len(), 1, "one member writes");
    made.encrypted[0].key_id_text()
}

#[test]
fn in_order_the_first_that_works_writes_and_the_others_are_not_asked() {
    let clock = VirtualClock::shared();
    let [a, b, c] = ["a", "b", "c"].map(|name| Far::new(&clock, name, 10 * MS));
    let provider = in_order(&[&a, &b, &c]);
    assert_eq!(writer(&generate(&clock, &provider).unwrap()), "a");
    assert_eq!((a.begun(), b.begun(), c.begun()), (1, 0, 0));
    a.fail((Unavailable, "Down"));
    assert_eq!(writer(&generate(&clock, &provider).unwrap()), "b");
    b.fail((KeyState, "DisabledException"));
    let key = DataKey::from_slice(&[7; 32]).unwrap();
    let slots = run(&clock, provider.encrypt_data_key(&key, &context())).unwrap();
    assert_eq!((slots.len(), slots[0].key_id()), (1, &b"c"[..]));
    a.fail(None);
    assert_eq!(writer(&generate(&clock, &provider).unwrap()), "a", "it is first again");
}

#[test]
fn whatever_keeps_one_from_it_the_next_is_asked() {
    let clock = VirtualClock::shared();
    let goes_on = |kind, task: &str| {
        let (a, b) = (Far::replica(&clock, "1/k", MS, Some("k")), Far::replica(&clock, "2/k", MS, Some("k")));
        let provider = in_order(&[&a, &b]);
        let made = generate(&clock, &provider).unwrap();
        a.fail((kind, "X"));
        let context = context();
        let failed = match task {
            "generate" => generate(&clock, &provider).err(),
            "encrypt" => run(&clock, provider.encrypt_data_key(&made.key, &context)).err(),
            "decrypt" => match run(&clock, provider.decrypt_data_key(&made.encrypted[0], &context)) {
                DataKeyAnswer::Key(key) => {
                    assert_eq!(key.expose(), made.key.expose());
                    None
                }
                DataKeyAnswer::Failed(error) => Some(error),
                DataKeyAnswer::NotMine => panic!("it is mine"),
            },
            _ => run(&clock, provider.re_encrypt_data_key(&made.encrypted[0], &context)).err(),
        };
        assert_eq!((failed.map(|error| error.to_string()), b.begun()), (None, 1), "{kind:?} {task}");
    };
    use ErrorKind::{Internal, LimitExceeded, Malformed, RandomFailed, Unsupported};
    let outages = [Unavailable, Busy, RandomFailed, KeyDenied, KeyState];
    let others = [NoMatchingKey, AuthenticationFailed, Malformed, Unsupported, LimitExceeded, InvalidInput, Internal];
    for kind in outages.into_iter().chain(others) {
        for task in ["generate", "encrypt", "decrypt", "re-encrypt"] {
            goes_on(kind, task);
        }
    }
}

#[test]
fn each_slot_is_opened_by_the_member_whose_it_is() {
    let clock = VirtualClock::shared();
    let [a, b] = ["a", "b"].map(|name| Far::new(&clock, name, MS));
    let provider = in_order(&[&a, &b]);
    let by_b = run(&clock, b.generate_data_key(DataKeyLength::Bytes32, &context())).unwrap();
    match run(&clock, provider.decrypt_data_key(&by_b.encrypted[0], &context())) {
        DataKeyAnswer::Key(key) => assert_eq!(key.expose(), by_b.key.expose()),
        other => panic!("{other:?}"),
    }
    assert_eq!(a.begun(), 0, "it is not its slot");
    // A failure of the one whose it is, alone, is told as it is.
    b.fail((Unavailable, "Down"));
    match run(&clock, provider.decrypt_data_key(&by_b.encrypted[0], &context())) {
        DataKeyAnswer::Failed(error) => assert_eq!(error.to_string(), "b says Down"),
        other => panic!("{other:?}"),
    }
    let foreign = EncryptedDataKey::new("far", &b"c"[..], by_b.encrypted[0].wrapped());
    assert!(matches!(run(&clock, provider.decrypt_data_key(&foreign, &context())), DataKeyAnswer::NotMine));
    assert!(run(&clock, provider.re_encrypt_data_key(&foreign, &context())).unwrap().is_none());
}

#[test]
fn a_slot_of_one_place_is_opened_and_re_encrypted_in_another_while_the_first_is_down() {
    let clock = VirtualClock::shared();
    let [one, two] = ["eu/mrk", "us/mrk"].map(|name| Far::replica(&clock, name, MS, Some("mrk")));
    let provider = in_order(&[&one, &two]);
    let made = generate(&clock, &provider).unwrap();
    assert_eq!(writer(&made), "eu/mrk");
    one.fail((Unavailable, "Down"));
    match run(&clock, provider.decrypt_data_key(&made.encrypted[0], &context())) {
        DataKeyAnswer::Key(key) => assert_eq!(key.expose(), made.key.expose()),
        other => panic!("{other:?}"),
    }
    let moved = run(&clock, provider.re_encrypt_data_key(&made.encrypted[0], &context())).unwrap().unwrap();
    assert_eq!(moved[0].key_id(), b"us/mrk");
}

#[test]
fn where_all_fail_the_error_names_each_and_why_and_is_the_most_retryable() {
    let clock = VirtualClock::shared();
    let [a, b, c] = ["a", "b", "c"].map(|name| Far::new(&clock, name, MS));
    a.fail((KeyDenied, "AccessDeniedException"));
    b.fail((Unavailable, "KMSInternalException"));
    c.fail((KeyState, "DisabledException"));
    let error = generate(&clock, &in_order(&[&a, &b, &c])).unwrap_err();
    assert_eq!((error.kind(), error.code()), (Unavailable, Some("KMSInternalException")));
    assert_eq!(
        error.to_string(),
        "no key provider made a data key: far:a: a says AccessDeniedException; far:b: b says KMSInternalException; \
         far:c: c says DisabledException"
    );
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "b says KMSInternalException");
    assert_eq!(FailoverProvider::in_order(Vec::new()).unwrap_err().kind(), InvalidInput);
    // One that answers without a key has done nothing.
    let empty = Scripted::shared(vec![EncryptedDataKey::missing("com.example.x", "x")], |_| DataKeyAnswer::NotMine);
    let generate = |members| {
        let provider = FailoverProvider::in_order(members).unwrap();
        pollster::block_on(provider.generate_data_key(DataKeyLength::Bytes32, &context()))
    };
    assert_eq!(generate(vec![empty.clone(), raw("a", 1)]).unwrap().encrypted[0].key_id(), b"a");
    assert_eq!(generate(vec![empty]).unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn after_throttling_those_of_the_same_account_and_region_are_passed_over() {
    let clock = VirtualClock::shared();
    let key = |place: &str| Far::new(&clock, &format!("arn:aws:kms:{place}:key/k"), MS);
    let (first, same) = (key("eu-central-1:111122223333"), key("eu-central-1:111122223333"));
    let (region, account) = (key("eu-west-1:111122223333"), key("eu-central-1:444455556666"));
    first.fail((Busy, "ThrottlingException"));
    for standby in [&region, &account] {
        let before = standby.begun();
        let made = generate(&clock, &in_order(&[&first, &same, standby])).unwrap();
        assert_eq!(writer(&made), standby.key_id);
        assert_eq!((same.begun(), standby.begun()), (0, before + 1));
    }
    let error = generate(&clock, &in_order(&[&first, &same])).unwrap_err();
    assert_eq!((error.kind(), error.code(), same.begun()), (Busy, Some("ThrottlingException"), 0));
    let told = error.to_string();
    assert!(told.contains("not asked") && told.contains("account 111122223333 in eu-central-1"), "{told}");
    // Any other failure says nothing about the account.
    first.fail((Unavailable, "KMSInternalException"));
    generate(&clock, &in_order(&[&first, &same])).unwrap();
    assert_eq!(same.begun(), 1);
    // Nobody knows what two names share that are no ARNs.
    let (a, b) = (Far::new(&clock, "a", MS), Far::new(&clock, "b", MS));
    a.fail((Busy, "ThrottlingException"));
    generate(&clock, &in_order(&[&a, &b])).unwrap();
}

#[test]
fn the_nearest_is_asked_first_and_a_recovered_one_is_found_again() {
    let clock = VirtualClock::shared();
    let (far, near) = (Far::new(&clock, "far", 80 * MS), Far::new(&clock, "near", 8 * MS));
    let provider = FailoverProvider::nearest(members(&[&far, &near])).unwrap().with_clock(clock.clone());
    let by = || writer(&generate(&clock, &provider).unwrap());
    assert_eq!([by(), by()], ["far", "near"], "each is tried");
    for _ in 0..20 {
        assert_eq!(by(), "near");
    }
    near.fail((Unavailable, "Down"));
    let down = near.begun();
    for _ in 0..60 {
        assert_eq!(by(), "far");
        clock.advance(500 * MS);
    }
    let asked = near.begun() - down;
    assert!((1..=4).contains(&asked), "a dead one was asked {asked} times in 60 calls");
    near.fail(None);
    let mut calls = 0;
    while by() != "near" {
        clock.advance(500 * MS);
        calls += 1;
        assert!(calls < 240, "it was not found again within two minutes");
    }
    assert_eq!(by(), "near");
    // They change places.
    near.take(200 * MS);
    let calls: Vec<_> = (0..30).map(|_| by()).collect();
    assert_eq!(calls[29], "far", "{calls:?}");
}

#[test]
fn a_dropped_call_cancels_and_leaves_nothing_locked() {
    let clock = VirtualClock::shared();
    let [a, b] = ["a", "b"].map(|name| Far::new(&clock, name, MS));
    let listed = in_order(&[&a, &b]);
    let nearest = FailoverProvider::nearest(members(&[&a, &b])).unwrap().with_clock(clock.clone());
    for provider in [&listed, &nearest] {
        let context = context();
        {
            let mut call = pin!(provider.generate_data_key(DataKeyLength::Bytes32, &context));
            assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(clock.sleepers(), 1);
        }
        assert_eq!(clock.sleepers(), 0, "the member's call is gone as well");
        generate(&clock, provider).unwrap();
    }
    assert_eq!((a.begun() + b.begun(), a.ended() + b.ended()), (4, 2));
}

#[test]
fn it_names_each_recipient_once_and_is_the_same_as_another_of_the_same_members() {
    let clock = VirtualClock::shared();
    let [a, again, b] = ["a", "a", "b"].map(|name| Far::new(&clock, name, MS));
    let provider = in_order(&[&a, &again, &b]);
    assert_eq!(provider.recipients(), [Recipient::new("far", "a"), Recipient::new("far", "b")]);
    let identity = |of: &[&Arc<Far>]| in_order(of).identity().unwrap();
    assert_eq!(identity(&[&a, &b]), identity(&[&b, &a]));
    assert_ne!(identity(&[&a, &b]), identity(&[&a]));
    assert_ne!(identity(&[&a, &b]), identity(&[&a, &again]));
    assert_ne!(Some(identity(&[&a, &b])), all(&[&(a.clone() as _), &(b.clone() as _)]).identity());
    assert_eq!(FailoverProvider::in_order(vec![a, raw("x", 1)]).unwrap().identity(), None);
    assert!(provider.revocations().is_none());
}

#[test]
fn a_revocation_of_any_member_is_one_of_all() {
    let revocations = Revocations::default();
    let member = known("a", None, Some(&revocations));
    let provider = FailoverProvider::in_order(vec![raw("b", 1), member]).unwrap();
    let before = provider.revocations().unwrap().epoch();
    revocations.bump();
    assert_ne!(provider.revocations().unwrap().epoch(), before);
}

#[test]
fn several_at_once_take_as_long_as_the_slowest_and_keep_their_order() {
    let clock = VirtualClock::shared();
    let [slow, dead, quick] = [30_000, 10_000, 5].map(|ms| Far::new(&clock, &format!("takes {ms}"), ms * MS));
    dead.fail((Unavailable, "Down"));
    let several = at_least(2, &[&(slow.clone() as _), &(dead.clone() as _), &(quick.clone() as _)]);
    let key = DataKey::from_slice(&[7; 32]).unwrap();
    let slots = run(&clock, several.encrypt_data_key(&key, &context())).unwrap();
    assert_eq!(envelock::clock::Clock::now(&*clock), 30_000 * MS, "not one after the other");
    let told: Vec<_> = slots.iter().map(|slot| (slot.key_id_text(), slot.is_missing())).collect();
    let expected = [("takes 30000", false), ("takes 10000", true), ("takes 5", false)];
    assert_eq!(told, expected.map(|(name, missing)| (name.to_owned(), missing)));
}

#[test]
fn where_fewer_than_k_wrap_the_error_names_every_one_that_is_missing() {
    let (near, far) = (raw("near", 1), Down::shared("vault", "far", Unavailable));
    let denied = Down::shared("aws-kms", "denied", KeyDenied);
    let key = Scripted::key();
    let wrap =
        |needed| pollster::block_on(at_least(needed, &[&near, &far, &denied]).encrypt_data_key(&key, &context()));
    assert_eq!(wrap(1).unwrap().iter().filter(|slot| slot.is_missing()).count(), 2);
    let error = wrap(2).unwrap_err();
    assert_eq!(error.kind(), Unavailable);
    assert_eq!(
        error.to_string(),
        "1 of 3 key providers encrypted the data key, and 2 must: vault:far: vault:far is down; aws-kms:denied: \
         aws-kms:denied is down"
    );
}

#[test]
fn a_mistake_of_one_that_is_needed_ends_the_call_at_once_and_cancels_the_others() {
    let clock = VirtualClock::shared();
    let (slow, wrong) = (Far::new(&clock, "slow", 30_000 * MS), Far::new(&clock, "wrong", MS));
    wrong.fail((InvalidInput, "ValidationException"));
    let several = all(&[&(slow.clone() as _), &(wrong.clone() as _)]);
    let key = DataKey::from_slice(&[7; 32]).unwrap();
    let error = run(&clock, several.encrypt_data_key(&key, &context())).unwrap_err();
    assert_eq!(error.to_string(), "wrong says ValidationException");
    assert_eq!((envelock::clock::Clock::now(&*clock), slow.begun(), slow.ended()), (MS, 1, 0));
    assert_eq!(clock.sleepers(), 0);
}

#[test]
fn one_member_that_lies_or_lost_its_key_stops_no_writing_where_the_others_are_enough() {
    use ErrorKind::{Internal, LimitExceeded, Malformed, Unsupported};
    let key = Scripted::key();
    for kind in
        [NoMatchingKey, AuthenticationFailed, Malformed, Unsupported, LimitExceeded, InvalidInput, Internal, KeyDenied]
    {
        let clock = VirtualClock::shared();
        let [a, wrong, c] = [20, 1, 30].map(|ms| Far::new(&clock, &format!("takes {ms}"), ms * MS));
        wrong.fail((kind, "X"));
        let several = at_least(2, &[&(a.clone() as _), &(wrong.clone() as _), &(c.clone() as _)]);
        let slots = run(&clock, several.encrypt_data_key(&key, &context())).unwrap();
        let missing: Vec<_> = slots.iter().map(EncryptedDataKey::is_missing).collect();
        assert_eq!(missing, [false, true, false], "{kind:?}");
        assert_eq!(slots[1].key_id_text(), "takes 1");
        // Of two that must and one that is left, the one is not enough.
        a.fail((kind, "X"));
        assert_eq!(run(&clock, several.encrypt_data_key(&key, &context())).unwrap_err().kind(), kind);
    }
    // One that answers without a key.
    let empty = Scripted::shared(vec![EncryptedDataKey::missing("com.example.x", "x")], |_| DataKeyAnswer::NotMine);
    let several = at_least(2, &[&raw("a", 1), &(empty as _), &raw("b", 2)]);
    let slots = pollster::block_on(several.encrypt_data_key(&key, &context())).unwrap();
    assert_eq!(slots.iter().filter(|slot| slot.is_missing()).count(), 1);
}

#[test]
fn the_nearest_is_not_asked_first_for_ever_where_callers_give_it_up() {
    let clock = VirtualClock::shared();
    let [near, far] = [10, 20].map(|ms| Far::new(&clock, &format!("takes {ms}"), ms * MS));
    let provider = FailoverProvider::nearest(members(&[&near, &far])).unwrap().with_clock(clock.clone());
    for _ in 0..3 {
        generate(&clock, &provider).unwrap();
    }
    near.take(1_000_000 * MS);
    let begun = near.begun();
    {
        let context = context();
        let mut call = pin!(provider.generate_data_key(DataKeyLength::Bytes32, &context));
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        clock.advance(100 * MS);
    }
    for _ in 0..3 {
        assert_eq!(writer(&generate(&clock, &provider).unwrap()), "takes 20");
    }
    assert_eq!(near.begun() - begun, 1);
}
