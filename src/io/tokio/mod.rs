//! The asynchronous shells, on tokio's traits and on `Stream`. They hold no state of a message: that is
//! in [`Sealer`] and [`Opener`], which the synchronous shells share.
//!
//! Three rules hold for all of them. A segment in the making belongs to the shell and not to a future, so
//! that a future which is dropped loses and repeats nothing. A segment longer than 256 KiB is sealed and
//! opened on one of tokio's blocking threads, one at a time. And a task whose input and output are always
//! ready lets others have their turn after each 256 KiB.
//!
//! [`Sealer`]: crate::io::sealer::Sealer
//! [`Opener`]: crate::io::opener::Opener

mod chunks;
pub(crate) mod decrypt_stream;
pub(crate) mod encrypt_stream;
mod offload;
mod opening;
pub(crate) mod read;
mod sealing;
mod seek;
pub(crate) mod write;

pub(crate) use chunks::Chunks;
