//! Waiting for so long and no longer: it needs somebody who sleeps, which only a transport does here.

use crate::provider::at_once::Call;
use std::fmt;

/// Waits as long as somebody may be silent.
pub(super) trait Patience: Send + Sync {
    fn wait(&self) -> Call<'_, ()>;
}

impl fmt::Debug for dyn Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Patience")
    }
}
