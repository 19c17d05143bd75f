//! What a group's owner tells those who hold its node: values to read, and waits that the owner ends.

pub(crate) mod leader_watch;
pub(crate) mod read_deadlines;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::RwLock;
use ringraft_core::{ConfigurationEntry, LogIndex, NodeState, PeerId, RaftError, Status, Term};

use leader_watch::{KnownLeader, LeaderFuture, LeaderWatch};
use read_deadlines::ReadDeadlines;

const STATES: [NodeState; 7] = [
    NodeState::Leader,
    NodeState::Transferring,
    NodeState::Candidate,
    NodeState::Follower,
    NodeState::Error,
    NodeState::Uninitialized,
    NodeState::Shutdown,
];

fn state_from_byte(byte: u8) -> NodeState {
    STATES.get(usize::from(byte)).copied().unwrap_or(NodeState::Error)
}

fn state_to_byte(state: NodeState) -> u8 {
    STATES.iter().position(|known| *known == state).map_or(u8::MAX, |position| position as u8)
}

/// What the owner of a group last said about it. Written by the owner at the end of a turn (`applied` by the state-machine
/// worker), read by anybody: values may be a turn old, and need not belong to the same moment.
#[derive(Debug)]
pub struct NodeStatus {
    state: AtomicU8,
    term: AtomicU64,
    last_log: AtomicU64,
    stable: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    /// Index of the configuration that removed the node, as it knows; 0 for none.
    removed: AtomicU64,
    has_leader: AtomicBool,
    leader: RwLock<Option<PeerId>>,
    leader_watch: LeaderWatch,
    configuration: RwLock<ConfigurationEntry>,
    /// Version of the configuration that was copied last, as the node counts them; at first none.
    configuration_version: AtomicU64,
    error: RwLock<Option<Status>>,
    read_deadlines: ReadDeadlines,
}

/// The numbers of a [`NodeStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatusNumbers {
    pub(crate) state: NodeState,
    pub(crate) term: Term,
    pub(crate) last_log: LogIndex,
    pub(crate) stable: LogIndex,
    pub(crate) committed: LogIndex,
    pub(crate) removed: LogIndex,
    /// Another one whenever the configuration may be another one.
    pub(crate) configuration_version: u64,
}

impl Default for NodeStatus {
    fn default() -> NodeStatus {
        NodeStatus {
            state: AtomicU8::new(state_to_byte(NodeState::Uninitialized)),
            term: AtomicU64::new(0),
            last_log: AtomicU64::new(0),
            stable: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            has_leader: AtomicBool::new(false),
            leader: RwLock::new(None),
            leader_watch: LeaderWatch::default(),
            configuration: RwLock::default(),
            configuration_version: AtomicU64::new(u64::MAX),
            error: RwLock::new(None),
            read_deadlines: ReadDeadlines::default(),
        }
    }
}

impl NodeStatus {
    pub(crate) fn publish(
        &self,
        numbers: StatusNumbers,
        leader: Option<&PeerId>,
        configuration: &ConfigurationEntry,
    ) {
        self.term.store(numbers.term, Ordering::Relaxed);
        self.last_log.store(numbers.last_log, Ordering::Relaxed);
        self.stable.store(numbers.stable, Ordering::Relaxed);
        self.committed.store(numbers.committed, Ordering::Relaxed);
        self.removed.store(numbers.removed, Ordering::Relaxed);
        // Only the owner writes, and a turn costs each group that it touched this: no members are compared here.
        if self.configuration_version.load(Ordering::Relaxed) != numbers.configuration_version {
            *self.configuration.write() = configuration.clone();
            self.configuration_version.store(numbers.configuration_version, Ordering::Relaxed);
        }
        // Compared without the lock of writers, for the same reason.
        let new_leader = self.leader.read().as_ref() != leader;
        if new_leader {
            *self.leader.write() = leader.cloned();
            self.has_leader.store(leader.is_some(), Ordering::Relaxed);
        }
        // Last: who sees the new state sees the term that belongs to it.
        let before = self.swap_state(numbers.state);
        if new_leader || before != numbers.state {
            self.tell_watch();
        }
    }

    pub(crate) fn set_state(&self, state: NodeState) {
        if self.swap_state(state) != state {
            self.tell_watch();
        }
    }

    fn swap_state(&self, state: NodeState) -> NodeState {
        let before = self.state();
        self.state.store(state_to_byte(state), Ordering::Release);
        before
    }

    /// Tells those who wait for a leader, when there is something to tell.
    fn tell_watch(&self) {
        if let Some(outcome) = self.known_leader() {
            self.leader_watch.tell(&outcome);
        }
    }

    /// The leader that the node knows, or why it will never know one; `None` while it may yet.
    fn known_leader(&self) -> Option<KnownLeader> {
        match self.state() {
            NodeState::Shutdown => Some(Err(Status::new(RaftError::NodeShutdown, "the node has stopped"))),
            NodeState::Error => {
                let unknown = || Status::new(RaftError::BadNode, "the node has failed");
                Some(Err(self.error().unwrap_or_else(unknown)))
            }
            _ => self.leader().map(Ok),
        }
    }

    pub(crate) fn set_applied(&self, index: LogIndex) {
        self.applied.store(index, Ordering::Release);
    }

    /// Remembers the first error.
    pub(crate) fn set_error(&self, status: &Status) {
        self.error.write().get_or_insert_with(|| status.clone());
    }

    /// Reads that futures wait for.
    pub(crate) fn read_deadlines(&self) -> &ReadDeadlines {
        &self.read_deadlines
    }

    /// A future that ends when the node knows a leader, or never will.
    pub(crate) fn leader_elected(&self) -> LeaderFuture {
        LeaderFuture::new(self.leader_watch.wait(|| self.known_leader()))
    }

    pub(crate) fn configuration(&self) -> ConfigurationEntry {
        self.configuration.read().clone()
    }

    /// Index of the configuration that removed the node, as it knows.
    pub(crate) fn removed_at(&self) -> Option<LogIndex> {
        Some(self.removed.load(Ordering::Relaxed)).filter(|index| *index > 0)
    }

    pub(crate) fn term(&self) -> Term {
        self.term.load(Ordering::Relaxed)
    }

    pub(crate) fn last_log(&self) -> LogIndex {
        self.last_log.load(Ordering::Relaxed)
    }

    pub(crate) fn stable(&self) -> LogIndex {
        self.stable.load(Ordering::Relaxed)
    }

    pub(crate) fn committed(&self) -> LogIndex {
        self.committed.load(Ordering::Relaxed)
    }

    /// Set by the worker: who sees the index sees what the state machine did up to it.
    pub(crate) fn applied(&self) -> LogIndex {
        self.applied.load(Ordering::Acquire)
    }

    pub(crate) fn state(&self) -> NodeState {
        state_from_byte(self.state.load(Ordering::Acquire))
    }

    pub(crate) fn leader(&self) -> Option<PeerId> {
        if !self.has_leader.load(Ordering::Relaxed) {
            return None;
        }
        self.leader.read().clone()
    }

    pub(crate) fn error(&self) -> Option<Status> {
        self.error.read().clone()
    }
}
