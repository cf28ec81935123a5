//! The heads of native messages and record sets: core, slots, and FLOE header or record-set tag.
//!
//! ```text
//! core    3  magic 45 4C 4B ("ELK")
//!         1  version 01
//!         1  flags: bit 0: unstored entries, bit 1: record set
//!         2  context length n, at most 8,167
//!         n  context
//!        16  record-set id, in a record set only
//! slots   2  slots length m
//!         1  slot count, 1 to 32
//!            slots: 1-byte length || provider name, key id, wrapped key (byte strings)
//!            padding, zero bytes
//! FLOE   10  parameters    32  IV    32  header tag
//!        or, in a record set, 32  record-set tag
//! ```

use crate::codec::put_byte_string;
use crate::context::{KeyUse, Stored, StoredContext, WriterContext};
use crate::error::{Error, Result};
use crate::material::EncryptedDataKey;
use crate::native::floe::{FLOE_HEADER_LEN, Floe, FloeHeader, KeyRef};
use crate::native::slots::parse_slots;
use crate::segments::Layout;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// What a reader accepts, checked before anything is allocated for it and before any provider call.
///
/// Defaults are what every writer of this crate stays within.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Most bytes of core, slots length field and slots. Default 65,536.
    pub header_bytes: usize,
    /// Most slots that are tried, in one open. Default 4.
    pub slots_tried: usize,
    /// Longest segment in bytes. Default 16 MiB, which is also the most that can be set.
    pub segment_len: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { header_bytes: 65_536, slots_tried: 4, segment_len: SEGMENT_LEN_MAX }
    }
}

/// Shortest segment length that a writer may choose and a reader accepts, in bytes.
pub(crate) const SEGMENT_LEN_MIN: u32 = 64;
/// Longest segment length that a writer may choose, in bytes.
pub(crate) const SEGMENT_LEN_MAX: u32 = 16 << 20;

const MAGIC: &[u8; 3] = b"ELK";
const VERSION: u8 = 1;
const FLAG_UNSTORED: u8 = 0b01;
const FLAG_RECORDS: u8 = 0b10;
const CONTEXT_MAX: usize = 8_167;
/// Bytes before the context.
const FIXED_LEN: usize = 7;
/// Bytes of a record-set id.
pub(crate) const SET_ID_LEN: usize = 16;
/// Bytes of a record-set tag.
pub(crate) const SET_TAG_LEN: usize = 32;

/// What a head begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A message: the FLOE header follows the slots.
    Message,
    /// A record set: an id ends the core, and its tag follows the slots.
    RecordSet,
}

impl Form {
    fn id_len(self) -> usize {
        match self {
            Self::Message => 0,
            Self::RecordSet => SET_ID_LEN,
        }
    }

    /// Bytes after the slots that still are the head's.
    fn binding_len(self) -> usize {
        match self {
            Self::Message => FLOE_HEADER_LEN,
            Self::RecordSet => SET_TAG_LEN,
        }
    }

    /// What its data key is wrapped for.
    pub(crate) fn key_use(self) -> KeyUse {
        match self {
            Self::Message => KeyUse::Message,
            Self::RecordSet => KeyUse::Records,
        }
    }
}

/// What the heads of messages and record sets have in common, in bytes of its own or where they lie. Unverified.
#[derive(Clone)]
pub(crate) struct Head<'a> {
    raw: Cow<'a, [u8]>,
    outline: Outline,
    has_unstored: bool,
    slots: Vec<EncryptedDataKey>,
}

impl Head<'_> {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.raw
    }

    pub(crate) fn form(&self) -> Form {
        self.outline.form
    }

    pub(crate) fn stored_context(&self) -> Stored<'_> {
        Stored::checked(self.raw.get(self.outline.context()).unwrap_or_default())
    }

    fn into_owned(self) -> Head<'static> {
        Head { raw: Cow::Owned(self.raw.into_owned()), ..self }
    }

    pub(crate) fn has_unstored_context(&self) -> bool {
        self.has_unstored
    }

    pub(crate) fn slots(&self) -> &[EncryptedDataKey] {
        &self.slots
    }

    /// The bytes that never change, and that every key of the message or set is derived from.
    pub(crate) fn core(&self) -> &[u8] {
        self.raw.get(..self.outline.core_len).unwrap_or_default()
    }

    /// What follows the slots.
    pub(crate) fn binding(&self) -> &[u8] {
        self.raw.get(self.outline.slots().end..).unwrap_or_default()
    }

    /// The bytes of the same head with another slots area, which may have another length.
    pub(crate) fn with_slots_area(&self, area: &[u8]) -> Result<Vec<u8>> {
        self.outline.with_slots_area(&self.raw, area)
    }
}

/// A parsed message head. Everything in it but the length is unverified until a
/// [`Decryptor`](crate::Decryptor) was made from it.
#[derive(Clone)]
pub struct Header {
    head: Head<'static>,
    context: StoredContext,
    floe: FloeHeader,
}

/// A parsed message head where it lies. Unverified.
pub(crate) struct ParsedHeader<'a> {
    head: Head<'a>,
    floe: FloeHeader,
}

impl<'a> ParsedHeader<'a> {
    /// The head that `bytes` begin with, if they hold all of it.
    ///
    /// # Errors
    /// As [`Header::parse_some`].
    pub(crate) fn parse(bytes: &'a [u8], limits: &Limits) -> Result<Option<Self>> {
        match parse_message(bytes, limits) {
            Ok(header) => Ok(Some(header)),
            Err(Stop::More(_)) => Ok(None),
            Err(Stop::Fault(error)) => Err(error),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.head.raw.len()
    }

    fn into_owned(self) -> Header {
        let context = self.head.stored_context().to_owned();
        Header { head: self.head.into_owned(), context, floe: self.floe }
    }
}

/// A head with a tag that commits to the data key and to the core.
pub(crate) trait Committed {
    /// What the data key opens.
    type Keys;

    fn head(&self) -> &Head<'_>;

    /// What `key` opens, or `None` if it is not the key that the tag commits to. `aad` is core || unstored.
    fn keys(&self, key: KeyRef<'_>, aad: Vec<u8>) -> Result<Option<Self::Keys>>;
}

impl Committed for Header {
    type Keys = Floe;

    fn head(&self) -> &Head<'_> {
        &self.head
    }

    fn keys(&self, key: KeyRef<'_>, aad: Vec<u8>) -> Result<Option<Floe>> {
        Floe::open(key, &self.floe, aad)
    }
}

impl Committed for ParsedHeader<'_> {
    type Keys = Floe;

    fn head(&self) -> &Head<'_> {
        &self.head
    }

    fn keys(&self, key: KeyRef<'_>, aad: Vec<u8>) -> Result<Option<Floe>> {
        Floe::open(key, &self.floe, aad)
    }
}

/// How far a parse came.
#[derive(Debug)]
pub enum HeaderParse {
    /// The head is whole: [`Header::len`] bytes of the input were it.
    Complete(Header),
    /// The bytes so far are well formed; at least this many are needed in all.
    More(usize),
}

impl Header {
    /// Parses a whole head from the front of `bytes`; what follows it is left alone.
    ///
    /// # Errors
    /// [`Malformed`](crate::ErrorKind::Malformed), [`Unsupported`](crate::ErrorKind::Unsupported),
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded), and
    /// [`Truncated`](crate::ErrorKind::Truncated) if `bytes` end within a well-formed head.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::parse_whole(bytes, &Limits::default())
    }

    /// Parses what is at hand: for callers that read a stream and do not know how long the head is.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), but for input that ends early, which is [`HeaderParse::More`].
    pub fn parse_some(bytes: &[u8], limits: &Limits) -> Result<HeaderParse> {
        match parse_message(bytes, limits) {
            Ok(header) => Ok(HeaderParse::Complete(header.into_owned())),
            Err(Stop::More(needed)) => Ok(HeaderParse::More(needed)),
            Err(Stop::Fault(error)) => Err(error),
        }
    }

    /// Length of the head in bytes: the segments follow it.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a head is never empty")]
    pub fn len(&self) -> usize {
        self.head.raw.len()
    }

    /// The head's own bytes, as they may be stored apart from the segments.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.head.raw
    }

    /// The entries of the encryption context that are stored. Unverified.
    #[must_use]
    pub fn stored_context(&self) -> &StoredContext {
        &self.context
    }

    /// Whether the message is bound to entries that are not stored.
    #[must_use]
    pub fn has_unstored_context(&self) -> bool {
        self.head.has_unstored
    }

    /// The slots: one encrypted data key for each recipient, the missing ones among them. Unverified.
    #[must_use]
    pub fn slots(&self) -> &[EncryptedDataKey] {
        &self.head.slots
    }

    /// Bytes of the slots area with its padding: what a rewrap in place may fill.
    #[must_use]
    pub fn slots_len(&self) -> usize {
        self.head.outline.slots_len
    }

    /// The AEAD of the segments.
    #[must_use]
    pub fn aead(&self) -> crate::crypto::AeadAlgorithm {
        self.floe.aead()
    }

    /// Lengths and offsets of the segments.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.floe.layout()
    }

    #[cfg(test)]
    pub(crate) fn floe(&self) -> &FloeHeader {
        &self.floe
    }

    /// The bytes that never change and are bound to the body.
    pub(crate) fn core(&self) -> &[u8] {
        self.head.core()
    }

    pub(crate) fn outline(&self) -> Outline {
        self.head.outline
    }

    /// The same head with another slots area, which may have another length.
    ///
    /// # Errors
    /// As [`parse`](Self::parse): the area may be torn.
    pub(crate) fn with_slots_area(&self, area: &[u8], limits: &Limits) -> Result<Self> {
        Self::parse_whole(&self.head.with_slots_area(area)?, limits)
    }

    fn parse_whole(bytes: &[u8], limits: &Limits) -> Result<Self> {
        match Self::parse_some(bytes, limits)? {
            HeaderParse::Complete(header) => Ok(header),
            HeaderParse::More(_) => Err(Error::truncated()),
        }
    }
}

/// What the head says, without its bytes.
impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("len", &self.len())
            .field("aead", &self.aead())
            .field("segment_len", &self.layout().segment_len())
            .field("stored_context", &self.context)
            .field("has_unstored_context", &self.head.has_unstored)
            .field("slots", &self.head.slots)
            .field("slots_len", &self.slots_len())
            .finish()
    }
}

/// Where the parts of a head lie, whatever the slots hold: they may be torn while a rewrap is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outline {
    form: Form,
    core_len: usize,
    slots_len: usize,
}

impl Outline {
    /// The outline of the head that `bytes` begin with, if they hold all of it.
    pub(crate) fn of(bytes: &[u8], limits: &Limits) -> Option<Self> {
        let outline = Self::parse(bytes, limits, Form::Message).ok()?;
        (bytes.len() >= outline.len()).then_some(outline)
    }

    /// The longest head within `limits`, in bytes.
    pub(crate) fn len_max(limits: &Limits) -> u64 {
        (limits.header_bytes as u64).saturating_add(FLOE_HEADER_LEN as u64)
    }

    fn parse(bytes: &[u8], limits: &Limits, form: Form) -> Result<Self, Stop> {
        check_start(bytes, form)?;
        let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_LEN>() else {
            return Err(Stop::More(FIXED_LEN));
        };
        let context_len = usize::from(u16::from_be_bytes([fixed[5], fixed[6]]));
        if context_len > CONTEXT_MAX {
            return Err(context_too_long(context_len).into());
        }
        let core_len = FIXED_LEN + context_len + form.id_len();
        check_header_len(core_len + 2, limits)?;
        // "The context as one field of n bytes and the slots as one field of m bytes, when all of them
        // are there": an input that ends within one is truncated, whatever the field holds so far.
        let Some(context) = rest.get(..context_len) else {
            return Err(Stop::More(core_len + 2));
        };
        Stored::parse(context)?;
        let Some(slots_len) = bytes.get(core_len..).and_then(|rest| rest.first_chunk()) else {
            return Err(Stop::More(core_len + 2));
        };
        let slots_len = usize::from(u16::from_be_bytes(*slots_len));
        check_header_len(core_len + 2 + slots_len, limits)?;
        Ok(Self { form, core_len, slots_len })
    }

    /// Length of the whole head.
    pub(crate) fn len(self) -> usize {
        self.slots().end + self.form.binding_len()
    }

    /// Where the stored context lies, without its length field.
    fn context(self) -> Range<usize> {
        FIXED_LEN..self.core_len - self.form.id_len()
    }

    /// Where the slots area lies, without its length field.
    pub(crate) fn slots(self) -> Range<usize> {
        let start = self.core_len + 2;
        start..start + self.slots_len
    }

    /// Core and FLOE header or record-set tag: what tells one message from another whatever its slots are.
    pub(crate) fn binding(self, head: &[u8]) -> [&[u8]; 2] {
        let after = head.get(self.slots().end..self.len()).unwrap_or_default();
        [head.get(..self.core_len).unwrap_or_default(), after]
    }

    /// `head` with another slots area.
    pub(crate) fn with_slots_area(self, head: &[u8], area: &[u8]) -> Result<Vec<u8>> {
        let [core, after] = self.binding(head);
        let mut raw = core.to_vec();
        put_byte_string(&mut raw, area)?;
        raw.extend_from_slice(after);
        Ok(raw)
    }
}

/// The core of a new message, and room for as many bytes behind it.
pub(crate) fn encode_core(context: &WriterContext, room: usize) -> Result<Vec<u8>> {
    encode_start(context, 0, room)
}

/// How long the core of a new message is.
pub(crate) fn core_len(context: &WriterContext) -> usize {
    FIXED_LEN + context.stored.len()
}

/// The core of a new record set.
pub(crate) fn encode_set_core(context: &WriterContext, id: &[u8; SET_ID_LEN]) -> Result<Vec<u8>> {
    let mut core = encode_start(context, FLAG_RECORDS, SET_ID_LEN)?;
    core.extend_from_slice(id);
    Ok(core)
}

fn encode_start(context: &WriterContext, flags: u8, room: usize) -> Result<Vec<u8>> {
    let flags = if context.unstored.is_empty() { flags } else { flags | FLAG_UNSTORED };
    if context.stored.len() > CONTEXT_MAX {
        return Err(context_too_long(context.stored.len()));
    }
    let mut core = Vec::with_capacity(core_len(context) + room);
    core.extend_from_slice(MAGIC);
    core.extend_from_slice(&[VERSION, flags]);
    put_byte_string(&mut core, &context.stored)?;
    Ok(core)
}

enum Stop {
    More(usize),
    Fault(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Fault(error)
    }
}

fn parse_message<'a>(bytes: &'a [u8], limits: &Limits) -> Result<ParsedHeader<'a>, Stop> {
    let parts = Parts::parse(bytes, limits, Form::Message)?;
    let floe = FloeHeader::parse(parts.after, limits.segment_len)?;
    let (Some(floe), Some(raw)) = (floe, bytes.get(..parts.outline.len())) else {
        return Err(Stop::More(parts.outline.len()));
    };
    Ok(ParsedHeader { head: parts.whole(raw), floe })
}

/// The record set that `bytes` begin with.
///
/// # Errors
/// As [`Header::parse`].
pub(crate) fn parse_record_set(bytes: &[u8], limits: &Limits) -> Result<Head<'static>> {
    match Parts::parse(bytes, limits, Form::RecordSet) {
        Ok(parts) => {
            let raw = bytes.get(..parts.outline.len()).ok_or_else(Error::truncated)?;
            Ok(parts.whole(raw).into_owned())
        }
        Err(Stop::More(_)) => Err(Error::truncated()),
        Err(Stop::Fault(error)) => Err(error),
    }
}

/// What stands before the last field of a head.
struct Parts<'a> {
    outline: Outline,
    has_unstored: bool,
    slots: Vec<EncryptedDataKey>,
    /// What is at hand after the slots.
    after: &'a [u8],
}

impl<'a> Parts<'a> {
    fn parse(bytes: &'a [u8], limits: &Limits, form: Form) -> Result<Self, Stop> {
        let outline = Outline::parse(bytes, limits, form)?;
        let Some(area) = bytes.get(outline.slots()) else {
            return Err(Stop::More(outline.slots().end));
        };
        let slots = parse_slots(area)?;
        let has_unstored = bytes.get(4).is_some_and(|flags| flags & FLAG_UNSTORED != 0);
        let after = bytes.get(outline.slots().end..).unwrap_or_default();
        Ok(Self { outline, has_unstored, slots, after })
    }

    fn whole(self, raw: &'a [u8]) -> Head<'a> {
        let Self { outline, has_unstored, slots, .. } = self;
        Head { raw: Cow::Borrowed(raw), outline, has_unstored, slots }
    }
}

/// Magic, version and flags, as far as they are at hand.
fn check_start(bytes: &[u8], form: Form) -> Result<()> {
    match bytes.first() {
        Some(0x01 | 0x02) => {
            return Err(Error::malformed(
                "this looks like a message of the AWS Encryption SDK, which this version cannot open",
            ));
        }
        Some(0xE1) => {
            return Err(Error::malformed("this looks like a compact record").with_advice(
                "open it with the record set that it belongs to, whose header is kept apart from its records",
            ));
        }
        Some(b'e') if bytes.starts_with(b"elk1.") => {
            return Err(Error::malformed("this looks like the text form").with_advice(
                "turn it into bytes first: `envelock::from_text` does, and `envelock open` opens a value of this form",
            ));
        }
        _ => {}
    }
    let magic = bytes.get(..MAGIC.len()).unwrap_or(bytes);
    if !MAGIC.starts_with(magic) {
        return Err(Error::malformed("the input does not begin as an envelock message does"));
    }
    if let Some(version) = bytes.get(3).filter(|&&version| version != VERSION) {
        return Err(Error::unknown(format_args!("message format version {version}")));
    }
    if let Some(flags) = bytes.get(4) {
        if flags & !(FLAG_UNSTORED | FLAG_RECORDS) != 0 {
            return Err(Error::unknown(format_args!("one of the message flags {flags:#04x}")));
        }
        match (form, flags & FLAG_RECORDS != 0) {
            (Form::Message, true) => {
                return Err(Error::unsupported("this is a record set or a value of its own, not a message").with_advice(
                    "open it with `open_record_set`, or with `open_value` or `envelock open`; or its header is damaged",
                ));
            }
            (Form::RecordSet, false) => {
                return Err(Error::unsupported("this is a message, not a record set")
                    .with_advice("decrypt it as a message; or its header is damaged: then restore it"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_header_len(len: usize, limits: &Limits) -> Result<()> {
    if len > limits.header_bytes {
        return Err(Error::limit(format!("the message head takes {len} bytes; the limit is {}", limits.header_bytes)));
    }
    Ok(())
}

fn context_too_long(len: usize) -> Error {
    Error::limit(format!("the stored encryption context takes {len} bytes; {CONTEXT_MAX} is the most"))
}
