//! Groups that a host has in its store and has not opened yet: it must not be taken for one that remembers nothing of them.

use ringraft_core::GroupId;
use rustc_hash::FxHashMap;

use crate::thread::sync::RwLock;

/// Groups that the store had at the start of the host and that have not been opened since, with their creation numbers.
#[derive(Default)]
pub(crate) struct UnopenedGroups(RwLock<FxHashMap<GroupId, u64>>);

impl UnopenedGroups {
    pub(crate) fn set(&self, groups: impl Iterator<Item = (GroupId, u64)>) {
        *self.0.write() = groups.collect();
    }

    /// The group runs or was removed, or it was seen that it holds nothing.
    pub(crate) fn remove(&self, group: &GroupId) {
        self.0.write().remove(group);
    }

    pub(super) fn contains(&self, group: &str, creation: u64) -> bool {
        self.0.read().get(group).is_some_and(|&ours| is_meant(creation, ours))
    }
}

/// Whether a question about a life with the number `asked` means the one with number `ours`. Who does not number groups means any.
pub(super) fn is_meant(asked: u64, ours: u64) -> bool {
    asked == 0 || asked == ours
}
