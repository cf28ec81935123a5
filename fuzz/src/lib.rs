//! What the fuzz targets do with their input. The ordinary tests call the same functions on the
//! committed corpora (`tests/it/fuzz_corpora.rs`).

use envelock::kms::{
    AccessRequest, CreateGrantRequest, Decision, GrantConstraints, GrantOperation, GrantOperations, KeyOperation,
    KeyPolicy, PolicyAction, decide, would_lock_out,
};
use envelock::kms::{FileKind, ImportParameters, Sha256Fingerprint, describe_file, wrap_key_material};
use envelock::{
    AssociatedData, EncryptionContext, Envelope, ErrorKind, Fingerprint, Header, HeaderParse, Limits, LocalKms,
    PassphraseProvider, RawKeyProvider, RecordSet, RecordSetHeader, RewrapOptions, RootKey, Secret, blocking,
    from_text, to_text,
};
use std::fs;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

/// A message of three segments, whose body the `body` target replaces.
const BASE: &[u8] = include_bytes!("base.elk");
const BASE_HEAD: usize = 208;
const BASE_KEY: &str = "d28dcceec9e8a57fa68ba89c9f1a371e48368bd28d734bf0001bf852579d951f";
const BASE_PLAINTEXT_LEN: usize = 70;
/// The base in the middle of a rewrap, some bytes of its slots being the new ones already, and the journal of that.
const TORN: &[u8] = include_bytes!("torn.elk");
const JOURNAL: &[u8] = include_bytes!("torn.elk.rewrap");
/// One file of each kind that keystores exchange.
const KMS_FILES: &str = include_str!("../../tests/vectors/kms/files.json");
const ROOT_KEY: &str = "envelock-root1.eJs0yvVPLiIKzZQecbiNWDaGbQ2Fi2NUnpS-LKzGf1t-8o8tmQOVn2PT2JPc51J3RrYAjw";
/// A message for a passphrase, whose wrapped key the `passphrase_slot` target replaces.
const LOCKED: &[u8] = include_bytes!("passphrase.elk");
const PASSPHRASE: &str = "correct horse battery staple";
const LOCKED_PLAINTEXT_LEN: usize = 33;

/// Any bytes as a message head, whole and cut everywhere.
pub fn header(data: &[u8]) {
    let whole = Header::parse(data);
    if let Ok(header) = &whole {
        assert_eq!(header.as_bytes(), &data[..header.len()]);
        assert!(header.slots().iter().any(|slot| !slot.is_missing()));
        assert!(header.stored_context().iter().count() == header.stored_context().len());
        let again = Header::parse(header.as_bytes()).expect("a head parses by itself");
        assert_eq!(again.slots(), header.slots());
    }
    for len in 0..data.len().min(600) {
        match Header::parse_some(&data[..len], &Limits::default()) {
            Ok(HeaderParse::More(needed)) => assert!(needed > len, "more than there is was asked for"),
            Ok(HeaderParse::Complete(header)) => assert!(header.len() <= len && whole.is_ok()),
            Err(error) => {
                // A fault that a prefix shows, the whole shows too.
                let kind = whole.as_ref().map(|_| ()).expect_err("the whole has the fault of its prefix").kind();
                assert_eq!(kind, error.kind());
            }
        }
    }
}

fn base_envelope() -> &'static blocking::Envelope {
    static ENVELOPE: OnceLock<blocking::Envelope> = OnceLock::new();
    ENVELOPE.get_or_init(|| {
        let key = Secret::init(|key| {
            for (byte, at) in key.iter_mut().zip((0..).step_by(2)) {
                *byte = u8::from_str_radix(&BASE_KEY[at..at + 2], 16).expect("hex");
            }
        });
        let provider = RawKeyProvider::new("primary", key).expect("a short name");
        blocking::Envelope::new(Envelope::builder(provider).build().expect("defaults"))
    })
}

fn base_context() -> EncryptionContext {
    EncryptionContext::from([("tenant", "acme")])
}

fn base_plaintext() -> Vec<u8> {
    (0..BASE_PLAINTEXT_LEN).map(|i| (i % 251) as u8).collect()
}

/// Any bytes as the segments of a message: every way in gives the message's plaintext or an error.
pub fn body(data: &[u8]) {
    let (envelope, context, expected) = (base_envelope(), base_context(), base_plaintext());
    let message = [&BASE[..BASE_HEAD], data].concat();

    let whole = envelope.decrypt(&message, &context);
    let mut streamed = Vec::new();
    let mut reader = envelope.decrypt_reader(&message[..], &context).expect("the head is untouched");
    let stream = reader.read_to_end(&mut streamed).map_err(envelock::Error::from);
    assert!(expected.starts_with(&streamed), "a byte that is not of the message");
    assert_eq!(whole.is_ok(), stream.is_ok());
    if let (Err(whole), Err(stream)) = (&whole, &stream) {
        assert_eq!(whole.kind(), stream.kind());
    }
    if let Ok(plaintext) = &whole {
        assert_eq!(plaintext, &expected);
    }

    let mut reader = envelope.decrypt_reader(Cursor::new(&message), &context).expect("the head is untouched");
    if reader.seek(SeekFrom::Start(33)).is_ok() {
        let mut rest = Vec::new();
        if reader.read_to_end(&mut rest).is_ok() {
            assert_eq!(rest, expected[33..]);
        }
    }
    if let Ok(ranges) = envelope.range_reader(&message[..], &context) {
        assert_eq!(ranges.len(), BASE_PLAINTEXT_LEN as u64);
        if let Ok(bytes) = ranges.read_range(30..66) {
            assert_eq!(bytes, expected[30..66]);
        }
    }
}

/// Any bytes as the journal beside a message, and as damage to one that a torn message needs: none keeps a
/// whole message from being read or rewrapped, and none but the message's own is applied.
pub fn journal(data: &[u8]) {
    // In memory where that can be: a rewrap syncs.
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER
        .get_or_init(|| tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary folder"));
    let [message, journal] = ["a.elk", "a.elk.rewrap"].map(|name| folder.path().join(name));
    let (envelope, context, expected) = (base_envelope(), base_context(), base_plaintext());
    let read = || {
        let mut plaintext = Vec::new();
        let mut reader = envelope.file_reader(&message, &context)?;
        reader.read_to_end(&mut plaintext).map_err(envelock::Error::from)?;
        Ok::<_, envelock::Error>(plaintext)
    };
    fs::write(&message, BASE).expect("written");
    fs::write(&journal, data).expect("written");
    assert_eq!(read().expect("the message is whole"), expected);
    match envelope.rewrap_file(&message, envelope, &context, RewrapOptions::default()) {
        Ok(_) => assert!(!journal.exists(), "a journal that is done with stays"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert_eq!(fs::read(&journal).expect("left as it is"), data);
        }
    }
    assert_eq!(read().expect("the message is whole still"), expected);

    let mut damaged = JOURNAL.to_vec();
    let Some((at, damage)) = data.split_first_chunk() else { return };
    for (byte, flip) in damaged.iter_mut().skip(usize::from(u16::from_le_bytes(*at))).zip(damage) {
        *byte ^= flip;
    }
    fs::write(&message, TORN).expect("written");
    fs::write(&journal, &damaged).expect("written");
    match read() {
        Ok(plaintext) => assert!(plaintext == expected && damaged == JOURNAL, "a damaged journal was applied"),
        Err(error) => {
            assert!(damaged != JOURNAL, "{error}");
            assert_eq!(error.kind(), ErrorKind::AuthenticationFailed, "{error}");
        }
    }
}

/// Any bytes as the text of a root key, and as damage to a good one.
pub fn root_text(data: &[u8]) {
    let parse = |text: &str| RootKey::value(text).map_err(|error| (error.kind(), error.to_string()));
    if let Ok(text) = std::str::from_utf8(data) {
        match parse(text) {
            Ok(_) => {
                let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
                assert!(line.len() == ROOT_KEY.len() && line.starts_with("envelock-root1."), "{text:?} is no root key");
            }
            Err((kind, said)) => {
                assert_eq!(kind, ErrorKind::InvalidInput);
                // What is said of any other text is no secret, also where the input happens to be that.
                let of_another = parse("?").map_or_else(|(_, said)| said, |_| String::new());
                let repeats = text.len() >= 20 && said.contains(text) && !of_another.contains(text);
                assert!(!repeats, "an error holds what may be a secret");
            }
        }
    }
    let mut damaged = ROOT_KEY.as_bytes().to_vec();
    let Some((&at, damage)) = data.split_first() else { return };
    for (byte, flip) in damaged.iter_mut().skip(usize::from(at)).zip(damage) {
        *byte ^= flip;
    }
    if let Ok(text) = std::str::from_utf8(&damaged) {
        assert_eq!(parse(text).is_ok(), text == ROOT_KEY, "a damaged root key was taken");
    }
}

fn kms_files() -> &'static [Vec<u8>] {
    static FILES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| {
        let hex = |text: &str| {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
        };
        // (The text of key material is no file.)
        let of = |line: &str| Some(hex(line.trim().strip_prefix("\"file\": \"45")?.trim_end_matches('"')));
        let files: Vec<Vec<u8>> =
            KMS_FILES.lines().filter_map(of).map(|rest: Vec<u8>| [&[0x45], &rest[..]].concat()).collect();
        assert_eq!(files.len(), FileKind::ALL.len());
        files
    })
}

/// Any bytes as a file that keystores exchange and as a fingerprint, and as damage to a good file: what is described
/// is what was there, and nothing is wrapped for a public key that was exchanged.
pub fn kms_file(data: &[u8]) {
    let describe = |file: &[u8]| match describe_file(file) {
        Ok(description) => {
            assert_eq!(description.sha256, Sha256Fingerprint::of(file));
            assert_eq!(description.key_id.is_some(), description.kind != FileKind::ReplicationKey);
            assert_eq!(description.serial.is_some(), description.target.is_some());
            if description.kind == FileKind::ImportParameters {
                let parameters = ImportParameters::parse(file).expect("it was described");
                assert_eq!(parameters.to_file(), file);
            }
        }
        Err(error) => assert!(
            matches!(
                error.kind(),
                ErrorKind::Malformed
                    | ErrorKind::Unsupported
                    | ErrorKind::Truncated
                    | ErrorKind::TrailingData
                    | ErrorKind::LimitExceeded
            ),
            "{error:?}"
        ),
    };
    describe(data);
    if let Some(fingerprint) = std::str::from_utf8(data).ok().and_then(|it| it.parse::<Sha256Fingerprint>().ok()) {
        assert!(fingerprint.to_string().as_bytes().eq_ignore_ascii_case(data));
    }
    let Some((&[which, high, low], damage)) = data.split_first_chunk() else { return };
    let good = &kms_files()[usize::from(which) % kms_files().len()];
    let mut damaged = good.clone();
    for (byte, flip) in damaged.iter_mut().skip(usize::from(u16::from_be_bytes([high, low]))).zip(damage) {
        *byte ^= flip;
    }
    describe(&damaged);
    let (Ok(parameters), Ok(was)) = (ImportParameters::parse(&damaged), ImportParameters::parse(good)) else { return };
    let material = Secret::init(|key| key.fill(7));
    match wrap_key_material(&material, &parameters, &was.fingerprint()) {
        Ok(wrapped) => assert!(wrapped.len() == 512 && parameters.public_key() == was.public_key()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
            assert_ne!(parameters.public_key(), was.public_key());
        }
    }
}

/// Any bytes as a ciphertext blob of the embedded keystore, and as damage to a good one.
pub fn keystore_blob(data: &[u8]) {
    struct Good {
        kms: LocalKms,
        blob: Vec<u8>,
        _folder: tempfile::TempDir,
    }
    static GOOD: OnceLock<Good> = OnceLock::new();
    let context = EncryptionContext::from([("tenant", "acme")]);
    let good = GOOD.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = RootKey::file(folder.path().join("root.key")).expect("a path");
        let kms = LocalKms::open(folder.path().join("keys.db"), root).expect("a new keystore");
        let key = blocking::wait(kms.create_key(Default::default())).expect("a key");
        let blob =
            blocking::wait(kms.encrypt(&key.key_id, b"attack at dawn", &context)).expect("a blob").ciphertext_blob;
        Good { kms, blob, _folder: folder }
    });
    let open = |blob: &[u8]| blocking::wait(good.kms.decrypt(blob, &context));
    if let Ok(opened) = open(data) {
        assert_eq!(opened.plaintext(), b"attack at dawn");
    }
    let mut damaged = good.blob.clone();
    let Some((&at, damage)) = data.split_first() else { return };
    for (byte, flip) in damaged.iter_mut().skip(usize::from(at)).zip(damage) {
        *byte ^= flip;
    }
    assert_eq!(open(&damaged).is_ok(), damaged == good.blob, "a damaged blob opened");
}

/// Any bytes as the wrapped key of a passphrase slot.
pub fn passphrase_slot(data: &[u8]) {
    static ENVELOPE: OnceLock<blocking::Envelope> = OnceLock::new();
    let envelope = ENVELOPE.get_or_init(|| {
        let provider = PassphraseProvider::new(PASSPHRASE).expect("not empty");
        blocking::Envelope::new(Envelope::builder(provider).build().expect("defaults"))
    });
    let mut wrapped = data.to_vec();
    // A cost within the caps that takes seconds is no finding: a small one takes its place.
    if let Some(cost) = wrapped.get_mut(1..10) {
        let memory = u32::from_be_bytes([cost[0], cost[1], cost[2], cost[3]]);
        if (1 << 10..=1 << 20).contains(&memory) {
            cost[..2].copy_from_slice(&[0, 0]);
            cost[2] &= 0b11;
        }
    }
    let field = b"passphrase\0\0";
    let at =
        LOCKED.windows(field.len()).position(|window| window == field).expect("the base has the slot") + field.len();
    let slots_len_at = 7;
    let old_len = usize::from(u16::from_be_bytes([LOCKED[at], LOCKED[at + 1]]));
    let slots_len = usize::from(u16::from_be_bytes([LOCKED[slots_len_at], LOCKED[slots_len_at + 1]]));
    let (Ok(len), Ok(slots_len)) = (u16::try_from(wrapped.len()), u16::try_from(slots_len - old_len + wrapped.len()))
    else {
        return;
    };
    let mut message = LOCKED[..slots_len_at].to_vec();
    message.extend_from_slice(&slots_len.to_be_bytes());
    message.extend_from_slice(&LOCKED[slots_len_at + 2..at]);
    message.extend_from_slice(&len.to_be_bytes());
    message.extend_from_slice(&wrapped);
    message.extend_from_slice(&LOCKED[at + 2 + old_len..]);
    match envelope.decrypt(&message, &EncryptionContext::new()) {
        Ok(plaintext) => assert_eq!(plaintext.len(), LOCKED_PLAINTEXT_LEN),
        Err(error) => assert!(
            matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::Malformed | ErrorKind::LimitExceeded),
            "{error}"
        ),
    }
}

/// Any bytes as a record set, as a value that stands alone, as a record, as text; and as damage to good ones.
pub fn record(data: &[u8]) {
    struct Good {
        envelope: blocking::Envelope,
        set: RecordSet,
        record: Vec<u8>,
        value: Vec<u8>,
    }
    static GOOD: OnceLock<Good> = OnceLock::new();
    let context = EncryptionContext::from([("tenant", "acme")]);
    let place = AssociatedData::from_bytes("place");
    let good = GOOD.get_or_init(|| {
        let provider = RawKeyProvider::new("primary", Secret::init(|key| key.fill(7))).expect("a short name");
        let envelope = blocking::Envelope::new(Envelope::builder(provider).build().expect("defaults"));
        let set = envelope.record_set(&context).expect("a set");
        let record = set.seal(b"attack at dawn", &place).expect("a record");
        let value = envelope.seal_value(b"attack at noon", &context).expect("a value");
        Good { envelope, set, record, value }
    });

    if let Ok(header) = RecordSetHeader::parse(data) {
        assert_eq!(header.as_bytes(), &data[..header.len()]);
        assert!(header.slots().iter().any(|slot| !slot.is_missing()));
        let again = RecordSetHeader::parse(header.as_bytes()).expect("a set parses by itself");
        assert_eq!((again.slots(), again.fingerprint()), (header.slots(), header.fingerprint()));
        assert!(Header::parse(data).is_err(), "a message and a record set at once");
        for len in 0..header.len().min(600) {
            let kind = RecordSetHeader::parse(&data[..len]).expect_err("a part of it").kind();
            assert_eq!(kind, ErrorKind::Truncated);
        }
    }
    // Nobody writes one under this key but us: what opens is what was sealed.
    assert!(good.envelope.open_record_set(data, &context).is_err() || data == good.set.header());
    let opened = good.envelope.open_value(data, &context);
    assert!(opened.is_err() || data == good.value);
    assert_eq!(good.set.open(data, &place).is_ok(), data == good.record);
    if let Ok(fingerprint) = Fingerprint::of_record(data) {
        assert_eq!(fingerprint.as_bytes()[..], data[1..17]);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(bytes) = from_text(text)
    {
        assert_eq!(to_text(&bytes), text);
    }
    assert_eq!(from_text(&to_text(data)).expect("our own text"), data);

    let Some((&at, damage)) = data.split_first() else { return };
    let damaged = |good: &[u8]| {
        let mut damaged = good.to_vec();
        for (byte, flip) in damaged.iter_mut().skip(usize::from(at)).zip(damage) {
            *byte ^= flip;
        }
        damaged
    };
    let record = damaged(&good.record);
    assert_eq!(good.set.open(&record, &place).is_ok(), record == good.record, "a damaged record opened");
    let value = damaged(&good.value);
    let opened = good.envelope.open_value(&value, &context);
    assert_eq!(opened.is_ok(), value == good.value, "a damaged value opened");
}

/// Any bytes as a key policy, as a grant's operations and constraints; and every request of a few on what parses.
pub fn policy(data: &[u8]) {
    const KEY_ID: &str = "0b0c8f4e-52b4-4d27-9d0b-d9e5e1a0c6ab";
    const KEY: &str = "envelock:local:7f7f3f1c-6a3c-4a55-8f0e-3f2b5a1f0c11:key/0b0c8f4e-52b4-4d27-9d0b-d9e5e1a0c6ab";
    const NOW: Duration = Duration::from_secs(1_782_907_200);
    let Ok(text) = std::str::from_utf8(data) else { return };

    if let Ok(operations) = GrantOperations::from_json(text) {
        assert_eq!(GrantOperations::from_json(&operations.to_json()).expect("our own text"), operations);
    }
    let mut grants = Vec::new();
    if let Ok(constraints) = GrantConstraints::from_json(text) {
        assert_eq!(GrantConstraints::from_json(&constraints.to_json()).expect("our own text"), constraints);
        let request = CreateGrantRequest::new("alice", GrantOperation::ALL).constraints(constraints);
        grants.push(request.to_grant("grant", KEY_ID, "token", UNIX_EPOCH).expect("good constraints"));
    }
    let (policy, parsed) = match KeyPolicy::parse(text) {
        Ok(policy) => {
            assert_eq!(policy.text(), text);
            (policy, true)
        }
        Err(error) => {
            let kind = if text.len() > 32_768 { ErrorKind::LimitExceeded } else { ErrorKind::InvalidInput };
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.code().is_some() && error.to_string().len() < 2_000, "{error}");
            (KeyPolicy::default(), false)
        }
    };

    let granting = CreateGrantRequest::new("bob", [GrantOperation::Decrypt]);
    let contexts: [&[(&str, &str)]; 3] =
        [&[], &[("tenant", "acme")], &[("TENANT", "other"), ("colour", "blue"), ("tenant", "acme")]];
    for principal in ["owner", "alice", "bob"] {
        for action in PolicyAction::all() {
            for context in contexts {
                let request = AccessRequest::new(principal, action, KEY, NOW)
                    .encryption_context(context.iter().copied())
                    .creating(&granting);
                let alone = decide(&policy, &[], &request);
                let granted = decide(&policy, &grants, &request);
                // A grant changes nothing but what nobody spoke of.
                let by_grant =
                    matches!(granted, Decision::AllowedByGrant { .. }) && alone == Decision::DeniedImplicitly;
                assert!(by_grant || alone == granted, "{alone} became {granted}");
                assert!(parsed || alone.is_allowed() == (principal == "owner"), "{alone}");
            }
        }
        let putting = AccessRequest::new(principal, KeyOperation::PutKeyPolicy, KEY, NOW);
        assert_eq!(would_lock_out(&policy, principal, KEY, NOW), !decide(&policy, &[], &putting).is_allowed());
    }
}
