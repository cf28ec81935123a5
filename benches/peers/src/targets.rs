//! The table of targets: what each shape of work must reach, against what, and what was measured.

use crate::common::Spread;
use crate::common::bulk::{ONE_SHOT, RAW, RAW_COPY, STREAM, STREAM_WHOLE};
use crate::measure::{asynchronous, files, ranges, records, rivals, small, threads};
use crate::results::Results;

/// One line of the table.
pub struct Target {
    pub work: &'static str,
    /// The same for the axis of a chart.
    pub short: &'static str,
    pub bound: Bound,
    pub parts: Vec<Part>,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub enum Bound {
    /// So many times the speed of the other.
    Speed(f64),
    /// At most so many times the time of the other.
    Time(f64),
    /// At most so many MiB.
    Mib(f64),
}

/// One measurement that the line rests on.
pub struct Part {
    pub name: String,
    source: Source,
}

enum Source {
    /// A case and the one that it is compared with, in a group.
    Ratio { group: String, case: &'static str, base: &'static str },
    /// The largest of a setting's peaks over all lengths.
    Peak { direction: &'static str, setting: &'static str },
}

/// What was measured of one part, in the unit of its bound.
pub struct Outcome {
    pub value: Spread,
    /// The same as a share of the bound: at least 1 is met.
    pub of_bound: Spread,
}

/// All lines, by shape of work.
pub fn all() -> Vec<Target> {
    let bulk = |kib: u32, case, base| both(|direction| format!("bulk-aes-{kib}-{direction}"), case, base);
    let against = |case, base| both(|direction| format!("rivals-{direction}"), case, base);
    let small = |case, base| lengths(["encrypt", "decrypt"], |len, way| (format!("small-{len}-{way}"), case, base));
    let peak = |setting| {
        ["encrypt", "decrypt"]
            .map(|direction| Part { name: direction.to_owned(), source: Source::Peak { direction, setting } })
            .into()
    };
    let values = |case, base| lengths(["seal", "open"], |len, way| (format!("values-{len}-{way}"), case, base));
    let line = |work, short, bound, parts| Target { work, short, bound, parts };
    use Bound::{Mib, Speed, Time};
    vec![
        line(
            "256 MiB slice to slice, one-shot, against the ideal loop; segments of 1 MiB",
            "one-shot, 1 MiB segments",
            Speed(0.97),
            bulk(1024, ONE_SHOT, RAW),
        ),
        line("the same, segments of 64 KiB", "one-shot, 64 KiB segments", Speed(0.93), bulk(64, ONE_SHOT, RAW)),
        line(
            "through `Write` and `Read` in pieces of 64 KiB, against the ideal loop and one copy; segments of 1 MiB",
            "stream, 1 MiB segments",
            Speed(0.93),
            bulk(1024, STREAM, RAW_COPY),
        ),
        line("the same, segments of 64 KiB", "stream, 64 KiB segments", Speed(0.93), bulk(64, STREAM, RAW_COPY)),
        line(
            "through `Write` and `Read` in one piece, the same; segments of 1 MiB",
            "stream in one piece, 1 MiB",
            Speed(0.93),
            bulk(1024, STREAM_WHOLE, RAW_COPY),
        ),
        line(
            "the same, segments of 64 KiB",
            "stream in one piece, 64 KiB",
            Speed(0.93),
            bulk(64, STREAM_WHOLE, RAW_COPY),
        ),
        line(
            "against `fast-floe`'s writer and reader, 64 KiB",
            "fast-floe stream, 64 KiB",
            Speed(1.2),
            against(rivals::ENVELOCK_STREAM[0], rivals::FLOE_STREAM[0]),
        ),
        line(
            "the same, 1 MiB",
            "fast-floe stream, 1 MiB",
            Speed(1.2),
            against(rivals::ENVELOCK_STREAM[1], rivals::FLOE_STREAM[1]),
        ),
        line(
            "against `fast-floe`'s one-shot, both to a new `Vec`, 64 KiB",
            "fast-floe whole, 64 KiB",
            Speed(1.4),
            against(rivals::ENVELOCK_WHOLE[0], rivals::FLOE_WHOLE[0]),
        ),
        line(
            "the same, 1 MiB",
            "fast-floe whole, 1 MiB",
            Speed(1.4),
            against(rivals::ENVELOCK_WHOLE[1], rivals::FLOE_WHOLE[1]),
        ),
        line(
            "against `fast-floe`'s one-shot, ours slice to slice (it has no such call), 64 KiB",
            "fast-floe whole, slice, 64 KiB",
            Speed(1.4),
            against(rivals::ENVELOCK_SLICE[0], rivals::FLOE_WHOLE[0]),
        ),
        line(
            "the same, 1 MiB",
            "fast-floe whole, slice, 1 MiB",
            Speed(1.4),
            against(rivals::ENVELOCK_SLICE[1], rivals::FLOE_WHOLE[1]),
        ),
        line(
            "slice to slice, 64 KiB, against `age`",
            "age, slice",
            Speed(3.0),
            against(rivals::ENVELOCK_SLICE[0], rivals::AGE),
        ),
        line(
            "against `age`, stream against stream, 64 KiB",
            "age",
            Speed(3.5),
            against(rivals::ENVELOCK_STREAM[0], rivals::AGE),
        ),
        line(
            "against `tink-rs`, stream against stream, 1 MiB",
            "tink-rs",
            Speed(4.0),
            against(rivals::ENVELOCK_STREAM[1], rivals::TINK[1]),
        ),
        line(
            "against `aws-esdk`, whole against whole, 64 KiB",
            "aws-esdk",
            Speed(20.0),
            against(rivals::ENVELOCK_WHOLE[0], rivals::AWS),
        ),
        line(
            "two threads against one, slice to slice, AES-256-GCM",
            "two threads, AES",
            Speed(1.4),
            both(|direction| format!("threads-aes-{direction}"), threads::TWO, threads::ONE),
        ),
        line(
            "the same, ChaCha20-Poly1305",
            "two threads, ChaCha20",
            Speed(1.8),
            both(|direction| format!("threads-chacha-{direction}"), threads::TWO, threads::ONE),
        ),
        line(
            "async against sync, pieces of 64 KiB, one core",
            "async",
            Speed(0.9),
            both(|direction| format!("async-{direction}"), asynchronous::ASYNC, asynchronous::SYNC),
        ),
        line(
            "a file of 256 MiB to a file, against `dd bs=1M conv=fsync`",
            "file, against dd",
            Time(1.25),
            both(|direction| format!("file-{direction}"), files::FILE, files::DD),
        ),
        line(
            "4 KiB random reads of a 1 GiB message, against the raw AEAD on the touched segments",
            "random reads",
            Time(1.3),
            vec![
                ratio("in memory", "range-memory", ranges::READER, ranges::RAW),
                ratio("in a file", "range-file", ranges::READER, ranges::RAW),
            ],
        ),
        line("peak resident memory of the program, one thread", "memory, one thread", Mib(32.0), peak("one thread")),
        line("the same, two threads", "memory, two threads", Mib(48.0), peak("two threads")),
        line(
            "100 B and 1 KiB, data key at hand, against `fast-floe`",
            "data key at hand",
            Speed(1.5),
            small(small::AT_HAND, small::FLOE),
        ),
        line("the same with a raw key's wrap on top", "raw key's wrap", Speed(1.0), small(small::WRAPPED, small::FLOE)),
        line(
            "100 B under a raw key, nothing cached, against its bare primitives",
            "100 B, bare primitives",
            Time(1.3),
            vec![
                ratio("encrypt", "bare-100-encrypt", "`Envelope::encrypt`", "bare primitives"),
                ratio("decrypt", "bare-100-decrypt", "`Envelope::decrypt`", "bare primitives"),
            ],
        ),
        line(
            "a cached data key, found, against 24 random bytes of the system",
            "cache hit",
            Time(0.5),
            vec![
                ratio("encrypt", "cache-hit", "to encrypt", "24 random bytes of the system"),
                ratio("decrypt", "cache-hit", "to decrypt", "24 random bytes of the system"),
            ],
        ),
        line(
            "100 B under a cached data key, against its bare primitives",
            "100 B cached, bare primitives",
            Time(1.2),
            vec![
                ratio("encrypt", "cached-100-encrypt", "`Envelope::encrypt`", "bare primitives"),
                ratio("decrypt", "cached-100-decrypt", "`Envelope::decrypt`", "bare primitives"),
            ],
        ),
        line(
            "1,000 tenants, 100 B, cached: 16 threads against one, on 2 cores, on the wall",
            "16 threads, 1,000 tenants",
            Speed(1.8),
            both(|direction| format!("cache-tenants-{direction}"), "16 threads", "one thread"),
        ),
        line(
            "a compact record of 100 B and 1 KiB, its set at hand, against its bare primitives",
            "record, bare primitives",
            Time(1.25),
            lengths(["seal", "open"], |len, way| {
                let case = if way == "seal" { "`RecordSet::seal`" } else { "`RecordSet::open`" };
                (format!("record-{len}-{way}"), case, "bare primitives")
            }),
        ),
        line(
            "the same sealed in batches of 100, random bytes drawn once on both sides",
            "records in batches, bare primitives",
            Time(1.25),
            vec![
                ratio("100 B seal", "record-100-batch", "`RecordSet::seal_batch`", "bare primitives"),
                ratio("1 KiB seal", "record-1024-batch", "`RecordSet::seal_batch`", "bare primitives"),
            ],
        ),
        line(
            "a record, its set from the cache and at hand, against an envelope of `tink-rs` under a local key",
            "record, tink-rs",
            Speed(1.0),
            values(records::RECORD, records::TINK_ENVELOPE),
        ),
        line(
            "the same in batches of 100",
            "records in batches, tink-rs",
            Speed(2.0),
            values(records::IN_BATCHES, records::TINK_ENVELOPE),
        ),
        line("a record against `aws-esdk`", "record, aws-esdk", Speed(150.0), values(records::RECORD, small::AWS)),
        line(
            "a message under a cached data key against `aws-esdk`",
            "cached message, aws-esdk",
            Speed(40.0),
            values(records::MESSAGE, small::AWS),
        ),
    ]
}

/// Both lengths of small values, both ways: for each, its group, the case and the base.
fn lengths(
    ways: [&'static str; 2],
    of: impl Fn(u32, &'static str) -> (String, &'static str, &'static str),
) -> Vec<Part> {
    let part = |len, way| {
        let (group, case, base) = of(len, way);
        ratio(&format!("{} {way}", if len == 100 { "100 B" } else { "1 KiB" }), &group, case, base)
    };
    [100, 1024].into_iter().flat_map(|len| ways.map(|way| part(len, way))).collect()
}

fn both(group: impl Fn(&str) -> String, case: &'static str, base: &'static str) -> Vec<Part> {
    ["encrypt", "decrypt"].map(|direction| ratio(direction, &group(direction), case, base)).into()
}

fn ratio(name: &str, group: &str, case: &'static str, base: &'static str) -> Part {
    Part { name: name.to_owned(), source: Source::Ratio { group: group.to_owned(), case, base } }
}

/// The table as Markdown.
pub fn table(results: &Results) -> String {
    let mut out = "| work | target | measured: median (10th to 90th percentile) | |\n|---|---|---|---|\n".to_owned();
    for Target { work, bound, parts, .. } in all() {
        let outcomes: Vec<_> = parts.iter().map(|part| (part, part.outcome(bound, results))).collect();
        let shown: Vec<_> = outcomes
            .iter()
            .map(|(part, outcome)| match outcome {
                Some(Outcome { value, .. }) => format!("{} {}", part.name, bound.shown(*value)),
                None => format!("{} not measured", part.name),
            })
            .collect();
        let short: Vec<_> = outcomes
            .iter()
            .filter(|(_, outcome)| outcome.as_ref().is_some_and(|outcome| outcome.of_bound.median < 1.0))
            .map(|(part, _)| part.name.as_str())
            .collect();
        let missing = outcomes.iter().any(|(_, outcome)| outcome.is_none());
        let verdict = match (short.len(), missing) {
            (0, false) => "met".to_owned(),
            (0, true) => "not measured".to_owned(),
            (count, _) if count == parts.len() => "**short**".to_owned(),
            _ => format!("**short**: {}", short.join(", ")),
        };
        out.push_str(&format!("| {work} | {} | {} | {verdict} |\n", bound.asked(), shown.join("; ")));
    }
    out
}

impl Part {
    /// `None` if it was not measured.
    pub fn outcome(&self, bound: Bound, results: &Results) -> Option<Outcome> {
        let value = match &self.source {
            Source::Ratio { group, case, base } => {
                let group = results.group(group)?;
                match bound {
                    // A time ratio is the speed ratio the other way round.
                    Bound::Time(_) => group.speed_against(base, case)?,
                    _ => group.speed_against(case, base)?,
                }
            }
            Source::Peak { direction, setting } => {
                let kib = results.peak_kib(direction, setting)?;
                Spread::of(vec![kib / 1024.0])?
            }
        };
        Some(Outcome { value, of_bound: bound.share(value) })
    }
}

impl Bound {
    fn asked(self) -> String {
        match self {
            Self::Speed(least) => format!("{least}x"),
            Self::Time(most) => format!("at most {most}x the time"),
            Self::Mib(most) => format!("at most {most} MiB"),
        }
    }

    fn shown(self, Spread { low, median, high }: Spread) -> String {
        match self {
            Self::Speed(_) | Self::Time(_) => format!("{median:.2} ({low:.2} to {high:.2})"),
            Self::Mib(_) => format!("{median:.1}"),
        }
    }

    fn share(self, value: Spread) -> Spread {
        match self {
            Self::Speed(least) => {
                Spread { low: value.low / least, median: value.median / least, high: value.high / least }
            }
            Self::Time(most) | Self::Mib(most) => {
                Spread { low: most / value.high, median: most / value.median, high: most / value.low }
            }
        }
    }
}
