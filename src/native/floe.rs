//! The body: FLOE (ePrint 2025/2275), segments under keys derived from one data key.
//!
//! ```text
//! KDF(k, purpose, n) = HKDF-Expand-SHA-384(k, parameters || IV || purpose || AAD, n)
//! header tag         = KDF(K, "HEADER_TAG:", 32)
//! message key MK     = KDF(K, "MESSAGE_KEY:", 48)
//! segment key (i)    = KDF(MK, "DEK:" || u64(i with its low 20 bits cleared), 32)
//! segment i          = u32(FFFFFFFF, or its total length if it is the final one)
//!                      || IV (12) || ciphertext || tag (16), AAD = u64(i) || (00, or 01 if final)
//! ```

use crate::codec::{Reader, Short};
use crate::crypto::{self, Aead, AeadAlgorithm, AeadKey, Chain, HkdfKey, KdfKey};
use crate::error::{Error, Result};
use crate::material::DataKey;
use crate::native::header::{SEGMENT_LEN_MAX, SEGMENT_LEN_MIN};
use crate::secret::{Secret, same};
use crate::segments::{Layout, Meter, Peek, Position, SEGMENTS_MAX, Segments};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroize;

/// Bytes of parameters, IV and header tag.
pub(crate) const FLOE_HEADER_LEN: usize = PARAMETERS_LEN + IV_LEN + HEADER_TAG_LEN;

const PARAMETERS_LEN: usize = 10;
const IV_LEN: usize = 32;
const HEADER_TAG_LEN: usize = 32;
const PREFIX_LEN: usize = 4;
const SEGMENT_IV_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// Bytes that a segment adds to its plaintext.
const OVERHEAD: u32 = 32;
/// The length prefix of a segment that is not the final one.
const NOT_FINAL: u32 = u32::MAX;
/// A segment key serves 2^20 segments.
const ROTATION_BITS: u32 = 20;
const FIRST_ROTATION: [u8; 8] = [0; 8];

const AES_256_GCM: u8 = 0x00;
/// Ours, not FLOE's: the same construction with another AEAD.
const CHACHA20_POLY1305: u8 = 0xF1;
const HKDF_EXPAND_SHA_384: u8 = 0x00;

/// Parameters, IV and header tag, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FloeHeader {
    aead: AeadAlgorithm,
    segment_len: u32,
    iv: [u8; IV_LEN],
    tag: [u8; HEADER_TAG_LEN],
}

impl FloeHeader {
    /// Parses what is at hand; `None` if it is well formed and more is needed.
    pub(crate) fn parse(bytes: &[u8], segment_len_max: u32) -> Result<Option<Self>> {
        Self::parse_within(bytes, SEGMENT_LEN_MIN..=segment_len_max.min(SEGMENT_LEN_MAX))
    }

    fn parse_within(bytes: &[u8], lengths: std::ops::RangeInclusive<u32>) -> Result<Option<Self>> {
        let mut reader = Reader::partial(bytes, FLOE_HEADER_LEN);
        match Self::read(&mut reader, &lengths) {
            Ok(parsed) => parsed.map(Some),
            // The region is as long as its fields together, so that only bytes at hand can be short.
            Err(Short::Missing | Short::Beyond) => Ok(None),
        }
    }

    fn read(reader: &mut Reader<'_>, lengths: &std::ops::RangeInclusive<u32>) -> Result<Result<Self>, Short> {
        let aead = match reader.u8()? {
            AES_256_GCM => AeadAlgorithm::Aes256Gcm,
            CHACHA20_POLY1305 => AeadAlgorithm::ChaCha20Poly1305,
            other => {
                return Ok(Err(Error::unknown(format_args!("AEAD id {other:#04x}"))));
            }
        };
        let kdf = reader.u8()?;
        if kdf != HKDF_EXPAND_SHA_384 {
            return Ok(Err(Error::unknown(format_args!("KDF id {kdf:#04x}"))));
        }
        let segment_len = reader.u32()?;
        if segment_len < *lengths.start() {
            return Ok(Err(Error::malformed(format!(
                "the segment length is {segment_len} bytes, too short for a segment"
            ))));
        }
        if !lengths.contains(&segment_len) {
            return Ok(Err(Error::limit(format!(
                "the segment length is {segment_len} bytes; this reader takes at most {}",
                lengths.end()
            ))));
        }
        let iv_len = reader.u32()?;
        if iv_len as usize != IV_LEN {
            return Ok(Err(Error::malformed(format!("the FLOE IV has {iv_len} bytes instead of {IV_LEN}"))));
        }
        Ok(Ok(Self { aead, segment_len, iv: reader.array()?, tag: reader.array()? }))
    }

    pub(crate) fn encode(&self) -> [u8; FLOE_HEADER_LEN] {
        let mut out = [0; FLOE_HEADER_LEN];
        let (head, tag) = out.split_at_mut(PARAMETERS_LEN + IV_LEN);
        head.copy_from_slice(&self.parameters_and_iv());
        tag.copy_from_slice(&self.tag);
        out
    }

    pub(crate) fn aead(&self) -> AeadAlgorithm {
        self.aead
    }

    pub(crate) fn layout(&self) -> Layout {
        #[expect(clippy::cast_possible_truncation, reason = "74")]
        Layout::new(self.segment_len, OVERHEAD, FLOE_HEADER_LEN as u32)
    }

    fn parameters_and_iv(&self) -> [u8; PARAMETERS_LEN + IV_LEN] {
        let mut out = [0; PARAMETERS_LEN + IV_LEN];
        out[0] = match self.aead {
            AeadAlgorithm::Aes256Gcm => AES_256_GCM,
            AeadAlgorithm::ChaCha20Poly1305 => CHACHA20_POLY1305,
        };
        out[1] = HKDF_EXPAND_SHA_384;
        out[2..6].copy_from_slice(&self.segment_len.to_be_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "32")]
        out[6..PARAMETERS_LEN].copy_from_slice(&(IV_LEN as u32).to_be_bytes());
        out[PARAMETERS_LEN..].copy_from_slice(&self.iv);
        out
    }
}

/// A data key, as bodies and record sets take it: it only ever keys HKDF-Expand-SHA-384.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyRef<'a> {
    /// For this once.
    Fresh(&'a DataKey),
    /// Its HMAC is keyed already. It was made of 32 bytes.
    Prepared(&'a HkdfKey),
}

impl KeyRef<'_> {
    /// # Errors
    /// Kind InvalidInput for a key that has not 32 bytes.
    pub(crate) fn expand_each(self, each: &mut [crypto::Expansion<'_>]) -> Result<()> {
        match self {
            Self::Fresh(key) => crypto::hkdf_expand_sha384_each(whole(key)?, each),
            Self::Prepared(key) => key.expand_each(each),
        }
    }

    /// # Errors
    /// Kind InvalidInput for a key that has not 32 bytes.
    fn chain(self, chain: Chain<'_>) -> Result<AeadKey> {
        match self {
            Self::Fresh(key) => crypto::aead_of_chain_sha384(whole(key)?, chain),
            Self::Prepared(key) => crypto::aead_of_chain(key, chain),
        }
    }
}

fn whole(key: &DataKey) -> Result<&[u8; 32]> {
    key.expose().try_into().map_err(|_| Error::invalid_input("a native message takes a data key of 32 bytes"))
}

impl<'a> From<&'a DataKey> for KeyRef<'a> {
    fn from(key: &'a DataKey) -> Self {
        Self::Fresh(key)
    }
}

impl<'a> From<&'a HkdfKey> for KeyRef<'a> {
    fn from(key: &'a HkdfKey) -> Self {
        Self::Prepared(key)
    }
}

/// A keyed body: seals and opens its segments.
pub(crate) struct Floe {
    header: FloeHeader,
    /// `core || unstored`, for the keys of later rotations.
    aad: Vec<u8>,
    message_key: Secret<48>,
    rotation_bits: u32,
    first: AeadKey,
    /// The key of the rotation last used, when that is not the first.
    later: Mutex<Option<(u64, Arc<AeadKey>)>>,
    /// What pays for each segment that is sealed, unless that was done for all of them.
    meter: Option<Box<dyn Meter>>,
}

impl Floe {
    /// A new body under `key`, with a fresh IV from the operating system. `aad` is core || unstored.
    pub(crate) fn create<'a>(
        key: impl Into<KeyRef<'a>>,
        aead: AeadAlgorithm,
        segment_len: u32,
        aad: Vec<u8>,
    ) -> Result<Self> {
        let mut iv = [0; IV_LEN];
        crypto::random::fill(&mut iv)?;
        Self::create_with_iv(key, aead, segment_len, aad, iv)
    }

    /// From now on, `meter` pays for each segment before it is sealed.
    pub(crate) fn set_meter(&mut self, meter: Option<Box<dyn Meter>>) {
        self.meter = meter;
    }

    /// With an IV that is given: for known answers. An IV must never serve twice under one key.
    fn create_with_iv<'a>(
        key: impl Into<KeyRef<'a>>,
        aead: AeadAlgorithm,
        segment_len: u32,
        aad: Vec<u8>,
        iv: [u8; IV_LEN],
    ) -> Result<Self> {
        if !(SEGMENT_LEN_MIN..=SEGMENT_LEN_MAX).contains(&segment_len) {
            return Err(Error::invalid_input(format!(
                "a segment length is {SEGMENT_LEN_MIN} to {SEGMENT_LEN_MAX} bytes, not {segment_len}"
            )));
        }
        let header = FloeHeader { aead, segment_len, iv, tag: [0; HEADER_TAG_LEN] };
        let (tag, mut floe) = Self::derive(key.into(), header, aad, ROTATION_BITS)?;
        floe.header.tag = tag;
        Ok(floe)
    }

    /// The body of a parsed header, or `None` if `key` is not the key that its tag commits to.
    pub(crate) fn open<'a>(key: impl Into<KeyRef<'a>>, header: &FloeHeader, aad: Vec<u8>) -> Result<Option<Self>> {
        Self::open_rotating(key.into(), header, aad, ROTATION_BITS)
    }

    fn open_rotating(key: KeyRef<'_>, header: &FloeHeader, aad: Vec<u8>, rotation_bits: u32) -> Result<Option<Self>> {
        let (tag, floe) = Self::derive(key, *header, aad, rotation_bits)?;
        Ok(same(&tag, &header.tag).then_some(floe))
    }

    pub(crate) fn header(&self) -> &FloeHeader {
        &self.header
    }

    fn derive(
        key: KeyRef<'_>,
        header: FloeHeader,
        aad: Vec<u8>,
        rotation_bits: u32,
    ) -> Result<([u8; HEADER_TAG_LEN], Self)> {
        let info = header.parameters_and_iv();
        let mut tag = [0; HEADER_TAG_LEN];
        let mut first = None;
        let message_key = Secret::try_init(|message_key: &mut [u8; 48]| {
            first = Some(key.chain(Chain {
                first: (&[&info, b"HEADER_TAG:", &aad], &mut tag),
                second: (&[&info, b"MESSAGE_KEY:", &aad], message_key),
                info: &[&info, b"DEK:", &FIRST_ROTATION, &aad],
                algorithm: header.aead,
            })?);
            Ok::<_, Error>(())
        })?;
        let first = first.ok_or_else(|| Error::internal("the key of the first segments was derived"))?;
        Ok((tag, Self { header, aad, message_key, rotation_bits, first, later: Mutex::new(None), meter: None }))
    }

    /// The AEAD of segment `index`, derived anew where a rotation begins.
    fn aead(&self, index: u64) -> Result<SegmentKey<'_>> {
        let rotation = index >> self.rotation_bits << self.rotation_bits;
        if rotation == 0 {
            return Ok(SegmentKey::First(&self.first));
        }
        let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, aead)) = &*later
            && *at == rotation
        {
            return Ok(SegmentKey::Later(Arc::clone(aead)));
        }
        let aead = Arc::new(segment_key(&self.header, &self.message_key, &self.aad, rotation)?);
        *later = Some((rotation, Arc::clone(&aead)));
        Ok(SegmentKey::Later(aead))
    }

    /// Checks position and length of a segment to seal, pays for it, and gives its prefix.
    fn begin(&self, at: Position, segment_len: usize) -> Result<[u8; PREFIX_LEN]> {
        let prefix = self.prefix(at, segment_len)?;
        if let Some(meter) = &self.meter {
            meter.pay(segment_len.saturating_sub(OVERHEAD as usize) as u64)?;
        }
        Ok(prefix)
    }

    /// Checks position and length of a segment to seal, and gives its prefix.
    fn prefix(&self, at: Position, segment_len: usize) -> Result<[u8; PREFIX_LEN]> {
        check_index(at)?;
        let full = self.header.segment_len as usize;
        let fits = if at.last { (OVERHEAD as usize..=full).contains(&segment_len) } else { segment_len == full };
        if !fits {
            return Err(Error::invalid_input(format!(
                "a segment of {segment_len} bytes where {} is the segment length",
                self.header.segment_len
            ))
            .with_segment(at.index));
        }
        let prefix = if at.last { u32::try_from(segment_len).unwrap_or(NOT_FINAL) } else { NOT_FINAL };
        Ok(prefix.to_be_bytes())
    }

    /// The IV of a segment to open, if position, length and prefix agree. "The length prefix must
    /// agree with the finality that the position implies, in every reader."
    fn check_sealed(&self, at: Position, segment: &[u8]) -> Result<[u8; SEGMENT_IV_LEN]> {
        let not_authentic = || Error::authentication().with_segment(at.index);
        let expected = self.prefix(at, segment.len()).map_err(|_| not_authentic())?;
        match segment.split_first_chunk::<PREFIX_LEN>() {
            Some((prefix, rest)) if *prefix == expected => rest.first_chunk().copied().ok_or_else(not_authentic),
            _ => Err(not_authentic()),
        }
    }
}

impl Segments for Floe {
    fn layout(&self) -> Layout {
        self.header.layout()
    }

    fn plaintext_at(&self) -> usize {
        PREFIX_LEN + SEGMENT_IV_LEN
    }

    fn seal_in_place(&self, at: Position, iv: &[u8; 12], segment: &mut [u8]) -> Result<()> {
        let prefix = self.begin(at, segment.len())?;
        let (head, sealed) = segment.split_at_mut(PREFIX_LEN + SEGMENT_IV_LEN);
        head[..PREFIX_LEN].copy_from_slice(&prefix);
        head[PREFIX_LEN..].copy_from_slice(iv);
        self.aead(at.index)?.seal_in_place(iv, &associated(at), sealed)
    }

    fn seal_to(&self, at: Position, iv: &[u8; 12], plaintext: &[u8], segment: &mut [u8]) -> Result<()> {
        let prefix = self.begin(at, segment.len())?;
        let (head, sealed) = segment.split_at_mut(PREFIX_LEN + SEGMENT_IV_LEN);
        head[..PREFIX_LEN].copy_from_slice(&prefix);
        head[PREFIX_LEN..].copy_from_slice(iv);
        self.aead(at.index)?.seal_to(iv, &associated(at), plaintext, sealed)
    }

    fn peek(&self, index: u64, start: [u8; 4]) -> Result<Peek> {
        let full = self.header.segment_len;
        match u32::from_be_bytes(start) {
            NOT_FINAL => Ok(Peek { at: Position { index, last: false }, len: full as usize }),
            len if (OVERHEAD..=full).contains(&len) => {
                Ok(Peek { at: Position { index, last: true }, len: len as usize })
            }
            _ => Err(Error::authentication().with_segment(index)),
        }
    }

    fn put_prefix(&self, at: Position, segment: &mut [u8]) -> Result<()> {
        let prefix = self.prefix(at, segment.len())?;
        if let Some(start) = segment.first_chunk_mut() {
            *start = prefix;
        }
        Ok(())
    }

    fn open_in_place(&self, at: Position, segment: &mut [u8]) -> Result<()> {
        let opened = self.check_sealed(at, segment).and_then(|iv| {
            let sealed = segment.get_mut(PREFIX_LEN + SEGMENT_IV_LEN..).unwrap_or_default();
            self.aead(at.index)?.open_in_place(&iv, &associated(at), sealed)
        });
        opened.map_err(|error| {
            segment.zeroize();
            error.with_segment(at.index)
        })
    }

    fn open_to(&self, at: Position, segment: &[u8], plaintext: &mut [u8]) -> Result<()> {
        let opened = self.check_sealed(at, segment).and_then(|iv| {
            let sealed = segment.get(PREFIX_LEN + SEGMENT_IV_LEN..).unwrap_or_default();
            self.aead(at.index)?.open_to(&iv, &associated(at), sealed, plaintext)
        });
        opened.map_err(|error| {
            plaintext.zeroize();
            error.with_segment(at.index)
        })
    }
}

/// Prints no key.
impl fmt::Debug for Floe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Floe").field("header", &self.header).finish_non_exhaustive()
    }
}

/// Length of the only segment of so many bytes, if one of `segment_len` holds them.
pub(crate) fn one_segment_len(plaintext_len: u64, segment_len: u32) -> Option<usize> {
    let len = plaintext_len.checked_add(u64::from(OVERHEAD)).filter(|len| *len <= u64::from(segment_len))?;
    usize::try_from(len).ok()
}

fn segment_key(header: &FloeHeader, message_key: &Secret<48>, aad: &[u8], rotation: u64) -> Result<AeadKey> {
    let info = header.parameters_and_iv();
    crypto::aead_of_hkdf_sha384(header.aead, message_key.expose(), &[&info, b"DEK:", &rotation.to_be_bytes(), aad])
}

/// The key of one rotation: borrowed where it is the first, as in all but huge messages.
enum SegmentKey<'a> {
    First(&'a AeadKey),
    Later(Arc<AeadKey>),
}

impl Deref for SegmentKey<'_> {
    type Target = AeadKey;

    fn deref(&self) -> &AeadKey {
        match self {
            Self::First(key) => key,
            Self::Later(key) => key,
        }
    }
}

/// "At most 2^40 segments (non-final index at most 2^40 - 2)."
fn check_index(at: Position) -> Result<()> {
    let most = if at.last { SEGMENTS_MAX - 1 } else { SEGMENTS_MAX - 2 };
    if at.index > most {
        return Err(
            Error::limit("a message has at most 2^40 segments: choose a longer segment length").with_segment(at.index)
        );
    }
    Ok(())
}

fn associated(at: Position) -> [u8; 9] {
    let mut aad = [0; 9];
    aad[..8].copy_from_slice(&at.index.to_be_bytes());
    aad[8] = u8::from(at.last);
    aad
}

const _: () = assert!(PREFIX_LEN + SEGMENT_IV_LEN + TAG_LEN == OVERHEAD as usize);

#[cfg(test)]
mod tests;
