//! What may be committed and applied (Raft §5.4.2), and what a leader begins its term with.

use crate::chunk::EntryChunk;
use crate::effects::LogOp;
use crate::log_manager::LogManager;
use crate::mutants::Mutant;
use crate::peer::{Configuration, ConfigurationEntry};
use crate::types::{LogId, LogIndex};

// --- committed and applied ---

/// What a leader counts itself for: what is durable here, as it counts everybody else.
///
/// Rule P4: it may crash, too. Counted for entries in memory it would acknowledge what a minority holds.
pub(crate) fn held_by_leader(stable: LogIndex, last: LogIndex) -> LogIndex {
    if Mutant::D27LeaderCountsItselfEarly.is_active() { last } else { stable }
}

/// Whether counting may commit up to `index`, where `first` is the first entry of the leader's own term.
///
/// Rule Q1: only entries of the own term commit by counting, those before with them (Raft §5.4.2, figure 8): an entry of an earlier
/// term can be held by a majority and still be overwritten by a leader that won without it.
pub(crate) fn counts_for_commit(index: LogIndex, first: LogIndex) -> bool {
    index >= first || Mutant::D1CountsAnOldTerm.is_active()
}

/// The entry with which a leader begins its term: the configuration in force, once more, with both halves while joint.
///
/// Without an entry of its own term it can commit nothing of earlier ones, and does not know what they committed (thesis §6.4).
/// A joint configuration keeps its old half, which still decides. `None` never, except where bug F1 is put back.
pub(crate) fn first_entry_of_term(id: LogId, conf: ConfigurationEntry) -> Option<EntryChunk> {
    if Mutant::F1NoEntryOfTheOwnTerm.is_active() {
        return None;
    }
    let old_conf = match Mutant::C5NewLeaderForgetsTheOldHalf.is_active() {
        true => Configuration::default(),
        false => conf.old_conf,
    };
    Some(EntryChunk::configuration(id, conf.conf, old_conf))
}

/// Up to where committed entries may reach the state machine here: what is durable here.
///
/// Rule P5: a state machine that has applied what its own log loses in a crash is ahead of its log, and can never be brought back.
pub(crate) fn may_be_applied(stable: LogIndex, last: LogIndex) -> LogIndex {
    if Mutant::H5UnstableEntriesAreApplied.is_active() { last } else { stable }
}

// --- truncated ---

/// A leader that steps down leaves its log as it is, also what it has not committed.
///
/// A majority may hold those entries, durably and acknowledged to it: whether they stay is for the next leader to say.
pub(crate) fn step_down_cuts_nothing(log: &mut LogManager, committed: LogIndex, ops: &mut Vec<LogOp>) {
    let from = committed + 1;
    if Mutant::D25StepDownCutsTheLog.is_active() && from <= log.last_id().index {
        log.truncate_suffix(from);
        ops.push(LogOp::TruncateSuffix { from });
    }
}
