//! The two backends against each other.
