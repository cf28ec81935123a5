//! What was measured, printed and kept.

use super::{Measured, limited_rounds};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Prints what was measured and writes it to `<target>/bench/<name>.json`.
pub struct Report {
    name: &'static str,
    filter: Vec<String>,
    groups: Vec<Value>,
    facts: Vec<(String, Value)>,
}

impl Report {
    /// A report whose groups may be chosen by `words`: a group runs if its id or title holds one of
    /// them, or if there are none.
    pub fn new(name: &'static str, words: impl IntoIterator<Item = String>) -> Self {
        let filter = words.into_iter().filter(|word| !word.starts_with('-')).collect();
        println!("\n## {name}\n\n{}", machine());
        Self { name, filter, groups: Vec::new(), facts: Vec::new() }
    }

    /// Whether the group of this id or title was asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|word| name.contains(word.as_str()))
    }

    /// Prints the group's table and keeps its figures.
    pub fn add(&mut self, measured: &Measured, baselines: &[&str]) {
        print!("{}", measured.table(baselines));
        self.groups.push(measured.json());
    }

    /// Keeps a figure that is no time, or why one is not there.
    pub fn fact(&mut self, name: impl Into<String>, value: Value) {
        let name = name.into();
        println!("\n{name}: {value}");
        self.facts.push((name, value));
    }

    /// Writes the file, and returns what it holds.
    pub fn write(self) -> Value {
        let facts: serde_json::Map<_, _> = self.facts.into_iter().collect();
        let value = json!({
            "name": self.name,
            "machine": machine(),
            "system": system(),
            "revision": output("git", &["describe", "--always", "--dirty", "--exclude=*"]),
            "rustc": output("rustc", &["--version"]),
            "unix_time": std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |at| at.as_secs()),
            "load_at_end": load(),
            "chosen": self.filter,
            "rounds_limited_to": limited_rounds(),
            "facts": facts,
            "groups": self.groups,
        });
        let path = folder().join(format!("{}.json", self.name));
        std::fs::write(&path, format!("{value:#}\n")).expect("the target folder can be written");
        println!("\nfigures: {}", path.display());
        value
    }
}

/// Where figures and scratch files go: where `ENVELOCK_BENCH_OUT` says, or `bench` in cargo's target
/// folder, which cargo marks with a tag.
pub fn folder() -> PathBuf {
    let program = std::env::current_exe().expect("the program has a path");
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    let named = std::env::var_os("ENVELOCK_BENCH_OUT").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| target.unwrap_or(Path::new("target")).join("bench"));
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}

/// The processor, its cores and memory: no name of a host.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field =
        |name| info.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim_matches([':', ' ', '\t']));
    let model = field("model name").unwrap_or("unknown processor");
    let flags = field("flags").unwrap_or_default();
    let known = ["aes", "vaes", "avx2", "avx512f", "vpclmulqdq", "sha_ni"];
    let notable: Vec<_> = flags.split(' ').filter(|flag| known.contains(flag)).collect();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
    format!("{model} ({}), {cores} cores, {} GiB", notable.join(" "), kib.div_ceil(1 << 20))
}

fn system() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {}", std::env::consts::OS, kernel.split(['-', '\n']).next().unwrap_or_default())
}

/// How many programs wanted a core over the last minute: whether others were at work.
fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
