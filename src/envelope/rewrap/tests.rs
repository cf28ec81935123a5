//! Real messages in every state of the disk that a crash in the middle of a rewrap can leave.

use super::*;
use crate::durable::crash::{Recorder, list};
use crate::provider::KeyProvider;
use crate::provider::multi::MultiProvider;
use crate::provider::raw::RawKeyProvider;
use std::fs;
use std::io::{Read, Write};

/// Four segments; their bytes and the head's cross sector borders.
const PLAINTEXT: [u8; 1_700] = [0xA5; 1_700];

struct Scene {
    folder: tempfile::TempDir,
    old: Arc<dyn KeyProvider>,
    new: Arc<dyn KeyProvider>,
}

/// So many keys with long names, of which one opens and all are written.
fn many(name: &str, count: usize) -> Arc<dyn KeyProvider> {
    let members = (0..count).map(|n| RawKeyProvider::generate(format!("{name}-{n:0>250}")).unwrap());
    let members: Vec<Arc<dyn KeyProvider>> = members.map(|it| Arc::new(it) as _).collect();
    Arc::new(MultiProvider::all(members).unwrap())
}

fn by(provider: &Arc<dyn KeyProvider>) -> Envelope {
    Envelope::builder(Arc::clone(provider)).segment_len(500).build().unwrap()
}

fn all(members: &[&Arc<dyn KeyProvider>]) -> Arc<dyn KeyProvider> {
    Arc::new(MultiProvider::all(members.iter().copied().map(Arc::clone).collect()).unwrap())
}

fn context() -> EncryptionContext {
    EncryptionContext::from([("object", "a")])
}

impl Scene {
    /// A message under `old` in a folder of its own, with room for later slots.
    fn new(old: Arc<dyn KeyProvider>, new: Arc<dyn KeyProvider>) -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap(), old, new };
        let encryptor = pollster::block_on(by(&scene.old).file_encryptor(&context())).unwrap();
        let mut writer = encryptor.into_writer(Vec::new());
        writer.write_all(&PLAINTEXT).unwrap();
        fs::write(scene.path(), writer.finish().unwrap()).unwrap();
        scene
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("a.elk")
    }

    fn rewrap(&self, fs: Arc<dyn FileSystem>, reader: &Arc<dyn KeyProvider>) -> Result<Rewrapped> {
        let options = RewrapOptions::default();
        pollster::block_on(by(reader).rewrap_in(fs, &self.path(), &by(&self.new), &context(), options))
    }

    /// Whether the message opens under this provider; then it is whole.
    fn opens(&self, provider: &Arc<dyn KeyProvider>) -> bool {
        let Ok(mut reader) = pollster::block_on(by(provider).file_reader(self.path(), &context())) else {
            return false;
        };
        let mut plaintext = Vec::new();
        reader.read_to_end(&mut plaintext).unwrap();
        assert!(plaintext == PLAINTEXT);
        true
    }

    /// Records a rewrap, and looks at every crash of it: under whom the message opens, and whether the next
    /// rewrap clears up. How many states there are, and in how many only the old, both and only the new open.
    fn crash_everywhere(&self, in_place: bool) -> (usize, [usize; 3]) {
        let recorder = Recorder::new(self.folder.path());
        assert_eq!(self.rewrap(recorder.clone(), &self.old).unwrap().in_place, in_place);
        recorder.acknowledge();
        let mut counts = [0; 3];
        let states = recorder.check_every_crash(self.folder.path(), |acknowledged| {
            let opens = [&self.old, &self.new].map(|provider| self.opens(provider));
            match opens {
                [true, false] => counts[0] += 1,
                [true, true] => counts[1] += 1,
                [false, true] => counts[2] += 1,
                [false, false] => panic!("it opens under neither: {:?}", list(self.folder.path())),
            }
            assert!(opens[1] || !acknowledged, "what was acknowledged is lost");
            let reader = match opens {
                [true, false] => Arc::clone(&self.old),
                [false, _] => Arc::clone(&self.new),
                _ => all(&[&self.old, &self.new]),
            };
            self.rewrap(Arc::new(OsFileSystem), &reader).unwrap();
            assert!(self.opens(&self.new) && !self.opens(&self.old));
            assert_eq!(list(self.folder.path()), ["a.elk"]);
        });
        (states, counts)
    }
}

#[test]
fn a_crash_in_a_rewrap_in_place_leaves_a_message_that_the_old_or_the_new_provider_opens() {
    // Slots of several sectors each.
    let scene = Scene::new(many("old", 8), many("new", 8));
    let (states, [old, both, new]) = scene.crash_everywhere(true);
    println!("in place: {states} states of the disk, opened by the old {old}, by both {both}, by the new {new}");
    assert!(states > 30 && old > 0 && both > 0 && new > 0, "{states} states: {old} {both} {new}");
}

#[test]
fn a_crash_in_a_rewrap_whose_slots_do_not_fit_leaves_a_message_that_the_old_or_the_new_provider_opens() {
    let scene = Scene::new(many("old", 1), many("new", 20));
    let (states, [old, both, new]) = scene.crash_everywhere(false);
    println!("as a copy: {states} states of the disk, opened by the old {old}, by both {both}, by the new {new}");
    assert!(states > 30 && old > 0 && both == 0 && new > 0, "{states} states: {old} {both} {new}");
}
