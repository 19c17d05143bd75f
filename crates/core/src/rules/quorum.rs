//! Majorities. Every one is taken over both halves of a joint configuration, and only over voters (Raft §5.2, §6).

use crate::mutants::Mutant;
use crate::peer::{ConfigurationEntry, PeerId};
use crate::types::LogIndex;

/// Whether a peer counts in quorums: not while it is known to have lost its disk.
///
/// What it held when it acknowledged is gone (`docs/decisions/0008-a-lost-disk.md`).
pub(crate) fn counts(lost_its_disk: bool) -> bool {
    !lost_its_disk || Mutant::H10RejoiningPeerCounts.is_active()
}

/// Whether the peers for which `holds` is true are a majority of both halves. No voter, no quorum.
///
/// Rule Q2: one half alone may decide nothing, for the other may have decided otherwise. Two majorities of one configuration share
/// a member; half of the members, rounded down, need not.
pub(crate) fn has_quorum(conf: &ConfigurationEntry, mut holds: impl FnMut(&PeerId) -> bool) -> bool {
    let short = usize::from(Mutant::F5MajorityIsOneShort.is_active());
    let mut majority = |peers: &[PeerId]| peers.iter().filter(|p| holds(p)).count() + short > peers.len() / 2;
    majority(&conf.conf.peers) && (!conf.is_joint() || majority(&conf.old_conf.peers))
}

/// The largest value that a majority of both halves reaches; the smallest of the type without a voter.
pub(crate) fn quorum_value<T: Ord + Copy + Default>(
    conf: &ConfigurationEntry,
    value: impl Fn(&PeerId) -> T,
) -> T {
    let learners = Mutant::C10LearnersCount.is_active();
    let reached = |peers: &[PeerId]| {
        let more = conf.learners().filter(|_| learners);
        let mut values: Vec<T> = peers.iter().chain(more).map(&value).collect();
        values.sort_unstable_by(|a, b| b.cmp(a));
        values.get(peers.len() / 2).copied().unwrap_or_default()
    };
    let new = reached(&conf.conf.peers);
    if conf.is_joint() { new.min(reached(&conf.old_conf.peers)) } else { new }
}

/// Whether the peers for which `granted` is true elect a leader: a majority of the voters of both halves (Raft §6).
///
/// While joint the old half alone may still commit entries, so that a leader of the new half alone could lack them.
pub(crate) fn elects(conf: &ConfigurationEntry, granted: impl Fn(&PeerId) -> bool) -> bool {
    if Mutant::C5VotesOfTheNewHalf.is_active() {
        return has_quorum(&new_half(conf), granted);
    }
    if Mutant::C10LearnersVote.is_active() {
        let granted = |p: &&PeerId| granted(p);
        let more = conf.learners().filter(granted).count();
        return conf.conf.peers.iter().filter(granted).count() + more > conf.conf.peers.len() / 2;
    }
    has_quorum(conf, granted)
}

/// The newest of the values with which peers confirm a read: a majority of both halves has reached it.
///
/// A majority of the new half alone does not exclude that the old half has elected another leader since.
pub(crate) fn confirms_reads<T: Ord + Copy + Default>(
    conf: &ConfigurationEntry,
    answered: impl Fn(&PeerId) -> T,
) -> T {
    match Mutant::F8ReadCountsTheNewHalfOnly.is_active() {
        true => quorum_value(&new_half(conf), answered),
        false => quorum_value(conf, answered),
    }
}

/// From when on a lease counts: the newest moment at which a majority of both halves has promised to elect nobody else.
pub(crate) fn promises<T: Ord + Copy + Default>(
    conf: &ConfigurationEntry,
    promised: impl Fn(&PeerId) -> T,
) -> T {
    match Mutant::F8LeaseOfTheNewHalf.is_active() {
        true => quorum_value(&new_half(conf), promised),
        false => quorum_value(conf, promised),
    }
}

/// The last index that majorities of both halves hold durably, where `held` is what a peer holds. `scratch` is kept from call
/// to call, so that counting does not allocate.
///
/// Each half's is the ⌊n/2⌋+1st largest of what its voters hold, so the indexes are sorted first (openraft#1802: an unsorted
/// tail committed by two of five). Less than a majority of either half can lose what was acknowledged.
pub(crate) fn durable_index(
    conf: &ConfigurationEntry,
    mut held: impl FnMut(&PeerId) -> LogIndex,
    scratch: &mut Vec<LogIndex>,
) -> LogIndex {
    let new = Mutant::C12CommitsByTheNewHalf.is_active().then(|| new_half(conf));
    let conf = new.as_ref().unwrap_or(conf);
    let learners = conf.learners().filter(|_| Mutant::C10LearnersCount.is_active());
    scratch.clear();
    scratch.extend(conf.conf.peers.iter().chain(learners).map(&mut held));
    let mut index = majority_holds(conf.conf.peers.len(), scratch);
    if conf.is_joint() {
        scratch.clear();
        scratch.extend(conf.old_conf.peers.iter().map(&mut held));
        index = index.min(majority_holds(conf.old_conf.peers.len(), scratch));
    }
    debug_assert!(
        index == naive_durable_index(conf, &mut held) || counts_wrongly(),
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
fn naive_durable_index(conf: &ConfigurationEntry, held: &mut impl FnMut(&PeerId) -> LogIndex) -> LogIndex {
    let candidates: Vec<LogIndex> = conf.voters().map(&mut *held).collect();
    let agreed = |index: &LogIndex| has_quorum(conf, |peer| held(peer) >= *index);
    candidates.into_iter().filter(agreed).max().unwrap_or(0)
}

/// Whether a bug that makes the two ways of counting differ is put back.
fn counts_wrongly() -> bool {
    Mutant::F5MajorityIsOneShort.is_active()
        || Mutant::D14QuorumOfUnsorted.is_active()
        || Mutant::C10LearnersCount.is_active()
        || Mutant::C12CommitsWhatOneHolds.is_active()
}

/// A joint configuration without its old half.
fn new_half(conf: &ConfigurationEntry) -> ConfigurationEntry {
    ConfigurationEntry { conf: conf.conf.clone(), ..ConfigurationEntry::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(new: &str, old: &str) -> ConfigurationEntry {
        ConfigurationEntry {
            conf: new.parse().unwrap(),
            old_conf: old.parse().unwrap(),
            ..ConfigurationEntry::default()
        }
    }

    #[test]
    fn a_value_is_reached_by_both_majorities() {
        let value = |peer: &PeerId| u64::from(peer.port());
        assert_eq!(quorum_value(&conf("a:1,b:5,c:9", ""), value), 5);
        assert_eq!(quorum_value(&conf("a:1,b:5,c:9,d:7", ""), value), 5, "three of four");
        assert_eq!(quorum_value(&conf("c:9,d:8,e:7", "a:1,b:2,c:9"), value), 2);
        assert_eq!(quorum_value(&conf("", ""), value), 0);
    }
}
