//! What is done to keys while they are looked for. Each scene is a process.

use super::keys::{masked, unmask};
use super::scan::Scanner;
use crate::support::child::{hear, tell};
use crate::support::hex;
use envelock::blocking::{self, Envelope};
use envelock::{
    AeadAlgorithm, AssociatedData, DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, EncryptionContext,
    EnvelopeBuilder, ErrorKind, FileOptions, GeneratedDataKey, KeyProvider, KmsContext, LocalKms, PassphraseCost,
    PassphraseProvider, RawKeyProvider, Recipient, Result, RewrapMode, RewrapOptions, RootKey, Secret, Threads,
    async_trait, read_header,
};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use zeroize::Zeroizing;

/// Looks for the keys of one scene.
#[derive(Clone)]
pub(super) struct Watch {
    scanner: Arc<Mutex<Scanner>>,
    data_keys: Arc<AtomicUsize>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { scanner: Arc::new(Mutex::new(Scanner::new())), data_keys: Arc::default() }
    }

    pub(super) fn learn(&self, request: &str) {
        self.scanner.lock().unwrap().learn(request);
    }

    #[track_caller]
    pub(super) fn expect(&self, names: &[&str]) {
        // On a stack of its own, so that the search does not overwrite what it looks for.
        std::thread::scope(|scope| scope.spawn(|| self.scanner.lock().unwrap().expect(names)).join().unwrap());
    }

    #[track_caller]
    pub(super) fn expect_nothing(&self) {
        std::thread::scope(|scope| scope.spawn(|| self.scanner.lock().unwrap().expect_nothing()).join().unwrap());
    }

    /// A data key that a provider holds right now.
    pub(super) fn data_key(&self, key: &DataKey) {
        let name = format!("data-key-{}", self.data_keys.fetch_add(1, Ordering::SeqCst) + 1);
        self.learn(&format!("data-key {name} {}", masked(key.expose())));
        self.expect(&[&name]);
    }

    /// The keys of the message that `head` begins, under the data key last seen.
    pub(super) fn message(&self, head: &[u8]) {
        self.learn(&format!("message data-key-{} {}", self.data_keys.load(Ordering::SeqCst), hex(head)));
    }

    /// A raw provider on a key of the parent's.
    pub(super) fn raw(&self, name: &str) -> RawKeyProvider {
        tell(format!("make {name} 32"));
        let mut key = None;
        unmask(&hear(), |write| key = Some(Secret::<32>::init(|out| write(out))));
        self.learn(&format!("needle {name}"));
        RawKeyProvider::new(name, key.unwrap()).unwrap()
    }

    fn envelope(&self, provider: impl KeyProvider + 'static) -> Envelope {
        self.envelope_of(provider, AeadAlgorithm::Aes256Gcm)
    }

    pub(super) fn envelope_of(&self, provider: impl KeyProvider + 'static, aead: AeadAlgorithm) -> Envelope {
        Envelope::new(self.builder(provider).aead(aead).build().unwrap())
    }

    pub(super) fn builder(&self, provider: impl KeyProvider + 'static) -> EnvelopeBuilder {
        envelock::Envelope::builder(Watched { inner: Box::new(provider), watch: self.clone() })
    }
}

/// A provider whose data keys are looked for while it hands them out.
struct Watched {
    inner: Box<dyn KeyProvider>,
    watch: Watch,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl KeyProvider for Watched {
    fn recipients(&self) -> Vec<Recipient> {
        self.inner.recipients()
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        let generated = self.inner.generate_data_key(length, context).await?;
        self.watch.data_key(&generated.key);
        Ok(generated)
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        self.inner.encrypt_data_key(key, context).await
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        let answer = self.inner.decrypt_data_key(slot, context).await;
        if let DataKeyAnswer::Key(key) = &answer {
            self.watch.data_key(key);
        }
        answer
    }
}

pub(super) const AEADS: [AeadAlgorithm; 2] = [AeadAlgorithm::Aes256Gcm, AeadAlgorithm::ChaCha20Poly1305];
/// More than two segments.
pub(super) const PLAINTEXT: &[u8] = &[0x5A; 150_000];

pub(super) fn none() -> EncryptionContext {
    EncryptionContext::new()
}

pub(super) fn head_of(message: &[u8]) -> Vec<u8> {
    let header = read_header(&mut &message[..], &envelock::Limits::default()).unwrap();
    message[..header.len()].to_vec()
}

pub(super) fn encrypt() {
    let watch = Watch::new();
    for (n, aead) in AEADS.into_iter().enumerate() {
        let name = format!("wrapping-key-{n}");
        let envelope = watch.envelope_of(watch.raw(&name), aead);
        let encryptor = envelope.encryptor(&none()).unwrap();
        watch.learn(&format!("raw-wrap {name} {}", hex(encryptor.head())));
        watch.message(encryptor.head());
        watch.expect(&[&name, "message-key"]);
        let mut writer = encryptor.into_writer(Vec::new());
        writer.write_all(PLAINTEXT).unwrap();
        watch.expect(&[&name, "message-key"]);
        let sealed = writer.finish().unwrap();
        let whole = envelope.encrypt(PLAINTEXT, &none()).unwrap();
        watch.message(&head_of(&whole));
        // Detached segments, by position and whole.
        let encryptor = envelope.encryptor(&none()).unwrap();
        watch.message(encryptor.head());
        let message = encryptor.seal(PLAINTEXT).unwrap();
        drop(envelope);
        assert!(sealed.len() > PLAINTEXT.len() && message.len() == whole.len());
        watch.expect_nothing();
    }
}

pub(super) fn decrypt() {
    let watch = Watch::new();
    for (n, aead) in AEADS.into_iter().enumerate() {
        let name = format!("wrapping-key-{n}");
        let envelope = watch.envelope_of(watch.raw(&name), aead);
        let sealed = envelope.encrypt(PLAINTEXT, &none()).unwrap();
        watch.message(&head_of(&sealed));
        let mut reader = envelope.decrypt_reader(sealed.as_slice(), &none()).unwrap();
        let mut some = [0; 1000];
        reader.read_exact(&mut some).unwrap();
        watch.expect(&[&name, "message-key"]);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        drop(reader);
        assert_eq!(envelope.decrypt(&sealed, &none()).unwrap(), PLAINTEXT);
        let range = envelope.range_reader(sealed.as_slice(), &none()).unwrap();
        assert_eq!(range.read_at(&mut some, 70_000).unwrap(), some.len());
        watch.expect(&[&name, "message-key"]);
        drop((range, envelope));
        watch.expect_nothing();
    }
}

pub(super) fn records() {
    let watch = Watch::new();
    let envelope = watch.envelope(watch.raw("wrapping-key"));
    let place = AssociatedData::from_bytes("place");
    let set = envelope.record_set(&none()).unwrap();
    let data_key = format!("data-key-{}", watch.data_keys.load(Ordering::SeqCst));
    let record = set.seal(&[0x5A; 100], &place).unwrap();
    watch.learn(&format!("records {data_key} {} {}", hex(set.header()), hex(&record)));
    // The first round keys of AES are the key itself, in one piece on common processors and not on all.
    watch.expect(&["wrapping-key"]);
    let again = envelope.open_record_set(set.header(), &none()).unwrap();
    assert_eq!(again.open(&record, &place).unwrap(), [0x5A; 100]);
    let batch = vec![(record.clone(), place.clone()); 10];
    again.open_batch(&batch).unwrap();
    again.seal_batch(&batch).unwrap();
    let mut bad = record.clone();
    bad[60] ^= 1;
    assert_eq!(again.open(&bad, &place).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
    // A set whose tag is another's: its key was derived, and is not the one.
    let mut forged = set.header().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(envelope.open_record_set(&forged, &none()).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
    let value = envelope.seal_value(&[0x5A; 100], &none()).unwrap();
    envelope.open_value(&value, &none()).unwrap();
    let moved = envelope.rewrap_record_set(set.header(), &envelope, &none(), RewrapOptions::default()).unwrap();
    assert_eq!(moved.header.len(), set.header().len());
    watch.expect(&["wrapping-key"]);
    drop((set, again, envelope));
    watch.expect_nothing();
}

/// A writer that breaks.
#[derive(Debug)]
struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(super) fn fail() {
    let watch = Watch::new();
    for (n, aead) in AEADS.into_iter().enumerate() {
        let name = format!("wrapping-key-{n}");
        let envelope = watch.envelope_of(watch.raw(&name), aead);
        let other = watch.envelope_of(watch.raw(&format!("other-key-{n}")), aead);
        let sealed = envelope.encrypt(PLAINTEXT, &none()).unwrap();
        watch.message(&head_of(&sealed));
        watch.expect(&[&name]);

        // A writer that is not finished, one that breaks, and a future that is dropped before its end.
        let mut writer = envelope.encrypt_writer(Vec::new(), &none()).unwrap();
        writer.write_all(PLAINTEXT).unwrap();
        drop(writer);
        let mut writer = envelope.encrypt_writer(Broken, &none()).unwrap();
        writer.write_all(PLAINTEXT).unwrap_err();
        writer.finish().unwrap_err();
        // A segment that is not authentic, a head that is not, the end missing, the key of another.
        let mut bad = sealed.clone();
        bad[sealed.len() - 1] ^= 1;
        assert_eq!(envelope.decrypt(&bad, &none()).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
        let mut read = Vec::new();
        envelope.decrypt_reader(bad.as_slice(), &none()).unwrap().read_to_end(&mut read).unwrap_err();
        let mut bad = sealed.clone();
        bad[head_of(&sealed).len() - 1] ^= 1;
        assert_eq!(envelope.decrypt(&bad, &none()).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
        let cut = &sealed[..sealed.len() - 1];
        assert_eq!(envelope.decrypt(cut, &none()).unwrap_err().kind(), ErrorKind::Truncated);
        assert_eq!(other.decrypt(&sealed, &none()).unwrap_err().kind(), ErrorKind::NoMatchingKey);
        // A context that no head has room for.
        let long = EncryptionContext::from([("key", "v".repeat(9000).as_str())]);
        envelope.encrypt(b"x", &long).unwrap_err();
        // A key of a length that is not a key's.
        RawKeyProvider::new("k".repeat(70_000), Secret::init(|out| out.fill(1))).unwrap_err();
        drop((envelope, other));
        watch.expect_nothing();
    }
}

/// A passphrase of the parent's; whom it is given to wipes it.
pub(super) fn make_passphrase(watch: &Watch, name: &str) -> Vec<u8> {
    tell(format!("make {name} 32"));
    let mut passphrase = vec![0; 32];
    unmask(&hear(), |write| write(&mut passphrase));
    watch.learn(&format!("needle {name}"));
    passphrase
}

pub(super) fn passphrase() {
    let watch = Watch::new();
    let passphrase = make_passphrase(&watch, "passphrase");
    let cost = PassphraseCost { memory_kib: 64, passes: 1, lanes: 1 };
    let provider = PassphraseProvider::new(passphrase).unwrap().with_cost(cost).unwrap();
    let envelope = watch.envelope(provider);
    let encryptor = envelope.encryptor(&none()).unwrap();
    watch.learn(&format!("passphrase-wrap passphrase {}", hex(encryptor.head())));
    watch.message(encryptor.head());
    watch.expect(&["passphrase", "message-key"]);
    let sealed = encryptor.seal(PLAINTEXT).unwrap();
    assert_eq!(envelope.decrypt(&sealed, &none()).unwrap(), PLAINTEXT);
    let wrong = PassphraseProvider::new("wrong").unwrap().with_cost(cost).unwrap();
    let wrong = watch.envelope(wrong);
    assert_eq!(wrong.decrypt(&sealed, &none()).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
    drop(envelope);
    watch.expect_nothing();
}

pub(super) fn files() {
    let watch = Watch::new();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("plain"), PLAINTEXT).unwrap();
    // The key file's digits go to the file without a copy that stays.
    tell("make file-key 32");
    assert!(!hear().is_empty());
    tell("text file-key-digits file-key");
    unmask(&hear(), |write| {
        let mut digits = Zeroizing::new(vec![0; 64]);
        write(&mut digits);
        write_for_its_owner(&path("key"), &digits);
    });
    watch.learn("needle file-key file-key-digits");
    watch.expect_nothing();
    let from_file = RawKeyProvider::from_file("file-key", path("key")).unwrap();
    watch.expect(&["file-key"]);
    let (old, new) = (watch.envelope(from_file), watch.envelope(watch.raw("new-key")));
    old.encrypt_file(path("plain"), path("sealed"), &none(), FileOptions::default()).unwrap();
    watch.message(&head_of(&std::fs::read(path("sealed")).unwrap()));
    old.decrypt_file(path("sealed"), path("copy"), &none(), FileOptions::default()).unwrap();
    watch.expect(&["file-key", "new-key"]);
    let options = RewrapOptions::default();
    assert!(old.rewrap_file(path("sealed"), &new, &none(), options.clone()).unwrap().in_place);
    new.rewrap_file(path("sealed"), &old, &none(), options.clone().to_file(path("other"))).unwrap();
    old.rewrap_file(path("sealed"), &new, &none(), options.clone()).unwrap_err();
    old.rewrap_file(path("other"), &new, &none(), options.mode(RewrapMode::Blind)).unwrap_err();
    old.decrypt_file(path("other"), path("copy"), &none(), FileOptions::default()).unwrap_err();
    new.verify_file(path("sealed"), &none()).unwrap();
    let stopped = FileOptions::default().stop_when(Arc::new(AtomicBool::new(true)));
    old.encrypt_file_resumable(path("plain"), path("resumed"), &none(), stopped).unwrap_err();
    old.encrypt_file_resumable(path("plain"), path("resumed"), &none(), FileOptions::default()).unwrap();
    watch.message(&head_of(&std::fs::read(path("resumed")).unwrap()));
    old.dangerous_recover_file(path("resumed"), path("left"), &none(), FileOptions::default()).unwrap();
    // A key file that is not one: the digits read so far are wiped as well.
    unmask_digits_into_a_bad_file(&path("bad"));
    RawKeyProvider::from_file("bad", path("bad")).unwrap_err();
    drop((old, new));
    watch.expect_nothing();
}

pub(super) fn threads() {
    let watch = Watch::new();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // Many pieces of what a thread takes at once.
    let long = vec![0x5A; 5 << 20];
    std::fs::write(path("plain"), &long).unwrap();
    for (n, aead) in AEADS.into_iter().enumerate() {
        let name = format!("wrapping-key-{n}");
        let two = Threads::exactly(2).unwrap();
        let options = || FileOptions::default().replace_existing().threads(two);
        let watched = Watched { inner: Box::new(watch.raw(&name)), watch: watch.clone() };
        let envelope = Envelope::new(envelock::Envelope::builder(watched).aead(aead).threads(two).build().unwrap());
        envelope.encrypt_file(path("plain"), path("sealed"), &none(), options()).unwrap();
        let sealed = std::fs::read(path("sealed")).unwrap();
        watch.message(&head_of(&sealed));
        // While the threads are at work.
        let looked = Arc::new(AtomicBool::new(false));
        let look = {
            let (watch, name, looked) = (watch.clone(), name.clone(), Arc::clone(&looked));
            options().on_progress(move |_| {
                if !looked.swap(true, Ordering::SeqCst) {
                    watch.expect(&[&name, "message-key"]);
                }
            })
        };
        envelope.decrypt_file(path("sealed"), path("copy"), &none(), look).unwrap();
        assert!(looked.load(Ordering::SeqCst));
        assert!(envelope.decrypt(&sealed, &none()).unwrap() == long);
        let whole = envelope.encrypt(&long, &none()).unwrap();
        watch.message(&head_of(&whole));
        // One that fails in the middle.
        let mut bad = sealed;
        bad[3 << 20] ^= 1;
        envelope.decrypt(&bad, &none()).unwrap_err();
        envelope.decrypt_pipe(std::io::Cursor::new(bad), std::io::sink(), &none(), options()).unwrap_err();
        drop(envelope);
        watch.expect_nothing();
    }
}

fn write_for_its_owner(path: &std::path::Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// The same digits and one character too many.
fn unmask_digits_into_a_bad_file(path: &std::path::Path) {
    tell("text file-key-digits file-key");
    unmask(&hear(), |write| {
        let mut digits = Zeroizing::new(vec![b'x'; 65]);
        write(&mut digits[..64]);
        write_for_its_owner(path, &digits);
    });
}

pub(super) fn local_kms() {
    let watch = Watch::new();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    tell("root root-key");
    let line = hear();
    watch.learn("needle root-key root-key-raw");
    watch.expect_nothing();

    // Its text as a value, twice: a new keystore and an existing one.
    for round in 0..2 {
        let mut root = None;
        unmask(&line, |write| {
            let mut text = Zeroizing::new(vec![0; line.len() / 4]);
            write(&mut text);
            root = Some(RootKey::value(std::str::from_utf8(&text).unwrap()).unwrap());
        });
        let kms = LocalKms::open(path("keys.db"), root.unwrap()).unwrap();
        watch.expect(&["root-key-raw"]);
        let envelope = watch.envelope(kms.provider("alias/envelock/default").unwrap());
        let sealed = envelope.encrypt(PLAINTEXT, &none()).unwrap();
        watch.message(&head_of(&sealed));
        assert_eq!(envelope.decrypt(&sealed, &none()).unwrap(), PLAINTEXT);
        if round == 1 {
            blocking::wait(kms.rotate(&blocking::wait(kms.create_key(Default::default())).unwrap().key_id)).unwrap();
            drop(blocking::wait(kms.export_root_key()).unwrap());
        }
        blocking::wait(kms.close()).unwrap();
        drop((kms, envelope));
        watch.expect_nothing();
    }
    // From a passphrase.
    let passphrase = make_passphrase(&watch, "root-passphrase");
    let root = RootKey::passphrase(passphrase).unwrap();
    watch.expect(&["root-passphrase"]);
    let kms = LocalKms::open(path("passphrase.db"), root).unwrap();
    blocking::wait(kms.close()).unwrap();
    drop(kms);
    watch.expect_nothing();
    // As a file, and the wrong one for another keystore.
    unmask(&line, |write| {
        let mut text = Zeroizing::new(vec![0; line.len() / 4]);
        write(&mut text);
        std::fs::write(path("root"), &text).unwrap();
    });
    std::fs::set_permissions(path("root"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let kms = LocalKms::open(path("keys.db"), RootKey::file(path("root")).unwrap()).unwrap();
    watch.expect(&["root-key-raw"]);
    blocking::wait(kms.close()).unwrap();
    drop(kms);
    let other = LocalKms::open(path("other.db"), RootKey::file(path("other")).unwrap()).unwrap();
    blocking::wait(other.close()).unwrap();
    drop(other);
    LocalKms::open(path("other.db"), RootKey::file(path("root")).unwrap()).unwrap_err();
    watch.expect_nothing();
    // Another root key takes its place: it is gone while the keystore is still open.
    let kms = LocalKms::open(path("keys.db"), RootKey::file(path("root")).unwrap()).unwrap();
    watch.expect(&["root-key-raw"]);
    blocking::wait(kms.rekey(RootKey::file(path("rekeyed")).unwrap())).unwrap();
    watch.expect_nothing();
    blocking::wait(kms.close()).unwrap();
}
