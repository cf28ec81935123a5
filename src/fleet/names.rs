//! Files of several names, while they are moved: one that does not fit is copied, and its other names keep what was
//! there.

use super::files::FoundFile;
use super::look::FileId;
use super::outcome::Outcome;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The other names of files that a run works on.
#[derive(Debug, Default)]
pub(super) struct Names {
    files: HashMap<FileId, State>,
    /// The names under which files are worked on.
    under_way: HashMap<PathBuf, FileId>,
    waiting: usize,
}

#[derive(Debug)]
enum State {
    /// Names that came while the first one was worked on.
    UnderWay(Vec<FoundFile>),
    /// The slots were changed in place, for all names.
    Settled,
    /// Whatever the first name stands for now, others may stand for the file as it was.
    Open,
}

/// What becomes of a further name.
#[derive(Debug)]
pub(super) enum Further {
    /// Nothing: it is the same file.
    Same,
    /// It is kept until the first name is done.
    Waits,
    /// It is a file of its own.
    Own(FoundFile),
    TooMany,
}

impl Names {
    pub(super) fn begin(&mut self, id: FileId, path: &Path) {
        self.under_way.insert(path.to_path_buf(), id);
        self.files.insert(id, State::UnderWay(Vec::new()));
    }

    /// A further name of the file `id`, which was seen under another one before.
    pub(super) fn further(&mut self, id: FileId, name: FoundFile) -> Further {
        match self.files.get_mut(&id) {
            Some(State::UnderWay(_)) if self.waiting >= WAITING_MAX => Further::TooMany,
            Some(State::UnderWay(others)) => {
                others.push(name);
                self.waiting += 1;
                Further::Waits
            }
            Some(State::Open) => Further::Own(name),
            Some(State::Settled) | None => Further::Same,
        }
    }

    /// What became of the name `path`: the names that waited for it, and whether they are files of their own.
    pub(super) fn ended(&mut self, path: &Path, outcome: &Outcome) -> (Vec<FoundFile>, bool) {
        let same = match outcome {
            Outcome::PutOff(_) => return (Vec::new(), false),
            Outcome::Rewrapped(change) => !change.copied,
            // It is told, and they are as it is.
            Outcome::Failed(_) => true,
            // Somebody else may have copied it meanwhile, or put something in its place.
            _ => false,
        };
        let Some(id) = self.under_way.remove(path) else { return (Vec::new(), false) };
        let state = if same { State::Settled } else { State::Open };
        let Some(State::UnderWay(others)) = self.files.insert(id, state) else { return (Vec::new(), false) };
        self.waiting -= others.len();
        (others, !same)
    }
}

/// Names that wait at once.
const WAITING_MAX: usize = 1 << 16;
