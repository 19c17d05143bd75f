//! Bolt frames as values (`docs/formats.md`, "Bolt v1").

use bytes::Bytes;
use smallvec::SmallVec;

/// Bolt's response status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum ResponseStatus {
    /// Handled.
    Success = 0x0000,
    /// Failed without a reason.
    Error = 0x0001,
    /// The processor failed, or there is none for the class.
    ServerException = 0x0002,
    /// Not known.
    Unknown = 0x0003,
    /// The server's queue is full.
    ServerThreadpoolBusy = 0x0004,
    /// Communication failed.
    ErrorComm = 0x0005,
    /// No processor for the class (never sent by Java).
    NoProcessor = 0x0006,
    /// Timed out at the client.
    Timeout = 0x0007,
    /// The client could not send.
    ClientSendError = 0x0008,
    /// Coding failed.
    CodecException = 0x0009,
    /// The connection closed.
    ConnectionClosed = 0x0010,
    /// The response could not be serialised (also JDK 17's answer to any failure).
    ServerSerialException = 0x0011,
    /// The request could not be deserialised.
    ServerDeserialException = 0x0012,
}

/// A whole frame as it was received; `class`, `header` and `content` share the receive buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A request that wants an answer, or a one-way one.
    Request(RequestFrame),
    /// The answer to a request.
    Response(ResponseFrame),
    /// Bolt heartbeat; answered with [`Frame::HeartbeatAck`] of the same id.
    Heartbeat {
        /// Request id.
        id: u32,
    },
    /// Answer to a Bolt heartbeat.
    HeartbeatAck {
        /// Request id, echoed.
        id: u32,
    },
}

/// A received request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFrame {
    /// Echoed in the response.
    pub id: u32,
    /// No answer of any kind is sent.
    pub one_way: bool,
    /// Codec byte, echoed in the response.
    pub codec: u8,
    /// How long the sender waits, in milliseconds; 0 or negative means no limit.
    pub timeout_ms: i32,
    /// Java class name of the content.
    pub class: Bytes,
    /// Bolt header section; only AppendEntriesRequest has one.
    pub header: Bytes,
    /// Serialized message.
    pub content: Bytes,
}

/// A received response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseFrame {
    /// Id of the request.
    pub id: u32,
    /// How it went; with anything but success the content means nothing.
    pub status: ResponseStatus,
    /// Java class name of the content.
    pub class: Bytes,
    /// Serialized message.
    pub content: Bytes,
}

/// An encoded frame on its way out: one contiguous head, then payload slices that are never copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutFrame {
    /// The parts, in order.
    pub parts: SmallVec<[Bytes; 2]>,
}

impl OutFrame {
    /// Bytes of the whole frame.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(Bytes::is_empty)
    }
}
