//! Tests of the embedded KMS from inside the crate.

mod audit;
mod cipher;
mod operations;
mod provider;
mod rekey;
mod restore;
mod root;
mod schedule;
mod sealed;
mod states;
mod store;
mod tamper;

use super::{CreateKeyRequest, KmsOptions, LocalKms, RootKey};
use crate::context::EncryptionContext;
use crate::provider::passphrase::PassphraseCost;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
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

    /// SQLite itself, as somebody who changes the file would use it.
    pub(super) fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.keystore()).unwrap()
    }
}

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
