//! `encrypt --resume` and `recover`, driven as a person or a script drives them.

use crate::cli::{Desk, KEY, Ran, kill, noise};
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, Instant};

const PARTIAL: &str = ".big.elk.envelock-partial";
const RESUME: &str = "encrypt --resume big -p raw:file=k.key --segment-len 1024";

/// A desk with a key and a file that takes a while to encrypt.
fn desk(len: usize) -> Desk {
    let desk = Desk::new();
    desk.write("k.key", KEY);
    desk.write("big", noise(len));
    std::thread::sleep(Duration::from_millis(50));
    desk
}

/// Interrupts an encryption once it has done something. What it said.
fn interrupt(desk: &Desk, signal: i32, code: i32) -> Ran {
    // On a busy machine it can be done before it is seen at work: then once more.
    for _ in 0..50 {
        let mut child = desk.command(RESUME.split(' ')).spawn().unwrap();
        let started = Instant::now();
        while fs::metadata(desk.path(PARTIAL)).map_or(0, |it| it.len()) < 1 << 20 && child.try_wait().unwrap().is_none()
        {
            assert!(started.elapsed() < Duration::from_secs(120), "the write never began");
            std::thread::sleep(Duration::from_micros(200));
        }
        if child.try_wait().unwrap().is_none() {
            kill(signal, child.id());
        }
        let ran = Ran::of(RESUME, child.wait_with_output().unwrap());
        if ran.code != Some(0) {
            return ran.exits(code);
        }
        fs::remove_file(desk.path("big.elk")).unwrap();
    }
    panic!("it is always done before it can be interrupted")
}

#[test]
fn an_interrupted_resumable_encryption_says_where_it_is_kept_and_goes_on() {
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let desk = desk(48 << 20);
        interrupt(&desk, signal, code).says("interrupted").says(PARTIAL).says("run the same command again");
        assert!(!desk.path("big.elk").exists());
        let left = desk.read(PARTIAL);
        let ran = desk.run(RESUME).exits(0).says("big: going on after ").says("segments were verified");
        drop(ran);
        assert!(desk.read("big.elk").starts_with(&left[..left.len() - 1_024]));
        assert!(!desk.path(PARTIAL).exists());
        desk.run("decrypt big.elk -o copy -p raw:file=k.key").exits(0);
        assert!(desk.read("copy") == desk.read("big"));
    }
}

#[test]
fn a_new_message_is_said_aloud_and_a_trap_is_refused() {
    let desk = desk(48 << 20);
    interrupt(&desk, libc::SIGINT, 130);
    let mut changed = desk.read("big");
    changed[7] ^= 1;
    desk.write("big", &changed);
    desk.run(RESUME).exits(0).says("big: begun anew, as a new message, since the file was changed");
    desk.run("decrypt big.elk -o copy -p raw:file=k.key").exits(0);
    assert!(desk.read("copy") == changed);

    desk.write("trap", "");
    symlink(desk.path("trap"), desk.path(PARTIAL)).unwrap();
    desk.run(&format!("{RESUME} --force")).exits(2).says("is a symbolic link").says(PARTIAL);
    assert!(desk.read("trap").is_empty());
    fs::remove_file(desk.path(PARTIAL)).unwrap();
    desk.run(RESUME).exits(7).says("exists, and was kept");
}

#[test]
fn a_resumable_encryption_takes_no_pipes() {
    let desk = desk(10);
    assert!(Command::new("mkfifo").arg(desk.path("pipe")).status().unwrap().success());
    for line in [
        "encrypt --resume - -o x.elk -p raw:file=k.key",
        "encrypt --resume big -o - -p raw:file=k.key",
        "encrypt --resume pipe -p raw:file=k.key",
    ] {
        desk.run(line).exits(2).says("--resume goes from a file to a file");
    }
    assert!(!desk.path("x.elk").exists() && !desk.path("pipe.elk").exists());
}

/// A desk with a message of ten segments of 64 bytes, damaged by `harm`, to which its body is given.
fn damaged(harm: impl FnOnce(&mut Vec<u8>)) -> (Desk, usize) {
    let desk = Desk::new();
    desk.write("k.key", KEY);
    desk.write("a", noise(310));
    desk.run("encrypt a -p raw:file=k.key --segment-len 64").exits(0);
    let mut message = desk.read("a.elk");
    let mut body = message.split_off(message.len() - 310 - 320);
    let head_len = message.len();
    harm(&mut body);
    message.extend(body);
    desk.write("a.elk", message);
    (desk, head_len)
}

const RECOVER: &str = "recover a.elk -o left --map map.json -p raw:file=k.key";

#[test]
fn what_is_left_of_a_damaged_message_is_written_with_a_map_and_exit_code_3() {
    let (desk, head_len) = damaged(|body| {
        body[3 * 64 + 30] ^= 1;
        body[4 * 64 + 30] ^= 1;
        body[7 * 64] ^= 1;
        body.truncate(body.len() - 1);
    });
    desk.run(RECOVER)
        .exits(3)
        .says("a.elk is damaged: 7 of 10 segments")
        .says("its end was not found")
        .says("map.json");
    let mut expected = noise(310);
    expected[96..160].fill(0);
    expected.truncate(288);
    expected.resize(309, 0);
    assert!(desk.read("left") == expected);
    let map: serde_json::Value = serde_json::from_slice(&desk.read("map.json")).unwrap();
    let range = |start: usize, end: usize| serde_json::json!({ "start": start, "end": end });
    let entry = |segments: (usize, usize), sealed: (usize, usize), plain: (usize, usize), cause: &str, back: bool| {
        serde_json::json!({
            "segments": range(segments.0, segments.1),
            "sealed": range(head_len + sealed.0, head_len + sealed.1),
            "plaintext": range(plain.0, plain.1),
            "output_at": plain.0, "cause": cause, "recovered": back,
        })
    };
    assert_eq!(
        map,
        serde_json::json!({
            "file": "a.elk", "output": "left", "holes": "zero",
            "damage": [
                entry((3, 5), (192, 320), (96, 160), "not-authentic", false),
                entry((7, 8), (448, 512), (224, 256), "wrong-prefix", true),
                entry((9, 10), (576, 629), (288, 309), "truncated", false),
            ],
            "whole": false, "end_verified": false, "damage_count": 3, "segment_len": 64,
            "authentic_segments": 7, "lost_segments": 3, "authentic_len": 224, "output_len": 309,
        })
    );

    desk.run(RECOVER).exits(7).says("left exists");
    fs::remove_file(desk.path("left")).unwrap();
    desk.run(RECOVER).exits(7).says("map.json exists");
    assert!(!desk.path("left").exists());
    // No other way of writing a name, and no link, lets the map take the place of what it is about.
    let message = desk.read("a.elk");
    symlink("a.elk", desk.path("link")).unwrap();
    for map in ["./a.elk", "link", "./left"] {
        let line = format!("recover a.elk -o left --map {map} --force -p raw:file=k.key");
        desk.run(&line).exits(2).says("a name of its own");
    }
    assert!(desk.read("a.elk") == message);
    // One that fails leaves the map that was there.
    let map = desk.read("map.json");
    desk.run(&format!("{RECOVER} --force --context other=1")).exits(3);
    assert!(desk.read("map.json") == map && !desk.path(".map.json.envelock-map").exists());
    desk.run(&format!("{RECOVER} --force --holes skip")).exits(3);
    let all = noise(310);
    assert!(desk.read("left") == [&all[..96], &all[160..288]].concat());
    // Every other command refuses it.
    desk.run("decrypt a.elk -o copy -p raw:file=k.key").exits(3);
    desk.run("verify a.elk -p raw:file=k.key").exits(3);
    assert!(!desk.path("copy").exists());
}

#[test]
fn a_whole_message_is_recovered_with_exit_code_0_and_an_empty_map() {
    let (desk, _) = damaged(|_| {});
    let ran = desk.run("recover a.elk -o left --map - -p raw:file=k.key").exits(0).says("a.elk is whole: 310 bytes");
    assert!(desk.read("left") == noise(310));
    let map: serde_json::Value = serde_json::from_str(ran.text()).unwrap();
    assert_eq!((&map["whole"], map["damage"].as_array().unwrap().len()), (&true.into(), 0));
}

#[test]
fn a_message_that_cannot_be_opened_leaves_neither_output_nor_map() {
    let (desk, _) = damaged(|_| {});
    desk.write("other.key", KEY.replace('0', "1"));
    desk.run("recover a.elk -o left --map map.json -p raw:file=other.key").exits(4);
    let message = desk.read("a.elk");
    desk.write("a.elk", &message[..100]);
    desk.run(RECOVER).exits(3).says("a.elk");
    assert!(!desk.path("left").exists() && !desk.path("map.json").exists());
    for line in [
        "recover - -o left --map map.json -p raw:file=k.key",
        "recover a.elk -o - --map map.json -p raw:file=k.key",
        "recover a.elk -o left --map left -p raw:file=k.key",
    ] {
        desk.run(line).exits(2);
    }
}
