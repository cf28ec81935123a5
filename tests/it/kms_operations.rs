//! docs/kms-operations.md says of each operation of the AWS KMS API where it is here, and tells the truth.

use envelock::kms::AUDIT_EVENTS;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// "Actions", in AWS KMS's API reference (2014-11-01), and GetKeyLastUsage, which is of 2026.
const AWS_OPERATIONS: &str = "
CancelKeyDeletion ConnectCustomKeyStore CreateAlias CreateCustomKeyStore CreateGrant CreateKey Decrypt DeleteAlias
DeleteCustomKeyStore DeleteImportedKeyMaterial DeriveSharedSecret DescribeCustomKeyStores DescribeKey DisableKey
DisableKeyRotation DisconnectCustomKeyStore EnableKey EnableKeyRotation Encrypt GenerateDataKey GenerateDataKeyPair
GenerateDataKeyPairWithoutPlaintext GenerateDataKeyWithoutPlaintext GenerateMac GenerateRandom GetKeyLastUsage
GetKeyPolicy GetKeyRotationStatus GetParametersForImport GetPublicKey ImportKeyMaterial ListAliases ListGrants
ListKeyPolicies ListKeyRotations ListKeys ListResourceTags ListRetirableGrants PutKeyPolicy ReEncrypt ReplicateKey
RetireGrant RevokeGrant RotateKeyOnDemand ScheduleKeyDeletion Sign TagResource UntagResource UpdateAlias
UpdateCustomKeyStore UpdateKeyDescription UpdatePrimaryRegion Verify VerifyMac
";

/// The rows of the page's table: operation, method or `–`, and what is said.
fn rows(page: &str) -> Vec<[&str; 3]> {
    let (_, table) = page.split_once("|---|---|---|\n").expect("the page has its table");
    table.lines().map_while(|line| line.strip_prefix("| ")?.strip_suffix(" |")).map(cells_of).collect()
}

fn cells_of(line: &str) -> [&str; 3] {
    let cells: Vec<_> = line.split(" | ").collect();
    cells.try_into().unwrap_or_else(|cells| panic!("not three cells: {cells:?}"))
}

/// The source of the embedded KMS, without its tests.
fn source() -> String {
    fn read(folder: &Path, out: &mut String) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            match path.is_dir() {
                true if entry.file_name() == "tests" => {}
                true => read(&path, out),
                false => out.push_str(&fs::read_to_string(path).unwrap()),
            }
        }
    }
    let mut out = String::new();
    read(&Path::new(ROOT).join("src/kms"), &mut out);
    out
}

/// What is wrong with a row.
fn fault(source: &str, [operation, method, said]: [&str; 3]) -> Option<String> {
    let planned = said.starts_with("PLANNED");
    let Some(method) = method.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else {
        let good = method == "–" && said.starts_with("Not here: ");
        return (!good).then(|| format!("{operation}: without a method, it says `Not here: ` and why"));
    };
    let heads = ["(", "<"].map(|next| format!("pub async fn {method}{next}"));
    match (heads.iter().any(|head| source.contains(head)), planned) {
        (true, false) | (false, true) => None,
        (false, false) => Some(format!("{operation}: there is no `pub async fn {method}(` in src/kms")),
        (true, true) => Some(format!("{operation}: `{method}` is there, and the page calls it PLANNED")),
    }
}

#[test]
fn the_page_names_every_aws_operation_once_in_order() {
    let page = fs::read_to_string(format!("{ROOT}/docs/kms-operations.md")).unwrap();
    let named: Vec<_> = rows(&page).into_iter().map(|[operation, ..]| operation).collect();
    let aws: Vec<_> = AWS_OPERATIONS.split_whitespace().collect();
    assert_eq!(named, aws);
    assert!(page.contains(&format!(" {} operations)", aws.len())), "the page counts {} operations", aws.len());
}

#[test]
fn what_the_page_says_is_here_is_here_and_what_is_planned_is_not() {
    let page = fs::read_to_string(format!("{ROOT}/docs/kms-operations.md")).unwrap();
    let source = source();
    let faults: Vec<_> = rows(&page).into_iter().filter_map(|row| fault(&source, row)).collect();
    assert!(faults.is_empty(), "docs/kms-operations.md:\n{}", faults.join("\n"));
}

/// What `source` calls on the keystore, by the names in the audit trail.
fn events(source: &str) -> BTreeSet<&str> {
    let begin =
        ["asks(", "Call::new(", "self.take(", "self.end_grant(", "const NAME: &str = ", "const RECORD: &str = "];
    let due = ["What::Rotate => ", "What::Delete => ", "What::Expire => ", "What::ThrowAway => "];
    let all = begin.iter().chain(&due).flat_map(|begin| source.split(begin).skip(1));
    let quoted = all.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    quoted.filter(|name| name.starts_with(char::is_uppercase)).collect()
}

#[test]
fn every_event_of_the_audit_trail_is_listed_in_order() {
    let source = source();
    let found: Vec<_> = events(&source).into_iter().collect();
    assert_eq!(found, AUDIT_EVENTS);
    assert_eq!(events("self.asks(\"A\").x(), self.take(\n    \"B\", asks(name)"), BTreeSet::from(["A", "B"]));
}

#[test]
fn a_page_that_says_what_is_not_so_is_found() {
    let source = "pub async fn create_key(\n    &self,";
    assert_eq!(fault(source, ["CreateKey", "`create_key`", "Same"]), None);
    assert_eq!(fault(source, ["EnableKey", "`enable_key`", "PLANNED. Same"]), None);
    assert_eq!(fault(source, ["Sign", "–", "Not here: no asymmetric keys"]), None);
    assert!(fault(source, ["CreateKey", "`create_key`", "PLANNED. Same"]).is_some());
    assert!(fault(source, ["EnableKey", "`enable_key`", "Same"]).is_some());
    assert!(fault(source, ["EnableKey", "`create`", "Same"]).is_some());
    assert!(fault(source, ["Sign", "–", "Same"]).is_some());
    assert!(fault(source, ["Sign", "", "Not here: why"]).is_some());
}
