//! EntryMetas gathered into runs of one term and type, and the runs made chunks.

use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use ringraft_core::{
    ChunkKind, Configuration, EntryChunk, InvalidConfiguration, InvalidPeerId, LogId, PeerId,
};
use smallvec::SmallVec;

use super::{MAX_APPEND_ENTRIES, entry_type, meta_tag, tag};
use crate::error::DecodeError;
use crate::wire::{Malformed, Reader, put_varint};

const MESSAGE: &str = "EntryMeta";

/// Payloads below this are copied out of the receive buffer, so that a few bytes never pin a large one.
const SHARE_FROM: usize = 64 << 10;

/// Peers that one configuration may name, of all four kinds; far more than any group has.
const MAX_PEERS: usize = 256;

/// Peers that all configurations of one request may name. Each becomes an id of its own and is compared with those
/// beside it, so that one large frame could hold up every group of its loop for seconds.
const MAX_REQUEST_PEERS: usize = 65_536;

/// Consecutive entries of one term and type.
struct Run {
    kind: ChunkKind,
    term: u64,
    ends: Vec<u32>,
}

impl Run {
    fn payload_len(&self) -> u32 {
        self.ends.last().copied().unwrap_or(0)
    }
}

/// The entries of one request, as they are read.
pub(super) struct Runs {
    runs: SmallVec<[Run; 1]>,
    count: usize,
    /// Peers named so far; never above [`MAX_REQUEST_PEERS`].
    peers: usize,
    /// Payload stated so far; never above `limit`.
    payload: usize,
    /// Bytes of the whole content, which no payload can exceed.
    limit: usize,
}

/// One EntryMeta as it stands on the wire.
#[derive(Default)]
struct EntryMeta<'a> {
    term: Option<u64>,
    kind: Option<u64>,
    data_len: u64,
    peers: Vec<&'a str>,
    old_peers: Vec<&'a str>,
    learners: Vec<&'a str>,
    old_learners: Vec<&'a str>,
}

fn malformed(reason: Malformed) -> DecodeError {
    DecodeError::Malformed { message: MESSAGE, reason }
}

impl<'a> EntryMeta<'a> {
    fn read(bytes: &'a [u8], position: usize) -> Result<EntryMeta<'a>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let mut meta = EntryMeta::default();
        while let Some(tag) = reader.tag().map_err(malformed)? {
            match tag {
                meta_tag::TERM => meta.term = Some(reader.varint().map_err(malformed)?),
                meta_tag::TYPE => meta.kind = Some(reader.varint().map_err(malformed)?),
                meta_tag::DATA_LEN => meta.data_len = reader.varint().map_err(malformed)?,
                meta_tag::CHECKSUM => drop(reader.varint().map_err(malformed)?),
                meta_tag::PEERS => meta.peers.push(reader.text().map_err(malformed)?),
                meta_tag::OLD_PEERS => meta.old_peers.push(reader.text().map_err(malformed)?),
                meta_tag::LEARNERS => meta.learners.push(reader.text().map_err(malformed)?),
                meta_tag::OLD_LEARNERS => meta.old_learners.push(reader.text().map_err(malformed)?),
                unknown => reader.skip(unknown).map_err(malformed)?,
            }
            // Before they become ids that are compared with each other.
            if meta.peer_count() > MAX_PEERS {
                return Err(DecodeError::Peers {
                    position,
                    value: meta.kind.unwrap_or(0),
                    peers: meta.peer_count(),
                });
            }
        }
        Ok(meta)
    }

    fn peer_count(&self) -> usize {
        self.peers.len() + self.old_peers.len() + self.learners.len() + self.old_learners.len()
    }

    fn configuration(&self) -> Result<ChunkKind, DecodeError> {
        let parse = |texts: &[&str]| -> Result<Vec<PeerId>, InvalidPeerId> {
            texts.iter().map(|text| text.parse()).collect()
        };
        let conf = Configuration { peers: parse(&self.peers)?, learners: parse(&self.learners)? };
        let old_conf = Configuration { peers: parse(&self.old_peers)?, learners: parse(&self.old_learners)? };
        conf.validate()?;
        match old_conf.validate() {
            Ok(()) | Err(InvalidConfiguration::NoVoter) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(ChunkKind::Configuration { conf, old_conf })
    }
}

fn count(value: u64, field: &'static str) -> Result<u64, DecodeError> {
    match i64::try_from(value) {
        Ok(_) => Ok(value),
        Err(_) => Err(DecodeError::Negative { message: MESSAGE, field, value: value as i64 }),
    }
}

impl Runs {
    /// For a content of `limit` bytes.
    pub(super) fn new(limit: usize) -> Runs {
        Runs { runs: SmallVec::new(), count: 0, peers: 0, payload: 0, limit: limit.min(i32::MAX as usize) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Reads the entry behind an `entries` tag, and all that follow directly and look the same.
    pub(super) fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let bytes = reader.delimited().map_err(malformed)?;
        let meta = EntryMeta::read(bytes, self.count)?;
        self.peers += meta.peer_count();
        if self.peers > MAX_REQUEST_PEERS {
            return Err(DecodeError::TooManyPeers(MAX_REQUEST_PEERS));
        }
        let missing = |field| DecodeError::Missing { message: MESSAGE, field };
        let term = count(meta.term.ok_or_else(|| missing("term"))?, "term")?;
        let value = meta.kind.ok_or_else(|| missing("type"))?;
        let data_len = count(meta.data_len, "data_len")?;
        let kind = match value {
            entry_type::NO_OP => ChunkKind::NoOp,
            entry_type::DATA => ChunkKind::Data,
            entry_type::CONFIGURATION if !meta.peers.is_empty() => meta.configuration()?,
            entry_type::CONFIGURATION => {
                return Err(DecodeError::Peers { position: self.count, value, peers: 0 });
            }
            value => return Err(DecodeError::EntryType { position: self.count, value }),
        };
        if value != entry_type::CONFIGURATION && meta.peer_count() > 0 {
            return Err(DecodeError::Peers { position: self.count, value, peers: meta.peer_count() });
        }
        // Bounded by the content's length, so that sums stay within 32 bits.
        let stated = self.payload as u64 + data_len.min(1 << 40);
        if stated > self.limit as u64 {
            return Err(DecodeError::PayloadLength { stated, received: self.limit });
        }
        if self.count == MAX_APPEND_ENTRIES {
            return Err(DecodeError::TooManyEntries(MAX_APPEND_ENTRIES));
        }
        let uniform = value != entry_type::CONFIGURATION;
        if !(uniform && self.runs.last().is_some_and(|run| run.term == term && run.kind == kind)) {
            // Only the first run reserves ahead: many short runs must not each take room for all entries.
            let ahead = uniform && self.runs.is_empty();
            let expected = if ahead { self.expected(reader, bytes.len(), data_len) } else { 1 };
            self.runs.push(Run { kind, term, ends: Vec::with_capacity(expected) });
        }
        let Some(run) = self.runs.last_mut() else { return Ok(()) };
        run.ends.push(run.payload_len() + data_len as u32);
        self.payload += data_len as usize;
        self.count += 1;
        if uniform {
            self.read_alike(reader, term, value)?;
        }
        Ok(())
    }

    /// How many entries the rest holds if all are like one of `meta` bytes and `data_len` bytes of payload.
    fn expected(&self, reader: &Reader<'_>, meta: usize, data_len: u64) -> usize {
        let more = reader.rest().len() / (2 + meta + data_len as usize);
        (1 + more).min(MAX_APPEND_ENTRIES - self.count)
    }

    /// Reads on as long as entries consist of exactly `term`, `value` as type and a short length, in this order: what
    /// every sender writes for data.
    fn read_alike(&mut self, reader: &mut Reader<'_>, term: u64, value: u64) -> Result<(), DecodeError> {
        let mut window = [0; 16];
        let mut fields = &mut window[..];
        fields.put_u8(meta_tag::TERM as u8);
        put_varint(&mut fields, term); // not negative, so at most 9 bytes
        fields.put_slice(&[meta_tag::TYPE as u8, value as u8, meta_tag::DATA_LEN as u8]);
        // At most 13 bytes, so that three bytes of length still fit the window.
        let before = 16 - fields.len();
        let (same, mask) = (u128::from_le_bytes(window), (1_u128 << (8 * before)) - 1);

        let Some(run) = self.runs.last_mut() else { return Ok(()) };
        let (mut end, before_run) = (run.payload_len(), self.payload - run.payload_len() as usize);
        let end_limit = end as usize + (self.limit - self.payload);
        let count_limit = MAX_APPEND_ENTRIES - self.count;
        let first = run.ends.len();
        let mut rest = reader.rest();
        while let Some((entry, _)) = rest.split_first_chunk::<18>() {
            let [tag, len, window @ ..] = entry;
            let window = u128::from_le_bytes(*window);
            if u32::from(*tag) != tag::ENTRIES || (window ^ same) & mask != 0 {
                break;
            }
            let length = (window >> (8 * before)) as u32;
            let data_len = match usize::from(*len).wrapping_sub(before) {
                1 if length & 0x80 == 0 => length & 0x7f,
                2 if length & 0x8080 == 0x0080 => length & 0x7f | length >> 1 & 0x3f80,
                3 if length & 0x80_8080 == 0x8080 => {
                    length & 0x7f | length >> 1 & 0x3f80 | length >> 2 & 0x1f_c000
                }
                _ => break,
            };
            if run.ends.len() - first == count_limit {
                return Err(DecodeError::TooManyEntries(MAX_APPEND_ENTRIES));
            }
            end += data_len;
            if end as usize > end_limit {
                let stated = (before_run + end as usize) as u64;
                return Err(DecodeError::PayloadLength { stated, received: self.limit });
            }
            run.ends.push(end);
            rest = &rest[2 + usize::from(*len)..];
        }
        self.count += run.ends.len() - first;
        self.payload = before_run + end as usize;
        reader.advance(reader.rest().len() - rest.len());
        Ok(())
    }

    /// The chunks behind `prev`, with their payload out of `data` within `content`.
    pub(super) fn into_chunks(
        self,
        term: u64,
        prev: LogId,
        content: &Bytes,
        data: Range<usize>,
    ) -> Result<Vec<Arc<EntryChunk>>, DecodeError> {
        if self.payload != data.len() {
            return Err(DecodeError::PayloadLength { stated: self.payload as u64, received: data.len() });
        }
        if prev.index + self.count as u64 > i64::MAX as u64 {
            return Err(DecodeError::IndexRange { prev: prev.index, count: self.count });
        }
        let mut chunks = Vec::with_capacity(self.runs.len());
        let (mut last, mut start, mut position) = (prev, data.start, 0);
        for mut run in self.runs {
            if run.term < last.term || run.term > term {
                return Err(DecodeError::EntryTerm {
                    position,
                    term: run.term,
                    least: last.term,
                    most: term,
                });
            }
            if run.ends.capacity() > 2 * run.ends.len() {
                run.ends.shrink_to_fit();
            }
            let end = start + run.payload_len() as usize;
            let payload = if end - start < SHARE_FROM {
                Bytes::copy_from_slice(&content[start..end])
            } else {
                content.slice(start..end)
            };
            position += run.ends.len();
            let chunk = EntryChunk::from_parts(last.index + 1, run.term, run.kind, run.ends, payload)?;
            (last, start) = (chunk.last_id(), end);
            chunks.push(Arc::new(chunk));
        }
        Ok(chunks)
    }
}
