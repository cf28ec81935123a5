//! Recipients that a rewrap would remove, and that are not the caller's to remove.

use super::{Scene, context, envelope};
use crate::support::providers::{all, raw};
use envelock::{ErrorKind, RewrapOptions};

#[test]
fn somebody_elses_key_of_the_same_name_is_kept_by_a_rewrap_that_keeps_others() {
    let (ours, theirs, lookalike) = (raw("ours", 1), raw("backup", 2), raw("backup", 3));
    let scene = Scene::new(&all(&[&ours, &theirs]));
    let before = scene.bytes();
    let keeping = || RewrapOptions::default().keep_others();
    // Whether or not the new recipients have a key of that name.
    for new in [all(&[&ours, &lookalike]), all(&[&ours])] {
        let reader = envelope(&all(&[&ours, &lookalike]));
        let refused = reader.rewrap_file(&scene.path, &envelope(&new), &context(), keeping()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        assert!(refused.to_string().contains("raw:backup"), "{refused}");
        assert_eq!(scene.bytes(), before);
    }
    // With their key at hand it is the caller's own.
    let reader = envelope(&all(&[&ours, &theirs]));
    let done = reader.rewrap_file(&scene.path, &envelope(&ours), &context(), keeping()).unwrap();
    assert_eq!(done.removed.len(), 1);
}
