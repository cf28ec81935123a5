//! envelock, in each of the shapes that are measured.

use envelock::{AeadAlgorithm, EncryptionContext, Encryptor, Envelope, Header, KeyProvider, RawKeyProvider};
use std::io::{Read, Write};

/// An envelope and the context of its messages.
#[derive(Clone)]
pub struct Subject {
    pub envelope: Envelope,
    pub context: EncryptionContext,
}

impl Subject {
    /// Under a raw key, with a fresh data key for each message.
    pub fn new(aead: AeadAlgorithm, segment_len: u32) -> Self {
        Self::under(RawKeyProvider::generate("bench").expect("random bytes"), aead, segment_len)
    }

    pub fn under(provider: impl KeyProvider + 'static, aead: AeadAlgorithm, segment_len: u32) -> Self {
        Self::of(Envelope::builder(provider).aead(aead).segment_len(segment_len).build().expect("valid"))
    }

    pub fn of(envelope: Envelope) -> Self {
        Self { envelope, context: EncryptionContext::from([("tenant", "acme")]) }
    }

    pub fn encryptor(&self) -> Encryptor {
        pollster::block_on(self.envelope.encryptor(&self.context)).expect("the key wraps")
    }

    pub fn encrypt(&self, plain: &[u8]) -> Vec<u8> {
        pollster::block_on(self.envelope.encrypt(plain, &self.context)).expect("encrypts")
    }

    pub fn decrypt(&self, sealed: &[u8]) -> Vec<u8> {
        pollster::block_on(self.envelope.decrypt(sealed, &self.context)).expect("authentic")
    }

    /// From slice to slice. Returns the message's length.
    pub fn seal_to(&self, plain: &[u8], out: &mut [u8]) -> usize {
        let encryptor = self.encryptor();
        let len = encryptor.sealed_len(plain.len() as u64).expect("within limits") as usize;
        encryptor.seal_to(plain, &mut out[..len]).expect("seals");
        len
    }

    pub fn open_to(&self, sealed: &[u8], out: &mut [u8]) {
        let header = Header::parse(sealed).expect("a message");
        let decryptor = pollster::block_on(self.envelope.decryptor(&header, &self.context)).expect("our key");
        assert_eq!(decryptor.open_to(&sealed[header.len()..], out).expect("authentic"), out.len());
    }

    /// Through the writer, in pieces of `chunk` bytes.
    pub fn write(&self, plain: &[u8], out: &mut [u8], chunk: usize) {
        let mut writer = pollster::block_on(self.envelope.encrypt_writer(out, &self.context)).expect("the key wraps");
        plain.chunks(chunk).for_each(|piece| writer.write_all(piece).expect("room"));
        writer.finish().expect("room");
    }

    /// Through the reader, in pieces of `chunk` bytes.
    pub fn read(&self, sealed: &[u8], out: &mut [u8], chunk: usize) {
        let mut reader = pollster::block_on(self.envelope.decrypt_reader(sealed, &self.context)).expect("our message");
        out.chunks_mut(chunk).for_each(|piece| reader.read_exact(piece).expect("authentic"));
        assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
    }
}
