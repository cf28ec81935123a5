//! The AWS Encryption SDK for Python: a child process that times itself, one line for each turn, so that
//! it takes its turns among the others.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

pub struct Python {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Of the SDK and of Python.
    pub versions: String,
}

impl Python {
    /// Starts `python` (with the SDK installed) over the bytes of the file `plain`.
    ///
    /// # Errors
    /// Why it could not be done.
    pub fn start(python: &str, plain: &Path, frame_len: usize) -> Result<Self, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/rival.py");
        let mut child = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{python} did not start: {error}"))?;
        let (Some(ask), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the child has no pipes".to_owned());
        };
        let mut python = Self { child, ask, answers: BufReader::new(answers), versions: String::new() };
        let loaded = python.turn(&json!({ "do": "load", "path": plain, "frame_len": frame_len }))?;
        let text = |name: &str| loaded[name].as_str().unwrap_or("?").to_owned();
        python.versions = format!("{} (Python {})", text("ok"), text("python"));
        Ok(python)
    }

    /// What one of `repeat` runs of `what` (`encrypt`, `decrypt`) took.
    pub fn time(&mut self, what: &str, repeat: usize) -> Duration {
        let answer = self.turn(&json!({ "do": what, "repeat": repeat })).expect("the child goes on");
        Duration::from_secs_f64(answer["seconds"].as_f64().expect("a time"))
    }

    fn turn(&mut self, request: &Value) -> Result<Value, String> {
        let mut line = String::new();
        writeln!(self.ask, "{request}")
            .and_then(|()| self.ask.flush())
            .and_then(|()| self.answers.read_line(&mut line))
            .map_err(|error| format!("the Python process is gone: {error}"))?;
        serde_json::from_str(&line).map_err(|_| format!("the Python process ended: its error stands above ({line:?})"))
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
