//! Frames out of received bytes. Everything here comes from a socket and is trusted for nothing.

use bytes::{Bytes, BytesMut};
use crc::{CRC_32_ISO_HDLC, Crc, Table};

use super::{
    CMD_HEARTBEAT, CMD_REQUEST, CMD_RESPONSE, PROTOCOL_V1, PROTOCOL_V2, TYPE_ONE_WAY, TYPE_REQUEST,
    TYPE_RESPONSE,
};
use crate::class::{self, ContentSize};
use crate::frame::{Frame, RequestFrame, ResponseFrame, ResponseStatus};

/// v2's optional checksum, zlib's CRC-32.
const CRC32: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

/// How large the parts of a frame may be, in bytes. A frame beyond a limit closes its connection before any
/// memory is taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Class name. Default 256.
    pub class: usize,
    /// Bolt header section. Default 64 KiB, which is more than Bolt's 32767.
    pub header: usize,
    /// Content of classes that carry entries, file data or user requests. Default 64 MiB.
    pub content: usize,
    /// Content of the classes that carry only ids, numbers, peers and messages for people: votes, time-out-now,
    /// CLI, and all answers but file data. Default 1 MiB.
    pub small_content: usize,
}

impl Default for FrameLimits {
    fn default() -> FrameLimits {
        FrameLimits { class: 256, header: 64 << 10, content: 64 << 20, small_content: 1 << 20 }
    }
}

/// Why received bytes are no frame. There is no way to find the next frame, so the connection closes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first byte is not a Bolt protocol code.
    #[error("unknown protocol code {0}: not a Bolt frame (1 or 2 expected)")]
    Protocol(u8),
    /// A v2 frame of a version other than 1 and 2.
    #[error("unknown Bolt v2 version {0} (1 or 2 expected)")]
    Version(u8),
    /// A v2 frame with an unknown switch byte.
    #[error("unknown Bolt v2 switch {0:#04x} (0 to 0x7f expected)")]
    Switch(u8),
    /// Not a request, a one-way request or a response.
    #[error("unknown frame type {0} (0, 1 or 2 expected)")]
    Type(u8),
    /// A command code that does not exist, or not with this type.
    #[error("unknown command code {code} in a frame of type {kind}")]
    Command {
        /// The frame's type byte.
        kind: u8,
        /// The command code.
        code: u16,
    },
    /// Not a Bolt response status.
    #[error("unknown response status {0:#06x}")]
    Status(u16),
    /// A part of the frame is larger than its limit.
    #[error("{part} of {len} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// Which part: "class name", "Bolt header" or "content".
        part: &'static str,
        /// Its length as the frame states it; a negative length reads as a number above 2^31.
        len: usize,
        /// The limit in [`FrameLimits`].
        limit: usize,
    },
    /// A heartbeat or its answer with a class, a header or a content.
    #[error("a heartbeat of {0} bytes beyond its head")]
    HeartbeatBody(usize),
    /// A v2 frame's checksum does not match its bytes.
    #[error("checksum {stated:#010x} does not match the frame's {computed:#010x}")]
    Checksum {
        /// What the frame says.
        stated: u32,
        /// What its bytes give.
        computed: u32,
    },
}

impl ResponseStatus {
    /// The status of a number from the wire.
    pub fn from_code(code: u16) -> Option<ResponseStatus> {
        Some(match code {
            0x0000 => ResponseStatus::Success,
            0x0001 => ResponseStatus::Error,
            0x0002 => ResponseStatus::ServerException,
            0x0003 => ResponseStatus::Unknown,
            0x0004 => ResponseStatus::ServerThreadpoolBusy,
            0x0005 => ResponseStatus::ErrorComm,
            0x0006 => ResponseStatus::NoProcessor,
            0x0007 => ResponseStatus::Timeout,
            0x0008 => ResponseStatus::ClientSendError,
            0x0009 => ResponseStatus::CodecException,
            0x0010 => ResponseStatus::ConnectionClosed,
            0x0011 => ResponseStatus::ServerSerialException,
            0x0012 => ResponseStatus::ServerDeserialException,
            _ => return None,
        })
    }
}

/// Cuts frames out of the bytes received on one connection, at any split.
///
/// The caller appends what it reads to one buffer and calls [`decode`](Self::decode) until it gives `None`. The
/// decoder takes whole frames off the front and never reserves memory itself; [`reserve_hint`](Self::reserve_hint)
/// says how much room the next read may use without trusting a stated length. Reads v1 and v2 (with its
/// optional CRC) frame by frame; answers are v1 in both cases, since Bolt clients read either.
///
/// After an error every later call fails with the same error: the connection must be closed.
#[derive(Debug)]
pub struct FrameDecoder {
    limits: FrameLimits,
    /// Bytes of the frame at the front of the buffer, once its lengths are known and within the limits.
    pending: Option<Layout>,
    failed: Option<FrameError>,
}

/// A checked fixed part: what the frame is and where its pieces stand.
#[derive(Clone, Copy, Debug)]
struct Layout {
    command: Command,
    id: u32,
    codec: u8,
    /// End of the fixed part.
    head: usize,
    class: usize,
    header: usize,
    content: usize,
    crc: bool,
    /// Whether the class was looked at, and its constant when it is a known one.
    class_checked: bool,
    known: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
enum Command {
    Heartbeat,
    HeartbeatAck,
    Request { one_way: bool, timeout_ms: i32 },
    Response { status: ResponseStatus },
}

impl Layout {
    fn total(&self) -> usize {
        self.head + self.class + self.header + self.content + if self.crc { 4 } else { 0 }
    }
}

/// Big-endian numbers at fixed offsets of a slice whose length is known.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl FrameDecoder {
    /// A decoder for a new connection.
    pub fn new(limits: FrameLimits) -> FrameDecoder {
        // Bolt's own lengths are signed, so no limit can be above them.
        let limits = FrameLimits {
            class: limits.class.min(i16::MAX as usize),
            header: limits.header.min(i16::MAX as usize),
            content: limits.content.min(i32::MAX as usize),
            small_content: limits.small_content.min(limits.content).min(i32::MAX as usize),
        };
        FrameDecoder { limits, pending: None, failed: None }
    }

    /// Takes the next whole frame off the front of `buf`; `None` when more bytes are needed.
    ///
    /// The frame's parts share `buf`'s memory; known class names are constants and do not.
    ///
    /// # Errors
    /// [`FrameError`] as soon as the bytes that are there cannot begin a frame, however short they are. The
    /// connection must be closed.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.next(buf).inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// How many bytes the buffer should have room for beyond `received`, its present length, before the next read.
    ///
    /// At most what the frame at its front still lacks, and at most as much again as was received (at least 16 KiB):
    /// a peer that states a large length and sends nothing gets no memory for it.
    pub fn reserve_hint(&self, received: usize) -> usize {
        const STEP: usize = 16 << 10;
        let missing = self.pending.map_or(0, |layout| layout.total().saturating_sub(received));
        missing.min(received).max(STEP)
    }

    fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let mut layout = match self.pending {
            Some(layout) => layout,
            None => match parse_head(buf, &self.limits)? {
                Some(layout) => layout,
                None => return Ok(None),
            },
        };
        let class_end = layout.head + layout.class;
        if !layout.class_checked && buf.len() >= class_end {
            if let Some((name, size)) = class::known(&buf[layout.head..class_end]) {
                if size == ContentSize::Small {
                    within("content", layout.content, self.limits.small_content)?;
                }
                layout.known = Some(name);
            }
            layout.class_checked = true;
        }
        if buf.len() < layout.total() {
            self.pending = Some(layout);
            return Ok(None);
        }
        self.pending = None;
        let frame = buf.split_to(layout.total()).freeze();
        if layout.crc {
            let end = frame.len() - 4;
            let (stated, computed) = (u32_at(&frame, end), CRC32.checksum(&frame[..end]));
            if stated != computed {
                return Err(FrameError::Checksum { stated, computed });
            }
        }
        Ok(Some(assemble(&layout, &frame)))
    }
}

/// Rule X3: a length is judged as soon as it is known, before anything is kept for it.
fn within(part: &'static str, len: usize, limit: usize) -> Result<(), FrameError> {
    if len > limit { Err(FrameError::TooLarge { part, len, limit }) } else { Ok(()) }
}

/// Parses the fixed part; every byte is judged as soon as it is there.
fn parse_head(buf: &[u8], limits: &FrameLimits) -> Result<Option<Layout>, FrameError> {
    let Some(&protocol) = buf.first() else { return Ok(None) };
    // v2 has a version byte after the protocol code and a switch byte after the codec.
    let v2 = match protocol {
        PROTOCOL_V1 => false,
        PROTOCOL_V2 => true,
        other => return Err(FrameError::Protocol(other)),
    };
    let mut version = 1;
    if v2 {
        match buf.get(1) {
            Some(&v @ 1..=2) => version = v,
            Some(&other) => return Err(FrameError::Version(other)),
            None => return Ok(None),
        }
    }
    let at = usize::from(v2);
    let Some(&kind) = buf.get(1 + at) else { return Ok(None) };
    if kind > TYPE_ONE_WAY {
        return Err(FrameError::Type(kind));
    }
    if buf.len() < 4 + at {
        return Ok(None);
    }
    let code = u16_at(buf, 2 + at);
    match (kind, code) {
        (TYPE_REQUEST | TYPE_ONE_WAY, CMD_REQUEST)
        | (TYPE_REQUEST | TYPE_RESPONSE, CMD_HEARTBEAT)
        | (TYPE_RESPONSE, CMD_RESPONSE) => {}
        _ => return Err(FrameError::Command { kind, code }),
    }
    // command version (not looked at, as in Java), id, codec, and v2's switch
    if buf.len() < 10 + 2 * at {
        return Ok(None);
    }
    let (id, codec) = (u32_at(buf, 5 + at), buf[9 + at]);
    let switch = if v2 { buf[11] } else { 0 };
    if switch > 0x7f {
        return Err(FrameError::Switch(switch));
    }
    let rest = 10 + 2 * at;
    let lengths = rest + if kind == TYPE_RESPONSE { 2 } else { 4 };
    let head = lengths + 8;
    if buf.len() < head {
        return Ok(None);
    }
    let command = match (kind, code) {
        (TYPE_RESPONSE, _) => {
            let code_of_status = u16_at(buf, rest);
            let status =
                ResponseStatus::from_code(code_of_status).ok_or(FrameError::Status(code_of_status))?;
            if code == CMD_HEARTBEAT { Command::HeartbeatAck } else { Command::Response { status } }
        }
        (_, CMD_HEARTBEAT) => Command::Heartbeat,
        _ => Command::Request { one_way: kind == TYPE_ONE_WAY, timeout_ms: u32_at(buf, rest) as i32 },
    };
    let class = usize::from(u16_at(buf, lengths));
    let header = usize::from(u16_at(buf, lengths + 2));
    let content = u32_at(buf, lengths + 4) as usize;
    within("class name", class, limits.class)?;
    within("Bolt header", header, limits.header)?;
    within("content", content, limits.content)?;
    if matches!(command, Command::Heartbeat | Command::HeartbeatAck) && class + header + content > 0 {
        return Err(FrameError::HeartbeatBody(class + header + content));
    }
    let crc = version == 2 && switch & 1 == 1;
    Ok(Some(Layout {
        command,
        id,
        codec,
        head,
        class,
        header,
        content,
        crc,
        class_checked: false,
        known: None,
    }))
}

fn assemble(layout: &Layout, frame: &Bytes) -> Frame {
    let class_end = layout.head + layout.class;
    let header_end = class_end + layout.header;
    let class = match layout.known {
        Some(name) => Bytes::from_static(name.as_bytes()),
        None => frame.slice(layout.head..class_end),
    };
    let content = frame.slice(header_end..header_end + layout.content);
    match layout.command {
        Command::Heartbeat => Frame::Heartbeat { id: layout.id },
        Command::HeartbeatAck => Frame::HeartbeatAck { id: layout.id },
        Command::Request { one_way, timeout_ms } => Frame::Request(RequestFrame {
            id: layout.id,
            one_way,
            codec: layout.codec,
            timeout_ms,
            class,
            header: frame.slice(class_end..header_end),
            content,
        }),
        Command::Response { status } => {
            Frame::Response(ResponseFrame { id: layout.id, status, class, content })
        }
    }
}
