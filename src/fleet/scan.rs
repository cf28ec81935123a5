//! The walk and the looks at what it finds, a piece at a time: the walk by one thread, the looks by several.

use super::files::{Files, Found, Walk};
use super::look::{FileId, Seen, SeenFile, look};
use crate::native::header::Limits;
use std::collections::HashSet;
use std::path::PathBuf;

/// A walk under way.
pub(super) struct Scan {
    walk: Walk,
    limits: Limits,
    threads: usize,
    /// The files that may come again under another name.
    known: HashSet<FileId>,
}

impl Scan {
    pub(super) fn new(files: Files, limits: Limits, threads: usize) -> Self {
        Self { walk: files.walk(), limits, threads: threads.max(1), known: HashSet::new() }
    }

    /// What comes next, in the order of the walk; nothing at its end. It reads files, so it is for a thread that
    /// may wait.
    pub(super) fn next(&mut self) -> Vec<SeenFile> {
        let found: Vec<_> = self.walk.by_ref().take(PIECE).collect();
        let share = found.len().div_ceil(self.threads).max(SHARE_MIN);
        let looked = shared(found, share, &self.limits);
        looked.into_iter().map(|seen| self.once(seen)).collect()
    }

    /// Files that are known by several names count once.
    fn once(&mut self, mut seen: SeenFile) -> SeenFile {
        if let Some(id) = seen.id
            && matches!(
                seen.what,
                Seen::Message(_) | Seen::RecordSet(_) | Seen::Unfinished | Seen::Damaged(_) | Seen::Other
            )
        {
            if self.known.contains(&id) {
                seen.what = Seen::Again;
            } else if self.known.len() < KNOWN_MAX {
                self.known.insert(id);
            } else {
                // It never comes again, so that nobody keeps a note of it.
                seen.id = None;
            }
        }
        seen
    }
}

fn shared(found: Vec<Found>, share: usize, limits: &Limits) -> Vec<SeenFile> {
    if found.len() <= share {
        return found.into_iter().map(|found| looked(found, limits)).collect();
    }
    let mut found = found.into_iter();
    let shares: Vec<Vec<_>> =
        std::iter::from_fn(|| Some(found.by_ref().take(share).collect()).filter(|it: &Vec<_>| !it.is_empty()))
            .collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = shares
            .into_iter()
            .map(|share| scope.spawn(move || share.into_iter().map(|found| looked(found, limits)).collect::<Vec<_>>()))
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(looked) => all.extend(looked),
                // The thread that asked for this piece reports it.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    })
}

fn looked(found: Found, limits: &Limits) -> SeenFile {
    let seen = |path: PathBuf, what| SeenFile { path, modified: None, what, by_link: false, id: None };
    match found {
        Found::File(file) => look(file, limits),
        Found::Link(path) => seen(path, Seen::Link),
        Found::Special(path) => seen(path, Seen::Special),
        Found::Unreadable(path, error) => seen(path, Seen::Unreadable(error)),
    }
}

/// Names that are in memory at once.
const PIECE: usize = 256;
/// Looks that are worth a thread.
const SHARE_MIN: usize = 32;
/// Files of several names that are told apart; of more than that, each name counts.
const KNOWN_MAX: usize = 1 << 20;
