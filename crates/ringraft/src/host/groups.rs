//! Groups of a host: how they begin. How they end is in [`endings`](super::endings).

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringraft_core::{Configuration, GroupId, PeerId, Status, Vote};
use ringraft_storage::{GroupOpening, OpenedGroup};

use super::{Inner, RaftHost};
use crate::error::StartError;
use crate::handler::{Control, FsmGroup, GroupHandle, GroupNames, GroupProgress, OpenGroup};
use crate::identity::creation::begins_anew;
use crate::node::{Node, NodeShared};
use crate::options::NodeOptions;
use crate::pipeline::{DiskEvent, is_blank};
use crate::state_machine::StateMachine;
use crate::status::NodeStatus;
use crate::task::promise::Waiter;
use crate::thread::on_host_thread;

/// How long a start waits for sole voters to elect themselves, which takes a write: longer, and the disk hangs.
const SELF_ELECTION: Duration = Duration::from_secs(5);

/// A replica that is to be started.
pub struct GroupStart {
    /// The group.
    pub group_id: GroupId,
    /// This replica: the host's endpoint, and a number where several of them would share it.
    pub server_id: PeerId,
    /// Its settings, [`creation`](NodeOptions::creation) among them.
    pub options: NodeOptions,
    /// What it replicates.
    pub state_machine: Box<dyn StateMachine>,
}

impl fmt::Debug for GroupStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupStart")
            .field("group_id", &self.group_id)
            .field("server_id", &self.server_id)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A replica that was checked and has its place in the host.
struct Reserved {
    /// Its place among those that are started together.
    place: usize,
    /// How many were started on this host before it.
    number: usize,
    start: GroupStart,
}

/// A replica that its lane is opening.
struct Opening {
    place: usize,
    waiter: Waiter<Result<GroupHandle, Status>>,
    lane: u16,
    worker: usize,
    group_id: GroupId,
    server_id: PeerId,
    creation: u64,
    options: NodeOptions,
    status: Arc<NodeStatus>,
}

impl RaftHost {
    /// Starts a replica of a group on this host. Waits until the group is opened in the store and, when the replica is the only voter,
    /// until it leads, so that it can be written to at once; others call [`Node::wait_for_leader`]. A group of which this host has no
    /// memory may ask its peers first, see [`HostOptions::bootstrap_ask_ms`](crate::HostOptions::bootstrap_ask_ms).
    ///
    /// # Errors
    /// [`StartError`]: wrong options, an id that is not on this host, a group that runs already, another life of the group than the store
    /// knows, a store that has failed.
    pub fn start_group(
        &self,
        group_id: GroupId,
        server_id: PeerId,
        options: NodeOptions,
        state_machine: Box<dyn StateMachine>,
    ) -> Result<Node, StartError> {
        let start = GroupStart { group_id, server_id, options, state_machine };
        self.start_groups(vec![start]).pop().unwrap_or(Err(StartError::HostStopped))
    }

    /// As [`start_group`](RaftHost::start_group) for many at once, with the outcome of each in its place: those that the store does not
    /// know are created in one durable write, and those without memory ask each peer together.
    pub fn start_groups(&self, groups: Vec<GroupStart>) -> Vec<Result<Node, StartError>> {
        if on_host_thread() {
            return groups.into_iter().map(|_| Err(StartError::OwnThread)).collect();
        }
        let inner = &*self.0;
        let mut outcomes: Vec<Option<Result<Node, StartError>>> = Vec::with_capacity(groups.len());
        let mut reserved = Vec::with_capacity(groups.len());
        for (place, start) in groups.into_iter().enumerate() {
            match inner.check(&start).and_then(|()| inner.reserve(&start.group_id, &start.server_id)) {
                Ok(number) => {
                    outcomes.push(None);
                    reserved.push(Reserved { place, number, start });
                }
                Err(error) => outcomes.push(Some(Err(error))),
            }
        }
        let names: Vec<(usize, GroupId)> =
            reserved.iter().map(|group| (group.place, group.start.group_id.clone())).collect();
        inner.start_all(reserved, &mut outcomes);
        // All elect themselves meanwhile: the last of them has waited for as long as the first.
        let until = Instant::now() + SELF_ELECTION;
        for (place, group_id) in names {
            match outcomes.get(place) {
                Some(Some(Ok(node))) if node.is_electing_itself() => {
                    // Whether it leads now, is seen by the first write; why it does not, by `last_error`.
                    let _ = node.wait_for_leader(until.saturating_duration_since(Instant::now()));
                }
                Some(Some(Ok(_))) => {}
                _ => {
                    inner.groups.lock().by_id.remove(&group_id);
                }
            }
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Err(StartError::HostStopped))).collect()
    }

    /// Asks, for many groups without a creation number at once, what [`start_group`](RaftHost::start_group) would ask for each by itself:
    /// whether the peers in its initial configuration have committed entries of a group of which this host has no memory. Such a group
    /// begins without a vote; see [`HostOptions::bootstrap_ask_ms`](crate::HostOptions::bootstrap_ask_ms). Groups that have a memory, that run
    /// or were removed are left out; none is created by that. [`start_groups`](RaftHost::start_groups) does so by itself.
    ///
    /// # Errors
    /// [`StartError`] when the store or the network fails.
    pub fn ask_peers(&self, groups: &[(GroupId, Configuration)]) -> Result<(), StartError> {
        if on_host_thread() {
            return Err(StartError::OwnThread);
        }
        if self.0.question.is_none() {
            return Ok(());
        }
        let names = groups.iter().map(|(group, _)| group.clone()).collect();
        let found = self.0.on_disk(|answer| DiskEvent::Blank { groups: names, answer })?;
        let found = found.map_err(StartError::of_store)?;
        let blank = groups.iter().zip(found).filter_map(|((group, conf), creation)| {
            // One that runs has asked, or knows better.
            let creation = creation.filter(|_| self.node(group).is_none())?;
            Some((GroupOpening { group: group.clone(), creation }, conf.clone()))
        });
        self.0.ask_peers(&blank.collect::<Vec<_>>())
    }
}

/// The same error for another of the groups that it concerns.
pub(super) fn same(error: &StartError) -> StartError {
    match error {
        StartError::HostStopped => StartError::HostStopped,
        StartError::Store(reason) => StartError::Store(reason.clone()),
        StartError::Thread { name, message } => {
            StartError::Thread { name: name.clone(), message: message.clone() }
        }
        StartError::Net(reason) => StartError::Net(reason.clone()),
        other => StartError::Net(other.to_string()),
    }
}

impl Inner {
    fn check(&self, start: &GroupStart) -> Result<(), StartError> {
        let GroupStart { group_id, server_id, options, .. } = start;
        options
            .validate_for(server_id)
            .and_then(|()| options.raft_options.validate_frame(self.max_task_bytes, self.frame_bytes))
            .map_err(|error| StartError::Options { group: group_id.clone(), error })?;
        if server_id.endpoint() != self.endpoint {
            return Err(StartError::WrongEndpoint {
                server: server_id.clone(),
                endpoint: self.endpoint.clone(),
            });
        }
        Ok(())
    }

    fn reserve(&self, group_id: &GroupId, server_id: &PeerId) -> Result<usize, StartError> {
        let mut groups = self.groups.lock();
        if groups.closing {
            return Err(StartError::HostStopped);
        }
        if groups.removing.contains(group_id) {
            return Err(StartError::BeingRemoved { group: group_id.clone() });
        }
        if let Some(server) = groups.by_id.get(group_id) {
            return Err(StartError::OneReplica { group: group_id.clone(), server: server.clone() });
        }
        groups.by_id.insert(group_id.clone(), server_id.clone());
        groups.started += 1;
        Ok(groups.started - 1)
    }

    /// Whether the group may have lived here before the disk was lost.
    fn rejoins(&self, creation: u64) -> bool {
        self.rejoined && !begins_anew(self.rejoined_after, creation)
    }

    /// Starts those that have their places; what becomes of each stands at its place in `outcomes`.
    fn start_all(&self, reserved: Vec<Reserved>, outcomes: &mut [Option<Result<Node, StartError>>]) {
        let meant = |group: &Reserved| {
            let creation = group.start.options.creation;
            GroupOpening { group: group.start.group_id.clone(), creation }
        };
        let logs = match self.open_logs(reserved.iter().map(meant).collect()) {
            Ok(logs) => logs,
            Err(error) => {
                reserved.iter().for_each(|group| outcomes[group.place] = Some(Err(same(&error))));
                return;
            }
        };
        let mut found = Vec::with_capacity(reserved.len());
        for (group, log) in reserved.into_iter().zip(logs) {
            match log {
                Ok(log) => found.push((group, log)),
                Err(error) => outcomes[group.place] = Some(Err(error)),
            }
        }
        if let Err(error) = self.ask_for_blank(&found) {
            found.iter().for_each(|(group, _)| outcomes[group.place] = Some(Err(same(&error))));
            return;
        }
        let mut opening = Vec::with_capacity(found.len());
        for (group, log) in found {
            let place = group.place;
            match self.open(group, log) {
                Ok(begun) => opening.push(begun),
                Err(error) => outcomes[place] = Some(Err(error)),
            }
        }
        for begun in opening {
            let place = begun.place;
            outcomes[place] = Some(self.opened(begun));
        }
    }

    /// Asks the peers of all groups that remember nothing, but for those for which they were asked before.
    fn ask_for_blank(&self, found: &[(Reserved, OpenedGroup)]) -> Result<(), StartError> {
        let mut blank = Vec::new();
        for (Reserved { start, .. }, log) in found {
            if is_blank(&log.recovered) && !self.was_asked(&start.group_id, log.creation) {
                let meant = GroupOpening { group: start.group_id.clone(), creation: log.creation };
                blank.push((meant, start.options.initial_conf.clone()));
            }
        }
        self.ask_peers(&blank)
    }

    /// Has the lane open a replica whose log is open.
    fn open(&self, group: Reserved, log: OpenedGroup) -> Result<Opening, StartError> {
        let Reserved { place, number, start } = group;
        let GroupStart { group_id, server_id, options, state_machine } = start;
        let (mut options, server_id) = (options.clone(), options.with_priority(server_id));
        let OpenedGroup { key, creation, mut recovered } = log;
        let rejoins = self.rejoins(creation);
        if is_blank(&recovered) && self.has_lost_its_memory(&group_id, creation) {
            self.withhold(key)?;
            recovered.hard_state.vote = Vote::Withheld;
        }
        if rejoins || recovered.hard_state.vote == Vote::Withheld && recovered.last_index == 0 {
            options.initial_conf = Configuration::default();
        }
        let gate = Arc::clone(&self.gate);
        let names = GroupNames::in_cluster(group_id.clone(), server_id.clone(), creation, gate);
        let (progress, status) = (Arc::new(GroupProgress::default()), Arc::new(NodeStatus::default()));
        let lane = number % self.lanes.len();
        // Groups of one lane spread over all workers.
        let worker = (number / self.lanes.len() + lane) % self.fsm_workers;
        status.set_applied(recovered.before_first.index);
        let fsm = FsmGroup::new(
            Arc::clone(&names),
            state_machine,
            Arc::clone(&progress),
            Arc::clone(&status),
            recovered.before_first.index,
        );
        let mut core = options.clone().to_core(group_id.clone(), server_id.clone());
        core.rejoin = rejoins;
        core.max_entry_bytes = self.largest_entry;
        let open = OpenGroup {
            names,
            key,
            options: core,
            recovered,
            seed: RandomState::new().hash_one((group_id.as_str(), number)),
            worker: worker as u16,
            progress,
            status: Arc::clone(&status),
            fsm: Box::new(fsm),
        };
        let lane = lane as u16;
        let waiter = self
            .control(lane, |answer| Control::Open { group: Box::new(open), answer })
            .ok_or(StartError::HostStopped)?;
        Ok(Opening { place, waiter, lane, worker, group_id, server_id, creation, options, status })
    }

    /// Waits for a replica that is being opened and makes it reachable.
    fn opened(&self, begun: Opening) -> Result<Node, StartError> {
        let Opening { waiter, lane, worker, group_id, server_id, creation, options, status, .. } = begun;
        let handle = waiter
            .wait(None)
            .ok_or(StartError::HostStopped)?
            .map_err(|status: Status| StartError::Node { group: group_id.clone(), status })?;
        let rings = &self.lanes[usize::from(lane)].0;
        let shared = NodeShared {
            group_id,
            server_id,
            handle,
            apply_task_mode: options.apply_task_mode,
            max_task_bytes: self.max_task_bytes,
            creation,
            disable_cli: options.disable_cli,
            read_index_timeout_ms: options.raft_options.read_index_timeout_ms,
            status,
            credit: Arc::clone(&rings.credit[worker]),
            control: rings.control.clone(),
        };
        let node = Node::new(Arc::new(shared), rings.tasks[worker].clone());
        self.routes.insert_node(node.clone());
        self.routes.unopened().remove(node.group_id());
        Ok(node)
    }
}
