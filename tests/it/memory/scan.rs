//! A search of this process's own memory for secrets that are known by their hashes alone.

use crate::support::process::{hear, tell};
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;

/// A secret to look for: its length and two polynomial hashes of it.
#[derive(Clone, Debug)]
pub(super) struct Needle {
    pub(super) name: String,
    pub(super) len: usize,
    pub(super) hashes: [u64; 2],
}

/// Odd, so that no byte's weight vanishes modulo 2^64.
const BASES: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93];

pub(super) fn hash(bytes: &[u8], base: u64) -> u64 {
    bytes.iter().fold(0_u64, |hash, &byte| hash.wrapping_mul(base).wrapping_add(u64::from(byte) + 1))
}

impl Needle {
    pub(super) fn of(name: &str, secret: &[u8]) -> Self {
        Self { name: name.to_owned(), len: secret.len(), hashes: BASES.map(|base| hash(secret, base)) }
    }

    pub(super) fn to_line(&self) -> String {
        format!("{} {} {} {}", self.name, self.len, self.hashes[0], self.hashes[1])
    }

    fn from_line(line: &str) -> Self {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap();
        let name = word().to_owned();
        let mut number = || word().parse().unwrap();
        let len = usize::try_from(number()).unwrap();
        Self { name, len, hashes: [number(), number()] }
    }

    /// How often it stands in `bytes`.
    fn count(&self, bytes: &[u8]) -> usize {
        if bytes.len() < self.len {
            return 0;
        }
        let base = BASES[0];
        let leaving = (0..self.len).fold(1_u64, |power, _| power.wrapping_mul(base));
        let mut rolling = hash(&bytes[..self.len], base);
        let mut count = 0;
        for start in 0..=bytes.len() - self.len {
            if rolling == self.hashes[0] && hash(&bytes[start..start + self.len], BASES[1]) == self.hashes[1] {
                count += 1;
            }
            if let Some(&entering) = bytes.get(start + self.len) {
                rolling = rolling
                    .wrapping_mul(base)
                    .wrapping_add(u64::from(entering) + 1)
                    .wrapping_sub(leaving.wrapping_mul(u64::from(bytes[start]) + 1));
            }
        }
        count
    }
}

/// Looks through everything that this process can write to.
pub(super) struct Scanner {
    /// What is read goes here and nowhere else; left out of the search, and wiped after it.
    window: Vec<u8>,
    needles: Vec<Needle>,
}

/// Bytes looked through at a time; windows overlap by the longest needle.
const WINDOW: usize = 1 << 20;
const LONGEST: usize = 128;

impl Scanner {
    pub(super) fn new() -> Self {
        Self { window: vec![0; WINDOW], needles: Vec::new() }
    }

    /// Asks the parent for the hashes that belong to `request`.
    pub(super) fn learn(&mut self, request: &str) {
        tell(request);
        let answer = hear();
        assert!(!answer.is_empty(), "the parent has no answer to this");
        let needles: Vec<_> = answer.split(';').map(Needle::from_line).collect();
        assert!(needles.iter().all(|needle| needle.len <= LONGEST));
        self.needles.extend(needles);
    }

    /// How often each needle is in memory.
    fn search(&mut self) -> Vec<(String, usize)> {
        let memory = File::open("/proc/self/mem").unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut counts: Vec<_> = self.needles.iter().map(|needle| (needle.name.clone(), 0)).collect();
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
                seen += self.search_piece(&memory, piece, &mut counts);
            }
        }
        self.window.fill(0);
        black_box(&mut self.window);
        assert!(seen > 64 * 1024, "only {seen} bytes of memory could be read");
        counts
    }

    fn search_piece(&mut self, memory: &File, piece: std::ops::Range<u64>, counts: &mut [(String, usize)]) -> u64 {
        let mut at = piece.start;
        let mut seen = 0;
        while at < piece.end {
            let len = usize::try_from((piece.end - at).min(WINDOW as u64)).unwrap();
            let window = &mut self.window[..len];
            // Guard pages and device memory cannot be read, and hold no key.
            if memory.read_exact_at(window, at).is_err() {
                break;
            }
            seen += len as u64;
            let last = at + len as u64 == piece.end;
            for (needle, (_, count)) in self.needles.iter().zip(counts.iter_mut()) {
                // What begins in the overlap is counted in the next window.
                let end = if last { len } else { len - LONGEST + needle.len - 1 };
                *count += needle.count(&window[..end]);
            }
            at += if last { len } else { len - LONGEST } as u64;
        }
        seen
    }

    /// All of `names` are in memory now, which also shows that the search works.
    #[track_caller]
    pub(super) fn expect(&mut self, names: &[&str]) {
        let counts = self.search();
        for name in names {
            let count = counts.iter().filter(|(found, _)| found.starts_with(name)).map(|(_, count)| count).max();
            assert!(count.is_some_and(|&count| count > 0), "{name} is in use and was not found: {counts:?}");
        }
        tell(format!("in-use {}", table(&counts)));
    }

    /// Nothing of it is in memory now.
    #[track_caller]
    pub(super) fn expect_nothing(&mut self) {
        let counts = self.search();
        assert!(counts.iter().all(|(_, count)| *count == 0), "left in memory: {}", table(&counts));
        tell(format!("afterwards {}", counts.len()));
    }
}

fn table(counts: &[(String, usize)]) -> String {
    let found: Vec<_> = counts.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name} x{n}")).collect();
    found.join(", ")
}

#[test]
fn a_needle_is_found_wherever_it_stands() {
    let secret: Vec<u8> = (0..32).map(|n| n * 7).collect();
    let needle = Needle::of("secret", &secret);
    assert_eq!(Needle::from_line(&needle.to_line()).hashes, needle.hashes);
    for before in 0..70 {
        let bytes = [vec![9; before], secret.clone(), secret.clone(), vec![9; 70 - before]].concat();
        assert_eq!(needle.count(&bytes), 2);
        assert_eq!(needle.count(&bytes[..before + 31]), 0);
    }
}
