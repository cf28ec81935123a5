//! What is left of damaged messages: an independent model, which opens nothing but knows the one message
//! that was made, says for each damage which segments are authentic, and what the map must say.

use crate::support::child::long;
use crate::support::model::Known;
use crate::support::providers::raw;
use crate::support::random::Random;
use crate::support::say;
use envelock::AeadAlgorithm::{Aes256Gcm, ChaCha20Poly1305};
use envelock::{
    AeadAlgorithm, Damage, DamageCause, DamageMap, EncryptionContext, Envelope, ErrorKind, FileOptions, Holes,
    RecoverOptions, RewrapOptions, blocking,
};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

fn envelope(key: u8, aead: AeadAlgorithm, segment_len: u32) -> blocking::Envelope {
    let builder = Envelope::builder(raw(&format!("key {key}"), key)).aead(aead).segment_len(segment_len);
    blocking::Envelope::new(builder.build().unwrap())
}

fn context() -> EncryptionContext {
    EncryptionContext::from([("object", "damaged")])
}

/// A message as it was made.
struct Original {
    envelope: blocking::Envelope,
    plaintext: Vec<u8>,
    known: Known,
}

impl Original {
    fn new(aead: AeadAlgorithm, segment_len: u32, len: usize, random: &mut Random) -> Self {
        let envelope = envelope(7, aead, segment_len);
        let plaintext = random.bytes(len);
        let message = envelope.encrypt(&plaintext, &context()).unwrap();
        Self { envelope, plaintext, known: Known::new(message, &[]) }
    }

    fn head_len(&self) -> usize {
        self.known.head.len()
    }

    fn body(&self) -> Vec<u8> {
        self.known.message[self.head_len()..].to_vec()
    }

    fn with_body(&self, body: &[u8]) -> Vec<u8> {
        [&self.known.message[..self.head_len()], body].concat()
    }
}

/// What the map must say, and what must be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Expected {
    zeros: Vec<u8>,
    skipped: Vec<u8>,
    damages: Vec<Entry>,
    authentic: u64,
    authentic_len: u64,
    lost: u64,
    end_verified: bool,
}

/// Segments, sealed bytes, plaintext, where it is in a skipped output, cause.
type Entry = (Range<u64>, Range<u64>, Range<u64>, u64, DamageCause);

/// Judges a body by comparing bytes with the segments that were made.
fn model(original: &Original, body: &[u8]) -> Expected {
    let genuine = original.known.segments();
    let full = original.known.head.segment_len;
    let head = original.head_len() as u64;
    let mut it = Expected::default();
    let mut all: Vec<Entry> = Vec::new();
    let mut certain_to_go_on = true;
    for (index, piece) in body.chunks(full).enumerate() {
        let at = head + (index * full) as u64;
        let place = at..at + piece.len() as u64;
        let number = index as u64..index as u64 + 1;
        let from = index * (full - 32);
        let is_final = index + 1 == genuine.len();
        // The bytes of the segment that belongs here, and whether its prefix is among them.
        let found = genuine.get(index).and_then(|real| {
            let there = piece.get(..real.len())?;
            let length_is_known = !is_final || there[..4] == real[..4] || piece.len() == real.len();
            (there[4..] == real[4..] && length_is_known).then_some((real.len(), there[..4] == real[..4]))
        });
        let Some((len, prefix)) = found else {
            let claim = piece.first_chunk().map_or(0, |prefix| u32::from_be_bytes(*prefix));
            let cut = piece.len() < 32
                || (claim == u32::MAX && piece.len() < full)
                || ((32..=full).contains(&(claim as usize)) && claim as usize > piece.len());
            let cause = if cut { DamageCause::Truncated } else { DamageCause::NotAuthentic };
            let lost = piece.len().saturating_sub(32);
            all.push((number, place, from as u64..(from + lost) as u64, it.skipped.len() as u64, cause));
            it.zeros.resize(it.zeros.len() + lost, 0);
            it.lost += 1;
            certain_to_go_on = false;
            continue;
        };
        let plaintext = &original.plaintext[from..from + len - 32];
        if !prefix {
            let range = from as u64..(from + plaintext.len()) as u64;
            all.push((number, place, range, it.skipped.len() as u64, DamageCause::WrongPrefix));
        }
        it.zeros.extend(plaintext);
        it.skipped.extend(plaintext);
        it.authentic += 1;
        it.authentic_len += plaintext.len() as u64;
        certain_to_go_on = !is_final;
        if is_final {
            it.end_verified = true;
            let end = index * full + len;
            if end < body.len() {
                let whole = original.plaintext.len() as u64;
                let after = index as u64 + 1;
                let trailing = head + end as u64..head + body.len() as u64;
                all.push((after..after, trailing, whole..whole, it.skipped.len() as u64, DamageCause::TrailingData));
            }
            break;
        }
    }
    if certain_to_go_on {
        let next = body.len().div_ceil(full) as u64;
        let from = next * (full as u64 - 32);
        let end = head + body.len() as u64;
        all.push((next..next + 1, end..end, from..from, it.skipped.len() as u64, DamageCause::Truncated));
        it.lost += 1;
    }
    it.damages = all.into_iter().fold(Vec::new(), join);
    it
}

/// Neighbours of one cause are one entry.
fn join(mut all: Vec<Entry>, next: Entry) -> Vec<Entry> {
    match all.last_mut() {
        Some(last) if last.4 == next.4 && last.0.end == next.0.start => {
            (last.0.end, last.1.end, last.2.end) = (next.0.end, next.1.end, next.2.end);
        }
        _ => all.push(next),
    }
    all
}

fn check(original: &Original, message: &[u8], folder: &Path, holes: Holes) -> Result<DamageMap, String> {
    let (from, to) = (folder.join("damaged"), folder.join("left"));
    fs::write(&from, message).unwrap();
    let options = RecoverOptions::from(FileOptions::default().replace_existing()).holes(holes);
    let map = original.envelope.dangerous_recover_file(&from, &to, &context(), options).map_err(|e| e.to_string())?;
    let expected = model(original, &message[original.head_len()..]);
    let output = fs::read(&to).unwrap();
    let right = if holes == Holes::Zero { &expected.zeros } else { &expected.skipped };
    if output != *right {
        return Err(format!("{holes:?}: the output of {} bytes is not the {} expected", output.len(), right.len()));
    }
    let entry = |it: &Damage| -> Entry {
        let at = if holes == Holes::Zero { None } else { Some(it.output_at) };
        (it.segments.clone(), it.sealed.clone(), it.plaintext.clone(), at.unwrap_or_default(), it.cause)
    };
    let got: Vec<_> = map.damages.iter().map(entry).collect();
    let mut wanted = expected.damages.clone();
    if holes == Holes::Zero {
        for (damage, entry) in map.damages.iter().zip(&mut wanted) {
            entry.3 = 0;
            if damage.output_at != damage.plaintext.start {
                return Err(format!("{damage:?} is elsewhere in an output with zeros"));
            }
        }
    }
    if got != wanted {
        return Err(format!("{holes:?}: the map says {got:?} instead of {wanted:?}"));
    }
    let counts = (map.authentic_segments, map.authentic_len, map.lost_segments, map.output_len, map.damage_count);
    let right_counts =
        (expected.authentic, expected.authentic_len, expected.lost, output.len() as u64, wanted.len() as u64);
    if counts != right_counts || map.end_verified != expected.end_verified {
        return Err(format!("{holes:?}: {map:?} instead of {right_counts:?}"));
    }
    if map.is_whole() != (message == original.known.message) {
        return Err(format!("whole: {}", map.is_whole()));
    }
    Ok(map)
}

/// One damage to a body.
fn harm(body: &mut Vec<u8>, full: usize, original: &Original, random: &mut Random) -> &'static str {
    let len = body.len();
    let segments = len.div_ceil(full).max(1);
    let start_of = |index: usize| (index * full).min(len);
    match random.below(14) {
        0 | 1 if len > 0 => {
            let at = random.below(len);
            body[at] ^= 1 << random.below(8);
            "flipped bit"
        }
        2 if len > 0 => {
            body.truncate(random.below(len));
            "cut"
        }
        3 => {
            body.truncate(start_of(random.below(segments)));
            "cut at an edge"
        }
        4 if len > 0 => {
            let from = random.below(len);
            let to = (from + 1 + random.below(3 * full)).min(len);
            body[from..to].fill(0);
            "zeroed block"
        }
        5 if segments > 2 => {
            let (a, b) = (random.below(segments - 1), random.below(segments - 1));
            for i in 0..full {
                body.swap(a * full + i, b * full + i);
            }
            "swapped segments"
        }
        6 => {
            let (at, count) = (random.below(len + 1), 1 + random.below(2 * full));
            let block = random.bytes(count);
            body.splice(at..at, block);
            "inserted block"
        }
        7 => {
            let (at, copy) = (start_of(random.below(segments)), start_of(random.below(segments)));
            let segment = body[copy..len.min(copy + full)].to_vec();
            body.splice(at..at, segment);
            "inserted segment"
        }
        8 if len > 0 => {
            let from = random.below(len);
            body.drain(from..(from + 1 + random.below(full)).min(len));
            "removed block"
        }
        9 => {
            let from = start_of(random.below(segments));
            body.drain(from..len.min(from + full));
            "removed segment"
        }
        10 if len > 4 => {
            let at = start_of(random.below(segments)).min(len - 4);
            let choices = [0xFFFF_FFFF, 0, 32, 33, u32::try_from(full).unwrap(), u32::MAX - 1];
            body[at..at + 4].copy_from_slice(&choices[random.below(6)].to_be_bytes());
            "prefix"
        }
        11 => {
            let count = 1 + random.below(2 * full);
            body.extend(random.bytes(count));
            "trailing bytes"
        }
        12 => {
            let last = original.known.segments().last().unwrap().to_vec();
            body.extend(last);
            "second final segment"
        }
        13 if len > 0 => {
            let from = random.below(len);
            let to = (from + 1 + random.below(2 * full)).min(len);
            let noise = random.bytes(to - from);
            body[from..to].copy_from_slice(&noise);
            "overwritten block"
        }
        _ => "none",
    }
}

/// Memory where there is such a folder: a thousand files are synced.
fn fast_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

#[test]
fn the_map_of_every_damage_is_right_and_what_it_calls_authentic_is() {
    let cases = if long() { 10_000 } else { 1_000 };
    let folder = fast_folder();
    let mut random = Random::new(20);
    let (mut faults, mut kinds, mut causes) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    let (mut whole, mut authentic, mut lost) = (0, 0, 0);
    for case in 0..cases {
        let aead = [Aes256Gcm, ChaCha20Poly1305][case % 2];
        let full = [64, 100, 512, 4_096][case / 2 % 4];
        let per_segment = full as usize - 32;
        let count = random.below(12);
        let len = match case % 5 {
            0 => count * per_segment,
            _ => count * per_segment + random.below(per_segment),
        };
        let original = Original::new(aead, full, len, &mut random);
        let mut body = original.body();
        let mut done = Vec::new();
        for _ in 0..1 + random.below(4) {
            let what = harm(&mut body, full as usize, &original, &mut random);
            *kinds.entry(what).or_insert(0_u64) += 1;
            done.push(what);
        }
        let message = original.with_body(&body);
        for holes in [Holes::Zero, Holes::Skip] {
            match check(&original, &message, folder.path(), holes) {
                Ok(map) => {
                    whole += u64::from(map.is_whole());
                    authentic += map.authentic_segments;
                    lost += map.lost_segments;
                    for damage in &map.damages {
                        *causes.entry(damage.cause.name()).or_insert(0_u64) += 1;
                    }
                }
                Err(fault) => faults.push(format!("case {case}, {len} bytes in {full}, {done:?}: {fault}")),
            }
        }
    }
    say(format!(
        "recover: {cases} damaged messages, twice each: {authentic} segments authentic, {lost} lost, {whole} messages \
         whole; damages {kinds:?}; causes {causes:?}"
    ));
    let some: Vec<_> = faults.iter().take(5).collect();
    assert!(faults.is_empty(), "{} faults, first {some:#?}", faults.len());
    assert!(authentic > cases as u64 && lost > cases as u64 && whole < cases as u64 / 2);
    for cause in ["not-authentic", "wrong-prefix", "truncated", "trailing-data"] {
        assert!(causes[cause] > cases as u64 / 20, "{cause}: {causes:?}");
    }
}

#[test]
fn a_whole_message_is_called_whole_and_comes_back() {
    let (folder, mut random) = (fast_folder(), Random::new(1));
    for aead in [Aes256Gcm, ChaCha20Poly1305] {
        for len in [0, 1, 32, 33, 64, 1_000, 3 << 20] {
            let original = Original::new(aead, if len > 2_000 { 65_536 } else { 64 }, len, &mut random);
            for holes in [Holes::Zero, Holes::Skip] {
                let map = check(&original, &original.known.message, folder.path(), holes).unwrap();
                assert!(map.is_whole(), "{map:?}");
            }
        }
    }
}

#[test]
fn damages_are_told_as_they_are_found_where_the_caller_asks() {
    let (folder, mut random) = (fast_folder(), Random::new(2));
    let original = Original::new(Aes256Gcm, 64, 3_200, &mut random);
    let mut body = original.body();
    for segment in (0..100).step_by(2) {
        body[segment * 64 + 20] ^= 1;
    }
    let (from, to) = (folder.path().join("damaged"), folder.path().join("left"));
    fs::write(&from, original.with_body(&body)).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let options = RecoverOptions::default().on_damage({
        let told = Arc::clone(&told);
        move |damage| told.lock().unwrap().push(damage.segments)
    });
    let map = original.envelope.dangerous_recover_file(&from, &to, &context(), options).unwrap();
    assert_eq!((map.damages.len(), map.damage_count, map.lost_segments), (0, 50, 50));
    assert!(!map.is_whole() && map.end_verified);
    let expected: Vec<_> = (0..100).step_by(2).map(|index| index..index + 1).collect();
    assert_eq!(*told.lock().unwrap(), expected);
}

#[test]
fn a_message_of_many_megabytes_with_a_great_hole_keeps_its_places() {
    // Containers have little of the other.
    let (folder, mut random) = (tempfile::tempdir().unwrap(), Random::new(4));
    let original = Original::new(Aes256Gcm, 65_536, 20 << 20, &mut random);
    let mut body = original.body();
    body[3_000_000..15_000_000].fill(0);
    let len = body.len();
    body.truncate(len - 100_000);
    for holes in [Holes::Zero, Holes::Skip] {
        let map = check(&original, &original.with_body(&body), folder.path(), holes).unwrap();
        assert_eq!(map.damages.len(), 2, "{map:?}");
        assert!(!map.end_verified);
    }
}

#[test]
fn what_cannot_be_read_is_a_hole_and_costs_no_other_segment() {
    let (folder, mut random) = (fast_folder(), Random::new(9));
    let original = Original::new(ChaCha20Poly1305, 65_536, 4 << 20, &mut random);
    let (from, to) = (folder.path().join("damaged"), folder.path().join("left"));
    fs::write(&from, &original.known.message).unwrap();
    // The file is cut while it is read, after its length was seen: within segment 24, where a disk would fail.
    let cut = (original.head_len() + 24 * 65_536 + 1_000) as u64;
    let path = from.clone();
    let options = FileOptions::default().on_progress(move |_| {
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();
    });
    let map = original.envelope.dangerous_recover_file(&from, &to, &context(), options).unwrap();
    let [damage] = &map.damages[..] else { panic!("{map:?}") };
    assert_eq!((damage.cause, damage.segments.clone()), (DamageCause::Unreadable, 24..65), "{map:?}");
    assert_eq!((map.authentic_segments, map.lost_segments, map.end_verified), (24, 41, false));
    let mut expected = original.plaintext;
    expected[24 * 65_504..].fill(0);
    assert!(fs::read(to).unwrap() == expected);
}

#[test]
fn an_interrupted_rewrap_does_not_keep_what_is_left_from_being_found() {
    let (folder, mut random) = (fast_folder(), Random::new(6));
    let original = Original::new(Aes256Gcm, 64, 640, &mut random);
    let path = folder.path().join("a.elk");
    let plain = folder.path().join("a");
    fs::write(&plain, &original.plaintext).unwrap();
    original.envelope.encrypt_file(&plain, &path, &context(), FileOptions::default()).unwrap();
    let before = fs::read(&path).unwrap();
    let next = envelope(8, Aes256Gcm, 64);
    original.envelope.rewrap_file(&path, &next, &context(), RewrapOptions::default()).unwrap();
    let after = fs::read(&path).unwrap();
    // As a crash in the middle of it leaves the slots, and one segment is damaged besides.
    let known = Known::new(before.clone(), &[]);
    let area = known.head.area.clone();
    let m = u16::try_from(area.len()).unwrap();
    let mut journal = [&[1], &m.to_be_bytes()[..], &before[area.clone()], &after[area.clone()]].concat();
    let bound = [&journal[..], &before[known.head.core.clone()], &before[known.head.floe.clone()]].concat();
    journal.extend(<sha2::Sha256 as sha2::Digest>::digest(bound));
    fs::write(folder.path().join("a.elk.rewrap"), journal).unwrap();
    let mut torn = before;
    let half = area.start + 30;
    torn[area.start..half].copy_from_slice(&after[area.start..half]);
    torn[known.head.len() + 64 + 20] ^= 1;
    fs::write(&path, torn).unwrap();
    let to = folder.path().join("left");
    let map = next.dangerous_recover_file(&path, &to, &context(), FileOptions::default()).unwrap();
    assert_eq!((map.authentic_segments, map.lost_segments), (19, 1), "{map:?}");
    let mut expected = original.plaintext;
    expected[32..64].fill(0);
    assert!(fs::read(to).unwrap() == expected);
}

#[test]
fn without_a_whole_head_or_the_key_nothing_is_written() {
    let (folder, mut random) = (fast_folder(), Random::new(8));
    let original = Original::new(Aes256Gcm, 64, 640, &mut random);
    let (from, to): (PathBuf, PathBuf) = (folder.path().join("damaged"), folder.path().join("left"));
    let whole = &original.known.message;
    let recover = |message: &[u8], envelope: &blocking::Envelope| {
        fs::write(&from, message).unwrap();
        let error = envelope.dangerous_recover_file(&from, &to, &context(), FileOptions::default()).unwrap_err();
        assert!(!to.exists());
        assert_eq!(error.path(), Some(&*from));
        error.kind()
    };
    let flipped = |at: usize| {
        let mut message = whole.clone();
        message[at] ^= 1;
        message
    };
    assert_eq!(recover(&flipped(0), &original.envelope), ErrorKind::Malformed);
    assert_eq!(recover(&flipped(original.head_len() - 1), &original.envelope), ErrorKind::AuthenticationFailed);
    assert_eq!(recover(&whole[..original.head_len() - 1], &original.envelope), ErrorKind::Truncated);
    assert_eq!(recover(whole, &envelope(9, Aes256Gcm, 64)), ErrorKind::NoMatchingKey);
    // The damaged message is never what is written over, and an existing target is kept.
    fs::write(&from, &whole[..300]).unwrap();
    let over = FileOptions::default().replace_existing();
    let error = original.envelope.dangerous_recover_file(&from, &from, &context(), over).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(fs::read(&from).unwrap(), whole[..300]);
    fs::write(&to, "mine").unwrap();
    let options = FileOptions::default();
    let error = original.envelope.dangerous_recover_file(&from, &to, &context(), options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(fs::read(&to).unwrap(), b"mine");
}
