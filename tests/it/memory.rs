//! No key stays in memory: a process looks for its own keys, finds them while they are in use, and
//! nowhere once everything that used them was dropped.
//!
//! Each scene runs in a process of its own. What it looks for it knows by two hashes only, which its
//! parent made, so that looking puts no key into memory. Keys that go in or out are masked.

#[cfg(feature = "tokio")]
mod asynchronous;
mod cached;
mod imported;
mod keys;
mod scan;
mod scenes;

use crate::support::child::{Running, words};
use crate::support::say;

/// Runs the scene `scene`, which is `test`'s, and answers what it asks for; or plays it.
fn scene(test: &str, scene: fn()) {
    if words().is_some() {
        return scene();
    }
    let mut running = Running::start(test, &["scene"]);
    let mut secrets = keys::Secrets::default();
    let (mut in_use, mut afterwards) = (0, Vec::new());
    while let Some(line) = running.line() {
        match line.split_once(' ') {
            Some(("in-use", _)) => in_use += 1,
            Some(("afterwards", sought)) => afterwards.push(sought.to_owned()),
            Some((request, rest)) => {
                let answer = secrets.answer(request, rest);
                running.say(answer);
            }
            None => panic!("{line}"),
        }
    }
    running.succeed();
    say(format!(
        "{test}: keys found in {in_use} searches while in use, none of {} in {} searches afterwards",
        afterwards.last().unwrap(),
        afterwards.len()
    ));
    assert!(in_use >= 2);
}

#[test]
fn encrypting_leaves_no_key_behind() {
    scene("memory::encrypting_leaves_no_key_behind", scenes::encrypt);
}

#[test]
fn decrypting_leaves_no_key_behind() {
    scene("memory::decrypting_leaves_no_key_behind", scenes::decrypt);
}

#[test]
fn failing_leaves_no_key_behind() {
    scene("memory::failing_leaves_no_key_behind", scenes::fail);
}

#[test]
fn passphrases_leave_no_key_behind() {
    scene("memory::passphrases_leave_no_key_behind", scenes::passphrase);
}

#[test]
fn files_and_rewraps_leave_no_key_behind() {
    scene("memory::files_and_rewraps_leave_no_key_behind", scenes::files);
}

#[test]
fn several_threads_leave_no_key_behind() {
    scene("memory::several_threads_leave_no_key_behind", scenes::threads);
}

#[cfg(feature = "tokio")]
#[test]
fn asynchronous_shells_leave_no_key_behind() {
    scene("memory::asynchronous_shells_leave_no_key_behind", asynchronous::shells);
}

#[test]
fn records_leave_no_key_behind() {
    scene("memory::records_leave_no_key_behind", scenes::records);
}

#[test]
fn cached_keys_stay_while_they_serve_and_are_gone_when_they_do_not() {
    scene("memory::cached_keys_stay_while_they_serve_and_are_gone_when_they_do_not", cached::ends);
}

#[test]
fn the_embedded_kms_leaves_no_root_key_behind() {
    scene("memory::the_embedded_kms_leaves_no_root_key_behind", scenes::local_kms);
}

#[test]
fn material_that_was_imported_is_not_in_memory_between_two_calls() {
    scene("memory::material_that_was_imported_is_not_in_memory_between_two_calls", imported::imported);
}
