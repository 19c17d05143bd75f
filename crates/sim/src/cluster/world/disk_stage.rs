//! The loop around the disk stage: a write in two calls with a delay in between, answers before progress.

use ringraft::handler::{LaneEvent, ResponseEvent, StableOutput};
use ringraft_storage::{RefusedWrites, StorageError};

use super::World;
use super::event::Event;
use super::turn::LaneOrDisk;
use crate::checkers::Violation;
use crate::cluster::checks::broken;
use crate::cluster::clock::MS;
use crate::cluster::host::Process;

/// Microseconds without a batch after which the store vouches for what it wrote.
const VOUCH_AFTER: u64 = 20 * crate::cluster::clock::MS;

/// Batches after which the store gets time for housekeeping.
const BATCHES_PER_MAINTENANCE: u64 = 4;

/// How long a write waits before it asks a full disk again.
const ROOM_PAUSE: u64 = 50 * MS;

impl Process {
    /// Nothing waits for the disk.
    pub(super) fn disk_is_idle(&self) -> bool {
        self.disk_ring.is_empty() && self.disk_queue.is_empty()
    }
}

impl World {
    /// The disk stage takes a batch and starts its write.
    pub(super) fn write(&mut self, host: usize, life: u32) -> Result<(), Violation> {
        if self.hosts[host].life != life {
            return Ok(());
        }
        self.report.events += 1;
        let slow = self.hosts[host].slow_disk.filter(|(until, _)| *until > self.now).map(|(_, delay)| delay);
        let (low, high) = self.plan.disk_delay;
        let delay = slow.unwrap_or_else(|| self.random.range(low, high));
        let Some(p) = &mut self.hosts[host].process else { return Ok(()) };
        for _ in 0..self.plan.disk_batch {
            p.disk_queue.push(p.disk_ring.pop_front().unwrap_or_default());
        }
        let mut writes = Vec::new();
        p.disk_queue.take(self.plan.write_bytes, &mut writes);
        if !p.disk_queue.is_empty() {
            *self.report.marks.entry("writes wait for the next durable one").or_default() += 1;
        }
        let batch = p.disk.on_batch(&mut writes);
        let mut failure = None;
        let submitted = !batch.is_empty() && p.disk.failed().is_none();
        if submitted {
            let host = &mut self.hosts[host];
            host.proof.submitting(&host.disk);
        }
        let Some(p) = &mut self.hosts[host].process else { return Ok(()) };
        let mut no_room = false;
        if submitted {
            failure = p.store.as_log().submit(&batch).err();
            no_room = matches!(failure, Some(StorageError::NoRoom(_)));
        }
        p.writing = Some((batch, submitted && !no_room));
        p.waits_for_room = no_room;
        self.wake(host, 0);
        if self.hosts[host].power_is_off() {
            return self.power_went(host);
        }
        if no_room {
            self.mark("write waits for room");
            self.after(ROOM_PAUSE, Event::Synced(host, life));
            return Ok(());
        }
        if let Some(error) = failure {
            return self.synced(host, Err(error));
        }
        self.after(if submitted { delay } else { 1 }, Event::Synced(host, life));
        Ok(())
    }

    /// The write is over.
    pub(super) fn write_done(&mut self, host: usize, life: u32) -> Result<(), Violation> {
        if self.hosts[host].life != life {
            return Ok(());
        }
        if self.hosts[host].paused_until > self.now {
            let at = self.hosts[host].paused_until;
            self.at(at, Event::Synced(host, life));
            return Ok(());
        }
        self.report.events += 1;
        if self.still_waits_for_room(host, life)? {
            return Ok(());
        }
        let Some(p) = &mut self.hosts[host].process else { return Ok(()) };
        let submitted = p.writing.as_ref().is_some_and(|(_, submitted)| *submitted);
        let result = if submitted { p.store.as_log().complete() } else { Ok(Vec::new()) };
        if self.hosts[host].power_is_off() {
            return self.power_went(host);
        }
        self.synced(host, result)?;
        let Some(p) = &mut self.hosts[host].process else { return Ok(()) };
        p.batches += 1;
        if p.batches.is_multiple_of(BATCHES_PER_MAINTENANCE)
            && p.disk.failed().is_none()
            && p.writing.is_none()
            && p.telling.is_none()
        {
            let kept = p.store.as_log().maintain();
            if self.hosts[host].power_is_off() {
                return self.power_went(host);
            }
            if let Err(error) = kept {
                self.disk_fails(host, error)?;
            }
        }
        self.start_stages(host);
        if let Some(p) = &self.hosts[host].process
            && p.writing.is_none()
            && p.disk_is_idle()
        {
            let batches = p.batches;
            self.after(VOUCH_AFTER, Event::Vouch(host, life, batches));
        }
        Ok(())
    }

    /// No batch has come for a while: the store vouches for what it wrote.
    pub(super) fn vouch(&mut self, host: usize, life: u32, batches: u64) -> Result<(), Violation> {
        let paused = self.hosts[host].paused_until > self.now;
        let h = &mut self.hosts[host];
        let Some(p) = &mut h.process else { return Ok(()) };
        let idle = p.batches == batches && p.writing.is_none() && p.telling.is_none() && p.disk_is_idle();
        if h.life != life || paused || !idle || p.disk.failed().is_some() {
            return Ok(());
        }
        self.report.events += 1;
        h.proof.submitting(&h.disk);
        let vouched = p.store.as_log().vouch();
        if self.hosts[host].power_is_off() {
            return self.power_went(host);
        }
        match vouched {
            Ok(()) => {
                let h = &mut self.hosts[host];
                h.proof.synced(&h.disk);
            }
            Err(error) => self.disk_fails(host, error)?,
        }
        Ok(())
    }

    /// The store has failed outside of a batch.
    pub(super) fn disk_fails(&mut self, host: usize, error: StorageError) -> Result<(), Violation> {
        let Some(p) = &mut self.hosts[host].process else { return Ok(()) };
        p.disk.on_batch(&mut Vec::new());
        self.release(host, Err(error))?;
        self.start_stages(host);
        Ok(())
    }

    /// Submits a batch once more that found no room, as the loop of the disk stage does: nothing of it was written.
    fn still_waits_for_room(&mut self, host: usize, life: u32) -> Result<bool, Violation> {
        let h = &mut self.hosts[host];
        let Some(p) = &mut h.process else { return Ok(false) };
        if !p.waits_for_room {
            return Ok(false);
        }
        let Some((batch, submitted)) = &mut p.writing else { return Ok(false) };
        h.proof.submitting(&h.disk);
        let result = p.store.as_log().submit(batch);
        let no_room = matches!(result, Err(StorageError::NoRoom(_)));
        let ending = p.stopping.is_some();
        p.waits_for_room = no_room && !ending;
        *submitted = !no_room;
        if self.hosts[host].power_is_off() {
            self.power_went(host)?;
            return Ok(true);
        }
        match result {
            Ok(()) => {
                self.mark("write found room");
                self.after(1, Event::Synced(host, life));
            }
            Err(StorageError::NoRoom(_)) if !ending => self.after(ROOM_PAUSE, Event::Synced(host, life)),
            Err(error) => self.synced(host, Err(error))?,
        }
        Ok(true)
    }

    fn synced(
        &mut self,
        host: usize,
        result: Result<Vec<RefusedWrites>, StorageError>,
    ) -> Result<(), Violation> {
        let Some(p) = &mut self.hosts[host].process else { return Ok(()) };
        if let Some((batch, true)) = p.writing.take() {
            match &result {
                Ok(refused) if !refused.is_empty() => {
                    let what = format!("the store of host {host} refuses a write: {refused:?}");
                    return Err(broken("store", what));
                }
                Ok(_) => {
                    self.oracle.synced(host, &batch, &p.by_key);
                    let h = &mut self.hosts[host];
                    h.proof.synced(&h.disk);
                }
                Err(_) => self.oracle.crashed(host, Some(&batch), &p.by_key),
            }
        }
        self.release(host, result)?;
        self.start_stages(host);
        Ok(())
    }

    /// Lets go of what waited for a write, answers first.
    fn release(
        &mut self,
        host: usize,
        result: Result<Vec<RefusedWrites>, StorageError>,
    ) -> Result<(), Violation> {
        let Some(mut process) = self.hosts[host].process.take() else { return Ok(()) };
        let p = &mut *process;
        let mut stable = StableOutput::default();
        p.disk.on_synced(result, &mut stable);
        self.check_leaving(host, p, LaneOrDisk::Disk(&stable.sends, &stable.replies))?;
        let mut failed = Vec::new();
        p.disk_dispatcher.dispatch(&mut stable.sends, &mut stable.replies, &mut failed);
        for (context, status) in failed {
            if p.control.len() < self.plan.apply_ring {
                p.control
                    .push_back(LaneEvent::Response(Box::new(ResponseEvent { context, result: Err(status) })));
            }
        }
        let mut wake = false;
        for (handle, _, sequence) in &stable.stable {
            if let Some(group) = p.by_handle.get(handle) {
                self.note_durable(*group, host, *sequence);
            }
        }
        let stall = std::mem::take(&mut self.hosts[host].stall);
        let stalls = stall > 0 && p.telling.is_none() && !stable.stable.is_empty();
        if stalls {
            p.telling = Some(stable.stable);
        } else {
            for (handle, progress, sequence) in stable.stable {
                wake |= p.board.stable(handle, &progress, sequence);
            }
        }
        if let Some(status) = &stable.failed {
            p.board.store_failed(status.clone());
            wake = true;
        }
        // A lane that waits for room is woken by every drain.
        wake |= !p.out.is_empty() || p.tasks.iter().any(|tasks| !tasks.is_empty());
        self.hosts[host].process = Some(process);
        if wake {
            self.wake(host, 0);
        }
        if stalls {
            let life = self.hosts[host].life;
            self.after(stall, Event::Told(host, life));
        }
        self.carry(host)?;
        match stable.failed {
            Some(status) => self.store_failed(host, &status),
            None => Ok(()),
        }
    }

    /// The disk stage goes on: the lane is told what has been durable for a while.
    pub(super) fn told(&mut self, host: usize, life: u32) {
        if self.hosts[host].life != life {
            return;
        }
        self.report.events += 1;
        let Some(p) = &mut self.hosts[host].process else { return };
        let mut wake = p.stopping.is_some();
        for (handle, progress, sequence) in p.telling.take().into_iter().flatten() {
            wake |= p.board.stable(handle, &progress, sequence);
        }
        if wake {
            self.wake(host, 0);
        }
        self.start_stages(host);
    }

    /// The power went in the middle of an operation of the disk: the whole host is gone.
    pub(super) fn power_went(&mut self, host: usize) -> Result<(), Violation> {
        let mut r = self.random.fork(self.now ^ 0xD15C);
        let (seed, away) =
            (r.next(), r.sized(1, 4 * self.plan.election_timeout_ms * crate::cluster::clock::MS));
        self.crash(host, Some(seed), away, &mut r);
        self.drain_outcomes()
    }
}
