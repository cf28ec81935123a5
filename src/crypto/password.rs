//! Keys from passphrases: Argon2id (RFC 9106), the same crate under every backend.

use super::stack;
use crate::error::{Error, ErrorKind, Result};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroizing;

/// Argon2id version 0x13 without secret and associated data, into the whole of `out`.
///
/// Runs for as long as it is told to, in one thread: the caller limits the parameters first. The
/// memory is wiped afterwards.
///
/// # Errors
/// Kind InvalidInput unless `memory_kib` is at least 8 x `lanes`, `passes` and `lanes` are at least 1,
/// `salt` has at least 8 bytes and `out` at least 4. Kind LimitExceeded if there is not as much memory.
pub(crate) fn argon2id(
    passphrase: &[u8],
    salt: &[u8],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    out: &mut [u8],
) -> Result<()> {
    let params = Params::new(memory_kib, passes, lanes, Some(out.len())).map_err(|error| invalid(&error))?;
    // The crate can allocate by itself, but then leaves the blocks unwiped.
    let mut memory = Zeroizing::new(Vec::<Block>::new());
    memory.try_reserve_exact(params.block_count()).map_err(|error| {
        Error::new(ErrorKind::LimitExceeded, format!("Argon2id needs {memory_kib} KiB of memory: {error}"))
            .with_advice("use less memory for the passphrase, or a machine that has it")
    })?;
    memory.resize(params.block_count(), Block::new());
    stack::wiped(8, || {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into_with_memory(
            passphrase,
            salt,
            out,
            memory.as_mut_slice(),
        )
    })
    .map_err(|error| invalid(&error))
}

fn invalid(error: &argon2::Error) -> Error {
    Error::invalid_input(format!("Argon2id does not take these parameters: {error}"))
        .with_advice("use at least 1 pass, 1 lane, and 8 KiB of memory for each lane")
}
