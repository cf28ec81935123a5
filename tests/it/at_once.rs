//! Several processes on one file at once: one after the other, or one is told that it cannot; never a
//! half file, never a lost one.

use crate::support::process::{Part, hear, long, part, tell};
use crate::support::{providers, say};
use envelock::blocking::Envelope;
use envelock::{EncryptionContext, Error, ErrorKind, FileOptions, RewrapOptions};
use std::fs;
use std::io::Read;
use std::path::Path;

fn envelope(seed: u8) -> Envelope {
    let id = format!("key-{seed}");
    Envelope::new(envelock::Envelope::builder(providers::raw(&id, seed)).segment_len(4096).build().unwrap())
}

/// Opens what is under any of the keys that the tests use.
fn any() -> Envelope {
    let keys = [1, 2, 3].map(|seed| providers::raw(&format!("key-{seed}"), seed));
    let all = providers::all(&[&keys[0], &keys[1], &keys[2]]);
    Envelope::new(envelock::Envelope::builder(all).build().unwrap())
}

fn none() -> EncryptionContext {
    EncryptionContext::new()
}

fn rounds() -> usize {
    if long() { 400 } else { 40 }
}

const LEN: usize = 300_000;

/// The plaintext, if it is whole and all of one writer's.
#[track_caller]
fn whole(path: &Path) -> u8 {
    let mut plaintext = Vec::new();
    any().file_reader(path, &none()).unwrap().read_to_end(&mut plaintext).unwrap();
    assert_eq!(plaintext.len(), LEN);
    assert!(plaintext.iter().all(|byte| *byte == plaintext[0]), "a mixture");
    plaintext[0]
}

/// A part that does `operation` once per round, when it is told to, and says how it went.
fn each_round(operation: impl Fn() -> Result<(), Error>) {
    while hear() == "go" {
        match operation() {
            Ok(()) => tell("ok"),
            Err(error) => tell(format!("{:?} {error}", error.kind()).replace('\n', " ")),
        }
    }
}

#[test]
fn two_writers_of_one_target_leave_one_whole_file() {
    let test = "at_once::two_writers_of_one_target_leave_one_whole_file";
    if let Some(words) = part() {
        let folder = Path::new(&words[0]);
        let options = FileOptions::default();
        let options = if words[2] == "replace" { options.replace_existing() } else { options };
        return each_round(|| {
            let plain = folder.join(format!("plain-{}", words[1]));
            envelope(1).encrypt_file(plain, folder.join("sealed"), &none(), options.clone()).map(drop)
        });
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for writer in [1, 2] {
        fs::write(path(&format!("plain-{writer}")), vec![writer; LEN]).unwrap();
    }
    for how in ["replace", "keep"] {
        let mut writers = ["1", "2"].map(|writer| Part::start(test, &[folder.path().to_str().unwrap(), writer, how]));
        let (mut won, mut refused) = ([0; 2], 0);
        for _ in 0..rounds() {
            let _ = fs::remove_file(path("sealed"));
            writers.iter_mut().for_each(|writer| writer.say("go"));
            let answers = writers.each_mut().map(|writer| writer.line().unwrap());
            let done = answers.iter().filter(|answer| *answer == "ok").count();
            for answer in answers.iter().filter(|answer| *answer != "ok") {
                assert!(how == "keep" && answer.starts_with("InvalidInput") && answer.contains("sealed"), "{answer}");
                refused += 1;
            }
            assert_eq!(done, if how == "keep" { 1 } else { 2 }, "{answers:?}");
            let winner = usize::from(whole(&path("sealed")));
            assert!(how == "replace" || answers[winner - 1] == "ok", "acknowledged and then replaced");
            won[winner - 1] += 1;
        }
        for writer in writers {
            writer.succeed();
        }
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["plain-1", "plain-2", "sealed"]);
        say(format!("at once: two writers ({how}): {} rounds, won {won:?}, refused {refused}", rounds()));
    }
}

#[test]
fn two_rewraps_of_one_file_and_readers_meanwhile_fail_nowhere() {
    let test = "at_once::two_rewraps_of_one_file_and_readers_meanwhile_fail_nowhere";
    if let Some(words) = part() {
        let file = Path::new(&words[0]).join("sealed");
        let seed: u8 = words[1].parse().unwrap();
        if seed == 0 {
            return read_until_told(&file);
        }
        return each_round(|| {
            let rewrapped = any().rewrap_file(&file, &envelope(seed), &none(), RewrapOptions::default())?;
            if rewrapped.in_place { Ok(()) } else { Err(Error::new(ErrorKind::Storage, "not in place")) }
        });
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("plain"), vec![9; LEN]).unwrap();
    envelope(1).encrypt_file(path("plain"), path("sealed"), &none(), FileOptions::default()).unwrap();
    let start = |seed: &str| Part::start(test, &[folder.path().to_str().unwrap(), seed]);
    let (mut rewraps, mut reader) = ([start("2"), start("3")], start("0"));
    let mut last = [0; 2];
    for _ in 0..rounds() {
        rewraps.iter_mut().for_each(|rewrap| rewrap.say("go"));
        for rewrap in &mut rewraps {
            assert_eq!(rewrap.line().as_deref(), Some("ok"));
        }
        assert_eq!(whole(&path("sealed")), 9);
        let under = [2, 3].map(|seed| envelope(seed).verify_file(path("sealed"), &none()).is_ok());
        assert_eq!(under.iter().filter(|it| **it).count(), 1, "under exactly one of both");
        last[usize::from(under[1])] += 1;
        assert!(!path("sealed.rewrap").exists());
    }
    reader.say("stop");
    let reads = reader.line().unwrap();
    reader.succeed();
    for rewrap in rewraps {
        rewrap.succeed();
    }
    say(format!(
        "at once: {} rounds of two rewraps, last {last:?}; a reader meanwhile: {reads} reads, none failed",
        rounds()
    ));
    assert!(reads.parse::<usize>().unwrap() > 0);
}

/// Reads `file` again and again until the parent says stop.
fn read_until_told(file: &Path) {
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = std::sync::Arc::clone(&stop);
    let waiting = std::thread::spawn(move || {
        assert_eq!(hear(), "stop");
        told.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    let mut reads = 0;
    while !stop.load(std::sync::atomic::Ordering::SeqCst) {
        assert_eq!(whole(file), 9);
        reads += 1;
    }
    waiting.join().unwrap();
    tell(reads);
}
