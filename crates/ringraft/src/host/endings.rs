//! Groups of a host: how they end, and how they go for good.

use ringraft_core::GroupId;
use ringraft_storage::{StorageError, StoredGroup};

use super::groups::same;
use super::{Inner, RaftHost};
use crate::error::StartError;
use crate::handler::{Control, GroupHandle};
use crate::pipeline::DiskEvent;
use crate::task::promise::Waiter;
use crate::thread::on_host_thread;

impl RaftHost {
    /// Stops a group: every completion that waits is answered, its state machine gets `on_shutdown`. Its log stays in the store, and
    /// the group can be started again. Says whether it was running.
    ///
    /// # Errors
    /// [`StartError::OwnThread`] on a thread of the host.
    pub fn stop_group(&self, group_id: &GroupId) -> Result<bool, StartError> {
        self.stop_groups(std::slice::from_ref(group_id)).map(|stopped| stopped > 0)
    }

    /// As [`stop_group`](RaftHost::stop_group) for many at once. Says how many were running.
    ///
    /// # Errors
    /// [`StartError::OwnThread`] on a thread of the host.
    pub fn stop_groups(&self, groups: &[GroupId]) -> Result<usize, StartError> {
        if on_host_thread() {
            return Err(StartError::OwnThread);
        }
        let begun: Vec<_> = groups.iter().filter_map(|group| self.0.begin_stop(group, By::Anybody)).collect();
        Ok(begun.into_iter().filter(|stop| self.0.stopped(stop) == Stopped::Gone).count())
    }

    /// Removes a group from this host for good: stops it if it runs, forgets what it stored, durably, and gives the space back. `creation`
    /// names the life that is meant, so that a late call harms no later one; 0 means whatever is there. Says whether the store had it.
    ///
    /// The name and its creation number are kept: the name starts again on this host only with a higher
    /// [`creation`](crate::NodeOptions::creation). The other members are neither asked nor told. A replica that is removed while the group's
    /// configuration names it is lost to the group, as if its disk had broken; remove the member first, or the group from all hosts.
    ///
    /// # Errors
    /// [`StartError::OtherLife`] when another life is there; [`StartError::OneReplica`] while the group is being started;
    /// [`StartError::BeingRemoved`] while somebody else removes it; [`StartError::Store`] when the store cannot write, and then the group
    /// is stopped and still there; [`StartError::OwnThread`], [`StartError::HostStopped`].
    pub fn remove_group(&self, group_id: &GroupId, creation: u64) -> Result<bool, StartError> {
        let meant = [(group_id.clone(), creation)];
        self.remove_groups(&meant).pop().unwrap_or(Err(StartError::HostStopped))
    }

    /// As [`remove_group`](RaftHost::remove_group) for many at once, each with the creation number that is meant, and with the outcome of each in
    /// its place: they are removed in one durable write.
    pub fn remove_groups(&self, groups: &[(GroupId, u64)]) -> Vec<Result<bool, StartError>> {
        if on_host_thread() {
            return groups.iter().map(|_| Err(StartError::OwnThread)).collect();
        }
        let inner = &*self.0;
        let mut outcomes: Vec<_> =
            groups.iter().map(|(group, _)| inner.begin_removal(group).map(|()| false)).collect();
        let mut reserved: Vec<(usize, &(GroupId, u64))> =
            groups.iter().enumerate().filter(|(place, _)| outcomes[*place].is_ok()).collect();
        // Whoever is not removed now can be started again by others.
        let give_back = |group: &GroupId| inner.groups.lock().removing.remove(group);
        let mut keep =
            |(place, (group, _)): &(usize, &(GroupId, u64)), checked: Result<(), StartError>| match checked {
                Ok(()) => true,
                Err(error) => {
                    outcomes[*place] = Err(error);
                    give_back(group);
                    false
                }
            };
        reserved.retain(|one| keep(one, inner.check_life(&one.1.0, one.1.1)));
        let stops: Vec<_> =
            reserved.iter().map(|(_, (group, _))| inner.begin_stop(group, By::Remover)).collect();
        let mut stops = stops.into_iter();
        reserved.retain(|one| keep(one, inner.stopped_for_good(&one.1.0, stops.next().flatten())));
        let meant: Vec<(GroupId, u64)> = reserved.iter().map(|(_, meant)| (*meant).clone()).collect();
        let removed = match meant.is_empty() {
            true => Ok(Vec::new()),
            false => inner
                .on_disk_at_once(|answer| DiskEvent::Remove { groups: meant, answer })
                .and_then(|removed| removed.map_err(StartError::of_store)),
        };
        match removed {
            Ok(removed) => {
                for ((place, (group, creation)), removed) in reserved.iter().zip(removed) {
                    outcomes[*place] = removed.map_err(StartError::of_store);
                    if let Ok(true) = outcomes[*place] {
                        inner.routes.unopened().remove(group);
                        inner.asked.lock().remove(group);
                        tracing::info!(%group, creation, "the group is removed from this host");
                    }
                }
            }
            Err(error) => reserved.iter().for_each(|(place, _)| outcomes[*place] = Err(same(&error))),
        }
        reserved.iter().for_each(|(_, (group, _))| {
            give_back(group);
        });
        outcomes
    }

    /// [`StartMode::Rejoin`](crate::StartMode::Rejoin) for one group: stops it if it runs and drops its log, durably and at once. When it is
    /// started again it takes itself for a member that has lost its disk: it votes for nobody and counts in no quorum until it holds what
    /// the others have committed since. The groups beside it notice nothing. For a group whose log is damaged. Says whether the store had
    /// it. `creation` names the life that is meant, so that a late call drops no later one's log; 0 means whatever is there.
    ///
    /// What only this replica held is gone: a majority of the *other* members must be up and sound.
    ///
    /// # Errors
    /// As for [`remove_group`](RaftHost::remove_group); after [`StartError::Store`] the group is stopped and has its log.
    pub fn rejoin_group(&self, group_id: &GroupId, creation: u64) -> Result<bool, StartError> {
        if on_host_thread() {
            return Err(StartError::OwnThread);
        }
        let inner = &*self.0;
        inner.begin_removal(group_id)?;
        let meant = inner.check_life(group_id, creation);
        let dropped = meant.and_then(|()| inner.stop_for_good(group_id)).and_then(|()| {
            let group = group_id.clone();
            let dropped = inner.on_disk_at_once(|answer| DiskEvent::Rejoin { group, creation, answer })?;
            dropped.map_err(StartError::of_store)
        });
        inner.groups.lock().removing.remove(group_id);
        if let Ok(true) = dropped {
            tracing::warn!(group = %group_id, "the group's log is dropped; it rejoins when it is started");
        }
        dropped
    }

    /// Every group that the store remembers, started or not: those in it in the order of their creation, then those that were removed, in
    /// order of name.
    ///
    /// # Errors
    /// [`StartError::OwnThread`], [`StartError::HostStopped`].
    pub fn stored_groups(&self) -> Result<Vec<StoredGroup>, StartError> {
        if on_host_thread() {
            return Err(StartError::OwnThread);
        }
        self.0.on_disk_at_once(|answer| DiskEvent::Stored { answer })
    }
}

/// On whose behalf a group is stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Anybody,
    /// Whoever holds the place in [`Groups::removing`](super::Groups).
    Remover,
}

/// A replica that its lane closes.
struct Stop {
    group_id: GroupId,
    handle: GroupHandle,
    answer: Option<Waiter<bool>>,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// It is closed, and all that it wrote is with the disk.
    Gone,
    /// A panic had ended it before.
    WasGone,
    /// The host ends, and with it the replica.
    WithTheHost,
}

impl Inner {
    /// Whether a call that names this creation number, 0 for any, means the life that runs, if one does.
    fn check_life(&self, group_id: &GroupId, creation: u64) -> Result<(), StartError> {
        match self.routes.node(group_id.as_str()).map(|node| node.creation()) {
            Some(known) if creation != 0 && creation != known => {
                let (group, asked, removed) = (group_id.clone(), creation, false);
                Err(StartError::of_store(StorageError::OtherLife { group, asked, known, removed }))
            }
            _ => Ok(()),
        }
    }

    /// Keeps the group from being started until it is gone.
    fn begin_removal(&self, group_id: &GroupId) -> Result<(), StartError> {
        let mut groups = self.groups.lock();
        if groups.closing {
            return Err(StartError::HostStopped);
        }
        if let Some(server) = groups.by_id.get(group_id)
            && self.routes.node(group_id.as_str()).is_none()
        {
            return Err(StartError::OneReplica { group: group_id.clone(), server: server.clone() });
        }
        match groups.removing.insert(group_id.clone()) {
            true => Ok(()),
            false => Err(StartError::BeingRemoved { group: group_id.clone() }),
        }
    }

    /// Has a replica closed by its lane; nothing where none runs, or somebody else removes it.
    fn begin_stop(&self, group_id: &GroupId, by: By) -> Option<Stop> {
        // Under the lock: who removes a group must see that it is being stopped, or keep others from stopping it.
        let groups = self.groups.lock();
        if by == By::Anybody && groups.removing.contains(group_id) {
            return None;
        }
        let node = self.routes.node(group_id.as_str())?;
        let handle = node.handle();
        // Where another caller has stopped it, he may have started it again.
        if !self.routes.remove_life(group_id, handle) {
            return None;
        }
        drop(groups);
        let answer = self.control(handle.lane, |answer| Control::Close { handle, answer });
        Some(Stop { group_id: group_id.clone(), handle, answer })
    }

    /// Waits until a replica is closed. Its name is free only then.
    fn stopped(&self, stop: &Stop) -> Stopped {
        let closed = stop.answer.as_ref().and_then(|answer| answer.wait(None));
        let mut groups = self.groups.lock();
        match closed {
            Some(true) => {
                groups.by_id.remove(&stop.group_id);
                Stopped::Gone
            }
            Some(false) if !groups.closing => {
                // A replica that a panic has ended is not there to be closed.
                groups.by_id.remove(&stop.group_id);
                Stopped::WasGone
            }
            _ => Stopped::WithTheHost,
        }
    }

    /// Stops a group before its log is touched: nothing of it may be on its way to the disk then. A write that comes after it would stand over
    /// what was written there, as a vote over the mark that the vote is withheld.
    fn stop_for_good(&self, group_id: &GroupId) -> Result<(), StartError> {
        self.stopped_for_good(group_id, self.begin_stop(group_id, By::Remover))
    }

    /// Waits for the end of a stop that was begun by who removes the group.
    fn stopped_for_good(&self, group_id: &GroupId, stop: Option<Stop>) -> Result<(), StartError> {
        let Some(stop) = stop else {
            let groups = self.groups.lock();
            return match groups.by_id.get(group_id) {
                Some(server) => {
                    Err(StartError::OneReplica { group: group_id.clone(), server: server.clone() })
                }
                None => Ok(()),
            };
        };
        match self.stopped(&stop) {
            Stopped::Gone => Ok(()),
            Stopped::WasGone => {
                // The turn in which it ended may be this one, and what it wrote before leaves at the turn's end: another turn is waited for.
                let handle = stop.handle;
                let answer = self.control(handle.lane, |answer| Control::Close { handle, answer });
                answer.and_then(|answer| answer.wait(None)).map(|_| ()).ok_or(StartError::HostStopped)
            }
            Stopped::WithTheHost => Err(StartError::HostStopped),
        }
    }
}

#[cfg(test)]
mod tests {
    use ringraft_net::inproc::Network;

    use super::*;
    use crate::node::Node;
    use crate::options::NodeOptions;
    use crate::{HostOptions, Iterator, StartMode, StateMachine, StoreOptions, TransportOptions};

    struct Nothing;

    impl StateMachine for Nothing {
        fn on_apply(&mut self, iter: &mut Iterator<'_>) {
            while iter.next().is_some() {}
        }
    }

    fn host() -> RaftHost {
        let mut options = HostOptions::new("127.0.0.1:1", StoreOptions::Memory);
        options.transport = TransportOptions::Inproc(Network::new());
        options.start_mode = StartMode::Bootstrap;
        options.bootstrap_ask_ms = 0;
        RaftHost::start(options).unwrap()
    }

    fn start(host: &RaftHost, group: &GroupId) -> Result<Node, StartError> {
        let options = NodeOptions { initial_conf: "127.0.0.1:1".parse().unwrap(), ..NodeOptions::default() };
        host.start_group(group.clone(), "127.0.0.1:1".parse().unwrap(), options, Box::new(Nothing))
    }

    /// Whoever drops a log must be the one who has stopped the group: of a replica that is still being closed for somebody else a vote may
    /// be on its way to the disk, and stand over the mark that the vote is withheld.
    #[test]
    fn a_log_is_dropped_by_who_has_stopped_the_group() {
        let (host, group) = (host(), "g".parse().unwrap());
        start(&host, &group).unwrap();
        host.0.begin_removal(&group).unwrap();
        assert!(!host.stop_group(&group).unwrap(), "it is left to who removes it");
        assert!(host.node(&group).is_some());
        host.0.stop_for_good(&group).unwrap();
        host.0.groups.lock().removing.clear();
        start(&host, &group).unwrap();
        // Somebody stops it, and has not heard yet that it is closed.
        let stop = host.0.begin_stop(&group, By::Anybody).unwrap();
        for _ in 0..2 {
            assert!(matches!(host.rejoin_group(&group, 0), Err(StartError::OneReplica { .. })));
            assert!(matches!(host.remove_group(&group, 0), Err(StartError::OneReplica { .. })));
            assert!(matches!(start(&host, &group), Err(StartError::OneReplica { .. })));
        }
        assert!(host.0.stopped(&stop) == Stopped::Gone);
        assert!(host.rejoin_group(&group, 0).unwrap());
        host.shutdown();
        assert!(matches!(host.rejoin_group(&group, 0), Err(StartError::HostStopped)));
    }
}
