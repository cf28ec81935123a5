//! Several threads on one message: valid messages of the same length as one makes, the same errors after the same bytes, an
//! end within a bound whatever fails, and nothing left behind.

use crate::support::child::{Running, leftovers, peak_kib, tell, words};
use crate::support::damage::{Damage, surgery, truncations};
use crate::support::flaky::{Fault, Flaky, Plan};
use crate::support::model::{Head, Known, Verdict, Walk};
use crate::support::providers::raw;
use crate::support::random::Random;
use crate::support::sample::{Sample, pattern};
use crate::support::{quiet_on_purpose, say};
use envelock::AeadAlgorithm::{Aes256Gcm, ChaCha20Poly1305};
use envelock::{
    AeadAlgorithm, EncryptionContext, Envelope, EnvelopeBuilder, Error, ErrorKind, FileOptions, Header, Threads,
    blocking,
};
use std::collections::HashSet;
use std::fs;
use std::io::{self, Cursor, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

fn builder(aead: AeadAlgorithm, segment_len: u32) -> EnvelopeBuilder {
    Envelope::builder(raw("mine", 2)).aead(aead).segment_len(segment_len)
}

fn envelope(aead: AeadAlgorithm, segment_len: u32) -> blocking::Envelope {
    blocking::Envelope::new(builder(aead, segment_len).build().unwrap())
}

fn context() -> EncryptionContext {
    EncryptionContext::from([("object", "a")])
}

fn on(threads: usize) -> FileOptions {
    FileOptions::default().threads(Threads::exactly(threads).unwrap())
}

/// A sink whose bytes can be had back, from wherever it went.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `work`, which ends within a bound and does not panic.
#[track_caller]
fn bounded<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(Duration::from_secs(120)).unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Lengths around the edges of segments, and of the batches that threads take.
fn lengths(segment_len: usize) -> Vec<usize> {
    let (full, per_batch) = (segment_len - 32, ((256 << 10) / segment_len).max(1));
    let edges = [0, 1, 2, per_batch, 3 * per_batch, 7 * per_batch];
    edges.iter().flat_map(|n| [(n * full).saturating_sub(1), n * full, n * full + 1]).collect()
}

/// Panics unless the body of `message` is what its length says, each segment with an IV of its own.
fn assert_sealed_once(message: &[u8], len: usize) {
    let header = Header::parse(message).unwrap();
    let layout = header.layout();
    assert_eq!(layout.plaintext_len((message.len() - header.len()) as u64).unwrap(), len as u64);
    let segments: Vec<_> = message[header.len()..].chunks(layout.segment_len()).collect();
    let ivs: HashSet<_> = segments.iter().map(|segment| &segment[4..16]).collect();
    assert_eq!(ivs.len(), segments.len(), "an IV serves twice");
}

#[test]
fn streams_of_any_length_on_any_number_of_threads_are_what_one_thread_reads_and_writes() {
    let mut messages = 0;
    for (aead, segment_len) in
        [(Aes256Gcm, 1_024), (ChaCha20Poly1305, 20_000), (Aes256Gcm, 65_536), (Aes256Gcm, 1 << 20)]
    {
        let envelope = envelope(aead, segment_len);
        for (turn, len) in lengths(segment_len as usize).into_iter().enumerate() {
            let plaintext = pattern(len);
            let by_one = envelope.encrypt(&plaintext, &context()).unwrap();
            // All of 1 to 16 for some length, a few for each.
            let counts: Vec<usize> = if turn == 10 { (1..=16).collect() } else { vec![1, 2, 3, 2 + turn % 15] };
            for threads in counts {
                let sink = Shared::default();
                let source = Cursor::new(plaintext.clone());
                let written = envelope.encrypt_pipe(source, sink.clone(), &context(), on(threads)).unwrap();
                let message = sink.take();
                assert_eq!(written, message.len() as u64);
                assert_sealed_once(&message, len);
                let mut read = Vec::new();
                envelope.decrypt_reader(&*message, &context()).unwrap().read_to_end(&mut read).unwrap();
                assert!(read == plaintext, "{len} bytes sealed on {threads} threads");
                assert_eq!(
                    envelope.decrypt_pipe(Cursor::new(by_one.clone()), sink.clone(), &context(), on(threads)).unwrap(),
                    len as u64
                );
                assert!(sink.take() == plaintext, "{len} bytes opened on {threads} threads");
                messages += 2;
            }
        }
    }
    say(format!("parallel: {messages} messages around the edges of segments and batches"));
    assert!(messages > 500);
}

#[test]
fn files_on_any_number_of_threads_are_what_one_thread_reads_and_writes() {
    let folder = tempfile::tempdir().unwrap();
    let [plain, message, copy] = ["plain", "message.elk", "copy"].map(|name| folder.path().join(name));
    let mut files = 0;
    for (aead, segment_len) in [(ChaCha20Poly1305, 1_024), (Aes256Gcm, 65_536)] {
        let envelope = envelope(aead, segment_len);
        for len in [0, 1, 65_504, 262_016, 262_017, 3_000_001] {
            let plaintext = pattern(len);
            fs::write(&plain, &plaintext).unwrap();
            for threads in [1, 2, 5, 16] {
                let options = || on(threads).replace_existing();
                let written = envelope.encrypt_file(&plain, &message, &context(), options()).unwrap();
                let bytes = fs::read(&message).unwrap();
                assert_eq!(written, bytes.len() as u64);
                assert_sealed_once(&bytes, len);
                let mut read = Vec::new();
                envelope.file_reader(&message, &context()).unwrap().read_to_end(&mut read).unwrap();
                assert!(read == plaintext);
                assert_eq!(envelope.decrypt_file(&message, &copy, &context(), options()).unwrap(), len as u64);
                assert!(fs::read(&copy).unwrap() == plaintext);
                assert_eq!(envelope.verify_file(&message, &context()).unwrap(), len as u64);
                let source = Cursor::new(plaintext.clone());
                envelope.encrypt_to_file(source, &message, &context(), options()).unwrap();
                let source = fs::File::open(&message).unwrap();
                assert_eq!(envelope.decrypt_to_file(source, &copy, &context(), options()).unwrap(), len as u64);
                assert!(fs::read(&copy).unwrap() == plaintext);
                files += 4;
            }
        }
    }
    assert!(leftovers(folder.path()).is_empty());
    say(format!("parallel: {files} files"));
}

#[test]
fn slices_on_several_threads_are_what_one_thread_reads_and_writes() {
    let mut messages = 0;
    // Parts of several segments, of one, and of a segment that is longer than a part.
    for (aead, segment_len) in [(Aes256Gcm, 65_536_u32), (ChaCha20Poly1305, 1 << 20), (Aes256Gcm, 3 << 20)] {
        let full = segment_len as usize - 32;
        let part = ((1 << 20) / segment_len as usize).max(1) * full;
        for len in [0, 1, part - 1, part, part + 1, 3 * part - 1, 3 * part, 3 * part + 1, 5 * part + full / 2] {
            let plaintext = pattern(len);
            let one = envelope(aead, segment_len);
            for threads in [2, 3, 8] {
                let threads = Threads::exactly(threads).unwrap();
                let many = builder(aead, segment_len).threads(threads).build().unwrap();
                let many = blocking::Envelope::new(many);
                let sealed = many.encrypt(&plaintext, &context()).unwrap();
                assert_sealed_once(&sealed, len);
                assert!(one.decrypt(&sealed, &context()).unwrap() == plaintext);
                let sealed = one.encrypt(&plaintext, &context()).unwrap();
                assert!(many.decrypt(&sealed, &context()).unwrap() == plaintext);
                messages += 2;
            }
        }
    }
    say(format!("parallel: {messages} messages from memory to memory"));
}

/// How a damaged message is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Slices,
    Stream,
    File,
}

/// The error, if any, and what came out.
fn open(sample: &Sample, way: Way, threads: usize, message: &[u8], folder: &Path) -> (Option<Error>, Vec<u8>) {
    match way {
        Way::Slices => {
            let many = Envelope::builder(raw("mine", 2)).threads(Threads::exactly(threads).unwrap()).build().unwrap();
            let many = blocking::Envelope::new(many);
            match many.decrypt(message, &sample.context) {
                Ok(plaintext) => (None, plaintext),
                Err(error) => (Some(error), Vec::new()),
            }
        }
        Way::Stream => {
            let sink = Shared::default();
            let source = Cursor::new(message.to_vec());
            (sample.reader.decrypt_pipe(source, sink.clone(), &sample.context, on(threads)).err(), sink.take())
        }
        Way::File => {
            let to = folder.join("to");
            let source = Cursor::new(message.to_vec());
            let opened = sample.reader.decrypt_to_file(source, &to, &sample.context, on(threads));
            let out = fs::read(&to).unwrap_or_default();
            let _ = fs::remove_file(&to);
            assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "something was left");
            (opened.err(), out)
        }
    }
}

/// The segment that the sequential reader names, and what it gave.
fn sequential(sample: &Sample, message: &[u8]) -> (Option<(ErrorKind, Option<u64>)>, Vec<u8>) {
    let mut out = Vec::new();
    let opened = sample.reader.decrypt_reader(message, &sample.context);
    let read = opened.and_then(|mut reader| Ok(reader.read_to_end(&mut out).map(drop)?));
    (read.err().map(|error| (error.kind(), error.segment())), out)
}

#[test]
fn every_damage_gives_the_kind_the_segment_and_the_verified_beginning_that_one_thread_gives() {
    let folder = tempfile::tempdir().unwrap();
    let mut counts = std::collections::BTreeMap::new();
    // In one batch; one segment in each batch; several in each.
    for (aead, segment_len, count) in [(Aes256Gcm, 64, 5), (Aes256Gcm, 256 << 10, 6), (ChaCha20Poly1305, 65_536, 11)] {
        let full = segment_len as usize - 32;
        let len = (count - 1) * full + full / 3;
        let sample = Sample::of_segments(aead, segment_len, len);
        let other = Sample::of_segments(aead, segment_len, len);
        let mut cases = surgery(&sample.known, &other.known);
        cases.extend(flipped(&sample.known, segment_len as usize));
        if segment_len == 64 {
            let cuts = truncations(&sample.known.message);
            cases.extend(cuts.map(|cut| Damage { what: format!("cut to {}", cut.len()), message: cut.to_vec() }));
        }
        for case in cases {
            let expected: Verdict = sample.known.verdict(&case.message, Walk::Stream);
            let (error, released) = sequential(&sample, &case.message);
            assert_eq!(error.map(|(kind, _)| kind), expected.error, "{}", case.what);
            assert_eq!(released.len(), expected.released, "{}", case.what);
            for (way, threads) in
                [(Way::Stream, 1), (Way::Stream, 2), (Way::Stream, 5), (Way::Slices, 3), (Way::File, 2)]
            {
                let (got, out) = open(&sample, way, threads, &case.message, folder.path());
                let got = got.map(|error| (error.kind(), error.segment()));
                let at = || format!("{}, {way:?} on {threads} threads", case.what);
                assert_eq!(got.map(|(kind, _)| kind), expected.error, "{}", at());
                if way != Way::Slices && expected.error != Some(ErrorKind::TrailingData) {
                    assert_eq!(got, error, "{}", at());
                }
                match (way, expected.error) {
                    (Way::Stream, _) | (_, None) => assert!(out == released, "{}: another beginning", at()),
                    _ => assert!(out.is_empty(), "{}", at()),
                }
                let kind = expected.error.map_or_else(|| "identical".to_owned(), |kind| format!("{kind:?}"));
                *counts.entry(kind).or_insert(0_usize) += 1;
            }
        }
    }
    say(format!("parallel: damaged messages opened: {counts:?}"));
    assert!(counts.values().sum::<usize>() > 2_000);
}

/// A bit of each segment's prefix, IV, ciphertext and tag.
fn flipped(known: &Known, segment_len: usize) -> Vec<Damage> {
    let start = Head::judge(&known.message).unwrap().len();
    let mut cases = Vec::new();
    for (i, segment) in known.segments().iter().enumerate() {
        for at in [0, 3, 4, 16, segment.len() - 1] {
            let mut message = known.message.clone();
            message[start + i * segment_len + at] ^= 1;
            cases.push(Damage { what: format!("segment {i}, byte {at}"), message });
        }
    }
    cases
}

#[test]
fn whichever_of_several_bad_segments_a_thread_meets_the_first_one_is_reported() {
    // Many segments, so that threads are far apart.
    let sample = Sample::of_segments(Aes256Gcm, 65_536, 6 << 20);
    let folder = tempfile::tempdir().unwrap();
    let start = sample.known.head.len();
    let mut random = Random::new(17);
    for round in 0..40 {
        let mut message = sample.known.message.clone();
        let bad: Vec<_> = (0..3).map(|_| random.below(90)).collect();
        for segment in &bad {
            message[start + segment * 65_536 + 100] ^= 1;
        }
        // Where two of them are one, it is whole again.
        let first = (0..90).find(|segment| bad.iter().filter(|it| *it == segment).count() % 2 == 1).unwrap();
        for way in [Way::Stream, Way::Slices, Way::File] {
            let (error, out) = open(&sample, way, 2 + round % 7, &message, folder.path());
            let error = error.unwrap();
            assert_eq!((error.kind(), error.segment()), (ErrorKind::AuthenticationFailed, Some(first as u64)));
            if way == Way::Stream {
                assert!(out == sample.plaintext[..first * 65_504]);
            }
        }
    }
}

/// Panics, fails or stops at its call of a number; else it gives zeros without an end.
struct Endless {
    calls: usize,
    at: usize,
    what: Trouble,
    flag: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Panic,
    Error,
    Stop,
}

impl Read for Endless {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls > self.at {
            match self.what {
                Trouble::Panic => panic!("on purpose"),
                Trouble::Error => return Err(io::Error::new(io::ErrorKind::BrokenPipe, "broken on purpose")),
                Trouble::Stop => self.flag.store(true, Ordering::SeqCst),
            }
        }
        out.fill(0);
        Ok(out.len())
    }
}

#[test]
fn a_source_that_fails_panics_or_is_stopped_leaves_no_file_and_one_error() {
    quiet_on_purpose();
    let mut cases = 0;
    for threads in [1, 2, 3, 8, 16] {
        for at in [0, 1, 30, 200] {
            for (what, kind) in
                [(Trouble::Panic, ErrorKind::Internal), (Trouble::Error, ErrorKind::Io), (Trouble::Stop, ErrorKind::Io)]
            {
                bounded(&format!("{what:?} at call {at} on {threads} threads"), move || {
                    let folder = tempfile::tempdir().unwrap();
                    let flag = Arc::new(AtomicBool::new(false));
                    let options = || on(threads).stop_when(Arc::clone(&flag));
                    let source = || Endless { calls: 0, at, what, flag: Arc::clone(&flag) };
                    let envelope = envelope(Aes256Gcm, 65_536);
                    let to = folder.path().join("to");
                    let sealing = envelope.encrypt_to_file(source(), &to, &context(), options());
                    let error = sealing.unwrap_err();
                    assert_eq!(error.kind(), kind, "{error}");
                    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
                    flag.store(false, Ordering::SeqCst);
                    let sink = Shared::default();
                    let sealing = envelope.encrypt_pipe(source(), sink.clone(), &context(), options());
                    assert_eq!(sealing.unwrap_err().kind(), kind);
                    assert_eq!(verdict(&envelope, &sink.take()), ErrorKind::Truncated, "it is a beginning");
                });
                cases += 1;
            }
        }
    }
    say(format!("parallel: {cases} sources that failed, panicked or were stopped"));
}

#[test]
fn a_sink_that_fails_at_any_call_ends_it_all_with_its_error() {
    let plaintext = pattern(3 << 20);
    let envelope = envelope(Aes256Gcm, 65_536);
    let message = envelope.encrypt(&plaintext, &context()).unwrap();
    let mut cases = 0;
    for threads in [1, 2, 3, 8, 16] {
        for at in [0, 1, 2, 7, 11] {
            for fault in [Fault::Broken, Fault::WouldBlock, Fault::Interrupted] {
                let (plaintext, message, envelope) = (plaintext.clone(), message.clone(), envelope.clone());
                bounded(&format!("{fault:?} at call {at} on {threads} threads"), move || {
                    let sink = Shared::default();
                    let flaky = || Flaky::new(sink.clone(), Plan::From(at, fault), 0);
                    let once = || Flaky::new(sink.clone(), Plan::Once(at, fault), 0);
                    let sealed = |sink| {
                        let source = Cursor::new(plaintext.clone());
                        envelope.encrypt_pipe(source, sink, &context(), on(threads))
                    };
                    let opened = |sink| {
                        let source = Cursor::new(message.clone());
                        envelope.decrypt_pipe(source, sink, &context(), on(threads))
                    };
                    if fault == Fault::Interrupted {
                        assert_eq!(sealed(once()).unwrap(), sink.take().len() as u64);
                        assert_eq!(opened(once()).unwrap(), plaintext.len() as u64);
                        assert!(sink.take() == plaintext);
                        return;
                    }
                    assert_eq!(sealed(flaky()).unwrap_err().kind(), ErrorKind::Io);
                    assert_eq!(verdict(&envelope, &sink.take()), ErrorKind::Truncated);
                    let error = opened(flaky()).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Io);
                    assert!(error.to_string().contains("the output cannot be written"), "{error}");
                    assert!(plaintext.starts_with(&sink.take()));
                });
                cases += 1;
            }
        }
    }
    say(format!("parallel: {cases} sinks that failed"));
}

fn verdict(envelope: &blocking::Envelope, message: &[u8]) -> ErrorKind {
    envelope.decrypt(message, &context()).unwrap_err().kind()
}

#[test]
fn a_dropped_call_undoes_what_it_began() {
    let mut cases = 0;
    for threads in [1, 2, 8] {
        for mib in [0, 3, 20] {
            let folder = tempfile::tempdir().unwrap();
            let to = folder.path().join("to");
            let envelope = envelope(Aes256Gcm, 65_536);
            let source = Endless { calls: 0, at: usize::MAX, what: Trouble::Stop, flag: Arc::default() };
            let context = context();
            let (begun, reports) = channel();
            let options = on(threads).on_progress(move |progress| {
                // Nobody listens once the call is dropped.
                let _ = begun.send(progress.done);
            });
            let mut call = Box::pin(envelope.inner().encrypt_to_file(source, &to, &context, options));
            let mut polled = Context::from_waker(Waker::noop());
            let started = Instant::now();
            while !reports.try_iter().any(|done| done >> 20 >= mib) {
                assert!(call.as_mut().poll(&mut polled).is_pending(), "the source has no end");
                assert!(started.elapsed() < Duration::from_secs(60), "it does not get on");
                std::thread::sleep(Duration::from_millis(1));
            }
            drop(call);
            let dropped = Instant::now();
            while fs::read_dir(folder.path()).unwrap().count() > 0 {
                assert!(dropped.elapsed() < Duration::from_secs(60), "the file stays");
                std::thread::sleep(Duration::from_millis(5));
            }
            cases += 1;
        }
    }
    say(format!("parallel: {cases} dropped calls"));
}

/// Gives a message, and what is behind `held_from` only once the flag is set: until then no call is done.
struct Held {
    message: Arc<Vec<u8>>,
    at: usize,
    held_from: usize,
    flag: Arc<AtomicBool>,
}

impl Read for Held {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let started = Instant::now();
        while self.at >= self.held_from && !self.flag.load(Ordering::SeqCst) {
            assert!(started.elapsed() < Duration::from_secs(60), "nobody ends the call");
            std::thread::sleep(Duration::from_millis(1));
        }
        let count = (&self.message[self.at..]).read(out)?;
        self.at += count;
        Ok(count)
    }
}

/// The end of a call on several threads, by dropping it or by its flag, once it has done so many MiB.
struct Cut {
    threads: usize,
    mib: u64,
    stopped: bool,
}

impl Cut {
    /// Makes the call, from its options on, ends it with the flag set, and looks that it has ended.
    fn end<F: Future<Output = Result<u64, Error>>>(&self, flag: &Arc<AtomicBool>, call: impl FnOnce(FileOptions) -> F) {
        let (begun, reports) = channel();
        let stop = if self.stopped { Arc::clone(flag) } else { Arc::default() };
        let options = on(self.threads).stop_when(stop).on_progress(move |progress| {
            // Nobody listens once the call is dropped.
            let _ = begun.send(progress.done);
        });
        let mut call = Box::pin(call(options));
        let mut polled = Context::from_waker(Waker::noop());
        let started = Instant::now();
        while !reports.try_iter().any(|done| done >> 20 >= self.mib) {
            assert!(call.as_mut().poll(&mut polled).is_pending(), "what it waits for has not come");
            assert!(started.elapsed() < Duration::from_secs(60), "it does not get on");
            std::thread::sleep(Duration::from_millis(1));
        }
        if !self.stopped {
            drop(call);
            return flag.store(true, Ordering::SeqCst);
        }
        flag.store(true, Ordering::SeqCst);
        let error = loop {
            if let Poll::Ready(result) = call.as_mut().poll(&mut polled) {
                break result.unwrap_err();
            }
            assert!(started.elapsed() < Duration::from_secs(60), "it is not stopped");
            std::thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    }
}

/// Waits until `done`, which others bring about.
#[track_caller]
fn comes_about(done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(60), "it goes on, or left something");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_decryption_or_a_pipe_that_is_dropped_or_stopped_midway_leaves_no_file_and_no_thread() {
    let envelope = envelope(Aes256Gcm, 65_536);
    let (context, plaintext) = (context(), pattern(40 << 20));
    let message = Arc::new(envelope.encrypt(&plaintext, &context).unwrap());
    let mut cases = 0;
    for threads in [1, 2, 8] {
        for mib in [0, 3, 20] {
            for stopped in [false, true] {
                let cut = Cut { threads, mib, stopped };
                let source = |flag: &Arc<AtomicBool>| {
                    let (message, flag) = (Arc::clone(&message), Arc::clone(flag));
                    Held { message, at: 0, held_from: 32 << 20, flag }
                };
                let folder = tempfile::tempdir().unwrap();
                let to = folder.path().join("to");
                let flag = Arc::default();
                cut.end(&flag, |options| envelope.inner().decrypt_to_file(source(&flag), &to, &context, options));
                comes_about(|| fs::read_dir(folder.path()).unwrap().count() == 0);

                let (flag, sink) = (Arc::default(), Shared::default());
                cut.end(&flag, |options| envelope.inner().decrypt_pipe(source(&flag), sink.clone(), &context, options));
                // The thread gives the sink back when it ends.
                comes_about(|| Arc::strong_count(&sink.0) == 1);
                let out = sink.take();
                assert!(out.len() < plaintext.len() && plaintext.starts_with(&out), "{} bytes", out.len());

                let (flag, sink) = (Arc::default(), Shared::default());
                cut.end(&flag, |options| envelope.inner().encrypt_pipe(source(&flag), sink.clone(), &context, options));
                comes_about(|| Arc::strong_count(&sink.0) == 1);
                assert!(matches!(verdict(&envelope, &sink.take()), ErrorKind::Truncated));
                cases += 3;
            }
        }
    }
    say(format!("parallel: {cases} decryptions and pipes dropped or stopped midway"));
}

#[test]
fn pipes_that_give_and_take_little_at_a_time_carry_everything() {
    let envelope = envelope(ChaCha20Poly1305, 1_024);
    let mut random = Random::new(23);
    let mut cases = 0;
    for threads in [1, 2, 3, 8] {
        for most in [1, 7, 1_000, 70_000] {
            for _ in 0..4 {
                let plaintext = pattern(random.below(if most < 100 { 30_000 } else { 1_500_000 }));
                let sealed = Shared::default();
                let source = Flaky::new(Cursor::new(plaintext.clone()), Plan::Never, most);
                let sink = Flaky::new(sealed.clone(), Plan::Never, most + 1);
                let written = envelope.encrypt_pipe(source, sink, &context(), on(threads)).unwrap();
                let message = sealed.take();
                assert_eq!(written, message.len() as u64);
                assert!(envelope.decrypt(&message, &context()).unwrap() == plaintext);
                let opened = Shared::default();
                let source = Flaky::new(Cursor::new(message), Plan::Never, most + 2);
                let sink = Flaky::new(opened.clone(), Plan::Never, most);
                let read = envelope.decrypt_pipe(source, sink, &context(), on(threads)).unwrap();
                assert_eq!(read, plaintext.len() as u64);
                assert!(opened.take() == plaintext, "in pieces of up to {most} on {threads} threads");
                cases += 2;
            }
        }
    }
    say(format!("parallel: {cases} pipes with short reads and writes"));
}

#[test]
fn progress_counts_the_input_up_to_its_end_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let [plain, message, copy] = ["plain", "message", "copy"].map(|name| folder.path().join(name));
    fs::write(&plain, pattern(5_000_000)).unwrap();
    let envelope = envelope(Aes256Gcm, 65_536);
    for threads in [1, 2, 6] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let options = || {
            let seen = Arc::clone(&seen);
            on(threads).replace_existing().on_progress(move |progress| seen.lock().unwrap().push(progress))
        };
        let check = |total: u64| {
            let seen = std::mem::take(&mut *seen.lock().unwrap());
            assert!(seen.is_sorted_by_key(|progress| progress.done) && seen.len() >= 5, "{seen:?}");
            assert!(seen.iter().all(|progress| progress.total == Some(total)));
            assert_eq!(seen.last().unwrap().done, total);
        };
        envelope.encrypt_file(&plain, &message, &context(), options()).unwrap();
        check(5_000_000);
        let head = Header::parse(&fs::read(&message).unwrap()).unwrap().len();
        envelope.decrypt_file(&message, &copy, &context(), options()).unwrap();
        check(fs::metadata(&message).unwrap().len() - head as u64);
    }
}

/// Resident beyond what the test program takes before it begins, in KiB: for one thread and for two.
const PEAK_MAX_KIB: [u64; 2] = [28 << 10, 44 << 10];

#[test]
fn memory_is_bounded_for_one_and_two_threads_at_any_segment_length() {
    const TEST: &str = "parallel::memory_is_bounded_for_one_and_two_threads_at_any_segment_length";
    const MIB: usize = 96;
    if let Some(words) = words() {
        let before = peak_kib();
        let number = |i: usize| words[i].parse::<usize>().unwrap();
        let (threads, segment_len) = (number(1), u32::try_from(number(2)).unwrap());
        let envelope = envelope(Aes256Gcm, segment_len);
        let [plain, message] = [&words[3], &words[4]].map(Path::new);
        let reader = envelope;
        match words[0].as_str() {
            "encrypt" => reader.encrypt_file(plain, message, &context(), on(threads)).map(drop).unwrap(),
            "decrypt" => reader.decrypt_file(message, plain, &context(), on(threads)).map(drop).unwrap(),
            _ => {
                let source = fs::File::open(message).unwrap();
                reader.decrypt_pipe(source, io::sink(), &context(), on(threads)).map(drop).unwrap();
            }
        }
        return tell(peak_kib() - before);
    }
    let folder = tempfile::tempdir().unwrap();
    let [plain, message, copy] = ["plain", "message", "copy"].map(|name| folder.path().join(name));
    fs::File::create(&plain).unwrap().set_len((MIB << 20) as u64 + 5).unwrap();
    for segment_len in [65_536, 1 << 20, 16 << 20] {
        for threads in [1, 2] {
            let run = |way: &str, plain: &Path| {
                let words = [way, &threads.to_string(), &segment_len.to_string()].map(str::to_owned);
                let paths = [plain, &message].map(|path| path.to_str().unwrap().to_owned());
                let words: Vec<_> = words.iter().chain(&paths).map(String::as_str).collect();
                Running::start(TEST, &words).succeed()[0].parse::<u64>().unwrap()
            };
            let peaks = [run("encrypt", &plain), run("decrypt", &copy), run("stream", &copy)];
            fs::remove_file(&message).unwrap();
            assert_eq!(fs::metadata(&copy).unwrap().len(), (MIB << 20) as u64 + 5);
            fs::remove_file(&copy).unwrap();
            say(format!(
                "parallel: {MIB} MiB in segments of {segment_len} on {threads} threads: resident memory grew by {peaks:?} KiB"
            ));
            assert!(peaks.iter().all(|&peak| peak < PEAK_MAX_KIB[threads - 1]), "{peaks:?}");
        }
    }
}

#[test]
fn numbers_of_threads_beyond_the_bounds_are_refused() {
    for count in [0, Threads::MAX + 1, usize::MAX] {
        assert_eq!(Threads::exactly(count).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(Threads::exactly(1).unwrap(), Threads::ONE);
    assert_eq!(Threads::default(), Threads::auto());
}
