//! Hostile heads and lengths: an error before any allocation beyond the limit, and before any call.

use crate::support::alloc::{Allocated, watch};
use crate::support::damage::flips;
use crate::support::model::{Head, Walk};
use crate::support::providers::{Calls, Counted, raw};
use crate::support::random::Random;
use crate::support::sample::{Sample, Way};
use crate::support::{kind_of, say};
use bytes::Bytes;
use envelock::AeadAlgorithm::Aes256Gcm;
use envelock::ErrorKind::{self, *};
use envelock::{
    DataKeyAnswer, EncryptedDataKey, EncryptionContext, Envelope, Header, KeyProvider, KmsContext, Limits,
    PassphraseProvider, ReadAt, blocking,
};
use std::io::{self, Read, Seek, SeekFrom};
use std::pin::pin;
use std::slice;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// The reader's default limit on a head, with the FLOE header.
const LARGEST: usize = 65_536 + 74;
/// Everything that parsing a head allocates together: its bytes, and its parts once more each.
const TOTAL: usize = 8 * LARGEST;

struct Reader {
    envelope: blocking::Envelope,
    calls: Arc<Calls>,
}

fn reader(limits: Limits) -> Reader {
    let (provider, calls) = Counted::wrap(raw("mine", 2));
    let envelope = Envelope::builder(provider).limits(limits).build().unwrap();
    Reader { envelope: blocking::Envelope::new(envelope), calls }
}

impl Reader {
    /// The kind that each way in answers with, which must be one, and what it allocated at most.
    fn open(&self, message: &[u8]) -> (Option<ErrorKind>, Allocated) {
        let context = EncryptionContext::new();
        let (whole, a) = watch(|| self.envelope.decrypt(message, &context).err().map(|e| e.kind()));
        let (stream, b) = watch(|| self.envelope.decrypt_reader(message, &context).err().map(|e| e.kind()));
        let (range, c) = watch(|| self.envelope.range_reader(message, &context).err().map(|e| e.kind()));
        let (parse, d) = watch(|| Header::parse(message).err().map(|e| e.kind()));
        let source = Bytes::copy_from_slice(message);
        let (awaited, e) = watch(|| {
            let opened = self.envelope.inner().async_range_reader(source, &context);
            blocking::wait(opened).err().map(|e| e.kind())
        });
        assert_eq!((whole, whole, whole), (stream, range, awaited));
        if whole.is_none() {
            assert_eq!(parse, None);
        }
        let max = |pick: fn(&Allocated) -> usize| [a, b, c, d, e].iter().map(pick).max().unwrap();
        (whole, Allocated { largest: max(|it| it.largest), total: max(|it| it.total) })
    }
}

/// A head in pieces, each of which a case may replace.
struct Forged {
    start: Vec<u8>,
    context: (u16, Vec<u8>),
    slots: (u16, Vec<u8>),
    parameters: Vec<u8>,
    rest: Vec<u8>,
}

fn slot(provider: &[u8], key_id: &[u8], wrapped: &[u8]) -> Vec<u8> {
    let string = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    [&[u8::try_from(provider.len()).unwrap()], provider, &string(key_id), &string(wrapped)].concat()
}

fn parameters(segment_len: u32, iv_len: u32) -> Vec<u8> {
    [&[0, 0][..], &segment_len.to_be_bytes(), &iv_len.to_be_bytes()].concat()
}

impl Default for Forged {
    fn default() -> Self {
        let area = [vec![1], slot(b"raw", b"mine", &[7; 93])].concat();
        Self {
            start: b"ELK\x01\x00".to_vec(),
            context: (0, Vec::new()),
            slots: (u16::try_from(area.len()).unwrap(), area),
            parameters: parameters(64, 32),
            rest: vec![3; 64 + 4 * 64],
        }
    }
}

impl Forged {
    fn bytes(&self) -> Vec<u8> {
        let (n, context) = &self.context;
        let (m, slots) = &self.slots;
        [&self.start, &n.to_be_bytes()[..], context, &m.to_be_bytes(), slots, &self.parameters, &self.rest].concat()
    }

    fn slots(count: u8, slots: &[Vec<u8>], padding: usize) -> Self {
        let area = [vec![count], slots.concat(), vec![0; padding]].concat();
        Self { slots: (u16::try_from(area.len()).unwrap(), area), ..Self::default() }
    }
}

/// A stored context of exactly `n` bytes.
fn context(n: usize) -> (u16, Vec<u8>) {
    let value = n - 2 - 2 - 1 - 2;
    let entry = [&[0, 1, 0, 1, b'k'][..], &u16::try_from(value).unwrap().to_be_bytes(), &vec![b'v'; value]].concat();
    (u16::try_from(n).unwrap(), entry)
}

/// Heads that are judged before any key is asked for, by what is wrong with them.
fn hopeless() -> Vec<(&'static str, Vec<u8>, ErrorKind)> {
    let forged = Forged::default;
    let mine = || slot(b"raw", b"mine", &[7; 93]);
    let wide = |m: usize| {
        let used = 1 + mine().len();
        Forged::slots(1, &[mine()], m - used).bytes()
    };
    vec![
        ("n = 8,168", Forged { context: context(8_168), ..forged() }.bytes(), LimitExceeded),
        ("n = 65,535", Forged { context: context(65_535), ..forged() }.bytes(), LimitExceeded),
        ("n = 65,535 and nothing there", Forged { context: (65_535, vec![]), ..forged() }.bytes(), LimitExceeded),
        ("n = 8,167 and nothing there", b"ELK\x01\x00\x1f\xe7".to_vec(), Truncated),
        ("m = 65,535", wide(65_535), LimitExceeded),
        ("m one above the limit", wide(65_536 - 9 + 1), LimitExceeded),
        ("m = 65,535 and nothing there", b"ELK\x01\x00\x00\x00\xff\xff".to_vec(), LimitExceeded),
        ("m at the limit and nothing there", b"ELK\x01\x00\x00\x00\xff\xf7".to_vec(), Truncated),
        ("33 slots", Forged::slots(33, &vec![mine(); 33], 0).bytes(), LimitExceeded),
        ("255 slots", Forged::slots(255, &[mine()], 0).bytes(), LimitExceeded),
        ("32 slots and one there", Forged::slots(32, &[mine()], 0).bytes(), Malformed),
        ("a key id of 65,535 bytes", Forged::slots(1, &[b"\x03raw\xff\xff".to_vec()], 60).bytes(), Malformed),
        (
            "segments of 16 MiB and 1",
            Forged { parameters: parameters((16 << 20) + 1, 32), ..forged() }.bytes(),
            LimitExceeded,
        ),
        ("segments of 2^31", Forged { parameters: parameters(1 << 31, 32), ..forged() }.bytes(), LimitExceeded),
        ("segments of 2^32 - 1", Forged { parameters: parameters(u32::MAX, 32), ..forged() }.bytes(), LimitExceeded),
        ("segments of 63", Forged { parameters: parameters(63, 32), ..forged() }.bytes(), Malformed),
        ("segments of 0", Forged { parameters: parameters(0, 32), ..forged() }.bytes(), Malformed),
        ("an IV of 2^32 - 1", Forged { parameters: parameters(64, u32::MAX), ..forged() }.bytes(), Malformed),
        ("a record set", Forged { start: b"ELK\x01\x02".to_vec(), ..forged() }.bytes(), Unsupported),
        ("version 2", Forged { start: b"ELK\x02\x00".to_vec(), ..forged() }.bytes(), Unsupported),
        ("every flag", Forged { start: b"ELK\x01\xff".to_vec(), ..forged() }.bytes(), Unsupported),
        ("a context not given", Forged { context: context(8_167), ..forged() }.bytes(), ContextMismatch),
    ]
}

#[test]
fn a_hostile_head_is_refused_before_it_costs_memory_or_a_call() {
    let reader = reader(Limits::default());
    let cases = hopeless();
    let mut worst = Allocated::default();
    for (what, message, expected) in &cases {
        let (kind, allocated) = reader.open(message);
        assert_eq!(kind, Some(*expected), "{what}");
        assert_eq!(Head::judge(message).err().or(Some(ContextMismatch)), Some(*expected), "{what}, by the model");
        assert!(allocated.largest <= LARGEST && allocated.total <= TOTAL, "{what}: {allocated:?}");
        worst.largest = worst.largest.max(allocated.largest);
        worst.total = worst.total.max(allocated.total);
    }
    // A length field above the limit is judged on its own: nothing is read or allocated for it.
    for what in ["n = 65,535 and nothing there", "m = 65,535 and nothing there", "segments of 2^32 - 1"] {
        let message = &cases.iter().find(|case| case.0 == what).unwrap().1;
        let (_, allocated) = reader.open(message);
        assert!(allocated.total < 4_096, "{what}: {allocated:?}");
    }
    assert_eq!(reader.calls.all(), 0, "a provider was asked");
    say(format!("hostile heads: {} refused, worst {worst:?}, no provider call", cases.len()));
    assert!(cases.len() >= 20);
}

#[test]
fn heads_at_the_limits_reach_the_provider() {
    let reader = reader(Limits::default());
    let mine = slot(b"raw", b"mine", &[7; 93]);
    let used = 1 + mine.len();
    let at_limit = Forged::slots(1, slice::from_ref(&mine), 65_536 - 9 - used).bytes();
    let others = vec![slot(b"com.example.x", b"", &[1]); 31];
    let many = Forged::slots(32, &[others, vec![mine]].concat(), 0).bytes();
    let long = Forged { parameters: parameters(16 << 20, 32), ..Forged::default() }.bytes();
    for (n, message) in [at_limit, many, long].iter().enumerate() {
        let before = reader.calls.decrypts();
        let (kind, allocated) = reader.open(message);
        assert_eq!(kind, Some(AuthenticationFailed), "head {n}");
        assert!(reader.calls.decrypts() > before, "head {n} reached no provider");
        assert!(allocated.largest <= LARGEST && allocated.total <= TOTAL, "head {n}: {allocated:?}");
    }
}

#[test]
fn an_owner_may_lower_the_limits() {
    let mut limits = Limits::default();
    (limits.header_bytes, limits.segment_len) = (200, 128);
    let reader = reader(limits);
    let mine = slot(b"raw", b"mine", &[7; 93]);
    let used = 9 + 1 + mine.len();
    let kind = |forged: Forged| reader.open(&forged.bytes()).0;
    assert_eq!(kind(Forged::slots(1, slice::from_ref(&mine), 200 - used)), Some(AuthenticationFailed));
    let calls = reader.calls.all();
    assert_eq!(kind(Forged::slots(1, &[mine], 201 - used)), Some(LimitExceeded));
    assert_eq!(kind(Forged { parameters: parameters(129, 32), ..Forged::default() }), Some(LimitExceeded));
    assert_eq!(kind(Forged { context: context(192), ..Forged::default() }), Some(LimitExceeded));
    // A file whose head is refused is read again, for a rewrap may be under way: within the same limits.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), Forged { parameters: parameters(129, 32), ..Forged::default() }.bytes()).unwrap();
    let refused = reader.envelope.file_reader(file.path(), &EncryptionContext::new());
    assert_eq!(refused.err().map(|e| e.kind()), Some(LimitExceeded));
    assert_eq!(reader.calls.all(), calls);
}

/// A source that says it is enormous, and repeats a message's last byte forever.
struct Enormous<'a> {
    message: &'a [u8],
    len: u64,
    at: u64,
}

impl ReadAt for Enormous<'_> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        for (byte, at) in buffer.iter_mut().zip(offset..) {
            *byte = usize::try_from(at).ok().and_then(|at| self.message.get(at)).copied().unwrap_or(0x20);
        }
        Ok(())
    }
}

impl Read for Enormous<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = usize::try_from(self.len - self.at).unwrap_or(usize::MAX).min(out.len());
        self.read_exact_at(&mut out[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Enormous<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(delta) => self.len.saturating_add_signed(delta).min(self.len),
            SeekFrom::Current(delta) => self.at.saturating_add_signed(delta),
        };
        Ok(self.at)
    }
}

#[test]
fn lengths_near_2_to_the_60_cost_no_memory_and_no_overflow() {
    let sample = Sample::plain(Aes256Gcm, 77);
    let mut tried = 0;
    for around in [1_u64 << 16, 1 << 32, 64 << 40, 1 << 60, 1 << 63, u64::MAX - 200] {
        for delta in -129_i64..=129 {
            let len = around.saturating_add_signed(delta);
            let source = || Enormous { message: &sample.known.message, len, at: 0 };
            let (kind, a) = watch(|| sample.reader.range_reader(source(), &sample.context).unwrap_err().kind());
            let mut reader = sample.reader.decrypt_reader(source(), &sample.context).unwrap();
            let (seek, b) = watch(|| kind_of(&reader.seek(SeekFrom::End(0)).unwrap_err()));
            assert!(matches!(kind, AuthenticationFailed | Truncated | LimitExceeded), "{len}: {kind:?}");
            assert_eq!(kind, seek, "{len}");
            assert!(a.largest.max(b.largest) <= 4_096, "{len}: {a:?} {b:?}");
            assert!(reader.read(&mut [0; 40]).is_err(), "{len}: a reader that lost its place reads nothing");
            tried += 1;
        }
    }
    let layout = Header::parse(&sample.known.message).unwrap().layout();
    for n in [u64::MAX, u64::MAX - 31, 1 << 60, (1 << 60) + 1, 32 << 40, (32 << 40) + 1] {
        assert_eq!(layout.sealed_len(n).is_ok(), n <= 32 << 40, "{n}");
        let _ = (layout.extent(n), layout.segment_offset(n), layout.locate(n), layout.plaintext_len(n));
    }
    say(format!("enormous sources: {tried}"));
    assert!(tried > 1_500);
}

#[test]
fn a_passphrase_slot_that_asks_for_the_moon_is_a_failed_try_without_memory() {
    let provider = Arc::new(PassphraseProvider::new("correct horse").unwrap());
    let shared: Arc<dyn KeyProvider> = provider.clone();
    let envelope = blocking::Envelope::new(Envelope::builder(shared).build().unwrap());
    let kms_context = KmsContext::new(&EncryptionContext::new()).unwrap();
    let costs: [(u32, u32, u8); 8] = [
        (u32::MAX, 1, 1),
        ((1 << 20) + 1, 1, 1),
        (64, u32::MAX, 1),
        (64, 11, 1),
        (512, 1, 17),
        (u32::MAX, u32::MAX, 255),
        (7, 1, 1),
        (64, 0, 1),
    ];
    for (memory, passes, lanes) in costs {
        let head = [&[1][..], &memory.to_be_bytes(), &passes.to_be_bytes(), &[lanes]].concat();
        let wrapped = [head, vec![9; 96]].concat();
        let message = Forged::slots(1, &[slot(b"passphrase", b"", &wrapped)], 0).bytes();
        let (kind, allocated) = watch(|| envelope.decrypt(&message, &EncryptionContext::new()).unwrap_err().kind());
        assert_eq!(kind, AuthenticationFailed, "{memory} KiB, {passes} passes, {lanes} lanes");
        assert!(allocated.total < 16_384, "{memory} KiB, {passes} passes, {lanes} lanes: {allocated:?}");
        // What is stretched is stretched by another thread, whose memory is not counted: none comes into play.
        let slot = EncryptedDataKey::new("passphrase", Vec::new(), wrapped);
        let mut polled = Context::from_waker(Waker::noop());
        let (answer, allocated) =
            watch(|| pin!(provider.decrypt_data_key(&slot, &kms_context)).as_mut().poll(&mut polled));
        let Poll::Ready(DataKeyAnswer::Failed(error)) = answer else {
            panic!("{memory} KiB, {passes} passes, {lanes} lanes: it is tried")
        };
        assert_eq!(error.kind(), AuthenticationFailed);
        assert!(allocated.total < 16_384, "{memory} KiB, {passes} passes, {lanes} lanes: {allocated:?}");
    }
}

/// Opens `message` every way, within bounds, and as the model says.
fn fuzz(sample: &Sample, message: &[u8]) -> Option<ErrorKind> {
    let mut kind = None;
    for way in [Way::Whole, Way::Stream(64), Way::Seek(64), Way::Range] {
        let (result, allocated) = watch(|| sample.check(way, message));
        let verdict = result.unwrap_or_else(|fault| panic!("{fault}: {message:02x?}"));
        assert!(allocated.largest <= LARGEST.max(2 * message.len()), "{allocated:?}: {message:02x?}");
        if way.walk() == Walk::Stream {
            kind = verdict.error;
        }
    }
    kind
}

#[test]
fn random_garbage_and_mutated_messages_never_panic_and_answer_as_the_format_says() {
    let mut random = Random::new(0x00E1_4B01);
    let samples = [Sample::rich(Aes256Gcm, 77), Sample::plain(Aes256Gcm, 40)];
    let mut kinds = std::collections::HashMap::new();
    let rounds = 12_000;
    for round in 0..rounds {
        let sample = &samples[round % 2];
        let mut message = sample.known.message.clone();
        let head = &sample.known.head;
        match random.below(8) {
            0 => {
                let len = random.below(400);
                let garbage = random.bytes(len);
                // Half of them get past the magic, or nothing behind it would be reached.
                message = if random.one_in(2) { [&b"ELK\x01\x00"[..], &garbage].concat() } else { garbage };
            }
            1 => message.truncate(random.below(message.len())),
            2 => {
                let at = random.below(message.len());
                let count = random.below(message.len() - at).min(40);
                message.drain(at..at + count);
            }
            3 => {
                let (at, count) = (random.below(message.len()), random.below(70));
                let bytes = random.bytes(count);
                message.splice(at..at, bytes);
            }
            _ => {
                // Most of them in what decides: lengths, slots, parameters.
                let spots =
                    [0..head.core.end, head.area.start - 2..head.padding.start, head.floe.clone(), 0..message.len()];
                for _ in 0..1 + random.below(4) {
                    let spot = &spots[random.below(spots.len())];
                    let at = spot.start + random.below(spot.len());
                    let extremes = [0, 1, 0x7F, 0x80, 0xFF];
                    let byte = if random.one_in(2) { extremes[random.below(5)] } else { random.bytes(1)[0] };
                    message[at.max(1)] = byte;
                }
            }
        }
        *kinds.entry(fuzz(sample, &message)).or_insert(0) += 1;
    }
    say(format!("random mutations: {rounds} in four ways: {kinds:?}"));
    assert!(kinds.len() >= 8, "too few kinds were reached: {kinds:?}");
}

#[test]
fn every_flipped_bit_of_a_head_stays_within_the_bounds_on_memory() {
    let sample = Sample::rich(Aes256Gcm, 1);
    let mut tried = 0;
    for (byte, _, message) in flips(&sample.known.message) {
        if byte < sample.known.head.padding.start || byte >= sample.known.head.floe.start {
            fuzz(&sample, &message);
            tried += 1;
        }
    }
    say(format!("flipped heads within the bounds on memory: {tried}"));
    assert!(tried > 2_000);
}
