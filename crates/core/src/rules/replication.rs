//! What a follower takes in and acknowledges, and what its answers tell the leader (Raft §5.3).

use crate::chunk::EntryChunk;
use crate::log_manager::LogManager;
use crate::message::AppendKind;
use crate::mutants::Mutant;
use crate::types::{LogIndex, Term};

// --- on a follower ---

/// Whether the entry before a leader's entries is the follower's, too: the same index *and* the same term (Raft §5.3).
///
/// An entry of another term is another entry: taken for the same, two logs would differ below an entry that they share.
pub(crate) fn previous_matches(own: Term, sent: Term) -> bool {
    own == sent || Mutant::D8PrevTermIsNotCompared.is_active()
}

/// First index of a leader's chunk that the log lacks or holds with another term; `None` when it holds all of it. Everything
/// before it is left alone.
///
/// Only a conflict truncates. Messages come late and twice: one that was sent long ago must not cut off what came after it and
/// was acknowledged. An entry that does conflict must go, or the logs stay different.
pub(crate) fn first_to_append(log: &LogManager, chunk: &EntryChunk) -> Option<LogIndex> {
    let known = log.last_id().index;
    if chunk.first_index() > known || Mutant::D2ResentEntriesTruncate.is_active() {
        return Some(chunk.first_index());
    }
    let from = chunk.first_index().max(log.first_index());
    let kept = Mutant::D26ConflictIsKept.is_active();
    let differs = |index: &LogIndex| log.term_at(*index) != Some(chunk.term()) && !kept;
    (from..=chunk.last_index().min(known))
        .find(differs)
        .or_else(|| (chunk.last_index() > known).then(|| from.max(known + 1)))
}

/// The last index up to which a follower may commit by a message: what this very message proved to match (scylladb#9965).
///
/// The log behind it may still differ from the leader's; a commit index that runs ahead would commit entries that the leader
/// never had.
pub(crate) fn verified_index(last_verified: LogIndex, last_index: LogIndex) -> LogIndex {
    if Mutant::D5CommitsWhatWasNotVerified.is_active() { last_index } else { last_verified }
}

/// Whether the acknowledgement of entries waits for the disk: `unstable` says whether any of them is not durable here,
/// `writes` whether this very step writes something.
///
/// Rule P4: only durable entries are acknowledged (thesis §10.2.1). Entries that were sent again may be in an older write that is still
/// under way: that this step writes nothing says nothing.
pub(crate) fn acknowledgement_waits(unstable: bool, writes: bool) -> bool {
    let waits = if Mutant::H6ResentEntriesAcknowledgedEarly.is_active() { writes } else { unstable };
    waits && !Mutant::H6AcknowledgedBeforeDurable.is_active()
}

// --- on a leader ---

/// Whether a leader heeds the term of an answer to its entries: always, and a higher one ends its leadership (Raft §5.1).
pub(crate) fn heeds_term_of_answer() -> bool {
    !Mutant::K7HigherTermAnswerIsIgnored.is_active()
}

/// Whether a peer's success is an acknowledgement of *durable* entries: only the answer to entries is.
///
/// A probe compares the logs as they are in memory, before anything is on disk.
pub(crate) fn confirms_durability(kind: AppendKind) -> bool {
    kind == AppendKind::Entries || Mutant::D11ProbeConfirms.is_active()
}

/// Where to probe after a rejection at `prev`, when the peer's answer points at `wanted`: at `prev` at most, so that every
/// rejection brings the probe nearer to the start of the log, and never below 1.
pub(crate) fn next_probe(prev: LogIndex, wanted: LogIndex) -> LogIndex {
    let most = if Mutant::D12ProbeStaysInPlace.is_active() { prev + 1 } else { wanted.min(prev) };
    most.max(1)
}

/// Bytes that an answered or forgotten request gives back to the window of its peer: all of its own.
///
/// Bytes that are never given back add up, until nothing is sent any more.
pub(crate) fn window_bytes_given_back(bytes: usize) -> usize {
    if Mutant::K3WindowIsNeverGivenBack.is_active() { 0 } else { bytes }
}

/// What a replicator may have been waiting for when it is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WakeUp {
    /// The pause after an error is over.
    BlockOver,
    /// Entries were read from the store for it, or the read failed.
    LogRead,
}

/// Whether a replicator sends again after what it waited for: it does after everything that can have stopped it.
///
/// A replicator that nothing wakes sends nothing until the next proposal, and in a group at rest none comes.
pub(crate) fn wakes(after: WakeUp) -> bool {
    match after {
        WakeUp::BlockOver => !Mutant::D19BlockEndsWithoutAProbe.is_active(),
        WakeUp::LogRead => !Mutant::D19ReadWakesNobody.is_active(),
    }
}
