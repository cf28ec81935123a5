//! The slots of a head: a data key, wrapped once for each recipient.
//!
//! ```text
//!  1  slot count, 1 to 32
//!     slots: 1-byte length || provider name, key id, wrapped key (byte strings)
//!     padding, zero bytes
//! ```

use crate::codec::{Reader, Short, put_byte_string};
use crate::error::{Error, Result};
use crate::material::EncryptedDataKey;
use crate::native::header::Limits;

/// Most slots in a message.
pub(crate) const SLOTS_MAX: usize = 32;
/// The provider name of passphrase slots, of which a message has at most one.
pub(crate) const PASSPHRASE: &str = "passphrase";

/// How long a slots area becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotsRoom {
    /// No padding.
    Tight,
    /// To a multiple of 1,024 bytes with at least 256 spare, so that a longer key name fits later.
    Spare,
    /// Exactly so many bytes.
    Exactly(usize),
}

/// The slots area (`m` bytes, without the length field) of a message with a core of `core_len` bytes.
///
/// # Errors
/// LimitExceeded if the slots do not fit.
pub(crate) fn encode_slots(slots: &[EncryptedDataKey], room: SlotsRoom, core_len: usize) -> Result<Vec<u8>> {
    check_slots(slots).map_err(|what| Error::invalid_input(format!("a message cannot be written: it {what}")))?;
    let count = u8::try_from(slots.len())
        .ok()
        .filter(|&count| usize::from(count) <= SLOTS_MAX)
        .ok_or_else(|| too_many_slots(slots.len()))?;
    let len = |slot: &EncryptedDataKey| 5 + slot.provider().len() + slot.key_id().len() + slot.wrapped().len();
    let mut area = Vec::with_capacity(1 + slots.iter().map(len).sum::<usize>());
    area.push(count);
    for slot in slots {
        let name = slot.provider().as_bytes();
        let len = u8::try_from(name.len()).ok().filter(|&len| len > 0 && name.is_ascii()).ok_or_else(|| {
            Error::invalid_input(format!("a provider name has 1 to 255 ASCII characters, unlike {:?}", slot.provider()))
        })?;
        area.push(len);
        area.extend_from_slice(name);
        put_byte_string(&mut area, slot.key_id())?;
        put_byte_string(&mut area, slot.wrapped())?;
    }
    // Writers stay within the readers' defaults.
    let most = Limits::default().header_bytes - core_len - 2;
    let len = match room {
        SlotsRoom::Tight => area.len(),
        SlotsRoom::Spare => (area.len() + 256).next_multiple_of(1_024).min(most.max(area.len())),
        SlotsRoom::Exactly(len) => len,
    };
    if area.len() > len || len > most || len > usize::from(u16::MAX) {
        return Err(Error::limit(format!(
            "the encrypted data keys take {} bytes where {} are free",
            area.len(),
            len.min(most)
        ))
        .with_advice("use fewer recipients, or rewrap to a new file"));
    }
    area.resize(len, 0);
    Ok(area)
}

/// What is wrong with the slots as a whole.
fn check_slots(slots: &[EncryptedDataKey]) -> Result<(), &'static str> {
    if slots.iter().all(EncryptedDataKey::is_missing) {
        return Err("has no encrypted data key");
    }
    if slots.iter().filter(|slot| slot.provider() == PASSPHRASE).count() > 1 {
        return Err("has more than one passphrase slot");
    }
    Ok(())
}

/// The slots of an area whose bytes are all at hand.
pub(crate) fn parse_slots(area: &[u8]) -> Result<Vec<EncryptedDataKey>> {
    let short = |_: Short| Error::malformed("the slots end within a field");
    let mut area = Reader::new(area);
    let count = usize::from(area.u8().map_err(short)?);
    if count > SLOTS_MAX {
        return Err(too_many_slots(count));
    }
    let mut slots = Vec::with_capacity(count);
    for _ in 0..count {
        let len = usize::from(area.u8().map_err(short)?);
        let provider = std::str::from_utf8(area.take(len).map_err(short)?).ok();
        let provider = provider
            .filter(|name| !name.is_empty() && name.is_ascii())
            .ok_or_else(|| Error::malformed("a slot's provider name is empty or not ASCII"))?;
        let key_id = area.byte_string().map_err(short)?;
        let wrapped = area.byte_string().map_err(short)?;
        slots.push(EncryptedDataKey::from_parts(provider, key_id, wrapped));
    }
    check_slots(&slots).map_err(|what| Error::malformed(format!("the message {what}")))?;
    let padding = area.take(area.remaining()).map_err(short)?;
    if padding.iter().any(|&byte| byte != 0) {
        return Err(Error::malformed("the padding after the slots is not zero"));
    }
    Ok(slots)
}

fn too_many_slots(count: usize) -> Error {
    Error::limit(format!("{count} slots; {SLOTS_MAX} is the most"))
}
