//! The crate `fast-floe`, under a data key at hand, with aws-lc-rs.

use super::AAD;
use fast_floe::{Key, Parameters};
use std::io::{Read, Write};

pub struct Floe {
    key: Key,
    parameters: Parameters,
}

impl Floe {
    pub fn new(segment_len: u32) -> Self {
        let parameters = Parameters::with_segment_length(segment_len).expect("valid");
        Self { key: Key::generate().expect("random bytes"), parameters }
    }

    pub fn encrypt(&self, plain: &[u8]) -> Vec<u8> {
        fast_floe::encrypt(&self.key, AAD, self.parameters, plain).expect("encrypts")
    }

    pub fn decrypt(&self, sealed: &[u8]) -> Vec<u8> {
        fast_floe::decrypt(&self.key, AAD, sealed).expect("authentic")
    }

    pub fn write(&self, plain: &[u8], out: &mut [u8], chunk: usize) {
        let mut writer = fast_floe::io::EncryptWriter::new(out, &self.key, AAD, self.parameters).expect("room");
        plain.chunks(chunk).for_each(|piece| writer.write_all(piece).expect("room"));
        writer.finish().map_err(|error| error.into_error()).expect("room");
    }

    pub fn read(&self, sealed: &[u8], out: &mut [u8], chunk: usize) {
        let mut reader = fast_floe::io::DecryptReader::new(sealed, &self.key, AAD).expect("a message");
        out.chunks_mut(chunk).for_each(|piece| reader.read_exact(piece).expect("authentic"));
        assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
    }
}
