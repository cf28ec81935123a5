//! Runs that nothing interrupts: what is moved, by how many calls, and what is refused.

use super::{Kms, Log, by, context, count, fill, moved, new, old, opens, plaintext, put, run, state};
use crate::support::providers::{Counted, Down, all, at_least, raw};
use crate::support::say;
use envelock::fleet::{By, Files, GroupKey, Inventory, Mode, Others, Rewrap, Selection};
use envelock::{ErrorKind, KeyProvider, Recipients, Result, blocking};
use std::error::Error as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

#[test]
fn a_move_costs_two_calls_a_file_and_a_second_run_none() {
    let folder = tempfile::tempdir().unwrap();
    let paths = fill(folder.path(), 100, &old());
    let (from, old_calls) = Counted::wrap(old());
    let (to, new_calls) = Counted::wrap(new());
    let rewrap = Rewrap::to([to]).from([from]);
    let (report, told) = run(rewrap.clone(), folder.path());
    assert_eq!((report.messages, report.rewrapped, report.failed, report.blind), (100, 100, 0, 0));
    assert_eq!((report.calls.decrypt, report.calls.encrypt, report.calls.re_encrypt), (100, 100, 0));
    assert_eq!((old_calls.decrypts(), new_calls.encrypt.load(Ordering::SeqCst)), (100, 100));
    assert_eq!(told.len(), 100);
    moved(folder.path(), &paths);
    let (before, calls) = (state(folder.path()), old_calls.all() + new_calls.all());
    let (report, _) = run(rewrap, folder.path());
    assert_eq!((report.messages, report.current, report.rewrapped, report.calls.all()), (100, 100, 0, 0));
    assert_eq!(old_calls.all() + new_calls.all(), calls, "a second run asks nobody");
    assert!(state(folder.path()) == before, "a second run writes nothing");
}

#[test]
fn a_kms_that_re_encrypts_is_asked_once_a_file_and_one_that_takes_batches_once_a_batch() {
    for (re_encrypts, batch, calls) in [(true, 1, 100), (true, 25, 4), (false, 1, 200), (false, 25, 8)] {
        let folder = tempfile::tempdir().unwrap();
        let paths = fill(folder.path(), 100, &old());
        let log = Log::memory();
        let rewrap = Rewrap::to([Kms::shared(re_encrypts, batch, &log)]).from([old()]);
        // The source alone would open too: let nobody else count.
        let rewrap = match re_encrypts {
            true => rewrap,
            false => Rewrap::to([Kms::shared(re_encrypts, batch, &log)]).others(Others::Remove),
        };
        let (report, _) = run(rewrap, folder.path());
        assert_eq!((report.rewrapped, report.failed), (100, 0));
        assert_eq!(report.blind, if re_encrypts { 100 } else { 0 });
        assert_eq!(log.text().len(), calls, "{re_encrypts} {batch}: {}", log.text());
        assert_eq!(report.calls.all(), calls as u64);
        moved(folder.path(), &paths);
    }
}

#[test]
fn the_missing_are_listed_and_filled_and_then_each_opens_every_message() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let (a, b, c) = (raw("a", 1), raw("b", 2), raw("c", 3));
    let down = Down::shared("raw", "c", ErrorKind::Unavailable);
    let files = count(200);
    let paths = fill(folder.path(), files, &at_least(2, &[&a, &b, &down]));
    let inventory = || blocking::wait(Inventory::new().take(Files::below([folder.path()]), |_| {}));
    let report = inventory()?;
    assert_eq!((report.messages, report.with_missing), (files as u64, files as u64));
    let of_c = |report: &envelock::fleet::InventoryReport| {
        let group = report.groups.iter().find(|it| it.key == GroupKey::Key("raw".into(), b"c".to_vec())).unwrap();
        (group.files, group.missing)
    };
    assert_eq!(of_c(&report), (0, files as u64));

    // It is down still: nothing is lost.
    let before = state(folder.path());
    let (failed, _) = run(Rewrap::to([a.clone(), b.clone(), down]), folder.path());
    assert_eq!((failed.rewrapped, failed.failed), (0, files as u64));
    assert_eq!(failed.first_failure.unwrap().kind(), ErrorKind::Unavailable);
    assert!(state(folder.path()) == before);

    let (counted, calls): (Vec<_>, Vec<_>) = [&a, &b, &c].map(|it| Counted::wrap(Arc::clone(it))).into_iter().unzip();
    let (filled, _) = run(Rewrap::to(counted.clone()).only(Selection::all().with_missing()), folder.path());
    assert_eq!((filled.rewrapped, filled.failed), (files as u64, 0), "{:?}", filled.first_failure);
    // One to open the message, one for the recipient who was missing.
    // That a provider cannot re-encrypt, it says without a call.
    let decrypts: usize = calls.iter().map(|calls| calls.decrypts()).sum();
    let encrypts = calls.iter().map(|calls| calls.encrypt.load(Ordering::SeqCst));
    assert_eq!((decrypts, encrypts.collect::<Vec<_>>()), (files, vec![0, 0, files]));
    assert_eq!(filled.calls.all(), 2 * files as u64);
    let report = inventory()?;
    assert_eq!((report.with_missing, of_c(&report)), (0, (files as u64, 0)));
    for path in &paths {
        assert!([&a, &b, &c].iter().all(|provider| opens(folder.path(), path, provider)), "{}", path.display());
    }
    let (again, _) = run(Rewrap::to(counted), folder.path());
    assert_eq!((again.current, again.calls.all()), (files as u64, 0));
    say(format!("fleet: {files} messages at 2 of 3 filled by {} calls", filled.calls.all()));
    Ok(())
}

#[test]
fn a_move_goes_on_while_one_of_three_is_down_and_the_next_run_fills_it() {
    let folder = tempfile::tempdir().unwrap();
    let paths = fill(folder.path(), 30, &old());
    let (a, b, c) = (raw("a", 1), raw("b", 2), raw("c", 3));
    let down = Down::shared("raw", "c", ErrorKind::Unavailable);
    let to =
        |third: &Arc<dyn KeyProvider>| Rewrap::to([Arc::clone(&a), Arc::clone(&b), Arc::clone(third)]).from([old()]);
    let (report, _) = run(to(&down).at_least(2), folder.path());
    assert_eq!((report.rewrapped, report.with_missing, report.failed), (30, 30, 0), "{report:?}");
    assert!(paths.iter().all(|path| opens(folder.path(), path, &a) && !opens(folder.path(), path, &old())));
    // Down still: that it is missing stands there already.
    let before = state(folder.path());
    let (report, _) = run(to(&down).at_least(2), folder.path());
    assert_eq!((report.rewrapped, report.failed), (0, 30));
    assert_eq!(report.first_failure.unwrap().kind(), ErrorKind::Unavailable);
    assert!(state(folder.path()) == before);
    let (report, _) = run(to(&c), folder.path());
    assert_eq!((report.rewrapped, report.with_missing, report.failed), (30, 0, 0));
    assert!(paths.iter().all(|path| [&a, &b, &c].iter().all(|it| opens(folder.path(), path, it))));
    // A key that is gone for good is no other matter: it is recorded, and its record filled by another.
    let gone = Down::shared("raw", "d", ErrorKind::NoMatchingKey);
    let (report, _) = run(Rewrap::to([a.clone(), b.clone(), gone]).from([c.clone()]).at_least(2), folder.path());
    assert_eq!((report.rewrapped, report.with_missing, report.failed), (30, 30, 0), "{report:?}");
    let (report, _) = run(Rewrap::to([a.clone(), b.clone(), c.clone()]).from([raw("d", 4)]), folder.path());
    assert_eq!((report.rewrapped, report.with_missing, report.failed), (30, 0, 0), "{report:?}");
    // Two of three are too few where three are asked for.
    let (report, _) = run(Rewrap::to([down.clone(), raw("d", 4)]).from([a, b, c]), folder.path());
    assert_eq!((report.rewrapped, report.failed), (0, 30));
    for needed in [0, 3] {
        let (refused, _) = super::try_run(Rewrap::to([old(), new()]).at_least(needed), Files::below([folder.path()]));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[cfg(feature = "tokio")]
#[test]
fn a_run_is_a_future_that_any_executor_drives() {
    let folder = tempfile::tempdir().unwrap();
    let paths = fill(folder.path(), 20, &old());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let files = Files::below([folder.path()]);
    let task = runtime.spawn(Rewrap::to([new()]).from([old()]).run(files, |_, _| {}));
    assert_eq!(runtime.block_on(task).unwrap().unwrap().rewrapped, 20);
    moved(folder.path(), &paths);
}

#[test]
fn a_dry_run_says_what_would_be_done_makes_no_call_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 12, &old());
    put(folder.path(), "done.elk", &new());
    put(folder.path(), "escrow.elk", &all(&[&old(), &raw("escrow", 9)]));
    let before = state(folder.path());
    let (to, calls) = Counted::wrap(new());
    let (from, old_calls) = Counted::wrap(old());
    let journal = folder.path().join("journal");
    let dry = Rewrap::to([to]).from([from]).journal(&journal).dry_run();
    let (report, told) = run(dry, folder.path());
    assert_eq!((report.rewrapped, report.current, report.failed), (12, 1, 1));
    assert_eq!(calls.all() + old_calls.all(), 0);
    assert!(state(folder.path()) == before && !journal.exists());
    let due = told.iter().filter(|(_, it)| {
        it.starts_with("Due(") && it.contains("added: [Recipient(raw:new)], removed: [Recipient(raw:old)]")
    });
    assert_eq!(due.count(), 12, "{told:?}");
}

#[test]
fn others_are_refused_kept_or_removed_as_the_caller_says() {
    let escrow = raw("escrow", 9);
    for (others, rewrapped, escrow_opens) in
        [(Others::Refuse, 0, true), (Others::Keep, 1, true), (Others::Remove, 1, false)]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = put(folder.path(), "a.elk", &all(&[&old(), &escrow]));
        let (report, _) = run(Rewrap::to([new()]).from([old()]).others(others), folder.path());
        assert_eq!(report.rewrapped, rewrapped);
        assert_eq!(opens(folder.path(), &path, &escrow), escrow_opens);
        assert_eq!(opens(folder.path(), &path, &old()), rewrapped == 0);
        if let Some(error) = report.first_failure {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let named = error.source().unwrap().downcast_ref::<Recipients>().unwrap();
            assert_eq!(named.to_string(), "raw:escrow");
        }
    }
}

#[test]
fn a_slot_that_was_planted_never_takes_the_place_of_the_one_that_opens() {
    // Whoever writes to the storage puts a slot of the new key's name beside the old one.
    let folder = tempfile::tempdir().unwrap();
    let path = put(folder.path(), "a.elk", &all(&[&old(), &raw("new", 77)]));
    let (report, _) = run(Rewrap::to([new()]).from([old()]), folder.path());
    assert_eq!((report.rewrapped, report.failed), (0, 1));
    assert!(opens(folder.path(), &path, &old()), "the key that opened it was dropped for one that does not");
    // And a swapped one is not re-encrypted blindly while another one goes.
    let log = Log::memory();
    let planted = put(folder.path(), "b.elk", &all(&[&raw("old", 77), &raw("older", 5)]));
    let (report, _) = run(Rewrap::to([Kms::shared(true, 1, &log)]).from([old(), raw("older", 5)]), folder.path());
    assert_eq!((report.blind, log.of('r')), (0, 0), "{report:?}");
    assert!(opens(folder.path(), &planted, &new()));
}

#[test]
fn who_may_not_see_data_keys_does_not_and_who_must_does() {
    let folder = tempfile::tempdir().unwrap();
    let paths = fill(folder.path(), 6, &old());
    let log = Log::memory();
    let (report, _) = run(Rewrap::to([new()]).from([old()]).mode(Mode::Blind), folder.path());
    assert_eq!((report.failed, report.calls.all()), (6, 0));
    assert_eq!(report.first_failure.unwrap().kind(), ErrorKind::Unsupported);
    let to = Kms::shared(true, 1, &log);
    let (report, _) = run(Rewrap::to([to]).from([old()]).mode(Mode::Open), folder.path());
    assert_eq!((report.rewrapped, report.blind, log.of('r'), log.of('e')), (6, 0, 0, 6));
    moved(folder.path(), &paths);
}

#[test]
fn a_selection_leaves_the_rest_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (mine, other) = (put(folder.path(), "a.elk", &old()), put(folder.path(), "b.elk", &raw("third", 3)));
    let rewrap = Rewrap::to([new()]).from([old(), raw("third", 3)]);
    let (report, _) = run(rewrap.clone().only(Selection::all().under("raw", "old")), folder.path());
    assert_eq!((report.rewrapped, report.not_selected), (1, 1));
    assert!(opens(folder.path(), &mine, &new()) && opens(folder.path(), &other, &raw("third", 3)));
    let hour_ago = SystemTime::now() - Duration::from_secs(3_600);
    let file = fs::File::options().write(true).open(&other).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(7_200)).unwrap();
    put(folder.path(), "fresh.elk", &old());
    let (report, _) = run(rewrap.only(Selection::all().modified_before(hour_ago)), folder.path());
    assert_eq!((report.rewrapped, report.not_selected), (1, 2));
    assert!(opens(folder.path(), &other, &new()));
}

#[test]
fn a_raw_key_that_has_the_name_of_the_one_before_is_moved_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after) = (raw("orders", 1), raw("orders", 2));
    let paths = fill(folder.path(), 9, &before);
    let journal = tempfile::tempdir().unwrap();
    let rewrap = Rewrap::to([Arc::clone(&after)]).from([Arc::clone(&before)]).journal(journal.path().join("j"));
    let (report, _) = run(rewrap, folder.path());
    assert_eq!((report.rewrapped, report.failed), (9, 0));
    assert!(paths.iter().all(|path| opens(folder.path(), path, &after) && !opens(folder.path(), path, &before)));
    assert!(!journal.path().join("j").exists(), "the journal of a run that is done is removed");
}

#[test]
fn a_new_passphrase_takes_the_place_of_the_old_one() {
    use envelock::{PassphraseCost, PassphraseProvider};
    let phrase = |text: &str| -> Arc<dyn KeyProvider> {
        let cost = PassphraseCost { memory_kib: 64, passes: 1, lanes: 1 };
        Arc::new(PassphraseProvider::new(text.as_bytes()).unwrap().with_cost(cost).unwrap())
    };
    let folder = tempfile::tempdir().unwrap();
    let paths = fill(folder.path(), 3, &phrase("correct horse"));
    let rewrap = Rewrap::to([phrase("battery staple")]).from([phrase("correct horse")]);
    let (report, _) = run(rewrap, folder.path());
    assert_eq!((report.rewrapped, report.failed), (3, 0), "{report:?}");
    for path in &paths {
        assert!(opens(folder.path(), path, &phrase("battery staple")));
        assert!(!opens(folder.path(), path, &phrase("correct horse")));
    }
}

#[test]
fn a_rate_is_kept_and_calls_that_were_not_made_do_not_count() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 20, &old());
    let start = Instant::now();
    // 40 calls; the first waits for nothing.
    let (report, _) = run(Rewrap::to([new()]).from([old()]).calls_per_second(100.0), folder.path());
    let took = start.elapsed();
    assert_eq!((report.rewrapped, report.calls.all()), (20, 40));
    assert!(took >= Duration::from_millis(380), "{took:?}");
}

#[test]
fn a_run_that_is_stopped_leaves_the_rest_for_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let paths = fill(folder.path(), 300, &old());
    let stop = Arc::new(AtomicBool::new(false));
    let mut seen = 0;
    let rewrap = Rewrap::to([new()]).from([old()]);
    let running = rewrap.clone().stop_when(Arc::clone(&stop)).run(Files::below([folder.path()]), |_, _| {
        seen += 1;
        if seen == 50 {
            stop.store(true, Ordering::Relaxed);
        }
    });
    let report = blocking::wait(running).unwrap();
    assert!(report.stopped && report.failed == 0, "{report:?}");
    assert!((50..80).contains(&report.rewrapped), "{report:?}");
    let (rest, _) = run(rewrap, folder.path());
    assert_eq!((rest.rewrapped, rest.current), (300 - report.rewrapped, report.rewrapped));
    moved(folder.path(), &paths);
}

#[test]
fn a_run_that_is_dropped_leaves_every_file_whole() {
    let folder = tempfile::tempdir().unwrap();
    let paths = fill(folder.path(), 60, &old());
    for polls in 0..25 {
        let mut running = Box::pin(Rewrap::to([new()]).from([old()]).run(Files::below([folder.path()]), |_, _| {}));
        for _ in 0..polls {
            let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
            if running.as_mut().poll(context).is_ready() {
                break;
            }
            std::thread::sleep(Duration::from_micros(300));
        }
    }
    // Its threads end by themselves; the files that they have locked are waited for.
    let (report, _) = run(Rewrap::to([new()]).from([old()]), folder.path());
    assert_eq!((report.failed, report.rewrapped + report.current), (0, 60), "{report:?}");
    moved(folder.path(), &paths);
}

#[test]
fn slots_that_do_not_fit_take_a_new_file_and_a_hard_link_keeps_the_old_one_until_it_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    // Without room.
    let path = folder.path().join("tight.elk");
    fs::write(&path, by(&old()).encrypt(&plaintext("tight.elk"), &context("tight.elk")).unwrap()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let long = raw("a key of a much longer name than before", 4);
    let (report, _) = run(Rewrap::to([Arc::clone(&long)]).from([old()]), folder.path());
    assert_eq!((report.rewrapped, report.copied), (1, 1));
    assert!(opens(folder.path(), &path, &long));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn one_file_by_two_names_is_moved_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = put(folder.path(), "a.elk", &old());
    fs::hard_link(&path, folder.path().join("b.elk")).unwrap();
    std::os::unix::fs::symlink("a.elk", folder.path().join("c.elk")).unwrap();
    let (to, calls) = Counted::wrap(new());
    let mut told = Vec::new();
    let files = Files::below([folder.path()]).following_links();
    let report =
        blocking::wait(Rewrap::to([to]).from([old()]).run(files, |_, outcome| told.push(format!("{outcome:?}"))));
    assert_eq!((report.unwrap().rewrapped, calls.encrypt.load(Ordering::SeqCst)), (1, 1), "{told:?}");
    moved(folder.path(), &[path]);
}

#[test]
fn record_sets_are_told_and_left() {
    let folder = tempfile::tempdir().unwrap();
    let set = by(&old()).record_set(&context("set")).unwrap();
    fs::write(folder.path().join("set"), set.header()).unwrap();
    let value = by(&new()).seal_value(b"x", &context("value")).unwrap();
    fs::write(folder.path().join("value"), value).unwrap();
    let before = state(folder.path());
    let (report, _) = run(Rewrap::to([new()]).from([old()]), folder.path());
    assert_eq!((report.messages, report.current, report.failed), (2, 1, 1));
    assert!(report.first_failure.unwrap().to_string().contains("record set"));
    assert!(state(folder.path()) == before);
}

#[test]
fn the_context_that_every_file_must_have_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = put(folder.path(), "a.elk", &old());
    let rewrap = Rewrap::to([new()]).from([old()]);
    let other = envelock::EncryptionContext::from([("fleet", "another")]);
    let (report, _) = run(rewrap.clone().context(other), folder.path());
    assert_eq!(report.first_failure.unwrap().kind(), ErrorKind::ContextMismatch);
    assert!(opens(folder.path(), &path, &old()));
    let (report, _) = run(rewrap.context(envelock::EncryptionContext::from([("fleet", "test")])), folder.path());
    assert_eq!(report.rewrapped, 1);
}

#[cfg(feature = "local-kms")]
#[test]
fn an_older_key_version_of_a_keystore_is_seen_and_moved_blindly() {
    use envelock::{CreateKeyRequest, LocalKms, RootKey};
    let folder = tempfile::tempdir().unwrap();
    let kms =
        LocalKms::open(folder.path().join("keys.db"), RootKey::file(folder.path().join("root")).unwrap()).unwrap();
    let key = blocking::wait(kms.create_key(CreateKeyRequest::default())).unwrap().arn;
    let provider: Arc<dyn KeyProvider> = Arc::new(kms.provider(&key).unwrap());
    let files = folder.path().join("files");
    fs::create_dir(&files).unwrap();
    let paths = fill(&files, 12, &provider);
    blocking::wait(kms.rotate(&key)).unwrap();
    put(&files, "fresh.elk", &provider);
    let versions = || {
        let report = blocking::wait(Inventory::new().by(By::Version).take(Files::below([&files]), |_| {})).unwrap();
        report.groups.iter().map(|it| (it.key.to_string().rsplit(' ').next().unwrap().to_owned(), it.files)).collect()
    };
    let counted: Vec<(String, u64)> = versions();
    assert_eq!(counted, [("1".to_owned(), 12), ("2".to_owned(), 1)]);
    let rewrap = Rewrap::to([Arc::clone(&provider)]).only(Selection::all().below_version(2));
    let (report, _) = run(rewrap.clone(), &files);
    assert_eq!((report.rewrapped, report.blind, report.calls.all(), report.not_selected), (12, 12, 12, 1));
    assert_eq!(versions(), [("2".to_owned(), 13)]);
    let (report, _) = run(rewrap, &files);
    assert_eq!((report.rewrapped, report.calls.all()), (0, 0));
    assert!(paths.iter().all(|path| opens(&files, path, &provider)));
}
