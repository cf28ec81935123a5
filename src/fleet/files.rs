//! Which files: trees, and lists of paths.

use crate::error::{Error, ErrorKind, Result};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use walkdir::{DirEntry, WalkDir};

/// The files that a fleet is made of.
///
/// A folder stands for all regular files below it. Symbolic links in it are not followed, so that nothing is
/// found in a loop; one that is named itself is. What is no regular file, a pipe or a device, is never opened.
#[derive(Debug, Default)]
pub struct Files {
    sources: VecDeque<Source>,
    links: Links,
}

/// What ends a path in a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Separator {
    /// A line feed, as `find` writes them: no path with one in it can be named.
    #[default]
    Line,
    /// A zero byte, as `find -print0` writes them.
    Nul,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Links {
    #[default]
    Leave,
    Follow,
}

enum Source {
    Path(PathBuf),
    List(List),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::List(list) => write!(f, "a list by {:?}", list.separator),
        }
    }
}

impl Files {
    /// These files, and all files below these folders.
    pub fn below<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
        let sources = paths.into_iter().map(|path| Source::Path(path.into())).collect();
        Self { sources, links: Links::default() }
    }

    /// The same, and those that `list` names: each path a file or a folder, of at most 4,096 bytes.
    #[must_use]
    pub fn and_list(mut self, list: impl Read + Send + 'static, separator: Separator) -> Self {
        self.sources.push_back(Source::List(List { reader: BufReader::new(Box::new(list)), separator }));
        self
    }

    /// The same, through symbolic links too. A link to a folder above it is reported and not followed; a file
    /// that is found by several names counts once.
    #[must_use]
    pub fn following_links(mut self) -> Self {
        self.links = Links::Follow;
        self
    }

    pub(super) fn walk(self) -> Walk {
        Walk { sources: self.sources, links: self.links, tree: None }
    }
}

/// What a walk comes by.
pub(super) enum Found {
    File(FoundFile),
    /// A symbolic link that is not followed.
    Link(PathBuf),
    /// A pipe, a socket, a device.
    Special(PathBuf),
    Unreadable(PathBuf, Error),
}

/// A regular file, as far as a look at its name told.
#[derive(Clone, Debug)]
pub(super) struct FoundFile {
    pub(super) path: PathBuf,
    /// It may have other names in the walk, or be one for another file.
    pub(super) by_link: bool,
}

pub(super) struct Walk {
    sources: VecDeque<Source>,
    links: Links,
    tree: Option<walkdir::IntoIter>,
}

impl Iterator for Walk {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            if let Some(tree) = &mut self.tree {
                match tree.next() {
                    Some(Ok(entry)) if entry.file_type().is_dir() => continue,
                    Some(Ok(entry)) => match self.entry(entry) {
                        Some(found) => return Some(found),
                        None => continue,
                    },
                    Some(Err(error)) => return Some(failed(error)),
                    None => self.tree = None,
                }
            }
            let path = match self.sources.front_mut()? {
                Source::Path(path) => {
                    let path = std::mem::take(path);
                    self.sources.pop_front();
                    path
                }
                Source::List(list) => match list.next() {
                    Ok(Some(path)) => path,
                    Ok(None) => {
                        self.sources.pop_front();
                        continue;
                    }
                    Err(error) => {
                        if error.kind() == ErrorKind::Io {
                            self.sources.pop_front();
                        }
                        return Some(Found::Unreadable(PathBuf::new(), error));
                    }
                },
            };
            let tree = WalkDir::new(path).follow_links(self.links == Links::Follow).max_open(OPEN_FOLDERS);
            self.tree = Some(tree.into_iter());
        }
    }
}

impl Walk {
    /// `None` for a link that was named itself and leads to a folder: what is in there comes next.
    fn entry(&self, entry: DirEntry) -> Option<Found> {
        let by_link = self.links == Links::Follow || entry.path_is_symlink();
        let kind = entry.file_type();
        let (depth, path) = (entry.depth(), entry.into_path());
        if kind.is_symlink() {
            if depth > 0 {
                return Some(Found::Link(path));
            }
            return match fs::metadata(&path) {
                Ok(there) if there.is_dir() => None,
                Ok(there) if there.is_file() => Some(Found::File(FoundFile { path, by_link })),
                Ok(_) => Some(Found::Special(path)),
                Err(e) => Some(unreadable(path, e)),
            };
        }
        Some(if kind.is_file() { Found::File(FoundFile { path, by_link }) } else { Found::Special(path) })
    }
}

fn failed(error: walkdir::Error) -> Found {
    let path = error.path().unwrap_or(std::path::Path::new("")).to_path_buf();
    if error.loop_ancestor().is_some() {
        return Found::Link(path);
    }
    let source = error.into_io_error().unwrap_or_else(|| std::io::ErrorKind::Other.into());
    unreadable(path, source)
}

fn unreadable(path: PathBuf, source: std::io::Error) -> Found {
    let error = Error::io_at("this cannot be looked at", &path, source);
    Found::Unreadable(path, error)
}

/// Paths, one after the other.
struct List {
    reader: BufReader<Box<dyn Read + Send>>,
    separator: Separator,
}

impl List {
    /// # Errors
    /// Kind Io if nothing more can be read; LimitExceeded for a path that is none, after which the next follows.
    fn next(&mut self) -> Result<Option<PathBuf>> {
        let end = match self.separator {
            Separator::Line => b'\n',
            Separator::Nul => 0,
        };
        let mut path = Vec::new();
        let mut too_long = false;
        loop {
            let bytes = match self.reader.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("the list of files cannot be read", error)),
            };
            let (piece, used, done) = match bytes.iter().position(|byte| *byte == end) {
                Some(at) => (bytes.get(..at).unwrap_or_default(), at + 1, true),
                None => (bytes, bytes.len(), bytes.is_empty()),
            };
            let last = bytes.is_empty();
            too_long |= path.len() + piece.len() > PATH_LEN_MAX;
            if !too_long {
                path.extend_from_slice(piece);
            }
            self.reader.consume(used);
            if !done {
                continue;
            }
            if too_long {
                return Err(Error::limit(format!("the list of files has a path of more than {PATH_LEN_MAX} bytes"))
                    .with_advice("check how its paths are separated: by line ends, or by zero bytes"));
            }
            match (path.is_empty(), last) {
                (false, _) => return Ok(Some(OsString::from_vec(path).into())),
                (true, true) => return Ok(None),
                // An empty line names nothing.
                (true, false) => {}
            }
        }
    }
}

/// Folders that are open at once: below that depth, the outermost one's names are kept in memory instead.
const OPEN_FOLDERS: usize = 32;
/// The longest path in a list.
const PATH_LEN_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &[u8], separator: Separator) -> Vec<Result<PathBuf, ErrorKind>> {
        let mut list =
            List { reader: BufReader::with_capacity(7, Box::new(std::io::Cursor::new(text.to_vec()))), separator };
        std::iter::from_fn(|| list.next().map_err(|error| error.kind()).transpose()).collect()
    }

    #[test]
    fn a_list_is_cut_at_its_separators_and_nowhere_else() {
        let named = |all: &[&str]| all.iter().map(|it| Ok(PathBuf::from(it))).collect::<Vec<_>>();
        assert_eq!(
            paths(b"a\nb c\n\nlonger than the buffer\n", Separator::Line),
            named(&["a", "b c", "longer than the buffer"])
        );
        assert_eq!(paths(b"a\nb\0c", Separator::Nul), named(&["a\nb", "c"]));
        assert_eq!(paths(b"", Separator::Line), named(&[]));
        assert_eq!(paths(b"no end", Separator::Line), named(&["no end"]));
    }

    #[test]
    fn a_path_that_is_too_long_is_reported_and_the_next_one_follows() {
        let text = [&[b'x'; 5_000][..], b"\nb\n"].concat();
        assert_eq!(paths(&text, Separator::Line), [Err(ErrorKind::LimitExceeded), Ok(PathBuf::from("b"))]);
    }
}
