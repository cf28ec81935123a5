//! The head of a message, read from the front of an input and not a byte more.

use crate::error::{Error, Result};
use crate::native::header::{Header, HeaderParse, Limits};
use std::io::{self, Read};

/// Collects a head without I/O: it says how many bytes it wants, and where to.
#[derive(Debug)]
pub(super) struct HeadCollector<'a> {
    limits: &'a Limits,
    bytes: Vec<u8>,
    have: usize,
}

impl<'a> HeadCollector<'a> {
    /// # Errors
    /// As [`read_header`].
    pub(super) fn new(limits: &'a Limits) -> Result<Self> {
        let mut collector = Self { limits, bytes: Vec::new(), have: 0 };
        collector.parse()?;
        Ok(collector)
    }

    /// Where the next bytes of the head go, all of which are wanted.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.have..).unwrap_or_default()
    }

    /// Tells that `count` bytes were put into the [room](Self::room); 0 is the end of the input. The
    /// head, once it is whole.
    ///
    /// # Errors
    /// As [`read_header`].
    pub(super) fn received(&mut self, count: usize) -> Result<Option<Header>> {
        self.have += count;
        if count > 0 && self.have < self.bytes.len() {
            return Ok(None);
        }
        self.bytes.truncate(self.have);
        // At the end of the input too, what is there decides first: it may be no message at all.
        match self.parse()? {
            None if count == 0 => Err(Error::truncated()),
            header => Ok(header),
        }
    }

    fn parse(&mut self) -> Result<Option<Header>> {
        match Header::parse_some(&self.bytes, self.limits)? {
            HeaderParse::Complete(header) => Ok(Some(header)),
            HeaderParse::More(needed) => {
                // Not an amortized growth: a stranger's length field buys no more than the limit.
                self.bytes.reserve_exact(needed.saturating_sub(self.have));
                self.bytes.resize(needed, 0);
                Ok(None)
            }
        }
    }
}

/// Reads a message's head from the front of `input`, and not a byte more.
///
/// # Errors
/// [`Malformed`](crate::ErrorKind::Malformed), [`Unsupported`](crate::ErrorKind::Unsupported),
/// [`LimitExceeded`](crate::ErrorKind::LimitExceeded), [`Truncated`](crate::ErrorKind::Truncated) if
/// the input ends within a well-formed head, [`Io`](crate::ErrorKind::Io).
pub fn read_header(input: &mut impl Read, limits: &Limits) -> Result<Header> {
    let mut head = HeadCollector::new(limits)?;
    loop {
        match input.read(head.room()) {
            Ok(count) => {
                if let Some(header) = head.received(count)? {
                    return Ok(header);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
