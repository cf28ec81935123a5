//! The worked examples of docs/format.md, made again from their `input` lines by this crate. The page
//! says how a block reads; the reference in Python makes the same bytes on its own.

use crate::codec::put_byte_string;
use crate::context::{EncryptionContext, KeyUse, WriterContext};
use crate::crypto::{self, Aead, AeadAlgorithm};
use crate::material::{DataKey, EncryptedDataKey};
use crate::native::floe::tests::{open, say};
use crate::native::floe::{FLOE_HEADER_LEN, Floe, FloeHeader, ROTATION_BITS, segment_key};
use crate::native::header::{Committed as _, Header, SEGMENT_LEN_MAX, encode_core, encode_set_core};
use crate::native::place::AssociatedData;
use crate::native::record::{Record, RecordKey, RecordSetHeader};
use crate::native::slots::{SlotsRoom, encode_slots};
use crate::native::text::to_text;
use crate::secret::Secret;
use crate::segments::{Position, Segments};
use std::collections::BTreeMap;
use std::sync::Mutex;

type Fields = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
struct Example {
    name: String,
    shows: String,
    inputs: Fields,
    values: Fields,
    bytes: Vec<u8>,
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {text:?}");
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn examples() -> Vec<Example> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/format.md")).unwrap();
    let blocks = page.split("\n```elk-example ").skip(1);
    blocks.map(|block| parse(block.split_once("\n```").unwrap().0)).collect()
}

fn parse(block: &str) -> Example {
    let (info, lines) = block.split_once('\n').unwrap();
    let (name, shows) = info.strip_prefix("name=").unwrap().split_once(" shows=").unwrap();
    let mut example = Example { name: name.to_owned(), shows: shows.to_owned(), ..Example::default() };
    for line in lines.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let (left, value) = line.split_once('=').unwrap();
        let (kind, what) = left.trim().split_once(' ').unwrap();
        let fields = match kind {
            "input" => &mut example.inputs,
            "value" => &mut example.values,
            "bytes" => {
                assert_eq!(usize::from_str_radix(what, 16).unwrap(), example.bytes.len(), "{name}: {line}");
                example.bytes.extend(unhex(value));
                continue;
            }
            other => panic!("{name}: a line of kind {other}"),
        };
        assert!(fields.insert(what.to_owned(), unhex(value)).is_none(), "{name}: {what} twice");
    }
    example
}

impl Example {
    fn input(&self, name: &str) -> &[u8] {
        self.inputs.get(name).unwrap_or_else(|| panic!("{}: no input {name}", self.name))
    }

    fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.input(name).try_into().unwrap_or_else(|_| panic!("{}: {name} has not {N} bytes", self.name))
    }

    fn text(&self, name: &str) -> String {
        String::from_utf8(self.input(name).to_vec()).unwrap()
    }

    /// How many inputs there are whose name has a number in this place.
    fn count(&self, before: &str, after: &str) -> usize {
        (0..).take_while(|at| self.inputs.contains_key(&format!("{before}{at}{after}"))).count()
    }

    fn context(&self, key_use: KeyUse) -> WriterContext {
        let mut context = EncryptionContext::new();
        for at in 0..self.count("stored-", "-key") {
            context = context.with(self.text(&format!("stored-{at}-key")), self.text(&format!("stored-{at}-value")));
        }
        for at in 0..self.count("unstored-", "-key") {
            let value = self.text(&format!("unstored-{at}-value"));
            context = context.with_unstored(self.text(&format!("unstored-{at}-key")), value);
        }
        WriterContext::new(&context, key_use).unwrap()
    }
}

fn expand(key: &[u8], info: &[u8], len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    crypto::hkdf_expand_sha384(key, &[info], &mut out).unwrap();
    out
}

fn aes(key: &[u8], iv: &[u8; 12], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut out = vec![0; plaintext.len() + 16];
    let aead = crypto::aead(AeadAlgorithm::Aes256Gcm, key.try_into().unwrap());
    aead.seal_to(iv, aad, plaintext, &mut out).unwrap();
    out
}

/// Slot `at` by the page's words, with its derivations.
fn slot(example: &Example, at: usize, kms: &[u8], values: &mut Fields) -> EncryptedDataKey {
    let input = |field: &str| example.input(&format!("slot-{at}-{field}"));
    let mut value = |field: &str, bytes: &[u8]| values.insert(format!("slot-{at}-{field}"), bytes.to_vec());
    let (provider, key_id) = (example.text(&format!("slot-{at}-provider")), input("key-id"));
    if !example.inputs.contains_key(&format!("slot-{at}-secret")) {
        return EncryptedDataKey::missing(provider, key_id);
    }
    let (secret, salt) = (input("secret"), input("salt"));
    let data_key = example.input("data-key");
    let wrapped = if provider == "raw" {
        let info = [b"envelock/v1 raw\0\x01", salt].concat();
        let wrap_key = expand(secret, &info, 32);
        let mut aad = [&[1], salt].concat();
        put_byte_string(&mut aad, key_id).unwrap();
        aad.extend_from_slice(kms);
        value("info", &info);
        value("wrap-key", &wrap_key);
        value("aad", &aad);
        let iv = example.array(&format!("slot-{at}-iv"));
        [&[1], salt, &iv, &aes(&wrap_key, &iv, &aad, data_key)].concat()
    } else {
        assert_eq!((provider.as_str(), key_id), ("passphrase", &[][..]));
        let head = [&[1], input("memory"), input("passes"), input("lanes"), salt].concat();
        let number = |field: &str| input(field).iter().fold(0, |number: u32, &byte| number << 8 | u32::from(byte));
        let mut stretched = [0; 48];
        let (memory, passes, lanes) = (number("memory"), number("passes"), number("lanes"));
        crypto::password::argon2id(secret, salt, memory, passes, lanes, &mut stretched).unwrap();
        let info = [b"envelock/v1 passphrase\0", head.as_slice(), &crypto::sha384(&[kms])].concat();
        let keys = expand(&stretched, &info, 64);
        let (wrap_key, commitment) = keys.split_at(32);
        value("argon2id", &stretched);
        value("info", &info);
        value("wrap-key", wrap_key);
        value("commitment", commitment);
        [head.as_slice(), commitment, &aes(wrap_key, &[0; 12], &[], data_key)].concat()
    };
    EncryptedDataKey::new(provider, key_id, wrapped)
}

/// A whole message by the crate's own writers, and every derivation on the way.
fn message(example: &Example) -> (Vec<u8>, Fields) {
    let mut values = Fields::new();
    let context = example.context(KeyUse::Message);
    let kms = context.kms.encoded().to_vec();
    let slots: Vec<_> =
        (0..example.count("slot-", "-provider")).map(|at| slot(example, at, &kms, &mut values)).collect();
    values.insert("kms-context".into(), kms);

    let mut out = encode_core(&context, 0).unwrap();
    let aad = [out.as_slice(), &context.unstored].concat();
    let room = match example.inputs.get("slots-length") {
        Some(len) => SlotsRoom::Exactly(usize::from(u16::from_be_bytes(len.as_slice().try_into().unwrap()))),
        None => SlotsRoom::Tight,
    };
    let area = encode_slots(&slots, room, out.len()).unwrap();
    put_byte_string(&mut out, &area).unwrap();

    let aead = match example.input("aead") {
        [0x00] => AeadAlgorithm::Aes256Gcm,
        [0xF1] => AeadAlgorithm::ChaCha20Poly1305,
        other => panic!("AEAD {other:?}"),
    };
    let key = DataKey::from_slice(example.input("data-key")).unwrap();
    let segment_len = u32::from_be_bytes(example.array("segment-length"));
    let floe = Floe::create_with_iv(&key, aead, segment_len, aad.clone(), example.array("floe-iv")).unwrap();
    let header = floe.header().encode();
    out.extend_from_slice(&header);
    let info = |purpose: &[u8]| [&header[..42], purpose, &aad].concat();
    values.insert("aad".into(), aad.clone());
    values.insert("header-tag-info".into(), info(b"HEADER_TAG:"));
    values.insert("header-tag".into(), floe.header.tag.to_vec());
    values.insert("message-key-info".into(), info(b"MESSAGE_KEY:"));
    values.insert("message-key".into(), floe.message_key.expose().to_vec());

    let layout = floe.layout();
    let mut rest = example.input("plaintext");
    let extent = layout.extent(layout.sealed_len(rest.len() as u64).unwrap()).unwrap();
    for index in 0..extent.segments {
        let at = extent.position(index);
        let (piece, later) = rest.split_at(rest.len().min(layout.plaintext_per_segment()));
        let mut segment = vec![0; piece.len() + layout.overhead()];
        floe.seal_to(at, &example.array(&format!("segment-iv-{index}")), piece, &mut segment).unwrap();
        assert_eq!(open(&floe, at, &segment).unwrap(), piece);
        out.extend_from_slice(&segment);
        rest = later;
        // What `aead` keys its cipher with; that it does so, the sealed bytes show.
        let info = info(&[&b"DEK:"[..], &(index >> 20 << 20).to_be_bytes()].concat());
        values.insert(format!("segment-key-{index}"), expand(floe.message_key.expose(), &info, 32));
        values.insert(format!("segment-key-{index}-info"), info);
        values.insert(format!("segment-aad-{index}"), [&index.to_be_bytes()[..], &[u8::from(at.last)]].concat());
    }
    (out, values)
}

/// A record set and its record by the crate's own writers, and every derivation on the way.
fn record_set(example: &Example) -> (Vec<u8>, Fields) {
    let mut values = Fields::new();
    let context = example.context(KeyUse::Records);
    let kms = context.kms.encoded().to_vec();
    let slots: Vec<_> =
        (0..example.count("slot-", "-provider")).map(|at| slot(example, at, &kms, &mut values)).collect();
    values.insert("kms-context".into(), kms);

    let mut out = encode_set_core(&context, &example.array("set-id")).unwrap();
    let aad = [out.as_slice(), &context.unstored].concat();
    let area = encode_slots(&slots, SlotsRoom::Tight, out.len()).unwrap();
    put_byte_string(&mut out, &area).unwrap();
    let key = DataKey::from_slice(example.input("data-key")).unwrap();
    let keys = RecordKey::create(&key, &aad).unwrap();
    out.extend_from_slice(keys.tag());
    for (name, label) in
        [("record-set-tag", &b"envelock/v1 record set\0"[..]), ("record-key", b"envelock/v1 records\0")]
    {
        let info = [label, &aad].concat();
        values.insert(name.into(), expand(key.expose(), &info, 32));
        values.insert(format!("{name}-info"), info);
    }
    assert_eq!(values["record-set-tag"], keys.tag());

    let (nonce, value) = (example.array::<24>("nonce"), example.input("value"));
    let associated = AssociatedData::from_bytes(example.input("associated-data"));
    let record = keys.seal(&nonce, value, &associated).unwrap();
    // The key of the nonce is nobody's to see: that the page's is the one, the sealed bytes show.
    let derived = &example.values["derived-key"];
    let sealed = aes(derived, nonce[12..].try_into().unwrap(), associated.as_bytes(), value);
    assert_eq!(record[41..], sealed, "{}", example.name);
    values.insert("derived-key".into(), derived.clone());
    out.extend_from_slice(&record);
    values.insert("text-form".into(), to_text(&out).into_bytes());

    let header = RecordSetHeader::parse(&out).unwrap();
    let opened = header.keys((&key).into(), aad).unwrap().unwrap();
    let record = Record::parse(&out[header.len()..]).unwrap();
    assert_eq!(opened.unseal(record, &associated).unwrap(), value);
    (out, values)
}

/// The keys that a body uses at the given indices, by what they seal.
fn segment_keys(example: &Example) -> Fields {
    let (parameters, iv) = (example.input("parameters"), example.input("floe-iv"));
    let bytes = [parameters, iv, &[0; 32]].concat();
    let header = FloeHeader::parse(&bytes, SEGMENT_LEN_MAX).unwrap().unwrap();
    let aad = example.input("aad").to_vec();
    let message_key = Secret::from_slice(example.input("message-key")).unwrap();
    let first = segment_key(&header, &message_key, &aad, 0).unwrap();
    let floe =
        Floe { header, aad, message_key, rotation_bits: ROTATION_BITS, first, later: Mutex::new(None), meter: None };
    let mut values = Fields::new();
    for at in 0..example.count("index-", "") {
        let index = u64::from_be_bytes(example.array(&format!("index-{at}")));
        let purpose = [&b"DEK:"[..], &(index >> 20 << 20).to_be_bytes()].concat();
        let key = expand(floe.message_key.expose(), &[parameters, iv, &purpose, &floe.aad].concat(), 32);
        let place = Position { index, last: true };
        let mut segment = vec![0; 64];
        floe.seal_to(place, &[3; 12], &[5; 32], &mut segment).unwrap();
        let aad = [&index.to_be_bytes()[..], &[1]].concat();
        assert_eq!(segment[16..], aes(&key, &[3; 12], &aad, &[5; 32]), "segment {index}");
        values.insert(format!("purpose-{at}"), purpose);
        values.insert(format!("segment-key-{at}"), key);
    }
    values
}

fn local_blob(example: &Example) -> (Vec<u8>, Fields) {
    let kms = example.context(KeyUse::Message).kms.encoded().to_vec();
    let key_id = example.input("key-id");
    let id_len = u8::try_from(key_id.len()).unwrap();
    let head = [&[1, id_len], key_id, example.input("key-version"), example.input("salt")].concat();
    let info = [b"envelock/kms/v1 blob\0", head.as_slice()].concat();
    let (iv, aad) = (example.array("iv"), [head.as_slice(), &kms].concat());
    let sealed = aes(&expand(example.input("material"), &info, 32), &iv, &aad, example.input("data-key"));
    ([head.as_slice(), &iv, &sealed].concat(), Fields::from([("kms-context".into(), kms)]))
}

fn journal(example: &Example) -> Vec<u8> {
    let (old, new) = (example.input("old"), example.input("new"));
    let m = u16::try_from(old.len()).unwrap().to_be_bytes();
    let before = [&[1], &m[..], old, new].concat();
    let hash = crypto::sha256(&[&before, example.input("core"), example.input("floe-header")]);
    [before.as_slice(), &hash].concat()
}

#[test]
fn every_worked_example_is_what_the_crate_makes_of_its_inputs() {
    let (mut values, mut bytes) = (0, 0);
    let examples = examples();
    for example in &examples {
        let (made, derived) = match example.shows.as_str() {
            "message" => message(example),
            "record-set" => record_set(example),
            "segment-keys" => (Vec::new(), segment_keys(example)),
            "local-blob" => local_blob(example),
            "journal" => (journal(example), Fields::new()),
            other => panic!("{}: shows {other}", example.name),
        };
        assert_eq!(derived, example.values, "{}", example.name);
        assert_eq!(made, example.bytes, "{}", example.name);
        values += derived.len();
        bytes += made.len();
    }
    assert_eq!(examples.len(), 9, "worked examples");
    say(format_args!("docs/format.md: {} examples made again: {values} values, {bytes} bytes", examples.len()));
}

#[test]
fn every_message_of_the_worked_examples_parses_and_its_data_key_opens_it() {
    let mut opened = 0;
    for example in examples().iter().filter(|example| example.shows == "message") {
        let header = Header::parse(&example.bytes).unwrap();
        let aad = [header.core(), &example.context(KeyUse::Message).unstored].concat();
        let key = DataKey::from_slice(example.input("data-key")).unwrap();
        let floe = Floe::open(&key, header.floe(), aad).unwrap().unwrap();
        let segments = &example.bytes[header.len()..];
        let layout = header.layout();
        let extent = layout.extent(segments.len() as u64).unwrap();
        let pieces = (0..).zip(segments.chunks(layout.segment_len()));
        let plaintext: Vec<u8> = pieces.flat_map(|(at, it)| open(&floe, extent.position(at), it).unwrap()).collect();
        assert_eq!(plaintext, example.input("plaintext"), "{}", example.name);
        assert_eq!(header.slots().len(), example.count("slot-", "-provider"));
        assert_eq!(header.floe().encode()[..], example.bytes[header.len() - FLOE_HEADER_LEN..header.len()]);
        opened += 1;
    }
    assert_eq!(opened, 4, "messages among the worked examples");
}
