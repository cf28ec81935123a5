//! `Sealed<T>`: a field of a struct that is sealed by itself (feature `serde`).

use crate::envelope::record::{RecordReader, RecordSet};
use crate::error::{Error, Result};
use crate::native::place::{AssociatedData, Column};
use crate::native::record::{Fingerprint, Record};
use crate::native::text::{from_text, to_text};
use serde::de::{self, DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::any::type_name;
use std::fmt;
use std::io::{self, Write};
use std::marker::PhantomData;
use zeroize::Zeroizing;

/// A type whose values are the fields of one column: what [`Sealed`] binds them to.
pub trait Field: Serialize + DeserializeOwned {
    /// The table, or whatever rows are kept in.
    const TABLE: &'static str;
    /// The column.
    const COLUMN: &'static str;
}

/// A value of type `T` as a compact record: it travels sealed, and is opened on demand.
///
/// It holds no key and no value, only the record. So a struct with such a field goes into a database or a JSON
/// document and comes out again without any key at hand; `Debug` shows which record set it belongs to, never
/// what it holds. The value is bound to table, column and row: a record that was moved to another row does not
/// open there.
///
/// Inside, the value is JSON. As text (JSON, TOML) a field is one string `elk1.…`, elsewhere bytes.
///
/// What JSON does not hold does not come back: an infinite `f64`, or one that is not a number, is sealed as `null`
/// and fails to open.
///
/// ```
/// use envelock::{EncryptionContext, Envelope, Field, RawKeyProvider, Sealed};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Iban(String);
///
/// impl Field for Iban {
///     const TABLE: &'static str = "customers";
///     const COLUMN: &'static str = "iban";
/// }
///
/// #[derive(Debug, Serialize, Deserialize)]
/// struct Customer {
///     id: u64,
///     iban: Sealed<Iban>,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # pollster::block_on(async {
/// let envelope = Envelope::builder(RawKeyProvider::generate("example")?).build()?;
/// let set = envelope.record_set(&EncryptionContext::from([("tenant", "acme")])).await?;
///
/// let iban = Sealed::seal(&set, "4711", &Iban("DE02120300000000202051".into()))?;
/// let json = serde_json::to_string(&Customer { id: 4711, iban })?;
/// assert!(json.starts_with(r#"{"id":4711,"iban":"elk1."#));
///
/// let customer: Customer = serde_json::from_str(&json)?;
/// assert_eq!(customer.iban.open(&set, customer.id.to_string())?.0, "DE02120300000000202051");
/// assert!(customer.iban.open(&set, "4712").is_err());
/// # Ok(())
/// # })
/// # }
/// ```
pub struct Sealed<T> {
    record: Vec<u8>,
    value: PhantomData<fn() -> T>,
}

impl<T: Field> Sealed<T> {
    /// Seals `value` for the row with the primary key `row`, in the column of `T`.
    ///
    /// # Errors
    /// As [`RecordSet::seal`]; [`InvalidInput`](crate::ErrorKind::InvalidInput) for a value that has no JSON.
    pub fn seal(set: &RecordSet, row: impl AsRef<[u8]>, value: &T) -> Result<Self> {
        let mut len = Count(0);
        // At once as long as it becomes, so that growing leaves no copy behind.
        serde_json::to_writer(&mut len, value).map_err(|_| not_json::<T>())?;
        let mut json = Zeroizing::new(Vec::with_capacity(len.0));
        serde_json::to_writer(&mut *json, value).map_err(|_| not_json::<T>())?;
        Ok(Self { record: set.seal(&json, &place::<T>(row))?, value: PhantomData })
    }

    /// Opens the value, of the row with the primary key `row`.
    ///
    /// # Errors
    /// As [`RecordSet::open`]; [`Malformed`](crate::ErrorKind::Malformed) if what was sealed is no `T`.
    pub fn open(&self, reader: &(impl RecordReader + ?Sized), row: impl AsRef<[u8]>) -> Result<T> {
        let json = Zeroizing::new(reader.open_record(&self.record, &place::<T>(row))?);
        // What the parser says would repeat some of the value.
        serde_json::from_slice(&json).map_err(|_| {
            Error::malformed(format!("the sealed value is authentic, and no {}", type_name::<T>()))
                .with_advice("the type was changed since it was sealed: let it read what older versions wrote")
        })
    }
}

impl<T> Sealed<T> {
    /// A field from a record that was kept as bytes.
    ///
    /// # Errors
    /// [`Malformed`](crate::ErrorKind::Malformed) or [`LimitExceeded`](crate::ErrorKind::LimitExceeded) for what
    /// is no record.
    pub fn from_record(record: impl Into<Vec<u8>>) -> Result<Self> {
        let record = record.into();
        Record::parse(&record)?;
        Ok(Self { record, value: PhantomData })
    }

    /// The record.
    #[must_use]
    pub fn as_record(&self) -> &[u8] {
        &self.record
    }

    /// The record, to be kept.
    #[must_use]
    pub fn into_record(self) -> Vec<u8> {
        self.record
    }
}

fn place<T: Field>(row: impl AsRef<[u8]>) -> AssociatedData {
    Column::new(T::TABLE, T::COLUMN).row(row)
}

fn not_json<T>() -> Error {
    Error::invalid_input(format!("a {} cannot be written as JSON", type_name::<T>()))
}

/// Counts bytes.
struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T> Clone for Sealed<T> {
    fn clone(&self) -> Self {
        Self { record: self.record.clone(), value: PhantomData }
    }
}

/// By their records: the same value sealed twice is not equal.
impl<T> PartialEq for Sealed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.record == other.record
    }
}

impl<T> Eq for Sealed<T> {}

/// Which set the record is of, and nothing of the value.
impl<T> fmt::Debug for Sealed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Fingerprint::of_record(&self.record) {
            Ok(fingerprint) => write!(f, "Sealed({fingerprint}, ..)"),
            Err(_) => f.write_str("Sealed(..)"),
        }
    }
}

impl<T> Serialize for Sealed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&to_text(&self.record))
        } else {
            serializer.serialize_bytes(&self.record)
        }
    }
}

impl<'de, T> Deserialize<'de> for Sealed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(RecordVisitor(PhantomData))
        } else {
            deserializer.deserialize_byte_buf(RecordVisitor(PhantomData))
        }
    }
}

/// Takes a record in either form. What is none is not repeated in the error: it may be a value in the clear.
struct RecordVisitor<T>(PhantomData<fn() -> T>);

impl<T> Visitor<'_> for RecordVisitor<T> {
    type Value = Sealed<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a compact record, as text `elk1.…` or as bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Sealed<T>, E> {
        from_text(text).and_then(Sealed::from_record).map_err(E::custom)
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Sealed<T>, E> {
        Sealed::from_record(bytes).map_err(E::custom)
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Sealed<T>, E> {
        Sealed::from_record(bytes).map_err(E::custom)
    }
}
