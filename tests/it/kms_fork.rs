//! The embedded KMS across a fork.

use crate::kms_helper::{helper, open};
use crate::support::Rest;
use envelock::{
    CreateKeyRequest, DataKeyAnswer, DataKeyLength, Error, ErrorKind, KeyProvider as _, KmsContext, LocalKms,
};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

/// Runs `child` in a forked process, and gives its exit code. A child that hangs is killed after 60 s.
fn in_child(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs `child` and ends by `_exit` or a signal, so that nothing of the test
    // harness runs twice; glibc makes its allocator usable after a fork.
    #[expect(unsafe_code, reason = "the test is about fork")]
    let process = unsafe { libc::fork() };
    assert!(process >= 0);
    if process == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // SAFETY: alarm has no preconditions; its signal ends the process.
            #[expect(unsafe_code, reason = "bounds the child")]
            unsafe {
                libc::alarm(60);
            }
            child()
        }));
        // SAFETY: ends this process at once.
        #[expect(unsafe_code, reason = "no destructor of the test harness may run in the child")]
        unsafe {
            libc::_exit(code.unwrap_or(100))
        }
    }
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    #[expect(unsafe_code, reason = "waits for the child")]
    let waited = unsafe { libc::waitpid(process, &raw mut status, 0) };
    assert_eq!(waited, process);
    assert!(libc::WIFEXITED(status), "the child was ended by the signal {}", libc::WTERMSIG(status));
    libc::WEXITSTATUS(status)
}

/// An error that says what to do about a fork.
fn says_so<T>(result: Result<T, Error>) -> bool {
    result.is_err_and(|error| {
        let text = error.to_string();
        error.kind() == ErrorKind::Storage && text.contains("exec") && text.contains("after the fork")
    })
}

/// Names, times and contents of the keystore's files; the root key's as well.
fn files(folder: &Path) -> Vec<(String, std::time::SystemTime, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            // By another process: whoever closes such a file drops the locks that SQLite has on it in this one.
            let read = std::process::Command::new("cat").arg(entry.path()).output().unwrap();
            assert!(read.status.success() && (name.ends_with("-wal") || !read.stdout.is_empty()), "{name}");
            let content = read.stdout;
            (name, entry.metadata().unwrap().modified().unwrap(), content)
        })
        .collect();
    files.sort();
    files
}

fn new_key(kms: &LocalKms) {
    pollster::block_on(kms.create_key(CreateKeyRequest::default())).unwrap();
}

#[test]
fn in_a_forked_child_every_call_and_opening_is_an_error_and_the_file_is_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let kms = open(folder.path()).unwrap();
    let provider = kms.provider("alias/envelock/default").unwrap();
    let context = KmsContext::new(&envelock::EncryptionContext::new()).unwrap();
    let slot =
        pollster::block_on(provider.generate_data_key(DataKeyLength::Bytes32, &context)).unwrap().encrypted.remove(0);
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(folder.path().join("keys.db"), &link).unwrap();
    let mut pending = Box::pin(kms.list_keys());
    let before = files(folder.path());
    let code = in_child(|| {
        if !says_so(pollster::block_on(kms.create_key(CreateKeyRequest::default()))) {
            return 1;
        }
        if !says_so(pollster::block_on(kms.list_keys())) || !says_so(pollster::block_on(kms.export_root_key())) {
            return 2;
        }
        if !says_so(kms.provider("alias/envelock/default")) || !says_so(pollster::block_on(kms.close())) {
            return 3;
        }
        if !says_so(pollster::block_on(provider.generate_data_key(DataKeyLength::Bytes32, &context))) {
            return 4;
        }
        let DataKeyAnswer::Failed(error) = pollster::block_on(provider.decrypt_data_key(&slot, &context)) else {
            return 5;
        };
        if !says_so::<()>(Err(error)) {
            return 5;
        }
        if !says_so(open(folder.path())) {
            return 6;
        }
        let root = envelock::RootKey::file(folder.path().join("root.key")).unwrap();
        if !says_so(LocalKms::open(&link, root)) {
            return 7;
        }
        let Poll::Ready(result) = pending.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            return 8;
        };
        if !says_so(result) {
            return 9;
        }
        0
    });
    assert_eq!(code, 0);
    assert!(files(folder.path()) == before, "the child touched the keystore");
    drop(pending);
    new_key(&kms);
    assert_eq!(pollster::block_on(kms.list_keys()).unwrap().len(), 2);
}

#[test]
fn dropping_the_last_handle_in_the_child_closes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut kms = Some(open(folder.path()).unwrap());
    new_key(kms.as_ref().unwrap());
    let before = files(folder.path());
    let code = in_child(|| {
        drop(kms.take());
        // Still refused: the parent's locks are not the child's.
        i32::from(!says_so(open(folder.path())))
    });
    assert_eq!(code, 0);
    assert!(files(folder.path()) == before, "the child touched the keystore");
    let kms = kms.unwrap();
    new_key(&kms);
    assert_eq!(pollster::block_on(kms.list_keys()).unwrap().len(), 2);
}

#[test]
fn forks_while_calls_are_under_way_never_hang_the_child() {
    let folder = tempfile::tempdir().unwrap();
    let kms = open(folder.path()).unwrap();
    let busy = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let _rest = Rest(&busy);
        for _ in 0..3 {
            scope.spawn(|| {
                while busy.load(Ordering::Relaxed) {
                    new_key(&kms);
                    // Opening and closing takes and leaves the process's list of open keystores.
                    drop(open(folder.path()).unwrap());
                }
            });
        }
        for _ in 0..30 {
            let code = in_child(|| {
                let refused = says_so(pollster::block_on(kms.list_keys())) && says_so(open(folder.path()));
                i32::from(!refused)
            });
            assert_eq!(code, 0);
        }
    });
    open(folder.path()).unwrap();
}

#[test]
fn a_child_that_execs_opens_the_keystore_and_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let kms = open(folder.path()).unwrap();
    (0..3).for_each(|_| new_key(&kms));
    let mut command = helper("count 3", folder.path());
    command.stdout(std::process::Stdio::null());
    let code = in_child(|| {
        drop(command.exec());
        101
    });
    assert_eq!(code, 0);
    new_key(&kms);
    assert_eq!(pollster::block_on(kms.list_keys()).unwrap().len(), 4);
}

/// In a process of its own: a fork while other tests use SQLite could copy its locks as taken.
#[test]
fn a_keystore_that_was_not_open_at_the_fork_opens_in_the_child() {
    let folder = tempfile::tempdir().unwrap();
    let status = helper("fork", folder.path()).stdout(std::process::Stdio::null()).status().unwrap();
    assert!(status.success());
    assert_eq!(pollster::block_on(open(folder.path()).unwrap().list_keys()).unwrap().len(), 2);
}

/// The helper's part: uses the keystore, closes it, forks, and lets the child use it; with another
/// keystore open at the fork as well, which the child must leave alone.
pub(crate) fn fork_after_closing(folder: &Path) {
    let elsewhere = tempfile::tempdir().unwrap();
    let other = open(elsewhere.path()).unwrap();
    let kms = open(folder).unwrap();
    new_key(&kms);
    pollster::block_on(kms.close()).unwrap();
    let code = in_child(|| {
        let Ok(kms) = open(folder) else { return 1 };
        new_key(&kms);
        let left_alone = says_so(open(elsewhere.path())) && says_so(pollster::block_on(other.list_keys()));
        pollster::block_on(kms.close()).map_or(2, |()| if left_alone { 0 } else { 3 })
    });
    assert_eq!(code, 0);
    new_key(&other);
}
