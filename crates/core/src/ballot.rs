//! One round of votes over both halves of a configuration (SOFAJRaft's `Ballot`).

use crate::mutants::Mutant;
use crate::peer::{ConfigurationEntry, PeerId};

/// Counts who granted; a peer counts once, in every half that it votes in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ballot {
    granted: Vec<PeerId>,
}

impl Ballot {
    /// Starts a new round.
    pub(crate) fn init(&mut self) {
        self.granted.clear();
    }

    /// Records the grant of `peer`; repeated grants change nothing.
    pub(crate) fn grant(&mut self, peer: &PeerId) {
        if !self.granted.contains(peer) {
            self.granted.push(peer.clone());
        }
    }

    /// Whether a majority of the configuration, and of the old one while joint, granted.
    pub(crate) fn is_granted(&self, conf: &ConfigurationEntry) -> bool {
        if Mutant::C5VotesOfTheNewHalf.is_active() {
            let new = ConfigurationEntry { conf: conf.conf.clone(), ..ConfigurationEntry::default() };
            return has_quorum(&new, |peer| self.granted.contains(peer));
        }
        if Mutant::C10LearnersVote.is_active() {
            let granted = |p: &&PeerId| self.granted.contains(p);
            let more = conf.learners().filter(granted).count();
            return conf.conf.peers.iter().filter(granted).count() + more > conf.conf.peers.len() / 2;
        }
        has_quorum(conf, |peer| self.granted.contains(peer))
    }
}

/// Whether the peers for which `holds` is true are a majority of both halves. No voter, no quorum.
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

    fn granted(conf: &ConfigurationEntry, peers: &[&str]) -> bool {
        let mut ballot = Ballot::default();
        peers.iter().for_each(|p| ballot.grant(&p.parse().unwrap()));
        ballot.is_granted(conf)
    }

    #[test]
    fn a_majority_is_more_than_half() {
        let four = conf("a:1,b:1,c:1,d:1", "");
        assert!(!granted(&four, &["a:1", "b:1"]));
        assert!(!granted(&four, &["a:1", "a:1", "a:1"]), "a peer counts once");
        assert!(granted(&four, &["a:1", "b:1", "c:1"]));
        assert!(!granted(&conf("", ""), &[]), "nobody decides for an empty configuration");
    }

    #[test]
    fn both_halves_decide_while_joint() {
        let joint = conf("a:1,d:1,e:1", "a:1,b:1,c:1");
        assert!(!granted(&joint, &["a:1", "d:1", "e:1"]));
        assert!(!granted(&joint, &["a:1", "b:1", "c:1"]));
        assert!(granted(&joint, &["a:1", "b:1", "d:1"]));
    }

    #[test]
    fn a_value_is_reached_by_both_majorities() {
        let value = |peer: &PeerId| u64::from(peer.port());
        assert_eq!(quorum_value(&conf("a:1,b:5,c:9", ""), value), 5);
        assert_eq!(quorum_value(&conf("a:1,b:5,c:9,d:7", ""), value), 5, "three of four");
        assert_eq!(quorum_value(&conf("c:9,d:8,e:7", "a:1,b:2,c:9"), value), 2);
        assert_eq!(quorum_value(&conf("", ""), value), 0);
    }

    #[test]
    fn learners_do_not_count() {
        assert!(!granted(&conf("a:1,b:1,c:1,l:1/learner", ""), &["a:1", "l:1"]));
    }
}
