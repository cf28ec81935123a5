//! Ranges, from sources that are read and from sources that are awaited: against the plaintext, with
//! the reads counted; what damage leaves behind; and sources that do not behave.

#![expect(clippy::single_range_in_vec_init, reason = "a list of one read")]

use crate::support::alloc::watch;
use crate::support::child::long;
use crate::support::providers::{all, raw};
use crate::support::random::Random;
use crate::support::sample::{Sample, pattern};
use crate::support::say;
use crate::support::sources::{Bent, Noted};
use bytes::Bytes;
use envelock::AeadAlgorithm::Aes256Gcm;
use envelock::{
    AsyncRangeReader, EncryptionContext, Envelope, Error, ErrorKind, FetchAnswer, Fetched, FileSource, Header,
    RangeOptions, RangeReader, RangeSource, SourceVersion, async_trait, blocking,
};
use proptest::prelude::*;
use std::fs;
use std::future::Future;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Waker};

fn none() -> EncryptionContext {
    EncryptionContext::new()
}

fn envelope(segment_len: u32) -> Envelope {
    Envelope::builder(raw("mine", 2)).segment_len(segment_len).build().unwrap()
}

/// A message of `len` bytes, and where its segments start.
fn message(segment_len: u32, len: usize) -> (Envelope, Vec<u8>, Vec<u8>, u64) {
    let (envelope, plaintext) = (envelope(segment_len), pattern(len));
    let message = blocking::wait(envelope.encrypt(&plaintext, &none())).unwrap();
    let head = Header::parse(&message).unwrap().len() as u64;
    (envelope, plaintext, message, head)
}

fn open<S: RangeSource>(envelope: &Envelope, source: S) -> envelock::Result<AsyncRangeReader<S>> {
    blocking::wait(envelope.async_range_reader(source, &none()))
}

fn total(reads: &[Range<u64>]) -> u64 {
    reads.iter().map(|read| read.end - read.start).sum()
}

fn slice(plaintext: &[u8], range: &Range<u64>) -> Vec<u8> {
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(plaintext.len());
    plaintext.get(at(range.start)..at(range.end)).unwrap_or_default().to_vec()
}

#[test]
fn opening_costs_the_head_and_the_final_segment_and_a_range_the_segments_it_touches() {
    let (envelope, plaintext, message, head) = message(65_536, 10_000_000);
    let source = Arc::new(Noted::new(message.clone()));
    let reader = open(&envelope, Arc::clone(&source)).unwrap();
    let (segment, last) = (65_536_u64, (message.len() as u64 - head) % 65_536);
    assert_eq!(source.log.take(), [0..16_384, message.len() as u64 - last..message.len() as u64]);
    assert_eq!(reader.len(), 10_000_000);

    let edge = 100 * 65_504;
    assert_eq!(
        blocking::wait(reader.read_range(edge - 2_048..edge + 2_048)).unwrap(),
        slice(&plaintext, &(edge - 2_048..edge + 2_048))
    );
    assert_eq!(source.log.take(), [head + 99 * segment..head + 101 * segment], "4 KiB across an edge: two segments");
    assert_eq!(blocking::wait(reader.read_range(edge..edge + 4_096)).unwrap().len(), 4_096);
    assert_eq!(source.log.take(), [head + 100 * segment..head + 101 * segment]);
    assert!(blocking::wait(reader.read_range(5..5)).unwrap().is_empty());
    assert!(blocking::wait(reader.read_range(10_000_000..u64::MAX)).unwrap().is_empty());
    assert_eq!(source.log.take(), [], "no byte, no read");

    let sync = blocking::wait(envelope.range_reader(Arc::clone(&source), &none())).unwrap();
    let opened = total(&source.log.take());
    assert_eq!(opened, head + last, "exactly the head and the final segment");
    assert_eq!(sync.read_range(edge - 2_048..edge + 2_048).unwrap().len(), 4_096);
    assert_eq!(source.log.take(), [head + 99 * segment..head + 101 * segment]);
    say(format!("10 MB opened for ranges: awaited 2 reads of {} bytes, sync {opened} bytes", 16_384 + last));
}

#[test]
fn a_small_message_is_opened_in_one_read_and_a_long_head_in_as_many_as_it_needs() {
    let (small, plaintext, sealed, _) = message(1_024, 5_000);
    let source = Arc::new(Noted::new(sealed.clone()));
    let reader = open(&small, Arc::clone(&source)).unwrap();
    assert_eq!(source.log.take(), [0..sealed.len() as u64]);
    assert_eq!(blocking::wait(reader.read_range(0..5_000)).unwrap(), plaintext);

    let keys: Vec<_> = (0..30).map(|n| raw(&format!("{n}-{}", "k".repeat(900)), n)).collect();
    let many = Envelope::builder(all(&keys.iter().collect::<Vec<_>>())).segment_len(1_024).build().unwrap();
    let sealed = blocking::wait(many.encrypt(&pattern(50_000), &none())).unwrap();
    let head = Header::parse(&sealed).unwrap().len() as u64;
    assert!(head > 16_384, "the head has only {head} bytes");
    let source = Arc::new(Noted::new(sealed.clone()));
    let one = Envelope::builder(Arc::clone(&keys[0])).build().unwrap();
    let reader = open(&one, Arc::clone(&source)).unwrap();
    let reads = source.log.take();
    assert!(reads.len() <= 5, "{reads:?}");
    assert!(reads.windows(2).all(|pair| pair[0].end <= pair[1].start), "nothing is fetched twice: {reads:?}");
    assert_eq!(blocking::wait(reader.read_range(49_000..60_000)).unwrap(), pattern(50_000)[49_000..]);
}

#[test]
fn a_detached_head_serves_a_body_that_lies_anywhere() {
    let (envelope, plaintext, message, head) = message(64, 500);
    let parsed = Header::parse(&message).unwrap();
    let body = &message[usize::try_from(head).unwrap()..];
    for before in [0, 7, 20_000] {
        let stored = [vec![9; before], body.to_vec()].concat();
        let decryptor = blocking::wait(envelope.decryptor(&parsed, &none())).unwrap();
        let reader = blocking::wait(decryptor.into_async_range_reader(Bytes::from(stored), before as u64)).unwrap();
        assert_eq!(reader.len(), 500);
        assert_eq!(blocking::wait(reader.read_range(0..500)).unwrap(), plaintext);
    }
    for start in [body.len() as u64, body.len() as u64 + 1, u64::MAX] {
        let decryptor = blocking::wait(envelope.decryptor(&parsed, &none())).unwrap();
        let error = blocking::wait(decryptor.into_async_range_reader(Bytes::from(body.to_vec()), start)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Truncated, "a body from byte {start} on");
    }
}

#[test]
fn every_offset_and_length_around_every_edge_gives_what_the_plaintext_has() {
    let mut count = 0;
    for len in [0_u64, 1, 31, 32, 33, 64, 77, 96, 130] {
        let (envelope, plaintext, message, _) = message(64, usize::try_from(len).unwrap());
        let sync = blocking::wait(envelope.range_reader(message.as_slice(), &none())).unwrap();
        let awaited = open(&envelope, Bytes::from(message.clone())).unwrap();
        for start in 0..=len + 2 {
            for end in start..=len + 3 {
                let expected = slice(&plaintext, &(start..end));
                assert_eq!(sync.read_range(start..end).unwrap(), expected, "{start}..{end} of {len}");
                assert_eq!(
                    blocking::wait(awaited.read_range(start..end)).unwrap(),
                    expected,
                    "{start}..{end} of {len}"
                );
                let mut out = vec![0xEE; usize::try_from(end - start).unwrap()];
                let read = sync.read_at(&mut out, start).unwrap();
                assert_eq!(out[..read], expected);
                assert!(out[read..].iter().all(|&byte| byte == 0xEE), "past the end nothing is touched");
                count += 3;
            }
        }
        for (start, end) in [(5, 3), (u64::MAX, 0), (u64::MAX, u64::MAX)] {
            let range = start..end;
            assert!(sync.read_range(range.clone()).unwrap().is_empty());
            assert!(blocking::wait(awaited.read_range(range)).unwrap().is_empty());
        }
    }
    say(format!("ranges around segment edges: {count}"));
    assert!(count > 60_000);
}

/// Each read has whole segments, none twice, no more than allowed; and with no gap allowed, only those
/// that a range touches.
fn check_reads(reads: &[Range<u64>], head: u64, len: u64, ranges: &[Range<u64>], gap: u64, most: u64) {
    let mut touched: Vec<u64> = Vec::new();
    for range in ranges {
        let end = range.end.min(len);
        if range.start < end {
            touched.extend(range.start / 32..=(end - 1) / 32);
        }
    }
    touched.sort_unstable();
    touched.dedup();
    let mut fetched: Vec<u64> = Vec::new();
    for read in reads {
        assert_eq!((read.start - head) % 64, 0, "a read starts at a segment");
        assert!(read.end - read.start <= most.max(64), "a read of {read:?}, limit {most}");
        fetched.extend((read.start - head) / 64..(read.end - head).div_ceil(64));
    }
    assert!(fetched.is_sorted_by(|a, b| a < b), "no segment is read twice: {reads:?}");
    assert!(touched.iter().all(|index| fetched.binary_search(index).is_ok()), "{touched:?} in {fetched:?}");
    if gap < 64 {
        assert_eq!(touched, fetched, "only what is touched is read");
    }
}

/// How many lists of ranges are tried.
fn lists() -> u32 {
    if long() { 3_000 } else { 200 }
}

static TRIED: AtomicU32 = AtomicU32::new(0);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(lists()))]

    #[test]
    fn any_list_of_ranges_gives_slices_of_the_plaintext_by_few_reads(
        len in 0_usize..2_000,
        ranges in prop::collection::vec((0_u64..2_100, 0_u64..400), 0..20),
        gap in prop_oneof![Just(0), Just(63), 64_u64..600],
        most in prop_oneof![Just(1), 64_usize..1_000, Just(1 << 20)],
        at_once in 0_usize..6,
    ) {
        let (envelope, plaintext, message, head) = message(64, len);
        let ranges: Vec<_> = ranges.into_iter().map(|(start, len)| start..start + len).collect();
        let expected: Vec<_> = ranges.iter().map(|range| slice(&plaintext, range)).collect();
        let options = RangeOptions::remote().merge_gap(gap).max_read(most).concurrent_reads(at_once);
        let source = Arc::new(Noted::new(message));
        let awaited = open(&envelope, Arc::clone(&source)).unwrap().with_options(options.clone());
        let sync = blocking::wait(envelope.range_reader(Arc::clone(&source), &none())).unwrap().with_options(options);
        source.log.take();
        prop_assert_eq!(&blocking::wait(awaited.read_ranges(&ranges)).unwrap(), &expected);
        let reads = source.log.take();
        check_reads(&reads, head, len as u64, &ranges, gap, most as u64);
        prop_assert_eq!(&sync.read_ranges(&ranges).unwrap(), &expected);
        prop_assert_eq!(source.log.take(), reads, "both readers plan alike");
        if let Some(range) = ranges.first() {
            let mut streamed = Vec::new();
            Arc::new(sync).stream(range.clone()).read_to_end(&mut streamed).unwrap();
            prop_assert_eq!(&streamed, &expected[0]);
            let mut chunks = awaited.chunks(range.clone());
            let mut chunked = Vec::new();
            while let Some(chunk) = blocking::wait(chunks.next()).unwrap() {
                chunked.extend(chunk);
            }
            prop_assert_eq!(&chunked, &expected[0]);
        }
        if TRIED.fetch_add(1, Ordering::Relaxed) + 1 == lists() {
            say(format!("ranges: {} lists of any ranges, by both readers", lists()));
        }
    }
}

#[test]
fn near_ranges_share_a_read_and_far_ones_do_not() {
    let (envelope, plaintext, message, _) = message(4_096, 4_000_000);
    let source = Arc::new(Noted::new(message));
    let reader = open(&envelope, Arc::clone(&source)).unwrap();
    let ranges: Vec<_> = (0..100).map(|n| n * 8_128..n * 8_128 + 100).collect();
    for (gap, reads) in [(0, 100), (4_095, 100), (4_096, 1), (1 << 20, 1)] {
        let reader = open(&envelope, Arc::clone(&source)).unwrap().with_options(RangeOptions::remote().merge_gap(gap));
        source.log.take();
        let got = blocking::wait(reader.read_ranges(&ranges)).unwrap();
        assert!(got.iter().zip(&ranges).all(|(got, range)| *got == slice(&plaintext, range)));
        assert_eq!(source.log.take().len(), reads, "a gap of {gap}");
    }
    drop(reader);
}

/// What the sync and the awaited reader do with the same call.
fn both_kinds(sample: &Sample, message: &[u8], ranges: &[Range<u64>]) -> [Result<Vec<Vec<u8>>, ErrorKind>; 2] {
    let context = &sample.context;
    let sync = sample.reader.range_reader(message, context).and_then(|reader| reader.read_ranges(ranges));
    let awaited = blocking::wait(async {
        let reader = sample.reader.inner().async_range_reader(Bytes::copy_from_slice(message), context).await?;
        reader.read_ranges(ranges).await
    });
    [sync.map_err(|e| e.kind()), awaited.map_err(|e: Error| e.kind())]
}

#[test]
fn a_bad_segment_fails_the_ranges_that_touch_it_alike_and_leaves_nothing_of_any_in_the_callers_buffer() {
    let mut count = 0;
    let sample = Sample::rich(Aes256Gcm, 150);
    let segments = sample.known.segments().len();
    for bad in 0..segments {
        for at in [0, 4, 16, 33] {
            let mut message = sample.known.message.clone();
            let Some(byte) = message.get_mut(sample.known.head.len() + bad * 64 + at) else { continue };
            *byte ^= 0x10;
            for first in 0..segments as u64 {
                for last in first..segments as u64 {
                    let range = first * 32 + 3..last * 32 + 20;
                    let [sync, awaited] = both_kinds(&sample, &message, &[0..0, range.clone()]);
                    assert_eq!(sync, awaited);
                    let touched = (first..=last).contains(&(bad as u64)) || bad == segments - 1;
                    assert_eq!(sync.is_err(), touched, "segment {bad} bad, range {range:?}");
                    count += 2;
                }
            }
            if bad == segments - 1 {
                continue;
            }
            for options in [RangeOptions::local(), RangeOptions::remote().max_read(64)] {
                let sync = sample.reader.range_reader(message.as_slice(), &sample.context).unwrap();
                let sync = sync.with_options(options.clone());
                let source = Bytes::from(message.clone());
                let awaited = sample.reader.inner().async_range_reader(source, &sample.context);
                let awaited = blocking::wait(awaited).unwrap().with_options(options.clone());
                let mut out = vec![0xEE; 150];
                let error = sync.read_at(&mut out, 0).unwrap_err();
                assert_eq!((error.kind(), error.segment()), (ErrorKind::AuthenticationFailed, Some(bad as u64)));
                assert!(out.iter().all(|&byte| byte == 0), "segment {bad}: {options:?}");
                out.fill(0xEE);
                let error = blocking::wait(awaited.read_at(&mut out, 0)).unwrap_err();
                assert_eq!((error.kind(), error.segment()), (ErrorKind::AuthenticationFailed, Some(bad as u64)));
                assert!(out.iter().all(|&byte| byte == 0), "segment {bad}: {options:?}");
                count += 2;
            }
        }
    }
    say(format!("ranges around a bad segment: {count}"));
    assert!(count > 400);
}

/// Answers until it is told to wait, and then never.
struct Stuck {
    bytes: Bytes,
    from: u64,
}

#[async_trait]
impl RangeSource for Stuck {
    fn name(&self) -> String {
        "stuck".into()
    }

    async fn fetch(&self, range: Range<u64>, pinned: Option<&SourceVersion>) -> envelock::Result<FetchAnswer> {
        if range.start >= self.from && range.end != self.bytes.len() as u64 {
            std::future::pending::<()>().await;
        }
        self.bytes.fetch(range, pinned).await
    }
}

#[test]
fn a_dropped_call_wipes_what_it_had_filled_and_spoils_nothing() {
    let (envelope, plaintext, message, head) = message(1_024, 60_000);
    let source = Stuck { bytes: Bytes::from(message), from: head + 30 * 1_024 };
    let reader = open(&envelope, source).unwrap().with_options(RangeOptions::remote().max_read(1_024));
    let mut out = vec![0xEE; 59_000];
    {
        let mut call = Box::pin(reader.read_at(&mut out, 0));
        for _ in 0..100 {
            assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
    }
    assert!(out.iter().all(|&byte| byte == 0), "it was cancelled: nothing stays");
    assert_eq!(blocking::wait(reader.read_range(0..20_000)).unwrap(), plaintext[..20_000]);

    let mut chunks = reader.chunks(0..60_000);
    let mut got = Vec::new();
    loop {
        let mut next = Box::pin(chunks.next());
        let polled = (0..100).find_map(|_| match next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(chunk) => Some(chunk.unwrap().unwrap()),
            std::task::Poll::Pending => None,
        });
        drop(next);
        let Some(chunk) = polled else { break };
        got.extend(chunk);
    }
    assert!(got.len() >= 20_000 && got == plaintext[..got.len()]);
    let again = Box::pin(chunks.next()).as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
    assert!(again, "the chunk that was dropped is asked for again");
}

#[test]
fn long_ranges_go_through_in_bounded_memory() {
    let (envelope, plaintext, message, _) = message(65_536, 12 << 20);
    let source = Bytes::from(message);
    let sync = Arc::new(blocking::wait(envelope.range_reader(source.to_vec(), &none())).unwrap());
    // With room to spare: what `copy` reserves is not counted.
    let mut out = Vec::with_capacity(13 << 20);
    let (_, allocated) = watch(|| io::copy(&mut sync.stream(0..u64::MAX), &mut out).unwrap());
    assert_eq!(out, plaintext);
    assert!(allocated.largest <= 1 << 20 && allocated.total <= 3 << 20, "{allocated:?}");

    let awaited = open(&envelope, source).unwrap();
    let (mut chunks, mut at) = (awaited.chunks(100..u64::MAX), 100);
    while let (Some(chunk), allocated) = watch(|| blocking::wait(chunks.next()).unwrap()) {
        assert!(allocated.largest <= 4 << 20, "{allocated:?}");
        assert_eq!(chunk, plaintext[at..at + chunk.len()]);
        at += chunk.len();
    }
    assert_eq!(at, plaintext.len());
}

#[test]
fn reads_allocate_their_result_and_little_else_once_the_reader_is_warm() {
    let (envelope, _, message, _) = message(65_536, 4 << 20);
    let sync = blocking::wait(envelope.range_reader(message.as_slice(), &none())).unwrap();
    let mut out = vec![0; 4_096];
    let mut random = Random::new(4);
    let mut read = || sync.read_at(&mut out, random.next() % (4 << 20)).unwrap();
    for _ in 0..50 {
        read();
    }
    let (_, allocated) = watch(|| (0..100).map(|_| read()).sum::<usize>());
    assert!(allocated.largest < 1_024 && allocated.total < 100 * 1_024, "no segment's buffer: {allocated:?}");
}

type Bend = Box<dyn Fn(Fetched) -> envelock::Result<FetchAnswer> + Send + Sync>;

/// What a source may do wrong, and what the error must be and say.
fn misbehaviours() -> Vec<(&'static str, Bend, ErrorKind, &'static str)> {
    fn bend(change: impl Fn(&mut Fetched) + Send + Sync + 'static) -> Bend {
        Box::new(move |mut answer| {
            change(&mut answer);
            Ok(FetchAnswer::Fetched(answer))
        })
    }
    let (io, changed) = (ErrorKind::Io, "open it anew");
    vec![
        ("one byte less", bend(|it| it.bytes.truncate(it.bytes.len() - 1)), io, "gave"),
        ("no byte", bend(|it| it.bytes.clear()), io, "gave 0 bytes"),
        ("one byte more", bend(|it| it.bytes = [&it.bytes[..], &[0]].concat().into()), io, "gave"),
        ("a megabyte", bend(|it| it.bytes = vec![7; 1 << 20].into()), io, "gave 1048576 bytes"),
        ("another length", bend(|it| it.object_len += 1), io, changed),
        ("a length of 0", bend(|it| it.object_len = 0), io, changed),
        ("an enormous length", bend(|it| it.object_len = u64::MAX), io, changed),
        ("another version", bend(|it| it.version = Some(SourceVersion::new("v2"))), io, changed),
        ("no version any more", bend(|it| it.version = None), io, changed),
        ("changed", Box::new(|_| Ok(FetchAnswer::Changed)), io, changed),
        (
            "down",
            Box::new(|_| Err(Error::new(ErrorKind::Unavailable, "the store is down"))),
            ErrorKind::Unavailable,
            "the store is down",
        ),
        ("io", Box::new(|_| Err(io::Error::other("cable cut").into())), io, "cable cut"),
        (
            "other bytes",
            bend(|it| it.bytes = vec![0x20; it.bytes.len()].into()),
            ErrorKind::AuthenticationFailed,
            "not authentic",
        ),
    ]
}

#[test]
fn a_source_that_misbehaves_after_the_opening_gets_a_clear_error_and_nothing_out() {
    let (envelope, plaintext, message, _) = message(1_024, 60_000);
    for good in [1, 2, 3] {
        for (what, bend, kind, text) in misbehaviours() {
            let (result, allocated) = watch(|| {
                let reader = open(&envelope, Bent::new(message.clone(), good, bend))?;
                let first = blocking::wait(reader.read_range(1_000..5_000))?;
                assert_eq!(first, plaintext[1_000..5_000], "{what}: what came before is good");
                blocking::wait(reader.read_ranges(&[30_000..40_000, 100..200]))
            });
            let error = result.expect_err(what);
            assert_eq!(error.kind(), kind, "{what}: {error}");
            let said = error.to_string();
            assert!(said.contains(text), "{what}: {said}");
            if kind == ErrorKind::Io && text != "cable cut" {
                assert!(said.contains("bucket/object"), "it names the object: {said}");
            }
            let stale = std::error::Error::source(&error)
                .and_then(|source| source.downcast_ref::<io::Error>())
                .is_some_and(|source| source.kind() == io::ErrorKind::StaleNetworkFileHandle);
            assert_eq!(stale, text == "open it anew", "{what}: {error:?}");
            // The source's own megabyte is its affair.
            assert!(allocated.largest <= 1 << 20, "{what}: {allocated:?}");
        }
    }
}

#[test]
fn a_source_that_misbehaves_from_the_start_is_refused() {
    let (envelope, _, message, head) = message(1_024, 60_000);
    for (what, bend, kind, _) in misbehaviours() {
        let error = open(&envelope, Bent::new(message.clone(), 0, bend)).map(drop);
        match what {
            // Nothing to compare with yet: the versions differ from then on, or there is none.
            "another version" | "no version any more" => error.unwrap(),
            // Then the final segment is elsewhere.
            "another length" | "enormous length" => drop(error.unwrap_err()),
            "an enormous length" => assert_eq!(error.unwrap_err().kind(), ErrorKind::LimitExceeded),
            "other bytes" => assert_eq!(error.unwrap_err().kind(), ErrorKind::Malformed),
            _ => assert_eq!(error.unwrap_err().kind(), kind, "{what}"),
        }
    }
    for (len, expected) in [(u64::MAX, ErrorKind::LimitExceeded), (1 << 61, ErrorKind::LimitExceeded)] {
        let lie = Bent::new(message.clone(), 0, move |answer| {
            Ok(FetchAnswer::Fetched(Fetched { object_len: len, ..answer }))
        });
        let (result, allocated) = watch(|| open(&envelope, lie).map(drop));
        assert_eq!(result.unwrap_err().kind(), expected);
        assert!(allocated.largest < 100_000, "{allocated:?}");
    }
    for cut in [0, 1, head - 1, head, head + 31] {
        let cut = Bytes::copy_from_slice(&message[..usize::try_from(cut).unwrap()]);
        assert_eq!(open(&envelope, cut).unwrap_err().kind(), ErrorKind::Truncated);
    }
}

/// A change to the file at a path.
type Change = fn(&std::path::Path);

#[test]
fn a_file_that_changes_between_two_reads_is_told_and_one_that_does_not_is_read_on() {
    let (envelope, plaintext, message, _) = message(1_024, 60_000);
    let folder = tempfile::tempdir().unwrap();
    let changes: [(&str, Change); 5] = [
        ("appended to", |path| fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"x").unwrap()),
        ("cut", |path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(30_000).unwrap()),
        ("rewritten in place", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, bytes).unwrap();
        }),
        ("replaced", |path| {
            let new = path.with_extension("new");
            fs::copy(path, &new).unwrap();
            fs::rename(new, path).unwrap();
        }),
        ("removed", |path| fs::remove_file(path).unwrap()),
    ];
    for (what, change) in changes {
        let path = folder.path().join("message.elk");
        fs::write(&path, &message).unwrap();
        // Past the tick of the file system's clock.
        std::thread::sleep(std::time::Duration::from_millis(30));
        let reader = open(&envelope, blocking::wait(FileSource::open(&path)).unwrap()).unwrap();
        assert!(reader.version().is_some());
        for start in [0, 30_000, 59_999] {
            let range = start..start + 100;
            assert_eq!(blocking::wait(reader.read_range(range.clone())).unwrap(), slice(&plaintext, &range));
        }
        change(&path);
        let error = blocking::wait(reader.read_range(10..20)).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Io, "{what}: {error}");
        let said = error.to_string();
        assert!(said.contains("message.elk was changed or replaced") && said.contains("open it anew"), "{said}");
    }
}

#[test]
fn a_file_read_by_position_goes_on_under_its_handle_and_does_not_believe_other_bytes() {
    let (envelope, plaintext, message, _) = message(1_024, 60_000);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("message.elk");
    fs::write(&path, &message).unwrap();
    let reader: RangeReader<fs::File> = blocking::wait(envelope.file_range_reader(&path, &none())).unwrap();
    let other = blocking::wait(envelope.encrypt(&plaintext, &none())).unwrap();
    fs::write(path.with_extension("new"), &other).unwrap();
    fs::rename(path.with_extension("new"), &path).unwrap();
    assert_eq!(reader.read_range(0..60_000).unwrap(), plaintext, "replaced: its handle is of the old file");
    let reader = blocking::wait(envelope.file_range_reader(&path, &none())).unwrap();
    fs::write(&path, &message).unwrap();
    let mut out = vec![0xEE; 500];
    assert_eq!(reader.read_at(&mut out, 0).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
    assert!(out.iter().all(|&byte| byte == 0));
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(20_000).unwrap();
    let error = reader.read_range(40_000..40_100).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Truncated);
}

#[test]
fn what_is_no_regular_file_has_no_ranges() {
    let (envelope, ..) = message(1_024, 10);
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [folder.path(), &pipe, std::path::Path::new("/dev/null")] {
        for error in [
            blocking::wait(FileSource::open(path)).map(drop).unwrap_err(),
            blocking::wait(envelope.file_range_reader(path, &none())).map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("no regular file"), "{error}");
        }
    }
    let gone = folder.path().join("gone");
    assert_eq!(blocking::wait(FileSource::open(gone)).unwrap_err().kind(), ErrorKind::Io);
}
