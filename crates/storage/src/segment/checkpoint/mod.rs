//! Checkpoint files: groups, hard states and the run index as of a position of the stream.
//!
//! Each checkpoint is a file of its own, which the manifest names; the one before it is kept, so that one unreadable file does not
//! end the store. `docs/formats.md` has the bytes.

mod encode;
mod frames;
mod read;
mod room;
pub(crate) mod v1;

use std::collections::BTreeMap;
use std::sync::Arc;

use ringraft_core::GroupId;
use rustc_hash::FxHashSet;

use super::format::numbered;
use super::index::{Group, GroupIndex};
use super::stream::Position;
use crate::store_id::StoreId;
use crate::traits::GroupKey;

pub(crate) use frames::Unreadable;
pub(crate) use read::{in_force, read};
pub(crate) use room::CheckpointRoom;

/// A group as a checkpoint holds it: the files of its runs are only numbers yet, and nobody counts them.
pub(crate) struct StoredGroup {
    pub(crate) key: GroupKey,
    pub(crate) name: GroupId,
    pub(crate) creation: u64,
    pub(crate) index: GroupIndex,
}

/// The contents of one checkpoint.
pub(crate) struct Checkpoint {
    pub(crate) position: Position,
    pub(crate) next_number: u32,
    pub(crate) next_incarnation: u32,
    pub(crate) groups: Vec<StoredGroup>,
    /// Names of removed groups and the highest creation number that each had.
    pub(crate) tombstones: BTreeMap<GroupId, u64>,
}

impl Checkpoint {
    /// The checkpoint that a new store starts from: nothing in it, the stream begins at the first file.
    pub(crate) fn initial(position: Position) -> Checkpoint {
        Checkpoint {
            position,
            next_number: 1,
            next_incarnation: 1,
            groups: Vec::new(),
            tombstones: BTreeMap::new(),
        }
    }

    /// Numbers of the files that a start from this checkpoint reads beside those from its position on.
    pub(crate) fn files(&self) -> FxHashSet<u64> {
        self.groups.iter().flat_map(|g| g.index.runs.iter().map(|r| r.file)).collect()
    }
}

/// What a checkpoint says beside the groups.
pub(crate) struct Head<'a> {
    pub(crate) position: Position,
    pub(crate) next_number: u32,
    pub(crate) next_incarnation: u32,
    pub(crate) tombstones: &'a BTreeMap<GroupId, u64>,
}

/// Name of checkpoint file `number`.
pub(crate) fn checkpoint_name(number: u64) -> String {
    format!("{number:016x}.ckpt")
}

/// The number in a checkpoint file's name; `None` when it is not one.
pub(crate) fn checkpoint_number(name: &str) -> Option<u64> {
    numbered(name, ".ckpt").filter(|n| checkpoint_name(*n) == name)
}

/// The bytes of checkpoint file `number`.
pub(crate) fn encode<'a>(
    store: StoreId,
    number: u64,
    head: &Head<'_>,
    groups: impl ExactSizeIterator<Item = &'a Arc<Group>>,
) -> Vec<u8> {
    frames::file(store, number, &encode::block(head, groups))
}
