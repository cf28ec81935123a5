//! Bodies of requests and answers: bounded before anything is allocated, and wiped once nobody has them.

use bytes::Bytes;
use zeroize::Zeroizing;

/// `bytes`, wiped when the last handle to them is dropped. For the body of a request that holds a key or a credential.
pub(crate) fn wiped(bytes: Zeroizing<Vec<u8>>) -> Bytes {
    Bytes::from_owner(bytes)
}

/// An answer's body as it comes in, in parts of any size.
pub(super) struct Incoming {
    bytes: Zeroizing<Vec<u8>>,
    limit: usize,
}

/// The body is longer than its limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Incoming {
    /// Room for a body whose length is `announced`, if it is, and at most `limit`.
    pub(super) fn new(announced: Option<u64>, limit: usize) -> Result<Self, TooLarge> {
        let room = match announced {
            Some(length) => usize::try_from(length).ok().filter(|&length| length <= limit).ok_or(TooLarge)?,
            None => FIRST_ROOM.min(limit),
        };
        Ok(Self { bytes: Zeroizing::new(Vec::with_capacity(room)), limit })
    }

    /// Takes the next part.
    pub(super) fn push(&mut self, part: &[u8]) -> Result<(), TooLarge> {
        let length = self.bytes.len() + part.len();
        if length > self.limit {
            return Err(TooLarge);
        }
        if length > self.bytes.capacity() {
            // A vector that grows by itself leaves a copy behind that nobody wipes.
            let mut roomier = Zeroizing::new(Vec::with_capacity(length.max(2 * self.bytes.len()).min(self.limit)));
            roomier.extend_from_slice(&self.bytes);
            self.bytes = roomier;
        }
        self.bytes.extend_from_slice(part);
        Ok(())
    }

    /// The whole body.
    pub(super) fn finish(self) -> Bytes {
        wiped(self.bytes)
    }
}

/// What a body of unknown length gets at first: enough for every answer of a KMS to one operation.
const FIRST_ROOM: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_comes_together_from_parts_of_any_size() {
        let whole: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        for announced in [None, Some(100_000)] {
            for part in [1000, 8192, 100_000] {
                let mut body = Incoming::new(announced, 100_000).unwrap();
                whole.chunks(part).for_each(|part| body.push(part).unwrap());
                assert_eq!(body.finish(), whole);
            }
        }
    }

    #[test]
    fn a_body_above_its_limit_is_refused_before_it_has_room() {
        assert!(Incoming::new(Some(11), 10).is_err());
        assert!(Incoming::new(Some(u64::MAX), 10).is_err());
        let mut body = Incoming::new(None, 10).unwrap();
        assert_eq!(body.bytes.capacity(), 10);
        body.push(&[0; 9]).unwrap();
        assert_eq!(body.push(&[0; 2]), Err(TooLarge));
        body.push(&[0; 1]).unwrap();
        assert_eq!(body.finish().len(), 10);
    }

    #[test]
    fn a_server_that_announces_less_than_it_sends_gets_no_further_than_the_limit() {
        let mut body = Incoming::new(Some(1), 5).unwrap();
        body.push(&[0; 5]).unwrap();
        assert_eq!(body.push(&[0; 1]), Err(TooLarge));
    }
}
