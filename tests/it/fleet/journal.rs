//! Journals of runs: damaged, another run's, on a full disk, and two runs at once.

use super::{Kms, Log, by, context, fill, in_memory, moved, new, old, opens, run, try_run};
use crate::disk::{folders, mount, with_mounts};
use crate::support::child::tell;
use crate::support::providers::{Counted, raw};
use crate::support::{hex, say, unhex};
use envelock::fleet::{Files, Outcome, Rewrap};
use envelock::{ErrorKind, KeyProvider, PassphraseCost, PassphraseProvider, blocking};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A run that re-encrypts under the same key: only its journal tells what is done.
fn again(log: &Log) -> Rewrap {
    Rewrap::to([Kms::shared(true, 1, log)]).again()
}

/// Stops `rewrap` after `count` files.
fn stopped_after(count: usize, rewrap: Rewrap, folder: &Path) -> u64 {
    let stop = Arc::new(AtomicBool::new(false));
    let mut moved = 0;
    let report = blocking::wait(rewrap.stop_when(Arc::clone(&stop)).run(Files::below([folder]), |_, outcome| {
        moved += usize::from(matches!(outcome, Outcome::Rewrapped(_)));
        stop.fetch_or(moved >= count, Ordering::Relaxed);
    }));
    let report = report.unwrap();
    assert!(report.stopped);
    report.rewrapped
}

/// Notes the heads of these files, as they are.
fn note_all(journal: &Path, paths: &[PathBuf]) {
    let mut text = fs::read_to_string(journal).unwrap();
    let run_id = unhex(text.lines().next().unwrap().rsplit(' ').next().unwrap());
    for path in paths {
        let bytes = fs::read(path).unwrap();
        let head = &Sha256::digest(envelock::Header::parse(&bytes).unwrap().as_bytes())[..16];
        let check = &Sha256::digest([&run_id, head].concat())[..4];
        text.push_str(&format!("d {} {}\n", hex(head), hex(check)));
    }
    fs::write(journal, text).unwrap();
}

#[test]
fn a_run_whose_heads_tell_nothing_goes_on_from_its_journal() {
    let (folder, home, log) = (in_memory(), in_memory(), Log::memory());
    fill(folder.path(), 90, &new());
    let rewrap = again(&log).journal(home.path().join("j"));
    let first = stopped_after(40, rewrap.clone(), folder.path());
    let (report, _) = run(rewrap, folder.path());
    assert_eq!((report.resumed, report.current, report.rewrapped), (first, first, 90 - first));
    assert_eq!(log.of('r'), 90, "none was encrypted twice");
    assert!(!home.path().join("j").exists());
}

#[test]
fn a_damaged_journal_costs_calls_and_loses_no_file() {
    let (folder, home, log) = (in_memory(), in_memory(), Log::memory());
    fill(folder.path(), 60, &new());
    let journal = home.path().join("j");
    let rewrap = again(&log).journal(&journal);
    let first = stopped_after(30, rewrap.clone(), folder.path());
    let mut bytes = fs::read(&journal).unwrap();
    let at = bytes.len() - 60;
    bytes[at] ^= 1;
    bytes.truncate(bytes.len() - 3);
    fs::write(&journal, bytes).unwrap();
    let (report, _) = run(rewrap, folder.path());
    // One line was changed, and one cut off.
    assert_eq!((report.resumed, report.journal_damaged), (first - 2, 1));
    assert_eq!((report.rewrapped, report.failed), (60 - first + 2, 0));
    assert_eq!(log.of('r'), 62);
}

#[test]
fn a_forged_journal_keeps_no_file_under_the_old_key() {
    let (folder, home) = (in_memory(), in_memory());
    let paths = fill(folder.path(), 12, &old());
    let journal = home.path().join("j");
    let rewrap = Rewrap::to([new()]).from([old()]).journal(&journal);
    let first = stopped_after(4, rewrap.clone(), folder.path());
    // Whoever may write the journal notes every file as done with, as it is.
    note_all(&journal, &paths);
    let (report, _) = run(rewrap, folder.path());
    assert_eq!((report.resumed, report.journal_damaged), (12, 0), "the lines are good ones");
    assert_eq!((report.rewrapped, report.failed), (12 - first, 0));
    moved(folder.path(), &paths);
}

#[test]
fn a_journal_is_not_believed_against_a_head_that_has_an_old_key_where_heads_alone_do_not_tell() {
    let (folder, home) = (in_memory(), in_memory());
    let paths = fill(folder.path(), 8, &old());
    let cost = PassphraseCost { memory_kib: 64, passes: 1, lanes: 1 };
    let to: Arc<dyn KeyProvider> = Arc::new(PassphraseProvider::new("words").unwrap().with_cost(cost).unwrap());
    let journal = home.path().join("j");
    let rewrap = Rewrap::to([Arc::clone(&to)]).from([old()]).concurrency(1).journal(&journal);
    let first = stopped_after(2, rewrap.clone(), folder.path());
    note_all(&journal, &paths);
    let (report, _) = run(rewrap, folder.path());
    assert_eq!((report.rewrapped, report.current, report.failed), (8 - first, first, 0));
    assert!(paths.iter().all(|path| opens(folder.path(), path, &to) && !opens(folder.path(), path, &old())));
}

#[test]
fn a_full_disk_ends_the_run_before_it_is_paid_for_every_file() {
    const TEST: &str = "fleet::journal::a_full_disk_ends_the_run_before_it_is_paid_for_every_file";
    with_mounts(TEST, |folder| {
        let (_, bad) = folders(folder);
        mount(&["-t", "tmpfs", "-o", "size=512k", "tmpfs"], &bad);
        let paths = fill(&bad, 60, &old());
        let mut filler = fs::File::create(bad.join("filler")).unwrap();
        while filler.write(&[0; 4_096]).is_ok_and(|len| len > 0) {}
        let (to, calls) = Counted::wrap(new());
        let (report, told) = try_run(Rewrap::to([to]).from([old()]).concurrency(2), Files::below([&bad]));
        let error = report.unwrap_err();
        assert!(error.kind() == ErrorKind::Io && error.to_string().contains("free space"), "{error}");
        let paid = calls.encrypt.load(Ordering::SeqCst);
        assert!((1..=4).contains(&paid), "{paid} calls, {told:?}");
        assert!(paths.iter().all(|path| opens(&bad, path, &old())));
        tell(format!("refused: {error}"));
    });
}

#[test]
fn a_message_too_large_to_copy_does_not_keep_those_that_need_no_space_from_being_moved() {
    const TEST: &str =
        "fleet::journal::a_message_too_large_to_copy_does_not_keep_those_that_need_no_space_from_being_moved";
    with_mounts(TEST, |folder| {
        let (_, bad) = folders(folder);
        mount(&["-t", "tmpfs", "-o", "size=8m", "tmpfs"], &bad);
        // First in the walk, and without room for other slots.
        let large = by(&old()).encrypt(&vec![7; 5 << 20], &context("0")).unwrap();
        fs::write(bad.join("0.elk"), &large).unwrap();
        let paths = fill(&bad, 40, &old());
        let rewrap = Rewrap::to([raw("a key of a much longer name than before", 2)]).from([old()]).concurrency(1);
        let (report, told) = try_run(rewrap, Files::below([&bad]));
        let report = report.unwrap();
        assert_eq!((report.rewrapped, report.failed), (40, 1), "{told:?}");
        let error = report.first_failure.unwrap();
        assert_eq!(error.kind(), ErrorKind::Io);
        tell(format!("refused: {error}"));
        assert!(paths.iter().all(|path| !opens(&bad, path, &old())));
        assert!(fs::read(bad.join("0.elk")).unwrap() == large, "it is as it was");
    });
}

#[test]
fn the_journal_of_another_run_is_refused_and_nothing_is_changed() {
    let (folder, home, log) = (in_memory(), in_memory(), Log::memory());
    fill(folder.path(), 30, &old());
    let journal = home.path().join("j");
    stopped_after(3, Rewrap::to([Kms::shared(true, 1, &log)]).from([old()]).journal(&journal), folder.path());
    let (kept, calls) = (fs::read(&journal).unwrap(), log.text());
    let (report, told) =
        try_run(Rewrap::to([raw("third", 3)]).from([old()]).journal(&journal), Files::below([folder.path()]));
    let error = report.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("another run"), "{error}");
    assert!(told.is_empty() && fs::read(&journal).unwrap() == kept && log.text() == calls);
}

#[test]
fn a_full_disk_for_the_journal_ends_the_run_and_every_file_is_whole() {
    const TEST: &str = "fleet::journal::a_full_disk_for_the_journal_ends_the_run_and_every_file_is_whole";
    with_mounts(TEST, |folder| {
        let (good, bad) = folders(folder);
        mount(&["-t", "tmpfs", "-o", "size=64k", "tmpfs"], &bad);
        let paths = fill(&good, 300, &old());
        let rewrap = Rewrap::to([new()]).from([old()]).journal(bad.join("j"));
        // Room for the first page of it, and no more.
        let mut filler = fs::File::create(bad.join("filler")).unwrap();
        while filler.write(&[0; 4_096]).is_ok() {}
        filler.set_len(filler.metadata().unwrap().len() - 4_096).unwrap();
        let (report, told) = try_run(rewrap.clone(), Files::below([&good]));
        let error = report.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("free space"), "{error}");
        let done = told.iter().filter(|(_, it)| it.starts_with("Rewrapped")).count();
        assert!((80..130).contains(&done), "{done} files until the page was full");
        tell(format!("refused: {error}"));
        drop(filler);
        fs::remove_file(bad.join("filler")).unwrap();
        let (report, _) = run(rewrap, &good);
        assert_eq!((report.rewrapped + report.current, report.failed), (300, 0));
        assert!(report.rewrapped <= 300 - done as u64);
        moved(&good, &paths);
    });
}

#[test]
fn two_runs_over_one_tree_share_the_work_and_repeat_none_of_it() {
    let folder = in_memory();
    let paths = fill(folder.path(), 600, &old());
    let (to, calls) = Counted::wrap(new());
    let totals = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..2)
            .map(|_| {
                let rewrap = Rewrap::to([Arc::clone(&to)]).from([old()]);
                scope.spawn(|| run(rewrap, folder.path()).0)
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect::<Vec<_>>()
    });
    let sum = |count: fn(&envelock::fleet::RewrapReport) -> u64| totals.iter().map(count).sum::<u64>();
    say(format!("fleet: two runs at once moved {} and {}", totals[0].rewrapped, totals[1].rewrapped));
    assert_eq!((sum(|it| it.rewrapped), sum(|it| it.failed), sum(|it| it.current)), (600, 0, 600), "{totals:?}");
    assert_eq!(calls.encrypt.load(Ordering::SeqCst), 600, "a file was moved twice");
    moved(folder.path(), &paths);
}

#[test]
fn two_runs_with_one_journal_are_one_too_many() {
    let (folder, home) = (in_memory(), in_memory());
    fill(folder.path(), 12, &old());
    let rewrap = Rewrap::to([new()]).from([old()]).journal(home.path().join("j"));
    let mut inner = None;
    let other = rewrap.clone();
    let report = blocking::wait(rewrap.run(Files::below([folder.path()]), |_, _| {
        inner.get_or_insert_with(|| try_run(other.clone(), Files::below([folder.path()])).0.unwrap_err());
    }));
    assert_eq!(report.unwrap().rewrapped, 12);
    let busy = inner.unwrap();
    assert_eq!(busy.kind(), ErrorKind::Busy);
    assert!(busy.to_string().contains("another run"), "{busy}");
}

#[test]
fn a_file_that_another_process_holds_comes_again_at_the_end() {
    let folder = in_memory();
    let paths = fill(folder.path(), 20, &old());
    let held = fs::File::open(&paths[3]).unwrap();
    held.lock().unwrap();
    let mut put_off = 0;
    let mut held = Some(held);
    let report = blocking::wait(Rewrap::to([new()]).from([old()]).run(Files::below([folder.path()]), |_, outcome| {
        if let Outcome::PutOff(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Busy);
            put_off += 1;
            held.take();
        }
    }));
    let report = report.unwrap();
    assert_eq!((report.rewrapped, report.failed, put_off), (20, 0, 1));
    moved(folder.path(), &paths);
}
