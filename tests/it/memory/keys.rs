//! The parent's side: it makes or is told the keys of a scene, derives from docs/format.md what else
//! must not stay in memory, and answers with hashes to look for.

use super::scan::Needle;
use crate::support::model::Head;
use crate::support::{hex, unhex};
use envelock::RootKey;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha384};
use std::collections::HashMap;
use std::io::Read;
use xaes_256_gcm::aes::cipher::BlockCipherEncrypt;
use xaes_256_gcm::aes::{Aes256Enc, Block};

/// What the parent knows, by name.
#[derive(Default)]
pub(super) struct Secrets(HashMap<String, Vec<u8>>);

pub(super) fn random(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

/// `secret` masked, and the mask, as hex.
pub(super) fn masked(secret: &[u8]) -> String {
    let mask = random(secret.len());
    let masked: Vec<u8> = secret.iter().zip(&mask).map(|(byte, mask)| byte ^ mask).collect();
    format!("{} {}", hex(&masked), hex(&mask))
}

/// Writes the secret that `line` holds masked where `place` says, and nowhere else.
pub(super) fn unmask(line: &str, place: impl FnOnce(&dyn Fn(&mut [u8]))) {
    let (masked, mask) = line.split_once(' ').unwrap();
    let (masked, mask) = (unhex(masked), unhex(mask));
    place(&|out| {
        assert_eq!(out.len(), masked.len());
        for ((out, masked), mask) in out.iter_mut().zip(&masked).zip(&mask) {
            *out = masked ^ mask;
        }
    });
}

impl Secrets {
    pub(super) fn answer(&mut self, request: &str, rest: &str) -> String {
        let words: Vec<_> = rest.split(' ').collect();
        match (request, words.as_slice()) {
            // A fresh secret for the scene, masked.
            ("make", [name, len]) => {
                let secret = random(len.parse().unwrap());
                self.hand_out(name, secret)
            }
            // The same as hex digits.
            ("text", [name, of]) => {
                let text = hex(&self.0[*of]).into_bytes();
                self.hand_out(name, text)
            }
            ("root", [name]) => {
                let text = RootKey::generate().unwrap().expose().trim_end().to_owned();
                let raw = base64(text.strip_prefix("envelock-root1.").unwrap());
                assert_eq!(raw.len(), 16 + 32 + 4);
                self.0.insert(format!("{name}-raw"), raw[16..48].to_vec());
                self.hand_out(name, text.into_bytes())
            }
            ("needle", names) => {
                let lines: Vec<_> = names.iter().map(|name| Needle::line_of(name, &self.0[*name])).collect();
                lines.join(";")
            }
            // A data key that a provider made or gave.
            ("data-key", [name, masked, mask]) => {
                let key: Vec<u8> = unhex(masked).iter().zip(unhex(mask)).map(|(byte, mask)| byte ^ mask).collect();
                assert_eq!(key.len(), 32);
                self.keep(name, key)
            }
            // What is kept of data key `of`: the state of SHA-384 that has read it as an HMAC's inner key.
            ("prepared", [of]) => {
                let mut block = [0x36; 128];
                block.iter_mut().zip(&self.0[*of]).for_each(|(pad, byte)| *pad ^= byte);
                let mut state = SHA_384_START;
                sha2::block_api::compress512(&mut state, &[block]);
                let state = state.iter().flat_map(|word| word.to_ne_bytes()).collect();
                self.keep(&format!("prepared-{of}"), state)
            }
            // The keys of a message under data key `of`.
            ("message", [of, head]) => {
                let head = unhex(head);
                let parts = Head::judge(&head).unwrap();
                let info = &head[parts.floe.start..parts.floe.start + 42];
                let core = &head[parts.core];
                let message_key = expand(&self.0[*of], &[info, b"MESSAGE_KEY:", core], 48);
                let segment_key = expand(&message_key, &[info, b"DEK:", &[0; 8], core], 32);
                [self.keep("message-key", message_key), self.keep("segment-key", segment_key)].join(";")
            }
            // The keys of a record set under data key `of`, and of its record `record`.
            ("records", [of, header, record]) => {
                let (header, record) = (unhex(header), unhex(record));
                let core = &header[..7 + usize::from(u16::from_be_bytes([header[5], header[6]])) + 16];
                let record_key = expand(&self.0[*of], &[b"envelock/v1 records\0", core], 32);
                let derived = xaes(&record_key, record[17..29].try_into().unwrap());
                [self.keep("record-key", record_key), self.keep("derived-key", derived)].join(";")
            }
            // The key that the slots of a message were wrapped under, from the provider's own secret.
            ("raw-wrap", [of, head]) => {
                let wrapped = wrapped(head, b"raw");
                let key = expand(&self.0[*of], &[b"envelock/v1 raw\0", &wrapped[..33]], 32);
                self.keep("raw-wrap-key", key)
            }
            ("passphrase-wrap", [of, head]) => {
                let wrapped = wrapped(head, b"passphrase");
                let number = |at: usize| u32::from_be_bytes(wrapped[at..at + 4].try_into().unwrap());
                let params = argon2::Params::new(number(1), number(5), u32::from(wrapped[9]), Some(48)).unwrap();
                let mut stretched = vec![0; 48];
                argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
                    .hash_password_into(&self.0[*of], &wrapped[10..26], &mut stretched)
                    .unwrap();
                let context = Sha384::digest(b"\x00\x01\x00\x0cenvelock-use\x00\x09message/1");
                let key = expand(&stretched, &[b"envelock/v1 passphrase\0", &wrapped[..26], &context], 64);
                assert_eq!(key[32..], wrapped[26..58], "the commitment of the slot");
                [self.keep("stretched-passphrase", stretched), self.keep("passphrase-wrap-key", key[..32].to_vec())]
                    .join(";")
            }
            _ => panic!("{request} {rest}"),
        }
    }

    fn hand_out(&mut self, name: &str, secret: Vec<u8>) -> String {
        let answer = masked(&secret);
        self.0.insert(name.to_owned(), secret);
        answer
    }

    fn keep(&mut self, name: &str, secret: Vec<u8>) -> String {
        let line = Needle::line_of(name, &secret);
        self.0.insert(name.to_owned(), secret);
        line
    }
}

/// The initial hash value of SHA-384 (FIPS 180-4, section 5.3.4).
const SHA_384_START: [u64; 8] = [
    0xcbbb_9d5d_c105_9ed8,
    0x629a_292a_367c_d507,
    0x9159_015a_3070_dd17,
    0x152f_ecd8_f70e_5939,
    0x6733_2667_ffc0_0b31,
    0x8eb4_4a87_6858_1511,
    0xdb0c_2e0d_64f9_8fa7,
    0x47b5_481d_befa_4fa4,
];

/// The wrapped key of the first slot of `provider`.
fn wrapped(head: &str, provider: &[u8]) -> Vec<u8> {
    let slots = Head::judge(&unhex(head)).unwrap().slots;
    slots.into_iter().find(|slot| slot.provider == provider).unwrap().wrapped
}

/// The key of one nonce (c2sp.org/XAES-256-GCM), from the nonce's first half.
fn xaes(key: &[u8], nonce: [u8; 12]) -> Vec<u8> {
    let aes = Aes256Enc::new_from_slice(key).unwrap();
    let encrypt = |block: u128| {
        let mut block = Block::from(block.to_be_bytes());
        aes.encrypt_block(&mut block);
        u128::from_be_bytes(block.into())
    };
    let l = encrypt(0);
    let subkey = (l << 1) ^ if l >> 127 == 1 { 0x87 } else { 0 };
    let half = |counter| {
        let mut block = [0, counter, b'X', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        block[4..].copy_from_slice(&nonce);
        encrypt(u128::from_be_bytes(block) ^ subkey).to_be_bytes()
    };
    [half(1), half(2)].concat()
}

/// HKDF-Expand-SHA-384 (RFC 5869).
fn expand(key: &[u8], info: &[&[u8]], len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut block: Vec<u8> = Vec::new();
    for counter in 1.. {
        let mut mac = Hmac::<Sha384>::new_from_slice(key).unwrap();
        mac.update(&block);
        info.iter().for_each(|part| mac.update(part));
        mac.update(&[counter]);
        block = mac.finalize().into_bytes().to_vec();
        out.extend_from_slice(&block);
        if out.len() >= len {
            break;
        }
    }
    out.truncate(len);
    out
}

/// base64url without padding.
fn base64(text: &str) -> Vec<u8> {
    use ::base64::Engine;
    ::base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()
}
