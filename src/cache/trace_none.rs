//! Without the feature `tracing`, nobody is told.

use super::Told;

pub(super) fn tell(_: &Told<'_>) {}
