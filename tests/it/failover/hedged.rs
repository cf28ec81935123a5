//! The next member is asked while the first is silent.

use super::{Far, MS, context, generate, members, run, writer};
use crate::support::virtual_time::VirtualClock;
use envelock::clock::Clock as _;
use envelock::{
    DataKey, DataKeyAnswer, ErrorKind, ExchangeLimits, FailoverProvider, HttpTransport, KeyProvider as _,
    MultiProvider, TransportError, TransportFailure, async_trait, http,
};
use std::sync::Arc;
use std::time::Duration;

/// Sleeps by the clock of the test, and sends nothing.
#[derive(Debug)]
struct Sleeper(Arc<VirtualClock>);

#[async_trait]
impl HttpTransport for Sleeper {
    async fn send(
        &self,
        _: http::Request<bytes::Bytes>,
        _: &ExchangeLimits,
    ) -> Result<http::Response<bytes::Bytes>, TransportError> {
        Err(TransportError::new(TransportFailure::Unusable, "this one only sleeps"))
    }

    async fn sleep(&self, time: Duration) {
        self.0.sleep(time).await;
    }
}

fn hedged(clock: &Arc<VirtualClock>, of: &[&Arc<Far>]) -> FailoverProvider {
    FailoverProvider::in_order(members(of))
        .unwrap()
        .with_clock(clock.clone())
        .hedged_after(50 * MS, Arc::new(Sleeper(Arc::clone(clock))))
}

#[test]
fn a_quick_first_one_is_asked_alone() {
    let clock = VirtualClock::shared();
    let [a, b] = ["a", "b"].map(|name| Far::new(&clock, name, 49 * MS));
    assert_eq!(writer(&generate(&clock, &hedged(&clock, &[&a, &b])).unwrap()), "a");
    assert_eq!((b.begun(), clock.sleepers()), (0, 0));
}

#[test]
fn after_the_delay_the_next_is_asked_as_well_and_the_slower_is_cancelled() {
    let clock = VirtualClock::shared();
    let (slow, quick) = (Far::new(&clock, "slow", 10_000 * MS), Far::new(&clock, "quick", 10 * MS));
    let provider = hedged(&clock, &[&slow, &quick]);
    assert_eq!(writer(&generate(&clock, &provider).unwrap()), "quick");
    assert_eq!((clock.now(), slow.ended(), clock.sleepers()), (60 * MS, 0, 0));
    // Each silence brings one more.
    let third = Far::new(&clock, "third", 10 * MS);
    quick.take(10_000 * MS);
    let begun = clock.now();
    assert_eq!(writer(&generate(&clock, &hedged(&clock, &[&slow, &quick, &third])).unwrap()), "third");
    assert_eq!(clock.now() - begun, 110 * MS);
}

#[test]
fn the_slow_one_still_answers_where_the_others_fail() {
    let clock = VirtualClock::shared();
    let [slow, dead] = [Far::replica(&clock, "1/k", 500 * MS, Some("k")), Far::replica(&clock, "2/k", MS, Some("k"))];
    dead.fail((ErrorKind::Unavailable, "Down"));
    let provider = hedged(&clock, &[&slow, &dead]);
    let made = generate(&clock, &provider).unwrap();
    assert_eq!(writer(&made), "1/k");
    match run(&clock, provider.decrypt_data_key(&made.encrypted[0], &context())) {
        DataKeyAnswer::Key(key) => assert_eq!(key.expose(), made.key.expose()),
        other => panic!("{other:?}"),
    }
    assert_eq!((slow.ended(), dead.ended()), (2, 2));
    // A failure before the delay does not wait for it.
    let begun = clock.now();
    assert_eq!(writer(&generate(&clock, &hedged(&clock, &[&dead, &slow])).unwrap()), "1/k");
    assert_eq!(clock.now() - begun, 501 * MS);
    slow.fail((ErrorKind::Busy, "Busy"));
    let error = generate(&clock, &provider).unwrap_err();
    assert!(error.to_string().contains("far:1/k: 1/k says Busy; far:2/k: 2/k says Down"), "{error}");
}

#[test]
fn one_that_was_outrun_is_not_taken_for_the_nearest() {
    let clock = VirtualClock::shared();
    let (slow, quick) = (Far::new(&clock, "slow", 10_000 * MS), Far::new(&clock, "quick", 10 * MS));
    let provider = FailoverProvider::nearest(members(&[&slow, &quick]))
        .unwrap()
        .with_clock(clock.clone())
        .hedged_after(50 * MS, Arc::new(Sleeper(clock.clone())));
    generate(&clock, &provider).unwrap();
    let begun = slow.begun();
    for _ in 0..5 {
        assert_eq!(writer(&generate(&clock, &provider).unwrap()), "quick");
    }
    assert_eq!(slow.begun(), begun);
}

#[test]
fn a_standby_that_answers_wrongly_does_not_end_a_call_that_the_first_was_about_to_answer() {
    use ErrorKind::{InvalidInput, Malformed, NoMatchingKey, Unsupported};
    for kind in [InvalidInput, Malformed, NoMatchingKey, Unsupported] {
        let clock = VirtualClock::shared();
        let (slow, wrong) = (Far::new(&clock, "slow", 300 * MS), Far::new(&clock, "wrong", MS));
        wrong.fail((kind, "X"));
        assert_eq!(writer(&generate(&clock, &hedged(&clock, &[&slow, &wrong])).unwrap()), "slow", "{kind:?}");
        assert_eq!((clock.now(), wrong.ended()), (300 * MS, 1));
    }
}

#[test]
fn one_that_is_not_needed_is_waited_for_no_longer_than_the_grace() {
    let clock = VirtualClock::shared();
    let members = [10, 20, 100_000, 500].map(|ms| Far::new(&clock, &format!("takes {ms}"), ms * MS));
    let key = DataKey::from_slice(&[7; 32]).unwrap();
    let members = super::members(&members.each_ref());
    let several =
        MultiProvider::at_least(2, members.clone()).unwrap().with_grace(600 * MS, Arc::new(Sleeper(clock.clone())));
    let slots = run(&clock, several.encrypt_data_key(&key, &context())).unwrap();
    let missing: Vec<_> = slots.iter().map(|slot| (slot.key_id_text(), slot.is_missing())).collect();
    let expected = [("takes 10", false), ("takes 20", false), ("takes 100000", true), ("takes 500", false)];
    assert_eq!(missing, expected.map(|(name, missing)| (name.to_owned(), missing)));
    assert_eq!((clock.now(), clock.sleepers()), (620 * MS, 0), "the grace begins when two have answered");
    // It is none where the slowest is needed, and ends with the last that answers.
    let three = MultiProvider::at_least(4, members.clone()).unwrap().with_grace(MS, Arc::new(Sleeper(clock.clone())));
    assert!(run(&clock, three.encrypt_data_key(&key, &context())).unwrap().iter().all(|slot| !slot.is_missing()));
    let begun = clock.now();
    let two = MultiProvider::at_least(1, members[..2].to_vec()).unwrap();
    let two = two.with_grace(60_000 * MS, Arc::new(Sleeper(clock.clone())));
    run(&clock, two.encrypt_data_key(&key, &context())).unwrap();
    assert_eq!((clock.now() - begun, clock.sleepers()), (20 * MS, 0));
}
