//! Rules of the house that the compiler does not hold: where crypto crates are named, how long a
//! file is, where features switch, who may print.

use crate::source::{File, Kind, test_modules, tree};

/// Lines, tests included, above which a file is to be split.
const MAX_LINES: usize = 600;

/// Source lines per line with a feature switch: the fewer switches, the better the code reads.
const LINES_PER_SWITCH: usize = 150;
/// So many are fine in a tree of any size.
const FREE_SWITCHES: usize = 20;

/// Crates that do cryptography. `zeroize` and `subtle` are free everywhere.
const CRYPTO_CRATES: &[&str] = &[
    "aes_gcm",
    "argon2",
    "aws_lc_rs",
    "chacha20poly1305",
    "getrandom",
    "hmac",
    "p256",
    "p384",
    "ring",
    "rsa",
    "sha2",
    "xaes_256_gcm",
];

/// The crypto crates that `file` names, with their lines.
fn crypto_crates(file: &File) -> Vec<(usize, &str)> {
    let mut named = Vec::new();
    for (at, token) in file.tokens.iter().enumerate().filter(|(_, token)| token.kind == Kind::Ident) {
        let path = file.near_is(at, 1, "::");
        let import = file.near_is(at, -1, "use") || file.near_is(at, -1, "crate");
        // `kms::hmac::…` is a module of ours, `::hmac::…` the crate.
        let inner = file.near_is(at, -1, "::") && file.near(at, -2).is_some_and(|before| before.kind == Kind::Ident);
        if CRYPTO_CRATES.contains(&token.text.as_str()) && (path || import) && !inner {
            named.push((token.line, token.text.as_str()));
        }
    }
    named
}

/// Lines that switch something by a feature, and whether they stand in a function's body.
fn feature_switches(file: &File) -> Vec<(usize, bool)> {
    let mut lines: Vec<(usize, bool)> = Vec::new();
    for (at, token) in file.tokens.iter().enumerate() {
        let switch = token.text == "feature" && token.kind == Kind::Ident && file.near_is(at, 1, "=");
        if switch && lines.last().is_none_or(|(line, _)| *line != token.line) {
            lines.push((token.line, token.place.in_function));
        }
    }
    lines
}

/// Lines that print, outside code that only tests compile.
fn prints(file: &File, tests: &[Vec<String>]) -> Vec<(usize, String)> {
    if tests.iter().any(|module| file.module().starts_with(module)) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, token) in file.tokens.iter().enumerate().filter(|(_, token)| !token.place.in_test) {
        let prints = matches!(token.text.as_str(), "print" | "println" | "eprint" | "eprintln" | "dbg");
        if prints && token.kind == Kind::Ident && file.near_is(at, 1, "!") {
            found.push((token.line, token.text.clone()));
        }
    }
    found
}

#[test]
fn no_source_file_is_longer_than_600_lines() {
    let files = tree();
    let long: Vec<_> =
        files.iter().filter(|file| file.lines > MAX_LINES).map(|file| (&file.path, file.lines)).collect();
    assert!(long.is_empty(), "split these by what they hold: {long:?}");
}

#[test]
fn crypto_crates_are_named_in_the_crypto_folder_only() {
    let mut inside = 0;
    let mut faults = Vec::new();
    for file in tree() {
        for (line, name) in crypto_crates(&file) {
            match file.path.as_str() {
                path if path.starts_with("crypto/") => inside += 1,
                // The error that says randomness failed is made from the crate's own.
                "error/provider.rs" if name == "getrandom" => {}
                path => faults.push(format!("src/{path}:{line}: {name}")),
            }
        }
    }
    println!("crypto crates are named {inside} times in src/crypto");
    assert!(faults.is_empty(), "go through crate::crypto:\n{}", faults.join("\n"));
}

#[test]
fn features_switch_few_places_and_none_inside_a_function() {
    let files = tree();
    let lines: usize = files.iter().map(|file| file.lines).sum();
    let mut switches = 0;
    let mut in_functions = Vec::new();
    for file in &files {
        for (line, in_function) in feature_switches(file) {
            switches += 1;
            if in_function {
                in_functions.push(format!("src/{}:{line}", file.path));
            }
        }
    }
    let allowed = FREE_SWITCHES.max(lines / LINES_PER_SWITCH);
    println!("{switches} lines of {lines} switch by a feature; {allowed} are allowed");
    assert!(switches <= allowed, "{switches} lines of {lines} switch by a feature: let a feature pick whole files");
    assert!(in_functions.is_empty(), "a feature picks whole files, not statements: {in_functions:?}");
}

#[test]
fn the_library_prints_nothing() {
    let files = tree();
    let tests = test_modules(&files);
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| !file.is_program()) {
        faults
            .extend(prints(file, &tests).into_iter().map(|(line, what)| format!("src/{}:{line}: {what}!", file.path)));
    }
    assert!(faults.is_empty(), "a library does not print: {}", faults.join(", "));
}

#[test]
fn the_scan_sees_each_way_to_name_a_crypto_crate() {
    let named = |source| crypto_crates(&File::parse("io/read.rs", source)).len();
    assert_eq!(named("use aes_gcm::Aes256Gcm;"), 1);
    assert_eq!(named("use {std::fmt, ::hmac::Mac};"), 1);
    assert_eq!(named("use sha2; use ring as r; extern crate argon2;"), 3);
    assert_eq!(named("fn f() { let x = getrandom::fill(&mut b); } macro_rules! m { () => { aws_lc_rs::x() } }"), 2);
    assert_eq!(named("// aes_gcm::x\nuse zeroize::Zeroize; use crate::kms::hmac::tag; fn f(hmac: u8) { g(hmac) }"), 0);
}

#[test]
fn the_scan_sees_feature_switches_and_whether_a_function_holds_them() {
    let source = "#[cfg(feature = \"a\")]\nmod a;\n#[cfg_attr(all(feature = \"a\", feature = \"b\"), inline)]\nfn f() {\n\
                  if cfg!(feature = \"c\") {}\n}\n#[cfg(feature = \"d\")]\nfn g() {}\n// cfg(feature = \"e\")\n";
    let file = File::parse("io/read.rs", source);
    assert_eq!(feature_switches(&file), [(1, false), (3, false), (5, true), (7, false)]);
}

#[test]
fn the_scan_sees_prints_outside_tests() {
    let found = |path, source| prints(&File::parse(path, source), &[vec!["io".to_owned(), "tests".to_owned()]]).len();
    assert_eq!(found("io/read.rs", "fn f() { println!(\"x\"); dbg!(1); std::eprintln!() }"), 3);
    assert_eq!(found("io/read.rs", "#[cfg(test)] mod tests { fn f() { println!() } } fn g() { eprint!() }"), 1);
    assert_eq!(found("io/read.rs", "/// println!(\"an example\")\nfn println(f: F) { writeln!(f, \"print!()\") }"), 0);
    assert_eq!(found("io/tests.rs", "fn f() { println!() }"), 0);
    assert_eq!(found("io/tests/fork.rs", "fn f() { println!() }"), 0);
}
