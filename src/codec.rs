//! Wire integers and byte strings, big-endian, read within bounds and written with checked lengths.

use crate::error::{Error, Result};

/// Why a read got no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    /// The field reaches past the end that its enclosing length declares: the bytes are malformed.
    Beyond,
    /// The field lies within the declared end, but the bytes at hand end before it.
    Missing,
}

/// Reads a region of known length of which perhaps only a prefix is at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    declared: usize,
    at: usize,
}

impl<'a> Reader<'a> {
    /// A region that is wholly at hand.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, declared: bytes.len(), at: 0 }
    }

    /// A region of `declared` bytes, of which `bytes` (or its first `declared` bytes) are at hand.
    pub(crate) fn partial(bytes: &'a [u8], declared: usize) -> Self {
        Self { bytes: bytes.get(..declared).unwrap_or(bytes), declared, at: 0 }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Short> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.declared).ok_or(Short::Beyond)?;
        let taken = self.bytes.get(self.at..end).ok_or(Short::Missing)?;
        self.at = end;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Short> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Short> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Short> {
        self.array().map(u32::from_be_bytes)
    }

    /// `u16(length) || bytes`.
    pub(crate) fn byte_string(&mut self) -> Result<&'a [u8], Short> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// Bytes of the region (at hand or not) that have not been read.
    pub(crate) fn remaining(&self) -> usize {
        self.declared - self.at
    }
}

/// Appends `u16(length) || bytes`.
pub(crate) fn put_byte_string(out: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    let len = u16::try_from(bytes.len())
        .map_err(|_| Error::limit(format!("a byte string of {} bytes is longer than 65,535", bytes.len())))?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_past_the_declared_end_differs_from_one_not_yet_at_hand() {
        let mut reader = Reader::partial(&[0, 3, b'a'], 5);
        assert_eq!(reader.byte_string(), Err(Short::Missing));
        let mut reader = Reader::partial(&[0, 4, b'a'], 5);
        assert_eq!(reader.byte_string(), Err(Short::Beyond));
        let mut reader = Reader::new(&[0, 1, b'a', 9]);
        assert_eq!(reader.byte_string(), Ok(&b"a"[..]));
        assert_eq!(reader.remaining(), 1);
        assert_eq!(reader.u16(), Err(Short::Beyond));
        assert_eq!(reader.u8(), Ok(9));
    }
}
