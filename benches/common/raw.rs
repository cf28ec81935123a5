//! The ideal one-pass loop: aws-lc-rs from one slice to another, one call for each segment, with the
//! key set up and the IVs drawn before the clock starts, over the layout of a message's body (prefix
//! and IV, ciphertext, tag).

use super::touched;
use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use envelock::{AeadAlgorithm, Layout};
use std::cell::RefCell;

const TAG_LEN: usize = 16;
const HEAD_LEN: usize = 16;

/// The AEAD and nothing else.
pub struct Raw {
    key: LessSafeKey,
    layout: Layout,
    ivs: Vec<[u8; 12]>,
    buffer: RefCell<Vec<u8>>,
}

impl Raw {
    /// Ready for plaintexts of up to `len` bytes.
    pub fn new(aead: AeadAlgorithm, layout: Layout, len: usize) -> Self {
        let algorithm = if aead == AeadAlgorithm::Aes256Gcm { &AES_256_GCM } else { &CHACHA20_POLY1305 };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, &[7; 32]).expect("32 bytes"));
        let segments = len.div_ceil(layout.plaintext_per_segment());
        let ivs = touched(12 * segments).chunks(12).map(|iv| iv.try_into().expect("12")).collect();
        Self { key, layout, ivs, buffer: RefCell::new(touched(layout.segment_len())) }
    }

    /// Returns the length of what it wrote.
    pub fn seal(&self, plain: &[u8], out: &mut [u8]) -> usize {
        let mut written = 0;
        let pieces = plain.chunks(self.layout.plaintext_per_segment());
        for (index, (piece, segment)) in pieces.zip(out.chunks_mut(self.layout.segment_len())).enumerate() {
            let len = HEAD_LEN + piece.len() + TAG_LEN;
            self.seal_segment(index, piece, &mut segment[..len]);
            written += len;
        }
        written
    }

    /// As a writer must: into a segment of its own, and from there to where the caller wants it.
    pub fn seal_and_copy(&self, plain: &[u8], out: &mut [u8]) {
        let mut buffer = self.buffer.borrow_mut();
        let pieces = plain.chunks(self.layout.plaintext_per_segment());
        for (index, (piece, segment)) in pieces.zip(out.chunks_mut(self.layout.segment_len())).enumerate() {
            let len = HEAD_LEN + piece.len() + TAG_LEN;
            self.seal_segment(index, piece, &mut buffer[..len]);
            segment[..len].copy_from_slice(&buffer[..len]);
        }
    }

    pub fn open(&self, sealed: &[u8], plain: &mut [u8]) {
        let pieces = plain.chunks_mut(self.layout.plaintext_per_segment());
        for (piece, segment) in pieces.zip(sealed.chunks(self.layout.segment_len())) {
            self.open_segment(&segment[..HEAD_LEN + piece.len() + TAG_LEN], piece);
        }
    }

    pub fn open_and_copy(&self, sealed: &[u8], plain: &mut [u8]) {
        let mut buffer = self.buffer.borrow_mut();
        let pieces = plain.chunks_mut(self.layout.plaintext_per_segment());
        for (piece, segment) in pieces.zip(sealed.chunks(self.layout.segment_len())) {
            let segment = &segment[..HEAD_LEN + piece.len() + TAG_LEN];
            let buffer = &mut buffer[..segment.len()];
            buffer.copy_from_slice(segment);
            self.open_segment(buffer, piece);
        }
    }

    /// One whole segment; `plain` is as long as its plaintext.
    pub fn open_segment(&self, segment: &[u8], plain: &mut [u8]) {
        let nonce = Nonce::try_assume_unique_for_key(&segment[4..HEAD_LEN]).expect("12 bytes");
        let (data, tag) = segment[HEAD_LEN..].split_at(plain.len());
        self.key.open_separate_gather(nonce, Aad::from([0; 9]), data, tag, plain).expect("authentic");
    }

    fn seal_segment(&self, index: usize, plain: &[u8], segment: &mut [u8]) {
        let (head, sealed) = segment.split_at_mut(HEAD_LEN);
        head[..4].fill(0xFF);
        head[4..].copy_from_slice(&self.ivs[index]);
        let (data, tag) = sealed.split_at_mut(plain.len());
        let nonce = Nonce::assume_unique_for_key(self.ivs[index]);
        self.key.seal_out_of_place_scatter(nonce, Aad::from([0; 9]), plain, data, &[], tag).expect("seals");
    }
}
