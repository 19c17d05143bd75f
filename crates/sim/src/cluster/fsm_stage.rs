//! The loops around the state machines and the log reads.

use ringraft::handler::{ApplyOutput, LaneEvent, ReadTask};

use super::world::World;
use crate::checkers::Violation;

impl World {
    pub(super) fn apply(&mut self, host: usize, life: u32) -> Result<(), Violation> {
        if self.hosts[host].life != life {
            return Ok(());
        }
        self.report.events += 1;
        let Some(p) = &mut self.hosts[host].process else { return Ok(()) };
        let Some(mut tasks) = p.fsm_ring.pop_front() else { return Ok(()) };
        p.fsm_busy = false;
        let mut applied = ApplyOutput::default();
        p.fsm.on_batch(&mut tasks, &mut applied);
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
        p.ring.push_back(LaneEvent::LogRead { handle, ticket: read.ticket, result: Box::new(result) });
        self.mark("entries read back for a peer");
        self.wake(host, 0);
        self.start_stages(host);
        Ok(())
    }
}
