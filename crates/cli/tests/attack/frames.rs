//! Frames as a stranger makes them: by hand, from docs/formats.md, so that no check of our own encoder is in the way.

use std::io::{self, Read};

/// A user request of which the content may be as large as a frame.
pub const SET: &[u8] = b"ringraft.atomic.SetRequest";
pub const GET_SLOTS: &[u8] = b"ringraft.atomic.GetSlotsRequest";
pub const DESCRIBE: &[u8] = b"ringraft.atomic.DescribeRequest";
const APPEND_ENTRIES: &[u8] = b"com.alipay.sofa.jraft.rpc.RpcRequests$AppendEntriesRequest";
/// Largest content of a frame.
pub const MAX_CONTENT: usize = 64 << 20;
/// Bytes of a response in front of its class.
const RESPONSE_HEAD: usize = 20;

/// A Bolt heartbeat.
pub fn heartbeat() -> Vec<u8> {
    let mut frame = head(1, b"", 0, 0);
    frame[2..4].copy_from_slice(&[0, 0]);
    frame[10..14].copy_from_slice(&(-1_i32).to_be_bytes());
    frame
}

/// The first bytes of a request: what is announced, and the class.
pub fn head(id: u32, class: &[u8], header: usize, content: usize) -> Vec<u8> {
    let mut frame = vec![1, 1, 0, 1, 1];
    frame.extend(id.to_be_bytes());
    frame.push(1);
    frame.extend(5000_i32.to_be_bytes());
    frame.extend((class.len() as u16).to_be_bytes());
    frame.extend((header as u16).to_be_bytes());
    frame.extend((content as u32).to_be_bytes());
    frame.extend(class);
    frame
}

/// A whole request.
pub fn request(id: u32, class: &[u8], content: &[u8]) -> Vec<u8> {
    let mut frame = head(id, class, 0, content.len());
    frame.extend(content);
    frame
}

/// One entry from somebody who says that he leads.
pub struct Append<'a> {
    pub group: &'a str,
    pub from: &'a str,
    pub to: &'a str,
    pub term: u64,
    /// Term and index of the entry before.
    pub previous: (u64, u64),
    /// Bytes of the whole frame.
    pub frame_bytes: usize,
}

impl Append<'_> {
    /// The frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut ids = Vec::new();
        for (tag, text) in [(10, self.group), (18, self.from), (26, self.to)] {
            put_bytes(&mut ids, tag, text.as_bytes());
        }
        // Lengths are bytes too: the room that is left for the payload is found in a second pass.
        let around = self.frame(&ids, 0).len();
        let payload = self.frame_bytes.saturating_sub(around + 8);
        self.frame(&ids, payload)
    }

    fn frame(&self, ids: &[u8], payload: usize) -> Vec<u8> {
        let mut content = ids.to_vec();
        for (tag, number) in [(32, self.term), (40, self.previous.0), (48, self.previous.1)] {
            put_number(&mut content, tag, number);
        }
        let mut meta = Vec::new();
        for (tag, number) in [(8, self.term), (16, 2), (32, payload as u64)] {
            put_number(&mut meta, tag, number);
        }
        put_bytes(&mut content, 58, &meta);
        put_number(&mut content, 64, 0);
        put_bytes(&mut content, 74, &vec![0x55; payload]);
        let mut frame = head(7, APPEND_ENTRIES, ids.len(), content.len());
        frame.extend(ids);
        frame.extend(content);
        frame
    }
}

fn put_number(buf: &mut Vec<u8>, tag: u8, number: u64) {
    buf.push(tag);
    put_varint(buf, number);
}

fn put_bytes(buf: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    buf.push(tag);
    put_varint(buf, bytes.len() as u64);
    buf.extend(bytes);
}

fn put_varint(buf: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buf.push(value as u8 | 0x80);
        value >>= 7;
    }
    buf.push(value as u8);
}

/// Reads one answer and gives its Bolt status.
///
/// # Errors
/// What the socket says; a connection that ends is `UnexpectedEof`.
pub fn read_status(from: &mut impl Read) -> io::Result<u16> {
    let mut head = [0; RESPONSE_HEAD];
    from.read_exact(&mut head)?;
    let short = |at: usize| u64::from(u16::from_be_bytes([head[at], head[at + 1]]));
    let content = u32::from_be_bytes([head[16], head[17], head[18], head[19]]);
    let rest = short(12) + short(14) + u64::from(content);
    let read = io::copy(&mut from.take(rest), &mut io::sink())?;
    if read < rest {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(short(10) as u16)
}
