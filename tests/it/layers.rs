//! The layers of the crate, held.
//!
//! A module of [`LAYERS`] imports only from modules of lower layers, by the path of the module that
//! owns the name; never from a sibling of its own layer, and never through the crate root. Files
//! inside a module's folder may import one another, by `super::` or by crate path. Code that only
//! tests compile obeys the same rule: a test that needs two siblings belongs into `tests/it`. The
//! program (`src/bin/envelock`) is on top of all, and sees the public API only.
//!
//! The compiler's name resolution leaves few ways into another module: a path from `crate`, one from
//! `super` or `self`, the crate's own name, a file taken in by `#[path]` or `include!`, a macro that
//! the crate root shares. Each is judged or forbidden here. In edition 2024 a path that starts with
//! anything else stays in the module, or names another crate.

use crate::source::{File, Kind, tree};
use std::fmt;

/// Every module in the crate root, with its layer. design.md and ARCHITECTURE.md describe them.
const LAYERS: &[(&str, u8)] = &[
    ("clock", 0),
    ("error", 0),
    ("secret", 0),
    ("codec", 1),
    ("crypto", 1),
    ("durable", 1),
    ("material", 1),
    ("worker", 1),
    ("context", 2),
    ("segments", 2),
    ("aws_esdk", 3),
    ("native", 3),
    ("provider", 3),
    ("cache", 4),
    ("io", 4),
    ("kms", 4),
    ("envelope", 5),
    ("blocking", 6),
    ("fleet", 6),
];

/// What is wrong with an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// From a lower layer into a higher one.
    Upward,
    /// Between modules of one layer.
    Sideways,
    /// A name of the crate root, where each name is only re-exported.
    CrateRoot,
    /// `super::` out of the module's own folder.
    LeavesModule,
    /// More than one `super`.
    SuperSuper,
    /// A file or a `mod` in the crate root that [`LAYERS`] does not know.
    UnknownModule,
    /// A `mod` in `lib.rs` above one of a lower layer.
    OutOfOrder,
    /// `#[path]`, `include!`, or a macro shared through the root: an import that no path shows.
    Hidden,
    /// `pub use` of another module's name, which would give it a second owner.
    ReExport,
    /// The program uses a name that is public only for the compiler's sake.
    PrivateDoor,
}

#[derive(Debug)]
struct Fault {
    wrong: Wrong,
    place: String,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}: {}", self.place, self.wrong, self.what)
    }
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// All that is wrong with the imports of one file.
fn faults(file: &File) -> Vec<Fault> {
    let mut judge = Judge { file, module: file.module(), faults: Vec::new() };
    judge.hidden_imports();
    if file.is_program() {
        judge.program();
    } else if file.path == "lib.rs" {
        judge.root();
    } else {
        judge.library();
    }
    judge.faults
}

struct Judge<'a> {
    file: &'a File,
    module: Vec<String>,
    faults: Vec<Fault>,
}

impl Judge<'_> {
    fn fault(&mut self, line: usize, wrong: Wrong, what: impl Into<String>) {
        self.faults.push(Fault { wrong, place: format!("src/{}:{line}", self.file.path), what: what.into() });
    }

    fn hidden_imports(&mut self) {
        for (at, token) in self.file.tokens.iter().enumerate().filter(|(_, token)| token.kind == Kind::Ident) {
            let hidden = match token.text.as_str() {
                "path" => token.place.in_attribute && self.file.near_is(at, 1, "="),
                "include" => self.file.near_is(at, 1, "!"),
                "macro_export" => token.place.in_attribute && !self.file.is_program(),
                "macro_use" | "macro_rules" => self.file.path == "lib.rs",
                _ => false,
            };
            if hidden {
                self.fault(token.line, Wrong::Hidden, format!("`{}` lets names in that no path shows", token.text));
            }
        }
    }

    /// `lib.rs`: only modules of the table, each in a file of its own, in layer order.
    fn root(&mut self) {
        let mut above = 0;
        for declared in &self.file.declared {
            match layer(&declared.name) {
                None => self.fault(declared.line, Wrong::UnknownModule, format!("mod {}", declared.name)),
                Some(layer) if layer < above => {
                    let what = format!("mod {} of layer {layer} stands below layer {above}", declared.name);
                    self.fault(declared.line, Wrong::OutOfOrder, what);
                }
                Some(layer) => above = layer,
            }
        }
        let inline: Vec<_> = self.file.tokens.iter().filter(|token| !token.place.modules.is_empty()).collect();
        if let Some(token) = inline.first() {
            let what = format!("mod {} has no file of its own", token.place.modules[0]);
            self.fault(token.line, Wrong::UnknownModule, what);
        }
    }

    /// `src/bin`: its own crate, whose `crate::` is its own; the compiler keeps it to public names.
    fn program(&mut self) {
        for (at, token) in self.file.tokens.iter().enumerate().filter(|(_, token)| token.kind == Kind::Ident) {
            match token.text.as_str() {
                "super" | "self" if !self.file.near_is(at, -1, "::") => {
                    for path in paths(self.file, at) {
                        self.relative_path(at, &path);
                    }
                }
                "envelock" if self.file.near_is(at, 1, "::") => {
                    for path in paths(self.file, at) {
                        if path.iter().any(|part| part.starts_with("__")) {
                            self.fault(token.line, Wrong::PrivateDoor, path.join("::"));
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn library(&mut self) {
        let own = self.module[0].clone();
        let Some(own_layer) = layer(&own) else {
            return self.fault(1, Wrong::UnknownModule, format!("{own} is in no layer"));
        };
        for (at, token) in self.file.tokens.iter().enumerate().filter(|(_, token)| token.kind == Kind::Ident) {
            let follows_path = self.file.near_is(at, -1, "::");
            match token.text.as_str() {
                "crate" if !self.is_no_path(at) => {
                    for path in paths(self.file, at) {
                        self.root_path(at, (&own, own_layer), &path);
                    }
                }
                "super" if !follows_path && !self.is_visibility(at) => {
                    for path in paths(self.file, at) {
                        self.relative_path(at, &path);
                    }
                }
                "self" if self.file.near_is(at, -1, "crate") && self.file.near_is(at, -2, "extern") => {
                    self.fault(token.line, Wrong::CrateRoot, "extern crate self");
                }
                "self" if !follows_path && self.file.near_is(at, 1, "::") => {
                    for path in paths(self.file, at) {
                        self.relative_path(at, &path);
                    }
                }
                "envelock" if self.file.near_is(at, 1, "::") => {
                    self.fault(token.line, Wrong::CrateRoot, "the crate by its own name");
                }
                _ => {}
            }
        }
    }

    /// Judges a path that starts with `crate`.
    fn root_path(&mut self, at: usize, (own, own_layer): (&str, u8), path: &[String]) {
        let line = self.file.tokens[at].line;
        let whole = path.join("::");
        let Some((target, target_layer)) = path.get(1).and_then(|name| Some((name, layer(name)?))) else {
            return self.fault(line, Wrong::CrateRoot, format!("{whole}: name the module that owns it"));
        };
        if path.iter().any(|part| part == "super") {
            self.fault(line, Wrong::SuperSuper, &whole);
        }
        if target == own {
            return;
        }
        if target_layer > own_layer {
            self.fault(line, Wrong::Upward, format!("{own} ({own_layer}) takes {whole} ({target_layer})"));
        } else if target_layer == own_layer {
            self.fault(line, Wrong::Sideways, format!("{own} takes {whole}, both of layer {own_layer}"));
        }
        let before = self.file.near(at, -2).map(|token| token.text.as_str());
        if self.file.near_is(at, -1, "use") && matches!(before, Some("pub" | ")")) {
            self.fault(line, Wrong::ReExport, format!("{own} hands on {whole}"));
        }
    }

    /// Judges a path that starts with `super` or `self`.
    fn relative_path(&mut self, at: usize, path: &[String]) {
        let token = &self.file.tokens[at];
        let depth = self.module.len() + token.place.modules.len();
        match path.iter().filter(|part| *part == "super").count() {
            0 => {}
            1 if depth >= 2 => {}
            1 => self.fault(token.line, Wrong::LeavesModule, path.join("::")),
            _ => self.fault(token.line, Wrong::SuperSuper, path.join("::")),
        }
    }

    /// `pub(crate)`, `extern crate`, `serde(crate = …)`: the word, and no path.
    fn is_no_path(&self, at: usize) -> bool {
        self.is_visibility(at)
            || (self.file.near_is(at, -1, "extern") && !self.file.near_is(at, 1, "::"))
            || (self.file.near_is(at, 1, "=") && self.file.tokens[at].place.in_attribute)
    }

    /// `pub(crate)`, `pub(super)`, `pub(in super)`.
    fn is_visibility(&self, at: usize) -> bool {
        let opened = self.file.near_is(at, -1, "(") || self.file.near_is(at, -1, "in");
        opened && self.file.near_is(at, 1, ")")
    }
}

/// Every full path of the use tree, or of the single path, that starts at token `at`.
fn paths(file: &File, at: usize) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut next = at;
    tree_paths(file, &mut next, &mut Vec::new(), &mut found);
    found
}

fn tree_paths(file: &File, at: &mut usize, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    while let Some(token) = file.tokens.get(*at) {
        match (token.kind, token.text.as_str()) {
            (Kind::Ident, text) | (Kind::Punct, text @ "*") => {
                prefix.push(text.to_owned());
                *at += 1;
                if !file.near_is(*at, 0, "::") {
                    break;
                }
                *at += 1;
            }
            (Kind::Open, "{") => {
                *at += 1;
                return tree_group(file, at, prefix, found);
            }
            // `crate::$name` in a macro, or a turbofish: what is known so far is what is judged.
            _ => break,
        }
    }
    found.push(prefix.clone());
}

fn tree_group(file: &File, at: &mut usize, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    while let Some(token) = file.tokens.get(*at) {
        match token.text.as_str() {
            "}" => {
                *at += 1;
                return;
            }
            "," => *at += 1,
            _ => {
                let length = prefix.len();
                tree_paths(file, at, prefix, found);
                prefix.truncate(length);
                // Past `as name`.
                while file.tokens.get(*at).is_some_and(|token| !matches!(token.text.as_str(), "," | "}")) {
                    *at += 1;
                }
            }
        }
    }
}

#[test]
fn every_import_goes_down_to_the_module_that_owns_the_name() {
    let files = tree();
    let paths: usize = files.iter().map(|file| file.tokens.iter().filter(|token| token.text == "crate").count()).sum();
    let faults: Vec<String> = files.iter().flat_map(faults).map(|fault| fault.to_string()).collect();
    println!("{} files, {paths} times `crate`, {} modules in the table", files.len(), LAYERS.len());
    assert!(paths > 0, "the source tree names `crate` nowhere: the scan is broken");
    assert!(faults.is_empty(), "imports that break the layers:\n{}", faults.join("\n"));
}

#[test]
fn the_table_is_in_layer_order_and_names_no_module_twice() {
    assert!(LAYERS.is_sorted_by_key(|(name, layer)| (*layer, *name)));
    let mut names: Vec<_> = LAYERS.iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), LAYERS.len());
}

fn wrongs(path: &str, source: &str) -> Vec<Wrong> {
    faults(&File::parse(path, source)).iter().map(|fault| fault.wrong).collect()
}

#[track_caller]
fn rejects(wrong: Wrong, path: &str, source: &str) {
    let found = wrongs(path, source);
    assert!(found.contains(&wrong), "src/{path} `{source}` should be {wrong:?}, was {found:?}");
}

#[track_caller]
fn accepts(path: &str, source: &str) {
    assert_eq!(wrongs(path, source), [], "src/{path} `{source}` is good");
}

#[test]
fn an_upward_import_is_rejected() {
    rejects(Wrong::Upward, "error/mod.rs", "use crate::crypto::Aead;");
    rejects(Wrong::Upward, "crypto/mod.rs", "fn f() { crate::native::header::parse(b\"\") }");
    rejects(Wrong::Upward, "io/write.rs", "use crate::{error::Error, envelope::{self, Envelope}};");
    rejects(Wrong::Upward, "native/floe.rs", "use {std::fmt, crate::io::Reader};");
    rejects(Wrong::Upward, "codec.rs", "macro_rules! m { ($x:expr) => { $crate::kms::open($x) } }");
    rejects(Wrong::Upward, "codec.rs", "fn f(x: &dyn for<'a> Fn(&'a crate::provider::Name)) {}");
    rejects(Wrong::Upward, "codec.rs", "pub(in crate::native) fn f() {}");
    rejects(Wrong::Upward, "codec.rs", "use crate ::\n // between\n envelope /* words */ :: Envelope;");
}

#[test]
fn a_sideways_import_is_rejected() {
    rejects(Wrong::Sideways, "native/mod.rs", "use crate::provider::KeyProvider;");
    rejects(Wrong::Sideways, "cache/mod.rs", "use crate::{error::Error, kms};");
    rejects(Wrong::Sideways, "fleet/mod.rs", "use crate::blocking::Envelope as E;");
    rejects(Wrong::Sideways, "clock.rs", "impl From<crate::error::Error> for X {}");
}

#[test]
fn an_import_through_the_crate_root_is_rejected() {
    rejects(Wrong::CrateRoot, "io/read.rs", "use crate::Error;");
    rejects(Wrong::CrateRoot, "io/read.rs", "use crate::{error::ErrorKind, Secret};");
    rejects(Wrong::CrateRoot, "io/read.rs", "use crate::*;");
    rejects(Wrong::CrateRoot, "io/read.rs", "use crate::{self};");
    rejects(Wrong::CrateRoot, "io/read.rs", "use crate::{self as root};");
    rejects(Wrong::CrateRoot, "io/read.rs", "use crate as root;");
    rejects(Wrong::CrateRoot, "io/read.rs", "fn f() -> crate::Result<()> { Ok(()) }");
    rejects(Wrong::CrateRoot, "io/read.rs", "macro_rules! m { ($n:ident) => { crate::$n::open() } }");
    rejects(Wrong::CrateRoot, "io/read.rs", "use envelock::Envelope;");
    rejects(Wrong::CrateRoot, "io/read.rs", "use ::envelock::kms::LocalKms;");
    rejects(Wrong::CrateRoot, "io/read.rs", "extern crate self as me;");
    rejects(Wrong::CrateRoot, "io/read.rs", "use crate::bin::main;");
}

#[test]
fn super_that_leaves_the_module_is_rejected() {
    rejects(Wrong::LeavesModule, "codec.rs", "use super::error::Error;");
    rejects(Wrong::LeavesModule, "native/mod.rs", "use super::provider::KeyProvider;");
    rejects(Wrong::LeavesModule, "codec.rs", "use super::*;");
    rejects(Wrong::LeavesModule, "codec.rs", "use super as root;");
    rejects(Wrong::LeavesModule, "codec.rs", "fn f() { self::super::native::g() }");
    rejects(Wrong::LeavesModule, "codec.rs", "macro_rules! m { () => { super::native::g() } }");
    rejects(Wrong::LeavesModule, "codec.rs", "mod inner { use super::*; } use super::{native};");
}

#[test]
fn super_super_is_rejected_even_inside_a_folder() {
    rejects(Wrong::SuperSuper, "native/floe.rs", "use super::super::provider::KeyProvider;");
    rejects(Wrong::SuperSuper, "provider/http/retry.rs", "use super::super::raw::Raw;");
    rejects(Wrong::SuperSuper, "codec.rs", "mod tests { use super::super::native; }");
    rejects(Wrong::SuperSuper, "native/floe.rs", "use super::{header, super::provider};");
    rejects(Wrong::SuperSuper, "native/floe.rs", "use self::super::super::provider;");
    rejects(Wrong::SuperSuper, "bin/envelock/keys/list.rs", "use super::super::args;");
}

#[test]
fn a_module_in_no_layer_is_rejected() {
    rejects(Wrong::UnknownModule, "util.rs", "");
    rejects(Wrong::UnknownModule, "helpers/mod.rs", "fn f() {}");
    rejects(Wrong::UnknownModule, "lib.rs", "mod error; mod util;");
    rejects(Wrong::UnknownModule, "lib.rs", "#[cfg(test)] mod fixtures;");
    rejects(Wrong::UnknownModule, "lib.rs", "pub mod prelude { pub use crate::error::Error; }");
}

#[test]
fn modules_out_of_layer_order_are_rejected() {
    rejects(Wrong::OutOfOrder, "lib.rs", "mod native; mod codec;");
}

#[test]
fn an_import_that_no_path_shows_is_rejected() {
    rejects(Wrong::Hidden, "codec.rs", "#[path = \"native/header.rs\"] mod header;");
    rejects(Wrong::Hidden, "codec.rs", "#[cfg_attr(unix, path = \"native/header.rs\")] mod header;");
    rejects(Wrong::Hidden, "codec.rs", "include!(\"native/header.rs\");");
    rejects(Wrong::Hidden, "codec.rs", "#[macro_export] macro_rules! m { () => {} }");
    rejects(Wrong::Hidden, "lib.rs", "#[macro_use] mod error;");
    rejects(Wrong::Hidden, "bin/envelock/main.rs", "#[path = \"../../native/mod.rs\"] mod native;");
}

#[test]
fn handing_on_another_modules_name_is_rejected() {
    rejects(Wrong::ReExport, "io/mod.rs", "pub use crate::error::Error;");
    rejects(Wrong::ReExport, "io/mod.rs", "pub(crate) use crate::{error::Error, secret::Secret};");
}

#[test]
fn a_private_door_of_the_library_is_rejected_in_the_program() {
    rejects(Wrong::PrivateDoor, "bin/envelock/main.rs", "use envelock::{Error, __private::header};");
}

#[test]
fn test_code_obeys_the_same_rule() {
    rejects(Wrong::Upward, "codec.rs", "#[cfg(test)] mod tests { use super::*; use crate::native::header; }");
    rejects(Wrong::Sideways, "native/tests.rs", "use crate::provider::raw::RawKey;");
    accepts("native/tests.rs", "use super::*; use crate::crypto::random; use crate::error::ErrorKind;");
}

#[test]
fn good_imports_are_accepted() {
    accepts("error/format.rs", "use super::{Error, ErrorKind};");
    accepts("codec.rs", "use crate::error::{Error, Result}; #[cfg(test)] mod tests { use super::*; }");
    accepts("native/floe.rs", "use crate::native::header::Header; use super::record; use crate::segments::{self, *};");
    accepts("provider/http/retry.rs", "use super::transport::{Transport}; use crate::provider::raw;");
    accepts("envelope/file.rs", "use crate::{cache, error::{Error, Result}, io::{read::*, write as w}};");
    accepts("io/mod.rs", "mod read; pub use read::Reader; pub use self::write::Writer; pub(super) fn f(&self) {}");
    accepts("io/read.rs", "pub(crate) struct S; pub(in crate::io) fn f() { self.x(); Self::y(); self::g() }");
    accepts("io/read.rs", "//! crate::Error\n/* crate::Error */ const S: &str = \"crate::Error\"; extern crate std;");
    accepts(
        "io/read.rs",
        "/// [`crate::Envelope`]\nconst S: &str = r#\"use super::super::x;\"#; const C: char = '\"';",
    );
    accepts(
        "lib.rs",
        "pub mod clock; mod error; mod crypto; pub use error::{Error, Result}; pub use crate::crypto::X;",
    );
    accepts("bin/envelock/main.rs", "mod args; use envelock::{Envelope, kms::LocalKms}; use crate::args::Args;");
    accepts("bin/envelock/args.rs", "use super::Exit; use crate::progress;");
}
