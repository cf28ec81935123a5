//! Resumable encryptions that are killed by SIGKILL at random points, once or several times, and gone on
//! with: no whole segment is sealed twice. The test runs itself again as the process that is killed.

use crate::support::child::{Running, long, tell, words};
use crate::support::model::Head;
use crate::support::providers::raw;
use crate::support::random::Random;
use crate::support::say;
use envelock::{EncryptionContext, Envelope, FileOptions, ResumeOptions, ResumeStart, blocking};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

const TEST: &str = "resume_kill::a_killed_encryption_goes_on_and_no_whole_segment_is_sealed_twice";
const SEGMENT: u64 = 65_536;

fn envelope() -> blocking::Envelope {
    blocking::Envelope::new(Envelope::builder(raw("mine", 2)).build().unwrap())
}

fn context() -> EncryptionContext {
    EncryptionContext::from([("object", "killed")])
}

#[test]
fn a_killed_encryption_goes_on_and_no_whole_segment_is_sealed_twice() {
    match words() {
        Some(words) => encrypt(Path::new(&words[0])),
        None => kill_often(),
    }
}

/// Slowly, so that there is time to be killed in.
fn encrypt(folder: &Path) {
    let options = FileOptions::default().on_progress(|_| std::thread::sleep(Duration::from_millis(2)));
    let options = ResumeOptions::from(options).on_start(|_| tell("started"));
    envelope().encrypt_file_resumable(folder.join("a"), folder.join("a.elk"), &context(), options).unwrap();
}

#[derive(Debug, Default)]
struct Tally {
    kills: u32,
    messages: u32,
    /// Resumed runs that found the torn beginning of a segment, and that found all segments.
    torn: u32,
    whole: u32,
    /// Kills of a run that went on with what another killed run had left.
    again: u32,
    /// Segments that were found whole and kept, in all resumed runs.
    kept: u64,
}

fn kill_often() {
    let (len, kills): (u64, u32) = if long() { (1 << 30, 100) } else { (16 << 20, 10) };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    make_source(&folder.join("a"), len);
    let mut random = Random::new(11);
    let mut tally = Tally::default();
    while tally.kills < kills {
        one_message(folder, len, &mut random, &mut tally);
    }
    say(format!("resume: SIGKILL in a file of {} MiB: {tally:?}", len >> 20));
    assert!(tally.kept > u64::from(kills) * len / SEGMENT / 8 && tally.again > 0, "{tally:?}");
    assert!(tally.torn > 0, "{tally:?}");
}

/// A message, killed up to three times on its way.
fn one_message(folder: &Path, len: u64, random: &mut Random, tally: &mut Tally) {
    let (partial, before) = (folder.join(".a.elk.envelock-partial"), folder.join("before"));
    let target = folder.join("a.elk");
    let _ = fs::remove_file(&target);
    let _ = fs::remove_file(&before);
    let (mut left, mut killed) = (0, 0);
    for _ in 0..1 + random.below(3) {
        let point = left + 1 + random.next() % (len + (len >> 6) - left);
        let mut child = Running::start(TEST, &[folder.to_str().unwrap()]);
        let start = Instant::now();
        while fs::metadata(&partial).map_or(0, |it| it.len()) < point && !child.ended() {
            assert!(start.elapsed() < Duration::from_secs(300), "nothing is written any more");
            std::thread::sleep(Duration::from_micros(100));
        }
        std::thread::sleep(Duration::from_micros(random.next() % 500));
        child.kill();
        if target.exists() {
            break;
        }
        tally.kills += 1;
        tally.again += u32::from(killed > 0);
        killed += 1;
        keeps_all_that_lay_whole(&before, &partial);
        if tally.messages.is_multiple_of(2) {
            tear(&partial, random);
        }
        left = fs::metadata(&partial).unwrap().len();
        fs::copy(&partial, &before).unwrap();
    }
    if !target.exists() {
        let expected = whole_segments(&partial, len);
        let done =
            envelope().encrypt_file_resumable(folder.join("a"), &target, &context(), FileOptions::default()).unwrap();
        let ResumeStart::Continued { verified_segments, .. } = done.start else { panic!("{done:?}") };
        assert_eq!(verified_segments, expected.0);
        tally.kept += verified_segments;
        tally.torn += u32::from(expected.1 == Rest::Torn);
        tally.whole += u32::from(expected.1 == Rest::AllThere);
    }
    keeps_all_that_lay_whole(&before, &target);
    decrypts_to(&target, &folder.join("a"));
    assert!(!partial.exists());
    tally.messages += 1;
}

/// Takes less than a segment from the end. Segments go out whole, so that a kill alone seldom leaves the torn
/// beginning of one: a disk that has no room left, or a machine that loses its power, does.
fn tear(partial: &Path, random: &mut Random) {
    let (len, head) = (fs::metadata(partial).unwrap().len(), head_len(partial));
    if len >= head + SEGMENT {
        let file = OpenOptions::new().write(true).open(partial).unwrap();
        file.set_len(len - 1 - random.next() % (SEGMENT - 1)).unwrap();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Nothing,
    Torn,
    AllThere,
}

/// How many segments lie whole, by the file's length alone, and what follows them.
fn whole_segments(partial: &Path, source_len: u64) -> (u64, Rest) {
    let body = fs::metadata(partial).unwrap().len() - head_len(partial);
    let segments = source_len.div_ceil(SEGMENT - 32);
    match body {
        _ if body == source_len + 32 * segments => (segments, Rest::AllThere),
        _ if body.is_multiple_of(SEGMENT) => (body / SEGMENT, Rest::Nothing),
        _ => (body / SEGMENT, Rest::Torn),
    }
}

fn head_len(message: &Path) -> u64 {
    let mut head = vec![0; 65_536];
    let mut file = File::open(message).unwrap();
    let mut filled = 0;
    loop {
        match file.read(&mut head[filled..]).unwrap() {
            0 => break,
            count => filled += count,
        }
    }
    Head::judge(&head[..filled]).unwrap().len() as u64
}

/// Head and whole segments of `before` are in `after`, byte for byte.
fn keeps_all_that_lay_whole(before: &Path, after: &Path) {
    let Ok(metadata) = fs::metadata(before) else { return };
    let head = head_len(before);
    let whole = head + (metadata.len() - head) / SEGMENT * SEGMENT;
    assert!(fs::metadata(after).unwrap().len() >= whole, "what was sealed was given up");
    let open = |path| File::open(path).unwrap().take(whole);
    assert_eq!(same(open(before), open(after)), whole, "a whole segment was sealed again");
}

fn decrypts_to(message: &Path, source: &Path) {
    let mut file = File::open(source).unwrap();
    let len = file.seek(SeekFrom::End(0)).unwrap();
    file.rewind().unwrap();
    assert_eq!(same(envelope().file_reader(message, &context()).unwrap(), file), len);
}

/// How many bytes two readers give that are the same, if they end together.
#[track_caller]
fn same(mut one: impl Read, mut other: impl Read) -> u64 {
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut done = 0;
    loop {
        let counts = [fill(&mut one, &mut a), fill(&mut other, &mut b)];
        assert_eq!(counts[0], counts[1], "one is longer");
        if a[..counts[0]] != b[..counts[1]] {
            return done;
        }
        done += counts[0] as u64;
        if counts[0] < a.len() {
            return done;
        }
    }
}

fn fill(input: &mut impl Read, out: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < out.len() {
        match input.read(&mut out[filled..]).unwrap() {
            0 => break,
            count => filled += count,
        }
    }
    filled
}

fn make_source(path: &Path, len: u64) {
    let mut random = Random::new(3);
    let mut file = File::create(path).unwrap();
    let mut piece = vec![0; 1 << 20];
    for _ in 0..len >> 20 {
        for word in piece.chunks_mut(8) {
            word.copy_from_slice(&random.next().to_le_bytes());
        }
        file.write_all(&piece).unwrap();
    }
    drop(file);
    // Older than the partial file to come, also by a clock that moves every few milliseconds.
    std::thread::sleep(Duration::from_millis(50));
}
