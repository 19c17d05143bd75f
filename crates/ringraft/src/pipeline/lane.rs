//! The loop of an owner thread, with the network loop on board where cores are few.

use std::sync::Arc;
use std::time::Duration;

use ringraft_core::Status;
use ringraft_net::RequestContext;
use ringraft_ring::{Consumer, Producer, TryPublishError};

#[cfg(shuttle)]
use crate::breakage::{Breakage, is};
use crate::handler::{Control, FsmTask, LaneEvent, LaneOutput, LogEntryAndClosureHandler, ReadTask};
use crate::pipeline::clock::{now, until};
use crate::pipeline::net::end;
use crate::pipeline::{DiskEvent, HostLoop, LaneShared, Running, StageGuard};
use crate::rpc::flush::{flush_now, gather_flushes};
use crate::rpc::{Outbox, Processors};
use crate::sync::{Ordering, current, park_timeout};

/// What a lane works with.
pub(crate) struct LaneParts {
    pub(crate) handler: LogEntryAndClosureHandler,
    pub(crate) ring: Consumer<LaneEvent>,
    pub(crate) shared: Arc<LaneShared>,
    pub(crate) outbox: Outbox,
    pub(crate) disk: Producer<DiskEvent>,
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
    events: Vec<LaneEvent>,
    progress: Vec<(crate::handler::GroupHandle, Arc<crate::handler::GroupProgress>)>,
    failed: Vec<(RequestContext, Status)>,
    turns: u32,
    /// The lane has been told to end: its ring is closed.
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
        let out = LaneOutput::new(parts.fsm.len());
        LaneLoop {
            parts,
            out,
            events: Vec::new(),
            progress: Vec::new(),
            failed: Vec::new(),
            turns: 0,
            stopping: false,
            polled: false,
        }
    }

    pub(crate) fn run(mut self) {
        gather_flushes();
        match &self.parts.net {
            None => {
                let thread = current();
                self.parts.shared.set_bell(Box::new(move || thread.unpark()));
            }
            Some((event_loop, _)) => {
                let waker = event_loop.waker();
                self.parts.shared.set_bell(Box::new(move || waker.wake()));
            }
        }
        loop {
            if !self.stopping && self.parts.shared.stop.load(Ordering::Acquire) {
                self.stopping = true;
                // What was published until now is still handled, by groups that are gone.
                self.parts.ring.close();
                self.events.push(LaneEvent::Control(Box::new(Control::Stop)));
            }
            let closed = self.turn();
            if self.stopping && closed && self.out.is_empty() && self.failed.is_empty() {
                break;
            }
            if self.events.is_empty() && self.is_idle() {
                self.sleep();
            }
        }
        self.end();
    }

    /// One turn: takes what has come, steps the groups, hands on what came out. Says whether nothing can come any more.
    fn turn(&mut self) -> bool {
        let accept = self.accepts();
        let parts = &mut self.parts;
        let room = if accept { parts.turn_events } else { parts.handler.room().min(parts.turn_events) };
        if let Some((event_loop, processors)) = &mut parts.net {
            processors.set_room(room);
            // What ended the sleep is handled first; it was a turn of the network, too.
            if !std::mem::take(&mut self.polled) {
                event_loop.turn(Some(Duration::ZERO), processors);
                processors.take_local(&mut self.events);
            }
        }
        let drained = parts.ring.drain(room, &mut self.events);
        let store_failed = parts.shared.board.take(&mut self.progress);
        let now = now();
        let (handler, out) = (&mut parts.handler, &mut self.out);
        if let Some(status) = store_failed {
            handler.on_store_failed(now, &status, out);
        }
        for (context, status) in self.failed.drain(..) {
            handler.on_send_failed(now, context, status, out);
        }
        handler.on_progress(now, &mut self.progress, out);
        handler.on_batch(now, &mut self.events, accept || self.stopping, out);
        handler.on_tick(now, out);
        handler.end_turn(now, out);
        if self.turns.is_multiple_of(TURNS_PER_SAMPLE) {
            self.sample();
        }
        self.turns = self.turns.wrapping_add(1);
        self.hand_on();
        drained.closed && self.parts.handler.is_stopping()
    }

    /// Gauges of the rings, under SOFAJRaft's names; one of many lanes or workers wins.
    fn sample(&self) {
        let parts = &self.parts;
        metrics::gauge!("jraft-node-impl-disruptor.buffer-size").set(parts.ring.capacity() as f64);
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
            DiskEvent::Open { .. } | DiskEvent::Withhold { .. } | DiskEvent::Run(_) => Vec::new(),
        }) {
            // What the state machines are told never overtakes the writes of the same turn.
            return;
        }
        for (ring, tasks) in parts.fsm.iter().zip(&mut out.fsm) {
            publish(ring, tasks, |tasks| tasks, |tasks| tasks);
        }
        while let Some(read) = out.reads.pop() {
            let ring = &parts.reads[read.handle.slot as usize % parts.reads.len()];
            if let Err(TryPublishError::Full(read)) = ring.try_publish(read) {
                out.reads.push(read);
                break;
            }
        }
    }

    /// Whether tasks and entries of leaders are taken: what they bring goes to the disk and the workers.
    fn accepts(&self) -> bool {
        self.out.disk.is_empty() && self.out.fsm.iter().all(Vec::is_empty)
    }

    /// Whether the lane waits for nothing but room, since it cannot take what its ring holds or the ring is closed: the ring must
    /// not keep it awake.
    fn is_starved(&self) -> bool {
        !self.out.is_empty() && (self.stopping || self.parts.handler.room() == 0)
    }

    /// Whether the next turn has something to do that is here already.
    fn has_work(&self) -> bool {
        #[cfg(shuttle)]
        if is(Breakage::LastLook) {
            return self.accepts() && self.parts.handler.has_deferred();
        }
        !self.failed.is_empty()
            || self.parts.shared.board.is_marked()
            || self.accepts() && self.parts.handler.has_deferred()
    }

    /// Whether the lane has nothing to do before something comes.
    fn is_idle(&mut self) -> bool {
        if self.has_work() {
            return false;
        }
        if self.out.is_empty() {
            return self.stopping || !self.parts.shared.stop.load(Ordering::Acquire);
        }
        // The next stages are full. Once more, now that they know that we wait.
        #[cfg(shuttle)]
        crate::breakage::let_others_make_room();
        self.parts.shared.set_starved(self.is_starved());
        self.parts.shared.announce_blocked();
        #[cfg(shuttle)]
        if is(Breakage::SecondTry) {
            return !self.has_work();
        }
        self.hand_on();
        let idle = !self.out.is_empty() && !self.has_work();
        if !idle {
            self.parts.shared.set_starved(false);
        }
        idle
    }

    fn sleep(&mut self) {
        debug_assert!(
            !(self.accepts() && self.parts.handler.has_deferred()),
            "a lane sleeps over what it holds back and could take"
        );
        let starved = self.is_starved();
        let parts = &mut self.parts;
        let limit = parts.handler.next_deadline().map_or(LONGEST_SLEEP, until);
        match &mut parts.net {
            None if starved => park_timeout(limit),
            None => {
                parts.ring.wait(Some(limit));
            }
            Some((event_loop, processors)) => {
                if starved || parts.ring.prepare_sleep() {
                    event_loop.turn(Some(limit), processors);
                    processors.take_local(&mut self.events);
                    self.polled = true;
                }
                if !starved {
                    parts.ring.end_sleep();
                }
            }
        }
        if starved {
            parts.shared.set_starved(false);
        }
    }

    /// The lane that drives the network carries the answers of the later stages until they have ended, too.
    fn end(self) {
        let LaneLoop { parts, mut events, .. } = self;
        drop(parts.guard);
        if let Some((mut event_loop, mut processors)) = parts.net {
            processors.set_room(0);
            while !parts.stages_running.is_over() {
                event_loop.turn(None, &mut processors);
                flush_now();
                processors.take_local(&mut events);
                events.clear();
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
