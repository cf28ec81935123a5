//! Record sets and values under cached data keys.

use super::{Scene, context};
use crate::support::say;
use crate::support::virtual_time::Remote;
use envelock::blocking::wait;
use envelock::{AssociatedData, CacheLimits, RecordSetHeader, RewrapOptions};
use std::collections::HashSet;
use std::sync::atomic::Ordering;

#[test]
fn record_sets_of_one_context_share_a_data_key_and_nothing_else() {
    let scene = Scene::new(CacheLimits::default(), Remote::quick);
    let place = AssociatedData::from_bytes("orders/7");
    let sets: Vec<_> = (0..50).map(|_| wait(scene.envelope.record_set(&context(1))).unwrap()).collect();
    let fingerprints: HashSet<_> = sets.iter().map(|set| set.fingerprint()).collect();
    let slots: HashSet<_> =
        sets.iter().map(|set| RecordSetHeader::parse(set.header()).unwrap().slots().to_vec()).collect();
    assert_eq!((fingerprints.len(), slots.len(), scene.remote.calls()), (sets.len(), 1, 1));
    for (at, set) in sets.iter().enumerate() {
        let record = set.seal(b"value", &place).unwrap();
        let opened = wait(scene.envelope.open_record_set(set.header(), &context(1))).unwrap();
        assert_eq!(opened.open(&record, &place).unwrap(), b"value");
        assert!(sets[(at + 1) % sets.len()].open(&record, &place).is_err());
        // The same key without the cache.
        let plain = wait(scene.envelope.without_cache().open_record_set(set.header(), &context(1))).unwrap();
        assert_eq!(plain.open(&record, &place).unwrap(), b"value");
    }
    let [encrypt, decrypt] = scene.counts();
    assert_eq!((encrypt.misses, encrypt.hits, decrypt.misses, decrypt.hits), (1, 49, 1, 49));
    say(format!("cache: {} record sets under one data key, {} calls", sets.len(), encrypt.calls() + decrypt.calls()));
}

#[test]
fn values_with_their_own_sets_count_as_messages() {
    let scene = Scene::new(CacheLimits::default().max_messages(10), Remote::quick);
    let values: Vec<_> = (0..25).map(|_| wait(scene.envelope.seal_value(&[7; 10], &context(1))).unwrap()).collect();
    assert_eq!(scene.agree()[0].misses, 3);
    for value in &values {
        assert_eq!(wait(scene.envelope.open_value(value, &context(1))).unwrap(), [7; 10]);
    }
    assert_eq!((scene.agree()[1].misses, scene.agree()[1].hits), (3, 22));
}

#[test]
fn a_rewrap_of_a_record_set_asks_the_provider_itself() {
    let scene = Scene::new(CacheLimits::default(), Remote::quick);
    let set = wait(scene.envelope.record_set(&context(1))).unwrap();
    wait(scene.envelope.open_record_set(set.header(), &context(1))).unwrap();
    let before = scene.remote.decrypts.load(Ordering::SeqCst);
    let options = RewrapOptions::default();
    let done = wait(scene.envelope.rewrap_record_set(set.header(), &scene.envelope, &context(1), options)).unwrap();
    assert_eq!(scene.remote.decrypts.load(Ordering::SeqCst), before + 1);
    let again = wait(scene.envelope.open_record_set(&done.header, &context(1))).unwrap();
    assert_eq!(again.fingerprint(), set.fingerprint());
}
