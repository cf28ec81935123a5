//! What seeking is made of, without I/O: the [`Opener`] says which step comes next.
//!
//! The first seek asks where the body starts, how long the input is, and verifies the final segment;
//! only then is a length believed. After that a seek is one move of the input.

use crate::error::{Error, Result};
use crate::io::opener::{Need, Opener, State};
use std::io::SeekFrom;

/// A seek under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seek {
    to: SeekFrom,
    /// Where the reader stood before.
    here: u64,
    /// Whether the end of the message has been verified.
    verified: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Start,
    End,
    Last,
    Verify,
    /// The end is verified; where to is to be decided.
    Aim,
    Target {
        offset: u64,
        refused: bool,
    },
    Arrived {
        refused: bool,
    },
}

/// What a seek needs next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// To know where the input stands; [`Opener::moved`] takes the answer.
    Ask,
    /// The input moved; [`Opener::moved`] takes its new place.
    Move(SeekFrom),
    /// A segment, brought in and opened as in reading.
    Segment(Need),
    /// Nothing: the reader stands here.
    Done(u64),
}

impl Opener {
    /// Starts a seek; one that was under way is forgotten.
    pub(super) fn begin_seek(&mut self, to: SeekFrom) {
        self.abandon_seek();
        let stage = match (self.extent, self.body_start) {
            (Some(_), _) => Stage::Aim,
            (None, Some(_)) => Stage::End,
            (None, None) => Stage::Start,
        };
        self.seek = Some(Seek { to, here: self.position, verified: self.extent.is_some(), stage });
    }

    pub(super) fn is_seeking(&self) -> bool {
        self.seek.is_some()
    }

    /// The input failed, or the bytes did: a length that was not verified is forgotten.
    pub(super) fn abandon_seek(&mut self) {
        if self.seek.take().is_some_and(|seek| !seek.verified) {
            self.extent = None;
        }
    }

    /// The next step of the seek.
    ///
    /// # Errors
    /// Kind InvalidInput for a place before the message's start; the reader then stands where it stood.
    pub(super) fn seek_step(&mut self) -> Result<Step> {
        loop {
            let Some(seek) = self.seek else { return Ok(Step::Done(self.position)) };
            match seek.stage {
                Stage::Start => return Ok(Step::Ask),
                Stage::End => {
                    self.lose_place();
                    return Ok(Step::Move(SeekFrom::End(0)));
                }
                Stage::Last => return self.step_to(self.next),
                Stage::Verify => return Ok(Step::Segment(self.need_of_segment())),
                Stage::Aim => self.aim(seek),
                Stage::Target { offset, .. } => {
                    self.lose_place();
                    return self.step_to(self.layout().locate(offset).0);
                }
                Stage::Arrived { refused } => {
                    self.seek = None;
                    if refused {
                        return Err(Error::invalid_input("the seek goes to before the start of the message"));
                    }
                }
            }
        }
    }

    /// Until the input stands at a segment again, it is anywhere.
    fn lose_place(&mut self) {
        self.forget();
        self.state = State::Lost;
    }

    fn step_to(&mut self, segment: u64) -> Result<Step> {
        match self.place_of(segment) {
            Ok(place) => Ok(Step::Move(SeekFrom::Start(place))),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn aim(&mut self, seek: Seek) {
        let len = self.extent.map_or(0, |extent| extent.plaintext_len);
        let aimed = match seek.to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(delta) => len.checked_add_signed(delta),
            SeekFrom::Current(delta) => seek.here.checked_add_signed(delta),
        };
        // The end may just have been verified: the input goes back to where reading stopped.
        let (offset, refused) = (aimed.unwrap_or(seek.here), aimed.is_none());
        if offset < len {
            return self.set_stage(Stage::Target { offset, refused });
        }
        self.forget();
        self.next = self.extent.map_or(self.next, |extent| extent.segments);
        (self.position, self.state) = (offset, State::Ended);
        self.set_stage(Stage::Arrived { refused });
    }

    /// Tells where the input stands, after the step that asked for it.
    ///
    /// # Errors
    /// Kind Truncated or LimitExceeded if a message of this length cannot be whole.
    pub(super) fn moved(&mut self, place: u64) -> Result<()> {
        let Some(seek) = self.seek else { return Ok(()) };
        match seek.stage {
            Stage::Start => match place.checked_sub(self.consumed) {
                Some(start) => {
                    self.body_start = Some(start);
                    self.set_stage(Stage::End);
                }
                None => {
                    // Nothing has been moved by us: reading goes on.
                    self.seek = None;
                    return Err(Error::invalid_input("the input was moved while it was being read"));
                }
            },
            Stage::End => {
                let sealed_len = place.saturating_sub(self.body_start.unwrap_or_default());
                let extent = self.layout().extent(sealed_len).map_err(|error| self.fail(error))?;
                self.extent = Some(extent);
                self.next = extent.segments - 1;
                self.set_stage(Stage::Last);
            }
            Stage::Last => self.set_stage(Stage::Verify),
            Stage::Target { offset, refused } => {
                (self.next, self.skip) = self.layout().locate(offset);
                (self.position, self.state) = (offset, State::Open);
                self.set_stage(Stage::Arrived { refused });
            }
            Stage::Verify | Stage::Aim | Stage::Arrived { .. } => {}
        }
        Ok(())
    }

    /// The final segment opened: the length may be believed.
    pub(super) fn end_verified(&mut self) {
        if let Some(seek) = &mut self.seek {
            seek.verified = true;
            seek.stage = Stage::Aim;
        }
    }

    fn set_stage(&mut self, stage: Stage) {
        if let Some(seek) = &mut self.seek {
            seek.stage = stage;
        }
    }
}
