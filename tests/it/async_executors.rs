//! Which executor the asynchronous shells need, and what they leave to others of it.

use crate::support::asynchronous::{once, stubbornly};
use crate::support::providers::raw;
use crate::support::sample::pattern;
use crate::support::{kind_of, say};
use bytes::Bytes;
use envelock::blocking::wait;
use envelock::{EncryptionContext, Envelope, Error, ErrorKind};
use futures_util::{StreamExt, stream};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

fn envelope(segment_len: u32) -> Envelope {
    Envelope::builder(raw("mine", 2)).segment_len(segment_len).build().unwrap()
}

fn none() -> EncryptionContext {
    EncryptionContext::new()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

/// The error says where to poll instead.
#[track_caller]
fn asks_for_a_runtime(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("tokio runtime"), "{error}");
}

#[track_caller]
fn io_asks_for_a_runtime<T: std::fmt::Debug>(result: io::Result<T>) {
    asks_for_a_runtime(Error::from_io(&result.unwrap_err()).unwrap());
}

#[test]
fn short_segments_need_no_runtime() {
    let envelope = envelope(256 << 10);
    let data = pattern(1_000_000);
    let mut writer = wait(envelope.encrypt_async_writer(Vec::new(), &none())).unwrap();
    wait(writer.write_all(&data)).unwrap();
    let message = wait(writer.finish()).unwrap();
    let mut out = Vec::new();
    let mut reader = wait(envelope.decrypt_async_reader(&*message, &none())).unwrap();
    wait(reader.read_to_end(&mut out)).unwrap();
    assert_eq!(out, data);
}

#[test]
fn long_segments_outside_tokio_are_an_error_that_says_so_and_go_on_inside() {
    let envelope = envelope(400 << 10);
    let data = pattern(1_000_000);
    // A writer takes what fits, and then needs a thread.
    let mut writer = wait(envelope.encrypt_async_writer(Vec::new(), &none())).unwrap();
    let mut rest = data.as_slice();
    loop {
        match stubbornly(|| once(writer.write(rest))) {
            Ok(count) => rest = &rest[count..],
            Err(error) => break io_asks_for_a_runtime::<()>(Err(error)),
        }
    }
    io_asks_for_a_runtime(wait(writer.write(rest)));
    io_asks_for_a_runtime(wait(writer.try_finish()));
    let message = runtime().block_on(async {
        writer.write_all(rest).await.unwrap();
        writer.finish().await.unwrap()
    });
    assert_eq!(wait(envelope.decrypt(&message, &none())).unwrap(), data);

    let mut reader = wait(envelope.decrypt_async_reader(&*message, &none())).unwrap();
    io_asks_for_a_runtime(wait(reader.read(&mut [0; 100])));
    let mut out = Vec::new();
    runtime().block_on(reader.read_to_end(&mut out)).unwrap();
    assert_eq!(out, data);

    let chunks = || stream::iter([Ok::<_, io::Error>(Bytes::from(data.clone()))]);
    let mut sealing = wait(envelope.encrypt_stream(chunks(), &none())).unwrap();
    assert!(wait(sealing.next()).unwrap().is_ok(), "the head needs no thread");
    asks_for_a_runtime(&wait(sealing.next()).unwrap().unwrap_err());
    assert!(wait(sealing.next()).is_none());
    let chunks = stream::iter([Ok::<_, io::Error>(Bytes::from(message.clone()))]);
    let mut opening = wait(envelope.decrypt_stream(chunks, &none())).unwrap();
    asks_for_a_runtime(&wait(opening.next()).unwrap().unwrap_err());
    assert!(wait(opening.next()).is_none());
}

#[test]
fn a_runtime_that_is_gone_is_an_error_and_the_message_stays_failed() {
    let envelope = envelope(400 << 10);
    let gone = runtime();
    let handle = gone.handle().clone();
    drop(gone);
    let _inside = handle.enter();
    let data = pattern(1_000_000);
    let mut writer = wait(envelope.encrypt_async_writer(Vec::new(), &none())).unwrap();
    let error = wait(writer.write_all(&data)).unwrap_err();
    assert_eq!(kind_of(&error), ErrorKind::Io);
    assert!(error.to_string().contains("shut down"), "{error}");
    assert!(wait(writer.write(b"more")).is_err(), "nothing is sealed twice, so nothing goes on");
    let failed = wait(writer.finish()).unwrap_err();
    assert_eq!(wait(envelope.decrypt(&failed.into_parts().1, &none())).unwrap_err().kind(), ErrorKind::Truncated);

    let message = wait(envelope.encrypt(&data, &none())).unwrap();
    let mut reader = wait(envelope.decrypt_async_reader(&*message, &none())).unwrap();
    for _ in 0..2 {
        assert_eq!(kind_of(&wait(reader.read(&mut [0; 9])).unwrap_err()), ErrorKind::Io);
    }
}

/// Counts how often another task of the same thread has its turn while `work` runs.
fn turns_beside<T>(work: impl Future<Output = T>) -> (T, usize) {
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    let done = runtime().block_on(async move {
        let beside = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        });
        let done = work.await;
        beside.abort();
        done
    });
    (done, turns.load(Ordering::SeqCst))
}

#[test]
fn inputs_and_outputs_that_are_always_ready_leave_others_their_turn() {
    let data = pattern(8 << 20);
    for segment_len in [4 << 10, 64 << 10, 256 << 10, 1 << 20] {
        let envelope = envelope(segment_len);
        let (message, writing) = turns_beside(async {
            let mut writer = envelope.encrypt_async_writer(Vec::new(), &none()).await.unwrap();
            writer.write_all(&data).await.unwrap();
            writer.finish().await.unwrap()
        });
        let mut out = vec![0; data.len()];
        let (_, reading) = turns_beside(async {
            let mut reader = envelope.decrypt_async_reader(&*message, &none()).await.unwrap();
            reader.read_exact(&mut out).await.unwrap()
        });
        assert_eq!(out, data);
        let chunks = || stream::iter([Ok::<_, io::Error>(Bytes::from(data.clone()))]);
        let (chunks_out, streaming) =
            turns_beside(async { envelope.encrypt_stream(chunks(), &none()).await.unwrap().count().await });
        assert_eq!(chunks_out, 1 + data.len().div_ceil(segment_len as usize - 32));
        say(format!("turns beside 8 MiB in segments of {segment_len}: {writing} {reading} {streaming}"));
        // One for each 256 KiB, or for each segment that is longer.
        let least = (data.len() / (256 << 10).max(segment_len as usize)) - 2;
        assert!(writing >= least && reading >= least && streaming >= least);
    }
}

#[test]
fn streams_that_cannot_be_moved_are_taken_as_they_are() {
    let envelope = envelope(4096);
    let data = pattern(20_000);
    // An `async` block inside makes it immovable.
    let pieces = stream::unfold(data.chunks(1_234), |mut rest| async move {
        tokio::task::yield_now().await;
        rest.next().map(|piece| (Ok::<_, io::Error>(piece), rest))
    });
    let message = runtime().block_on(async {
        let sealed = envelope.encrypt_stream(pieces, &none()).await.unwrap();
        let opened = envelope.decrypt_stream(sealed, &none()).await.unwrap();
        opened.map(Result::unwrap).collect::<Vec<_>>().await.concat()
    });
    assert_eq!(message, data);
}
