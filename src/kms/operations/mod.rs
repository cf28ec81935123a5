//! The operations: what each checks, reads and changes.

pub(super) mod aliases;
pub(super) mod cryptographic;
mod grants;
mod import;
pub(super) mod keys;
mod letters;
mod life;
mod policies;
mod replicas;
mod rotation;
mod tags;
