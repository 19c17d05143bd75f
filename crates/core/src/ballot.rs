//! One round of votes over both halves of a configuration (SOFAJRaft's `Ballot`).

use crate::electorate::Electorate;
use crate::peer::{ConfigurationEntry, PeerId};
use crate::rules;

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

    /// Whether a majority of the configuration, and of the old one while joint, granted. By name: whoever asks for votes does so a few
    /// times in its term, and others may bring it another configuration in between.
    pub(crate) fn is_granted(&self, conf: &ConfigurationEntry) -> bool {
        rules::quorum::elects(&Electorate::of(conf, |peer| peer), |peer| self.granted.contains(peer))
    }
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
    fn learners_do_not_count() {
        assert!(!granted(&conf("a:1,b:1,c:1,l:1/learner", ""), &["a:1", "l:1"]));
    }
}
