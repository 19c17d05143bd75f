//! The loop of the disk stage.

use std::sync::Arc;
use std::time::Duration;

use ringraft_core::{GroupId, HardState, LogId, LogOp, Term, Vote};
use ringraft_ring::{Consumer, Producer, WaitOutcome};
use ringraft_storage::{GroupKey, GroupWrite, LogStorage, StorageError, WriteBatch};

use crate::handler::{
    DiskWrite, LaneEvent, ResponseEvent, StableClosureEventHandler, StableOutput, WriteQueue,
};
use crate::pipeline::damage::DamageReports;
use crate::pipeline::disk_control::DiskControl;
use crate::pipeline::disk_event::DiskEvent;
use crate::pipeline::store_calls::{blank, meant};
use crate::pipeline::{LaneShared, StageGuard, StoreWatch};
use crate::rpc::Outbox;
use crate::thread::clock::now;
use crate::thread::sync::Ordering;

/// Events taken before the next durable write, at most. Each may carry the writes of many groups.
const BATCH: usize = 1024;
/// Events taken at once, of those: by so many turns of lanes the bound of what waits here is crossed.
const EVENTS: usize = 4;
/// Batches after which the store gets time for housekeeping, idle or not.
const BATCHES_PER_MAINTENANCE: u32 = 64;
/// How long the ring must be quiet until housekeeping goes on.
const QUIET: Duration = Duration::from_millis(20);
/// Calls of housekeeping after the last write; each does a bounded part.
const QUIET_CALLS: u32 = 256;

/// How long a write waits before it asks a full disk again.
const ROOM_PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct DiskLoop {
    pub(crate) ring: Consumer<DiskEvent>,
    /// What waits for no write.
    pub(crate) control: Arc<DiskControl>,
    pub(crate) storage: Box<dyn LogStorage>,
    pub(crate) outbox: Outbox,
    /// What one durable write takes, in bytes.
    pub(crate) max_write_bytes: usize,
    pub(crate) lanes: Vec<Arc<LaneShared>>,
    /// Rings of the lanes for control, for requests that could not be sent.
    pub(crate) lane_rings: Vec<Producer<LaneEvent>>,
    /// What the next durable write holds; empty between writes.
    pub(crate) writes: Vec<DiskWrite>,
    /// What the lanes were told of damage.
    pub(crate) damage: DamageReports,
    /// Told when the store has failed.
    pub(crate) watch: Arc<StoreWatch>,
    /// Held until the end.
    pub(crate) _guard: StageGuard,
}

impl DiskLoop {
    pub(crate) fn run(mut self) {
        let mut handler = StableClosureEventHandler::new();
        let (mut events, mut queue, mut out) = (Vec::new(), WriteQueue::new(), StableOutput::default());
        let (mut batches, mut quiet_calls) = (0, 0);
        loop {
            let timeout = (quiet_calls > 0).then_some(QUIET);
            // While writes wait the ring is looked at, too: a vote that came meanwhile goes before them.
            match if queue.is_empty() { self.ring.wait(timeout) } else { WaitOutcome::Ready } {
                WaitOutcome::Closed => break,
                WaitOutcome::TimedOut => {
                    // Again and again: it does nothing when no file is ready for it, and nothing once it is done.
                    self.vouch(&mut handler, &mut out);
                    quiet_calls -= 1;
                    self.maintain(&mut handler, &mut out);
                    continue;
                }
                WaitOutcome::Ready => {}
            }
            let mut changed = self.take_in(&mut handler, &mut events, &mut queue, &mut out);
            changed |= self.do_at_once(&mut handler, &mut queue, &mut out);
            if changed {
                quiet_calls = QUIET_CALLS;
            }
            if !queue.is_empty() {
                self.write(&mut handler, &mut queue, &mut out);
                (batches, quiet_calls) = (batches + 1, QUIET_CALLS);
            }
            if batches >= BATCHES_PER_MAINTENANCE {
                batches = 0;
                self.maintain(&mut handler, &mut out);
            }
        }
        self.control.close();
        // What the next start cannot read is then known for damage, and not taken for a torn write.
        self.vouch(&mut handler, &mut out);
    }

    /// Does what waits for no write. Says whether there was anything.
    fn do_at_once(
        &mut self,
        handler: &mut StableClosureEventHandler,
        queue: &mut WriteQueue,
        out: &mut StableOutput,
    ) -> bool {
        let mut any = false;
        while let Some(request) = self.control.next() {
            self.on_event(request, handler, queue, out);
            any = true;
        }
        any
    }

    /// Groups are over before their writes are done: none of them is done any more, whether it waits here or comes later. Whoever waits for
    /// them is told.
    fn end_groups(
        &mut self,
        groups: &[GroupKey],
        handler: &mut StableClosureEventHandler,
        queue: &mut WriteQueue,
        out: &mut StableOutput,
    ) {
        handler.end(groups, queue, out);
        self.release(out);
    }

    /// Takes events from the ring while there is room for what they bring. Says whether one of them changed the store at once.
    fn take_in(
        &mut self,
        handler: &mut StableClosureEventHandler,
        events: &mut Vec<DiskEvent>,
        queue: &mut WriteQueue,
        out: &mut StableOutput,
    ) -> bool {
        let mut changed = false;
        for _ in 0..BATCH / EVENTS {
            if !queue.has_room(self.max_write_bytes) {
                break;
            }
            let drained = self.ring.drain(EVENTS, events);
            self.lanes.iter().for_each(|lane| lane.room());
            for event in events.drain(..) {
                changed |= self.on_event(event, handler, queue, out);
            }
            if drained.end_of_batch {
                if queue.is_empty() {
                    handler.caught_up();
                }
                break;
            }
        }
        changed
    }

    /// Handles one event. Says whether the store was changed at once.
    fn on_event(
        &mut self,
        event: DiskEvent,
        handler: &mut StableClosureEventHandler,
        queue: &mut WriteQueue,
        out: &mut StableOutput,
    ) -> bool {
        let changes = !matches!(
            event,
            DiskEvent::Writes(_)
                | DiskEvent::Blank { .. }
                | DiskEvent::Stored { .. }
                | DiskEvent::Look
                | DiskEvent::Run(_)
        );
        match event {
            DiskEvent::Writes(writes) => queue.push(writes),
            DiskEvent::Open { groups, answer } => {
                // Writes of an earlier life of a group come first.
                self.write_all(handler, queue, out);
                let opened = self.storage.open_groups(&groups);
                let keys = opened.iter().flatten().flatten().map(|opened| opened.key);
                keys.for_each(|key| {
                    handler.opened(key);
                    self.damage.opened(key);
                });
                answer.fulfil(self.unless_final(opened, handler, out));
            }
            DiskEvent::Remove { groups, answer } => {
                let found: Vec<_> =
                    groups.iter().map(|(group, creation)| meant(&*self.storage, group, *creation)).collect();
                let keys: Vec<GroupKey> = found.iter().flatten().flatten().copied().collect();
                self.end_groups(&keys, handler, queue, out);
                let removed = self.storage.remove_groups(&keys);
                let removed = removed.map(|()| {
                    found.into_iter().map(|meant| meant.map(|key| key.is_some())).collect::<Vec<_>>()
                });
                answer.fulfil(self.unless_final(removed, handler, out));
            }
            DiskEvent::Rejoin { group, creation, answer } => {
                let dropped = match meant(&*self.storage, &group, creation) {
                    Ok(Some(key)) => {
                        self.end_groups(&[key], handler, queue, out);
                        self.rejoin(&group, handler, out).map(|()| true)
                    }
                    other => other.map(|_| false),
                };
                answer.fulfil(dropped);
            }
            DiskEvent::Blank { groups, answer } => {
                let blank = blank(&mut *self.storage, &groups, |key| handler.refuses(key));
                answer.fulfil(self.unless_final(blank, handler, out));
            }
            DiskEvent::Stored { answer } => answer.fulfil(self.storage.stored_groups()),
            DiskEvent::Withhold { group, answer } => {
                self.write_all(handler, queue, out);
                answer.fulfil(self.withhold(group, handler, out));
            }
            DiskEvent::Look => {}
            DiskEvent::Run(run) => run(),
        }
        changes
    }

    /// Lets the store vouch for what it wrote, when no batch waits.
    fn vouch(&mut self, handler: &mut StableClosureEventHandler, out: &mut StableOutput) {
        if handler.failed().is_none()
            && let Err(error) = self.storage.vouch()
        {
            self.stop(handler, out, error);
        }
    }

    fn stop(&mut self, handler: &mut StableClosureEventHandler, out: &mut StableOutput, error: StorageError) {
        handler.on_batch(&mut Vec::new());
        handler.on_synced(Err(error), out);
        self.release(out);
    }

    /// Writes all that waits.
    fn write_all(
        &mut self,
        handler: &mut StableClosureEventHandler,
        queue: &mut WriteQueue,
        out: &mut StableOutput,
    ) {
        while !queue.is_empty() {
            self.write(handler, queue, out);
        }
    }

    /// One durable write of what waits.
    fn write(
        &mut self,
        handler: &mut StableClosureEventHandler,
        queue: &mut WriteQueue,
        out: &mut StableOutput,
    ) {
        queue.take(self.max_write_bytes, &mut self.writes);
        let mut batch = handler.on_batch(&mut self.writes);
        let result = if batch.is_empty() || handler.failed().is_some() {
            Ok(Vec::new())
        } else {
            let start = now();
            let submitted = self.submit(&mut batch, handler, queue, out);
            let result = submitted.and_then(|any| if any { self.storage.complete() } else { Ok(Vec::new()) });
            metrics::histogram!("append-logs").record(now().since(start) as f64 / 1000.0);
            result
        };
        handler.on_synced(result, out);
        self.release(out);
    }

    /// A failure of the disk is one of the store, as of any write; a refusal is one of the group.
    fn withhold(
        &mut self,
        group: GroupKey,
        handler: &mut StableClosureEventHandler,
        out: &mut StableOutput,
    ) -> Result<(), StorageError> {
        self.write_alone(group, vec![withheld(0)], handler, out)
    }

    /// Drops the log of a group: from now on it has lost what it held, and knows it. Its term stays, so that it never goes back.
    fn rejoin(
        &mut self,
        group: &GroupId,
        handler: &mut StableClosureEventHandler,
        out: &mut StableOutput,
    ) -> Result<(), StorageError> {
        let opened = self.storage.open_group(group);
        let (key, recovered) = self.unless_final(opened, handler, out)?;
        let reset = LogOp::Reset { before: LogId::default(), conf: None };
        // One write: a vote without its log, or a log without its vote, would be a member that has forgotten and does not know it.
        let ops = vec![withheld(recovered.hard_state.term), reset];
        self.write_alone(key, ops, handler, out)
    }

    /// A write of one group, for which nobody waits but the caller.
    fn write_alone(
        &mut self,
        group: GroupKey,
        ops: Vec<LogOp>,
        handler: &mut StableClosureEventHandler,
        out: &mut StableOutput,
    ) -> Result<(), StorageError> {
        if let Some(status) = handler.failed() {
            return Err(StorageError::Poisoned(status.message.clone()));
        }
        let batch = WriteBatch { writes: vec![GroupWrite { group, ops }] };
        // It does not wait for space: whoever asked is told that there is none.
        let written = self.storage.submit(&batch).and_then(|()| self.storage.complete());
        let written = written.and_then(|refused| match refused.into_iter().next() {
            Some(refused) => Err(refused.reason),
            None => Ok(()),
        });
        self.unless_final(written, handler, out)
    }

    /// Passes on what a call of the store came to. A failure of the disk is told to every group, as that of any write.
    fn unless_final<T>(
        &mut self,
        result: Result<T, StorageError>,
        handler: &mut StableClosureEventHandler,
        out: &mut StableOutput,
    ) -> Result<T, StorageError> {
        if let Err(error) = &result
            && error.is_final()
        {
            self.stop(handler, out, error.clone());
        }
        result
    }

    /// Starts a write. On a full disk it waits for space: the rings before it fill, and callers get `Busy`. What waits for no write is done
    /// meanwhile; a group that ends by that has nothing more in the batch. Says whether anything is left of it.
    fn submit(
        &mut self,
        batch: &mut WriteBatch,
        handler: &mut StableClosureEventHandler,
        queue: &mut WriteQueue,
        out: &mut StableOutput,
    ) -> Result<bool, StorageError> {
        let submitted = loop {
            match self.storage.submit(batch) {
                Err(error @ StorageError::NoRoom(_)) => {
                    // Lanes that end want to hand on what they have.
                    if self.lanes.iter().any(|lane| lane.stop.load(Ordering::Acquire)) {
                        break Err(error);
                    }
                    self.control.set_full(true);
                    self.lanes.iter().for_each(|lane| lane.room());
                    self.control.wait(ROOM_PAUSE);
                    if self.do_at_once(handler, queue, out) {
                        batch.writes.retain(|write| !handler.has_ended(write.group));
                    }
                    if batch.is_empty() {
                        break Ok(false);
                    }
                }
                submitted => break submitted.map(|()| true),
            }
        };
        self.control.set_full(false);
        submitted
    }

    /// Lets go of what waited, answers first: a leader elsewhere waits for them.
    fn release(&mut self, out: &mut StableOutput) {
        let mut failed = Vec::new();
        self.outbox.dispatch(&mut out.sends, &mut out.replies, &mut failed);
        for (context, status) in failed {
            // Votes wait for the disk. One that is lost is asked for again after the vote time-out, so that a full ring
            // may swallow the news.
            if let Some(ring) = self.lane_rings.get(usize::from(context.lane)) {
                let event = ResponseEvent { context, result: Err(status) };
                let _ = ring.try_publish(LaneEvent::Response(Box::new(event)));
            }
        }
        let mut wake = vec![false; self.lanes.len()];
        for (handle, progress, sequence) in out.stable.drain(..) {
            let lane = usize::from(handle.lane);
            if self.lanes[lane].board.stable(handle, &progress, sequence) {
                wake[lane] = true;
            }
        }
        for (handle, progress, status) in out.refused.drain(..) {
            let lane = usize::from(handle.lane);
            self.lanes[lane].board.group_failed(handle, &progress, status);
            wake[lane] = true;
        }
        let failed = out.failed.take();
        if let Some(status) = &failed {
            for (lane, wake) in self.lanes.iter().zip(&mut wake) {
                lane.board.store_failed(status.clone());
                *wake = true;
            }
        }
        for (lane, _) in self.lanes.iter().zip(wake).filter(|(_, wake)| *wake) {
            lane.wake();
        }
        if let Some(status) = failed {
            self.watch.tell(status);
        }
    }

    fn maintain(&mut self, handler: &mut StableClosureEventHandler, out: &mut StableOutput) {
        if handler.failed().is_some() {
            return;
        }
        match self.storage.maintain() {
            Ok(()) => self.damage.look(&*self.storage, &self.lane_rings),
            Err(error) => self.stop(handler, out, error),
        }
    }
}

/// A vote that is given to nobody, from this term on.
fn withheld(term: Term) -> LogOp {
    LogOp::HardState(HardState { term, vote: Vote::Withheld })
}
