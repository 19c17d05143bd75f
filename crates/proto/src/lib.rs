//! SOFAJRaft's messages, Bolt frames and the hot-path codec. Bytes in, values out; no sockets.
#![deny(missing_docs)]

mod bolt;
pub mod class;
mod frame;
mod varint;

pub use bolt::{
    CODEC, FrameDecoder, FrameError, FrameLimits, encode_error_response, encode_heartbeat,
    encode_heartbeat_ack, encode_request, encode_request_shared, encode_response, encode_response_shared,
    encode_status_response,
};
pub use frame::{Frame, OutFrame, RequestFrame, ResponseFrame, ResponseStatus};
