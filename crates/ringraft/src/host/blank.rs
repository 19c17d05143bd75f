//! What a host does about what it does not remember: groups of which its store holds nothing, and the cluster that it is told by a leader.

use std::sync::Arc;

use ringraft_core::{Configuration, GroupId};
use ringraft_ring::Producer;
use ringraft_storage::{GroupKey, GroupOpening, OpenedGroup};

use super::Inner;
use crate::error::StartError;
use crate::host::store::IdentityPlace;
use crate::identity::cluster_gate::ClusterGate;
use crate::pipeline::DiskEvent;
use crate::task::promise::{Promise, promise};
use crate::thread::sync::Mutex;

impl Inner {
    /// Opens the logs of groups; what the store says of each stands in its place.
    pub(super) fn open_logs(
        &self,
        groups: Vec<GroupOpening>,
    ) -> Result<Vec<Result<OpenedGroup, StartError>>, StartError> {
        let opened =
            self.on_disk(|answer| DiskEvent::Open { groups, answer })?.map_err(StartError::of_store)?;
        Ok(opened.into_iter().map(|opened| opened.map_err(StartError::of_store)).collect())
    }

    /// Makes a vote that is withheld durable, before the replica that withholds it exists: a crash must not make it a voter.
    pub(super) fn withhold(&self, group: GroupKey) -> Result<(), StartError> {
        self.on_disk(|answer| DiskEvent::Withhold { group, answer })?.map_err(StartError::of_store)
    }

    /// Asks the disk stage and waits for its answer.
    pub(super) fn on_disk<T>(&self, make: impl FnOnce(Promise<T>) -> DiskEvent) -> Result<T, StartError> {
        let (answer, waiter) = promise();
        self.disk.publish(make(answer)).map_err(|_| StartError::HostStopped)?;
        waiter.wait(None).ok_or(StartError::HostStopped)
    }

    /// As [`on_disk`](Inner::on_disk), for what waits for no write. A group that is concerned must not run.
    pub(super) fn on_disk_at_once<T>(
        &self,
        make: impl FnOnce(Promise<T>) -> DiskEvent,
    ) -> Result<T, StartError> {
        let (answer, waiter) = promise();
        if !self.disk_control.ask(make(answer)) {
            return Err(StartError::HostStopped);
        }
        // Where the ring is full, the stage is awake.
        let _ = self.disk.try_publish(DiskEvent::Look);
        waiter.wait(None).ok_or(StartError::HostStopped)
    }

    /// Asks the peers of groups that remember nothing here, and keeps what they say until the groups are started.
    pub(super) fn ask_peers(&self, blank: &[(GroupOpening, Configuration)]) -> Result<(), StartError> {
        let Some(question) = self.question.as_ref().filter(|_| !blank.is_empty()) else { return Ok(()) };
        // A peer that asks for it meanwhile, because it is as blank, need not ask again.
        blank.iter().for_each(|(meant, _)| self.routes.unopened().remove(&meant.group));
        let found = question.ask(self.gate.id().unwrap_or_default(), blank)?;
        if let Some((group, peer)) = found.first_key_value() {
            let groups = found.len();
            tracing::warn!(
                groups, %group, %peer,
                "peers have committed entries of groups of which this server has no memory: its disk was lost, or the cluster is older than it. \
                 These groups begin without a vote, as after --rejoin; take --bootstrap out of whatever starts this server"
            );
        }
        let lost = blank.iter().map(|(meant, _)| {
            (meant.group.clone(), Asked { creation: meant.creation, lost: found.contains_key(&meant.group) })
        });
        self.asked.lock().extend(lost);
        Ok(())
    }

    /// Rule P12: whether others remember a group of which this host remembers nothing. It may have voted, and acknowledged entries.
    /// Its peers were asked.
    pub(super) fn has_lost_its_memory(&self, group: &GroupId, creation: u64) -> bool {
        self.asked.lock().remove(group).is_some_and(|asked| asked.creation == creation && asked.lost)
    }

    /// Whether its peers were asked for this life of a group.
    pub(super) fn was_asked(&self, group: &GroupId, creation: u64) -> bool {
        self.asked.lock().get(group).is_some_and(|asked| asked.creation == creation)
    }
}

/// What the peers of a blank group were asked, and what came out.
pub(super) struct Asked {
    /// For which life.
    creation: u64,
    /// Some of them have committed entries.
    lost: bool,
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
