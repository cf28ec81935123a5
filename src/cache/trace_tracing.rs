//! What happens off the path of a hit, as events of the crate `tracing`, target `envelock::cache`.

use super::{Happened, Told};
use tracing::{debug, warn};

pub(super) fn tell(told: &Told<'_>) {
    let Told { tenant, direction, happened } = told;
    let direction = direction.name();
    match happened {
        Happened::Fetched => debug!(target: TARGET, tenant, direction, "a data key was fetched"),
        Happened::Renewed => debug!(target: TARGET, tenant, direction, "a data key was renewed ahead of its end"),
        Happened::Failed(error) => {
            let (kind, code) = (error.kind(), error.code());
            warn!(target: TARGET, tenant, direction, ?kind, code, "a data key was not to be had: {error}");
        }
        Happened::Graced => {
            warn!(target: TARGET, tenant, direction, "the key provider is unavailable: a data key serves past its age");
        }
        Happened::Evicted => debug!(target: TARGET, tenant, direction, "a data key made room for another"),
    }
}

const TARGET: &str = "envelock::cache";
