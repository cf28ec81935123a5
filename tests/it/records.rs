//! Record sets and their records, through the public face: round trips, damage, swaps, rewraps.

use crate::support::damage::{flips, truncations};
use crate::support::providers::{Counted, raw};
use crate::support::say;
use envelock::blocking::Envelope;
use envelock::{
    AssociatedData, CacheLimits, Column, EncryptionContext, ErrorKind, Fingerprint, KeyProvider, Limits, LocalKms,
    RecordSet, RecordSetHeader, Records, RewrapMode, RewrapOptions, RootKey, blocking, from_text, to_text,
};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

const IBAN: Column<'_> = Column::new("customers", "iban");
const VALUE: &[u8] = b"DE02120300000000202051";
/// What a record adds to its value.
const OVERHEAD: usize = 57;

fn envelope_of(provider: Arc<dyn KeyProvider>) -> Envelope {
    Envelope::new(envelock::Envelope::builder(provider).build().unwrap())
}

fn envelope() -> Envelope {
    envelope_of(raw("primary", 7))
}

fn acme() -> EncryptionContext {
    EncryptionContext::from([("tenant", "acme")])
}

fn kind<T>(result: Result<T, envelock::Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// Where the slots' m field of a record set stands: after the context and the set's id.
fn slots_at(set: &[u8]) -> usize {
    7 + usize::from(u16::from_be_bytes([set[5], set[6]])) + 16
}

/// `set` with the slots of `other`.
fn with_slots_of(set: &[u8], other: &[u8]) -> Vec<u8> {
    let (at, from) = (slots_at(set), slots_at(other));
    let (tag, until) = (set.len() - 32, other.len() - 32);
    [&set[..at], &other[from..until], &set[tag..]].concat()
}

#[test]
fn records_of_any_length_come_back_from_a_set_that_was_opened_again() {
    let mut opened = 0;
    for context in [
        EncryptionContext::new(),
        acme(),
        acme().with_unstored("purpose", "test"),
        EncryptionContext::new().with_unstored("purpose", "test"),
    ] {
        let writer = envelope().record_set(&context).unwrap();
        let reader = envelope().open_record_set(writer.header(), &context).unwrap();
        assert_eq!(writer.header(), reader.header());
        let parsed = RecordSetHeader::parse(writer.header()).unwrap();
        assert_eq!(parsed.as_bytes(), writer.header());
        assert_eq!((parsed.fingerprint(), parsed.slots().len()), (writer.fingerprint(), 1));
        for len in [0, 1, 15, 16, 17, 100, 1_024, 65_536, 1 << 20] {
            let value: Vec<u8> = (0..251).cycle().take(len).collect();
            let record = writer.seal(&value, &IBAN.row("4711")).unwrap();
            assert_eq!(record.len(), len + OVERHEAD);
            assert_eq!(Fingerprint::of_record(&record).unwrap(), writer.fingerprint());
            assert_eq!(Fingerprint::from_bytes(record[1..17].try_into().unwrap()), writer.fingerprint());
            assert_eq!(reader.open(&record, &IBAN.row("4711")).unwrap(), value);
            assert_eq!(reader.open(&from_text(&to_text(&record)).unwrap(), &IBAN.row("4711")).unwrap(), value);
            opened += 2;
        }
    }
    say(format!("{opened} records opened"));
}

#[test]
fn a_set_costs_one_provider_call_each_way_and_its_records_none() {
    let (provider, calls) = Counted::wrap(raw("primary", 7));
    let envelope = envelope_of(provider);
    let set = envelope.record_set(&acme()).unwrap();
    let records: Vec<_> = (0..1_000).map(|row| set.seal(VALUE, &IBAN.row(row.to_string())).unwrap()).collect();
    assert_eq!(calls.all(), 1);
    let set = envelope.open_record_set(set.header(), &acme()).unwrap();
    for (row, record) in records.iter().enumerate() {
        assert_eq!(set.open(record, &IBAN.row(row.to_string())).unwrap(), VALUE);
    }
    assert_eq!((calls.all(), calls.decrypts()), (2, 1));
}

#[test]
fn a_batch_is_what_its_records_are_one_by_one_and_is_whole_or_an_error() {
    let set = envelope().record_set(&acme()).unwrap();
    let values: Vec<_> = (0..100).map(|row| (vec![row; usize::from(row)], IBAN.row([row]))).collect();
    let records = set.seal_batch(&values).unwrap();
    let mut batch: Vec<_> = records.into_iter().zip(values.iter().map(|(_, place)| place.clone())).collect();
    for ((record, place), (value, _)) in batch.iter().zip(&values) {
        assert_eq!(&set.open(record, place).unwrap(), value);
    }
    let opened = set.open_batch(&batch).unwrap();
    assert!(opened.iter().eq(values.iter().map(|(value, _)| value)));
    assert!(set.seal_batch::<&[u8]>(&[]).unwrap().is_empty());

    batch[42].0[60] ^= 1;
    let error = set.open_batch(&batch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
    assert!(error.to_string().contains("number 42 of the batch"), "{error}");
    let too_long = vec![0; (16 << 20) + 1];
    let error = set.seal_batch(&[(&b"x"[..], IBAN.row("1")), (&too_long, IBAN.row("2"))]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!(error.to_string().contains("number 1 of the batch"), "{error}");
}

#[test]
fn no_nonce_repeats_one_by_one_in_batches_and_on_many_threads() {
    let set = envelope().record_set(&acme()).unwrap();
    let place = IBAN.row("1");
    let sealed: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let work = || {
            let mut records: Vec<_> = (0..1_000).map(|_| set.seal(b"", &place).unwrap()).collect();
            records.extend(set.seal_batch(&vec![(b"", place.clone()); 1_000]).unwrap());
            records
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let nonces: HashSet<_> = sealed.iter().map(|record| &record[17..41]).collect();
    assert_eq!((sealed.len(), nonces.len()), (8_000, 8_000));
    let sets: HashSet<_> = (0..1_000).map(|_| envelope().record_set(&acme()).unwrap().fingerprint()).collect();
    assert_eq!(sets.len(), 1_000);
}

#[test]
fn every_flipped_bit_and_truncation_of_a_record_is_refused_with_its_kind() {
    let set = envelope().record_set(&acme()).unwrap();
    let place = IBAN.row("4711");
    let record = set.seal(VALUE, &place).unwrap();
    let mut counts = BTreeMap::<String, usize>::new();
    let mut count = |what: &str, found: Option<ErrorKind>, expected: ErrorKind| {
        assert_eq!(found, Some(expected), "{what}");
        *counts.entry(format!("{expected:?}")).or_default() += 1;
    };
    for (byte, bit, changed) in flips(&record) {
        let expected = match byte {
            0 => ErrorKind::Malformed,
            1..17 => ErrorKind::NoMatchingKey,
            _ => ErrorKind::AuthenticationFailed,
        };
        count(&format!("bit {bit:#x} of byte {byte}"), kind(set.open(&changed, &place)), expected);
    }
    for cut in truncations(&record) {
        let expected = if cut.len() < OVERHEAD { ErrorKind::Malformed } else { ErrorKind::AuthenticationFailed };
        count(&format!("{} bytes", cut.len()), kind(set.open(cut, &place)), expected);
    }
    for more in 1..40 {
        let longer = [record.clone(), vec![0; more]].concat();
        count(&format!("{more} more"), kind(set.open(&longer, &place)), ErrorKind::AuthenticationFailed);
    }
    say(format!("damaged records: {counts:?}"));
    assert_eq!(counts.values().sum::<usize>(), record.len() * 9 + 39);
}

/// What a flipped bit of a record set may give, by field (docs/format.md, rule 2).
fn allowed(set: &[u8], byte: usize) -> (&'static str, &'static [ErrorKind]) {
    use ErrorKind::*;
    let slots = slots_at(set);
    match byte {
        0..3 => ("magic", &[Malformed]),
        3 => ("version", &[Unsupported]),
        // Bit 0 asks for unstored entries, bit 1 makes a message of it.
        4 => ("flags", &[Unsupported, ContextMismatch]),
        5..7 => ("context length", &[LimitExceeded, Truncated, Malformed]),
        _ if byte < slots - 16 => ("context", &[Malformed, ContextMismatch]),
        _ if byte < slots => ("record-set id", &[AuthenticationFailed]),
        _ if byte < slots + 2 => ("slots length", &[LimitExceeded, Truncated, Malformed]),
        _ if byte == slots + 2 => ("slot count", &[LimitExceeded, Malformed]),
        _ if byte < set.len() - 32 => ("slots", &[Malformed, NoMatchingKey, AuthenticationFailed]),
        _ => ("record-set tag", &[AuthenticationFailed]),
    }
}

#[test]
fn every_flipped_bit_and_truncation_of_a_record_set_is_refused_with_its_kind() {
    let set = envelope().record_set(&acme()).unwrap().header().to_vec();
    let mut counts = BTreeMap::<(&str, String), usize>::new();
    for (byte, bit, changed) in flips(&set) {
        let (field, kinds) = allowed(&set, byte);
        let found = kind(envelope().open_record_set(&changed, &acme())).expect("a changed set is refused");
        assert!(kinds.contains(&found), "{field}, bit {bit:#x} of byte {byte}: {found:?}");
        *counts.entry((field, format!("{found:?}"))).or_default() += 1;
    }
    for cut in truncations(&set) {
        assert_eq!(kind(envelope().open_record_set(cut, &acme())), Some(ErrorKind::Truncated), "{}", cut.len());
        assert_eq!(kind(RecordSetHeader::parse(cut)), Some(ErrorKind::Truncated));
        *counts.entry(("cut", "Truncated".into())).or_default() += 1;
    }
    for more in [&[0][..], &[0xE1], &[0xE1; 57]] {
        let longer = [&set, more].concat();
        assert_eq!(kind(envelope().open_record_set(&longer, &acme())), Some(ErrorKind::TrailingData));
    }
    say(format!("damaged record sets: {counts:?}"));
    assert_eq!(counts.values().sum::<usize>(), set.len() * 9);
}

#[test]
fn a_record_belongs_to_one_row_column_and_table() {
    let set = envelope().record_set(&acme()).unwrap();
    let places = [
        IBAN.row("4711"),
        IBAN.row("4712"),
        IBAN.row(""),
        Column::new("customers", "bic").row("4711"),
        Column::new("suppliers", "iban").row("4711"),
        Column::new("customer", "siban").row("4711"),
        Column::new("customers", "iban4").row("711"),
        AssociatedData::from_bytes("customersiban4711"),
        AssociatedData::from_bytes([]),
    ];
    let records: Vec<_> = places.iter().map(|place| set.seal(VALUE, place).unwrap()).collect();
    let mut refused = 0;
    for (at, record) in records.iter().enumerate() {
        for (other, place) in places.iter().enumerate() {
            match set.open(record, place) {
                Ok(value) => assert!(at == other && value == VALUE, "{place:?} opened what is of {:?}", places[at]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
                    assert!(error.to_string().contains("another place"), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert_eq!(refused, places.len() * (places.len() - 1));
}

#[test]
fn a_record_is_opened_by_its_own_set_which_a_reader_of_several_finds() {
    let sets: Vec<RecordSet> = (0..20).map(|_| envelope().record_set(&acme()).unwrap()).collect();
    let place = IBAN.row("1");
    let mut records = Records::new();
    for set in &sets[1..] {
        records.add(set.clone()).unwrap();
        // Opened from its header, it is the same set, and takes the place of the first.
        records.add(envelope().open_record_set(set.header(), &acme()).unwrap()).unwrap();
    }
    assert_eq!(records.len(), 19);
    let mut batch = Vec::new();
    for set in &sets {
        let record = set.seal(set.header(), &place).unwrap();
        for other in &sets {
            let opened = other.open(&record, &place);
            let same = set.fingerprint() == other.fingerprint();
            assert_eq!(opened.is_ok(), same);
            assert_eq!(kind(opened), (!same).then_some(ErrorKind::NoMatchingKey));
        }
        batch.push((record, place.clone()));
    }
    let opened = records.open_batch(&batch[1..]).unwrap();
    assert!(opened.iter().eq(sets[1..].iter().map(RecordSet::header)));
    let error = records.open(&batch[0].0, &place).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoMatchingKey);
    assert!(error.to_string().contains(&sets[0].fingerprint().to_string()), "{error}");
    assert!(records.set(&sets[0].fingerprint()).is_none() && records.set(&sets[1].fingerprint()).is_some());
}

#[test]
fn a_value_that_stands_alone_comes_back_and_all_damage_to_it_is_refused() {
    let (envelope, context) = (envelope(), acme().with("variable", "DB_PASSWORD"));
    let sealed = envelope.seal_value(b"hunter2", &context).unwrap();
    assert_eq!(envelope.open_value(&sealed, &context).unwrap(), b"hunter2");
    assert_eq!(envelope.open_value(&envelope.seal_value(b"", &context).unwrap(), &context).unwrap(), b"");
    let set = RecordSetHeader::parse(&sealed).unwrap().len();
    assert_eq!(sealed.len(), set + OVERHEAD + 7);
    let mut counts = BTreeMap::<String, usize>::new();
    for (byte, bit, changed) in flips(&sealed) {
        let found = kind(envelope.open_value(&changed, &context)).expect("a changed value is refused");
        let what = format!("bit {bit:#x} of byte {byte}");
        match byte.checked_sub(set) {
            None => assert!(allowed(&sealed[..set], byte).1.contains(&found), "{what}: {found:?}"),
            Some(0) => assert_eq!(found, ErrorKind::TrailingData, "{what}"),
            Some(_) => assert_eq!(found, ErrorKind::AuthenticationFailed, "{what}"),
        }
        *counts.entry(format!("{found:?}")).or_default() += 1;
    }
    for cut in truncations(&sealed) {
        let expected = match cut.len().checked_sub(set) {
            None | Some(0) => ErrorKind::Truncated,
            Some(1..OVERHEAD) => ErrorKind::Malformed,
            Some(_) => ErrorKind::AuthenticationFailed,
        };
        assert_eq!(kind(envelope.open_value(cut, &context)), Some(expected), "{} bytes", cut.len());
        *counts.entry(format!("{expected:?}")).or_default() += 1;
    }
    say(format!("damaged values: {counts:?}"));
    let other = acme().with("variable", "ADMIN_PASSWORD");
    assert_eq!(kind(envelope.open_value(&sealed, &other)), Some(ErrorKind::ContextMismatch));
}

#[test]
fn the_record_behind_a_set_is_judged_before_the_provider_is_asked() {
    let (provider, calls) = Counted::wrap(raw("primary", 7));
    let (envelope, context) = (envelope_of(provider), acme());
    let [one, other] = [b"hunter2", b"hunter3"].map(|value| envelope.seal_value(value, &context).unwrap());
    let set = RecordSetHeader::parse(&one).unwrap().len();
    let mut too_long = vec![0; OVERHEAD + (16 << 20) + 1];
    too_long[..17].copy_from_slice(&one[set..set + 17]);
    let mut foreign = one[set..].to_vec();
    foreign[16] ^= 1;
    let before = calls.all();
    for (rest, expected) in [
        (&[0xE1][..], ErrorKind::Malformed),
        (&one[set..set + OVERHEAD - 1], ErrorKind::Malformed),
        (&too_long[..], ErrorKind::LimitExceeded),
        (&foreign[..], ErrorKind::AuthenticationFailed),
        (&other[other.len() - OVERHEAD - 7..], ErrorKind::AuthenticationFailed),
    ] {
        let value = [&one[..set], rest].concat();
        let rewrapped = envelope.rewrap_record_set(&value, &envelope, &context, RewrapOptions::default());
        assert_eq!(kind(envelope.open_value(&value, &context)), Some(expected));
        assert_eq!(kind(envelope.verify_record_set(&value, &context)), Some(expected));
        assert_eq!(kind(rewrapped), Some(expected));
    }
    assert_eq!(kind(envelope.open_value(&one[..set], &context)), Some(ErrorKind::Truncated));
    assert_eq!(calls.all(), before);
    // What does not begin as a record is told only once the set has verified.
    let trailing = [&one[..set], &[0xE0]].concat();
    assert_eq!(kind(envelope.open_value(&trailing, &context)), Some(ErrorKind::TrailingData));
    assert_eq!(calls.all(), before + 1);
    let mut forged = trailing;
    forged[set - 1] ^= 1;
    assert_eq!(kind(envelope.open_value(&forged, &context)), Some(ErrorKind::AuthenticationFailed));
}

#[test]
fn what_is_no_record_set_and_what_is_no_message_is_named_for_what_it_is() {
    let (envelope, context) = (envelope(), acme());
    let message = envelope.encrypt(b"x", &context).unwrap();
    let set = envelope.record_set(&context).unwrap();
    let record = set.seal(b"x", &IBAN.row("1")).unwrap();
    let value = envelope.seal_value(b"x", &context).unwrap();
    let says = |error: envelock::Error, kind: ErrorKind, text: &str| {
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    };
    for other in [set.header(), &value] {
        says(envelope.decrypt(other, &context).unwrap_err(), ErrorKind::Unsupported, "a record set or a value");
    }
    says(envelope.decrypt(&record, &context).unwrap_err(), ErrorKind::Malformed, "a compact record");
    says(envelope.open_value(&record, &context).unwrap_err(), ErrorKind::Malformed, "a compact record");
    says(envelope.open_record_set(&message, &context).unwrap_err(), ErrorKind::Unsupported, "this is a message");
    says(envelope.open_value(&message, &context).unwrap_err(), ErrorKind::Unsupported, "this is a message");
    says(set.open(&message, &IBAN.row("1")).unwrap_err(), ErrorKind::Malformed, "a message or a record set");
    for bytes in [&record, &value, &message] {
        let text = to_text(bytes).into_bytes();
        says(set.open(&text, &IBAN.row("1")).unwrap_err(), ErrorKind::Malformed, "text form");
        says(envelope.open_value(&text, &context).unwrap_err(), ErrorKind::Malformed, "text form");
        says(envelope.decrypt(&text, &context).unwrap_err(), ErrorKind::Malformed, "text form");
    }
    says(set.open(b"DE02", &IBAN.row("1")).unwrap_err(), ErrorKind::Malformed, "never sealed");
    says(set.open(b"", &IBAN.row("1")).unwrap_err(), ErrorKind::Malformed, "at least 57 bytes");
}

/// The constant entry `envelock-use` keeps the two apart under the same key and context.
#[test]
fn a_data_key_wrapped_for_a_message_opens_no_record_set_and_the_other_way_round() {
    let (envelope, context) = (envelope(), acme());
    let message = envelope.encrypt(b"x", &context).unwrap();
    let set = envelope.record_set(&context).unwrap().header().to_vec();
    let (core, end) = (7 + usize::from(u16::from_be_bytes([message[5], message[6]])), slots_at(&set));
    let area_len = 2 + usize::from(u16::from_be_bytes([message[core], message[core + 1]]));
    let messages_slots = &message[core..core + area_len];
    assert_eq!(messages_slots.len(), set.len() - 32 - end, "one slot of the same key each");
    let grafted = [&set[..end], messages_slots, &set[set.len() - 32..]].concat();
    assert_eq!(kind(envelope.open_record_set(&grafted, &context)), Some(ErrorKind::AuthenticationFailed));
    let grafted = [&message[..core], &set[end..set.len() - 32], &message[core + area_len..]].concat();
    assert_eq!(kind(envelope.decrypt(&grafted, &context)), Some(ErrorKind::AuthenticationFailed));
}

#[test]
fn a_rewrap_changes_the_slots_and_neither_tag_nor_records() {
    let (old, new, context) = (envelope(), envelope_of(raw("next", 8)), acme().with_unstored("u", "v"));
    let set = old.record_set(&context).unwrap();
    let record = set.seal(VALUE, &IBAN.row("1")).unwrap();
    let rewrapped = old.rewrap_record_set(set.header(), &new, &context, RewrapOptions::default()).unwrap();
    assert_eq!(rewrapped.removed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["raw:primary"]);
    let header = rewrapped.header;
    assert_eq!(header[header.len() - 32..], set.header()[set.header().len() - 32..]);
    let again = new.open_record_set(&header, &context).unwrap();
    assert_eq!(again.fingerprint(), set.fingerprint());
    assert_eq!(again.open(&record, &IBAN.row("1")).unwrap(), VALUE);
    assert_eq!(kind(old.open_record_set(&header, &context)), Some(ErrorKind::NoMatchingKey));
    let mut records = Records::new();
    records.add(set).unwrap();
    records.add(again).unwrap();
    assert_eq!(records.len(), 1);

    // A value takes its record along.
    let value = old.seal_value(b"hunter2", &context).unwrap();
    let moved = old.rewrap_record_set(&value, &new, &context, RewrapOptions::default()).unwrap();
    assert_eq!(new.open_value(&moved.header, &context).unwrap(), b"hunter2");
    new.verify_record_set(&moved.header, &context).unwrap();
    let mut changed = moved.header.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(kind(new.verify_record_set(&changed, &context)), Some(ErrorKind::AuthenticationFailed));
    let trailing = [new.record_set(&context).unwrap().header(), &[0]].concat();
    assert_eq!(kind(new.verify_record_set(&trailing, &context)), Some(ErrorKind::TrailingData));
    let refused = |set: &[u8], options: RewrapOptions| old.rewrap_record_set(set, &new, &context, options);
    let followed = [&value[..RecordSetHeader::parse(&value).unwrap().len()], &[0]].concat();
    assert_eq!(kind(refused(&followed, RewrapOptions::default())), Some(ErrorKind::TrailingData));
    assert_eq!(kind(refused(&value, RewrapOptions::default().to_file("x"))), Some(ErrorKind::InvalidInput));
    assert_eq!(kind(refused(&header, RewrapOptions::default().keep_others())), Some(ErrorKind::NoMatchingKey));
}

#[test]
fn a_swapped_slot_is_found_by_the_sets_tag_also_after_a_blind_rewrap() {
    let folder = tempfile::tempdir().unwrap();
    let root = RootKey::file(folder.path().join("root.key")).unwrap();
    let kms = LocalKms::open(folder.path().join("keys.db"), root).unwrap();
    blocking::wait(kms.create_key(envelock::CreateKeyRequest::default().alias("alias/orders"))).unwrap();
    let envelope = envelope_of(Arc::new(kms.provider("alias/orders").unwrap()));
    let context = acme();
    let [one, other] = [(); 2].map(|()| envelope.record_set(&context).unwrap());
    let record = one.seal(VALUE, &IBAN.row("1")).unwrap();
    // The same key and context: the swapped slot unwraps, and to another data key.
    let swapped = with_slots_of(one.header(), other.header());
    assert_eq!(kind(envelope.open_record_set(&swapped, &context)), Some(ErrorKind::AuthenticationFailed));
    let open = RewrapOptions::default();
    let refused = envelope.rewrap_record_set(&swapped, &envelope, &context, open);
    assert_eq!(kind(refused), Some(ErrorKind::AuthenticationFailed));

    blocking::wait(kms.rotate("alias/orders")).unwrap();
    let blind = RewrapOptions::default().mode(RewrapMode::Blind);
    let rewrapped = envelope.rewrap_record_set(&swapped, &envelope, &context, blind.clone()).unwrap();
    assert_eq!(kind(envelope.verify_record_set(&rewrapped.header, &context)), Some(ErrorKind::AuthenticationFailed));
    let rewrapped = envelope.rewrap_record_set(one.header(), &envelope, &context, blind).unwrap();
    assert_ne!(rewrapped.header, one.header());
    envelope.verify_record_set(&rewrapped.header, &context).unwrap();
    let verified = envelope.open_record_set(&rewrapped.header, &context).unwrap();
    assert_eq!(verified.open(&record, &IBAN.row("1")).unwrap(), VALUE);
}

#[test]
fn limits_and_context_of_a_reader_hold_for_record_sets() {
    let context = acme().with("object", "x");
    let set = envelope().record_set(&context).unwrap().header().to_vec();
    assert_eq!(kind(envelope().open_record_set(&set, &acme())), Some(ErrorKind::ContextMismatch));
    let more = context.clone().with("more", "y");
    assert_eq!(kind(envelope().open_record_set(&set, &more)), Some(ErrorKind::ContextMismatch));
    envelope().accepting_more_context().open_record_set(&set, &acme()).unwrap();
    let mut limits = Limits::default();
    limits.header_bytes = set.len() - 33;
    let strict = envelock::Envelope::builder(raw("primary", 7)).limits(limits.clone()).build().unwrap();
    assert_eq!(kind(Envelope::new(strict).open_record_set(&set, &context)), Some(ErrorKind::LimitExceeded));
    limits.header_bytes += 1;
    let enough = envelock::Envelope::builder(raw("primary", 7)).limits(limits).build().unwrap();
    Envelope::new(enough).open_record_set(&set, &context).unwrap();
}

/// Sets, values and records cut, extended, overwritten and spliced at random: nothing panics, nothing but the
/// original opens, and what is no record set reaches no key provider.
#[test]
fn random_surgery_on_values_opens_nothing_and_asks_no_provider_for_nonsense() {
    let (provider, calls) = Counted::wrap(raw("primary", 7));
    let (envelope, context) = (envelope_of(provider), acme());
    let set = envelope.record_set(&context).unwrap();
    let originals: Vec<Vec<u8>> = (0..4).map(|at| envelope.seal_value(&[at; 40], &context).unwrap()).collect();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below.max(1)
    };
    let mut counts = BTreeMap::<String, usize>::new();
    for round in 0..20_000 {
        let mut bytes = originals[random(4)].clone();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(5) {
                0 => bytes.truncate(at),
                1 => bytes.extend_from_slice(&originals[random(4)][random(200)..]),
                2 => bytes.iter_mut().skip(at).take(1 + random(8)).for_each(|byte| *byte = random(256) as u8),
                3 => drop(bytes.splice(at.., originals[random(4)][random(200)..].iter().copied())),
                _ => drop(bytes.drain(at..(at + 1 + random(20)).min(bytes.len()))),
            }
        }
        let before = calls.all();
        let opened = envelope.open_value(&bytes, &context);
        let asked = calls.all() - before;
        let parses = RecordSetHeader::parse(&bytes).is_ok();
        assert!(asked == 0 || (parses && asked <= 1), "round {round}: {asked} calls");
        match opened {
            Ok(value) => assert!(originals[usize::from(value[0])] == bytes, "round {round}: a changed value opened"),
            Err(error) => *counts.entry(format!("{:?}", error.kind())).or_default() += 1,
        }
        let record = set.open(&bytes, &IBAN.row("1"));
        assert!(matches!(kind(record), Some(ErrorKind::Malformed | ErrorKind::NoMatchingKey)), "round {round}");
    }
    say(format!("values after random surgery: {counts:?}"));
    assert!(counts.len() >= 6, "{counts:?}");
}

#[test]
fn sets_through_a_cache_cost_one_call_each_way_share_no_key_with_messages_and_are_verified_past_it() {
    let (provider, calls) = Counted::wrap(raw("primary", 7));
    let cached = envelock::Envelope::builder(provider).cache(CacheLimits::default()).build().unwrap();
    let (envelope, context) = (Envelope::new(cached), acme());
    let sets: Vec<_> = (0..100).map(|_| envelope.record_set(&context).unwrap()).collect();
    assert_eq!(calls.all(), 1);
    let fingerprints: HashSet<_> = sets.iter().map(RecordSet::fingerprint).collect();
    assert_eq!(fingerprints.len(), 100, "one data key, and a key of its own for each set");
    let slots = |header: &[u8]| RecordSetHeader::parse(header).unwrap().slots().to_vec();
    assert!(sets.iter().all(|set| slots(set.header()) == slots(sets[0].header())));

    let place = IBAN.row("1");
    for set in &sets {
        let record = set.seal(VALUE, &place).unwrap();
        let again = envelope.open_record_set(set.header(), &context).unwrap();
        assert_eq!(again.open(&record, &place).unwrap(), VALUE);
        assert_eq!(kind(sets[0].open(&record, &place)).is_none(), set.fingerprint() == sets[0].fingerprint());
    }
    assert_eq!((calls.all(), calls.decrypts()), (2, 1));
    let values: Vec<_> = (0..100).map(|_| envelope.seal_value(b"hunter2", &context).unwrap()).collect();
    assert!(values.iter().all(|value| envelope.open_value(value, &context).unwrap() == b"hunter2"));
    assert_eq!(calls.all(), 2, "values are sets with a record");

    // The same provider, tenant and context, and another use.
    let message = envelope.encrypt(b"x", &context).unwrap();
    assert_ne!(envelock::Header::parse(&message).unwrap().slots(), slots(sets[0].header()));
    assert_eq!(calls.all(), 3);
    let other = with_slots_of(sets[0].header(), envelope_of(raw("primary", 7)).record_set(&context).unwrap().header());
    assert_eq!(kind(envelope.open_record_set(&other, &context)), Some(ErrorKind::AuthenticationFailed));

    let before = calls.decrypts();
    envelope.verify_record_set(sets[0].header(), &context).unwrap();
    envelope.verify_record_set(&values[0], &context).unwrap();
    assert_eq!(calls.decrypts(), before + 2, "the provider itself opens what is verified");
}
