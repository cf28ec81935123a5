//! Calls that join a transaction which the keystore's thread has begun.

use super::desk::{caller, idle, transactions, until};
use super::{DAY, Hands, Place, block_on, context, new_key};
use crate::error::{Error, Result};
use crate::kms::records::{KeyRecord, Source};
use crate::kms::tx::Tx;
use crate::kms::{DeletionWindow, LocalKms, RotationPeriod, version_of_blob};
use futures_util::FutureExt as _;
use std::sync::{Arc, Barrier};
use std::task::{Context, Waker};
use std::thread;

/// Lets the thread begin a transaction with a call that does `first`, and go on with it after `meanwhile`.
fn begun(
    kms: &LocalKms,
    first: impl Fn(&mut Tx<'_>) -> Result<()> + Send + 'static,
    meanwhile: impl FnOnce(),
) -> Result<()> {
    let (begun, wait) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let ours = (Arc::clone(&begun), Arc::clone(&wait));
    thread::scope(|scope| {
        let call = scope.spawn(move || {
            block_on(kms.call(kms.asks("DescribeKey"), move |tx| {
                begun.wait();
                wait.wait();
                first(tx)
            }))
        });
        ours.0.wait();
        meanwhile();
        ours.1.wait();
        call.join().unwrap()
    })
}

fn encrypted_under(kms: &LocalKms, key: &str) -> u32 {
    version_of_blob(&block_on(kms.encrypt(key, b"x", &context())).unwrap().ciphertext_blob).unwrap()
}

#[test]
fn whoever_calls_meanwhile_joins_whether_he_waits_or_awaits() {
    let place = Place::new();
    let kms = place.open();
    let key = new_key(&kms);
    let before = transactions(&place);
    thread::scope(|scope| {
        let name = key.clone();
        let rotate = move |tx: &mut Tx<'_>| KeyRecord::find(tx, &name)?.unwrap().rotate(tx, Source::OnDemand);
        let mut others = None;
        begun(&kms, rotate, || {
            let version = || encrypted_under(&kms, &key);
            others = Some([scope.spawn(version), caller(scope, "waits", version)]);
            until(&kms, 2);
        })
        .unwrap();
        assert_eq!(others.unwrap().map(|other| other.join().unwrap()), [2, 2]);
    });
    assert_eq!(transactions(&place) - before, 1);
    block_on(kms.verify_audit(None)).unwrap();
}

#[test]
fn who_joins_is_judged_by_the_time_of_his_call() {
    const NOW: u64 = 20_000 * DAY;
    let (place, hands) = (Place::new(), Hands::at(NOW));
    let kms = place.open_at(&hands);
    let (rotates, ends) = (new_key(&kms), new_key(&kms));
    block_on(kms.enable_key_rotation(&rotates, RotationPeriod::from_days(90).unwrap())).unwrap();
    block_on(kms.schedule_key_deletion(&ends, DeletionWindow::from_days(7).unwrap())).unwrap();
    let before = transactions(&place);
    thread::scope(|scope| {
        let mut others = None;
        begun(
            &kms,
            |_| Ok(()),
            || {
                hands.set(NOW + 90 * DAY);
                let version = scope.spawn(|| encrypted_under(&kms, &rotates));
                let gone = scope.spawn(|| block_on(kms.describe_key(&ends)).unwrap_err().code());
                until(&kms, 2);
                others = Some((version, gone));
            },
        )
        .unwrap();
        let (version, gone) = others.unwrap();
        assert_eq!((version.join().unwrap(), gone.join().unwrap()), (2, Some("NotFoundException")));
    });
    assert_eq!(transactions(&place) - before, 1);
    let times = "SELECT count(*) FROM audit WHERE at = ?1 AND name IN ('Encrypt', 'RotateKey', 'DeleteKey')";
    let late: i64 = place.sql().query_row(times, [i64::try_from(NOW + 90 * DAY).unwrap()], |row| row.get(0)).unwrap();
    assert_eq!(late, 3, "each has the time of the call that joined");
    block_on(kms.verify_audit(None)).unwrap();
}

#[test]
fn nobody_joins_what_comes_to_nothing() {
    let place = Place::new();
    let kms = place.open();
    let key = new_key(&kms);
    thread::scope(|scope| {
        let mut other = None;
        // As SQLite does by itself when it cannot write.
        let breaks = |tx: &mut Tx<'_>| tx.sql.execute_batch("ROLLBACK").map_err(Error::sqlite);
        begun(&kms, breaks, || {
            other = Some(scope.spawn(|| encrypted_under(&kms, &key)));
            until(&kms, 1);
        })
        .unwrap_err();
        assert_eq!(other.unwrap().join().unwrap(), 1, "in a transaction of its own");
    });
    block_on(kms.verify_audit(None)).unwrap();
}

#[test]
fn a_transaction_is_joined_by_so_many_that_the_first_need_not_wait_for_ever() {
    let place = Place::new();
    let kms = place.open();
    let (key, context) = (new_key(&kms), context());
    let before = transactions(&place);
    let mut calls: Vec<_> = (0..150).map(|_| kms.encrypt(&key, b"x", &context).boxed()).collect();
    begun(
        &kms,
        |_| Ok(()),
        || {
            for call in &mut calls {
                assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            until(&kms, 150);
        },
    )
    .unwrap();
    calls.into_iter().for_each(|call| drop(block_on(call).unwrap()));
    assert_eq!(transactions(&place) - before, 2, "128, and the others");
}

#[test]
fn who_comes_alone_after_several_is_answered_and_so_is_whoever_closes() {
    let place = Place::new();
    let kms = place.open();
    let key = new_key(&kms);
    for _ in 0..20 {
        // From now on, several are expected.
        thread::scope(|scope| {
            begun(
                &kms,
                |_| Ok(()),
                || {
                    (0..3).for_each(|_| drop(scope.spawn(|| encrypted_under(&kms, &key))));
                    until(&kms, 3);
                },
            )
            .unwrap();
        });
        assert_eq!(encrypted_under(&kms, &key), 1);
        idle(&kms);
    }
    thread::scope(|scope| {
        begun(
            &kms,
            |_| Ok(()),
            || {
                scope.spawn(|| encrypted_under(&kms, &key));
                until(&kms, 1);
            },
        )
        .unwrap();
        let last = scope.spawn(|| block_on(kms.encrypt(&key, b"x", &context())).is_ok());
        block_on(kms.close()).unwrap();
        last.join().unwrap();
    });
}
