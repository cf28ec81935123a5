//! What a segment costs beside its cipher: no allocation after the first, and one call of the inner
//! writer.

use crate::support::alloc::{Allocated, watch, watch_all};
use crate::support::child::{Running, tell, words};
use crate::support::providers::raw;
use crate::support::say;
use envelock::{EncryptionContext, Encryptor, Envelope, FileOptions, Header, Threads, blocking};
use std::io::{self, Cursor, Read, Write};

pub(crate) const SEGMENT: usize = 4096;
const FULL: usize = SEGMENT - 32;
/// Segments that are counted, after those that warm up: enough for several fills of IVs.
const COUNTED: usize = 200;

pub(crate) fn envelope(segment_len: usize) -> blocking::Envelope {
    let builder = Envelope::builder(raw("mine", 2)).segment_len(segment_len.try_into().unwrap());
    blocking::Envelope::new(builder.build().unwrap())
}

pub(crate) fn encryptor(segment_len: usize) -> Encryptor {
    envelope(segment_len).encryptor(&EncryptionContext::new()).unwrap()
}

/// Takes everything, and counts calls by their lengths.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    pub(crate) whole: usize,
    pub(crate) other: Vec<usize>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() == SEGMENT {
            self.whole += 1
        } else {
            self.other.push(bytes.len())
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lengths of pieces that callers write and read: far below a segment's, about it, far above it.
pub(crate) const PIECES: [usize; 6] = [100, FULL - 1, FULL, SEGMENT, 3 * FULL, 10 * FULL + 7];

#[test]
fn a_writer_allocates_nothing_per_segment_and_hands_on_whole_segments() {
    for piece in PIECES {
        let encryptor = encryptor(SEGMENT);
        let head_len = encryptor.head().len();
        let mut writer = encryptor.into_writer(Sink::default());
        let piece = vec![7; piece];
        let write = |writer: &mut envelock::EncryptWriter<Sink>, segments: usize| {
            for _ in 0..(segments * FULL).div_ceil(piece.len()) {
                writer.write_all(&piece).unwrap();
            }
        };
        write(&mut writer, 2);
        let ((), allocated) = watch(|| write(&mut writer, COUNTED));
        assert_eq!(allocated, Allocated::default(), "pieces of {}", piece.len());
        let sink = writer.finish().unwrap();
        assert!(sink.whole >= COUNTED, "{sink:?}");
        assert!(sink.other[0] == head_len && sink.other.len() <= 2, "the head, and the final segment: {sink:?}");
    }
    say(format!("writer: {COUNTED} segments in pieces of {PIECES:?}: no allocation"));
}

#[test]
fn a_reader_allocates_nothing_per_segment() {
    let message = envelope(SEGMENT).encrypt(&vec![7; (COUNTED + 20) * FULL], &EncryptionContext::new()).unwrap();
    let head = Header::parse(&message).unwrap();
    for piece in PIECES {
        let decryptor = envelope(SEGMENT).decryptor(&head, &EncryptionContext::new()).unwrap();
        let mut reader = decryptor.into_reader(&message[head.len()..]);
        let mut piece = vec![0; piece];
        let mut read = |reader: &mut envelock::DecryptReader<&[u8]>, segments: usize| {
            for _ in 0..(segments * FULL).div_ceil(piece.len()) {
                reader.read_exact(&mut piece).unwrap();
            }
        };
        read(&mut reader, 2);
        let ((), allocated) = watch(|| read(&mut reader, COUNTED - 20));
        assert_eq!(allocated, Allocated::default(), "pieces of {}", piece.len());
    }
    say(format!("reader: {} segments in pieces of {PIECES:?}: no allocation", COUNTED - 20));
}

/// In a process of its own, whose threads all work for it.
#[test]
fn several_threads_allocate_nothing_per_segment() {
    const TEST: &str = "copies::several_threads_allocate_nothing_per_segment";
    let (envelope, context) = (envelope(SEGMENT), EncryptionContext::new());
    if let Some(words) = words() {
        let [threads, len] = [0, 1].map(|i| words[i].parse::<usize>().unwrap());
        let options = || FileOptions::default().threads(Threads::exactly(threads).unwrap());
        let source = || io::repeat(7).take(len as u64);
        let (_, sealing) = watch_all(|| envelope.encrypt_pipe(source(), io::sink(), &context, options()).unwrap());
        let message = Cursor::new(envelope.encrypt(&vec![7; len], &context).unwrap());
        let (_, opening) = watch_all(|| envelope.decrypt_pipe(message, io::sink(), &context, options()).unwrap());
        return tell(format!("{} {} {} {}", sealing.count, sealing.total, opening.count, opening.total));
    }
    for threads in [1, 2, 4] {
        let run = |segments: usize| {
            let words = [threads, segments * FULL].map(|it| it.to_string());
            let told = Running::start(TEST, &[&words[0], &words[1]]).succeed().remove(0);
            let counts: Vec<usize> = told.split(' ').map(|it| it.parse().unwrap()).collect();
            counts
        };
        let (few, many) = (run(4_000), run(20_000));
        say(format!(
            "threads: {threads}: allocations and bytes to seal and open 4000 segments {few:?}, 20000 {many:?}"
        ));
        for (few, many) in few.iter().zip(&many).step_by(2) {
            assert!(*many < few + 160, "one in a hundred segments allocates");
        }
    }
}

#[cfg(feature = "tokio")]
mod asynchronous {
    use super::*;
    use crate::support::asynchronous::{once, stubbornly};
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

    impl AsyncWrite for Sink {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Write::write(self.get_mut(), bytes))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write(writer: &mut envelock::AsyncEncryptWriter<Sink>, piece: &[u8], segments: usize, full: usize) {
        for _ in 0..(segments * full).div_ceil(piece.len()) {
            let mut rest = piece;
            while !rest.is_empty() {
                let count = stubbornly(|| once(AsyncWriteExt::write(writer, rest))).unwrap();
                rest = &rest[count..];
            }
        }
    }

    fn read<R: tokio::io::AsyncRead + Unpin>(
        reader: &mut envelock::AsyncDecryptReader<R>,
        piece: &mut [u8],
        segments: usize,
        full: usize,
    ) {
        let mut wanted = segments * full;
        while wanted > 0 {
            let size = piece.len().min(wanted);
            let count = stubbornly(|| once(AsyncReadExt::read(reader, &mut piece[..size]))).unwrap();
            assert!(count > 0);
            wanted -= count;
        }
    }

    #[test]
    fn an_async_writer_allocates_nothing_per_segment_and_hands_on_whole_segments() {
        for piece in PIECES {
            let encryptor = encryptor(SEGMENT);
            let head_len = encryptor.head().len();
            let mut writer = encryptor.into_async_writer(Sink::default());
            let piece = vec![7; piece];
            write(&mut writer, &piece, 2, FULL);
            let ((), allocated) = watch(|| write(&mut writer, &piece, COUNTED, FULL));
            assert_eq!(allocated, Allocated::default(), "pieces of {}", piece.len());
            let sink = blocking::wait(writer.finish()).unwrap();
            assert!(sink.whole >= COUNTED, "{sink:?}");
            assert!(sink.other[0] == head_len && sink.other.len() <= 2, "the head, and the final segment: {sink:?}");
        }
        say(format!("async writer: {COUNTED} segments in pieces of {PIECES:?}: no allocation"));
    }

    #[test]
    fn an_async_reader_allocates_nothing_per_segment() {
        let message = envelope(SEGMENT).encrypt(&vec![7; (COUNTED + 20) * FULL], &EncryptionContext::new()).unwrap();
        let head = Header::parse(&message).unwrap();
        for piece in PIECES {
            let decryptor = envelope(SEGMENT).decryptor(&head, &EncryptionContext::new()).unwrap();
            let mut reader = decryptor.into_async_reader(&message[head.len()..]);
            let mut piece = vec![0; piece];
            read(&mut reader, &mut piece, 2, FULL);
            let ((), allocated) = watch(|| read(&mut reader, &mut piece, COUNTED, FULL));
            assert_eq!(allocated, Allocated::default(), "pieces of {}", piece.len());
        }
        say(format!("async reader: {COUNTED} segments in pieces of {PIECES:?}: no allocation"));
    }

    /// The way to another thread takes a task of tokio's, and no buffer.
    #[test]
    fn a_long_segment_costs_a_small_allocation_for_its_way_to_another_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _inside = runtime.enter();
        let segment_len = 300 << 10;
        let full = segment_len - 32;
        let segments = 10;
        let piece = vec![7; 100_000];
        let mut writer = encryptor(segment_len).into_async_writer(Sink::default());
        write(&mut writer, &piece, 2, full);
        let ((), writing) = watch(|| write(&mut writer, &piece, segments, full));
        let message = envelope(segment_len).encrypt(&vec![7; 15 * full], &EncryptionContext::new()).unwrap();
        let head = Header::parse(&message).unwrap();
        let decryptor = envelope(segment_len).decryptor(&head, &EncryptionContext::new()).unwrap();
        let mut reader = decryptor.into_async_reader(&message[head.len()..]);
        let mut piece = piece;
        read(&mut reader, &mut piece, 2, full);
        let ((), reading) = watch(|| read(&mut reader, &mut piece, segments, full));
        say(format!("long segments: {segments} written {writing:?}, {segments} read {reading:?}"));
        for allocated in [writing, reading] {
            assert!(allocated.largest < 8 << 10, "{allocated:?}");
        }
    }
}
