//! `keys import-parameters`, `wrap-material`, `seal-material`, `import`, `delete-material`: imported key material.

use crate::failure::Failure;
use crate::inspect::json_text;
use crate::passphrase::{self, Ask, PassphraseSource};
use crate::signals::Signals;
use crate::streams::write_new;
use crate::text::{Notes, answer, date, done};
use crate::time::{local, moment};
use clap::{Args, Subcommand, ValueHint};
use envelock::kms::{
    ImportKeyMaterialRequest, ImportParameters, Sha256Fingerprint, seal_key_material, wrap_key_material,
};
use envelock::{LocalKms, PassphraseCost, Secret, blocking::wait};
use serde_json::json;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use zeroize::Zeroizing;

#[derive(Debug, Subcommand)]
pub(crate) enum MaterialCommand {
    /// Get a public key and a token for importing key material: for one import, within 24 hours
    #[command(after_long_help = "\
The key was made with `envelock keys create --external`. Whoever has the material wraps it with the public key, once
its fingerprint was compared by another way than the file came, such as by telephone.

Examples:
  envelock keys import-parameters alias/orders -o orders.params
  envelock keys import-parameters alias/orders -o orders.params --public-key orders.der")]
    ImportParameters {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// The file to write, with mode 0600; it must not exist
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: PathBuf,
        /// Write the public key alone too, in DER, for other tools (RSA-OAEP, SHA-256 for both hashes)
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        public_key: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Wrap 32 bytes of key material for an import; needs no keystore
    #[command(after_long_help = "\
Examples:
  envelock keys wrap-material --parameters orders.params --fingerprint 7d1a... material.bin -o orders.wrapped")]
    WrapMaterial {
        /// What `envelock keys import-parameters` wrote
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        parameters: PathBuf,
        /// The fingerprint of its public key, as the keystore's owner said it
        #[arg(long, value_name = "SHA-256")]
        fingerprint: Sha256Fingerprint,
        /// The material: a file of 32 bytes
        #[arg(value_name = "MATERIAL", value_hint = ValueHint::FilePath)]
        material: PathBuf,
        /// The file to write, with mode 0600; it must not exist
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Put 32 bytes of key material under a passphrase, as one line; needs no keystore
    SealMaterial {
        /// The material: a file of 32 bytes
        #[arg(value_name = "MATERIAL", value_hint = ValueHint::FilePath)]
        material: PathBuf,
        /// The file to write, with mode 0600; it must not exist
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// A file with the passphrase; else the terminal is asked
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        passphrase_file: Option<PathBuf>,
    },
    /// Import key material into a key
    #[command(after_long_help = "\
The first material, the same again after it expired or was deleted, or, with --new, the next version's: that waits for
`envelock keys rotate`. Keep the material elsewhere: a backup of the keystore has it until it expires or is deleted.

Examples:
  envelock keys import alias/orders --parameters orders.params --wrapped orders.wrapped
  envelock keys import alias/orders --sealed orders.sealed --valid-to '90 days'
  envelock keys import alias/orders --sealed next.sealed --new && envelock keys rotate alias/orders")]
    Import(Import),
    /// Delete imported key material, at once; the same can be imported again
    DeleteMaterial {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// Of this version; else of the one that encrypts
        #[arg(long, value_name = "N")]
        version: Option<u32>,
        /// Do it: until the material is imported again, nothing that the key encrypted opens
        #[arg(long)]
        yes: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Import {
    /// A key id, a full key name, or alias/NAME
    key: String,
    /// What `envelock keys import-parameters` wrote: it has the token
    #[arg(long, value_name = "FILE", requires = "wrapped", value_hint = ValueHint::FilePath)]
    parameters: Option<PathBuf>,
    /// The material, wrapped with the public key of the parameters: 512 bytes
    #[arg(long, value_name = "FILE", requires = "parameters", value_hint = ValueHint::FilePath)]
    wrapped: Option<PathBuf>,
    /// The material under a passphrase, as `envelock keys seal-material` wrote it
    #[arg(long, value_name = "FILE", conflicts_with = "wrapped", required_unless_present = "wrapped",
        value_hint = ValueHint::FilePath)]
    sealed: Option<PathBuf>,
    /// A file with the passphrase of --sealed; else the terminal is asked
    #[arg(long, value_name = "FILE", requires = "sealed", value_hint = ValueHint::FilePath)]
    passphrase_file: Option<PathBuf>,
    /// When the material expires: a moment in ISO 8601, or a span as '30 days'; within 365 days. Else never
    #[arg(long, value_name = "WHEN", value_parser = until)]
    valid_to: Option<SystemTime>,
    /// The material is new: it encrypts once the key is rotated
    #[arg(long)]
    new: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What needs no keystore; `None` if the command needs one.
pub(crate) fn without_keystore(
    command: &MaterialCommand,
    signals: &Signals,
    notes: Notes,
) -> Option<Result<(), Failure>> {
    match command {
        MaterialCommand::WrapMaterial { parameters, fingerprint, material, output, json } => {
            Some(wrap(parameters, fingerprint, material, (output, *json), notes))
        }
        MaterialCommand::SealMaterial { material, output, passphrase_file, json } => {
            Some(seal(material, (output, *json), passphrase_file.as_deref(), signals, notes))
        }
        _ => None,
    }
}

pub(crate) fn material(
    kms: &LocalKms,
    command: &MaterialCommand,
    signals: &Signals,
    notes: Notes,
) -> Result<(), Failure> {
    match command {
        MaterialCommand::ImportParameters { key, output, public_key, json } => {
            parameters(kms, key, (output, public_key.as_deref()), *json, notes)
        }
        MaterialCommand::Import(arguments) => import(kms, arguments, signals, notes),
        MaterialCommand::DeleteMaterial { yes: false, .. } => Err(Failure::usage(
            "until the same material is imported again, nothing that the key encrypted opens: say --yes",
        )),
        MaterialCommand::DeleteMaterial { key, version, json, .. } => {
            match version {
                Some(version) => wait(kms.delete_imported_key_material_of(key, *version))?,
                None => wait(kms.delete_imported_key_material(key))?,
            }
            let value = json!({ "key": key, "version": version, "material_deleted": true });
            let line = format!("the material is deleted; {key} works again once the same is imported");
            done(*json, &value, &line, notes)
        }
        // Answered by `without_keystore`.
        MaterialCommand::WrapMaterial { .. } | MaterialCommand::SealMaterial { .. } => Ok(()),
    }
}

fn parameters(
    kms: &LocalKms,
    key: &str,
    (output, public_key): (&Path, Option<&Path>),
    as_json: bool,
    notes: Notes,
) -> Result<(), Failure> {
    let parameters = wait(kms.get_parameters_for_import(key))?;
    write_new(output, &parameters.to_file())?;
    if let Some(path) = public_key {
        write_new(path, parameters.public_key())?;
    }
    let (fingerprint, valid_to) = (parameters.fingerprint(), parameters.valid_to());
    if as_json {
        return answer(&json_text(&json!({
            "key_id": parameters.key_id(),
            "file": output.display().to_string(),
            "public_key_sha256": fingerprint.to_string(),
            "valid_to": date(valid_to),
        })));
    }
    notes.say(&format!(
        "good for one import until {}; say this fingerprint of the public key to whoever wraps the material, by another \
         way than the file goes",
        local(valid_to)
    ));
    answer(&format!("{fingerprint}\n"))
}

fn wrap(
    parameters: &Path,
    fingerprint: &Sha256Fingerprint,
    material: &Path,
    (output, as_json): (&Path, bool),
    notes: Notes,
) -> Result<(), Failure> {
    let parameters = ImportParameters::parse(&read(parameters)?)?;
    write_new(output, &wrap_key_material(&read_material(material)?, &parameters, fingerprint)?)?;
    let file = output.display().to_string();
    let line = format!("wrote {file}, for the key {}", parameters.key_id());
    done(as_json, &json!({ "file": file, "key_id": parameters.key_id() }), &line, notes)
}

fn seal(
    material: &Path,
    (output, as_json): (&Path, bool),
    passphrase_file: Option<&Path>,
    signals: &Signals,
    notes: Notes,
) -> Result<(), Failure> {
    let material = read_material(material)?;
    let passphrase = passphrase(passphrase_file, Ask::Twice, signals)?;
    let text = seal_key_material(&material, &passphrase, PassphraseCost::default())?;
    write_new(output, format!("{}\n", text.as_str()).as_bytes())?;
    let file = output.display().to_string();
    let line = format!("wrote {file}: it is as secret as its passphrase is strong");
    done(as_json, &json!({ "file": file }), &line, notes)
}

fn import(kms: &LocalKms, arguments: &Import, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    let mut request = match (&arguments.parameters, &arguments.wrapped, &arguments.sealed) {
        (Some(parameters), Some(wrapped), _) => {
            let parameters = ImportParameters::parse(&read(parameters)?)?;
            ImportKeyMaterialRequest::wrapped(read(wrapped)?, parameters.import_token())
        }
        (.., Some(sealed)) => {
            let text = Zeroizing::new(read(sealed)?);
            let passphrase = passphrase(arguments.passphrase_file.as_deref(), Ask::Once, signals)?;
            ImportKeyMaterialRequest::under_passphrase(&text, &passphrase)
        }
        _ => return Err(Failure::usage("give --parameters and --wrapped, or --sealed")),
    };
    if let Some(valid_to) = arguments.valid_to {
        request = request.valid_to(valid_to);
    }
    if arguments.new {
        request = request.new_key_material();
    }
    let imported = wait(kms.import_key_material(&arguments.key, request))?;
    if arguments.json {
        return answer(&json_text(&json!({
            "key_id": imported.key_id,
            "version": imported.version,
            "state": imported.key_state.name(),
            "waits_for_rotation": imported.waits_for_rotation,
            "valid_to": arguments.valid_to.map(date),
        })));
    }
    notes.say(&match imported.waits_for_rotation {
        true => format!(
            "imported the material of version {}; `envelock keys rotate {}` makes it the one that encrypts",
            imported.version, arguments.key
        ),
        false => format!(
            "imported the material of version {}; {} is {}",
            imported.version,
            arguments.key,
            imported.key_state.name()
        ),
    });
    Ok(())
}

fn passphrase(file: Option<&Path>, ask: Ask, signals: &Signals) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let source = file.map_or(PassphraseSource::Terminal, |path| PassphraseSource::File(path.to_path_buf()));
    passphrase::read(&source, ask, signals).map(Zeroizing::new)
}

fn until(text: &str) -> Result<SystemTime, String> {
    moment(text, SystemTime::now())
}

/// A file that a keystore has to do with: none of them is longer than this.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |e: io::Error| Failure::io(&path.display().to_string(), &e);
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > FILE_MAX {
        true => Err(Failure::usage(format!("{} is no file of a keystore: it is too long", path.display()))),
        false => Ok(bytes),
    }
}

fn read_material(path: &Path) -> Result<Secret<32>, Failure> {
    let failed = |e: io::Error| Failure::io(&path.display().to_string(), &e);
    let mut bytes = Zeroizing::new(Vec::with_capacity(64));
    File::open(path).map_err(failed)?.take(33).read_to_end(&mut bytes).map_err(failed)?;
    let material: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| {
        Failure::usage(format!("{} has not 32 bytes, as key material has: give the bytes, no text", path.display()))
    })?;
    Ok(Secret::init(|out| out.copy_from_slice(material)))
}

const FILE_MAX: u64 = 256 * 1_024;
