//! The arguments of the commands on files.

use crate::args::{Making, Matching, Opening, Output, Working};
use crate::provider_name::ProviderName;
use clap::{Args, ValueEnum, ValueHint};
use envelock::{AeadAlgorithm, ByteRange, Holes};
use std::path::PathBuf;

/// Encrypt files, each to FILE.elk, or a pipe
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  envelock encrypt report.pdf
  envelock encrypt --provider passphrase: --output report.elk report.pdf
  tar c FOLDER | envelock encrypt - --output FOLDER.tar.elk
  envelock encrypt --provider local: --provider raw:file=escrow.key --context tenant=acme report.pdf")]
pub(crate) struct Encrypt {
    /// The files to encrypt; - is standard input
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) working: Working,
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) making: Making,
    /// Go on when at least K of the providers can encrypt; the others are recorded as missing, for a
    /// later rewrap. Default: all must, or as many as the profile says
    #[arg(long, value_name = "K")]
    pub(crate) at_least: Option<usize>,
    /// The cipher
    #[arg(long, value_enum, default_value_t)]
    pub(crate) aead: Aead,
    /// Bytes in a segment, 64 to 16777216: what a reader holds in memory, and the least that it reads
    /// [default: 65536]
    #[arg(long, value_name = "BYTES")]
    pub(crate) segment_len: Option<u32>,
    /// Go on where an earlier run with this option ended early, and keep what is done if this one does.
    ///
    /// It stays in .NAME.envelock-partial beside the target NAME, until the target is whole or a run
    /// without this option writes it. What is there is verified and compared with the file first; if the
    /// file was changed since, a new message is begun, with a line that says so
    #[arg(long)]
    pub(crate) resume: bool,
}

/// Decrypt files, each to its name without .elk, or a pipe
///
/// A file appears only once all of it was found authentic; with --range, all segments that the range
/// touches, and the last. On standard output, what was found authentic streams; if the exit code is then
/// not 0, what came before is a part, not the whole.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  envelock decrypt report.pdf.elk
  envelock decrypt report.pdf.elk --output copy.pdf --context tenant=acme
  envelock decrypt --provider local:alias/orders orders.db.elk
  envelock decrypt archive.tar.elk --output - | tar t
  envelock decrypt log.elk --range 1000000-1004095 --output part.log")]
pub(crate) struct Decrypt {
    /// The files to decrypt; - is standard input
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Decrypt only these bytes of the content, and read only the segments that hold them and the last
    /// one: 0-99 are the first 100, 100- are all from byte 100 on, -100 are the last 100. Needs --output
    #[arg(long, value_name = "START-END", requires = "output", allow_hyphen_values = true)]
    pub(crate) range: Option<ByteRange>,
    #[command(flatten)]
    pub(crate) working: Working,
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) matching: Matching,
}

/// Encrypt the data keys of files anew, under current or other keys; their content is not touched
///
/// Who can open the files afterwards is said here, by --to or else by --provider; nothing that stands in a
/// file adds anybody. A rewrap is not a revocation: whoever had the data key, or an old copy of the file,
/// still has it. Record sets and values (as bytes, or as the lines of `envelock seal`) go to a new file: they
/// need --output.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  After `envelock keys rotate alias/orders`, under the key's new version:
    envelock rewrap --provider local:alias/orders *.elk
  The same, for files that an escrow key opens as well:
    envelock rewrap --provider local:alias/orders --provider raw:file=escrow.key *.elk
  To another key, and no other:
    envelock rewrap --provider passphrase: --to local:alias/orders report.pdf.elk")]
pub(crate) struct Rewrap {
    /// The files to rewrap, in place unless --output is given
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// Write the message to this file, or under its name into this folder; it must not exist. The old one
    /// stays as it is
    #[arg(long, short, value_name = "OUT", value_hint = ValueHint::AnyPath)]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) matching: Matching,
    /// A provider that can open the files afterwards; repeat it for several. All others that a file is for
    /// are removed. Default: those of --provider, under their current keys; a file that is for others as
    /// well is then refused
    #[arg(long, value_name = "PROVIDER")]
    pub(crate) to: Vec<ProviderName>,
    /// Without --to: remove those that a file is for and that no --provider names
    #[arg(long, conflicts_with = "to")]
    pub(crate) drop_others: bool,
    #[command(flatten)]
    pub(crate) making: Making,
    /// Go on when at least K of the new providers can encrypt; the others are recorded as missing, as they may be
    /// already. Default: all must, or as many as the profile says
    #[arg(long, value_name = "K")]
    pub(crate) at_least: Option<usize>,
    /// Let the key service re-encrypt inside, without seeing the data key here. Keep the old key until
    /// `envelock verify` has opened the files
    #[arg(long)]
    pub(crate) blind: bool,
}

/// Check that every byte of files is authentic; nothing is written
///
/// The files are messages, record sets, or values as bytes or as the lines of `envelock seal`.
#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// The files to check; - is standard input
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) matching: Matching,
}

/// Write what is left of a damaged message, with a map of what is not
///
/// The output is NOT what was encrypted unless the exit code is 0. Every byte in it is authentic and was
/// at this place, but for the zeros of holes; others may be missing, at the choice of whoever damaged the
/// file, and so may the end. For what cannot be restored from a copy. All other commands refuse such a
/// message.
#[derive(Args, Debug)]
#[command(after_long_help = "\
The map is JSON: `damage` lists runs of segments with their places in the damaged file, in the whole
plaintext and in the output (first byte, and one past the last), and the cause: not-authentic,
wrong-prefix (recovered all the same), truncated, trailing-data, unreadable. Without `end_verified`
nobody knows how much is missing at the end.

The exit code is 0 if the message was whole, and 3 if anything was wrong with it.")]
pub(crate) struct Recover {
    /// The damaged file; its head must be whole
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// The file for what is left
    #[arg(long, short, value_name = "OUT", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
    /// The file for the map of the damage; - is standard output
    #[arg(long, value_name = "MAP", value_hint = ValueHint::FilePath)]
    pub(crate) map: PathBuf,
    /// What becomes of lost places
    #[arg(long, value_enum, default_value_t)]
    pub(crate) holes: LostPlaces,
    /// Replace existing targets
    #[arg(long, short)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) matching: Matching,
}

/// Show what a message or value says of itself; needs no key, and checks nothing
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// The file to look at; - is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The ciphers by their names on the command line.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Aead {
    /// AES-256-GCM
    #[default]
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    /// ChaCha20-Poly1305, for machines without AES instructions
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl From<Aead> for AeadAlgorithm {
    fn from(aead: Aead) -> Self {
        match aead {
            Aead::Aes256Gcm => Self::Aes256Gcm,
            Aead::ChaCha20Poly1305 => Self::ChaCha20Poly1305,
        }
    }
}

/// What becomes of lost places, by its names on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LostPlaces {
    /// Zero bytes fill them, so that what is left lies where it was
    #[default]
    Zero,
    /// They are left out, and what is left is joined
    Skip,
}

impl From<LostPlaces> for Holes {
    fn from(places: LostPlaces) -> Self {
        match places {
            LostPlaces::Zero => Self::Zero,
            LostPlaces::Skip => Self::Skip,
        }
    }
}
