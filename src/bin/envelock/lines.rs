//! `seal --lines` and `open --lines`: many values, one a line, and one call to the key provider for all of
//! them that share a data key.

use crate::failure::Failure;
use crate::inspect::json_text;
use crate::streams::{Source, StandardOutput};
use crate::value::{INPUT, append, read_more};
use crate::value_args::Lines;
use envelock::{CacheCounts, CacheLimits, DataKeyCache, Error, ErrorKind};
use serde_json::json;
use std::fs::File;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::Path;
use zeroize::Zeroizing;

/// The cache of one run.
pub(crate) struct Caching {
    cache: DataKeyCache,
}

impl Caching {
    pub(crate) fn new(limits: Option<CacheLimits>) -> Result<Self, Failure> {
        Ok(Self { cache: DataKeyCache::new(limits.unwrap_or_default())? })
    }

    pub(crate) fn cache(&self) -> &DataKeyCache {
        &self.cache
    }

    /// Writes a line for each line of standard input, none of which has more than `most` bytes. The first that
    /// fails ends it, after those before it are written.
    pub(crate) fn each_line(
        &self,
        arguments: Lines,
        most: usize,
        work: impl Fn(&[u8]) -> Result<Zeroizing<Vec<u8>>, Error>,
    ) -> Result<(), Failure> {
        let mut out = Output { to: StandardOutput::open()?, waiting: Zeroizing::default() };
        let mut lines = Input::open(most)?;
        let worked = all(&mut lines, &mut out, work);
        let written = out.flush();
        if arguments.cache_stats {
            self.say(arguments.json);
        }
        worked.and(written)
    }

    /// Statistics are no note: `--quiet` leaves them.
    fn say(&self, as_json: bool) {
        // One direction of the two has counts.
        let all = self.cache.statistics();
        let sum = |count: fn(&CacheCounts) -> u64| all.iter().map(|of| count(&of.encrypt) + count(&of.decrypt)).sum();
        let (hits, misses): (u64, u64) = (sum(|counts| counts.hits), sum(|counts| counts.misses));
        let (renewals, failures): (u64, u64) = (sum(|counts| counts.renewals), sum(|counts| counts.failures));
        let (calls, saved): (u64, u64) = (sum(CacheCounts::calls), sum(CacheCounts::calls_saved));
        let text = match as_json {
            true => json_text(&json!({
                "hits": hits,
                "misses": misses,
                "renewals": renewals,
                "failures": failures,
                "calls": calls,
                "calls_saved": saved,
            })),
            false => format!(
                "{:>12} {:>12} {:>12} {:>12} {:>12} {:>12}\n\
                 {hits:>12} {misses:>12} {renewals:>12} {failures:>12} {calls:>12} {saved:>12}\n",
                "hits", "misses", "renewals", "failures", "calls", "calls saved"
            ),
        };
        // Statistics that cannot be shown are no failure of the work.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

fn all(
    lines: &mut Input,
    out: &mut Output,
    work: impl Fn(&[u8]) -> Result<Zeroizing<Vec<u8>>, Error>,
) -> Result<(), Failure> {
    loop {
        match lines.at_hand() {
            Some(line) => {
                lines.count += 1;
                let made = work(lines.bytes.get(line).unwrap_or_default());
                out.line(&made.map_err(|error| Failure::from(error).of(&lines.name()))?)?;
            }
            None if lines.ended => return Ok(()),
            None => {
                // Whoever writes a line and waits for its answer gets it.
                out.flush()?;
                lines.fill()?;
            }
        }
    }
}

/// Standard input, line by line.
struct Input {
    source: File,
    bytes: Zeroizing<Vec<u8>>,
    /// Where the next line begins, and up to where there is no end of it.
    begin: usize,
    searched: usize,
    ended: bool,
    most: usize,
    count: u64,
}

impl Input {
    fn open(most: usize) -> Result<Self, Failure> {
        let source = Source::of(Path::new("-"))?.open()?;
        let bytes = Zeroizing::default();
        Ok(Self { source, bytes, begin: 0, searched: 0, ended: false, most, count: 0 })
    }

    /// The line that was counted last.
    fn name(&self) -> String {
        format!("{INPUT}, line {}", self.count)
    }

    /// Where the next line is, without its end, if it is there.
    fn at_hand(&mut self) -> Option<Range<usize>> {
        let rest = self.bytes.get(self.searched..).unwrap_or_default();
        let end = match rest.iter().position(|byte| *byte == b'\n') {
            Some(found) => self.searched + found,
            None => {
                self.searched = self.bytes.len();
                // The last line may have no end.
                Some(self.bytes.len()).filter(|end| self.ended && *end > self.begin)?
            }
        };
        let line = self.begin..end;
        self.begin = (end + 1).min(self.bytes.len());
        self.searched = self.begin;
        Some(line)
    }

    /// Reads on.
    fn fill(&mut self) -> Result<(), Failure> {
        // What is wiped in the end is the whole buffer.
        self.bytes.drain(..self.begin);
        self.searched -= self.begin;
        self.begin = 0;
        if self.bytes.len() > self.most {
            self.count += 1;
            let error = Error::new(ErrorKind::LimitExceeded, format!("it has more than {} bytes", self.most));
            return Err(Failure::from(error.with_advice("encrypt larger values as files")).of(&self.name()));
        }
        self.ended = read_more(&mut self.source, &mut self.bytes)? == 0;
        Ok(())
    }
}

/// Standard output, and what is not yet there.
struct Output {
    to: StandardOutput,
    waiting: Zeroizing<Vec<u8>>,
}

impl Output {
    fn line(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        append(&mut self.waiting, bytes);
        append(&mut self.waiting, b"\n");
        if self.waiting.len() < ENOUGH { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let written = self.to.write_all(&self.waiting).map_err(|e| Failure::from(Error::from(e)));
        // Once it has failed, there is nothing more to write.
        self.waiting.clear();
        written
    }
}

/// Bytes that are worth a call of the system.
const ENOUGH: usize = 64 << 10;
