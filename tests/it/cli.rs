//! The program, driven as a person or a script drives it.

mod keystores;

use envelock::{
    DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, EncryptionContext, Envelope, Error, ErrorKind,
    FileOptions, GeneratedDataKey, KeyProvider, KmsContext, MultiProvider, RawKeyProvider, Recipient, async_trait,
    blocking,
};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A folder of its own, which is also the home of the user who runs the program.
pub(crate) struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        // Key files must be their owner's alone.
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        self.path(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_envelock"));
        command.args(arguments).current_dir(self.folder.path()).env_clear().env("HOME", self.path("home"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Arguments are separated by spaces.
    pub(crate) fn run(&self, line: &str) -> Ran {
        Ran::of(line, self.command(line.split(' ')).output().unwrap())
    }

    pub(crate) fn pipe(&self, line: &str, input: &[u8]) -> Ran {
        let mut child = self.command(line.split(' ')).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // The program may end before it has read everything.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Ran::of(line, output)
    }

    /// Names in the folder that a crash-safe write uses while it works.
    pub(crate) fn temporary_files(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("envelock-tmp") || name.ends_with(".rewrap")).collect()
    }
}

/// What a run ended with.
pub(crate) struct Ran {
    line: String,
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(line: &str, output: Output) -> Self {
        let err = String::from_utf8(output.stderr).unwrap();
        Self { line: line.into(), code: output.status.code(), out: output.stdout, err }
    }

    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "envelock {}\n{}", self.line, self.err);
        if code != 0 && code != 2 {
            let lines: Vec<_> = self.err.lines().collect();
            assert!(lines.iter().all(|line| line.starts_with("envelock: ")), "{}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }

    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "{text:?} is not in {:?}", self.err);
        self
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }
}

/// Bytes that do not compress and do not repeat.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

pub(crate) const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";

#[test]
fn a_file_comes_back_under_the_default_key_and_nothing_is_in_the_open() {
    let desk = Desk::new();
    let plaintext = noise(300_000);
    desk.write("a.bin", &plaintext);
    desk.run("encrypt a.bin").exits(0).says("home/.local/share/envelock/keys.db").says("root key");
    desk.run("decrypt a.bin.elk -o copy").exits(0);
    assert_eq!(desk.read("copy"), plaintext);
    for (name, mode) in [
        ("home/.local/share/envelock", 0o700),
        ("home/.config/envelock", 0o700),
        ("home/.config/envelock/root.key", 0o600),
        ("home/.local/share/envelock/keys.db", 0o600),
        ("a.bin.elk", 0o600),
    ] {
        assert_eq!(fs::metadata(desk.path(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
    }
    assert!(!desk.read("a.bin.elk").windows(32).any(|window| window == &plaintext[..32]));
    // The second use makes nothing and says nothing of keys.
    let second = desk.run("encrypt a.bin -o b.elk").exits(0);
    assert!(!second.err.contains("root key"), "{}", second.err);
}

#[test]
fn lengths_around_segment_edges_come_back_through_files_and_pipes() {
    let desk = Desk::new();
    desk.write("k.key", KEY);
    let mut trips = 0;
    for aead in ["aes-256-gcm", "chacha20-poly1305"] {
        for len in [0, 1, 95, 96, 97, 65_504, 200_000] {
            let plaintext = noise(len);
            desk.write("p", &plaintext);
            let seal =
                format!("-p raw:file=k.key --aead {aead} --segment-len 128 --context tenant=acme --unstored u=v");
            let open = "-p raw:file=k.key --context tenant=acme --unstored u=v";
            let sealed = desk.pipe(&format!("encrypt - {seal}"), &plaintext).exits(0).out;
            assert_eq!(desk.pipe(&format!("decrypt - {open}"), &sealed).exits(0).out, plaintext);
            desk.pipe(&format!("decrypt - -f -o d {open}"), &sealed).exits(0);
            assert_eq!(desk.read("d"), plaintext);
            desk.pipe(&format!("encrypt - -f -o p.elk {seal}"), &plaintext).exits(0);
            assert_eq!(desk.run(&format!("decrypt p.elk -o - {open}")).exits(0).out, plaintext);
            desk.run(&format!("encrypt p -f {seal}")).exits(0);
            let verified = desk.run(&format!("verify p.elk {open}")).exits(0);
            assert_eq!(verified.text(), format!("p.elk: authentic, {len} bytes of plaintext\n"));
            desk.run(&format!("decrypt p.elk -f {open}")).exits(0);
            assert_eq!(desk.read("p"), plaintext);
            trips += 4;
        }
    }
    println!("{trips} round trips");
}

#[test]
fn several_files_go_each_their_way_and_the_first_failure_is_the_code() {
    let desk = Desk::new();
    desk.write("k.key", KEY);
    desk.write("a", "one");
    desk.write("b", "two");
    desk.run("encrypt -p raw:file=k.key a missing b").exits(6).says("missing");
    fs::create_dir(desk.path("out")).unwrap();
    desk.run("decrypt -p raw:file=k.key a.elk b.elk -o out").exits(0);
    assert_eq!((desk.read("out/a"), desk.read("out/b")), (b"one".to_vec(), b"two".to_vec()));
    desk.run("decrypt -p raw:file=k.key a.elk b.elk -o one-file").exits(2);
    desk.run("encrypt -p raw:file=k.key a - ").exits(2);
}

#[test]
fn each_kind_of_failure_has_its_code() {
    let desk = Desk::new();
    desk.write("k.key", KEY);
    desk.write("other.key", KEY.replace('0', "1"));
    desk.write("a", noise(1_000));
    let raw = "-p raw:file=k.key";
    desk.run(&format!("encrypt a {raw} --segment-len 128 --context tenant=acme")).exits(0);
    let sealed = desk.read("a.elk");
    let open = format!("{raw} --context tenant=acme -o out");

    desk.run("no-such-command").exits(2);
    desk.run(&format!("encrypt a {raw} --segment-len 3 -o x")).exits(2);
    let exposed = desk.run("encrypt a -o x -p passphrase:hunter2").exits(2).says("never from an argument");
    assert!(!exposed.err.contains("hunter2"), "a passphrase is not repeated");
    desk.run("decrypt a").exits(2).says(".elk");

    let mut changed = sealed.clone();
    *changed.last_mut().unwrap() ^= 1;
    desk.write("changed.elk", &changed);
    desk.run(&format!("decrypt changed.elk {open}")).exits(3).says("changed.elk").says("not authentic");
    desk.write("cut.elk", &sealed[..sealed.len() - 200]);
    desk.run(&format!("decrypt cut.elk {open}")).exits(3).says("ends before");
    desk.write("long.elk", [&sealed[..], b"x"].concat());
    desk.run(&format!("verify long.elk {raw} --context tenant=acme")).exits(3).says("follow");
    desk.run(&format!("decrypt k.key {open}")).exits(3).says("no envelock message");
    desk.run(&format!("decrypt a.elk {raw} --context tenant=other -o out")).exits(3).says("tenant");
    assert!(!desk.path("out").exists());

    desk.run("decrypt a.elk -p raw:file=other.key --context tenant=acme -o out")
        .exits(4)
        .says("none of the configured keys");
    desk.run("decrypt a.elk -p raw:file=other.key,id=k --context tenant=acme -o out").exits(3);
    desk.run("decrypt a.elk --context tenant=acme -o out").exits(4).says("no keystore is at");
    assert!(!desk.path("home").exists(), "reading makes no keystore");
    desk.run("keys create").exits(0);
    desk.run("keys describe alias/nowhere").exits(4);

    desk.run(&format!("encrypt missing {raw}")).exits(6).says("missing");
    desk.run("decrypt a.elk -p raw:file=missing.key --context tenant=acme -o out").exits(6).says("missing.key");
    desk.run(&format!("encrypt a {raw}")).exits(7).says("a.elk").says("--force");
    assert_eq!(desk.read("a.elk"), sealed, "an existing target is kept");
    desk.run(&format!("encrypt a {raw} --force")).exits(0);
    assert_ne!(desk.read("a.elk"), sealed);
}

#[test]
fn a_context_must_match_exactly_unless_more_is_accepted() {
    let desk = Desk::new();
    desk.write("k.key", KEY);
    desk.write("a", "x");
    desk.run("encrypt a -p raw:file=k.key -c tenant=acme -c object=7").exits(0);
    desk.run("decrypt a.elk -p raw:file=k.key -c tenant=acme -o b").exits(3).says("object");
    desk.run("decrypt a.elk -p raw:file=k.key -c tenant=acme -o b --accept-more-context").exits(0);
    desk.run("verify a.elk -p raw:file=k.key -c tenant=evil --accept-more-context").exits(3);
    desk.run("encrypt a -f -p raw:file=k.key -c tenant=acme -c tenant=twice").exits(2).says("twice");
}

#[test]
fn a_passphrase_comes_from_a_file_or_a_descriptor_less_one_line_end() {
    let desk = Desk::new();
    desk.write("a", "secret");
    desk.write("unix", "correct horse\n");
    desk.write("dos", "correct horse\r\n");
    desk.write("bare", "correct horse");
    desk.write("two-lines", "correct horse\n\n");
    desk.write("empty", "\n");
    desk.run("encrypt a -p passphrase:file=unix").exits(0);
    for name in ["unix", "dos", "bare"] {
        assert_eq!(desk.run(&format!("decrypt a.elk -o - -p passphrase:file={name}")).exits(0).out, b"secret");
    }
    desk.run("decrypt a.elk -o - -p passphrase:file=two-lines").exits(3).says("the passphrase is not the one");
    desk.run("encrypt a -o b -p passphrase:file=empty").exits(2).says("empty");
    // Descriptor 0 is open in every child; a shell's `3<file` is the same thing under another number.
    assert_eq!(desk.pipe("decrypt a.elk -o - -p passphrase:fd=0", b"correct horse\n").exits(0).out, b"secret");
    desk.pipe("decrypt a.elk -o - -p passphrase:fd=0", b"wrong\n").exits(3);
    desk.run("decrypt a.elk -o - -p passphrase:fd=77").exits(6).says("file descriptor 77");
}

#[test]
fn several_providers_all_open_and_a_missing_one_is_shown_and_filled_by_a_rewrap() {
    let desk = Desk::new();
    let key = desk.write("k.key", KEY);
    desk.write("a", "for two");
    desk.run("encrypt a -p raw:file=k.key -p local:").exits(0);
    for provider in ["raw:file=k.key", "local:"] {
        assert_eq!(desk.run(&format!("decrypt a.elk -o - -p {provider}")).exits(0).out, b"for two");
    }
    desk.run("encrypt a -o x -p raw:file=k.key -p raw:file=k.key").exits(2).says("same recipient");

    let members: Vec<Arc<dyn KeyProvider>> =
        vec![Arc::new(RawKeyProvider::from_file("k", key).unwrap()), Arc::new(OutOfReach)];
    let envelope = Envelope::builder(MultiProvider::at_least(1, members).unwrap()).build().unwrap();
    let envelope = blocking::Envelope::new(envelope);
    let context = EncryptionContext::from([("evil\u{1b}[2J", "\u{202e}txt")]);
    envelope.encrypt_file(desk.path("a"), desk.path("m.elk"), &context, FileOptions::default()).unwrap();

    let shown = desk.run("inspect m.elk").exits(0);
    assert!(shown.text().contains("com.example.away away (MISSING"), "{}", shown.text());
    assert!(shown.text().contains(r#""evil\u{1b}[2J" = "\u{202e}txt""#), "{}", shown.text());
    let json = desk.run("inspect --json m.elk").exits(0);
    assert!(json.text().is_ascii() && !json.out.contains(&0x1b));
    let json: serde_json::Value = serde_json::from_slice(&json.out).unwrap();
    assert_eq!(json["slots"][1]["missing"], true);
    assert_eq!(json["plaintext_len_unverified"], 7);
    assert_eq!(json["stored_context"]["evil\u{1b}[2J"], "\u{202e}txt");

    let more = "--accept-more-context";
    desk.run(&format!("rewrap m.elk -p raw:file=k.key --to raw:file=k.key --to local: {more}")).exits(0);
    assert!(!desk.run("inspect m.elk").exits(0).text().contains("MISSING"));
    assert_eq!(desk.run(&format!("decrypt m.elk -o - {more}")).exits(0).out, b"for two");
}

/// A provider whose service cannot be reached.
#[derive(Debug)]
struct OutOfReach;

#[async_trait]
impl KeyProvider for OutOfReach {
    fn recipients(&self) -> Vec<Recipient> {
        vec![Recipient::new("com.example.away", "away")]
    }

    async fn generate_data_key(&self, _: DataKeyLength, _: &KmsContext) -> Result<GeneratedDataKey, Error> {
        Err(Error::new(ErrorKind::Unavailable, "out of reach"))
    }

    async fn encrypt_data_key(&self, _: &DataKey, _: &KmsContext) -> Result<Vec<EncryptedDataKey>, Error> {
        Err(Error::new(ErrorKind::Unavailable, "out of reach"))
    }

    async fn decrypt_data_key(&self, _: &EncryptedDataKey, _: &KmsContext) -> DataKeyAnswer {
        DataKeyAnswer::NotMine
    }
}

#[test]
fn a_rewrap_moves_a_file_to_another_key_and_leaves_its_body() {
    let desk = Desk::new();
    let plaintext = noise(200_000);
    desk.write("a", &plaintext);
    desk.write("k.key", KEY);
    desk.run("keys create --alias alias/orders").exits(0);
    desk.run("encrypt a -p local:alias/orders").exits(0);
    let before = desk.read("a.elk");

    desk.run("keys rotate alias/orders").exits(0).says("version 2").says("rewrap");
    let blind = desk.run("rewrap a.elk -p local:alias/orders --blind").exits(0);
    blind.says("envelock verify").says("not a revocation");
    let after = desk.read("a.elk");
    assert_ne!(before, after);
    assert_eq!(before[before.len() - 200_000..], after[after.len() - 200_000..], "the body stays");
    desk.run("verify a.elk -p local:alias/orders").exits(0);

    desk.run("rewrap a.elk -p local:alias/orders --to raw:file=k.key -o b.elk").exits(0);
    assert_eq!(desk.read("a.elk"), after, "the old file stays");
    desk.run("rewrap a.elk -p local:alias/orders --to raw:file=k.key -o b.elk").exits(7);
    assert_eq!(desk.run("decrypt b.elk -o - -p raw:file=k.key").exits(0).out, plaintext);
    desk.run("decrypt b.elk -o x -p local:alias/orders").exits(4);
    desk.run("rewrap b.elk -p raw:file=k.key --blind").exits(1).says("openly");
    desk.run("rewrap - -p raw:file=k.key").exits(2);
    // To another key of the same keystore, inside it.
    desk.run("keys create --alias alias/next").exits(0);
    desk.run("rewrap a.elk -p local:alias/orders --to local:alias/next --blind").exits(0).says("REMOVED");
    desk.run("verify a.elk -p local:alias/next").exits(0);
    desk.run("verify a.elk -p local:alias/orders").exits(4);
}

#[test]
fn keys_are_made_named_listed_and_their_root_key_exported_and_restored() {
    let desk = Desk::new();
    desk.run("keys list").exits(4).says("there is no keystore");
    let made = desk.run("keys create --alias alias/orders --description invoices").exits(0);
    let name = made.text().trim().to_owned();
    assert!(name.starts_with("envelock:local:"), "{name}");
    let other = desk.run("keys create").exits(0).text().trim().to_owned();
    desk.run(&format!("keys alias create alias/second {other}")).exits(0);
    desk.run(&format!("keys alias move alias/orders {other}")).exits(0);
    desk.run("keys alias delete alias/second").exits(0);
    let described: serde_json::Value =
        serde_json::from_slice(&desk.run("keys describe alias/orders --json").exits(0).out).unwrap();
    assert_eq!(described["arn"], other.as_str());
    assert_eq!(described["versions"][0]["version"], 1);
    let listed: serde_json::Value = serde_json::from_slice(&desk.run("keys list --json").exits(0).out).unwrap();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 2);
    assert_eq!(desk.run("keys list").exits(0).text().lines().count(), 2);

    desk.write("a", "kept");
    desk.run("encrypt a -p local:alias/orders").exits(0);
    let exported = desk.run("keys root export").exits(0).says("keep it safe");
    assert!(exported.text().starts_with("envelock-root1.") && exported.text().ends_with('\n'));
    desk.run("keys root export -o safe.key").exits(0);
    assert_eq!(desk.read("safe.key"), exported.out);
    assert_eq!(fs::metadata(desk.path("safe.key")).unwrap().permissions().mode() & 0o777, 0o600);
    desk.run("keys root export -o safe.key").exits(7);

    fs::remove_file(desk.path("home/.config/envelock/root.key")).unwrap();
    desk.run("decrypt a.elk -p local:alias/orders -o b").exits(4);
    let restored = desk.run("decrypt a.elk -p local:alias/orders -o - --root-key safe.key").exits(0);
    assert_eq!(restored.out, b"kept");
    let line = exported.text().trim();
    let mut by_value = desk.command("decrypt a.elk -p local:alias/orders -o -".split(' '));
    by_value.env("ENVELOCK_ROOT_KEY_VALUE", line);
    assert_eq!(Ran::of("by value", by_value.output().unwrap()).exits(0).out, b"kept");
    by_value.env("ENVELOCK_ROOT_KEY", "safe.key");
    Ran::of("both", by_value.output().unwrap()).exits(2).says("both");
}

#[test]
fn folders_are_refused_with_the_way_to_archive_them() {
    let desk = Desk::new();
    fs::create_dir(desk.path("folder")).unwrap();
    desk.run("encrypt folder").exits(2).says("tar c FOLDER | envelock encrypt -");
    assert!(!desk.path("home").exists(), "nothing is made for nothing");
    desk.run("inspect folder").exits(2);
}

#[test]
fn quiet_says_nothing_and_a_pipe_sees_no_progress_bar() {
    let desk = Desk::new();
    desk.write("a", noise(3 << 20));
    let first = desk.run("encrypt a --quiet").exits(0);
    assert_eq!((first.err.as_str(), first.text()), ("", ""));
    for line in ["decrypt a.elk -o b -q", "verify a.elk -q", "rewrap a.elk -q"] {
        let ran = desk.run(line).exits(0);
        assert_eq!((ran.err.as_str(), ran.text()), ("", ""), "{line}");
    }
    let told = desk.run("encrypt a -o c").exits(0);
    assert_eq!(told.err, "envelock: encrypted a to c\n");
    assert!(!desk.run("decrypt a -q").exits(2).err.is_empty(), "a failure is said all the same");
}

#[test]
fn a_failure_on_the_way_to_a_pipe_says_that_what_came_is_a_beginning() {
    let desk = Desk::new();
    desk.write("k.key", KEY);
    let plaintext = noise(5_000);
    let mut sealed = desk.pipe("encrypt - -p raw:file=k.key --segment-len 132", &plaintext).exits(0).out;
    let at = sealed.len() - 132 * 10;
    sealed[at] ^= 1;
    let ran = desk.pipe("decrypt - -p raw:file=k.key", &sealed).exits(3).says("verified beginning, not the whole");
    assert!(!ran.out.is_empty() && ran.out.len() < plaintext.len());
    assert_eq!(ran.out, plaintext[..ran.out.len()], "only verified plaintext comes out");
    assert_eq!(ran.out.len() % 100, 0, "whole segments");
}

#[test]
fn a_full_or_read_only_target_fails_cleanly() {
    let desk = Desk::new();
    desk.write("k.key", KEY);
    desk.write("a", noise(100_000));
    desk.run("encrypt a -p raw:file=k.key").exits(0);
    for line in ["encrypt a -o - -p raw:file=k.key", "decrypt a.elk -o - -p raw:file=k.key", "inspect a.elk"] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = desk.command(line.split(' ')).stdout(full).output().unwrap();
        Ran::of(line, output).exits(6).says("No space left");
    }
    // From a pipe to a pipe, short and long.
    for input in [&b"short"[..], &noise(3 << 20)] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut child = desk.command("encrypt - -o - -p raw:file=k.key".split(' '));
        let mut child = child.stdin(Stdio::piped()).stdout(full).spawn().unwrap();
        // The program may end before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(input);
        let ran = Ran::of("encrypt - -o -", child.wait_with_output().unwrap());
        let said = ran.exits(6).says("standard output").says("No space left").err;
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    desk.run("encrypt a -o /proc/x.elk -p raw:file=k.key").exits(6).says("/proc/x.elk");
    desk.run("encrypt a -o /dev/null --force -p raw:file=k.key").exits(2).says("/dev/null");
}

#[test]
fn an_interrupt_during_a_large_file_leaves_no_temporary_file_and_no_target() {
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let desk = Desk::new();
        desk.write("k.key", KEY);
        // Sparse: long to encrypt, quick to make.
        fs::File::create(desk.path("big")).unwrap().set_len(40 << 30).unwrap();
        let line = "encrypt big -p raw:file=k.key --segment-len 1024";
        let child = desk.command(line.split(' ')).spawn().unwrap();
        let started = Instant::now();
        while !desk
            .temporary_files()
            .iter()
            .any(|name| fs::metadata(desk.path(name)).is_ok_and(|it| it.len() > 1 << 20))
        {
            assert!(started.elapsed() < Duration::from_secs(120), "the write never began");
            std::thread::sleep(Duration::from_millis(10));
        }
        kill(signal, child.id());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), None, "the program ends by itself");
        Ran::of(line, output).exits(code).says("interrupted");
        assert_eq!(desk.temporary_files(), Vec::<String>::new());
        assert!(!desk.path("big.elk").exists());
    }
}

#[test]
fn an_interrupt_while_a_pipe_gives_nothing_leaves_nothing() {
    let desk = Desk::new();
    desk.write("k.key", KEY);
    let line = "encrypt - -o out.elk -p raw:file=k.key";
    let mut child = desk.command(line.split(' ')).stdin(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while desk.temporary_files().is_empty() {
        assert!(started.elapsed() < Duration::from_secs(120), "the write never began");
        std::thread::sleep(Duration::from_millis(10));
    }
    kill(libc::SIGINT, child.id());
    let held = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(held);
    Ran::of(line, output).exits(130);
    assert_eq!(desk.temporary_files(), Vec::<String>::new());
    assert!(!desk.path("out.elk").exists());
}

/// Sends a signal to a child that nobody has waited for yet.
pub(crate) fn kill(signal: i32, process: u32) {
    // SAFETY: two numbers; the process is a child of this one.
    assert_eq!(unsafe { libc::kill(process.cast_signed(), signal) }, 0);
}

#[test]
fn two_processes_use_one_new_keystore_at_once() {
    let desk = Desk::new();
    let names: Vec<_> = (0..4).map(|n| format!("f{n}")).collect();
    for name in &names {
        desk.write(name, noise(10_000));
    }
    let spawn = |name: &String| desk.command(["encrypt", name]).spawn().unwrap();
    let children: Vec<_> = names.iter().map(spawn).collect();
    for (name, child) in names.iter().zip(children) {
        let mut ran = Ran::of(name, child.wait_with_output().unwrap());
        // On a slow disk, one of them may have had no turn within the program's patience, and says so.
        for _ in 0..20 {
            if ran.code == Some(5) {
                ran = desk.run(&format!("encrypt {name}"));
            }
        }
        ran.exits(0);
    }
    for name in &names {
        assert_eq!(desk.run(&format!("decrypt {name}.elk -o -")).exits(0).out, noise(10_000));
    }
}

#[test]
fn named_pipes_are_read_as_pipes_are() {
    let desk = Desk::new();
    desk.write("k.key", KEY);
    assert!(Command::new("mkfifo").arg(desk.path("fifo")).status().unwrap().success());
    let path = desk.path("fifo");
    let writer = std::thread::spawn(move || fs::write(path, noise(100_000)).unwrap());
    desk.run("encrypt fifo -p raw:file=k.key").exits(0);
    writer.join().unwrap();
    assert_eq!(desk.run("decrypt fifo.elk -o - -p raw:file=k.key").exits(0).out, noise(100_000));
}

#[test]
fn completions_and_manual_pages_are_made() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = desk.run(&format!("completions {shell}")).exits(0);
        assert!(script.text().contains("accept-more-context"), "{shell}");
    }
    let page = desk.run("man").exits(0);
    assert!(page.text().starts_with(".ie") && page.text().contains("not authentic"));
    fs::create_dir(desk.path("pages")).unwrap();
    desk.run("man pages").exits(0);
    let pages = fs::read_dir(desk.path("pages")).unwrap().count();
    assert!(pages >= 9, "{pages} pages");
    assert!(desk.path("pages/envelock-encrypt.1").exists());
    desk.run("man nowhere").exits(6);
}

#[test]
fn help_errors_and_inspect_read_as_recorded() {
    // Copied with its mode, of which git keeps only whether a file can be run.
    for case in ["errors", "fleet", "recover"] {
        let key = format!("tests/cmd/{case}.in/sample.key");
        fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    }
    trycmd::TestCases::new().case("tests/cmd/*.trycmd").env("HOME", "/nonexistent").run();
}

#[test]
fn the_work_of_a_closed_standard_output_is_not_lost_silently() {
    let desk = Desk::new();
    desk.write("k.key", KEY);
    desk.write("a", noise(5 << 20));
    let line = "encrypt a -o - -p raw:file=k.key";
    let mut child = desk.command(line.split(' ')).spawn().unwrap();
    let mut first = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    Ran::of(line, child.wait_with_output().unwrap()).exits(6).says("Broken pipe");
}
