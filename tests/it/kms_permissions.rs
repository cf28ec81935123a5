//! Principals, key policies and grants on an embedded keystore.

use crate::kms_helper::open;
use envelock::kms::{CreateGrantRequest, Decision, GrantConstraints, GrantOperation, KeyOperation, KeyPolicy, OWNER};
use envelock::{
    CacheLimits, CreateKeyRequest, EncryptionContext, Envelope, Error, ErrorKind, LocalKms, RewrapMode, RewrapOptions,
    blocking,
};
use pollster::block_on;
use std::path::Path;
use tempfile::TempDir;

fn context() -> EncryptionContext {
    EncryptionContext::from([("tenant", "acme")])
}

fn keystore() -> (TempDir, LocalKms, String) {
    let folder = tempfile::tempdir().unwrap();
    let kms = open(folder.path()).unwrap();
    let key = block_on(kms.create_key(CreateKeyRequest::default().alias("alias/orders"))).unwrap().key_id;
    (folder, kms, key)
}

fn policy(statements: &[&str]) -> KeyPolicy {
    let owner =
        r#"{"Sid": "owner", "Effect": "Allow", "Principal": {"AWS": "owner"}, "Action": "kms:*", "Resource": "*"}"#;
    let all: Vec<_> = [owner].iter().chain(statements).copied().collect();
    KeyPolicy::parse(&format!(r#"{{"Version": "2012-10-17", "Statement": [{}]}}"#, all.join(", "))).unwrap()
}

#[track_caller]
fn denied<T: std::fmt::Debug>(answer: Result<T, Error>) {
    let error = answer.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::KeyDenied, Some("AccessDeniedException")), "{error}");
}

/// What the audit trail has of an operation: the principal and the code of each call.
fn recorded(folder: &Path, name: &str) -> Vec<(String, String)> {
    // Another process's connection: closing one of this process would drop its locks.
    let script = "import sqlite3,sys\nfor row in sqlite3.connect(sys.argv[1]).execute(
        'SELECT principal, code FROM audit WHERE name = ? ORDER BY sequence', [sys.argv[2]]): print('\\t'.join(row))";
    let output = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(folder.join("keys.db"))
        .arg(name)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| line.split_once('\t').unwrap()).map(|(who, code)| (who.into(), code.into())).collect()
}

#[test]
fn without_a_policy_the_owner_may_do_everything_and_nobody_else_anything() {
    let (folder, kms, key) = keystore();
    assert_eq!(kms.principal(), OWNER);
    let blob = block_on(kms.encrypt(&key, b"x", &context())).unwrap().ciphertext_blob;
    let worker = kms.as_principal("worker").unwrap();
    assert_eq!(worker.principal(), "worker");
    denied(block_on(worker.decrypt(&blob, &context())));
    denied(block_on(worker.encrypt(&key, b"x", &context())));
    denied(block_on(worker.describe_key("alias/orders")));
    denied(block_on(worker.create_key(CreateKeyRequest::default())));
    denied(block_on(worker.list_keys()));
    denied(block_on(worker.list_aliases()));
    denied(block_on(worker.rotate(&key)));
    denied(block_on(worker.get_key_policy(&key)));
    denied(block_on(worker.put_key_policy(&key, &policy(&[]))));
    denied(block_on(worker.create_alias("alias/mine", &key)));
    denied(block_on(worker.update_alias("alias/orders", &key)));
    denied(block_on(worker.delete_alias("alias/orders")));
    denied(block_on(worker.export_root_key()));
    denied(worker.provider("alias/envelock/default"));
    denied(block_on(worker.list_grants(&key)));
    denied(block_on(worker.create_grant(&key, &CreateGrantRequest::new("worker", [GrantOperation::Decrypt]))));
    denied(block_on(worker.revoke_grant(&key, "none")));
    denied(block_on(worker.backup(folder.path().join("copy.db"))));
    denied(block_on(worker.check()).map(drop));
    denied(block_on(worker.audit_head()));
    denied(block_on(worker.verify_audit(None)).map(drop));
    denied(block_on(worker.record_cache_statistics(Default::default())));
    // Nobody becomes the owner by a name.
    assert_eq!(worker.as_principal(OWNER).unwrap_err().code(), Some("ValidationException"));
    assert_eq!(block_on(kms.decrypt(&blob, &context())).unwrap().plaintext(), b"x");
    assert_eq!(
        recorded(folder.path(), "Decrypt"),
        [("worker".to_owned(), "AccessDeniedException".to_owned()), (OWNER.to_owned(), String::new())]
    );
    for bad in ["", "*", "wor?er", "a\nb", &"x".repeat(257)] {
        assert_eq!(kms.as_principal(bad).unwrap_err().code(), Some("ValidationException"), "{bad:?}");
    }
}

#[test]
fn a_policy_counts_from_the_next_call_and_survives_the_closing() {
    let (folder, kms, key) = keystore();
    let allow = r#"{"Sid": "read", "Effect": "Allow", "Principal": {"AWS": "worker"}, "Action": "kms:Decrypt", "Resource": "*",
        "Condition": {"StringEquals": {"kms:EncryptionContext:tenant": "acme"}}}"#;
    let policy = policy(&[allow]);
    block_on(kms.put_key_policy(&key, &policy)).unwrap();
    let other = EncryptionContext::from([("tenant", "other")]);
    let blob = |context| block_on(kms.encrypt(&key, b"x", context)).unwrap().ciphertext_blob;
    let (mine, others) = (blob(&context()), blob(&other));
    let worker = kms.as_principal("worker").unwrap();
    assert_eq!(block_on(worker.decrypt(&mine, &context())).unwrap().plaintext(), b"x");
    denied(block_on(worker.decrypt(&others, &other)));
    denied(block_on(worker.encrypt(&key, b"x", &context())));
    assert_eq!(block_on(kms.get_key_policy(&key)).unwrap().text(), policy.text());
    block_on(kms.close()).unwrap();
    let kms = open(folder.path()).unwrap();
    let worker = kms.as_principal("worker").unwrap();
    block_on(worker.decrypt(&mine, &context())).unwrap();
    let deny =
        r#"{"Sid": "no more", "Effect": "Deny", "Principal": {"AWS": "worker"}, "Action": "kms:*", "Resource": "*"}"#;
    block_on(kms.put_key_policy("alias/orders", &self::policy(&[allow, deny]))).unwrap();
    denied(block_on(worker.decrypt(&mine, &context())));
    // A grant does not help against a denial.
    block_on(kms.create_grant(&key, &CreateGrantRequest::new("worker", [GrantOperation::Decrypt]))).unwrap();
    denied(block_on(worker.decrypt(&mine, &context())));
}

#[test]
fn what_decides_is_told_without_doing_it() {
    let (_folder, kms, key) = keystore();
    let deny =
        r#"{"Sid": "never", "Effect": "Deny", "Principal": "*", "Action": "kms:ScheduleKeyDeletion", "Resource": "*"}"#;
    block_on(kms.put_key_policy(&key, &policy(&[deny]))).unwrap();
    let ask = |who: &str, what| block_on(kms.simulate(who, what, &key, &context())).unwrap();
    match ask(OWNER, KeyOperation::ScheduleKeyDeletion) {
        Decision::DeniedByStatement(statement) => {
            assert_eq!((statement.number, statement.sid.as_deref()), (2, Some("never")))
        }
        other => panic!("{other}"),
    }
    assert!(ask(OWNER, KeyOperation::Decrypt).is_allowed());
    assert_eq!(ask("worker", KeyOperation::Decrypt), Decision::DeniedImplicitly);
    let grant =
        block_on(kms.create_grant(&key, &CreateGrantRequest::new("worker", [GrantOperation::Decrypt]))).unwrap();
    assert_eq!(ask("worker", KeyOperation::Decrypt), Decision::AllowedByGrant { grant_id: grant.grant_id });
    denied(block_on(kms.as_principal("worker").unwrap().simulate("worker", KeyOperation::Decrypt, &key, &context())));
}

#[test]
fn a_policy_that_locks_its_caller_out_is_refused_unless_he_says_so() {
    let (_folder, kms, key) = keystore();
    let nobody = KeyPolicy::parse(
        r#"{"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": "owner"}, "Action": ["kms:Encrypt", "kms:Decrypt"], "Resource": "*"}]}"#,
    )
    .unwrap();
    let error = block_on(kms.put_key_policy(&key, &nobody)).unwrap_err();
    assert_eq!(error.code(), Some("MalformedPolicyDocumentException"));
    block_on(kms.rotate(&key)).unwrap();
    block_on(kms.put_key_policy_locking_out(&key, &nobody)).unwrap();
    block_on(kms.encrypt(&key, b"x", &context())).unwrap();
    denied(block_on(kms.rotate(&key)));
    denied(block_on(kms.put_key_policy(&key, &policy(&[]))));
    // A managed key's policy stays.
    kms.provider("alias/envelock/default").unwrap();
    let error = block_on(kms.put_key_policy("alias/envelock/default", &policy(&[]))).unwrap_err();
    assert_eq!(error.code(), Some("UnsupportedOperationException"));
}

#[test]
fn grants_allow_what_they_say_until_they_end() {
    let (folder, kms, key) = keystore();
    let blob = block_on(kms.encrypt(&key, b"x", &context())).unwrap().ciphertext_blob;
    let worker = kms.as_principal("worker").unwrap();
    let only_acme = GrantConstraints::new().encryption_context_subset([("tenant", "acme")]);
    let request = CreateGrantRequest::new("worker", [GrantOperation::Decrypt, GrantOperation::RetireGrant])
        .constraints(only_acme)
        .retiring_principal("steward")
        .name("orders-2026");
    let grant = block_on(kms.create_grant(&key, &request)).unwrap();
    assert_eq!(block_on(kms.create_grant(&key, &request)).unwrap().grant_id, grant.grant_id, "by its name");
    assert_eq!(block_on(kms.list_grants(&key)).unwrap(), std::slice::from_ref(&grant));
    assert_eq!(block_on(kms.as_principal("steward").unwrap().list_retirable_grants("steward")).unwrap().len(), 1);
    denied(block_on(worker.list_retirable_grants("steward")));
    block_on(worker.decrypt(&blob, &context())).unwrap();
    denied(block_on(worker.generate_data_key(&key, envelock::DataKeyLength::Bytes32, &context())));
    denied(block_on(worker.revoke_grant(&key, &grant.grant_id)));
    block_on(worker.retire_grant(&key, &grant.grant_id)).unwrap();
    denied(block_on(worker.decrypt(&blob, &context())));
    // By token, by its retiring principal; and once only.
    let grant = block_on(kms.create_grant(&key, &request)).unwrap();
    let steward = kms.as_principal("steward").unwrap();
    block_on(steward.retire_grant_by_token(&grant.grant_token)).unwrap();
    let error = block_on(steward.retire_grant_by_token(&grant.grant_token)).unwrap_err();
    assert_eq!(error.code(), Some("InvalidGrantTokenException"));
    let grant = block_on(kms.create_grant(&key, &request)).unwrap();
    block_on(kms.revoke_grant(&key, &grant.grant_id)).unwrap();
    let error = block_on(kms.revoke_grant(&key, &grant.grant_id)).unwrap_err();
    assert_eq!(error.code(), Some("NotFoundException"));
    assert_eq!(recorded(folder.path(), "RevokeGrant").last().unwrap().1, "NotFoundException");
    let grants = kms.list_grants(&key);
    assert!(block_on(grants).unwrap().is_empty());
}

#[test]
fn a_grantee_creates_grants_no_wider_than_his_own() {
    let (_folder, kms, key) = keystore();
    let acme = || GrantConstraints::new().encryption_context_subset([("tenant", "acme")]);
    let own =
        CreateGrantRequest::new("worker", [GrantOperation::Decrypt, GrantOperation::CreateGrant]).constraints(acme());
    block_on(kms.create_grant(&key, &own)).unwrap();
    let worker = kms.as_principal("worker").unwrap();
    let child = |operations: &[GrantOperation]| {
        CreateGrantRequest::new("helper", operations.iter().copied().collect::<envelock::kms::GrantOperations>())
    };
    denied(block_on(worker.create_grant(&key, &child(&[GrantOperation::Decrypt]))));
    denied(block_on(worker.create_grant(&key, &child(&[GrantOperation::Encrypt]).constraints(acme()))));
    block_on(worker.create_grant(&key, &child(&[GrantOperation::Decrypt]).constraints(acme()))).unwrap();
    let blob = block_on(kms.encrypt(&key, b"x", &context())).unwrap().ciphertext_blob;
    block_on(kms.as_principal("helper").unwrap().decrypt(&blob, &context())).unwrap();
}

#[test]
fn whoever_may_re_encrypt_and_not_decrypt_rewraps_blind() {
    let (folder, kms, key) = keystore();
    let allow = r#"{"Effect": "Allow", "Principal": {"AWS": "rewrapper"},
        "Action": ["kms:ReEncryptFrom", "kms:ReEncryptTo"], "Resource": "*"}"#;
    block_on(kms.put_key_policy(&key, &policy(&[allow]))).unwrap();
    let envelope = |kms: &LocalKms| {
        blocking::Envelope::new(Envelope::builder(kms.provider("alias/orders").unwrap()).build().unwrap())
    };
    let sealed = envelope(&kms).encrypt(b"attack at dawn", &context()).unwrap();
    block_on(kms.rotate(&key)).unwrap();
    let rewrapper = envelope(&kms.as_principal("rewrapper").unwrap());
    assert_eq!(rewrapper.decrypt(&sealed, &context()).unwrap_err().code(), Some("AccessDeniedException"));
    let file = folder.path().join("a.elk");
    std::fs::write(&file, &sealed).unwrap();
    rewrapper.rewrap_file(&file, &rewrapper, &context(), RewrapOptions::default().mode(RewrapMode::Blind)).unwrap();
    let rewrapped = std::fs::read(&file).unwrap();
    assert_ne!(rewrapped, sealed);
    assert_eq!(envelope(&kms).decrypt(&rewrapped, &context()).unwrap(), b"attack at dawn");
    assert!(recorded(folder.path(), "ReEncrypt").iter().all(|it| *it == ("rewrapper".to_owned(), String::new())));
}

#[test]
fn a_denial_reaches_data_keys_in_a_cache_at_the_next_call() {
    let (_folder, kms, key) = keystore();
    let allow = r#"{"Effect": "Allow", "Principal": {"AWS": "worker"}, "Action": "kms:*", "Resource": "*"}"#;
    block_on(kms.put_key_policy(&key, &policy(&[allow]))).unwrap();
    let provider = kms.as_principal("worker").unwrap().provider(&key).unwrap();
    let envelope = Envelope::builder(provider).cache(CacheLimits::default()).build().unwrap();
    let envelope = blocking::Envelope::new(envelope);
    let sealed = envelope.encrypt(b"x", &context()).unwrap();
    envelope.decrypt(&sealed, &context()).unwrap();
    let deny = r#"{"Effect": "Deny", "Principal": {"AWS": "worker"}, "Action": "kms:Decrypt", "Resource": "*"}"#;
    block_on(kms.put_key_policy(&key, &policy(&[allow, deny]))).unwrap();
    denied(envelope.decrypt(&sealed, &context()));
    block_on(kms.put_key_policy(&key, &policy(&[]))).unwrap();
    let grant = CreateGrantRequest::new("worker", [GrantOperation::Decrypt]);
    let grant = block_on(kms.create_grant(&key, &grant)).unwrap();
    // A refusal is remembered for a moment.
    let start = std::time::Instant::now();
    while let Err(error) = envelope.decrypt(&sealed, &context()) {
        assert!(start.elapsed() < crate::kms_helper::PATIENCE, "{error}");
    }
    block_on(kms.revoke_grant(&key, &grant.grant_id)).unwrap();
    denied(envelope.decrypt(&sealed, &context()));
}
