//! The program at a terminal: a pseudo-terminal that controls it, as a terminal window does.

use crate::cli::{Desk, KEY, noise};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The most that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// A signal ends a prompt sooner than the grace that work has to undo itself, which is 5 s.
const PROMPT: Duration = Duration::from_millis(4_800);

/// A program on a terminal of its own, and what it has shown there.
struct Session {
    child: Child,
    keyboard: File,
    // Open, so that the terminal's modes can be looked at once the program has ended.
    terminal: File,
    screen: Receiver<Vec<u8>>,
    shown: Vec<u8>,
}

impl Session {
    /// All three streams are the terminal, less those that `redirect` sets.
    fn start(mut command: Command, redirect: impl FnOnce(&mut Command)) -> Self {
        let (mut keyboard, mut terminal) = (-1, -1);
        let none = std::ptr::null_mut();
        // SAFETY: the call writes two descriptors, which are ours from then on, and reads nothing.
        let (keyboard, terminal) = unsafe {
            assert_eq!(libc::openpty(&raw mut keyboard, &raw mut terminal, none, none.cast(), none.cast()), 0);
            for fd in [keyboard, terminal] {
                assert_eq!(libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC), 0);
            }
            (File::from_raw_fd(keyboard), File::from_raw_fd(terminal))
        };
        for set in [Command::stdin, Command::stdout, Command::stderr] {
            set(&mut command, Stdio::from(terminal.try_clone().unwrap()));
        }
        command.env("TERM", "xterm");
        redirect(&mut command);
        let fd = terminal.as_raw_fd();
        // SAFETY: between fork and exec, two system calls on numbers.
        unsafe {
            command.pre_exec(move || match libc::setsid() >= 0 && libc::ioctl(fd, libc::TIOCSCTTY, 0) == 0 {
                true => Ok(()),
                false => Err(std::io::Error::last_os_error()),
            });
        }
        let child = command.spawn().unwrap();
        let (sender, screen) = channel();
        let mut output = keyboard.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, terminal, screen, shown: Vec::new() }
    }

    fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until the terminal has shown `text`.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let start = Instant::now();
        while !self.text().contains(text) {
            match self.screen.recv_timeout(Duration::from_millis(50)) {
                Ok(bytes) => self.shown.extend(bytes),
                Err(_) => assert!(start.elapsed() < PATIENCE, "{text:?} is not in {:?}", self.text()),
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    /// Whether the terminal shows what is typed.
    fn echoes(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.terminal).unwrap();
        modes.local_modes.contains(rustix::termios::LocalModes::ECHO)
    }

    fn signal(&self, number: i32) {
        // SAFETY: the child was not waited for, so that the number is still its own.
        assert_eq!(unsafe { libc::kill(self.child.id().cast_signed(), number) }, 0);
    }

    /// Waits for the end; the exit code, and all that was shown.
    #[track_caller]
    fn end(mut self, within: Duration) -> (i32, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            while let Ok(bytes) = self.screen.try_recv() {
                self.shown.extend(bytes);
            }
            assert!(start.elapsed() < within, "it does not end: {:?}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(self.echoes(), "the terminal was left without echo");
        // What was written last is on its way.
        while let Ok(bytes) = self.screen.recv_timeout(Duration::from_millis(100)) {
            self.shown.extend(bytes);
        }
        (status.code().unwrap_or_else(|| panic!("ended by signal {:?}", status.signal())), self.text())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It has ended already, unless the test fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Its input comes from a pipe.
fn feed(command: &mut Command) {
    command.stdin(Stdio::piped());
}

fn session(desk: &Desk, line: &str) -> Session {
    Session::start(desk.command(line.split(' ')), |_| {})
}

#[test]
fn a_passphrase_is_asked_for_twice_to_encrypt_and_once_to_decrypt_and_never_shown() {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    let mut it = session(&desk, "encrypt a -p passphrase:");
    it.expect("Passphrase: ");
    assert!(!it.echoes());
    it.type_in("correct hörse\n");
    it.expect("The same again: ");
    assert!(!it.echoes());
    it.type_in("correct hörse\n");
    let (code, shown) = it.end(PATIENCE);
    assert_eq!(code, 0, "{shown}");
    assert!(!shown.contains("correct") && !shown.contains("rse"), "{shown}");
    // Each question stands on a line of its own.
    assert!(shown.starts_with("Passphrase: \r\nThe same again: \r\n"), "{shown:?}");

    let mut it = session(&desk, "decrypt a.elk -o b -p passphrase:");
    it.expect("Passphrase: ");
    // What was mistyped can be taken back.
    it.type_in("correct hörsf\u{7f}e\n");
    let (code, shown) = it.end(PATIENCE);
    assert_eq!(code, 0, "{shown}");
    assert!(!shown.contains("again") && !shown.contains("correct"), "{shown}");
    assert_eq!(desk.read("b"), b"plaintext");

    let mut it = session(&desk, "decrypt a.elk -o c -p passphrase:");
    it.expect("Passphrase: ");
    it.type_in("another\n");
    assert_eq!(it.end(PATIENCE).0, 3);
}

#[test]
fn two_answers_that_differ_and_no_answer_are_told_and_nothing_is_written() {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    let mut it = session(&desk, "encrypt a -p passphrase:");
    it.expect("Passphrase: ");
    it.type_in("one\n");
    it.expect("The same again: ");
    it.type_in("two\n");
    let (code, shown) = it.end(PATIENCE);
    assert_eq!(code, 2, "{shown}");
    assert!(shown.contains("the two passphrases differ"), "{shown}");
    // The end of the input, and an empty line.
    for answer in ["\u{4}", "\n"] {
        let mut it = session(&desk, "encrypt a -p passphrase:");
        it.expect("Passphrase: ");
        it.type_in(answer);
        if answer == "\n" {
            it.expect("The same again: ");
            it.type_in(answer);
        }
        let (code, shown) = it.end(PATIENCE);
        assert_eq!(code, 2, "{shown}");
    }
    assert!(!desk.path("a.elk").exists());
}

#[test]
fn a_line_that_a_terminal_would_cut_is_refused() {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    let mut it = session(&desk, "encrypt a -p passphrase:");
    it.expect("Passphrase: ");
    // In pieces, as a terminal's buffer takes them.
    for _ in 0..50 {
        it.type_in(&"x".repeat(100));
        std::thread::sleep(Duration::from_millis(2));
    }
    it.type_in("\n");
    let (code, shown) = it.end(PATIENCE);
    assert_eq!(code, 2, "{shown}");
    assert!(shown.contains("passphrase:file=PATH"), "{shown}");
}

#[test]
fn a_signal_at_the_prompt_ends_it_at_once_with_its_code_and_a_clean_terminal() {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    for second in [false, true] {
        for (number, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129)] {
            let mut it = session(&desk, "encrypt a -p passphrase:");
            it.expect("Passphrase: ");
            if second {
                it.type_in("one\n");
                it.expect("The same again: ");
            }
            assert!(!it.echoes());
            it.type_in("half an ans");
            match number {
                // By its key.
                libc::SIGINT => it.type_in("\u{3}"),
                _ => it.signal(number),
            }
            let (ended, shown) = it.end(PROMPT);
            assert_eq!(ended, code, "{shown}");
            assert!(shown.contains("envelock: interrupted\r\n") && !shown.contains("half"), "{shown:?}");
            assert!(shown.lines().all(|line| line.starts_with("envelock: ") || line.ends_with(": ")), "{shown:?}");
        }
    }
    assert!(!desk.path("a.elk").exists());
}

#[test]
fn a_progress_bar_is_drawn_on_a_terminal_and_taken_off_again() {
    let desk = Desk::new();
    desk.write("k.key", KEY);
    let plaintext = noise(3 << 20);
    let command = |more: &str| desk.command(format!("encrypt - -o out.elk -f -p raw:file=k.key{more}").split(' '));
    let mut it = Session::start(command(""), feed);
    let mut input = it.child.stdin.take().unwrap();
    // Two pieces, so that the first is drawn while the program waits for the second.
    input.write_all(&plaintext[..1 << 20]).unwrap();
    it.expect("/s");
    input.write_all(&plaintext[1 << 20..]).unwrap();
    drop(input);
    let (code, shown) = it.end(PATIENCE);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("MiB"), "{shown:?}");
    let lines = screen(&shown);
    assert_eq!(lines, ["envelock: encrypted standard input to out.elk", ""], "{shown:?}");

    // None where it is not wanted, and none in a pipe.
    let quiet = Session::start(command(" --quiet"), feed);
    assert_eq!(quiet.end_of_input(&plaintext), (0, String::new()));
    let ran = desk.run("decrypt out.elk -o copy -p raw:file=k.key").exits(0);
    assert_eq!(ran.err, "envelock: decrypted out.elk to copy\n");
    assert_eq!(desk.read("copy"), plaintext);
}

impl Session {
    fn end_of_input(mut self, input: &[u8]) -> (i32, String) {
        // A program that refuses ends before it has read.
        let _ = self.child.stdin.take().unwrap().write_all(input);
        self.end(PATIENCE)
    }
}

/// What stands on the screen at last, line by line.
fn screen(shown: &str) -> Vec<String> {
    let (mut lines, mut column) = (vec![Vec::<char>::new()], 0);
    let mut rest = shown.chars().peekable();
    while let Some(c) = rest.next() {
        let line = lines.last_mut().unwrap();
        match c {
            '\r' => column = 0,
            '\n' => lines.push(Vec::new()),
            '\u{1b}' => {
                assert_eq!(rest.next(), Some('['));
                let sequence: String = std::iter::from_fn(|| rest.next_if(|c| !c.is_ascii_alphabetic())).collect();
                match (rest.next(), &*sequence) {
                    (Some('K'), "2") => line.clear(),
                    // Colours, and whether the cursor shows.
                    (Some('m' | 'h' | 'l'), _) => {}
                    other => panic!("an unexpected sequence {other:?} in {shown:?}"),
                }
            }
            c => {
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
        }
    }
    lines.into_iter().map(|line| line.into_iter().collect::<String>().trim_end().to_owned()).collect()
}

#[test]
fn a_message_is_not_written_to_a_terminal_unless_that_is_asked_for() {
    let desk = Desk::new();
    desk.write("k.key", KEY);
    let run = |line: &str| {
        let it = Session::start(desk.command(line.split(' ')), feed);
        it.end_of_input(b"plaintext")
    };
    let (code, shown) = run("encrypt - -p raw:file=k.key");
    assert_eq!(code, 2, "{shown}");
    assert!(shown.contains("not for a terminal") && !shown.contains("ELK"), "{shown}");
    let (code, shown) = run("encrypt - -o - -p raw:file=k.key");
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("ELK"), "{shown}");
    // A plaintext may be shown.
    desk.run("encrypt k.key -p raw:file=k.key").exits(0);
    let (code, shown) = run("decrypt k.key.elk -o - -p raw:file=k.key");
    assert_eq!((code, shown.trim_end()), (0, KEY.trim_end()));
}
