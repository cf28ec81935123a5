//! The encryption context: public name-value pairs that a message is bound to.
//!
//! Encoded as `u16(count)` and the pairs, each key and value a byte string, sorted by key bytes
//! (docs/format.md, "Layout" and rule 7).

use crate::codec::{Reader, Short, put_byte_string};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt;
use std::iter::Peekable;
use subtle::ConstantTimeEq;

/// Longest encoded KMS context (all entries and the constant one) in bytes.
pub(crate) const KMS_CONTEXT_MAX: usize = 8_192;
/// Keys that begin so are this crate's own.
pub(crate) const RESERVED_PREFIX: &str = "envelock-";
/// The constant entry's key.
const USE_KEY: &str = "envelock-use";
/// The key of the entry that names the keystore whose root key is wrapped.
#[cfg(feature = "local-kms")]
const KEYSTORE_KEY: &str = "envelock-keystore";

/// Name-value pairs that a message is bound to: whoever decrypts must name the same ones.
///
/// Entries are stored in the message in the clear, unless added by
/// [`with_unstored`](Self::with_unstored). They authenticate; they hide nothing. Keys are not empty,
/// unique, and do not begin with `envelock-`; all entries together encode to at most 8,167 bytes.
/// These rules are checked where the context is used.
///
/// ```
/// use envelock::EncryptionContext;
/// let context = EncryptionContext::from([("tenant", "acme"), ("object", "invoices/7")]);
/// assert_eq!(context.len(), 2);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EncryptionContext {
    entries: BTreeMap<String, Entry>,
    repeated: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
struct Entry {
    value: String,
    storage: Storage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Storage {
    Stored,
    Unstored,
}

/// How a reader's context must agree with a message's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContextMatch {
    /// All entries of the message and none more. The default.
    #[default]
    Exact,
    /// The message's stored context holds at least the reader's entries.
    AtLeast,
}

/// What a wrapped data key is used for: the constant entry of the KMS context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyUse {
    Message,
    /// A record set.
    Records,
}

impl EncryptionContext {
    /// An empty context.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same context with an entry that is stored in the message.
    #[must_use]
    pub fn with(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.insert(key.into(), value.into(), Storage::Stored)
    }

    /// The same context with an entry that authenticates and is not written: a reader must know it.
    ///
    /// For a reader it makes no difference to [`with`](Self::with): the message says which of its
    /// entries it stores.
    #[must_use]
    pub fn with_unstored(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.insert(key.into(), value.into(), Storage::Unstored)
    }

    /// How many entries there are, stored and unstored.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries, stored and unstored, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(key, entry)| (key.as_str(), entry.value.as_str()))
    }

    fn insert(mut self, key: String, value: String, storage: Storage) -> Self {
        match self.entries.entry(key) {
            Slot::Occupied(taken) => self.repeated = Some(taken.key().clone()),
            Slot::Vacant(free) => {
                free.insert(Entry { value, storage });
            }
        }
        self
    }

    fn of(&self, storage: Storage) -> impl Iterator<Item = (&str, &str)> {
        self.entries
            .iter()
            .filter(move |(_, entry)| entry.storage == storage)
            .map(|(key, entry)| (key.as_str(), entry.value.as_str()))
    }

    /// Refuses what rule 7 forbids in a context that a caller gives.
    fn check(&self) -> Result<()> {
        self.check_form()?;
        match self.entries.keys().find(|key| key.starts_with(RESERVED_PREFIX)) {
            None => Ok(()),
            Some(key) => Err(Error::invalid_input(format!(
                "the encryption context key {key:?} begins with `envelock-`, which is reserved: choose another name"
            ))),
        }
    }

    fn check_form(&self) -> Result<()> {
        if let Some(key) = &self.repeated {
            return Err(Error::invalid_input(format!("the encryption context names the key {key:?} twice")));
        }
        for key in self.entries.keys() {
            if key.is_empty() {
                return Err(Error::invalid_input("the encryption context has an empty key"));
            }
        }
        Ok(())
    }
}

impl<K: Into<String>, V: Into<String>, const N: usize> From<[(K, V); N]> for EncryptionContext {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for EncryptionContext {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        entries.into_iter().fold(Self::new(), |context, (key, value)| context.with(key, value))
    }
}

/// Prints the keys; values may be private where they are unstored.
impl fmt::Debug for EncryptionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.keys()).finish()
    }
}

/// The context that a key provider sees: the stored, unstored and constant entries, sorted.
#[derive(Clone, PartialEq, Eq)]
pub struct KmsContext {
    encoded: Vec<u8>,
}

impl KmsContext {
    /// A context of exactly these entries, for key operations outside a message.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an empty, repeated or reserved key,
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) above 8,192 encoded bytes.
    pub fn new(entries: &EncryptionContext) -> Result<Self> {
        entries.check()?;
        Self::from_pairs(entries.iter().map(bytes))
    }

    /// The context of a keystore's root key: `envelock-use` = `root/1` and `envelock-keystore` = the keystore's id,
    /// so that nothing else wrapped under the same key passes for a root key.
    #[cfg(feature = "local-kms")]
    pub(crate) fn for_root_key(keystore_id: &str) -> Result<Self> {
        Self::from_pairs([(KEYSTORE_KEY, keystore_id), (USE_KEY, "root/1")].into_iter().map(bytes))
    }

    /// A context that is asked about and used for nothing: it may have the constant entries of messages.
    ///
    /// # Errors
    /// As [`new`](Self::new), but for reserved keys.
    #[cfg(feature = "local-kms")]
    pub(crate) fn asked_about(entries: &EncryptionContext) -> Result<Self> {
        entries.check_form()?;
        Self::from_pairs(entries.iter().map(bytes))
    }

    fn from_pairs<'a>(pairs: impl Iterator<Item = Pair<'a>>) -> Result<Self> {
        let encoded = encode(pairs)?;
        if encoded.len() > KMS_CONTEXT_MAX {
            return Err(Error::limit(format!(
                "the encryption context encodes to {} bytes with the constant entry; {KMS_CONTEXT_MAX} is the most",
                encoded.len()
            )));
        }
        Ok(Self { encoded })
    }

    /// The entries, sorted by key bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        Stored::checked(&self.encoded).pairs().filter_map(text)
    }

    /// `u16(count)` and the sorted pairs: what providers bind as associated data.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }
}

impl fmt::Debug for KmsContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|(key, _)| key)).finish()
    }
}

/// A caller's context split for a writer: what the message stores, what it binds, what the KMS sees.
pub(crate) struct WriterContext {
    /// The encoded stored entries; empty if there are none.
    pub(crate) stored: Vec<u8>,
    /// `u16(length) || encoded` of the unstored entries; empty if there are none.
    pub(crate) unstored: Vec<u8>,
    pub(crate) kms: KmsContext,
}

impl WriterContext {
    pub(crate) fn new(context: &EncryptionContext, key_use: KeyUse) -> Result<Self> {
        context.check()?;
        // "Given by a caller, a KMS context above 8,192 bytes is invalid input."
        let kms =
            with_use(context.iter().map(bytes), key_use).map_err(|error| Error::invalid_input(error.to_string()))?;
        Ok(Self {
            stored: encode_or_empty(context.of(Storage::Stored).map(bytes))?,
            unstored: encode_unstored(context.of(Storage::Unstored).map(bytes))?,
            kms,
        })
    }
}

/// A message's stored context joined with the reader's: what the body binds, what the KMS sees.
pub(crate) struct ReaderContext {
    pub(crate) unstored: Vec<u8>,
    pub(crate) kms: KmsContext,
}

impl ReaderContext {
    /// Compares the reader's context with the message's, and takes the unstored entries from it.
    ///
    /// "Unstored entries are the reader's entries whose keys are not stored."
    pub(crate) fn new(
        stored: Stored<'_>,
        has_unstored: bool,
        given: &EncryptionContext,
        how: ContextMatch,
        key_use: KeyUse,
    ) -> Result<Self> {
        given.check()?;
        let mut unstored = Vec::new();
        let mut matched = 0_usize;
        for (key, entry) in &given.entries {
            match stored.value_of(key.as_bytes()) {
                Some(value) if bool::from(value.ct_eq(entry.value.as_bytes())) => matched += 1,
                Some(_) => {
                    return Err(Error::context_mismatch(format!("the message has another value for {key:?}")));
                }
                None if has_unstored => unstored.push((key.as_bytes(), entry.value.as_bytes())),
                None => return Err(Error::context_mismatch(format!("the message has no entry {key:?}"))),
            }
        }
        if how == ContextMatch::Exact && matched < stored.len() {
            let extra = stored.pairs().filter_map(text).find(|(key, _)| !given.entries.contains_key(*key));
            let name = extra.map(|(key, _)| key).unwrap_or_default();
            return Err(Error::context_mismatch(format!("the message has an entry {name:?} that was not given")));
        }
        if has_unstored && unstored.is_empty() {
            return Err(Error::context_mismatch("the message needs entries that are not stored in it")
                .with_advice("give the unstored entries too: only whoever encrypted it knows them"));
        }
        let kms = if unstored.is_empty() {
            with_use(stored.pairs(), key_use)?
        } else {
            let mut all: Vec<_> = stored.pairs().chain(unstored.iter().copied()).collect();
            all.sort_unstable();
            with_use(all.into_iter(), key_use)?
        };
        Ok(Self { unstored: encode_unstored(unstored.into_iter())?, kms })
    }
}

/// The entries that a message stores, as parsed and validated.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoredContext {
    encoded: Vec<u8>,
}

impl StoredContext {
    /// The stored entries, sorted by key bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.view().pairs().filter_map(text)
    }

    pub(crate) fn view(&self) -> Stored<'_> {
        Stored { encoded: &self.encoded }
    }

    /// How many entries are stored.
    #[must_use]
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Whether no entry is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }

    /// The value stored under `key`.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.view().value_of(key.as_bytes()).and_then(|value| std::str::from_utf8(value).ok())
    }
}

/// A [`StoredContext`] where it lies: in the head of a message, as checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    encoded: &'a [u8],
}

impl<'a> Stored<'a> {
    /// Parses a core's context field, which is judged as a whole: all of its bytes are here.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let stored = Self::checked(bytes);
        if !bytes.is_empty() {
            check_encoded(bytes)
                .map_err(|Flaw(what)| Error::malformed(format!("the stored encryption context {what}")))?;
        }
        Ok(stored)
    }

    /// Bytes that were parsed before.
    pub(crate) fn checked(encoded: &'a [u8]) -> Self {
        Self { encoded }
    }

    pub(crate) fn to_owned(self) -> StoredContext {
        StoredContext { encoded: self.encoded.to_vec() }
    }

    fn pairs(self) -> Pairs<'a> {
        Pairs(Reader::new(self.encoded.get(2..).unwrap_or_default()))
    }

    fn len(self) -> usize {
        self.encoded.first_chunk().map_or(0, |count| usize::from(u16::from_be_bytes(*count)))
    }

    fn value_of(self, key: &[u8]) -> Option<&'a [u8]> {
        self.pairs().find(|(stored, _)| *stored == key).map(|(_, value)| value)
    }
}

impl fmt::Debug for StoredContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

struct Flaw(&'static str);

impl From<Short> for Flaw {
    fn from(_: Short) -> Self {
        Self("ends within an entry")
    }
}

/// Rule 7 on encoded entries: sorted, unique, not empty, UTF-8, not reserved, nothing left over.
fn check_encoded(bytes: &[u8]) -> Result<(), Flaw> {
    let mut reader = Reader::new(bytes);
    let count = reader.u16()?;
    if count == 0 {
        return Err(Flaw("has a length and no entries"));
    }
    let mut previous: &[u8] = &[];
    for _ in 0..count {
        let key = reader.byte_string()?;
        if key.is_empty() {
            return Err(Flaw("has an empty key"));
        }
        if key <= previous {
            return Err(Flaw("is not sorted by unique keys"));
        }
        if key.starts_with(RESERVED_PREFIX.as_bytes()) {
            return Err(Flaw("has a key that begins with `envelock-`"));
        }
        let key_text = std::str::from_utf8(key).is_ok();
        if !key_text || std::str::from_utf8(reader.byte_string()?).is_err() {
            return Err(Flaw("is not UTF-8"));
        }
        previous = key;
    }
    if reader.remaining() != 0 {
        return Err(Flaw("has bytes after its last entry"));
    }
    Ok(())
}

/// A key and its value, both UTF-8.
type Pair<'a> = (&'a [u8], &'a [u8]);

fn bytes<'a>((key, value): (&'a str, &'a str)) -> Pair<'a> {
    (key.as_bytes(), value.as_bytes())
}

/// Of a pair that was checked before.
fn text<'a>((key, value): Pair<'a>) -> Option<(&'a str, &'a str)> {
    Some((std::str::from_utf8(key).ok()?, std::str::from_utf8(value).ok()?))
}

/// The pairs of an encoding that was checked before; ends early where the bytes do.
struct Pairs<'a>(Reader<'a>);

impl<'a> Iterator for Pairs<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.byte_string().ok()?, self.0.byte_string().ok()?))
    }
}

fn with_use<'a>(entries: impl Iterator<Item = Pair<'a>>, key_use: KeyUse) -> Result<KmsContext> {
    let value = match key_use {
        KeyUse::Message => "message/1",
        KeyUse::Records => "records/1",
    };
    KmsContext::from_pairs(Inserted { entries: entries.peekable(), extra: Some(bytes((USE_KEY, value))) })
}

/// Sorted entries and one more, in its place: this runs for every message, and allocates nothing.
struct Inserted<'a, I: Iterator<Item = Pair<'a>>> {
    entries: Peekable<I>,
    extra: Option<Pair<'a>>,
}

impl<'a, I: Iterator<Item = Pair<'a>>> Iterator for Inserted<'a, I> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let extra = self.extra.take_if(|(extra, _)| self.entries.peek().is_none_or(|(key, _)| *extra <= *key));
        extra.or_else(|| self.entries.next())
    }
}

/// `u16(count)` and the pairs, which must come sorted.
fn encode<'a>(pairs: impl Iterator<Item = Pair<'a>>) -> Result<Vec<u8>> {
    // Room for a few short entries at once: this runs for every message.
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&[0; 2]);
    let mut count = 0_u16;
    for (key, value) in pairs {
        count =
            count.checked_add(1).ok_or_else(|| Error::limit("the encryption context has more than 65,535 entries"))?;
        put_byte_string(&mut out, key)?;
        put_byte_string(&mut out, value)?;
    }
    if let Some(field) = out.first_chunk_mut() {
        *field = count.to_be_bytes();
    }
    Ok(out)
}

/// As in a core: no bytes at all for no entries.
fn encode_or_empty<'a>(pairs: impl Iterator<Item = Pair<'a>>) -> Result<Vec<u8>> {
    let mut pairs = pairs.peekable();
    if pairs.peek().is_none() { Ok(Vec::new()) } else { encode(pairs) }
}

fn encode_unstored<'a>(pairs: impl Iterator<Item = Pair<'a>>) -> Result<Vec<u8>> {
    let encoded = encode_or_empty(pairs)?;
    let mut out = Vec::new();
    if !encoded.is_empty() {
        put_byte_string(&mut out, &encoded)?;
    }
    Ok(out)
}
