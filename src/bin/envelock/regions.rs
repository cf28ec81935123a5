//! `keys replicate`, `import-replica`, `primary`, `receipt` and others: multi-Region keys between keystores.

use crate::describe::key_json;
use crate::failure::Failure;
use crate::inspect::json_text;
use crate::material::read;
use crate::streams::write_new;
use crate::text::{Notes, answer, done};
use clap::{Args, Subcommand, ValueHint};
use envelock::kms::{FileKind, IssuedFile, KeyMetadata, MultiRegionKey, Sha256Fingerprint, describe_file};
use envelock::{LocalKms, blocking::wait};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(crate) enum RegionsCommand {
    /// Seal a multi-Region key to another keystore
    #[command(after_long_help = "\
The other keystore's owner makes its replication key (`envelock keystore replication-key`), and says its fingerprint by
another way than the file comes. The SHA-256 that is printed here goes back by another way than the bundle, too.

Examples:
  envelock keys create --region eu-1 --multi-region --alias alias/orders
  envelock keys replicate alias/orders --to us.key --fingerprint 7d1a... -o orders.bundle")]
    Replicate(Sealing),
    /// Make the replica that a bundle brings
    ImportReplica {
        /// What `envelock keys replicate` wrote
        #[arg(value_name = "BUNDLE", value_hint = ValueHint::FilePath)]
        bundle: PathBuf,
        /// The SHA-256 that was printed there
        #[arg(long, value_name = "SHA-256")]
        sha256: Sha256Fingerprint,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a multi-Region key's keys, as far as this keystore was told
    Replicas {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Move the primary key to another Region
    #[command(subcommand)]
    Primary(PrimaryCommand),
    /// Tell a primary key that a replica is deleted
    #[command(subcommand)]
    Receipt(ReceiptCommand),
}

#[derive(Args, Debug)]
pub(crate) struct Sealing {
    /// A key id, a full key name, or alias/NAME
    key: String,
    /// The other keystore's replication key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    to: PathBuf,
    /// Its fingerprint, as its owner said it
    #[arg(long, value_name = "SHA-256")]
    fingerprint: Sha256Fingerprint,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Output {
    /// The file to write, with mode 0600; it must not exist
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PrimaryCommand {
    /// Step down as the primary key, and write the file that makes another Region's replica the primary one
    Update {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// The Region of a replica
        region: String,
        #[command(flatten)]
        output: Output,
    },
    /// Write that file again, or one for another replica, which has to know too
    Export {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// The Region of the keystore that it is for
        region: String,
        #[command(flatten)]
        output: Output,
    },
    /// Take such a file
    Import(Letter),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReceiptCommand {
    /// Write the receipt of a replica that was deleted here
    Export {
        /// Its key id, or its full key name
        key: String,
        #[command(flatten)]
        output: Output,
    },
    /// Take a receipt, at the primary key
    Import(Letter),
    /// Forget a replica that will send no receipt: its keystore is lost, or never took the bundle
    ForgetReplica {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// Its Region
        region: String,
        /// Do it: if the replica is still there, it goes on opening what the key encrypted
        #[arg(long)]
        yes: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// The files of `keys rotation`.
#[derive(Debug, Subcommand)]
pub(crate) enum RotationFileCommand {
    /// Seal the versions of a multi-Region key to a keystore that has its replica
    Export(Sealing),
    /// Take the versions of such a file that are new here
    Import(Letter),
}

#[derive(Args, Debug)]
pub(crate) struct Letter {
    /// The file
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn regions(kms: &LocalKms, command: &RegionsCommand, notes: Notes) -> Result<(), Failure> {
    match command {
        RegionsCommand::Replicate(it) => {
            let bundle = wait(kms.replicate_key(&it.key, &read(&it.to)?, &it.fingerprint))?;
            issued(&bundle, &it.output, notes)?;
            notes.say(
                "say this SHA-256 of the bundle to the other keystore's owner, by another way than the file goes: its \
                 import asks for it",
            );
            Ok(())
        }
        RegionsCommand::ImportReplica { bundle, sha256, json } => {
            let key = wait(kms.import_replica(&read(bundle)?, sha256))?;
            taken(&key, *json, &format!("made the replica {}", key.arn), notes)
        }
        RegionsCommand::Replicas { key, json } => replicas(kms, key, *json),
        RegionsCommand::Primary(PrimaryCommand::Update { key, region, output }) => {
            free(&output.output)?;
            let file = wait(kms.update_primary_region(key, region))?;
            notes.say(&format!(
                "{key} is a replica now; take the file to {}, and tell the other replicas too (`envelock keys primary \
                 export`)",
                file.target
            ));
            issued(&file, output, notes)
        }
        RegionsCommand::Primary(PrimaryCommand::Export { key, region, output }) => {
            issued(&wait(kms.export_primary_change(key, region))?, output, notes)
        }
        RegionsCommand::Primary(PrimaryCommand::Import(it)) => {
            let key = wait(kms.import_primary_change(&read(&it.file)?))?;
            let region = key.primary_region.clone().unwrap_or_default();
            taken(&key, it.json, &format!("the primary key of {} is in {region} now", key.key_id), notes)
        }
        RegionsCommand::Receipt(ReceiptCommand::Export { key, output }) => {
            issued(&wait(kms.export_deletion_receipt(key))?, output, notes)
        }
        RegionsCommand::Receipt(ReceiptCommand::Import(it)) => {
            let key = wait(kms.import_deletion_receipt(&read(&it.file)?))?;
            taken(&key, it.json, &format!("a replica less; {} is {}", key.arn, key.key_state.name()), notes)
        }
        RegionsCommand::Receipt(ReceiptCommand::ForgetReplica { yes: false, .. }) => {
            Err(Failure::usage("if the replica is still there, it goes on opening what the key encrypted: say --yes"))
        }
        RegionsCommand::Receipt(ReceiptCommand::ForgetReplica { key, region, json, .. }) => {
            let key = wait(kms.forget_replica(key, region))?;
            taken(&key, *json, &format!("a replica less; {} is {}", key.arn, key.key_state.name()), notes)
        }
    }
}

pub(crate) fn rotation_file(kms: &LocalKms, command: &RotationFileCommand, notes: Notes) -> Result<(), Failure> {
    match command {
        RotationFileCommand::Export(it) => {
            let file = wait(kms.export_rotation(&it.key, &read(&it.to)?, &it.fingerprint))?;
            issued(&file, &it.output, notes)
        }
        RotationFileCommand::Import(it) => {
            let key = wait(kms.import_rotation(&read(&it.file)?))?;
            let line = format!("{} encrypts under version {} from now on", key.arn, key.current_version);
            taken(&key, it.json, &line, notes)
        }
    }
}

pub(crate) fn replication_key(kms: &LocalKms, output: &Path, as_json: bool, notes: Notes) -> Result<(), Failure> {
    let key = wait(kms.replication_parameters())?;
    write_new(output, &key.file)?;
    if as_json {
        return answer(&json_text(&json!({
            "file": output.display().to_string(),
            "keystore_id": kms.keystore_id(),
            "region": kms.region(),
            "public_key_sha256": key.fingerprint.to_string(),
        })));
    }
    notes.say("say this fingerprint to whoever replicates a key to this keystore, by another way than the file goes");
    answer(&format!("{}\n", key.fingerprint))
}

/// What is written into cannot be found out too late: a primary key that has stepped down has done so.
fn free(output: &Path) -> Result<(), Failure> {
    match output.symlink_metadata() {
        Ok(_) => Err(Failure::kept(output)),
        Err(_) => Ok(()),
    }
}

fn issued(file: &IssuedFile, output: &Output, notes: Notes) -> Result<(), Failure> {
    write_new(&output.output, &file.file)?;
    let kind = describe_file(&file.file)?.kind;
    if output.json {
        return answer(&json_text(&json!({
            "kind": kind.name(),
            "file": output.output.display().to_string(),
            "key_id": file.key_id,
            "target": file.target,
            "sha256": file.sha256.to_string(),
        })));
    }
    notes.say(&format!("wrote {}, for {}", output.output.display(), file.target));
    match kind {
        FileKind::ReplicaBundle => answer(&format!("{}\n", file.sha256)),
        _ => Ok(()),
    }
}

fn taken(key: &KeyMetadata, as_json: bool, line: &str, notes: Notes) -> Result<(), Failure> {
    done(as_json, &key_json(key), line, notes)
}

fn replicas(kms: &LocalKms, key: &str, as_json: bool) -> Result<(), Failure> {
    let all = wait(kms.multi_region_configuration(key))?;
    let entry = |key: &MultiRegionKey| json!({ "arn": key.arn, "region": key.region });
    if as_json {
        let replicas: Vec<Value> = all.replica_keys.iter().map(entry).collect();
        return answer(&json_text(&json!({ "primary_key": entry(&all.primary_key), "replica_keys": replicas })));
    }
    let mut out = format!("primary  {}\n", all.primary_key.arn);
    for replica in &all.replica_keys {
        out.push_str(&format!("replica  {}\n", replica.arn));
    }
    answer(&out)
}
