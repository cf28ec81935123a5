//! The fuzz target of Vault's answers, on its committed corpus.

#[path = "../../fuzz/src/vault.rs"]
mod target;

#[test]
fn the_vault_answer_corpus_replays() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/vault_answer");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus is committed") {
        let path = entry.expect("an entry").path();
        // Named first, so that a panic tells which seed it was.
        println!("{}", path.display());
        target::vault_answer(&std::fs::read(&path).expect("a readable seed"));
        count += 1;
    }
    assert!(count >= 10, "only {count} seeds");
}

#[test]
fn damaged_answers_are_errors_and_no_panics() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/vault_answer");
    for entry in std::fs::read_dir(&folder).expect("the corpus is committed") {
        let seed = std::fs::read(entry.expect("an entry").path()).expect("a readable seed");
        for at in 0..seed.len() {
            target::vault_answer(&seed[..at]);
            for byte in [0, b'"', b'}', 0xFF] {
                let mut changed = seed.clone();
                changed[at] = byte;
                target::vault_answer(&changed);
            }
        }
    }
}
