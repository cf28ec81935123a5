//! Recipients that could not be reached when a message was written: said, so that somebody fills them in.

use crate::text::Notes;
use envelock::{EncryptedDataKey, Limits, Recipient, read_header};
use std::fs::File;
use std::path::Path;

/// Says who is missing in the message that was just written to `path`.
pub(crate) fn say_of_file(path: &Path, notes: Notes) {
    // What cannot be read again was written all the same.
    let header = File::open(path).ok().and_then(|mut file| read_header(&mut file, &Limits::default()).ok());
    if let Some(header) = header {
        say(&path.display().to_string(), header.slots(), notes);
    }
}

/// Says who is missing among `slots`; whether anybody is.
pub(crate) fn say(name: &str, slots: &[EncryptedDataKey], notes: Notes) -> bool {
    let missing: Vec<_> =
        slots.iter().filter(|slot| slot.is_missing()).map(|slot| Recipient::from(slot).to_string()).collect();
    if !missing.is_empty() {
        notes.say(&format!(
            "{name}: MISSING {}: it could not encrypt the data key, and does not open this; `envelock check` tells why, and \
             `envelock rewrap` fills it in once that is mended",
            missing.join(", ")
        ));
    }
    !missing.is_empty()
}
