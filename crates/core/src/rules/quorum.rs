//! Majorities. Every one is taken over both halves of a joint configuration, and only over voters (Raft §5.2, §6).

use crate::electorate::Electorate;
use crate::mutants::Mutant;
use crate::types::LogIndex;

/// Whether a peer counts in quorums: not while it is known to have lost its disk.
///
/// What it held when it acknowledged is gone (`docs/decisions/0008-a-lost-disk.md`).
pub(crate) fn counts(lost_its_disk: bool) -> bool {
    !lost_its_disk || Mutant::H10RejoiningPeerCounts.is_active()
}

/// Whether a leader counts anew because of a peer that counts now, where `counted` says whether it did before.
///
/// The peer may make a majority of those who hold an entry. Nothing else would have them counted in a group at rest, and the entry would wait
/// for the next proposal.
pub(crate) fn counts_anew(counted: bool, counts: bool) -> bool {
    !counted && counts && !Mutant::H10WhoCountsAgainIsNotCounted.is_active()
}

/// Whether the peers for which `holds` is true are a majority of both halves. No voter, no quorum.
///
/// Rule Q2: one half alone may decide nothing, for the other may have decided otherwise. Two majorities of one configuration share
/// a member; half of the members, rounded down, need not.
pub(crate) fn has_quorum<M: Copy>(of: &Electorate<M>, holds: impl Fn(M) -> bool) -> bool {
    let short = usize::from(Mutant::F5MajorityIsOneShort.is_active());
    let majority = |half: &[M]| half.iter().filter(|m| holds(**m)).count() + short > half.len() / 2;
    majority(&of.new) && (!of.is_joint() || majority(&of.old))
}

/// The largest value that a majority of both halves reaches; the smallest of the type without a voter.
pub(crate) fn quorum_value<M: Copy, T: Ord + Copy + Default>(
    of: &Electorate<M>,
    value: impl Fn(M) -> T,
) -> T {
    let learners = Mutant::C10LearnersCount.is_active();
    let reached = |half: &[M]| {
        let more = of.learners.iter().filter(|_| learners);
        let mut values: Vec<T> = half.iter().chain(more).map(|m| value(*m)).collect();
        values.sort_unstable_by(|a, b| b.cmp(a));
        values.get(half.len() / 2).copied().unwrap_or_default()
    };
    let new = reached(&of.new);
    if of.is_joint() { new.min(reached(&of.old)) } else { new }
}

/// Whether the peers for which `granted` is true elect a leader: a majority of the voters of both halves (Raft §6).
///
/// While joint the old half alone may still commit entries, so that a leader of the new half alone could lack them.
pub(crate) fn elects<M: Copy>(of: &Electorate<M>, granted: impl Fn(M) -> bool) -> bool {
    if Mutant::C5VotesOfTheNewHalf.is_active() {
        return has_quorum(&new_half(of), granted);
    }
    if Mutant::C10LearnersVote.is_active() {
        let granted = |m: &&M| granted(**m);
        let more = of.learners.iter().filter(granted).count();
        return of.new.iter().filter(granted).count() + more > of.new.len() / 2;
    }
    has_quorum(of, granted)
}

/// The newest of the values with which peers confirm a read: a majority of both halves has reached it.
///
/// A majority of the new half alone does not exclude that the old half has elected another leader since.
pub(crate) fn confirms_reads<M: Copy, T: Ord + Copy + Default>(
    of: &Electorate<M>,
    answered: impl Fn(M) -> T,
) -> T {
    match Mutant::F8ReadCountsTheNewHalfOnly.is_active() {
        true => quorum_value(&new_half(of), answered),
        false => quorum_value(of, answered),
    }
}

/// From when on a lease counts: the newest moment at which a majority of both halves has promised to elect nobody else.
pub(crate) fn promises<M: Copy, T: Ord + Copy + Default>(of: &Electorate<M>, promised: impl Fn(M) -> T) -> T {
    match Mutant::F8LeaseOfTheNewHalf.is_active() {
        true => quorum_value(&new_half(of), promised),
        false => quorum_value(of, promised),
    }
}

/// The last index that majorities of both halves hold durably, where `held` is what a peer holds. `scratch` is kept from call
/// to call, so that counting does not allocate.
///
/// Each half's is the ⌊n/2⌋+1st largest of what its voters hold, so the indexes are sorted first (openraft#1802: an unsorted
/// tail committed by two of five). Less than a majority of either half can lose what was acknowledged.
pub(crate) fn durable_index<M: Copy>(
    of: &Electorate<M>,
    held: impl Fn(M) -> LogIndex,
    scratch: &mut Vec<LogIndex>,
) -> LogIndex {
    let new = Mutant::C12CommitsByTheNewHalf.is_active().then(|| new_half(of));
    let of = new.as_ref().unwrap_or(of);
    let learners = of.learners.iter().filter(|_| Mutant::C10LearnersCount.is_active());
    scratch.clear();
    scratch.extend(of.new.iter().chain(learners).map(|m| held(*m)));
    let mut index = majority_holds(of.new.len(), scratch);
    if of.is_joint() {
        scratch.clear();
        scratch.extend(of.old.iter().map(|m| held(*m)));
        index = index.min(majority_holds(of.old.len(), scratch));
    }
    debug_assert!(
        index == naive_durable_index(of, held) || counts_wrongly(),
        "fast and naive counting agree"
    );
    index
}

/// The index that a majority of `voters` holds, by what each of them holds.
fn majority_holds(voters: usize, held: &mut [LogIndex]) -> LogIndex {
    if !Mutant::D14QuorumOfUnsorted.is_active() {
        held.sort_unstable_by(|a, b| b.cmp(a));
    }
    let needed = if Mutant::C12CommitsWhatOneHolds.is_active() { 0 } else { voters / 2 };
    held.get(needed).copied().unwrap_or(0)
}

/// The same as [`durable_index`], found by trying every candidate.
fn naive_durable_index<M: Copy>(of: &Electorate<M>, held: impl Fn(M) -> LogIndex) -> LogIndex {
    let agreed = |index: &LogIndex| has_quorum(of, |m| held(m) >= *index);
    of.votes().map(|m| held(*m)).filter(agreed).max().unwrap_or(0)
}

/// Whether a bug that makes the two ways of counting differ is put back.
fn counts_wrongly() -> bool {
    Mutant::F5MajorityIsOneShort.is_active()
        || Mutant::D14QuorumOfUnsorted.is_active()
        || Mutant::C10LearnersCount.is_active()
        || Mutant::C12CommitsWhatOneHolds.is_active()
}

/// A joint configuration without its old half.
fn new_half<M: Copy>(of: &Electorate<M>) -> Electorate<M> {
    Electorate { old: Vec::new(), ..of.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_reached_by_both_majorities() {
        let reached = |new: &[u64], old: &[u64]| {
            quorum_value(&Electorate { new: new.into(), old: old.into(), learners: vec![9] }, |value| value)
        };
        assert_eq!(reached(&[1, 5, 9], &[]), 5);
        assert_eq!(reached(&[1, 5, 9, 7], &[]), 5, "three of four");
        assert_eq!(reached(&[9, 8, 7], &[1, 2, 9]), 2);
        assert_eq!(reached(&[], &[]), 0);
    }
}
