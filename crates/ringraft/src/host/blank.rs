//! What a host does about what it does not remember: groups of which its store holds nothing, and the cluster that it is told by a leader.

use std::sync::Arc;

use ringraft_core::{Configuration, GroupId, HardState, LogId, RecoveredState};
use ringraft_ring::Producer;
use ringraft_storage::{GroupKey, StorageError};

use super::Inner;
use crate::cluster_gate::ClusterGate;
use crate::error::StartError;
use crate::future::{Promise, promise};
use crate::pipeline::DiskEvent;
use crate::store::IdentityPlace;
use crate::sync::Mutex;

impl Inner {
    pub(super) fn open_log(&self, group_id: &GroupId) -> Result<(GroupKey, RecoveredState), StartError> {
        self.on_disk(|answer| DiskEvent::Open { group: group_id.clone(), answer })
    }

    /// Makes a vote that is withheld durable, before the replica that withholds it exists: a crash must not make it a voter.
    pub(super) fn withhold(&self, group: GroupKey) -> Result<(), StartError> {
        self.on_disk(|answer| DiskEvent::Withhold { group, answer })
    }

    /// Asks the disk stage and waits for its answer.
    fn on_disk<T>(
        &self,
        make: impl FnOnce(Promise<Result<T, StorageError>>) -> DiskEvent,
    ) -> Result<T, StartError> {
        let (answer, waiter) = promise();
        self.disk.publish(make(answer)).map_err(|_| StartError::HostStopped)?;
        let answered = waiter.wait(None).ok_or(StartError::HostStopped)?;
        answered.map_err(|error| StartError::Store(error.to_string()))
    }

    pub(super) fn ask_peers(&self, groups: &[(GroupId, Configuration)]) -> Result<(), StartError> {
        let Some(question) = &self.question else { return Ok(()) };
        let mut blank = Vec::new();
        for (group, conf) in groups {
            if is_blank(&self.open_log(group)?.1) {
                // A peer that asks for it meanwhile, because it is as blank, need not ask again.
                self.routes.unopened().remove(group);
                blank.push((group.clone(), conf.clone()));
            }
        }
        let found = question.ask(self.gate.id().unwrap_or_default(), &blank)?;
        if let Some((group, peer)) = found.first_key_value() {
            let groups = found.len();
            tracing::warn!(
                groups, %group, %peer,
                "peers have committed entries of groups of which this server has no memory: its disk was lost, or the cluster is older than it. \
                 These groups begin without a vote, as after --rejoin; take --bootstrap out of whatever starts this server"
            );
        }
        let lost = blank.into_iter().map(|(group, _)| {
            let lost = found.contains_key(&group);
            (group, lost)
        });
        self.asked.lock().extend(lost);
        Ok(())
    }

    /// Rule P12: whether others remember a group of which this host remembers nothing. It may have voted, and acknowledged entries.
    pub(super) fn has_lost_its_memory(
        &self,
        group: &GroupId,
        conf: &Configuration,
    ) -> Result<bool, StartError> {
        let known = self.asked.lock().remove(group);
        if let Some(lost) = known {
            return Ok(lost);
        }
        self.ask_peers(&[(group.clone(), conf.clone())])?;
        Ok(self.asked.lock().remove(group).unwrap_or(false))
    }
}

/// Whether nothing was ever written of a group.
pub(super) fn is_blank(recovered: &RecoveredState) -> bool {
    recovered.last_index == 0
        && recovered.before_first == LogId::default()
        && recovered.hard_state == HardState::default()
        && recovered.damaged.is_empty()
}

/// Has an id that is learnt written into the directory, on the thread that owns its files.
pub(super) fn remember_on_disk(gate: &Arc<ClusterGate>, place: IdentityPlace, disk: Producer<DiskEvent>) {
    let (weak, place) = (Arc::downgrade(gate), Arc::new(Mutex::new(place)));
    gate.remember_with(move |id| {
        let (weak, place, id) = (weak.clone(), Arc::clone(&place), id.to_owned());
        let write = move || {
            let written = place.lock().remember_cluster(&id);
            let Some(gate) = weak.upgrade() else { return };
            match written {
                Ok(()) => gate.settle(&id),
                Err(error) => {
                    tracing::error!(%error, "the cluster's id cannot be written down");
                    gate.give_up_learning();
                }
            }
        };
        disk.try_publish(DiskEvent::Run(Box::new(write))).is_ok()
    });
}
