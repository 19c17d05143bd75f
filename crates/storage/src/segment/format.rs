//! Bytes of the segment files: file header, batch header, run. `docs/formats.md` has the tables.

use std::ops::Range;

use bytes::Bytes;
use ringraft_core::{ChunkKind, Configuration, EntryChunk, LogIndex, PeerId, Term};

use crate::traits::{GroupKey, GroupNumber, Incarnation};

/// Version of every file that this module describes.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// First bytes of a segment file.
const SEGMENT_MAGIC: [u8; 8] = *b"RRSEGLOG";

/// Where the stream starts in a segment file: the header has a sector of its own.
pub(crate) const DATA_START: u64 = 512;

/// Bytes of a batch header.
pub(crate) const BATCH_HEADER: usize = 40;

/// Bytes of a run header.
pub(crate) const RUN_HEADER: usize = 56;

/// First word of a batch before the salt is mixed in.
const BATCH_MAGIC: u32 = 0x4252_5231;

/// Entries in one run at most; bounds what a reader allocates before it has seen them.
pub(crate) const MAX_RUN_ENTRIES: usize = 1 << 20;

/// Bytes of a text at most: its length has 16 bits.
pub(crate) const MAX_TEXT: usize = u16::MAX as usize;

/// Reads little-endian integers out of a slice that is known to be long enough.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// As [`u32_at`], for 64 bits.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Everything in the stream starts at a multiple of 8.
pub(crate) fn align(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

/// Name of segment file `number`.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:016x}.seg")
}

/// The number in a segment file's name; `None` when it is not one.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|d| d.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().filter(|n| segment_name(*n) == name)
}

/// Identity of one life of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) bytes: u64,
}

impl SegmentHeader {
    /// The sector that starts a segment file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(DATA_START as usize);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.resize(DATA_START as usize, 0);
        out
    }

    /// Reads the first sector of a file.
    pub(crate) fn decode(sector: &[u8]) -> Result<SegmentHeader, String> {
        if sector.len() < 44 || sector[..8] != SEGMENT_MAGIC {
            return Err("not a segment file".to_owned());
        }
        if u32_at(sector, 8) != FORMAT_VERSION {
            return Err(format!(
                "format version {} is not {FORMAT_VERSION}; use the program version that wrote it",
                u32_at(sector, 8)
            ));
        }
        if crc32c::crc32c(&sector[..40]) != u32_at(sector, 40) {
            return Err("file header checksum does not match".to_owned());
        }
        Ok(SegmentHeader { number: u64_at(sector, 16), salt: u64_at(sector, 24), bytes: u64_at(sector, 32) })
    }

    /// What checksums of this file start from, so that bytes of an earlier life never validate.
    pub(crate) fn seed(&self) -> u32 {
        crc32c::crc32c(&self.salt.to_le_bytes())
    }

    /// First word of every batch in this file.
    pub(crate) fn batch_magic(&self) -> u32 {
        BATCH_MAGIC ^ (self.salt >> 32) as u32
    }
}

/// Start of a batch part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// Number of this part in the stream, one more than the part before.
    pub(crate) sequence: u64,
    /// Every part up to this one was known to be durable when this one was written.
    pub(crate) synced: u64,
    /// Bytes of the runs that follow.
    pub(crate) body: u32,
    /// Number of runs.
    pub(crate) runs: u32,
    /// Checksum over the runs' checksums: header and body belong together.
    pub(crate) digest: u32,
    /// Whether the batch goes on in the next part; it counts only when all parts are there.
    pub(crate) more: bool,
}

impl BatchHeader {
    pub(crate) fn encode(&self, header: &SegmentHeader, out: &mut [u8]) {
        out[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        out[16..24].copy_from_slice(&self.synced.to_le_bytes());
        out[24..28].copy_from_slice(&self.body.to_le_bytes());
        out[28..32].copy_from_slice(&self.runs.to_le_bytes());
        out[32..36].copy_from_slice(&self.digest.to_le_bytes());
        out[36..40].copy_from_slice(&u32::from(self.more).to_le_bytes());
        let crc = crc32c::crc32c_append(header.seed(), &out[8..BATCH_HEADER]);
        out[..4].copy_from_slice(&header.batch_magic().to_le_bytes());
        out[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// The header at the start of `bytes`, when it is one of this file's life.
    pub(crate) fn decode(header: &SegmentHeader, bytes: &[u8]) -> Option<BatchHeader> {
        if bytes.len() < BATCH_HEADER
            || u32_at(bytes, 0) != header.batch_magic()
            || u32_at(bytes, 4) != crc32c::crc32c_append(header.seed(), &bytes[8..BATCH_HEADER])
        {
            return None;
        }
        Some(BatchHeader {
            sequence: u64_at(bytes, 8),
            synced: u64_at(bytes, 16),
            body: u32_at(bytes, 24),
            runs: u32_at(bytes, 28),
            digest: u32_at(bytes, 32),
            more: u32_at(bytes, 36) != 0,
        })
    }
}

/// What a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RunKind {
    GroupCreated = 1,
    GroupRemoved = 2,
    HardState = 3,
    TruncateSuffix = 4,
    Data = 5,
    NoOp = 6,
    Configuration = 7,
    TruncatePrefix = 8,
}

impl RunKind {
    pub(crate) fn from_byte(byte: u8) -> Option<RunKind> {
        use RunKind::*;
        [GroupCreated, GroupRemoved, HardState, TruncateSuffix, Data, NoOp, Configuration, TruncatePrefix]
            .into_iter()
            .find(|k| *k as u8 == byte)
    }

    pub(crate) fn of_chunk(kind: &ChunkKind) -> RunKind {
        match kind {
            ChunkKind::Data => RunKind::Data,
            ChunkKind::NoOp => RunKind::NoOp,
            ChunkKind::Configuration { .. } => RunKind::Configuration,
        }
    }

    pub(crate) fn is_entries(self) -> bool {
        matches!(self, RunKind::Data | RunKind::NoOp | RunKind::Configuration)
    }
}

/// All entries have `entry_bytes` bytes; there is no table of ends.
const FLAG_EQUAL: u8 = 1;

/// A copy of an older run of the same identity, made to free its file.
const FLAG_REWRITTEN: u8 = 2;

/// Start of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunHeader {
    pub(crate) kind: RunKind,
    pub(crate) rewritten: bool,
    pub(crate) group: GroupKey,
    /// Number of this operation within the group's life; a rewritten run keeps that of the original.
    pub(crate) sequence: u64,
    /// First index of entries; the index of a truncation.
    pub(crate) index: LogIndex,
    /// Term of entries or of a hard state; for a prefix truncation that of the last entry dropped.
    pub(crate) term: Term,
    /// Number of entries.
    pub(crate) count: u32,
    /// Bytes of payload.
    pub(crate) payload: u32,
}

impl RunHeader {
    /// Index of the last entry; `None` when there is none.
    pub(crate) fn last_index(&self) -> Option<LogIndex> {
        self.index.checked_add(u64::from(self.count).checked_sub(1)?)
    }

    /// A run without entries.
    pub(crate) fn control(kind: RunKind, group: GroupKey, sequence: u64) -> RunHeader {
        RunHeader { kind, rewritten: false, group, sequence, index: 0, term: 0, count: 0, payload: 0 }
    }
}

/// The common size of all entries, if they have one.
pub(crate) fn equal_size(ends: &[u32]) -> Option<u32> {
    let size = *ends.first()?;
    // Without an early exit the compiler compares several at once; unequal runs are found out by the last end.
    if u64::from(size) * ends.len() as u64 != u64::from(*ends.last()?) {
        return None;
    }
    let mut expected = 0u32;
    let mut different = 0;
    for end in ends {
        expected = expected.wrapping_add(size);
        different |= expected ^ end;
    }
    (different == 0).then_some(size)
}

/// Appends header and table of a run to `out`; the checksum is filled in by [`seal_run`].
pub(crate) fn encode_run(header: &RunHeader, ends: &[u32], out: &mut Vec<u8>) {
    let equal = equal_size(ends);
    let mut flags = if header.rewritten { FLAG_REWRITTEN } else { 0 };
    if equal.is_some() {
        flags |= FLAG_EQUAL;
    }
    let table = if equal.is_some() { 0 } else { ends.len() * 4 };
    let mut head = [0u8; RUN_HEADER];
    head[4] = header.kind as u8;
    head[5] = flags;
    head[8..12].copy_from_slice(&header.group.number.0.to_le_bytes());
    head[12..16].copy_from_slice(&header.group.incarnation.0.to_le_bytes());
    head[16..24].copy_from_slice(&header.sequence.to_le_bytes());
    head[24..32].copy_from_slice(&header.index.to_le_bytes());
    head[32..40].copy_from_slice(&header.term.to_le_bytes());
    head[40..44].copy_from_slice(&header.count.to_le_bytes());
    head[44..48].copy_from_slice(&header.payload.to_le_bytes());
    head[48..52].copy_from_slice(&equal.unwrap_or(0).to_le_bytes());
    head[52..56].copy_from_slice(&(table as u32).to_le_bytes());
    out.reserve(RUN_HEADER + table);
    out.extend_from_slice(&head);
    if table > 0 {
        ends.iter().for_each(|end| out.extend_from_slice(&end.to_le_bytes()));
    }
}

/// Writes the checksum of the run whose header and table stand in `head`; returns it.
pub(crate) fn seal_run(seed: u32, head: &mut [u8], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(seed, &head[4..]), payload);
    head[..4].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// A run found in bytes, with the places of its parts in them.
#[derive(Clone, Debug)]
pub(crate) struct RunView {
    pub(crate) header: RunHeader,
    pub(crate) crc: u32,
    entry_bytes: Option<u32>,
    table: Range<usize>,
    pub(crate) payload: Range<usize>,
    /// Bytes up to the next run.
    pub(crate) len: usize,
}

/// Reads and verifies the run at the start of `bytes`; the ranges of the view are relative to it.
pub(crate) fn decode_run(seed: u32, bytes: &[u8]) -> Result<RunView, &'static str> {
    if bytes.len() < RUN_HEADER {
        return Err("a run is cut short");
    }
    let kind = RunKind::from_byte(bytes[4]).ok_or("a run of unknown kind")?;
    let flags = bytes[5];
    let (count, payload) = (u32_at(bytes, 40), u32_at(bytes, 44));
    let table = u32_at(bytes, 52) as usize;
    let end = RUN_HEADER.saturating_add(table).saturating_add(payload as usize);
    if end > bytes.len() || count as usize > MAX_RUN_ENTRIES {
        return Err("a run is longer than its place");
    }
    let crc = u32_at(bytes, 0);
    if crc32c::crc32c_append(seed, &bytes[4..end]) != crc {
        return Err("a run's checksum does not match");
    }
    let entry_bytes = (flags & FLAG_EQUAL != 0).then(|| u32_at(bytes, 48));
    let fits = match entry_bytes {
        Some(size) => table == 0 && u64::from(size) * u64::from(count) == u64::from(payload),
        None => table == count as usize * 4,
    };
    if !fits {
        return Err("a run's entry lengths do not fit");
    }
    let number = GroupNumber(u32_at(bytes, 8));
    let incarnation = Incarnation(u32_at(bytes, 12));
    Ok(RunView {
        header: RunHeader {
            kind,
            rewritten: flags & FLAG_REWRITTEN != 0,
            group: GroupKey { number, incarnation },
            sequence: u64_at(bytes, 16),
            index: u64_at(bytes, 24),
            term: u64_at(bytes, 32),
            count,
            payload,
        },
        crc,
        entry_bytes,
        table: RUN_HEADER..RUN_HEADER + table,
        payload: RUN_HEADER + table..end,
        len: align(end),
    })
}

impl RunView {
    /// Where each entry ends in the payload.
    pub(crate) fn ends(&self, bytes: &[u8]) -> Vec<u32> {
        match self.entry_bytes {
            Some(size) => (1..=self.header.count).map(|i| i * size).collect(),
            None => bytes[self.table.clone()].chunks_exact(4).map(|e| u32_at(e, 0)).collect(),
        }
    }

    /// The chunk of entries that the run at the start of `bytes` holds.
    pub(crate) fn chunk(&self, bytes: &Bytes) -> Result<EntryChunk, String> {
        let (kind, ends, payload) = match self.header.kind {
            RunKind::Data => (ChunkKind::Data, self.ends(bytes), bytes.slice(self.payload.clone())),
            RunKind::NoOp => (ChunkKind::NoOp, self.ends(bytes), bytes.slice(self.payload.clone())),
            RunKind::Configuration => {
                let (conf, old_conf) = decode_configuration(&bytes[self.payload.clone()])?;
                (ChunkKind::Configuration { conf, old_conf }, vec![0], Bytes::new())
            }
            _ => return Err("not a run of entries".to_owned()),
        };
        EntryChunk::from_parts(self.header.index, self.header.term, kind, ends, payload)
            .map_err(|e| e.to_string())
    }
}

/// Peers, old peers, learners, old learners, each a list of texts.
pub(crate) fn encode_configuration(conf: &Configuration, old_conf: &Configuration) -> Vec<u8> {
    let mut out = Vec::new();
    for list in [&conf.peers, &old_conf.peers, &conf.learners, &old_conf.learners] {
        out.extend_from_slice(&(list.len() as u32).to_le_bytes());
        list.iter().for_each(|peer| put_text(&mut out, &peer.to_string()));
    }
    out
}

/// Reverses [`encode_configuration`].
pub(crate) fn decode_configuration(bytes: &[u8]) -> Result<(Configuration, Configuration), String> {
    let mut cursor = Cursor::new(bytes);
    let mut lists = Vec::with_capacity(4);
    for _ in 0..4 {
        let count = cursor.u32()?;
        let mut peers = Vec::new();
        for _ in 0..count {
            peers.push(cursor.text()?.parse::<PeerId>().map_err(|e| e.to_string())?);
        }
        lists.push(peers);
    }
    let mut next = || lists.remove(0);
    let (peers, old_peers, learners, old_learners) = (next(), next(), next(), next());
    Ok((Configuration { peers, learners }, Configuration { peers: old_peers, learners: old_learners }))
}

/// A text of at most [`MAX_TEXT`] bytes with its length in 16 bits before it.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= MAX_TEXT);
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Takes values from the front of bytes that a disk gave.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Cursor<'a> {
        Cursor { rest }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or("it ends early")?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, String> {
        Ok(u32_at(self.take(4)?, 0))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, String> {
        Ok(u64_at(self.take(8)?, 0))
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, String> {
        let head = self.take(2)?;
        let n = usize::from(u16::from_le_bytes([head[0], head[1]]));
        std::str::from_utf8(self.take(n)?).map_err(|_| "a text is not UTF-8".to_owned())
    }
}

/// The payload of a chunk as the file holds it: a configuration is spelled out, everything else is as it stands.
pub(crate) fn stored_payload(chunk: &EntryChunk) -> Bytes {
    match chunk.kind() {
        ChunkKind::Configuration { conf, old_conf } => encode_configuration(conf, old_conf).into(),
        _ => chunk.payload().clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> GroupKey {
        GroupKey { number: GroupNumber(3), incarnation: Incarnation(4) }
    }

    fn encoded(header: &RunHeader, ends: &[u32], payload: &[u8], seed: u32) -> Vec<u8> {
        let mut out = Vec::new();
        encode_run(header, ends, &mut out);
        seal_run(seed, &mut out, payload);
        out.extend_from_slice(payload);
        out.resize(align(out.len()), 0);
        out
    }

    #[test]
    fn runs_round_trip_and_every_flipped_bit_is_seen() {
        for (ends, payload) in [(vec![2, 4, 6], &b"aabbcc"[..]), (vec![1, 1, 6], &b"abbbbb"[..])] {
            let header = RunHeader {
                index: 7,
                term: 9,
                count: 3,
                payload: 6,
                ..RunHeader::control(RunKind::Data, key(), 5)
            };
            let mut bytes = encoded(&header, &ends, payload, 77);
            let view = decode_run(77, &bytes).unwrap();
            assert_eq!(view.header, header);
            assert_eq!((view.ends(&bytes), view.len), (ends, bytes.len()));
            assert!(decode_run(78, &bytes).is_err(), "another life of the file");
            for bit in 0..view.payload.end * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(decode_run(77, &bytes).is_err(), "bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn headers_round_trip() {
        let segment = SegmentHeader { number: 8, salt: 0x1234_5678_9abc_def0, bytes: 4096 };
        let mut sector = segment.encode();
        assert_eq!(SegmentHeader::decode(&sector), Ok(segment));
        sector[17] ^= 1;
        assert!(SegmentHeader::decode(&sector).is_err());
        let batch = BatchHeader { sequence: 1, synced: 2, body: 3, runs: 4, digest: 5, more: true };
        let mut bytes = [0; BATCH_HEADER];
        batch.encode(&segment, &mut bytes);
        assert_eq!(BatchHeader::decode(&segment, &bytes), Some(batch));
        let other = SegmentHeader { salt: 1, ..segment };
        assert_eq!(BatchHeader::decode(&other, &bytes), None);
        assert_eq!(segment_number(&segment_name(0xabc)), Some(0xabc));
        assert_eq!(segment_number("abc.seg"), None);
    }

    #[test]
    fn equal_sizes_are_recognised() {
        assert_eq!(equal_size(&[3, 6, 9]), Some(3));
        assert_eq!(equal_size(&[0, 0]), Some(0));
        assert_eq!(equal_size(&[3, 7, 9]), None);
        assert_eq!(equal_size(&[]), None);
    }
}
