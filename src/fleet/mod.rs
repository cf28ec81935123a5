//! Many message files at once: what is where, without any key, and moving all of them to other keys.
//!
//! [`Inventory`] tells which keys the files below some folders are under, and [`Rewrap`] moves them. Both take
//! [`Files`], read heads only, hold a bounded part of what they find in memory, and go on after a file that they
//! cannot read. docs/fleet.md says how to use them, and what a move costs in calls.
//!
//! ```
//! use envelock::fleet::{By, Files, Inventory};
//! # fn main() -> Result<(), envelock::Error> {
//! # pollster::block_on(async {
//! # let folder = tempfile::tempdir()?;
//! let report = Inventory::new().by(By::Key).take(Files::below([folder.path()]), |_| {}).await?;
//! for group in &report.groups {
//!     println!("{} files are under {}", group.files, group.key);
//! }
//! # Ok(())
//! # })
//! # }
//! ```

mod calls;
mod crowd;
mod files;
mod foresee;
mod group;
mod inventory;
mod journal;
mod look;
mod names;
mod outcome;
mod plan;
mod rewrap;
mod scan;
mod select;
#[cfg(feature = "local-kms")]
mod version_local;
#[cfg(not(feature = "local-kms"))]
mod version_none;

pub use calls::CallCounts;
pub use files::{Files, Separator};
pub use inventory::{AgeBand, By, Group, GroupKey, Inventory, InventoryReport};
pub use look::{HeadFacts, Seen, SeenFile, SlotFacts};
pub use outcome::{Change, Outcome, RewrapReport};
pub use plan::{Mode, Others};
pub use rewrap::Rewrap;
pub use select::Selection;
