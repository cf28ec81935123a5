//! Standard input and output, and other files that cannot be replaced or read twice.

use crate::failure::Failure;
use crate::progress::Progress;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use zeroize::Zeroizing;

/// What is read.
#[derive(Debug)]
pub(crate) enum Source {
    /// A regular file.
    File(PathBuf),
    /// Standard input, a pipe with a name, a device.
    Stream(Stream),
}

/// Something that is read once, from its front.
#[derive(Debug)]
pub(crate) struct Stream {
    path: Option<PathBuf>,
}

/// The path that means standard input or output.
pub(crate) fn is_pipe(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A path as messages name it.
pub(crate) fn name(path: &Path) -> String {
    if is_pipe(path) { "standard input".into() } else { path.display().to_string() }
}

impl Source {
    pub(crate) fn of(path: &Path) -> Result<Self, Failure> {
        if is_pipe(path) {
            return Ok(Self::Stream(Stream { path: None }));
        }
        let kind = std::fs::metadata(path).map_err(|e| Failure::io(&path.display().to_string(), &e))?;
        if kind.is_dir() {
            return Err(Failure::usage(format!(
                "{} is a folder; name files, or pipe an archive: `tar c FOLDER | envelock encrypt - -o FOLDER.tar.elk`",
                path.display()
            )));
        }
        Ok(match kind.is_file() {
            true => Self::File(path.into()),
            false => Self::Stream(Stream { path: Some(path.into()) }),
        })
    }
}

impl Stream {
    /// Opens it. A named pipe without a writer waits here.
    pub(crate) fn open(&self) -> Result<File, Failure> {
        match &self.path {
            Some(path) => File::open(path).map_err(|e| Failure::io(&path.display().to_string(), &e)),
            None => match io::stdin().as_fd().try_clone_to_owned() {
                Ok(owned) => Ok(owned.into()),
                Err(e) => Err(Failure::io("standard input", &e)),
            },
        }
    }
}

/// Standard output without a buffer between.
pub(crate) fn standard_output() -> Result<File, Failure> {
    io::stdout().as_fd().try_clone_to_owned().map(File::from).map_err(|e| Failure::io("standard output", &e))
}

/// A file whose reads end with an error soon after a flag is set, though no byte arrives.
pub(crate) struct Interruptible {
    file: File,
    stop: Arc<AtomicBool>,
    progress: Progress,
}

impl Interruptible {
    pub(crate) fn new(file: File, stop: Arc<AtomicBool>, progress: Progress) -> Self {
        Self { file, stop, progress }
    }
}

impl Read for Interruptible {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return Err(io::Error::other("interrupted"));
            }
            match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&TICK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let count = self.file.read(out)?;
        self.progress.advance(count);
        Ok(count)
    }
}

/// Why a copy ended early.
pub(crate) enum Stopped {
    Source(io::Error),
    Target(io::Error),
}

/// Copies all of `source`; the answer is how many bytes went out, also on failure.
pub(crate) fn copy(source: &mut impl Read, target: &mut impl Write, progress: &Progress) -> (u64, Result<(), Stopped>) {
    let mut buffer = Zeroizing::new(vec![0; 1 << 20]);
    let mut done = 0;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return (done, Ok(())),
            Ok(count) => {
                if let Err(error) = target.write_all(buffer.get(..count).unwrap_or_default()) {
                    return (done, Err(Stopped::Target(error)));
                }
                done += count as u64;
                progress.advance(count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Err(Stopped::Source(error))),
        }
    }
}
