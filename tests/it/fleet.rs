//! Many files at once: what is where, and moving them to other keys.

mod foreseen;
mod hostile;
mod inventory;
mod journal;
mod kill;
mod losses;
mod moves;

use crate::support::child::long;
use crate::support::providers::raw;
use envelock::fleet::{Files, Outcome, Rewrap, RewrapReport};
use envelock::{
    DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, EncryptionContext, Envelope, GeneratedDataKey,
    KeyProvider, KmsContext, Recipient, Result, async_trait, blocking,
};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub(super) fn old() -> Arc<dyn KeyProvider> {
    raw("old", 1)
}

pub(super) fn new() -> Arc<dyn KeyProvider> {
    raw("new", 2)
}

pub(super) fn by(provider: &Arc<dyn KeyProvider>) -> blocking::Envelope {
    blocking::Envelope::new(Envelope::builder(Arc::clone(provider)).build().unwrap())
}

/// Every file has a context of its own.
pub(super) fn context(name: &str) -> EncryptionContext {
    EncryptionContext::from([("fleet", "test"), ("object", name)])
}

pub(super) fn plaintext(name: &str) -> Vec<u8> {
    format!("the content of {name}").into_bytes()
}

/// A message in a file, with room for other slots.
pub(super) fn put(folder: &Path, name: &str, provider: &Arc<dyn KeyProvider>) -> PathBuf {
    let path = folder.join(name);
    let sealed = by(provider).file_encryptor(&context(name)).unwrap().seal(&plaintext(name)).unwrap();
    fs::write(&path, sealed).unwrap();
    path
}

/// `count` messages in three folders.
pub(super) fn fill(folder: &Path, count: usize, provider: &Arc<dyn KeyProvider>) -> Vec<PathBuf> {
    ["a", "a/b", "c"].iter().for_each(|name| fs::create_dir(folder.join(name)).unwrap());
    (0..count).map(|at| put(folder, &format!("{}/{at}.elk", ["a", "a/b", "c"][at % 3]), provider)).collect()
}

/// Whether the message opens under this provider; then it is whole.
pub(super) fn opens(folder: &Path, path: &Path, provider: &Arc<dyn KeyProvider>) -> bool {
    let name = path.strip_prefix(folder).unwrap().to_str().unwrap();
    match by(provider).decrypt(&fs::read(path).unwrap(), &context(name)) {
        Ok(found) => {
            assert_eq!(found, plaintext(name));
            true
        }
        Err(_) => false,
    }
}

#[track_caller]
pub(super) fn moved(folder: &Path, paths: &[PathBuf]) {
    for path in paths {
        assert!(opens(folder, path, &new()), "{} is not under the new key", path.display());
        assert!(!opens(folder, path, &old()), "{} is under the old key still", path.display());
    }
}

/// Runs it; what was told, by path.
pub(super) fn run(rewrap: Rewrap, folder: &Path) -> (RewrapReport, Vec<(PathBuf, String)>) {
    let (report, told) = try_run(rewrap, Files::below([folder]));
    (report.unwrap(), told)
}

pub(super) fn try_run(rewrap: Rewrap, files: Files) -> (Result<RewrapReport>, Vec<(PathBuf, String)>) {
    let mut told = Vec::new();
    let report = blocking::wait(rewrap.run(files, |path: &Path, outcome: &Outcome| {
        told.push((path.to_path_buf(), format!("{outcome:?}")));
    }));
    (report, told)
}

/// Files below a folder with their contents and times.
pub(super) fn state(folder: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => found.push((
                    entry.path(),
                    fs::read(entry.path()).unwrap(),
                    entry.metadata().unwrap().modified().unwrap(),
                )),
            }
        }
    }
    found.sort();
    found
}

/// Where syncing costs nothing: what is killed are processes, not machines.
pub(super) fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The full count in any case where it takes seconds.
pub(super) fn count(short: usize) -> usize {
    if long() { 5_000.max(short) } else { short }
}

/// A KMS of one current key and one before it, which counts its calls: a letter each, of d, e, r and g.
#[derive(Debug)]
pub(super) struct Kms {
    pub(super) current: Arc<dyn KeyProvider>,
    pub(super) before: Arc<dyn KeyProvider>,
    pub(super) re_encrypts: bool,
    /// How many data keys a call takes.
    pub(super) batch: usize,
    pub(super) log: Log,
}

/// Where the letters go.
#[derive(Clone, Debug)]
pub(super) enum Log {
    Memory(Arc<Mutex<String>>),
    /// For processes that are killed.
    File(PathBuf),
}

impl Log {
    pub(super) fn memory() -> Self {
        Self::Memory(Arc::default())
    }

    fn note(&self, call: char) {
        match self {
            Self::Memory(text) => text.lock().unwrap().push(call),
            Self::File(path) => {
                let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
                file.write_all(&[call as u8]).unwrap();
            }
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Memory(text) => text.lock().unwrap().clone(),
            Self::File(path) => fs::read_to_string(path).unwrap_or_default(),
        }
    }

    pub(super) fn of(&self, call: char) -> usize {
        self.text().chars().filter(|it| *it == call).count()
    }
}

impl Kms {
    pub(super) fn shared(re_encrypts: bool, batch: usize, log: &Log) -> Arc<dyn KeyProvider> {
        Arc::new(Self { current: new(), before: old(), re_encrypts, batch, log: log.clone() })
    }

    fn owns(&self, slot: &EncryptedDataKey) -> bool {
        let names = [self.current.recipients(), self.before.recipients()].concat();
        names.contains(&Recipient::from(slot))
    }

    async fn unwrap(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        match self.current.decrypt_data_key(slot, context).await {
            DataKeyAnswer::NotMine => self.before.decrypt_data_key(slot, context).await,
            answer => answer,
        }
    }

    async fn anew(&self, slot: &EncryptedDataKey, context: &KmsContext) -> Result<Option<Vec<EncryptedDataKey>>> {
        match self.unwrap(slot, context).await {
            DataKeyAnswer::Key(key) => self.current.encrypt_data_key(&key, context).await.map(Some),
            DataKeyAnswer::Failed(error) => Err(error),
            DataKeyAnswer::NotMine => Ok(None),
        }
    }
}

#[async_trait]
impl KeyProvider for Kms {
    fn recipients(&self) -> Vec<Recipient> {
        self.current.recipients()
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        self.log.note('g');
        self.current.generate_data_key(length, context).await
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        self.log.note('e');
        self.current.encrypt_data_key(key, context).await
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        if !self.owns(slot) {
            return DataKeyAnswer::NotMine;
        }
        self.log.note('d');
        self.unwrap(slot, context).await
    }

    async fn re_encrypt_data_key(
        &self,
        slot: &EncryptedDataKey,
        context: &KmsContext,
    ) -> Result<Option<Vec<EncryptedDataKey>>> {
        if !self.re_encrypts || !self.owns(slot) {
            return Ok(None);
        }
        self.log.note('r');
        self.anew(slot, context).await
    }

    fn batch_len(&self) -> usize {
        self.batch
    }

    async fn decrypt_data_keys(&self, slots: &[(&EncryptedDataKey, &KmsContext)]) -> Vec<DataKeyAnswer> {
        assert!(slots.len() <= self.batch);
        self.log.note('d');
        let mut answers = Vec::new();
        for (slot, context) in slots {
            answers.push(self.unwrap(slot, context).await);
        }
        answers
    }

    async fn encrypt_data_keys(&self, keys: &[(&DataKey, &KmsContext)]) -> Vec<Result<Vec<EncryptedDataKey>>> {
        assert!(keys.len() <= self.batch);
        self.log.note('e');
        let mut answers = Vec::new();
        for (key, context) in keys {
            answers.push(self.current.encrypt_data_key(key, context).await);
        }
        answers
    }

    async fn re_encrypt_data_keys(
        &self,
        slots: &[(&EncryptedDataKey, &KmsContext)],
    ) -> Vec<Result<Option<Vec<EncryptedDataKey>>>> {
        assert!(slots.len() <= self.batch);
        if !self.re_encrypts {
            return slots.iter().map(|_| Ok(None)).collect();
        }
        self.log.note('r');
        let mut answers = Vec::new();
        for (slot, context) in slots {
            answers.push(self.anew(slot, context).await);
        }
        answers
    }
}
