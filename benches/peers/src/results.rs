//! What runs have written: their figures, read back for tables and charts.

use crate::common::Measured;
use serde_json::Value;
use std::path::Path;

/// The files of some runs.
pub struct Results {
    files: Vec<Value>,
    groups: Vec<Measured>,
}

impl Results {
    /// Reads `NAME.json` of each name.
    ///
    /// # Errors
    /// Which one is missing or is no such file, and what makes it.
    pub fn read(folder: &Path, names: &[&str]) -> Result<Self, String> {
        let files = names
            .iter()
            .map(|name| {
                let path = folder.join(format!("{name}.json"));
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| format!("{}: {error}; `scripts/bench {name}` makes it", path.display()))?;
                serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
            })
            .collect::<Result<Vec<Value>, _>>()?;
        Ok(Self::of(files))
    }

    pub fn of(files: Vec<Value>) -> Self {
        let groups = files.iter().filter_map(|file| file["groups"].as_array()).flatten();
        let groups = groups.filter_map(Measured::from_json).collect();
        Self { files, groups }
    }

    pub fn files(&self) -> &[Value] {
        &self.files
    }

    pub fn groups(&self) -> &[Measured] {
        &self.groups
    }

    pub fn group(&self, id: &str) -> Option<&Measured> {
        self.groups.iter().find(|group| group.id == id)
    }

    /// What a run noted that is no time.
    pub fn fact(&self, name: &str) -> Option<&Value> {
        self.files.iter().find_map(|file| file["facts"].get(name))
    }

    /// The largest over all lengths.
    pub fn peak_kib(&self, direction: &str, setting: &str) -> Option<f64> {
        let by_length = self.fact("peak KiB")?.as_object()?;
        let name = format!("{direction}, {setting}");
        by_length.values().filter_map(|of_length| of_length.get(&name)?.as_f64()).reduce(f64::max)
    }
}
