//! An interleaving runner: every round runs each case once, so that a noisy neighbour, a clock that
//! changes and a cache that warms meet all of them alike. Ratios are taken within a round, and the
//! median over the rounds is reported with its spread. criterion runs one case after the other, which
//! on a shared machine compares two different machines.
//!
//! Time is the processor time of the thread, system calls included: everything here works on one
//! thread and waits for nothing, so that on an idle machine it is the time on the wall, and on a busy
//! one it leaves out what other programs took.

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

/// One thing to measure.
pub struct Case<'a> {
    name: String,
    work: Box<dyn FnMut() + 'a>,
}

impl<'a> Case<'a> {
    /// `work` does the same amount of work as every other case of the group.
    pub fn new<R>(name: impl Into<String>, mut work: impl FnMut() -> R + 'a) -> Self {
        Self { name: name.into(), work: Box::new(move || drop(black_box(work()))) }
    }
}

/// Cases that are compared with one another.
pub struct Group<'a> {
    title: String,
    amount: Amount,
    /// How often a case runs in a row in one round.
    repeat: usize,
    cases: Vec<Case<'a>>,
}

/// What one run of a case gets done.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "each benchmark compiles this file for itself, and measures one or the other")]
pub enum Amount {
    /// So many bytes: shown as GB/s.
    Bytes(usize),
    /// One message: shown as ns.
    Message,
}

/// The time that each case took in each round, in seconds for one run.
pub struct Measured {
    title: String,
    amount: Amount,
    names: Vec<String>,
    /// By case, then by round.
    seconds: Vec<Vec<f64>>,
}

impl<'a> Group<'a> {
    /// A group whose cases run `repeat` times in a row in every round.
    pub fn new(title: impl Into<String>, amount: Amount, repeat: usize) -> Self {
        Self { title: title.into(), amount, repeat, cases: Vec::new() }
    }

    /// The same group with one more case. The first one is what the table compares with.
    pub fn case<R>(mut self, name: impl Into<String>, work: impl FnMut() -> R + 'a) -> Self {
        self.cases.push(Case::new(name, work));
        self
    }

    /// Runs all cases in turn, `rounds` times; an unmeasured round comes first. Every round begins with
    /// another case, so that none always follows the same one.
    pub fn run(mut self, rounds: usize) -> Measured {
        let count = self.cases.len();
        let mut seconds = vec![Vec::with_capacity(rounds); count];
        for round in 0..=rounds {
            for turn in 0..count {
                let at = (round + turn) % count;
                let work = &mut self.cases[at].work;
                let start = now();
                (0..self.repeat).for_each(|_| work());
                let taken = (now() - start).as_secs_f64() / self.repeat as f64;
                if round > 0 {
                    seconds[at].push(taken);
                }
            }
        }
        let names = self.cases.into_iter().map(|case| case.name).collect();
        Measured { title: self.title, amount: self.amount, names, seconds }
    }
}

impl Measured {
    /// A Markdown table: each case's median, and the median and spread of how fast it is compared with
    /// each of `baselines` (indexes of cases).
    pub fn table(&self, baselines: &[usize]) -> String {
        let unit = match self.amount {
            Amount::Bytes(_) => "GB/s",
            Amount::Message => "ns",
        };
        let against: String = baselines.iter().map(|&at| format!(" speed against {} |", self.names[at])).collect();
        let rules: String = baselines.iter().map(|_| "---|").collect();
        let mut out = format!("\n### {}\n\n| case | median, {unit} |{against}\n|---|---:|{rules}\n", self.title);
        for (case, name) in self.names.iter().enumerate() {
            let median = self.shown(quantile(&self.seconds[case], 0.5));
            let ratios: String = baselines
                .iter()
                .map(|&base| {
                    let ratios = self.speed_against(case, base);
                    let [low, mid, high] = [0.1, 0.5, 0.9].map(|at| quantile(&ratios, at));
                    if case == base { " 1 |".to_owned() } else { format!(" {mid:.2} ({low:.2} to {high:.2}) |") }
                })
                .collect();
            out.push_str(&format!("| {name} | {median} |{ratios}\n"));
        }
        out
    }

    /// How many times as fast as `base` the case `case` was, round by round.
    pub fn speed_against(&self, case: usize, base: usize) -> Vec<f64> {
        self.seconds[base].iter().zip(&self.seconds[case]).map(|(base, case)| base / case).collect()
    }

    fn shown(&self, seconds: f64) -> String {
        match self.amount {
            Amount::Bytes(bytes) => format!("{:.2}", bytes as f64 / seconds / 1e9),
            Amount::Message => format!("{:.0}", seconds * 1e9),
        }
    }

    /// All of it, for other programs.
    pub fn json(&self) -> Value {
        let cases: Vec<_> = self
            .names
            .iter()
            .zip(&self.seconds)
            .enumerate()
            .map(|(at, (name, seconds))| {
                let ratios = self.speed_against(at, 0);
                json!({
                    "name": name,
                    "seconds": seconds,
                    "median_seconds": quantile(seconds, 0.5),
                    "median_speed_against_first": quantile(&ratios, 0.5),
                })
            })
            .collect();
        let bytes = match self.amount {
            Amount::Bytes(bytes) => Some(bytes),
            Amount::Message => None,
        };
        json!({ "title": self.title, "bytes": bytes, "cases": cases })
    }
}

/// Prints what was measured and writes it to `<target>/bench/<name>.json`.
pub struct Report {
    name: &'static str,
    filter: Vec<String>,
    groups: Vec<Value>,
}

impl Report {
    /// A report whose groups may be chosen by words on the command line: a group runs if its title
    /// holds one of them, or if there are none.
    pub fn new(name: &'static str) -> Self {
        let filter = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
        println!("\n## {name}\n\n{}", machine());
        Self { name, filter, groups: Vec::new() }
    }

    /// Whether the group of this title was asked for.
    pub fn wants(&self, title: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|word| title.contains(word))
    }

    /// Prints the group's table and keeps its figures.
    pub fn add(&mut self, measured: &Measured, baselines: &[usize]) {
        print!("{}", measured.table(baselines));
        self.groups.push(measured.json());
    }

    /// Writes the file.
    pub fn write(self) {
        let folder = target().join("bench");
        let path = folder.join(format!("{}.json", self.name));
        let value = json!({ "machine": machine(), "groups": self.groups });
        std::fs::create_dir_all(&folder).expect("the target folder can be written");
        std::fs::write(&path, format!("{value:#}\n")).expect("the target folder can be written");
        println!("\nfigures: {}", path.display());
    }
}

/// The processor, its cores and the build: no name of a host.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field =
        |name| info.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim_matches([':', ' ', '\t']));
    let model = field("model name").unwrap_or("unknown processor");
    let flags = field("flags").unwrap_or_default();
    let notable: Vec<_> =
        flags.split(' ').filter(|flag| ["aes", "vaes", "avx2", "avx512f", "sha_ni"].contains(flag)).collect();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{model} ({}), {cores} cores, {}", notable.join(" "), std::env::consts::OS)
}

/// Cargo's target folder, by the tag that cargo puts there.
fn target() -> PathBuf {
    let program = std::env::current_exe().expect("the program has a path");
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    target.map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

/// Processor time of this thread.
fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Linear between the neighbours.
fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = at * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

/// A buffer whose pages are there already: the first touch of a page costs more than encrypting it.
pub fn touched(len: usize) -> Vec<u8> {
    let mut buffer = vec![0; len];
    // Not a pattern that a processor or a kernel would treat specially.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for chunk in buffer.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    buffer
}
