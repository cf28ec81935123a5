//! The native message format, version 1 (docs/format.md): bytes to types and back, no I/O, no providers.

pub(crate) mod floe;
pub(crate) mod header;
pub(crate) mod place;
pub(crate) mod record;
pub(crate) mod slots;
pub(crate) mod text;
