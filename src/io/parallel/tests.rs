//! What the threads make of difficult sources, sinks and segments, on segments without cryptography.

use crate::crypto::random::{Process, SegmentIvs};
use crate::durable::{AtomicFile, OsFileSystem, Overwrite};
use crate::error::{Error, ErrorKind, Result};
use crate::io::parallel::testing::{Plain, Trouble, bounded, quiet_on_purpose};
use crate::io::parallel::{Threads, open, open_to_file, seal, seal_to_file};
use crate::segments::Segments;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 7 + i / 251 + 1) % 256).unwrap()).collect()
}

fn sealed(segments: &Plain, plaintext: &[u8], threads: usize) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let plan = Threads::exactly(threads)?.plan(segments.layout(), None);
    let written = seal(segments, SegmentIvs::new(Process::current()), plaintext, &mut out, plan)?;
    assert_eq!(written, out.len() as u64);
    assert_eq!(written, segments.layout().sealed_len(plaintext.len() as u64)?);
    Ok(out)
}

/// The result, and what reached the sink.
fn opened(segments: &Plain, sealed: impl Read + Send, threads: usize) -> (Result<u64>, Vec<u8>) {
    let mut out = Vec::new();
    let plan = Threads::exactly(threads).unwrap().plan(segments.layout(), None);
    (open(segments, sealed, &mut out, plan), out)
}

/// Lengths around the edges of segments and of batches.
fn lengths(segment_len: u32) -> Vec<usize> {
    let layout = Plain::new(segment_len).layout();
    let (full, per_batch) = (layout.plaintext_per_segment(), super::pool::Shape::new(layout).segments);
    let edges = [0, 1, 2, per_batch - 1, per_batch, per_batch + 1, 2 * per_batch, 5 * per_batch];
    edges.iter().flat_map(|n| [(n * full).saturating_sub(1), n * full, n * full + 1]).collect()
}

#[test]
fn every_length_around_segments_and_batches_comes_through_on_any_number_of_threads() {
    // Packed and spread.
    for segment_len in [1_024, 20_000] {
        for len in lengths(segment_len) {
            let plaintext = pattern(len);
            for threads in [1, 2, 3, 8] {
                let segments = Plain::new(segment_len);
                let message = sealed(&segments, &plaintext, threads).unwrap();
                let count = message.len().div_ceil(segment_len as usize);
                assert_eq!(segments.sealed.lock().unwrap().len(), count, "each segment once");
                assert_eq!(segments.ivs.lock().unwrap().len(), count, "an IV for each");
                let (result, out) = opened(&Plain::new(segment_len), message.as_slice(), threads);
                assert_eq!(result.unwrap(), len as u64);
                assert!(out == plaintext, "{len} bytes on {threads} threads");
            }
        }
    }
}

#[test]
fn a_panic_or_failure_in_any_thread_ends_it_all_with_one_error_and_no_file() {
    let mut cases = 0;
    let segment_len = 65_536;
    let plaintext = pattern(5 << 20);
    let message = sealed(&Plain::new(segment_len), &plaintext, 1).unwrap();
    quiet_on_purpose();
    for threads in [1, 2, 3, 4, 8, 16] {
        for at in [0, 1, 7, 40, 79, 80] {
            for (trouble, kind) in
                [(Trouble::Panic, ErrorKind::Internal), (Trouble::Fail, ErrorKind::AuthenticationFailed)]
            {
                let (plaintext, message) = (plaintext.clone(), message.clone());
                let (kinds, out, left) = bounded(move || {
                    let segments = Plain::with_trouble(segment_len, at, trouble);
                    let plan = Threads::exactly(threads).unwrap().plan(segments.layout(), None);
                    let ivs = || SegmentIvs::new(Process::current());
                    let folder = tempfile::tempdir().unwrap();
                    let target = folder.path().join("target");
                    let mut kinds = vec![sealed(&segments, &plaintext, threads).unwrap_err()];
                    let segments = Plain::with_trouble(segment_len, at, trouble);
                    let file = AtomicFile::create(Arc::new(OsFileSystem), &target, Overwrite::Never).unwrap();
                    kinds.push(seal_to_file(&segments, ivs(), &*plaintext, &file, 9, plan).unwrap_err());
                    drop(file);
                    let file = AtomicFile::create(Arc::new(OsFileSystem), &target, Overwrite::Never).unwrap();
                    kinds.push(open_to_file(&segments, &*message, &file, plan).unwrap_err());
                    drop(file);
                    let (result, out) = opened(&segments, &*message, threads);
                    kinds.push(result.unwrap_err());
                    (kinds, out, std::fs::read_dir(folder.path()).unwrap().count())
                });
                assert!(kinds.iter().all(|error| error.kind() == kind), "{trouble:?}: {kinds:?}");
                assert_eq!(left, 0, "a file was left");
                let full = segment_len as usize - 32;
                let before = usize::try_from(at).unwrap() * full;
                match trouble {
                    Trouble::Fail => assert!(out == plaintext_until(before), "segment {at}, {threads} threads"),
                    Trouble::Panic => assert!(plaintext_until(before).starts_with(&out)),
                }
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 72);
}

fn plaintext_until(len: usize) -> Vec<u8> {
    pattern(5 << 20)[..len.min(5 << 20)].to_vec()
}

/// Fails at its call of this number: with an error, by a panic, or by taking nothing.
struct Faulty<T> {
    inner: T,
    calls: usize,
    at: usize,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Error,
    Panic,
    Interrupted,
    WouldBlock,
}

impl<T> Faulty<T> {
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        match self.how {
            How::Error if self.calls > self.at => Err(io::Error::other("broken on purpose")),
            How::Panic if self.calls > self.at => panic!("on purpose"),
            How::Interrupted if self.calls == self.at + 1 => Err(io::ErrorKind::Interrupted.into()),
            How::WouldBlock if self.calls > self.at => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    }
}

impl<R: Read> Read for Faulty<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.call()?;
        self.inner.read(out)
    }
}

impl<W: Write> Write for Faulty<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.call()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[test]
fn a_source_or_sink_that_fails_at_any_call_ends_it_all_with_its_error() {
    quiet_on_purpose();
    let mut cases = 0;
    for (segment_len, len) in [(4_096, 1 << 20), (65_536, 2 << 20)] {
        let plaintext = pattern(len);
        let message = sealed(&Plain::new(segment_len), &plaintext, 1).unwrap();
        for threads in [1, 2, 5] {
            for at in [0, 1, 2, 5] {
                for how in [How::Error, How::Panic, How::Interrupted, How::WouldBlock] {
                    let (plaintext, message) = (plaintext.clone(), message.clone());
                    let results: Vec<Result<Vec<u8>, Error>> = bounded(move || {
                        let segments = Plain::new(segment_len);
                        let plan = Threads::exactly(threads).unwrap().plan(segments.layout(), None);
                        let ivs = || SegmentIvs::new(Process::current());
                        let mut results = Vec::new();
                        let mut out = Vec::new();
                        let source = Faulty { inner: &*plaintext, calls: 0, at, how };
                        results.push(seal(&segments, ivs(), source, &mut out, plan).map(|_| out));
                        let segments = Plain::new(segment_len);
                        let mut sink = Faulty { inner: Vec::new(), calls: 0, at, how };
                        results.push(seal(&segments, ivs(), &*plaintext, &mut sink, plan).map(|_| sink.inner));
                        let mut out = Vec::new();
                        let source = Faulty { inner: &*message, calls: 0, at, how };
                        let opened = open(&segments, source, &mut out, plan);
                        assert!(plaintext.starts_with(&out), "nothing else than a beginning");
                        results.push(opened.map(|_| out));
                        let mut sink = Faulty { inner: Vec::new(), calls: 0, at, how };
                        results.push(open(&segments, &*message, &mut sink, plan).map(|_| sink.inner));
                        results
                    });
                    for (i, result) in results.into_iter().enumerate() {
                        let expected = match how {
                            How::Interrupted => None,
                            How::Panic => Some(ErrorKind::Internal),
                            How::Error | How::WouldBlock => Some(ErrorKind::Io),
                        };
                        match result {
                            Ok(out) if i < 2 => assert_eq!(out.len(), message_len(segment_len, len)),
                            Ok(out) => assert!(out == pattern(len)),
                            Err(error) => assert_eq!(Some(error.kind()), expected, "{error}"),
                        }
                        cases += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cases, 2 * 3 * 4 * 4 * 4);
}

fn message_len(segment_len: u32, len: usize) -> usize {
    usize::try_from(Plain::new(segment_len).layout().sealed_len(len as u64).unwrap()).unwrap()
}

/// Gives what it has in whole pieces, and says when it was asked for more than there is.
struct Telling<'a> {
    pieces: std::slice::Iter<'a, Vec<u8>>,
    asked: std::sync::mpsc::Sender<()>,
    go_on: std::sync::mpsc::Receiver<()>,
}

impl Read for Telling<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.asked.send(()).unwrap();
        // The other side goes on once it has seen what it waits for.
        self.go_on.recv_timeout(Duration::from_secs(60)).map_err(io::Error::other)?;
        let Some(piece) = self.pieces.next() else { return Ok(0) };
        out[..piece.len()].copy_from_slice(piece);
        Ok(piece.len())
    }
}

#[test]
fn what_a_slow_source_gave_goes_out_before_it_gives_more() {
    struct Seen(std::sync::mpsc::Sender<usize>);
    impl Write for Seen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.len()).unwrap();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for segment_len in [1_024_u32, 20_000] {
        let segments = Plain::new(segment_len);
        let full = segments.layout().plaintext_per_segment();
        let message = sealed(&segments, &pattern(4 * full), 1).unwrap();
        // The first segment and a bit of the next; then the rest of that.
        let cut = segment_len as usize + 10;
        let pieces = [message[..cut].to_vec(), message[cut..2 * segment_len as usize].to_vec()];
        for threads in [1, 2] {
            let (asked, was_asked) = channel();
            let (go, go_on) = channel();
            let (seen, was_seen) = channel();
            let segments = Plain::new(segment_len);
            let source = Telling { pieces: pieces.iter(), asked, go_on };
            std::thread::scope(|scope| {
                let plan = Threads::exactly(threads).unwrap().plan(segments.layout(), None);
                let segments = &segments;
                let opening = scope.spawn(move || open(segments, source, Seen(seen), plan));
                for _ in 0..2 {
                    was_asked.recv_timeout(Duration::from_secs(60)).unwrap();
                    go.send(()).unwrap();
                }
                // Both segments are out, though the source says nothing more.
                let mut out = 0;
                while out < 2 * full {
                    out += was_seen.recv_timeout(Duration::from_secs(60)).expect("what is whole goes out");
                }
                go.send(()).unwrap();
                let error = opening.join().unwrap().unwrap_err();
                assert_eq!((error.kind(), error.segment()), (ErrorKind::Truncated, Some(2)));
            });
        }
    }
}
