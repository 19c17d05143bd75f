//! Cross-node safety checkers: each watches all nodes of a group and knows one rule. They compare what nodes did, not
//! what they say, and remember across crashes.

mod applied_stable;
mod change_in_order;
mod commit_rule;
mod configuration_of_log;
mod counted_at_once;
mod election_safety;
mod leader_append_only;
mod leader_completeness;
mod lease_safety;
mod linearizable_reads;
mod log_matching;
mod one_outcome;
mod per_node;
mod quorum_overlap;
mod removed_are_silent;
mod state_machine_safety;
mod vote_once;

use std::fmt;

use ringraft_core::{CallToken, Configuration, EntryChunk, LogIndex, NodeImpl, PeerId, Term};

use crate::log_image::LogImage;

pub use applied_stable::AppliedStable;
pub use change_in_order::ChangeInOrder;
pub use commit_rule::CommitRule;
pub use configuration_of_log::ConfigurationOfLog;
pub use counted_at_once::CountedAtOnce;
pub use election_safety::ElectionSafety;
pub use leader_append_only::LeaderAppendOnly;
pub use leader_completeness::LeaderCompleteness;
pub use lease_safety::LeaseSafety;
pub use linearizable_reads::LinearizableReads;
pub use log_matching::LogMatching;
pub use one_outcome::OneOutcome;
pub use quorum_overlap::QuorumOverlap;
pub use removed_are_silent::RemovedAreSilent;
pub use state_machine_safety::StateMachineSafety;
pub use vote_once::VoteOnce;

/// The disks of every node of the group, as they would survive a crash now.
pub trait Disks {
    /// The durable log of a node, running or not; `None` for a node that never existed.
    fn stable(&self, node: &PeerId) -> Option<&LogImage>;

    /// The durable logs that a node had when its disk was lost, each time that this happened.
    fn lost(&self, _node: &PeerId) -> &[LogImage] {
        &[]
    }
}

/// Something that happened at one node.
pub enum Event<'a> {
    /// One call of the node is over; its writes are in `log`, its messages may not have left.
    Stepped {
        /// The node.
        node: &'a NodeImpl,
        /// Its log with everything that it accepted.
        log: &'a LogImage,
        /// What is durable anywhere.
        disks: &'a dyn Disks,
    },
    /// The node accepted entries from `first` on.
    Appended {
        /// The node.
        node: &'a PeerId,
        /// Its log afterwards.
        log: &'a LogImage,
        /// First index that is new.
        first: LogIndex,
    },
    /// A vote left the node: a grant, or a request for votes, which tells of the vote for itself.
    VoteSent {
        /// Who voted.
        voter: &'a PeerId,
        /// In which term.
        term: Term,
        /// For whom.
        candidate: &'a PeerId,
    },
    /// The node asks somebody whether it would vote for it.
    PreVoteSent {
        /// Who asks.
        node: &'a PeerId,
    },
    /// Entries were handed to the node's state machine.
    Delivered {
        /// The node.
        node: &'a PeerId,
        /// The entries.
        chunk: &'a EntryChunk,
        /// The node's durable log.
        stable: &'a LogImage,
    },
    /// The node's disk was lost with everything on it, and the node knows.
    Wiped {
        /// The node.
        node: &'a PeerId,
    },
    /// An operator forces members upon a node.
    Forced {
        /// Who they are.
        conf: &'a Configuration,
    },
    /// A node was asked for something that has an outcome: a read, a change of members, a transfer.
    CallMade {
        /// The node.
        node: &'a PeerId,
        /// The call.
        call: CallToken,
    },
    /// The outcome of a call was told; of a read also when it may be answered.
    CallEnded {
        /// The node.
        node: &'a PeerId,
        /// The call.
        call: CallToken,
    },
    /// A read may be answered from the node's state machine as it is now. Its call ends after this.
    MayRead {
        /// The node.
        node: &'a PeerId,
        /// The read.
        call: CallToken,
        /// The index that it had to wait for.
        index: LogIndex,
        /// What was handed to the state machine.
        delivered: LogIndex,
        /// The term of the leader that let it pass by its lease alone, when that was so.
        by_lease_of: Option<Term>,
    },
    /// The node was started again and its state machine begins anew.
    Restarted {
        /// The node.
        node: &'a PeerId,
    },
}

/// One safety rule.
pub trait Checker {
    /// Name of the rule, as it stands in reports.
    fn name(&self) -> &'static str;

    /// Takes in what happened.
    ///
    /// # Errors
    /// The rule is broken; the text says how.
    fn observe(&mut self, event: &Event<'_>) -> Result<(), String>;
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Violation {
    /// Name of the rule.
    pub checker: &'static str,
    /// What happened.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is violated: {}", self.checker, self.message)
    }
}

/// All checkers together.
pub struct Checkers {
    all: Vec<Box<dyn Checker>>,
}

impl Default for Checkers {
    fn default() -> Checkers {
        Checkers {
            all: vec![
                Box::new(ElectionSafety::default()),
                Box::new(VoteOnce::default()),
                Box::new(LogMatching::default()),
                Box::new(LeaderAppendOnly::default()),
                Box::new(QuorumOverlap::default()),
                Box::new(ChangeInOrder::default()),
                Box::new(ConfigurationOfLog::default()),
                Box::new(RemovedAreSilent::default()),
                Box::new(OneOutcome::default()),
                Box::new(LinearizableReads::default()),
                Box::new(LeaseSafety::default()),
                Box::new(AppliedStable::default()),
                Box::new(StateMachineSafety::default()),
                Box::new(CommitRule::default()),
                Box::new(CountedAtOnce),
                Box::new(LeaderCompleteness::default()),
            ],
        }
    }
}

impl Checkers {
    /// Shows the event to every checker.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn observe(&mut self, event: &Event<'_>) -> Result<(), Violation> {
        for checker in &mut self.all {
            let name = checker.name();
            checker.observe(event).map_err(|message| Violation { checker: name, message })?;
        }
        Ok(())
    }
}

/// Whether the node leads.
fn leads(node: &NodeImpl) -> bool {
    use ringraft_core::NodeState;
    matches!(node.state(), NodeState::Leader | NodeState::Transferring)
}

/// Name of a node.
fn name(node: &NodeImpl) -> &PeerId {
    &node.options().server_id
}

#[cfg(test)]
mod tests;
