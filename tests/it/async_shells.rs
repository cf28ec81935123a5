//! The asynchronous shells over inputs and outputs that are as difficult as they may be, with futures
//! that are dropped at each point where they wait.

use crate::support::asynchronous::{ChunkStream, FAULTS, collect, once, passes, stubbornly};
use crate::support::child::long;
use crate::support::flaky::{Fault, Flaky, Plan};
use crate::support::providers::raw;
use crate::support::random::Random;
use crate::support::sample::pattern;
use crate::support::{kind_of, say};
use envelock::blocking::wait;
use envelock::{
    AeadAlgorithm, AsyncDecryptReader, Decryptor, EncryptionContext, Encryptor, Envelope, ErrorKind, Header,
};
use std::collections::HashSet;
use std::io::{self, Cursor, ErrorKind as Io, Read, Seek, SeekFrom};
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeek, AsyncSeekExt, AsyncWrite, AsyncWriteExt};

const SEGMENT: u32 = 64;
const FULL: usize = 32;
/// Long enough to be worked on by another thread.
const LONG_SEGMENT: u32 = 300 << 10;

fn envelope(segment_len: u32) -> Envelope {
    let builder = Envelope::builder(raw("mine", 2)).segment_len(segment_len);
    builder.aead(AeadAlgorithm::ChaCha20Poly1305).build().unwrap()
}

fn context() -> EncryptionContext {
    EncryptionContext::from([("object", "a")])
}

fn encryptor(envelope: &Envelope) -> Encryptor {
    wait(envelope.encryptor(&context())).unwrap()
}

fn decryptor(envelope: &Envelope, head: &Header) -> Decryptor {
    wait(envelope.decryptor(head, &context())).unwrap()
}

fn open(envelope: &Envelope, message: &[u8]) -> Result<Vec<u8>, ErrorKind> {
    wait(envelope.decrypt(message, &context())).map_err(|error| error.kind())
}

fn seal(envelope: &Envelope, data: &[u8]) -> Vec<u8> {
    wait(envelope.encrypt(data, &context())).unwrap()
}

fn rounds(ordinary: usize) -> usize {
    if long() { 20 * ordinary } else { ordinary }
}

/// How a writer is brought to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Finish,
    Shutdown,
}

/// Writes `data` in pieces of at most `most` bytes, each future polled once and dropped; repeats what
/// failed; ends the message. Returns what the inner writer got, and how many errors were shown.
fn write_stubbornly<W: AsyncWrite + Unpin>(
    encryptor: Encryptor,
    inner: W,
    data: &[u8],
    (most, end): (usize, End),
    random: &mut Random,
) -> (W, usize) {
    let mut writer = encryptor.into_async_writer(inner);
    let (mut rest, mut errors) = (data, 0);
    let mut shown = |result: io::Result<()>| match result {
        Ok(()) => true,
        Err(error) => {
            assert!(passes(&error) && error.kind() != Io::Interrupted, "{error}");
            errors += 1;
            false
        }
    };
    while !rest.is_empty() {
        let size = (1 + random.below(most)).min(rest.len());
        if let Poll::Ready(result) = once(writer.write(&rest[..size])) {
            let count = *result.as_ref().unwrap_or(&0);
            shown(result.map(drop));
            rest = &rest[count..];
        }
        if random.one_in(5) {
            if let Poll::Ready(Err(error)) = once(writer.flush()) {
                assert!(passes(&error));
            }
        }
    }
    loop {
        let ended = match end {
            End::Finish => once(writer.try_finish()),
            End::Shutdown => once(writer.shutdown()),
        };
        if let Poll::Ready(result) = ended {
            if shown(result) {
                break;
            }
        }
    }
    let inner = match wait(writer.finish()) {
        Ok(inner) => inner,
        Err(failed) => failed.into_parts().1,
    };
    (inner, errors)
}

#[test]
fn async_writers_over_difficult_outputs_give_the_plaintext_back_and_seal_nothing_twice() {
    let envelope = envelope(SEGMENT);
    let mut random = Random::new(51);
    let (mut faults, mut calls) = (0, 0);
    let rounds = rounds(1_500);
    for round in 0..rounds {
        let data = pattern(random.below(400));
        let (most_out, most_in) = ([0, 1, 5, 40, 70, 200][random.below(6)], 1 + random.below(150));
        let output = Flaky::new(Vec::new(), Plan::Sometimes(2 + round % 9, random.clone()), most_out);
        let encryptor = encryptor(&envelope);
        let foretold = encryptor.sealed_len(data.len() as u64).unwrap();
        let end = [End::Finish, End::Shutdown][random.below(2)];
        let (output, _) = write_stubbornly(encryptor, output, &data, (most_in, end), &mut random);
        assert_eq!(output.shutdowns, usize::from(end == End::Shutdown));
        assert_eq!(output.inner.len() as u64, foretold, "each byte went out once");
        assert_eq!(open(&envelope, &output.inner).unwrap(), data);
        let head = Header::parse(&output.inner).unwrap().len();
        let ivs: HashSet<_> = output.inner[head..].chunks(64).map(|it| it[4..16].to_vec()).collect();
        assert_eq!(ivs.len(), output.inner[head..].chunks(64).len(), "a segment was sealed twice");
        (faults, calls) = (faults + output.faults, calls + output.calls);
    }
    say(format!("async writers: {rounds} messages, {calls} calls, {faults} of them failed or paused"));
    assert!(faults > 2_000);
}

#[test]
fn an_async_write_that_fails_or_waits_at_any_call_sends_on_the_very_bytes_that_were_sealed() {
    let envelope = envelope(SEGMENT);
    let data = pattern(4 * FULL + 9);
    let mut failed = 0;
    for (fault, end) in FAULTS.into_iter().flat_map(|fault| [(fault, End::Finish), (fault, End::Shutdown)]) {
        for at in 0.. {
            let output = Flaky::new(Vec::new(), Plan::Once(at, fault), 50);
            let mut random = Random::new(at as u64);
            let (output, errors) = write_stubbornly(encryptor(&envelope), output, &data, (45, end), &mut random);
            assert_eq!(open(&envelope, &output.inner).unwrap(), data, "{fault:?} at call {at}");
            assert_eq!(output.shutdowns, usize::from(end == End::Shutdown));
            assert!(errors <= usize::from(fault == Fault::Broken), "{fault:?} at call {at}: {errors} errors");
            if output.faults == 0 {
                break;
            }
            failed += 1;
        }
    }
    say(format!("async writes that failed or waited once: {failed}"));
    assert!(failed > 60);
}

#[test]
fn an_async_finish_gives_the_inner_writer_back_and_what_it_holds_reads_as_truncated() {
    let envelope = envelope(SEGMENT);
    let data = pattern(3 * FULL);
    let mut tried = 0;
    for at in 0..100 {
        let encryptor = encryptor(&envelope);
        let whole = encryptor.sealed_len(data.len() as u64).unwrap();
        let mut writer = encryptor.into_async_writer(Flaky::new(Vec::new(), Plan::From(at, Fault::Broken), 40));
        let written = wait(writer.write_all(&data));
        let Err(failed) = wait(writer.finish()) else { break };
        assert_eq!(failed.error().kind(), ErrorKind::Io);
        let (error, inner) = failed.into_parts();
        assert!(error.to_string().contains("broken on purpose"), "{error}");
        if (inner.inner.len() as u64) < whole {
            assert_eq!(open(&envelope, &inner.inner).unwrap_err(), ErrorKind::Truncated);
        } else {
            assert!(written.is_ok(), "only the flush failed");
        }
        tried += 1;
    }
    say(format!("async finishes that failed: {tried}"));
    assert!((10..100).contains(&tried));
}

#[test]
fn what_is_dropped_before_its_end_reads_as_truncated_and_a_finished_writer_takes_no_more() {
    let envelope = envelope(SEGMENT);
    for len in 0..200 {
        let mut out = Vec::new();
        let mut writer = encryptor(&envelope).into_async_writer(&mut out);
        wait(writer.write_all(&pattern(len))).unwrap();
        wait(writer.flush()).unwrap();
        drop(writer);
        assert_eq!(open(&envelope, &out).unwrap_err(), ErrorKind::Truncated, "{len} bytes");
    }
    let mut writer = encryptor(&envelope).into_async_writer(Flaky::new(Vec::new(), Plan::Never, 0));
    wait(writer.write_all(b"whole")).unwrap();
    wait(writer.shutdown()).unwrap();
    wait(writer.shutdown()).unwrap();
    wait(writer.try_finish()).unwrap();
    assert_eq!(kind_of(&wait(writer.write(b"more")).unwrap_err()), ErrorKind::InvalidInput);
    assert_eq!(writer.inner().shutdowns, 1, "shut down once");
    let calls = writer.inner().calls;
    let inner = wait(writer.finish()).unwrap();
    assert_eq!(inner.calls, calls, "what is shut down is left alone");
    assert_eq!(open(&envelope, &inner.inner).unwrap(), b"whole");
}

/// Reads to the end in pieces of at most `most` bytes, each future polled once and dropped.
fn read_stubbornly(
    reader: &mut (impl AsyncRead + Unpin),
    most: usize,
    random: &mut Random,
) -> Result<Vec<u8>, ErrorKind> {
    let (mut out, mut buffer) = (Vec::new(), vec![0; most]);
    loop {
        let size = 1 + random.below(most);
        match stubbornly(|| once(reader.read(&mut buffer[..size]))) {
            Ok(0) => return Ok(out),
            Ok(count) => out.extend_from_slice(&buffer[..count]),
            Err(error) if passes(&error) => assert_ne!(error.kind(), Io::Interrupted),
            Err(error) => return Err(kind_of(&error)),
        }
    }
}

#[test]
fn an_async_read_that_fails_or_waits_at_any_call_goes_on_where_it_stopped() {
    let envelope = envelope(SEGMENT);
    let data = pattern(4 * FULL + 9);
    let message = seal(&envelope, &data);
    let head = Header::parse(&message).unwrap();
    let mut failed = 0;
    for fault in FAULTS {
        for (most_in, most_out) in [(0, 500), (0, 7), (13, 64), (1, 40)] {
            for at in 0.. {
                let input = Flaky::new(&message[head.len()..], Plan::Once(at, fault), most_in);
                let mut reader = decryptor(&envelope, &head).into_async_reader(input);
                let out = read_stubbornly(&mut reader, most_out, &mut Random::new(at as u64));
                assert_eq!(out.unwrap(), data, "{fault:?} at call {at}");
                if reader.inner().faults == 0 {
                    break;
                }
                failed += 1;
            }
        }
    }
    say(format!("async reads that failed or waited once: {failed}"));
    assert!(failed > 300);
}

#[test]
fn async_readers_over_difficult_inputs_give_the_plaintext_or_its_verified_beginning() {
    let envelope = envelope(SEGMENT);
    let mut random = Random::new(53);
    let (rounds, mut faults, mut rejected) = (rounds(1_500), 0, 0);
    for round in 0..rounds {
        let data = pattern(random.below(400));
        let mut message = seal(&envelope, &data);
        let head = Header::parse(&message).unwrap();
        let damaged = round % 3 == 0;
        if damaged {
            let at = head.len() + random.below(message.len() - head.len());
            message[at] ^= 1 << random.below(8);
        }
        let plan = Plan::Sometimes(2 + round % 9, random.clone());
        let input = Flaky::new(&message[head.len()..], plan, [0, 1, 30, 100][random.below(4)]);
        let mut reader = decryptor(&envelope, &head).into_async_reader(input);
        let mut out = Vec::new();
        let mut buffer = vec![0; 1 + random.below(200)];
        let error = loop {
            match stubbornly(|| once(reader.read(&mut buffer))) {
                Ok(0) => break None,
                Ok(count) => out.extend_from_slice(&buffer[..count]),
                Err(error) if passes(&error) => {}
                Err(error) => break Some(kind_of(&error)),
            }
        };
        assert!(data.starts_with(&out), "bytes that were never encrypted");
        match error {
            None => assert!(!damaged && out == data),
            Some(kind) => {
                assert!(damaged && matches!(kind, ErrorKind::AuthenticationFailed | ErrorKind::Truncated), "{kind:?}");
                rejected += 1;
            }
        }
        faults += reader.inner().faults;
    }
    say(format!("async readers: {rounds} messages, {rejected} rejected, {faults} calls failed or paused"));
    assert!(faults > 1_000 && rejected >= rounds / 3);
}

/// Random seeks and reads, compared with those on a [`Cursor`] over the plaintext; some seeks are given
/// up after one poll. Returns how many were.
fn compare_with_a_cursor<R: AsyncRead + AsyncSeek + Unpin>(
    reader: &mut AsyncDecryptReader<R>,
    data: &[u8],
    steps: usize,
    random: &mut Random,
) -> usize {
    let mut model = Cursor::new(data);
    let range = data.len() as i64 + 80;
    let mut given_up = 0;
    for _ in 0..steps {
        let delta = random.below(2 * range as usize) as i64 - range;
        let target = match random.below(5) {
            0 => Some(SeekFrom::Start(delta.unsigned_abs())),
            1 => Some(SeekFrom::End(delta)),
            2 => Some(SeekFrom::Current(delta)),
            _ => None,
        };
        if let Some(to) = target {
            let another = random.one_in(3);
            if another && once(reader.seek(SeekFrom::End(-1))).is_pending() {
                given_up += 1;
                if let Poll::Ready(read) = once(reader.read(&mut [0; 9])) {
                    assert_eq!(kind_of(&read.unwrap_err()), ErrorKind::Io, "no byte from a place nobody knows");
                }
            }
            // What a seek relative to here means after one that was given up, nobody knows.
            let to = if another { SeekFrom::Start(delta.unsigned_abs()) } else { to };
            let got = match to {
                // Begun anew, it would go twice as far.
                SeekFrom::Current(_) => wait(reader.seek(to)),
                _ => stubbornly(|| once(reader.seek(to))),
            };
            match Seek::seek(&mut model, to) {
                Ok(expected) => assert_eq!(got.unwrap(), expected, "{to:?}"),
                Err(_) => assert_eq!(got.unwrap_err().kind(), Io::InvalidInput, "{to:?}"),
            }
        }
        assert_eq!(reader.position(), model.position());
        if random.one_in(10) {
            assert_eq!(stubbornly(|| once(reader.stream_position())).unwrap(), model.position());
        }
        let mut buffer = vec![0; random.below(100)];
        let got = loop {
            match stubbornly(|| once(reader.read(&mut buffer))) {
                Err(error) if passes(&error) => {}
                other => break other.unwrap(),
            }
        };
        let mut expected = vec![0; got];
        Read::read_exact(&mut model, &mut expected).unwrap();
        assert_eq!(buffer[..got], expected);
        assert!(got > 0 || buffer.is_empty() || model.position() >= data.len() as u64);
    }
    given_up
}

#[test]
fn async_seeks_and_reads_in_any_order_agree_with_a_cursor_over_the_plaintext() {
    let envelope = envelope(SEGMENT);
    let mut random = Random::new(54);
    let (mut steps, mut given_up) = (0, 0);
    for len in [0, 1, 31, 32, 33, 63, 64, 65, 95, 96, 97, 500] {
        let data = pattern(len);
        let message = seal(&envelope, &data);
        for pauses in [Plan::Never, Plan::Pauses(3, random.clone()), Plan::Pauses(2, random.clone())] {
            let mut file = Cursor::new([&[0x45; 777], &message[..]].concat());
            file.set_position(777);
            let input = Flaky::new(file, pauses, [0, 1, 30][random.below(3)]);
            let mut reader = wait(envelope.decrypt_async_reader(input, &context())).unwrap();
            let mut first = vec![0; random.below(len + 1)];
            wait(reader.read_exact(&mut first)).unwrap();
            assert_eq!(first, data[..first.len()]);
            assert_eq!(wait(reader.verified_len()).unwrap(), len as u64);
            assert_eq!(wait(reader.stream_position()).unwrap(), first.len() as u64, "the position is kept");
            wait(reader.rewind()).unwrap();
            given_up += compare_with_a_cursor(&mut reader, &data, rounds(200), &mut random);
            steps += rounds(200);
        }
    }
    say(format!("async seeks and reads against a cursor: {steps}, seeks given up: {given_up}"));
    assert!(steps >= 5_000 && given_up > 100);
}

#[test]
fn an_async_seek_whose_input_fails_shows_no_wrong_byte() {
    let envelope = envelope(SEGMENT);
    let data = pattern(5 * FULL + 3);
    let message = seal(&envelope, &data);
    let head = Header::parse(&message).unwrap();
    let (mut failed, mut refused) = (0, 0);
    for (fault, before) in [(Fault::WouldBlock, 10), (Fault::Broken, 0), (Fault::Broken, 10), (Fault::Broken, FULL)] {
        for at in 0.. {
            let mut file = Cursor::new(&message);
            file.set_position(head.len() as u64);
            let mut reader = decryptor(&envelope, &head).into_async_reader(Flaky::new(file, Plan::Once(at, fault), 0));
            let mut out = vec![0; before];
            let mut filled = 0;
            while filled < before {
                filled += stubbornly(|| once(reader.read(&mut out[filled..]))).unwrap_or(0);
            }
            let seeked = once(reader.seek(SeekFrom::Start(100)));
            let mut next = [0; 9];
            match (seeked, once(reader.read(&mut next))) {
                (Poll::Ready(Ok(_)), Poll::Ready(Ok(count))) => assert_eq!(next[..count], data[100..100 + count]),
                (_, Poll::Ready(Ok(count))) => assert_eq!(next[..count], data[before..before + count], "{at}"),
                (_, Poll::Ready(Err(_))) => refused += 1,
                (_, Poll::Pending) => {}
            }
            while stubbornly(|| once(reader.seek(SeekFrom::Start(33)))).is_err() {}
            let count = loop {
                if let Ok(count) = stubbornly(|| once(reader.read(&mut next))) {
                    break count;
                }
            };
            assert_eq!(next[..count], data[33..33 + count]);
            if reader.inner().faults == 0 {
                break;
            }
            failed += 1;
        }
    }
    say(format!("async seeks around one failed call: {failed}, after {refused} of them nothing was read"));
    assert!(failed > 20 && refused > 2, "{failed}, {refused}");
}

#[test]
fn streams_of_any_chunks_agree_with_the_whole_or_end_with_the_error_of_their_input() {
    let envelope = envelope(SEGMENT);
    let mut random = Random::new(55);
    let (rounds, mut broken) = (rounds(1_500), 0);
    for round in 0..rounds {
        let data = pattern(random.below(400));
        let most = [0, 1, 20, 64, 300][random.below(5)];
        let plan = match round % 3 {
            0 => Plan::Once(random.below(9), Fault::Broken),
            _ => Plan::Pauses(2 + random.below(4), random.clone()),
        };
        // Into a message…
        let chunks = ChunkStream::new(&data, most, plan.clone(), &mut random);
        let mut stream = wait(envelope.encrypt_stream(chunks, &context())).unwrap();
        let (error, sealed) = collect(&mut stream);
        match error {
            None => assert_eq!(open(&envelope, &sealed).unwrap(), data),
            Some(error) => {
                assert!(error.kind() == ErrorKind::Io && error.to_string().contains("broken on purpose"), "{error}");
                assert_eq!(open(&envelope, &sealed).unwrap_err(), ErrorKind::Truncated);
                broken += 1;
            }
        }
        // … and out of one, also from where it broke.
        let message = seal(&envelope, &data);
        let head = Header::parse(&message).unwrap();
        let body = &message[head.len()..];
        let chunks = ChunkStream::new(body, most, plan, &mut random);
        let mut stream = decryptor(&envelope, &head).into_stream(chunks);
        let (error, mut out) = collect(&mut stream);
        assert!(data.starts_with(&out));
        let Some(error) = error else {
            assert_eq!(out, data);
            continue;
        };
        assert!(error.to_string().contains("broken on purpose"), "{error}");
        let point = stream.resume_point();
        assert_eq!(point.plaintext_offset(), out.len() as u64);
        let rest = &body[usize::try_from(point.sealed_offset()).unwrap()..];
        let chunks = ChunkStream::new(rest, most, Plan::Never, &mut random);
        let (error, later) = collect(&mut decryptor(&envelope, &head).into_stream_from(point, chunks).unwrap());
        assert!(error.is_none(), "{error:?}");
        out.extend(later);
        assert_eq!(out, data);
        broken += 1;
    }
    say(format!("streams: {} of both kinds, {broken} broke", 2 * rounds));
    assert!(broken > rounds / 4);
}

#[test]
fn long_segments_are_worked_on_elsewhere_and_dropped_futures_lose_and_repeat_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _inside = runtime.enter();
    let envelope = envelope(LONG_SEGMENT);
    let full = LONG_SEGMENT as usize - 32;
    let mut random = Random::new(56);
    let mut messages = 0;
    for len in [0, 1, 270_000, full - 1, full, full + 1, 2 * full, 3 * full + 280_000] {
        let data = pattern(len);
        let plan = || Plan::Sometimes(4, Random::new(len as u64));
        let encryptor = encryptor(&envelope);
        let foretold = encryptor.sealed_len(len as u64).unwrap();
        let output = Flaky::new(Vec::new(), plan(), 0);
        let (output, _) = write_stubbornly(encryptor, output, &data, (100_000, End::Shutdown), &mut random);
        assert_eq!(output.inner.len() as u64, foretold);
        let chunks = ChunkStream::new(&data, 100_000, Plan::Pauses(3, random.clone()), &mut random);
        let (error, streamed) = collect(&mut wait(envelope.encrypt_stream(chunks, &context())).unwrap());
        assert!(error.is_none());
        for message in [output.inner, streamed, seal(&envelope, &data)] {
            assert_eq!(open(&envelope, &message).unwrap(), data);
            let input = Flaky::new(Cursor::new(&message), Plan::Pauses(3, random.clone()), 0);
            let mut reader = wait(envelope.decrypt_async_reader(input, &context())).unwrap();
            assert_eq!(read_stubbornly(&mut reader, 200_000, &mut random).unwrap(), data);
            wait(reader.rewind()).unwrap();
            compare_with_a_cursor(&mut reader, &data, 20, &mut random);
            let chunks = ChunkStream::new(&message, 100_000, Plan::Pauses(3, random.clone()), &mut random);
            let (error, out) = collect(&mut wait(envelope.decrypt_stream(chunks, &context())).unwrap());
            assert!(error.is_none() && out == data);
            messages += 1;
        }
        // Damage is found there as it is here.
        let mut damaged = seal(&envelope, &data);
        let at = damaged.len() - 1;
        damaged[at] ^= 1;
        let mut reader = wait(envelope.decrypt_async_reader(&*damaged, &context())).unwrap();
        assert_eq!(read_stubbornly(&mut reader, 200_000, &mut random).unwrap_err(), ErrorKind::AuthenticationFailed);
        let mut reader = wait(envelope.decrypt_async_reader(Cursor::new(&damaged), &context())).unwrap();
        let sought = stubbornly(|| once(reader.seek(SeekFrom::End(0))));
        assert_eq!(kind_of(&sought.unwrap_err()), ErrorKind::AuthenticationFailed);
    }
    say(format!("messages of long segments: {messages}"));
}

#[test]
fn the_head_is_read_without_blocking_and_not_a_byte_more() {
    let envelope = envelope(SEGMENT);
    let message = seal(&envelope, b"after the head");
    let head = Header::parse(&message).unwrap();
    let limits = envelock::Limits::default();
    for most in [0, 1, 7] {
        for fault in [Fault::Interrupted, Fault::WouldBlock] {
            for at in 0..4 {
                let mut input = Flaky::new(message.as_slice(), Plan::Once(at, fault), most);
                let read = wait(envelock::read_header_async(&mut input, &limits)).unwrap();
                assert_eq!(read.as_bytes(), head.as_bytes());
                assert_eq!(input.inner, &message[head.len()..], "the rest is still there");
            }
        }
    }
    let mut broken = Flaky::new(message.as_slice(), Plan::From(2, Fault::Broken), 9);
    assert_eq!(wait(envelock::read_header_async(&mut broken, &limits)).unwrap_err().kind(), ErrorKind::Io);
    for cut in 0..head.len() {
        let kind = |result: Result<Header, envelock::Error>| result.unwrap_err().kind();
        let truncated = kind(wait(envelock::read_header_async(&mut &message[..cut], &limits)));
        assert_eq!(truncated, ErrorKind::Truncated);
        assert_eq!(kind(envelock::read_header(&mut &message[..cut], &limits)), ErrorKind::Truncated);
    }
}
