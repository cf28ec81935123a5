//! Sources of ranges that count, and sources that answer as they should not.

use bytes::Bytes;
use envelock::{FetchAnswer, Fetched, RangeSource, ReadAt, Result, SourceVersion, async_trait};
use std::io;
use std::ops::Range;
use std::sync::Mutex;

/// What a source was asked for, in order.
#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<Vec<Range<u64>>>);

impl Log {
    fn note(&self, range: Range<u64>) {
        self.0.lock().unwrap().push(range);
    }

    /// The reads since the last call.
    pub(crate) fn take(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// A message in memory whose reads are noted, either way.
#[derive(Debug)]
pub(crate) struct Noted {
    bytes: Bytes,
    pub(crate) log: Log,
}

impl Noted {
    pub(crate) fn new(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), log: Log::default() }
    }
}

impl ReadAt for Noted {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.log.note(offset..offset + buffer.len() as u64);
        self.bytes[..].read_exact_at(buffer, offset)
    }
}

#[async_trait]
impl RangeSource for Noted {
    fn name(&self) -> String {
        "noted".into()
    }

    async fn fetch(&self, range: Range<u64>, pinned: Option<&SourceVersion>) -> Result<FetchAnswer> {
        self.log.note(range.start..range.end.min(self.bytes.len() as u64));
        self.bytes.fetch(range, pinned).await
    }
}

/// A source whose answers are bent once armed: by a function of the right answer.
pub(crate) struct Bent<F> {
    pub(crate) bytes: Bytes,
    /// Fetches that are answered well before the bending begins.
    pub(crate) good: Mutex<usize>,
    pub(crate) bend: F,
}

impl<F> Bent<F> {
    pub(crate) fn new(bytes: impl Into<Bytes>, good: usize, bend: F) -> Self {
        Self { bytes: bytes.into(), good: Mutex::new(good), bend }
    }
}

#[async_trait]
impl<F: Fn(Fetched) -> Result<FetchAnswer> + Send + Sync> RangeSource for Bent<F> {
    fn name(&self) -> String {
        "bucket/object".into()
    }

    async fn fetch(&self, range: Range<u64>, _: Option<&SourceVersion>) -> Result<FetchAnswer> {
        let FetchAnswer::Fetched(answer) = self.bytes.fetch(range, None).await? else { unreachable!() };
        let answer = Fetched { version: Some(SourceVersion::new("v1")), ..answer };
        let mut good = self.good.lock().unwrap();
        match *good {
            0 => (self.bend)(answer),
            _ => {
                *good -= 1;
                Ok(FetchAnswer::Fetched(answer))
            }
        }
    }
}
