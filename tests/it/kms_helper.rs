//! A second process for the tests of the embedded KMS: this binary again, told by the environment
//! what to do. Without being told, the test here does nothing.

use crate::support::unhex;
#[cfg(feature = "blocking")]
pub(crate) use envelock::blocking::wait;
use envelock::{CreateKeyRequest, EncryptionContext, Error, KmsOptions, LocalKms, RootKey};
#[cfg(not(feature = "blocking"))]
pub(crate) use pollster::block_on as wait;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// How long a call waits for others.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_helper_process_does_what_it_is_told() {
    let (Some(task), Some(folder)) = (std::env::var_os("ENVELOCK_TEST_TASK"), std::env::var_os("ENVELOCK_TEST_FOLDER"))
    else {
        return;
    };
    let (task, folder) = (task.into_string().unwrap(), Path::new(&folder));
    match task.split_once(' ').unwrap_or((&task, "")) {
        ("work", "") => work(folder),
        ("fork", "") => crate::kms_fork::fork_after_closing(folder),
        ("rotate", rest) => {
            let (key, times) = rest.split_once(' ').unwrap();
            rotate(&open(folder).unwrap(), key, times.parse().unwrap());
        }
        ("load", rest) => crate::kms_load::load(folder, rest),
        ("disable", key) => pollster::block_on(open(folder).unwrap().disable_key(key)).unwrap(),
        ("count", expected) => {
            let keys = pollster::block_on(open(folder).unwrap().list_keys()).unwrap();
            assert_eq!(keys.len(), expected.parse::<usize>().unwrap());
        }
        _ => panic!("unknown task {task:?}"),
    }
}

/// Looks for everything that these reports say was acknowledged, and that every key is whole.
pub(crate) fn find_reported(kms: &LocalKms, reports: &[String]) -> Result<(), String> {
    let context = EncryptionContext::from([("tenant", "acme")]);
    let keys = pollster::block_on(kms.list_keys()).unwrap();
    let aliases = pollster::block_on(kms.list_aliases()).unwrap();
    // An alias moves: the last word on it counts.
    let moved_later =
        |alias: &str, at: usize| reports[at + 1..].iter().any(|it| it.split(' ').take(2).eq(["ALIAS", alias]));
    for (at, report) in reports.iter().enumerate() {
        let found = match *report.split(' ').collect::<Vec<_>>() {
            ["OPENED", id] => kms.keystore_id() == id,
            ["KEY", key, version] => {
                keys.iter().any(|it| it.key_id == key && it.current_version >= version.parse().unwrap())
            }
            ["ALIAS", alias, key] => {
                moved_later(alias, at) || aliases.iter().any(|it| it.alias_name == alias && it.target_key_id == key)
            }
            ["BLOB", plaintext, blob] => pollster::block_on(kms.decrypt(&unhex(blob), &context))
                .is_ok_and(|it| it.plaintext() == plaintext.as_bytes()),
            _ => panic!("{report}"),
        };
        if !found {
            return Err(format!("lost: {report}"));
        }
    }
    for key in &keys {
        let versions = pollster::block_on(kms.list_key_versions(&key.key_id)).unwrap();
        assert_eq!(versions.len(), key.current_version as usize);
    }
    Ok(())
}

/// Rotates the key so many times, making a key of its own each time.
pub(crate) fn rotate(kms: &LocalKms, key: &str, times: u32) {
    for _ in 0..times {
        pollster::block_on(kms.rotate(key)).unwrap();
        pollster::block_on(kms.create_key(CreateKeyRequest::default())).unwrap();
    }
}

/// Opens the keystore and changes it until it is killed, itself or by the keystore's thread. Each operation is announced before it
/// begins, and reported once it is acknowledged.
fn work(folder: &Path) {
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        // A line of its own, whatever the test harness has written.
        out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    };
    let context = EncryptionContext::from([("tenant", "acme")]);
    say("BEGIN".to_owned());
    let kms = open(folder).unwrap();
    say(format!("OPENED {}", kms.keystore_id()));
    // Of a thousand processes, two may have the same id.
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    for round in 0.. {
        say("BEGIN".to_owned());
        let alias = format!("alias/{}-{begun}-{round}", std::process::id());
        let key = wait(kms.create_key(CreateKeyRequest::default().alias(&alias))).unwrap().key_id;
        say(format!("KEY {key} 1"));
        say("BEGIN".to_owned());
        let version = wait(kms.rotate(&key)).unwrap().current_version;
        say(format!("KEY {key} {version}"));
        say("BEGIN".to_owned());
        let blob = wait(kms.encrypt(&alias, key.as_bytes(), &context)).unwrap().ciphertext_blob;
        let hex: String = blob.iter().map(|byte| format!("{byte:02x}")).collect();
        say(format!("BLOB {key} {hex}"));
        say("BEGIN".to_owned());
        let other = pollster::block_on(kms.create_key(CreateKeyRequest::default())).unwrap().key_id;
        say(format!("KEY {other} 1"));
        say("BEGIN".to_owned());
        pollster::block_on(kms.update_alias(&alias, &other)).unwrap();
        say(format!("ALIAS {alias} {other}"));
    }
}
