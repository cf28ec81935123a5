//! An interrupted reading goes on where it stopped, and a wrong place is found out.

use crate::support::providers::raw;
use crate::support::random::Random;
use crate::support::sample::pattern;
use crate::support::{kind_of, say};
use envelock::{Decryptor, EncryptionContext, Envelope, ErrorKind, Header, Layout, ResumePoint, blocking};
use std::io::{Cursor, Read, Seek, SeekFrom};

const FULL: usize = 32;

fn envelope(segment_len: u32) -> blocking::Envelope {
    blocking::Envelope::new(Envelope::builder(raw("mine", 2)).segment_len(segment_len).build().unwrap())
}

struct Object {
    data: Vec<u8>,
    message: Vec<u8>,
    head: Header,
}

impl Object {
    fn new(len: usize) -> Self {
        let data = pattern(len);
        let message = envelope(64).encrypt(&data, &EncryptionContext::new()).unwrap();
        let head = Header::parse(&message).unwrap();
        Self { data, message, head }
    }

    fn decryptor(&self) -> Decryptor {
        envelope(64).decryptor(&self.head, &EncryptionContext::new()).unwrap()
    }

    fn body(&self) -> &[u8] {
        &self.message[self.head.len()..]
    }

    /// What a request for the rest of the object answers with.
    fn rest(&self, point: ResumePoint) -> &[u8] {
        &self.body()[usize::try_from(point.sealed_offset()).unwrap()..]
    }

    /// What is read from `point` on, out of `rest`.
    fn read_from(&self, point: ResumePoint, rest: &[u8]) -> Result<Vec<u8>, ErrorKind> {
        let mut reader = self.decryptor().into_reader_from(point, rest).map_err(|error| error.kind())?;
        let mut out = Vec::new();
        reader.read_to_end(&mut out).map_err(|error| kind_of(&error))?;
        Ok(out)
    }
}

#[test]
fn a_reading_broken_at_any_byte_goes_on_to_the_same_plaintext() {
    let mut resumed = 0;
    for len in [0, 1, 31, 32, 33, 64, 65, 100] {
        let object = Object::new(len);
        let layout: Layout = object.head.layout();
        for cut in 0..=object.body().len() {
            for size in [1, 7, FULL, 100] {
                let mut reader = object.decryptor().into_reader(&object.body()[..cut]);
                let (mut out, mut buffer) = (Vec::new(), vec![0; size]);
                let error = loop {
                    match reader.read(&mut buffer) {
                        Ok(0) => break None,
                        Ok(count) => out.extend_from_slice(&buffer[..count]),
                        Err(error) => break Some(kind_of(&error)),
                    }
                };
                assert_eq!(error, (cut < object.body().len()).then_some(ErrorKind::Truncated));
                let point = reader.resume_point();
                assert_eq!(point.plaintext_offset(), out.len() as u64);
                assert_eq!(point.sealed_offset(), point.segment() * 64);
                // The point that the reader names, and the one that the length of the output names.
                for point in [point, layout.resume_point(out.len() as u64)] {
                    let later = object.read_from(point, object.rest(point)).unwrap();
                    assert_eq!([out.as_slice(), &later].concat(), object.data, "{len} bytes, cut at {cut}");
                    resumed += 1;
                }
            }
        }
    }
    say(format!("readings that went on: {resumed}"));
    assert!(resumed > 3_000);
}

#[test]
fn a_point_within_a_segment_gives_no_byte_twice() {
    let object = Object::new(100);
    for taken in 0..=100 {
        let mut reader = object.decryptor().into_reader(object.body());
        reader.read_exact(&mut vec![0; taken]).unwrap();
        let point = reader.resume_point();
        assert_eq!(object.read_from(point, object.rest(point)).unwrap(), object.data[taken..], "{taken} taken");
        // After a seek too, past the end as well.
        let mut reader = object.decryptor().into_reader(Cursor::new(object.body()));
        for target in [taken, 100 + taken] {
            reader.seek(SeekFrom::Start(target as u64)).unwrap();
            let point = reader.resume_point();
            let rest = object.data.get(target..).unwrap_or_default();
            assert_eq!(object.read_from(point, object.rest(point)).unwrap(), rest, "sought {target}");
        }
    }
}

#[test]
fn a_reader_that_went_on_seeks_over_the_whole_message() {
    let object = Object::new(150);
    let mut random = Random::new(61);
    for taken in [0, 5, 32, 64, 70, 150] {
        let point = object.head.layout().resume_point(taken);
        let mut file = Cursor::new(&object.message);
        file.set_position(object.head.len() as u64 + point.sealed_offset());
        let mut reader = object.decryptor().into_reader_from(point, file).unwrap();
        assert_eq!(reader.stream_position().unwrap(), taken);
        for _ in 0..50 {
            let target = random.below(160);
            reader.seek(SeekFrom::Start(target as u64)).unwrap();
            let mut out = Vec::new();
            reader.read_to_end(&mut out).unwrap();
            assert_eq!(out, object.data.get(target..).unwrap_or_default());
        }
        // An input that holds the rest alone has no place for what lies before.
        let mut reader = object.decryptor().into_reader_from(point, Cursor::new(object.rest(point))).unwrap();
        let sought = reader.rewind();
        assert_eq!(sought.is_err(), point.sealed_offset() > 0, "from {taken}");
    }
}

#[test]
fn at_a_wrong_place_nothing_is_authentic() {
    let object = Object::new(10 * FULL + 5);
    let other = Object::new(10 * FULL + 5);
    let layout = object.head.layout();
    let mut rejected = 0;
    for right in 0..11_u64 {
        let point = layout.resume_point(right * FULL as u64 + 1);
        for wrong in 0..11_usize {
            if wrong as u64 != right {
                let kind = object.read_from(point, &object.body()[wrong * 64..]).unwrap_err();
                assert_eq!(kind, ErrorKind::AuthenticationFailed, "segment {wrong} at the place of {right}");
                rejected += 1;
            }
        }
        let kind = object.read_from(point, other.rest(point)).unwrap_err();
        assert_eq!(kind, ErrorKind::AuthenticationFailed, "segment {right} of another message");
        assert_eq!(object.read_from(point, &object.rest(point)[1..]).unwrap_err(), ErrorKind::AuthenticationFailed);
        assert_eq!(object.read_from(point, &[]).unwrap_err(), ErrorKind::Truncated);
        rejected += 3;
    }
    // Past the end of the message, and of a message of other segments.
    let past = layout.resume_point(10 * FULL as u64 + 6);
    assert_eq!(object.read_from(past, object.rest(past)).unwrap_err(), ErrorKind::InvalidInput);
    let elsewhere = envelope(128).encryptor(&EncryptionContext::new()).unwrap().layout().resume_point(200);
    assert_eq!(object.read_from(elsewhere, object.body()).unwrap_err(), ErrorKind::InvalidInput);
    say(format!("wrong places found out: {rejected}"));
    assert!(rejected > 100);
}

#[cfg(feature = "tokio")]
#[test]
fn asynchronous_readings_broken_at_any_byte_go_on_to_the_same_plaintext() {
    use crate::support::asynchronous::{ChunkStream, collect, once, stubbornly};
    use crate::support::flaky::{Fault, Flaky, Plan};
    use tokio::io::AsyncReadExt;
    let mut random = Random::new(62);
    let mut resumed = 0;
    for len in [0, 1, 32, 33, 64, 100] {
        let object = Object::new(len);
        for at in 0..20 {
            let input = Flaky::new(object.body(), Plan::From(at, Fault::Broken), 30);
            let mut reader = object.decryptor().into_async_reader(input);
            let (mut out, mut buffer) = (Vec::new(), [0; 20]);
            while let Ok(count @ 1..) = stubbornly(|| once(reader.read(&mut buffer))) {
                out.extend_from_slice(&buffer[..count]);
            }
            let point = reader.resume_point();
            let mut reader = object.decryptor().into_async_reader_from(point, object.rest(point)).unwrap();
            let mut later = Vec::new();
            blocking::wait(reader.read_to_end(&mut later)).unwrap();
            assert_eq!([out.as_slice(), &later].concat(), object.data);
            let rest = ChunkStream::new(object.rest(point), 10, Plan::Never, &mut random);
            let (error, later) = collect(&mut object.decryptor().into_stream_from(point, rest).unwrap());
            assert!(error.is_none());
            assert_eq!([out, later].concat(), object.data);
            resumed += 2;
        }
    }
    say(format!("asynchronous readings that went on: {resumed}"));
}
