//! What users implement (SOFAJRaft's `StateMachine`).

pub(crate) mod iterator;

use ringraft_core::{ConfigurationEntry, PeerId, Status, Term};

use crate::state_machine::iterator::Iterator;

/// Whom this node follows or followed, and why (SOFAJRaft's `LeaderChangeContext`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderChangeContext {
    /// The leader.
    pub leader: PeerId,
    /// Its term.
    pub term: Term,
    /// Why it is followed no more; `None` when following starts.
    pub status: Option<Status>,
}

/// The application's half of a replica. Every call for one group comes from one thread at a time, in log order.
///
/// The calls run on a state-machine worker that other groups share: a slow one delays them, but neither the log nor
/// elections. A panic stops this group on this host: it goes to error state, and the state machine is not called again.
/// Never call the blocking form of [`Node::apply`](crate::Node::apply) from here.
///
/// Snapshots (`on_snapshot_save`, `on_snapshot_load`) arrive with a later version of this trait; until then a replica that is
/// started again gets its whole log applied again, so that a state machine starts empty.
pub trait StateMachine: Send {
    /// Applies committed entries in order. Entries that are not taken from the iterator count as applied when this returns.
    fn on_apply(&mut self, iter: &mut Iterator<'_>);

    /// The node was shut down; nothing is called after this.
    fn on_shutdown(&mut self) {}

    /// This node leads the group in `term`; every entry of earlier terms has been applied.
    fn on_leader_start(&mut self, term: Term) {
        let _ = term;
    }

    /// This node leads no more.
    fn on_leader_stop(&mut self, status: &Status) {
        let _ = status;
    }

    /// The node has failed: nothing is applied any more.
    fn on_error(&mut self, status: &Status) {
        let _ = status;
    }

    /// A configuration was committed; `entry` says whether it is joint.
    fn on_configuration_committed(&mut self, entry: &ConfigurationEntry) {
        let _ = entry;
    }

    /// This node follows a leader.
    fn on_start_following(&mut self, context: &LeaderChangeContext) {
        let _ = context;
    }

    /// This node follows that leader no more.
    fn on_stop_following(&mut self, context: &LeaderChangeContext) {
        let _ = context;
    }
}
