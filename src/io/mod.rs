//! Thin shells that carry segments over readers, writers and files. They know [`Segments`] and bytes,
//! no header and no key.
//!
//! [`Segments`]: crate::segments::Segments

pub(crate) mod journal;
pub(crate) mod opener;
pub(crate) mod parallel;
pub(crate) mod range;
pub(crate) mod read;
pub(crate) mod recover;
pub(crate) mod resume;
pub(crate) mod sealer;
mod seek;
mod seeking;
#[cfg(feature = "tokio")]
pub(crate) mod tokio;
pub(crate) mod whole;
pub(crate) mod write;

#[cfg(test)]
mod journal_tests;
#[cfg(test)]
mod whole_tests;
