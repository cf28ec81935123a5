//! What a dry run promises is what the run does; and what a message lacks is recorded.

use super::{fill, new, old, opens, put, run, state};
use crate::support::providers::{Counted, Down, all, raw};
use envelock::fleet::{Mode, Others, Rewrap, Selection};
use envelock::{ErrorKind, Recipients};
use std::error::Error as _;
use std::sync::Arc;

#[test]
fn what_nobody_named_opens_is_no_promise_of_a_dry_run_and_told_as_by_the_run() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 6, &old());
    put(folder.path(), "both.elk", &all(&[&old(), &raw("escrow", 9)]));
    let before = state(folder.path());
    for others in [Others::Refuse, Others::Keep, Others::Remove] {
        for from in [vec![], vec![raw("odl", 1)]] {
            let (to, calls) = Counted::wrap(new());
            let rewrap = Rewrap::to([to]).from(from).others(others);
            let (dry, told) = run(rewrap.clone().dry_run(), folder.path());
            assert_eq!((dry.messages, dry.rewrapped, dry.failed, calls.all()), (7, 0, 7, 0), "{told:?}");
            let (real, _) = run(rewrap, folder.path());
            assert_eq!((real.rewrapped, real.failed, state(folder.path()) == before), (0, 7, true));
            for error in [dry.first_failure.unwrap(), real.first_failure.unwrap()] {
                assert_eq!(error.kind(), ErrorKind::NoMatchingKey);
                assert!(error.to_string().contains("opens this message, which is for raw:old"), "{error}");
                assert!(error.source().is_some_and(|source| source.is::<Recipients>()));
            }
        }
    }
    // Named, it is due; and one that opens the message by its name makes the other one a stranger.
    let (dry, _) = run(Rewrap::to([new()]).from([old()]).dry_run(), folder.path());
    assert_eq!((dry.rewrapped, dry.perhaps, dry.failed), (6, 0, 1));
    assert!(dry.first_failure.unwrap().to_string().contains("raw:escrow"));
}

#[test]
fn a_dry_run_of_a_blind_run_fails_where_no_key_service_re_encrypts() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 3, &old());
    let rewrap = Rewrap::to([new()]).from([old()]).mode(Mode::Blind);
    for rewrap in [rewrap.clone().dry_run(), rewrap] {
        let (report, told) = run(rewrap, folder.path());
        assert_eq!((report.rewrapped, report.failed), (0, 3), "{told:?}");
        assert_eq!(report.first_failure.unwrap().kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn a_recipient_who_alone_is_due_and_down_is_recorded_once() {
    let (a, b) = (raw("a", 1), raw("b", 2));
    let (down, gone) =
        (Down::shared("raw", "b", ErrorKind::Unavailable), Down::shared("raw", "c", ErrorKind::KeyState));
    let folder = tempfile::tempdir().unwrap();
    let paths = fill(folder.path(), 4, &a);
    // All must: nothing is written.
    let before = state(folder.path());
    let (report, _) = run(Rewrap::to([Arc::clone(&a), Arc::clone(&down)]), folder.path());
    assert_eq!((report.rewrapped, report.failed, state(folder.path()) == before), (0, 4, true));

    let adding = Rewrap::to([Arc::clone(&a), Arc::clone(&down)]).at_least(1);
    let (report, told) = run(adding.clone(), folder.path());
    assert_eq!((report.rewrapped, report.with_missing, report.failed), (4, 4, 0), "{told:?}");
    assert!(told.iter().all(|(_, it)| it.contains("missing: [Recipient(raw:b)]")), "{told:?}");
    assert!(paths.iter().all(|path| opens(folder.path(), path, &a)));
    // Down still, and recorded: nobody takes it for filled.
    let before = state(folder.path());
    let (report, _) = run(adding, folder.path());
    assert_eq!((report.rewrapped, report.failed, state(folder.path()) == before), (0, 4, true));
    assert_eq!(report.first_failure.unwrap().kind(), ErrorKind::Unavailable);
    // A further one that is down is a further record.
    let (report, _) = run(Rewrap::to([Arc::clone(&a), down, gone]).at_least(1), folder.path());
    assert_eq!((report.rewrapped, report.with_missing, report.failed), (4, 4, 0));

    let filling = Rewrap::to([a, Arc::clone(&b), raw("c", 3)]).only(Selection::all().with_missing());
    let (report, _) = run(filling, folder.path());
    assert_eq!((report.rewrapped, report.with_missing, report.failed), (4, 0, 0));
    assert!(paths.iter().all(|path| opens(folder.path(), path, &b)));
}
