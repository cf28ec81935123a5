//! Record sets: many small values under one data key, each sealed by itself (docs/format.md, "Compact records").

use crate::cache::held::Need;
use crate::context::{EncryptionContext, KeyUse, WriterContext};
use crate::crypto::{self, XAES_NONCE_LEN};
use crate::envelope::Envelope;
use crate::envelope::rewrap::{RewrapOptions, Slots};
use crate::error::{Error, ErrorKind, Result};
use crate::native::header::{Committed as _, SET_ID_LEN, encode_set_core};
use crate::native::place::AssociatedData;
use crate::native::record::{Fingerprint, RECORD, Record, RecordKey, RecordSetHeader, no_set};
use crate::native::slots::{SlotsRoom, encode_slots};
use crate::provider::Recipient;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroize;

/// A record set with its key at hand: seals small values, and opens them. Cheap to clone; shared by threads
/// and tasks.
///
/// Keep its [header](Self::header) once, with the table or queue that its records are in: whoever has the
/// header and a key that opens it reads all of its records, and without the header nobody does. A record is 57
/// bytes longer than its value, takes no call of the key provider, and is bound to its place by
/// [`AssociatedData`]. A value has up to 16 MiB; larger ones are messages. A set serves 2^80 records.
///
/// Nothing of it is used up: it may live on in a fork, and sealing there repeats nothing, since every call draws
/// its nonces from the operating system.
///
/// ```
/// use envelock::{Column, EncryptionContext, Envelope, RawKeyProvider};
/// # fn main() -> Result<(), envelock::Error> {
/// # pollster::block_on(async {
/// const IBAN: Column<'_> = Column::new("customers", "iban");
/// let envelope = Envelope::builder(RawKeyProvider::generate("example")?).build()?;
/// let context = EncryptionContext::from([("tenant", "acme")]);
///
/// let set = envelope.record_set(&context).await?;
/// let record = set.seal(b"DE02120300000000202051", &IBAN.row("4711"))?;
///
/// // Another day, another process.
/// let set = envelope.open_record_set(set.header(), &context).await?;
/// assert_eq!(set.open(&record, &IBAN.row("4711"))?, b"DE02120300000000202051");
/// assert!(set.open(&record, &IBAN.row("4712")).is_err());
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Clone)]
pub struct RecordSet {
    inner: Arc<Inner>,
}

struct Inner {
    header: Vec<u8>,
    keys: RecordKey,
}

impl RecordSet {
    fn new(header: Vec<u8>, keys: RecordKey) -> Self {
        Self { inner: Arc::new(Inner { header, keys }) }
    }

    /// The set's header, to be kept: `core || slots || record-set tag`.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.inner.header
    }

    /// What the records of this set begin with.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.inner.keys.fingerprint()
    }

    /// Seals `value` for the place that `associated_data` names.
    ///
    /// # Errors
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) above 16 MiB of value or 64 KiB of associated data,
    /// [`RandomFailed`](crate::ErrorKind::RandomFailed).
    pub fn seal(&self, value: &[u8], associated_data: &AssociatedData) -> Result<Vec<u8>> {
        let mut nonce = [0; XAES_NONCE_LEN];
        crypto::random::fill(&mut nonce)?;
        self.inner.keys.seal(&nonce, value, associated_data)
    }

    /// Seals many values with one draw of randomness: all of them, in their order, or none.
    ///
    /// # Errors
    /// As [`seal`](Self::seal), naming the value by its number, counted from 0.
    pub fn seal_batch<V: AsRef<[u8]>>(&self, values: &[(V, AssociatedData)]) -> Result<Vec<Vec<u8>>> {
        let mut nonces = vec![[0; XAES_NONCE_LEN]; values.len()];
        crypto::random::fill(nonces.as_flattened_mut())?;
        let sealed = values.iter().zip(&nonces).enumerate().map(|(index, ((value, associated_data), nonce))| {
            let record = self.inner.keys.seal(nonce, value.as_ref(), associated_data);
            record.map_err(|error| error.with_member(index))
        });
        sealed.collect()
    }

    /// Opens a record of this set that was sealed for the place that `associated_data` names.
    ///
    /// # Errors
    /// [`Malformed`](crate::ErrorKind::Malformed) for what is no record,
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) as in [`seal`](Self::seal),
    /// [`NoMatchingKey`](crate::ErrorKind::NoMatchingKey) for a record of another set,
    /// [`AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed) for one that was changed, or that
    /// belongs to another place.
    pub fn open(&self, record: &[u8], associated_data: &AssociatedData) -> Result<Vec<u8>> {
        self.open_parsed(Record::parse(record)?, associated_data)
    }

    /// The value of the one record that stands behind its set, or trailing data where none does.
    fn unseal_alone(&self, record: Option<Record<'_>>) -> Result<Vec<u8>> {
        self.inner.keys.unseal(record.ok_or_else(Error::trailing_data)?, &no_place())
    }

    fn open_parsed(&self, record: Record<'_>, associated_data: &AssociatedData) -> Result<Vec<u8>> {
        self.inner.keys.unseal(record, associated_data).map_err(|error| match error.kind() {
            ErrorKind::AuthenticationFailed => error.with_advice(
                "it belongs to another place than the one named (table, column, row), or it was changed: do not use \
                 it, restore it from a backup",
            ),
            _ => error,
        })
    }

    /// Opens many records: all of them, in their order, or none.
    ///
    /// # Errors
    /// As [`open`](Self::open), naming the record by its number, counted from 0.
    pub fn open_batch<R: AsRef<[u8]>>(&self, records: &[(R, AssociatedData)]) -> Result<Vec<Vec<u8>>> {
        open_all(records, |record, associated_data| self.open(record, associated_data))
    }
}

/// Prints no key.
impl fmt::Debug for RecordSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordSet").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

/// What opens records: a [`RecordSet`], [`Records`], or a type of one's own over sets that are at hand.
///
/// Opening a record waits for nothing, so there is no place in here to fetch a set: open the sets that are
/// needed first, by their [fingerprints](Fingerprint::of_record).
pub trait RecordReader {
    /// Opens a record that was sealed for the place that `associated_data` names.
    ///
    /// # Errors
    /// As [`RecordSet::open`].
    fn open_record(&self, record: &[u8], associated_data: &AssociatedData) -> Result<Vec<u8>>;
}

impl RecordReader for RecordSet {
    fn open_record(&self, record: &[u8], associated_data: &AssociatedData) -> Result<Vec<u8>> {
        self.open(record, associated_data)
    }
}

impl RecordReader for Records {
    fn open_record(&self, record: &[u8], associated_data: &AssociatedData) -> Result<Vec<u8>> {
        self.open(record, associated_data)
    }
}

/// All of the values, or none: what was opened before a failure is wiped.
fn open_all<R: AsRef<[u8]>>(
    records: &[(R, AssociatedData)],
    open: impl Fn(&[u8], &AssociatedData) -> Result<Vec<u8>>,
) -> Result<Vec<Vec<u8>>> {
    let mut values = Vec::with_capacity(records.len());
    for (index, (record, associated_data)) in records.iter().enumerate() {
        match open(record.as_ref(), associated_data) {
            Ok(value) => values.push(value),
            Err(error) => {
                values.zeroize();
                return Err(error.with_member(index));
            }
        }
    }
    Ok(values)
}

/// Several record sets under one reader: each record is opened by its own set, found by its fingerprint.
///
/// For a table whose rows were sealed under one set after the other.
///
/// ```
/// # use envelock::{AssociatedData, EncryptionContext, Envelope, RawKeyProvider, Records};
/// # fn main() -> Result<(), envelock::Error> {
/// # pollster::block_on(async {
/// # let envelope = Envelope::builder(RawKeyProvider::generate("example")?).build()?;
/// # let context = EncryptionContext::from([("tenant", "acme")]);
/// # let place = AssociatedData::from_bytes("orders/7");
/// let (old, new) = (envelope.record_set(&context).await?, envelope.record_set(&context).await?);
/// let mut records = Records::new();
/// records.add(old.clone())?;
/// records.add(new.clone())?;
/// assert_eq!(records.open(&old.seal(b"one", &place)?, &place)?, b"one");
/// assert_eq!(records.open(&new.seal(b"two", &place)?, &place)?, b"two");
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Records {
    sets: HashMap<Fingerprint, RecordSet>,
}

impl Records {
    /// No set yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a set in. The same set again, with other slots after a rewrap, takes the place of the first.
    ///
    /// # Errors
    /// [`AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed) for another set with the fingerprint of
    /// one that is here: somebody who knows both data keys made them so, at a cost of 2^64.
    pub fn add(&mut self, set: RecordSet) -> Result<()> {
        match self.sets.entry(set.fingerprint()) {
            Entry::Occupied(mut there) if there.get().inner.keys.is(&set.inner.keys) => drop(there.insert(set)),
            Entry::Occupied(there) => {
                return Err(Error::authentication_of(format!(
                    "another record set has the fingerprint {} of this one",
                    there.key()
                )));
            }
            Entry::Vacant(free) => drop(free.insert(set)),
        }
        Ok(())
    }

    /// How many sets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// The set with this fingerprint.
    #[must_use]
    pub fn set(&self, fingerprint: &Fingerprint) -> Option<&RecordSet> {
        self.sets.get(fingerprint)
    }

    /// Opens a record with the set that it names.
    ///
    /// # Errors
    /// As [`RecordSet::open`]; [`NoMatchingKey`](crate::ErrorKind::NoMatchingKey), with the fingerprint, if that
    /// set is not here.
    pub fn open(&self, record: &[u8], associated_data: &AssociatedData) -> Result<Vec<u8>> {
        let record = Record::parse(record)?;
        match self.sets.get(&record.fingerprint()) {
            Some(set) => set.open_parsed(record, associated_data),
            None => Err(no_set(record.fingerprint())),
        }
    }

    /// Opens many records: all of them, in their order, or none.
    ///
    /// # Errors
    /// As [`open`](Self::open), naming the record by its number, counted from 0.
    pub fn open_batch<R: AsRef<[u8]>>(&self, records: &[(R, AssociatedData)]) -> Result<Vec<Vec<u8>>> {
        open_all(records, |record, associated_data| self.open(record, associated_data))
    }
}

/// What a rewrap of a record set gave.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RewrappedRecordSet {
    /// The set's new header, which takes the place of the old one: the records stay as they are. Of a value with
    /// its own set, the whole value.
    pub header: Vec<u8>,
    /// Recipients that the set had and has no longer, by provider name and key id as it told them.
    pub removed: Vec<Recipient>,
}

impl Envelope {
    /// A new record set, for values of this context: one data key for as many records as there will be.
    ///
    /// # Errors
    /// The provider's own, [`InvalidInput`](crate::ErrorKind::InvalidInput) for a context that breaks the rules,
    /// [`RandomFailed`](crate::ErrorKind::RandomFailed).
    pub async fn record_set(&self, context: &EncryptionContext) -> Result<RecordSet> {
        let context = WriterContext::new(context, KeyUse::Records)?;
        // A set counts as one message. Its records are under a key of its own, which outlives the cached one.
        let key = self.writing_key(&context.kms, Need::Whole(0)).await?;
        let mut id = [0; SET_ID_LEN];
        crypto::random::fill(&mut id)?;
        let mut header = encode_set_core(&context, &id)?;
        let area = encode_slots(key.slots(), SlotsRoom::Tight, header.len())?;
        let keys = RecordKey::create(key.key(), &[header.as_slice(), &context.unstored].concat())?;
        #[expect(clippy::cast_possible_truncation, reason = "encode_slots checks it")]
        header.extend_from_slice(&(area.len() as u16).to_be_bytes());
        header.extend_from_slice(&area);
        header.extend_from_slice(keys.tag());
        Ok(RecordSet::new(header, keys))
    }

    /// The record set of a header, and nothing after it.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt) up to the kinds that concern segments;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a message,
    /// [`TrailingData`](crate::ErrorKind::TrailingData).
    pub async fn open_record_set(&self, header: &[u8], context: &EncryptionContext) -> Result<RecordSet> {
        let (parsed, rest) = self.split_value(header)?;
        let set = self.unlock_records(&parsed, context).await?;
        if rest.is_empty() { Ok(set) } else { Err(Error::trailing_data()) }
    }

    /// Seals a value that stands alone: a new record set, and its one record behind it. For environment
    /// variables and configuration files, mostly as [text](crate::to_text).
    ///
    /// What keeps it from being swapped for another value is the context: name in it what this is.
    ///
    /// # Errors
    /// As [`record_set`](Self::record_set), and [`LimitExceeded`](crate::ErrorKind::LimitExceeded) above 16 MiB.
    pub async fn seal_value(&self, value: &[u8], context: &EncryptionContext) -> Result<Vec<u8>> {
        let set = self.record_set(context).await?;
        Ok([set.header(), &set.seal(value, &no_place())?].concat())
    }

    /// Opens a value that stands alone.
    ///
    /// # Errors
    /// As [`open_record_set`](Self::open_record_set). Before the key provider is asked:
    /// [`Truncated`](crate::ErrorKind::Truncated) where no record follows the set,
    /// [`Malformed`](crate::ErrorKind::Malformed) and [`LimitExceeded`](crate::ErrorKind::LimitExceeded) as in
    /// [`RecordSet::open`], and [`AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed) for a record of
    /// another set. Afterwards, the same kind for one that was changed.
    pub async fn open_value(&self, sealed: &[u8], context: &EncryptionContext) -> Result<Vec<u8>> {
        let (parsed, rest) = self.split_value(sealed)?;
        if rest.is_empty() {
            return Err(Error::truncated());
        }
        let record = record_behind(&parsed, rest)?;
        self.unlock_records(&parsed, context).await?.unseal_alone(record)
    }

    /// Checks that a record set, or a value that stands alone, opens to a key of this envelope's. Nothing is
    /// handed out.
    ///
    /// After a blind rewrap, this is the check before the old key is retired: the key provider itself opens it,
    /// whatever is cached, and a slot that was swapped gives another data key than the one that the set's tag
    /// commits to.
    ///
    /// # Errors
    /// As [`open_record_set`](Self::open_record_set) and [`open_value`](Self::open_value).
    pub async fn verify_record_set(&self, set: &[u8], context: &EncryptionContext) -> Result<()> {
        let (parsed, rest) = self.split_value(set)?;
        let record = record_behind(&parsed, rest)?;
        let keys = self.without_cache().unlock_records(&parsed, context).await?;
        if !rest.is_empty() {
            keys.unseal_alone(record)?.zeroize();
        }
        Ok(())
    }

    /// Encrypts the data key of a record set for the recipients of `new` instead of those it has. Its records
    /// stay as they are, and so does the encryption context. `set` is a header, or a value with its own set.
    ///
    /// As with a [file](Self::rewrap_file), `new` says who can open it afterwards, and a rewrap is not a
    /// revocation.
    ///
    /// # Errors
    /// As [`open_record_set`](Self::open_record_set), and as [`open_value`](Self::open_value) before the key
    /// provider is asked; the new provider's own;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) as [`RewrapOptions::keep_others`] says, and for options
    /// that name a file; [`Unsupported`](crate::ErrorKind::Unsupported) for a blind rewrap that no KMS can do
    /// inside.
    pub async fn rewrap_record_set(
        &self,
        set: &[u8],
        new: &Envelope,
        context: &EncryptionContext,
        options: RewrapOptions,
    ) -> Result<RewrappedRecordSet> {
        if options.to.is_some() {
            return Err(Error::invalid_input("a record set is rewrapped in memory, not to a file")
                .with_advice("write the header that comes back where the old one is"));
        }
        let (parsed, rest) = self.split_value(set)?;
        if record_behind(&parsed, rest)?.is_none() && !rest.is_empty() {
            return Err(Error::trailing_data());
        }
        match self.slots(&parsed, new, context, &options, &mut self.tries()).await? {
            Slots::Made(slots, removed) => {
                let area = encode_slots(&slots, SlotsRoom::Tight, parsed.head().core().len())?;
                let mut header = parsed.head().with_slots_area(&area)?;
                header.extend_from_slice(rest);
                Ok(RewrappedRecordSet { header, removed })
            }
            Slots::NotOpened(error) => Err(error),
        }
    }

    fn split_value<'a>(&self, bytes: &'a [u8]) -> Result<(RecordSetHeader, &'a [u8])> {
        let header = RecordSetHeader::parse_within(bytes, &self.config.limits)?;
        let rest = bytes.get(header.len()..).unwrap_or_default();
        Ok((header, rest))
    }

    async fn unlock_records(&self, header: &RecordSetHeader, context: &EncryptionContext) -> Result<RecordSet> {
        let (keys, ..) = self.unlock_head(header, context, &mut self.tries()).await?;
        Ok(RecordSet::new(header.as_bytes().to_vec(), keys))
    }
}

/// The record behind a set, judged before any key; none where nothing that begins as a record stands there.
///
/// # Errors
/// As [`Record::parse`]; AuthenticationFailed for a record of another set.
fn record_behind<'a>(header: &RecordSetHeader, rest: &'a [u8]) -> Result<Option<Record<'a>>> {
    if rest.first() != Some(&RECORD) {
        return Ok(None);
    }
    let record = Record::parse(rest)?;
    if record.fingerprint() != header.fingerprint() {
        let what = "this value is put together from a record set and a record of another one, or it was changed";
        return Err(Error::authentication_of(what).with_advice("do not use it, restore it from a backup"));
    }
    Ok(Some(record))
}

/// The associated data of a value that stands alone: its set is its place.
fn no_place() -> AssociatedData {
    AssociatedData::from_bytes([])
}
