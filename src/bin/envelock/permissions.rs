//! `policy` and `grants`: who may do what with a key of the embedded keystore.

use crate::args::{KeystorePlace, entry};
use crate::failure::Failure;
use crate::inspect::json_text;
use crate::keystore::{self, Missing};
use crate::signals::Signals;
use crate::text::{Notes, answer, date, done, plain};
use crate::time::local;
use clap::{Args, Subcommand, ValueHint};
use envelock::kms::{
    CreateGrantRequest, Decision, Grant, GrantConstraints, GrantOperation, KeyOperation, KeyPolicy, ListGrantsRequest,
    OWNER, PolicyAction, would_lock_out,
};
use envelock::{EncryptionContext, blocking::wait};
use serde_json::{Value, json};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Say who may do what with a key: AWS's key policies
#[derive(Args, Debug)]
pub(crate) struct Policy {
    #[command(flatten)]
    pub(crate) keystore: KeystorePlace,
    #[command(subcommand)]
    pub(crate) command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Print the policy of a key
    Get {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// As JSON, with the policy as a text in it
        #[arg(long)]
        json: bool,
    },
    /// Put a policy in the place of the one that a key has; it counts from the next call on
    #[command(after_long_help = "\
An element, operator, condition key or action that is not supported is refused, never ignored: docs/kms.md lists
what is. A key that was given no policy has the one that `policy get` prints: its owner may do everything.

Examples:
  envelock policy get alias/orders > orders.json
  envelock policy put alias/orders orders.json
  envelock policy simulate alias/orders Decrypt --by billing -c tenant=acme")]
    Put {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// The file with the policy as JSON; - for standard input
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Put it also if you could not put another one afterwards. If nobody can, it stays for good, and the key
        /// with it: it cannot be deleted either
        #[arg(long)]
        lock_out: bool,
        /// With --lock-out: do it, though nothing that the key encrypted may ever open again
        #[arg(long, requires = "lock_out")]
        yes: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Read a policy and say whether it is well-formed; needs no keystore
    ///
    /// Whoever puts it (the owner, or --as) must be able to put another one afterwards: that is looked at as well.
    Check {
        /// The file with the policy as JSON; - for standard input
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what would become of a request, and which statement or grant decides it; nothing is done
    ///
    /// Only permission is judged, not the state of the key: a request that is allowed fails all the same if the key is
    /// disabled. The exit code is 0 for what is denied too: --json tells a program.
    #[command(after_long_help = "\
What encrypts and decrypts has the entry envelock-use besides the given context: message/1 for files and pipes, records/1
for lines of `envelock seal` and for record sets. Policies and grants that look at it are asked with it.

Examples:
  envelock policy simulate alias/orders Decrypt --by billing -c tenant=acme -c envelock-use=message/1")]
    Simulate {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// An operation by AWS's name, with or without `kms:`, such as Decrypt or ReEncryptFrom
        #[arg(value_parser = action)]
        action: PolicyAction,
        /// Who asks
        #[arg(long, value_name = "PRINCIPAL")]
        by: String,
        /// An entry of the encryption context; repeatable
        #[arg(long, short, value_name = "KEY=VALUE", value_parser = entry)]
        context: Vec<(String, String)>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Let single principals do single things with a key
#[derive(Args, Debug)]
pub(crate) struct Grants {
    #[command(flatten)]
    pub(crate) keystore: KeystorePlace,
    #[command(subcommand)]
    pub(crate) command: GrantsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GrantsCommand {
    /// Make a grant, and print its id
    #[command(after_long_help = "\
What encrypts and decrypts has the entry envelock-use besides the given context: message/1 for files and pipes, records/1
for lines of `envelock seal` and for record sets. --equals must name it, --subset need not.

Examples:
  envelock grants create alias/orders --to billing --operation Decrypt --equals tenant=acme \\
    --equals envelock-use=message/1
  envelock grants create alias/orders --to billing --operation Decrypt --subset tenant=acme
  envelock grants list alias/orders")]
    Create {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// Who may
        #[arg(long, value_name = "PRINCIPAL")]
        to: String,
        /// What, by AWS's name, such as Decrypt or GenerateDataKey; repeatable
        #[arg(long = "operation", value_name = "OPERATION", value_parser = operation, required = true)]
        operations: Vec<GrantOperation>,
        /// Who may retire the grant, whatever the policy says
        #[arg(long, value_name = "PRINCIPAL")]
        retiring: Option<String>,
        /// Only for encryption contexts that have this entry; repeatable
        #[arg(long, value_name = "KEY=VALUE", value_parser = entry)]
        subset: Vec<(String, String)>,
        /// Only for the encryption context of exactly these entries, of which envelock-use is one; repeatable
        #[arg(long, value_name = "KEY=VALUE", value_parser = entry)]
        equals: Vec<(String, String)>,
        /// A name: the same request with the same name again is the same grant
        #[arg(long)]
        name: Option<String>,
        /// The whole grant as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the grants of a key, or those that a principal may retire
    List {
        /// A key id, a full key name, or alias/NAME
        key: Option<String>,
        /// Those of every key that this principal may retire
        #[arg(long, value_name = "PRINCIPAL", conflicts_with = "key")]
        retirable_by: Option<String>,
        /// Those to this principal
        #[arg(long, value_name = "PRINCIPAL", conflicts_with = "retirable_by")]
        to: Option<String>,
        /// The one of this id
        #[arg(long, value_name = "ID", conflicts_with = "retirable_by")]
        grant: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End a grant that is not needed any more
    Retire {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// The grant's id
        grant: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End a grant that should not be used any more
    Revoke {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// The grant's id
        grant: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn policy(arguments: &Policy, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    if let PolicyCommand::Check { file, json } = &arguments.command {
        return check(file, arguments.keystore.principal.as_deref().unwrap_or(OWNER), *json, notes);
    }
    if let PolicyCommand::Put { lock_out: true, yes: false, .. } = &arguments.command {
        return Err(Failure::usage(
            "if nobody can put another policy on the key, nothing that it encrypted may ever open again, and it cannot be \
             deleted either: say --yes",
        ));
    }
    let kms = keystore::open(&arguments.keystore, Missing::Refuse, signals, notes)?;
    match &arguments.command {
        PolicyCommand::Get { key, json } => {
            let policy = wait(kms.get_key_policy(key))?;
            match json {
                true => answer(&json_text(&json!({ "key": key, "policy_name": "default", "policy": policy.text() }))),
                false => answer(&format!("{}\n", policy.text().trim_end())),
            }
        }
        PolicyCommand::Put { key, file, lock_out, json, .. } => {
            let policy = read_policy(file)?;
            match lock_out {
                true => wait(kms.put_key_policy_locking_out(key, &policy))?,
                false => wait(kms.put_key_policy(key, &policy))?,
            }
            let value = json!({ "key": key, "policy_name": "default", "bypass_policy_lockout_safety_check": lock_out });
            done(*json, &value, &format!("the policy of {key} counts from now on"), notes)
        }
        // Answered above: it looks into no keystore.
        PolicyCommand::Check { .. } => Ok(()),
        PolicyCommand::Simulate { key, action, by, context, json } => {
            if has_context(*action) && !context.iter().any(|(name, _)| name == USE) {
                notes.say(
                    "the request has no entry envelock-use, as those of this program do: -c envelock-use=message/1 asks for \
                     a file",
                );
            }
            let context: EncryptionContext = context.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let decision = wait(kms.simulate(by, *action, key, &context))?;
            match json {
                true => answer(&json_text(&decision_json(&decision))),
                false => answer(&format!("{}\n", plain(&decision.to_string()))),
            }
        }
    }
}

/// Whether a policy is one, and whether whoever puts it could put another one afterwards. The key is not known:
/// statements for single keys count for nothing here.
fn check(file: &Path, principal: &str, as_json: bool, notes: Notes) -> Result<(), Failure> {
    let policy = read_policy(file)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let locks_out = would_lock_out(&policy, principal, ANY_KEY, now);
    let value = json!({ "well_formed": true, "principal": principal, "locks_out": locks_out });
    done(as_json, &value, "the policy is well-formed", notes)?;
    if locks_out {
        notes.say(&format!(
            "with it, {principal} could not put another one: `envelock policy put` refuses that without --lock-out"
        ));
    }
    Ok(())
}

/// Whether requests of this kind have an encryption context.
fn has_context(action: PolicyAction) -> bool {
    use KeyOperation as Op;
    let with = [
        Op::Decrypt,
        Op::Encrypt,
        Op::GenerateDataKey,
        Op::GenerateDataKeyWithoutPlaintext,
        Op::ReEncryptFrom,
        Op::ReEncryptTo,
    ];
    with.into_iter().any(|operation| action == operation.into())
}

fn read_policy(file: &Path) -> Result<KeyPolicy, Failure> {
    let failed = |e| Failure::io(&file.display().to_string(), &e);
    let mut text = String::new();
    // One byte above the limit is enough to be refused for it.
    let most = 32_769;
    match file == Path::new("-") {
        true => std::io::stdin().lock().take(most).read_to_string(&mut text).map_err(failed)?,
        false => fs::File::open(file).and_then(|file| file.take(most).read_to_string(&mut text)).map_err(failed)?,
    };
    Ok(KeyPolicy::parse(&text)?)
}

fn decision_json(decision: &Decision) -> Value {
    let mut value = json!({ "allowed": decision.is_allowed(), "decision": decision.to_string() });
    let decided = match decision {
        Decision::AllowedByStatement(statement) | Decision::DeniedByStatement(statement) => {
            json!({ "statement": statement.number, "sid": statement.sid })
        }
        Decision::AllowedByGrant { grant_id } => json!({ "grant_id": grant_id }),
        _ => Value::Null,
    };
    if let Value::Object(fields) = &mut value {
        fields.insert("decided_by".into(), decided);
    }
    value
}

pub(crate) fn grants(arguments: &Grants, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    if let GrantsCommand::List { key: None, retirable_by: None, .. } = &arguments.command {
        return Err(Failure::usage("name the key, or with --retirable-by who may retire the grants, of whatever key"));
    }
    let kms = keystore::open(&arguments.keystore, Missing::Refuse, signals, notes)?;
    match &arguments.command {
        GrantsCommand::Create { key, to, operations, retiring, subset, equals, name, json } => {
            let constraints = [(subset, false), (equals, true)].into_iter().filter(|(pairs, _)| !pairs.is_empty());
            let constraints = constraints.fold(GrantConstraints::new(), |constraints, (pairs, whole)| {
                let pairs = pairs.iter().cloned();
                match whole {
                    true => constraints.encryption_context_equals(pairs),
                    false => constraints.encryption_context_subset(pairs),
                }
            });
            let operations: envelock::kms::GrantOperations = operations.iter().copied().collect();
            let mut request = CreateGrantRequest::new(to, operations).constraints(constraints);
            if let Some(retiring) = retiring {
                request = request.retiring_principal(retiring);
            }
            if let Some(name) = name {
                request = request.name(name);
            }
            let grant = wait(kms.create_grant(key, &request))?;
            match json {
                true => answer(&json_text(&grant_json(&grant))),
                false => answer(&format!("{}\n", grant.grant_id)),
            }
        }
        GrantsCommand::List { key: Some(key), to, grant, json, .. } => {
            let mut request = ListGrantsRequest::default();
            if let Some(principal) = to {
                request = request.grantee_principal(principal);
            }
            if let Some(id) = grant {
                request = request.grant_id(id);
            }
            list(&wait(kms.list_grants_matching(key, &request))?, *json)
        }
        GrantsCommand::List { retirable_by, json, .. } => {
            list(&wait(kms.list_retirable_grants(retirable_by.as_deref().unwrap_or_default()))?, *json)
        }
        GrantsCommand::Retire { key, grant, json } => {
            wait(kms.retire_grant(key, grant))?;
            let value = json!({ "key": key, "grant_id": grant, "ended": "retired" });
            done(*json, &value, "the grant is retired", notes)
        }
        GrantsCommand::Revoke { key, grant, json } => {
            wait(kms.revoke_grant(key, grant))?;
            let value = json!({ "key": key, "grant_id": grant, "ended": "revoked" });
            done(*json, &value, "the grant is revoked", notes)
        }
    }
}

fn list(grants: &[Grant], as_json: bool) -> Result<(), Failure> {
    if as_json {
        return answer(&json_text(&json!({ "grants": grants.iter().map(grant_json).collect::<Vec<_>>() })));
    }
    let mut out = String::new();
    for grant in grants {
        let operations: Vec<_> = grant.operations.iter().map(GrantOperation::name).collect();
        out.push_str(&format!("{}\n", grant.grant_id));
        let mut line = |name: &str, text: &str| out.push_str(&format!("  {name:<12} {}\n", plain(text)));
        line("key", &grant.key_id);
        line("to", &grant.grantee_principal);
        line("operations", &operations.join(" "));
        if !grant.constraints.is_empty() {
            line("only for", &grant.constraints.to_json());
        }
        if let Some(principal) = &grant.retiring_principal {
            line("retired by", principal);
        }
        if let Some(name) = &grant.name {
            line("name", name);
        }
        line("created", &local(grant.creation_date));
    }
    answer(&out)
}

/// The entry of the encryption context that says what a data key is for.
const USE: &str = "envelock-use";
/// No key's full name.
const ANY_KEY: &str = "envelock:local:00000000-0000-4000-8000-000000000000:key/00000000-0000-4000-8000-000000000000";

fn grant_json(grant: &Grant) -> Value {
    let constraints: Value = serde_json::from_str(&grant.constraints.to_json()).unwrap_or_default();
    json!({
        "grant_id": grant.grant_id,
        "key_id": grant.key_id,
        "grantee_principal": grant.grantee_principal,
        "retiring_principal": grant.retiring_principal,
        "operations": grant.operations.iter().map(GrantOperation::name).collect::<Vec<_>>(),
        "constraints": constraints,
        "name": grant.name,
        "created": date(grant.creation_date),
        "grant_token": grant.grant_token,
    })
}

fn action(text: &str) -> Result<PolicyAction, String> {
    let name = text.strip_prefix("kms:").unwrap_or(text);
    PolicyAction::all()
        .find(|action| action.name().strip_prefix("kms:").is_some_and(|known| known.eq_ignore_ascii_case(name)))
        .ok_or_else(|| "that is no operation on a key: give AWS's name, such as Decrypt".to_owned())
}

fn operation(text: &str) -> Result<GrantOperation, String> {
    let name = text.strip_prefix("kms:").unwrap_or(text);
    GrantOperation::named(name).ok_or_else(|| {
        format!("that cannot be granted: there are {}", GrantOperation::ALL.map(GrantOperation::name).join(", "))
    })
}
