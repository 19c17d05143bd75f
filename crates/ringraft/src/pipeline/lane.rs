//! The loop of an owner thread, with the network loop on board where cores are few.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ringraft_core::Status;
use ringraft_net::RequestContext;
use ringraft_ring::{Producer, TryPublishError};

use crate::handler::{Control, FsmTask, LaneEvent, LaneOutput, LogEntryAndClosureHandler, ReadTask};
use crate::pipeline::net::end;
use crate::pipeline::{DiskControl, DiskEvent, HostLoop, Intake, LaneShared, Running, StageGuard};
use crate::rpc::flush::{flush_now, gather_flushes};
use crate::rpc::{Outbox, Processors};
#[cfg(shuttle)]
use crate::thread::breakage::{Breakage, is};
use crate::thread::clock::{now, until};
use crate::thread::sync::Ordering;

/// What a lane works with.
pub(crate) struct LaneParts {
    pub(crate) handler: LogEntryAndClosureHandler,
    pub(crate) intake: Intake,
    pub(crate) shared: Arc<LaneShared>,
    pub(crate) outbox: Outbox,
    pub(crate) disk: Producer<DiskEvent>,
    pub(crate) disk_control: Arc<DiskControl>,
    pub(crate) fsm: Vec<Producer<Vec<FsmTask>>>,
    pub(crate) reads: Vec<Producer<ReadTask>>,
    pub(crate) turn_events: usize,
    /// The last of the lanes closes what comes after.
    pub(crate) guard: StageGuard,
    /// Disk and workers that run.
    pub(crate) stages_running: Running,
    /// The network, if this thread drives it.
    pub(crate) net: Option<(HostLoop, Processors)>,
}

pub(crate) struct LaneLoop {
    parts: LaneParts,
    out: LaneOutput,
    /// What the next turn takes, from the network that this thread drives or from the rings.
    control: Vec<LaneEvent>,
    entries: Vec<LaneEvent>,
    tasks: Vec<LaneEvent>,
    progress: Vec<(crate::handler::GroupHandle, Arc<crate::handler::GroupProgress>)>,
    failed: Vec<(RequestContext, Status)>,
    turns: u32,
    /// The lane has been told to end: its rings for bulk are closed.
    stopping: bool,
    /// The sleep that has just ended was a turn of the network.
    polled: bool,
}

/// Turns between two samples of the gauges.
const TURNS_PER_SAMPLE: u32 = 1024;

/// Longest sleep; a lane without timers wakes when something comes.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

impl LaneLoop {
    pub(crate) fn new(parts: LaneParts) -> LaneLoop {
        let out = LaneOutput::new(parts.fsm.len(), parts.reads.len());
        LaneLoop {
            parts,
            out,
            control: Vec::new(),
            entries: Vec::new(),
            tasks: Vec::new(),
            progress: Vec::new(),
            failed: Vec::new(),
            turns: 0,
            stopping: false,
            polled: false,
        }
    }

    pub(crate) fn run(mut self) {
        gather_flushes();
        loop {
            if !self.stopping && self.parts.shared.stop.load(Ordering::Acquire) {
                self.stopping = true;
                // What was published until now is still handled, by groups that are gone.
                self.parts.intake.close_bulk();
                self.control.push(LaneEvent::Control(Box::new(Control::Stop)));
            }
            self.turn();
            let over = self.parts.handler.is_stopping() && self.parts.intake.bulk_is_over();
            if self.stopping && over && self.out.is_empty() && self.failed.is_empty() {
                break;
            }
            if self.control.is_empty() && self.entries.is_empty() && self.is_idle() {
                self.sleep();
            }
        }
        self.end();
    }

    /// How many entries the next turn takes.
    fn entry_room(&self) -> usize {
        if self.stopping || self.parts.handler.takes_entries(&self.out) { self.parts.turn_events } else { 0 }
    }

    /// One turn: takes what has come, steps the groups, hands on what came out.
    ///
    /// Rule R3: control is taken whatever waits downstream: a vote or a heartbeat makes no work in bulk, and nobody may be deposed because a
    /// disk or a state machine is slow.
    fn turn(&mut self) {
        let entry_room = self.entry_room();
        let parts = &mut self.parts;
        if let Some((event_loop, processors)) = &mut parts.net {
            processors.set_room(entry_room);
            // What ended the sleep is handled first; it was a turn of the network, too.
            if !std::mem::take(&mut self.polled) {
                event_loop.turn(Some(Duration::ZERO), processors);
                processors.take_local(&mut self.control, &mut self.entries);
            }
        }
        parts.intake.drain_control(&mut self.control);
        parts.intake.drain_entries(entry_room, &mut self.entries);
        let store_failed = parts.shared.board.take(&mut self.progress);
        let now = now();
        let (handler, out) = (&mut parts.handler, &mut self.out);
        handler.begin_turn(now, out);
        if let Some(status) = store_failed {
            handler.on_store_failed(now, &status, out);
        }
        for (context, status) in self.failed.drain(..) {
            handler.on_send_failed(now, context, status, out);
        }
        handler.on_progress(now, &mut self.progress, out);
        handler.on_batch(now, &mut self.control, out);
        handler.on_batch(now, &mut self.entries, out);
        let share = (parts.turn_events / parts.fsm.len()).max(1);
        for worker in 0..parts.fsm.len() {
            let room = if self.stopping { usize::MAX } else { handler.task_room(worker as u16).min(share) };
            parts.intake.drain_tasks(worker, room, &mut self.tasks);
            handler.on_tasks(now, worker as u16, &mut self.tasks, out);
        }
        // Reads begin at the end of the turn. The clock is read again, after the last of them was taken: a lease that ended before a read
        // was asked must not answer it.
        let now = crate::thread::clock::now();
        handler.on_tick(now, out);
        handler.end_turn(now, out);
        parts.shared.board.set_starved(handler.is_starved());
        for worker in 0..parts.fsm.len() {
            parts.intake.give_back(worker, handler.take_task_bytes(worker as u16));
        }
        if self.turns.is_multiple_of(TURNS_PER_SAMPLE) {
            self.sample();
        }
        self.turns = self.turns.wrapping_add(1);
        self.hand_on();
    }

    /// Gauges of the rings, under SOFAJRaft's names; one of many lanes or workers wins.
    fn sample(&self) {
        let parts = &self.parts;
        metrics::gauge!("jraft-node-impl-disruptor.buffer-size").set(parts.intake.capacity() as f64);
        metrics::gauge!("jraft-log-manager-disruptor.buffer-size").set(parts.disk.capacity() as f64);
        metrics::gauge!("jraft-log-manager-disruptor.remaining-capacity")
            .set(parts.disk.remaining_capacity() as f64);
        if let Some(ring) = parts.fsm.first() {
            metrics::gauge!("jraft-fsm-caller-disruptor.buffer-size").set(ring.capacity() as f64);
            metrics::gauge!("jraft-fsm-caller-disruptor.remaining-capacity")
                .set(ring.remaining_capacity() as f64);
        }
    }

    /// Hands the output on as far as the next stages take it: sockets first, then the disk, then the rest.
    fn hand_on(&mut self) {
        let (parts, out) = (&mut self.parts, &mut self.out);
        parts.outbox.dispatch(&mut out.sends, &mut out.replies, &mut self.failed);
        flush_now();
        if !publish(&parts.disk, &mut out.disk, DiskEvent::Writes, |event| match event {
            DiskEvent::Writes(writes) => writes,
            _ => Vec::new(),
        }) {
            // What the state machines are told never overtakes the writes of the same turn,
            if parts.disk_control.is_full() {
                Self::let_closed_go(parts, out, &mut self.failed);
            }
            return;
        }
        for (ring, tasks) in parts.fsm.iter().zip(&mut out.fsm) {
            publish(ring, tasks, |tasks| tasks, |tasks| tasks);
        }
        for (ring, reads) in parts.reads.iter().zip(&mut out.reads) {
            publish_in_order(ring, reads);
        }
    }

    /// but for groups that are closed: whoever stops them may want to make room.
    fn let_closed_go(
        parts: &mut LaneParts,
        out: &mut LaneOutput,
        failed: &mut Vec<(RequestContext, Status)>,
    ) {
        for (worker, mut tasks) in out.let_closed_go().into_iter().enumerate() {
            publish(&parts.fsm[worker], &mut tasks, |tasks| tasks, |tasks| tasks);
            // A worker that has no room is waited for.
            out.fsm[worker].splice(0..0, tasks);
        }
        parts.outbox.dispatch(&mut out.sends, &mut out.replies, failed);
        flush_now();
    }

    /// Whether the next turn has something to do that is here already.
    fn has_work(&self) -> bool {
        #[cfg(shuttle)]
        if is(Breakage::LastLook) {
            return self.parts.handler.can_go_on(&self.out);
        }
        !self.failed.is_empty()
            || self.parts.shared.board.is_marked()
            || self.parts.handler.can_go_on(&self.out)
            || !self.stopping && self.parts.shared.stop.load(Ordering::Acquire)
    }

    /// Whether the lane has nothing to do before something comes. What its rings hold it looks at when it goes to sleep.
    fn is_idle(&mut self) -> bool {
        if self.has_work() {
            return false;
        }
        if self.out.is_empty() {
            // Else this was the last turn.
            return true;
        }
        // One of the next stages is full. Once more, now that they know that we wait.
        #[cfg(shuttle)]
        crate::thread::breakage::let_others_make_room();
        self.parts.shared.announce_blocked();
        #[cfg(shuttle)]
        if is(Breakage::SecondTry) {
            return !self.has_work();
        }
        self.hand_on();
        !self.has_work()
    }

    fn sleep(&mut self) {
        let entry_room = self.entry_room();
        let limit = self.parts.handler.next_deadline().map_or(LONGEST_SLEEP, until);
        let (parts, out) = (&mut self.parts, &self.out);
        debug_assert!(
            !parts.handler.can_go_on(out),
            "a lane sleeps over what it holds back and could hand on"
        );
        let stopping = self.stopping;
        let takes = |worker| stopping || out.worker_has_room(worker);
        if parts.intake.announce_sleep(entry_room > 0, takes) {
            match &mut parts.net {
                None => parts.intake.park(limit),
                Some((event_loop, processors)) => {
                    if parts.intake.prepare_sleep() {
                        processors.set_room(entry_room);
                        event_loop.turn(Some(limit), processors);
                        processors.take_local(&mut self.control, &mut self.entries);
                        self.polled = true;
                    }
                    parts.intake.end_sleep();
                }
            }
        }
        parts.intake.awake();
    }

    /// The lane that drives the network carries the answers of the later stages until they have ended, too.
    fn end(self) {
        let LaneLoop { mut parts, mut out, mut failed, .. } = self;
        // Whoever asks something of a group that is gone is told so.
        parts.handler.on_batch(now(), &mut parts.intake.end(), &mut out);
        parts.outbox.dispatch(&mut out.sends, &mut out.replies, &mut failed);
        flush_now();
        drop(parts.guard);
        if let Some((mut event_loop, mut processors)) = parts.net {
            processors.set_room(0);
            let (mut control, mut entries) = (Vec::new(), Vec::new());
            while !parts.stages_running.is_over() {
                event_loop.turn(None, &mut processors);
                flush_now();
                processors.take_local(&mut control, &mut entries);
                control.clear();
                entries.clear();
            }
            end(event_loop, processors);
        }
    }
}

/// Publishes the list as one event; it stays as it is when the ring is full, and is dropped when the ring is closed, which happens
/// after the last lane only. Says whether the list is empty now.
fn publish<T, E: Send>(
    ring: &Producer<E>,
    list: &mut Vec<T>,
    pack: impl FnOnce(Vec<T>) -> E,
    unpack: impl FnOnce(E) -> Vec<T>,
) -> bool {
    if list.is_empty() {
        return true;
    }
    match ring.try_publish(pack(std::mem::take(list))) {
        Ok(()) | Err(TryPublishError::Closed(_)) => true,
        Err(TryPublishError::Full(event)) => {
            *list = unpack(event);
            false
        }
    }
}

/// Publishes the events of a list one by one, the oldest first. What a full ring does not take keeps its place: who is always put behind those
/// that come later may wait for ever. On a closed ring they are dropped.
fn publish_in_order<T: Send>(ring: &Producer<T>, list: &mut VecDeque<T>) {
    while let Some(event) = list.pop_front() {
        if let Err(TryPublishError::Full(event)) = ring.try_publish(event) {
            list.push_front(event);
            break;
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn what_a_full_ring_does_not_take_keeps_its_place() {
        let (ring, mut worker) = ringraft_ring::ring(2);
        let mut list: VecDeque<u32> = (0..6).collect();
        let (mut served, mut next) = (Vec::new(), 6);
        while served.len() < 12 {
            publish_in_order(&ring, &mut list);
            worker.drain(1, &mut served);
            // Whoever was served asks for more.
            if next < 12 {
                list.push_back(next);
                next += 1;
            }
        }
        assert_eq!(served, (0..12).collect::<Vec<_>>());
    }
}
