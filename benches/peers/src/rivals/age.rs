//! The crate `age`, to an X25519 recipient.

use age::x25519::{Identity, Recipient};
use std::io::{Read, Write};
use std::iter;

pub struct Age {
    identity: Identity,
    recipient: Recipient,
}

impl Age {
    pub fn new() -> Self {
        let identity = Identity::generate();
        Self { recipient: identity.to_public(), identity }
    }

    /// Returns the length of the message.
    pub fn encrypt(&self, plain: &[u8], out: &mut [u8]) -> usize {
        let room = out.len();
        let encryptor = age::Encryptor::with_recipients(iter::once(&self.recipient as _)).expect("a recipient");
        let mut writer = encryptor.wrap_output(out).expect("room");
        writer.write_all(plain).expect("room");
        room - writer.finish().expect("room").len()
    }

    pub fn decrypt(&self, sealed: &[u8], out: &mut [u8]) {
        let decryptor = age::Decryptor::new(sealed).expect("a message");
        let mut reader = decryptor.decrypt(iter::once(&self.identity as _)).expect("our key");
        reader.read_exact(out).expect("authentic");
        assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
    }
}
