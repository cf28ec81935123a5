//! For tests: records what is done to one folder, builds every state of the disk that a crash could
//! leave, and injects failures.
//!
//! The model of the disk: a write that was not followed by a sync of its file is lost or kept,
//! sector by sector, and where it lengthens the file, the length is kept or not; a name that was
//! made, moved or removed without a sync of the folder is lost or kept, each by itself. A rename is
//! atomic. A sync of a file does not sync its name.

use super::fs::{Access, FileSystem, OsFileSystem};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What lies in a folder: contents by name.
pub(crate) type Folder = BTreeMap<OsString, Vec<u8>>;

type Id = usize;

#[derive(Clone, Debug)]
enum Op {
    Create { name: OsString, id: Id },
    Write { id: Id, offset: usize, bytes: Vec<u8> },
    SyncFile { id: Id },
    Rename { from: OsString, to: OsString, id: Id },
    Remove { name: OsString, id: Id },
    SyncFolder,
    Acknowledge,
}

/// How long an injected failure lasts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// One call fails.
    Next,
    /// Nothing can be written any more, and names can be removed: a full disk.
    Full,
    /// Nothing can be changed any more: a disk that turned read-only.
    ReadOnly,
}

/// The real file system, less its syncs; one folder is recorded from its present content on.
#[derive(Debug)]
pub(crate) struct Recorder {
    state: Mutex<State>,
    fault: Option<(usize, Errno, Until)>,
}

#[derive(Debug, Default)]
struct State {
    start: BTreeMap<OsString, (Id, Vec<u8>)>,
    ids: HashMap<u64, Id>,
    names: BTreeMap<OsString, Id>,
    ops: Vec<Op>,
    calls: usize,
    next_id: Id,
}

impl Recorder {
    /// Records what is done in `folder` from now on.
    pub(crate) fn new(folder: &Path) -> Arc<Self> {
        Self::with(folder, None)
    }

    /// As [`new`](Self::new), and the call number `call`, counted from 0, fails, a write after half
    /// of its bytes.
    pub(crate) fn failing(folder: &Path, call: usize, errno: Errno, until: Until) -> Arc<Self> {
        Self::with(folder, Some((call, errno, until)))
    }

    fn with(folder: &Path, fault: Option<(usize, Errno, Until)>) -> Arc<Self> {
        let mut state = State::default();
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let id = state.identify(entry.metadata().unwrap().ino());
            state.names.insert(entry.file_name(), id);
            state.start.insert(entry.file_name(), (id, fs::read(entry.path()).unwrap()));
        }
        Arc::new(Self { state: Mutex::new(state), fault })
    }

    /// Marks that the caller was told: it is done. Every crash from here on must show the new state.
    pub(crate) fn acknowledge(&self) {
        self.state.lock().unwrap().ops.push(Op::Acknowledge);
    }

    /// Whether the failure was injected.
    pub(crate) fn failed(&self) -> bool {
        self.fault.is_some_and(|(at, ..)| self.state.lock().unwrap().calls > at)
    }

    /// Calls `check` with `folder` filled as a crash could leave it, for every distinct state, and
    /// with whether the operation had been acknowledged by then. The answer is the number of states.
    pub(crate) fn check_every_crash(&self, folder: &Path, mut check: impl FnMut(bool)) -> usize {
        let state = self.state.lock().unwrap();
        let mut seen = BTreeSet::new();
        for end in 0..=state.ops.len() {
            let acknowledged = state.ops[..end].iter().any(|op| matches!(op, Op::Acknowledge));
            for disk in state.crashes_after(&state.ops[..end]) {
                if seen.insert((acknowledged, disk.clone())) {
                    fill(folder, &disk);
                    check(acknowledged);
                }
            }
        }
        seen.len()
    }

    /// Counts a call to the file system, and tells how it fails, if it is to fail.
    fn call(&self, kind: Kind) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let number = state.calls;
        state.calls += 1;
        let Some((at, errno, until)) = self.fault else { return Ok(()) };
        let fails = match until {
            Until::Next => number == at,
            Until::Full => number >= at && kind == Kind::Write,
            Until::ReadOnly => number >= at && kind != Kind::Open,
        };
        if fails { Err(errno.into()) } else { Ok(()) }
    }

    fn record(&self, op: impl FnOnce(&mut State) -> Op) {
        let mut state = self.state.lock().unwrap();
        let op = op(&mut state);
        match &op {
            Op::Create { name, id } => {
                state.names.insert(name.clone(), *id);
            }
            Op::Rename { from, to, id } => {
                state.names.remove(from);
                state.names.insert(to.clone(), *id);
            }
            Op::Remove { name, .. } => {
                state.names.remove(name);
            }
            _ => {}
        }
        state.ops.push(op);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Open,
    Write,
    Remove,
}

impl FileSystem for Recorder {
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<File> {
        self.call(Kind::Write)?;
        let file = OsFileSystem.create_new(path, mode)?;
        let inode = file.metadata()?.ino();
        self.record(|state| {
            // The number may have belonged to a file that is gone.
            state.ids.remove(&inode);
            Op::Create { name: name(path), id: state.identify(inode) }
        });
        Ok(file)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<File> {
        self.call(Kind::Open)?;
        OsFileSystem.open(path, access)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let failure = self.call(Kind::Write);
        let bytes = if failure.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        OsFileSystem.write_at(file, bytes, offset)?;
        let inode = file.metadata()?.ino();
        let (offset, bytes) = (usize::try_from(offset).unwrap(), bytes.to_vec());
        self.record(|state| Op::Write { id: state.identify(inode), offset, bytes });
        failure
    }

    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()> {
        self.call(Kind::Write)?;
        OsFileSystem.set_mode(file, mode)
    }

    fn keep(&self, new: &File, old: &File) -> io::Result<()> {
        self.call(Kind::Write)?;
        OsFileSystem.keep(new, old)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        self.call(Kind::Write)?;
        let inode = file.metadata()?.ino();
        self.record(|state| Op::SyncFile { id: state.identify(inode) });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Kind::Write)?;
        OsFileSystem.rename(from, to)?;
        self.record(|state| Op::Rename { id: state.names[&name(from)], from: name(from), to: name(to) });
        Ok(())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Kind::Write)?;
        OsFileSystem.rename_new(from, to)?;
        self.record(|state| Op::Rename { id: state.names[&name(from)], from: name(from), to: name(to) });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(Kind::Remove)?;
        OsFileSystem.remove(path)?;
        self.record(|state| Op::Remove { id: state.names[&name(path)], name: name(path) });
        Ok(())
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        self.call(Kind::Write)?;
        self.record(|_| Op::SyncFolder);
        Ok(())
    }
}

impl State {
    fn identify(&mut self, inode: u64) -> Id {
        *self.ids.entry(inode).or_insert_with(|| {
            self.next_id += 1;
            self.next_id
        })
    }

    /// Every state of the disk that a crash after `ops` can leave.
    fn crashes_after(&self, ops: &[Op]) -> BTreeSet<Folder> {
        let mut names: BTreeMap<_, _> = self.start.iter().map(|(name, (id, _))| (name.clone(), *id)).collect();
        let mut contents: BTreeMap<Id, BTreeSet<Vec<u8>>> =
            self.start.values().map(|(id, content)| (*id, BTreeSet::from([content.clone()]))).collect();
        let mut synced: BTreeMap<Id, Vec<u8>> = self.start.values().cloned().collect();
        let mut unsynced_names = Vec::new();
        for op in ops {
            match op {
                Op::Create { id, .. } => {
                    contents.insert(*id, BTreeSet::from([Vec::new()]));
                    synced.insert(*id, Vec::new());
                    unsynced_names.push(op);
                }
                Op::Rename { .. } | Op::Remove { .. } => unsynced_names.push(op),
                Op::Write { id, offset, bytes } => {
                    let after = contents[id].iter().flat_map(|before| torn_writes(before, *offset, bytes)).collect();
                    contents.insert(*id, after);
                    overlay(synced.get_mut(id).unwrap(), *offset, bytes);
                }
                Op::SyncFile { id } => {
                    contents.insert(*id, BTreeSet::from([synced[id].clone()]));
                }
                Op::SyncFolder => unsynced_names.drain(..).for_each(|op| apply(op, &mut names)),
                Op::Acknowledge => {}
            }
        }
        let mut disks = BTreeSet::new();
        for kept in 0..1_u32 << unsynced_names.len() {
            let mut names = names.clone();
            for (_, op) in unsynced_names.iter().enumerate().filter(|(bit, _)| kept >> bit & 1 == 1) {
                apply(op, &mut names);
            }
            let mut folders = vec![Folder::new()];
            for (name, id) in names {
                folders = folders
                    .iter()
                    .flat_map(|folder| {
                        let name = &name;
                        contents[&id].iter().map(move |content| {
                            let mut folder = folder.clone();
                            folder.insert(name.clone(), content.clone());
                            folder
                        })
                    })
                    .collect();
            }
            disks.extend(folders);
        }
        disks
    }
}

fn apply(op: &Op, names: &mut BTreeMap<OsString, Id>) {
    let mut forget = |name, id| {
        if names.get(name) == Some(id) {
            names.remove(name);
        }
    };
    match op {
        Op::Create { name, id } => {
            names.insert(name.clone(), *id);
        }
        Op::Rename { from, to, id } => {
            forget(from, id);
            names.insert(to.clone(), *id);
        }
        Op::Remove { name, id } => forget(name, id),
        _ => {}
    }
}

/// What a file can hold after a write that was not synced: any sectors of it (for long writes, any
/// first or last ones), and the length of before or of after.
fn torn_writes(before: &[u8], offset: usize, bytes: &[u8]) -> Vec<Vec<u8>> {
    let end = offset + bytes.len();
    let cuts = (offset / SECTOR + 1..end.div_ceil(SECTOR)).map(|sector| sector * SECTOR - offset);
    let cuts: Vec<usize> = [0].into_iter().chain(cuts).chain([bytes.len()]).collect();
    let sectors: Vec<_> = cuts.windows(2).map(|cut| cut[0]..cut[1]).collect();
    let all = (1_u64 << sectors.len()) - 1;
    let kept: Vec<u64> = if sectors.len() <= 7 {
        (0..=all).collect()
    } else {
        (0..=sectors.len()).flat_map(|n| [all >> n, all & !(all >> n)]).collect()
    };
    let mut states = Vec::new();
    for kept in kept {
        let mut content = before.to_vec();
        for (_, range) in sectors.iter().enumerate().filter(|(bit, _)| kept >> bit & 1 == 1) {
            overlay(&mut content, offset + range.start, &bytes[range.clone()]);
        }
        let mut lengthened = content.clone();
        lengthened.resize(content.len().max(end), 0);
        states.extend([content, lengthened]);
    }
    states
}

fn overlay(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    content.resize(content.len().max(end), 0);
    content[offset..end].copy_from_slice(bytes);
}

/// Makes `folder` hold exactly `content`.
pub(crate) fn fill(folder: &Path, content: &Folder) {
    for entry in fs::read_dir(folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, bytes) in content {
        fs::write(folder.join(name), bytes).unwrap();
    }
}

/// The names in `folder`, sorted.
pub(crate) fn list(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn name(path: &Path) -> OsString {
    path.file_name().unwrap().to_owned()
}

const SECTOR: usize = 512;
