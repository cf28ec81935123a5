//! RustCrypto's `aes-gcm` as an ideal loop: the key set up, one call out of place for each segment.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};

const HEAD_LEN: usize = 16;
const TAG_LEN: usize = 16;

pub struct RustCrypto {
    key: Aes256Gcm,
    plain_len: usize,
}

impl RustCrypto {
    pub fn new(segment_len: usize) -> Self {
        Self { key: Aes256Gcm::new(&[7; 32].into()), plain_len: segment_len - HEAD_LEN - TAG_LEN }
    }

    pub fn seal(&self, plain: &[u8], out: &mut [u8]) -> usize {
        let mut written = 0;
        let pieces = plain.chunks(self.plain_len);
        for (index, (piece, segment)) in pieces.zip(out.chunks_mut(self.plain_len + HEAD_LEN + TAG_LEN)).enumerate() {
            let (head, rest) = segment.split_at_mut(HEAD_LEN);
            head[8..].copy_from_slice(&(index as u64).to_be_bytes());
            let (data, rest) = rest.split_at_mut(piece.len());
            let iv = head[4..].try_into().expect("12 bytes");
            let buffer = InOutBuf::new(piece, data).expect("equal lengths");
            let tag = self.key.encrypt_inout_detached(iv, &[0; 9], buffer).expect("seals");
            rest[..TAG_LEN].copy_from_slice(&tag);
            written += HEAD_LEN + piece.len() + TAG_LEN;
        }
        written
    }

    pub fn open(&self, sealed: &[u8], plain: &mut [u8]) {
        let segments = sealed.chunks(self.plain_len + HEAD_LEN + TAG_LEN);
        for (piece, segment) in plain.chunks_mut(self.plain_len).zip(segments) {
            let (head, rest) = segment.split_at(HEAD_LEN);
            let (data, tag) = rest.split_at(piece.len());
            let iv = head[4..].try_into().expect("12 bytes");
            let buffer = InOutBuf::new(data, piece).expect("equal lengths");
            let tag = tag[..TAG_LEN].try_into().expect("16 bytes");
            self.key.decrypt_inout_detached(iv, &[0; 9], buffer, tag).expect("authentic");
        }
    }
}
