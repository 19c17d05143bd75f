//! Groups of a host: how they begin, how they end, and how they go for good.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use ringraft_core::{Configuration, GroupId, PeerId, Status, Vote};
use ringraft_storage::{GroupOpening, OpenedGroup, StorageError, StoredGroup};

use super::blank::is_blank;
use super::{Inner, RaftHost};
use crate::error::StartError;
use crate::handler::{Control, FsmGroup, GroupHandle, GroupNames, GroupProgress, OpenGroup};
use crate::identity::creation::begins_anew;
use crate::node::{Node, NodeShared};
use crate::options::NodeOptions;
use crate::pipeline::DiskEvent;
use crate::state_machine::StateMachine;
use crate::status::NodeStatus;
use crate::task::promise::Waiter;
use crate::thread::on_host_thread;

/// How long a start waits for a sole voter to elect itself, which takes one write: longer, and the disk hangs.
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
        for (place, group_id) in names {
            match outcomes.get(place) {
                Some(Some(Ok(node))) if node.is_electing_itself() => {
                    // Whether it leads now, is seen by the first write; why it does not, by `last_error`.
                    let _ = node.wait_for_leader(SELF_ELECTION);
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
    /// begins without a vote; see [`HostOptions::bootstrap_ask_ms`](crate::HostOptions::bootstrap_ask_ms). Groups that have a memory are
    /// left out. [`start_groups`](RaftHost::start_groups) does so by itself.
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
        let meant: Vec<_> =
            groups.iter().map(|(group, _)| GroupOpening { group: group.clone(), creation: 0 }).collect();
        let opened = self.0.open_logs(meant.clone())?;
        let mut blank = Vec::new();
        for ((meant, (_, conf)), opened) in meant.into_iter().zip(groups).zip(opened) {
            if is_blank(&opened?.recovered) {
                blank.push((meant, conf.clone()));
            }
        }
        self.0.ask_peers(&blank)
    }

    /// Stops a group: every completion that waits is answered, its state machine gets `on_shutdown`. Its log stays in the store, and
    /// the group can be started again. Says whether it was running.
    ///
    /// # Errors
    /// [`StartError::OwnThread`] on a thread of the host.
    pub fn stop_group(&self, group_id: &GroupId) -> Result<bool, StartError> {
        self.stop_groups(std::slice::from_ref(group_id)).map(|stopped| stopped > 0)
    }

    /// As [`stop_group`](RaftHost::stop_group) for many at once. Says how many were running.
    ///
    /// # Errors
    /// [`StartError::OwnThread`] on a thread of the host.
    pub fn stop_groups(&self, groups: &[GroupId]) -> Result<usize, StartError> {
        if on_host_thread() {
            return Err(StartError::OwnThread);
        }
        let begun: Vec<_> = groups.iter().filter_map(|group| self.0.begin_stop(group, By::Anybody)).collect();
        Ok(begun.into_iter().filter(|stop| self.0.stopped(stop) == Stopped::Gone).count())
    }

    /// Removes a group from this host for good: stops it if it runs, forgets what it stored, durably, and gives the space back. `creation`
    /// names the life that is meant, so that a late call harms no later one; 0 means whatever is there. Says whether the store had it.
    ///
    /// The name and its creation number are kept: the name starts again on this host only with a higher
    /// [`creation`](NodeOptions::creation). The other members are neither asked nor told. A replica that is removed while the group's
    /// configuration names it is lost to the group, as if its disk had broken; remove the member first, or the group from all hosts.
    ///
    /// # Errors
    /// [`StartError::OtherLife`] when another life is there; [`StartError::OneReplica`] while the group is being started;
    /// [`StartError::BeingRemoved`] while somebody else removes it; [`StartError::Store`] when the store cannot write, and then the group
    /// is stopped and still there; [`StartError::OwnThread`], [`StartError::HostStopped`].
    pub fn remove_group(&self, group_id: &GroupId, creation: u64) -> Result<bool, StartError> {
        if on_host_thread() {
            return Err(StartError::OwnThread);
        }
        let inner = &*self.0;
        inner.begin_removal(group_id)?;
        let removed = self.remove_reserved(group_id, creation);
        inner.groups.lock().removing.remove(group_id);
        removed
    }

    fn remove_reserved(&self, group_id: &GroupId, creation: u64) -> Result<bool, StartError> {
        let inner = &*self.0;
        if let Some(node) = inner.routes.node(group_id.as_str())
            && creation != 0
            && node.creation() != creation
        {
            let (known, removed) = (node.creation(), false);
            let error = StorageError::OtherLife { group: group_id.clone(), asked: creation, known, removed };
            return Err(StartError::of_store(error));
        }
        inner.stop_for_good(group_id)?;
        let removed =
            inner.on_disk(|answer| DiskEvent::Remove { group: group_id.clone(), creation, answer })?;
        let removed = removed.map_err(StartError::of_store)?;
        inner.routes.unopened().remove(group_id);
        inner.asked.lock().remove(group_id);
        if removed {
            tracing::info!(group = %group_id, creation, "the group is removed from this host");
        }
        Ok(removed)
    }

    /// [`StartMode::Rejoin`](crate::StartMode::Rejoin) for one group: stops it if it runs and drops its log, durably and at once. When it is
    /// started again it takes itself for a member that has lost its disk: it votes for nobody and counts in no quorum until it holds what
    /// the others have committed since. The groups beside it notice nothing. For a group whose log is damaged. Says whether the store had
    /// it.
    ///
    /// What only this replica held is gone: a majority of the *other* members must be up and sound.
    ///
    /// # Errors
    /// As for [`remove_group`](RaftHost::remove_group); after [`StartError::Store`] the group is stopped and has its log.
    pub fn rejoin_group(&self, group_id: &GroupId) -> Result<bool, StartError> {
        if on_host_thread() {
            return Err(StartError::OwnThread);
        }
        let inner = &*self.0;
        inner.begin_removal(group_id)?;
        let dropped = inner.stop_for_good(group_id).and_then(|()| {
            let dropped = inner.on_disk(|answer| DiskEvent::Rejoin { group: group_id.clone(), answer })?;
            dropped.map_err(StartError::of_store)
        });
        inner.groups.lock().removing.remove(group_id);
        if let Ok(true) = dropped {
            tracing::warn!(group = %group_id, "the group's log is dropped; it rejoins when it is started");
        }
        dropped
    }

    /// Every group that the store remembers, started or not: those in it in the order of their creation, then those that were removed, in
    /// order of name.
    ///
    /// # Errors
    /// [`StartError::OwnThread`], [`StartError::HostStopped`].
    pub fn stored_groups(&self) -> Result<Vec<StoredGroup>, StartError> {
        if on_host_thread() {
            return Err(StartError::OwnThread);
        }
        self.0.on_disk(|answer| DiskEvent::Stored { answer })
    }
}

/// The same error for another of the groups that it concerns.
fn same(error: &StartError) -> StartError {
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

/// On whose behalf a group is stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Anybody,
    /// Whoever holds the place in [`Groups::removing`](super::Groups).
    Remover,
}

/// A replica that its lane closes.
struct Stop {
    group_id: GroupId,
    handle: GroupHandle,
    answer: Option<Waiter<bool>>,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// It is closed, and all that it wrote is with the disk.
    Gone,
    /// A panic had ended it before.
    WasGone,
    /// The host ends, and with it the replica.
    WithTheHost,
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

    /// Keeps the group from being started until it is gone.
    fn begin_removal(&self, group_id: &GroupId) -> Result<(), StartError> {
        let mut groups = self.groups.lock();
        if groups.closing {
            return Err(StartError::HostStopped);
        }
        if let Some(server) = groups.by_id.get(group_id)
            && self.routes.node(group_id.as_str()).is_none()
        {
            return Err(StartError::OneReplica { group: group_id.clone(), server: server.clone() });
        }
        match groups.removing.insert(group_id.clone()) {
            true => Ok(()),
            false => Err(StartError::BeingRemoved { group: group_id.clone() }),
        }
    }

    /// Has a replica closed by its lane; nothing where none runs, or somebody else removes it.
    fn begin_stop(&self, group_id: &GroupId, by: By) -> Option<Stop> {
        // Under the lock: who removes a group must see that it is being stopped, or keep others from stopping it.
        let groups = self.groups.lock();
        if by == By::Anybody && groups.removing.contains(group_id) {
            return None;
        }
        let node = self.routes.node(group_id.as_str())?;
        let handle = node.handle();
        // Where another caller has stopped it, he may have started it again.
        if !self.routes.remove_life(group_id, handle) {
            return None;
        }
        drop(groups);
        let answer = self.control(handle.lane, |answer| Control::Close { handle, answer });
        Some(Stop { group_id: group_id.clone(), handle, answer })
    }

    /// Waits until a replica is closed. Its name is free only then.
    fn stopped(&self, stop: &Stop) -> Stopped {
        let closed = stop.answer.as_ref().and_then(|answer| answer.wait(None));
        let mut groups = self.groups.lock();
        match closed {
            Some(true) => {
                groups.by_id.remove(&stop.group_id);
                Stopped::Gone
            }
            Some(false) if !groups.closing => {
                // A replica that a panic has ended is not there to be closed.
                groups.by_id.remove(&stop.group_id);
                Stopped::WasGone
            }
            _ => Stopped::WithTheHost,
        }
    }

    /// Stops a group before its log is touched: nothing of it may be on its way to the disk then. A write that comes after it would stand over
    /// what was written there, as a vote over the mark that the vote is withheld.
    fn stop_for_good(&self, group_id: &GroupId) -> Result<(), StartError> {
        let Some(stop) = self.begin_stop(group_id, By::Remover) else {
            let groups = self.groups.lock();
            return match groups.by_id.get(group_id) {
                Some(server) => {
                    Err(StartError::OneReplica { group: group_id.clone(), server: server.clone() })
                }
                None => Ok(()),
            };
        };
        match self.stopped(&stop) {
            Stopped::Gone => Ok(()),
            Stopped::WasGone => {
                // The turn in which it ended may be this one, and what it wrote before leaves at the turn's end: another turn is waited for.
                let handle = stop.handle;
                let answer = self.control(handle.lane, |answer| Control::Close { handle, answer });
                answer.and_then(|answer| answer.wait(None)).map(|_| ()).ok_or(StartError::HostStopped)
            }
            Stopped::WithTheHost => Err(StartError::HostStopped),
        }
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
            if is_blank(&log.recovered) && !self.asked.lock().contains_key(&start.group_id) {
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
        if is_blank(&recovered) && self.has_lost_its_memory(&group_id) {
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

#[cfg(test)]
mod tests {
    use ringraft_net::inproc::Network;

    use super::*;
    use crate::{HostOptions, Iterator, StartMode, StoreOptions, TransportOptions};

    struct Nothing;

    impl StateMachine for Nothing {
        fn on_apply(&mut self, iter: &mut Iterator<'_>) {
            while iter.next().is_some() {}
        }
    }

    fn host() -> RaftHost {
        let mut options = HostOptions::new("127.0.0.1:1", StoreOptions::Memory);
        options.transport = TransportOptions::Inproc(Network::new());
        options.start_mode = StartMode::Bootstrap;
        options.bootstrap_ask_ms = 0;
        RaftHost::start(options).unwrap()
    }

    fn start(host: &RaftHost, group: &GroupId) -> Result<Node, StartError> {
        let options = NodeOptions { initial_conf: "127.0.0.1:1".parse().unwrap(), ..NodeOptions::default() };
        host.start_group(group.clone(), "127.0.0.1:1".parse().unwrap(), options, Box::new(Nothing))
    }

    /// Whoever drops a log must be the one who has stopped the group: of a replica that is still being closed for somebody else a vote may
    /// be on its way to the disk, and stand over the mark that the vote is withheld.
    #[test]
    fn a_log_is_dropped_by_who_has_stopped_the_group() {
        let (host, group) = (host(), "g".parse().unwrap());
        start(&host, &group).unwrap();
        host.0.begin_removal(&group).unwrap();
        assert!(!host.stop_group(&group).unwrap(), "it is left to who removes it");
        assert!(host.node(&group).is_some());
        host.0.stop_for_good(&group).unwrap();
        host.0.groups.lock().removing.clear();
        start(&host, &group).unwrap();
        // Somebody stops it, and has not heard yet that it is closed.
        let stop = host.0.begin_stop(&group, By::Anybody).unwrap();
        for _ in 0..2 {
            assert!(matches!(host.rejoin_group(&group), Err(StartError::OneReplica { .. })));
            assert!(matches!(host.remove_group(&group, 0), Err(StartError::OneReplica { .. })));
            assert!(matches!(start(&host, &group), Err(StartError::OneReplica { .. })));
        }
        assert!(host.0.stopped(&stop) == Stopped::Gone);
        assert!(host.rejoin_group(&group).unwrap());
        host.shutdown();
        assert!(matches!(host.rejoin_group(&group), Err(StartError::HostStopped)));
    }
}
