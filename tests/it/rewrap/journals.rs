//! What lies beside a message under the name of a journal: somebody's own, or slots to try a passphrase on.

use super::{Scene, context, envelope, interrupted};
use crate::support::model::Head;
use crate::support::providers::{Counted, Scripted, raw};
use envelock::{
    DataKeyAnswer, Error, ErrorKind, FileOptions, Header, KeyProvider, PassphraseCost, PassphraseProvider,
    RewrapOptions,
};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn a_file_of_somebodys_own_that_has_the_name_of_a_journal_stays() {
    let (old, new) = (raw("old", 1), raw("new", 2));
    let scene = Scene::new(&old);
    let (before, _, journal) = interrupted(&scene, &old, &new);
    let changed = |at: usize, to: u8| {
        let mut journal = journal.clone();
        journal[at] = to;
        journal
    };
    let own = [
        ("text", b"rewrap the presents\n".to_vec()),
        ("one byte", b"x".to_vec()),
        ("of another version", changed(0, 2)),
        ("longer than its m", [&journal[..], &[0]].concat()),
        ("zeros and then text", [&[0; 511][..], b"text"].concat()),
        ("too long for a journal", vec![1; 200_000]),
    ];
    for (what, own) in own {
        fs::write(&scene.path, &before).unwrap();
        fs::write(scene.journal(), &own).unwrap();
        scene.opens(&old).unwrap();
        // A rewrap needs the name, and says so.
        let error = envelope(&old)
            .rewrap_file(&scene.path, &envelope(&new), &context(), RewrapOptions::default())
            .expect_err(what);
        assert_eq!((error.kind(), error.path()), (ErrorKind::InvalidInput, Some(&*scene.journal())), "{what}");
        assert!(error.to_string().contains("move it away"), "{error}");
        assert!(scene.bytes() == before, "{what}");
        // A write over the message does not, and neither does one where no message was.
        for target in [before.as_slice(), b"no message"] {
            fs::write(&scene.path, target).unwrap();
            let plaintext = scene.path.with_extension("plain");
            fs::write(&plaintext, "new").unwrap();
            let options = FileOptions::default().replace_existing();
            envelope(&new).encrypt_file(&plaintext, &scene.path, &context(), options).expect(what);
            assert_eq!(envelope(&new).verify_file(&scene.path, &context()).unwrap(), 3);
            assert!(fs::read(scene.journal()).unwrap() == own, "{what}");
        }
        fs::remove_file(scene.journal()).unwrap();
    }
    // A journal that a message left behind goes with what takes its place.
    fs::write(&scene.path, "no message").unwrap();
    fs::write(scene.journal(), &journal).unwrap();
    let plaintext = scene.path.with_extension("plain");
    let options = FileOptions::default().replace_existing();
    envelope(&new).encrypt_file(&plaintext, &scene.path, &context(), options).unwrap();
    assert!(!scene.journal().exists());
}

#[test]
fn a_passphrase_is_stretched_once_for_each_different_slot_of_a_file_and_its_journal() {
    let cost = PassphraseCost { memory_kib: 64, passes: 1, lanes: 1 };
    let phrase = |words: &str| -> Arc<dyn KeyProvider> {
        Arc::new(PassphraseProvider::new(words).unwrap().with_cost(cost).unwrap())
    };
    let (old, new) = (phrase("old"), phrase("new"));
    let scene = Scene::new(&old);
    let (before, after, journal) = interrupted(&scene, &old, &new);
    let area = Head::judge(&before).unwrap().area;
    // Whole slots of neither: the salt is cut in the middle.
    let mixed = |cut: usize| {
        let mut mixed = before.clone();
        mixed[area.start + cut..area.end].copy_from_slice(&after[area.start + cut..area.end]);
        assert!(Header::parse(&mixed).is_ok());
        mixed
    };
    let (stranger, calls) = Counted::wrap(phrase("neither"));
    let none: &[u8] = &[];
    for (what, bytes, beside, expected) in [
        ("a message alone", &before, none, 1),
        ("the old slots and a journal", &before, &journal, 2),
        ("the new slots and a journal", &after, &journal, 2),
        ("torn slots and a journal", &mixed(34), &journal, 3),
    ] {
        fs::write(&scene.path, bytes).unwrap();
        match beside {
            [] => drop(fs::remove_file(scene.journal())),
            journal => fs::write(scene.journal(), journal).unwrap(),
        }
        let before = calls.decrypts();
        assert_eq!(scene.fails_with(&stranger), ErrorKind::AuthenticationFailed, "{what}");
        assert_eq!(calls.decrypts() - before, expected, "{what}");
        if !beside.is_empty() {
            scene.opens(&old).unwrap();
            scene.opens(&new).unwrap();
        }
    }

    // Somebody who changes the slots while they are tried buys no further one.
    let tried = Arc::new(AtomicUsize::new(0));
    let (path, other, count) = (scene.path.clone(), mixed(36), Arc::clone(&tried));
    let changing = Scripted::shared(Vec::new(), move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        fs::write(&path, &other).unwrap();
        DataKeyAnswer::Failed(Error::new(ErrorKind::AuthenticationFailed, "not this one"))
    });
    fs::write(&scene.path, mixed(34)).unwrap();
    fs::write(scene.journal(), &journal).unwrap();
    scene.fails_with(&changing);
    assert_eq!(tried.load(Ordering::SeqCst), 3);
}
