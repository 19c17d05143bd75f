//! SOFAJRaft's messages, Bolt frames and the hot-path codec. Bytes in, values out; no sockets.
#![deny(missing_docs)]

mod append_entries;
mod bolt;
pub mod class;
mod envelope;
mod error;
mod fields;
mod frame;
/// The messages of `/proto`, generated at build time: one module a file.
#[allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all)]
pub mod generated {
    include!(concat!(env!("OUT_DIR"), "/generated/mod.rs"));
}
mod kind;
mod log_entry;
mod messages;
mod typed;
mod wire;

pub use append_entries::{
    IncomingAppendEntries, MAX_APPEND_ENTRIES, decode_append_entries, encode_append_entries,
};
pub use bolt::{
    CODEC, FrameDecoder, FrameError, FrameLimits, encode_error_response, encode_heartbeat,
    encode_heartbeat_ack, encode_request, encode_request_shared, encode_response, encode_response_shared,
    encode_status_response,
};
pub use envelope::{Envelope, MAX_CLUSTER_ID, cluster_id_of, put_cluster_id, put_creation};
pub use error::{DecodeError, Malformed};
pub use frame::{Frame, OutFrame, RequestFrame, ResponseFrame, ResponseStatus};
pub use kind::{RequestKind, UnknownRequestKind};
pub use log_entry::{LogEntry, LogEntryError, crc64, decode_log_entry, encode_log_entry, entry_checksum};
pub use messages::{
    IncomingRequest, IncomingResponse, decode_error_response, decode_ping_response, decode_raft_request,
    decode_raft_response, encode_ping, encode_raft_request, encode_raft_response, group_of,
};
pub use protobuf;
pub use typed::{
    BoltMessage, EncodeError, decode_typed_request, decode_typed_response, encode_typed_request,
    encode_typed_response, serialize,
};
