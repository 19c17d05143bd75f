//! Starting one group, as SOFAJRaft's users know it (`RaftGroupService`).

use ringraft_core::{GroupId, PeerId};

use crate::error::StartError;
use crate::host::RaftHost;
use crate::node::Node;
use crate::options::NodeOptions;
use crate::state_machine::StateMachine;

/// One group of a host, about to be started.
pub struct RaftGroupService {
    group_id: String,
    server_id: PeerId,
    options: NodeOptions,
    state_machine: Box<dyn StateMachine>,
}

impl RaftGroupService {
    /// A replica of `group_id` with the id `server_id`.
    pub fn new(
        group_id: impl Into<String>,
        server_id: PeerId,
        options: NodeOptions,
        state_machine: impl StateMachine + 'static,
    ) -> RaftGroupService {
        RaftGroupService {
            group_id: group_id.into(),
            server_id,
            options,
            state_machine: Box::new(state_machine),
        }
    }

    /// Starts it on the host. Waits until the group is opened in the store and, when the replica is the only voter, until it leads.
    ///
    /// # Errors
    /// As for [`RaftHost::start_group`].
    pub fn start(self, host: &RaftHost) -> Result<Node, StartError> {
        let group_id: GroupId = self.group_id.parse()?;
        host.start_group(group_id, self.server_id, self.options, self.state_machine)
    }
}
