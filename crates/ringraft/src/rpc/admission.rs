//! Whether a request of a node is for this cluster: before its term, its vote or its entries are looked at.

use ringraft_core::{Mutant, PeerId, RaftRequest, Status};
use ringraft_proto::IncomingRequest;

use super::routing::RoutingTable;

impl RoutingTable {
    /// Lets a request of this cluster pass. Where the host knows no cluster yet, a leader that its replica would accept tells it.
    ///
    /// # Errors
    /// What is answered: `EWRONGCLUSTER`, or `EAGAIN` while the cluster is being written down.
    pub(super) fn admit(&self, request: &IncomingRequest<'_>) -> Result<(), Status> {
        if !must_mean_this_cluster(&request.request) {
            return Ok(());
        }
        let gate = self.gate();
        gate.admit(request.cluster_id)?;
        if gate.id().is_some() || request.cluster_id.is_empty() {
            return Ok(());
        }
        if self.would_be_accepted(request) { gate.learn(request.cluster_id) } else { Ok(()) }
    }

    /// Whether a request comes from a leader of a term that its replica has not left behind, and in which it follows nobody else.
    fn would_be_accepted(&self, request: &IncomingRequest<'_>) -> bool {
        let RaftRequest::AppendEntries(append) = &request.request else { return false };
        let Some(node) = self.node(request.group) else { return false };
        let (Ok(to), Ok(from)) = (request.peer_id.parse::<PeerId>(), request.server_id.parse::<PeerId>())
        else {
            return false;
        };
        let follows = || node.leader_id().is_none_or(|leader| leader == from);
        *node.server_id() == to
            && node.creation() == request.creation
            && (append.term > node.term() || append.term == node.term() && follows())
    }
}

/// Whether a request is refused when it means another cluster: every one is, and before its term is looked at. A higher term alone ends
/// leaderships, whatever becomes of the request.
fn must_mean_this_cluster(request: &RaftRequest) -> bool {
    let votes = matches!(request, RaftRequest::RequestVote(_));
    !(votes && Mutant::C20VotesOfAnotherClusterAreHeard.is_active())
}
