//! Log and meta storage of ringraft over a [disk](crate) trait: the segment log and a store in memory.
#![deny(missing_docs)]

mod traits;

pub use traits::{
    GroupKey, GroupNumber, GroupWrite, Incarnation, LogReader, LogStorage, MetaStorage, StorageError,
    WriteBatch,
};
