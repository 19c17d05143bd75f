//! From chunks to the frame: sizes first, then one head in one allocation; payloads are shared, not copied.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use ringraft_core::{AppendEntriesRequest, AppendKind, ChunkKind, Configuration, EntryChunk, Extensions};
use smallvec::SmallVec;

use super::{MAX_APPEND_ENTRIES, entry_type, meta_tag, tag};
use crate::bolt::{INLINE_CONTENT, RequestHead};
use crate::class;
use crate::envelope::Envelope;
use crate::frame::OutFrame;
use crate::wire::{delimited_len, put_delimited, put_varint, varint_len};

/// Encodes an AppendEntriesRequest frame.
///
/// The first part of the frame holds everything up to the payload; the chunks' payloads follow as shared parts, unless they have at most
/// 4 KiB in total, which are copied into the first part. Only ringraft peers understand `request.extensions`; for a Java
/// peer it must be [`Extensions::NONE`]. With extensions a payload travels with its CRC-32C, of which each chunk remembers its own.
///
/// # Panics
/// When the texts of the envelope exceed 32 KiB or the payload 2 GiB together. Callers bound a request far below that, and
/// its entries to [`MAX_APPEND_ENTRIES`].
pub fn encode_append_entries(
    id: u32,
    envelope: &Envelope<'_>,
    timeout_ms: i32,
    request: &AppendEntriesRequest,
) -> OutFrame {
    let Envelope { group, server_id, peer_id, .. } = *envelope;
    debug_assert_eq!(request.kind == AppendKind::Entries, !request.entries.is_empty());
    debug_assert!(request.entry_count() <= MAX_APPEND_ENTRIES);

    let metas: SmallVec<[Meta; 4]> = request.entries.iter().map(|chunk| Meta::of(chunk)).collect();
    let payload_len: usize = request.entries.iter().map(|chunk| chunk.payload().len()).sum();
    let has_data = payload_len > 0 || request.kind == AppendKind::Probe;
    let ids_len = delimited_len(group.len()) + delimited_len(server_id.len()) + delimited_len(peer_id.len());
    let numbers = [
        (tag::TERM, request.term),
        (tag::PREV_LOG_TERM, request.prev_log.term),
        (tag::PREV_LOG_INDEX, request.prev_log.index),
    ];
    let data_crc =
        (payload_len > 0 && request.extensions != Extensions::NONE).then(|| data_crc(&request.entries));
    let mut content_len = ids_len
        + envelope.own_len()
        + numbers.iter().map(|(_, value)| 1 + varint_len(*value)).sum::<usize>()
        + request.entries.iter().zip(&metas).map(|(chunk, meta)| meta.size(chunk)).sum::<usize>()
        + 1
        + varint_len(request.committed_index);
    if request.extensions != Extensions::NONE {
        content_len += 2 + varint_len(request.extensions.0);
    }
    if request.rejoined != 0 {
        content_len += 2 + varint_len(request.rejoined);
    }
    if request.promise_wanted != 0 {
        content_len += 2 + varint_len(request.promise_wanted);
    }
    if data_crc.is_some() {
        content_len += 2 + 4;
    }
    if has_data {
        content_len += delimited_len(payload_len);
    }

    let head = RequestHead {
        id,
        timeout_ms,
        class: class::APPEND_ENTRIES_REQUEST,
        header_len: ids_len,
        content_len,
    };
    let inline = payload_len <= INLINE_CONTENT;
    let first_part = head.len_with_header() + content_len - if inline { 0 } else { payload_len };
    let mut buf = BytesMut::with_capacity(first_part);
    head.put(&mut buf);
    // The Bolt header section is the first three fields of the body.
    for _ in 0..2 {
        put_delimited(&mut buf, tag::GROUP_ID as u8, group.as_bytes());
        put_delimited(&mut buf, tag::SERVER_ID as u8, server_id.as_bytes());
        put_delimited(&mut buf, tag::PEER_ID as u8, peer_id.as_bytes());
    }
    for (tag, value) in numbers {
        put_number(&mut buf, tag, value);
    }
    for (chunk, meta) in request.entries.iter().zip(&metas) {
        meta.put(&mut buf, chunk);
    }
    put_number(&mut buf, tag::COMMITTED_INDEX, request.committed_index);
    if request.extensions != Extensions::NONE {
        put_varint(&mut buf, u64::from(tag::EXTENSIONS));
        put_varint(&mut buf, request.extensions.0);
    }
    if request.rejoined != 0 {
        put_varint(&mut buf, u64::from(tag::REJOINED));
        put_varint(&mut buf, request.rejoined);
    }
    if request.promise_wanted != 0 {
        put_varint(&mut buf, u64::from(tag::PROMISE_WANTED));
        put_varint(&mut buf, request.promise_wanted);
    }
    if let Some(crc) = data_crc {
        put_varint(&mut buf, u64::from(tag::DATA_CRC));
        buf.put_u32_le(crc);
    }
    envelope.put_own(&mut buf);
    let mut parts = SmallVec::new();
    if has_data {
        buf.put_u8(tag::DATA as u8);
        put_varint(&mut buf, payload_len as u64);
    }
    if inline {
        request.entries.iter().for_each(|chunk| buf.put_slice(chunk.payload()));
    }
    debug_assert_eq!(buf.len(), first_part);
    parts.push(buf.freeze());
    if !inline {
        parts.extend(request.entries.iter().map(|chunk| chunk.payload()).filter(|p| !p.is_empty()).cloned());
    }
    OutFrame { parts }
}

/// Payloads from this size on are not read again for every peer: combining two checksums takes as long as reading some ten KiB.
const COMBINE_FROM: usize = 64 << 10;

/// CRC-32C of all payloads, one after the other.
fn data_crc(entries: &[Arc<EntryChunk>]) -> u32 {
    let mut payloads = entries.iter().filter(|chunk| !chunk.payload().is_empty());
    let Some(first) = payloads.next() else { return 0 };
    let of_first = first.payload_crc(crc32c::crc32c);
    payloads.fold(of_first, |crc, chunk| {
        let payload = chunk.payload();
        if payload.len() < COMBINE_FROM {
            return crc32c::crc32c_append(crc, payload);
        }
        crc32c::crc32c_combine(crc, chunk.payload_crc(crc32c::crc32c), payload.len())
    })
}

fn put_number(buf: &mut BytesMut, tag: u32, value: u64) {
    buf.put_u8(tag as u8);
    put_varint(buf, value);
}

/// How the entries of one chunk look on the wire.
enum Meta {
    /// Entries with a payload: all alike but for data_len, which comes last.
    Uniform {
        /// The `entries` tag, room for the length, the meta's fields, the tag of data_len.
        template: [u8; Meta::TEMPLATE],
        used: usize,
    },
    /// One configuration, ready to be written.
    Configuration(Vec<u8>),
}

impl Meta {
    /// Tag and length of the entry, term (up to 11 bytes), type (2), tag of data_len (1).
    const TEMPLATE: usize = 16;

    fn of(chunk: &EntryChunk) -> Meta {
        let number = match chunk.kind() {
            ChunkKind::NoOp => entry_type::NO_OP,
            ChunkKind::Data => entry_type::DATA,
            ChunkKind::Configuration { conf, old_conf } => {
                return Meta::Configuration(configuration(chunk.term(), conf, old_conf));
            }
        };
        let mut template = [0; Meta::TEMPLATE];
        let mut rest = &mut template[..];
        rest.put_u8(tag::ENTRIES as u8);
        rest.put_u8(0);
        rest.put_u8(meta_tag::TERM as u8);
        put_varint(&mut rest, chunk.term());
        rest.put_slice(&[meta_tag::TYPE as u8, number as u8, meta_tag::DATA_LEN as u8]);
        let used = Meta::TEMPLATE - rest.len();
        Meta::Uniform { template, used }
    }

    /// Bytes of the chunk's entries.
    fn size(&self, chunk: &EntryChunk) -> usize {
        match self {
            Meta::Uniform { used, .. } => {
                let mut start = 0;
                let lengths = chunk.ends().iter().map(|end| {
                    let len = end - start;
                    start = *end;
                    varint_len(u64::from(len))
                });
                chunk.len() * used + lengths.sum::<usize>()
            }
            Meta::Configuration(meta) => delimited_len(meta.len()),
        }
    }

    fn put(&self, buf: &mut BytesMut, chunk: &EntryChunk) {
        match self {
            Meta::Uniform { template, used } => put_uniform(buf, template, *used, chunk.ends()),
            Meta::Configuration(meta) => put_delimited(buf, tag::ENTRIES as u8, meta),
        }
    }
}

/// Writes the entries of a chunk. A whole template is stored at once, beyond what of it is used; what follows
/// overwrites the excess.
fn put_uniform(buf: &mut BytesMut, template: &[u8; Meta::TEMPLATE], used: usize, ends: &[u32]) {
    /// Longest entry: a template and five bytes of length.
    const LONGEST: usize = Meta::TEMPLATE + 5;
    /// Entries that are put together before they go to the frame.
    const BLOCK: usize = 32;
    let mut room = [0; BLOCK * LONGEST];
    let mut start = 0;
    for block in ends.chunks(BLOCK) {
        let mut at = 0;
        for end in block {
            let mut len = end - start;
            start = *end;
            room[at..at + Meta::TEMPLATE].copy_from_slice(template);
            let length_at = at + 1;
            at += used;
            while len >= 0x80 {
                room[at] = len as u8 | 0x80;
                len >>= 7;
                at += 1;
            }
            room[at] = len as u8;
            at += 1;
            room[length_at] = (at - length_at - 1) as u8;
        }
        buf.put_slice(&room[..at]);
    }
}

/// A configuration's EntryMeta, fields in ascending order as Java writes them.
fn configuration(term: u64, conf: &Configuration, old_conf: &Configuration) -> Vec<u8> {
    let mut meta = vec![meta_tag::TERM as u8];
    put_varint(&mut meta, term);
    meta.extend_from_slice(&[meta_tag::TYPE as u8, entry_type::CONFIGURATION as u8]);
    let put_peers = |meta: &mut Vec<u8>, tag: u32, peers: &[ringraft_core::PeerId]| {
        for peer in peers {
            put_delimited(meta, tag as u8, peer.to_string().as_bytes());
        }
    };
    put_peers(&mut meta, meta_tag::PEERS, &conf.peers);
    meta.extend_from_slice(&[meta_tag::DATA_LEN as u8, 0]);
    put_peers(&mut meta, meta_tag::OLD_PEERS, &old_conf.peers);
    put_peers(&mut meta, meta_tag::LEARNERS, &conf.learners);
    put_peers(&mut meta, meta_tag::OLD_LEARNERS, &old_conf.learners);
    meta
}
