//! What a host may ask a node; nothing here changes it.

use crate::node::role::Role;
use crate::node::{NodeImpl, NodeState};
use crate::options::CoreOptions;
use crate::peer::{ConfigurationEntry, PeerId};
use crate::status::Status;
use crate::types::{LogId, LogIndex, Term, Time};

impl NodeImpl {
    /// Settings.
    pub fn options(&self) -> &CoreOptions {
        &self.options
    }

    /// Role or life state.
    pub fn state(&self) -> NodeState {
        self.role.state()
    }

    /// Current term.
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The leader of the current term, when known; itself on a leader.
    pub fn leader_id(&self) -> Option<&PeerId> {
        match &self.role {
            Role::Follower(following) => following.leader.as_ref(),
            Role::Leader(_) => Some(&self.options.server_id),
            _ => None,
        }
    }

    /// Whether it leads and takes proposals.
    pub fn is_leader(&self) -> bool {
        self.state() == NodeState::Leader
    }

    /// Whether it leads and may answer reads by its lease at this time.
    pub fn holds_lease(&self, now: Time) -> bool {
        self.lease_seen_from_outside(now)
    }

    /// Whether a promise keeps it from helping a candidate, and from being one, at this time.
    pub fn is_bound(&self, now: Time) -> bool {
        self.keeps_promise(now)
    }

    /// Whether it has lost its disk and not caught up since: it neither votes nor counts.
    pub fn is_rejoining(&self) -> bool {
        self.rejoining
    }

    /// The committed configuration that no longer names this node, when it knows of one: it neither campaigns nor asks for votes.
    pub fn removed_at(&self) -> Option<LogId> {
        self.removal.is_known().then(|| self.removal.at())
    }

    /// Last accepted entry, durable or not.
    pub fn last_log_id(&self) -> LogId {
        self.log.last_id()
    }

    /// Term of the entry at `index`, if the log has it.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.log.term_at(index)
    }

    /// Last durable index of the own log.
    pub fn stable_index(&self) -> LogIndex {
        self.log.stable_index()
    }

    /// Entries that are accepted and not durable.
    pub fn unstable_entries(&self) -> u64 {
        self.log.unstable_entries()
    }

    /// Bytes of the log that are kept in memory.
    pub fn tail_bytes(&self) -> usize {
        self.log.tail_bytes()
    }

    /// Commit index.
    pub fn committed_index(&self) -> LogIndex {
        self.committed
    }

    /// Last index that the state machine has applied.
    pub fn applied_index(&self) -> LogIndex {
        self.applied
    }

    /// On a leader: the last index that by what it knows majorities of its members hold durably, if it may commit that by counting. It has:
    /// this never is ahead of the [commit index](Self::committed_index).
    pub fn committable_index(&self) -> Option<LogIndex> {
        self.committable_seen_from_outside()
    }

    /// The configuration in force.
    pub fn configuration(&self) -> &ConfigurationEntry {
        self.log.configuration()
    }

    /// Another number whenever [`configuration`](NodeImpl::configuration) may be another one: who keeps a copy compares this instead of members.
    pub fn configuration_version(&self) -> u64 {
        self.log.configuration_version()
    }

    /// Why the node is in [`NodeState::Error`].
    pub fn last_error(&self) -> Option<&Status> {
        self.last_error.as_ref()
    }

    /// When [`Input::Tick`](crate::Input::Tick) is wanted next.
    pub fn deadline(&self) -> Option<Time> {
        if !self.state().is_active() {
            return None;
        }
        let peers = self.role.replicators().iter().filter_map(|r| self.replicator_deadline(r)).min();
        let calls = [self.read_deadline(), self.transfer_deadline(), self.change_deadline()];
        calls.into_iter().fold(earlier(self.role.deadline(), peers), earlier)
    }
}

/// The one of both that comes first.
fn earlier(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
