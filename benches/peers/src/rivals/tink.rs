//! Tink for Rust: streaming AEAD, AES-256-GCM-HKDF, under a keyset at hand.

use super::AAD;
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;
use tink_core::keyset::Handle;
use tink_core::{Aead as _, StreamingAead};

pub struct Tink {
    primitive: Box<dyn StreamingAead>,
    /// Its writer and its reader want to own what they write to and read from, for as long as the
    /// program runs: so both go through a buffer that it shares.
    shared: Shared,
}

/// Its two AES-256-GCM segment lengths.
#[derive(Clone, Copy)]
pub enum SegmentLength {
    Kib4,
    Mib1,
}

impl Tink {
    pub fn new(length: SegmentLength) -> Self {
        tink_streaming_aead::init();
        let template = match length {
            SegmentLength::Kib4 => tink_streaming_aead::aes256_gcm_hkdf_4kb_key_template(),
            SegmentLength::Mib1 => tink_streaming_aead::aes256_gcm_hkdf_1mb_key_template(),
        };
        let keyset = Handle::new(&template).expect("random bytes");
        Self { primitive: tink_streaming_aead::new(&keyset).expect("a streaming key"), shared: Shared::default() }
    }

    /// Into the shared buffer; returns the length of the message.
    pub fn encrypt(&self, plain: &[u8]) -> usize {
        self.shared.0.borrow_mut().at = 0;
        let mut writer = self.primitive.new_encrypting_writer(Box::new(self.shared.clone()), AAD).expect("room");
        writer.write_all(plain).expect("room");
        writer.close().expect("room");
        self.shared.0.borrow().at
    }

    /// The message that the shared buffer holds, into `out`.
    pub fn decrypt(&self, out: &mut [u8]) {
        self.shared.0.borrow_mut().at = 0;
        let mut reader = self.primitive.new_decrypting_reader(Box::new(self.shared.clone()), AAD).expect("a message");
        reader.read_exact(out).expect("authentic");
        assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
    }

    /// What [`encrypt`](Self::encrypt) writes to: touched memory of this length.
    pub fn with_room(self, len: usize) -> Self {
        self.shared.0.borrow_mut().bytes = crate::common::touched(len);
        self
    }

    /// Ends the buffer where the message ends, so that a reader finds its end.
    pub fn keep(&self, len: usize) {
        self.shared.0.borrow_mut().bytes.truncate(len);
    }
}

#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Cursor>>);

#[derive(Default)]
struct Cursor {
    bytes: Vec<u8>,
    at: usize,
}

impl Write for Shared {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let Cursor { bytes, at } = &mut *self.0.borrow_mut();
        let room = &mut bytes[*at..];
        let count = room.len().min(data.len());
        room[..count].copy_from_slice(&data[..count]);
        *at += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Shared {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Cursor { bytes, at } = &mut *self.0.borrow_mut();
        let rest = &bytes[*at..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        *at += count;
        Ok(count)
    }
}

/// Tink's AEAD for small plaintexts, AES-256-GCM under a keyset at hand.
pub struct TinkAead(Box<dyn tink_core::Aead>);

impl TinkAead {
    pub fn new() -> Self {
        tink_aead::init();
        let keyset = Handle::new(&tink_aead::aes256_gcm_key_template()).expect("random bytes");
        Self(tink_aead::new(&keyset).expect("an AEAD key"))
    }

    pub fn encrypt(&self, plain: &[u8]) -> Vec<u8> {
        self.0.encrypt(plain, AAD).expect("encrypts")
    }

    pub fn decrypt(&self, sealed: &[u8]) -> Vec<u8> {
        self.0.decrypt(sealed, AAD).expect("authentic")
    }
}

/// Tink's envelope: a fresh AES-256-GCM key for each plaintext, encrypted under a key at hand.
pub struct TinkEnvelope(tink_aead::KmsEnvelopeAead);

impl TinkEnvelope {
    pub fn new() -> Self {
        let remote = TinkAead::new().0;
        Self(tink_aead::KmsEnvelopeAead::new(tink_aead::aes256_gcm_key_template(), remote))
    }

    pub fn encrypt(&self, plain: &[u8]) -> Vec<u8> {
        self.0.encrypt(plain, AAD).expect("encrypts")
    }

    pub fn decrypt(&self, sealed: &[u8]) -> Vec<u8> {
        self.0.decrypt(sealed, AAD).expect("authentic")
    }
}
