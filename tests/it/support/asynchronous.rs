//! What drives the asynchronous shells: futures polled by hand and dropped, streams of chunks, and the
//! ways into a message that they add.

use crate::support::flaky::{Fault, Flaky, Plan};
use crate::support::kind_of;
use crate::support::random::Random;
use crate::support::sample::Sample;
use bytes::Bytes;
use envelock::blocking::wait;
use envelock::{Envelope, Error, ErrorKind};
use futures_util::Stream;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, Cursor, SeekFrom};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt};

/// Polls a future once, and drops it.
pub(crate) fn once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Makes the future anew for each poll, until one is ready: cancelled at every point where it waits.
/// Fails if that takes unreasonably long.
pub(crate) fn stubbornly<T>(mut call: impl FnMut() -> Poll<T>) -> T {
    let started = Instant::now();
    for round in 0_u64.. {
        if let Poll::Ready(done) = call() {
            return done;
        }
        if round > 1_000 {
            assert!(started.elapsed() < Duration::from_secs(60), "it never gets ready");
            std::thread::yield_now();
        }
    }
    unreachable!("there is no end to counting")
}

/// A stream of the given chunks, with pauses and an error as planned.
#[derive(Debug)]
pub(crate) struct ChunkStream {
    chunks: VecDeque<Bytes>,
    plan: Flaky<()>,
    ended: bool,
}

impl ChunkStream {
    /// `data` in chunks of 0 to `most` bytes; whole if `most` is 0.
    pub(crate) fn new(data: &[u8], most: usize, plan: Plan, random: &mut Random) -> Self {
        let mut chunks = VecDeque::new();
        let mut rest = data;
        while !rest.is_empty() {
            let size = if most == 0 { rest.len() } else { random.below(most + 1).min(rest.len()) };
            let (chunk, later) = rest.split_at(size);
            chunks.push_back(Bytes::copy_from_slice(chunk));
            rest = later;
        }
        Self { chunks, plan: Flaky::new((), plan, 0), ended: false }
    }
}

impl Stream for ChunkStream {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        assert!(!this.ended, "polled after its end");
        match this.plan.call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Err(error) => {
                this.ended = true;
                Poll::Ready(Some(Err(error)))
            }
            Ok(()) => {
                let next = this.chunks.pop_front();
                this.ended = next.is_none();
                Poll::Ready(next.map(Ok))
            }
        }
    }
}

/// All that a stream gives, and the error that it ends with; then it must give nothing more.
pub(crate) fn collect<T: AsRef<[u8]>, S: Stream<Item = Result<T, Error>> + Unpin>(
    stream: &mut S,
) -> (Option<Error>, Vec<u8>) {
    use futures_util::StreamExt;
    let mut out = Vec::new();
    let error = loop {
        match stubbornly(|| once(stream.next())) {
            Some(Ok(chunk)) => out.extend_from_slice(chunk.as_ref()),
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    assert!(stubbornly(|| once(stream.next())).is_none(), "the stream goes on after its end");
    (error, out)
}

/// The asynchronous ways into a message. The number is that of bytes in a read, or in a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AsyncWay {
    Read(usize),
    Seek(usize),
    Stream(usize),
    /// Decrypted as a stream, encrypted again as a stream.
    Restream(usize),
}

impl AsyncWay {
    pub(crate) const ALL: [Self; 5] =
        [Self::Read(7), Self::Read(1_024), Self::Seek(33), Self::Stream(50), Self::Restream(1_024)];

    pub(crate) fn open(self, sample: &Sample, message: &[u8]) -> (Option<ErrorKind>, Vec<u8>) {
        let (envelope, context) = (sample.reader.inner(), &sample.context);
        let mut out = Vec::new();
        // One call in three pauses first.
        let mut random = Random::new(message.len() as u64);
        let pauses = Plan::Pauses(3, random.clone());
        let result = match self {
            Self::Read(size) => {
                let input = Flaky::new(message, pauses, 50);
                wait(envelope.decrypt_async_reader(input, context))
                    .map_err(|e| e.kind())
                    .and_then(|mut reader| read_to_end(&mut reader, size, &mut out))
            }
            Self::Seek(size) => {
                let input = Flaky::new(Cursor::new(message), pauses, 0);
                wait(envelope.decrypt_async_reader(input, context)).map_err(|e| e.kind()).and_then(|mut reader| {
                    wait(reader.seek(SeekFrom::End(0))).map_err(|e| kind_of(&e))?;
                    wait(reader.rewind()).map_err(|e| kind_of(&e))?;
                    read_to_end(&mut reader, size, &mut out)
                })
            }
            Self::Stream(size) => {
                let input = ChunkStream::new(message, size, pauses, &mut random);
                match wait(envelope.decrypt_stream(input, context)) {
                    Ok(mut stream) => {
                        let error;
                        (error, out) = collect(&mut stream);
                        error.map_or(Ok(()), |error| Err(error.kind()))
                    }
                    Err(error) => Err(error.kind()),
                }
            }
            Self::Restream(size) => {
                let input = ChunkStream::new(message, size, pauses, &mut random);
                match wait(envelope.decrypt_stream(input, context)) {
                    Ok(stream) => {
                        let (error, again) = restream(envelope, stream);
                        out = again;
                        error.map_or(Ok(()), Err)
                    }
                    Err(error) => Err(error.kind()),
                }
            }
        };
        (result.err(), out)
    }
}

/// Encrypts a stream of plaintext again, and gives the error that came through with what a reader
/// makes of the new message.
fn restream<S>(envelope: &Envelope, plaintext: S) -> (Option<ErrorKind>, Vec<u8>)
where
    S: Stream<Item = Result<Bytes, Error>>,
{
    let context = envelock::EncryptionContext::new();
    let encryptor = wait(envelope.encryptor(&context)).unwrap();
    let head = envelock::Header::parse(encryptor.head()).unwrap();
    let mut stream = encryptor.into_segment_stream(plaintext);
    let (error, segments) = collect(&mut stream);
    let decryptor = wait(envelope.decryptor(&head, &context)).unwrap();
    match error {
        None => (None, decryptor.open(&segments).unwrap()),
        Some(error) => {
            // What came out says that it is not whole. Its plaintext is what came in, in whole segments.
            assert_eq!(decryptor.open(&segments).unwrap_err().kind(), ErrorKind::Truncated);
            (Some(error.kind()), Vec::new())
        }
    }
}

fn read_to_end(reader: &mut (impl AsyncRead + Unpin), size: usize, out: &mut Vec<u8>) -> Result<(), ErrorKind> {
    let mut buffer = vec![0; size];
    loop {
        match stubbornly(|| once(reader.read(&mut buffer))) {
            Ok(0) => return Ok(()),
            Ok(count) => out.extend_from_slice(&buffer[..count]),
            Err(error) => return Err(kind_of(&error)),
        }
    }
}

/// Whether an error of an input or output passes, so that the call is to be repeated.
pub(crate) fn passes(error: &io::Error) -> bool {
    Error::from_io(error).is_none()
}

/// Every fault that a call can have.
pub(crate) const FAULTS: [Fault; 3] = [Fault::Interrupted, Fault::WouldBlock, Fault::Broken];
