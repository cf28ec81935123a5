//! A second process for the tests of the embedded KMS: this binary again, told by the environment
//! what to do. Without being told, the test here does nothing.

use crate::support::child::Running;
use crate::support::random::Random;
#[cfg(feature = "blocking")]
pub(crate) use envelock::blocking::wait;
use envelock::clock::Clock;
use envelock::{CreateKeyRequest, Error, KmsOptions, LocalKms, RootKey};
#[cfg(not(feature = "blocking"))]
pub(crate) use pollster::block_on as wait;
use rustix::process::{Flock, FlockType, Pid, fcntl_getlk};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A process that runs [`the_helper_process_does_what_it_is_told`] as `task` on the keystore in `folder`.
pub(crate) fn helper(task: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "kms_helper::the_helper_process_does_what_it_is_told", "--nocapture", "--test-threads=1"]);
    command.env("ENVELOCK_TEST_TASK", task).env("ENVELOCK_TEST_FOLDER", folder);
    command
}

/// Waits long for others, since machines may be slow and their disks slower.
pub(crate) fn open(folder: &Path) -> Result<LocalKms, Error> {
    let options = KmsOptions::default().busy_timeout(PATIENCE);
    LocalKms::open_with(folder.join("keys.db"), RootKey::file(folder.join("root.key"))?, options)
}

/// Whether that process holds the lock that SQLite takes to begin a transaction that writes and gives back at its end:
/// byte 120 of the index of the write-ahead log (SQLite's "WAL-Index Locks", `WAL_WRITE_LOCK`). To be asked while it
/// is stopped; this process must not have the keystore open, since closing the index drops its locks there.
pub(crate) fn holds_write_lock(process: Pid, keystore: &Path) -> bool {
    // None before the first transaction.
    let Ok(index) = File::open(keystore.with_extension("db-shm")) else { return false };
    let write = Flock { start: 120, length: 1, ..Flock::from(FlockType::ReadLock) };
    fcntl_getlk(&index, &write).unwrap().is_some_and(|lock| lock.pid == Some(process))
}

/// Kills a child. Where `wanted`, not before it holds the write lock of a keystore while `wanted` is true of what it told
/// last. Whether it held one, and all that it ever told.
pub(crate) fn kill_writing(
    mut child: Running,
    keystores: &[PathBuf],
    random: &mut Random,
    wanted: Option<&dyn Fn(&str) -> bool>,
) -> (bool, Vec<String>) {
    let process = Pid::from_raw(child.id().cast_signed()).unwrap();
    let started = Instant::now();
    loop {
        assert!(child.stop(), "the child has ended");
        let holds = keystores.iter().any(|keystore| holds_write_lock(process, keystore));
        if wanted.is_none_or(|wanted| holds && wanted(&child.last_told())) {
            return (holds, child.kill());
        }
        assert!(started.elapsed() < PATIENCE, "it never held the write lock");
        child.go_on();
        std::thread::sleep(Duration::from_micros(random.next() % 2_000));
    }
}

/// How long a call waits for others.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A wall clock that stands where it was set, in seconds.
#[derive(Debug)]
pub(crate) struct Hands(AtomicU64);

impl Hands {
    pub(crate) fn at(seconds: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(seconds)))
    }

    pub(crate) fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn wall(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

#[test]
fn the_helper_process_does_what_it_is_told() {
    let (Some(task), Some(folder)) = (std::env::var_os("ENVELOCK_TEST_TASK"), std::env::var_os("ENVELOCK_TEST_FOLDER"))
    else {
        return;
    };
    let (task, folder) = (task.into_string().unwrap(), Path::new(&folder));
    match task.split_once(' ').unwrap_or((&task, "")) {
        ("work", "") => crate::kms_mixed::work(folder),
        ("fork", "") => crate::kms_fork::fork_after_closing(folder),
        ("rotate", rest) => {
            let (key, times) = rest.split_once(' ').unwrap();
            rotate(&open(folder).unwrap(), key, times.parse().unwrap());
        }
        ("load", rest) => crate::kms_load::load(folder, rest),
        ("revoke", task) => crate::kms_revocation::revoke(&open(folder).unwrap(), task),
        ("count", expected) => {
            let keys = pollster::block_on(open(folder).unwrap().list_keys()).unwrap();
            assert_eq!(keys.len(), expected.parse::<usize>().unwrap());
        }
        _ => panic!("unknown task {task:?}"),
    }
}

/// Rotates the key so many times, making a key of its own each time.
pub(crate) fn rotate(kms: &LocalKms, key: &str, times: u32) {
    for _ in 0..times {
        pollster::block_on(kms.rotate(key)).unwrap();
        pollster::block_on(kms.create_key(CreateKeyRequest::default())).unwrap();
    }
}
