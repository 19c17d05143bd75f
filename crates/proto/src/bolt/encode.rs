//! Frames on their way out; always Bolt v1.

use bytes::{BufMut, Bytes, BytesMut};
use ringraft_core::Status;
use smallvec::smallvec;

use super::{
    CMD_HEARTBEAT, CMD_REQUEST, CMD_RESPONSE, CODEC, COMMAND_VERSION, INLINE_CONTENT, PROTOCOL_V1,
    REQUEST_HEAD, RESPONSE_HEAD, TYPE_REQUEST, TYPE_RESPONSE,
};
use crate::class;
use crate::frame::{OutFrame, ResponseStatus};
use crate::wire::{delimited_len, put_delimited, put_varint, varint_len};

/// What stands in front of a request's Bolt header section and content.
pub(crate) struct RequestHead<'a> {
    pub(crate) id: u32,
    pub(crate) timeout_ms: i32,
    pub(crate) class: &'a str,
    pub(crate) header_len: usize,
    pub(crate) content_len: usize,
}

impl RequestHead<'_> {
    /// Bytes of the frame up to and including the Bolt header section.
    pub(crate) fn len_with_header(&self) -> usize {
        REQUEST_HEAD + self.class.len() + self.header_len
    }

    /// Writes the fixed part and the class; the header section and the content are for the caller to add.
    pub(crate) fn put(&self, buf: &mut BytesMut) {
        let mut fixed = [0; REQUEST_HEAD];
        fixed[0] = PROTOCOL_V1;
        fixed[1] = TYPE_REQUEST;
        fixed[2..4].copy_from_slice(&CMD_REQUEST.to_be_bytes());
        fixed[4] = COMMAND_VERSION;
        fixed[5..9].copy_from_slice(&self.id.to_be_bytes());
        fixed[9] = CODEC;
        fixed[10..14].copy_from_slice(&self.timeout_ms.to_be_bytes());
        fixed[14..16].copy_from_slice(&short(self.class.len(), "class name"));
        fixed[16..18].copy_from_slice(&short(self.header_len, "Bolt header"));
        fixed[18..22].copy_from_slice(&int(self.content_len));
        buf.put_slice(&fixed);
        buf.put_slice(self.class.as_bytes());
    }
}

/// Bolt's lengths are signed; a length beyond them is a mistake of the caller, who bounds what is sent.
fn short(len: usize, what: &str) -> [u8; 2] {
    match i16::try_from(len) {
        Ok(len) => len.to_be_bytes(),
        Err(_) => panic!("a {what} of {len} bytes does not fit a Bolt frame (at most 32767)"),
    }
}

fn int(len: usize) -> [u8; 4] {
    match i32::try_from(len) {
        Ok(len) => len.to_be_bytes(),
        Err(_) => panic!("a content of {len} bytes does not fit a Bolt frame (at most 2 GiB)"),
    }
}

/// A request that wants an answer within `timeout_ms` milliseconds. The content is copied.
///
/// A Java server drops the request without an answer when it waited longer than the time-out in its queue, so
/// the time-out should be positive. `header` is empty for everything but AppendEntriesRequest.
///
/// # Panics
/// When class or header exceed 32767 bytes or the content 2 GiB.
pub fn encode_request(id: u32, class: &str, timeout_ms: i32, header: &[u8], content: &[u8]) -> OutFrame {
    let head = RequestHead { id, timeout_ms, class, header_len: header.len(), content_len: content.len() };
    let mut buf = BytesMut::with_capacity(head.len_with_header() + content.len());
    head.put(&mut buf);
    buf.put_slice(header);
    buf.put_slice(content);
    OutFrame { parts: smallvec![buf.freeze()] }
}

/// Like [`encode_request`], but a content above 4 KiB becomes a part of its own and is not copied.
///
/// # Panics
/// As [`encode_request`].
pub fn encode_request_shared(
    id: u32,
    class: &str,
    timeout_ms: i32,
    header: &[u8],
    content: Bytes,
) -> OutFrame {
    if content.len() <= INLINE_CONTENT {
        return encode_request(id, class, timeout_ms, header, &content);
    }
    let head = RequestHead { id, timeout_ms, class, header_len: header.len(), content_len: content.len() };
    let mut buf = BytesMut::with_capacity(head.len_with_header());
    head.put(&mut buf);
    buf.put_slice(header);
    OutFrame { parts: smallvec![buf.freeze(), content] }
}

/// Writes the fixed part and the class of a response and leaves room for the content.
fn response_head(
    id: u32,
    codec: u8,
    status: ResponseStatus,
    class: &str,
    content_len: usize,
    room: usize,
) -> BytesMut {
    let mut fixed = [0; RESPONSE_HEAD];
    fixed[0] = PROTOCOL_V1;
    fixed[1] = TYPE_RESPONSE;
    fixed[2..4].copy_from_slice(&CMD_RESPONSE.to_be_bytes());
    fixed[4] = COMMAND_VERSION;
    fixed[5..9].copy_from_slice(&id.to_be_bytes());
    fixed[9] = codec;
    fixed[10..12].copy_from_slice(&(status as u16).to_be_bytes());
    fixed[12..14].copy_from_slice(&short(class.len(), "class name"));
    fixed[16..20].copy_from_slice(&int(content_len));
    let mut buf = BytesMut::with_capacity(RESPONSE_HEAD + class.len() + room);
    buf.put_slice(&fixed);
    buf.put_slice(class.as_bytes());
    buf
}

/// The answer to request `id`, with the request's codec byte. The content is copied.
///
/// A success must name the class of its content: a Java client fails on an empty one.
///
/// # Panics
/// When the class exceeds 32767 bytes or the content 2 GiB.
pub fn encode_response(id: u32, codec: u8, status: ResponseStatus, class: &str, content: &[u8]) -> OutFrame {
    debug_assert!(status != ResponseStatus::Success || !class.is_empty());
    let mut buf = response_head(id, codec, status, class, content.len(), content.len());
    buf.put_slice(content);
    OutFrame { parts: smallvec![buf.freeze()] }
}

/// Like [`encode_response`], but a content above 4 KiB becomes a part of its own and is not copied.
///
/// # Panics
/// As [`encode_response`].
pub fn encode_response_shared(
    id: u32,
    codec: u8,
    status: ResponseStatus,
    class: &str,
    content: Bytes,
) -> OutFrame {
    if content.len() <= INLINE_CONTENT {
        return encode_response(id, codec, status, class, &content);
    }
    let buf = response_head(id, codec, status, class, content.len(), 0);
    OutFrame { parts: smallvec![buf.freeze(), content] }
}

/// A successful answer whose content of `content_len` bytes `put` writes in place.
fn encode_response_with(
    id: u32,
    codec: u8,
    class: &str,
    content_len: usize,
    put: impl FnOnce(&mut BytesMut),
) -> OutFrame {
    let mut buf = response_head(id, codec, ResponseStatus::Success, class, content_len, content_len);
    let start = buf.len();
    put(&mut buf);
    debug_assert_eq!(buf.len() - start, content_len, "content of {class}");
    OutFrame { parts: smallvec![buf.freeze()] }
}

/// A failure without class and content: what a client only needs to know is that there is no answer.
pub fn encode_status_response(id: u32, codec: u8, status: ResponseStatus) -> OutFrame {
    debug_assert!(status != ResponseStatus::Success, "a success needs a content");
    OutFrame { parts: smallvec![response_head(id, codec, status, "", 0, 0).freeze()] }
}

/// An `ErrorResponse` message, which may answer any request: raft's own errors travel so, with a Bolt success.
///
/// `None` stands for OK; its message is "OK" as Ping's answer has it.
pub fn encode_error_response(id: u32, codec: u8, error: Option<&Status>) -> OutFrame {
    let (code, message) = error.map_or((0, "OK"), |s| (s.error.code(), s.message.as_str()));
    let code = i64::from(code) as u64; // negative numbers are sign-extended to 10 bytes
    let len = 1 + varint_len(code) + delimited_len(message.len());
    encode_response_with(id, codec, class::ERROR_RESPONSE, len, |buf| {
        buf.put_u8(0x08);
        put_varint(buf, code);
        put_delimited(buf, 0x12, message.as_bytes());
    })
}

/// A Bolt heartbeat.
pub fn encode_heartbeat(id: u32) -> OutFrame {
    let mut fixed = [0; REQUEST_HEAD];
    fixed[0] = PROTOCOL_V1;
    fixed[1] = TYPE_REQUEST;
    fixed[2..4].copy_from_slice(&CMD_HEARTBEAT.to_be_bytes());
    fixed[4] = COMMAND_VERSION;
    fixed[5..9].copy_from_slice(&id.to_be_bytes());
    fixed[9] = CODEC;
    fixed[10..14].copy_from_slice(&(-1_i32).to_be_bytes());
    OutFrame { parts: smallvec![Bytes::copy_from_slice(&fixed)] }
}

/// The answer to the Bolt heartbeat `id`.
pub fn encode_heartbeat_ack(id: u32) -> OutFrame {
    let mut fixed = [0; RESPONSE_HEAD];
    fixed[0] = PROTOCOL_V1;
    fixed[1] = TYPE_RESPONSE;
    fixed[2..4].copy_from_slice(&CMD_HEARTBEAT.to_be_bytes());
    fixed[4] = COMMAND_VERSION;
    fixed[5..9].copy_from_slice(&id.to_be_bytes());
    fixed[9] = CODEC;
    OutFrame { parts: smallvec![Bytes::copy_from_slice(&fixed)] }
}
