//! Whom a data key serves: one tenant, one provider, one context, one use, and nobody else.

use super::{Scene, context, data_key_of, totals};
use crate::support::say;
use crate::support::virtual_time::{Remote, VirtualClock};
use envelock::blocking::wait;
use envelock::{
    CacheLimits, DataKeyCache, EncryptedDataKey, EncryptionContext, Envelope, ErrorKind, KeyProvider, ProviderIdentity,
    Recipient, Revocations,
};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn seal(envelope: &Envelope, context: &EncryptionContext) -> Vec<u8> {
    wait(envelope.encrypt(b"attack at dawn", context)).unwrap()
}

fn key(envelope: &Envelope, context: &EncryptionContext) -> Vec<u8> {
    data_key_of(&seal(envelope, context))
}

#[test]
fn two_tenants_of_one_context_never_share_a_data_key() {
    let scene = Scene::new(CacheLimits::default(), Remote::quick);
    let tenants: Vec<_> = ["acme", "acm", "e", "", "umbrella"].map(|name| scene.envelope.for_tenant(name)).into();
    let mut keys = HashSet::new();
    for envelope in tenants.iter().chain([&scene.envelope]) {
        let first = key(envelope, &context(1));
        assert_eq!(key(envelope, &context(1)), first);
        assert_eq!(key(&envelope.clone(), &context(1)), first);
        assert!(keys.insert(first), "shared");
    }
    // The same name later, and from an envelope of another tenant, is the same tenant.
    assert!(keys.contains(&key(&tenants[1].for_tenant("acme"), &context(1))));
    // Nor do they when they read: each tenant's first reading asks the provider.
    let message = seal(&scene.envelope, &context(1));
    for envelope in tenants.iter().chain([&scene.envelope]) {
        let before = scene.remote.decrypts.load(Ordering::SeqCst);
        (0..3).for_each(|_| assert_eq!(wait(envelope.decrypt(&message, &context(1))).unwrap(), b"attack at dawn"));
        assert_eq!(scene.remote.decrypts.load(Ordering::SeqCst), before + 1);
    }
    let [encrypt, decrypt] = scene.agree();
    assert_eq!((encrypt.misses, decrypt.misses), (6, 6));
    let statistics = scene.cache.statistics();
    let acme = statistics.iter().find(|of| of.tenant.as_deref() == Some("acme")).unwrap();
    assert_eq!((acme.encrypt.misses, acme.encrypt.hits, acme.decrypt.misses, acme.decrypt.hits), (1, 3, 1, 2));
    assert_eq!(acme.calls_saved(), 5);
    assert!((acme.money_saved(0.03) - 0.000_015).abs() < 1e-12);
    say(format!("cache: {} tenants, {} data keys, none shared", tenants.len() + 1, keys.len()));
}

#[test]
fn contexts_whose_bytes_run_together_alike_never_share_a_data_key() {
    let scene = Scene::new(CacheLimits::default(), Remote::quick);
    let contexts = [
        EncryptionContext::new(),
        EncryptionContext::from([("ab", "c")]),
        EncryptionContext::from([("a", "bc")]),
        EncryptionContext::from([("abc", "")]),
        EncryptionContext::from([("a", ""), ("b", "c")]),
        EncryptionContext::from([("a", "b"), ("c", "")]),
        EncryptionContext::from([("a", "b\0\u{1}c")]),
    ];
    let keys: HashSet<_> = contexts.iter().map(|context| key(&scene.envelope, context)).collect();
    assert_eq!((keys.len(), scene.remote.calls()), (contexts.len(), contexts.len()));
    contexts.iter().for_each(|context| assert!(keys.contains(&key(&scene.envelope, context))));
    assert_eq!(scene.agree()[0].hits, contexts.len() as u64);
    // Stored or not, an entry is the same to the provider; what the message binds is another matter.
    let unstored = EncryptionContext::new().with_unstored("ab", "c");
    let message = seal(&scene.envelope, &unstored);
    assert!(keys.contains(&data_key_of(&message)));
    assert_eq!(wait(scene.envelope.decrypt(&message, &unstored)).unwrap(), b"attack at dawn");
}

#[test]
fn a_wrong_context_fails_with_a_cached_key_as_it_does_without() {
    let scene = Scene::new(CacheLimits::default(), Remote::quick);
    let right = EncryptionContext::from([("table", "orders")]).with_unstored("row", "7");
    let message = seal(&scene.envelope, &right);
    (0..2).for_each(|_| drop(wait(scene.envelope.decrypt(&message, &right)).unwrap()));
    let wrong = [
        EncryptionContext::from([("table", "orders")]).with_unstored("row", "8"),
        EncryptionContext::from([("table", "customers")]).with_unstored("row", "7"),
        EncryptionContext::from([("table", "orders")]),
        EncryptionContext::from([("table", "orders"), ("more", "1")]).with_unstored("row", "7"),
    ];
    let without = scene.envelope.without_cache();
    for context in &wrong {
        let cached = wait(scene.envelope.decrypt(&message, context)).unwrap_err();
        let plain = wait(without.decrypt(&message, context)).unwrap_err();
        assert_eq!((cached.kind(), cached.to_string()), (plain.kind(), plain.to_string()));
    }
    assert_eq!(wait(scene.envelope.decrypt(&message, &right)).unwrap(), b"attack at dawn");
}

#[test]
fn every_message_is_checked_against_the_key_that_is_cached_for_its_slot() {
    let scene = Scene::new(CacheLimits::default(), Remote::quick);
    let message = seal(&scene.envelope, &context(1));
    let opened = || wait(scene.envelope.decrypt(&message, &context(1))).unwrap();
    opened();
    let calls = scene.remote.calls();
    for at in 0..message.len() {
        let mut changed = message.clone();
        changed[at] ^= 1;
        if let Ok(plain) = wait(scene.envelope.decrypt(&changed, &context(1))) {
            // A slot is a hint; no byte of it decides what a message says.
            panic!("byte {at} is not authentic: {plain:?}");
        }
    }
    opened();
    // Keys of other slots' names and bytes were looked for, and nothing of them was kept.
    assert_eq!(scene.cache.len(), 2);
    let [_, decrypt] = scene.counts();
    assert!(decrypt.hits > 50 && scene.remote.calls() > calls, "{decrypt:?}");
    say(format!("cache: {} messages with a byte changed, none opened", message.len()));
}

fn envelope(cache: &DataKeyCache, remote: Remote) -> (Envelope, Arc<Remote>) {
    let remote = Arc::new(remote);
    (Envelope::builder(Arc::clone(&remote)).shared_cache(cache).build().unwrap(), remote)
}

#[test]
fn providers_share_where_their_identities_are_equal_and_never_without_one() {
    let clock = VirtualClock::shared();
    let cache = DataKeyCache::new(CacheLimits::default()).unwrap();
    let named =
        |name: &str| envelope(&cache, Remote { identity: Some(ProviderIdentity::new(name)), ..Remote::quick(&clock) });
    let nameless = || envelope(&cache, Remote::quick(&clock));
    let all = [nameless(), nameless(), named("kms as alice"), named("kms as bob"), named("#1"), named("")];
    let keys: HashSet<_> = all.iter().map(|(envelope, _)| key(envelope, &context(1))).collect();
    assert_eq!(keys.len(), all.len());
    // One provider in two envelopes has no identity in either.
    let again = Envelope::builder(Arc::clone(&all[0].1)).shared_cache(&cache).build().unwrap();
    assert!(!keys.contains(&key(&again, &context(1))));
    let (alice, remote) = named("kms as alice");
    assert!(keys.contains(&key(&alice, &context(1))));
    assert_eq!(remote.calls(), 0);
    let message = seal(&all[2].0, &context(1));
    for (envelope, _) in &all {
        wait(envelope.decrypt(&message, &context(1))).unwrap();
    }
    wait(alice.decrypt(&message, &context(1))).unwrap();
    assert_eq!(remote.calls(), 0);
    let calls: usize = all.iter().map(|(_, remote)| remote.calls()).sum();
    let [encrypt, decrypt] = totals(&cache);
    assert_eq!((encrypt.calls() + decrypt.calls()) as usize, calls);
    say(format!("cache: {} providers, {calls} calls, none shared but by one identity", all.len()));
}

#[test]
fn a_slot_of_another_provider_leaves_no_entry_and_is_asked_about_once_a_second() {
    let scene = Scene::new(CacheLimits::default(), Remote::quick);
    let other = Envelope::builder(crate::support::providers::raw("other", 3)).build().unwrap();
    let messages: Vec<_> = (0..50).map(|number| seal(&other, &context(number))).collect();
    let asked = || {
        let before = scene.remote.disowned.load(Ordering::SeqCst);
        for (number, message) in messages.iter().enumerate() {
            let error = wait(scene.envelope.decrypt(message, &context(number))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoMatchingKey);
        }
        scene.remote.disowned.load(Ordering::SeqCst) - before
    };
    assert_eq!((asked(), asked()), (50, 0));
    scene.clock.advance(Duration::from_millis(999));
    assert_eq!(asked(), 0);
    scene.clock.advance(Duration::from_millis(1));
    assert_eq!((asked(), asked()), (50, 0));
    scene.cache.invalidate_tenant(Some("nobody"));
    assert_eq!((asked(), asked()), (50, 0));
    assert!(scene.cache.is_empty());
    assert_eq!(scene.agree()[1].misses, 150);
}

#[test]
fn what_is_invalidated_is_fetched_anew_and_nothing_else_is() {
    let scene = Scene::new(CacheLimits::default(), Remote::quick);
    let (acme, umbrella) = (scene.envelope.for_tenant("acme"), scene.envelope.for_tenant("umbrella"));
    let message = seal(&scene.envelope, &context(1));
    let touch = || {
        let before = scene.remote.calls();
        for envelope in [&scene.envelope, &acme, &umbrella] {
            key(envelope, &context(1));
            wait(envelope.decrypt(&message, &context(1))).unwrap();
        }
        scene.remote.calls() - before
    };
    assert_eq!((touch(), touch()), (5, 0));
    scene.cache.invalidate_tenant(Some("acme"));
    assert_eq!((touch(), touch()), (2, 0));
    scene.cache.invalidate_tenant(None);
    assert_eq!((touch(), touch()), (2, 0));
    scene.cache.invalidate_tenant(Some("nobody"));
    scene.cache.invalidate_key(&Recipient::new("raw", "another"));
    assert_eq!(touch(), 0);
    scene.cache.invalidate_key(&Recipient::new("raw", "remote"));
    assert_eq!((touch(), touch()), (6, 0));
    scene.cache.invalidate_all();
    assert!(scene.cache.is_empty());
    assert_eq!((touch(), touch()), (6, 0));
    scene.agree();
}

#[test]
fn what_a_provider_revokes_is_not_served_at_the_next_call() {
    let revocations = Revocations::default();
    let remote = |clock: &Arc<VirtualClock>| Remote { revocations: Some(revocations.clone()), ..Remote::quick(clock) };
    let limits = CacheLimits::default().offline_grace(Duration::from_secs(3_600));
    let scene = Scene::new(limits, remote);
    let message = seal(&scene.envelope, &context(1));
    let open = || wait(scene.envelope.decrypt(&message, &context(1)));
    (0..3).for_each(|_| drop(open().unwrap()));
    assert_eq!(scene.remote.calls(), 2);
    revocations.bump();
    scene.remote.fail(1, ErrorKind::KeyDenied);
    assert_eq!(open().unwrap_err().kind(), ErrorKind::KeyDenied);
    scene.clock.advance(Duration::from_secs(1));
    open().unwrap();
    // Neither does an outage bring it back.
    revocations.bump();
    scene.remote.fail(1, ErrorKind::Unavailable);
    assert_eq!(open().unwrap_err().kind(), ErrorKind::Unavailable);
    let new = data_key_of(&seal(&scene.envelope, &context(1)));
    assert_ne!(new, data_key_of(&message));
    let [_, decrypt] = scene.agree();
    assert_eq!(decrypt.graces, 0);
}

#[test]
fn a_rewrap_and_a_verification_ask_the_provider_itself() {
    let scene = Scene::new(CacheLimits::default(), Remote::quick);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("message.elk");
    let message = seal(&scene.envelope, &context(1));
    std::fs::write(&path, &message).unwrap();
    wait(scene.envelope.decrypt(&message, &context(1))).unwrap();
    let calls = || scene.remote.decrypts.load(Ordering::SeqCst);
    let before = calls();
    wait(scene.envelope.verify_file(&path, &context(1))).unwrap();
    wait(scene.envelope.verify(message.as_slice(), &context(1))).unwrap();
    wait(scene.envelope.rewrap_file(&path, &scene.envelope, &context(1), Default::default())).unwrap();
    assert_eq!(calls(), before + 3);
    let again = std::fs::read(&path).unwrap();
    assert_ne!(data_key_of(&again), data_key_of(&message));
    assert_eq!(wait(scene.envelope.decrypt(&again, &context(1))).unwrap(), b"attack at dawn");
}

#[test]
fn printing_a_cache_shows_no_key_and_no_context() {
    let scene = Scene::new(CacheLimits::default(), Remote::quick);
    let envelope = scene.envelope.for_tenant("acme");
    seal(&envelope, &EncryptionContext::from([("secret-name", "secret-value")]));
    let shown = format!("{:?} {:?} {:?}", scene.cache, envelope, scene.cache.statistics());
    assert!(!shown.contains("secret"), "{shown}");
    let slots: Vec<EncryptedDataKey> = Vec::new();
    assert!(slots.is_empty() && !scene.remote.recipients().is_empty());
}
