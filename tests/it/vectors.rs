//! The project's vectors (`tests/vectors/*.json`, made by the reference in Python) through every way
//! to open a message.

use crate::cases::{
    Outcome, context, detached, envelope, plain_context, plaintext, ranged, say, seekable_kind, seeking, streamed,
    text, unhex, whole,
};
use envelock::blocking::wait;
use envelock::{AssociatedData, EncryptionContext, Envelope, ErrorKind, Records, from_text};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// What a vector says the streaming reader does.
fn expected(vector: &Value) -> (Option<&str>, Vec<u8>) {
    let expect = &vector["expect"];
    let number = |name: &str| usize::try_from(expect[name].as_u64().unwrap()).unwrap();
    match expect["kind"].as_str() {
        Some(kind) => (Some(kind), plaintext(number("released"))),
        None => (None, plaintext(number("plaintext_length"))),
    }
}

/// The file of another shape: record sets, records and values.
const RECORDS: &str = "records";

fn vectors() -> Vec<(String, Value)> {
    all_vectors().into_iter().filter(|(name, _)| !name.starts_with(RECORDS)).collect()
}

fn all_vectors() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut vectors = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|it| it == "json")) {
        let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        for vector in file["vectors"].as_array().unwrap() {
            vectors.push((format!("{stem}: {}", text(vector, "name")), vector.clone()));
        }
    }
    vectors
}

/// Whether the vector's head opens: from there on readers may differ in how they find a fault.
fn head_opens(envelope: &Envelope, message: &[u8], context: &EncryptionContext) -> bool {
    wait(envelope.decrypt_reader(message, context)).is_ok()
}

/// What is wrong with how `vector` opens, in words.
fn faults(vector: &Value, opens: &mut usize) -> Vec<String> {
    let (kind, out) = expected(vector);
    let (message, envelope) = (unhex(text(vector, "message")), envelope(vector));
    let mut faults = Vec::new();
    let mut check = |how: &str, outcome: Outcome, kind: Option<&str>, out: Option<&[u8]>| {
        *opens += 1;
        if outcome.kind().as_deref() != kind || out.is_some_and(|out| outcome.released() != out) {
            let got = (outcome.kind(), outcome.released().len());
            faults.push(format!("{how}: {got:?} instead of {:?}", (kind, out.map(<[u8]>::len))));
        }
    };
    for (style, context) in [("", context(vector)), (", entries unmarked", plain_context(vector))] {
        // All or nothing: only the streaming reader hands out what verified before a fault.
        let at_once = if kind.is_none() { out.as_slice() } else { &[] };
        check(&format!("whole{style}"), whole(&envelope, &message, &context), kind, Some(at_once));
        check(&format!("detached{style}"), detached(&envelope, &message, &context), kind, Some(at_once));
        for (read, source) in [(1 << 16, usize::MAX), (32, usize::MAX), (1, 1), (7, 13), (4_096, 3), (33, 64)] {
            let outcome = streamed(&envelope, &message, &context, read, source);
            check(&format!("stream {read}/{source}{style}"), outcome, kind, Some(&out));
        }
        let seekable = match kind {
            Some(_) if head_opens(&envelope, &message, &context) => seekable_kind(&message).map(|it| format!("{it:?}")),
            _ => kind.map(str::to_owned),
        };
        // Which segments come out before the fault depends on the order that the caller reads in; what
        // comes out is plaintext, always.
        let outcome = seeking(&envelope, &message, &context);
        if !plaintext(outcome.released().len()).eq(outcome.released()) {
            panic!("the seeking reader handed out what is no plaintext");
        }
        let all = kind.is_none().then_some(out.as_slice());
        check(&format!("seeking{style}"), outcome, seekable.as_deref(), all);
        check(&format!("range{style}"), ranged(&envelope, &message, &context), seekable.as_deref(), Some(at_once));
    }
    faults
}

#[test]
fn every_vector_opens_or_fails_as_it_says_in_every_way_to_open_it() {
    let mut wrong = Vec::new();
    let mut kinds = BTreeMap::<String, usize>::new();
    let (mut opens, vectors) = (0, vectors());
    for (name, vector) in &vectors {
        let kind = vector["expect"]["kind"].as_str().unwrap_or("opens");
        *kinds.entry(kind.to_owned()).or_default() += 1;
        wrong.extend(faults(vector, &mut opens).into_iter().map(|fault| format!("{name}: {fault}")));
    }
    say(format_args!("vectors: {} in {opens} opens: {kinds:?}", vectors.len()));
    assert!(wrong.is_empty(), "{} opens went wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(vectors.len() >= 251, "vectors are missing: {}", vectors.len());
    for kind in ["Malformed", "Unsupported", "LimitExceeded", "ContextMismatch", "NoMatchingKey"] {
        assert!(kinds.contains_key(kind), "no vector is {kind}");
    }
}

/// What a vector of records gives, in each way to open it: its values, or the kind of the failure.
fn record_values(vector: &Value, context: &EncryptionContext) -> Result<Vec<Vec<u8>>, ErrorKind> {
    let envelope = envelope(vector);
    if let Some(header) = vector["header"].as_str() {
        let set = wait(envelope.open_record_set(&unhex(header), context)).map_err(|error| error.kind())?;
        let records: Vec<_> = vector["records"].as_array().unwrap().iter().map(pair).collect();
        let one_by_one: Result<Vec<_>, _> = records.iter().map(|(record, place)| set.open(record, place)).collect();
        let mut reader = Records::new();
        reader.add(set.clone()).unwrap();
        let all = [one_by_one, set.open_batch(&records), reader.open_batch(&records)];
        let [one_by_one, batch, by_fingerprint] = all.map(|values| values.map_err(|error| error.kind()));
        assert_eq!((&one_by_one, &one_by_one), (&batch, &by_fingerprint));
        one_by_one
    } else {
        let sealed = match vector["text"].as_str() {
            Some(text) => from_text(text).map_err(|error| error.kind())?,
            None => unhex(text(vector, "sealed")),
        };
        let opened = wait(envelope.open_value(&sealed, context)).map_err(|error| error.kind());
        let verified = wait(envelope.verify_record_set(&sealed, context)).map_err(|error| error.kind());
        match (&opened, verified) {
            // A set without a record is whole as a set, and no value.
            (Err(ErrorKind::Truncated), Ok(())) => {}
            (_, verified) => assert_eq!(opened.as_ref().map(drop).map_err(|kind| *kind), verified),
        }
        opened.map(|value| vec![value])
    }
}

/// A record and its associated data.
fn pair(pair: &Value) -> (Vec<u8>, AssociatedData) {
    let part = |at: usize| unhex(pair[at].as_str().unwrap());
    (part(0), AssociatedData::from_bytes(part(1)))
}

#[test]
fn every_vector_of_records_and_values_opens_or_fails_as_it_says() {
    let mut wrong = Vec::new();
    let mut kinds = BTreeMap::<String, usize>::new();
    let vectors: Vec<_> = all_vectors().into_iter().filter(|(name, _)| name.starts_with(RECORDS)).collect();
    for (name, vector) in &vectors {
        let expect = &vector["expect"];
        let values =
            || expect["values"].as_array().unwrap().iter().map(|value| unhex(value.as_str().unwrap())).collect();
        let expected = expect["kind"].as_str().map_or_else(|| Ok(values()), |kind| Err(kind.to_owned()));
        *kinds.entry(expect["kind"].as_str().unwrap_or("opens").to_owned()).or_default() += 1;
        for context in [context(vector), plain_context(vector)] {
            let got = record_values(vector, &context).map_err(|kind| format!("{kind:?}"));
            if got != expected {
                wrong.push(format!(
                    "{name}: {:?} instead of {:?}",
                    got.map(|it| it.len()),
                    expected.as_ref().map(Vec::len)
                ));
            }
        }
    }
    say(format_args!("vectors of records: {}: {kinds:?}", vectors.len()));
    assert!(wrong.is_empty(), "{} opens went wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(vectors.len() >= 64, "vectors are missing: {}", vectors.len());
    let of = ["Malformed", "Unsupported", "Truncated", "TrailingData", "ContextMismatch", "NoMatchingKey"];
    for kind in of.into_iter().chain(["AuthenticationFailed", "opens"]) {
        assert!(kinds.contains_key(kind), "no vector is {kind}");
    }
}

#[test]
fn a_reader_that_does_not_seek_and_one_that_does_tell_faults_apart_as_rule_2_says() {
    let message = {
        let vectors = vectors();
        let (_, base) = vectors.iter().find(|(name, _)| name == "headers: base").unwrap();
        unhex(text(base, "message"))
    };
    // 70 bytes in segments of 64: two full ones, and a final one of 38.
    for (cut, kind) in [
        (0, ErrorKind::AuthenticationFailed),
        (1, ErrorKind::AuthenticationFailed),
        (7, ErrorKind::Truncated),
        (38, ErrorKind::Truncated),
        (38 + 64, ErrorKind::Truncated),
        (38 + 128, ErrorKind::Truncated),
    ] {
        assert_eq!(seekable_kind(&message[..message.len() - cut]), Some(kind), "{cut} bytes less");
    }
}
