//! A test in a process of its own: the test binary runs the same test again, which is told by the
//! environment that it is the child, and by which words.
//!
//! What a child tells are lines that begin with `@`, so that those of libtest between them do no harm.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
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

/// Waits for one line from the parent; empty once that says no more.
pub(crate) fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim_end().to_owned()
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
    ear: Option<ChildStdin>,
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
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let ear = process.stdin.take();
        let out = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        Self { process, ear, lines, told: Vec::new(), noise: Vec::new() }
    }

    /// The next line that the child tells; `None` once it has ended. Fails if it is silent for too long.
    #[track_caller]
    pub(crate) fn line(&mut self) -> Option<String> {
        loop {
            let line = match self.lines.recv_timeout(patience()) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.process.kill();
                    panic!("the child is silent\n{}\n{}", self.told.join("\n"), self.noise.join("\n"));
                }
            };
            match line.strip_prefix('@') {
                Some(told) => {
                    self.told.push(told.to_owned());
                    return Some(told.to_owned());
                }
                None => self.noise.push(line),
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it told last, once what is on the way from it has had time to arrive; empty if nothing.
    pub(crate) fn last_told(&mut self) -> String {
        std::thread::sleep(Duration::from_millis(1));
        while let Ok(line) = self.lines.try_recv() {
            match line.strip_prefix('@') {
                Some(told) => self.told.push(told.to_owned()),
                None => self.noise.push(line),
            }
        }
        self.told.last().cloned().unwrap_or_default()
    }

    /// Says one line to the child.
    pub(crate) fn say(&mut self, line: impl std::fmt::Display) {
        // A child that has failed hears nothing; its exit status tells.
        let _ = self.ear.as_mut().unwrap().write_all(format!("{line}\n").as_bytes());
    }

    pub(crate) fn ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// Stops it by SIGSTOP, and returns once all its threads have: until [`go_on`](Self::go_on) nothing that
    /// it does changes. False if it has ended.
    pub(crate) fn stop(&self) -> bool {
        self.signal(libc::SIGSTOP);
        // SAFETY: all bits zero is a valid value, and the call writes nothing else; the child is ours, and is
        // left waitable.
        let (waited, code) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let what = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT;
            (libc::waitid(libc::P_PID, self.process.id(), &raw mut info, what), info.si_code)
        };
        assert_eq!(waited, 0, "{}", std::io::Error::last_os_error());
        code == libc::CLD_STOPPED
    }

    pub(crate) fn go_on(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, number: i32) {
        // SAFETY: two numbers; the process is a child that nobody has waited for.
        assert_eq!(unsafe { libc::kill(self.process.id().cast_signed(), number) }, 0);
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

    #[track_caller]
    fn rest(&mut self) -> Vec<String> {
        self.ear = None;
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
fn patience() -> Duration {
    Duration::from_secs(if long() { 1_800 } else { 120 })
}
