//! Why a frame's content is not the message that it claims to be.

use ringraft_core::{InvalidChunk, InvalidConfiguration, InvalidPeerId};

use crate::frame::ResponseStatus;
pub use crate::wire::Malformed;

/// Why a received message is refused. Frames stay in step, so the connection can go on: a request is answered with
/// an error, a response counts as lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame's class is not one that is expected here.
    #[error("class {0:?} is not expected here")]
    Class(String),
    /// A response without a success; its content means nothing.
    #[error("the peer answered with Bolt status {0:?}")]
    Status(ResponseStatus),
    /// The content is not a protobuf message.
    #[error("{message}: {reason}")]
    Malformed {
        /// The message's name.
        message: &'static str,
        /// What is wrong.
        reason: Malformed,
    },
    /// The generated parser refused the content.
    #[error("{message}: {reason}")]
    Protobuf {
        /// The message's name.
        message: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// A required field is absent.
    #[error("{message}: required field {field} is absent")]
    Missing {
        /// The message's name.
        message: &'static str,
        /// The field's name.
        field: &'static str,
    },
    /// A field that counts something is negative.
    #[error("{message}: {field} is {value}, but must not be negative")]
    Negative {
        /// The message's name.
        message: &'static str,
        /// The field's name.
        field: &'static str,
        /// What it holds.
        value: i64,
    },
    /// One of a pair of fields came alone.
    #[error("{message}: {field} came without its companion")]
    Alone {
        /// The message's name.
        message: &'static str,
        /// The field that is there.
        field: &'static str,
    },
    /// An entry of a type that is not sent: unknown, or a number without a meaning.
    #[error("entry {position} has type {value}, which is not a no-op (1), data (2) or a configuration (3)")]
    EntryType {
        /// Position of the entry within the request; 0 is the first.
        position: usize,
        /// The number.
        value: u64,
    },
    /// Terms of entries must not decrease, nor exceed the request's.
    #[error("entry {position} has term {term}, but terms from {least} to {most} are possible there")]
    EntryTerm {
        /// Position of the entry within the request.
        position: usize,
        /// Its term.
        term: u64,
        /// Term of the entry before it.
        least: u64,
        /// Term of the request.
        most: u64,
    },
    /// More entries than a request may have.
    #[error("more than {0} entries in one request")]
    TooManyEntries(usize),
    /// Configurations that name more peers, all together, than a request may.
    #[error("more than {0} peers in the configurations of one request")]
    TooManyPeers(usize),
    /// The entries' lengths do not add up to the payload that came.
    #[error("entries state {stated} bytes of payload, but {received} came")]
    PayloadLength {
        /// Sum of data_len.
        stated: u64,
        /// Length of `data`.
        received: usize,
    },
    /// `data` is not what its sender computed the checksum of: it was damaged on the way.
    #[error(
        "data has CRC-32C {computed:08x}, but its sender computed {stated:08x}: it was damaged on the way"
    )]
    DataChecksum {
        /// What came with the request.
        stated: u32,
        /// What `data` has.
        computed: u32,
    },
    /// No cluster has so long an id.
    #[error("cluster_id has {0} bytes; at most 255 are possible")]
    ClusterId(usize),
    /// Indexes run beyond what a signed 64-bit number holds.
    #[error("{count} entries after index {prev} have no indexes")]
    IndexRange {
        /// prev_log_index.
        prev: u64,
        /// Number of entries.
        count: usize,
    },
    /// Only configurations name peers, and they must; at most 256.
    #[error("entry {position} of type {value} names {peers} peers")]
    Peers {
        /// Position of the entry within the request.
        position: usize,
        /// Its type.
        value: u64,
        /// How many peers it names, of all four kinds.
        peers: usize,
    },
    /// A peer id that is none.
    #[error(transparent)]
    PeerId(#[from] InvalidPeerId),
    /// A configuration that decides nothing or lists a peer twice.
    #[error(transparent)]
    Configuration(#[from] InvalidConfiguration),
    /// Entries that do not make a chunk.
    #[error(transparent)]
    Chunk(#[from] InvalidChunk),
}
