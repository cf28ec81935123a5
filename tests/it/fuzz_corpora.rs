//! The fuzz targets on their committed corpora.

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus is committed") {
        let path = entry.expect("an entry").path();
        let data = std::fs::read(&path).expect("a readable seed");
        // Named first, so that a panic tells which seed it was.
        println!("{}", path.display());
        run(&data);
        count += 1;
    }
    assert!(count >= 10, "{target} has only {count} seeds");
    println!("{target}: {count} seeds replayed");
}

#[test]
fn the_header_corpus_replays() {
    replay("header", targets::header);
}

#[test]
fn the_body_corpus_replays() {
    replay("body", targets::body);
}

#[test]
fn the_passphrase_slot_corpus_replays() {
    replay("passphrase_slot", targets::passphrase_slot);
}

#[test]
fn the_keystore_blob_corpus_replays() {
    replay("keystore_blob", targets::keystore_blob);
}

#[test]
fn the_journal_corpus_replays() {
    replay("journal", targets::journal);
}

#[test]
fn the_root_text_corpus_replays() {
    replay("root_text", targets::root_text);
}

#[test]
fn the_policy_corpus_replays() {
    replay("policy", targets::policy);
}

#[test]
fn the_record_corpus_replays() {
    replay("record", targets::record);
}

#[test]
fn the_kms_file_corpus_replays() {
    replay("kms_file", targets::kms_file);
}
