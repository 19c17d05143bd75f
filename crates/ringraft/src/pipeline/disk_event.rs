//! What is asked of the disk stage.

use std::fmt;

use ringraft_core::GroupId;
use ringraft_storage::{GroupKey, GroupOpening, OpenedGroup, StorageError, StoredGroup};

use crate::handler::DiskWrite;
use crate::task::promise::Promise;

/// What the disk stage takes from its ring.
pub(crate) enum DiskEvent {
    /// The writes of one turn of one lane.
    Writes(Vec<DiskWrite>),
    /// Open groups, all new ones in one write.
    Open { groups: Vec<GroupOpening>, answer: Promise<Opened> },
    /// Remove groups that do not run, each of the life with this creation number (0: whatever is there), in one write. Answers for each whether
    /// it was there.
    Remove { groups: Vec<(GroupId, u64)>, answer: Promise<Removed> },
    /// Drop the log of a group that does not run, of the life with this creation number (0: whatever is there), and withhold its vote,
    /// durably and at once. Answers whether it was there.
    Rejoin { group: GroupId, creation: u64, answer: Promise<Result<bool, StorageError>> },
    /// Tell of which of these groups nothing was ever written, with the creation number of those that are there; they may run. Nothing is
    /// created, and nothing changes.
    Blank { groups: Vec<GroupId>, answer: Promise<Result<Vec<Option<u64>>, StorageError>> },
    /// Tell which groups the store remembers.
    Stored { answer: Promise<Vec<StoredGroup>> },
    /// Have a blank group withhold its vote, durably.
    Withhold { group: GroupKey, answer: Promise<Result<(), StorageError>> },
    /// Look for requests in [`DiskControl`](super::DiskControl).
    Look,
    /// Write another file of the directory, which belongs to this thread as the log does.
    Run(Box<dyn FnOnce() + Send>),
}

/// What became of the groups that were to be opened.
pub(crate) type Opened = Result<Vec<Result<OpenedGroup, StorageError>>, StorageError>;

/// What became of the groups that were to be removed; of the whole, when nothing was written.
pub(crate) type Removed = Result<Vec<Result<bool, StorageError>>, StorageError>;

impl fmt::Debug for DiskEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskEvent::Writes(writes) => f.debug_tuple("Writes").field(&writes.len()).finish(),
            DiskEvent::Open { groups, .. } => f.debug_tuple("Open").field(&groups.len()).finish(),
            DiskEvent::Remove { groups, .. } => f.debug_tuple("Remove").field(&groups.len()).finish(),
            DiskEvent::Rejoin { group, .. } => f.debug_tuple("Rejoin").field(group).finish(),
            DiskEvent::Blank { groups, .. } => f.debug_tuple("Blank").field(&groups.len()).finish(),
            DiskEvent::Stored { .. } => f.write_str("Stored"),
            DiskEvent::Withhold { group, .. } => f.debug_tuple("Withhold").field(group).finish(),
            DiskEvent::Look => f.write_str("Look"),
            DiskEvent::Run(_) => f.write_str("Run"),
        }
    }
}
