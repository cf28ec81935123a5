//! A file as a source of ranges, read off the executor.

use crate::envelope::offload::offload;
use crate::error::{Error, Result};
use crate::io::range::source::{FetchAnswer, Fetched, RangeSource, SourceVersion};
use async_trait::async_trait;
use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A regular file whose ranges are read on threads of their own, so that no executor waits for a disk.
/// Needs no runtime.
///
/// Its version is its device, inode, length, times of modification and of change, looked at before and
/// after each read: a file that is written to, replaced or rewrapped meanwhile counts as changed. (A
/// write within the same tick of the file system's clock goes unseen; what it wrote does not
/// authenticate.) For a message whose rewrap in place was interrupted, use
/// [`file_range_reader`](crate::Envelope::file_range_reader), which looks for its journal.
#[derive(Clone, Debug)]
pub struct FileSource {
    file: Arc<File>,
    path: Arc<Path>,
}

impl FileSource {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io), [`InvalidInput`](crate::ErrorKind::InvalidInput) for what is no
    /// regular file: a pipe has no ranges.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        offload(move |_| Self::open_now(path)).await
    }

    fn open_now(path: PathBuf) -> Result<Self> {
        let failed = |e| Error::io_at("the file cannot be opened", &path, e);
        // Before it is opened, since the opening of a pipe waits for somebody to write.
        check_regular(&path.metadata().map_err(failed)?, &path)?;
        let file = File::open(&path).map_err(failed)?;
        check_regular(&file.metadata().map_err(failed)?, &path)?;
        Ok(Self { file: Arc::new(file), path: path.into() })
    }
}

pub(super) fn check_regular(metadata: &Metadata, path: &Path) -> Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(Error::invalid_input("this is no regular file, and only such a file has ranges")
        .with_path(path)
        .with_advice("write what comes from a pipe or device to a file first"))
}

fn version(metadata: &Metadata) -> SourceVersion {
    let of = metadata;
    SourceVersion::new(format!(
        "{:x}-{:x}-{:x}-{:x}.{:x}-{:x}.{:x}",
        of.dev(),
        of.ino(),
        of.len(),
        of.mtime(),
        of.mtime_nsec(),
        of.ctime(),
        of.ctime_nsec()
    ))
}

fn read(file: &File, path: &Path, range: &Range<u64>, pinned: Option<&SourceVersion>) -> Result<FetchAnswer> {
    let failed = |e| Error::io_at("the file cannot be read", path, e);
    let before = file.metadata().map_err(failed)?;
    let version_before = version(&before);
    if pinned.is_some_and(|pinned| *pinned != version_before) {
        return Ok(FetchAnswer::Changed);
    }
    let object_len = before.len();
    let len = range.end.min(object_len).saturating_sub(range.start);
    let len = usize::try_from(len).map_err(|_| Error::invalid_input("the range does not fit into memory"))?;
    let mut bytes = vec![0; len];
    let done = file.read_exact_at(&mut bytes, range.start);
    let after = file.metadata().map_err(failed)?;
    match done {
        // Cut while it was being read.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(FetchAnswer::Changed),
        Err(error) => Err(failed(error)),
        Ok(()) if version(&after) != version_before => Ok(FetchAnswer::Changed),
        Ok(()) => Ok(FetchAnswer::Fetched(Fetched { bytes: bytes.into(), object_len, version: Some(version_before) })),
    }
}

#[async_trait]
impl RangeSource for FileSource {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    async fn fetch(&self, range: Range<u64>, pinned: Option<&SourceVersion>) -> Result<FetchAnswer> {
        let (this, pinned) = (self.clone(), pinned.cloned());
        offload(move |_| read(&this.file, &this.path, &range, pinned.as_ref())).await
    }
}
