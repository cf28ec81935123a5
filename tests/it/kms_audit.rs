//! The audit trail of the embedded KMS at its full length, and what its counts say of a run with a cache.

use crate::support::child::{Running, long, tell, words};
use crate::support::random::Random;
use crate::support::say;
use envelock::kms::{AuditQuery, AuditRetention, CacheFigures, Prices};
use envelock::{
    CacheLimits, CreateKeyRequest, DataKeyCache, EncryptionContext, Envelope, KmsOptions, LocalKms, RootKey, blocking,
};
use pollster::block_on;
use std::path::Path;
use std::time::{Duration, Instant};

fn open(folder: &Path) -> LocalKms {
    // A great many records in a short time: what this mode risks is of no matter here.
    let options = KmsOptions::default().risk_losing_audit_records(Duration::from_millis(200));
    LocalKms::open_with(folder.join("keys.db"), RootKey::file(folder.join("root.key")).unwrap(), options).unwrap()
}

#[test]
fn a_long_trail_is_verified_in_seconds_searched_by_key_in_milliseconds_and_cut() {
    let records: u64 = if long() { 1_000_000 } else { 40_000 };
    const KEYS: u64 = 100;
    let folder = tempfile::tempdir().unwrap();
    let kms = open(folder.path());
    let context = EncryptionContext::from([("tenant", "acme"), ("column", "orders.address")]);
    let keys: Vec<_> =
        (0..KEYS).map(|_| block_on(kms.create_key(CreateKeyRequest::default())).unwrap().key_id).collect();
    let blobs: Vec<_> =
        keys.iter().map(|key| block_on(kms.encrypt(key, &[7; 32], &context)).unwrap().ciphertext_blob).collect();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (kms, context, blobs) = (&kms, &context, &blobs);
            scope.spawn(move || {
                for at in (thread..records).step_by(8) {
                    block_on(kms.decrypt(&blobs[(at % KEYS) as usize], context)).unwrap();
                }
            });
        }
    });
    tell(format!("{records} calls in {:.1?}", start.elapsed()));
    let last = block_on(kms.audit_head()).unwrap().sequence();
    assert_eq!(last, 1 + 2 * KEYS + records);

    let start = Instant::now();
    let report = block_on(kms.verify_audit(None)).unwrap();
    let verified = start.elapsed();
    assert_eq!(report.records, last);
    tell(format!("{last} records verified in {verified:.2?}"));
    assert!(verified < Duration::from_secs(5), "{verified:?}");

    for query in [
        AuditQuery::default().key(&keys[42]).newest_first().limit(100),
        AuditQuery::default().key(&keys[42]).limit(100),
    ] {
        let start = Instant::now();
        let found = block_on(kms.query_audit(&query)).unwrap();
        let searched = start.elapsed();
        assert_eq!(found.len(), 100);
        tell(format!("100 records of a key found in {searched:.2?}"));
        assert!(searched < Duration::from_millis(50), "{searched:?}");
    }
    let start = Instant::now();
    assert_eq!(block_on(kms.export_audit(&AuditQuery::default(), std::io::sink())).unwrap(), last);
    tell(format!("exported in {:.2?}", start.elapsed()));
    let start = Instant::now();
    let counts = block_on(kms.operation_counts()).unwrap();
    tell(format!("counted in {:.2?}", start.elapsed()));
    assert_eq!(counts.iter().map(|it| it.count).sum::<u64>(), last);

    let start = Instant::now();
    let trimmed = block_on(kms.trim_audit(AuditRetention::Newest(1_000))).unwrap();
    tell(format!("{} records cut off in {:.2?}", trimmed.removed, start.elapsed()));
    assert_eq!(trimmed.removed, last - 1_000);
    assert_eq!(block_on(kms.verify_audit(None)).unwrap().records, 1_001);
    assert_eq!(block_on(kms.operation_counts()).unwrap().iter().map(|it| it.count).sum::<u64>(), last + 1);
}

#[test]
fn the_cost_of_a_run_with_a_cache_is_that_of_the_calls_that_it_made() {
    let messages: u64 = if long() { 1_000_000 } else { 50_000 };
    let folder = tempfile::tempdir().unwrap();
    let kms = open(folder.path());
    block_on(kms.create_key(CreateKeyRequest::default().alias("alias/orders"))).unwrap();
    let cache = DataKeyCache::new(CacheLimits::default()).unwrap();
    let envelope = Envelope::builder(kms.provider("alias/orders").unwrap()).shared_cache(&cache).build().unwrap();
    let envelope = blocking::Envelope::new(envelope);
    let context = EncryptionContext::from([("tenant", "acme")]);
    let start = Instant::now();
    for at in 0..messages {
        envelope.encrypt(&at.to_be_bytes(), &context).unwrap();
    }
    let took = start.elapsed();
    let figures = CacheFigures::from(&cache.statistics()[..]);
    block_on(kms.record_cache_statistics(figures)).unwrap();
    let report = block_on(kms.cost_report(Prices::AWS)).unwrap();
    let of = |name: &str| report.requests.iter().find(|(it, _)| it == name).map_or(0, |(_, count)| *count);
    assert_eq!(of("GenerateDataKey"), figures.encrypt_calls);
    assert!(report.requests_total() <= figures.encrypt_calls + 3, "what set it up: {report:?}");
    assert_eq!(report.requests_saved + figures.encrypt_calls, messages, "every message had a call or saved one");
    assert!(figures.encrypt_calls * 100 < messages, "{figures:?}");
    #[expect(clippy::cast_precision_loss, reason = "of a million")]
    let without = messages as f64 * 0.03 / 10_000.0;
    assert!((report.saved() + report.requests_cost() - without).abs() < 0.000_01, "{report:?}");
    tell(format!(
        "{messages} messages in {took:.1?}: {} calls, {:.6} USD; saved {} calls, {:.4} USD",
        report.requests_total(),
        report.requests_cost(),
        report.requests_saved,
        report.saved()
    ));
}

/// Makes keys and cuts the trail off behind them, until it is killed.
fn trim_often(folder: &Path) {
    let kms = crate::kms_helper::open(folder).unwrap();
    tell("OPENED");
    loop {
        for _ in 0..5 {
            tell(format!("KEY {}", block_on(kms.create_key(CreateKeyRequest::default())).unwrap().key_id));
        }
        tell("BEGIN");
        block_on(kms.trim_audit(AuditRetention::Newest(3))).unwrap();
        tell("DONE");
    }
}

#[test]
fn a_cut_killed_at_any_instant_is_whole_or_absent_and_loses_no_record() {
    const TEST: &str = "kms_audit::a_cut_killed_at_any_instant_is_whole_or_absent_and_loses_no_record";
    if let Some(words) = words() {
        return trim_often(Path::new(&words[0]));
    }
    let kills: u64 = if long() { 200 } else { 20 };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let (mut inside, mut keys, mut cuts, mut random) = (0, Vec::new(), 0, Random::new(0x7419));
    for _ in 0..kills {
        let mut child = Running::start(TEST, &[path]);
        assert_eq!(child.line().as_deref(), Some("OPENED"));
        // On a slow disk no cut is reached in so short a time: two in three are let go to one's beginning, or to its end.
        let (until, within) =
            [(Some("BEGIN"), 3_000), (Some("DONE"), 30_000), (None, 60_000)][random.next() as usize % 3];
        while until.is_some_and(|until| child.line().unwrap() != until) {}
        std::thread::sleep(Duration::from_micros(random.next() % within));
        let lines = child.kill();
        let last = |word: &str| lines.iter().rposition(|line| line == word);
        inside += u64::from(last("BEGIN") > last("DONE"));
        cuts += lines.iter().filter(|line| *line == "DONE").count() as u64;
        keys.extend(lines.iter().filter_map(|line| line.strip_prefix("KEY ")).map(str::to_owned));

        let kms = crate::kms_helper::open(folder.path()).unwrap();
        let report = block_on(kms.verify_audit(None)).unwrap();
        assert_eq!((report.first, report.records), (report.checkpoint + 1, report.last - report.checkpoint));
        assert!(cuts == 0 || report.checkpoint > 0);
        let found: Vec<_> = block_on(kms.list_keys()).unwrap().into_iter().map(|key| key.key_id).collect();
        assert!(keys.iter().all(|key| found.contains(key)), "an acknowledged key is lost");
        // Each record is in the trail, or counted among what was cut off; never both, and never neither.
        let counted = |name: &str| -> u64 {
            let counts = block_on(kms.operation_counts()).unwrap();
            counts.iter().filter(|it| it.operation == name && it.error_code.is_empty()).map(|it| it.count).sum()
        };
        assert_eq!(counted("CreateKey"), found.len() as u64);
        assert!((cuts..=cuts + inside).contains(&counted("TrimAudit")));
        let all: u64 = block_on(kms.operation_counts()).unwrap().iter().map(|it| it.count).sum();
        // `list_keys` has left a record since.
        assert_eq!(all, block_on(kms.audit_head()).unwrap().sequence());
        block_on(kms.close()).unwrap();
    }
    assert!(inside > 0 && cuts > 0, "no kill fell inside a cut, or none was done");
    say(format!(
        "trail: {kills} kills, {inside} inside a cut; {cuts} cuts done, {} keys acknowledged, no record lost",
        keys.len()
    ));
}
