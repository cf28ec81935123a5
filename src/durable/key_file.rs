//! Reading files that hold a key.

use crate::error::{Error, ErrorKind, Result};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// The content of `file`, opened at `path` and called `what` in errors; one byte more than `max` where it
/// is longer than that.
///
/// # Errors
/// Kind Io if anybody but its owner may read or write it, as `ssh` has it of its keys, and if it cannot
/// be read.
pub(crate) fn read_key_file(file: File, path: &Path, what: &str, max: u64) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |action: &str, e| Error::io_at(&format!("{what} cannot be {action}"), path, e);
    let metadata = file.metadata().map_err(|e| failed("looked at", e))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(Error::new(ErrorKind::Io, format!("others than its owner may read or write {what}"))
            .with_path(path)
            .with_advice("run `chmod 600` on it; if others may have read it, take its keys as known to them"));
    }
    // All of it at once, so that no growing buffer leaves copies behind.
    let room = usize::try_from(max).map_err(|_| Error::internal("a key file is short"))?;
    let mut text = Zeroizing::new(Vec::with_capacity(room + 1));
    file.take(max + 1).read_to_end(&mut text).map_err(|e| failed("read", e))?;
    Ok(text)
}
