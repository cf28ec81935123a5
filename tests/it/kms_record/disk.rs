//! What a crash can leave of a folder whose file operations were recorded by `record.c`.
//!
//! The model of the disk: of what was not synced, every sector of 512 bytes of every write, every change
//! of a length, and every name that was made, moved or removed is lost or kept by itself. A rename is
//! atomic. A sync of a file does not sync its name.

use std::collections::BTreeMap;

/// Contents by name.
pub(super) type Folder = BTreeMap<String, Vec<u8>>;

type Id = usize;

#[derive(Clone, Debug)]
pub(super) enum Op {
    Create {
        name: String,
        id: Id,
    },
    Rename {
        from: String,
        to: String,
        id: Id,
    },
    Remove {
        name: String,
        id: Id,
    },
    /// A file that has a name gets another one.
    Link {
        name: String,
        id: Id,
    },
    Change {
        id: Id,
        change: Change,
    },
    SyncFile {
        id: Id,
    },
    SyncFolder,
    /// What the process said: so many of its calls had been acknowledged by then.
    Said(String),
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Change {
    /// The parts that are lost or kept together: ranges of the bytes, cut where a sector of the file ends.
    fn parts(&self) -> Vec<std::ops::Range<usize>> {
        let Self::Write { offset, bytes } = self else { return std::iter::once(0..0).collect() };
        let cuts = (offset / SECTOR + 1..(offset + bytes.len()).div_ceil(SECTOR)).map(|n| n * SECTOR - offset);
        let cuts: Vec<_> = [0].into_iter().chain(cuts).chain([bytes.len()]).collect();
        cuts.windows(2).map(|cut| cut[0]..cut[1]).collect()
    }

    fn apply(&self, content: &mut Vec<u8>, mut kept: impl FnMut(usize) -> bool) {
        for (_, part) in self.parts().into_iter().enumerate().filter(|(number, _)| kept(*number)) {
            match self {
                Self::Length(length) => content.resize(*length, 0),
                Self::Write { offset, bytes } => {
                    let range = offset + part.start..offset + part.end;
                    content.resize(content.len().max(range.end), 0);
                    content[range].copy_from_slice(&bytes[part]);
                }
            }
        }
    }
}

/// The operations of a record, in order.
pub(super) fn parse(log: &[u8], start: &Folder) -> (BTreeMap<String, Id>, Vec<Op>) {
    let (mut names, mut ids, mut count) = (BTreeMap::<String, u64>::new(), BTreeMap::<u64, Id>::new(), 0);
    let (mut first, mut ops, mut rest) = (None, Vec::new(), log);
    while let Some((head, tail)) = rest.split_first_chunk::<25>() {
        let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
        let (inode, offset, length) = (number(1), number(9) as usize, number(17) as usize);
        let (bytes, tail) = tail.split_at(length);
        rest = tail;
        let id = |inode| *ids.get(&inode).unwrap();
        match head[0] {
            b'W' => {
                let change = Change::Write { offset, bytes: bytes.to_vec() };
                ops.push(Op::Change { id: id(inode), change });
            }
            b'T' => ops.push(Op::Change { id: id(inode), change: Change::Length(offset) }),
            b'S' => ops.push(Op::SyncFile { id: id(inode) }),
            b'D' => ops.push(Op::SyncFolder),
            b'A' => ops.extend(String::from_utf8_lossy(bytes).lines().map(|line| Op::Said(line.to_owned()))),
            b'N' => {
                let now = listing(bytes);
                for (name, inode) in &now {
                    if names.get(name) == Some(inode) {
                        continue;
                    }
                    let from = names.iter().find(|(old, it)| *it == inode && !now.contains_key(*old));
                    match from.map(|(old, _)| old.clone()) {
                        Some(from) => {
                            ops.push(Op::Rename { from: from.clone(), to: name.clone(), id: ids[inode] });
                            names.remove(&from);
                        }
                        None if now.iter().any(|(old, it)| it == inode && names.get(old) == Some(inode)) => {
                            ops.push(Op::Link { name: name.clone(), id: ids[inode] });
                        }
                        None => {
                            // Its number may have belonged to a file that is gone.
                            ids.insert(*inode, count);
                            ops.push(Op::Create { name: name.clone(), id: count });
                            count += 1;
                        }
                    }
                }
                for (name, inode) in names.iter().filter(|(name, _)| !now.contains_key(*name)) {
                    ops.push(Op::Remove { name: name.clone(), id: ids[inode] });
                }
                names = now;
                if first.is_none() && !start.is_empty() {
                    first = Some(names.iter().map(|(name, inode)| (name.clone(), ids[inode])).collect());
                    ops.clear();
                }
            }
            other => panic!("no record begins with {other}"),
        }
    }
    assert!(rest.is_empty(), "a record is cut off");
    let first: BTreeMap<String, Id> = first.unwrap_or_default();
    assert!(first.keys().eq(start.keys()), "{first:?}");
    (first, ops)
}

fn listing(mut bytes: &[u8]) -> BTreeMap<String, u64> {
    let mut names = BTreeMap::new();
    while let Some((inode, rest)) = bytes.split_first_chunk::<8>() {
        let (name, rest) = rest[1..].split_at(usize::from(rest[0]));
        names.insert(String::from_utf8(name.to_vec()).unwrap(), u64::from_le_bytes(*inode));
        bytes = rest;
    }
    names
}

/// A file: what is surely on the disk, and what came after the last sync.
#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

/// A folder in the middle of the operations.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    names: BTreeMap<String, Id>,
    pending_names: Vec<Op>,
    files: BTreeMap<Id, File>,
}

/// What a crash keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Nothing,
    Everything,
}

impl Disk {
    pub(super) fn new(names: BTreeMap<String, Id>, start: &Folder) -> Self {
        let content = |name: &String| File { durable: start[name].clone(), pending: Vec::new() };
        let files = names.iter().map(|(name, id)| (*id, content(name))).collect();
        Self { names, pending_names: Vec::new(), files }
    }

    pub(super) fn take(&mut self, op: &Op) {
        match op {
            Op::Create { id, .. } => {
                self.files.insert(*id, File::default());
                self.pending_names.push(op.clone());
            }
            Op::Rename { .. } | Op::Remove { .. } | Op::Link { .. } => self.pending_names.push(op.clone()),
            Op::Change { id, change } => self.files.get_mut(id).unwrap().pending.push(change.clone()),
            Op::SyncFile { id } => {
                let file = self.files.get_mut(id).unwrap();
                for change in std::mem::take(&mut file.pending) {
                    change.apply(&mut file.durable, |_| true);
                }
            }
            Op::SyncFolder => {
                for op in std::mem::take(&mut self.pending_names) {
                    rename(&mut self.names, &op);
                }
            }
            Op::Said(_) => {}
        }
    }

    /// How many names are not synced.
    pub(super) fn unsynced_names(&self) -> usize {
        self.pending_names.len()
    }

    /// The file with the last operation, if that was a change, and of how many parts it is.
    pub(super) fn last_change(&self, op: &Op) -> Option<(Id, usize)> {
        let Op::Change { id, change } = op else { return None };
        Some((*id, change.parts().len()))
    }

    /// The folder after a crash that keeps what it is told to of the unsynced names and contents.
    pub(super) fn crash(&self, names: Keep, contents: Keep) -> Folder {
        self.crash_by(&mut |_| names == Keep::Everything, &mut |_, _, _| contents == Keep::Everything)
    }

    /// As [`crash`](Self::crash), with the last change of the file `torn` kept only in the parts that
    /// `kept` says.
    pub(super) fn crash_torn(&self, torn: Id, before: Keep, kept: &dyn Fn(usize) -> bool) -> Folder {
        let last = self.files[&torn].pending.len() - 1;
        self.crash_by(&mut |_| true, &mut |id, change, part| match (id, change) == (torn, last) {
            true => kept(part),
            false => before == Keep::Everything,
        })
    }

    /// As [`crash`](Self::crash), where `coin` is thrown for each name and each part of each change.
    pub(super) fn crash_at_random(&self, coin: &mut dyn FnMut() -> bool) -> Folder {
        let names: Vec<_> = self.pending_names.iter().map(|_| coin()).collect();
        self.crash_by(&mut |name| names[name], &mut |_, _, _| coin())
    }

    fn crash_by(&self, name: &mut dyn FnMut(usize) -> bool, part: &mut dyn FnMut(Id, usize, usize) -> bool) -> Folder {
        let mut names = self.names.clone();
        for (number, op) in self.pending_names.iter().enumerate() {
            if name(number) {
                rename(&mut names, op);
            }
        }
        let content = |id: Id, part: &mut dyn FnMut(Id, usize, usize) -> bool| {
            let mut content = self.files[&id].durable.clone();
            for (number, change) in self.files[&id].pending.iter().enumerate() {
                change.apply(&mut content, |at| part(id, number, at));
            }
            content
        };
        names.into_iter().map(|(name, id)| (name, content(id, part))).collect()
    }
}

fn rename(names: &mut BTreeMap<String, Id>, op: &Op) {
    match op {
        Op::Create { name, id } | Op::Link { name, id } => drop(names.insert(name.clone(), *id)),
        Op::Rename { from, to, id } => {
            if names.get(from) == Some(id) {
                names.remove(from);
            }
            names.insert(to.clone(), *id);
        }
        Op::Remove { name, id } if names.get(name) == Some(id) => drop(names.remove(name)),
        _ => {}
    }
}

const SECTOR: usize = 512;
