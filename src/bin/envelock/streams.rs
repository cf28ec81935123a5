//! Standard input and output, and other files that cannot be replaced or read twice.

use crate::failure::Failure;
use envelock::{Error, ErrorKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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

    pub(crate) fn open(&self) -> Result<File, Failure> {
        match self {
            Self::File(path) => File::open(path).map_err(|e| Failure::io(&path.display().to_string(), &e)),
            Self::Stream(stream) => stream.open(),
        }
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

/// Writes a file of mode 0600 that must not exist; what a failure leaves of it is removed.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::AlreadyExists => Failure::kept(path),
        _ => Failure::io(&path.display().to_string(), &e),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| {
        // What is left of it is nothing whole.
        let _ = std::fs::remove_file(path);
        failed(e)
    })
}

/// Standard output without a buffer between.
pub(crate) struct StandardOutput {
    file: File,
    state: Arc<OutputState>,
}

/// How far standard output has come.
#[derive(Debug, Default)]
pub(crate) struct OutputState {
    written: AtomicU64,
    broken: Arc<AtomicBool>,
}

impl OutputState {
    /// Bytes that went out.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// Set once a write has failed.
    pub(crate) fn broken(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.broken)
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }
}

impl StandardOutput {
    pub(crate) fn open() -> Result<Self, Failure> {
        let owned = io::stdout().as_fd().try_clone_to_owned().map_err(|e| Failure::io("standard output", &e))?;
        Ok(Self { file: owned.into(), state: Arc::default() })
    }

    pub(crate) fn state(&self) -> Arc<OutputState> {
        Arc::clone(&self.state)
    }
}

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.file.write(bytes) {
            Ok(count) => {
                self.state.written.fetch_add(count as u64, Ordering::SeqCst);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.state.broken.store(true, Ordering::SeqCst);
                Err(Error::new(ErrorKind::Io, format!("standard output: {error}")).into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file whose reads end with an error soon after a flag is set, though no byte arrives.
pub(crate) struct Interruptible {
    file: File,
    stop: Arc<AtomicBool>,
}

impl Interruptible {
    pub(crate) fn new(file: File, stop: Arc<AtomicBool>) -> Self {
        Self { file, stop }
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
        self.file.read(out)
    }
}
