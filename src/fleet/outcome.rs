//! What became of files.

use super::calls::CallCounts;
use crate::error::Error;
use crate::provider::Recipient;

/// What became of a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It was rewrapped.
    Rewrapped(Change),
    /// A dry run: it would be rewrapped so, if its keys answer.
    Due(Change),
    /// It is under the new keys already: nothing was written, and no call was made.
    Current,
    /// The same, after a rewrap that had been interrupted was finished or undone.
    Recovered(&'static str),
    /// A message that the selection does not mean.
    NotSelected,
    /// It was there, and is no more.
    Vanished,
    /// A failure that may be over soon: the file comes again at the end of the run.
    PutOff(Error),
    /// A failure. The file is as it was, unless the error says otherwise.
    Failed(Error),
    /// No message: another file, a further name of one, or one that is being written.
    Ignored,
}

/// What a rewrap changed of a file, or would change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Recipients who can open it now and could not before: new ones, and ones that were missing.
    pub added: Vec<Recipient>,
    /// Recipients that it is no more for.
    pub removed: Vec<Recipient>,
    /// Recipients who could not be reached, and are recorded as missing.
    pub missing: Vec<Recipient>,
    /// Whether no data key was seen here. In a dry run: whether that is what will be tried first.
    pub blind: bool,
    /// A dry run: whether only a call tells if those who are named open it. They may, if it is under an older key of an alias of
    /// theirs for one, and name no key that is in it.
    pub perhaps: bool,
    /// Whether a new file took its place, since the new slots did not fit. A dry run cannot tell.
    pub copied: bool,
    /// Something about an earlier, interrupted rewrap that a person should read.
    pub notice: Option<&'static str>,
}

/// What a run did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RewrapReport {
    /// Messages and record sets that were looked at.
    pub messages: u64,
    /// Those that the selection does not mean.
    pub not_selected: u64,
    /// Those that were under the new keys already.
    pub current: u64,
    /// Those that were rewrapped; in a dry run, those that would be.
    pub rewrapped: u64,
    /// Of these, those whose data key was not seen here. Verify them before an old key is retired.
    pub blind: u64,
    /// Of these, in a dry run, those of which only a call tells whether they can be.
    pub perhaps: u64,
    /// Of these, those that were copied to a new file in their place.
    pub copied: u64,
    /// Of these, those that record a recipient as missing.
    pub with_missing: u64,
    /// Those that are gone.
    pub vanished: u64,
    /// Failures: messages that stay as they were, damaged ones, files and folders that could not be read.
    pub failed: u64,
    /// Files that are no messages.
    pub ignored: u64,
    /// Messages that are being written, or whose writing ended early: not looked into.
    pub unfinished: u64,
    /// Calls to key providers.
    pub calls: CallCounts,
    /// Whether the run was stopped before its end.
    pub stopped: bool,
    /// Messages that the journal of an earlier run knew.
    pub resumed: u64,
    /// Lines of that journal that were damaged and left out.
    pub journal_damaged: u64,
    /// The first failure.
    pub first_failure: Option<Error>,
}
