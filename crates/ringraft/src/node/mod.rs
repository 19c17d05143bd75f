//! The handle through which callers use one replica (SOFAJRaft's `Node`).

pub(crate) mod calls;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringraft_core::{
    ConfigurationEntry, GroupId, LogIndex, NodeDescription, NodeState, PeerId, RaftError, Status, Term,
};
use ringraft_ring::{Producer, TryPublishError};

use crate::handler::{ApplyEvent, Control, GroupHandle, LaneEvent};
use crate::options::ApplyTaskMode;
use crate::status::NodeStatus;
use crate::status::leader_watch::LeaderFuture;
use crate::task::Task;
use crate::task::completion::{ApplyError, ApplyResult, Completion, Deliveries};
use crate::task::credit::{Closed, TaskCredit, cost};
use crate::task::promise::{Expiry, promise};
use crate::task::propose_future::ProposeFuture;
use crate::thread::clock::now;
use crate::thread::on_host_thread;

/// What stays the same for all handles of one node.
#[derive(Debug)]
pub(crate) struct NodeShared {
    pub(crate) group_id: GroupId,
    pub(crate) server_id: PeerId,
    pub(crate) handle: GroupHandle,
    pub(crate) apply_task_mode: ApplyTaskMode,
    pub(crate) max_task_bytes: usize,
    /// Creation number of this life of the group; 0 for none.
    pub(crate) creation: u64,
    pub(crate) disable_cli: bool,
    pub(crate) read_index_timeout_ms: u64,
    pub(crate) status: Arc<NodeStatus>,
    /// Room in bytes of the lane's ring for tasks of this group's worker.
    pub(crate) credit: Arc<TaskCredit>,
    /// The lane's ring for control, which is drained whatever else waits.
    pub(crate) control: Producer<LaneEvent>,
}

/// A replica of a group on this host. Clone it for each thread that applies: a clone remembers how full the apply ring was, and
/// threads that share one share that memory's cache line. The node outlives its handles; it stops with
/// [`RaftHost::stop_group`](crate::RaftHost::stop_group) or its host.
#[derive(Clone)]
pub struct Node {
    shared: Arc<NodeShared>,
    /// The lane's apply ring for the groups of this one's worker.
    ring: Producer<LaneEvent>,
}

impl Node {
    pub(crate) fn new(shared: Arc<NodeShared>, ring: Producer<LaneEvent>) -> Node {
        Node { shared, ring }
    }

    pub(crate) fn handle(&self) -> GroupHandle {
        self.shared.handle
    }

    /// Hands a task to the group. Its outcome goes to [`Task::done`], exactly once, whatever this returns.
    ///
    /// `Ok` says that the owner gets the task, not that it proposes it: it may yet be refused, with `Busy` where too much of the group waits
    /// for disk or state machine ([`RaftOptions`](crate::RaftOptions), `max_unstable_*` and `max_unapplied_entries`), in either
    /// [`ApplyTaskMode`]. Tasks behind it may pass. Who needs all of them, in order, looks at each outcome and keeps fewer under way than those bounds.
    ///
    /// # Errors
    /// The task was refused at once, and the completion has been told the same: [`ApplyError::TooLarge`],
    /// [`ApplyError::Busy`] (the apply ring is full, in slots or in [bytes](crate::HostOptions::max_queued_bytes), and the group's
    /// [`ApplyTaskMode`] is non-blocking), [`ApplyError::Shutdown`].
    pub fn apply(&self, task: Task) -> Result<(), ApplyError> {
        let Task { data, done, expected_term } = task;
        if data.len() > self.shared.max_task_bytes {
            return self.refuse(done, self.too_large(data.len()));
        }
        let bytes = cost(data.len());
        if let Err(reason) = self.take_credit(bytes) {
            return self.refuse(done, reason);
        }
        let event = LaneEvent::Apply(ApplyEvent::new(self.shared.handle, expected_term, data, done));
        let error = match self.publish(event) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        self.shared.credit.give_back(bytes);
        // Rule R1: whoever did not ask to wait hears of it at once.
        let reason = if error.is_full() { ApplyError::Busy } else { ApplyError::Shutdown };
        match error.into_inner() {
            LaneEvent::Apply(event) => self.refuse(event.done, reason),
            _ => Err(reason),
        }
    }

    /// Takes room for a task in bytes, waiting for it where the group's mode says so.
    #[inline]
    fn take_credit(&self, bytes: usize) -> Result<(), ApplyError> {
        if self.shared.credit.try_take(bytes) {
            return Ok(());
        }
        if !self.may_block() {
            return Err(ApplyError::Busy);
        }
        self.shared.credit.take(bytes).map_err(|Closed| ApplyError::Shutdown)
    }

    /// How many of the tasks, from the first on, have got room in bytes. At least one where the group's mode is to wait.
    fn take_credits(&self, tasks: &[Task]) -> Result<usize, ApplyError> {
        let credit = &self.shared.credit;
        if credit.try_take_all(tasks.iter().map(|task| cost(task.data.len())).sum()) {
            return Ok(tasks.len());
        }
        let fitting = tasks.iter().take_while(|task| credit.try_take(cost(task.data.len()))).count();
        match tasks.first() {
            Some(first) if fitting == 0 && self.may_block() => {
                self.take_credit(cost(first.data.len())).map(|()| 1)
            }
            _ => Ok(fitting),
        }
    }

    /// Hands tasks to the group, in order, with one claim of the ring; for tasks that were taken the same holds as for
    /// [`apply`](Node::apply): the owner may yet refuse some of them. Tasks that were taken leave the vector from its front, and
    /// their number is returned. With a non-blocking [`ApplyTaskMode`] the rest stays in the vector untouched, for a
    /// later try; otherwise this waits until all are taken.
    ///
    /// # Errors
    /// [`ApplyError::Shutdown`]: nothing more can be taken; [`ApplyError::TooLarge`]: a task is over the limit, and nothing
    /// was taken. What was not taken is still in the vector, its completions untouched.
    pub fn apply_batch(&self, tasks: &mut Vec<Task>) -> Result<usize, ApplyError> {
        if let Some(task) = tasks.iter().find(|task| task.data.len() > self.shared.max_task_bytes) {
            return Err(self.too_large(task.data.len()));
        }
        let offered = tasks.len();
        while !tasks.is_empty() {
            let ready = self.take_credits(tasks)?;
            let taken = self.publish_tasks(tasks, ready)?;
            if taken < ready || !self.may_block() {
                break;
            }
        }
        Ok(offered - tasks.len())
    }

    /// Publishes the first `ready` tasks, which have got their room in bytes, and says how many went. What did not go is still there.
    fn publish_tasks(&self, tasks: &mut Vec<Task>, ready: usize) -> Result<usize, ApplyError> {
        let handle = self.shared.handle;
        let mut events: Vec<LaneEvent> = tasks
            .drain(..ready)
            .map(|task| LaneEvent::Apply(ApplyEvent::new(handle, task.expected_term, task.data, task.done)))
            .collect();
        let mut outcome = self.ring.try_publish_batch(&mut events).map_err(|_| ApplyError::Shutdown);
        if outcome.is_ok() && !events.is_empty() && self.may_block() {
            outcome = self.publish_all(&mut events);
        }
        let left = events.len();
        if left > 0 {
            tasks.splice(0..0, events.into_iter().filter_map(LaneEvent::into_task));
            self.shared.credit.give_back(tasks.iter().take(left).map(|task| cost(task.data.len())).sum());
        }
        outcome.map(|_| ready - left)
    }

    /// Publishes every event, waiting for room; on a closed ring the rest stays.
    fn publish_all(&self, events: &mut Vec<LaneEvent>) -> Result<usize, ApplyError> {
        while !events.is_empty() {
            // One that waits for room, then as many as there is room for.
            if let Err(closed) = self.ring.publish(events.remove(0)) {
                events.insert(0, closed.into_inner());
                return Err(ApplyError::Shutdown);
            }
            self.ring.try_publish_batch(events).map_err(|_| ApplyError::Shutdown)?;
        }
        Ok(0)
    }

    /// Proposes a command: await the future, or block with [`ProposeFuture::wait`]. A refusal is the future's outcome.
    pub fn propose(&self, data: impl Into<bytes::Bytes>) -> ProposeFuture {
        let (promise, waiter) = promise();
        // The refusal, if any, is what the future says.
        let _ = self.apply(Task::new(data, Completion::promise(promise)));
        ProposeFuture::new(waiter)
    }

    /// Publishes a command to the owner. Waits for room for `limit` at most, and on a thread of the host not at all; room is a turn of
    /// the owner away, whatever disk and state machines do.
    pub(crate) fn publish_control(
        &self,
        control: Control,
        limit: Duration,
    ) -> Result<(), TryPublishError<LaneEvent>> {
        let event = LaneEvent::Control(Box::new(control));
        if on_host_thread() {
            return self.shared.control.try_publish(event);
        }
        self.shared.control.publish_timeout(event, limit)
    }

    /// Publishes a task or a read to the owner, waiting for room where the group's mode says so.
    pub(crate) fn publish(&self, event: LaneEvent) -> Result<(), TryPublishError<LaneEvent>> {
        if self.may_block() {
            return self.ring.publish(event).map_err(|closed| TryPublishError::Closed(closed.into_inner()));
        }
        self.ring.try_publish(event)
    }

    /// Publishes a read, which may wait no longer than a read may in all.
    pub(crate) fn publish_read(&self, event: LaneEvent) -> Result<(), TryPublishError<LaneEvent>> {
        if self.may_block() {
            let limit = Duration::from_millis(self.shared.read_index_timeout_ms);
            return self.ring.publish_timeout(event, limit);
        }
        self.ring.try_publish(event)
    }

    /// Has the owner end the read of a future in its time.
    pub(crate) fn watch_read(&self, read: Expiry<ApplyResult>) -> Result<(), ApplyError> {
        let (handle, limit) = (self.shared.handle, self.shared.read_index_timeout_ms);
        let reads = self.shared.status.read_deadlines();
        if !reads.add(now, limit, read)? {
            return Ok(());
        }
        let told = self.publish_control(Control::WatchReads { handle }, Duration::from_millis(limit));
        told.map_err(|error| {
            reads.owner_was_not_told();
            if error.is_full() { ApplyError::Busy } else { ApplyError::Shutdown }
        })
    }

    /// Whether requests of a `CliService` are refused.
    pub(crate) fn refuses_cli(&self) -> bool {
        self.shared.disable_cli
    }

    fn may_block(&self) -> bool {
        self.shared.apply_task_mode == ApplyTaskMode::Blocking && !on_host_thread()
    }

    fn too_large(&self, size: usize) -> ApplyError {
        ApplyError::TooLarge { size, limit: self.shared.max_task_bytes }
    }

    #[cold]
    fn refuse(&self, done: Completion, error: ApplyError) -> Result<(), ApplyError> {
        if error == ApplyError::Busy {
            metrics::counter!("apply-task-overload-times").increment(1);
        }
        let outcome: ApplyResult = Err(error.clone());
        Deliveries::new().deliver(done, outcome);
        Err(error)
    }

    /// Name of the group.
    pub fn group_id(&self) -> &GroupId {
        &self.shared.group_id
    }

    /// This replica's id.
    pub fn server_id(&self) -> &PeerId {
        &self.shared.server_id
    }

    /// Which creation of the group's name this is, as whoever creates groups counts; 0 where groups are not numbered.
    pub fn creation(&self) -> u64 {
        self.shared.creation
    }

    /// Group and server id (SOFAJRaft's `NodeId`, `<group/server>`).
    pub fn node_id(&self) -> String {
        format!("<{}/{}>", self.shared.group_id, self.shared.server_id)
    }

    /// What the node is doing.
    pub fn state(&self) -> NodeState {
        self.shared.status.state()
    }

    /// Whether this node leads its group, as far as it knows: another may have been elected since.
    pub fn is_leader(&self) -> bool {
        self.state() == NodeState::Leader
    }

    /// The leader that this node knows.
    pub fn leader_id(&self) -> Option<PeerId> {
        self.shared.status.leader()
    }

    /// Waits until this node knows a leader, itself or another, and gives it; at once when it knows one. On the leader writes are taken
    /// from then on, though another may have been elected since. To await it, see [`leader_elected`](Node::leader_elected).
    ///
    /// # Errors
    /// `ETIMEDOUT` when there was none within `timeout`, `ENODESHUTDOWN` when the node stops, the status of its failure when it fails,
    /// `EPERM` at once on a thread of a host, which would wait for itself.
    pub fn wait_for_leader(&self, timeout: Duration) -> Result<PeerId, Status> {
        self.leader_elected().wait(timeout)
    }

    /// As [`wait_for_leader`](Node::wait_for_leader), as a future and without a time-out of its own.
    pub fn leader_elected(&self) -> LeaderFuture {
        self.shared.status.leader_elected()
    }

    /// Whether it asks nobody for votes, because nobody else has one, and will lead as soon as its own is durable.
    pub(crate) fn is_electing_itself(&self) -> bool {
        let members = self.configuration();
        self.state() == NodeState::Candidate
            && !members.is_joint()
            && members.conf.peers.len() == 1
            && members.is_voter(self.server_id())
    }

    /// The members by this replica's log, on leader, follower and learner alike, with the position of the entry that says so: the index
    /// is what [`change_members`](Node::change_members) takes as `prev_index`. The entry may not be committed yet. Before the log has
    /// one it is the initial configuration at 0/0; members that were forced upon this replica stand at the end of its log as it was
    /// then.
    pub fn configuration(&self) -> ConfigurationEntry {
        self.shared.status.configuration()
    }

    /// Index of the committed configuration that no longer names this replica, when it knows that it was removed. It campaigns and
    /// asks for votes no more, also after a restart, until a newer configuration names it: stop it with
    /// [`RaftHost::stop_group`](crate::RaftHost::stop_group), or add it again.
    pub fn removed_at(&self) -> Option<LogIndex> {
        self.shared.status.removed_at()
    }

    /// The latest term that this node has seen.
    pub fn term(&self) -> Term {
        self.shared.status.term()
    }

    /// Index of the last entry of the log, durable or not.
    pub fn last_log_index(&self) -> LogIndex {
        self.shared.status.last_log()
    }

    /// Index of the last durable entry.
    pub fn last_stable_index(&self) -> LogIndex {
        self.shared.status.stable()
    }

    /// Index of the last entry known to be committed.
    pub fn last_committed_index(&self) -> LogIndex {
        self.shared.status.committed()
    }

    /// Index of the last applied entry.
    pub fn last_applied_index(&self) -> LogIndex {
        self.shared.status.applied()
    }

    /// Why the node is in error state; `None` when it is not.
    pub fn last_error(&self) -> Option<Status> {
        self.shared.status.error()
    }

    /// What the owner says about the node, taken between two of its turns. Waits for the owner at most `timeout`.
    ///
    /// # Errors
    /// `ETIMEDOUT` when the owner did not answer, `ESHUTDOWN` when the node or the host has stopped, `EPERM` on a thread of the
    /// host itself, which would wait for itself.
    pub fn describe(&self, timeout: Duration) -> Result<NodeDescription, Status> {
        if on_host_thread() {
            return Err(Status::new(
                RaftError::NotPermitted,
                "describe cannot be called on a thread of the host",
            ));
        }
        let (promise, waiter) = promise();
        let control = Control::Describe { handle: self.shared.handle, answer: promise };
        let stopped = || Status::new(RaftError::Shutdown, "the node has stopped");
        let timed_out = || Status::new(RaftError::TimedOut, "the owner of the group did not answer in time");
        let begin = Instant::now();
        self.publish_control(control, timeout)
            .map_err(|error| if error.is_full() { timed_out() } else { stopped() })?;
        let waited = waiter.wait(Some(timeout.saturating_sub(begin.elapsed())));
        waited.ok_or_else(timed_out)?.ok_or_else(stopped)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node{} {}", self.node_id(), self.state())
    }
}
