//! Damaged messages, through each way in: rejected with the right kind, or read as they were.
//!
//! Two judges that share no code say what is right: [`TABLE`], from rule 2 of docs/format.md, for each
//! field the kinds that a changed bit may give; and the model, exactly, for each message.

use crate::support::damage::{flips, surgery, truncations};
use crate::support::model::{Head, Known, Verdict, Walk};
use crate::support::sample::{Sample, Way};
use crate::support::say;
use envelock::AeadAlgorithm::{Aes256Gcm, ChaCha20Poly1305};
use envelock::ErrorKind::{self, *};
use std::collections::BTreeMap;

/// Kinds of errors; `None` stands for none.
type Kinds = &'static [Option<ErrorKind>];

/// What a flipped bit gives, field by field. `None` is the identical plaintext, in slots only.
/// Where two columns stand, the first is the streaming readers', the second the seeking ones'.
const TABLE: &[(&str, Kinds, Kinds)] = &[
    ("magic", &[Some(Malformed)], &[Some(Malformed)]),
    ("version", &[Some(Unsupported)], &[Some(Unsupported)]),
    // Bit 0 changes what the reader's context must hold; the others are unknown or reserved.
    ("flags", &[Some(Unsupported), Some(ContextMismatch)], &[Some(Unsupported), Some(ContextMismatch)]),
    // Too long for the format, for the input, or for its entries.
    ("context length", LENGTH, LENGTH),
    // No entries any more, or others than the reader's.
    ("context", &[Some(Malformed), Some(ContextMismatch)], &[Some(Malformed), Some(ContextMismatch)]),
    // As above; and FLOE parameters read at another place may be unknown ones.
    ("slots length", SLOTS_LENGTH, SLOTS_LENGTH),
    // More than 32, more than there are, or fewer, so that a slot reads as padding.
    ("slot count", &[Some(LimitExceeded), Some(Malformed)], &[Some(LimitExceeded), Some(Malformed)]),
    ("slots", SLOTS, SLOTS),
    ("padding", &[Some(Malformed)], &[Some(Malformed)]),
    // The other AEAD is known, and fails the header tag.
    ("aead", &[Some(Unsupported), Some(AuthenticationFailed)], &[Some(Unsupported), Some(AuthenticationFailed)]),
    ("kdf", &[Some(Unsupported)], &[Some(Unsupported)]),
    ("segment length", SEGMENT_LENGTH, SEGMENT_LENGTH),
    ("IV length", &[Some(Malformed)], &[Some(Malformed)]),
    ("FLOE IV", FORGED, FORGED),
    ("header tag", FORGED, FORGED),
    // A prefix that says another finality makes the walk end early, or run on past the end.
    ("prefix", &[Some(AuthenticationFailed), Some(Truncated)], FORGED),
    ("segment", FORGED, FORGED),
];
const FORGED: Kinds = &[Some(AuthenticationFailed)];
const LENGTH: Kinds = &[Some(LimitExceeded), Some(Truncated), Some(Malformed)];
const SLOTS_LENGTH: Kinds = &[Some(LimitExceeded), Some(Truncated), Some(Malformed), Some(Unsupported)];
const SLOTS: Kinds = &[None, Some(Malformed), Some(NoMatchingKey), Some(AuthenticationFailed)];
const SEGMENT_LENGTH: Kinds = &[Some(Malformed), Some(LimitExceeded), Some(AuthenticationFailed)];

/// The field that byte `at` of a whole message belongs to.
fn field(head: &Head, at: usize) -> &'static str {
    let context_end = head.core.end;
    match at {
        0..3 => "magic",
        3 => "version",
        4 => "flags",
        5..7 => "context length",
        _ if at < context_end => "context",
        _ if at < head.area.start => "slots length",
        _ if at == head.area.start => "slot count",
        _ if at < head.padding.start => "slots",
        _ if at < head.padding.end => "padding",
        _ if at < head.floe.end => match at - head.floe.start {
            0 => "aead",
            1 => "kdf",
            2..6 => "segment length",
            6..10 => "IV length",
            10..42 => "FLOE IV",
            _ => "header tag",
        },
        _ if (at - head.floe.end) % head.segment_len < 4 => "prefix",
        _ => "segment",
    }
}

fn allowed(field: &str, way: Way) -> Kinds {
    let (_, stream, seek) = TABLE.iter().find(|(name, ..)| *name == field).expect("every field has a line");
    if way.walk() == Walk::Stream { stream } else { seek }
}

/// Tells what was counted, and fails on all faults at once.
fn report(what: &str, counts: &BTreeMap<String, usize>, faults: &[String], least: usize) {
    let total: usize = counts.values().sum();
    say(format!("{what}: {total} opens: {counts:?}"));
    assert!(total >= least, "{what}: only {total} opens");
    let some: Vec<_> = faults.iter().take(20).collect();
    assert!(faults.is_empty(), "{what}: {} faults, first {some:#?}", faults.len());
}

fn tally(counts: &mut BTreeMap<String, usize>, verdict: Verdict) {
    let key = verdict.error.map_or_else(|| "identical".to_owned(), |kind| format!("{kind:?}"));
    *counts.entry(key).or_default() += 1;
}

fn samples(len: usize) -> Vec<Sample> {
    vec![
        Sample::rich(Aes256Gcm, len),
        Sample::rich(ChaCha20Poly1305, len),
        Sample::plain(Aes256Gcm, len),
        Sample::plain(ChaCha20Poly1305, len),
    ]
}

#[test]
fn the_samples_have_three_segments_and_read_whole_each_way() {
    for sample in samples(77) {
        assert_eq!(sample.known.segments().len(), 3);
        for way in Way::all() {
            let verdict = sample.check(way, &sample.known.message).unwrap();
            assert_eq!(verdict, Verdict { error: None, released: 77 });
        }
    }
    let rich = Sample::rich(Aes256Gcm, 77).known;
    let missing: Vec<_> = rich.head.slots.iter().map(|slot| slot.wrapped.is_empty()).collect();
    assert_eq!(missing, [true, false, false, false]);
    assert!(rich.head.unstored && rich.head.stored.len() == 2 && rich.head.padding.len() >= 256);
}

#[test]
fn every_flipped_bit_is_rejected_with_the_right_kind_and_harmless_at_most_in_the_slots() {
    let (mut counts, mut faults, mut by_field) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    for sample in samples(77) {
        for (byte, bit, flipped) in flips(&sample.known.message) {
            let field = field(&sample.known.head, byte);
            *by_field.entry(field).or_insert(0_usize) += 1;
            for way in Way::all() {
                let at = || format!("{} message, {field}, byte {byte}, bit {bit:#04x}", sample.name);
                match sample.check(way, &flipped) {
                    Ok(verdict) => {
                        tally(&mut counts, verdict);
                        if !allowed(field, way).contains(&verdict.error) {
                            faults.push(format!("{}: {way:?}: the table forbids {:?}", at(), verdict.error));
                        }
                    }
                    Err(fault) => faults.push(format!("{}: {fault}", at())),
                }
            }
        }
    }
    say(format!("bits flipped by field: {by_field:?}"));
    assert_eq!(by_field.len(), TABLE.len(), "a field was never damaged");
    report("bit flips", &counts, &faults, 100_000);
    assert!(counts["identical"] > 1_000, "a foreign slot or a second one of ours may be damaged without harm");
}

#[test]
fn every_truncation_is_truncated_each_way() {
    let (mut counts, mut faults) = (BTreeMap::new(), Vec::new());
    for len in [77, 64, 96, 0, 1] {
        for sample in samples(len) {
            for cut in truncations(&sample.known.message) {
                for way in Way::all() {
                    let at = || format!("{} message of {len}, cut to {}", sample.name, cut.len());
                    match sample.check(way, cut) {
                        Ok(verdict) if verdict.error == Some(Truncated) => tally(&mut counts, verdict),
                        // By its length alone, a reader that seeks takes a cut segment for a forged final one.
                        Ok(verdict)
                            if way.walk() == Walk::Seek
                                && verdict.error == Some(AuthenticationFailed)
                                && cut_is_no_longer_final(&sample.known, cut) =>
                        {
                            tally(&mut counts, verdict);
                        }
                        Ok(verdict) => faults.push(format!("{}: {way:?}: {verdict:?}", at())),
                        Err(fault) => faults.push(format!("{}: {fault}", at())),
                    }
                }
            }
        }
    }
    report("truncations", &counts, &faults, 50_000);
}

/// The last piece of `cut` begins with the prefix of the final segment and is shorter than that.
fn cut_is_no_longer_final(known: &Known, cut: &[u8]) -> bool {
    let segments = known.segments();
    let before: usize = segments[..segments.len() - 1].iter().map(|segment| segment.len()).sum();
    cut.len() >= known.head.len() + before + 32
}

#[test]
fn segments_swapped_doubled_reordered_cut_or_extended_are_rejected_with_the_right_kind() {
    let (mut counts, mut faults) = (BTreeMap::new(), Vec::new());
    for len in [77, 96, 128, 160] {
        for (sample, other) in samples(len).into_iter().zip(samples(len)) {
            for case in surgery(&sample.known, &other.known) {
                for way in Way::all() {
                    match sample.check(way, &case.message) {
                        Ok(verdict) if verdict.error.is_some() => tally(&mut counts, verdict),
                        Ok(_) => faults.push(format!("{}: {way:?}: accepted", case.what)),
                        Err(fault) => faults.push(format!("{} message of {len}, {}: {fault}", sample.name, case.what)),
                    }
                }
            }
        }
    }
    report("surgery", &counts, &faults, 3_000);
    assert!(counts["TrailingData"] > 100 && counts["Truncated"] > 100, "{counts:?}");
}
