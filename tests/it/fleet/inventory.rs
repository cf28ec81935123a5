//! What an inventory counts, and by what.

use super::{by, context, fill, new, old, put};
use crate::support::providers::{Down, all, at_least};
use envelock::fleet::{AgeBand, By, Files, Group, GroupKey, Inventory, InventoryReport, Seen, Selection, Separator};
use envelock::{ErrorKind, blocking};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

fn take(inventory: Inventory, files: Files) -> InventoryReport {
    blocking::wait(inventory.take(files, |_| {})).unwrap()
}

fn below(folder: &Path) -> Files {
    Files::below([folder])
}

fn counts(report: &InventoryReport) -> Vec<(String, u64, u64)> {
    report.groups.iter().map(|group: &Group| (group.key.to_string(), group.files, group.missing)).collect()
}

#[test]
fn messages_are_counted_by_provider_key_and_age_and_the_missing_apart() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 30, &old());
    put(folder.path(), "both.elk", &all(&[&old(), &new()]));
    let down = Down::shared("com.example.hsm", "7", ErrorKind::Unavailable);
    let part = put(folder.path(), "part.elk", &at_least(1, &[&new(), &down]));
    fs::write(folder.path().join("set"), by(&new()).record_set(&context("set")).unwrap().header()).unwrap();
    fs::write(folder.path().join("plain"), "plain").unwrap();
    let month_ago = SystemTime::now() - Duration::from_secs(40 * 86_400);
    fs::File::options().write(true).open(part).unwrap().set_modified(month_ago).unwrap();

    let report = take(Inventory::new(), below(folder.path()));
    assert_eq!((report.messages, report.record_sets, report.not_envelock, report.with_missing), (32, 1, 1, 1));
    let expected = [("com.example.hsm:7", 0, 1), ("raw:new", 3, 0), ("raw:old", 31, 0)];
    assert_eq!(counts(&report), expected.map(|(key, files, missing)| (key.to_owned(), files, missing)));
    assert_eq!(report.groups[0].oldest.unwrap(), month_ago);

    let by_provider = counts(&take(Inventory::new().by(By::Provider), below(folder.path())));
    assert_eq!(by_provider, [("com.example.hsm".to_owned(), 0, 1), ("raw".to_owned(), 33, 0)]);
    let ages = take(Inventory::new().by(By::Age), below(folder.path()));
    let ages: Vec<_> = ages.groups.iter().map(|it| (it.key.clone(), it.files, it.missing)).collect();
    assert_eq!(ages, [(GroupKey::Age(Some(AgeBand::Day)), 32, 0), (GroupKey::Age(Some(AgeBand::Year)), 1, 1)]);

    let only = |selection| take(Inventory::new().only(selection), below(folder.path()));
    let missing = only(Selection::all().with_missing());
    assert_eq!((missing.messages, missing.not_selected, missing.groups.len()), (1, 32, 2));
    let old_files = only(Selection::all().modified_before(SystemTime::now() - Duration::from_secs(3_600)));
    assert_eq!((old_files.messages, old_files.not_selected), (1, 32));
}

#[test]
fn a_version_shows_where_the_wrapped_key_shows_it() {
    use crate::support::providers::Scripted;
    use envelock::{DataKeyAnswer, EncryptedDataKey, Envelope};
    let folder = tempfile::tempdir().unwrap();
    for (at, wrapped) in ["vault:v1:AAAA", "vault:v12:BBBB", "vault:v12:CCCC", "no version"].into_iter().enumerate() {
        let slots = vec![EncryptedDataKey::new("vault", "transit/orders", wrapped)];
        let provider = Scripted::shared(slots, |_| DataKeyAnswer::Key(Scripted::key()));
        let envelope = blocking::Envelope::new(Envelope::builder(provider).build().unwrap());
        fs::write(folder.path().join(format!("{at}")), envelope.encrypt(b"x", &context("x")).unwrap()).unwrap();
    }
    let versions = counts(&take(Inventory::new().by(By::Version), below(folder.path())));
    let expected = [("", 1), (" version 1", 1), (" version 12", 2)];
    assert_eq!(versions, expected.map(|(version, files)| (format!("vault:transit/orders{version}"), files, 0)));
}

#[test]
fn lists_name_files_and_folders_and_one_that_is_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let paths = fill(folder.path(), 9, &old());
    let odd = put(folder.path(), "a\nline", &old());
    let list: Vec<u8> = [folder.path().join("a"), odd.clone(), folder.path().join("gone")]
        .iter()
        .flat_map(|path| [path.to_str().unwrap().as_bytes(), b"\0"].concat())
        .collect();
    let told = Arc::new(Mutex::new(Vec::new()));
    let files = Files::default().and_list(std::io::Cursor::new(list), Separator::Nul);
    let report = blocking::wait(Inventory::new().take(files, {
        let told = Arc::clone(&told);
        move |file| told.lock().unwrap().push((file.path.clone(), matches!(file.what, Seen::Message(_))))
    }))
    .unwrap();
    assert_eq!((report.messages, report.unreadable), (7, 1));
    let told = told.lock().unwrap();
    assert!(told.contains(&(odd, true)) && told.contains(&(folder.path().join("gone"), false)));
    assert!(paths.iter().filter(|path| told.contains(&((*path).clone(), true))).count() == 6);
    let lines = format!("{}\n\n{}", paths[0].display(), paths[1].display());
    let files = Files::below([&paths[2]]).and_list(std::io::Cursor::new(lines), Separator::Line);
    assert_eq!(take(Inventory::new(), files).messages, 3);
}

#[test]
fn a_file_of_several_names_counts_once_and_what_is_being_written_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = put(folder.path(), "a.elk", &old());
    fs::hard_link(&path, folder.path().join("b.elk")).unwrap();
    std::os::unix::fs::symlink("a.elk", folder.path().join("c.elk")).unwrap();
    std::os::unix::fs::symlink(".", folder.path().join("d")).unwrap();
    for name in [".x.elk.0.envelock-tmp", ".y.elk.envelock-partial"] {
        fs::copy(&path, folder.path().join(name)).unwrap();
    }
    let report = take(Inventory::new(), below(folder.path()));
    assert_eq!((report.messages, report.other_names, report.links, report.unfinished), (1, 1, 2, 2));
    let report = take(Inventory::new(), below(folder.path()).following_links());
    assert_eq!((report.messages, report.other_names, report.links, report.unfinished), (1, 2, 1, 2));
    // What is named itself is followed.
    std::os::unix::fs::symlink(folder.path(), folder.path().join("e")).unwrap();
    let named = |name: &str| take(Inventory::new(), Files::below([folder.path().join(name)])).messages;
    assert_eq!((named("c.elk"), named("e")), (1, 1));
}

#[test]
fn an_interrupted_rewrap_shows_as_what_it_will_be() {
    let folder = tempfile::tempdir().unwrap();
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/src");
    for name in ["torn.elk", "torn.elk.rewrap"] {
        fs::copy(fuzz.join(name), folder.path().join(name)).unwrap();
    }
    let report = take(Inventory::new(), below(folder.path()));
    assert_eq!((report.messages, report.interrupted, report.damaged, report.not_envelock), (1, 1, 0, 1));
}

#[test]
fn an_inventory_that_is_stopped_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Arc::new(AtomicBool::new(true));
    let stopped = blocking::wait(Inventory::new().stop_when(stop).take(below(folder.path()), |_| {})).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Io);
}

#[test]
fn ten_thousand_keys_of_strangers_are_as_many_as_are_kept_apart() {
    use crate::support::providers::Scripted;
    use envelock::{DataKeyAnswer, EncryptedDataKey, Envelope};
    let folder = super::in_memory();
    for file in 0..330_u16 {
        let slot = |at: u16| EncryptedDataKey::new("com.example.x", (file * 32 + at).to_string(), vec![1]);
        let provider = Scripted::shared((0..32).map(slot).collect(), |_| DataKeyAnswer::NotMine);
        let envelope = blocking::Envelope::new(Envelope::builder(provider).build().unwrap());
        let path: PathBuf = folder.path().join(file.to_string());
        fs::write(path, envelope.encrypt(b"x", &context("x")).unwrap()).unwrap();
    }
    let report = take(Inventory::new(), below(folder.path()));
    assert_eq!((report.messages, report.groups.len(), report.beyond_groups), (330, 10_000, 560));
}
