//! Both ways with the independent reader and writer in Python (tests/reference), which was made from
//! docs/format.md alone; and the files that it makes, made again.

use crate::cases::{
    Outcome, context, detached, envelope, hex, plain_context, plaintext, ranged, say, seeking, streamed, text, unhex,
    whole, writing_envelope,
};
use envelock::blocking::wait;
use envelock::{AssociatedData, Column, ErrorKind, Header, from_text, to_text};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Python that can run the reference; `None`, said aloud, where none can be had.
fn python() -> Option<PathBuf> {
    let output = Command::new(root().join("scripts/reference-env")).stdin(Stdio::null()).output();
    let why = match output {
        Ok(output) if output.status.success() => {
            return Some(String::from_utf8(output.stdout).unwrap().trim_end().into());
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
        Err(error) => error.to_string(),
    };
    say(format_args!("SKIPPED: no Python for tests/reference: {why}"));
    None
}

/// The reference in its batch mode: one job a line, one answer a line.
struct Reference {
    child: Child,
    jobs: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Reference {
    fn start() -> Option<Self> {
        let mut child = Command::new(python()?)
            .arg(root().join("tests/reference/envelock_reference.py"))
            .arg("batch")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let jobs = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Some(Self { child, jobs, answers })
    }

    fn ask(&mut self, job: &Value) -> Value {
        let jobs = self.jobs.as_mut().unwrap();
        writeln!(jobs, "{job}").and_then(|()| jobs.flush()).unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("the reference answered {line:?}: {error}"))
    }

    /// What the reference makes of a message.
    fn decrypt(&mut self, case: &Value, message: &[u8]) -> Answer {
        let mut job = case.clone();
        job["op"] = "decrypt".into();
        job["message"] = hex(message).into();
        let answer = self.ask(&job);
        if answer["ok"] == true {
            Answer::Opened(unhex(text(&answer, "plaintext")))
        } else {
            let released = usize::try_from(answer["released"].as_u64().unwrap()).unwrap();
            Answer::Failed(text(&answer, "kind").to_owned(), released)
        }
    }

    /// A message by the reference.
    fn encrypt(&mut self, case: &Value, plaintext: &[u8]) -> Vec<u8> {
        let mut job = case.clone();
        job["op"] = "encrypt".into();
        job["plaintext"] = hex(plaintext).into();
        let answer = self.ask(&job);
        assert_eq!(answer["ok"], true, "the reference does not write {case}: {answer}");
        unhex(text(&answer, "message"))
    }

    fn end(mut self) {
        drop(self.jobs.take());
        assert!(self.child.wait().unwrap().success());
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Opened(Vec<u8>),
    Failed(String, usize),
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Opened(plaintext) => Self::Opened(plaintext),
            Outcome::Failed(kind, released) => Self::Failed(format!("{kind:?}"), released.len()),
        }
    }
}

fn raw(name: &str, byte: u8) -> Value {
    json!({"kind": "raw", "name": name, "key": hex(&[byte; 32])})
}

fn passphrase(text: &str) -> Value {
    json!({"kind": "passphrase", "passphrase": text, "argon2": [64, 1, 1]})
}

/// Who writes a message, and each of those who can read it.
fn recipients() -> Vec<(Vec<Value>, Vec<Vec<Value>>)> {
    let nasty = "pa\u{df}wort \u{0}\n\u{1f510} e\u{301}";
    let three = vec![raw("a", 1), raw("b", 2), raw("schl\u{fc}ssel \u{1f511}", 3)];
    vec![
        (vec![raw("primary", 7)], vec![vec![raw("primary", 7)]]),
        (vec![passphrase(nasty)], vec![vec![passphrase(nasty)]]),
        (
            vec![raw("primary", 7), passphrase("correct horse")],
            vec![vec![raw("primary", 7)], vec![passphrase("correct horse")], vec![raw("x", 1), raw("primary", 7)]],
        ),
        (three.clone(), three.iter().rev().map(|one| vec![one.clone()]).chain([three.clone()]).collect()),
    ]
}

/// Stored and unstored entries.
fn contexts() -> Vec<(Value, Value)> {
    let nasty = json!({
        "\u{0}": "NUL", " ": "", "a": "1", "a\u{0}": "2", "aa": "3", "\u{e9}": "one code point", "e\u{301}": "two",
        "\u{ffff}": "last of the plane", "\u{10000}": "first of the next: UTF-16 sorts it before U+FFFF",
        "\u{10ffff}": "\u{202e}right to left", "\u{feff}": "byte order mark", "A": "a", "\u{1f511}": "\r\n\t",
        "Envelock-use": "not reserved: another case",
    });
    // With the counts and lengths, exactly what n may be: 8,167 bytes.
    let long = json!({"k": "v".repeat(8_167 - 2 - 2 - 1 - 2)});
    vec![
        (json!({}), json!({})),
        (json!({"tenant": "acme", "object": "reports/2025.csv"}), json!({})),
        (nasty.clone(), json!({})),
        (json!({"tenant": "acme"}), json!({"path": "/srv/\u{e4}"})),
        (json!({}), nasty),
        (long, json!({})),
    ]
}

/// Every recipient set, AEAD and segment length with every length around its edges; the contexts go round.
fn cases() -> Vec<(Value, Vec<Vec<Value>>, usize)> {
    let mut cases = Vec::new();
    for (writers, readers) in recipients() {
        for aead in ["aes256gcm", "chacha20poly1305"] {
            for segment_length in [64, 65, 4_096] {
                let full = segment_length - 32;
                for len in [0, 1, full - 1, full, full + 1, 2 * full, 2 * full + 1, 5 * full - 1, 5 * full + 7] {
                    let (stored, unstored) = contexts().swap_remove(cases.len() % contexts().len());
                    let case = json!({
                        "providers": writers, "context": stored, "unstored": unstored, "aead": aead,
                        "segment_length": segment_length,
                    });
                    cases.push((case, readers.clone(), len));
                }
            }
        }
    }
    cases
}

fn with_providers(case: &Value, providers: &[Value]) -> Value {
    let mut case = case.clone();
    case["providers"] = providers.into();
    case
}

#[test]
fn the_reference_opens_what_the_crate_writes() {
    let Some(mut reference) = Reference::start() else { return };
    let (mut messages, mut opens) = (0, 0);
    for (case, readers, len) in cases() {
        let plaintext = plaintext(len);
        let (envelope, context) = (writing_envelope(&case), context(&case));
        let message = if messages % 2 == 0 {
            wait(envelope.encrypt(&plaintext, &context)).unwrap()
        } else {
            let mut writer = wait(envelope.encrypt_writer(Vec::new(), &context)).unwrap();
            plaintext.chunks(37).for_each(|piece| writer.write_all(piece).unwrap());
            writer.finish().unwrap()
        };
        messages += 1;
        for reader in readers {
            let answer = reference.decrypt(&with_providers(&case, &reader), &message);
            assert_eq!(answer, Answer::Opened(plaintext.clone()), "{len} bytes of {case} for {reader:?}");
            opens += 1;
        }
        let stranger = with_providers(&case, &[raw("stranger", 9)]);
        assert_eq!(reference.decrypt(&stranger, &message), Answer::Failed("NoMatchingKey".into(), 0));
    }
    reference.end();
    assert!(messages >= 200);
    say(format_args!("the reference in Python opens {messages} messages of the crate, {opens} times"));
}

#[test]
fn the_crate_opens_what_the_reference_writes() {
    let Some(mut reference) = Reference::start() else { return };
    let (mut messages, mut opens) = (0, 0);
    for (mut case, readers, len) in cases() {
        let plaintext = plaintext(len);
        case["slots_length"] = [Value::Null, json!("file"), json!(700)][messages % 3].clone();
        let mut writers = case["providers"].as_array().unwrap().clone();
        if messages % 4 == 1 {
            // A recipient that the writer could not reach, and one that this reader has never heard of.
            writers.insert(0, json!({"kind": "slot", "provider": "aws-kms", "key_id": "00ff", "wrapped": ""}));
            let foreign = json!({"kind": "slot", "provider": "com.example.hsm", "key_id": "", "wrapped": "ab"});
            writers.insert(1, foreign);
        }
        let message = reference.encrypt(&with_providers(&case, &writers), &plaintext);
        let header = Header::parse(&message).unwrap();
        assert_eq!(header.slots().len(), writers.len());
        assert_eq!(header.slots_len().is_multiple_of(1_024), messages % 3 == 1);
        messages += 1;
        for reader in readers {
            let case = with_providers(&case, &reader);
            let (envelope, expected) = (envelope(&case), Outcome::Opened(plaintext.clone()));
            for context in [context(&case), plain_context(&case)] {
                assert_eq!(whole(&envelope, &message, &context), expected, "{case}");
                assert_eq!(streamed(&envelope, &message, &context, 61, 1_000), expected, "{case}");
                assert_eq!(seeking(&envelope, &message, &context), expected, "{case}");
                assert_eq!(ranged(&envelope, &message, &context), expected, "{case}");
                assert_eq!(detached(&envelope, &message, &context), expected, "{case}");
                opens += 5;
            }
        }
    }
    reference.end();
    assert!(messages >= 200);
    say(format_args!("the crate opens {messages} messages of the reference in Python, {opens} times"));
}

/// A message with a bit of everything: two slots, padding, stored and unstored entries, three segments.
fn composed(reference: &mut Reference) -> (Value, Vec<u8>) {
    let case = json!({
        "providers": [raw("other", 8), raw("primary", 7)], "context": {"a": "1", "b": ""}, "unstored": {"u": "2"},
        "segment_length": 64, "slots_length": 216,
    });
    let message = reference.encrypt(&case, &plaintext(70));
    (with_providers(&case, &[raw("primary", 7)]), message)
}

/// Asks both, and says where they differ.
fn compare(reference: &mut Reference, case: &Value, message: &[u8], what: &str, faults: &mut Vec<String>) {
    let theirs = reference.decrypt(case, message);
    let (envelope, context) = (envelope(case), context(case));
    for (read, source) in [(1 << 12, usize::MAX), (9, 5)] {
        let ours = Answer::from(streamed(&envelope, message, &context, read, source));
        if ours != theirs {
            faults.push(format!("{what}: {ours:?}, the reference says {theirs:?}"));
        }
    }
}

#[test]
fn crate_and_reference_agree_on_every_flip_and_cut_of_a_message() {
    let Some(mut reference) = Reference::start() else { return };
    let (case, message) = composed(&mut reference);
    let mut faults = Vec::new();
    let mut tried = 0;
    for bit in 0..message.len() * 8 {
        let mut changed = message.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        compare(&mut reference, &case, &changed, &format!("bit {bit}"), &mut faults);
        tried += 1;
    }
    for len in 0..message.len() {
        compare(&mut reference, &case, &message[..len], &format!("{len} bytes"), &mut faults);
        tried += 1;
    }
    for more in [&[0][..], &[0xFF; 3], &[0; 64], &message] {
        let longer = [message.as_slice(), more].concat();
        compare(&mut reference, &case, &longer, &format!("{} bytes more", more.len()), &mut faults);
        tried += 1;
    }
    reference.end();
    say(format_args!("crate and reference agree on {tried} flips, cuts and additions"));
    assert!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults[..faults.len().min(40)].join("\n"));
}

/// A second fault: what is judged first, and what counts as well formed where the input ends early.
#[test]
fn crate_and_reference_agree_on_every_cut_of_a_damaged_head() {
    let Some(mut reference) = Reference::start() else { return };
    let (case, message) = composed(&mut reference);
    let head = Header::parse(&message).unwrap().len();
    let mut faults = Vec::new();
    let mut tried = 0;
    for at in 0..head {
        for flip in [0x01, 0x80] {
            let mut changed = message[..head].to_vec();
            changed[at] ^= flip;
            for len in (at..head).step_by(11) {
                compare(
                    &mut reference,
                    &case,
                    &changed[..len],
                    &format!("{flip:#x} at {at}, {len} bytes"),
                    &mut faults,
                );
                tried += 1;
            }
        }
    }
    reference.end();
    say(format_args!("crate and reference agree on {tried} damaged heads that are cut"));
    assert!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults[..faults.len().min(40)].join("\n"));
}

/// Values of every length around AES's blocks and beyond, each at a place of its own.
fn values(count: usize) -> Vec<(Vec<u8>, AssociatedData)> {
    let value = |at: usize| (plaintext(at * 7 % 1_031), Column::new("t\u{e4}ble", "column").row(at.to_string()));
    (0..count).map(value).collect()
}

/// The fields of a job over `records`, each with its place.
fn records_job(case: &Value, op: &str, header: &[u8], records: &[(Vec<u8>, AssociatedData)]) -> Value {
    let mut job = case.clone();
    job["op"] = op.into();
    job["header"] = hex(header).into();
    job["records"] = records.iter().map(|(record, place)| json!([hex(record), hex(place.as_bytes())])).collect();
    job
}

fn bytes_of(answer: &Value, name: &str) -> Vec<Vec<u8>> {
    assert_eq!(answer["ok"], true, "{answer}");
    answer[name].as_array().unwrap().iter().map(|bytes| unhex(bytes.as_str().unwrap())).collect()
}

/// Record sets of every recipient set and context, with their share of 10,000 records.
fn record_cases() -> Vec<Value> {
    let sets = recipients().into_iter().zip(contexts().into_iter().cycle()).cycle().take(20);
    sets.map(
        |((writers, _), (stored, unstored))| json!({"providers": writers, "context": stored, "unstored": unstored}),
    )
    .collect()
}

#[test]
fn the_reference_opens_ten_thousand_records_of_the_crate() {
    let Some(mut reference) = Reference::start() else { return };
    let (cases, mut opened) = (record_cases(), 0);
    for case in &cases {
        let set = wait(crate::cases::envelope(case).record_set(&context(case))).unwrap();
        let values = values(10_000 / cases.len());
        let (first, second) = values.split_at(values.len() / 2);
        let mut records: Vec<_> = first.iter().map(|(value, place)| set.seal(value, place).unwrap()).collect();
        records.extend(set.seal_batch(second).unwrap());
        let records: Vec<_> = records.into_iter().zip(values.iter().map(|(_, place)| place.clone())).collect();
        let answer = reference.ask(&records_job(case, "open_records", set.header(), &records));
        let theirs = bytes_of(&answer, "values");
        assert!(theirs.iter().eq(values.iter().map(|(value, _)| value)), "{case}");
        opened += theirs.len();

        let mut swapped = records[..1].to_vec();
        swapped[0].1 = records[1].1.clone();
        let answer = reference.ask(&records_job(case, "open_records", set.header(), &swapped));
        assert_eq!(answer["kind"], "AuthenticationFailed");
    }
    reference.end();
    assert_eq!(opened, 10_000);
    say(format_args!("the reference in Python opens {opened} records of {} sets of the crate", cases.len()));
}

#[test]
fn the_crate_opens_ten_thousand_records_of_the_reference() {
    let Some(mut reference) = Reference::start() else { return };
    let (cases, mut opened) = (record_cases(), 0);
    for case in &cases {
        let mut job = case.clone();
        job["op"] = "make_record_set".into();
        let header = unhex(text(&reference.ask(&job), "header"));
        let values = values(10_000 / cases.len());
        let records = bytes_of(&reference.ask(&records_job(case, "seal_records", &header, &values)), "records");
        let set = wait(crate::cases::envelope(case).open_record_set(&header, &plain_context(case))).unwrap();
        for (record, (value, place)) in records.iter().zip(&values) {
            assert_eq!(&set.open(record, place).unwrap(), value, "{case}");
            opened += 1;
        }
        assert_eq!(set.open(&records[0], &values[1].1).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
    }
    reference.end();
    assert_eq!(opened, 10_000);
    say(format_args!("the crate opens {opened} records of {} sets of the reference in Python", cases.len()));
}

#[test]
fn crate_and_reference_agree_on_every_flip_and_cut_of_a_value_that_stands_alone() {
    let Some(mut reference) = Reference::start() else { return };
    let case = json!({"providers": [raw("primary", 7)], "context": {"a": "1", "b": ""}, "unstored": {"u": "2"}});
    let (envelope, context) = (envelope(&case), context(&case));
    let mut job = case.clone();
    (job["op"], job["value"]) = ("seal_value".into(), hex(b"hunter2").into());
    let theirs = reference.ask(&job);
    assert_eq!(wait(envelope.open_value(&from_text(text(&theirs, "text")).unwrap(), &context)).unwrap(), b"hunter2");
    let ours = wait(envelope.seal_value(b"hunter2", &context)).unwrap();
    let mut ask = |field: &str, sealed: String| {
        let mut job = case.clone();
        (job["op"], job[field]) = ("open_value".into(), sealed.into());
        let answer = reference.ask(&job);
        answer["kind"].as_str().or(answer["value"].as_str()).unwrap().to_owned()
    };
    assert_eq!(ask("text", to_text(&ours)), hex(b"hunter2"));
    let flipped = (0..ours.len() * 8).map(|bit| {
        let mut changed = ours.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        changed
    });
    let cut = (0..ours.len()).map(|len| ours[..len].to_vec());
    let more = [&[0][..], &[0xE1; 3]].map(|more| [&ours, more].concat());
    let mut tried = 0;
    for changed in flipped.chain(cut).chain(more) {
        let kind = wait(envelope.open_value(&changed, &context)).unwrap_err().kind();
        assert_eq!(format!("{kind:?}"), ask("sealed", hex(&changed)), "{}", hex(&changed));
        tried += 1;
    }
    reference.end();
    say(format_args!("crate and reference agree on {tried} flips, cuts and additions of a value"));
}

#[test]
fn the_worked_examples_and_the_vectors_are_what_the_reference_makes() {
    let Some(python) = python() else { return };
    for script in ["make_examples.py", "make_vectors.py", "make_kms_vectors.py"] {
        let output = Command::new(&python)
            .arg(root().join("tests/reference").join(script))
            .arg("--check")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{script}: {said}{}", String::from_utf8_lossy(&output.stderr));
        say(format_args!("{script} --check: {}", said.trim_end()));
    }
}
