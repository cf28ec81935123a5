//! The operations: what each checks, reads and changes.

pub(super) mod aliases;
pub(super) mod cryptographic;
pub(super) mod keys;
