//! What counts as durable while writes are on their way and entries are truncated.

use crate::mutants::Mutant;
use crate::types::LogIndex;

/// The durable mark of the log after its entries behind `keep` were truncated: it goes down with them.
///
/// A mark that stays would vouch for the entries that take the place of the truncated ones (etcd's
/// `async_storage_writes_append_aba_race`).
pub(crate) fn stable_after_truncation(stable: LogIndex, keep: LogIndex) -> LogIndex {
    if Mutant::D10TruncationLeavesStableMark.is_active() { stable } else { stable.min(keep) }
}

/// Up to where a write that is under way vouches for the log after entries behind `keep` were truncated: for what is left.
///
/// Its completion comes when other entries may stand behind `keep`, which it does not carry.
pub(crate) fn write_mark_after_truncation(mark: LogIndex, keep: LogIndex) -> LogIndex {
    if Mutant::D10TruncationLeavesWriteMarks.is_active() { mark } else { mark.min(keep) }
}

/// Whether the completion of the write `completed` makes `write` durable: writes become durable in the order of their numbers,
/// and a later one is still under way. Rule O2: the number tells which write it was; an index that was
/// truncated and written again does not.
pub(crate) fn completion_covers(completed: u64, write: u64) -> bool {
    write <= completed || Mutant::D10CompletionWithoutItsSequence.is_active()
}

/// Bytes that a durable write gives back to the bound of bytes that wait for the disk: all of its own.
pub(crate) fn bytes_given_back(bytes: usize) -> usize {
    if Mutant::K3QuotaIsNeverGivenBack.is_active() { 0 } else { bytes }
}

/// What an applied chunk gives back of the bound of bytes that wait to be applied.
pub(crate) fn applied_bytes_given_back(bytes: usize) -> usize {
    if Mutant::K3AppliedBytesStay.is_active() { 0 } else { bytes }
}
