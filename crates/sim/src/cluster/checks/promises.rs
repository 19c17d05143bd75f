//! Nothing leaves before it is durable, and no node counts as durable what its disk lacks. Shows rule P2. Shows rule P4.

use ringraft_core::{LogId, LogIndex, PeerId, Term};

use crate::LogImage;

/// A vote leaves: the disk must know of it.
///
/// # Errors
/// It does not.
pub(in crate::cluster) fn votes(stable: &LogImage, term: Term, candidate: &PeerId) -> Result<(), String> {
    let known = stable.hard_state();
    // A later term forgets the vote, and can give none in this term any more.
    if known.term > term || (known.term == term && known.vote.candidate() == Some(candidate)) {
        return Ok(());
    }
    Err(format!("tells of its vote in term {term}, its disk knows {known:?}"))
}

/// An answer leaves that speaks for a term: it must not be forgotten.
///
/// # Errors
/// The disk knows an earlier term only.
pub(in crate::cluster) fn speaks_for(stable: &LogImage, term: Term) -> Result<(), String> {
    match stable.hard_state().term {
        known if known >= term => Ok(()),
        known => Err(format!("answers in term {term}, its disk knows {known}")),
    }
}

/// An acknowledgement of entries up to this one leaves.
///
/// # Errors
/// The disk does not hold the entry.
pub(in crate::cluster) fn acknowledges(stable: &LogImage, last: LogIndex, term: Term) -> Result<(), String> {
    match stable.entry(last) {
        Some(entry) if entry.term == term => Ok(()),
        _ => Err(format!("acknowledges {last}/{term}, which its disk lacks")),
    }
}

/// An answer promises to help no candidate for `promised` milliseconds: the disk must hold a promise as long as that.
///
/// # Errors
/// It does not.
pub(in crate::cluster) fn binds_itself(stable: &LogImage, promised: u64) -> Result<(), String> {
    match stable.promised_ms() {
        written if written >= promised => Ok(()),
        written => Err(format!("promises {promised} ms, and its disk knows of {written}")),
    }
}

/// A node counts everything up to `index` as stable: its disk must hold there what the node means.
///
/// # Errors
/// It does not.
pub(in crate::cluster) fn stable_mark(
    accepted: &LogImage,
    stable: &LogImage,
    index: LogIndex,
) -> Result<(), String> {
    match stable.chain_at(index) {
        Some(chain) if accepted.chain_at(index) == Some(chain) => Ok(()),
        _ => Err(format!(
            "counts {index} as stable; its disk ends at {} and may hold another entry there",
            stable.last_index()
        )),
    }
}

/// A node enters a term that it has heard of: a member of its group must have voted for itself in it, or in a later one. Any other was heard
/// from somebody who does not speak for this group, as of an earlier life of it. Shows rule P13.
///
/// # Errors
/// Nobody has.
pub(in crate::cluster) fn term_of_the_group(term: Term, begun: Term) -> Result<(), String> {
    match begun >= term {
        true => Ok(()),
        false => Err(format!("is in term {term}, and no member has campaigned in a term beyond {begun}")),
    }
}

/// A node's log ends where it wrote to.
///
/// # Errors
/// It does not.
pub(in crate::cluster) fn log_as_written(accepted: &LogImage, last: LogId) -> Result<(), String> {
    let wrote = accepted.last_index();
    let term = accepted.entry(wrote).map(|entry| entry.term);
    if last.index == wrote && term.is_none_or(|term| term == last.term) {
        return Ok(());
    }
    Err(format!("says its log ends at {last}, it wrote up to {wrote}/{term:?}"))
}

#[cfg(test)]
mod tests {
    use ringraft_core::{HardState, LogOp, Vote};

    use super::*;

    fn peer(name: &str) -> PeerId {
        PeerId::new(name, 1)
    }

    #[test]
    fn a_vote_that_the_disk_does_not_know() {
        let stable = LogImage::preset(HardState { term: 3, vote: Vote::For(peer("a")) }, &[1]);
        assert_eq!(votes(&stable, 3, &peer("a")), Ok(()));
        assert_eq!(votes(&stable, 2, &peer("b")), Ok(()));
        assert!(votes(&stable, 3, &peer("b")).is_err());
        assert!(votes(&stable, 4, &peer("a")).is_err());
        assert_eq!(speaks_for(&stable, 3), Ok(()));
        assert!(speaks_for(&stable, 4).is_err());
    }

    #[test]
    fn a_term_from_nowhere() {
        assert_eq!(term_of_the_group(3, 3), Ok(()));
        assert_eq!(term_of_the_group(2, 3), Ok(()));
        assert!(term_of_the_group(4, 3).is_err());
    }

    #[test]
    fn an_acknowledgement_that_is_not_durable() {
        let stable = LogImage::preset(HardState::default(), &[1, 2]);
        assert_eq!(acknowledges(&stable, 2, 2), Ok(()));
        assert!(acknowledges(&stable, 2, 3).is_err());
        assert!(acknowledges(&stable, 3, 2).is_err());
    }

    #[test]
    fn a_promise_that_the_disk_does_not_know() {
        let mut stable = LogImage::default();
        assert!(binds_itself(&stable, 1).is_err());
        stable.apply(&LogOp::Promise { ms: 300 });
        assert_eq!(binds_itself(&stable, 300), Ok(()));
        assert_eq!(binds_itself(&stable, 0), Ok(()));
        assert!(binds_itself(&stable, 301).is_err());
    }

    #[test]
    fn a_stable_mark_over_another_entry() {
        let accepted = LogImage::preset(HardState::default(), &[1, 3, 3]);
        let behind = LogImage::preset(HardState::default(), &[1]);
        let other = LogImage::preset(HardState::default(), &[1, 2, 3]);
        assert_eq!(stable_mark(&accepted, &behind, 1), Ok(()));
        assert!(stable_mark(&accepted, &behind, 2).is_err());
        assert!(stable_mark(&accepted, &other, 3).is_err());
    }

    #[test]
    fn a_log_that_is_not_what_was_written() {
        let accepted = LogImage::preset(HardState::default(), &[1, 3]);
        assert_eq!(log_as_written(&accepted, LogId::new(2, 3)), Ok(()));
        assert!(log_as_written(&accepted, LogId::new(3, 3)).is_err());
        assert!(log_as_written(&accepted, LogId::new(2, 1)).is_err());
        assert_eq!(log_as_written(&LogImage::default(), LogId::default()), Ok(()));
    }
}
