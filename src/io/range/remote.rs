//! Ranges of plaintext out of a source that is awaited, and pinned to the version that was opened.

use crate::error::{Error, Result};
use crate::io::range::gather::{Body, Claimed, Gather};
use crate::io::range::plan::{Piece, RangeOptions};
use crate::io::range::source::{FetchAnswer, Fetched, RangeSource, SourceVersion};
use crate::segments::Segments;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Bytes of the first read. All but unusual heads fit, and small messages whole.
const FIRST_READ: u64 = 16 << 10;

/// A source, and the state of its object that all reads must be of.
struct Pinned<S> {
    source: S,
    object_len: u64,
    version: Option<SourceVersion>,
}

impl<S: RangeSource> Pinned<S> {
    /// Pins the object, and gives its bytes from `start` on, a few of them.
    async fn first(source: S, start: u64) -> Result<(Self, Bytes)> {
        let asked = start..start.saturating_add(FIRST_READ);
        let Fetched { bytes, object_len, version } = match source.fetch(asked.clone(), None).await? {
            FetchAnswer::Fetched(fetched) => fetched,
            FetchAnswer::Changed => return Err(Error::source_changed(&source.name())),
        };
        let pinned = Self { source, object_len, version };
        let bytes = pinned.checked(bytes, &asked)?;
        Ok((pinned, bytes))
    }

    /// All bytes in `asked`, as far as the object goes, of the pinned state.
    async fn fetch(&self, asked: Range<u64>) -> Result<Bytes> {
        let answer = self.source.fetch(asked.clone(), self.version.as_ref()).await?;
        match answer {
            // A source that tells versions tells them each time.
            FetchAnswer::Fetched(fetched)
                if fetched.object_len == self.object_len
                    && (self.version.is_none() || fetched.version == self.version) =>
            {
                self.checked(fetched.bytes, &asked)
            }
            FetchAnswer::Fetched(_) | FetchAnswer::Changed => Err(Error::source_changed(&self.source.name())),
        }
    }

    fn checked(&self, bytes: Bytes, asked: &Range<u64>) -> Result<Bytes> {
        let expected = asked.end.min(self.object_len).saturating_sub(asked.start);
        if bytes.len() as u64 != expected {
            return Err(Error::wrong_answer(&self.source.name(), asked, expected, bytes.len()));
        }
        Ok(bytes)
    }
}

/// A message that is being opened: its first bytes are there.
pub(crate) struct Opening<S> {
    pinned: Pinned<S>,
    /// Where `bytes` lie.
    start: u64,
    bytes: Bytes,
}

impl<S: RangeSource> Opening<S> {
    /// # Errors
    /// The source's own, and Io for an answer that is none.
    pub(crate) async fn begin(source: S, start: u64) -> Result<Self> {
        let (pinned, bytes) = Pinned::first(source, start).await?;
        Ok(Self { pinned, start, bytes })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Fetches more, until there are `needed` bytes or the object ends.
    ///
    /// # Errors
    /// Truncated if it has ended already; then as [`begin`](Self::begin).
    pub(crate) async fn extend(&mut self, needed: usize) -> Result<()> {
        let end = self.start.saturating_add(needed as u64).min(self.pinned.object_len);
        let have = self.start.saturating_add(self.bytes.len() as u64);
        if end <= have {
            return Err(Error::truncated());
        }
        let more = self.pinned.fetch(have..end).await?;
        let mut all = BytesMut::with_capacity(self.bytes.len() + more.len());
        all.extend_from_slice(&self.bytes);
        all.extend_from_slice(&more);
        self.bytes = all.freeze();
        Ok(())
    }

    /// The reader, once the final segment is verified. It is fetched unless it is there.
    ///
    /// # Errors
    /// AuthenticationFailed, Truncated, LimitExceeded; then as [`begin`](Self::begin).
    pub(crate) async fn finish(self, segments: Arc<dyn Segments>, body_start: u64) -> Result<AsyncRangeReader<S>> {
        let Self { pinned, start, bytes } = self;
        let claimed = Claimed::new(segments, body_start, pinned.object_len, RangeOptions::remote())?;
        let span = claimed.span(claimed.end())?;
        let at = |offset: u64| usize::try_from(offset.checked_sub(start)?).ok();
        let there = at(span.start).zip(at(span.end)).and_then(|(from, to)| bytes.get(from..to));
        let body = match there {
            Some(segment) => claimed.verify(segment)?,
            None => {
                let last = claimed.end().last;
                let segment = pinned.fetch(span).await.map_err(|error| in_segment(error, last))?;
                claimed.verify(&segment)?
            }
        };
        Ok(AsyncRangeReader { pinned, body })
    }
}

/// Decrypts ranges of a message in a [`RangeSource`].
///
/// Made by [`Envelope::async_range_reader`](crate::Envelope::async_range_reader) with the head and the
/// final segment fetched, so that the length is authentic; then a range costs the segments it touches,
/// each fetched and opened once. `&self`: tasks share one. Needs no runtime.
///
/// All is of one version: the one that the source told at the opening is sent with each fetch, and
/// version and length that come back are compared with it. A change in between is an error of kind
/// [`Io`](crate::ErrorKind::Io) that names the object, and whose source is a [`std::io::Error`] of kind
/// [`StaleNetworkFileHandle`](std::io::ErrorKind::StaleNetworkFileHandle): open it anew. A source
/// without versions is pinned to its length only; bytes of another message still fail to
/// authenticate.
///
/// Decryption runs where the future is polled, about a MiB ([`max_read`](RangeOptions::max_read))
/// between two chances for other tasks.
///
/// Every call may be dropped at any time: it changes nothing but its own output, which is wiped then.
/// The reader keeps a few buffers between calls, which hold plaintext until it is dropped, and are
/// wiped then.
pub struct AsyncRangeReader<S> {
    pinned: Pinned<S>,
    body: Body,
}

impl<S: RangeSource> AsyncRangeReader<S> {
    /// The same reader, which reads as `options` say. Default: [`RangeOptions::remote`].
    #[must_use]
    pub fn with_options(mut self, options: RangeOptions) -> Self {
        self.body.options = options;
        self
    }

    /// Length of the plaintext in bytes, verified.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "is_empty of a message reads oddly; compare with 0")]
    pub fn len(&self) -> u64 {
        self.body.plaintext_total()
    }

    /// The version of the object that all reads are of, if the source tells one.
    #[must_use]
    pub fn version(&self) -> Option<&SourceVersion> {
        self.pinned.version.as_ref()
    }

    /// The plaintext in `range`, shortened where the message ends before it does.
    ///
    /// # Errors
    /// [`AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed) or
    /// [`Truncated`](crate::ErrorKind::Truncated) if a segment that the range touches is damaged
    /// (nothing of it is returned), [`Io`](crate::ErrorKind::Io) if the object changed or the source
    /// gives another number of bytes than asked, the source's own errors,
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the range does not fit into memory.
    pub async fn read_range(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let range = self.body.clip(&range);
        let mut out = Body::buffer(&range)?;
        self.fill(Gather::new(&self.body, std::iter::once((range, out.as_mut_slice())))).await?;
        Ok(std::mem::take(&mut *out))
    }

    /// The plaintext in each of `ranges`, in their order, as by [`read_range`](Self::read_range). Ranges
    /// may overlap and come in any order: each segment is fetched and opened once, and neighbours in
    /// one read, several reads at once, as the [options](Self::with_options) say.
    ///
    /// # Errors
    /// As [`read_range`](Self::read_range); then none of the ranges is returned.
    pub async fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>> {
        let ranges: Vec<_> = ranges.iter().map(|range| self.body.clip(range)).collect();
        let mut outs = ranges.iter().map(Body::buffer).collect::<Result<Vec<_>>>()?;
        let wanted = ranges.into_iter().zip(outs.iter_mut().map(|out| out.as_mut_slice()));
        self.fill(Gather::new(&self.body, wanted)).await?;
        Ok(outs.iter_mut().map(|out| std::mem::take(&mut **out)).collect())
    }

    /// Fills `out` from plaintext byte `offset` on; fewer bytes only where the message ends.
    ///
    /// # Errors
    /// As [`read_range`](Self::read_range). Then, and if the future is dropped, all that was to be
    /// filled is zeros.
    pub async fn read_at(&self, out: &mut [u8], offset: u64) -> Result<usize> {
        let range = self.body.clip(&(offset..offset.saturating_add(out.len() as u64)));
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let out = out.get_mut(..len).unwrap_or_default();
        self.fill(Gather::new(&self.body, std::iter::once((range, out)))).await?;
        Ok(len)
    }

    /// The plaintext in `range`, as far as the message goes, chunk by chunk in bounded memory: for
    /// ranges that are too long for [`read_range`](Self::read_range).
    ///
    /// Memory: a chunk is up to [`max_read`](RangeOptions::max_read) times
    /// [`concurrent_reads`](RangeOptions::concurrent_reads) bytes, and as much is held sealed.
    pub fn chunks(&self, range: Range<u64>) -> RangeChunks<'_, S> {
        RangeChunks { rest: self.body.clip(&range), reader: self }
    }

    async fn fill(&self, mut gather: Gather<'_>) -> Result<()> {
        let mut pieces = gather.pieces().into_iter();
        let mut under_way = UnderWay::default();
        loop {
            while under_way.queue.len() < self.body.options.reads_at_once()
                && let Some(piece) = pieces.next()
            {
                let span = self.body.span(piece)?;
                under_way.queue.push_back(Read::Waiting(piece, Box::pin(self.pinned.fetch(span))));
            }
            let Some((piece, sealed)) = under_way.next().await else { break };
            let sealed = sealed.map_err(|error| in_segment(error, piece.first))?;
            gather.take(piece, &sealed, &mut self.body.spare().buffers.opened)?;
            if !under_way.queue.is_empty() {
                let_others_run().await;
            }
        }
        gather.finish()
    }
}

impl<S: RangeSource> fmt::Debug for AsyncRangeReader<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncRangeReader")
            .field("source", &self.pinned.source.name())
            .field("version", &self.pinned.version)
            .field("body", &self.body)
            .finish()
    }
}

/// A range in chunks: see [`AsyncRangeReader::chunks`].
pub struct RangeChunks<'a, S> {
    reader: &'a AsyncRangeReader<S>,
    rest: Range<u64>,
}

impl<S: RangeSource> RangeChunks<'_, S> {
    /// The next chunk; `None` at the end of the range. Chunks end at the edges of segments.
    ///
    /// A future that is dropped, or fails, loses nothing: the next call gives the same chunk.
    ///
    /// # Errors
    /// As [`read_range`](AsyncRangeReader::read_range).
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let chunk = self.reader.body.chunk(&self.rest);
        let plaintext = self.reader.read_range(chunk.clone()).await?;
        self.rest.start = chunk.end;
        Ok(Some(plaintext))
    }
}

impl<S: RangeSource> fmt::Debug for RangeChunks<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeChunks").field("reader", &self.reader).field("rest", &self.rest).finish()
    }
}

/// Fetches under way, in the order in which their bytes are needed.
#[derive(Default)]
struct UnderWay<'a> {
    queue: VecDeque<Read<'a>>,
}

enum Read<'a> {
    Waiting(Piece, Pin<Box<dyn Future<Output = Result<Bytes>> + Send + 'a>>),
    Done(Piece, Result<Bytes>),
}

impl UnderWay<'_> {
    /// The first of them, once it is there; the others go on meanwhile.
    async fn next(&mut self) -> Option<(Piece, Result<Bytes>)> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<(Piece, Result<Bytes>)>> {
        for read in &mut self.queue {
            if let Read::Waiting(piece, future) = read
                && let Poll::Ready(bytes) = future.as_mut().poll(context)
            {
                *read = Read::Done(*piece, bytes);
            }
        }
        match self.queue.pop_front() {
            Some(Read::Done(piece, bytes)) => Poll::Ready(Some((piece, bytes))),
            Some(waiting) => {
                self.queue.push_front(waiting);
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }
}

/// Gives the executor a turn.
async fn let_others_run() {
    let mut given = false;
    poll_fn(|context| {
        if given {
            return Poll::Ready(());
        }
        given = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn in_segment(error: Error, index: u64) -> Error {
    if error.segment().is_none() { error.with_segment(index) } else { error }
}
