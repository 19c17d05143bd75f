//! Log and meta storage of ringraft over a [disk](disk::Disk) trait: the segment log and a store in memory.
//!
//! [`SegmentLog`] is the embedded default: one ordered stream for all groups of a directory. [`MemoryLogStorage`]
//! keeps the same rules without a disk. [`conformance`] holds the suite that every [`LogStorage`] must pass.
#![deny(missing_docs)]

pub mod conformance;
pub mod disk;
mod identity;
mod lives;
mod memory;
mod segment;
mod shape;
mod store_id;
mod traits;

pub use disk::{Disk, DiskFile, MemoryDisk, RealDisk};
pub use identity::{CreationKind, Identity};
pub use memory::MemoryLogStorage;
pub use segment::{Expect, SegmentLog, SegmentLogOptions};
pub use store_id::StoreId;
pub use traits::{
    GroupKey, GroupNumber, GroupOpening, GroupWrite, Incarnation, IoKind, LogReader, LogStorage, MetaStorage,
    OpenedGroup, RefusedWrites, StorageError, StoredGroup, WriteBatch,
};
