//! `envelock seal` and `open`: one value as one line of text.

use crate::cli::{Desk, KEY, noise};
use envelock::{RecordSetHeader, from_text, to_text};

fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("k.key", KEY);
    desk
}

const KEYED: &str = "-p raw:file=k.key";

#[test]
fn a_value_becomes_one_line_of_text_and_comes_back() {
    let desk = desk();
    for value in [&b"hunter2"[..], b"", b"\n", b"two\nlines\n", b"\xFF\0", &noise(100_000)] {
        let sealed = desk.pipe(&format!("seal {KEYED} -c variable=DB_PASSWORD"), value).exits(0).out;
        let text = String::from_utf8(sealed).unwrap();
        assert!(text.starts_with("elk1.") && text.ends_with('\n') && text.lines().count() == 1, "{text}");
        let open = format!("open {KEYED} -c variable=DB_PASSWORD");
        // With its line end, with that of another system, and without, as the shell leaves it.
        for text in [text.clone(), text.replace('\n', "\r\n"), text.trim_end().to_owned()] {
            let ran = desk.pipe(&open, text.as_bytes()).exits(0);
            assert_eq!((ran.out.as_slice(), ran.err.as_str()), (value, ""));
        }
    }
}

#[test]
fn the_default_key_and_a_passphrase_seal_values_too() {
    let desk = desk();
    desk.write("phrase", "correct horse\n");
    let sealed = desk.pipe("seal", b"hunter2").exits(0).says("keys.db").out;
    assert_eq!(desk.pipe("open", &sealed).exits(0).out, b"hunter2");
    let sealed = desk.pipe("seal -p passphrase:file=phrase --unstored a=b", b"hunter2").exits(0).out;
    assert_eq!(desk.pipe("open -p passphrase:file=phrase --unstored a=b", &sealed).exits(0).out, b"hunter2");
}

#[test]
fn what_is_no_value_of_this_key_and_context_is_refused_by_its_exit_code_and_nothing_comes_out() {
    let desk = desk();
    let sealed = desk.pipe(&format!("seal {KEYED} -c variable=A"), b"hunter2").exits(0);
    let line = sealed.text().trim_end().to_owned();
    let bytes = from_text(&line).unwrap();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    let set = &bytes[..RecordSetHeader::parse(&bytes).unwrap().len()];
    desk.write("plain", "x");
    desk.run(&format!("encrypt plain {KEYED}")).exits(0);
    let open = format!("open {KEYED} -c variable=A");
    let cases = [
        (open.as_str(), format!("{line}\n\n"), 3, "base64url"),
        (&open, format!(" {line}"), 3, "begins with `elk1.`"),
        (&open, format!("{line}="), 3, "base64url"),
        (&open, to_text(&bytes[..bytes.len() - 6]), 3, "not authentic"),
        (&open, line[..line.len() - 100].to_owned(), 3, ""),
        (&open, to_text(&changed), 3, "not authentic"),
        (&open, to_text(set), 3, "ends before"),
        (&open, to_text(&bytes[set.len()..]), 3, "a compact record"),
        (&open, to_text(&desk.read("plain.elk")), 1, "this is a message"),
        (&open, "hunter2".to_owned(), 3, "begins with `elk1.`"),
        (&open, String::new(), 3, "begins with `elk1.`"),
        ("open -p raw:file=k.key -c variable=B", line.clone(), 3, "another value for \"variable\""),
        ("open -p raw:file=k.key,id=other -c variable=A", line.clone(), 4, "none of the configured keys"),
    ];
    for (command, input, code, text) in cases {
        let ran = desk.pipe(command, input.as_bytes()).exits(code).says(text).says("standard input");
        assert_eq!(ran.out, b"", "{command}");
        assert!(!ran.err.contains("hunter2"), "{}", ran.err);
    }
    // A value is no message, and says so.
    desk.write("value.elk", &bytes);
    desk.run(&format!("decrypt value.elk {KEYED} -c variable=A -o -")).exits(1).says("envelock open");
}

#[test]
fn too_long_a_value_is_refused_before_anything_is_written() {
    let desk = desk();
    let ran = desk.pipe(&format!("seal {KEYED}"), &vec![7; (16 << 20) + 1]).exits(1).says("more than 16777216 bytes");
    assert_eq!(ran.out, b"");
}

#[test]
fn inspect_describes_values_and_sets_in_text_and_in_bytes() {
    let desk = desk();
    let sealed = desk.pipe(&format!("seal {KEYED} -c tenant=acme --unstored u=v"), b"hunter2").exits(0);
    let bytes = from_text(sealed.text().trim_end()).unwrap();
    let header = RecordSetHeader::parse(&bytes).unwrap();
    let fingerprint = header.fingerprint().to_string();
    desk.write("value.txt", sealed.text());
    desk.write("value.bin", &bytes);
    desk.write("set.bin", header.as_bytes());
    desk.write("record.txt", to_text(&bytes[header.len()..]));
    for file in ["value.txt", "value.bin"] {
        let text = desk.run(&format!("inspect {file}")).exits(0);
        for line in [
            &format!("record set         {fingerprint}"),
            "value              7 bytes, unverified",
            "stored context     \"tenant\" = \"acme\"",
            "unstored context   needed to open",
            "slot 1             raw k (93 bytes wrapped)",
        ] {
            assert!(text.text().lines().any(|it| it == line), "{line} is not in {}", text.text());
        }
        let json: serde_json::Value =
            serde_json::from_str(desk.run(&format!("inspect --json {file}")).exits(0).text()).unwrap();
        assert_eq!((&json["fingerprint"], &json["value_len_unverified"]), (&fingerprint.clone().into(), &7.into()));
    }
    assert!(desk.run("inspect set.bin").exits(0).text().contains("its records are kept elsewhere"));
    assert!(desk.run("inspect record.txt").exits(0).text().contains(&fingerprint));
    let cut = desk.write("cut.bin", &bytes[..bytes.len() - 30]);
    desk.run(&format!("inspect {}", cut.display())).exits(3).says("at least 57 bytes");
}

#[test]
fn values_and_record_sets_are_verified_and_rewrapped_to_a_new_file() {
    let desk = desk();
    desk.write("new.key", KEY.replace('0', "9"));
    let context = "-c list=tokens";
    let lines = desk.pipe(&format!("seal --lines {KEYED} {context}"), b"one\ntwo\n").exits(0).out;
    let one = desk.pipe(&format!("seal {KEYED} {context}"), b"one").exits(0).out;
    let bytes = from_text(std::str::from_utf8(&one).unwrap().trim_end()).unwrap();
    let header = RecordSetHeader::parse(&bytes).unwrap();
    for (name, content, what) in [
        ("lines.txt", lines.as_slice(), "2 lines"),
        ("one.txt", &one, "one line"),
        ("value.bin", &bytes, "a value"),
        ("set.bin", header.as_bytes(), "a record set"),
    ] {
        desk.write(name, content);
        let verify = format!("verify {name} {KEYED} {context}");
        assert_eq!(desk.run(&verify).exits(0).text(), format!("{name}: authentic, {what}\n"));
        let ran = desk.pipe(&format!("verify - {KEYED} {context}"), content).exits(0);
        assert_eq!(ran.text(), format!("standard input: authentic, {what}\n"));

        let rewrap = format!("rewrap {name} {KEYED} {context} --to raw:file=new.key");
        desk.run(&rewrap).exits(2).says("--output");
        desk.run(&format!("{rewrap} -o new-{name}")).exits(0).says("raw:k REMOVED");
        assert_eq!(desk.read(name), content);
        desk.run(&format!("{rewrap} -o new-{name}")).exits(7).says("was kept");
        desk.run(&format!("verify new-{name} {KEYED} {context}")).exits(4);
        let ran = desk.run(&format!("verify new-{name} -p raw:file=new.key {context}")).exits(0);
        assert_eq!(ran.text(), format!("new-{name}: authentic, {what}\n"));

        // A changed header, value or line is found.
        let mut changed = content.to_vec();
        let at = changed.len() - 20;
        changed[at] = if changed[at] == b'x' { b'y' } else { b'x' };
        desk.write("faulty", &changed);
        desk.run(&format!("verify faulty {KEYED} {context}")).exits(3).says("faulty: ");
    }
    let opened =
        desk.pipe(&format!("open --lines -p raw:file=new.key {context}"), &desk.read("new-lines.txt")).exits(0);
    assert_eq!(opened.text(), "one\ntwo\n");
    // Records of the set open under its new header.
    let behind = [&desk.read("new-set.bin"), &bytes[header.len()..]].concat();
    let opened = desk.pipe(&format!("open -p raw:file=new.key {context}"), to_text(&behind).as_bytes()).exits(0);
    assert_eq!(opened.out, b"one");
    // Others are not dropped unasked.
    let both = desk.pipe(&format!("seal {KEYED} -p raw:file=new.key {context}"), b"one").exits(0).out;
    desk.write("both.txt", &both);
    desk.run(&format!("rewrap both.txt {KEYED} {context} -o less.txt")).exits(2).says("--drop-others");
    desk.run(&format!("rewrap both.txt {KEYED} {context} --drop-others -o less.txt")).exits(0).says("raw:new REMOVED");
    desk.run(&format!("verify less.txt -p raw:file=new.key {context}")).exits(4);
    // A swapped slot is found: the set's tag commits to its data key.
    let other = from_text(std::str::from_utf8(&lines).unwrap().lines().next().unwrap()).unwrap();
    let other = RecordSetHeader::parse(&other).unwrap();
    let (core, tag) = (header.len() - 32 - slots_len(&header), header.len() - 32);
    let slots = &other.as_bytes()[core..tag];
    let swapped = [&bytes[..core], slots, &bytes[tag..]].concat();
    desk.write("swapped", swapped);
    desk.run(&format!("verify swapped {KEYED} {context}")).exits(3).says("none of the keys that were tried opened");
}

/// How long the slots of a record set are, behind their length: one raw slot in each of them here.
fn slots_len(header: &RecordSetHeader) -> usize {
    let slot = &header.slots()[0];
    2 + 1 + 5 + slot.provider().len() + slot.key_id().len() + slot.wrapped().len()
}
