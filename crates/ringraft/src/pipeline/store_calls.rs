//! What a store remembers of groups by name, asked on the thread that owns it.

use std::collections::BTreeMap;

use ringraft_core::{GroupId, HardState, LogId, RecoveredState};
use ringraft_storage::{GroupKey, LogStorage, StorageError, StoredGroup};

/// The creation number of each group of which nothing was ever written, 0 where the store does not know it; `None` for the others. A group
/// whose writes the store refuses has a memory, and is not opened for the answer: that would make the store take its writes again.
pub(crate) fn blank(
    storage: &mut dyn LogStorage,
    groups: &[GroupId],
    refuses: impl Fn(GroupKey) -> bool,
) -> Result<Vec<Option<u64>>, StorageError> {
    let stored: BTreeMap<GroupId, StoredGroup> =
        storage.stored_groups().into_iter().map(|stored| (stored.group.clone(), stored)).collect();
    let mut found = Vec::with_capacity(groups.len());
    for group in groups {
        found.push(match stored.get(group).map(|stored| (stored.key, stored.creation)) {
            None => Some(0),
            Some((Some(key), creation)) if !refuses(key) => {
                let (_, recovered) = storage.open_group(group)?;
                is_blank(&recovered).then_some(creation)
            }
            Some(_) => None,
        });
    }
    Ok(found)
}

/// Whether nothing was ever written of a group.
pub(crate) fn is_blank(recovered: &RecoveredState) -> bool {
    recovered.last_index == 0
        && recovered.before_first == LogId::default()
        && recovered.hard_state == HardState::default()
        && recovered.damaged.is_empty()
}

/// The life of a group that a request with this creation number means, 0 for whatever is there; `None` where the store has none.
///
/// # Errors
/// [`StorageError::OtherLife`] when the store has another.
pub(crate) fn meant(
    storage: &dyn LogStorage,
    group: &GroupId,
    creation: u64,
) -> Result<Option<GroupKey>, StorageError> {
    let stored = storage.stored_group(group);
    let Some((known, key)) = stored.and_then(|stored| Some((stored.creation, stored.key?))) else {
        return Ok(None);
    };
    if creation != 0 && creation != known {
        let (group, asked) = (group.clone(), creation);
        return Err(StorageError::OtherLife { group, asked, known, removed: false });
    }
    Ok(Some(key))
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use ringraft_core::{LogOp, Vote};
    use ringraft_storage::{GroupOpening, GroupWrite, MemoryLogStorage, WriteBatch};

    use super::*;

    fn id(name: &str) -> GroupId {
        name.parse().unwrap()
    }

    fn open(store: &mut MemoryLogStorage, name: &str, creation: u64) -> GroupKey {
        let opening = GroupOpening { group: id(name), creation };
        store.open_groups(&[opening]).unwrap().remove(0).unwrap().key
    }

    fn write(store: &mut MemoryLogStorage, group: GroupKey, ops: Vec<LogOp>) -> usize {
        store.submit(&WriteBatch { writes: vec![GroupWrite { group, ops }] }).unwrap();
        store.complete().unwrap().len()
    }

    /// A question about a group that runs and whose writes the store refuses must not open it again: it would take them from then on, without
    /// those that it has refused.
    #[test]
    fn asking_what_is_blank_changes_nothing() {
        let mut store = MemoryLogStorage::new();
        open(&mut store, "blank", 7);
        let voted = open(&mut store, "voted", 7);
        let vote = LogOp::HardState(HardState { term: 1, vote: Vote::None });
        assert_eq!(write(&mut store, voted, vec![vote.clone()]), 0);
        let refused = open(&mut store, "refused", 0);
        assert_eq!(write(&mut store, refused, vec![LogOp::TruncateSuffix { from: 0 }]), 1);
        let removed = open(&mut store, "removed", 3);
        store.remove_group(removed).unwrap();
        let before = store.stored_groups();
        let names = ["unknown", "blank", "voted", "refused", "removed"].map(id);
        let found = blank(&mut store, &names, |key| key == refused).unwrap();
        assert_eq!(found, [Some(0), Some(7), None, None, None]);
        assert_eq!(store.stored_groups(), before, "none was created");
        assert_eq!(write(&mut store, refused, vec![vote]), 1, "its writes are refused as before");
    }

    #[test]
    fn a_life_is_meant_by_its_number_or_by_none() {
        let mut store = MemoryLogStorage::new();
        let key = open(&mut store, "g", 7);
        for creation in [0, 7] {
            assert_eq!(meant(&store, &id("g"), creation).unwrap(), Some(key));
            assert_eq!(meant(&store, &id("h"), creation).unwrap(), None);
        }
        for creation in [6, 8] {
            let other = meant(&store, &id("g"), creation).unwrap_err();
            assert!(matches!(other, StorageError::OtherLife { known: 7, removed: false, .. }), "{other}");
        }
    }
}
