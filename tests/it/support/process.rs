//! Tests that need a process of their own: the test binary runs one of its tests again, in a part.
//!
//! The parent calls [`Part::start`], the test function calls [`part`] first and plays the part it is
//! given. What a part says to its parent are lines that begin with `@`, so that libtest's own lines
//! between them do no harm.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const PART: &str = "ENVELOCK_TEST_PART";

/// The part that this process was started for, if it was: its name and what it was given.
pub(crate) fn part() -> Option<Vec<String>> {
    let part = std::env::var(PART).ok()?;
    Some(part.split('\u{1f}').map(str::to_owned).collect())
}

/// Whether counts and sizes are to be the full ones (`scripts/long`).
pub(crate) fn long() -> bool {
    std::env::var("ENVELOCK_LONG").is_ok_and(|value| value == "1")
}

/// Says one line to the parent.
pub(crate) fn tell(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    // A parent that is gone needs no word.
    let _ = writeln!(out, "\n@{line}").and_then(|()| out.flush());
}

/// Waits for one line from the parent; empty if it has closed the pipe.
pub(crate) fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// A running part. Killed and reaped on drop.
pub(crate) struct Part {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// The lines that were not for us: what a failed part printed.
    rest: Vec<u8>,
}

impl Part {
    /// Runs `test` (its path below the crate, `fork::…`) as a part of these words.
    pub(crate) fn start(test: &str, words: &[&str]) -> Self {
        Self::start_by(Command::new(std::env::current_exe().unwrap()), test, words)
    }

    /// As [`start`](Self::start), by another program that is given the test binary's arguments.
    pub(crate) fn start_by(mut command: Command, test: &str, words: &[&str]) -> Self {
        let mut child = command
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(PART, words.join("\u{1f}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, stdin, stdout, rest: Vec::new() }
    }

    /// The next line that the part tells; `None` once it has ended.
    pub(crate) fn line(&mut self) -> Option<String> {
        loop {
            let mut line = Vec::new();
            if self.stdout.read_until(b'\n', &mut line).unwrap() == 0 {
                return None;
            }
            match line.strip_prefix(b"@").and_then(|line| line.strip_suffix(b"\n")) {
                Some(told) => return Some(String::from_utf8(told.to_vec()).unwrap()),
                None => self.rest.extend_from_slice(&line),
            }
        }
    }

    pub(crate) fn say(&mut self, line: impl std::fmt::Display) {
        let stdin = self.stdin.as_mut().unwrap();
        // A part that has failed hears nothing; its exit status tells.
        let _ = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
    }

    /// All further lines of a part that must succeed.
    #[track_caller]
    pub(crate) fn succeed(mut self) -> Vec<String> {
        self.stdin = None;
        let mut lines = Vec::new();
        while let Some(line) = self.line() {
            lines.push(line);
        }
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}\n{}\n{}", lines.join("\n"), String::from_utf8_lossy(&self.rest));
        lines
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It has ended already, unless the test fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
