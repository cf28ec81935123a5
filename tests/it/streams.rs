//! Writers, readers, seeks and ranges over inputs and outputs that are as difficult as they may be.

use crate::support::flaky::{Fault, Flaky, Plan};
use crate::support::providers::raw;
use crate::support::random::Random;
use crate::support::sample::pattern;
use crate::support::{kind_of, say};
use envelock::{AeadAlgorithm, DecryptReader, EncryptionContext, Encryptor, Envelope, ErrorKind, Header, blocking};
use proptest::prelude::*;
use std::io::{self, Cursor, ErrorKind as Io, Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicU32, Ordering};

const SEGMENT: u32 = 64;
const FULL: usize = 32;

fn envelope(segment_len: u32) -> blocking::Envelope {
    let builder = Envelope::builder(raw("mine", 2)).segment_len(segment_len);
    blocking::Envelope::new(builder.aead(AeadAlgorithm::ChaCha20Poly1305).build().unwrap())
}

fn context() -> EncryptionContext {
    EncryptionContext::from([("object", "a")])
}

/// Writes `data` in pieces of at most `most` bytes, repeating what failed; then finishes.
fn write_stubbornly<W: Write>(encryptor: Encryptor, inner: W, data: &[u8], most: usize, random: &mut Random) -> W {
    let mut writer = encryptor.into_writer(inner);
    let mut rest = data;
    while !rest.is_empty() {
        let size = (1 + random.below(most)).min(rest.len());
        match writer.write(&rest[..size]) {
            Ok(count) => rest = &rest[count..],
            Err(error) => assert_ne!(error.kind(), Io::WriteZero),
        }
        if random.one_in(5) {
            let _ = writer.flush();
        }
    }
    while writer.try_finish().is_err() {}
    loop {
        // `finish` gives the inner writer back also on failure, so it is asked when nothing can fail.
        if writer.try_finish().is_ok() {
            return match writer.finish() {
                Ok(inner) => inner,
                Err(failed) => failed.into_parts().1,
            };
        }
    }
}

/// Reads to the end in pieces of at most `most` bytes, repeating what the input failed.
fn read_stubbornly(reader: &mut impl Read, most: usize, random: &mut Random) -> Result<Vec<u8>, ErrorKind> {
    let mut out = Vec::new();
    let mut buffer = vec![0; most];
    loop {
        match reader.read(&mut buffer[..1 + random.below(most)]) {
            Ok(0) => return Ok(out),
            Ok(count) => out.extend_from_slice(&buffer[..count]),
            Err(error) if envelock::Error::from_io(&error).is_none() => {}
            Err(error) => return Err(kind_of(&error)),
        }
    }
}

fn lengths(segment_len: usize) -> impl Iterator<Item = usize> {
    let full = segment_len - 32;
    [0, 1].into_iter().chain((1..4).flat_map(move |n| [n * full - 1, n * full, n * full + 1]))
}

#[test]
fn every_segment_edge_reads_back_and_has_the_length_that_was_foretold() {
    let mut count = 0;
    for segment_len in [64, 65, 100, 1_024, 65_536] {
        let envelope = envelope(segment_len);
        for len in lengths(segment_len as usize) {
            let data = pattern(len);
            let encryptor = envelope.encryptor(&context()).unwrap();
            let (foretold, layout) = (encryptor.sealed_len(len as u64).unwrap(), encryptor.layout());
            let mut writer = encryptor.into_writer(Vec::new());
            writer.write_all(&data).unwrap();
            let sealed = writer.finish().unwrap();
            assert_eq!(sealed.len() as u64, foretold);
            let head_len = Header::parse(&sealed).unwrap().len() as u64;
            assert_eq!(layout.plaintext_len(foretold - head_len).unwrap(), len as u64);
            assert_eq!(layout.sealed_len(len as u64).unwrap(), foretold - head_len);
            let whole = envelope.encrypt(&data, &context()).unwrap();
            assert_eq!(whole.len() as u64, foretold, "both ways to write fill every segment but the last");
            for message in [sealed, whole] {
                assert_eq!(envelope.decrypt(&message, &context()).unwrap(), data);
                let mut out = Vec::new();
                envelope.decrypt_reader(&*message, &context()).unwrap().read_to_end(&mut out).unwrap();
                assert_eq!(out, data);
                let ranges = envelope.range_reader(&*message, &context()).unwrap();
                assert_eq!((ranges.len(), ranges.read_range(0..u64::MAX).unwrap()), (len as u64, data.clone()));
                count += 1;
            }
        }
    }
    say(format!("messages around segment edges: {count}"));
    assert!(count >= 100);
}

#[test]
fn writers_over_difficult_outputs_give_the_plaintext_back_and_seal_nothing_twice() {
    let envelope = envelope(SEGMENT);
    let mut random = Random::new(41);
    let (mut faults, mut calls) = (0, 0);
    let rounds = 3_000;
    for round in 0..rounds {
        let data = pattern(random.below(400));
        let (most_out, most_in) = ([0, 1, 5, 40, 70, 200][random.below(6)], 1 + random.below(150));
        let output = Flaky::new(Vec::new(), Plan::Sometimes(2 + round % 9, random.clone()), most_out);
        let encryptor = envelope.encryptor(&context()).unwrap();
        let foretold = encryptor.sealed_len(data.len() as u64).unwrap();
        let output = write_stubbornly(encryptor, output, &data, most_in, &mut random);
        assert_eq!(output.inner.len() as u64, foretold, "each byte went out once");
        assert_eq!(envelope.decrypt(&output.inner, &context()).unwrap(), data);
        // A segment sealed twice would be one IV more than segments, or one twice.
        let head = Header::parse(&output.inner).unwrap().len();
        let ivs: std::collections::HashSet<_> = output.inner[head..].chunks(64).map(|it| it[4..16].to_vec()).collect();
        assert_eq!(ivs.len(), output.inner[head..].chunks(64).len());
        (faults, calls) = (faults + output.faults, calls + output.calls);
    }
    say(format!("difficult outputs: {rounds} messages, {calls} calls, {faults} of them failed"));
    assert!(faults > 5_000);
}

#[test]
fn a_write_that_fails_at_any_call_sends_on_the_very_bytes_that_were_sealed() {
    let envelope = envelope(SEGMENT);
    let data = pattern(4 * FULL + 9);
    let mut failed = 0;
    for fault in [Fault::Interrupted, Fault::WouldBlock, Fault::Broken] {
        for at in 0.. {
            let encryptor = envelope.encryptor(&context()).unwrap();
            let mut writer = encryptor.into_writer(Flaky::new(Vec::new(), Plan::Once(at, fault), 50));
            let mut rest = data.as_slice();
            let mut errors = 0;
            while !rest.is_empty() {
                let before = writer.inner().inner.clone();
                match writer.write(&rest[..rest.len().min(45)]) {
                    Ok(count) => rest = &rest[count..],
                    Err(_) => errors += 1,
                }
                assert!(writer.inner().inner.starts_with(&before));
            }
            let inner = match writer.try_finish() {
                Ok(()) => writer.finish().unwrap_or_else(|failed| failed.into_parts().1),
                Err(_) => {
                    errors += 1;
                    writer.finish().unwrap()
                }
            };
            assert_eq!(envelope.decrypt(&inner.inner, &context()).unwrap(), data, "{fault:?} at call {at}");
            if inner.faults == 0 {
                break;
            }
            failed += 1;
            // A write that took some of its bytes says so; its error is met again by the next call, if it stays.
            assert!(errors <= 1, "{fault:?} at call {at}: {errors} errors");
        }
    }
    say(format!("writes that failed once: {failed}"));
    assert!(failed > 20);
}

#[test]
fn finish_gives_the_inner_writer_back_and_what_it_holds_reads_as_truncated() {
    let envelope = envelope(SEGMENT);
    let data = pattern(3 * FULL);
    let mut tried = 0;
    for at in 0..100 {
        let encryptor = envelope.encryptor(&context()).unwrap();
        let whole = encryptor.sealed_len(data.len() as u64).unwrap();
        let mut writer = encryptor.into_writer(Flaky::new(Vec::new(), Plan::From(at, Fault::Broken), 40));
        let written = writer.write_all(&data);
        let failed = match writer.finish() {
            Ok(_) => break,
            Err(failed) => failed,
        };
        assert_eq!(failed.error().kind(), ErrorKind::Io);
        let (error, inner) = failed.into_parts();
        assert!(error.to_string().contains("broken on purpose"), "{error}");
        if (inner.inner.len() as u64) < whole {
            assert_eq!(envelope.decrypt(&inner.inner, &context()).unwrap_err().kind(), ErrorKind::Truncated);
        } else {
            // Only the flush failed.
            assert!(written.is_ok());
        }
        tried += 1;
    }
    say(format!("finishes that failed: {tried}"));
    assert!((10..100).contains(&tried));
}

#[test]
fn a_dropped_writer_leaves_a_truncated_message_and_a_finished_one_takes_no_more() {
    let envelope = envelope(SEGMENT);
    let mut dropped = 0;
    for len in 0..200 {
        let mut out = Vec::new();
        let mut writer = envelope.encrypt_writer(&mut out, &context()).unwrap();
        writer.write_all(&pattern(len)).unwrap();
        writer.flush().unwrap();
        drop(writer);
        let error = envelope.decrypt(&out, &context()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Truncated, "{len} bytes");
        dropped += 1;
    }
    assert_eq!(dropped, 200);
    let mut writer = envelope.encrypt_writer(Vec::new(), &context()).unwrap();
    writer.write_all(b"whole").unwrap();
    writer.try_finish().unwrap();
    assert_eq!(kind_of(&writer.write(b"more").unwrap_err()), ErrorKind::InvalidInput);
    assert!(writer.flush().is_ok() && writer.try_finish().is_ok(), "finishing again does nothing");
    let sealed = writer.finish().unwrap();
    assert_eq!(envelope.decrypt(&sealed, &context()).unwrap(), b"whole");
}

#[test]
fn a_read_that_fails_at_any_call_goes_on_where_it_stopped() {
    let envelope = envelope(SEGMENT);
    let data = pattern(4 * FULL + 9);
    let message = envelope.encrypt(&data, &context()).unwrap();
    let head = Header::parse(&message).unwrap();
    let mut failed = 0;
    for fault in [Fault::Interrupted, Fault::WouldBlock, Fault::Broken] {
        for (most_in, most_out) in [(0, 500), (0, 7), (13, 64), (1, 40)] {
            for at in 0.. {
                let decryptor = envelope.decryptor(&head, &context()).unwrap();
                let input = Flaky::new(&message[head.len()..], Plan::Once(at, fault), most_in);
                let mut reader = decryptor.into_reader(input);
                let out = read_stubbornly(&mut reader, most_out, &mut Random::new(at as u64));
                assert_eq!(out.unwrap(), data, "{fault:?} at call {at}");
                if reader.inner().faults == 0 {
                    break;
                }
                failed += 1;
            }
        }
    }
    say(format!("reads that failed once: {failed}"));
    assert!(failed > 300);
}

#[test]
fn an_input_that_fails_within_the_head_gives_its_error() {
    let envelope = envelope(SEGMENT);
    let message = envelope.encrypt(b"x", &context()).unwrap();
    for at in 0..3 {
        let broken = Flaky::new(&*message, Plan::From(at, Fault::Broken), 0);
        let error = envelope.decrypt_reader(broken, &context()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        let interrupted = Flaky::new(&*message, Plan::Once(at, Fault::Interrupted), 3);
        assert!(envelope.decrypt_reader(interrupted, &context()).is_ok());
    }
}

/// Random seeks and reads, compared with those on a [`Cursor`] over the plaintext.
fn compare_with_a_cursor<R: Read + Seek>(
    reader: &mut DecryptReader<R>,
    data: &[u8],
    steps: usize,
    random: &mut Random,
) {
    let mut model = Cursor::new(data);
    let range = data.len() as i64 + 80;
    for _ in 0..steps {
        let delta = random.below(2 * range as usize) as i64 - range;
        let to = match random.below(5) {
            0 => Some(SeekFrom::Start(delta.unsigned_abs())),
            1 => Some(SeekFrom::End(delta)),
            2 => Some(SeekFrom::Current(delta)),
            _ => None,
        };
        if let Some(to) = to {
            match (model.seek(to), retry(|| reader.seek(to))) {
                (Ok(expected), got) => assert_eq!(got.unwrap(), expected, "{to:?}"),
                (Err(_), got) => assert_eq!(got.unwrap_err().kind(), Io::InvalidInput, "{to:?}"),
            }
        }
        assert_eq!(reader.stream_position().unwrap(), model.position());
        let mut buffer = vec![0; random.below(100)];
        let got = retry(|| reader.read(&mut buffer)).unwrap();
        let mut expected = vec![0; got];
        model.read_exact(&mut expected).unwrap();
        assert_eq!(buffer[..got], expected);
        // No short count but at a segment's edge, and none at all only at the end.
        assert!(got > 0 || buffer.is_empty() || model.position() >= data.len() as u64);
    }
}

/// Repeats what the input, and not the message, failed.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if matches!(error.kind(), Io::WouldBlock | Io::BrokenPipe | Io::Interrupted) => {}
            other => return other,
        }
    }
}

#[test]
fn seeks_and_reads_in_any_order_agree_with_a_cursor_over_the_plaintext() {
    let envelope = envelope(SEGMENT);
    let mut random = Random::new(43);
    let mut steps = 0;
    for len in lengths(SEGMENT as usize).chain([500]) {
        let data = pattern(len);
        let message = envelope.encrypt(&data, &context()).unwrap();
        for most in [0, 1, 30] {
            let input = Flaky::new(Cursor::new(&message), Plan::Never, most);
            let mut reader = envelope.decrypt_reader(input, &context()).unwrap();
            compare_with_a_cursor(&mut reader, &data, 400, &mut random);
            // From the middle of a file, behind other bytes.
            let mut file = Cursor::new([&[0x45; 777], &message[..]].concat());
            file.set_position(777);
            let mut reader = envelope.decrypt_reader(file, &context()).unwrap();
            let mut first = vec![0; random.below(len + 1)];
            reader.read_exact(&mut first).unwrap();
            assert_eq!(first, data[..first.len()]);
            assert_eq!(reader.verified_len().unwrap(), len as u64);
            assert_eq!(reader.stream_position().unwrap(), first.len() as u64, "asking the length keeps the position");
            reader.rewind().unwrap();
            compare_with_a_cursor(&mut reader, &data, 100, &mut random);
            steps += 500;
        }
    }
    say(format!("seeks and reads against a cursor: {steps}"));
    assert!(steps >= 10_000);
}

#[test]
fn a_seek_whose_input_fails_loses_no_place_and_shows_no_wrong_byte() {
    let envelope = envelope(SEGMENT);
    let data = pattern(5 * FULL + 3);
    let message = envelope.encrypt(&data, &context()).unwrap();
    let head = Header::parse(&message).unwrap();
    let (mut failed, mut refused) = (0, 0);
    for fault in [Fault::WouldBlock, Fault::Broken] {
        for before in [0, 10, FULL, 70] {
            for at in 0.. {
                let decryptor = envelope.decryptor(&head, &context()).unwrap();
                let mut file = Cursor::new(&message);
                file.set_position(head.len() as u64);
                let mut reader = decryptor.into_reader(Flaky::new(file, Plan::Once(at, fault), 0));
                let mut out = vec![0; before];
                let mut filled = 0;
                while filled < before {
                    filled += retry(|| reader.read(&mut out[filled..])).unwrap();
                }
                let here = reader.stream_position().unwrap();
                let seeked = reader.seek(SeekFrom::Start(100));
                let mut next = [0; 9];
                // Whatever happened, what comes now is what stands where the reader says it stands.
                let (position, read) = (reader.stream_position().unwrap(), reader.read(&mut next));
                match (seeked, read) {
                    (Ok(_), Ok(count)) => assert_eq!(next[..count], data[100..100 + count]),
                    (Err(_), Ok(count)) => {
                        assert_eq!(position, here);
                        assert_eq!(next[..count], data[before..before + count], "{fault:?} at {at}");
                    }
                    (Err(_), Err(_)) => refused += 1,
                    (Ok(_), Err(_)) => {}
                }
                // And a seek that succeeds finds its place.
                retry(|| reader.seek(SeekFrom::Start(33))).unwrap();
                let count = retry(|| reader.read(&mut next)).unwrap();
                assert_eq!(next[..count], data[33..33 + count]);
                if reader.inner().faults == 0 {
                    break;
                }
                failed += 1;
            }
        }
    }
    say(format!("seeks around one failed call: {failed}, after {refused} of them nothing was read"));
    assert!(failed > 40 && refused > 4, "{failed}, {refused}");
}

#[test]
fn a_message_cut_at_a_segment_edge_is_truncated_at_the_first_seek() {
    let envelope = envelope(SEGMENT);
    let message = envelope.encrypt(&pattern(5 * FULL), &context()).unwrap();
    let head = Header::parse(&message).unwrap().len();
    for segments in 0..5 {
        let cut = &message[..head + segments * 64];
        for to in [SeekFrom::Start(0), SeekFrom::End(0), SeekFrom::Current(1)] {
            let mut reader = envelope.decrypt_reader(Cursor::new(cut), &context()).unwrap();
            let mut first = [0; 4];
            if segments > 0 {
                reader.read_exact(&mut first).unwrap();
            }
            assert_eq!(kind_of(&reader.seek(to).unwrap_err()), ErrorKind::Truncated);
            assert!(reader.read(&mut first).is_err(), "no clean end after that");
        }
        assert_eq!(envelope.range_reader(cut, &context()).unwrap_err().kind(), ErrorKind::Truncated);
    }
}

const CASES: u32 = 400;
static RUN: AtomicU32 = AtomicU32::new(0);

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_data_in_any_pieces_comes_back_each_way(
        data in proptest::collection::vec(any::<u8>(), 0..700),
        segment_len in 64_u32..200,
        seed in any::<u64>(),
        sizes in (0_usize..90, 1_usize..300, 1_usize..300),
        range in (0_u64..800, 0_u64..800),
    ) {
        let envelope = envelope(segment_len);
        let mut random = Random::new(seed);
        let (most_io, most_write, most_read) = sizes;
        let output = Flaky::new(Vec::new(), Plan::Sometimes(6, random.clone()), most_io);
        let encryptor = envelope.encryptor(&context()).unwrap();
        let message = write_stubbornly(encryptor, output, &data, most_write, &mut random).inner;
        prop_assert_eq!(&envelope.decrypt(&message, &context()).unwrap(), &data);
        let head = Header::parse(&message).unwrap();
        let input = Flaky::new(&message[head.len()..], Plan::Sometimes(6, random.clone()), most_io);
        let mut reader = envelope.decryptor(&head, &context()).unwrap().into_reader(input);
        prop_assert_eq!(&read_stubbornly(&mut reader, most_read, &mut random).unwrap(), &data);
        let ranges = envelope.range_reader(&message, &context()).unwrap();
        let (start, end) = range;
        let clamp = |at: u64| usize::try_from(at).unwrap().min(data.len());
        let expected = data.get(clamp(start)..clamp(end)).unwrap_or_default();
        prop_assert_eq!(&ranges.read_range(start..end).unwrap(), expected);
        let mut out = vec![0; most_read];
        let count = ranges.read_at(&mut out, start).unwrap();
        prop_assert_eq!(&out[..count], &data[clamp(start)..data.len().min(clamp(start) + most_read)]);
        let input = Flaky::new(Cursor::new(&message), Plan::Never, most_io);
        let mut reader = envelope.decrypt_reader(input, &context()).unwrap();
        compare_with_a_cursor(&mut reader, &data, 12, &mut random);
        if RUN.fetch_add(1, Ordering::Relaxed) + 1 == CASES {
            say(format!("streams: {CASES} cases of any data in any pieces, written, read, in ranges and with seeks"));
        }
    }
}
