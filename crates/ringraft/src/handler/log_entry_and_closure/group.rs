//! One group in its lane: the node, and what belongs to its owner alone.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ringraft_core::{
    CallOutcome, ChunkBuilder, Effects, Input, Mutant, NodeImpl, NodeState, ProposeError, Proposed,
    RaftError, Status, Term, Time,
};
use ringraft_storage::GroupKey;

use crate::handler::log_entry_and_closure::waiting_calls::WaitingCalls;
use crate::handler::{ApplyEvent, FsmTask, GroupHandle, GroupProgress, SharedNames};
use crate::status::{NodeStatus, StatusNumbers};
use crate::task::closure_queue::ClosureQueue;
use crate::task::completion::Completion;
use crate::thread::panic_text;

/// A group in its lane.
pub(super) struct Group {
    pub(super) handle: GroupHandle,
    pub(super) names: SharedNames,
    pub(super) key: GroupKey,
    pub(super) worker: u16,
    pub(super) progress: Arc<GroupProgress>,
    node: NodeImpl,
    status: Arc<NodeStatus>,
    /// A step panicked: the node is not touched again.
    panicked: Option<Status>,
    /// The state machine was told of the panic.
    panic_reported: bool,
    pub(super) closures: ClosureQueue,
    pub(super) calls: WaitingCalls,
    /// Tasks of this turn, on their way into one proposal.
    pub(super) tasks: PendingTasks,
    /// Tasks that this turn has taken.
    pub(super) turn_tasks: usize,
    /// Tasks over the group's share of a turn.
    pub(super) backlog: VecDeque<ApplyEvent>,
    /// It stands in the list of groups whose committed entries wait for room with their worker.
    pub(super) held: bool,
    /// Bytes with which it counts among the entries that its worker has not applied.
    unapplied: usize,
    /// Bytes with which it counts among the entries that the lane keeps in memory.
    tail: usize,
    /// It stands in the list of groups that keep some.
    pub(super) tail_listed: bool,
    /// Progress that the node has been told.
    seen_stable: u64,
    seen_applied: u64,
    /// Its campaign waits for its turn, and is due by itself at this time.
    pub(super) postponed: Option<Time>,
    /// Somebody asked something of it while it did not lead.
    pub(super) asked: bool,
    /// When the timer queue will look at the group.
    pub(super) armed: Option<Time>,
    /// It stands in the list of groups that something happened to in this turn.
    pub(super) touched: bool,
}

/// Tasks that wait to be proposed together.
#[derive(Default)]
pub(super) struct PendingTasks {
    builder: ChunkBuilder,
    completions: Vec<Completion>,
    /// A term that tasks in here expect; 0 when none does.
    expected_term: Term,
}

impl PendingTasks {
    pub(super) fn is_empty(&self) -> bool {
        self.completions.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.completions.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.builder.payload_len()
    }

    pub(super) fn expects_term(&self) -> bool {
        self.expected_term != 0
    }

    #[inline]
    pub(super) fn push(&mut self, task: ApplyEvent) {
        self.builder.push(&task.data);
        self.completions.push(task.done);
        self.expected_term |= task.expected_term;
    }

    /// A large task alone, without a copy of its payload.
    pub(super) fn push_alone(&mut self, task: ApplyEvent) {
        debug_assert!(self.is_empty());
        self.builder = ChunkBuilder::alone(task.data);
        self.completions.push(task.done);
    }
}

impl Group {
    pub(super) fn new(
        handle: GroupHandle,
        names: SharedNames,
        key: GroupKey,
        worker: u16,
        progress: Arc<GroupProgress>,
        status: Arc<NodeStatus>,
        node: NodeImpl,
    ) -> Group {
        Group {
            handle,
            names,
            key,
            worker,
            progress,
            node,
            status,
            panicked: None,
            panic_reported: false,
            closures: ClosureQueue::default(),
            calls: WaitingCalls::default(),
            tasks: PendingTasks::default(),
            turn_tasks: 0,
            backlog: VecDeque::new(),
            held: false,
            unapplied: 0,
            tail: 0,
            tail_listed: false,
            seen_stable: 0,
            seen_applied: 0,
            postponed: None,
            asked: false,
            armed: None,
            touched: false,
        }
    }

    /// Why the node is not used any more after a panic.
    pub(super) fn panicked(&self) -> Option<&Status> {
        self.panicked.as_ref()
    }

    /// Whether the panic has still to be reported; true once.
    pub(super) fn report_panic(&mut self) -> bool {
        !std::mem::replace(&mut self.panic_reported, true)
    }

    /// The node, for questions.
    pub(super) fn node(&self) -> &NodeImpl {
        &self.node
    }

    /// Runs `call` on the node. Rule X1: a panic drops the effects of the call whole, and the node is not used again.
    fn guarded<T>(
        &mut self,
        fx: &mut Effects,
        call: impl FnOnce(&mut NodeImpl, &mut Effects) -> T,
    ) -> Option<T> {
        if self.panicked.is_some() {
            return None;
        }
        let node = &mut self.node;
        match catch_unwind(AssertUnwindSafe(|| call(node, fx))) {
            Ok(value) => Some(value),
            Err(payload) => {
                *fx = Effects::new();
                let message = format!("the node of this group panicked: {}", panic_text(&*payload));
                tracing::error!(group = %self.names.group_id, server = %self.names.server_id, "{message}");
                self.panicked = Some(Status::new(RaftError::BadNode, message));
                None
            }
        }
    }

    pub(super) fn start(&mut self, now: Time, fx: &mut Effects) {
        self.guarded(fx, |node, fx| node.start(now, fx));
    }

    /// The group's worker has room for so many bytes of entries; beyond it the node keeps what is committed.
    pub(super) fn step(&mut self, now: Time, input: Input, room: usize, fx: &mut Effects) {
        self.guarded(fx, |node, fx| {
            node.allow_delivery(room);
            node.step(now, input, fx);
        });
    }

    /// Bytes of entries that its worker holds or will get from a read: as counted before, and now. What the worker holds of a group that
    /// has failed it drops, and nobody tells: it counts no more.
    pub(super) fn count_unapplied(&mut self) -> (usize, usize) {
        let now = if self.panicked.is_some() { 0 } else { self.node.unapplied_bytes() };
        (std::mem::replace(&mut self.unapplied, now), now)
    }

    /// Bytes of its log in memory: as counted before, and now. A node that panicked is not used again, and keeps what it has until it is
    /// closed.
    pub(super) fn count_tail(&mut self) -> (usize, usize) {
        let now = self.node.tail_bytes();
        (std::mem::replace(&mut self.tail, now), now)
    }

    /// Bytes with which it counts among what the lane keeps.
    pub(super) fn tail_counted(&self) -> usize {
        self.tail
    }

    /// It left the list of groups that keep entries in memory: what is durable goes.
    pub(super) fn let_go_of_tail(&mut self) {
        self.tail_listed = false;
        if self.panicked.is_none() {
            self.node.let_go_of_tail();
        }
    }

    /// The timer that was armed has rung: the next deadline is armed anew.
    pub(super) fn timer_has_rung(&mut self) {
        if !Mutant::B9TimerIsArmedOnce.is_active() {
            self.armed = None;
        }
    }

    /// The owner was not there for so many microseconds.
    pub(super) fn owner_was_late(&mut self, micros: u64) {
        self.node.owner_was_late(micros);
    }

    /// The group's campaign is due at `at`.
    pub(super) fn postpone_campaign(&mut self, at: Time) {
        self.node.postpone_campaign(at);
        self.postponed = Some(at);
    }

    /// Whether the campaign that was postponed is still wanted: nothing has moved its time since.
    pub(super) fn campaign_still_waits(&mut self) -> bool {
        let waits = self.postponed.is_some() && self.postponed == self.node.campaign_deadline();
        if !waits {
            self.postponed = None;
        }
        waits && self.panicked.is_none()
    }

    /// Proposes the waiting tasks. `None` after a panic; the completions come back unless they wait for the commit now.
    pub(super) fn propose(
        &mut self,
        now: Time,
        fx: &mut Effects,
    ) -> Result<Proposed, (Option<ProposeError>, Vec<Completion>)> {
        let mut builder = std::mem::take(&mut self.tasks.builder);
        let completions = std::mem::take(&mut self.tasks.completions);
        self.tasks.expected_term = 0;
        match self.guarded(fx, |node, fx| node.propose(now, &mut builder, fx)) {
            Some(Ok(proposed)) => {
                self.closures.append(proposed.first_index, proposed.term, completions);
                Ok(proposed)
            }
            Some(Err(error)) => Err((Some(error), completions)),
            None => Err((None, completions)),
        }
    }

    /// Ends calls as the node says.
    pub(super) fn end_outcomes(
        &mut self,
        outcomes: impl Iterator<Item = CallOutcome>,
        tasks: &mut Vec<FsmTask>,
    ) {
        self.calls.end(self.handle, self.node.leader_id(), outcomes, tasks);
    }

    /// Tells the node how far disk and state machine are. Calls back after each input that the node took.
    pub(super) fn take_progress(&mut self) -> (Option<Input>, Option<Input>) {
        let (stable, applied) = self.progress.values();
        let persisted = (stable > self.seen_stable).then(|| {
            self.seen_stable = stable;
            Input::Persisted { sequence: stable }
        });
        let applied = (applied > self.seen_applied).then(|| {
            self.seen_applied = applied;
            Input::Applied { index: applied }
        });
        (persisted, applied)
    }

    /// Tells callers what the node is doing now.
    pub(super) fn publish_status(&mut self) {
        if let Some(status) = &self.panicked {
            self.status.set_error(status);
            self.status.set_state(NodeState::Error);
            return;
        }
        let node = &self.node;
        if let Some(error) = node.last_error() {
            self.status.set_error(error);
        }
        let numbers = StatusNumbers {
            state: node.state(),
            term: node.term(),
            last_log: node.last_log_id().index,
            stable: node.stable_index(),
            committed: node.committed_index(),
            removed: node.removed_at().map_or(0, |at| at.index),
            configuration_version: node.configuration_version(),
        };
        self.status.publish(numbers, node.leader_id(), node.configuration());
    }

    /// When the group wants a tick: for its node, or for reads that futures wait for, which end also when the node has panicked.
    pub(super) fn deadline(&self) -> Option<Time> {
        let node = self.node.deadline().filter(|_| self.panicked.is_none());
        node.into_iter().chain(self.status.read_deadlines().next()).min()
    }

    /// Ends the reads whose time is over.
    pub(super) fn end_late_reads(&self, now: Time) {
        let reads = self.status.read_deadlines();
        if reads.next().is_some_and(|at| at <= now) {
            reads.end_late(now, self.node.options().read_index_timeout_ms);
        }
    }

    /// Says whether the disk's progress is worth waking the owner, and whether the state machine's is.
    pub(super) fn tell_what_it_waits_for(&self) {
        self.progress.set_urgent(self.node.awaits_stable(), self.node.awaits_apply());
    }

    /// Tells callers that the node is gone.
    pub(super) fn publish_shutdown(&self) {
        self.status.set_state(NodeState::Shutdown);
        self.status.read_deadlines().close();
    }
}
