//! What cannot go on is not taken in: an output that is full, or that nobody asks, stops the input within a
//! segment.

use crate::support::asynchronous::once;
use crate::support::providers::raw;
use crate::support::sample::pattern;
use crate::support::say;
use bytes::Bytes;
use envelock::blocking::wait;
use envelock::{EncryptionContext, Envelope, Header};
use futures_util::{Stream, StreamExt, stream};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};

fn envelope(segment_len: usize) -> Envelope {
    Envelope::builder(raw("mine", 2)).segment_len(segment_len.try_into().unwrap()).build().unwrap()
}

fn none() -> EncryptionContext {
    EncryptionContext::new()
}

/// Takes so many bytes, and then is never ready again.
struct Room(usize);

impl AsyncWrite for Room {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = bytes.len().min(self.0);
        self.0 -= count;
        if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[test]
fn a_writer_to_a_full_output_takes_one_segment_and_no_more() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _inside = runtime.enter();
    let mut cases = 0;
    // The last is sealed by another thread.
    for segment_len in [64, 4_096, 65_536, 300 << 10] {
        let (envelope, full) = (envelope(segment_len), segment_len - 32);
        for piece in [1, full - 1, full, 2 * full + 5] {
            if piece == 1 && segment_len > 4_096 {
                continue;
            }
            let piece = pattern(piece);
            for (segments, more) in [(0, 0), (0, 1), (1, 0), (3, segment_len - 1)] {
                let encryptor = wait(envelope.encryptor(&none())).unwrap();
                let room = encryptor.head().len() + segments * segment_len + more;
                let mut writer = encryptor.into_async_writer(Room(room));
                let (mut taken, mut refused) = (0, 0);
                // It may have to wait for a thread, or leave others their turn.
                while refused < 30 {
                    match once(writer.write(&piece)) {
                        Poll::Ready(count) => (taken, refused) = (taken + count.unwrap(), 0),
                        Poll::Pending => {
                            refused += 1;
                            std::thread::sleep(Duration::from_micros(if segment_len > 256 << 10 { 2_000 } else { 50 }));
                        }
                    }
                }
                assert!(
                    taken > segments * full && taken <= (segments + 1) * full,
                    "{taken} bytes taken, in segments of {segment_len} with room for {segments} and {more} bytes"
                );
                cases += 1;
            }
        }
        // Not even the head has room: nothing is taken.
        let mut writer = wait(envelope.encryptor(&none())).unwrap().into_async_writer(Room(10));
        assert!((0..20).all(|_| once(writer.write(&[7])).is_pending()));
    }
    say(format!("backpressure: {cases} writers to outputs that were full"));
}

/// `data` in chunks, and how many bytes of it were asked for.
fn counted(data: &[u8], chunk: usize) -> (impl Stream<Item = io::Result<Bytes>> + use<>, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let chunks: Vec<_> = data.chunks(chunk).map(Bytes::copy_from_slice).collect();
    let counted = stream::iter(chunks).map({
        let asked = Arc::clone(&asked);
        move |chunk| {
            asked.fetch_add(chunk.len(), Ordering::SeqCst);
            Ok(chunk)
        }
    });
    (counted, asked)
}

#[test]
fn streams_ask_their_input_for_no_more_than_what_was_asked_of_them() {
    let mut cases = 0;
    for segment_len in [64, 4_096] {
        let (envelope, full) = (envelope(segment_len), segment_len - 32);
        let data = pattern(20 * full + 7);
        for chunk in [1, 10, full, segment_len, 3 * segment_len] {
            let (input, asked) = counted(&data, chunk);
            let mut sealed = wait(envelope.encrypt_stream(input, &none())).unwrap();
            let mut message = wait(sealed.next()).unwrap().unwrap().to_vec();
            assert_eq!(asked.load(Ordering::SeqCst), 0, "the head needs no input");
            let mut given = 0;
            while let Some(segment) = wait(sealed.next()) {
                message.extend(segment.unwrap());
                given += 1;
                // One byte more tells that a segment is not the last.
                let asked = asked.load(Ordering::SeqCst);
                assert!(asked <= given * full + chunk, "{asked} bytes for {given} segments, in chunks of {chunk}");
            }
            assert_eq!(given, 21);

            let head = Header::parse(&message).unwrap().len();
            let (input, asked) = counted(&message, chunk);
            let mut opened = wait(envelope.decrypt_stream(input, &none())).unwrap();
            assert!(asked.load(Ordering::SeqCst) <= head + chunk, "the head, and no more than its last chunk");
            let (mut given, mut plaintext) = (0, Vec::new());
            while let Some(piece) = wait(opened.next()) {
                plaintext.extend(piece.unwrap());
                given += 1;
                let asked = asked.load(Ordering::SeqCst);
                assert!(asked <= head + given * segment_len + chunk, "{asked} bytes for {given}, in chunks of {chunk}");
            }
            assert!(plaintext == data);
            cases += 2;
        }
    }
    say(format!("backpressure: {cases} streams"));
}
