//! Role and life of a node.

use std::fmt;

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
    /// On its way down.
    Shutting,
    /// Ended.
    Shutdown,
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
            NodeState::Shutting => "SHUTTING",
            NodeState::Shutdown => "SHUTDOWN",
        })
    }
}
