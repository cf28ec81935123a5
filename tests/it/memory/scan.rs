//! A search of this process's own memory for secrets that are known by their hashes alone.

use crate::support::child::{hear, tell};
use std::collections::HashMap;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Bytes that are looked for at a time. Less than a whole key: an allocator writes its own links over the
/// first 16 bytes of what is freed, and the rest of an unwiped key stays.
const PIECE: usize = 16;

/// A piece of a secret, known by two polynomial hashes.
#[derive(Clone, Debug)]
pub(super) struct Needle {
    name: String,
    hashes: [u64; 2],
}

/// Odd, so that no byte's weight vanishes modulo 2^64.
const BASES: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93];

fn hash(bytes: &[u8], base: u64) -> u64 {
    bytes.iter().fold(0_u64, |hash, &byte| hash.wrapping_mul(base).wrapping_add(u64::from(byte) + 1))
}

impl Needle {
    /// The first and the last piece of `secret`, on one line.
    pub(super) fn line_of(name: &str, secret: &[u8]) -> String {
        assert!(secret.len() >= PIECE);
        let line = |which: &str, piece: &[u8]| {
            let [one, two] = BASES.map(|base| hash(piece, base));
            format!("{name}/{which} {one} {two}")
        };
        format!("{};{}", line("start", &secret[..PIECE]), line("end", &secret[secret.len() - PIECE..]))
    }

    fn from_line(line: &str) -> Self {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap();
        Self { name: word().to_owned(), hashes: [word().parse().unwrap(), word().parse().unwrap()] }
    }
}

/// Looks through everything that this process can write to.
pub(super) struct Scanner {
    /// What is read goes here and nowhere else; left out of the search, and wiped after it.
    window: Vec<u8>,
    needles: Vec<Needle>,
}

/// Bytes looked through at a time.
const WINDOW: usize = 1 << 20;

/// What is found, and how often.
type Counts = HashMap<String, usize>;

impl Scanner {
    pub(super) fn new() -> Self {
        Self { window: vec![0; WINDOW], needles: Vec::new() }
    }

    /// Asks the parent for the hashes that belong to `request`.
    pub(super) fn learn(&mut self, request: &str) {
        tell(request);
        let answer = hear();
        assert!(!answer.is_empty(), "the parent has no answer to this");
        self.needles.extend(answer.split(';').map(Needle::from_line));
    }

    fn search(&mut self) -> Counts {
        let memory = File::open("/proc/self/mem").unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let sieve = Sieve::of(&self.needles);
        let mut counts = Counts::new();
        let window = self.window.as_ptr() as u64;
        let window = window..window + WINDOW as u64;
        let mut seen = 0;
        for line in maps.lines() {
            let mut words = line.split_ascii_whitespace();
            let (range, access) = (words.next().unwrap(), words.next().unwrap());
            if !access.starts_with("rw") {
                continue;
            }
            let (start, end) = range.split_once('-').unwrap();
            let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
            // Around the window, if that lies in this region.
            let pieces = match (start..end).contains(&window.start) {
                true => [start..window.start, window.end..end],
                false => [start..end, end..end],
            };
            for piece in pieces {
                seen += self.search_range(&memory, piece, &sieve, &mut counts);
            }
        }
        self.window.fill(0);
        black_box(&mut self.window);
        assert!(seen > 64 * 1024, "only {seen} bytes of memory could be read");
        counts
    }

    fn search_range(&mut self, memory: &File, range: std::ops::Range<u64>, sieve: &Sieve, counts: &mut Counts) -> u64 {
        let mut at = range.start;
        while at < range.end {
            let len = usize::try_from((range.end - at).min(WINDOW as u64)).unwrap();
            let window = &mut self.window[..len];
            // Guard pages and device memory cannot be read, and hold no key.
            if memory.read_exact_at(window, at).is_err() {
                break;
            }
            sieve.count(window, counts);
            let last = at + len as u64 == range.end;
            // Windows overlap by what a piece needs that begins in one and ends in the next.
            at += if last { len } else { len - (PIECE - 1) } as u64;
        }
        at - range.start
    }

    /// All of `names` are in memory now, which also shows that the search works.
    #[track_caller]
    pub(super) fn expect(&mut self, names: &[&str]) {
        let counts = self.search();
        for name in names {
            for which in ["start", "end"] {
                assert!(counts.contains_key(&format!("{name}/{which}")), "{name} is in use and not found: {counts:?}");
            }
        }
        tell(format!("in-use {counts:?}"));
    }

    /// Nothing of it is in memory now.
    #[track_caller]
    pub(super) fn expect_nothing(&mut self) {
        self.expect_nothing_within(Duration::ZERO);
    }

    /// Nothing of it is in memory, at the latest after `time`.
    #[track_caller]
    pub(super) fn expect_nothing_within(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let mut counts = self.search();
        while !counts.is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
            counts = self.search();
        }
        assert!(counts.is_empty(), "left in memory: {counts:?}");
        tell(format!("afterwards {}", self.needles.len() / 2));
    }
}

/// Finds all needles in one pass.
struct Sieve {
    needles: Vec<Needle>,
    /// Whether a needle's first hash begins with these 16 bits.
    beginnings: Vec<bool>,
}

impl Sieve {
    fn of(needles: &[Needle]) -> Self {
        let mut beginnings = vec![false; 1 << 16];
        needles.iter().for_each(|needle| beginnings[usize::from((needle.hashes[0] >> 48) as u16)] = true);
        Self { needles: needles.to_vec(), beginnings }
    }

    /// Counts what begins and ends in `bytes`.
    fn count(&self, bytes: &[u8], counts: &mut Counts) {
        if bytes.len() < PIECE {
            return;
        }
        let base = BASES[0];
        let leaving = (0..PIECE).fold(1_u64, |power, _| power.wrapping_mul(base));
        let mut rolling = hash(&bytes[..PIECE], base);
        self.check(rolling, &bytes[..PIECE], counts);
        for (start, &entering) in bytes[PIECE..].iter().enumerate() {
            rolling = rolling
                .wrapping_mul(base)
                .wrapping_add(u64::from(entering) + 1)
                .wrapping_sub(leaving.wrapping_mul(u64::from(bytes[start]) + 1));
            if self.beginnings[usize::from((rolling >> 48) as u16)] {
                self.check(rolling, &bytes[start + 1..start + 1 + PIECE], counts);
            }
        }
    }

    fn check(&self, rolling: u64, piece: &[u8], counts: &mut Counts) {
        for needle in self.needles.iter().filter(|needle| needle.hashes[0] == rolling) {
            if hash(piece, BASES[1]) == needle.hashes[1] {
                *counts.entry(needle.name.clone()).or_default() += 1;
            }
        }
    }
}

#[test]
fn a_needle_is_found_wherever_it_stands() {
    let secret: Vec<u8> = (0..48).map(|n| n * 5 + 1).collect();
    let needles: Vec<_> = Needle::line_of("key", &secret).split(';').map(Needle::from_line).collect();
    let sieve = Sieve::of(&needles);
    let count = |bytes: &[u8]| {
        let mut counts = Counts::new();
        sieve.count(bytes, &mut counts);
        ["key/start", "key/end"].map(|name| counts.get(name).copied().unwrap_or(0))
    };
    for before in 0..70 {
        let bytes = [vec![9; before], secret.clone(), secret.clone(), vec![9; 70 - before]].concat();
        assert_eq!(count(&bytes), [2, 2]);
        assert_eq!(count(&bytes[..before + 47]), [1, 0]);
        assert_eq!(count(&bytes[before + 49..]), [0, 1]);
    }
}
