//! [`Seek`] for the decrypting reader, over inputs that seek.

use crate::io::opener::Need;
use crate::io::read::DecryptReader;
use crate::io::seeking::Step;
use std::io::{self, Read, Seek, SeekFrom};

/// The first seek reads and verifies the final segment, and so the length.
///
/// A seek that fails keeps the position where it can: one to before the start does. After any other
/// failed seek reads fail, until a seek succeeds.
impl<R: Read + Seek> Seek for DecryptReader<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.opener.begin_seek(to);
        loop {
            let step = match self.opener.seek_step()? {
                Step::Done(position) => return Ok(position),
                Step::Ask => self.inner.stream_position().map(Some),
                Step::Move(to) => self.inner.seek(to).map(Some),
                Step::Segment(Need::Input) => self.receive().map(|()| None),
                Step::Segment(Need::Open | Need::Nothing) => {
                    self.opener.open(&mut [])?;
                    Ok(None)
                }
            };
            match step {
                Ok(Some(place)) => self.opener.moved(place)?,
                Ok(None) => {}
                Err(error) => {
                    self.opener.abandon_seek();
                    return Err(error);
                }
            }
        }
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        Ok(self.opener.position())
    }
}

impl<R: Read + Seek> DecryptReader<R> {
    /// Length of the plaintext, by a verified final segment. Keeps the position.
    ///
    /// # Errors
    /// [`Truncated`](crate::ErrorKind::Truncated),
    /// [`AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed), or what the input returned.
    pub fn verified_len(&mut self) -> io::Result<u64> {
        let here = self.stream_position()?;
        let length = self.seek(SeekFrom::End(0))?;
        self.seek(SeekFrom::Start(here))?;
        Ok(length)
    }
}
