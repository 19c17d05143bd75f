//! Logs that an operator has a host drop while it runs (`RaftHost::rejoin_group`): the replica has lost what it held, and knows it. It comes back
//! under load as a member that votes for nobody and counts for nothing until it holds what the others have committed since.
//!
//! Asked of a replica that works, where it does the most harm: what it has acknowledged is gone. To the checkers its disk was lost, for this
//! group alone, and the same conditions hold: the others are a majority, and no change of members is under way.

use std::time::Duration;

use ringraft::handler::{Control, LaneEvent, Waiter, drop_log, promise};
use ringraft_storage::{GroupWrite, StorageError, WriteBatch};

use super::World;
use super::event::Event;
use super::lives::is_on_its_way;
use crate::checkers::Violation;
use crate::cluster::random::Random;

/// Microseconds after which a host that could not go on tries again.
const AGAIN: u64 = 500;

/// A log that is being dropped.
pub(super) struct LogDrop {
    group: usize,
    host: usize,
    /// The life of the process that was asked; a later one knows nothing of it.
    life: u32,
    /// Told when the replica's state machine is gone; `None` once it was.
    closed: Option<Waiter<bool>>,
}

impl World {
    /// Draws when operators ask for it, of which group and host.
    pub(super) fn plan_drops(&mut self, seed: u64) {
        // A stream of its own: what else a seed draws does not depend on this.
        let mut r = Random::new(seed).fork(29);
        if self.lives.any() || !r.chance(200) {
            return;
        }
        // Damage may take a host away for good at any time.
        self.plan.atlas.fill(false);
        self.plan.faults.retain(|kind| !kind.damages());
        for _ in 0..r.range(2, 8) {
            let (group, host) = (r.index(self.plan.groups.len()), r.index(self.plan.hosts));
            let at = r.range(self.plan.chaos / 16, self.plan.chaos);
            self.after(at, Event::DropLog(group, host));
        }
    }

    /// An operator asks a host to drop the log of a group, if the group can bear that now.
    pub(super) fn drop_log(&mut self, group: usize, host: usize) {
        let busy = self.drops.iter().flatten().any(|drop| drop.host == host);
        if !self.chaos || busy || self.members_are_changing() || !self.majorities_live_without(&[host]) {
            return;
        }
        let name = self.lives.group_id(group);
        let life = self.hosts[host].life;
        let Some(process) = self.hosts[host].process.as_mut().filter(|p| p.stopping.is_none()) else {
            return;
        };
        let Some(handle) = process.handles[group].take() else { return };
        process.routes.remove(&name);
        let (answer, closed) = promise();
        process.control.push_back(LaneEvent::Control(Box::new(Control::Close { handle, answer })));
        self.report.events += 1;
        self.note(|| format!("host {host} drops the log of {name}"));
        self.drops.push(Some(LogDrop { group, host, life, closed: Some(closed) }));
        self.wake(host, 0);
        self.after(AGAIN, Event::Dropping(self.drops.len() - 1));
    }

    /// The host goes on with that, as far as it can.
    pub(super) fn go_on_dropping(&mut self, number: usize) -> Result<(), Violation> {
        let Some(LogDrop { group, host, life, closed }) = &mut self.drops[number] else { return Ok(()) };
        if closed.as_ref().is_some_and(|closed| closed.wait(Some(Duration::ZERO)).is_some()) {
            *closed = None;
        }
        let runs = closed.is_some();
        let (group, host) = (*group, *host);
        if self.hosts[host].life != *life || self.hosts[host].left_dead {
            // Who is started again finds the log as it was.
            self.drops[number] = None;
            return Ok(());
        }
        let Some(p) = &self.hosts[host].process else { return Ok(()) };
        let waits = self.hosts[host].paused_until > self.now
            || p.disk.failed().is_some()
            || p.writing.is_some()
            || p.telling.is_some()
            || runs
            || is_on_its_way(p, group);
        if waits || !self.write_drop(group, host)? {
            let delay = AGAIN + self.random.below(AGAIN);
            self.after(delay, Event::Dropping(number));
            return Ok(());
        }
        self.drops[number] = None;
        Ok(())
    }

    /// Drops the log and opens the replica again. Says whether that is over, for better or worse.
    fn write_drop(&mut self, group: usize, host: usize) -> Result<bool, Violation> {
        let name = self.lives.group_id(group);
        let h = &mut self.hosts[host];
        let Some(p) = &mut h.process else { return Ok(true) };
        self.report.events += 1;
        let key = p.store.as_log().stored_group(&name).and_then(|stored| stored.key);
        let before = self.oracle.groups[group].logs[host].stable.hard_state().clone();
        let Some(key) = key else { return Ok(true) };
        let ops = drop_log(&before);
        h.proof.submitting(&h.disk);
        let batch = WriteBatch { writes: vec![GroupWrite { group: key, ops: ops.clone() }] };
        let submitted = p.store.as_log().submit(&batch);
        if let Err(StorageError::NoRoom(_)) = submitted {
            return Ok(false);
        }
        let written = submitted.and_then(|()| p.store.as_log().complete().map(drop));
        self.oracle.dropping(group, host, ops)?;
        self.hosts[host].dropped = true;
        if self.hosts[host].power_is_off() {
            self.power_went(host)?;
            return Ok(true);
        }
        if let Err(error) = written {
            self.disk_fails(host, error)?;
            return Ok(true);
        }
        let h = &mut self.hosts[host];
        h.proof.synced(&h.disk);
        self.oracle.dropped(group, host);
        self.mark("log dropped");
        self.open_running(host, group)?;
        Ok(true)
    }
}
