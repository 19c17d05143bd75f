//! From the frame to chunks: one pass over the fields, no allocation an entry.

use bytes::Bytes;
use ringraft_core::{AppendEntriesRequest, AppendKind, Extensions, LogId};

use super::entries::Runs;
use super::tag;
use crate::class;
use crate::envelope::checked_cluster_id;
use crate::error::DecodeError;
use crate::frame::RequestFrame;
use crate::wire::{Malformed, Reader};

const MESSAGE: &str = "AppendEntriesRequest";

/// A received AppendEntriesRequest with its envelope, which borrows from the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingAppendEntries<'a> {
    /// The group's id.
    pub group: &'a str,
    /// Peer id of the sender, as it writes it.
    pub server_id: &'a str,
    /// Peer id of the receiver, as the sender writes it.
    pub peer_id: &'a str,
    /// The sender's cluster; empty when it names none.
    pub cluster_id: &'a str,
    /// Creation number of the group as the sender knows it; 0 for none.
    pub creation: u64,
    /// What is asked.
    pub request: AppendEntriesRequest,
}

/// Decodes the content of an AppendEntriesRequest frame. The frame's Bolt header section repeats the envelope and
/// is not looked at.
///
/// Entries of one term and type become one chunk; each configuration is a chunk of its own. A chunk's payload
/// below 64 KiB is copied, so that it never pins the receive buffer; a larger one shares it. Checksums of entries
/// are accepted and dropped: their payload is covered by the log's own checksum from here on.
///
/// # Errors
/// [`DecodeError`]. Beyond what protobuf demands these are refused: negative numbers, unknown entry types, entry
/// terms that decrease or exceed the request's, lengths that do not add up to `data`, peers on anything but a
/// configuration and configurations without, a `data` that has not the checksum that came with it, more than
/// [`MAX_APPEND_ENTRIES`](super::MAX_APPEND_ENTRIES) entries, and groups (a protobuf construct that no sender uses).
pub fn decode_append_entries(frame: &RequestFrame) -> Result<IncomingAppendEntries<'_>, DecodeError> {
    if frame.class != class::APPEND_ENTRIES_REQUEST {
        return Err(DecodeError::Class(String::from_utf8_lossy(&frame.class).into_owned()));
    }
    decode_content(&frame.content)
}

fn malformed(reason: Malformed) -> DecodeError {
    DecodeError::Malformed { message: MESSAGE, reason }
}

/// A required number that counts something.
fn count(value: Option<u64>, field: &'static str) -> Result<u64, DecodeError> {
    let value = value.ok_or(DecodeError::Missing { message: MESSAGE, field })?;
    match i64::try_from(value) {
        Ok(_) => Ok(value),
        Err(_) => Err(DecodeError::Negative { message: MESSAGE, field, value: value as i64 }),
    }
}

pub(super) fn decode_content(content: &Bytes) -> Result<IncomingAppendEntries<'_>, DecodeError> {
    let mut reader = Reader::new(content);
    let (mut group, mut server_id, mut peer_id) = (None, None, None);
    let (mut term, mut prev_term, mut prev_index, mut committed) = (None, None, None, None);
    let (mut extensions, mut rejoined, mut promise_wanted, mut data_crc) = (0, 0, 0, None);
    let (mut cluster_id, mut creation) = ("", 0);
    let mut data = None;
    let mut runs = Runs::new(content.len());
    while let Some(tag) = reader.tag().map_err(malformed)? {
        match tag {
            tag::ENTRIES => runs.read(&mut reader)?,
            tag::GROUP_ID => group = Some(reader.text().map_err(malformed)?),
            tag::SERVER_ID => server_id = Some(reader.text().map_err(malformed)?),
            tag::PEER_ID => peer_id = Some(reader.text().map_err(malformed)?),
            tag::TERM => term = Some(reader.varint().map_err(malformed)?),
            tag::PREV_LOG_TERM => prev_term = Some(reader.varint().map_err(malformed)?),
            tag::PREV_LOG_INDEX => prev_index = Some(reader.varint().map_err(malformed)?),
            tag::COMMITTED_INDEX => committed = Some(reader.varint().map_err(malformed)?),
            tag::EXTENSIONS => extensions = reader.varint().map_err(malformed)?,
            tag::REJOINED => rejoined = reader.varint().map_err(malformed)?,
            tag::PROMISE_WANTED => promise_wanted = reader.varint().map_err(malformed)?,
            tag::DATA_CRC => data_crc = Some(reader.fixed32().map_err(malformed)?),
            tag::CLUSTER_ID => cluster_id = reader.text().map_err(malformed)?,
            tag::CREATION => creation = reader.varint().map_err(malformed)?,
            tag::DATA => {
                let len = reader.delimited().map_err(malformed)?.len();
                data = Some(reader.position() - len..reader.position());
            }
            unknown => reader.skip(unknown).map_err(malformed)?,
        }
    }
    let text = |value: Option<_>, field| value.ok_or(DecodeError::Missing { message: MESSAGE, field });
    let (group, server_id, peer_id) =
        (text(group, "group_id")?, text(server_id, "server_id")?, text(peer_id, "peer_id")?);
    let term = count(term, "term")?;
    let prev_log = LogId::new(count(prev_index, "prev_log_index")?, count(prev_term, "prev_log_term")?);
    let committed_index = count(committed, "committed_index")?;

    let kind = match &data {
        _ if !runs.is_empty() => AppendKind::Entries,
        Some(_) => AppendKind::Probe,
        None => AppendKind::Heartbeat,
    };
    let data = data.unwrap_or(0..0);
    if let Some(stated) = data_crc {
        let computed = crc32c::crc32c(&content[data.clone()]);
        if computed != stated {
            return Err(DecodeError::DataChecksum { stated, computed });
        }
    }
    let entries = runs.into_chunks(term, prev_log, content, data)?;
    if let (Some(crc), [chunk]) = (data_crc, &entries[..]) {
        // The log of the receiver need not compute it again.
        chunk.payload_crc(|_| crc);
    }
    Ok(IncomingAppendEntries {
        group,
        server_id,
        peer_id,
        cluster_id: checked_cluster_id(cluster_id)?,
        creation,
        request: AppendEntriesRequest {
            kind,
            term,
            prev_log,
            committed_index,
            entries,
            extensions: Extensions(extensions),
            rejoined,
            promise_wanted,
        },
    })
}
