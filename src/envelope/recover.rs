//! Recover: what is left of a damaged message (docs/format.md, "Recovering").
//!
//! Nothing here hands out a byte that is not authentic at its place. What it gives up is the promise
//! that every other way into a message makes, that a plaintext is whole: hence `dangerous_`.

use crate::context::EncryptionContext;
use crate::durable::AtomicFile;
use crate::envelope::Envelope;
use crate::envelope::file::{FileOptions, Message, named, open_target};
use crate::envelope::offload::{Cancelled, offload};
use crate::envelope::watch::Watch;
use crate::error::{Error, Result};
use crate::io::recover::{Counts, Damage, Found, Holes, Walk};
use crate::native::header::Limits;
use crate::segments::Segments;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// How [`dangerous_recover_file`](Envelope::dangerous_recover_file) works.
#[derive(Clone, Default)]
pub struct RecoverOptions {
    file: FileOptions,
    holes: Holes,
    report: Option<Arc<dyn Fn(Damage) + Send + Sync>>,
}

impl RecoverOptions {
    /// What becomes of the places whose plaintext is lost. Default: [`Holes::Zero`].
    #[must_use]
    pub fn holes(mut self, holes: Holes) -> Self {
        self.holes = holes;
        self
    }

    /// Calls `report` on the working thread for each damage, in order, instead of gathering them in the
    /// map: a long message may have more of them than memory.
    #[must_use]
    pub fn on_damage(mut self, report: impl Fn(Damage) + Send + Sync + 'static) -> Self {
        self.report = Some(Arc::new(report));
        self
    }
}

impl From<FileOptions> for RecoverOptions {
    fn from(file: FileOptions) -> Self {
        Self { file, ..Self::default() }
    }
}

impl fmt::Debug for RecoverOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecoverOptions").field("file", &self.file).field("holes", &self.holes).finish_non_exhaustive()
    }
}

/// What was found in a message that may be damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DamageMap {
    /// The damages, in order, neighbours of one cause as one. Empty if they went to
    /// [`on_damage`](RecoverOptions::on_damage).
    pub damages: Vec<Damage>,
    /// How many damages there are.
    pub damage_count: u64,
    /// Segments whose plaintext is in the output.
    pub authentic_segments: u64,
    /// Bytes of plaintext in the output that were authenticated: all but the zeros of holes.
    pub authentic_len: u64,
    /// Segments that are known to belong to the message, and are lost. After a lost end there may have
    /// been more.
    pub lost_segments: u64,
    /// Length of the output in bytes.
    pub output_len: u64,
    /// Whether the final segment was found, and with it the length of the plaintext. Otherwise nobody
    /// knows how much is missing at the end.
    pub end_verified: bool,
    /// Bytes of a segment that is not the final one.
    pub segment_len: usize,
}

impl DamageMap {
    /// Whether nothing is wrong with the message at all.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.damage_count == 0 && self.end_verified
    }
}

impl Envelope {
    /// Writes all that is left of the damaged or truncated message at `from` to the file `to`, and tells
    /// what is not.
    ///
    /// **The output is not what was encrypted** unless [`DamageMap::is_whole`] says so. Each piece in it
    /// is authentic, and stood at this place of this message; but any others may be missing, at the
    /// choice of whoever damaged the file, and so may the end. Use it for what cannot be restored
    /// otherwise, and let a person look at the result: every other call refuses such a message.
    ///
    /// ```no_run
    /// # async fn example(envelope: envelock::Envelope) -> Result<(), envelock::Error> {
    /// use envelock::{EncryptionContext, Holes, RecoverOptions};
    /// let context = EncryptionContext::from([("object", "backup.tar")]);
    /// let options = RecoverOptions::default().holes(Holes::Zero);
    /// let map = envelope.dangerous_recover_file("backup.tar.elk", "backup.tar.left", &context, options).await?;
    /// for damage in &map.damages {
    ///     println!("bytes {:?} of the backup: {}", damage.plaintext, damage.cause);
    /// }
    /// if !map.end_verified {
    ///     println!("and nobody knows what followed byte {}", map.output_len);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The head must be whole: without its key nothing opens. `from` is a regular file; `to` appears
    /// once everything was tried.
    ///
    /// # Errors
    /// As [`decrypt_file`](Self::decrypt_file) up to the kinds that concern segments, which are in the
    /// map; [`InvalidInput`](crate::ErrorKind::InvalidInput) if `from` is no regular file, or is `to`.
    pub async fn dangerous_recover_file(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        context: &EncryptionContext,
        options: impl Into<RecoverOptions>,
    ) -> Result<DamageMap> {
        let (from, to) = (from.as_ref().to_path_buf(), to.as_ref().to_path_buf());
        let options = options.into();
        let (message, limits) = (self.open_message(&from, context).await?, self.config.limits.clone());
        offload(move |cancelled| {
            let recovered = recover(message, &to, &options, &limits, cancelled);
            recovered.map_err(|error| named(error, &from))
        })
        .await
    }
}

fn recover(
    message: Message,
    to: &Path,
    options: &RecoverOptions,
    limits: &Limits,
    cancelled: &Cancelled,
) -> Result<DamageMap> {
    let Some(body_len) = message.body_len() else {
        return Err(Error::invalid_input("recovering needs a regular file, which can be read at any place"));
    };
    if is_same(&message.file, to) {
        return Err(Error::invalid_input("the output would replace the damaged message")
            .with_advice("choose another name, and keep the damaged file"));
    }
    let target = open_target(to, &options.file, limits)?;
    let (file, head_len) = (message.file, message.head_len);
    let segments = message.decryptor.into_segments();
    let layout = segments.layout();
    let mut watch = Watch::new(&options.file, cancelled, Some(body_len));
    let mut damages = Vec::new();
    let mut report = |damage: Damage| match &options.report {
        Some(report) => report(damage),
        None => damages.push(damage),
    };
    let mut walk = Walk::new(&*segments, head_len, body_len, options.holes);
    let mut input =
        Input { file: &file, end: head_len + body_len, run: Vec::new(), at: 0, segment_len: layout.segment_len() };
    let mut output = Output { target: &target.new, buffer: Zeroizing::new(Vec::new()), at: 0, written: 0 };
    while let Some(piece) = walk.piece() {
        watch.check()?;
        let taken = piece.end - piece.start;
        let room = output.room(layout.plaintext_per_segment());
        match walk.take(input.read(piece), room, &mut report)? {
            Found::Plaintext(len) => output.keep(layout.plaintext_per_segment(), len)?,
            Found::Hole(len) => output.skip(layout.plaintext_per_segment(), len)?,
        }
        watch.advance(taken);
    }
    let Counts { authentic_segments, authentic_len, lost_segments, output_len, damages: damage_count, end_verified } =
        walk.finish(&mut report);
    output.finish()?;
    watch.check()?;
    target.commit_plaintext()?;
    Ok(DamageMap {
        damages,
        damage_count,
        authentic_segments,
        authentic_len,
        lost_segments,
        output_len,
        end_verified,
        segment_len: layout.segment_len(),
    })
}

fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Reads pieces, many at once where the disk allows it.
struct Input<'a> {
    file: &'a File,
    end: u64,
    run: Vec<u8>,
    /// Where in the file `run` begins.
    at: u64,
    segment_len: usize,
}

impl Input<'_> {
    /// The bytes at `piece`; `None` if the disk does not give them.
    fn read(&mut self, piece: Range<u64>) -> Option<&mut [u8]> {
        let len = usize::try_from(piece.end - piece.start).ok()?;
        if self.within(&piece, len).is_none() {
            let segments = (RUN_LEN / self.segment_len).max(1);
            let rest = usize::try_from(self.end - piece.start).unwrap_or(usize::MAX);
            self.at = piece.start;
            self.run.resize(rest.min(segments * self.segment_len), 0);
            if self.file.read_exact_at(&mut self.run, self.at).is_err() {
                // Some of it may be readable: by the piece, then.
                self.run.truncate(len);
                if self.file.read_exact_at(&mut self.run, self.at).is_err() {
                    self.run.clear();
                    return None;
                }
            }
        }
        let start = self.within(&piece, len)?;
        self.run.get_mut(start..start + len)
    }

    /// Where in the run the piece begins, if all of it is there.
    fn within(&self, piece: &Range<u64>, len: usize) -> Option<usize> {
        let start = usize::try_from(piece.start.checked_sub(self.at)?).ok()?;
        (start.checked_add(len)? <= self.run.len()).then_some(start)
    }
}

/// Gathers plaintext on its way to the target; holes are left to the file system.
struct Output<'a> {
    target: &'a AtomicFile,
    /// Plaintext, and room for that of one more segment.
    buffer: Zeroizing<Vec<u8>>,
    /// Where in the target the buffer's first byte goes.
    at: u64,
    /// Where in the target the last byte that was written ends.
    written: u64,
}

impl Output<'_> {
    /// Room for `len` bytes behind those that were kept.
    fn room(&mut self, len: usize) -> &mut [u8] {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(RUN_LEN + len);
        }
        let kept = self.buffer.len();
        self.buffer.resize(kept + len, 0);
        self.buffer.get_mut(kept..).unwrap_or_default()
    }

    /// Keeps the first `len` bytes of a room of `room` bytes.
    fn keep(&mut self, room: usize, len: usize) -> Result<()> {
        let kept = self.buffer.len() - room;
        self.buffer.truncate(kept + len);
        if self.buffer.len() >= RUN_LEN { self.flush() } else { Ok(()) }
    }

    /// Keeps nothing of it, and goes on behind a hole of `len` bytes.
    fn skip(&mut self, room: usize, len: u64) -> Result<()> {
        let kept = self.buffer.len() - room;
        self.buffer.truncate(kept);
        if len > 0 {
            self.flush()?;
            self.at += len;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.target.write_at(&self.buffer, self.at)?;
            self.at += self.buffer.len() as u64;
            self.written = self.at;
            self.buffer.zeroize();
        }
        Ok(())
    }

    /// Writes what is left; a hole at the end is given its length.
    fn finish(mut self) -> Result<()> {
        self.flush()?;
        match self.at.checked_sub(1) {
            Some(last) if self.at > self.written => self.target.write_at(&[0], last),
            _ => Ok(()),
        }
    }
}

/// Bytes that are read and written at once.
const RUN_LEN: usize = 1 << 20;
