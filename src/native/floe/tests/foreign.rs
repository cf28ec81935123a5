//! Both ways with `fast-floe`, another implementation of FLOE.

use crate::crypto::AeadAlgorithm;
use crate::error::{Error, Result};
use crate::native::floe::tests::{data_key, open, say};
use crate::native::floe::{FLOE_HEADER_LEN, Floe, FloeHeader, OVERHEAD};
use crate::native::header::SEGMENT_LEN_MAX;
use crate::segments::Segments;
use fast_floe::{Key, Parameters};
use std::collections::BTreeSet;

const SEGMENT_LENGTHS: [u32; 4] = [64, 100, 4_096, 65_536];
/// So many segments at most, for the segment lengths that leave time for it.
const SEGMENTS: usize = 20;

/// Plaintext lengths around every segment's edge.
fn lengths(segment_len: u32) -> BTreeSet<usize> {
    let full = (segment_len - OVERHEAD) as usize;
    let around = |edge: usize| [edge.saturating_sub(1), edge, edge + 1];
    let middles = (0..SEGMENTS).map(|segment| segment * full + full / 2);
    (0..=SEGMENTS).flat_map(|segment| around(segment * full)).chain(middles).collect()
}

fn plaintext(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn aads() -> [Vec<u8>; 3] {
    [Vec::new(), b"This is AAD".to_vec(), vec![0; 300]]
}

/// A FLOE ciphertext by our side.
fn seal(aad: &[u8], segment_len: u32, plaintext: &[u8]) -> Vec<u8> {
    let floe = Floe::create(&data_key(0x42), AeadAlgorithm::Aes256Gcm, segment_len, aad.to_vec()).unwrap();
    let layout = floe.layout();
    let mut out = floe.header().encode().to_vec();
    let sealed_len = layout.sealed_len(plaintext.len() as u64).unwrap();
    let extent = layout.extent(sealed_len).unwrap();
    let mut rest = plaintext;
    for index in 0..extent.segments {
        let (piece, later) = rest.split_at(rest.len().min(layout.plaintext_per_segment()));
        let mut segment = vec![0; piece.len() + layout.overhead()];
        let iv = std::array::from_fn(|at| (index as usize + at * 17) as u8);
        floe.seal_to(extent.position(index), &iv, piece, &mut segment).unwrap();
        out.extend_from_slice(&segment);
        rest = later;
    }
    assert!(rest.is_empty());
    assert_eq!(out.len() as u64, FLOE_HEADER_LEN as u64 + sealed_len);
    out
}

/// Opens a FLOE ciphertext by our side.
fn decrypt(aad: &[u8], bytes: &[u8]) -> Result<Vec<u8>> {
    let header = FloeHeader::parse(bytes, SEGMENT_LEN_MAX)?.ok_or_else(Error::truncated)?;
    let floe = Floe::open(&data_key(0x42), &header, aad.to_vec())?.ok_or_else(Error::authentication)?;
    let mut plaintext = Vec::new();
    let mut rest = &bytes[FLOE_HEADER_LEN..];
    for index in 0.. {
        let peek = floe.peek(index, *rest.first_chunk().ok_or_else(Error::truncated)?)?;
        let (segment, later) = rest.split_at_checked(peek.len).ok_or_else(Error::truncated)?;
        plaintext.extend(open(&floe, peek.at, segment)?);
        rest = later;
        if peek.at.last {
            break;
        }
    }
    assert!(rest.is_empty());
    Ok(plaintext)
}

#[test]
fn the_other_implementation_opens_our_bodies_around_every_segment_edge() {
    let key = Key::from_bytes([0x42; 32]);
    let (mut bodies, mut most) = (0, 0);
    for segment_len in SEGMENT_LENGTHS {
        for (at, len) in lengths(segment_len).into_iter().enumerate() {
            let aad = &aads()[at % 3];
            let plaintext = plaintext(len);
            let sealed = seal(aad, segment_len, &plaintext);
            let opened = fast_floe::decrypt(&key, aad, &sealed);
            let opened = opened.unwrap_or_else(|error| panic!("{len} bytes in segments of {segment_len}: {error}"));
            assert!(opened == plaintext, "{len} bytes in segments of {segment_len}");
            assert!(fast_floe::decrypt(&key, b"other", &sealed).is_err());
            assert!(fast_floe::decrypt(&key, aad, &sealed[..sealed.len() - 1]).is_err());
            bodies += 1;
            most = most.max(sealed.len() / segment_len as usize);
        }
    }
    assert!(bodies > 250 && most >= SEGMENTS);
    say(format_args!("fast-floe opens {bodies} bodies of ours, up to {most} segments"));
}

#[test]
fn we_open_the_other_implementations_bodies_around_every_segment_edge() {
    let key = Key::from_bytes([0x42; 32]);
    let mut bodies = 0;
    for segment_len in SEGMENT_LENGTHS {
        let parameters = Parameters::with_segment_length(segment_len).unwrap();
        for (at, len) in lengths(segment_len).into_iter().enumerate() {
            let aad = &aads()[at % 3];
            let plaintext = plaintext(len);
            let sealed = fast_floe::encrypt(&key, aad, parameters, &plaintext).unwrap();
            let opened = decrypt(aad, &sealed);
            let opened = opened.unwrap_or_else(|error| panic!("{len} bytes in segments of {segment_len}: {error}"));
            assert!(opened == plaintext, "{len} bytes in segments of {segment_len}");
            assert!(decrypt(b"other", &sealed).is_err());
            assert!(decrypt(aad, &sealed[..sealed.len() - 1]).is_err());
            bodies += 1;
        }
    }
    assert!(bodies > 250);
    say(format_args!("we open {bodies} bodies of fast-floe"));
}
