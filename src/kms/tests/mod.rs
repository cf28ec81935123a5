//! Tests of the embedded KMS from inside the crate.

mod audit;
mod audit_events;
mod audit_index;
mod cipher;
mod desk;
mod due;
mod furnished;
mod gone;
mod import;
mod joined;
mod life;
mod named;
mod operations;
mod pages;
mod provider;
mod rekey;
mod replicas;
mod restore;
mod root;
mod schedule;
mod sealed;
mod secrets;
mod states;
mod store;
mod tamper;
mod tamper_bytes;
mod tamper_later;
mod tamper_scene;
mod tamper_uses;

use super::{CreateKeyRequest, KmsOptions, LocalKms, RootKey};
use crate::clock::Clock;
use crate::context::EncryptionContext;
use crate::provider::passphrase::PassphraseCost;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;
use tempfile::TempDir;

/// OWASP's minimum, so that the tests are quick.
pub(super) const CHEAP: PassphraseCost = PassphraseCost { memory_kib: 19_456, passes: 2, lanes: 1 };

/// A folder with a keystore in it.
pub(super) struct Place {
    pub(super) folder: TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    pub(super) fn keystore(&self) -> PathBuf {
        self.folder.path().join("keys.db")
    }

    pub(super) fn root_key(&self) -> PathBuf {
        self.folder.path().join("root.key")
    }

    pub(super) fn open(&self) -> LocalKms {
        self.try_open().unwrap()
    }

    pub(super) fn try_open(&self) -> crate::error::Result<LocalKms> {
        self.open_waiting(Duration::from_millis(300))
    }

    /// With a handle whose calls wait so long for others.
    pub(super) fn open_waiting(&self, most: Duration) -> crate::error::Result<LocalKms> {
        let options = KmsOptions::default().busy_timeout(most);
        LocalKms::open_with(self.keystore(), RootKey::file(self.root_key()).unwrap(), options)
    }

    /// With a clock that the test sets.
    pub(super) fn open_at(&self, hands: &Arc<Hands>) -> LocalKms {
        let options = KmsOptions::default().clock(Arc::clone(hands) as Arc<dyn Clock>);
        LocalKms::open_with(self.keystore(), RootKey::file(self.root_key()).unwrap(), options).unwrap()
    }

    /// The records of the audit trail, oldest first: name, principal, key and error code.
    pub(super) fn trail(&self) -> Vec<[String; 4]> {
        let sql = self.sql();
        let mut statement = sql.prepare("SELECT name, principal, key_id, code FROM audit ORDER BY sequence").unwrap();
        let records = statement.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]));
        records.unwrap().map(Result::unwrap).collect()
    }

    /// SQLite itself, as somebody who changes the file would use it.
    pub(super) fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.keystore()).unwrap()
    }
}

/// A wall clock that stands where it was set, in milliseconds.
#[derive(Debug)]
pub(super) struct Hands(AtomicU64);

impl Hands {
    pub(super) fn at(millis: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(millis)))
    }

    pub(super) fn set(&self, millis: u64) {
        self.0.store(millis, Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn wall(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// In milliseconds.
pub(super) const DAY: u64 = 86_400_000;

pub(super) fn context() -> EncryptionContext {
    EncryptionContext::from([("tenant", "acme")])
}

pub(super) fn new_key(kms: &LocalKms) -> String {
    block_on(kms.create_key(CreateKeyRequest::default())).unwrap().key_id
}

/// Polls on this thread until the future is done.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
