//! Tables and charts for the documentation, from the figures of the last runs.
//!
//! What is generated stands in `benchmarks.md` between `<!-- generated: NAME -->` and
//! `<!-- end: NAME -->`; all else there is written by hand and stays.

use crate::chart::{Chart, Row};
use crate::common::bulk::SWEEP;
use crate::common::report::folder;
use crate::common::{Measured, Spread};
use crate::measure::{records, rivals, small, threads};
use crate::results::Results;
use crate::targets;
use serde_json::Value;
use std::path::Path;

/// Renders everything into the folder `docs`.
///
/// # Errors
/// Which figures are missing, or which mark; then nothing is written.
pub fn all(docs: &Path) -> Result<(), String> {
    let results = Results::read(&folder(), &["targets", "sweeps", "small", "cache"])?;
    for file in results.files() {
        if file["chosen"].as_array().is_some_and(|words| !words.is_empty()) {
            return Err(format!("{} holds only the groups of {}: run it without words", file["name"], file["chosen"]));
        }
        if !file["rounds_limited_to"].is_null() {
            return Err(format!("{} was run with ENVELOCK_BENCH_ROUNDS: run it without", file["name"]));
        }
    }
    let page_path = docs.join("benchmarks.md");
    let mut page = std::fs::read_to_string(&page_path).map_err(|error| format!("{}: {error}", page_path.display()))?;
    for (name, text) in [
        ("machine", machine(&results)),
        ("targets", targets::table(&results)),
        ("memory", memory(&results)),
        ("sweep", sweep_table(&results)),
        ("tables", tables(&results)),
    ] {
        page = replaced(&page, name, &text)?;
    }
    let charts = [
        ("targets", targets_chart(&results)),
        ("rivals", rivals_chart(&results)),
        ("small", small_chart(&results)),
        ("sweep", sweep_chart(&results)),
    ];
    let folder = docs.join("charts");
    let write =
        |path: &Path, text: &str| std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()));
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for (name, chart) in charts {
        write(&folder.join(format!("{name}.svg")), &chart.svg())?;
    }
    let figures = Value::Array(results.files().to_vec());
    write(&folder.join("results.json"), &format!("{}\n", compact(&figures)))?;
    write(&page_path, &page)?;
    println!("rendered {} and {}", page_path.display(), folder.display());
    Ok(())
}

/// `page` with what stands between the marks of `name` replaced.
fn replaced(page: &str, name: &str, text: &str) -> Result<String, String> {
    let (start, end) = (format!("<!-- generated: {name} -->\n"), format!("<!-- end: {name} -->"));
    let missing = || format!("benchmarks.md has no marks {} … {end}", start.trim_end());
    let (before, rest) = page.split_once(&start).ok_or_else(missing)?;
    let (_, after) = rest.split_once(&end).ok_or_else(missing)?;
    Ok(format!("{before}{start}{}\n{end}{after}", text.trim_end()))
}

fn machine(results: &Results) -> String {
    let Some(run) = results.files().first() else { return String::new() };
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let versions: Vec<_> = results
        .fact("versions")
        .and_then(Value::as_array)
        .map(|all| all.iter().map(&text).collect())
        .unwrap_or_default();
    let python = results.fact("aws-encryption-sdk (Python)");
    let python = python.map(|version| format!("aws-encryption-sdk for Python {}", text(version)));
    let rivals: Vec<_> = versions.into_iter().chain(python).collect();
    let missing: String = ["aws-esdk", "AWS SDK for Python", "peak memory"]
        .iter()
        .filter_map(|name| Some((name, results.fact(&format!("{name} not measured"))?)))
        .map(|(name, why)| format!("\n\n**Not measured:** {name}: {}.", text(why)))
        .collect();
    let loads: Vec<_> = results
        .files()
        .iter()
        .map(|file| format!("{} {}", file["name"].as_str().unwrap_or("?"), file["load_at_end"]))
        .collect();
    format!(
        "{}; {}; {}, release profile with thin LTO; envelock at {}.\n\n{}.{missing}\n\nPrograms that wanted a core at \
         the end of each run (1 is the benchmark itself): {}.",
        text(&run["machine"]),
        text(&run["system"]),
        text(&run["rustc"]),
        text(&run["revision"]),
        rivals.join(", "),
        loads.join(", "),
    )
}

fn memory(results: &Results) -> String {
    let Some(by_length) = results.fact("peak KiB").and_then(Value::as_object) else {
        return results
            .fact("peak memory not measured")
            .map_or_else(|| "Not measured.".to_owned(), |why| format!("Not measured: {why}."));
    };
    let settings: Vec<_> =
        by_length.values().next().and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name).collect();
    let lengths: Vec<_> = by_length.keys().map(String::as_str).collect();
    let mut out = format!("| MiB at most | {} |\n|---|{}\n", lengths.join(" | "), "---:|".repeat(lengths.len()));
    for setting in settings {
        let peaks = by_length.values().map(|of_length| {
            of_length[setting].as_f64().map_or_else(|| "-".to_owned(), |kib| format!("{:.1}", kib / 1024.0))
        });
        out.push_str(&format!("| {setting} | {} |\n", peaks.collect::<Vec<_>>().join(" | ")));
    }
    out
}

const SWEEP_COLUMNS: [&str; 6] = [
    "raw AEAD, seal",
    "slice to slice, seal",
    "writer, 64 KiB pieces",
    "raw AEAD, open",
    "slice to slice, open",
    "reader, 64 KiB pieces",
];

fn sweep_table(results: &Results) -> String {
    let mut out =
        format!("| segment length | {} |\n|---|{}\n", SWEEP_COLUMNS.join(" | "), "---:|".repeat(SWEEP_COLUMNS.len()));
    for (len, name) in SWEEP {
        let Some(group) = results.group(&format!("sweep-{len}")) else { continue };
        let speeds = SWEEP_COLUMNS.map(|case| match group.speed(case) {
            Some(Spread { low, median, high }) => format!("{median:.2} ({low:.2} to {high:.2})"),
            None => "-".to_owned(),
        });
        out.push_str(&format!("| {name} | {} |\n", speeds.join(" | ")));
    }
    out
}

/// Every group but the sweep, each with its own baselines.
fn tables(results: &Results) -> String {
    let shown = results.groups().iter().filter(|group| !group.id.starts_with("sweep-"));
    shown.map(|group| group.table(&baselines(group))).collect::<String>().trim_start().to_owned()
}

fn baselines(group: &Measured) -> Vec<&str> {
    let known = [
        rivals::ENVELOCK_STREAM[0],
        rivals::ENVELOCK_WHOLE[0],
        crate::common::bulk::RAW,
        crate::common::bulk::RAW_COPY,
        crate::measure::files::DD,
        crate::measure::ranges::RAW,
        small::FLOE,
        records::TINK_ENVELOPE,
        threads::ONE,
        "bare primitives",
        "24 random bytes of the system",
    ];
    known.into_iter().filter(|name| group.names().iter().any(|case| case == name)).collect()
}

fn targets_chart(results: &Results) -> Chart {
    let mut rows: Vec<Row> = Vec::new();
    for target in targets::all() {
        for part in &target.parts {
            let bar = part.outcome(target.bound, results).map(|outcome| outcome.of_bound);
            let ways = ["encrypt", "decrypt", "seal", "open"];
            let of = ways.iter().find_map(|way| part.name.strip_suffix(way)).unwrap_or(&part.name).trim_end();
            let label = if of.is_empty() { target.short.to_owned() } else { format!("{}, {of}", target.short) };
            // Decrypting stands below encrypting.
            match rows.last_mut().filter(|row| row.label == label && row.bars.len() == 1) {
                Some(row) => row.bars.push(bar),
                None => rows.push(Row { label, ours: true, bars: vec![bar] }),
            }
        }
    }
    Chart {
        title: "What was reached of each target".to_owned(),
        unit: "measured as a share of the target: 1 or more is met".to_owned(),
        series: vec!["encrypt or seal, or both".to_owned(), "decrypt or open".to_owned()],
        rows,
        mark: Some((1.0, "target".to_owned())),
    }
}

/// Encrypting and decrypting side by side, the fastest first.
fn both_ways(results: &Results, ids: [&str; 2], title: &str, unit: &str) -> Chart {
    let groups = ids.map(|id| results.group(id));
    let mut rows: Vec<_> = groups[0]
        .map(Measured::names)
        .unwrap_or_default()
        .iter()
        .map(|name| Row {
            label: name.clone(),
            ours: name.starts_with("envelock"),
            bars: groups.iter().map(|group| group.and_then(|group| group.speed(name))).collect(),
        })
        .collect();
    let speed = |row: &Row| row.bars.iter().flatten().map(|spread| spread.median).sum::<f64>();
    rows.sort_by(|one, other| speed(other).total_cmp(&speed(one)));
    let series = vec!["encrypt".to_owned(), "decrypt".to_owned()];
    Chart { title: title.to_owned(), unit: unit.to_owned(), series, rows, mark: None }
}

fn rivals_chart(results: &Results) -> Chart {
    let ids = ["rivals-encrypt", "rivals-decrypt"];
    both_ways(results, ids, "256 MiB from memory to memory, one core", "GB/s: more is better")
}

fn small_chart(results: &Results) -> Chart {
    let ids = ["small-100-encrypt", "small-100-decrypt"];
    both_ways(results, ids, "Messages of 100 B, one core", "thousand messages a second: more is better")
}

fn sweep_chart(results: &Results) -> Chart {
    let shown = [1, 2, 4, 5];
    let rows = SWEEP.iter().filter_map(|(len, name)| {
        let group = results.group(&format!("sweep-{len}"))?;
        let bars = shown.map(|at| group.speed(SWEEP_COLUMNS[at])).into();
        Some(Row { label: (*name).to_owned(), ours: true, bars })
    });
    Chart {
        title: "Segment length: 256 MiB, AES-256-GCM, one core".to_owned(),
        unit: "GB/s: more is better".to_owned(),
        series: shown.map(|at| SWEEP_COLUMNS[at].to_owned()).into(),
        rows: rows.collect(),
        mark: None,
    }
}

/// A line for each case, so that a diff shows which changed.
fn compact(files: &Value) -> String {
    let pretty = format!("{files:#}");
    // Only the lists of single times are long: they go on one line each.
    let mut out = String::with_capacity(pretty.len());
    let mut inside = false;
    for line in pretty.lines() {
        let text = line.trim();
        if inside {
            out.push_str(text);
            if text.starts_with(']') {
                inside = false;
                out.push('\n');
            }
        } else {
            out.push_str(line);
            inside = text == "\"seconds\": [";
            if !inside {
                out.push('\n');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let page = "a\n<!-- generated: x -->\nold\n<!-- end: x -->\nb\n";
        assert_eq!(replaced(page, "x", "new\n").unwrap(), "a\n<!-- generated: x -->\nnew\n<!-- end: x -->\nb\n");
        assert!(replaced(page, "y", "new").is_err());
    }

    #[test]
    fn compact_figures_are_the_same_figures() {
        let value = serde_json::json!([{ "seconds": [1.0, 2.5, null], "name": "x" }, { "seconds": [], "a": [] }]);
        let text = compact(&value);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert!(text.lines().count() < format!("{value:#}").lines().count());
    }
}
