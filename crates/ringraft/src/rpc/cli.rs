//! The processors of the `CliService`: what an operator asks over the network (SOFAJRaft's `AddPeerRequestProcessor` and its like).
//!
//! A request names its group and the local replica that it is for, or none, which means the one that runs here. What takes time
//! is answered when it is over, on the owner's thread; nothing waits in between. Requests are answered with SOFAJRaft's codes and
//! texts, with one difference: a node that does not lead says so (`EPERM`), where Java answers -1.

use std::sync::Arc;

use ringraft_core::{
    CallDone, CallFailure, Configuration, Members, MembershipChange, PeerId, RaftError, Status,
};
use ringraft_net::{LogLimiter, ReplyHandle, Transport, WireText};
use ringraft_proto::generated::cli::{
    AddLearnersRequest, AddPeerRequest, AddPeerResponse, ChangePeersRequest, ChangePeersResponse,
    GetLeaderRequest, GetLeaderResponse, GetPeersRequest, GetPeersResponse, LearnersOpResponse,
    RemoveLearnersRequest, RemovePeerRequest, RemovePeerResponse, ResetLearnersRequest, ResetPeerRequest,
    SnapshotRequest, TransferLeaderRequest,
};
use ringraft_proto::generated::group_state::GroupStateRequest;
use ringraft_proto::{
    BoltMessage, RequestFrame, ResponseStatus, class, decode_typed_request, encode_error_response,
    encode_status_response, encode_typed_response,
};

use crate::handler::{CallResult, NodeCall};
use crate::identity::creation;
use crate::node::Node;
use crate::rpc::flush::flush_later;
use crate::rpc::group_state;
use crate::rpc::routing::RoutingTable;

/// Whether a code says that the request certainly had no effect. What may have had one never carries such a code.
pub(crate) fn is_refusal(error: RaftError) -> bool {
    matches!(
        error,
        RaftError::NotPermitted
            | RaftError::Busy
            | RaftError::Again
            | RaftError::Invalid
            | RaftError::NotFound
            | RaftError::Exists
            | RaftError::Stale
            | RaftError::Access
            | RaftError::CatchUp
            | RaftError::WrongCluster
            | RaftError::WrongCreation
    )
}

/// Where the answer to a request goes.
#[derive(Clone)]
struct Answer {
    transport: Arc<dyn Transport>,
    handle: ReplyHandle,
    codec: u8,
}

impl Answer {
    fn message<M: BoltMessage>(&self, message: &M) {
        match encode_typed_response(self.handle.request, self.codec, message) {
            Ok(frame) => self.send(frame),
            Err(error) => self.status(Some(&Status::new(RaftError::Internal, error.to_string()))),
        }
    }

    /// An `ErrorResponse`, which says "done" without a status.
    fn status(&self, status: Option<&Status>) {
        self.send(encode_error_response(self.handle.request, self.codec, status));
    }

    fn malformed(&self) {
        let status = ResponseStatus::ServerDeserialException;
        self.send(encode_status_response(self.handle.request, self.codec, status));
    }

    fn send(&self, frame: ringraft_proto::OutFrame) {
        if self.transport.reply(self.handle, frame).is_ok() {
            flush_later(&self.transport, self.handle);
        }
    }

    /// The end of a call, of which `done` makes the answer.
    fn outcome(&self, outcome: CallResult, done: impl FnOnce(&Answer, CallDone)) {
        match outcome {
            Ok(what) => done(self, what),
            Err(CallFailure::Failed(status)) => self.status(Some(&status)),
            Err(CallFailure::Unknown(Status { error, message })) => {
                let error = if is_refusal(error) { RaftError::Cancelled } else { error };
                self.status(Some(&Status::new(error, format!("the outcome is unknown: {message}"))));
            }
        }
    }
}

/// A request for one replica.
trait CliRequest: OfCluster {
    fn group(&self) -> &str;
    /// The replica; blank means the one that runs here.
    fn node(&self) -> &str;
    /// Creation number of the group; 0 means whatever life runs here.
    fn life(&self) -> u64;
}

/// A request that may say which cluster it means.
trait OfCluster: BoltMessage {
    /// Empty when it does not.
    fn cluster(&self) -> &str;
}

impl OfCluster for GroupStateRequest {
    fn cluster(&self) -> &str {
        &self.cluster_id
    }
}

macro_rules! cli_requests {
    ($($message:ty, $node:ident;)*) => {
        $(impl CliRequest for $message {
            fn group(&self) -> &str {
                self.group_id()
            }

            fn node(&self) -> &str {
                self.$node()
            }

            fn life(&self) -> u64 {
                self.creation()
            }
        }

        impl OfCluster for $message {
            fn cluster(&self) -> &str {
                self.cluster_id()
            }
        })*
    };
}

cli_requests! {
    AddPeerRequest, leader_id;
    RemovePeerRequest, leader_id;
    ChangePeersRequest, leader_id;
    ResetPeerRequest, peer_id;
    SnapshotRequest, peer_id;
    TransferLeaderRequest, leader_id;
    GetLeaderRequest, peer_id;
    GetPeersRequest, leader_id;
    AddLearnersRequest, leader_id;
    RemoveLearnersRequest, leader_id;
    ResetLearnersRequest, leader_id;
}

/// Begins what a request asks; `false` when it is none of these.
pub(super) fn process(
    routes: &RoutingTable,
    transport: &Arc<dyn Transport>,
    log: &LogLimiter,
    handle: ReplyHandle,
    frame: &RequestFrame,
) -> bool {
    let cli = Cli {
        routes,
        frame,
        log,
        answer: Answer { transport: Arc::clone(transport), handle, codec: frame.codec },
    };
    match std::str::from_utf8(&frame.class) {
        Ok(class::ADD_PEER_REQUEST) => cli.begin(add_peer),
        Ok(class::REMOVE_PEER_REQUEST) => cli.begin(remove_peer),
        Ok(class::CHANGE_PEERS_REQUEST) => cli.begin(change_peers),
        Ok(class::RESET_PEER_REQUEST) => cli.begin(reset_peer),
        Ok(class::SNAPSHOT_REQUEST) => cli.begin(snapshot),
        Ok(class::TRANSFER_LEADER_REQUEST) => cli.begin(transfer_leader),
        Ok(class::GET_LEADER_REQUEST) => cli.get_leader(),
        Ok(class::GET_PEERS_REQUEST) => cli.begin(get_peers),
        Ok(class::ADD_LEARNERS_REQUEST) => cli.begin(add_learners),
        Ok(class::REMOVE_LEARNERS_REQUEST) => cli.begin(remove_learners),
        Ok(class::RESET_LEARNERS_REQUEST) => cli.begin(reset_learners),
        Ok(class::GROUP_STATE_REQUEST) => cli.tell_memory(),
        _ => return false,
    }
    true
}

/// A request that has arrived.
struct Cli<'a> {
    routes: &'a RoutingTable,
    frame: &'a RequestFrame,
    log: &'a LogLimiter,
    answer: Answer,
}

impl Cli<'_> {
    /// What is asked; one that cannot be understood, or means another cluster, is answered here.
    fn message<M: OfCluster>(&self) -> Option<M> {
        let message: M = match decode_typed_request(self.frame) {
            Ok(message) => message,
            Err(error) => {
                if let Some(left_out) = self.log.pass("cli request") {
                    let text = error.to_string();
                    tracing::warn!(error = %WireText(text.as_bytes()), left_out, "a request cannot be understood");
                }
                self.answer.malformed();
                return None;
            }
        };
        match self.routes.gate().admit(message.cluster()) {
            Ok(()) => Some(message),
            Err(status) => {
                self.answer.status(Some(&status));
                None
            }
        }
    }

    /// Begins what a request asks of its node; a refusal is answered here.
    fn begin<M: CliRequest>(self, begin: fn(&Node, &M, Answer) -> Result<(), Status>) {
        let Some(message) = self.message::<M>() else { return };
        let node = self.routes.cli_node(message.group(), message.node(), message.life());
        let answer = self.answer.clone();
        let begun = node.and_then(|node| {
            tracing::debug!(node = %node.node_id(), request = M::CLASS, "administration");
            begin(&node, &message, answer)
        });
        if let Err(status) = begun {
            self.answer.status(Some(&status));
        }
    }

    /// Asked by members without memory, before they begin, and answered without the owners.
    fn tell_memory(self) {
        let Some(question) = self.message::<GroupStateRequest>() else { return };
        match group_state::answer(self.routes, &question) {
            Ok(response) => self.answer.message(&response),
            Err(status) => self.answer.status(Some(&status)),
        }
    }

    /// Asked by every client, and answered without the owner. Without a replica's id even a node that refuses administration tells.
    fn get_leader(self) {
        let Some(message) = self.message::<GetLeaderRequest>() else { return };
        let node = match (message.node(), self.routes.node(message.group())) {
            ("", Some(node)) => {
                creation::check_call(message.group(), message.life(), node.creation()).map(|()| node)
            }
            (id, _) => self.routes.cli_node(message.group(), id, message.life()),
        };
        let leader = node
            .and_then(|node| node.leader_id().ok_or_else(|| Status::new(RaftError::Again, "Unknown leader")));
        match leader {
            Ok(leader) => {
                let mut response = GetLeaderResponse::new();
                response.set_leader_id(leader.to_string());
                self.answer.message(&response);
            }
            Err(status) => self.answer.status(Some(&status)),
        }
    }
}

fn parse_peer(text: &str) -> Result<PeerId, Status> {
    text.parse().map_err(|_| Status::new(RaftError::Invalid, format!("Fail to parse peer id {text}")))
}

fn parse_peers(texts: &[String]) -> Result<Vec<PeerId>, Status> {
    texts.iter().map(|text| parse_peer(text)).collect()
}

fn texts(peers: &[PeerId]) -> Vec<String> {
    peers.iter().map(ToString::to_string).collect()
}

/// Begins a change of the members, of whose end `make` makes the answer.
fn change<M: BoltMessage>(
    node: &Node,
    change: MembershipChange,
    answer: Answer,
    make: fn(&Configuration, &Configuration) -> M,
) {
    let call = NodeCall::ChangeMembers { change, prev_index: None };
    node.call_then(call, move |outcome| {
        answer.outcome(outcome, |answer, done| match done {
            CallDone::Changed { old, new } => answer.message(&make(&old, &new)),
            _ => answer.status(None),
        });
    });
}

macro_rules! changed_peers {
    ($response:ty) => {
        |old, new| {
            let mut response = <$response>::new();
            response.old_peers = texts(&old.peers);
            response.new_peers = texts(&new.peers);
            response
        }
    };
}

fn changed_learners(old: &Configuration, new: &Configuration) -> LearnersOpResponse {
    let mut response = LearnersOpResponse::new();
    response.old_learners = texts(&old.learners);
    response.new_learners = texts(&new.learners);
    response
}

fn add_peer(node: &Node, message: &AddPeerRequest, answer: Answer) -> Result<(), Status> {
    let peer = parse_peer(message.peer_id())?;
    change(node, MembershipChange::AddPeer(peer), answer, changed_peers!(AddPeerResponse));
    Ok(())
}

fn remove_peer(node: &Node, message: &RemovePeerRequest, answer: Answer) -> Result<(), Status> {
    let peer = parse_peer(message.peer_id())?;
    change(node, MembershipChange::RemovePeer(peer), answer, changed_peers!(RemovePeerResponse));
    Ok(())
}

/// The message cannot name learners, which therefore stay.
fn change_peers(node: &Node, message: &ChangePeersRequest, answer: Answer) -> Result<(), Status> {
    let voters = parse_peers(&message.new_peers)?;
    change(node, MembershipChange::ChangeVoters(voters), answer, changed_peers!(ChangePeersResponse));
    Ok(())
}

fn add_learners(node: &Node, message: &AddLearnersRequest, answer: Answer) -> Result<(), Status> {
    change(node, MembershipChange::AddLearners(parse_peers(&message.learners)?), answer, changed_learners);
    Ok(())
}

fn remove_learners(node: &Node, message: &RemoveLearnersRequest, answer: Answer) -> Result<(), Status> {
    change(node, MembershipChange::RemoveLearners(parse_peers(&message.learners)?), answer, changed_learners);
    Ok(())
}

fn reset_learners(node: &Node, message: &ResetLearnersRequest, answer: Answer) -> Result<(), Status> {
    change(node, MembershipChange::ResetLearners(parse_peers(&message.learners)?), answer, changed_learners);
    Ok(())
}

fn reset_peer(node: &Node, message: &ResetPeerRequest, answer: Answer) -> Result<(), Status> {
    let conf = Configuration::of_peers(parse_peers(&message.new_peers)?);
    node.call_then(NodeCall::ResetPeers { conf }, move |outcome| {
        answer.outcome(outcome, |answer, _| answer.status(None));
    });
    Ok(())
}

/// Java answers when the transfer has begun; this, when another leads.
fn transfer_leader(node: &Node, message: &TransferLeaderRequest, answer: Answer) -> Result<(), Status> {
    let to = match message.peer_id() {
        "" => None,
        text => Some(parse_peer(text)?).filter(|peer| !peer.is_empty()),
    };
    node.call_then(NodeCall::TransferLeadership { to }, move |outcome| {
        answer.outcome(outcome, |answer, _| answer.status(None));
    });
    Ok(())
}

fn get_peers(node: &Node, message: &GetPeersRequest, answer: Answer) -> Result<(), Status> {
    let only_alive = message.only_alive();
    node.list_peers_then(move |members| match members {
        Ok(members) => answer.message(&peers_response(&members, only_alive)),
        Err(status) => answer.status(Some(&status)),
    });
    Ok(())
}

fn peers_response(members: &Members, only_alive: bool) -> GetPeersResponse {
    let mut response = GetPeersResponse::new();
    if only_alive {
        response.peers = members.alive_peers().map(ToString::to_string).collect();
        response.learners = members.alive_learners().map(ToString::to_string).collect();
    } else {
        response.peers = texts(&members.peers);
        response.learners = texts(&members.learners);
    }
    response
}

fn snapshot(_: &Node, _: &SnapshotRequest, _: Answer) -> Result<(), Status> {
    Err(Status::new(RaftError::Invalid, "Snapshot is not supported yet"))
}
