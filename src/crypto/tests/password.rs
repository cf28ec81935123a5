//! Argon2id.

use crate::crypto::password::argon2id;
use crate::error::ErrorKind;

fn hash(passphrase: &[u8], salt: &[u8], memory_kib: u32, passes: u32, lanes: u32, len: usize) -> String {
    let mut out = vec![0; len];
    argon2id(passphrase, salt, memory_kib, passes, lanes, &mut out).unwrap();
    out.iter().map(|byte| format!("{byte:02x}")).collect()
}
