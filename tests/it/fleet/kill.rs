//! Runs that are killed by SIGKILL, ten times midway, and go on.

use super::{Kms, Log, fill, in_memory, moved, new, old};
use crate::support::child::{Running, leftovers, tell, words};
use crate::support::random::Random;
use crate::support::say;
use envelock::fleet::{Files, Outcome, Rewrap};
use envelock::{KeyProvider, blocking};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const FILES: usize = 5_000;
const KILLS: usize = 10;
const CONCURRENCY: usize = 8;

#[test]
fn five_thousand_files_are_moved_through_ten_kills_by_two_calls_each() {
    play_or_kill("five_thousand_files_are_moved_through_ten_kills_by_two_calls_each", false, 1);
}

#[test]
fn five_thousand_files_are_moved_through_ten_kills_by_one_call_each_where_the_kms_re_encrypts() {
    let name = "five_thousand_files_are_moved_through_ten_kills_by_one_call_each_where_the_kms_re_encrypts";
    play_or_kill(name, true, 1);
}

#[test]
fn five_thousand_files_are_moved_through_ten_kills_by_one_call_a_batch() {
    play_or_kill("five_thousand_files_are_moved_through_ten_kills_by_one_call_a_batch", true, 20);
}

fn play_or_kill(test: &str, re_encrypts: bool, batch: usize) {
    match words() {
        Some(words) => play(Path::new(&words[0]), re_encrypts, batch),
        None => kill_often(test, re_encrypts, batch),
    }
}

/// Moves what is left, and tells how far it is.
fn play(home: &Path, re_encrypts: bool, batch: usize) {
    let kms = Kms::shared(re_encrypts, batch, &Log::File(home.join("calls")));
    let rewrap = Rewrap::to([kms]).others(envelock::fleet::Others::Remove).concurrency(CONCURRENCY);
    let mut moved = 0;
    let report =
        blocking::wait(rewrap.journal(home.join("journal")).run(Files::below([home.join("files")]), |_, outcome| {
            if matches!(outcome, Outcome::Rewrapped(_)) {
                moved += 1;
                tell(format!("moved {moved}"));
            }
        }));
    let report = report.unwrap();
    tell(format!("ended {} {} {}", report.rewrapped, report.current, report.failed));
}

fn kill_often(test: &str, re_encrypts: bool, batch: usize) {
    let start = Instant::now();
    let home = in_memory();
    let files = home.path().join("files");
    std::fs::create_dir(&files).unwrap();
    let paths = fill(&files, FILES, &old());
    let name = format!("fleet::kill::{test}");
    let mut random = Random::new(u64::from(re_encrypts) * 100 + batch as u64);
    let (mut begun, mut torn) = (0, 0);
    for kill in 0..KILLS {
        let mut child = Running::start(&name, &[home.path().to_str().unwrap()]);
        let until = 100 + random.below(400);
        for _ in 0..until {
            let line = child.line().unwrap_or_else(|| panic!("it ended by itself before kill {kill}"));
            assert!(line.starts_with("moved "), "{line}");
        }
        begun += child.kill().len();
        // Whatever stands, each opens under one of the two keys, a journal beside it or not.
        torn += ["a", "a/b", "c"].iter().map(|it| leftovers(&files.join(it)).len()).sum::<usize>();
        for path in paths.iter().skip(kill * 37 % 50).step_by(50) {
            let reads = |provider: Arc<dyn KeyProvider>| {
                super::by(&provider).file_reader(path, &super::context(of(&files, path))).is_ok()
            };
            assert!(reads(old()) || reads(new()), "{} opens under neither key", path.display());
        }
    }
    let mut last = Running::start(&name, &[home.path().to_str().unwrap()]);
    let ended = loop {
        let line = last.line().unwrap();
        if let Some(ended) = line.strip_prefix("ended ") {
            break ended.to_owned();
        }
    };
    drop(last.succeed());
    let numbers: Vec<usize> = ended.split(' ').map(|it| it.parse().unwrap()).collect();
    assert_eq!((numbers[0] + numbers[1], numbers[2]), (FILES, 0), "{ended}");
    moved(&files, &paths);
    let left: Vec<_> = ["a", "a/b", "c"].iter().flat_map(|it| leftovers(&files.join(it))).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!home.path().join("journal").exists(), "the run is done, and its journal is there");

    let log = Log::File(home.path().join("calls"));
    let calls = log.text().len();
    let (batches, each) = (FILES.div_ceil(batch), if re_encrypts { 1 } else { 2 });
    // A kill loses what was under way; the last batch of a walk may not be full.
    let most = (batches + KILLS * (CONCURRENCY + 1)) * each;
    say(format!(
        "fleet: {FILES} files, {} a call, through {KILLS} kills after {begun} files ({torn} torn) by {calls} calls, at \
         most {most}, in {:.1} s",
        batch,
        start.elapsed().as_secs_f64()
    ));
    assert!(calls >= batches * each && calls <= most, "{calls} calls");

    let second = Kms::shared(re_encrypts, batch, &log);
    let report = blocking::wait(Rewrap::to([second]).run(Files::below([&files]), |_, _| {})).unwrap();
    assert_eq!((report.current, report.calls.all()), (FILES as u64, 0));
    assert_eq!(log.text().len(), calls, "a second run asks nobody");
}

fn of<'a>(folder: &Path, path: &'a Path) -> &'a str {
    path.strip_prefix(folder).unwrap().to_str().unwrap()
}
