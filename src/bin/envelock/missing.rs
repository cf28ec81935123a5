//! Recipients that could not be reached when a message was written, and standbys that wrote it: said, so that somebody
//! fills them in.

use crate::args::Choosing;
use crate::noted;
use crate::provider_name::ProviderName;
use crate::text::Notes;
use envelock::{EncryptedDataKey, Limits, Recipient, read_header};
use std::fs::File;
use std::path::Path;

/// Says who is missing in the message that was just written to `path`, and what fills it in: `choice` is how the providers
/// were named.
pub(crate) fn say_of_file(path: &Path, choice: &str, notes: Notes) {
    // What cannot be read again was written all the same.
    let header = File::open(path).ok().and_then(|mut file| read_header(&mut file, &Limits::default()).ok());
    if let Some(header) = header {
        let name = path.display().to_string();
        let command = format!("rewrap{choice} {}", if is_plain(&name) { &name } else { "FILE" });
        let many = format!("fleet rewrap{choice} --missing FOLDER");
        say(&name, header.slots(), Some((&command, &many)), notes);
    }
}

/// Says who is missing among `slots`, and by which commands one and many are filled in; whether anybody is.
pub(crate) fn say(name: &str, slots: &[EncryptedDataKey], commands: Option<(&str, &str)>, notes: Notes) -> bool {
    let of = |missing| slots.iter().filter(move |slot| slot.is_missing() == missing).map(Recipient::from);
    let missing: Vec<_> = of(true).collect();
    let opens: Vec<_> = of(false).collect();
    let (one, many) = commands.unwrap_or(("rewrap", "fleet rewrap --missing"));
    if noted::is_by_standby(&opens) {
        let standby = text(&opens);
        notes.say(&format!("{name}: by the standby {standby}: it opens with it alone, until `envelock {one}`"));
    }
    if missing.is_empty() {
        return false;
    }
    let why: Vec<_> = match missing.as_slice() {
        [only] => noted::why(only).into_iter().collect(),
        several => several.iter().filter_map(|it| Some(format!("{it}: {}", noted::why(it)?))).collect(),
    };
    let why = match why.is_empty() {
        true => String::new(),
        false => format!(" ({})", why.join("; ")),
    };
    notes.say(&format!(
        "{name}: MISSING {}: it could not encrypt the data key{why}, and does not open this; `envelock check` tells more, and \
         once that is mended `envelock {one}` fills it in, and `envelock {many}` those of a folder",
        text(&missing)
    ));
    true
}

fn text(recipients: &[Recipient]) -> String {
    recipients.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The options by which the providers of a command line are named again.
pub(crate) fn choice(choosing: &Choosing) -> String {
    let option = |name: &str, value: Option<&str>| match value {
        Some(value) if is_plain(value) => format!(" --{name} {value}"),
        Some(_) => format!(" --{name} …"),
        None => String::new(),
    };
    let config = choosing.config.as_ref().map(|path| path.to_string_lossy());
    match choosing.provider.as_slice() {
        [] => option("profile", choosing.profile.as_deref()) + &option("config", config.as_deref()),
        names => named(names),
    }
}

/// The same of these.
pub(crate) fn named(names: &[ProviderName]) -> String {
    let all: Vec<_> = names.iter().map(ToString::to_string).collect();
    match all.iter().all(|name| is_plain(name)) {
        true => all.iter().map(|name| format!(" --provider {name}")).collect(),
        false => " --provider …".into(),
    }
}

/// Whether a shell takes it as it is.
pub(crate) fn is_plain(text: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/:.,=_-@%+".contains(letter);
    !text.starts_with('-') && text.chars().all(plain)
}
