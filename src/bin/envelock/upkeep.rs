//! `keystore`: backups of the embedded keystore, its root key, and whether all of it is in order.

use crate::args::{KeystorePlace, Making};
use crate::audit::{NOT_ANCHORED, head_json};
use crate::failure::Failure;
use crate::inspect::json_text;
use crate::keys_args::RootCommand;
use crate::keystore::{self, Missing, Unlocking, make_folder};
use crate::provider::{self, Purpose};
use crate::provider_name::ProviderName;
use crate::regions;
use crate::signals::Signals;
use crate::text::{Notes, answer, done};
use clap::{Args, Subcommand, ValueHint};
use envelock::kms::RestoreOptions;
use envelock::{KeyProvider, LocalKms, MultiProvider, RootKey, blocking::wait};
use serde_json::json;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Back up and restore the embedded keystore, and look after its root key
#[derive(Args, Debug)]
pub(crate) struct Keystore {
    #[command(flatten)]
    pub(crate) keystore: KeystorePlace,
    #[command(subcommand)]
    pub(crate) command: KeystoreCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeystoreCommand {
    /// Copy the keystore to a new file, while it is in use; the copy needs the same root key
    #[command(after_long_help = "\
The copy has the keys of this moment: make one after each `keys create` and `keys rotate`. The root key is
not in it: `envelock keystore root export` copies that one, to another place. Either alone opens nothing.

Examples:
  envelock keystore backup /media/backup/keys-2026-11-24.db")]
    Backup {
        /// The file to write, with mode 0600; it must not exist
        #[arg(value_name = "OUT", value_hint = ValueHint::FilePath)]
        output: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Put a backup in the keystore's place, once all of it was checked under its root key
    #[command(after_long_help = "\
The backup needs the root key of its day. What was made after it is not in it. Nobody may have the keystore open.
The new end of the audit trail is printed, as `envelock audit head` does.

Examples:
  envelock keystore restore /media/backup/keys-2026-11-24.db
  envelock keystore restore --replace /media/backup/keys-2026-11-24.db")]
    Restore {
        /// The backup
        #[arg(value_name = "BACKUP", value_hint = ValueHint::FilePath)]
        backup: PathBuf,
        /// Move a keystore that is there aside, to a name that is printed; else nothing is done
        #[arg(long)]
        replace: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Put the keystore under another root key: after a leak, or to unlock it in another way
    #[command(after_long_help = "\
Without a target, a fresh root key takes the place of the one in the root key's file. The keys stay the same, and
so does what they encrypted. Programs that have the keystore open must open it again. Older copies of the
keystore still open with the root key of their day: whoever has both has the keys that were in them.

Examples:
  envelock keystore rekey --yes
  envelock keystore rekey --to raw:file=/run/secrets/unlock.key --yes
  envelock keys list --unseal raw:file=/run/secrets/unlock.key")]
    Rekey {
        /// The file for the new root key
        #[arg(long, value_name = "PATH", conflicts_with = "to", value_hint = ValueHint::FilePath)]
        to_file: Option<PathBuf>,
        /// A key provider, no local: one, that unlocks the keystore from now on (--unseal); repeat it, and
        /// each of them does
        #[arg(long, value_name = "PROVIDER")]
        to: Vec<ProviderName>,
        /// Do it: the root key of now opens the keystore no more
        #[arg(long)]
        yes: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Read the whole keystore, and check all of it
    Check {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Write this keystore's public key for replicas, and print its fingerprint
    #[command(after_long_help = "\
Others seal their multi-Region keys to it (`envelock keys replicate`). It stays the same, and is no secret; but who
exchanges the file on its way gets the keys that are sealed to it, so that its fingerprint is compared by another way.
A keystore that is not there is made.

Examples:
  envelock keystore replication-key --region us-1 -o us.key")]
    ReplicationKey {
        /// The file to write; it must not exist
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: PathBuf,
        #[command(flatten)]
        making: Making,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Look after the root key
    #[command(subcommand)]
    Root(RootCommand),
}

pub(crate) fn keystore(arguments: &Keystore, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    let place = &arguments.keystore;
    let open = || keystore::open(place, Missing::Refuse, signals, notes);
    match &arguments.command {
        KeystoreCommand::Backup { output, json } => backup(&open()?, output, *json, signals, notes),
        KeystoreCommand::Restore { backup, replace, json } => restore(place, backup, (*replace, *json), signals, notes),
        KeystoreCommand::Rekey { yes: false, .. } => Err(Failure::usage(
            "the root key of now will open the keystore no more, and programs that have it open must open it again: \
             say --yes",
        )),
        KeystoreCommand::Rekey { to_file, to, json, .. } => {
            let target = match (to_file, to.as_slice()) {
                (Some(file), _) => Target::File(file.clone()),
                (None, []) => match Unlocking::of(place, signals)?.file() {
                    Some(file) => Target::File(file.to_path_buf()),
                    None => {
                        return Err(Failure::usage("the root key is in no file: say where to with --to-file or --to"));
                    }
                },
                (None, names) => Target::Provider(wrapping(names, signals)?),
            };
            rekey(&open()?, target, *json, signals, notes)
        }
        KeystoreCommand::ReplicationKey { output, making, json } => {
            let kms = keystore::open(place, Missing::make(*making), signals, notes)?;
            regions::replication_key(&kms, output, *json, notes)
        }
        KeystoreCommand::Check { json } => check(&open()?, *json, notes),
        KeystoreCommand::Root(RootCommand::Export { output, json }) => {
            export(&open()?, output.as_deref(), *json, signals, notes)
        }
    }
}

fn restore(
    place: &KeystorePlace,
    backup: &Path,
    (replace, as_json): (bool, bool),
    signals: &Signals,
    notes: Notes,
) -> Result<(), Failure> {
    let path = keystore::path(place)?;
    let unlocking = Unlocking::of(place, signals)?;
    let options = match replace {
        true => RestoreOptions::default().move_existing_aside(),
        false => RestoreOptions::default(),
    };
    make_folder(&path)?;
    let root_file = unlocking.file().map(Path::to_path_buf);
    let restored = match unlocking {
        Unlocking::Root(root, _) => signals.undoing(|| Ok(LocalKms::restore(backup, &path, root, options)?)),
        Unlocking::Provider(provider) => signals.drive(LocalKms::restore_sealed(backup, &path, provider, options)),
    };
    let restored = restored.map_err(|failure| match failure.code() {
        crate::failure::TARGET_EXISTS => failure.and("--replace moves it aside"),
        _ => failure,
    })?;
    notes.say(&format!("restored {} from {}", path.display(), backup.display()));
    if let Some(aside) = &restored.moved_aside {
        notes.say(&format!(
            "what was there is {} now: what was encrypted since the backup may need it",
            aside.display()
        ));
    }
    if let Some(file) = root_file.filter(|_| place.root_key.is_some()) {
        say_of_root_key(place, &path, &file, signals, notes);
    }
    notes.say("heads of the audit trail that were kept after the backup compare no more: keep this one");
    if as_json {
        return answer(&json_text(&json!({
            "keystore": path.display().to_string(),
            "backup": backup.display().to_string(),
            "moved_aside": restored.moved_aside.map(|aside| aside.display().to_string()),
            "audit_head": head_json(&restored.head),
        })));
    }
    answer(&format!("{}\n", restored.head))
}

/// Where the root key was named for this once, the next command may look for another one.
fn say_of_root_key(place: &KeystorePlace, path: &Path, file: &Path, signals: &Signals, notes: Notes) {
    let usual = KeystorePlace { root_key: None, ..place.clone() };
    let Ok(Unlocking::Root(root, usual)) = Unlocking::of(&usual, signals) else { return };
    if let Ok(kms) = LocalKms::open_existing(path, root) {
        let _ = wait(kms.close());
        return;
    }
    let file = file.display();
    notes.say(&match usual {
        Some(usual) => format!(
            "it opens with {file}, and not with {usual}: put that one in its place (`install -m 600 {file} {usual}`), or \
             give it a new root key there (`envelock keystore rekey --root-key {file} --to-file {usual} --yes`)",
            usual = usual.display()
        ),
        None => format!("it opens with {file}, and not with what ENVELOCK_ROOT_KEY_VALUE holds: set that to its line"),
    });
}

/// What unlocks the keystore from now on.
enum Target {
    File(PathBuf),
    Provider(Arc<dyn KeyProvider>),
}

fn wrapping(names: &[ProviderName], signals: &Signals) -> Result<Arc<dyn KeyProvider>, Failure> {
    let all = names.iter().map(|name| provider::unlocking(name, Purpose::Encrypt, signals));
    Ok(Arc::new(MultiProvider::all(all.collect::<Result<_, _>>()?)?))
}

fn rekey(kms: &LocalKms, target: Target, as_json: bool, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    let file = match &target {
        Target::File(file) => Some(file.display().to_string()),
        Target::Provider(_) => None,
    };
    let now = match target {
        Target::File(file) => {
            make_folder(&file)?;
            signals.drive(kms.rekey(RootKey::file(&file)?))?;
            format!("the keystore's root key is a new one, in {}", file.display())
        }
        Target::Provider(provider) => {
            signals.drive(kms.rekey_sealed(provider))?;
            "the keystore's root key is a new one, which --unseal unwraps".to_owned()
        }
    };
    notes.say(&format!(
        "{now}: export it (`envelock keystore root export`), and make a new backup (`envelock keystore backup`)"
    ));
    notes.say(
        "older copies of the keystore still open with the root key of their day: where that one leaked, destroy them, \
         and rotate the keys that were in them",
    );
    match as_json {
        true => answer(&json_text(&json!({
            "keystore": kms.path().display().to_string(),
            "keystore_id": kms.keystore_id(),
            "root_key_file": file,
            "sealed": file.is_none(),
        }))),
        false => Ok(()),
    }
}

fn check(kms: &LocalKms, as_json: bool, notes: Notes) -> Result<(), Failure> {
    let report = wait(kms.check())?;
    notes.say(NOT_ANCHORED);
    notes
        .say("how often each operation was called is counted apart, for `envelock cost`: those counts are not checked");
    if as_json {
        return answer(&json_text(&json!({
            "keystore": kms.path().display().to_string(),
            "keystore_id": kms.keystore_id(),
            "region": kms.region(),
            "keys": report.keys,
            "versions": report.versions,
            "rows": report.rows,
            "secrets": report.secrets,
            "audit_records": report.audit_records,
        })));
    }
    answer(&format!(
        "{}: in order\nkeys           {}\nversions       {}\nrows           {}, each authentic, and none missing\nsecrets        \
         {}, each opened\naudit records  {}, each authentic, and none missing\n",
        kms.path().display(),
        report.keys,
        report.versions,
        report.rows,
        report.secrets,
        report.audit_records
    ))
}

pub(crate) fn export(
    kms: &LocalKms,
    output: Option<&Path>,
    as_json: bool,
    signals: &Signals,
    notes: Notes,
) -> Result<(), Failure> {
    if let Some(path) = output.filter(|path| path.symlink_metadata().is_ok()) {
        return Err(Failure::kept(path));
    }
    let root = wait(kms.export_root_key())?;
    // Written in pieces, so that the key is not copied into a text of ours.
    let written: Result<(), Failure> = match output {
        None => {
            let mut out = crate::streams::StandardOutput::open()?;
            write_line(&mut out, root.expose()).map_err(|e| envelock::Error::from(e).into())
        }
        Some(path) => signals.undoing(|| {
            let failed = |e: io::Error| match e.kind() {
                io::ErrorKind::AlreadyExists => Failure::kept(path),
                _ => Failure::io(&path.display().to_string(), &e),
            };
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
            write_line(&mut file, root.expose()).and_then(|()| file.sync_all()).map_err(|e| {
                // What is left of it is no root key.
                let _ = std::fs::remove_file(path);
                failed(e)
            })
        }),
    };
    written?;
    notes.say("whoever has this root key and the keystore has every key: keep it safe, and apart from the keystore");
    match output.filter(|_| as_json) {
        Some(path) => answer(&json_text(&json!({
            "file": path.display().to_string(),
            "keystore_id": kms.keystore_id(),
        }))),
        None => Ok(()),
    }
}

pub(crate) fn backup(
    kms: &LocalKms,
    output: &Path,
    as_json: bool,
    signals: &Signals,
    notes: Notes,
) -> Result<(), Failure> {
    if output.symlink_metadata().is_ok() {
        return Err(Failure::kept(output));
    }
    signals.drive(kms.backup(output))?;
    let file = output.display().to_string();
    let line = format!(
        "wrote the keystore to {file}; it opens with the root key only, which is not in it: keep a copy of that elsewhere \
         (`envelock keystore root export`)"
    );
    let value = json!({ "file": file, "keystore_id": kms.keystore_id(), "region": kms.region() });
    done(as_json, &value, &line, notes)
}

fn write_line(out: &mut impl io::Write, line: &str) -> io::Result<()> {
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}
