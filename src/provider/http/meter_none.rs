//! Without the feature `metrics`, nothing is counted.

use super::told::{Happened, Sending, Sent, Server};
use crate::error::Error;

pub(super) struct UnderWay;

pub(super) fn under_way(_: &Server) -> UnderWay {
    UnderWay
}

pub(super) fn sent(_: &Sending<'_>, _: &Sent<'_>) {}

pub(super) fn called(_: &Server, _: &'static str, _: Option<&Error>) {}

pub(super) fn tell(_: &Server, _: &'static str, _: &Happened<'_>) {}
