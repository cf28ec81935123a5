//! A test in a process of its own: the test binary runs the same test again, which is told by the
//! environment that it is the child, and by which words.
//!
//! What a child tells are lines that begin with `@`, so that those of libtest between them do no harm.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const WORDS: &str = "ENVELOCK_TEST_CHILD";

/// The words that this process was started with, if it is a child.
pub(crate) fn words() -> Option<Vec<String>> {
    let words = std::env::var(WORDS).ok()?;
    Some(words.split('\u{1f}').map(str::to_owned).collect())
}

/// Tells the parent one line.
pub(crate) fn tell(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    // In one call, so that a kill leaves a whole line or none. A parent that is gone needs no word.
    let _ = out.write_all(format!("\n@{line}\n").as_bytes()).and_then(|()| out.flush());
}

/// Whether counts and sizes are the full ones (`scripts/long`).
pub(crate) fn long() -> bool {
    std::env::var("ENVELOCK_LONG").is_ok_and(|value| value == "1")
}

/// The most memory that this process had resident at any time, in KiB.
pub(crate) fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// A running child. Killed on drop.
pub(crate) struct Running {
    process: std::process::Child,
    lines: Receiver<String>,
    told: Vec<String>,
    noise: Vec<String>,
}

impl Running {
    /// Runs `test` (its path below the crate, `kill::…`) as a child with these words.
    pub(crate) fn start(test: &str, words: &[&str]) -> Self {
        Self::start_by(Command::new(std::env::current_exe().unwrap()), test, words)
    }

    /// As [`start`](Self::start), by a program that runs the test binary with the arguments appended.
    pub(crate) fn start_by(mut command: Command, test: &str, words: &[&str]) -> Self {
        let mut process = command
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(WORDS, words.join("\u{1f}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        Self { process, lines, told: Vec::new(), noise: Vec::new() }
    }

    /// The next line that the child tells; `None` once it has ended.
    pub(crate) fn line(&mut self) -> Option<String> {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).ok()?;
            match line.strip_prefix('@') {
                Some(told) => {
                    self.told.push(told.to_owned());
                    return Some(told.to_owned());
                }
                None => self.noise.push(line),
            }
        }
    }

    pub(crate) fn ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// Kills it by SIGKILL; all that it ever told.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.rest()
    }

    /// Waits for its success; all that it ever told.
    #[track_caller]
    pub(crate) fn succeed(mut self) -> Vec<String> {
        let told = self.rest();
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}\n{}\n{}", told.join("\n"), self.noise.join("\n"));
        told
    }

    fn rest(&mut self) -> Vec<String> {
        while self.line().is_some() {}
        self.process.wait().unwrap();
        std::mem::take(&mut self.told)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, unless the test fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Names in `folder` that a run which was killed left behind: temporary files and journals of the
/// files there, with their lengths.
pub(crate) fn leftovers(folder: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".envelock-tmp") || name.ends_with(".rewrap") {
            // It may be gone by now.
            let Ok(metadata) = entry.metadata() else { continue };
            found.push((name, metadata.len()));
        }
    }
    found
}

/// How long a child may be silent: more than the longest piece of work of any test.
const PATIENCE: Duration = Duration::from_secs(600);
