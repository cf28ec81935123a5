//! A fork with an encryptor prepared: parent and child never seal under the same IVs.

use crate::support::child::{Running, tell, words};
use crate::support::providers::Scripted;
use crate::support::{model, say};
use envelock::blocking::Envelope;
use envelock::{AssociatedData, DataKeyAnswer, EncryptWriter, EncryptionContext, Encryptor, ErrorKind, RawKeyProvider};
use std::collections::HashSet;
use std::io::{Read, Write};

const SEGMENT_LEN: usize = 64;
/// More than the buffer of segment IVs holds, so that every state of it occurs.
const SEGMENTS: usize = 70;
/// Messages that each process makes after the fork.
const MESSAGES: usize = 200;

fn envelope() -> Envelope {
    let provider = RawKeyProvider::generate("fork").unwrap();
    Envelope::new(envelock::Envelope::builder(provider).segment_len(64).build().unwrap())
}

/// A child by fork.
struct Fork {
    id: libc::pid_t,
    from_child: std::io::PipeReader,
}

impl Fork {
    /// Runs `child` in a fork of this process.
    fn start(child: impl FnOnce() -> Vec<u8>) -> Self {
        let (from_child, mut to_parent) = std::io::pipe().unwrap();
        // SAFETY: this process is a part with no other thread that could hold a lock: libtest runs a
        // single test on its main thread. The child leaves by `_exit`.
        let id = unsafe { libc::fork() };
        assert!(id >= 0, "{}", std::io::Error::last_os_error());
        if id == 0 {
            let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            let sent = answer.is_ok_and(|answer| to_parent.write_all(&answer).is_ok());
            // SAFETY: ends this process; nothing of the parent's is run.
            unsafe { libc::_exit(i32::from(!sent)) }
        }
        Self { id, from_child }
    }

    /// What the child returned.
    fn answer(mut self) -> Vec<u8> {
        let mut answer = Vec::new();
        self.from_child.read_to_end(&mut answer).unwrap();
        let mut status = 0;
        // SAFETY: it is our child, and `status` outlives the call.
        assert_eq!(unsafe { libc::waitpid(self.id, &raw mut status, 0) }, self.id);
        assert_eq!(status, 0, "the child failed");
        answer
    }
}

/// FLOE IV, then segment IVs, of a message.
fn ivs(message: &[u8]) -> Vec<Vec<u8>> {
    let head = model::Head::judge(message).unwrap();
    let floe_iv = message[head.floe.start + 10..head.floe.start + 42].to_vec();
    let segments = message[head.len()..].chunks(SEGMENT_LEN).map(|segment| segment[4..16].to_vec());
    std::iter::once(floe_iv).chain(segments).collect()
}

fn plaintext(segments: usize) -> Vec<u8> {
    vec![7; segments * (SEGMENT_LEN - 32)]
}

/// What the child finds when it goes on with the parent's encryptors and writers: a line each.
fn go_on(encryptors: Vec<Encryptor>, writers: Vec<EncryptWriter<Vec<u8>>>) -> Vec<String> {
    let refused = |what: &str, error: &envelock::Error| {
        format!("{what} {} {}", error.kind() == ErrorKind::InvalidInput, error.to_string().contains("fork"))
    };
    let mut found = Vec::new();
    let mut encryptors = encryptors.into_iter();
    let mut next = || encryptors.next().unwrap();
    found.push(refused("seal", &next().seal(b"x").unwrap_err()));
    let encryptor = next();
    let mut out = vec![0; usize::try_from(encryptor.sealed_len(1).unwrap()).unwrap()];
    found.push(refused("seal_to", &encryptor.seal_to(b"x", &mut out).unwrap_err()));
    assert!(out.iter().all(|&byte| byte == 0), "something was written");
    found.push(refused("into_writer", next().into_writer(Vec::new()).finish().unwrap_err().error()));
    found.push(refused("into_segment_writer", next().into_segment_writer(Vec::new()).finish().unwrap_err().error()));
    for mut writer in writers {
        let before = writer.inner().len();
        let written = writer.write_all(&plaintext(2)).map_err(|error| error.to_string());
        let error = writer.finish().unwrap_err();
        let (error, inner) = error.into_parts();
        // Nothing was sealed: at most the head, which the parent has as well, went out.
        let head = if before == 0 { model::Head::judge(&inner).unwrap().len() } else { 0 };
        let nothing = inner.len() == before + head;
        found.push(format!("writer {} {nothing} {}", error.kind() == ErrorKind::InvalidInput, written.is_err()));
    }
    found
}

#[test]
fn a_fork_cannot_go_on_with_a_message_and_makes_others_of_its_own() {
    if words().is_some() {
        return fork_and_compare();
    }
    let lines =
        Running::start("fork::a_fork_cannot_go_on_with_a_message_and_makes_others_of_its_own", &["both"]).succeed();
    say(lines.last().unwrap());
    assert_eq!(lines.len(), 1);
}

fn fork_and_compare() {
    let (envelope, context) = (envelope(), EncryptionContext::default());
    let encryptor = || envelope.encryptor(&context).unwrap();
    let encryptors: Vec<_> = (0..4).map(|_| encryptor()).collect();
    // Writers before their first segment, after it, and in the middle of a buffer of IVs.
    let begun: Vec<_> = [0, 1, 2, 3, 20, 33, 34, 50]
        .map(|segments| {
            let mut writer = encryptor().into_writer(Vec::new());
            writer.write_all(&plaintext(segments)).unwrap();
            writer
        })
        .into();
    let count = 4 + begun.len();
    let make =
        || -> Vec<u8> { (0..MESSAGES).flat_map(|_| envelope.encrypt(&plaintext(3), &context).unwrap()).collect() };
    let message_len = envelope.encrypt(&plaintext(3), &context).unwrap().len();

    // Both sides hold the same encryptors and writers from here on.
    let mut both = Some((encryptors, begun));
    let fork = Fork::start(|| {
        let (encryptors, writers) = both.take().unwrap();
        let found = go_on(encryptors, writers).join("\n");
        [format!("{found}\n\n").into_bytes(), make()].concat()
    });
    let (encryptors, writers) = both.take().unwrap();
    let mut all = Vec::new();
    for encryptor in encryptors {
        all.push(encryptor.seal(&plaintext(SEGMENTS)).unwrap());
    }
    for mut writer in writers {
        writer.write_all(&plaintext(SEGMENTS)).unwrap();
        all.push(writer.finish().unwrap());
    }
    for message in &all {
        envelope.decrypt(message, &context).unwrap();
    }
    all.extend(make().chunks(message_len).map(<[u8]>::to_vec));

    let answer = fork.answer();
    let end = answer.windows(2).position(|pair| pair == b"\n\n").unwrap();
    let found: Vec<_> = std::str::from_utf8(&answer[..end]).unwrap().lines().collect();
    assert_eq!(found.len(), count);
    assert!(found.iter().all(|line| line.ends_with(" true true")), "{found:#?}");
    let of_child: Vec<_> = answer[end + 2..].chunks(message_len).map(<[u8]>::to_vec).collect();
    assert_eq!(of_child.len(), MESSAGES);
    for message in &of_child {
        envelope.decrypt(message, &context).unwrap();
    }
    all.extend(of_child);

    let (mut floe, mut segment) = (HashSet::new(), HashSet::new());
    let mut drawn = 0;
    for message in &all {
        let mut ivs = ivs(message).into_iter();
        assert!(floe.insert(ivs.next().unwrap()), "a FLOE IV twice");
        for iv in ivs {
            drawn += 1;
            assert!(segment.insert(iv), "a segment IV twice");
        }
    }
    assert_eq!(segment.len(), drawn);
    tell(format!(
        "fork: {} FLOE IVs and {drawn} segment IVs of parent and child, none twice; {count} encryptors and writers refused in the child",
        floe.len()
    ));
}

#[test]
fn a_data_key_at_hand_at_a_fork_serves_both_sides_under_different_ivs() {
    if words().is_none() {
        let test = "fork::a_data_key_at_hand_at_a_fork_serves_both_sides_under_different_ivs";
        return assert_eq!(Running::start(test, &["both"]).succeed(), ["done"]);
    }
    // The worst case of a cached data key: every message of both processes is under the same one.
    let provider = Scripted::shared(Scripted::numbered(1), |_| DataKeyAnswer::Key(Scripted::key()));
    let envelope = Envelope::new(envelock::Envelope::builder(provider).segment_len(64).build().unwrap());
    let context = EncryptionContext::default();
    let make = || envelope.encrypt(&plaintext(3), &context).unwrap();
    let len = make().len();
    let fork = Fork::start(|| (0..MESSAGES).flat_map(|_| make()).collect());
    let mut all: Vec<_> = (0..MESSAGES).map(|_| make()).collect();
    all.extend(fork.answer().chunks(len).map(<[u8]>::to_vec));
    let distinct: HashSet<_> = all.iter().flat_map(|message| ivs(message)).collect();
    assert_eq!(distinct.len(), all.len() * 4);
    tell("done");
}

#[test]
fn a_record_set_at_hand_at_a_fork_seals_on_both_sides_under_nonces_of_their_own() {
    if words().is_none() {
        let test = "fork::a_record_set_at_hand_at_a_fork_seals_on_both_sides_under_nonces_of_their_own";
        return assert_eq!(Running::start(test, &["both"]).succeed(), ["done"]);
    }
    let set = envelope().record_set(&EncryptionContext::default()).unwrap();
    let place = AssociatedData::from_bytes("place");
    let make = || -> Vec<Vec<u8>> {
        let mut records: Vec<_> = (0..MESSAGES).map(|_| set.seal(b"value", &place).unwrap()).collect();
        records.extend(set.seal_batch(&vec![(b"value", place.clone()); MESSAGES]).unwrap());
        records
    };
    let len = make()[0].len();
    let fork = Fork::start(|| make().concat());
    let mut all = make();
    all.extend(fork.answer().chunks(len).map(<[u8]>::to_vec));
    assert_eq!(all.len(), 4 * MESSAGES);
    assert!(all.iter().all(|record| set.open(record, &place).unwrap() == b"value"));
    let nonces: HashSet<_> = all.iter().map(|record| &record[17..41]).collect();
    assert_eq!(nonces.len(), all.len());
    tell("done");
}

#[test]
fn a_cached_data_key_serves_both_sides_of_a_fork_under_different_ivs() {
    if words().is_none() {
        let test = "fork::a_cached_data_key_serves_both_sides_of_a_fork_under_different_ivs";
        let lines = Running::start(test, &["both"]).succeed();
        say(lines.last().unwrap());
        return assert_eq!(lines.len(), 1);
    }
    let provider = RawKeyProvider::generate("fork").unwrap();
    let builder = envelock::Envelope::builder(provider).segment_len(64).cache(envelock::CacheLimits::default());
    let envelope = Envelope::new(builder.build().unwrap());
    let context = EncryptionContext::default();
    let make = || envelope.encrypt(&plaintext(3), &context).unwrap();
    let first = make();
    let fork = Fork::start(|| (0..MESSAGES).flat_map(|_| make()).collect());
    let mut all = vec![first.clone()];
    all.extend((0..MESSAGES).map(|_| make()));
    all.extend(fork.answer().chunks(first.len()).map(<[u8]>::to_vec));
    assert_eq!(all.len(), 1 + 2 * MESSAGES);
    let slots = |message: &[u8]| envelock::Header::parse(message).unwrap().slots().to_vec();
    assert!(all.iter().all(|message| slots(message) == slots(&first)), "one data key for all of them");
    let distinct: HashSet<_> = all.iter().flat_map(|message| ivs(message)).collect();
    assert_eq!(distinct.len(), all.len() * 4, "an IV twice");
    for message in &all {
        assert_eq!(envelope.decrypt(message, &context).unwrap(), plaintext(3));
    }
    tell(format!(
        "fork: {} messages of parent and child under one cached data key, {} IVs, none twice",
        all.len(),
        distinct.len()
    ));
}
