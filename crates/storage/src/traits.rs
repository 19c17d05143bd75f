//! What the engine asks of a log store: many groups, one ordered stream, one durable write a batch.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use ringraft_core::{EntryChunk, GroupId, HardState, LogIndex, LogOp, RecoveredState};

/// Number of a group within one store, given when the group is created and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupNumber(pub u32);

/// One life of a group within one store: a group that is removed and created again gets a higher one, so
/// that records of its earlier life are never taken for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(pub u32);

/// Names a group to the store on the hot path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// The group's number in this store.
    pub number: GroupNumber,
    /// Which of its lives.
    pub incarnation: Incarnation,
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}.{}", self.number.0, self.incarnation.0)
    }
}

/// A group to be opened: a name, and which life of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOpening {
    /// The group's name.
    pub group: GroupId,
    /// Creation number of the life that is meant, given by whoever creates groups, higher for each life of a name; 0 when groups
    /// are not numbered: then whatever the store holds under the name is meant.
    pub creation: u64,
}

/// A group that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedGroup {
    /// Names it on the hot path.
    pub key: GroupKey,
    /// Creation number of the life that the store holds; 0 for none.
    pub creation: u64,
    /// What is stored of it.
    pub recovered: RecoveredState,
}

/// What a store remembers of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGroup {
    /// The group's name.
    pub group: GroupId,
    /// Creation number of the life that the store holds or, of a removed group, the highest that was removed; 0 for none.
    pub creation: u64,
    /// Its key; `None` for a tombstone: the group was removed, and its name is used again only with a higher number.
    pub key: Option<GroupKey>,
}

/// The operations of one group in one batch, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupWrite {
    /// Whose they are.
    pub group: GroupKey,
    /// What to do, in this order.
    pub ops: Vec<LogOp>,
}

/// One durable write: operations of any number of groups; a group may stand in it more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// Operations in stream order.
    pub writes: Vec<GroupWrite>,
}

impl WriteBatch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

/// What kind of trouble an operation of the file system met, as far as the way out of it differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoKind {
    /// The disk, a quota or a size limit is full.
    Full,
    /// The process or the system has no file descriptor left.
    Descriptors,
    /// The process may not do this there.
    Permission,
    /// A part of the path is no directory, or a directory stands where a file belongs.
    WrongType,
    /// Anything else; most often the disk.
    Other,
}

impl IoKind {
    /// What a person can do about it.
    fn way_out(self) -> &'static str {
        match self {
            IoKind::Full => "free space there, or raise the quota or the limit of file sizes",
            IoKind::Descriptors => "raise the number of open files (ulimit -n)",
            IoKind::Permission => "let the user of this process read and write there",
            IoKind::WrongType => "name another path, or move away what stands there",
            IoKind::Other => "look at the system's log; free, repair or replace the disk",
        }
    }
}

/// Why a store does not do what it was asked.
///
/// From calls of the owner of a store [`Io`](StorageError::Io), [`Damaged`](StorageError::Damaged) and
/// [`Poisoned`](StorageError::Poisoned) are final: nothing is acknowledged after one of them (see
/// `docs/formats.md`). After any other the store is as it was. A read that fails ends nothing but itself.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused an operation. A read may be tried again.
    #[error("{operation} of {path} failed: {message}; {}", .kind.way_out())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On which file.
        path: String,
        /// The system's words.
        message: String,
        /// What kind of trouble it is.
        kind: IoKind,
    },
    /// The disk is full, and nothing of what was asked was written. The store goes on as soon as there is space:
    /// the same call may be made again.
    #[error("there is no room for the log, it goes on when there is: {0}")]
    NoRoom(String),
    /// Data that was once durable cannot be read back.
    #[error(
        "{path} is damaged at byte {offset}: {what}; restore this member from its peers instead of starting it"
    )]
    Damaged {
        /// The file.
        path: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The store stopped at an earlier failure.
    #[error("the store stopped earlier: {0}")]
    Poisoned(String),
    /// The directory is used by another process or belongs to someone else.
    #[error("{0}")]
    Refused(String),
    /// The store holds, or has removed, another life of the group than the one that is meant. Nothing was written.
    #[error("group {group}, creation number {asked}: {}", other_life(*.known, *.removed))]
    OtherLife {
        /// The group's name.
        group: GroupId,
        /// The number of the life that was meant; 0 when none was named.
        asked: u64,
        /// The number that the store knows; 0 for a life without one.
        known: u64,
        /// The life that the store knows was removed.
        removed: bool,
    },
    /// An operation breaks the rules of the stream (a gap, an unknown group) or is more than a file can hold.
    #[error("invalid operation for group {group}: {what}")]
    Invalid {
        /// Whose operation.
        group: GroupKey,
        /// Which rule.
        what: String,
    },
    /// No entry at this index.
    #[error("group {group} has no entry {index}")]
    NotFound {
        /// Which group.
        group: GroupKey,
        /// Which index.
        index: LogIndex,
    },
    /// The entry went with a prefix truncation.
    #[error("entry {index} of group {group} was compacted away")]
    Compacted {
        /// Which group.
        group: GroupKey,
        /// Which index.
        index: LogIndex,
    },
}

/// What is known of a life that is not the one that was meant, and the way out.
fn other_life(known: u64, removed: bool) -> String {
    match removed {
        true => format!(
            "this store has removed the group (creation number {known}); its name is used again with a higher number only"
        ),
        false => format!(
            "this store holds the group with creation number {known}; name that one, or remove it before a later one is created"
        ),
    }
}

impl StorageError {
    /// Whether a store does nothing any more after a call of its owner failed so.
    pub fn is_final(&self) -> bool {
        matches!(self, StorageError::Io { .. } | StorageError::Damaged { .. } | StorageError::Poisoned(_))
    }
}

/// Writes that a batch leaves out, since they break a rule: nothing of them, and nothing that the group wanted to
/// write after them, is stored.
#[derive(Clone, Debug)]
pub struct RefusedWrites {
    /// Whose writes. Those of other groups in the batch are not concerned.
    pub group: GroupKey,
    /// Which rule.
    pub reason: StorageError,
}

/// A durable log for many groups: one ordered stream of truncate, append and hard-state records.
///
/// One thread owns it (SOFAJRaft's disk ring consumer). A write is two calls, so that a simulated disk can
/// be slow and a real one can overlap: [`submit`](LogStorage::submit) starts it, [`complete`](LogStorage::complete)
/// waits until it is durable. The first failure of the disk is final for all groups; a write that breaks the rules is
/// final for its group alone.
pub trait LogStorage: Send {
    /// Opens groups, in order. Those of which the store knows nothing are created, all of them in one durable write. A name whose
    /// group was removed is created again only with a higher creation number, and a group that is there is opened only when its own
    /// number is named, or none ([`StorageError::OtherLife`] for that group alone).
    ///
    /// # Errors
    /// Of the whole call, when nothing was opened: [`StorageError::Io`] when it cannot be made durable, [`StorageError::NoRoom`]
    /// on a full disk, [`StorageError::Refused`] for a name that is too long, [`StorageError::Poisoned`] after a failure.
    fn open_groups(
        &mut self,
        groups: &[GroupOpening],
    ) -> Result<Vec<Result<OpenedGroup, StorageError>>, StorageError>;

    /// As [`open_groups`](LogStorage::open_groups) for one group, of whatever life the store holds.
    ///
    /// # Errors
    /// As for [`open_groups`](LogStorage::open_groups), those of the group among them.
    fn open_group(&mut self, group: &GroupId) -> Result<(GroupKey, RecoveredState), StorageError> {
        let opening = GroupOpening { group: group.clone(), creation: 0 };
        let opened = self.open_groups(&[opening])?.pop();
        let opened =
            opened.unwrap_or_else(|| Err(StorageError::Poisoned("a group was not opened".to_owned())))?;
        Ok((opened.key, opened.recovered))
    }

    /// Removes the group durably and gives its space back. The store keeps its name and creation number (a *tombstone*), so that the
    /// name is not taken for a new one: who has voted and acknowledged in a life must not begin it again without memory.
    ///
    /// # Errors
    /// As for [`open_groups`](LogStorage::open_groups); [`StorageError::Invalid`] for a group that is not in the store.
    fn remove_group(&mut self, group: GroupKey) -> Result<(), StorageError>;

    /// As [`remove_group`](LogStorage::remove_group) for many: a store that can removes all of them in one durable write, or none. A key
    /// that stands there twice is one group.
    ///
    /// # Errors
    /// As for [`remove_group`](LogStorage::remove_group).
    fn remove_groups(&mut self, groups: &[GroupKey]) -> Result<(), StorageError> {
        let once: BTreeSet<&GroupKey> = groups.iter().collect();
        once.into_iter().try_for_each(|group| self.remove_group(*group))
    }

    /// What the store remembers of one name.
    fn stored_group(&self, group: &GroupId) -> Option<StoredGroup> {
        self.stored_groups().into_iter().find(|stored| stored.group == *group)
    }

    /// Every name that the store remembers: groups in it in order of number, then tombstones in order of name.
    fn stored_groups(&self) -> Vec<StoredGroup>;

    /// Names and keys of every group in the store, in order of number.
    fn groups(&self) -> Vec<(GroupId, GroupKey)> {
        let stored = self.stored_groups().into_iter();
        stored.filter_map(|stored| Some((stored.group, stored.key?))).collect()
    }

    /// Starts one durable write. At most [`max_in_flight`](LogStorage::max_in_flight) may be incomplete. All of the
    /// batch is checked before any of it is written: who breaks a rule is left out, and
    /// [`complete`](LogStorage::complete) tells.
    ///
    /// # Errors
    /// [`StorageError::NoRoom`] when the disk is full: nothing was written, the same batch may be submitted again.
    /// [`StorageError::Refused`] when too many are in flight. Any other is final: the batch is not durable and no
    /// later one will be.
    fn submit(&mut self, batch: &WriteBatch) -> Result<(), StorageError>;

    /// Waits until the oldest submitted batch is durable, but for the groups that are returned, each once: of those
    /// nothing in this batch may be taken for durable, and everything that they write later is refused, too, until
    /// they are opened again. Batches complete in order.
    ///
    /// # Errors
    /// Any failure; final.
    fn complete(&mut self) -> Result<Vec<RefusedWrites>, StorageError>;

    /// Batches that may be submitted before the first is completed, at least 1.
    fn max_in_flight(&self) -> usize {
        1
    }

    /// Bytes of log that the store can take even if the disk gives it nothing more; `u64::MAX` while it has no
    /// reason to doubt that there is space. A caller who takes nothing new below a threshold of some batches never
    /// meets [`StorageError::NoRoom`] with something in hand.
    fn room(&self) -> u64 {
        u64::MAX
    }

    /// Payload in bytes that one entry may have at most; a larger one is refused, and with it its group.
    fn largest_entry(&self) -> usize {
        usize::MAX
    }

    /// Groups of which the store has met a record that cannot be read back, with what is wrong: [`StorageError::Damaged`], or an error
    /// that may pass. In the store they go on, but for reads of that range; a host asks after housekeeping and stops those that are damaged.
    fn damaged_groups(&self) -> Vec<(GroupKey, StorageError)> {
        Vec::new()
    }

    /// A handle for reads of durable entries from any thread.
    fn reader(&self) -> Arc<dyn LogReader>;

    /// Writes down that everything acknowledged so far is durable, so that what cannot be read of it later is known for damage and not taken
    /// for a torn write. To be called between batches when none has come for 20 ms, and before an orderly stop; never ahead of a batch that
    /// waits. Costs a write at most once after each batch. Does nothing while there is no room for it, so callers that stay idle call again.
    ///
    /// # Errors
    /// Any failure; final.
    fn vouch(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Housekeeping between batches when idle or due: frees space, writes checkpoints. Bounded work a call.
    ///
    /// # Errors
    /// Any failure; final.
    fn maintain(&mut self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Reads durable entries, from any thread, while the owner writes.
pub trait LogReader: Send + Sync {
    /// Entries `from..=to`, contiguous from `from` on; stops after about `max_bytes` of payload but returns at
    /// least one entry.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] beyond the durable log, [`StorageError::Compacted`] below its start,
    /// [`StorageError::Damaged`] when a checksum fails, [`StorageError::Io`], which may pass (no descriptor is left).
    fn read(
        &self,
        group: GroupKey,
        from: LogIndex,
        to: LogIndex,
        max_bytes: usize,
    ) -> Result<Vec<Arc<EntryChunk>>, StorageError>;
}

/// Term and vote of a group: a view of the record stream (SOFAJRaft's `RaftMetaStorage`).
pub trait MetaStorage {
    /// The last durable term and vote of the group.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] after a failure, [`StorageError::Invalid`] for an unknown group.
    fn hard_state(&self, group: GroupKey) -> Result<HardState, StorageError>;
}
