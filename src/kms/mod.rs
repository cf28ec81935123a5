//! The embedded KMS: what a cloud KMS gives, in the application's own process and one file.
//!
//! [`LocalKms`] keeps keys that never leave it in the clear, in an SQLite file, encrypted under a
//! [`RootKey`]. Names and semantics are AWS KMS's. Several processes may use one keystore at once.
//!
//! Every operation is atomic together with its record in the audit trail, and is acknowledged once both are
//! durable. A change of the file by anything but envelock is found when the file is opened and when the
//! changed row is used; only an older whole file put back, while no process has the keystore open, is not.

mod alias;
mod answers;
mod audit;
mod authorise;
mod buffer;
mod call;
mod check;
mod cipher;
mod claim;
mod cost;
mod counts;
mod dates;
mod desk;
mod draft;
mod due;
mod family;
mod fields;
mod group;
mod head;
mod imported;
mod key;
mod migrate;
mod open_list;
mod operations;
mod page;
mod parcel;
mod permissions;
mod policy;
mod provider;
mod records;
mod rekey;
mod restore;
mod root;
mod root_file;
mod root_text;
mod rows;
mod schedule;
mod schema;
mod sealed;
mod state;
mod state_table;
mod store;
mod tags;
mod thread;
mod trust;
mod tx;
mod waiting;
mod wrapped;
mod wrapping;

#[cfg(test)]
mod tests;

pub use answers::{
    AliasEntry, CreateKeyRequest, DecryptAnswer, EncryptAnswer, GenerateDataKeyAnswer,
    GenerateDataKeyWithoutPlaintextAnswer, GenerateRandomAnswer, ImportKeyMaterialAnswer, ImportKeyMaterialRequest,
    ImportType, IssuedFile, KeyMetadata, KeyRotation, KeyRotationStatus, KeyVersion, ListGrantsRequest,
    ReEncryptAnswer, ReplicationParameters, RotationType, ScheduleKeyDeletionAnswer,
};
pub use audit::{
    AUDIT_EVENTS, AuditHead, AuditOutcome, AuditQuery, AuditRecord, AuditReport, AuditRetention, AuditTrimmed,
};
pub use check::KeystoreReport;
pub use cipher::version_of_blob;
pub use cost::{CacheFigures, CostReport, Prices};
pub use counts::OperationCount;
pub use key::{KeyManager, KeyOrigin, MultiRegionKeyType};
pub use page::{Page, PageRequest};
pub use parcel::{
    FileDescription, FileKind, ImportParameters, KeyMaterialText, MultiRegionConfiguration, MultiRegionKey,
    Sha256Fingerprint, describe_file, seal_key_material, wrap_key_material,
};
pub use policy::{
    AccessRequest, CreateGrantRequest, Decision, Grant, GrantConstraints, GrantOperation, GrantOperations, KeyPolicy,
    OWNER, PolicyAction, StatementRef, decide, would_lock_out,
};
pub use provider::LocalProvider;
pub use restore::{RestoreOptions, Restored};
pub use root::RootKey;
pub use root_text::RootKeyExport;
pub use schedule::{DeletionWindow, RotationPeriod};
pub use state::{KeyKind, KeyOperation, KeyState, Refusal, allowed};
pub use state_table::state_table;
pub use tags::Tag;

use crate::clock::{Clock, SystemClock};
use crate::crypto;
use crate::durable::{AtomicFile, OsFileSystem, Overwrite};
use crate::error::{Error, Result};
use crate::provider::Revocations;
use crate::worker;
use authorise::check_owner;
use call::{Asked, Call, Job, Reply};
use desk::{Closed, Desk, Message};
use futures_channel::oneshot;
use key::{Realm, check_region, validation};
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use store::{Store, Watch};
use thread::Handle;
use tx::Tx;
use uuid::Uuid;

/// An embedded KMS on one keystore file. Cheap to clone; all clones share one connection.
///
/// Opening starts one thread, `envelock-kms`, which works on the file; the methods are asynchronous
/// and need no runtime. By [`blocking::wait`](crate::blocking::wait) a call that finds nobody else at work is done by
/// the caller's own thread, which is quicker. Dropping the future of a call does not undo the call. The file is closed when
/// the last clone is dropped, which waits for that for up to a second, or by [`close`](Self::close).
///
/// **The file holds the keys, and the root key opens it: without a copy of both, what is encrypted here
/// is one disk away from being lost.** [`backup`](Self::backup) copies the file while it is in use. After
/// each change and after closing, the file alone is the whole keystore, unless another process was using
/// it at that moment: then a part stands in `<file>-wal` for a while.
///
/// After a fork, the child cannot use a keystore that was open: each call, and opening it again, is
/// an error of kind [`Storage`](crate::ErrorKind::Storage) there, until the child calls `exec`. Drop is harmless.
/// Another keystore opens there, or answers the same error within 15 s: SQLite's own locks may have been
/// taken at the moment of the fork.
///
/// ```no_run
/// # async fn example() -> Result<(), envelock::Error> {
/// use envelock::{CreateKeyRequest, EncryptionContext, LocalKms, RootKey};
/// let kms = LocalKms::open("keys.db", RootKey::file("root.key")?)?;
/// let key = kms.create_key(CreateKeyRequest::default().alias("alias/orders")).await?;
/// let context = EncryptionContext::from([("tenant", "acme")]);
/// let sealed = kms.encrypt("alias/orders", b"4111 1111", &context).await?;
/// let opened = kms.decrypt(&sealed.ciphertext_blob, &context).await?;
/// assert_eq!(opened.plaintext(), b"4111 1111");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct LocalKms {
    shared: Arc<Shared>,
    principal: Arc<str>,
}

struct Shared {
    /// `None` only while it is dropped.
    thread: Option<Handle>,
    /// The process that has the thread.
    process: u32,
    path: PathBuf,
    opened: Opened,
    /// Random: which opening of a keystore this is.
    instance: Uuid,
    watch: Watch,
}

/// What opening found out.
#[derive(Clone, Debug)]
struct Opened {
    realm: Realm,
    made_keystore: bool,
    made_root_key_file: bool,
}

/// How a keystore is opened: see [`LocalKms::open_with`].
#[derive(Clone, Debug)]
pub struct KmsOptions {
    region: Option<String>,
    busy_timeout: Duration,
    clock: Arc<dyn Clock>,
    missing: Missing,
    audit_delay: Option<Duration>,
}

/// What becomes of a keystore that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// It is made, unless its root key file is there: then it was lost.
    Make,
    /// It is made, under the root key file that is there too.
    MakeAnew,
    Refuse,
}

impl KmsOptions {
    /// A keystore that is not there is an error, as with [`LocalKms::open_existing`]. Default: it is made.
    #[must_use]
    pub fn must_exist(mut self) -> Self {
        self.missing = Missing::Refuse;
        self
    }

    /// A keystore that is not there is made also where its root key file is: a new and empty one under that root
    /// key, which opens nothing that the lost one encrypted. Default: that is an error, since the keystore was lost.
    #[must_use]
    pub fn new_keystore(mut self) -> Self {
        self.missing = Missing::MakeAnew;
        self
    }

    /// The Region name of a keystore that is made; that of an existing one must agree.
    /// Default: `local` for a new one, any for an existing one.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// How long an operation waits for another process before it is an error of kind
    /// [`Busy`](crate::ErrorKind::Busy). Default: 5 s.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Answers calls that change nothing before their audit records are durable, and writes those within
    /// `delay`: many more calls in a second, **and whoever kills the process or stops the machine in that time
    /// removes what was done in it from the trail.** What changes a key is still durable with its record before
    /// it is answered. A failure to write them fails the calls that come after. Default: off.
    #[must_use]
    pub fn risk_losing_audit_records(mut self, delay: Duration) -> Self {
        self.audit_delay = Some(delay);
        self
    }

    /// Where the time comes from. Default: the system.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

impl Default for KmsOptions {
    fn default() -> Self {
        Self {
            region: None,
            busy_timeout: Duration::from_secs(5),
            clock: Arc::new(SystemClock),
            missing: Missing::Make,
            audit_delay: None,
        }
    }
}

impl LocalKms {
    /// Opens the keystore at `path`, or makes it, with mode 0600, if there is none
    /// ([`made_keystore`](Self::made_keystore) tells; [`open_existing`](Self::open_existing) makes nothing). Where
    /// there is none and its root key file exists, it was lost, which is an error, unless
    /// [`KmsOptions::new_keystore`] says otherwise; an empty file in its place is a first use that was cut off.
    ///
    /// Blocks until the file is open and checked: a few milliseconds, a tenth of a second more for a
    /// passphrase. The folder must exist.
    ///
    /// # Errors
    /// [`NoMatchingKey`](crate::ErrorKind::NoMatchingKey) if the root key is missing, wrong or another
    /// keystore's, or the keystore was lost; [`Storage`](crate::ErrorKind::Storage) if the file is damaged, no keystore, was tampered
    /// with, or was open when this process was forked; [`Unsupported`](crate::ErrorKind::Unsupported) if a
    /// newer version wrote it; [`Busy`](crate::ErrorKind::Busy); [`Io`](crate::ErrorKind::Io), also if the
    /// file or its folder may not be written to, which reading needs too.
    pub fn open(path: impl AsRef<Path>, root: RootKey) -> Result<Self> {
        Self::open_with(path, root, KmsOptions::default())
    }

    /// Opens the keystore at `path`, which must exist: for whoever reads what was encrypted before, and so
    /// would only be misled by a new and empty keystore. Nothing is made, neither file nor root key.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), envelock::Error> {
    /// use envelock::{ErrorKind, LocalKms, RootKey};
    /// match LocalKms::open_existing("keys.db", RootKey::file("root.key")?) {
    ///     Err(error) if error.kind() == ErrorKind::NoMatchingKey => eprintln!("restore the backup: {error}"),
    ///     opened => drop(opened?),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`NoMatchingKey`](crate::ErrorKind::NoMatchingKey) with the path if
    /// there is no file, or one in which no keystore was made yet.
    pub fn open_existing(path: impl AsRef<Path>, root: RootKey) -> Result<Self> {
        Self::open_with(path, root, KmsOptions::default().must_exist())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`InvalidInput`](crate::ErrorKind::InvalidInput) if the Region is not
    /// the keystore's, or no Region name.
    pub fn open_with(path: impl AsRef<Path>, root: RootKey, options: KmsOptions) -> Result<Self> {
        options.region.as_deref().map_or(Ok(()), check_region)?;
        let mut random = [0; 16];
        crypto::random::fill(&mut random)?;
        let instance = Uuid::from_bytes(root_text::uuid_v4(random));
        let path = path.as_ref().to_path_buf();
        let watch = Watch::default();
        let (handle, opened) = thread::start(path.clone(), root, options, watch.clone())?;
        let process = std::process::id();
        let shared = Shared { thread: Some(handle), process, path, opened, instance, watch };
        Ok(Self { shared: Arc::new(shared), principal: Arc::from(OWNER) })
    }

    /// The same keystore for a caller that the application vouches for: what this handle and its providers do
    /// is allowed or denied by key policies and grants for `principal`, and recorded under that name. A handle
    /// that was opened is the [`OWNER`]'s.
    ///
    /// ```no_run
    /// # async fn example(kms: envelock::LocalKms, blob: Vec<u8>) -> Result<(), envelock::Error> {
    /// let worker = kms.as_principal("billing-worker")?;
    /// let denied = worker.decrypt(&blob, &envelock::EncryptionContext::new()).await.unwrap_err();
    /// assert_eq!(denied.code(), Some("AccessDeniedException"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// ValidationException unless `principal` has 1 to 256 characters, none of them `*`, `?` or a control character;
    /// also for `owner`, whose handle is the one that was opened, so that no user gets it by choosing that name; and for
    /// `envelock`, under which the audit trail has what the keystore does by itself.
    pub fn as_principal(&self, principal: impl AsRef<str>) -> Result<Self> {
        let principal = principal.as_ref();
        policy::check_principal(principal)?;
        if principal == OWNER {
            return Err(validation(
                "the owner's handle is the one that was opened, and nobody becomes the owner by a name",
            )
            .with_advice("keep a clone of that handle, or let the policy allow somebody else what he needs"));
        }
        if principal == due::KEYSTORE {
            return Err(validation(format!("{principal} is who does what the keystore does by itself"))
                .with_advice("name the principal otherwise"));
        }
        Ok(Self { shared: Arc::clone(&self.shared), principal: principal.into() })
    }

    /// Whose handle this is.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// Closes the file and wipes the root key, once the calls before it are done. Every later call, by
    /// any clone, is an error.
    ///
    /// # Errors
    /// [`Storage`](crate::ErrorKind::Storage) if it was closed before, or in a forked child; the failure to write audit
    /// records that were answered before (only where they are [risked](KmsOptions::risk_losing_audit_records)): the
    /// keystore is closed all the same, and they are lost.
    pub async fn close(&self) -> Result<()> {
        let (reply, closed) = oneshot::channel();
        self.send(Message::Close(reply))?;
        self.wait(closed).await?.map_err(|error| thread::at_file(error, &self.shared.path))
    }

    /// Writes a copy of the keystore to a new file, with mode 0600: the state of one moment, in which every
    /// row was checked. It works while this and other processes use the keystore, and the copy appears
    /// whole or not at all. Make one after every change of keys: a copy does not have what came later. It
    /// opens under the same root key, which is not in it. It takes no more memory where the audit trail is longer; other
    /// calls of this process wait for it.
    ///
    /// # Errors
    /// AccessDeniedException unless this is the owner's handle;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `path` exists, or names no file;
    /// [`Io`](crate::ErrorKind::Io); [`Storage`](crate::ErrorKind::Storage) if the keystore is damaged, was
    /// tampered with or closed, or in a forked child; [`Busy`](crate::ErrorKind::Busy).
    pub async fn backup(&self, path: impl AsRef<Path>) -> Result<()> {
        check_owner(self.principal(), "BackUpKeystore")?;
        let path = path.as_ref().to_path_buf();
        self.look(move |store| {
            let file = AtomicFile::create(Arc::new(OsFileSystem), &path, Overwrite::Never)?;
            store.copy_to(&file)?;
            file.commit().map(drop)
        })
        .await
    }

    /// The root key as text, for safe keeping, whatever it was opened with.
    ///
    /// # Errors
    /// AccessDeniedException unless this is the owner's handle; the keystore's own failures.
    pub async fn export_root_key(&self) -> Result<RootKeyExport> {
        self.call(self.asks("ExportRootKey"), |tx| {
            tx.permit_owner("ExportRootKey")?;
            tx.recorded_first()?;
            tx.keys.export()
        })
        .await
    }

    /// Where the keystore file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The keystore's id: a UUID, part of every full key name.
    #[must_use]
    pub fn keystore_id(&self) -> String {
        Uuid::from_bytes(self.shared.opened.realm.keystore_id).to_string()
    }

    /// The keystore's Region name.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.shared.opened.realm.region
    }

    /// Whether opening made the keystore.
    #[must_use]
    pub fn made_keystore(&self) -> bool {
        self.shared.opened.made_keystore
    }

    /// Whether opening made the root key file: then its owner should be told to keep a copy.
    #[must_use]
    pub fn made_root_key_file(&self) -> bool {
        self.shared.opened.made_root_key_file
    }

    /// An epoch that moves when this keystore revokes a key: with the call that does so, and within a second
    /// where another process did. From the first time on that somebody asks for it, the thread looks.
    pub(crate) fn revocations(&self) -> Revocations {
        if self.shared.watch.want() {
            // It may be asleep until somebody calls. A keystore that is closed revokes nothing any more.
            let _ = self.send(Message::Look(Box::new(|_| ())));
        }
        self.shared.watch.epoch.clone()
    }

    fn realm(&self) -> &Realm {
        &self.shared.opened.realm
    }

    fn instance(&self) -> Uuid {
        self.shared.instance
    }

    /// A call by this handle's principal, of AWS's name.
    fn asks(&self, name: &'static str) -> Call {
        Call::new(name, &self.principal)
    }

    /// Runs `operation` in a transaction that others may share, and writes its audit record: on the keystore's thread,
    /// or on this one where it may wait. It may run a second time, if the first transaction came to nothing.
    async fn call<T: Send + 'static>(
        &self,
        call: Call,
        operation: impl FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.run(Box::new(Asked::new(call, operation, Reply::Async(reply))))?;
        self.wait(answer).await?.map_err(|error| thread::at_file(error, &self.shared.path))
    }

    /// As [`call`](Self::call), for a job that needs more than the transaction, and takes longer: on the keystore's
    /// thread.
    async fn ask<T: Send + 'static>(&self, job: impl FnOnce(Reply<T>) -> Box<dyn Job>) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Job(job(Reply::Async(reply))))?;
        self.wait(answer).await?.map_err(|error| thread::at_file(error, &self.shared.path))
    }

    /// As [`call`](Self::call), for the few set-up calls that are not asynchronous.
    fn call_blocking<T: Send + 'static>(
        &self,
        call: Call,
        operation: impl FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = mpsc::sync_channel(1);
        worker::waiting(|| self.run(Box::new(Asked::new(call, operation, Reply::Blocking(reply)))))?;
        let answer = answer.recv().map_err(|_| self.closed())?;
        answer.map_err(|error| thread::at_file(error, &self.shared.path))
    }

    /// Runs what is no call on the KMS, and so leaves no record, on the keystore's thread.
    async fn look<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Look(Box::new(move |store| drop(reply.send(operation(store))))))?;
        self.wait(answer).await?.map_err(|error| thread::at_file(error, &self.shared.path))
    }

    /// As [`look`](Self::look), for the few set-up calls that are not asynchronous.
    fn look_blocking<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(Message::Look(Box::new(move |store| drop(reply.send(operation(store))))))?;
        let answer = answer.recv().map_err(|_| self.closed())?;
        answer.map_err(|error| thread::at_file(error, &self.shared.path))
    }

    fn send(&self, message: Message) -> Result<()> {
        self.desk()?.send(message).map_err(|Closed| self.closed())
    }

    fn run(&self, job: Box<dyn Job>) -> Result<()> {
        self.desk()?.run(job).map_err(|Closed| self.closed())
    }

    fn desk(&self) -> Result<&Desk> {
        self.check_process()?;
        self.shared.thread.as_ref().map(|thread| &*thread.desk).ok_or_else(|| self.closed())
    }

    fn closed(&self) -> Error {
        Error::keystore_closed().with_path(&self.shared.path)
    }

    /// The answer of the thread; a call that was begun before a fork and is polled in the child fails.
    async fn wait<T>(&self, answer: oneshot::Receiver<T>) -> Result<T> {
        let mut answer = pin!(answer);
        std::future::poll_fn(|context| {
            if let Err(error) = self.check_process() {
                return std::task::Poll::Ready(Err(error));
            }
            answer.as_mut().poll(context).map_err(|_| self.closed())
        })
        .await
    }

    fn check_process(&self) -> Result<()> {
        match self.shared.process == std::process::id() {
            true => Ok(()),
            false => Err(Error::forked().with_path(&self.shared.path)),
        }
    }
}

impl fmt::Debug for LocalKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKms")
            .field("path", &self.shared.path)
            .field("realm", &self.shared.opened.realm.to_string())
            .field("principal", &self.principal)
            .finish()
    }
}

impl Drop for Shared {
    /// In a forked child the channels' locks may be held by threads that do not exist there.
    fn drop(&mut self) {
        match self.thread.take() {
            Some(thread) if self.process == std::process::id() => thread.close(),
            other => std::mem::forget(other),
        }
    }
}
