//! Files pay for the bytes that they have, and those that can be resumed know of no cache.

use super::{Scene, context, data_key_of};
use crate::support::say;
use crate::support::virtual_time::Remote;
use envelock::blocking::wait;
use envelock::{CacheCounts, CacheLimits, Error, ErrorKind, FileOptions, ResumeStart};
use std::fs::{self, OpenOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Seals a file of `len` bytes, whose length becomes another one once a MiB of it was read. Its data key.
fn seal(scene: &Scene, len: u64, becomes: u64) -> Result<Vec<u8>, Error> {
    let folder = tempfile::tempdir().unwrap();
    let (plain, sealed) = (folder.path().join("plain"), folder.path().join("sealed"));
    fs::write(&plain, vec![7; usize::try_from(len).unwrap()]).unwrap();
    let (path, changed) = (plain.clone(), AtomicBool::new(len == becomes));
    let options = FileOptions::default().on_progress(move |_| {
        if !changed.swap(true, Ordering::SeqCst) {
            OpenOptions::new().write(true).open(&path).unwrap().set_len(becomes).unwrap();
        }
    });
    let done = wait(scene.envelope.encrypt_file(&plain, &sealed, &context(0), options));
    assert_eq!(plain.metadata().unwrap().len(), becomes);
    assert_eq!(sealed.exists(), done.is_ok());
    done?;
    let message = fs::read(&sealed).unwrap();
    assert_eq!(wait(scene.envelope.decrypt(&message, &context(0))).unwrap(), fs::read(&plain).unwrap());
    Ok(data_key_of(&message))
}

#[test]
fn a_file_above_the_limit_of_bytes_has_a_data_key_of_its_own_and_others_pay_for_what_they_are() {
    let scene = Scene::new(CacheLimits::default().max_bytes(MIB), Remote::quick);
    let make = |len: u64| seal(&scene, len, len).unwrap();
    let small = make(300_000);
    let large = [make(MIB + 1), make(3 * MIB)];
    assert!(large[0] != large[1] && !large.contains(&small));
    for len in [MIB - 300_001, 1, 0] {
        assert_eq!(make(len), small, "{len}");
    }
    assert_ne!(make(1), small, "all of it was paid for");
    let [encrypt, _] = scene.agree();
    assert_eq!((encrypt.misses, encrypt.hits, encrypt.bytes), (4, 3, MIB + (MIB + 1) + 3 * MIB + 1));
    say("cache: files of up to 1 MiB share a data key of 1 MiB to the byte, two larger ones have their own");
}

#[test]
fn a_file_that_grows_or_shrinks_meanwhile_pays_for_what_was_read() {
    let scene = Scene::new(CacheLimits::default().max_bytes(8 * MIB), Remote::quick);
    let first = seal(&scene, 2 * MIB, 3 * MIB).unwrap();
    assert_eq!(seal(&scene, 4 * MIB, 2 * MIB).unwrap(), first);
    assert_eq!(seal(&scene, 3 * MIB, 3 * MIB).unwrap(), first, "what the second did not need was given back");
    assert_eq!(scene.agree()[0].bytes, 8 * MIB);
    let second = seal(&scene, MIB, MIB).unwrap();
    assert_ne!(second, first);
    let error = seal(&scene, 2 * MIB, 20 * MIB).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    let [encrypt, _] = scene.agree();
    assert_eq!(encrypt.misses, 2);
    assert!(encrypt.bytes <= 16 * MIB, "{encrypt:?}");
}

#[test]
fn an_encryption_that_can_be_resumed_uses_no_cached_data_key_neither_at_first_nor_when_it_goes_on() {
    let scene = Scene::new(CacheLimits::default().max_bytes(MIB), Remote::quick);
    let folder = tempfile::tempdir().unwrap();
    let (plain, sealed) = (folder.path().join("plain"), folder.path().join("sealed"));
    fs::write(&plain, vec![7; 6 << 20]).unwrap();
    // The source has to be older than what is begun.
    std::thread::sleep(Duration::from_millis(30));
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let stopped = FileOptions::default().stop_when(stop).on_progress(move |_| flag.store(true, Ordering::SeqCst));
    let run = |options| wait(scene.envelope.encrypt_file_resumable(&plain, &sealed, &context(0), options));
    assert_eq!(run(stopped).unwrap_err().kind(), ErrorKind::Io);
    let done = run(FileOptions::default()).unwrap();
    match done.start {
        ResumeStart::Continued { verified_len, .. } => assert!((1..6 * MIB).contains(&verified_len)),
        other => panic!("{other:?}"),
    }
    let calls = [&scene.remote.generates, &scene.remote.decrypts].map(|count| count.load(Ordering::SeqCst));
    assert_eq!(calls, [1, 1]);
    assert_eq!((scene.counts(), scene.cache.len()), ([CacheCounts::default(); 2], 0));
    let message = fs::read(&sealed).unwrap();
    assert_eq!(wait(scene.envelope.decrypt(&message, &context(0))).unwrap(), fs::read(&plain).unwrap());
    assert_ne!(data_key_of(&wait(scene.envelope.encrypt(b"x", &context(0))).unwrap()), data_key_of(&message));
}
