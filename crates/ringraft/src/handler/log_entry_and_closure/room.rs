//! Room downstream, counted for each state-machine worker in slots of its ring and in bytes of entries: who has it in this turn, and
//! which groups wait for it.
//!
//! A worker that stands still holds back the groups that are pinned to it and nobody else. Their committed entries stay with
//! their nodes ([`NodeImpl::allow_delivery`](ringraft_core::NodeImpl::allow_delivery)), which read them back later if memory
//! runs short; their tasks and reads stay in the ring of that worker.
//!
//! The bytes are those of all groups together: each has its own bound as well, but at a start all of them apply their logs
//! again, and thousands of bounds are no bound. Who finds none left stands in line, and nobody gets any beside the line: one group that
//! takes what it gives back at once would have all of it for as long as its log is.

use std::collections::VecDeque;

use ringraft_core::{Input, Mutant, Time};

use crate::handler::{ApplyEvent, GroupHandle, LaneOutput, LogEntryAndClosureHandler};
use crate::task::completion::ApplyError;
use crate::task::credit::cost;

/// How many steps it takes at least to use up the bytes of a worker. More than one: a group that has much to apply leaves some to those
/// who come next.
const SHARES: usize = 16;

/// What the lane knows of one worker.
#[derive(Default)]
struct Worker {
    /// It had taken everything when the turn began.
    has_room: bool,
    /// Groups whose committed entries are held back for it, each once, in the order in which they get theirs.
    held: VecDeque<GroupHandle>,
    /// Bytes of entries that it was given by this lane and has not applied, with what reads for it may bring.
    unapplied: usize,
    /// Groups with tasks over their share of a turn, each once.
    backlogged: Vec<GroupHandle>,
    /// Those tasks.
    backlog: usize,
    /// What tasks counted with that were taken into proposals, or refused, since somebody last asked.
    task_bytes: usize,
}

impl Worker {
    /// How many groups get a share of what is left in this turn: all that stand in line, for nothing else wakes them.
    fn standing_in_line(&mut self) -> usize {
        if Mutant::K3HeldEntriesStay.is_active() {
            self.held.clear();
        }
        self.held.len()
    }

    /// A group has tasks left after its share of this turn.
    fn wants_another_turn(&mut self, group: GroupHandle) {
        if !Mutant::K3BacklogIsForgotten.is_active() {
            self.backlogged.push(group);
        }
    }
}

/// Whether a worker has taken all that it was given. Rule R2: its own room counts for it, so that no other one holds it back.
fn has_own_room(out: &LaneOutput, worker: usize) -> bool {
    match Mutant::K3RoomIsCountedForTheLane.is_active() {
        true => (0..out.fsm.len()).all(|worker| out.worker_has_room(worker)),
        false => out.worker_has_room(worker),
    }
}

/// Whether entries may come, whatever the workers have taken. Rule R2: they need the disk alone.
fn needs_no_worker(out: &LaneOutput) -> bool {
    !Mutant::K3ControlWaitsBehindBulk.is_active()
        || (0..out.fsm.len()).all(|worker| out.worker_has_room(worker))
}

/// Room of every worker.
#[derive(Default)]
pub(super) struct Rooms {
    workers: Vec<Worker>,
}

impl Rooms {
    fn worker(&mut self, worker: u16) -> &mut Worker {
        let worker = usize::from(worker);
        if self.workers.len() <= worker {
            self.workers.resize_with(worker + 1, Worker::default);
        }
        &mut self.workers[worker]
    }

    /// Whether the worker had room when the turn began.
    pub(super) fn has_room(&self, worker: u16) -> bool {
        self.workers.get(usize::from(worker)).is_some_and(|worker| worker.has_room)
    }

    /// What the groups of the worker have given it, or are reading for it, in bytes.
    pub(super) fn unapplied(&self, worker: u16) -> usize {
        self.workers.get(usize::from(worker)).map_or(0, |worker| worker.unapplied)
    }

    /// What a group of the worker has there was `before` and is `after`.
    pub(super) fn count_unapplied(&mut self, worker: u16, before: usize, after: usize) {
        let worker = self.worker(worker);
        debug_assert!(worker.unapplied >= before, "each group gives back what it was counted with");
        worker.unapplied = worker.unapplied + after - before;
    }

    /// Tasks of the worker's groups that count with so many bytes were taken into proposals, or refused.
    #[inline]
    pub(super) fn count_task(&mut self, worker: u16, bytes: usize) {
        if bytes > 0 {
            self.worker(worker).task_bytes += bytes;
        }
    }

    /// What [`count_task`](Self::count_task) was told since this was last asked.
    pub(super) fn take_task_bytes(&mut self, worker: u16) -> usize {
        self.workers.get_mut(usize::from(worker)).map_or(0, |worker| std::mem::take(&mut worker.task_bytes))
    }

    /// Tasks of a group that ends are answered: they wait no more.
    pub(super) fn backlog_ends(&mut self, worker: u16, tasks: usize) {
        self.worker(worker).backlog -= tasks;
    }
}

impl LogEntryAndClosureHandler {
    /// Begins a turn: looks at what the next stages have taken, and gives workers with room what was held back for them. Call it
    /// before all other inputs of the turn.
    pub fn begin_turn(&mut self, now: Time, out: &mut LaneOutput) {
        for worker in 0..out.fsm.len() {
            self.rooms.worker(worker as u16).has_room = has_own_room(out, worker);
        }
        for worker in 0..out.fsm.len() as u16 {
            if self.rooms.has_room(worker) {
                self.deliver_held(now, worker, out);
                self.serve_backlogs(now, worker, out);
            }
        }
    }

    /// Whether the lane holds back what it could hand on now: another turn is wanted.
    pub fn can_go_on(&self, out: &LaneOutput) -> bool {
        self.rooms.workers.iter().enumerate().any(|(number, worker)| {
            let held = !worker.held.is_empty() && worker.unapplied < self.limits.worker_bytes;
            (held || !worker.backlogged.is_empty()) && out.worker_has_room(number)
        })
    }

    /// Whether groups wait until others of their worker have applied what they were given: the lane must be woken then, whichever
    /// group that is ([`ProgressBoard::set_starved`](crate::handler::ProgressBoard::set_starved)).
    pub fn is_starved(&self) -> bool {
        let limit = self.limits.worker_bytes;
        self.rooms.workers.iter().any(|worker| !worker.held.is_empty() && worker.unapplied >= limit)
    }

    /// Bytes of entries that a worker was given by this lane and has not applied, with what reads for it may bring; for simulations.
    pub fn unapplied_bytes(&self, worker: u16) -> usize {
        self.rooms.unapplied(worker)
    }

    /// How many bytes of entries a step may hand to the worker: a share of them, as far as there are any left, and nothing while
    /// others stand in line.
    pub(super) fn delivery_room(&self, worker: u16) -> usize {
        match self.rooms.workers.get(usize::from(worker)) {
            Some(state) if state.has_room && state.held.is_empty() => self.share_of(worker),
            _ => 0,
        }
    }

    fn share_of(&self, worker: u16) -> usize {
        let budget = self.limits.worker_bytes;
        budget.saturating_sub(self.rooms.unapplied(worker)).min((budget / SHARES).max(1))
    }

    /// Whether anything is held back at all.
    pub fn holds_back(&self) -> bool {
        self.rooms.workers.iter().any(|worker| !worker.held.is_empty() || !worker.backlogged.is_empty())
    }

    /// Whether entries of leaders are taken, and what goes with them. Rule R2: they need the disk alone. What is committed of them waits
    /// with its node for a worker, so that no state machine keeps the entries of another group, on the same connection, waiting.
    pub fn takes_entries(&self, out: &LaneOutput) -> bool {
        out.disk_has_room() && needs_no_worker(out)
    }

    /// How many tasks and reads for groups of this worker [`on_tasks`](Self::on_tasks) may be given in this turn. Rule R2:
    /// none while their own worker is full.
    pub fn task_room(&self, worker: u16) -> usize {
        match self.rooms.workers.get(usize::from(worker)) {
            Some(worker) if worker.has_room => self.limits.group_backlog.saturating_sub(worker.backlog),
            _ => 0,
        }
    }

    /// The group's committed entries wait for its worker: it gets them when that has room.
    pub(super) fn note_held(&mut self, handle: GroupHandle) {
        let Some(group) = self.group(handle) else { return };
        let worker = group.worker;
        if group.panicked().is_none()
            && group.node().wants_delivery()
            && !std::mem::replace(&mut group.held, true)
        {
            self.rooms.worker(worker).held.push_back(handle);
        }
    }

    /// Gives the groups that stand in line their share of what is left, each once, as far as it goes. Who wants more stands at the end.
    fn deliver_held(&mut self, now: Time, worker: u16, out: &mut LaneOutput) {
        for _ in 0..self.rooms.worker(worker).standing_in_line() {
            let share = self.share_of(worker);
            if share == 0 {
                break;
            }
            let Some(handle) = self.rooms.worker(worker).held.pop_front() else { break };
            let Some(group) = self.group(handle) else { continue };
            group.held = false;
            let index = group.node().applied_index();
            self.step_within(now, handle, Input::Applied { index }, share, out);
        }
    }

    /// The group has had its share of this turn: the task waits for the next.
    #[cold]
    pub(super) fn hold_back(&mut self, task: ApplyEvent, out: &mut LaneOutput) {
        let (handle, limit) = (task.handle, self.limits.group_backlog);
        let Some(group) = self.group(handle) else { return };
        let worker = group.worker;
        if group.backlog.len() >= limit {
            debug_assert!(false, "more tasks were given than there is room for");
            self.rooms.count_task(worker, cost(task.data.len()));
            out.fail(worker, handle, vec![task.done], ApplyError::Busy);
            return;
        }
        group.backlog.push_back(task);
        let first = group.backlog.len() == 1;
        let worker = self.rooms.worker(worker);
        worker.backlog += 1;
        if first {
            worker.backlogged.push(handle);
        }
    }

    /// Gives the groups that were held back their share of this turn.
    fn serve_backlogs(&mut self, now: Time, worker: u16, out: &mut LaneOutput) {
        for handle in std::mem::take(&mut self.rooms.worker(worker).backlogged) {
            for _ in 0..self.limits.group_turn_tasks {
                let Some(task) = self.group(handle).and_then(|group| group.backlog.pop_front()) else {
                    break;
                };
                self.rooms.worker(worker).backlog -= 1;
                self.on_apply(now, worker, task, out);
            }
            if self.group(handle).is_some_and(|group| !group.backlog.is_empty()) {
                self.rooms.worker(worker).wants_another_turn(handle);
            }
        }
    }
}
