//! No unverified byte leaves: what a reader gives of a message whose segment k is bad.

use crate::support::damage::Damage;
use crate::support::sample::{Sample, Way};
use crate::support::{kind_of, say};
use envelock::AeadAlgorithm::{Aes256Gcm, ChaCha20Poly1305};
use envelock::ErrorKind;
use std::io::{Cursor, Read, Seek, SeekFrom};

const FULL: usize = 32;
/// No byte of a sample's plaintext or zeros; what buffers hold before.
const MARK: u8 = 0xEE;

/// Messages whose segment k is bad in its tag, ciphertext or IV, for each k.
fn bad(sample: &Sample, k: usize) -> Vec<Damage> {
    let start = sample.known.head.len() + k * 64;
    let len = sample.known.segments()[k].len();
    let (ciphertext, tag) = (start + 16, start + len - 16);
    let spots =
        [("tag", start + len - 1), ("first byte of the tag", tag), ("IV", start + 4), ("ciphertext", ciphertext)];
    spots
        .into_iter()
        .map(|(what, at)| {
            let mut message = sample.known.message.clone();
            message[at] ^= 0x80;
            Damage { what: format!("segment {k}, {what}"), message }
        })
        .collect()
}

/// Whether eight bytes in a row of segment `k`'s plaintext stand anywhere in `bytes`.
fn shows(sample: &Sample, k: usize, bytes: &[u8]) -> bool {
    let segment = &sample.plaintext[k * FULL..sample.plaintext.len().min((k + 1) * FULL)];
    segment.windows(8).any(|secret| bytes.windows(8).any(|window| window == secret))
}

fn samples() -> Vec<Sample> {
    [150, 160]
        .into_iter()
        .flat_map(|len| [Sample::rich(Aes256Gcm, len), Sample::plain(ChaCha20Poly1305, len)])
        .collect()
}

#[test]
fn a_stream_gives_exactly_the_bytes_before_the_bad_segment_at_any_read_size() {
    let mut opens = 0;
    for sample in samples() {
        for k in 0..sample.known.segments().len() {
            for case in bad(&sample, k) {
                // Below, at and above a segment's plaintext and its sealed length; far above.
                for size in [1, 7, 31, 32, 33, 63, 64, 65, 100, 4_096] {
                    let mut reader = sample.reader.decrypt_reader(case.message.as_slice(), &sample.context).unwrap();
                    let mut out = Vec::new();
                    let mut buffer = vec![MARK; size];
                    let error = loop {
                        buffer.fill(MARK);
                        match reader.read(&mut buffer) {
                            Ok(0) => panic!("{}: a clean end", case.what),
                            Ok(count) => {
                                out.extend_from_slice(&buffer[..count]);
                                assert!(buffer[count..].iter().all(|&byte| byte == MARK), "bytes past the count");
                            }
                            Err(error) => break error,
                        }
                    };
                    assert_eq!(kind_of(&error), ErrorKind::AuthenticationFailed, "{}", case.what);
                    assert_eq!(envelock::Error::from_io(&error).unwrap().segment(), Some(k as u64));
                    assert_eq!(out, sample.plaintext[..k * FULL], "{}, {size} bytes a read", case.what);
                    assert!(!shows(&sample, k, &buffer), "{}: plaintext in the caller's buffer", case.what);
                    // Not at a second try either.
                    buffer.fill(MARK);
                    let again = reader.read(&mut buffer).unwrap_err();
                    assert_eq!(kind_of(&again), ErrorKind::AuthenticationFailed);
                    assert!(buffer.iter().all(|&byte| byte == MARK));
                    opens += 1;
                }
            }
        }
    }
    say(format!("streams with one bad segment: {opens}"));
    assert!(opens >= 500);
}

#[test]
fn a_seeking_reader_and_ranges_give_every_segment_but_the_bad_one() {
    let mut reads = 0;
    for sample in samples() {
        let count = sample.known.segments().len();
        for k in 0..count {
            for case in bad(&sample, k) {
                let message = case.message.as_slice();
                let mut reader = sample.reader.decrypt_reader(Cursor::new(message), &sample.context).unwrap();
                let ranges = sample.reader.range_reader(message, &sample.context);
                if k == count - 1 {
                    // Without a verified end there is no length, and no seek.
                    let error = reader.seek(SeekFrom::Start(0)).unwrap_err();
                    assert_eq!(kind_of(&error), ErrorKind::AuthenticationFailed);
                    assert!(reader.read(&mut [0; 8]).is_err(), "a reader that lost its place reads nothing");
                    assert_eq!(ranges.unwrap_err().kind(), ErrorKind::AuthenticationFailed);
                    reads += 2;
                    continue;
                }
                let ranges = ranges.unwrap();
                for index in 0..count {
                    let (start, end) = (index * FULL, sample.plaintext.len().min((index + 1) * FULL));
                    for size in [5, FULL, 200] {
                        reader.seek(SeekFrom::Start(start as u64)).unwrap();
                        let mut buffer = vec![MARK; size];
                        let read = reader.read(&mut buffer);
                        let mut other = vec![MARK; size.min(end - start)];
                        let ranged = ranges.read_at(&mut other, start as u64);
                        if index == k {
                            assert_eq!(kind_of(&read.unwrap_err()), ErrorKind::AuthenticationFailed);
                            assert_eq!(ranged.unwrap_err().kind(), ErrorKind::AuthenticationFailed);
                            assert!(!shows(&sample, k, &buffer) && !shows(&sample, k, &other), "{}", case.what);
                        } else {
                            let read = read.unwrap();
                            assert_eq!(buffer[..read], sample.plaintext[start..start + read]);
                            assert_eq!(ranged.unwrap(), other.len());
                            assert_eq!(other, sample.plaintext[start..start + other.len()]);
                        }
                        reads += 2;
                    }
                }
                // A range across the bad segment gives nothing at all, or nothing of the bad segment.
                assert!(ranges.read_range(0..u64::MAX).is_err());
                let mut across = vec![MARK; sample.plaintext.len()];
                assert!(ranges.read_at(&mut across, 0).is_err());
                assert!(!shows(&sample, k, &across), "{}", case.what);
            }
        }
    }
    say(format!("seeks and ranges around one bad segment: {reads}"));
    assert!(reads >= 1_000);
}

#[test]
fn a_whole_message_that_fails_leaves_the_output_wiped() {
    let mut opens = 0;
    for sample in samples() {
        let head = envelock::Header::parse(&sample.known.message).unwrap();
        let decryptor = sample.reader.decryptor(&head, &sample.context).unwrap();
        let open = |message: &[u8]| {
            let mut out = vec![MARK; sample.plaintext.len() + 9];
            let result = decryptor.open_to(&message[head.len()..], &mut out);
            (result.map_err(|e| e.kind()), out)
        };
        let (len, out) = open(&sample.known.message);
        assert_eq!(out[..len.unwrap()], sample.plaintext, "the sample itself opens");
        let mut cases: Vec<_> = (0..sample.known.segments().len()).flat_map(|k| bad(&sample, k)).collect();
        let message = &sample.known.message;
        cases.push(Damage { what: "cut".into(), message: message[..message.len() - 1].to_vec() });
        cases.push(Damage { what: "cut at an edge".into(), message: message[..head.len() + 128].to_vec() });
        cases.push(Damage { what: "extended".into(), message: [message.as_slice(), &[0]].concat() });
        for case in cases {
            let (result, out) = open(&case.message);
            let expected = sample.known.verdict(&case.message, Way::Whole.walk());
            assert_eq!(result.err(), expected.error, "{}", case.what);
            assert!(out.iter().all(|&byte| byte == 0), "{}: the output is not wiped", case.what);
            opens += 1;
        }
        let mut short = vec![MARK; sample.plaintext.len() - 1];
        assert_eq!(decryptor.open_to(&message[head.len()..], &mut short).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(short.iter().all(|&byte| byte == 0));
    }
    say(format!("whole messages that failed: {opens}"));
    assert!(opens >= 80);
}

#[cfg(feature = "tokio")]
#[test]
fn the_async_reader_and_the_stream_give_exactly_the_bytes_before_the_bad_segment() {
    use crate::support::asynchronous::{ChunkStream, collect, once, stubbornly};
    use crate::support::flaky::{Flaky, Plan};
    use crate::support::random::Random;
    use tokio::io::AsyncReadExt;
    let mut random = Random::new(71);
    let mut opens = 0;
    for sample in samples() {
        let envelope = sample.reader.inner();
        for k in 0..sample.known.segments().len() {
            for case in bad(&sample, k) {
                for size in [1, 31, 32, 33, 64, 100, 4_096] {
                    let input = Flaky::new(case.message.as_slice(), Plan::Pauses(3, random.clone()), 90);
                    let mut reader =
                        envelock::blocking::wait(envelope.decrypt_async_reader(input, &sample.context)).unwrap();
                    let mut out = Vec::new();
                    let mut buffer = vec![MARK; size];
                    let error = loop {
                        buffer.fill(MARK);
                        match stubbornly(|| once(reader.read(&mut buffer))) {
                            Ok(0) => panic!("{}: a clean end", case.what),
                            Ok(count) => {
                                out.extend_from_slice(&buffer[..count]);
                                assert!(buffer[count..].iter().all(|&byte| byte == MARK), "bytes past the count");
                            }
                            Err(error) => break error,
                        }
                    };
                    assert_eq!(kind_of(&error), ErrorKind::AuthenticationFailed, "{}", case.what);
                    assert_eq!(envelock::Error::from_io(&error).unwrap().segment(), Some(k as u64));
                    assert_eq!(out, sample.plaintext[..k * FULL], "{}, {size} bytes a read", case.what);
                    assert!(!shows(&sample, k, &buffer), "{}: plaintext in the caller's buffer", case.what);
                    buffer.fill(MARK);
                    let again = stubbornly(|| once(reader.read(&mut buffer))).unwrap_err();
                    assert_eq!(kind_of(&again), ErrorKind::AuthenticationFailed);
                    assert!(buffer.iter().all(|&byte| byte == MARK));

                    let plan = Plan::Pauses(3, random.clone());
                    let chunks = ChunkStream::new(&case.message, size, plan, &mut random);
                    let mut stream =
                        envelock::blocking::wait(envelope.decrypt_stream(chunks, &sample.context)).unwrap();
                    let (error, out) = collect(&mut stream);
                    let error = error.unwrap();
                    assert_eq!((error.kind(), error.segment()), (ErrorKind::AuthenticationFailed, Some(k as u64)));
                    assert_eq!(out, sample.plaintext[..k * FULL], "{}, chunks of {size}", case.what);
                    opens += 2;
                }
            }
        }
    }
    say(format!("async readers and streams with one bad segment: {opens}"));
    assert!(opens >= 1_000);
}
