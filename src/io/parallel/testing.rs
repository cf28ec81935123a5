//! Sources, sinks and segments for the tests of this folder.

use crate::error::{Error, Result};
use crate::segments::{Layout, Peek, Position, Segments};
use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::mpsc::channel;
use std::sync::{Mutex, Once};
use std::time::Duration;

/// Runs `work`, which ends within a bound: a deadlock is a failure and no wait for ever.
pub(in crate::io) fn bounded<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(Duration::from_secs(60)).expect("it ends, and does not panic")
}

/// Panics on purpose say nothing; others what they always say.
pub(in crate::io) fn quiet_on_purpose() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload().downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.payload().downcast_ref::<String>().map(String::as_str));
            if !text.is_some_and(|text| text.starts_with("on purpose")) {
                loud(panic);
            }
        }));
    });
}

/// Gives as many zero bytes at each call as told; then nothing.
pub(super) struct Drip {
    calls: Vec<usize>,
}

impl Drip {
    pub(super) fn new(calls: &[usize]) -> Self {
        Self { calls: calls.iter().rev().copied().collect() }
    }
}

impl Read for Drip {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.calls.pop().unwrap_or(0).min(out.len());
        out[..count].fill(0);
        Ok(count)
    }
}

/// Segments without cryptography: prefix, IV, the plaintext with each byte's bits turned over, and the index
/// twice for a tag. It notes what it sealed, and fails where it is told to.
#[derive(Debug)]
pub(in crate::io) struct Plain {
    pub(in crate::io) segment_len: u32,
    pub(in crate::io) trouble: Option<(u64, Trouble)>,
    pub(in crate::io) sealed: Mutex<HashSet<u64>>,
    pub(in crate::io) ivs: Mutex<HashSet<[u8; 12]>>,
}

/// What happens at a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum Trouble {
    Panic,
    Fail,
}

impl Plain {
    pub(in crate::io) fn new(segment_len: u32) -> Self {
        Self { segment_len, trouble: None, sealed: Mutex::default(), ivs: Mutex::default() }
    }

    pub(in crate::io) fn with_trouble(segment_len: u32, at: u64, trouble: Trouble) -> Self {
        Self { trouble: Some((at, trouble)), ..Self::new(segment_len) }
    }

    fn meet_trouble(&self, at: Position) -> Result<()> {
        match self.trouble {
            Some((index, Trouble::Panic)) if index == at.index => panic!("on purpose, at segment {index}"),
            Some((index, Trouble::Fail)) if index == at.index => Err(Error::authentication().with_segment(index)),
            _ => Ok(()),
        }
    }
}

impl Segments for Plain {
    fn layout(&self) -> Layout {
        Layout::new(self.segment_len, 32, 74)
    }

    fn plaintext_at(&self) -> usize {
        16
    }

    fn seal_in_place(&self, at: Position, iv: &[u8; 12], segment: &mut [u8]) -> Result<()> {
        self.meet_trouble(at)?;
        assert!(self.sealed.lock().unwrap().insert(at.index), "segment {} is sealed twice", at.index);
        assert!(self.ivs.lock().unwrap().insert(*iv), "an IV serves twice");
        let len = segment.len();
        assert!(at.last || len == self.layout().segment_len());
        self.put_prefix(at, segment)?;
        segment[4..16].copy_from_slice(iv);
        segment[16..len - 16].iter_mut().for_each(|byte| *byte ^= 0xFF);
        segment[len - 16..len - 8].copy_from_slice(&at.index.to_be_bytes());
        segment[len - 8..].copy_from_slice(&at.index.to_be_bytes());
        Ok(())
    }

    fn seal_to(&self, at: Position, iv: &[u8; 12], plaintext: &[u8], segment: &mut [u8]) -> Result<()> {
        segment[16..16 + plaintext.len()].copy_from_slice(plaintext);
        self.seal_in_place(at, iv, segment)
    }

    fn peek(&self, index: u64, start: [u8; 4]) -> Result<Peek> {
        match u32::from_be_bytes(start) {
            u32::MAX => Ok(Peek { at: Position { index, last: false }, len: self.segment_len as usize }),
            len if (32..=self.segment_len).contains(&len) => {
                Ok(Peek { at: Position { index, last: true }, len: len as usize })
            }
            _ => Err(Error::authentication().with_segment(index)),
        }
    }

    fn put_prefix(&self, at: Position, segment: &mut [u8]) -> Result<()> {
        let prefix = if at.last { u32::try_from(segment.len()).unwrap() } else { u32::MAX };
        segment[..4].copy_from_slice(&prefix.to_be_bytes());
        Ok(())
    }

    fn open_in_place(&self, at: Position, segment: &mut [u8]) -> Result<()> {
        self.meet_trouble(at)?;
        let len = segment.len();
        if segment[len - 16..len - 8] != at.index.to_be_bytes() || segment[len - 8..] != at.index.to_be_bytes() {
            segment.fill(0);
            return Err(Error::authentication().with_segment(at.index));
        }
        segment[16..len - 16].iter_mut().for_each(|byte| *byte ^= 0xFF);
        Ok(())
    }

    fn open_to(&self, at: Position, segment: &[u8], plaintext: &mut [u8]) -> Result<()> {
        let mut segment = segment.to_vec();
        self.open_in_place(at, &mut segment)?;
        plaintext.copy_from_slice(&segment[16..16 + plaintext.len()]);
        Ok(())
    }
}
