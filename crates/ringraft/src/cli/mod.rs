//! Administration of groups over the network, for programs and operators (SOFAJRaft's `CliService` and `RouteTable`).

mod answers;
mod error;
mod leader;
mod priorities;
mod rebalance;
mod route_table;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringraft_core::{Configuration, PeerId, RaftError, Status};
use ringraft_proto::generated::cli::{
    AddLearnersRequest, AddPeerRequest, AddPeerResponse, ChangePeersRequest, ChangePeersResponse,
    GetPeersRequest, GetPeersResponse, LearnersOpResponse, RemoveLearnersRequest, RemovePeerRequest,
    RemovePeerResponse, ResetLearnersRequest, ResetPeerRequest, SnapshotRequest, TransferLeaderRequest,
};
use ringraft_proto::{BoltMessage, EncodeError, put_cluster_id, put_creation, serialize};

use crate::rpc::client::{RpcClient, RpcResponse};
use crate::thread::on_host_thread;

use answers::{done, message, nonsense};
pub use error::CliError;
pub use rebalance::Rebalanced;
pub use route_table::RouteTable;

/// Settings of a [`CliService`] (SOFAJRaft's `CliOptions`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CliOptions {
    /// How long one call may take with everything that it tries, in milliseconds (5000). A new voter catches up within it, or the
    /// outcome is unknown; the group goes on with it all the same.
    pub timeout_ms: u64,
    /// How often a call looks for the leader once more, when there was none, or when it led no longer or was busy (10).
    pub max_retry: u32,
}

impl Default for CliOptions {
    fn default() -> CliOptions {
        CliOptions { timeout_ms: 5000, max_retry: 10 }
    }
}

/// What a change made of the voters, or of the learners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeersChanged {
    /// Who they were.
    pub old: Vec<PeerId>,
    /// Who they are.
    pub new: Vec<PeerId>,
}

/// The part of a call's time that one question may take which is asked again when it is not answered: a member that accepts and
/// never answers must not use up the time in which the others would elect, and be asked again.
const ATTEMPTS_IN_A_CALL: u32 = 4;

/// First pause before a call looks for the leader again; each further one is longer by as much.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks the leaders of groups to change members, to hand over, to tell. Every call first finds the leader by asking the members in
/// `conf`, of which one that answers is enough. Calls block; each is bounded by [`CliOptions::timeout_ms`], and refused with `EPERM` on a
/// thread of a host (in a state machine or a completion).
#[derive(Clone, Debug)]
pub struct CliService {
    client: Arc<RpcClient>,
    options: CliOptions,
    /// The cluster that is meant; empty for whatever cluster the members belong to.
    cluster_id: Arc<str>,
    /// Creation number of the group that is meant; 0 for whatever life there is.
    creation: u64,
}

/// One call: to whom it may go, and how long it may take.
struct Call<'a> {
    group: &'a str,
    conf: &'a Configuration,
    deadline: Instant,
    /// Whether repeating it does no harm.
    harmless: bool,
}

impl CliService {
    /// A service that asks through `client`.
    pub fn new(client: Arc<RpcClient>, options: CliOptions) -> CliService {
        CliService { client, options, cluster_id: "".into(), creation: 0 }
    }

    /// Its settings.
    pub fn options(&self) -> CliOptions {
        self.options
    }

    /// The same service with another time for each call.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> CliService {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        CliService { options: CliOptions { timeout_ms, ..self.options }, ..self.clone() }
    }

    /// The same service for one cluster: servers of another refuse what it asks, with `EWRONGCLUSTER`. See
    /// [`HostOptions::cluster_id`](crate::HostOptions::cluster_id).
    #[must_use]
    pub fn in_cluster(&self, cluster_id: &str) -> CliService {
        CliService { cluster_id: cluster_id.into(), ..self.clone() }
    }

    /// The same service for groups of this creation number: a server that runs another life of a group refuses what it asks, with
    /// `EWRONGCREATION`. 0, as from the start, means whatever life there is; so it does to servers of earlier programs. See
    /// [`NodeOptions::creation`](crate::NodeOptions::creation).
    #[must_use]
    pub fn of_life(&self, creation: u64) -> CliService {
        CliService { creation, ..self.clone() }
    }

    /// Adds a voter. It catches up first; a learner becomes a voter in the same change.
    ///
    /// # Errors
    /// [`CliError`]; `EEXISTS` when it votes already, `ECATCHUP` when it does not answer or falls behind.
    pub fn add_peer(
        &self,
        group: &str,
        conf: &Configuration,
        peer: &PeerId,
    ) -> Result<PeersChanged, CliError> {
        let make = |leader: &PeerId| {
            let mut request = AddPeerRequest::new();
            request.set_group_id(group.to_owned());
            request.set_leader_id(leader.to_string());
            request.set_peer_id(peer.to_string());
            request
        };
        let response: AddPeerResponse = self.ask_leader(&self.call(group, conf), make, message)?;
        changed(&response.old_peers, &response.new_peers)
    }

    /// Removes a voter; one that leads hands over.
    ///
    /// # Errors
    /// [`CliError`]; `ENOENT` when it does not vote.
    pub fn remove_peer(
        &self,
        group: &str,
        conf: &Configuration,
        peer: &PeerId,
    ) -> Result<PeersChanged, CliError> {
        let make = |leader: &PeerId| {
            let mut request = RemovePeerRequest::new();
            request.set_group_id(group.to_owned());
            request.set_leader_id(leader.to_string());
            request.set_peer_id(peer.to_string());
            request
        };
        let response: RemovePeerResponse = self.ask_leader(&self.call(group, conf), make, message)?;
        changed(&response.old_peers, &response.new_peers)
    }

    /// Makes exactly these the voters, with exactly these priorities, in one change. Learners that are not among them stay. Where only
    /// priorities differ it is one entry, and members go by the new ones at once.
    ///
    /// # Errors
    /// [`CliError`]; `EINVAL` when only priorities differ and the leader says that it is done, but has not taken them: a Java node.
    pub fn change_peers(
        &self,
        group: &str,
        conf: &Configuration,
        voters: &[PeerId],
    ) -> Result<PeersChanged, CliError> {
        let make = |leader: &PeerId| {
            let mut request = ChangePeersRequest::new();
            request.set_group_id(group.to_owned());
            request.set_leader_id(leader.to_string());
            request.new_peers = texts(voters);
            request
        };
        let call = self.call(group, conf);
        let response: ChangePeersResponse = self.ask_leader(&call, make, message)?;
        let changed = changed(&response.old_peers, &response.new_peers)?;
        if priorities::change_alone(&changed.old, voters) {
            // One that takes members with other priorities for the same changes nothing, and answers as if it had.
            let now = self.members(&Call { harmless: true, ..call }, false).map_err(|error| {
                let message = format!(
                    "the leader says that it is done, and then does not say who the members are: {error}"
                );
                CliError::Unknown(Status::new(RaftError::TimedOut, message))
            })?;
            priorities::were_taken(&now.peers, voters)?;
        }
        Ok(changed)
    }

    /// Forces these voters upon one replica, without asking anybody. **Unsafe**: for when a majority is gone for good. What only the
    /// others hold is lost, and should they come back, there are two groups.
    ///
    /// # Errors
    /// [`CliError`].
    pub fn reset_peer(&self, group: &str, peer: &PeerId, voters: &[PeerId]) -> Result<(), CliError> {
        let mut request = ResetPeerRequest::new();
        request.set_group_id(group.to_owned());
        request.set_peer_id(peer.to_string());
        request.new_peers = texts(voters);
        done(&self.ask(peer, &request, self.deadline())?)
    }

    /// Adds learners: they get the log, and neither vote nor count.
    ///
    /// # Errors
    /// [`CliError`]; `EINVAL` when one of them votes.
    pub fn add_learners(
        &self,
        group: &str,
        conf: &Configuration,
        learners: &[PeerId],
    ) -> Result<PeersChanged, CliError> {
        self.change_learners(group, conf, learners, |group_id, leader_id, learners| AddLearnersRequest {
            group_id,
            leader_id,
            learners,
            ..Default::default()
        })
    }

    /// Removes learners; those that do not learn are left out.
    ///
    /// # Errors
    /// [`CliError`].
    pub fn remove_learners(
        &self,
        group: &str,
        conf: &Configuration,
        learners: &[PeerId],
    ) -> Result<PeersChanged, CliError> {
        self.change_learners(group, conf, learners, |group_id, leader_id, learners| RemoveLearnersRequest {
            group_id,
            leader_id,
            learners,
            ..Default::default()
        })
    }

    /// Makes exactly these the learners.
    ///
    /// # Errors
    /// [`CliError`].
    pub fn reset_learners(
        &self,
        group: &str,
        conf: &Configuration,
        learners: &[PeerId],
    ) -> Result<PeersChanged, CliError> {
        self.change_learners(group, conf, learners, |group_id, leader_id, learners| ResetLearnersRequest {
            group_id,
            leader_id,
            learners,
            ..Default::default()
        })
    }

    /// Asks the leader for a change of the learners; `request` makes it of the group, the leader and the learners.
    fn change_learners<Q: BoltMessage>(
        &self,
        group: &str,
        conf: &Configuration,
        learners: &[PeerId],
        request: impl Fn(Option<String>, Option<String>, Vec<String>) -> Q,
    ) -> Result<PeersChanged, CliError> {
        let make =
            |leader: &PeerId| request(Some(group.to_owned()), Some(leader.to_string()), texts(learners));
        let response: LearnersOpResponse = self.ask_leader(&self.call(group, conf), make, message)?;
        changed(&response.old_learners, &response.new_learners)
    }

    /// Makes a learner a voter (SOFAJRaft's `learner2Follower`, which takes two changes for it; here it is one).
    ///
    /// # Errors
    /// As for [`add_peer`](CliService::add_peer).
    pub fn learner_to_follower(
        &self,
        group: &str,
        conf: &Configuration,
        learner: &PeerId,
    ) -> Result<PeersChanged, CliError> {
        self.add_peer(group, conf, learner)
    }

    /// Hands leadership to `peer`, or to the best follower, and waits until that one leads.
    ///
    /// # Errors
    /// [`CliError`]; `EINVAL` when the peer may not lead, `ETIMEDOUT` when it did not within an election time-out: then the old leader
    /// goes on. [`CliError::Unknown`] when it was ordered to campaign and another leads, or nobody was heard to.
    pub fn transfer_leader(
        &self,
        group: &str,
        conf: &Configuration,
        peer: Option<&PeerId>,
    ) -> Result<(), CliError> {
        let make = |leader: &PeerId| {
            let mut request = TransferLeaderRequest::new();
            request.set_group_id(group.to_owned());
            request.set_leader_id(leader.to_string());
            if let Some(peer) = peer {
                request.set_peer_id(peer.to_string());
            }
            request
        };
        self.ask_leader(&self.call(group, conf), make, done)
    }

    /// Has a replica take a snapshot.
    ///
    /// # Errors
    /// [`CliError`]; ringraft refuses it as not supported yet.
    pub fn snapshot(&self, group: &str, peer: &PeerId) -> Result<(), CliError> {
        let mut request = SnapshotRequest::new();
        request.set_group_id(group.to_owned());
        request.set_peer_id(peer.to_string());
        done(&self.ask(peer, &request, self.deadline())?)
    }

    /// The leader, as somebody of `conf` names it.
    ///
    /// # Errors
    /// [`CliError::NoLeader`] when nobody does, however often they are asked.
    pub fn get_leader(&self, group: &str, conf: &Configuration) -> Result<PeerId, CliError> {
        let call = Call { harmless: true, ..self.call(group, conf) };
        self.retry(&call, |_, leader| Ok(leader.clone()))
    }

    /// The members, voters and learners, as the leader knows them.
    ///
    /// # Errors
    /// [`CliError`].
    pub fn get_peers(&self, group: &str, conf: &Configuration) -> Result<Configuration, CliError> {
        self.members(&Call { harmless: true, ..self.call(group, conf) }, false)
    }

    /// The members from which the leader has heard within its lease, and itself.
    ///
    /// # Errors
    /// [`CliError`].
    pub fn get_alive_peers(&self, group: &str, conf: &Configuration) -> Result<Configuration, CliError> {
        self.members(&Call { harmless: true, ..self.call(group, conf) }, true)
    }

    fn members(&self, call: &Call<'_>, only_alive: bool) -> Result<Configuration, CliError> {
        let make = |leader: &PeerId| {
            let mut request = GetPeersRequest::new();
            request.set_group_id(call.group.to_owned());
            request.set_leader_id(leader.to_string());
            request.set_only_alive(only_alive);
            request
        };
        let response: GetPeersResponse = self.ask_leader(call, make, message)?;
        Ok(Configuration { peers: parse(&response.peers)?, learners: parse(&response.learners)? })
    }

    // --- asking ---

    /// The time of a call.
    fn timeout(&self) -> Duration {
        Duration::from_millis(self.options.timeout_ms.clamp(1, 365 * 24 * 3_600_000))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout()
    }

    fn call<'a>(&self, group: &'a str, conf: &'a Configuration) -> Call<'a> {
        Call { group, conf, deadline: self.deadline(), harmless: false }
    }

    /// Asks the leader. One that leads no longer, or is busy, has done nothing: the leader is looked for again.
    fn ask_leader<Q: BoltMessage, R>(
        &self,
        call: &Call<'_>,
        make: impl Fn(&PeerId) -> Q,
        read: impl Fn(&RpcResponse) -> Result<R, CliError>,
    ) -> Result<R, CliError> {
        self.retry(call, |cli, leader| {
            // A leader that hangs must not use up the time of a question that its successor can answer as well.
            let part = if call.harmless {
                Instant::now() + self.timeout() / ATTEMPTS_IN_A_CALL
            } else {
                call.deadline
            };
            cli.ask(leader, &make(leader), call.deadline.min(part)).and_then(|r| read(&r))
        })
    }

    fn retry<R>(
        &self,
        call: &Call<'_>,
        attempt: impl Fn(&CliService, &PeerId) -> Result<R, CliError>,
    ) -> Result<R, CliError> {
        refuse_on_host_thread()?;
        let mut doubted = None;
        let mut retries = 0;
        loop {
            let found = self.find_leader(call, doubted.as_ref());
            let outcome = match &found {
                Ok(leader) => attempt(self, leader),
                Err(error) => Err(error.clone()),
            };
            let error = match outcome {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            retries += 1;
            let pause = PAUSE * retries;
            let again = error.is_worth_a_retry() || call.harmless && error.is_unknown();
            if !again || retries > self.options.max_retry || Instant::now() + pause >= call.deadline {
                return Err(error);
            }
            doubted = found.ok();
            std::thread::sleep(pause);
        }
    }

    /// Sends one request and waits for its answer.
    fn ask<Q: BoltMessage>(
        &self,
        peer: &PeerId,
        request: &Q,
        deadline: Instant,
    ) -> Result<RpcResponse, CliError> {
        refuse_on_host_thread()?;
        let content = self
            .content(request)
            .map_err(|error| CliError::Refused(Status::new(RaftError::Invalid, error.to_string())))?;
        let timeout = deadline.saturating_duration_since(Instant::now());
        let response = self.client.call(&peer.endpoint(), Q::CLASS, content, timeout);
        response.map_err(CliError::from)
    }

    /// A request as it is sent.
    fn content<Q: BoltMessage>(&self, request: &Q) -> Result<Bytes, EncodeError> {
        let mut content = serialize(request)?;
        put_cluster_id(&mut content, &self.cluster_id);
        put_creation(&mut content, self.creation);
        Ok(content.into())
    }
}

/// A call blocks, and a thread of a host must not: what is waited for may need that very thread.
fn refuse_on_host_thread() -> Result<(), CliError> {
    if !on_host_thread() {
        return Ok(());
    }
    let message = "a thread of a host cannot wait for the answer; call the CliService on another thread";
    Err(CliError::Refused(Status::new(RaftError::NotPermitted, message)))
}

fn texts(peers: &[PeerId]) -> Vec<String> {
    peers.iter().map(ToString::to_string).collect()
}

fn parse(texts: &[String]) -> Result<Vec<PeerId>, CliError> {
    let peer = |text: &String| text.parse::<PeerId>().map_err(|error| nonsense(error.to_string()));
    texts.iter().map(peer).collect()
}

fn changed(old: &[String], new: &[String]) -> Result<PeersChanged, CliError> {
    Ok(PeersChanged { old: parse(old)?, new: parse(new)? })
}
