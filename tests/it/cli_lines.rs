//! `envelock seal --lines` and `open --lines`: many values, one a line, through the cache of data keys.

use crate::cli::{Desk, KEY};
use envelock::{RecordSetHeader, from_text};
use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

const KEYED: &str = "-p raw:file=k.key -c list=tokens";

fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("k.key", KEY);
    desk
}

/// Counts of `--cache-stats --json`: hits, misses, calls, calls saved.
fn counts(err: &str) -> [u64; 4] {
    let json: serde_json::Value = serde_json::from_str(err).unwrap();
    ["hits", "misses", "calls", "calls_saved"].map(|name| json[name].as_u64().unwrap())
}

#[test]
fn lines_share_one_data_key_and_nothing_else_and_come_back() {
    let desk = desk();
    let values: Vec<String> = (0..1_000).map(|number| format!("token {number} \u{e4}\r")).collect();
    let input = format!("\n{}", values.join("\n"));
    let sealed = desk.pipe(&format!("seal --lines --cache-stats --json {KEYED}"), input.as_bytes()).exits(0);
    assert_eq!(counts(&sealed.err), [1_000, 1, 1, 1_000]);
    let headers: Vec<_> =
        sealed.text().lines().map(|line| RecordSetHeader::parse(&from_text(line).unwrap()).unwrap()).collect();
    assert_eq!(headers.len(), 1_001);
    // What the provider was asked for once stands in each of them; the sets are their own.
    assert_eq!(headers.iter().map(|header| header.slots()[0].wrapped()).collect::<HashSet<_>>().len(), 1);
    assert_eq!(headers.iter().map(|header| header.fingerprint()).collect::<HashSet<_>>().len(), 1_001);

    let opened = desk.pipe(&format!("open --lines --cache-stats --json {KEYED}"), &sealed.out).exits(0);
    assert_eq!(opened.text(), format!("{input}\n"));
    assert_eq!(counts(&opened.err), [1_000, 1, 1, 1_000]);
    // Another run has another data key, and each is a call.
    let other = desk.pipe(&format!("seal --lines {KEYED}"), b"other").exits(0);
    assert_eq!(other.err, "");
    let both = [sealed.out.as_slice(), &other.out, &sealed.out].concat();
    let opened = desk.pipe(&format!("open --lines --cache-stats --json {KEYED}"), &both).exits(0);
    assert_eq!(counts(&opened.err), [2_001, 2, 2, 2_001]);
    // A line is a value like any other.
    assert_eq!(desk.pipe(&format!("open {KEYED}"), &other.out).exits(0).out, b"other");
}

#[test]
fn the_statistics_are_a_table_also_when_quiet_and_when_a_line_fails() {
    let desk = desk();
    let sealed = desk.pipe(&format!("--quiet seal --lines --cache-stats {KEYED}"), b"a\nb\nc\n").exits(0);
    let rows: Vec<Vec<&str>> = sealed.err.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["hits", "misses", "renewals", "failures", "calls", "calls", "saved"]);
    assert_eq!(rows[1], ["2", "1", "0", "0", "1", "2"]);
    assert_eq!(sealed.err.lines().map(str::len).collect::<HashSet<_>>().len(), 1, "{}", sealed.err);

    let damaged = format!("{}elk1.AAAA\n{}", sealed.text(), sealed.text());
    let ran = desk.pipe(&format!("open --lines --cache-stats {KEYED}"), damaged.as_bytes());
    assert_eq!((ran.code, ran.text()), (Some(3), "a\nb\nc\n"));
    assert!(ran.err.contains("standard input, line 4: ") && ran.err.contains("calls saved"), "{}", ran.err);
    desk.run("seal --cache-stats").exits(2).says("--lines");
    desk.run("seal --lines --json").exits(2).says("--cache-stats");
}

#[test]
fn what_is_no_line_is_refused_and_what_came_before_is_out() {
    let desk = desk();
    let one = desk.pipe(&format!("seal {KEYED}"), b"one").exits(0);
    let two = desk.pipe(&format!("seal {KEYED}"), b"two\nlines").exits(0);
    let open = format!("open --lines {KEYED}");
    let ran = desk.pipe(&open, &[one.out.clone(), two.out, one.out.clone()].concat()).exits(1);
    assert_eq!(ran.text(), "one\n");
    ran.says("line 2: this value has a line end in it").says("without --lines");
    let ran = desk.pipe(&open, &[&one.out, b"\n".as_slice(), &one.out].concat()).exits(3).says("line 2");
    assert_eq!(ran.text(), "one\n");
    let ran = desk.pipe("open --lines -p raw:file=k.key -c list=others", &one.out).exits(3).says("line 1");
    assert_eq!(ran.out, b"");
    assert_eq!(desk.pipe(&open, b"").exits(0).out, b"");
    // Too long a line is refused before all of it is read, whatever came before.
    let long = [b"a\n".as_slice(), &vec![b'x'; (16 << 20) + 100_000], b"\n"].concat();
    let ran = desk.pipe(&format!("seal --lines {KEYED}"), &long).exits(1).says("line 2").says("more than 16777216");
    assert_eq!(ran.text().lines().count(), 1);
}

#[test]
fn whoever_writes_a_line_and_waits_gets_its_line() {
    let desk = desk();
    let mut child = desk.command(format!("seal --lines {KEYED}").split(' ')).stdin(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    for value in ["one", "two"] {
        writeln!(stdin, "{value}").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(desk.pipe(&format!("open {KEYED}"), line.as_bytes()).exits(0).text(), value);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}
