//! Where ranges come from when they come from afar: a source that is asked for bytes, and awaited.

use crate::error::Result;
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// What tells one state of an object from another: a strong ETag, a generation, a version id.
///
/// It must change whenever a byte of the object does. (A weak ETag, `W/"…"`, does not say so much: give
/// none instead.)
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SourceVersion(Arc<str>);

impl SourceVersion {
    /// A version by its tag, as the source spells it.
    pub fn new(tag: impl Into<Arc<str>>) -> Self {
        Self(tag.into())
    }

    /// The tag, to be sent back to the source (`If-Match: …`).
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceVersion({})", self.0)
    }
}

/// Bytes of an object, and what the object was when they were read.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The bytes asked for; fewer only where the object ends, none if it ends before them.
    pub bytes: Bytes,
    /// Length of the whole object in bytes (the last figure of HTTP's `Content-Range`).
    pub object_len: u64,
    /// The object's version, if the source can tell.
    pub version: Option<SourceVersion>,
}

/// How a source answers.
#[derive(Clone, Debug)]
pub enum FetchAnswer {
    /// The bytes.
    Fetched(Fetched),
    /// The object is not of the pinned version any more (HTTP's 412).
    Changed,
}

/// Bytes that are fetched by range, and awaited: an object in a store, a file on a web server.
///
/// One call gives bytes, the object's length and its version, so that they belong together and a
/// message is opened in two requests. The reader checks each answer against what it asked and against
/// the first: a source cannot make it believe bytes of another length or version.
///
/// Object-safe, by [`async_trait`](macro@crate::async_trait). It needs no runtime of its own; an
/// implementation may.
///
/// ```
/// use bytes::Bytes;
/// use envelock::{FetchAnswer, Fetched, RangeSource, SourceVersion, async_trait};
/// use std::ops::Range;
///
/// struct InMemory { name: String, bytes: Bytes, etag: String }
///
/// #[async_trait]
/// impl RangeSource for InMemory {
///     fn name(&self) -> String {
///         self.name.clone()
///     }
///
///     async fn fetch(&self, range: Range<u64>, pinned: Option<&SourceVersion>) -> envelock::Result<FetchAnswer> {
///         if pinned.is_some_and(|pinned| pinned.as_str() != self.etag) {
///             return Ok(FetchAnswer::Changed);
///         }
///         let (len, at) = (self.bytes.len(), |offset| usize::try_from(offset).unwrap_or(usize::MAX));
///         let bytes = self.bytes.slice(at(range.start).min(len)..at(range.end).min(len));
///         let version = Some(SourceVersion::new(self.etag.as_str()));
///         Ok(FetchAnswer::Fetched(Fetched { bytes, object_len: len as u64, version }))
///     }
/// }
/// ```
#[async_trait]
pub trait RangeSource: Send + Sync {
    /// What errors call the object: its path or address, without secrets.
    fn name(&self) -> String;

    /// The bytes in `range`, which is not empty, shortened where the object ends.
    ///
    /// With `pinned`, only of that version: a source that can ask for it does (`If-Match`), so that the
    /// answer is of one state. It need not compare the version of what came back; the reader does.
    ///
    /// # Errors
    /// What a reader passes on: [`Unavailable`](crate::ErrorKind::Unavailable) for what is worth
    /// retrying, [`Io`](crate::ErrorKind::Io) otherwise (any [`std::io::Error`] becomes one by `?`).
    async fn fetch(&self, range: Range<u64>, pinned: Option<&SourceVersion>) -> Result<FetchAnswer>;
}

/// Never changes, and so has no version.
#[async_trait]
impl RangeSource for Bytes {
    fn name(&self) -> String {
        "the message in memory".into()
    }

    async fn fetch(&self, range: Range<u64>, _: Option<&SourceVersion>) -> Result<FetchAnswer> {
        let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        let bytes = self.slice(at(range.start)..at(range.end).max(at(range.start)));
        Ok(FetchAnswer::Fetched(Fetched { bytes, object_len: self.len() as u64, version: None }))
    }
}

#[async_trait]
impl<T: RangeSource + ?Sized> RangeSource for &T {
    fn name(&self) -> String {
        (**self).name()
    }

    async fn fetch(&self, range: Range<u64>, pinned: Option<&SourceVersion>) -> Result<FetchAnswer> {
        (**self).fetch(range, pinned).await
    }
}

#[async_trait]
impl<T: RangeSource + ?Sized> RangeSource for Arc<T> {
    fn name(&self) -> String {
        (**self).name()
    }

    async fn fetch(&self, range: Range<u64>, pinned: Option<&SourceVersion>) -> Result<FetchAnswer> {
        (**self).fetch(range, pinned).await
    }
}
