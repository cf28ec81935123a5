//! A data key serves exactly as many messages and bytes as it may.

use super::{Scene, context, data_key_of};
use crate::support::say;
use crate::support::virtual_time::Remote;
use envelock::blocking::wait;
use envelock::{CacheLimits, DataKeyCache, EncryptionContext, ErrorKind, Header};
use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

const THREADS: usize = 16;

/// How many messages each data key got, when all threads make `each` messages of `len` bytes.
fn race(scene: &Scene, each: usize, len: usize) -> HashMap<Vec<u8>, usize> {
    let counts = Mutex::new(HashMap::new());
    let start = std::sync::Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                let own: Vec<_> = (0..each)
                    .map(|_| data_key_of(&wait(scene.envelope.encrypt(&vec![1; len], &context(0))).unwrap()))
                    .collect();
                let mut counts = counts.lock().unwrap();
                own.into_iter().for_each(|key| *counts.entry(key).or_insert(0) += 1);
            });
        }
    });
    counts.into_inner().unwrap()
}

#[test]
fn sixteen_threads_that_race_for_the_last_message_never_get_one_too_many() {
    for (limit, each) in [(1, 40), (7, 100), (250, 500), (4_000, 500)] {
        let scene = Scene::new(CacheLimits::default().max_messages(limit as u64), Remote::quick);
        let counts = race(&scene, each, 10);
        let keys = (THREADS * each).div_ceil(limit);
        assert_eq!(counts.len(), keys, "{limit}");
        assert_eq!(counts.values().filter(|&&count| count == limit).count(), THREADS * each / limit);
        assert_eq!(scene.remote.calls(), keys);
        let [encrypt, _] = scene.agree();
        assert_eq!(encrypt.hits + encrypt.waits + encrypt.misses, (THREADS * each) as u64);
        say(format!("cache: {THREADS} threads, {} messages, {limit} for each of {keys} data keys", THREADS * each));
    }
}

#[test]
fn sixteen_threads_that_race_for_the_last_byte_never_get_one_too_many() {
    for (len, limit, each) in [(100, 10_000, 200), (100, 10_099, 200), (33, 1_000, 100)] {
        let scene = Scene::new(CacheLimits::default().max_bytes(limit), Remote::quick);
        let counts = race(&scene, each, len);
        let per_key = usize::try_from(limit).unwrap() / len;
        let keys = (THREADS * each).div_ceil(per_key);
        assert_eq!(counts.len(), keys);
        assert!(counts.values().all(|&count| count <= per_key), "{per_key}: {:?}", counts.values());
        assert_eq!(scene.remote.calls(), keys);
        let [encrypt, _] = scene.agree();
        assert_eq!(encrypt.bytes, (THREADS * each * len) as u64);
        say(format!("cache: {THREADS} threads, {} bytes, {limit} at most for each of {keys} data keys", encrypt.bytes));
    }
}

#[test]
fn a_message_above_the_limit_of_bytes_has_a_data_key_of_its_own() {
    let scene = Scene::new(CacheLimits::default().max_bytes(1_000), Remote::quick);
    let make = |len: usize| data_key_of(&wait(scene.envelope.encrypt(&vec![1; len], &context(0))).unwrap());
    let small = make(400);
    let large = [make(1_001), make(5_000)];
    assert_eq!(make(400), small);
    assert!(large[0] != large[1] && !large.contains(&small));
    assert_ne!(make(201), small, "two hundred bytes are left");
    let [encrypt, _] = scene.agree();
    assert_eq!((encrypt.misses, encrypt.hits, encrypt.bytes), (4, 1, 400 + 1_001 + 5_000 + 400 + 201));
}

#[test]
fn a_stream_pays_as_it_goes_and_ends_before_it_exceeds_the_limit() {
    // 64 KiB are drawn at a time.
    const LIMIT: usize = 1 << 20;
    let scene = Scene::new(CacheLimits::default().max_bytes(LIMIT as u64), Remote::quick);
    let begin = || wait(scene.envelope.encrypt_writer(Vec::new(), &context(0))).unwrap();
    // What is drawn and not used is given back: any number of short ones goes under one data key.
    for _ in 0..200 {
        let mut writer = begin();
        writer.write_all(&[1; 1_000]).unwrap();
        writer.finish().unwrap();
    }
    assert_eq!(scene.agree()[0].misses, 1);
    assert_eq!(scene.agree()[0].bytes, 200_000);
    // Sixteen at once would take it all: three fewer, and what was used before.
    let mut writers: Vec<_> = (0..12).map(|_| begin()).collect();
    assert_eq!(scene.agree()[0].misses, 1);
    let mut longest = writers.pop().unwrap();
    let mut written = 0;
    let error = loop {
        match longest.write_all(&[2; 10_000]) {
            Ok(()) => written += 10_000,
            Err(error) => break error,
        }
    };
    assert_eq!(envelock::Error::from_io(&error).unwrap().kind(), ErrorKind::LimitExceeded, "{error}");
    assert!(error.to_string().contains("without_cache"), "{error}");
    drop(longest);
    for mut writer in writers {
        writer.write_all(&[3; 50_000]).unwrap();
        let message = writer.finish().unwrap();
        wait(scene.envelope.decrypt(&message, &context(0))).unwrap();
    }
    let [encrypt, _] = scene.agree();
    assert_eq!(encrypt.misses, 1);
    assert!(encrypt.bytes <= LIMIT as u64, "{encrypt:?}");
    // What the others had drawn, it could not have; a segment more waits in its buffer.
    let left = LIMIT - 200_000 - 11 * (64 << 10);
    assert!((64 << 10..=left + 65_536).contains(&written), "{written} of {left}");
    // The same stream alone, without the cache.
    let mut writer = wait(scene.envelope.without_cache().encrypt_writer(Vec::new(), &context(0))).unwrap();
    writer.write_all(&vec![2; 2 * LIMIT]).unwrap();
    writer.finish().unwrap();
    say(format!("cache: streams paid for {} of {LIMIT} bytes, the longest ended after {written}", encrypt.bytes));
}

#[test]
fn streams_that_race_never_exceed_the_limit_together() {
    const LIMIT: u64 = 1 << 20;
    let scene = Scene::new(CacheLimits::default().max_bytes(LIMIT), Remote::quick);
    let sealed = Mutex::new(HashMap::<Vec<u8>, u64>::new());
    let failed = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (scene, sealed, failed) = (&scene, &sealed, &failed);
            scope.spawn(move || {
                for round in 0..20 {
                    let mut writer = wait(scene.envelope.encrypt_writer(Vec::new(), &context(0))).unwrap();
                    let key = loop {
                        match writer.write_all(&[1; 40_000]) {
                            Ok(()) if writer.inner().len() > (thread + 1) * 20_000 + round * 1_000 => {
                                break data_key_of(writer.inner());
                            }
                            Ok(()) => {}
                            Err(_) => {
                                failed.fetch_add(1, Ordering::SeqCst);
                                break data_key_of(writer.inner());
                            }
                        }
                    };
                    let bytes = match writer.finish() {
                        Ok(message) => plain_len(&message),
                        Err(error) => {
                            let out = error.into_parts().1;
                            plain_len(&out)
                        }
                    };
                    *sealed.lock().unwrap().entry(key).or_default() += bytes;
                }
            });
        }
    });
    let sealed = sealed.into_inner().unwrap();
    assert!(sealed.values().all(|&bytes| bytes <= LIMIT), "{:?}", sealed.values());
    assert!(sealed.len() > 10 && sealed.len() == scene.remote.calls());
    scene.agree();
    say(format!(
        "cache: {} streams under {} data keys, {} at most under one of {LIMIT} bytes, {} ended by the limit",
        THREADS * 20,
        sealed.len(),
        sealed.values().max().unwrap(),
        failed.load(Ordering::SeqCst)
    ));
}

/// Plaintext in a message that may have been cut off between two segments.
fn plain_len(message: &[u8]) -> u64 {
    let body = message.len() - Header::parse(message).unwrap().len();
    (body - body.div_ceil(65_536) * 32) as u64
}

#[test]
fn limits_outside_their_range_are_refused() {
    let default = CacheLimits::default;
    for limits in [
        default().max_messages(0),
        default().max_messages((1 << 32) + 1),
        default().max_bytes(0),
        default().max_age(std::time::Duration::ZERO),
        default().max_entries(0),
        default().max_entries(1_000_001),
    ] {
        assert_eq!(DataKeyCache::new(limits.clone()).unwrap_err().kind(), ErrorKind::InvalidInput);
        let provider = envelock::RawKeyProvider::generate("x").unwrap();
        let built = envelock::Envelope::builder(provider).cache(limits).build();
        assert_eq!(built.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    DataKeyCache::new(default().max_messages(1 << 32)).unwrap();
}

#[test]
fn what_is_used_often_stays_while_others_pass_through() {
    let scene = Scene::new(CacheLimits::default().max_entries(100), Remote::quick);
    let make = |number: usize| drop(wait(scene.envelope.encrypt(b"x", &context(number))).unwrap());
    let none = EncryptionContext::new();
    assert!(none.is_empty());
    let often = 0..50;
    for _ in 0..5 {
        often.clone().for_each(make);
    }
    for number in 1_000..6_000 {
        make(number);
        if number % 20 == 0 {
            often.clone().for_each(make);
        }
    }
    let before = scene.remote.calls();
    often.clone().for_each(make);
    let lost = scene.remote.calls() - before;
    assert!(scene.cache.len() <= 100);
    let [encrypt, _] = scene.agree();
    assert_eq!(encrypt.evictions + scene.cache.len() as u64, encrypt.misses);
    assert!(lost <= 2, "{lost} of 50 were evicted");
    say(format!("cache of 100: 5,000 others passed through, {lost} of 50 in use were evicted"));
}
