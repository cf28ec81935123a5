//! What a call changed, as its record has it.
//!
//! ```text
//! changes = for each row, by name: byte string of its name || 00 if it was removed | 01 || row hash (32)
//! ```

use crate::codec::{Reader, Short, put_byte_string};
use crate::error::{Error, Result};
use crate::kms::rows::{RowHash, RowName};

/// Appends a row and its hash since; `None` if it was removed.
pub(in crate::kms) fn put(out: &mut Vec<u8>, name: &RowName, hash: Option<&RowHash>) -> Result<()> {
    put_byte_string(out, name.as_str().as_bytes())?;
    match hash {
        None => out.push(0),
        Some(hash) => {
            out.push(1);
            out.extend_from_slice(hash);
        }
    }
    Ok(())
}

/// The rows that these changes are of, and their hashes since.
///
/// # Errors
/// Kind Storage, from the first one on that is none.
pub(in crate::kms) fn read(changes: &[u8]) -> impl Iterator<Item = Result<(RowName, Option<RowHash>)>> {
    let mut reader = Reader::new(changes);
    std::iter::from_fn(move || {
        if reader.remaining() == 0 {
            return None;
        }
        let change = one(&mut reader);
        if change.is_err() {
            reader = Reader::new(&[]);
        }
        Some(change)
    })
}

fn one(reader: &mut Reader<'_>) -> Result<(RowName, Option<RowHash>)> {
    let bad = |_: Short| unreadable();
    let name = std::str::from_utf8(reader.byte_string().map_err(bad)?).map_err(|_| unreadable())?;
    let hash = match reader.u8().map_err(bad)? {
        0 => None,
        1 => Some(reader.array().map_err(bad)?),
        _ => return Err(unreadable()),
    };
    Ok((RowName::read(name), hash))
}

fn unreadable() -> Error {
    Error::tampered("an audit record does not say what it changed")
}
