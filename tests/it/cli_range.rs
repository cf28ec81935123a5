//! `envelock decrypt --range`.

use crate::cli::{Desk, KEY, noise};
use std::fs;
use std::process::Command;

/// A folder with `a.elk`, whose content it gives.
fn desk(len: usize) -> (Desk, Vec<u8>) {
    let desk = Desk::new();
    let plaintext = noise(len);
    desk.write("k.key", KEY);
    desk.write("a", &plaintext);
    desk.run("encrypt a -p raw:file=k.key --segment-len 132").exits(0);
    (desk, plaintext)
}

#[test]
fn a_range_comes_out_as_http_counts_it_to_a_file_and_to_standard_output() {
    let (desk, plaintext) = desk(5_000);
    for (range, expected) in [
        ("0-99", 0..100),
        ("0-0", 0..1),
        ("99-100", 99..101),
        ("4990-", 4_990..5_000),
        ("4990-9000", 4_990..5_000),
        ("-100", 4_900..5_000),
        ("-9000", 0..5_000),
        ("0-", 0..5_000),
        ("123-4567", 123..4_568),
    ] {
        let out = desk.run(&format!("decrypt --range {range} a.elk -o - -p raw:file=k.key")).exits(0).out;
        assert_eq!(out, plaintext[expected.clone()], "{range}");
        let line = format!("decrypt a.elk --range={range} -o part -f -p raw:file=k.key");
        let told = desk.run(&line).exits(0);
        assert_eq!(told.err, "envelock: decrypted a.elk to part\n");
        assert_eq!(desk.read("part"), plaintext[expected], "{range}");
    }
    desk.run("decrypt a.elk --range 0-9 -o part -p raw:file=k.key").exits(7).says("kept");
    fs::create_dir(desk.path("parts")).unwrap();
    desk.run("decrypt a.elk --range 0-9 -o parts -p raw:file=k.key").exits(0);
    assert_eq!(desk.read("parts/a"), plaintext[..10]);
    assert_eq!(desk.temporary_files(), Vec::<String>::new());
}

#[test]
fn a_range_past_the_end_states_the_length_and_leaves_the_target_alone() {
    let (desk, _) = desk(5_000);
    desk.write("part", "old");
    for line in
        ["decrypt a.elk --range 5000- -o part -f -p raw:file=k.key", "decrypt a.elk --range -0 -o - -p raw:file=k.key"]
    {
        let ran = desk.run(line).exits(2).says("a.elk").says("5000 bytes");
        assert!(ran.out.is_empty());
    }
    assert_eq!(desk.read("part"), b"old");
    assert_eq!(desk.temporary_files(), Vec::<String>::new());
}

#[test]
fn a_pipe_has_no_range_and_is_told_so() {
    let (desk, _) = desk(5_000);
    let sealed = desk.read("a.elk");
    for output in ["-", "part"] {
        let line = format!("decrypt - --range 0-9 -o {output} -p raw:file=k.key");
        desk.pipe(&line, &sealed).exits(2).says("standard input is no regular file");
    }
    assert!(Command::new("mkfifo").arg(desk.path("fifo")).status().unwrap().success());
    desk.run("decrypt fifo --range 0-9 -o - -p raw:file=k.key").exits(2).says("fifo is no regular file");
    desk.run("decrypt nowhere.elk --range 0-9 -o - -p raw:file=k.key").exits(6).says("nowhere.elk");
    assert!(!desk.path("part").exists());
}

#[test]
fn a_bad_segment_fails_only_the_ranges_that_touch_it() {
    let (desk, plaintext) = desk(5_000);
    let mut sealed = desk.read("a.elk");
    // In segment 40 of 50.
    let at = sealed.len() - 10 * 132 + 50;
    sealed[at] ^= 1;
    desk.write("a.elk", &sealed);
    assert_eq!(desk.run("decrypt a.elk --range 0-3999 -o - -p raw:file=k.key").exits(0).out, plaintext[..4_000]);
    for output in ["-", "part"] {
        let line = format!("decrypt a.elk --range 3990-4010 -o {output} -p raw:file=k.key");
        let ran = desk.run(&line).exits(3).says("a.elk").says("segment 40");
        assert!(ran.out.is_empty());
    }
    assert!(!desk.path("part").exists());
    desk.write("cut.elk", &sealed[..sealed.len() - 132]);
    desk.run("decrypt cut.elk --range 0-9 -o - -p raw:file=k.key").exits(3).says("cut.elk");
}

#[cfg(target_os = "linux")]
#[test]
fn only_the_touched_segments_are_read() {
    let desk = Desk::new();
    desk.write("k.key", KEY);
    let file = fs::File::create(desk.path("a")).unwrap();
    file.set_len(64 << 20).unwrap();
    desk.run("encrypt a -p raw:file=k.key").exits(0);
    // The rest of the body is torn out: whoever reads it finds zeros that do not authenticate.
    let sealed = fs::OpenOptions::new().write(true).open(desk.path("a.elk")).unwrap();
    let body = sealed.metadata().unwrap().len();
    let holes = vec![0; 10 << 20];
    for at in [10 << 20, 40 << 20] {
        std::os::unix::fs::FileExt::write_all_at(&sealed, &holes, at).unwrap();
    }
    assert!(body > 60 << 20);
    for range in ["30000000-30004095", "0-99", "-100", "60000000-60001000"] {
        desk.run(&format!("decrypt a.elk --range {range} -o - -p raw:file=k.key")).exits(0);
    }
    desk.run("decrypt a.elk --range 0-12000000 -o part -p raw:file=k.key").exits(3);
    assert!(!desk.path("part").exists());
}
