//! The operations: what each checks, reads and changes.

pub(super) mod aliases;
pub(super) mod cryptographic;
mod grants;
pub(super) mod keys;
mod life;
mod policies;
mod rotation;
mod tags;
