//! What docs/format.md says of a message's bytes, written again from its rules 1, 2, 4, 7 and 8 and
//! sharing nothing with the library: it opens no key, but knows the one message that was made, and so
//! which segment is authentic where, and predicts what each way in must answer.

use envelock::ErrorKind::{self, *};
use std::ops::Range;

/// An entry of a context.
type Entry = (Vec<u8>, Vec<u8>);

/// One slot in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) provider: Vec<u8>,
    pub(crate) key_id: Vec<u8>,
    pub(crate) wrapped: Vec<u8>,
}

/// A head in its parts.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) core: Range<usize>,
    pub(crate) stored: Vec<Entry>,
    pub(crate) unstored: bool,
    /// The m bytes.
    pub(crate) area: Range<usize>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) padding: Range<usize>,
    pub(crate) floe: Range<usize>,
    pub(crate) segment_len: usize,
}

/// Fields in order; `short` is the kind for a field that is not all there.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    short: ErrorKind,
}

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], ErrorKind> {
        let taken = self.bytes.get(self.at..self.at + len).ok_or(self.short)?;
        self.at += len;
        Ok(taken)
    }

    fn uint(&mut self, len: usize) -> Result<usize, ErrorKind> {
        Ok(self.take(len)?.iter().fold(0, |n, &byte| n << 8 | usize::from(byte)))
    }

    fn byte_string(&mut self) -> Result<&'a [u8], ErrorKind> {
        let len = self.uint(2)?;
        self.take(len)
    }
}

impl Head {
    /// Rule 1, step 1.
    pub(crate) fn judge(message: &[u8]) -> Result<Self, ErrorKind> {
        let mut fields = Fields { bytes: message, at: 0, short: Truncated };
        for expected in b"ELK" {
            if fields.take(1)? != [*expected] {
                return Err(Malformed);
            }
        }
        if fields.uint(1)? != 1 {
            return Err(Unsupported);
        }
        let flags = fields.uint(1)?;
        if flags & !1 != 0 {
            return Err(Unsupported);
        }
        let n = fields.uint(2)?;
        if n > 8_167 {
            return Err(LimitExceeded);
        }
        let stored = judge_context(fields.take(n)?)?;
        let core = 0..fields.at;
        let m = fields.uint(2)?;
        if fields.at + m > 65_536 {
            return Err(LimitExceeded);
        }
        let area = fields.at..fields.at + m;
        let (slots, used) = judge_slots(fields.take(m)?)?;
        let start = fields.at;
        if !matches!(fields.uint(1)?, 0x00 | 0xF1) || fields.uint(1)? != 0 {
            return Err(Unsupported);
        }
        let segment_len = fields.uint(4)?;
        match segment_len {
            0..64 => return Err(Malformed),
            64..=16_777_216 => {}
            _ => return Err(LimitExceeded),
        }
        if fields.uint(4)? != 32 {
            return Err(Malformed);
        }
        fields.take(64)?;
        let padding = area.start + used..area.end;
        Ok(Self { core, stored, unstored: flags & 1 != 0, area, slots, padding, floe: start..fields.at, segment_len })
    }

    pub(crate) fn len(&self) -> usize {
        self.floe.end
    }
}

/// Rule 7, for a stored context.
fn judge_context(bytes: &[u8]) -> Result<Vec<Entry>, ErrorKind> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut fields = Fields { bytes, at: 0, short: Malformed };
    let count = fields.uint(2)?;
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..count {
        let (key, value) = (fields.byte_string()?, fields.byte_string()?);
        let sorted = entries.last().is_none_or(|(before, _)| before.as_slice() < key);
        let text = std::str::from_utf8(key).is_ok() && std::str::from_utf8(value).is_ok();
        if key.is_empty() || !sorted || !text || key.starts_with(b"envelock-") {
            return Err(Malformed);
        }
        entries.push((key.to_vec(), value.to_vec()));
    }
    if count == 0 || fields.at != bytes.len() { Err(Malformed) } else { Ok(entries) }
}

/// The slots, and how many of the m bytes they take.
fn judge_slots(area: &[u8]) -> Result<(Vec<Slot>, usize), ErrorKind> {
    let mut fields = Fields { bytes: area, at: 0, short: Malformed };
    let count = fields.uint(1)?;
    if count > 32 {
        return Err(LimitExceeded);
    }
    let mut slots = Vec::new();
    for _ in 0..count {
        let len = fields.uint(1)?;
        let provider = fields.take(len)?.to_vec();
        if provider.is_empty() || !provider.is_ascii() {
            return Err(Malformed);
        }
        slots.push(Slot { provider, key_id: fields.byte_string()?.to_vec(), wrapped: fields.byte_string()?.to_vec() });
    }
    let passphrases = slots.iter().filter(|slot| slot.provider == b"passphrase").count();
    let all_missing = slots.iter().all(|slot| slot.wrapped.is_empty());
    let padded = area[fields.at..].iter().any(|&byte| byte != 0);
    if passphrases > 1 || all_missing || padded {
        return Err(Malformed);
    }
    Ok((slots, fields.at))
}

/// What a way in must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The error, or none for the whole plaintext.
    pub(crate) error: Option<ErrorKind>,
    /// Bytes of plaintext that may leave before it.
    pub(crate) released: usize,
}

/// How a reader finds its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// From the front: prefixes say where segments end.
    Stream,
    /// By the total length; the final segment is verified first.
    Seek,
}

/// A message as it was made, and who reads it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) message: Vec<u8>,
    pub(crate) head: Head,
    /// Provider names and key ids that the reader holds.
    pub(crate) ours: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Known {
    pub(crate) fn new(message: Vec<u8>, ours: &[(&str, &str)]) -> Self {
        let head = Head::judge(&message).expect("the message is whole");
        let ours = ours.iter().map(|(name, key)| (name.as_bytes().to_vec(), key.as_bytes().to_vec())).collect();
        Self { message, head, ours }
    }

    /// The sealed segments, in order.
    pub(crate) fn segments(&self) -> Vec<&[u8]> {
        self.message[self.head.len()..].chunks(self.head.segment_len).collect()
    }

    /// What a reader of `damaged` under this message's context must answer.
    pub(crate) fn verdict(&self, damaged: &[u8], walk: Walk) -> Verdict {
        match self.judge_key(damaged) {
            Err(kind) => Verdict { error: Some(kind), released: 0 },
            Ok(start) => match walk {
                Walk::Stream => self.stream(&damaged[start..]),
                Walk::Seek => self.seek(&damaged[start..]),
            },
        }
    }

    /// Rule 1, steps 1 to 4: where the segments start.
    fn judge_key(&self, damaged: &[u8]) -> Result<usize, ErrorKind> {
        let head = Head::judge(damaged)?;
        if head.stored != self.head.stored || head.unstored != self.head.unstored {
            return Err(ContextMismatch);
        }
        let ours: Vec<_> = head
            .slots
            .iter()
            .filter(|slot| !slot.wrapped.is_empty())
            .filter(|slot| self.ours.contains(&(slot.provider.clone(), slot.key_id.clone())))
            .collect();
        if ours.is_empty() {
            return Err(NoMatchingKey);
        }
        let bound = damaged[head.core.clone()] == self.message[self.head.core.clone()]
            && damaged[head.floe.clone()] == self.message[self.head.floe.clone()];
        let good = bound && ours.iter().take(4).any(|slot| self.head.slots.contains(slot));
        match good {
            true => Ok(head.len()),
            false if ours.len() > 4 => Err(LimitExceeded),
            false => Err(AuthenticationFailed),
        }
    }

    fn stream(&self, body: &[u8]) -> Verdict {
        let genuine = self.segments();
        let full = self.head.segment_len;
        let (mut at, mut released) = (0, 0);
        for index in 0.. {
            let rest = &body[at..];
            let failed = |kind| Verdict { error: Some(kind), released };
            let Some(prefix) = rest.get(..4) else { return failed(Truncated) };
            let prefix = u32::from_be_bytes(prefix.try_into().unwrap());
            let len = match usize::try_from(prefix).unwrap() {
                0xFFFF_FFFF => full,
                len if (32..=full).contains(&len) => len,
                _ => return failed(AuthenticationFailed),
            };
            let Some(segment) = rest.get(..len) else { return failed(Truncated) };
            if genuine.get(index) != Some(&segment) {
                return failed(AuthenticationFailed);
            }
            at += len;
            released += len - 32;
            if prefix != u32::MAX {
                let error = (at < body.len()).then_some(TrailingData);
                return Verdict { error, released };
            }
        }
        unreachable!("the loop ends with the final segment or an error")
    }

    fn seek(&self, body: &[u8]) -> Verdict {
        let genuine = self.segments();
        let full = self.head.segment_len;
        let mut pieces: Vec<_> = body.chunks(full).collect();
        let failed = |error, released| Verdict { error: Some(error), released };
        let Some(last) = pieces.pop().filter(|last| last.len() >= 32) else { return failed(Truncated, 0) };
        if last.starts_with(&[0xFF; 4]) {
            return failed(Truncated, 0);
        }
        if pieces.len() + 1 != genuine.len() || genuine.last() != Some(&last) {
            return failed(AuthenticationFailed, 0);
        }
        let good = pieces.iter().zip(&genuine).take_while(|(piece, genuine)| piece == genuine).count();
        if good < pieces.len() {
            return failed(AuthenticationFailed, good * (full - 32));
        }
        Verdict { error: None, released: body.len() - 32 * genuine.len() }
    }
}
