//! Damage to messages, as data: any reader can be run over it.

use crate::support::model::Known;
use std::ops::Range;

/// A damaged message, with a sentence on what was done to it.
pub(crate) struct Damage {
    pub(crate) what: String,
    pub(crate) message: Vec<u8>,
}

fn damage(what: impl Into<String>, message: Vec<u8>) -> Damage {
    Damage { what: what.into(), message }
}

/// Each single bit of `message` flipped.
pub(crate) fn flips(message: &[u8]) -> impl Iterator<Item = (usize, u8, Vec<u8>)> {
    (0..message.len() * 8).map(|at| {
        let (byte, bit) = (at / 8, 1 << (at % 8));
        let mut flipped = message.to_vec();
        flipped[byte] ^= bit;
        (byte, bit, flipped)
    })
}

/// Every proper prefix of `message`.
pub(crate) fn truncations(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..message.len()).map(|len| &message[..len])
}

/// Segments swapped, duplicated, reordered, left out, cut and extended, within one message and
/// between it and `other`, which has the same shape.
pub(crate) fn surgery(known: &Known, other: &Known) -> Vec<Damage> {
    let head = &known.message[..known.head.len()];
    let (ours, theirs) = (known.segments(), other.segments());
    let build = |head: &[u8], segments: &[&[u8]]| [head, &segments.concat()].concat();
    let mut cases = Vec::new();
    for i in 0..ours.len() {
        let mut segments = ours.clone();
        segments[i] = theirs[i];
        cases.push(damage(format!("segment {i} of another message"), build(head, &segments)));
        let mut segments = ours.clone();
        segments.insert(i, ours[i]);
        cases.push(damage(format!("segment {i} twice"), build(head, &segments)));
        let mut segments = ours.clone();
        segments.remove(i);
        cases.push(damage(format!("without segment {i}"), build(head, &segments)));
        cases.push(damage(format!("cut before segment {i}"), build(head, &ours[..i])));
        for j in 0..i {
            let mut segments = ours.clone();
            segments.swap(i, j);
            cases.push(damage(format!("segments {i} and {j} swapped"), build(head, &segments)));
            let mut segments = ours.clone();
            segments[j] = ours[i];
            cases.push(damage(format!("segment {i} in place of {j}"), build(head, &segments)));
        }
    }
    let mut reversed = ours.clone();
    reversed.reverse();
    cases.push(damage("segments in reverse", build(head, &reversed)));
    let last = ours[ours.len() - 1];
    let tails: [(&str, Vec<u8>); 8] = [
        ("a zero byte", vec![0]),
        ("31 bytes", vec![1; 31]),
        ("32 bytes", vec![1; 32]),
        ("33 bytes of FF", vec![0xFF; 33]),
        ("its final segment", last.to_vec()),
        ("its first segment", ours[0].to_vec()),
        ("a whole message", other.message.clone()),
        ("itself", known.message.clone()),
    ];
    for (what, tail) in tails {
        cases.push(damage(format!("followed by {what}"), [known.message.clone(), tail].concat()));
    }
    cases.push(damage("the body of another message", build(head, &theirs)));
    for (what, range) in [
        ("slots", known.head.area.clone()),
        ("FLOE header", known.head.floe.clone()),
        ("FLOE IV", known.head.floe.start + 10..known.head.floe.start + 42),
        ("FLOE header tag", known.head.floe.start + 42..known.head.floe.end),
    ] {
        cases.push(damage(format!("the {what} of another message"), graft(&known.message, &other.message, range)));
    }
    cases
}

fn graft(message: &[u8], other: &[u8], range: Range<usize>) -> Vec<u8> {
    let mut grafted = message.to_vec();
    grafted[range.clone()].copy_from_slice(&other[range]);
    grafted
}
