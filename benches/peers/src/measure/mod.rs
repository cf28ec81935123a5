//! What is measured: each file has groups of cases that are compared with one another.

pub mod asynchronous;
pub mod files;
pub mod memory;
pub mod ranges;
pub mod records;
pub mod rivals;
pub mod small;
pub mod threads;

use std::path::PathBuf;

/// A folder for files that are as large as what is measured; emptied at the start and at the end.
pub struct Scratch(PathBuf);

impl Scratch {
    /// In cargo's target folder, or where `ENVELOCK_BENCH_DIR` says.
    pub fn new() -> Self {
        let base = std::env::var_os("ENVELOCK_BENCH_DIR").map_or_else(crate::common::report::folder, PathBuf::from);
        let scratch = Self(base.join(format!("envelock-bench-{}", std::process::id())));
        std::fs::create_dir_all(&scratch.0).expect("the folder of the benchmark's files can be made");
        scratch
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Takes a file away, if it is there.
    pub fn remove(&self, name: &str) {
        match std::fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{name} stays: {error}"),
            _ => {}
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be taken away lies in the target folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
