//! envelock against its rivals: 256 MiB from memory to memory on one thread, and small messages, every
//! rival in the same interleaved run. `scripts/bench peers [WORDS OF A TITLE]`.
//!
//! Each writes through its own streaming writer into a slice that is there already, and reads the
//! other way round; envelock and fast-floe also have calls for whole messages.

#[path = "../../common/mod.rs"]
mod common;

use age::x25519;
use common::{Amount, Group, Report, touched};
use envelock::{EncryptionContext, Envelope, Header, RawKeyProvider};
use fast_floe::{Key, Parameters};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::iter;

const LEN: usize = 256 << 20;
const ROUNDS: usize = 11;
/// More than any of them adds.
const ROOM: usize = 16 << 20;

const SMALL_ROUNDS: usize = 31;
const SMALL_REPEAT: usize = 200;

fn main() {
    let mut report = Report::new("peers");
    let plain = touched(LEN);
    let sealed = RefCell::new(touched(LEN + ROOM));
    let out = RefCell::new(touched(LEN));
    let age = Age(x25519::Identity::generate());
    for (segment_len, name) in [(64 << 10, "64 KiB"), (1 << 20, "1 MiB")] {
        let floe = Floe::new(segment_len);
        let envelock = Envelock::new(segment_len);

        let title = format!("encrypt 256 MiB, {name} segments (age always has 64 KiB)");
        if report.wants(&title) {
            let measured = Group::new(title, Amount::Bytes(LEN), 1)
                .case("age, writer", || age.encrypt(&plain, &mut sealed.borrow_mut()))
                .case("fast-floe, writer", || floe.write(&plain, &mut sealed.borrow_mut()))
                .case("fast-floe, `encrypt`", || floe.encrypt(&plain))
                .case("envelock, writer", || envelock.write(&plain, &mut sealed.borrow_mut()))
                .case("envelock, `encrypt`", || envelock.encrypt(&plain))
                .case("envelock, `seal_to`", || envelock.seal_to(&plain, &mut sealed.borrow_mut()))
                .run(ROUNDS);
            report.add(&measured, &[0, 1, 2]);
        }

        let title = format!("decrypt 256 MiB, {name} segments (age always has 64 KiB)");
        if report.wants(&title) {
            let message = || {
                let len = age.encrypt(&plain, &mut sealed.borrow_mut());
                sealed.borrow()[..len].to_vec()
            };
            let (of_age, of_floe, of_envelock) = (message(), floe.encrypt(&plain), envelock.encrypt(&plain));
            let readers: [&dyn Fn(&mut [u8]); 4] = [
                &|out| age.decrypt(&of_age, out),
                &|out| floe.read(&of_floe, out),
                &|out| envelock.read(&of_envelock, out),
                &|out| envelock.open_to(&of_envelock, out),
            ];
            for read in readers {
                out.borrow_mut().fill(0);
                read(&mut out.borrow_mut());
                assert!(*out.borrow() == plain, "what is measured must be a decryption");
            }
            let [age_read, floe_read, our_read, our_open] = readers;
            let measured = Group::new(title, Amount::Bytes(LEN), 1)
                .case("age, reader", || age_read(&mut out.borrow_mut()))
                .case("fast-floe, reader", || floe_read(&mut out.borrow_mut()))
                .case("fast-floe, `decrypt`", || floe.decrypt(&of_floe))
                .case("envelock, reader", || our_read(&mut out.borrow_mut()))
                .case("envelock, `decrypt`", || envelock.decrypt(&of_envelock))
                .case("envelock, `open_to`", || our_open(&mut out.borrow_mut()))
                .run(ROUNDS);
            report.add(&measured, &[0, 1, 2]);
        }
    }
    small(&mut report, &age);
    report.write();
}

fn small(report: &mut Report, age: &Age) {
    let (floe, envelock) = (Floe::new(64 << 10), Envelock::new(64 << 10));
    for len in [100, 1024] {
        let plain = touched(len);
        let title = format!(
            "encrypt {len} B: age to an X25519 key, fast-floe under a data key at hand, envelock under a raw key with a fresh data key"
        );
        if report.wants(&title) {
            let measured = Group::new(title, Amount::Message, SMALL_REPEAT)
                .case("fast-floe", || floe.encrypt(&plain))
                .case("age", || age.encrypt(&plain, &mut [0; 2048]))
                .case("envelock", || envelock.encrypt(&plain))
                .run(SMALL_ROUNDS);
            report.add(&measured, &[0, 1]);
        }
        let title = format!("decrypt {len} B: the same");
        if report.wants(&title) {
            let mut buffer = [0; 2048];
            let of_age = age.encrypt(&plain, &mut buffer);
            let of_age = &buffer[..of_age];
            let (of_floe, of_envelock) = (floe.encrypt(&plain), envelock.encrypt(&plain));
            let measured = Group::new(title, Amount::Message, SMALL_REPEAT)
                .case("fast-floe", || floe.decrypt(&of_floe))
                .case("age", || age.decrypt(of_age, &mut vec![0; len]))
                .case("envelock", || envelock.decrypt(&of_envelock))
                .run(SMALL_ROUNDS);
            report.add(&measured, &[0, 1]);
        }
    }
}

struct Age(x25519::Identity);

impl Age {
    /// Returns the length of the message.
    fn encrypt(&self, plain: &[u8], out: &mut [u8]) -> usize {
        let recipient = self.0.to_public();
        let room = out.len();
        let encryptor = age::Encryptor::with_recipients(iter::once(&recipient as _)).expect("a recipient");
        let mut writer = encryptor.wrap_output(out).expect("room");
        writer.write_all(plain).expect("room");
        room - writer.finish().expect("room").len()
    }

    fn decrypt(&self, sealed: &[u8], out: &mut [u8]) {
        let decryptor = age::Decryptor::new(sealed).expect("a message");
        let mut reader = decryptor.decrypt(iter::once(&self.0 as _)).expect("our key");
        reader.read_exact(out).expect("authentic");
        assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
    }
}

struct Floe {
    key: Key,
    parameters: Parameters,
}

const AAD: &[u8] = b"tenant=acme";

impl Floe {
    fn new(segment_len: u32) -> Self {
        let parameters = Parameters::with_segment_length(segment_len).expect("valid");
        Self { key: Key::generate().expect("random bytes"), parameters }
    }

    fn encrypt(&self, plain: &[u8]) -> Vec<u8> {
        fast_floe::encrypt(&self.key, AAD, self.parameters, plain).expect("encrypts")
    }

    fn decrypt(&self, sealed: &[u8]) -> Vec<u8> {
        fast_floe::decrypt(&self.key, AAD, sealed).expect("authentic")
    }

    fn write(&self, plain: &[u8], out: &mut [u8]) {
        let mut writer = fast_floe::io::EncryptWriter::new(out, &self.key, AAD, self.parameters).expect("room");
        writer.write_all(plain).expect("room");
        writer.finish().map_err(|error| error.into_error()).expect("room");
    }

    fn read(&self, sealed: &[u8], out: &mut [u8]) {
        let mut reader = fast_floe::io::DecryptReader::new(sealed, &self.key, AAD).expect("a message");
        reader.read_exact(out).expect("authentic");
        assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
    }
}

struct Envelock {
    envelope: Envelope,
    context: EncryptionContext,
}

impl Envelock {
    fn new(segment_len: u32) -> Self {
        let provider = RawKeyProvider::generate("bench").expect("random bytes");
        let envelope = Envelope::builder(provider).segment_len(segment_len).build().expect("valid");
        Self { envelope, context: EncryptionContext::from([("tenant", "acme")]) }
    }

    fn encrypt(&self, plain: &[u8]) -> Vec<u8> {
        pollster::block_on(self.envelope.encrypt(plain, &self.context)).expect("encrypts")
    }

    fn decrypt(&self, sealed: &[u8]) -> Vec<u8> {
        pollster::block_on(self.envelope.decrypt(sealed, &self.context)).expect("authentic")
    }

    fn write(&self, plain: &[u8], out: &mut [u8]) {
        let mut writer = pollster::block_on(self.envelope.encrypt_writer(out, &self.context)).expect("a raw key wraps");
        writer.write_all(plain).expect("room");
        writer.finish().expect("room");
    }

    fn read(&self, sealed: &[u8], out: &mut [u8]) {
        let mut reader = pollster::block_on(self.envelope.decrypt_reader(sealed, &self.context)).expect("our message");
        reader.read_exact(out).expect("authentic");
        assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
    }

    fn seal_to(&self, plain: &[u8], out: &mut [u8]) {
        let encryptor = pollster::block_on(self.envelope.encryptor(&self.context)).expect("a raw key wraps");
        let len = encryptor.sealed_len(plain.len() as u64).expect("within limits") as usize;
        encryptor.seal_to(plain, &mut out[..len]).expect("seals");
    }

    fn open_to(&self, sealed: &[u8], out: &mut [u8]) {
        let header = Header::parse(sealed).expect("a message");
        let decryptor = pollster::block_on(self.envelope.decryptor(&header, &self.context)).expect("our key");
        decryptor.open_to(&sealed[header.len()..], out).expect("authentic");
    }
}
