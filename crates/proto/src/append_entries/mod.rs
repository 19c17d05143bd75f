//! AppendEntriesRequest by hand, since every entry of every group passes here.
//!
//! The generated code of the same message is its specification: the tests in `proof.rs` hold both against each
//! other on random and on damaged messages.

mod decode;
mod encode;
mod entries;
#[cfg(test)]
mod proof;

pub use decode::{IncomingAppendEntries, decode_append_entries};
pub use encode::encode_append_entries;

/// Entries that one AppendEntriesRequest may carry; a request with more is refused. Java sends at most 1024.
pub const MAX_APPEND_ENTRIES: usize = 16_384;

/// Tags (field number and wire type) of AppendEntriesRequest.
mod tag {
    pub(super) const GROUP_ID: u32 = 10;
    pub(super) const SERVER_ID: u32 = 18;
    pub(super) const PEER_ID: u32 = 26;
    pub(super) const TERM: u32 = 32;
    pub(super) const PREV_LOG_TERM: u32 = 40;
    pub(super) const PREV_LOG_INDEX: u32 = 48;
    pub(super) const ENTRIES: u32 = 58;
    pub(super) const COMMITTED_INDEX: u32 = 64;
    pub(super) const DATA: u32 = 74;
    /// ringraft's own; on the wire in two bytes.
    pub(super) const EXTENSIONS: u32 = 8000;
    pub(super) const REJOINED: u32 = 8008;
    pub(super) const PROMISE_WANTED: u32 = 8016;
    /// A fixed32.
    pub(super) const DATA_CRC: u32 = 8029;
    pub(super) const CLUSTER_ID: u32 = crate::envelope::CLUSTER_ID;
    pub(super) const CREATION: u32 = crate::envelope::CREATION;
}

/// Tags of EntryMeta.
mod meta_tag {
    pub(super) const TERM: u32 = 8;
    pub(super) const TYPE: u32 = 16;
    pub(super) const PEERS: u32 = 26;
    pub(super) const DATA_LEN: u32 = 32;
    pub(super) const OLD_PEERS: u32 = 42;
    pub(super) const CHECKSUM: u32 = 48;
    pub(super) const LEARNERS: u32 = 58;
    pub(super) const OLD_LEARNERS: u32 = 66;
}

/// Numbers of EntryType.
mod entry_type {
    pub(super) const NO_OP: u64 = 1;
    pub(super) const DATA: u64 = 2;
    pub(super) const CONFIGURATION: u64 = 3;
}
