//! An interleaving runner: every round runs each case once, so that a noisy neighbour, a clock that
//! changes and a cache that warms meet all of them alike. Ratios are taken within a round, and the
//! median over the rounds is reported with its spread. criterion runs one case after the other, which
//! on a shared machine compares two different machines.

#![allow(dead_code, reason = "each benchmark compiles this folder for itself, and uses a part of it")]

pub mod bulk;
pub mod raw;
pub mod report;
pub mod subject;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::hint::black_box;
use std::time::Duration;

/// One thing to measure.
struct Case<'a> {
    name: String,
    /// Runs it so many times in a row, and returns the time that one run took.
    work: Box<dyn FnMut(usize) -> Duration + 'a>,
    /// It runs in one round of so many: a slow one must not make the whole run long.
    every: usize,
}

/// Cases that are compared with one another.
pub struct Group<'a> {
    id: String,
    title: String,
    amount: Amount,
    clock: Clock,
    /// How often a case runs in a row in one round.
    repeat: usize,
    cases: Vec<Case<'a>>,
}

/// What one run of a case gets done.
#[derive(Clone, Copy)]
pub enum Amount {
    /// So many bytes: shown as GB/s.
    Bytes(usize),
    /// One message or range: shown as ns.
    Message,
}

/// Which time is taken.
#[derive(Clone, Copy)]
pub enum Clock {
    /// Processor time of the process, system calls included: for work that keeps one core busy and
    /// waits for nothing. On an idle machine it is the time on the wall; on a busy one it leaves out
    /// what other programs took. A rival that starts threads of its own pays for them.
    Processor,
    /// Time on the wall: for several threads at once, and for disks.
    Wall,
}

/// The time that each case took in each round, in seconds for one run.
pub struct Measured {
    pub id: String,
    pub title: String,
    amount: Amount,
    clock: Clock,
    names: Vec<String>,
    /// By case, then by round; `None` where a case sat the round out.
    seconds: Vec<Vec<Option<f64>>>,
}

/// A median with the 10th and the 90th percentile.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl<'a> Group<'a> {
    /// A group of this name for programs and this title for people. Its cases run `repeat` times in a
    /// row in every round.
    pub fn new(id: impl Into<String>, title: impl Into<String>, amount: Amount, repeat: usize) -> Self {
        Self { id: id.into(), title: title.into(), amount, clock: Clock::Processor, repeat, cases: Vec::new() }
    }

    /// The same group by another clock than the processor's.
    pub fn by(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The same group with one more case, which does the same amount of work as every other.
    pub fn case<R>(self, name: impl Into<String>, mut work: impl FnMut() -> R + 'a) -> Self {
        let clock = self.clock;
        self.push(name.into(), 1, move |repeat| {
            let start = clock.now();
            (0..repeat).for_each(|_| drop(black_box(work())));
            clock.now().saturating_sub(start) / repeat as u32
        })
    }

    /// One more case, which is slow and runs in one round of `every` only.
    pub fn seldom<R>(mut self, every: usize, name: impl Into<String>, work: impl FnMut() -> R + 'a) -> Self {
        self = self.case(name, work);
        self.cases.last_mut().expect("just added").every = every;
        self
    }

    /// One more case that takes its own time (another program's, say): told how often to run, it
    /// answers with the time of one run. It runs in one round of `every`.
    pub fn self_timed(self, every: usize, name: impl Into<String>, work: impl FnMut(usize) -> Duration + 'a) -> Self {
        self.push(name.into(), every, work)
    }

    fn push(mut self, name: String, every: usize, work: impl FnMut(usize) -> Duration + 'a) -> Self {
        self.cases.push(Case { name, work: Box::new(work), every });
        self
    }

    /// Runs all cases in turn, `rounds` times; an unmeasured round comes first. Every round begins with
    /// another case, so that none always follows the same one.
    ///
    /// `ENVELOCK_BENCH_ROUNDS` says fewer: to see that everything runs. Such figures are not rendered.
    pub fn run(mut self, rounds: usize) -> Measured {
        let rounds = limited_rounds().map_or(rounds, |most| rounds.min(most));
        let count = self.cases.len();
        let mut seconds = vec![Vec::with_capacity(rounds); count];
        for round in 0..=rounds {
            for turn in 0..count {
                let at = (round + turn) % count;
                let case = &mut self.cases[at];
                // Round 0 warms up, round 1 is the first that counts: everybody is in both.
                let sits_out = round > 1 && !(round - 1).is_multiple_of(case.every);
                let taken = (!sits_out).then(|| (case.work)(self.repeat).as_secs_f64());
                if round > 0 {
                    seconds[at].push(taken);
                }
            }
        }
        let names = self.cases.into_iter().map(|case| case.name).collect();
        let Self { id, title, amount, clock, .. } = self;
        Measured { id, title, amount, clock, names, seconds }
    }
}

impl Measured {
    /// A Markdown table: each case's median, and the median and spread of how fast it is compared with
    /// each of `baselines` (names of cases).
    pub fn table(&self, baselines: &[&str]) -> String {
        let unit = match self.amount {
            Amount::Bytes(_) => "GB/s",
            Amount::Message => "ns",
        };
        let against: String = baselines.iter().map(|name| format!(" speed against {name} |")).collect();
        let rules: String = baselines.iter().map(|_| "---|").collect();
        let mut out = format!("\n### {}\n\n| case | median, {unit} |{against}\n|---|---:|{rules}\n", self.title);
        for name in &self.names {
            let median = self.seconds(name).map_or_else(|| "-".to_owned(), |seconds| self.shown(seconds.median));
            let ratios: String = baselines
                .iter()
                .map(|base| match self.speed_against(name, base) {
                    _ if name == base => " 1 |".to_owned(),
                    Some(Spread { low, median, high }) => format!(" {median:.2} ({low:.2} to {high:.2}) |"),
                    None => " - |".to_owned(),
                })
                .collect();
            out.push_str(&format!("| {name} | {median} |{ratios}\n"));
        }
        out
    }

    /// The names of the cases, in the order in which they were added.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// What one run of a case took, in seconds; `None` if there is no such case.
    pub fn seconds(&self, case: &str) -> Option<Spread> {
        Spread::of(self.rounds(case)?.iter().flatten().copied().collect())
    }

    /// GB/s of a case, or messages a second in thousands.
    pub fn speed(&self, case: &str) -> Option<Spread> {
        let amount = match self.amount {
            Amount::Bytes(bytes) => bytes as f64 / 1e9,
            Amount::Message => 1e-3,
        };
        Spread::of(self.rounds(case)?.iter().flatten().map(|seconds| amount / seconds).collect())
    }

    /// How many times as fast as `base` a case was: taken within the rounds in which both ran.
    pub fn speed_against(&self, case: &str, base: &str) -> Option<Spread> {
        let pairs = self.rounds(base)?.iter().zip(self.rounds(case)?);
        Spread::of(pairs.filter_map(|(base, case)| Some((*base)? / (*case)?)).collect())
    }

    fn rounds(&self, case: &str) -> Option<&[Option<f64>]> {
        let at = self.names.iter().position(|name| name == case)?;
        self.seconds.get(at).map(Vec::as_slice)
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
            .map(|(name, seconds)| {
                let spread = self.seconds(name);
                json!({
                    "name": name,
                    "median_seconds": spread.map(|spread| spread.median),
                    "p10_seconds": spread.map(|spread| spread.low),
                    "p90_seconds": spread.map(|spread| spread.high),
                    "seconds": seconds,
                })
            })
            .collect();
        let bytes = match self.amount {
            Amount::Bytes(bytes) => Some(bytes),
            Amount::Message => None,
        };
        let clock = match self.clock {
            Clock::Processor => "processor",
            Clock::Wall => "wall",
        };
        json!({ "id": self.id, "title": self.title, "bytes": bytes, "clock": clock, "cases": cases })
    }

    /// Reads what [`json`](Self::json) wrote; `None` if it is something else.
    pub fn from_json(value: &Value) -> Option<Self> {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let cases = value["cases"].as_array()?;
        let rounds = |case: &Value| Some(case["seconds"].as_array()?.iter().map(Value::as_f64).collect());
        Some(Self {
            id: text("id")?,
            title: text("title")?,
            amount: value["bytes"].as_u64().map_or(Amount::Message, |bytes| Amount::Bytes(bytes as usize)),
            clock: if value["clock"] == "wall" { Clock::Wall } else { Clock::Processor },
            names: cases.iter().map(|case| case["name"].as_str().map(str::to_owned)).collect::<Option<_>>()?,
            seconds: cases.iter().map(rounds).collect::<Option<_>>()?,
        })
    }
}

impl Spread {
    /// `None` of nothing.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        // Linear between the neighbours.
        let quantile = |at: f64| {
            let place = at * (values.len() - 1) as f64;
            let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        (!values.is_empty()).then(|| Self { low: quantile(0.1), median: quantile(0.5), high: quantile(0.9) })
    }
}

impl Clock {
    pub fn now(self) -> Duration {
        let time = clock_gettime(match self {
            Self::Processor => ClockId::ProcessCPUTime,
            Self::Wall => ClockId::Monotonic,
        });
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

/// The most rounds that this run may take, if there is a limit.
pub fn limited_rounds() -> Option<usize> {
    std::env::var("ENVELOCK_BENCH_ROUNDS").ok()?.parse().ok().filter(|&most| most > 0)
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
