//! The server: one host, one replica of every range group, and the requests that it takes (SOFAJRaft's `AtomicServer`).

mod rejoin;

use std::ops::Deref;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use protobuf::Message;
use ringraft::{
    ApplyError, ClusterGate, Completion, GroupStart, HostOptions, Node, RaftError, RaftHost, ReadOnlyOption,
    Responder, StartError, StartMode, Status, Task, UserRequest,
};
use ringraft_proto::generated::atomic as proto;
use ringraft_proto::{class, cluster_id_of};

use crate::command::{Answer, Command};
use crate::config::{AtomicConfig, ConfigError};
use crate::describe::{GroupDescription, ServerDescription};
use crate::process::ProcessUsage;
use crate::ranges::Ranges;
use crate::reply::{self, Failure, Reply, ReplyKind, ReplyResult};
use crate::state_machine::{AtomicStateMachine, Replica};

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The host or a group does not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// One AtomicServer. Dropping it shuts it down.
pub struct AtomicServer {
    host: RaftHost,
    served: Arc<Served>,
}

/// What the processors share.
struct Served {
    server_id: String,
    ranges: Ranges,
    /// The host's cluster; empty until the host has started.
    gate: OnceLock<Arc<ClusterGate>>,
    /// One a range, in their order; empty until all have started.
    groups: RwLock<Arc<[ServedGroup]>>,
    /// What starts a group once more; gone at the end, so that the host and its processors do not keep each other.
    host: Mutex<Option<(RaftHost, AtomicConfig)>>,
    /// A replica is being brought back.
    rejoining: AtomicBool,
}

#[derive(Clone)]
struct ServedGroup {
    name: Arc<str>,
    node: Node,
    replica: Arc<Replica>,
}

/// One of the groups; a clone of its node would forget how full the ring was.
struct GroupRef {
    groups: Arc<[ServedGroup]>,
    range: usize,
}

impl Deref for GroupRef {
    type Target = ServedGroup;

    fn deref(&self) -> &ServedGroup {
        &self.groups[self.range]
    }
}

impl AtomicServer {
    /// Starts the host, every group, and the service of requests.
    ///
    /// # Errors
    /// [`ServerError`] says what is wrong and what to do; nothing is left running.
    pub fn start(config: &AtomicConfig, mode: StartMode) -> Result<AtomicServer, ServerError> {
        let ranges = config.ranges()?;
        let mut options = config.host_options(mode);
        let served = Arc::new(Served::new(config.server_address.to_string(), ranges));
        // Before the first connection and before the groups start, which can take long: until then the server says that it is starting.
        served.register(&mut options);
        let host = RaftHost::start(options)?;
        served.gate.get_or_init(|| host.cluster_gate());
        match start_groups(config, &host) {
            Ok(groups) => {
                tell_who_waits(&groups);
                *served.groups.write() = groups.into();
            }
            Err(error) => {
                host.shutdown();
                return Err(error.into());
            }
        }
        *served.host.lock() = Some((host.clone(), config.clone()));
        Ok(AtomicServer { host, served })
    }

    /// The replicas, in the order of their ranges.
    pub fn nodes(&self) -> Vec<Node> {
        self.served.groups().iter().map(|group| group.node.clone()).collect()
    }

    /// The state of this process and its replicas.
    pub fn describe(&self) -> ServerDescription {
        self.served.describe(self.served.groups().iter())
    }

    /// Why the log store takes nothing any more, if it does not: no replica of this server serves until it is started again.
    pub fn store_error(&self) -> Option<Status> {
        self.host.store_error()
    }

    /// Calls `then` once, when the log store has failed; see [`RaftHost::on_store_failed`].
    pub fn on_store_failed(&self, then: impl FnOnce(&Status) + Send + 'static) {
        self.host.on_store_failed(then);
    }

    /// Stops the service, every group and every thread, and waits for them. Every request is answered.
    pub fn shutdown(&self) {
        drop(self.served.host.lock().take());
        self.host.shutdown();
    }
}

impl Drop for AtomicServer {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Groups without members neither serve nor found a cluster, however long they wait: whoever started them so by mistake must hear of it.
fn tell_who_waits(groups: &[ServedGroup]) {
    let waiting = groups.iter().filter(|group| group.node.configuration().conf.is_empty());
    if let Some(first) = waiting.clone().next() {
        tracing::info!(
            groups = waiting.count(), group = %first.name,
            "groups know no members: this directory began by --rejoin, and they wait to be added (`ringraft admin add-peer`) or for the leaders of \
             a cluster that exists"
        );
    }
}

fn start_groups(config: &AtomicConfig, host: &RaftHost) -> Result<Vec<ServedGroup>, StartError> {
    let mut starts = Vec::with_capacity(config.total_slots);
    let mut served = Vec::with_capacity(config.total_slots);
    for range in 0..config.total_slots {
        let (start, replica) = group_start(config, range)?;
        starts.push(start);
        served.push((config.group_name(range), replica));
    }
    let started = host.start_groups(starts).into_iter().zip(served);
    started
        .map(|(node, (name, replica))| Ok(ServedGroup { name: name.into(), node: node?, replica }))
        .collect()
}

/// The group of a range, about to be started over an empty replica.
fn group_start(config: &AtomicConfig, range: usize) -> Result<(GroupStart, Arc<Replica>), StartError> {
    let name = config.group_name(range);
    let replica = Replica::new();
    let state_machine = Box::new(AtomicStateMachine::new(name.as_str(), Arc::clone(&replica)));
    let (group_id, server_id) = (name.parse()?, config.server_address.clone());
    Ok((GroupStart { group_id, server_id, options: config.node_options(), state_machine }, replica))
}

impl Served {
    fn new(server_id: String, ranges: Ranges) -> Served {
        Served {
            server_id,
            ranges,
            gate: OnceLock::new(),
            groups: RwLock::new(Arc::new([])),
            host: Mutex::default(),
            rejoining: AtomicBool::new(false),
        }
    }

    /// The groups; none before all have started.
    fn groups(&self) -> Arc<[ServedGroup]> {
        Arc::clone(&self.groups.read())
    }

    /// The group that serves a key.
    fn group_of(&self, key: &str) -> Result<GroupRef, Failure> {
        let (groups, range) = (self.groups(), self.ranges.locate_key(key));
        if range < groups.len() { Ok(GroupRef { groups, range }) } else { Err(starting()) }
    }

    fn register(self: &Arc<Self>, options: &mut HostOptions) {
        let processor = |handle: fn(&Served, UserRequest, Responder)| {
            let served = Arc::clone(self);
            Arc::new(move |request: UserRequest, responder: Responder| match served.refuses(&request) {
                Some(status) => responder.fail(status),
                None => handle(&served, request, responder),
            })
        };
        options.register_user_processor(
            class::ATOMIC_SET_REQUEST,
            processor(|served, request, responder| {
                served.write(
                    proto::SetRequest::parse_from_bytes(&request.content),
                    ReplyKind::Boolean,
                    responder,
                );
            }),
        );
        options.register_user_processor(
            class::ATOMIC_COMPARE_AND_SET_REQUEST,
            processor(|served, request, responder| {
                let message = proto::CompareAndSetRequest::parse_from_bytes(&request.content);
                served.write(message, ReplyKind::Boolean, responder);
            }),
        );
        options.register_user_processor(
            class::ATOMIC_INCREMENT_AND_GET_REQUEST,
            processor(|served, request, responder| {
                let message = proto::IncrementAndGetRequest::parse_from_bytes(&request.content);
                served.write(message, ReplyKind::Value, responder);
            }),
        );
        options.register_user_processor(class::ATOMIC_GET_REQUEST, processor(Served::get));
        // These look at all groups.
        options
            .register_user_processor_on_worker(class::ATOMIC_GET_SLOTS_REQUEST, processor(Served::get_slots));
        options.register_user_processor_on_worker(
            class::ATOMIC_DESCRIBE_REQUEST,
            processor(Served::answer_describe),
        );
        self.register_rejoin(options);
    }

    /// Id of the cluster; empty while it is not known.
    fn cluster_id(&self) -> &str {
        self.gate.get().and_then(|gate| gate.id()).unwrap_or_default()
    }

    /// Why a request is not carried out here, whatever it asks: it means another cluster. A host that has not started carries out nothing.
    fn refuses(&self, request: &UserRequest) -> Option<Status> {
        let status = self.gate.get()?.admit_content(&request.content).err()?;
        // Who asks what the cluster is called need not know it.
        let asks = [class::ATOMIC_GET_SLOTS_REQUEST, class::ATOMIC_DESCRIBE_REQUEST]
            .iter()
            .any(|class| request.class == *class);
        let unnamed = asks && cluster_id_of(&request.content).is_ok_and(str::is_empty);
        (!unnamed).then_some(status)
    }

    /// SET, CAS and INC.
    fn write<M: Into<Command>>(&self, message: protobuf::Result<M>, kind: ReplyKind, responder: Responder) {
        match message {
            Ok(message) => self.apply(message.into(), responder),
            Err(error) => respond(responder, kind, "", &Err(malformed(&error))),
        }
    }

    fn get(&self, request: UserRequest, responder: Responder) {
        let kind = ReplyKind::Value;
        let message = match proto::GetRequest::parse_from_bytes(&request.content) {
            Ok(message) => message,
            Err(error) => return respond(responder, kind, "", &Err(malformed(&error))),
        };
        let proto::GetRequest { key, through_log, through_quorum, lease, .. } = message;
        let command = Command::Get { key };
        if through_log {
            return self.apply(command, responder);
        }
        let group = match self.group_of(command.key()) {
            Ok(group) => group,
            Err(failure) => return respond(responder, kind, "", &Err(failure)),
        };
        let refusal: Option<Failure> = match (command.validate(), group.node.last_error()) {
            (Err(error), _) => Some(error.into()),
            (_, Some(status)) => Some(ApplyError::Failed(status).into()),
            _ => None,
        };
        match refusal {
            Some(failure) => respond(responder, kind, &group.name, &Err(failure)),
            None if through_quorum => group.read_index(command, lease, responder),
            None => respond(responder, kind, &group.name, &Ok(group.look_up(command.key(), 0))),
        }
    }

    /// Has a command go through the log of its group.
    fn apply(&self, command: Command, responder: Responder) {
        let kind = ReplyKind::of(&command);
        if let Err(error) = command.validate() {
            return respond(responder, kind, "", &Err(error.into()));
        }
        let group = match self.group_of(command.key()) {
            Ok(group) => group,
            Err(failure) => return respond(responder, kind, "", &Err(failure)),
        };
        // The node would say the same, after a way through the ring.
        if !group.node.is_leader() && group.node.last_error().is_none() {
            let error = ApplyError::NotLeader { leader: group.node.leader_id() };
            return respond(responder, kind, &group.name, &Err(error.into()));
        }
        let data = match command.encode() {
            Ok(data) => data,
            Err(error) => return respond(responder, kind, &group.name, &Err(error.into())),
        };
        let name = Arc::clone(&group.name);
        let task = Task::with_closure(data, move |outcome| {
            respond(responder, kind, &name, &reply::from_applied(&name, outcome));
        });
        // A refusal has reached the closure too.
        let _ = group.node.apply(task);
    }

    fn get_slots(&self, _request: UserRequest, responder: Responder) {
        let groups = self.groups();
        let slots = self.ranges.starts().iter().zip(groups.iter()).map(|(start, group)| proto::Slot {
            start: *start,
            group: group.name.to_string(),
            peers: group
                .members()
                .split(',')
                .filter(|p| !p.ends_with("/learner"))
                .map(str::to_owned)
                .collect(),
            leader: group.node.leader_id().map_or_else(String::new, |leader| leader.to_string()),
            ..Default::default()
        });
        let mut message =
            proto::SlotsResponse { success: true, slots: slots.collect(), ..Default::default() };
        message.cluster_id = self.cluster_id().to_owned();
        if message.slots.is_empty() {
            let Status { error, message: text } = starting().status;
            (message.success, message.error_code, message.error) = (false, error.code(), text);
        }
        // Only messages beyond 2 GiB cannot be written.
        responder.respond(class::ATOMIC_SLOTS_RESPONSE, message.write_to_bytes().unwrap_or_default());
    }

    fn answer_describe(&self, request: UserRequest, responder: Responder) {
        let wanted = match proto::DescribeRequest::parse_from_bytes(&request.content) {
            Ok(message) => message.group,
            Err(error) => {
                return responder.respond(class::ATOMIC_DESCRIBE_RESPONSE, refusal(malformed(&error)));
            }
        };
        if self.groups().is_empty() {
            return responder.respond(class::ATOMIC_DESCRIBE_RESPONSE, refusal(starting()));
        }
        let named = |group: &&ServedGroup| wanted.is_empty() || *group.name == *wanted;
        if !wanted.is_empty() && !self.groups().iter().any(|group| named(&group)) {
            let message = format!("no group {wanted:?} on {}", self.server_id);
            let failure = Failure::definite(RaftError::NotFound, message);
            return responder.respond(class::ATOMIC_DESCRIBE_RESPONSE, refusal(failure));
        }
        let description = self.describe(self.groups().iter().filter(named));
        responder.respond(class::ATOMIC_DESCRIBE_RESPONSE, description.encode());
    }

    fn describe<'a>(&self, groups: impl Iterator<Item = &'a ServedGroup>) -> ServerDescription {
        let usage = ProcessUsage::now();
        ServerDescription {
            node: self.server_id.clone(),
            cluster_id: self.cluster_id().to_owned(),
            threads: usage.threads,
            fds: usage.fds,
            rss_kb: usage.rss_kb,
            groups: groups.map(ServedGroup::describe).collect(),
        }
    }
}

impl ServedGroup {
    /// Reads once this replica has applied what was acknowledged before: on the state-machine worker, while nothing is applied.
    fn read_index(&self, command: Command, lease: bool, responder: Responder) {
        let mode = if lease { ReadOnlyOption::LeaseBased } else { ReadOnlyOption::Safe };
        let group = self.clone();
        let done = Completion::closure(move |outcome| {
            let outcome = match outcome {
                Ok(applied) => Ok(group.look_up(command.key(), applied.index)),
                Err(error) => Err(Failure::of_read(error)),
            };
            respond(responder, ReplyKind::Value, &group.name, &outcome);
        });
        // A refusal has reached the closure too.
        let _ = self.node.read_index_with(mode, done);
    }

    /// The counter as it is applied here now.
    fn look_up(&self, key: &str, index: u64) -> Reply {
        Reply { answer: Answer::Value(self.replica.get(key)), group: self.name.to_string(), index }
    }

    /// The members by the last configuration that is committed and applied; before there is one, those of the log: the file that the
    /// server was started with may name others, who are members no more.
    fn members(&self) -> String {
        self.replica.conf().unwrap_or_else(|| self.node.configuration().conf.to_string())
    }

    fn describe(&self) -> GroupDescription {
        // Looked at first, so that the replica is never seen ahead of what the node says is applied.
        let (fsm_hash, fsm_index, keys) = self.replica.read(|c| (c.hash(), c.index(), c.len() as u64));
        let node = &self.node;
        GroupDescription {
            group: self.name.to_string(),
            state: node.state().to_string(),
            term: node.term(),
            leader: node.leader_id().map_or_else(String::new, |leader| leader.to_string()),
            last: node.last_log_index(),
            stable: node.last_stable_index(),
            commit: node.last_committed_index(),
            applied: node.last_applied_index(),
            conf: self.members(),
            removed_at: node.removed_at().unwrap_or(0),
            fsm_hash,
            fsm_index,
            keys,
            error: node.last_error().map_or_else(String::new, |status| status.to_string()),
            creation: node.creation(),
        }
    }
}

/// What a server answers until all of its groups have started.
fn starting() -> Failure {
    Failure::definite(RaftError::Again, "the server is starting; ask it again in a moment")
}

fn malformed(error: &protobuf::Error) -> Failure {
    Failure::definite(RaftError::Invalid, format!("malformed request: {error}"))
}

fn respond(responder: Responder, kind: ReplyKind, group: &str, outcome: &ReplyResult) {
    responder.respond(kind.class(), reply::encode(kind, group, outcome));
}

fn refusal(failure: Failure) -> Bytes {
    let code = failure.status.error.code();
    let message =
        proto::DescribeResponse { error_code: code, error: failure.status.message, ..Default::default() };
    message.write_to_bytes().unwrap_or_default().into()
}

#[cfg(test)]
mod tests;
