//! Damage that housekeeping finds: told to the lanes, whose groups it concerns.

use std::sync::Arc;

use ringraft_ring::Producer;
use ringraft_storage::{GroupKey, LogStorage};
use rustc_hash::FxHashSet;

use crate::handler::{Control, DamagedGroup, LaneEvent, damage_of};

/// Looks of housekeeping between two questions: they are about all groups.
const EVERY: u32 = 64;

/// Which groups have stopped because of damage.
#[derive(Default)]
pub(crate) struct DamageReports {
    stopped: FxHashSet<GroupKey>,
    /// What the lanes were told last.
    told: Option<Arc<[DamagedGroup]>>,
    calls: u32,
}

impl DamageReports {
    /// Housekeeping has done a part. Tells every lane of damage, at once of all; the one that has a group stops it and says so. What finds a
    /// lane's ring full, or no lane that has its group yet, is told again: a group may be on its way from the store to its lane.
    pub(crate) fn look(&mut self, storage: &dyn LogStorage, lanes: &[Producer<LaneEvent>]) {
        self.calls += 1;
        if !self.calls.is_multiple_of(EVERY) {
            return;
        }
        if let Some(told) = self.told.take() {
            self.stopped.extend(told.iter().filter(|group| group.has_stopped()).map(|group| group.key));
        }
        let mut damaged = storage.damaged_groups();
        damaged.sort_by_key(|(key, _)| *key);
        // A log that was dropped is damaged no more, and may be again.
        let keys: FxHashSet<GroupKey> = damaged.iter().map(|(key, _)| *key).collect();
        self.stopped.retain(|stopped| keys.contains(stopped));
        let news: Arc<[DamagedGroup]> = (damaged.iter().filter(|(key, _)| !self.stopped.contains(key)))
            .filter_map(|(key, error)| Some(DamagedGroup::new(*key, damage_of(error)?)))
            .collect();
        if news.is_empty() {
            return;
        }
        for lane in lanes {
            let control = Control::Damaged { groups: Arc::clone(&news) };
            let _ = lane.try_publish(LaneEvent::Control(Box::new(control)));
        }
        self.told = Some(news);
    }

    /// A group is opened again: that it had stopped says nothing of the replica that is started now. It may run on the same log, or on one that
    /// took the place of what was damaged.
    pub(crate) fn opened(&mut self, group: GroupKey) {
        self.stopped.remove(&group);
        // What its lane says of the replica before is not heard; others that have stopped are told once more, which moves nothing.
        self.told = None;
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::sync::Arc;

    use ringraft_ring::{Consumer, ring};
    use ringraft_storage::{
        GroupNumber, GroupOpening, Incarnation, LogReader, MemoryLogStorage, OpenedGroup, RefusedWrites,
        StorageError, StoredGroup, WriteBatch,
    };

    use super::*;

    /// A store that has damage, and nothing else.
    #[derive(Default)]
    struct Damaged(Vec<GroupKey>, MemoryLogStorage);

    impl LogStorage for Damaged {
        fn open_groups(
            &mut self,
            groups: &[GroupOpening],
        ) -> Result<Vec<Result<OpenedGroup, StorageError>>, StorageError> {
            self.1.open_groups(groups)
        }

        fn remove_group(&mut self, group: GroupKey) -> Result<(), StorageError> {
            self.1.remove_group(group)
        }

        fn stored_groups(&self) -> Vec<StoredGroup> {
            self.1.stored_groups()
        }

        fn submit(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
            self.1.submit(batch)
        }

        fn complete(&mut self) -> Result<Vec<RefusedWrites>, StorageError> {
            self.1.complete()
        }

        fn damaged_groups(&self) -> Vec<(GroupKey, StorageError)> {
            let error = || StorageError::Damaged { path: "1.seg".into(), offset: 7, what: "checksum".into() };
            self.0.iter().map(|key| (*key, error())).collect()
        }

        fn reader(&self) -> Arc<dyn LogReader> {
            self.1.reader()
        }
    }

    fn key(number: u32) -> GroupKey {
        GroupKey { number: GroupNumber(number), incarnation: Incarnation(number) }
    }

    /// What a lane is told after the next look, when it has these groups.
    fn told(lane: &mut Consumer<LaneEvent>, has: &[u32]) -> Vec<u32> {
        let (mut events, mut told) = (Vec::new(), Vec::new());
        lane.drain(16, &mut events);
        for event in events {
            let LaneEvent::Control(control) = event else { panic!("{event:?}") };
            let Control::Damaged { groups } = *control else { panic!("{control:?}") };
            groups.iter().filter(|group| has.contains(&group.key.number.0)).for_each(DamagedGroup::stopped);
            told.extend(groups.iter().map(|group| group.key.number.0));
        }
        told
    }

    /// Shows rule P7: a group is told of until it has stopped, whether it is still on its way to its lane or the lane's ring is full, and again
    /// when it was opened anew; and no longer.
    #[test]
    fn a_group_is_told_of_until_it_has_stopped_and_anew_when_it_is_opened() {
        let (lane, mut taken) = ring(2);
        let (mut reports, mut store) = (DamageReports::default(), Damaged::default());
        store.0 = vec![key(1), key(2)];
        let lanes = [lane];
        let look = |reports: &mut DamageReports, store: &Damaged| {
            (0..EVERY).for_each(|_| reports.look(store, &lanes));
        };
        look(&mut reports, &store);
        assert_eq!(told(&mut taken, &[1]), [1, 2], "the second is not there yet");
        look(&mut reports, &store);
        assert_eq!(told(&mut taken, &[1, 2]), [2]);
        look(&mut reports, &store);
        assert_eq!(told(&mut taken, &[]), []);
        // The first is stopped and started again, on the same log.
        reports.opened(key(1));
        look(&mut reports, &store);
        assert_eq!(told(&mut taken, &[1]), [1]);
        // It is opened between what its lane has said of the replica before and the next look.
        reports.opened(key(1));
        look(&mut reports, &store);
        assert_eq!(told(&mut taken, &[]), [1]);
        // The lane takes nothing: its ring fills.
        (0..3).for_each(|_| look(&mut reports, &store));
        assert_eq!(told(&mut taken, &[]), [1, 1]);
        look(&mut reports, &store);
        assert_eq!(told(&mut taken, &[1]), [1]);
        // Its log was dropped, and is damaged again later.
        store.0 = vec![key(2)];
        look(&mut reports, &store);
        store.0 = vec![key(1), key(2)];
        look(&mut reports, &store);
        assert_eq!(told(&mut taken, &[1]), [1]);
    }
}
