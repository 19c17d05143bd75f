//! What is written of a replica that drops its log.

use ringraft_core::{HardState, LogId, LogOp, Mutant, Term, Vote};

/// What makes a replica one that has lost what it held, and knows it; its term stays, so that it never goes back. One write: a vote without its
/// log, or a log without its vote, would be a member that has forgotten and does not know it.
pub fn drop_log(before: &HardState) -> Vec<LogOp> {
    vec![vote_without_a_log(before), LogOp::Reset { before: LogId::default(), conf: None }]
}

/// A vote that is given to nobody, from this term on.
pub(crate) fn withheld(term: Term) -> LogOp {
    LogOp::HardState(HardState { term, vote: Vote::Withheld })
}

/// Who has dropped its log votes for nobody until it holds what the others have committed since (decision 0008): it cannot compare any more.
fn vote_without_a_log(before: &HardState) -> LogOp {
    match Mutant::H10DroppedLogKeepsItsVote.is_active() {
        true => LogOp::HardState(before.clone()),
        false => withheld(before.term),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_log_takes_the_vote_along_and_not_the_term() {
        let ops = drop_log(&HardState { term: 7, vote: Vote::For("a:1".parse().unwrap()) });
        let [LogOp::HardState(state), LogOp::Reset { before, conf: None }] = &ops[..] else {
            panic!("{ops:?}");
        };
        assert_eq!((state.term, &state.vote, *before), (7, &Vote::Withheld, LogId::default()));
    }
}
