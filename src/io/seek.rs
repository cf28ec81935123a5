//! [`Seek`] for the decrypting reader, over inputs that seek.

use crate::error::Error;
use crate::io::read::{DecryptReader, Sized, State};
use std::io::{self, Read, Seek, SeekFrom};

/// The first seek reads and verifies the final segment, and so the length.
///
/// A seek that fails keeps the position where it can: one to before the start does. After any other
/// failed seek reads fail, until a seek succeeds.
impl<R: Read + Seek> Seek for DecryptReader<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let here = self.position;
        let sized = self.verify_end()?;
        let length = sized.extent.plaintext_len;
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(delta) => length.checked_add_signed(delta),
            SeekFrom::Current(delta) => here.checked_add_signed(delta),
        };
        let target = target.ok_or_else(|| Error::invalid_input("the seek goes to before the start of the message"));
        match target {
            Ok(target) => self.go_to(sized, target).map(|()| target),
            Err(error) => {
                // The end may just have been verified: the input goes back to where reading stopped.
                self.go_to(sized, here)?;
                Err(error.into())
            }
        }
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        Ok(self.position)
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

    fn verify_end(&mut self) -> io::Result<Sized> {
        if let Some(sized) = self.extent {
            return Ok(sized);
        }
        let body_start = self.body_start()?;
        self.forget();
        // Until the reader stands at a segment again, the input is anywhere.
        self.state = State::Lost;
        let end = self.inner.seek(SeekFrom::End(0))?;
        let sealed_len = end.saturating_sub(body_start);
        let layout = self.segments.layout();
        let sized = Sized { body_start, extent: layout.extent(sealed_len)? };
        let last = sized.extent.segments - 1;
        self.extent = Some(sized);
        let verified = self.move_to(sized, last).and_then(|()| self.open_next());
        self.forget();
        if verified.is_err() {
            self.extent = None;
        }
        verified.map(|()| sized)
    }

    fn body_start(&mut self) -> io::Result<u64> {
        if let Some(start) = self.body_start {
            return Ok(start);
        }
        let start = self.inner.stream_position()?.checked_sub(self.consumed);
        let start = start.ok_or_else(|| Error::invalid_input("the input was moved while it was being read"))?;
        self.body_start = Some(start);
        Ok(start)
    }

    /// Opens the next segment in place and drops its plaintext: what counts is that it verifies.
    fn open_next(&mut self) -> io::Result<()> {
        let peek = self.fetch()?;
        let segment = self.buffer.get_mut(..peek.len).unwrap_or_default();
        Ok(self.segments.open_in_place(peek.at, segment)?)
    }

    fn go_to(&mut self, sized: Sized, target: u64) -> io::Result<()> {
        self.forget();
        if target >= sized.extent.plaintext_len {
            self.next = sized.extent.segments;
            self.position = target;
            self.state = State::Ended;
            return Ok(());
        }
        let (index, within) = self.segments.layout().locate(target);
        self.state = State::Lost;
        self.move_to(sized, index)?;
        self.skip = within;
        self.position = target;
        self.state = State::Open;
        Ok(())
    }

    fn move_to(&mut self, sized: Sized, index: u64) -> io::Result<()> {
        let offset = self.segments.layout().segment_offset(index).and_then(|at| at.checked_add(sized.body_start));
        let offset = offset.ok_or_else(|| Error::limit("the segment lies past the limits of the format"))?;
        self.inner.seek(SeekFrom::Start(offset))?;
        self.next = index;
        Ok(())
    }
}
