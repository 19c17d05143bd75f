//! The stages of the pipeline as plain structs: no threads, no clock. Thin loops drive them here, the simulator elsewhere.
//!
//! * [`LogEntryAndClosureHandler`] owns every node of its lane: events in, [`LaneOutput`] out.
//! * [`StableClosureEventHandler`] merges the writes of all lanes into durable ones, and lets go of what waited for them.
//! * [`ApplyTaskHandler`] owns the state machines of its worker.
//!
//! Progress travels back through a [`ProgressBoard`]: the newest value a group, never a queue.

mod apply_task;
mod closed;
mod entry_room;
mod event;
mod fsm_group;
mod log_entry_and_closure;
mod progress;
mod slow_calls;
mod stable_closure;
#[cfg(test)]
mod tests;
mod write_queue;

use std::sync::Arc;

use ringraft_core::{GroupId, PeerId};
use ringraft_proto::Envelope;

use crate::identity::cluster_gate::ClusterGate;
pub use crate::status::NodeStatus;
pub use crate::task::promise::{Promise, Waiter, promise};
pub use apply_task::ApplyTaskHandler;
pub use entry_room::EntryRoom;
pub use event::{
    ApplyEvent, CallResult, Control, DamagedGroup, DiskWrite, FsmTask, LaneEvent, LaneOutput, NodeCall,
    OpenGroup, OutReply, OutSend, ReadEvent, ReadTask, RequestEvent, ResponseEvent,
};
pub use fsm_group::{ApplyOutput, FsmGroup};
pub use log_entry_and_closure::{LaneLimits, LogEntryAndClosureHandler};
pub use progress::{GroupProgress, ProgressBoard};
pub use stable_closure::{StableClosureEventHandler, StableOutput};
pub use write_queue::WriteQueue;

/// Names a group within its host: lane, slot of the lane, and which life of the slot. Whatever comes back from another stage
/// carries it and is dropped when the slot lives another life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupHandle {
    /// The lane.
    pub lane: u16,
    /// The slot in the lane.
    pub slot: u32,
    /// Which life of the slot.
    pub generation: u32,
}

/// The names that a group's messages carry.
#[derive(Debug)]
pub struct GroupNames {
    /// The group.
    pub group_id: GroupId,
    /// This replica.
    pub server_id: PeerId,
    /// This replica as text.
    pub server_text: String,
    /// Creation number of this life of the group; 0 for none.
    pub creation: u64,
    /// The cluster of its host.
    gate: Arc<ClusterGate>,
}

impl GroupNames {
    /// The names of a replica on a host that knows no cluster; `creation` is 0 where groups are not numbered.
    pub fn new(group_id: GroupId, server_id: PeerId, creation: u64) -> SharedNames {
        GroupNames::in_cluster(group_id, server_id, creation, Arc::default())
    }

    /// The names of a replica on a host of this cluster.
    pub fn in_cluster(
        group_id: GroupId,
        server_id: PeerId,
        creation: u64,
        gate: Arc<ClusterGate>,
    ) -> SharedNames {
        let server_text = server_id.to_string();
        Arc::new(GroupNames { group_id, server_id, server_text, creation, gate })
    }

    /// The envelope of a request to a peer.
    pub(crate) fn envelope<'a>(&'a self, to: &'a str) -> Envelope<'a> {
        let cluster_id = self.gate.id().unwrap_or_default();
        let own = Envelope::new(self.group_id.as_str(), &self.server_text, to);
        Envelope { cluster_id, creation: self.creation, ..own }
    }
}

/// Names, shared by whatever leaves in their name.
pub type SharedNames = Arc<GroupNames>;

pub(crate) use log_entry_and_closure::damage_of;
