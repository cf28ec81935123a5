//! Peer programs: each is started when it is first asked for, and ends with this process.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

/// A running peer. Its supervisor stops it when the pipe closes: on drop, or by the end of this process of whatever kind.
#[derive(Debug)]
pub(crate) struct Peer {
    told: Value,
    supervisor: Child,
    pipe: Option<ChildStdin>,
}

impl Peer {
    /// Starts a peer of its own for the caller. Fails with the end of the peer's log if it does not come up.
    #[track_caller]
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Self {
        Self::try_start(name, arguments).unwrap_or_else(|why| panic!("{why}"))
    }

    fn try_start(name: &str, arguments: &[&str]) -> Result<Self, String> {
        let mut supervisor = Command::new(python()?)
            .arg(root().join("tests/peers/supervise.py"))
            .arg(name)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{name} has no supervisor: {error}"))?;
        let pipe = supervisor.stdin.take();
        let mut line = String::new();
        let out = supervisor.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).map_err(|error| format!("the supervisor of {name}: {error}"))?;
        let told: Value =
            serde_json::from_str(&line).map_err(|_| format!("the supervisor of {name} said {line:?} and no more"))?;
        // Dropped by the error's way out as well, which closes the pipe and waits.
        let peer = Self { told, supervisor, pipe };
        match peer.told.get("failed") {
            Some(why) => {
                Err(format!("{name} is not there, and the tests need it: {}", why.as_str().unwrap_or_default()))
            }
            None => Ok(peer),
        }
    }

    /// A text that it told of itself: `url`, `token`, the path of a certificate.
    #[track_caller]
    pub(crate) fn text(&self, name: &str) -> &str {
        self.told[name].as_str().unwrap_or_else(|| panic!("the peer told no {name}"))
    }

    /// Its process, which leads a group of its own.
    pub(crate) fn pid(&self) -> u64 {
        self.told["pid"].as_u64().expect("a peer tells its process")
    }

    /// Its temporary folder.
    pub(crate) fn folder(&self) -> &Path {
        Path::new(self.text("folder"))
    }

    pub(crate) fn supervisor(&self) -> u32 {
        self.supervisor.id()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.supervisor.wait();
    }
}

/// A peer of the whole process. It is in a static, so it is not dropped: the end of the process closes its pipe.
#[derive(Debug)]
struct Shared(OnceLock<Result<Peer, String>>);

impl Shared {
    const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Started by whoever comes first; where that fails, it fails for all, once.
    #[track_caller]
    fn peer(&self, name: &str, arguments: &[&str]) -> &Peer {
        self.0.get_or_init(|| Peer::try_start(name, arguments)).as_ref().unwrap_or_else(|why| panic!("{why}"))
    }
}

#[track_caller]
pub(crate) fn moto() -> &'static Peer {
    static PEER: Shared = Shared::new();
    PEER.peer("moto", &[])
}

#[track_caller]
pub(crate) fn ministack() -> &'static Peer {
    static PEER: Shared = Shared::new();
    PEER.peer("ministack", &[])
}

#[track_caller]
pub(crate) fn openbao() -> &'static Peer {
    static PEER: Shared = Shared::new();
    PEER.peer("openbao", &[])
}

/// A microburst before moto. Its rules are for all who use it: one test at a time, see [`crate::harness`].
#[track_caller]
pub(crate) fn microburst() -> &'static Peer {
    static PEER: Shared = Shared::new();
    PEER.peer("microburst", &[moto().text("url")])
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Python of the environment that holds the peers, which is made where it is missing.
pub(crate) fn python() -> Result<&'static Path, String> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = PYTHON.get_or_init(|| {
        let mut child = Command::new(root().join("scripts/venv"))
            .args(["peers", "tests/peers/requirements.txt"])
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("scripts/venv: {error}"))?;
        let mut why = String::new();
        let _ = child.stderr.take().expect("it is piped").read_to_string(&mut why);
        let output = child.wait_with_output().map_err(|error| format!("scripts/venv: {error}"))?;
        if !output.status.success() {
            return Err(format!("the peers of the tests could not be installed: {}", why.trim_end()));
        }
        let folder = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        Ok(Path::new(&folder).join("bin/python"))
    });
    made.as_ref().map(PathBuf::as_path).map_err(Clone::clone)
}
