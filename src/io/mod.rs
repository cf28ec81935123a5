//! Shells that move bytes between files or streams and the formats.

pub(crate) mod journal;

#[cfg(test)]
mod journal_tests;
