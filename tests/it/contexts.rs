//! Contexts and providers: what must agree, who is asked, how often, and which error wins.

use crate::support::providers::{Counted, Down, Scripted, all, raw};
use envelock::ErrorKind::*;
use envelock::{
    ContextMatch, DataKey, DataKeyAnswer, EncryptedDataKey, EncryptionContext, Envelope, Error, ErrorKind, Header,
    KeyProvider, Limits, MultiProvider, PassphraseCost, PassphraseProvider, blocking,
};
use std::sync::Arc;

fn envelope(provider: &Arc<dyn KeyProvider>) -> blocking::Envelope {
    blocking::Envelope::new(Envelope::builder(Arc::clone(provider)).build().unwrap())
}

fn empty() -> EncryptionContext {
    EncryptionContext::new()
}

/// What a reader who gives `given` answers to a message made with `made`: exactly, and at least.
fn answers(made: &EncryptionContext, given: &EncryptionContext) -> [Option<ErrorKind>; 2] {
    let envelope = envelope(&raw("mine", 1));
    let sealed = envelope.encrypt(b"x", made).unwrap();
    let kind = |envelope: &blocking::Envelope| envelope.decrypt(&sealed, given).err().map(|e| e.kind());
    [kind(&envelope), kind(&envelope.accepting_more_context())]
}

#[test]
fn a_reader_names_all_entries_or_at_least_some() {
    assert_eq!(ContextMatch::default(), ContextMatch::Exact);
    let two = || EncryptionContext::from([("a", "1"), ("b", "2")]);
    let one = || EncryptionContext::from([("a", "1")]);
    let (mismatch, fine) = (Some(ContextMismatch), None);
    assert_eq!(answers(&two(), &two()), [fine, fine]);
    assert_eq!(answers(&two(), &EncryptionContext::from([("b", "2"), ("a", "1")])), [fine, fine], "in any order");
    assert_eq!(answers(&two(), &one()), [mismatch, fine], "fewer");
    assert_eq!(answers(&two(), &empty()), [mismatch, fine], "none");
    assert_eq!(answers(&one(), &two()), [mismatch, mismatch], "more");
    assert_eq!(answers(&empty(), &one()), [mismatch, mismatch], "one where there is none");
    assert_eq!(answers(&two(), &one().with("b", "3")), [mismatch, mismatch], "another value");
    assert_eq!(answers(&two(), &one().with("c", "2")), [mismatch, mismatch], "another key");
    assert_eq!(answers(&one().with("b", ""), &one().with("b", "")), [fine, fine], "values may be empty");
}

#[test]
fn an_unstored_entry_must_be_known_to_the_reader() {
    let made = || EncryptionContext::from([("a", "1")]).with_unstored("secret", "s");
    let given = |secret: &str| EncryptionContext::from([("a", "1"), ("secret", secret)]);
    let (mismatch, fine) = (Some(ContextMismatch), None);
    assert_eq!(answers(&made(), &made()), [fine, fine]);
    // "The caller's entries are one set": how they are given on reading does not count.
    assert_eq!(answers(&made(), &given("s")), [fine, fine]);
    assert_eq!(answers(&made(), &empty().with_unstored("a", "1").with("secret", "s")), [fine, fine]);
    // So too where all of the message's entries are stored: one given as unstored is compared like any other.
    let stored = || EncryptionContext::from([("a", "1")]);
    assert_eq!(answers(&stored(), &empty().with_unstored("a", "1")), [fine, fine]);
    assert_eq!(answers(&stored(), &empty().with_unstored("a", "2")), [mismatch, mismatch]);
    assert_eq!(answers(&made(), &EncryptionContext::from([("a", "1")])), [mismatch, mismatch]);
    assert_eq!(answers(&made(), &EncryptionContext::from([("secret", "s")])), [mismatch, fine]);
    // Its value is nowhere to compare with: the key fails.
    let wrong = Some(AuthenticationFailed);
    assert_eq!(answers(&made(), &given("t")), [wrong, wrong]);
    assert_eq!(answers(&made(), &made().with("more", "x")), [wrong, wrong]);
    assert_eq!(answers(&EncryptionContext::from([("a", "1")]), &made()), [mismatch, mismatch]);
    // It is not in the message.
    let sealed = envelope(&raw("mine", 1)).encrypt(b"", &made().with_unstored("where", "nowhere-to-be-seen")).unwrap();
    assert!(!sealed.windows(18).any(|it| it == b"nowhere-to-be-seen"));
    assert!(Header::parse(&sealed).unwrap().has_unstored_context());
}

#[test]
fn contexts_that_break_the_rules_are_invalid_input_before_any_call() {
    let (provider, calls) = Counted::wrap(raw("mine", 1));
    let envelope = envelope(&provider);
    let sealed = envelope.encrypt(b"", &empty()).unwrap();
    let made = calls.all();
    let bad = [
        ("an empty key", empty().with("", "v")),
        ("an empty unstored key", empty().with_unstored("", "v")),
        ("a reserved key", empty().with("envelock-use", "message/1")),
        ("another reserved key", empty().with("envelock-", "")),
        ("a reserved unstored key", empty().with_unstored("envelock-x", "v")),
        ("a key twice", empty().with("a", "1").with("a", "1")),
        ("a key stored and unstored", empty().with("a", "1").with_unstored("a", "1")),
        ("a key twice, collected", [("a", "1"), ("a", "2")].into_iter().collect()),
    ];
    for (what, context) in &bad {
        assert_eq!(envelope.encrypt(b"", context).unwrap_err().kind(), InvalidInput, "{what}");
        assert_eq!(envelope.decrypt(&sealed, context).unwrap_err().kind(), InvalidInput, "{what}");
    }
    for fine in ["envelock", "Envelock-use", " ", "a\0b", "\u{1F511}"] {
        let context = empty().with(fine, "v");
        let sealed = envelope.encrypt(b"x", &context).unwrap();
        assert_eq!(envelope.decrypt(&sealed, &context).unwrap(), b"x", "{fine:?}");
    }
    assert_eq!(calls.all() - made, 2 * 5);
}

#[test]
fn the_longest_context_is_8192_bytes_as_the_kms_sees_it() {
    let (provider, calls) = Counted::wrap(raw("mine", 1));
    let envelope = envelope(&provider);
    // u16(count), the constant entry (2 + 12 + 2 + 9), and one entry: 2 + 1 + 2 + value.
    let room = 8_192 - 2 - 25 - 5;
    let stored = |len: usize| empty().with("k", "v".repeat(len));
    let unstored = |len: usize| empty().with_unstored("k", "v".repeat(len));
    for context in [stored(room), unstored(room)] {
        let sealed = envelope.encrypt(b"x", &context).unwrap();
        assert_eq!(envelope.decrypt(&sealed, &context).unwrap(), b"x");
    }
    let header = Header::parse(&envelope.encrypt(b"", &stored(room)).unwrap()).unwrap();
    assert_eq!(header.stored_context().iter().map(|(_, value)| value.len()).sum::<usize>(), room);
    let made = calls.all();
    for context in [stored(room + 1), unstored(room + 1), stored(70_000), stored(room - 4).with_unstored("l", "")] {
        assert_eq!(envelope.encrypt(b"", &context).unwrap_err().kind(), InvalidInput);
    }
    assert_eq!(calls.all(), made);
    // On reading, the union counts: stored entries that fit and unstored ones that make it too long.
    let half = empty().with("k", "v".repeat(room / 2)).with_unstored("l", "w");
    let sealed = envelope.encrypt(b"", &half).unwrap();
    let long = empty().with("k", "v".repeat(room / 2)).with_unstored("l", "w".repeat(room / 2));
    let before = calls.all();
    assert_eq!(envelope.decrypt(&sealed, &long).unwrap_err().kind(), LimitExceeded);
    assert_eq!(calls.all(), before);
}

fn failed(kind: ErrorKind) -> DataKeyAnswer {
    DataKeyAnswer::Failed(Error::new(kind, "as told"))
}

/// A message of `count` numbered slots, and what `answer` makes of it: the result, and who was asked.
fn ask(
    count: u8,
    limits: Limits,
    answer: impl Fn(u8) -> DataKeyAnswer + Send + Sync + 'static,
) -> (Option<ErrorKind>, Vec<u8>) {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let provider = Scripted::shared(Scripted::numbered(count), move |slot| {
        let number = slot.wrapped()[0];
        seen.lock().unwrap().push(number);
        answer(number)
    });
    let envelope = Envelope::builder(provider).limits(limits).build().unwrap();
    let sealed = blocking::wait(envelope.encrypt(b"x", &empty())).unwrap();
    let kind = blocking::wait(envelope.decrypt(&sealed, &empty())).err().map(|e| e.kind());
    let asked = asked.lock().unwrap().clone();
    (kind, asked)
}

#[test]
fn slots_are_tried_in_order_and_four_of_them_at_most() {
    let key = || DataKeyAnswer::Key(Scripted::key());
    let fail = |_| failed(AuthenticationFailed);
    assert_eq!(ask(6, Limits::default(), fail), (Some(LimitExceeded), vec![0, 1, 2, 3]));
    assert_eq!(ask(4, Limits::default(), fail), (Some(AuthenticationFailed), vec![0, 1, 2, 3]));
    let fourth = move |n| if n == 3 { key() } else { failed(AuthenticationFailed) };
    assert_eq!(ask(6, Limits::default(), fourth), (None, vec![0, 1, 2, 3]));
    // Those that are not the reader's cost no try.
    let last = move |n| if n == 31 { key() } else { DataKeyAnswer::NotMine };
    assert_eq!(ask(32, Limits::default(), last), (None, (0..32).collect()));
    assert_eq!(ask(32, Limits::default(), |_| DataKeyAnswer::NotMine), (Some(NoMatchingKey), (0..32).collect()));
    // A key that fails the header tag is not the key, and was a try.
    let wrong = || DataKeyAnswer::Key(DataKey::from_slice(&[1; 32]).unwrap());
    assert_eq!(ask(2, Limits::default(), move |n| if n == 0 { wrong() } else { key() }), (None, vec![0, 1]));
    assert_eq!(ask(5, Limits::default(), move |_| wrong()), (Some(LimitExceeded), vec![0, 1, 2, 3]));
    let mut limits = Limits::default();
    limits.slots_tried = 1;
    assert_eq!(ask(2, limits.clone(), fail), (Some(LimitExceeded), vec![0]));
    limits.slots_tried = 0;
    let refused = Envelope::builder(raw("mine", 1)).limits(limits).build();
    assert_eq!(refused.unwrap_err().kind(), InvalidInput);
}

#[test]
fn a_data_key_of_another_length_is_a_failed_try() {
    for len in [16, 24] {
        let short = move |n| match n {
            0 => DataKeyAnswer::Key(DataKey::from_slice(&vec![0x77; len]).unwrap()),
            _ => DataKeyAnswer::Key(Scripted::key()),
        };
        assert_eq!(ask(1, Limits::default(), short), (Some(AuthenticationFailed), vec![0]));
        assert_eq!(ask(2, Limits::default(), short), (None, vec![0, 1]));
    }
    assert!(DataKey::from_slice(&[0; 31]).is_err() && DataKey::from_slice(&[]).is_err());
}

#[test]
fn of_several_failures_the_most_retryable_is_reported() {
    let order = |kinds: Vec<ErrorKind>| {
        let count = u8::try_from(kinds.len()).unwrap();
        ask(count, Limits::default(), move |n| failed(kinds[usize::from(n)])).0.unwrap()
    };
    for winner in [Unavailable, Busy] {
        for place in 0..3 {
            let mut kinds = vec![AuthenticationFailed, KeyDenied, KeyState];
            kinds.insert(place, winner);
            assert_eq!(order(kinds), winner);
        }
    }
    for winner in [KeyDenied, KeyState] {
        assert_eq!(order(vec![AuthenticationFailed, winner]), winner);
        assert_eq!(order(vec![winner, AuthenticationFailed]), winner);
    }
    assert_eq!(order(vec![AuthenticationFailed, AuthenticationFailed]), AuthenticationFailed);
    // Among providers as among slots: a member that is down does not hide one that opens.
    let (near, down) = (raw("near", 1), Down::shared("com.example.hsm", "far", Unavailable));
    let writer: Arc<dyn KeyProvider> =
        Arc::new(MultiProvider::at_least(1, vec![Arc::clone(&down), Arc::clone(&near)]).unwrap());
    let sealed = envelope(&writer).encrypt(b"x", &empty()).unwrap();
    assert_eq!(envelope(&writer).decrypt(&sealed, &empty()).unwrap(), b"x");
    assert_eq!(envelope(&down).decrypt(&sealed, &empty()).unwrap_err().kind(), NoMatchingKey, "its slot is empty");
}

#[test]
fn a_slot_of_another_name_or_key_id_is_not_asked_to_be_opened() {
    let sealed = envelope(&raw("mine", 1)).encrypt(b"x", &empty()).unwrap();
    let kind = |provider: Arc<dyn KeyProvider>| envelope(&provider).decrypt(&sealed, &empty()).err().map(|e| e.kind());
    assert_eq!(kind(raw("mine", 1)), None);
    assert_eq!(kind(raw("Mine", 1)), Some(NoMatchingKey));
    assert_eq!(kind(raw("mine", 2)), Some(AuthenticationFailed));
    assert_eq!(kind(cheap("words")), Some(NoMatchingKey), "no derivation was tried");
}

fn cheap(words: &str) -> Arc<dyn KeyProvider> {
    let cost = PassphraseCost { memory_kib: 64, passes: 1, lanes: 1 };
    Arc::new(PassphraseProvider::new(words).unwrap().with_cost(cost).unwrap())
}

#[test]
fn several_providers_are_refused_where_they_could_not_all_be_read() {
    let refused = |needed, members: Vec<Arc<dyn KeyProvider>>| {
        MultiProvider::at_least(needed, members).err().map(|e| e.kind()) == Some(InvalidInput)
    };
    assert!(MultiProvider::all(Vec::new()).is_err());
    assert!(refused(0, vec![raw("a", 1)]) && refused(2, vec![raw("a", 1)]));
    assert!(refused(1, vec![raw("a", 1), raw("a", 2)]), "one recipient twice");
    assert!(refused(1, vec![cheap("x"), cheap("y")]), "a message has one passphrase slot at most");
    assert!(!refused(2, vec![raw("a", 1), cheap("x")]));
    let both = all(&[&raw("a", 1), &cheap("x")]);
    let sealed = envelope(&both).encrypt(b"x", &empty()).unwrap();
    for one in [raw("a", 1), cheap("x"), both] {
        assert_eq!(envelope(&one).decrypt(&sealed, &empty()).unwrap(), b"x");
    }
    assert_eq!(envelope(&cheap("y")).decrypt(&sealed, &empty()).unwrap_err().kind(), AuthenticationFailed);
}

#[test]
fn slots_that_no_reader_would_take_are_not_written() {
    let write = |slots: Vec<EncryptedDataKey>| {
        let provider = Scripted::shared(slots, |_| DataKeyAnswer::NotMine);
        envelope(&provider).encrypt(b"", &empty()).err().map(|e| e.kind())
    };
    let slot = |provider: &str| EncryptedDataKey::new(provider, "k", "w");
    assert_eq!(write(vec![slot("com.example.a"); 32]), None);
    assert_eq!(write(vec![slot("com.example.a"); 33]), Some(LimitExceeded));
    assert_eq!(write(Vec::new()), Some(InvalidInput));
    assert_eq!(write(vec![EncryptedDataKey::missing("raw", "k")]), Some(InvalidInput), "all are missing");
    assert_eq!(write(vec![slot("")]), Some(InvalidInput));
    assert_eq!(write(vec![slot("sch\u{F6}n")]), Some(InvalidInput));
    assert_eq!(write(vec![slot(&"n".repeat(255))]), None);
    assert_eq!(write(vec![slot(&"n".repeat(256))]), Some(InvalidInput));
    assert_eq!(write(vec![slot("passphrase"), slot("passphrase")]), Some(InvalidInput));
    let long = |len| EncryptedDataKey::new("com.example.a", "k", vec![1; len]);
    // 7 of core, 2 of m, 1 of count, 1 + 13 of name, 2 + 1 of key id, 2 of length.
    assert_eq!(write(vec![long(65_536 - 29)]), None);
    assert_eq!(write(vec![long(65_536 - 28)]), Some(LimitExceeded));
}
