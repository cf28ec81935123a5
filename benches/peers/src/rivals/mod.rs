//! Each rival, through its own public face: from a slice to a slice that is there already, or to
//! memory of its own where it knows nothing else.

pub mod age;
#[cfg(feature = "aws")]
pub mod aws;
#[cfg(not(feature = "aws"))]
#[path = "no_aws.rs"]
pub mod aws;
pub mod floe;
pub mod python;
pub mod rust_crypto;
pub mod tink;

/// What authenticated data the rivals that take any are given.
pub const AAD: &[u8] = b"tenant=acme";

/// The versions that this program was built with, out of its lock file.
pub fn versions() -> Vec<String> {
    let named = ["aes-gcm", "age", "aws-esdk", "aws-lc-rs", "fast-floe", "tink-aead", "tink-streaming-aead", "tokio"];
    let mut lines = include_str!("../../Cargo.lock").lines();
    let mut versions = Vec::new();
    while let Some(line) = lines.next() {
        let field = |line: Option<&str>, name: &str| {
            line?.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"').map(str::to_owned)
        };
        if let Some(name) = field(Some(line), "name").filter(|name| named.contains(&name.as_str())) {
            let version = field(lines.next(), "version").unwrap_or_default();
            versions.push(format!("{name} {version}"));
        }
    }
    versions
}
