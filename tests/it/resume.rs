//! Encryptions that go on where an earlier run ended: what is kept, what makes a new message of it, and
//! whom a partial file is not trusted from. (Runs that are killed: `resume_kill`.)

use crate::support::model::{Head, Known};
use crate::support::providers::{Down, all, at_least, raw};
use crate::support::random::Random;
use crate::support::sample::pattern;
use crate::support::say;
use envelock::AeadAlgorithm::{Aes256Gcm, ChaCha20Poly1305};
use envelock::{
    AeadAlgorithm, EncryptionContext, Envelope, Error, ErrorKind, FileOptions, KeyProvider, Restart, ResumeOptions,
    ResumeStart, Resumed, blocking,
};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// A source, and an envelope that encrypts it.
struct Scene {
    folder: tempfile::TempDir,
    envelope: blocking::Envelope,
    context: EncryptionContext,
}

const SEGMENT: usize = 64;

fn by(provider: Arc<dyn KeyProvider>, aead: AeadAlgorithm) -> blocking::Envelope {
    blocking::Envelope::new(Envelope::builder(provider).aead(aead).segment_len(64).build().unwrap())
}

impl Scene {
    /// A source that is old enough to be told from what comes later.
    fn new(source: &[u8]) -> Self {
        let scene = Self {
            folder: tempfile::tempdir().unwrap(),
            envelope: by(raw("mine", 2), Aes256Gcm),
            context: EncryptionContext::from([("object", "a")]),
        };
        fs::write(scene.source(), source).unwrap();
        settle();
        scene
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("a")
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("a.elk")
    }

    fn partial(&self) -> PathBuf {
        self.folder.path().join(".a.elk.envelock-partial")
    }

    fn resume(&self) -> Result<Resumed, Error> {
        self.resume_by(&self.envelope)
    }

    fn resume_by(&self, envelope: &blocking::Envelope) -> Result<Resumed, Error> {
        envelope.encrypt_file_resumable(self.source(), self.target(), &self.context, FileOptions::default())
    }

    /// Leaves a partial file with `body` bytes of segments, as a run does that ended there. Its bytes.
    fn interrupted(&self, body: usize) -> Vec<u8> {
        self.resume().unwrap();
        self.back_to_partial();
        let left = fs::read(self.partial()).unwrap();
        let len = Head::judge(&left).unwrap().len() + body;
        assert!(len <= left.len());
        OpenOptions::new().write(true).open(self.partial()).unwrap().set_len(len as u64).unwrap();
        left[..len].to_vec()
    }

    /// As if the last call but the rename had not been made.
    fn back_to_partial(&self) {
        fs::rename(self.target(), self.partial()).unwrap();
    }

    /// The same bytes in a partial file that is younger than the source.
    fn rejuvenate(&self) {
        settle();
        let bytes = fs::read(self.partial()).unwrap();
        fs::remove_file(self.partial()).unwrap();
        self.plant(&bytes, 0o600);
    }

    fn plant(&self, bytes: &[u8], mode: u32) {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(self.partial()).unwrap();
        file.write_all(bytes).unwrap();
        file.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The target holds the source, under the scene's key, and nothing else is left.
    #[track_caller]
    fn is_done(&self) -> Vec<u8> {
        let message = fs::read(self.target()).unwrap();
        assert!(self.envelope.decrypt(&message, &self.context).unwrap() == fs::read(self.source()).unwrap());
        assert_eq!(self.target().metadata().unwrap().mode() & 0o777, 0o600);
        assert!(!self.partial().exists());
        message
    }

    /// A call that begins anew for this reason, in a message of its own.
    #[track_caller]
    fn begins_anew(&self, why: Restart, before: &[u8]) {
        let done = self.resume().unwrap();
        assert_eq!(done.start, ResumeStart::BegunAnew(why));
        let message = self.is_done();
        assert_eq!(done.sealed_len, message.len() as u64);
        let floe = |message: &[u8]| Head::judge(message).map(|head| message[head.floe].to_vec());
        assert_ne!(floe(&message).unwrap(), floe(before).unwrap_or_default(), "the same key goes on");
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than the clock of the file system takes to move on.
fn settle() {
    std::thread::sleep(Duration::from_millis(30));
}

fn kind(error: &Error) -> ErrorKind {
    error.kind()
}

#[test]
fn from_every_cut_it_goes_on_and_seals_no_whole_segment_again() {
    let mut cuts = 0;
    for aead in [Aes256Gcm, ChaCha20Poly1305] {
        for len in [0, 1, 32, 33, 77, 160] {
            let mut scene = Scene::new(&pattern(len));
            scene.envelope = by(raw("mine", 2), aead);
            scene.resume().unwrap();
            let whole = fs::read(scene.target()).unwrap();
            let head_len = Head::judge(&whole).unwrap().len();
            // Every byte of the body, and some of the head.
            for cut in [0, 1, 50, head_len - 1].into_iter().chain(head_len..=whole.len()) {
                scene.back_to_partial();
                OpenOptions::new().write(true).open(scene.partial()).unwrap().set_len(cut as u64).unwrap();
                let left = fs::read(scene.partial()).unwrap();
                let done = scene.resume().unwrap();
                let message = scene.is_done();
                assert_eq!(done.sealed_len, message.len() as u64);
                cuts += 1;
                let expected = match cut {
                    0 => ResumeStart::Begun,
                    _ if cut < head_len => ResumeStart::BegunAnew(Restart::Damaged),
                    _ => {
                        let verified = kept(&left, &message, cut == whole.len(), head_len);
                        let verified_len = (verified * 32).min(len) as u64;
                        ResumeStart::Continued { verified_segments: verified as u64, verified_len }
                    }
                };
                assert_eq!(done.start, expected, "{len} bytes, cut at {cut} of {}", whole.len());
            }
        }
    }
    say(format!("resume: {cuts} cuts gone on from"));
    assert!(cuts > 1_000);
}

/// How many segments lie whole in `left`: they are in `message` too, and the next is sealed anew there.
#[track_caller]
fn kept(left: &[u8], message: &[u8], is_whole: bool, head_len: usize) -> usize {
    let body = left.len() - head_len;
    let verified = if is_whole { body.div_ceil(SEGMENT).max(1) } else { body / SEGMENT };
    let end = if is_whole { left.len() } else { head_len + verified * SEGMENT };
    assert!(message[..end] == left[..end], "a whole segment was sealed again");
    let torn = &left[end..];
    if torn.len() >= 16 {
        assert_ne!(torn[4..16], message[end + 4..end + 16], "the same IV serves again");
    }
    verified
}

#[test]
fn a_source_that_changed_makes_a_new_message() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 7] = [
        ("within what was sealed", |source| rewrite_byte(source, 10)),
        ("behind what was sealed", |source| rewrite_byte(source, 900)),
        ("longer", |source| OpenOptions::new().append(true).open(source).unwrap().write_all(b"more").unwrap()),
        ("shorter", |source| OpenOptions::new().write(true).open(source).unwrap().set_len(700).unwrap()),
        ("empty", |source| fs::write(source, b"").unwrap()),
        ("only its mode", |source| fs::set_permissions(source, fs::Permissions::from_mode(0o640)).unwrap()),
        ("another file of the same content", |source| {
            let other = source.with_extension("other");
            fs::write(&other, fs::read(source).unwrap()).unwrap();
            fs::rename(other, source).unwrap();
        }),
    ];
    for (what, change) in changes {
        for len in [70, 1_000, 2_024] {
            let scene = Scene::new(&pattern(1_000));
            let left = scene.interrupted(len);
            change(&scene.source());
            println!("{what}, after {len} bytes of segments");
            scene.begins_anew(Restart::SourceChanged, &left);
        }
    }
}

fn rewrite_byte(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn where_the_clock_tells_nothing_every_sealed_segment_is_compared_with_the_source() {
    for (at, len) in [(0, 70), (0, 1_000), (479, 1_000), (0, 2_024), (999, 2_024)] {
        let scene = Scene::new(&pattern(1_000));
        let left = scene.interrupted(len);
        rewrite_byte(&scene.source(), at);
        scene.rejuvenate();
        println!("byte {at}, {len} bytes left");
        scene.begins_anew(Restart::SourceChanged, &left);
    }
}

#[test]
fn the_final_segment_of_a_source_that_grew_or_shrank_is_never_gone_on_with() {
    for (before, after) in [(1_000, 1_010), (1_000, 1_200), (64, 65), (1_010, 1_000), (1_200, 1_000), (0, 1), (1, 0)] {
        let scene = Scene::new(&pattern(before));
        scene.resume().unwrap();
        scene.back_to_partial();
        let left = fs::read(scene.partial()).unwrap();
        fs::write(scene.source(), pattern(after)).unwrap();
        scene.rejuvenate();
        let done = scene.resume().unwrap();
        // What is too long for the source is damage, what is too short was another source.
        let why = if after < before && left.len() as u64 > done.sealed_len {
            Restart::Damaged
        } else {
            Restart::SourceChanged
        };
        assert_eq!(done.start, ResumeStart::BegunAnew(why), "{before} bytes, then {after}");
        let known = Known::new(scene.is_done(), &[]);
        let finals = known.segments().iter().filter(|segment| !segment.starts_with(&[0xFF; 4])).count();
        assert_eq!(finals, 1);
    }
}

#[test]
fn a_source_that_changes_under_the_work_makes_no_message() {
    let scene = Scene::new(&pattern(1_000));
    let source = scene.source();
    let options = ResumeOptions::from(FileOptions::default()).on_start(move |_| rewrite_byte(&source, 990));
    let error = scene.envelope.encrypt_file_resumable(scene.source(), scene.target(), &scene.context, options);
    let error = error.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Busy, "{error}");
    assert!(!scene.target().exists());
    let left = fs::read(scene.partial()).unwrap();
    scene.begins_anew(Restart::SourceChanged, &left);
}

#[test]
fn a_planted_partial_file_is_refused_and_not_written_through() {
    let foreign = Scene::new(&pattern(100));
    let bytes = foreign.interrupted(100);
    type Plant = fn(&Scene, &[u8]) -> bool;
    let elsewhere = |scene: &Scene| scene.folder.path().join("elsewhere");
    let plants: [(&str, &str, Plant); 9] = [
        ("is a symbolic link", "link to a file", |scene, bytes| {
            let to = scene.folder.path().join("elsewhere");
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to).unwrap().write_all(bytes).unwrap();
            symlink(to, scene.partial()).is_ok()
        }),
        ("is a symbolic link", "link to nothing", |scene, _| {
            symlink(scene.folder.path().join("nothing"), scene.partial()).is_ok()
        }),
        ("is no regular file", "FIFO", |scene, _| {
            Command::new("mkfifo").args(["-m", "600"]).arg(scene.partial()).status().unwrap().success()
        }),
        ("is no regular file", "folder", |scene, _| fs::create_dir(scene.partial()).is_ok()),
        ("is open to other users", "readable by all", |scene, bytes| {
            scene.plant(bytes, 0o644);
            true
        }),
        ("is open to other users", "writable by the group", |scene, bytes| {
            scene.plant(bytes, 0o620);
            true
        }),
        ("is open to other users", "executable by others", |scene, bytes| {
            scene.plant(bytes, 0o601);
            true
        }),
        ("has other names", "hard link", |scene, bytes| {
            scene.plant(bytes, 0o600);
            fs::hard_link(scene.partial(), scene.folder.path().join("elsewhere")).is_ok()
        }),
        ("belongs to another user", "another user's", |scene, bytes| {
            scene.plant(bytes, 0o600);
            std::os::unix::fs::chown(scene.partial(), Some(65_534), None).is_ok()
        }),
    ];
    for (why, what, plant) in plants {
        let scene = Scene::new(&pattern(100));
        if !plant(&scene, &bytes) {
            say(format!("SKIPPED: a partial file that {why} ({what}): this user cannot make one"));
            continue;
        }
        let listing = || {
            let mut names: Vec<_> =
                fs::read_dir(scene.folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = listing();
        for options in [FileOptions::default(), FileOptions::default().replace_existing()] {
            let result = scene.envelope.encrypt_file_resumable(scene.source(), scene.target(), &scene.context, options);
            let error = result.unwrap_err();
            let text = error.to_string();
            assert_eq!(kind(&error), ErrorKind::InvalidInput, "{what}: {text}");
            assert_eq!(error.path(), Some(&*scene.partial()), "{what}: {text}");
            assert!(text.contains(why) && text.contains("nothing was written"), "{what}: {text}");
        }
        assert_eq!(listing(), before, "{what}");
        for path in [scene.partial(), elsewhere(&scene)].iter().filter(|path| path.is_file()) {
            assert!(fs::read(path).unwrap() == bytes, "{what}: it was written to");
        }
    }
}

#[test]
fn a_partial_file_of_something_else_makes_a_new_message() {
    let mine = || raw("mine", 2);
    let context = |key: &str, value: &str| EncryptionContext::from([(key, value)]);
    let scene = |make: &dyn Fn(&mut Scene)| {
        let mut scene = Scene::new(&pattern(1_000));
        make(&mut scene);
        scene.interrupted(500);
        scene
    };
    let gone = Down::shared("com.example.gone", "far away", ErrorKind::Unavailable);
    let cases: Vec<(&str, Scene, Restart)> = vec![
        ("key", scene(&|it| it.envelope = by(raw("mine", 9), Aes256Gcm)), Restart::OtherKey),
        ("key id", scene(&|it| it.envelope = by(raw("theirs", 2), Aes256Gcm)), Restart::OtherRecipients),
        (
            "recipient more",
            scene(&|it| it.envelope = by(all(&[&mine(), &raw("escrow", 3)]), Aes256Gcm)),
            Restart::OtherRecipients,
        ),
        (
            "missing recipient",
            scene(&|it| it.envelope = by(at_least(1, &[&mine(), &gone]), Aes256Gcm)),
            Restart::OtherRecipients,
        ),
        ("AEAD", scene(&|it| it.envelope = by(mine(), ChaCha20Poly1305)), Restart::OtherAead),
        ("context value", scene(&|it| it.context = context("object", "b")), Restart::OtherContext),
        ("context", scene(&|it| it.context = EncryptionContext::new()), Restart::OtherContext),
        (
            "unstored entry more",
            scene(&|it| it.context = context("object", "a").with_unstored("path", "/a")),
            Restart::OtherContext,
        ),
        (
            "entry that is not stored",
            scene(&|it| it.context = EncryptionContext::new().with_unstored("object", "a")),
            Restart::OtherContext,
        ),
    ];
    for (what, mut scene, why) in cases {
        let left = fs::read(scene.partial()).unwrap();
        scene.envelope = by(mine(), Aes256Gcm);
        scene.context = context("object", "a");
        println!("{what}");
        scene.begins_anew(why, &left);
    }
    // The value of an entry that is not stored is known by its key alone.
    let mut scene = scene(&|it| it.context = EncryptionContext::new().with_unstored("object", "a"));
    let left = fs::read(scene.partial()).unwrap();
    scene.context = EncryptionContext::new().with_unstored("object", "b");
    scene.begins_anew(Restart::OtherKey, &left);
}

#[test]
fn the_segment_length_is_the_one_that_the_message_was_begun_with() {
    let scene = Scene::new(&pattern(1_000));
    let left = scene.interrupted(500);
    let other = Envelope::builder(raw("mine", 2)).segment_len(4_096).build().unwrap();
    let done = scene.resume_by(&blocking::Envelope::new(other)).unwrap();
    assert!(matches!(done.start, ResumeStart::Continued { verified_segments: 1.., .. }), "{done:?}");
    let message = scene.is_done();
    assert_eq!(Head::judge(&message).unwrap().segment_len, SEGMENT);
    let kept = left.len() - 500 % SEGMENT;
    assert_eq!(message[..kept], left[..kept]);
}

#[test]
fn a_damaged_partial_file_makes_a_new_message() {
    let scene = Scene::new(&pattern(300));
    scene.resume().unwrap();
    let whole = fs::read(scene.target()).unwrap();
    let head = Head::judge(&whole).unwrap();
    let head_len = head.len();
    let mut random = Random::new(5);
    let mut cases = vec![
        ("garbage", random.bytes(2_000)),
        ("zeros", vec![0; 2_000]),
        ("text", b"somebody's notes\n".repeat(40)),
        ("a final segment and a byte", [&whole[..], &[0]].concat()),
        ("a final segment and a segment", [&whole[..], &whole[head_len..head_len + SEGMENT]].concat()),
        ("segments swapped", {
            let mut message = whole.clone();
            message[head_len..].rotate_left(SEGMENT);
            message
        }),
        ("a prefix of another finality", {
            let mut message = whole[..head_len + 2 * SEGMENT + 20].to_vec();
            message[head_len + 2 * SEGMENT + 3] = 40;
            message
        }),
    ];
    for at in (0..head_len).step_by(7).chain(head.floe).chain(head_len..whole.len()) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        cases.push(("a flipped bit", flipped));
    }
    fs::remove_file(scene.target()).unwrap();
    let mut why = std::collections::BTreeMap::<String, usize>::new();
    for (what, bytes) in &cases {
        scene.plant(bytes, 0o600);
        let done = scene.resume().unwrap();
        let ResumeStart::BegunAnew(restart) = done.start else { panic!("{what}: {done:?}") };
        *why.entry(format!("{restart:?}")).or_default() += 1;
        let message = scene.is_done();
        assert_ne!(message[head_len - 64..head_len], whole[head_len - 64..], "{what}: the same key goes on");
        fs::remove_file(scene.target()).unwrap();
    }
    say(format!("resume: {} damaged partial files, each a new message: {why:?}", cases.len()));
    assert!(why["Damaged"] > 300, "{why:?}");
}

#[test]
fn a_second_call_is_told_that_the_first_is_at_work() {
    let scene = Scene::new(&pattern(1_000));
    let (began, begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    std::thread::scope(|scope| {
        // Dropped when something fails, upon which the first call goes on: the scope waits for it.
        let (release, scene) = (release, &scene);
        let first = scope.spawn(move || {
            let options = ResumeOptions::from(FileOptions::default()).on_start(move |_| {
                began.send(()).unwrap();
                released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            });
            scene.envelope.encrypt_file_resumable(scene.source(), scene.target(), &scene.context, options)
        });
        begun.recv_timeout(PATIENCE).unwrap();
        let error = scene.resume().unwrap_err();
        assert_eq!(kind(&error), ErrorKind::Busy, "{error}");
        assert_eq!(error.path(), Some(&*scene.partial()));
        // A run without resuming removes what is left over, and this is not.
        let other = scene.folder.path().join("a.elk");
        let ordinary = FileOptions::default();
        scene.envelope.encrypt_file(scene.source(), &other, &scene.context, ordinary).unwrap();
        assert!(scene.partial().exists());
        fs::remove_file(other).unwrap();
        release.send(()).unwrap();
        first.join().unwrap().unwrap();
    });
    scene.is_done();
}

#[test]
fn a_run_without_resuming_removes_the_partial_file() {
    let scene = Scene::new(&pattern(1_000));
    scene.interrupted(500);
    scene.envelope.encrypt_file(scene.source(), scene.target(), &scene.context, FileOptions::default()).unwrap();
    scene.is_done();
    // One that may be somebody's trap is left alone.
    symlink(scene.source(), scene.partial()).unwrap();
    let over = FileOptions::default().replace_existing();
    scene.envelope.encrypt_file(scene.source(), scene.target(), &scene.context, over).unwrap();
    assert!(scene.partial().is_symlink());
}

#[test]
fn an_existing_target_is_kept_unless_it_may_be_replaced() {
    let scene = Scene::new(&pattern(1_000));
    let left = scene.interrupted(500);
    fs::write(scene.target(), "mine").unwrap();
    let error = scene.resume().unwrap_err();
    assert_eq!(kind(&error), ErrorKind::InvalidInput, "{error}");
    assert_eq!(fs::read(scene.target()).unwrap(), b"mine");
    assert!(fs::read(scene.partial()).unwrap() == left);
    let over = FileOptions::default().replace_existing();
    let done = scene.envelope.encrypt_file_resumable(scene.source(), scene.target(), &scene.context, over).unwrap();
    assert!(matches!(done.start, ResumeStart::Continued { .. }), "{done:?}");
    scene.is_done();
    // One that appears while the work goes on, too: what was done stays, for a call that may replace it.
    fs::remove_file(scene.target()).unwrap();
    let target = scene.target();
    let options = ResumeOptions::from(FileOptions::default()).on_start(move |_| fs::write(&target, "new").unwrap());
    let result = scene.envelope.encrypt_file_resumable(scene.source(), scene.target(), &scene.context, options);
    assert_eq!(kind(&result.unwrap_err()), ErrorKind::InvalidInput);
    assert_eq!(fs::read(scene.target()).unwrap(), b"new");
    let over = FileOptions::default().replace_existing();
    let done = scene.envelope.encrypt_file_resumable(scene.source(), scene.target(), &scene.context, over).unwrap();
    assert_eq!(done.start, ResumeStart::Continued { verified_segments: 32, verified_len: 1_000 });
    scene.is_done();
}

#[test]
fn a_stopped_call_keeps_what_it_did_and_the_next_reports_how_far_it_was() {
    let scene = Scene::new(&pattern(8 << 20));
    let envelope = blocking::Envelope::new(Envelope::builder(raw("mine", 2)).build().unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let options = FileOptions::default().stop_when(Arc::clone(&stop)).on_progress(move |progress| {
        stop.store(progress.done > 3 << 20, Ordering::SeqCst);
    });
    let error = envelope.encrypt_file_resumable(scene.source(), scene.target(), &scene.context, options).unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Io);
    assert!(error.to_string().contains("the same call goes on from there"), "{error}");
    let left = fs::read(scene.partial()).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::clone(&seen);
    let options = FileOptions::default().on_progress(move |progress| reported.lock().unwrap().push(progress));
    let done = envelope.encrypt_file_resumable(scene.source(), scene.target(), &scene.context, options).unwrap();
    let ResumeStart::Continued { verified_segments: 48.., verified_len: 3_000_000.. } = done.start else {
        panic!("{done:?}")
    };
    let message = scene.is_done();
    assert!(message[..left.len()] == left);
    let seen = seen.lock().unwrap();
    assert!(seen.is_sorted_by_key(|progress| progress.done));
    assert_eq!(seen.last().map(|progress| (progress.done, progress.total)), Some((8 << 20, Some(8 << 20))));
}

#[test]
fn a_provider_that_is_down_leaves_the_partial_file_for_later() {
    let scene = Scene::new(&pattern(1_000));
    let left = scene.interrupted(500);
    let down = Down::shared("raw", "mine", ErrorKind::Unavailable);
    let error = scene.resume_by(&by(down, Aes256Gcm)).unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Unavailable, "{error}");
    assert!(fs::read(scene.partial()).unwrap() == left);
    assert!(matches!(scene.resume().unwrap().start, ResumeStart::Continued { .. }));
    scene.is_done();
}

#[test]
fn only_a_regular_file_can_be_gone_on_with() {
    let scene = Scene::new(b"");
    for source in ["/dev/null", "/dev/zero"] {
        let error = scene
            .envelope
            .encrypt_file_resumable(source, scene.target(), &scene.context, FileOptions::default())
            .unwrap_err();
        assert_eq!(kind(&error), ErrorKind::InvalidInput, "{error}");
    }
    let long = scene.folder.path().join("n".repeat(250));
    let options = FileOptions::default();
    let error = scene.envelope.encrypt_file_resumable(scene.source(), long, &scene.context, options).unwrap_err();
    assert!(error.to_string().contains("too long for a partial file"), "{error}");
    assert_eq!(fs::read_dir(scene.folder.path()).unwrap().count(), 1);
}
