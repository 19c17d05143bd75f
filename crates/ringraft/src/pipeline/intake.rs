//! The rings of a lane: one for control, which is drained in every turn, and those for bulk, each of which waits for room of its own.

use std::sync::Arc;
use std::time::Duration;

use ringraft_ring::{Consumer, ConsumerWaker, Producer, Wake, ring, ring_with_wake};

use crate::handler::{EntryRoom, LaneEvent};
use crate::task::credit::TaskCredit;
#[cfg(shuttle)]
use crate::thread::breakage::{Breakage, is};

/// The rings of one lane, for whoever publishes.
#[derive(Clone, Debug)]
pub(crate) struct LaneRings {
    /// Votes, heartbeats, answers, log reads, commands.
    pub(crate) control: Producer<LaneEvent>,
    /// Entries of leaders, and what keeps its order among them.
    pub(crate) entries: Producer<LaneEvent>,
    /// Room of that ring in bytes.
    pub(crate) entry_room: Arc<EntryRoom>,
    /// Tasks and reads, by the state-machine worker of their group.
    pub(crate) tasks: Vec<Producer<LaneEvent>>,
    /// Room of each of those rings, and of the groups' backlogs behind it, in bytes. Rule R2: a worker that stands still must not
    /// take the room of others.
    pub(crate) credit: Vec<Arc<TaskCredit>>,
}

/// Least slots of a ring for tasks where the size of all of them allows it.
const LEAST_TASKS: usize = 1024;

/// A ring for bulk, as the lane sees it.
struct Bulk {
    ring: Consumer<LaneEvent>,
    /// It is closed, and everything was drained.
    over: bool,
    /// A publish ends the lane's sleep.
    announced: bool,
}

impl Bulk {
    fn drain(&mut self, max: usize, into: &mut Vec<LaneEvent>) {
        if max > 0 && !self.over {
            self.over = self.ring.drain(max, into).closed;
        }
    }
}

/// The other ends: what the lane takes in.
pub(crate) struct Intake {
    control: Consumer<LaneEvent>,
    entries: Bulk,
    entry_room: Arc<EntryRoom>,
    tasks: Vec<Bulk>,
    /// One for each of those.
    credit: Vec<Arc<TaskCredit>>,
}

/// Ends the sleep of a lane on behalf of a ring for bulk.
struct Rouse(ConsumerWaker);

impl Wake for Rouse {
    fn wake(&self) {
        self.0.wake();
    }
}

/// The rings of a lane: `size` slots for control, as many for entries, and as many for the tasks of all workers together. Those of
/// one worker may have `worker_bytes` bytes, and entries `entry_bytes`. With `wake` the lane sleeps elsewhere, and that ends its sleep.
pub(crate) fn lane_rings(
    size: usize,
    fsm_workers: usize,
    worker_bytes: usize,
    entry_bytes: usize,
    wake: Option<Arc<dyn Wake>>,
) -> (LaneRings, Intake) {
    let (control, taken) = match wake {
        Some(wake) => ring_with_wake(size, wake),
        None => ring(size),
    };
    let bulk = |size| {
        let (producer, ring) = ring_with_wake(size, Arc::new(Rouse(taken.waker())));
        (producer, Bulk { ring, over: false, announced: false })
    };
    let share = (size / fsm_workers.max(1)).max(2).next_power_of_two().max(LEAST_TASKS.min(size));
    let (entries, taken_entries) = bulk(size);
    let (tasks, taken_tasks) = (0..fsm_workers).map(|_| bulk(share)).unzip();
    let credit: Vec<_> = (0..fsm_workers).map(|_| Arc::new(TaskCredit::new(worker_bytes))).collect();
    let entry_room = Arc::new(EntryRoom::new(entry_bytes));
    let intake = Intake {
        control: taken,
        entries: taken_entries,
        entry_room: Arc::clone(&entry_room),
        tasks: taken_tasks,
        credit: credit.clone(),
    };
    (LaneRings { control, entries, entry_room, tasks, credit }, intake)
}

impl Intake {
    /// What wakes the lane without an event.
    pub(crate) fn waker(&self) -> ConsumerWaker {
        self.control.waker()
    }

    /// Slots for control, or for entries.
    pub(crate) fn capacity(&self) -> usize {
        self.control.capacity()
    }

    /// Takes every control event that is there. What comes meanwhile belongs to the next turn.
    pub(crate) fn drain_control(&mut self, into: &mut Vec<LaneEvent>) {
        self.control.drain(self.control.capacity(), into);
    }

    /// Takes entries.
    pub(crate) fn drain_entries(&mut self, max: usize, into: &mut Vec<LaneEvent>) {
        let before = into.len();
        self.entries.drain(max, into);
        self.entry_room.give_back(into.iter().skip(before).map(LaneEvent::entry_bytes).sum());
    }

    /// Takes tasks and reads of the groups of a worker.
    pub(crate) fn drain_tasks(&mut self, worker: usize, max: usize, into: &mut Vec<LaneEvent>) {
        self.tasks[worker].drain(max, into);
    }

    /// Tasks of groups of a worker that counted with so many bytes wait no more.
    pub(crate) fn give_back(&self, worker: usize, bytes: usize) {
        self.credit[worker].give_back(bytes);
    }

    /// The lane ends: callers of [`Node::apply`](crate::Node::apply) and leaders are refused from now on.
    pub(crate) fn close_bulk(&mut self) {
        self.tasks.iter_mut().chain([&mut self.entries]).for_each(|bulk| bulk.ring.close());
        self.credit.iter().for_each(|credit| credit.close());
    }

    /// Whether no bulk can come any more.
    pub(crate) fn bulk_is_over(&self) -> bool {
        self.entries.over && self.tasks.iter().all(|bulk| bulk.over)
    }

    /// Before a sleep: has each ring for bulk that the next turn would take from wake the lane. Room for the others wakes it, not
    /// what they hold. `false` when one of the rings holds something already; [`awake`](Self::awake) follows either way.
    pub(crate) fn announce_sleep(&mut self, entries: bool, tasks: impl Fn(usize) -> bool) -> bool {
        let mut empty = announce(&mut self.entries, entries);
        for (worker, bulk) in self.tasks.iter_mut().enumerate() {
            empty = empty && announce(bulk, tasks(worker));
        }
        empty
    }

    /// Parks until control or a wake comes, or for `limit`.
    pub(crate) fn park(&mut self, limit: Duration) {
        self.control.wait(Some(limit));
    }

    /// Announces a sleep elsewhere; `false` when there is control to take.
    pub(crate) fn prepare_sleep(&mut self) -> bool {
        self.control.prepare_sleep()
    }

    /// The sleep elsewhere is over.
    pub(crate) fn end_sleep(&mut self) {
        self.control.end_sleep();
    }

    /// The sleep is over: publishers of bulk need not wake any more.
    pub(crate) fn awake(&mut self) {
        for bulk in self.tasks.iter_mut().chain([&mut self.entries]) {
            if std::mem::take(&mut bulk.announced) {
                bulk.ring.end_sleep();
            }
        }
    }

    /// Closes control as well, and gives what was still in it.
    pub(crate) fn end(self) -> Vec<LaneEvent> {
        self.control.into_undrained()
    }
}

fn announce(bulk: &mut Bulk, wanted: bool) -> bool {
    if !wanted || bulk.over {
        return true;
    }
    #[cfg(shuttle)]
    if is(Breakage::Announce) {
        return true;
    }
    bulk.announced = true;
    bulk.ring.prepare_sleep()
}
