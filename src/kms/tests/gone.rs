//! What is left in the file of keys that were deleted, with everything that a key can have.

use super::furnished::{dump, furnished, named_keys, special_keys};
use super::{DAY, Hands, Place, block_on, context};
use crate::kms::schema::{ALIAS_HISTORY, PARCELS, TABLES, Table};
use crate::kms::{DeletionWindow, KeyState, LocalKms};
use rusqlite::types::Value;
use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// What stays of a deleted key: what its aliases may not open for others, and which files were taken.
const STAYS: [&Table; 2] = [&ALIAS_HISTORY, &PARCELS];

/// The rows of each table that name the key.
fn rows_of(place: &Place, key: &str) -> BTreeMap<&'static str, Vec<Vec<Value>>> {
    let sql = place.sql();
    let named = |row: &Vec<Value>| row.contains(&Value::Text(key.to_owned()));
    TABLES.iter().map(|table| (table.name, dump(&sql, table).into_iter().filter(named).collect())).collect()
}

fn count(rows: &BTreeMap<&'static str, Vec<Vec<Value>>>) -> BTreeMap<&'static str, usize> {
    rows.iter().filter(|(_, rows)| !rows.is_empty()).map(|(table, rows)| (*table, rows.len())).collect()
}

/// What is wrapped or authenticated in the rows of the key.
fn needles(rows: &BTreeMap<&'static str, Vec<Vec<Value>>>) -> Vec<Vec<u8>> {
    let mut needles = Vec::new();
    for (table, rows) in rows {
        for value in rows.iter().flatten() {
            match value {
                Value::Blob(blob) if blob.len() > 32 && *table != PARCELS.name => needles.push(blob.clone()),
                _ => {}
            }
        }
    }
    needles
}

/// Whether any part of it does: what is long lies in several pages.
fn lies_in_a_file(place: &Place, needle: &[u8]) -> bool {
    let files = fs::read_dir(place.folder.path()).unwrap();
    let files: Vec<_> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    needle.chunks(64).filter(|chunk| chunk.len() >= 16).any(|chunk| {
        let holds = |bytes: &Vec<u8>| bytes.windows(chunk.len()).any(|it| it[0] == chunk[0] && it == chunk);
        files.iter().any(holds)
    })
}

fn state(kms: &LocalKms, key: &str) -> KeyState {
    block_on(kms.describe_key(key)).unwrap().key_state
}

#[test]
fn keys_with_everything_that_a_key_can_have_leave_none_of_it_when_they_are_deleted() {
    let (place, kms) = furnished();
    let [orders, invoices] = named_keys(&kms);
    let [external, shared] = special_keys(&kms);
    drop(kms);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() * 1_000;
    let hands = Hands::at(now);
    let kms = place.open_at(&hands);
    for region in ["us-1", "ap-1"] {
        assert_eq!(state(&kms, &shared), KeyState::Enabled);
        assert_eq!(rows_of(&place, &shared)["replicas"].len(), if region == "us-1" { 2 } else { 1 });
        block_on(kms.forget_replica(&shared, region)).unwrap();
    }
    let deleted = [&orders, &external, &shared];
    let before = deleted.map(|key| rows_of(&place, key));
    let expected: [&[(&str, usize)]; 3] = [
        &[("alias_history", 1), ("aliases", 1), ("grants", 1), ("key_versions", 2), ("keys", 1), ("policies", 1)],
        &[("key_versions", 1), ("keys", 1), ("wrapping_keys", 1)],
        &[("key_versions", 1), ("keys", 1), ("parcels", 2)],
    ];
    for (rows, expected) in before.iter().zip(expected) {
        let found = count(rows);
        assert!(expected.iter().all(|(table, count)| found.get(table) == Some(count)), "{found:?}");
    }
    assert_eq!(count(&before[0])["tags"], 1);
    let needles: Vec<_> = before.iter().flat_map(needles).collect();
    assert!(needles.len() >= 6 && needles.iter().all(|needle| lies_in_a_file(&place, needle)), "the search works");
    let neighbour = rows_of(&place, &invoices);
    let blob = block_on(kms.encrypt(&invoices, b"x", &context())).unwrap().ciphertext_blob;
    let lost = block_on(kms.encrypt(&external, b"x", &context())).unwrap().ciphertext_blob;

    for key in deleted {
        block_on(kms.schedule_key_deletion(key, DeletionWindow::from_days(7).unwrap())).unwrap();
    }
    hands.set(now + 7 * DAY - 1);
    assert!(deleted.iter().all(|key| state(&kms, key) == KeyState::PendingDeletion));
    hands.set(now + 7 * DAY);
    for key in deleted {
        assert_eq!(block_on(kms.describe_key(key)).unwrap_err().code(), Some("NotFoundException"));
        let left = rows_of(&place, key);
        let beyond = count(&left).into_keys().filter(|name| STAYS.iter().all(|table| table.name != *name));
        assert_eq!(beyond.collect::<Vec<_>>(), Vec::<&str>::new());
    }
    for needle in &needles {
        assert!(!lies_in_a_file(&place, needle), "{} bytes", needle.len());
    }
    // Whoever kept what was given out for it brings nothing back.
    assert_eq!(block_on(kms.decrypt(&lost, &context())).unwrap_err().code(), Some("NotFoundException"));
    for principal in ["orders", "steward"] {
        let grants = block_on(kms.list_retirable_grants(principal)).unwrap();
        assert!(grants.iter().all(|grant| !grant.key_id.contains(&orders)), "{grants:?}");
    }
    assert_eq!(rows_of(&place, &invoices), neighbour, "another key's rows are as they were");
    assert_eq!(block_on(kms.decrypt(&blob, &context())).unwrap().plaintext(), b"x");
    block_on(kms.check()).unwrap();
}
