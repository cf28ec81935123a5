//! A key that is disabled reaches the data keys in caches: in this process at the next call, from another process
//! within a second.

use crate::kms_helper::{helper, open};
use envelock::{CacheLimits, CreateKeyRequest, DataKeyCache, EncryptionContext, Envelope, LocalKms};
use std::process::Stdio;
use std::time::{Duration, Instant};

fn cached(kms: &LocalKms, key: &str) -> Envelope {
    Envelope::builder(kms.provider(key).unwrap())
        .shared_cache(&DataKeyCache::new(CacheLimits::default()).unwrap())
        .build()
        .unwrap()
}

fn seals(envelope: &Envelope) -> bool {
    let context = EncryptionContext::from([("tenant", "acme")]);
    pollster::block_on(envelope.encrypt(b"x", &context)).is_ok()
}

fn new_key(kms: &LocalKms) -> String {
    pollster::block_on(kms.create_key(CreateKeyRequest::default())).unwrap().key_id
}

/// How long the cache goes on serving a key that `disable` has disabled.
fn served_for(kms: &LocalKms, disable: impl FnOnce(&str)) -> Duration {
    let key = new_key(kms);
    let envelope = cached(kms, &key);
    assert!(seals(&envelope));
    disable(&key);
    let start = Instant::now();
    while seals(&envelope) {
        assert!(start.elapsed() < Duration::from_secs(60), "the revocation never came");
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed()
}

/// Other programs may keep the thread that looks from the processor or from the disk, though not each time.
#[track_caller]
fn within_a_second(mut served_for: impl FnMut() -> Duration) {
    let mut all = Vec::new();
    while all.last().is_none_or(|served| *served >= Duration::from_secs(1)) {
        assert!(all.len() < 5, "{all:?}");
        all.push(served_for());
    }
}

#[test]
fn a_key_disabled_in_this_process_is_served_no_more_at_the_next_call() {
    let folder = tempfile::tempdir().unwrap();
    let kms = open(folder.path()).unwrap();
    let key = new_key(&kms);
    let envelope = cached(&kms, &key);
    assert!(seals(&envelope) && seals(&envelope));
    pollster::block_on(kms.disable_key(&key)).unwrap();
    assert!(!seals(&envelope));
    pollster::block_on(kms.enable_key(&key)).unwrap();
    // A cache remembers a refusal for a moment; another has not heard of it.
    let envelope = cached(&kms, &key);
    assert!(seals(&envelope));
    pollster::block_on(kms.schedule_key_deletion(&key, envelock::kms::DeletionWindow::default())).unwrap();
    assert!(!seals(&envelope));
}

#[test]
fn a_key_disabled_by_another_opening_is_served_no_more_within_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let (kms, other) = (open(folder.path()).unwrap(), open(folder.path()).unwrap());
    within_a_second(|| served_for(&kms, |key| pollster::block_on(other.disable_key(key)).unwrap()));
}

#[test]
fn a_key_disabled_by_another_process_is_served_no_more_within_a_second_of_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let kms = open(folder.path()).unwrap();
    within_a_second(|| {
        served_for(&kms, |key| {
            let mut process = helper(&format!("disable {key}"), folder.path()).stdout(Stdio::null()).spawn().unwrap();
            assert!(process.wait().unwrap().success());
        })
    });
}
