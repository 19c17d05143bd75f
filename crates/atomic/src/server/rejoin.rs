//! A replica that has failed drops its log and comes back as a member that has lost its disk, while the server and its other groups go on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protobuf::Message;
use ringraft::{HostOptions, NodeState, RaftError, RaftHost, Responder, StartError, Status, UserRequest};
use ringraft_proto::class;
use ringraft_proto::generated::atomic as proto;

use super::{Served, ServedGroup, group_start, starting};
use crate::config::AtomicConfig;

/// Clears the mark that a replica is being brought back, however that ends.
struct Turn(Arc<Served>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.rejoining.store(false, Ordering::Release);
    }
}

impl Served {
    pub(super) fn register_rejoin(self: &Arc<Self>, options: &mut HostOptions) {
        let served = Arc::clone(self);
        let processor = move |request: UserRequest, responder: Responder| match served.refuses(&request) {
            Some(status) => responder.fail(status),
            None => served.begin_rejoin(&request, responder),
        };
        options.register_user_processor(class::ATOMIC_REJOIN_REQUEST, Arc::new(processor));
    }

    /// Brings a replica back on a thread of its own, for it waits for lanes and disk: one at a time, so that strangers cannot make many threads.
    fn begin_rejoin(self: &Arc<Self>, request: &UserRequest, responder: Responder) {
        let (group, creation) = match proto::RejoinRequest::parse_from_bytes(&request.content) {
            Ok(message) => (message.group, message.creation),
            Err(error) => return responder.fail(Status::new(RaftError::Invalid, error.to_string())),
        };
        if self.rejoining.swap(true, Ordering::AcqRel) {
            let what = "another replica of this server is being brought back; try again in a moment";
            return responder.fail(Status::new(RaftError::Busy, what));
        }
        let turn = Turn(Arc::clone(self));
        let work = move || match turn.0.rejoin(&group, creation) {
            Ok(()) => {
                drop(turn);
                responder.respond(class::ATOMIC_REJOIN_RESPONSE, Vec::new());
            }
            Err(status) => {
                drop(turn);
                responder.fail(status);
            }
        };
        // Who cannot have a thread is told by the responder that goes with the work.
        if let Err(error) = std::thread::Builder::new().name("atomic-rejoin".to_owned()).spawn(work) {
            tracing::error!(%error, "no thread to bring a replica back");
        }
    }

    /// Drops the log of the replica and starts it over, if it is of the life with this creation number; 0 for any.
    fn rejoin(&self, group: &str, creation: u64) -> Result<(), Status> {
        let Some((host, config)) = self.host.lock().clone() else { return Err(starting().status) };
        let groups = self.groups();
        let Some(range) = groups.iter().position(|served| *served.name == *group) else {
            let what = format!("no group {group:?} on {}", self.server_id);
            return Err(Status::new(RaftError::NotFound, what));
        };
        let node = &groups[range].node;
        if creation != 0 && creation != node.creation() {
            let ours = node.creation();
            let what = format!(
                "the request means the life of group {group} with creation number {creation}, and this server runs the one with {ours} (0: none)"
            );
            return Err(Status::new(RaftError::WrongCreation, what));
        }
        // A replica that works holds what others may have lost. One that has stopped was being brought back when something failed.
        if node.last_error().is_none() && node.state() != NodeState::Shutdown {
            let what = format!(
                "the replica of {group} on {} works ({}); only one that has failed may drop its log",
                self.server_id,
                node.state()
            );
            return Err(Status::new(RaftError::NotPermitted, what));
        }
        let served = start_over(&host, &config, range, node.creation()).map_err(|error| {
            Status::new(RaftError::Internal, format!("the replica of {group} is not back: {error}"))
        })?;
        let mut groups: Vec<ServedGroup> = groups.to_vec();
        groups[range] = served;
        *self.groups.write() = groups.into();
        Ok(())
    }
}

fn start_over(
    host: &RaftHost,
    config: &AtomicConfig,
    range: usize,
    creation: u64,
) -> Result<ServedGroup, StartError> {
    let name = config.group_name(range);
    host.rejoin_group(&name.parse()?, creation)?;
    let (start, replica) = group_start(config, range)?;
    let node = host.start_groups(vec![start]).pop().unwrap_or(Err(StartError::HostStopped))?;
    Ok(ServedGroup { name: name.into(), node, replica })
}
