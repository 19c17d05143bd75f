//! Bolt frames as bytes (`docs/formats.md`, "Bolt v1").

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{FrameDecoder, FrameError, FrameLimits};
pub(crate) use encode::RequestHead;
pub use encode::{
    encode_error_response, encode_heartbeat, encode_heartbeat_ack, encode_request, encode_request_shared,
    encode_response, encode_response_shared, encode_status_response,
};

/// Protocol code of Bolt v1, the only one that is written.
const PROTOCOL_V1: u8 = 1;
/// Protocol code of Bolt v2, which is read too.
const PROTOCOL_V2: u8 = 2;

const TYPE_RESPONSE: u8 = 0;
const TYPE_REQUEST: u8 = 1;
const TYPE_ONE_WAY: u8 = 2;

const CMD_HEARTBEAT: u16 = 0;
const CMD_REQUEST: u16 = 1;
const CMD_RESPONSE: u16 = 2;

/// Version of the commands; Bolt has never had another.
const COMMAND_VERSION: u8 = 1;

/// Codec byte of every frame that is written: hessian2's number, although the content is protobuf.
pub const CODEC: u8 = 1;

/// Bytes before the class name in a v1 request.
pub(crate) const REQUEST_HEAD: usize = 22;
/// Bytes before the class name in a v1 response.
const RESPONSE_HEAD: usize = 20;

/// Contents up to this size are copied behind the head, so that a small frame is one part.
pub(crate) const INLINE_CONTENT: usize = 4096;
