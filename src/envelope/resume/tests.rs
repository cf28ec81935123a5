//! Every state of the disk that a crash can leave, and every failing call.

use super::*;
use crate::durable::crash::{Recorder, Until, list};
use crate::provider::raw::RawKeyProvider;
use rustix::io::Errno;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

struct Scene {
    source: tempfile::TempDir,
    folder: tempfile::TempDir,
    envelope: Envelope,
}

/// Four segments; their bytes and the head's cross sector borders.
const LEN: usize = 1_700;

impl Scene {
    fn new() -> Self {
        let provider = RawKeyProvider::generate("crash").unwrap();
        let envelope = Envelope::builder(provider).segment_len(500).build().unwrap();
        let scene = Self { source: tempfile::tempdir().unwrap(), folder: tempfile::tempdir().unwrap(), envelope };
        fs::write(scene.from(), [0xA5; LEN]).unwrap();
        // Older than any partial file, by the clock of the file system.
        std::thread::sleep(Duration::from_millis(40));
        scene
    }

    fn from(&self) -> PathBuf {
        self.source.path().join("a")
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("a.elk")
    }

    fn partial(&self) -> PathBuf {
        self.folder.path().join(".a.elk.envelock-partial")
    }

    fn run(&self, fs: Arc<dyn FileSystem>, object: &str, options: FileOptions) -> Result<Resumed> {
        let context = EncryptionContext::from([("object", object)]);
        let (from, to) = (self.from(), self.target());
        pollster::block_on(self.envelope.encrypt_resumable_in(fs, &from, &to, &context, options.into()))
    }

    /// Whether the target is there; then it is whole.
    fn is_done(&self) -> bool {
        let Ok(message) = fs::read(self.target()) else { return false };
        let context = EncryptionContext::from([("object", "a")]);
        let plaintext = pollster::block_on(self.envelope.decrypt(&message, &context)).unwrap();
        assert_eq!(plaintext, [0xA5; LEN]);
        true
    }

    /// Leaves the partial file of a message of another context.
    fn begin_another(&self) {
        self.run(Arc::new(OsFileSystem), "another", FileOptions::default()).unwrap();
        fs::rename(self.target(), self.partial()).unwrap();
    }

    /// What a crash leaves has the mode that it was made with; the recorder's model has no modes.
    fn give_modes(&self) {
        if self.partial().exists() {
            fs::set_permissions(self.partial(), fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

#[test]
fn a_crash_at_any_point_leaves_a_whole_message_or_something_to_go_on_with() {
    for other_first in [false, true] {
        let scene = Scene::new();
        if other_first {
            scene.begin_another();
        }
        let recorder = Recorder::new(scene.folder.path());
        scene.run(recorder.clone(), "a", FileOptions::default()).unwrap();
        recorder.acknowledge();
        let (mut continued, mut done) = (0, 0);
        let states = recorder.check_every_crash(scene.folder.path(), |acknowledged| {
            scene.give_modes();
            if scene.is_done() {
                done += 1;
                if scene.partial().exists() {
                    // The removal of another's, which the rename did not wait for, was lost: it is in no way.
                    assert!(other_first);
                    scene.run(Arc::new(OsFileSystem), "a", FileOptions::default().replace_existing()).unwrap();
                    assert!(scene.is_done());
                }
            } else {
                assert!(!acknowledged, "an acknowledged message is lost");
                let resumed = scene.run(Arc::new(OsFileSystem), "a", FileOptions::default()).unwrap();
                continued += u32::from(matches!(resumed.start, ResumeStart::Continued { .. }));
                assert!(scene.is_done());
            }
            assert_eq!(list(scene.folder.path()), ["a.elk"]);
        });
        println!("{states} states of the disk checked, {continued} gone on from, {done} done");
        assert!(states > 100 && continued > 0 && done > 0, "{states}, {continued}, {done}");
    }
}

#[test]
fn a_crash_while_a_message_is_replaced_leaves_the_old_or_the_new_one() {
    let scene = Scene::new();
    fs::write(scene.target(), "old").unwrap();
    let recorder = Recorder::new(scene.folder.path());
    scene.run(recorder.clone(), "a", FileOptions::default().replace_existing()).unwrap();
    recorder.acknowledge();
    let states = recorder.check_every_crash(scene.folder.path(), |acknowledged| {
        scene.give_modes();
        if fs::read(scene.target()).unwrap() == b"old" {
            assert!(!acknowledged);
        } else {
            assert!(scene.is_done());
        }
    });
    assert!(states > 100, "only {states} states");
}

#[test]
fn a_failure_of_any_call_keeps_the_target_and_can_be_gone_on_from() {
    for (errno, until) in [(Errno::NOSPC, Until::Full), (Errno::IO, Until::Next), (Errno::ROFS, Until::ReadOnly)] {
        let mut failures = 0;
        for call in 0.. {
            let scene = Scene::new();
            let recorder = Recorder::failing(scene.folder.path(), call, errno, until);
            let result = scene.run(recorder.clone(), "a", FileOptions::default());
            if !recorder.failed() {
                result.unwrap();
                break;
            }
            let Err(error) = result else { continue };
            assert_eq!(error.kind(), ErrorKind::Io, "call {call}: {error}");
            failures += 1;
            if scene.is_done() {
                let text = error.to_string();
                let said = ["may not survive a power failure", "cannot open the journal"];
                assert!(said.iter().any(|it| text.contains(it)), "call {call}: {text}");
            } else {
                scene.run(Arc::new(OsFileSystem), "a", FileOptions::default()).unwrap();
                assert!(scene.is_done());
            }
            assert_eq!(list(scene.folder.path()), ["a.elk"], "call {call}");
        }
        // Creation, head, segments, sync, rename, sync of the folder.
        assert!(failures >= 6, "{errno}: {failures}");
    }
}
