//! What the engine asks of a log store: many groups, one ordered stream, one durable write a batch.

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

/// Why a store cannot go on.
///
/// Everything but [`NotFound`](StorageError::NotFound) and [`Compacted`](StorageError::Compacted) is final for
/// the store: nothing is acknowledged after it (see `docs/formats.md`).
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused an operation.
    #[error(
        "{operation} of {path} failed: {message}; the store has stopped, free or replace the disk and restart"
    )]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On which file.
        path: String,
        /// The system's words.
        message: String,
        /// Whether the disk (or a size limit) is full.
        full: bool,
    },
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
    /// An operation breaks the rules of the stream (a gap, an unknown group); a bug of the caller.
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

/// A durable log for many groups: one ordered stream of truncate, append and hard-state records.
///
/// One thread owns it (SOFAJRaft's disk ring consumer). A write is two calls, so that a simulated disk can
/// be slow and a real one can overlap: [`submit`](LogStorage::submit) starts it, [`complete`](LogStorage::complete)
/// waits until it is durable. The first failure is final.
pub trait LogStorage: Send {
    /// The group's key and what is stored of it, creating the group durably when the store does not know it.
    ///
    /// # Errors
    /// [`StorageError::Io`] when it cannot be made durable, [`StorageError::Poisoned`] after a failure.
    fn open_group(&mut self, group: &GroupId) -> Result<(GroupKey, RecoveredState), StorageError>;

    /// Forgets the group durably; a later [`open_group`](LogStorage::open_group) starts a new incarnation.
    ///
    /// # Errors
    /// As for [`open_group`](LogStorage::open_group).
    fn remove_group(&mut self, group: GroupKey) -> Result<(), StorageError>;

    /// Names and keys of every group in the store, in order of number.
    fn groups(&self) -> Vec<(GroupId, GroupKey)>;

    /// Starts one durable write. At most [`max_in_flight`](LogStorage::max_in_flight) may be incomplete.
    ///
    /// # Errors
    /// Any failure; the batch is then not durable and no later one will be.
    fn submit(&mut self, batch: &WriteBatch) -> Result<(), StorageError>;

    /// Waits until the oldest submitted batch is durable. Batches complete in order.
    ///
    /// # Errors
    /// Any failure; final.
    fn complete(&mut self) -> Result<(), StorageError>;

    /// Batches that may be submitted before the first is completed, at least 1.
    fn max_in_flight(&self) -> usize {
        1
    }

    /// A handle for reads of durable entries from any thread.
    fn reader(&self) -> Arc<dyn LogReader>;

    /// Writes down that everything acknowledged so far is durable, so that what cannot be read of it later is known for damage and not taken
    /// for a torn write. To be called between batches when none has come for 20 ms, and before an orderly stop; never ahead of a batch that
    /// waits. Costs a write at most once after each batch.
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
    /// [`StorageError::Damaged`] when a checksum fails.
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
