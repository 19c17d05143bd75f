//! Role and life of a node.

use std::fmt;

use crate::transitions::transitions;

/// Role and life of a node (SOFAJRaft's `State`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// It leads its term.
    Leader,
    /// It leads and hands leadership over: no proposals.
    Transferring,
    /// It asks for votes.
    Candidate,
    /// It follows, or waits for a leader.
    Follower,
    /// Its log or state machine failed; it takes no part until it is reopened.
    Error,
    /// Not started.
    Uninitialized,
    /// Ended.
    Shutdown,
}

transitions! {
    /// What moves a node between roles.
    pub(crate) enum NodeEvent moves NodeState [
        Uninitialized, Follower, Candidate, Leader, Transferring, Error, Shutdown
    ] {
        /// It starts.
        Start: Uninitialized => Follower;
        /// It asks for votes in a new term.
        Campaign: Follower | Candidate => Candidate;
        /// A majority has elected it.
        Win: Candidate => Leader;
        /// It begins to hand leadership over.
        BeginTransfer: Leader => Transferring;
        /// The hand-over has come to nothing, and it leads on.
        EndTransfer: Transferring => Leader;
        /// Another leads, or may, or a higher term is known.
        StepDown: Follower | Candidate | Leader | Transferring => Follower;
        /// Its log or state machine has failed. It has stepped down before.
        Fail: Follower => Error;
        /// It ends. Who leads or campaigns steps down before.
        ShutDown: Uninitialized | Follower | Error => Shutdown;
    }
}

impl NodeState {
    /// Whether the node takes part: it is neither failed nor ending.
    pub fn is_active(self) -> bool {
        matches!(
            self,
            NodeState::Leader | NodeState::Transferring | NodeState::Candidate | NodeState::Follower
        )
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeState::Leader => "LEADER",
            NodeState::Transferring => "TRANSFERRING",
            NodeState::Candidate => "CANDIDATE",
            NodeState::Follower => "FOLLOWER",
            NodeState::Error => "ERROR",
            NodeState::Uninitialized => "UNINITIALIZED",
            NodeState::Shutdown => "SHUTDOWN",
        })
    }
}
