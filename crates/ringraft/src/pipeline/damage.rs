//! Damage that housekeeping finds: told to the lanes, whose groups it concerns.

use ringraft_ring::Producer;
use ringraft_storage::{GroupKey, LogStorage};
use rustc_hash::FxHashSet;

use crate::handler::{Control, LaneEvent, damage_of};

/// Looks of housekeeping between two questions: they are about all groups.
const EVERY: u32 = 64;

/// Which groups' damage the lanes were told of.
#[derive(Default)]
pub(super) struct DamageReports {
    told: FxHashSet<GroupKey>,
    calls: u32,
}

impl DamageReports {
    /// Housekeeping has done a part. Tells every lane of damage that it has not been told of; the one that has the group stops it. What finds
    /// a lane's ring full is told again.
    pub(super) fn look(&mut self, storage: &dyn LogStorage, lanes: &[Producer<LaneEvent>]) {
        self.calls += 1;
        if !self.calls.is_multiple_of(EVERY) {
            return;
        }
        let damaged = storage.damaged_groups();
        // A log that was dropped is damaged no more, and may be again.
        self.told.retain(|known| damaged.iter().any(|(key, _)| key == known));
        for (key, error) in damaged {
            let Some(status) = damage_of(&error).filter(|_| !self.told.contains(&key)) else { continue };
            let told = lanes.iter().all(|lane| {
                let control = Control::Damaged { key, status: status.clone() };
                lane.try_publish(LaneEvent::Control(Box::new(control))).is_ok()
            });
            if told {
                self.told.insert(key);
            }
        }
    }
}
