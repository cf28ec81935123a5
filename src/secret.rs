//! Secret bytes: wiped on drop, compared in constant time, never printed.

use std::fmt;
use std::hint::black_box;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// `N` secret bytes on the heap.
///
/// They live in one heap cell for their whole life, so that moving the value leaves no copy behind,
/// and are wiped on drop. There is no `Clone`, and `Debug` prints no byte.
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// A secret that `fill` writes in place, so that no copy passes over the stack.
    ///
    /// # Errors
    /// Whatever `fill` returns; what it wrote is wiped.
    pub fn try_init<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self::zeroed();
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// A secret that `fill` writes in place.
    pub fn init(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self::zeroed();
        fill(&mut secret.0);
        secret
    }

    /// Zeros that nobody can see to be zeros: memory that is to come zeroed costs an allocator more than to zero it.
    fn zeroed() -> Self {
        Self(Box::new([black_box(0); N]))
    }

    /// A copy of `bytes`, or `None` if they are not exactly `N`.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == N).then(|| Self::init(|secret| secret.copy_from_slice(bytes)))
    }

    /// The bytes. Named so that a reader of the calling code sees where a secret is used.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// In constant time.
impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl<const N: usize> Eq for Secret<N> {}

/// A buffer of so many zero bytes for a plaintext, wiped unless it is taken out.
///
/// A short one is written here: memory that is to come zeroed costs an allocator more than to zero it. Where it is
/// long, its pages come zeroed from the system, and are written once.
pub(crate) fn plaintext_buffer(len: usize) -> Zeroizing<Vec<u8>> {
    let mut buffer = if len > SHORT { vec![0; len] } else { Vec::with_capacity(SHORT.min(len)) };
    buffer.resize(len, 0);
    Zeroizing::new(buffer)
}

const SHORT: usize = 16 << 10;

/// Whether both are the same, in constant time: sixteen bytes at once, where a slice is compared byte by byte.
pub(crate) fn same<const N: usize>(one: &[u8; N], other: &[u8; N]) -> bool {
    let ((one, one_rest), (other, other_rest)) = (one.as_chunks::<16>(), other.as_chunks::<16>());
    let wide = one.iter().zip(other).fold(one_rest.ct_eq(other_rest), |same, (one, other)| {
        same & u128::from_ne_bytes(*one).ct_eq(&u128::from_ne_bytes(*other))
    });
    wide.into()
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret<{N}>(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_no_byte() {
        let secret = Secret::<4>::from_slice(&[0xAB; 4]).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret<4>(..)");
    }

    #[test]
    fn bytes_are_the_same_only_where_each_of_them_is() {
        let one: [u8; 40] = std::array::from_fn(|at| at as u8);
        assert!(same(&one, &one) && same(&[], &[]));
        for bit in 0..8 * one.len() {
            let mut other = one;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!same(&one, &other), "{bit}");
        }
    }

    #[test]
    fn equality_is_by_content_and_length_is_checked() {
        let one = Secret::<2>::from_slice(&[1, 2]).unwrap();
        assert!(one == Secret::from_slice(&[1, 2]).unwrap());
        assert!(one != Secret::from_slice(&[1, 3]).unwrap());
        assert!(Secret::<2>::from_slice(&[1]).is_none());
    }
}
