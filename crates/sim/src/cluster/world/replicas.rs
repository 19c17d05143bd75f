//! How a host opens its replica of a group, over whatever its store holds of it.

use std::sync::Arc;

use ringraft::begins_anew;
use ringraft::handler::{
    Control, FsmGroup, GroupNames, GroupProgress, LaneEvent, NodeStatus, OpenGroup, promise,
};
use ringraft_core::Vote;
use ringraft_storage::{GroupOpening, OpenedGroup, StorageError};

use super::World;
use crate::checkers::Violation;
use crate::cluster::checks::broken;
use crate::cluster::host::{Process, worker_of};
use crate::cluster::machine::Registers;

impl World {
    /// Whether a group may have lived on a disk that the host has lost since.
    pub(super) fn rejoins(&self, group: usize, host: usize) -> bool {
        let host = &self.hosts[host];
        host.wiped && !begins_anew(Some(host.rejoined_after), self.lives.creation(group))
    }

    /// Opens a replica in a process that is being started, or runs.
    ///
    /// # Errors
    /// What the store says; inside, a rule that is broken.
    pub(super) fn open_replica(
        &mut self,
        process: &mut Process,
        host: usize,
        group: usize,
    ) -> Result<Result<(), Violation>, StorageError> {
        let (life, now) = (self.hosts[host].life, self.hosts[host].clock.now(self.now));
        let (name, creation) = (self.lives.group_id(group), self.lives.creation(group));
        let meant = GroupOpening { group: name.clone(), creation };
        let opened = process.store.as_log().open_groups(&[meant])?.pop();
        let missing = || StorageError::Poisoned("no answer for a group".to_owned());
        let OpenedGroup { key, recovered, .. } = opened.ok_or_else(missing)??;
        let damaged = self.is_damaged(host);
        // Damage that the store lays at a group's door: the group would stop, or rejoin. The whole host stays down, as an operator
        // would leave it until the member is made anew.
        let withheld = recovered.hard_state.vote == Vote::Withheld;
        if damaged && (withheld || !recovered.damaged.is_empty()) {
            let what = format!("group {group} is damaged");
            return Err(StorageError::Damaged { path: "the store".to_owned(), offset: 0, what });
        }
        if let Err(violation) = self.oracle.recovered(group, host, key, &recovered, &*process.reader, damaged)
        {
            return Ok(Err(violation));
        }
        let (peer, gate) = (self.hosts[host].peer.clone(), Arc::clone(&self.gate));
        let names = GroupNames::in_cluster(name.clone(), peer, creation, gate);
        let (progress, status) = (Arc::new(GroupProgress::default()), Arc::new(NodeStatus::default()));
        let values = Arc::default();
        process.registers[group] = Some(Arc::clone(&values));
        let machine = Registers { host, group, values, outbox: Arc::clone(&self.outbox) };
        let fsm = FsmGroup::new(
            Arc::clone(&names),
            Box::new(machine),
            Arc::clone(&progress),
            Arc::clone(&status),
            recovered.before_first.index,
        );
        let open = OpenGroup {
            names,
            key,
            options: self.core_options(group, host),
            recovered,
            seed: self.random.fork(u64::from(life) << 32 | (group * 8 + host) as u64).next(),
            worker: worker_of(group) as u16,
            progress,
            status,
            fsm: Box::new(fsm),
        };
        let (answer, waiter) = promise();
        let control = Control::Open { group: Box::new(open), answer };
        let mut events = vec![LaneEvent::Control(Box::new(control))];
        process.lane.on_batch(now, &mut events, &mut process.out);
        let handle = match waiter.wait(Some(std::time::Duration::ZERO)) {
            Some(Ok(handle)) => handle,
            other => {
                let what = format!("host {host} cannot open group {group}: {other:?}");
                return Ok(Err(broken("recovery", what)));
            }
        };
        process.routes.insert(name, self.hosts[host].peer.clone(), creation, handle);
        process.handles[group] = Some(handle);
        process.by_handle.insert(handle, group);
        process.by_slot.resize(process.by_slot.len().max(handle.slot as usize + 1), None);
        process.by_slot[handle.slot as usize] = Some(group);
        process.by_key.insert(key, group);
        Ok(Ok(()))
    }
}
