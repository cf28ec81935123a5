//! Compact records of a set at hand, and messages and values under a cached data key, against envelopes of
//! others for values as small.

use crate::common::report::Report;
use crate::common::{Amount, Clock, Group, touched};
use crate::measure::small::{AWS, TINK, average};
use crate::rivals::aws::Aws;
use crate::rivals::tink::{TinkAead, TinkEnvelope};
use envelock::{CacheLimits, Column, EncryptionContext, Envelope, RawKeyProvider};

const ROUNDS: usize = 31;
const REPEAT: usize = 300;
const BATCH: usize = 100;

pub const RECORD: &str = "envelock, a record";
pub const IN_BATCHES: &str = "envelock, a record in batches of 100";
pub const MESSAGE: &str = "envelock, a message under a cached data key";
pub const VALUE: &str = "envelock, a value with its own set, cached";
pub const TINK_ENVELOPE: &str = "tink-rs, an envelope under a local key";

/// Groups `values-LENGTH-seal` and `-open` of 100 B and 1 KiB.
pub fn measure(report: &mut Report) {
    let ids = [100, 1024].map(|len| [format!("values-{len}-seal"), format!("values-{len}-open")]);
    if !ids.as_flattened().iter().any(|id| report.wants(id)) {
        return;
    }
    let provider = RawKeyProvider::generate("bench").expect("random bytes");
    let limits = CacheLimits::default().max_messages(1 << 32);
    let ours = Envelope::builder(provider).cache(limits).build().expect("valid");
    let context = EncryptionContext::from([("tenant", "acme")]);
    let set = pollster::block_on(ours.record_set(&context)).expect("a set");
    let place = Column::new("customers", "iban").row("4711");
    let (envelope, tink) = (TinkEnvelope::new(), TinkAead::new());
    let aws = Aws::start(4096).ok();
    for (len, [seal, open]) in [100, 1024].into_iter().zip(ids) {
        let plain = touched(len);
        let plain = &plain[..];
        let batch = vec![(plain, place.clone()); BATCH];
        let records = set.seal_batch(&batch).expect("seals");
        if report.wants(&seal) {
            let mut group = Group::new(seal, format!("seal a value of {len} B"), Amount::Message, REPEAT)
                .case(TINK_ENVELOPE, || envelope.encrypt(plain))
                .case(TINK, || tink.encrypt(plain))
                .case(RECORD, || set.seal(plain, &place).expect("seals"))
                .self_timed(1, IN_BATCHES, |_| each(|| set.seal_batch(&batch).expect("seals")))
                .case(MESSAGE, || pollster::block_on(ours.encrypt(plain, &context)).expect("encrypts"))
                .case(VALUE, || pollster::block_on(ours.seal_value(plain, &context)).expect("seals"));
            if let Some(aws) = &aws {
                group = group.self_timed(1, AWS, |_| average(|| aws.encrypt(Aws::blob(plain)).0));
            }
            report.add(&group.run(ROUNDS), &[TINK_ENVELOPE, AWS]);
        }
        if report.wants(&open) {
            let batch: Vec<_> = records.iter().map(|record| (record, place.clone())).collect();
            let (of_envelope, of_tink) = (envelope.encrypt(plain), tink.encrypt(plain));
            let message = pollster::block_on(ours.encrypt(plain, &context)).expect("encrypts");
            let value = pollster::block_on(ours.seal_value(plain, &context)).expect("seals");
            let decrypt = || pollster::block_on(ours.decrypt(&message, &context)).expect("ours");
            let open_value = || pollster::block_on(ours.open_value(&value, &context)).expect("ours");
            let opened = [
                envelope.decrypt(&of_envelope),
                tink.decrypt(&of_tink),
                set.open(&records[0], &place).expect("ours"),
                decrypt(),
                open_value(),
            ];
            assert!(opened.iter().all(|opened| opened == plain), "what is measured must be an opening");
            let of_aws = aws.as_ref().map(|aws| (aws, aws.encrypt(Aws::blob(plain)).1));
            let mut group = Group::new(open, format!("open a value of {len} B"), Amount::Message, REPEAT)
                .case(TINK_ENVELOPE, || envelope.decrypt(&of_envelope))
                .case(TINK, || tink.decrypt(&of_tink))
                .case(RECORD, || set.open(&records[0], &place).expect("ours"))
                .self_timed(1, IN_BATCHES, |_| each(|| set.open_batch(&batch).expect("ours")))
                .case(MESSAGE, decrypt)
                .case(VALUE, open_value);
            if let Some((aws, sealed)) = &of_aws {
                group = group.self_timed(1, AWS, |_| average(|| aws.decrypt(sealed.clone()).0));
            }
            report.add(&group.run(ROUNDS), &[TINK_ENVELOPE, AWS]);
        }
    }
}

/// The time of one of a batch, the batch run a few times.
fn each<R>(work: impl Fn() -> R) -> std::time::Duration {
    let start = Clock::Processor.now();
    for _ in 0..REPEAT / BATCH {
        drop(std::hint::black_box(work()));
    }
    Clock::Processor.now().saturating_sub(start) / (REPEAT / BATCH * BATCH) as u32
}
