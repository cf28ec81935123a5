//! Where a record belongs: the associated data that keeps it from being moved elsewhere.

use std::fmt;

/// What a record is bound to besides its set: the place where it belongs. Whoever opens it must name the same.
///
/// Two records of one set whose places are equal can be swapped for one another by whoever can write the
/// storage; and an older record of a place can be put back. So name table, column and row: [`Column`] does
/// that without ambiguity. At most 65,536 bytes in all. It is neither secret nor stored in the record.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AssociatedData(Vec<u8>);

impl AssociatedData {
    /// Bytes of the caller's own encoding, which must be such that two places never give the same bytes: for
    /// records that belong to no row of a table (a message's queue and number, a file's path).
    ///
    /// No bytes at all are the place of a [value that stands alone](crate::Envelope::seal_value): a record that
    /// was sealed for them opens as such a value wherever somebody puts it behind its set's header. Name a place
    /// in every record.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes that are authenticated.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for AssociatedData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AssociatedData(\"{}\")", self.0.escape_ascii())
    }
}

/// A column of a table, whose fields are sealed one by one.
///
/// ```
/// use envelock::Column;
/// const IBAN: Column<'_> = Column::new("customers", "iban");
/// assert_eq!(IBAN.row("4711").as_bytes(), b"\0\x09customers\0\x04iban4711");
/// assert_ne!(Column::new("a", "bc").row("d"), Column::new("ab", "c").row("d"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Column<'a> {
    table: &'a str,
    name: &'a str,
}

impl<'a> Column<'a> {
    /// The column `name` of `table`.
    #[must_use]
    pub const fn new(table: &'a str, name: &'a str) -> Self {
        Self { table, name }
    }

    /// The field in the row with the primary key `row`: text, or bytes. A number goes in as its decimal text,
    /// or as bytes of a fixed length; a column keeps to one of both.
    ///
    /// The encoding is `u16(length) || table || u16(length) || column || row` (docs/format.md, "The place of a
    /// record"), so that two fields never have the same one.
    #[must_use]
    pub fn row(&self, row: impl AsRef<[u8]>) -> AssociatedData {
        let row = row.as_ref();
        let mut bytes = Vec::with_capacity(4 + self.table.len() + self.name.len() + row.len());
        for name in [self.table, self.name] {
            // A name that wraps here is longer than all of the associated data may be, and refused with it.
            #[expect(clippy::cast_possible_truncation, reason = "above 65,535 bytes nothing is sealed or opened")]
            bytes.extend_from_slice(&(name.len() as u16).to_be_bytes());
            bytes.extend_from_slice(name.as_bytes());
        }
        bytes.extend_from_slice(row);
        AssociatedData(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn two_fields_never_have_the_same_encoding(
            one in ("[ab\0]{0,3}", "[ab\0]{0,3}", "[ab\0]{0,3}"),
            other in ("[ab\0]{0,3}", "[ab\0]{0,3}", "[ab\0]{0,3}"),
        ) {
            let encoded = |(table, name, row): &(String, String, String)| Column::new(table, name).row(row);
            prop_assert_eq!(encoded(&one) == encoded(&other), one == other);
        }
    }
}
