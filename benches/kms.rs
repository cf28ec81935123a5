//! The embedded KMS against the SQLite commit that each of its calls needs: `cargo bench --bench kms [-- WORDS OF
//! A TITLE]`.
//!
//! One thread calls as who may block does, by `blocking::wait`; a caller who awaits, as in an executor, is measured
//! beside it.
//!
//! Before anything is measured, both write-ahead logs have their full length: until then each commit makes a file
//! longer, which takes a disk about twice the time, and the bare commits would do so for longer, since they write one
//! page where a call writes three.
//!
//! The bare commit is one row of an audit record's length into a table with an integer key, by a prepared
//! statement, in a database with the keystore's settings on the same disk.

#[path = "common/mod.rs"]
mod common;

use common::report::Report;
use common::{Amount, Clock, Group};
use envelock::blocking::wait;
use envelock::{CreateKeyRequest, EncryptionContext, KmsOptions, LocalKms, RootKey};
use pollster::block_on;
use rusqlite::{Connection, params};
use std::path::Path;
use std::thread;
use std::time::Duration;

const ROUNDS: usize = 41;
/// How often a case runs in a row in one round.
const REPEAT: usize = 50;
const THREADS: usize = 8;
/// More pages than a write-ahead log gets before SQLite begins anew at its start.
const LOG_PAGES: usize = 1_200;

fn main() {
    let mut report = Report::new("kms", std::env::args().skip(1));
    let folder = tempfile::tempdir_in(common::report::folder()).expect("the target folder can be written");
    let context = EncryptionContext::from([("tenant", "acme")]);
    let durable = open(folder.path(), "durable", KmsOptions::default());
    let buffered = KmsOptions::default().risk_losing_audit_records(Duration::from_millis(500));
    let buffered = open(folder.path(), "buffered", buffered);
    let blob = |kms: &LocalKms| {
        let key = wait(kms.create_key(CreateKeyRequest::default())).expect("makes a key").key_id;
        wait(kms.encrypt(&key, &[7; 32], &context)).expect("encrypts").ciphertext_blob
    };
    let (blob_durable, blob_buffered) = (blob(&durable), blob(&buffered));
    let decrypt = |kms: &LocalKms, blob: &[u8]| wait(kms.decrypt(blob, &context)).expect("decrypts");

    (0..LOG_PAGES / 2).for_each(|_| drop(decrypt(&durable, &blob_durable)));
    let title = "decrypt, audited and durable, one thread";
    if report.wants(title) {
        let bare = bare(&folder.path().join("bare.db"));
        let mut insert = bare.prepare("INSERT INTO records (record) VALUES (?1)").expect("a statement");
        (0..LOG_PAGES).for_each(|_| drop(insert.execute(params![[0_u8; 300]]).expect("commits")));
        let measured = Group::new("kms-decrypt", title, Amount::Message, REPEAT)
            .by(Clock::Wall)
            .case("bare SQLite commit", || insert.execute(params![[0_u8; 300]]).expect("commits"))
            .case("`LocalKms::decrypt`", || decrypt(&durable, &blob_durable))
            .case("awaited", || block_on(durable.decrypt(&blob_durable, &context)).expect("decrypts"))
            .run(ROUNDS);
        report.add(&measured, &["bare SQLite commit"]);
    }
    let title = "decrypt, audited and durable, by threads";
    if report.wants(title) {
        let measured = Group::new("kms-threads", title, Amount::Message, THREADS * REPEAT)
            .by(Clock::Wall)
            .case("1 thread", || decrypt(&durable, &blob_durable))
            .self_timed(1, format!("{THREADS} threads"), |repeat| {
                by_threads(repeat, || drop(decrypt(&durable, &blob_durable)))
            })
            .run(ROUNDS / 4);
        report.add(&measured, &["1 thread"]);
    }
    let title = "decrypt, with audit records that are written within 0.5 s";
    if report.wants(title) {
        let measured = Group::new("kms-buffered", title, Amount::Message, 20 * REPEAT)
            .by(Clock::Wall)
            .case("1 thread", || decrypt(&buffered, &blob_buffered))
            .case("1 thread, awaited", || block_on(buffered.decrypt(&blob_buffered, &context)).expect("decrypts"))
            .self_timed(1, format!("{THREADS} threads"), |repeat| {
                by_threads(repeat, || drop(decrypt(&buffered, &blob_buffered)))
            })
            .run(ROUNDS / 2);
        report.add(&measured, &["1 thread"]);
    }
    report.write();
}

fn open(folder: &Path, name: &str, options: KmsOptions) -> LocalKms {
    let root = RootKey::file(folder.join(format!("{name}.key"))).expect("a file");
    LocalKms::open_with(folder.join(format!("{name}.db")), root, options).expect("opens")
}

/// A database with the keystore's settings.
fn bare(path: &Path) -> Connection {
    let sql = Connection::open(path).expect("opens");
    sql.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
         CREATE TABLE records (sequence INTEGER PRIMARY KEY, record BLOB NOT NULL) STRICT;",
    )
    .expect("a table");
    sql
}

/// `repeat` calls by all threads together: the time of one.
fn by_threads(repeat: usize, call: impl Fn() + Sync) -> Duration {
    let start = std::time::Instant::now();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..repeat / THREADS).for_each(|_| call()));
        }
    });
    start.elapsed() / u32::try_from(repeat).unwrap_or(u32::MAX)
}
