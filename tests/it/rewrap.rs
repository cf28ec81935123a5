//! Rewrap: new slots on the same core and body, whatever happens in between.

mod journals;
mod others;

use crate::support::model::Head;
use crate::support::providers::{Calls, Counted, Down, Scripted, all, at_least, raw};
use crate::support::random::Random;
use crate::support::sample::pattern;
use crate::support::say;
use envelock::{
    DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, EncryptionContext, Envelope, Error, ErrorKind,
    FileOptions, GeneratedDataKey, Header, KeyProvider, KmsContext, Limits, Recipient, Result, RewrapMode,
    RewrapOptions, async_trait, blocking,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn envelope(provider: &Arc<dyn KeyProvider>) -> blocking::Envelope {
    blocking::Envelope::new(Envelope::builder(Arc::clone(provider)).segment_len(1_024).build().unwrap())
}

fn context() -> EncryptionContext {
    EncryptionContext::from([("object", "a")])
}

struct Scene {
    _folder: tempfile::TempDir,
    path: PathBuf,
    plaintext: Vec<u8>,
}

impl Scene {
    /// A file for `provider`'s recipients, its slots padded as those of files are.
    fn new(provider: &Arc<dyn KeyProvider>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (source, path) = (folder.path().join("a"), folder.path().join("a.elk"));
        let plaintext = pattern(5_000);
        fs::write(&source, &plaintext).unwrap();
        envelope(provider).encrypt_file(&source, &path, &context(), FileOptions::default()).unwrap();
        Self { _folder: folder, path, plaintext }
    }

    /// The same with slots that fill their area to the last byte.
    fn tight(provider: &Arc<dyn KeyProvider>) -> Self {
        let scene = Self::new(provider);
        fs::write(&scene.path, envelope(provider).encrypt(&scene.plaintext, &context()).unwrap()).unwrap();
        scene
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    fn journal(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".rewrap");
        name.into()
    }

    fn opens(&self, provider: &Arc<dyn KeyProvider>) -> Result<()> {
        let out = self.path.with_extension(format!("{:?}", std::thread::current().id()));
        let options = FileOptions::default().replace_existing();
        envelope(provider).decrypt_file(&self.path, &out, &context(), options)?;
        assert_eq!(fs::read(&out).unwrap(), self.plaintext);
        Ok(())
    }

    fn fails_with(&self, provider: &Arc<dyn KeyProvider>) -> ErrorKind {
        self.opens(provider).unwrap_err().kind()
    }

    fn slots(&self) -> Vec<(String, bool)> {
        let header = Header::parse(&self.bytes()).unwrap();
        header.slots().iter().map(|slot| (slot.key_id_text(), slot.is_missing())).collect()
    }

    fn rewrap(&self, old: &Arc<dyn KeyProvider>, new: &Arc<dyn KeyProvider>) -> envelock::Rewrapped {
        envelope(old).rewrap_file(&self.path, &envelope(new), &context(), RewrapOptions::default()).unwrap()
    }
}

/// Core and body: what no rewrap changes.
fn lasting(message: &[u8]) -> Vec<u8> {
    let head = Head::judge(message).unwrap();
    [&message[head.core], &message[head.floe.start..]].concat()
}

#[test]
fn a_rewrap_in_place_changes_the_slots_and_nothing_else() {
    let (old, new) = (raw("old", 1), raw("new key of a longer name", 2));
    let scene = Scene::new(&old);
    let before = scene.bytes();
    let done = scene.rewrap(&old, &new);
    let after = scene.bytes();
    assert!(done.in_place && done.notice.is_none());
    assert_eq!((lasting(&before), before.len()), (lasting(&after), after.len()));
    assert_ne!(before, after);
    scene.opens(&new).unwrap();
    assert_eq!(scene.fails_with(&old), ErrorKind::NoMatchingKey);
    assert!(!scene.journal().exists());
}

#[test]
fn slots_that_do_not_fit_are_written_to_a_copy_that_takes_the_files_place() {
    let (old, new) = (raw("old", 1), raw("a longer name", 2));
    let scene = Scene::tight(&old);
    let before = scene.bytes();
    assert!(!scene.rewrap(&old, &new).in_place);
    assert_eq!(lasting(&before), lasting(&scene.bytes()));
    scene.opens(&new).unwrap();
    assert_eq!(scene.fails_with(&old), ErrorKind::NoMatchingKey);
    // The copy is padded: the next one fits.
    assert!(scene.rewrap(&new, &old).in_place);
}

#[test]
fn a_rewrap_to_another_file_leaves_the_first_as_it_was() {
    let (old, new) = (raw("old", 1), raw("new", 2));
    let scene = Scene::new(&old);
    let before = scene.bytes();
    let to = scene.path.with_extension("copy");
    let options = || RewrapOptions::default().to_file(&to);
    let rewrap = || envelope(&old).rewrap_file(&scene.path, &envelope(&new), &context(), options());
    assert!(!rewrap().unwrap().in_place);
    assert_eq!(scene.bytes(), before);
    assert_eq!(lasting(&fs::read(&to).unwrap()), lasting(&before));
    assert_eq!(envelope(&new).verify_file(&to, &context()).unwrap(), 5_000);
    assert_eq!(rewrap().unwrap_err().kind(), ErrorKind::InvalidInput, "it exists now");
}

#[test]
fn a_recipient_that_was_missing_is_recorded_listed_and_filled_by_a_later_rewrap() {
    let (near, far) = (raw("near", 1), raw("far", 2));
    let down = Down::shared("raw", "far", ErrorKind::Unavailable);
    assert_eq!(
        blocking::wait(at_least(2, &[&near, &down]).encrypt_data_key(&Scripted::key(), &kms())).unwrap_err().kind(),
        ErrorKind::Unavailable,
        "all must wrap"
    );
    let scene = Scene::new(&at_least(1, &[&near, &down]));
    assert_eq!(scene.slots(), [("near".to_owned(), false), ("far".to_owned(), true)]);
    assert_eq!(scene.fails_with(&far), ErrorKind::NoMatchingKey);
    assert!(scene.rewrap(&near, &all(&[&near, &far])).in_place);
    assert_eq!(scene.slots(), [("near".to_owned(), false), ("far".to_owned(), false)]);
    scene.opens(&far).unwrap();
    scene.opens(&near).unwrap();
}

fn kms() -> KmsContext {
    KmsContext::new(&EncryptionContext::new()).unwrap()
}

#[test]
fn a_planted_empty_slot_gets_nothing() {
    let (owner, thief) = (raw("owner", 1), raw("thief", 9));
    let scene = Scene::new(&owner);
    // Whoever can write the storage adds an empty slot that names his own key.
    let mut message = scene.bytes();
    let head = Head::judge(&message).unwrap();
    let planted = b"\x03raw\x00\x05thief\x00\x00";
    message[head.area.start] = 2;
    message[head.padding.start..head.padding.start + planted.len()].copy_from_slice(planted);
    fs::write(&scene.path, &message).unwrap();
    assert_eq!(scene.slots(), [("owner".to_owned(), false), ("thief".to_owned(), true)]);
    scene.opens(&owner).unwrap();
    let (next, calls) = Counted::wrap(raw("next", 2));
    scene.rewrap(&owner, &next);
    assert_eq!(scene.slots(), [("next".to_owned(), false)]);
    assert_eq!(calls.encrypt.load(Ordering::SeqCst), 1);
    assert_eq!(scene.fails_with(&thief), ErrorKind::NoMatchingKey);
    scene.opens(&next).unwrap();
}

/// A KMS whose principal may re-encrypt and not decrypt.
#[derive(Debug)]
struct MayReEncrypt {
    old: Arc<dyn KeyProvider>,
    new: Arc<dyn KeyProvider>,
}

#[async_trait]
impl KeyProvider for MayReEncrypt {
    fn recipients(&self) -> Vec<Recipient> {
        self.new.recipients()
    }

    async fn generate_data_key(&self, _: DataKeyLength, _: &KmsContext) -> Result<GeneratedDataKey> {
        Err(Error::new(ErrorKind::KeyDenied, "kms:GenerateDataKey is denied"))
    }

    async fn encrypt_data_key(&self, _: &DataKey, _: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        Err(Error::new(ErrorKind::KeyDenied, "kms:Encrypt is denied"))
    }

    async fn decrypt_data_key(&self, _: &EncryptedDataKey, _: &KmsContext) -> DataKeyAnswer {
        DataKeyAnswer::Failed(Error::new(ErrorKind::KeyDenied, "kms:Decrypt is denied"))
    }

    async fn re_encrypt_data_key(
        &self,
        slot: &EncryptedDataKey,
        context: &KmsContext,
    ) -> Result<Option<Vec<EncryptedDataKey>>> {
        // Inside the KMS.
        match self.old.decrypt_data_key(slot, context).await {
            DataKeyAnswer::Key(key) => self.new.encrypt_data_key(&key, context).await.map(Some),
            DataKeyAnswer::Failed(error) => Err(error),
            DataKeyAnswer::NotMine => Ok(None),
        }
    }
}

fn blind(scene: &Scene, principal: &Arc<dyn KeyProvider>) -> Result<envelock::Rewrapped> {
    let options = RewrapOptions::default().mode(RewrapMode::Blind);
    let principal = envelope(principal);
    principal.rewrap_file(&scene.path, &principal, &context(), options)
}

#[test]
fn a_blind_rewrap_needs_no_right_to_decrypt_and_sees_no_data_key() {
    let (old, new) = (raw("old", 1), raw("new", 2));
    // Five foreign slots before ours: they cost no call, and so no try.
    let others: Vec<_> = (10..15).map(|n| raw(&format!("other {n}"), n)).collect();
    let writers: Vec<_> = others.iter().chain([&old]).collect();
    let scene = Scene::new(&all(&writers));
    let before = scene.bytes();
    let inner: Arc<dyn KeyProvider> = Arc::new(MayReEncrypt { old, new: Arc::clone(&new) });
    let (principal, calls) = Counted::wrap(inner);
    assert!(blind(&scene, &principal).unwrap().in_place);
    let Calls { generate, encrypt, decrypt, re_encrypt } = &*calls;
    let count = |it: &AtomicUsize| it.load(Ordering::SeqCst);
    assert_eq!([count(generate), count(encrypt), count(decrypt)], [0, 0, 0]);
    assert_eq!((count(re_encrypt), calls.re_encrypts()), (6, 6));
    say(format!("blind rewrap: {} re-encrypts, {} decrypts", calls.re_encrypts(), calls.decrypts()));
    assert_eq!(lasting(&before), lasting(&scene.bytes()));
    scene.opens(&new).unwrap();
    assert_eq!(scene.fails_with(&principal), ErrorKind::KeyDenied);
}

#[test]
fn a_blind_rewrap_that_no_provider_can_do_leaves_the_file() {
    let old = raw("old", 1);
    let scene = Scene::new(&old);
    let before = scene.bytes();
    assert_eq!(blind(&scene, &old).unwrap_err().kind(), ErrorKind::Unsupported);
    let down = Down::shared("raw", "old", ErrorKind::Unavailable);
    assert_eq!(blind(&scene, &down).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!((scene.bytes(), scene.journal().exists()), (before, false));
}

#[test]
fn a_rewrap_whose_new_provider_fails_leaves_the_file() {
    let old = raw("old", 1);
    let scene = Scene::new(&old);
    let before = scene.bytes();
    let down = Down::shared("com.example.hsm", "new", ErrorKind::KeyDenied);
    let error =
        envelope(&old).rewrap_file(&scene.path, &envelope(&down), &context(), RewrapOptions::default()).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::KeyDenied, Some(scene.path.as_path())));
    let stranger = raw("stranger", 7);
    let error = envelope(&stranger)
        .rewrap_file(&scene.path, &envelope(&old), &context(), RewrapOptions::default())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoMatchingKey);
    assert_eq!((scene.bytes(), scene.journal().exists()), (before, false));
}

/// The state in which a rewrap from `old` to `new` may be interrupted: (before, after, journal).
fn interrupted(scene: &Scene, old: &Arc<dyn KeyProvider>, new: &Arc<dyn KeyProvider>) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let before = scene.bytes();
    assert!(scene.rewrap(old, new).in_place);
    let after = scene.bytes();
    let journal = journal(&before, &after);
    (before, after, journal)
}

/// docs/format.md: `01 || u16(m) || old || new || SHA-256(all before it || core || FLOE header)`.
fn journal(before: &[u8], after: &[u8]) -> Vec<u8> {
    let head = Head::judge(before).unwrap();
    let m = u16::try_from(head.area.len()).unwrap();
    let mut journal = [&[1][..], &m.to_be_bytes(), &before[head.area.clone()], &after[head.area.clone()]].concat();
    let hashed = [&journal[..], &before[head.core.clone()], &before[head.floe.clone()]].concat();
    journal.extend_from_slice(&sha256(&hashed));
    journal
}

/// FIPS 180-4, written out: the tests' own, so that the journal is made by hand.
fn sha256(message: &[u8]) -> [u8; 32] {
    let primes = || (2_u64..).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0));
    let root = |n: u64, power: i32| {
        // The first 32 bits of the fraction of a root, by bisection on integers.
        let (mut low, mut high) = (0_u128, 1_u128 << 40);
        let wanted = u128::from(n) << (32 * power);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if middle.pow(power.unsigned_abs()) <= wanted { low = middle } else { high = middle }
        }
        u32::try_from(low & 0xFFFF_FFFF).unwrap()
    };
    let k: Vec<u32> = primes().take(64).map(|n| root(n, 3)).collect();
    let mut state: Vec<u32> = primes().take(8).map(|n| root(n, 2)).collect();
    let mut padded = [message, &[0x80]].concat();
    padded.resize(padded.len().next_multiple_of(64) + if padded.len() % 64 > 56 { 64 } else { 0 }, 0);
    let end = padded.len();
    padded[end - 8..].copy_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks(64) {
        let mut w: Vec<u32> = block.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        for i in 16..64 {
            let s0 = w[i - 15].rotate_right(7) ^ w[i - 15].rotate_right(18) ^ (w[i - 15] >> 3);
            let s1 = w[i - 2].rotate_right(17) ^ w[i - 2].rotate_right(19) ^ (w[i - 2] >> 10);
            w.push(w[i - 16].wrapping_add(s0).wrapping_add(w[i - 7]).wrapping_add(s1));
        }
        let mut v = state.clone();
        for i in 0..64 {
            let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let choice = (v[4] & v[5]) ^ (!v[4] & v[6]);
            let t1 = [s1, choice, k[i], w[i]].iter().fold(v[7], |sum, n| sum.wrapping_add(*n));
            let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            v.rotate_right(1);
            v[4] = v[4].wrapping_add(t1);
            v[0] = t1.wrapping_add(s0).wrapping_add(majority);
        }
        state.iter_mut().zip(v).for_each(|(sum, word)| *sum = sum.wrapping_add(word));
    }
    let bytes: Vec<u8> = state.iter().flat_map(|word| word.to_be_bytes()).collect();
    bytes.try_into().unwrap()
}

#[test]
fn the_hash_of_these_tests_is_sha_256() {
    let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(hex(sha256(&[b'a'; 120])), "2f3d335432c70b580af0e8e1b3674a7c020d683aa5f73aaaedfdc55af904c21c");
}

/// The file as a crash may leave it: each byte of the slots old or new.
fn torn(before: &[u8], after: &[u8], random: &mut Random) -> Vec<u8> {
    let area = Head::judge(before).unwrap().area;
    let mut torn = before.to_vec();
    match random.below(4) {
        // Everything up to some byte, everything from some byte on, blocks, single bytes.
        0 => {
            let end = area.start + random.below(area.len() + 1);
            torn[area.start..end].copy_from_slice(&after[area.start..end]);
        }
        1 => {
            let start = area.start + random.below(area.len() + 1);
            torn[start..area.end].copy_from_slice(&after[start..area.end]);
        }
        _ => {
            let block = [1, 3, 16, 100][random.below(4)];
            for start in area.clone().step_by(block) {
                let end = (start + block).min(area.end);
                if random.one_in(2) {
                    torn[start..end].copy_from_slice(&after[start..end]);
                }
            }
        }
    }
    torn
}

#[test]
fn a_file_whose_rewrap_was_interrupted_opens_by_old_and_new_and_the_next_rewrap_finishes_it() {
    let (old, new, next) = (raw("old", 1), raw("new key", 2), raw("next", 3));
    let scene = Scene::new(&all(&[&old, &raw("also old", 4)]));
    let (before, after, journal) = interrupted(&scene, &old, &new);
    let mut random = Random::new(53);
    let (mut unreadable, rounds) = (0, 300);
    for round in 0..rounds {
        let bytes = match round {
            0 => before.clone(),
            1 => after.clone(),
            _ => torn(&before, &after, &mut random),
        };
        unreadable += usize::from(Header::parse(&bytes).is_err());
        fs::write(&scene.path, &bytes).unwrap();
        fs::write(scene.journal(), &journal).unwrap();
        scene.opens(&old).unwrap_or_else(|e| panic!("round {round}, old: {e:?}"));
        scene.opens(&new).unwrap_or_else(|e| panic!("round {round}, new: {e:?}"));
        assert_eq!(envelope(&new).verify_file(&scene.path, &context()).unwrap(), 5_000);
        assert_eq!(
            (scene.bytes(), fs::read(scene.journal()).unwrap()),
            (bytes, journal.clone()),
            "readers write nothing"
        );
        let stranger = scene.fails_with(&raw("stranger", 8));
        assert!(matches!(stranger, ErrorKind::NoMatchingKey | ErrorKind::Malformed), "{stranger:?}");
        // Recovery writes the new slots, whichever were there: so the new key opens the file.
        let done = scene.rewrap(&new, &next);
        assert!(done.in_place && done.notice.unwrap().contains("finished"), "{:?}", done.notice);
        assert!(!scene.journal().exists());
        scene.opens(&next).unwrap();
    }
    say(format!("interrupted rewraps: {rounds}, the head itself unreadable in {unreadable}"));
    assert!(unreadable > 20);
}

#[test]
fn a_journal_of_another_state_is_not_applied_and_removed_with_a_line() {
    let (old, new) = (raw("old", 1), raw("new", 2));
    let scene = Scene::new(&old);
    let other = Scene::new(&old);
    let (_, _, foreign) = interrupted(&other, &old, &new);
    let (before, after, good) = interrupted(&scene, &old, &new);
    let m = Head::judge(&before).unwrap().area.len();
    let flipped = |at: usize| {
        let mut journal = good.clone();
        journal[at] ^= 1;
        journal
    };
    let bad = [
        ("of another message", foreign),
        ("empty", Vec::new()),
        ("cut", good[..good.len() - 1].to_vec()),
        ("cut to its first bytes", good[..2].to_vec()),
        ("without its first sector", [&[0; 512][..], &good[512..]].concat()),
        ("of another m", flipped(1)),
        ("with other old slots", flipped(3)),
        ("with other new slots", flipped(3 + m)),
        ("with another hash", flipped(good.len() - 1)),
        ("with old slots that the file never had", journal(&after, &after)),
    ];
    let mut half = before.clone();
    let area = Head::judge(&before).unwrap().area;
    half[area.start + 20..area.end].copy_from_slice(&after[area.start + 20..area.end]);
    for (what, journal) in &bad {
        fs::write(&scene.path, &before).unwrap();
        fs::write(scene.journal(), journal).unwrap();
        scene.opens(&old).unwrap_or_else(|e| panic!("{what}: {e:?}"));
        assert_eq!(scene.fails_with(&new), ErrorKind::NoMatchingKey, "{what}");
        let done = scene.rewrap(&old, &old);
        assert!(done.notice.unwrap().contains("removed"), "{what}: {:?}", done.notice);
        assert!(!scene.journal().exists(), "{what}");
        scene.opens(&old).unwrap();
        // Where the slots are torn and the journal does not fit, no key is found, and the reader says so.
        fs::write(&scene.path, &half).unwrap();
        fs::write(scene.journal(), journal).unwrap();
        let (a, b) = (scene.fails_with(&old), scene.fails_with(&new));
        let expected = [ErrorKind::Malformed, ErrorKind::AuthenticationFailed, ErrorKind::NoMatchingKey];
        assert!(expected.contains(&a) && expected.contains(&b), "{what}: {a:?}, {b:?}");
        fs::remove_file(scene.journal()).unwrap();
    }
}

#[test]
fn a_rewrap_to_another_file_reads_an_interrupted_one_and_leaves_it_for_whoever_may_finish_it() {
    let (old, new, third) = (raw("old", 1), raw("new", 2), raw("third", 3));
    let mut random = Random::new(23);
    for round in 0..20 {
        let scene = Scene::new(&old);
        let (before, after, journal) = interrupted(&scene, &old, &new);
        fs::write(scene.journal(), &journal).unwrap();
        fs::write(&scene.path, torn(&before, &after, &mut random)).unwrap();
        let there = scene.bytes();
        let to = scene.path.with_extension("copy");
        // Whoever has either key can.
        let opens = if round % 2 == 0 { &old } else { &new };
        let options = RewrapOptions::default().to_file(&to);
        envelope(opens).rewrap_file(&scene.path, &envelope(&third), &context(), options).unwrap();
        assert_eq!((scene.bytes(), fs::read(scene.journal()).unwrap()), (there, journal));
        assert_eq!(envelope(&third).verify_file(&to, &context()).unwrap(), scene.plaintext.len() as u64);
        let stranger = raw("stranger", 9);
        let options = RewrapOptions::default().to_file(scene.path.with_extension("none"));
        let error = envelope(&stranger).rewrap_file(&scene.path, &envelope(&third), &context(), options).unwrap_err();
        assert_eq!(error.path(), Some(scene.path.as_path()));
    }
}

/// The same message with the longest slots area there can be, its end padding.
fn widened(message: &[u8]) -> Vec<u8> {
    let head = Head::judge(message).unwrap();
    let (core, area, rest) = (&message[head.core], &message[head.area], &message[head.floe.start..]);
    [core, &[0xFF; 2], area, &vec![0; usize::from(u16::MAX) - area.len()], rest].concat()
}

#[test]
fn a_reader_that_takes_longer_heads_recovers_them_too() {
    let (old, new, third) = (raw("old", 1), raw("new", 2), raw("third", 3));
    let mut limits = Limits::default();
    limits.header_bytes = 80_000;
    let patient = |provider: &Arc<dyn KeyProvider>| {
        blocking::Envelope::new(Envelope::builder(Arc::clone(provider)).limits(limits.clone()).build().unwrap())
    };
    // With the longest area, a core of this length takes the head past the default limit.
    let context = EncryptionContext::from([("object", "a".repeat(3_000).as_str())]);
    let folder = tempfile::tempdir().unwrap();
    let [path, pending] = ["a.elk", "a.elk.rewrap"].map(|name| folder.path().join(name));
    fs::write(&path, envelope(&old).encrypt(&pattern(5_000), &context).unwrap()).unwrap();
    let short = fs::read(&path).unwrap();
    envelope(&old).rewrap_file(&path, &envelope(&new), &context, RewrapOptions::default()).unwrap();
    let (before, after) = (widened(&short), widened(&fs::read(&path).unwrap()));
    let head = Head::judge(&short).unwrap();
    let area = head.area.start..head.area.start + usize::from(u16::MAX);
    let mut journal = [&[1, 0xFF, 0xFF], &before[area.clone()], &after[area.clone()]].concat();
    let floe = &before[area.end..area.end + head.floe.len()];
    journal.extend(sha256(&[&journal, &before[head.core], floe].concat()));
    // Each key opens what it does not find in the file by the journal alone.
    for there in [&before, &after] {
        fs::write(&path, there).unwrap();
        fs::write(&pending, &journal).unwrap();
        for provider in [&old, &new] {
            assert_eq!(patient(provider).verify_file(&path, &context).unwrap(), 5_000);
            let refused = envelope(provider).verify_file(&path, &context).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
        }
        // Such slots are not written, so the message is copied, after the journal was finished.
        let done = patient(&new).rewrap_file(&path, &patient(&third), &context, RewrapOptions::default()).unwrap();
        assert!(!done.in_place && done.notice.unwrap().contains("finished"), "{:?}", done.notice);
        assert_eq!(envelope(&third).verify_file(&path, &context).unwrap(), 5_000);
        assert!(!pending.exists());
    }
}

#[test]
fn tries_are_counted_over_the_file_and_its_journal_together() {
    let old: Vec<_> = (0..3).map(|n| raw(&format!("key {n}"), n)).collect();
    let members: Vec<_> = old.iter().collect();
    let scene = Scene::new(&all(&members));
    let (before, after, journal) = interrupted(&scene, &old[0], &all(&members));
    // The slots as they are and the journal's, old and new: more of the reader's than he may try, and none opens.
    let mixed = {
        let area = Head::judge(&before).unwrap().area;
        let mut mixed = before.clone();
        mixed[area.start + 30..area.end].copy_from_slice(&after[area.start + 30..area.end]);
        mixed
    };
    let (reader, calls) = Counted::wrap(Scripted::shared(Vec::new(), |_| {
        DataKeyAnswer::Failed(Error::new(ErrorKind::AuthenticationFailed, "not my key"))
    }));
    for bytes in [&mixed, &before, &after] {
        fs::write(&scene.path, bytes).unwrap();
        fs::write(scene.journal(), &journal).unwrap();
        let calls_before = calls.decrypts();
        assert!(envelope(&reader).verify_file(&scene.path, &context()).is_err());
        assert_eq!(calls.decrypts() - calls_before, 4);
    }
}

/// Runs `work` on threads until each has done `rounds`, and collects what failed.
fn stress(
    path: &Path,
    rounds: usize,
    writers: &[Box<dyn Fn() -> Result<()> + Send + Sync>],
    reader: &(dyn Fn() -> Result<()> + Sync),
) -> usize {
    let done = AtomicBool::new(false);
    let reads = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !done.load(Ordering::SeqCst) {
                        reader().unwrap_or_else(|e| panic!("a reader of {} failed: {e:?}", path.display()));
                        reads.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let writers: Vec<_> = writers
            .iter()
            .map(|work| {
                scope.spawn(move || (0..rounds).for_each(|n| work().unwrap_or_else(|e| panic!("rewrap {n}: {e:?}"))))
            })
            .collect();
        let failed: Vec<_> = writers.into_iter().map(|it| it.join().is_err()).collect();
        done.store(true, Ordering::SeqCst);
        let unread: Vec<_> = readers.into_iter().map(|it| it.join().is_err()).collect();
        assert!(!failed.contains(&true) && !unread.contains(&true), "writers {failed:?}, readers {unread:?}");
    });
    reads.into_inner()
}

#[test]
fn rewraps_of_one_file_at_once_and_readers_meanwhile_fail_nowhere_and_lose_nothing() {
    let (one, two) = (raw("one", 1), raw("the second", 2));
    let both = all(&[&one, &two]);
    let scene = Scene::new(&both);
    let before = scene.bytes();
    let rounds = 150;
    let rewrap = |to: &Arc<dyn KeyProvider>| -> Box<dyn Fn() -> Result<()> + Send + Sync> {
        let (from, to, path) = (envelope(&both), envelope(to), scene.path.clone());
        Box::new(move || from.rewrap_file(&path, &to, &context(), RewrapOptions::default()).map(|_| ()))
    };
    let read = || {
        assert_eq!(envelope(&both).verify_file(&scene.path, &context())?, 5_000);
        scene.opens(&both)
    };
    let reads = stress(&scene.path, rounds, &[rewrap(&one), rewrap(&two)], &read);
    say(format!("rewraps at once: {}, reads meanwhile: {reads}", 2 * rounds));
    assert!(reads > 20, "only {reads} reads");
    scene.opens(&both).unwrap();
    assert_eq!(lasting(&before), lasting(&scene.bytes()));
    assert!(!scene.journal().exists());
    assert_eq!(scene.opens(&one).is_ok(), scene.opens(&two).is_err(), "one of them came last");
}
