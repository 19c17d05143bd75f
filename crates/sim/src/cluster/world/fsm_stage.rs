//! The loops around the state machines and the log reads.

use ringraft::handler::{ApplyOutput, LaneEvent, ReadTask};

use super::World;
use super::event::Event;
use crate::checkers::Violation;

impl World {
    /// A state-machine worker does what it was given.
    pub(super) fn apply(&mut self, host: usize, life: u32, worker: usize) -> Result<(), Violation> {
        if self.hosts[host].life != life {
            return Ok(());
        }
        let still = self.hosts[host].still_until[worker];
        if still > self.now {
            self.at(still, Event::Apply(host, life, worker));
            return Ok(());
        }
        self.report.events += 1;
        let Some(p) = &mut self.hosts[host].process else { return Ok(()) };
        let Some(mut tasks) = p.workers[worker].ring.pop_front() else { return Ok(()) };
        p.workers[worker].busy = false;
        let mut applied = ApplyOutput::default();
        p.workers[worker].fsm.on_batch(&mut tasks, &mut applied);
        let mut wake = !p.out.is_empty();
        for (handle, progress, index) in applied.applied {
            wake |= p.board.applied(handle, &progress, index);
        }
        for (handle, progress, status) in applied.failed {
            p.board.group_failed(handle, &progress, status);
            wake = true;
        }
        if wake {
            self.wake(host, 0);
        }
        self.start_stages(host);
        self.drain_outcomes()?;
        self.end_if_stopped(host)
    }

    pub(super) fn read(&mut self, host: usize, life: u32) -> Result<(), Violation> {
        if self.hosts[host].life != life {
            return Ok(());
        }
        self.report.events += 1;
        let Some(p) = &mut self.hosts[host].process else { return Ok(()) };
        let Some(ReadTask { handle, key, read }) = p.read_ring.pop_front() else { return Ok(()) };
        p.read_busy = false;
        let result = p.reader.read(key, read.from, read.to, read.max_bytes);
        if matches!(result, Err(ringraft_storage::StorageError::Damaged { .. })) {
            *self.report.marks.entry("damage found by a read").or_default() += 1;
        }
        p.control.push_back(LaneEvent::LogRead { handle, ticket: read.ticket, result: Box::new(result) });
        self.mark("entries read back for a peer");
        self.wake(host, 0);
        self.start_stages(host);
        Ok(())
    }
}
