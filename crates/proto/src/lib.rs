//! SOFAJRaft's messages, Bolt frames and the hot-path codec. Bytes in, values out; no sockets.
#![deny(missing_docs)]

mod append_entries;
mod bolt;
pub mod class;
mod error;
mod frame;
/// The messages of `/proto`, generated at build time: one module a file.
#[allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all)]
pub mod generated {
    include!(concat!(env!("OUT_DIR"), "/generated/mod.rs"));
}
mod wire;

pub use append_entries::{
    IncomingAppendEntries, MAX_APPEND_ENTRIES, decode_append_entries, encode_append_entries,
};
pub use bolt::{
    CODEC, FrameDecoder, FrameError, FrameLimits, encode_error_response, encode_heartbeat,
    encode_heartbeat_ack, encode_request, encode_request_shared, encode_response, encode_response_shared,
    encode_status_response,
};
pub use error::{DecodeError, Malformed};
pub use frame::{Frame, OutFrame, RequestFrame, ResponseFrame, ResponseStatus};
pub use protobuf;
