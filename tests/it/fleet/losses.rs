//! What a run must not lose: files that others write meanwhile, keys that open, other names, owners.

use super::{Kms, Log, by, context, fill, moved, new, old, opens, plaintext, put, run, state};
use crate::support::providers::{Counted, Down, at_least, raw};
use crate::support::say;
use envelock::fleet::{Mode, Rewrap};
use envelock::{
    DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, ErrorKind, FailoverProvider, GeneratedDataKey,
    KeyProvider, KmsContext, Recipient, Result, async_trait,
};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use std::fmt;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

type Deed = Box<dyn FnOnce() + Send>;

/// The new key, and something that happens before its first answer, while the file is locked.
struct Meddling {
    key: Arc<dyn KeyProvider>,
    deed: Mutex<Option<Deed>>,
}

impl Meddling {
    fn shared(key: Arc<dyn KeyProvider>, deed: impl FnOnce() + Send + 'static) -> Arc<dyn KeyProvider> {
        Arc::new(Self { key, deed: Mutex::new(Some(Box::new(deed))) })
    }
}

impl fmt::Debug for Meddling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

#[async_trait]
impl KeyProvider for Meddling {
    fn recipients(&self) -> Vec<Recipient> {
        self.key.recipients()
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        self.key.generate_data_key(length, context).await
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        if let Some(deed) = self.deed.lock().unwrap().take() {
            deed();
        }
        self.key.encrypt_data_key(key, context).await
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        self.key.decrypt_data_key(slot, context).await
    }
}

fn long() -> Arc<dyn KeyProvider> {
    raw("a key of a much longer name than before", 4)
}

/// A message without room for other slots.
fn tight(folder: &Path, name: &str, text: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, by(&old()).encrypt(text, &context(name)).unwrap()).unwrap();
    path
}

#[test]
fn what_somebody_else_writes_during_the_calls_is_never_overwritten() {
    for (to, in_place) in [(new(), true), (long(), false)] {
        for by_rename in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let path = match in_place {
                true => put(folder.path(), "a.elk", &old()),
                false => tight(folder.path(), "a.elk", &plaintext("a.elk")),
            };
            // As long as the one before: only its bytes tell.
            let other = plaintext("a.elk").to_ascii_uppercase();
            let sealed = match in_place {
                true => by(&old()).file_encryptor(&context("a.elk")).unwrap().seal(&other).unwrap(),
                false => by(&old()).encrypt(&other, &context("a.elk")).unwrap(),
            };
            assert_eq!(sealed.len() as u64, fs::metadata(&path).unwrap().len());
            let (at, beside) = (path.clone(), folder.path().join("beside"));
            let provider = Meddling::shared(Arc::clone(&to), move || match by_rename {
                true => {
                    fs::write(&beside, &sealed).unwrap();
                    fs::rename(&beside, &at).unwrap();
                }
                false => fs::write(&at, &sealed).unwrap(),
            });
            let (report, told) = run(Rewrap::to([provider]).from([old()]), folder.path());
            // Put off, and moved in the last round, as the message that it is by then.
            assert_eq!((report.rewrapped, report.failed, told.len()), (1, 0, 2), "{told:?}");
            assert!(told[0].1.starts_with("PutOff") && told[0].1.contains("changed while"), "{told:?}");
            let found = by(&to).decrypt(&fs::read(&path).unwrap(), &context("a.elk"));
            assert_eq!(found.unwrap(), other, "in place {in_place}, by rename {by_rename}");
        }
    }
}

#[test]
fn a_plaintext_that_took_the_place_stays_as_it_is_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = put(folder.path(), "a.elk", &old());
    let (at, text) = (path.clone(), vec![b'x'; 5_000]);
    let provider = Meddling::shared(new(), move || fs::write(at, vec![b'x'; 5_000]).unwrap());
    let (report, _) = run(Rewrap::to([provider]).from([old()]), folder.path());
    assert_eq!((report.rewrapped, report.failed), (0, 1));
    assert!(fs::read(path).unwrap() == text);
}

#[test]
fn a_key_that_is_out_of_reach_is_not_given_up_for_a_record_that_it_is_missing() {
    let (a, b, c) = (raw("a", 1), raw("b", 2), raw("c", 3));
    let (down_b, down_c) =
        (Down::shared("raw", "b", ErrorKind::Unavailable), Down::shared("raw", "c", ErrorKind::Unavailable));
    for again in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let paths = fill(folder.path(), 6, &at_least(2, &[&a, &down_b, &c]));
        let rewrap = Rewrap::to([at_least(2, &[&a, &b, &down_c])]);
        let (report, told) = run(if again { rewrap.again() } else { rewrap }, folder.path());
        assert_eq!((report.rewrapped, report.failed, report.with_missing), (6, 0, 0), "{told:?}");
        for path in &paths {
            assert!([&a, &b, &c].iter().all(|provider| opens(folder.path(), path, provider)), "{}", path.display());
        }
    }
    // Where the name is the source's, that key goes; and that it is missing now is told.
    let folder = tempfile::tempdir().unwrap();
    let paths = fill(folder.path(), 3, &at_least(2, &[&a, &c]));
    let (report, told) = run(Rewrap::to([at_least(2, &[&a, &b, &down_c])]).from([Arc::clone(&c)]), folder.path());
    assert_eq!((report.rewrapped, report.with_missing), (3, 3));
    assert!(paths.iter().all(|path| !opens(folder.path(), path, &c) && opens(folder.path(), path, &b)));
    let removed = |text: &str| text.split("removed: [").nth(1).unwrap().split(']').next().unwrap().to_owned();
    assert!(told.iter().all(|(_, it)| !removed(it).is_empty()), "{told:?}");
}

#[test]
fn one_members_key_is_enough_for_a_failover_and_no_member_loses_his() {
    let (a, b) = (raw("a", 1), raw("b", 2));
    let folder = tempfile::tempdir().unwrap();
    let paths = fill(folder.path(), 6, &old());
    let (counted_a, calls_a) = Counted::wrap(Arc::clone(&a));
    let (counted_b, calls_b) = Counted::wrap(Arc::clone(&b));
    let failover: Arc<dyn KeyProvider> = Arc::new(FailoverProvider::in_order(vec![counted_a, counted_b]).unwrap());
    let rewrap = Rewrap::to([Arc::clone(&failover)]).from([old()]);
    assert_eq!(run(rewrap.clone(), folder.path()).0.rewrapped, 6);
    let calls = calls_a.all() + calls_b.all();
    let before = state(folder.path());
    let (second, _) = run(rewrap, folder.path());
    assert_eq!((second.current, second.rewrapped, calls_a.all() + calls_b.all()), (6, 0, calls));
    assert!(state(folder.path()) == before && paths.iter().all(|path| opens(folder.path(), path, &a)));

    let folder = tempfile::tempdir().unwrap();
    let paths = fill(folder.path(), 3, &crate::support::providers::all(&[&a, &b]));
    let (report, told) = run(Rewrap::to([failover]).again(), folder.path());
    assert_eq!((report.rewrapped, report.failed), (3, 0), "{told:?}");
    assert!(paths.iter().all(|path| opens(folder.path(), path, &a) && opens(folder.path(), path, &b)));
}

#[test]
fn a_source_and_a_target_of_one_name_are_two_keys_unless_both_say_that_they_are_one() {
    // Not `raw`: a service of somebody's own, whose names are not unique in the world.
    let slot = |wrapped: &[u8]| vec![EncryptedDataKey::new("com.example.vault", "mount/orders", wrapped)];
    let cluster = |wrapped: &'static [u8]| {
        crate::support::providers::Scripted::shared(slot(wrapped), move |it| match it.wrapped() == wrapped {
            true => DataKeyAnswer::Key(crate::support::providers::Scripted::key()),
            false => DataKeyAnswer::Failed(envelock::Error::new(ErrorKind::AuthenticationFailed, "another cluster's")),
        })
    };
    let (from, to) = (cluster(b"at the old one"), cluster(b"at the new one"));
    let folder = tempfile::tempdir().unwrap();
    let paths = fill(folder.path(), 6, &from);
    let (report, told) = run(Rewrap::to([Arc::clone(&to)]).from([Arc::clone(&from)]), folder.path());
    assert_eq!((report.rewrapped, report.current, report.failed), (6, 0, 0), "{told:?}");
    assert!(paths.iter().all(|path| opens(folder.path(), path, &to) && !opens(folder.path(), path, &from)));
}

#[test]
fn every_name_of_a_file_that_is_copied_is_moved() {
    let folder = tempfile::tempdir().unwrap();
    let path = tight(folder.path(), "a.elk", &plaintext("a.elk"));
    let others: Vec<_> = (0..3).map(|at| folder.path().join(format!("b{at}.elk"))).collect();
    others.iter().for_each(|other| fs::hard_link(&path, other).unwrap());
    let (report, told) = run(Rewrap::to([long()]).from([old()]), folder.path());
    assert_eq!((report.rewrapped, report.copied, report.failed), (4, 4, 0), "{told:?}");
    for path in others.iter().chain([&path]) {
        let found = by(&long()).decrypt(&fs::read(path).unwrap(), &context("a.elk")).unwrap();
        assert_eq!(found, plaintext("a.elk"));
    }
    assert!(told.iter().any(|(_, it)| it.contains("other names")), "{told:?}");
}

#[test]
fn a_copy_keeps_the_group_the_mode_and_the_attributes() {
    let folder = tempfile::tempdir().unwrap();
    let path = tight(folder.path(), "a.elk", &plaintext("a.elk"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6640)).unwrap();
    let is_root = fs::metadata(&path).unwrap().uid() == 0;
    let owned = is_root && chown(&path, Some(1_000), Some(1_001)).is_ok();
    if !owned {
        say("SKIPPED: that the owner is kept, which takes root");
    }
    let attributed = setxattr(&path, "user.envelock-test", b"value", XattrFlags::empty()).is_ok();
    if !attributed {
        say("SKIPPED: that attributes are kept, which this file system has none of");
    }
    let before = fs::metadata(&path).unwrap();
    let (report, told) = run(Rewrap::to([long()]).from([old()]), folder.path());
    assert_eq!((report.rewrapped, report.copied), (1, 1), "{told:?}");
    let after = fs::metadata(&path).unwrap();
    assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
    assert_eq!(after.permissions().mode() & 0o7777, 0o640);
    if attributed {
        let mut value = [0; 16];
        let len = getxattr(&path, "user.envelock-test", &mut value).unwrap();
        assert_eq!(&value[..len], b"value");
    }
}

#[test]
fn a_link_that_is_put_in_a_files_place_is_not_followed_out_of_the_tree() {
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let paths = fill(folder.path(), 9, &old());
    let target = put(outside.path(), "theirs.elk", &old());
    let before = fs::read(&target).unwrap();
    // Those that have not been begun; the first one is at work.
    let swapped = paths.clone();
    let provider = Meddling::shared(new(), move || {
        for path in &swapped {
            fs::remove_file(path).unwrap();
            symlink(&target, path).unwrap();
        }
    });
    let rewrap = Rewrap::to([provider]).from([old()]).concurrency(1);
    let (report, told) = run(rewrap, folder.path());
    assert_eq!((report.rewrapped, report.failed), (0, 9), "{told:?}");
    assert!(fs::read(outside.path().join("theirs.elk")).unwrap() == before);
}

/// A KMS that may not re-encrypt.
#[derive(Debug)]
struct Denies(Arc<dyn KeyProvider>, Log);

#[async_trait]
impl KeyProvider for Denies {
    fn recipients(&self) -> Vec<Recipient> {
        self.0.recipients()
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        self.0.generate_data_key(length, context).await
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        self.0.encrypt_data_key(key, context).await
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        self.0.decrypt_data_key(slot, context).await
    }

    async fn re_encrypt_data_key(&self, _: &EncryptedDataKey, _: &KmsContext) -> Result<Option<Vec<EncryptedDataKey>>> {
        if let Log::Memory(text) = &self.1 {
            text.lock().unwrap().push('r');
        }
        Err(envelock::Error::new(ErrorKind::KeyDenied, "it may not re-encrypt"))
    }
}

#[test]
fn who_may_not_re_encrypt_decrypts_and_encrypts_and_does_not_ask_for_each_file() {
    let (folder, log) = (tempfile::tempdir().unwrap(), Log::memory());
    let paths = fill(folder.path(), 60, &old());
    let inner = Kms::shared(false, 1, &Log::memory());
    let denies: Arc<dyn KeyProvider> = Arc::new(Denies(inner, log.clone()));
    let (report, _) = run(Rewrap::to([Arc::clone(&denies)]).from([old()]).concurrency(4), folder.path());
    assert_eq!((report.rewrapped, report.failed), (60, 0));
    assert!((1..=4).contains(&log.of('r')), "{}", log.text());
    moved(folder.path(), &paths);
    let other = tempfile::tempdir().unwrap();
    fill(other.path(), 2, &old());
    let (report, _) = run(Rewrap::to([denies]).from([old()]).mode(Mode::Blind), other.path());
    assert_eq!((report.failed, report.first_failure.unwrap().kind()), (2, ErrorKind::KeyDenied));
}

#[test]
fn a_target_that_names_no_recipient_is_refused() {
    let nobody = crate::support::providers::Scripted::shared(Vec::new(), |_| DataKeyAnswer::NotMine);
    let (report, _) = super::try_run(Rewrap::to([nobody]), envelock::fleet::Files::below(["nowhere"]));
    assert_eq!(report.unwrap_err().kind(), ErrorKind::InvalidInput);
}
