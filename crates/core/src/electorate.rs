//! Whose voices count: the voters of a configuration, as whoever counts them knows them.

use crate::peer::{ConfigurationEntry, PeerId};

/// The members of a configuration, half by half, each as an `M`: a name where votes are counted, a number where acknowledgements
/// are. What is a majority [`rules::quorum`](crate::rules::quorum) says, and does not care which.
#[derive(Clone, Debug)]
pub(crate) struct Electorate<M> {
    /// Voters of the (new) configuration.
    pub(crate) new: Vec<M>,
    /// Voters of the configuration that is being left; empty unless joint.
    pub(crate) old: Vec<M>,
    /// Learners of both halves that do not vote: they count for nothing.
    pub(crate) learners: Vec<M>,
}

impl<M> Electorate<M> {
    /// Nobody, who decides nothing.
    pub(crate) const fn nobody() -> Electorate<M> {
        Electorate { new: Vec::new(), old: Vec::new(), learners: Vec::new() }
    }

    /// The members of `conf`, each as `known` knows it.
    pub(crate) fn of<'a>(conf: &'a ConfigurationEntry, known: impl Fn(&'a PeerId) -> M) -> Electorate<M> {
        Electorate {
            new: conf.conf.peers.iter().map(&known).collect(),
            old: conf.old_conf.peers.iter().map(&known).collect(),
            learners: conf.learners().map(&known).collect(),
        }
    }

    /// Whether both halves decide.
    pub(crate) fn is_joint(&self) -> bool {
        !self.old.is_empty()
    }

    /// The voters of both halves; who votes in both comes twice.
    pub(crate) fn votes(&self) -> impl Iterator<Item = &M> {
        self.new.iter().chain(&self.old)
    }
}
