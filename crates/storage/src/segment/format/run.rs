//! A run: one operation of one group.

use std::ops::Range;

use bytes::Bytes;
use ringraft_core::{ChunkKind, EntryChunk, LogIndex, Term};

use super::bytes::{align, u16_at, u32_at, u64_at};
use super::configuration::decode_configuration;
use super::file::{Layout, SegmentHeader};
use crate::traits::{GroupKey, GroupNumber, Incarnation};

/// Bytes of a run's header.
pub(crate) const RUN_HEADER: usize = 64;

/// Bytes of a run's header in a file of version 1.
const RUN_HEADER_V1: usize = 56;

/// Entries in one run at most; bounds what a reader allocates before it has seen them.
pub(crate) const MAX_RUN_ENTRIES: usize = 1 << 20;

/// Kinds from here on may be skipped by who does not know them.
const FIRST_SKIPPED: u8 = 128;

/// A record whose checksum is right and that this program does not understand: a newer one wrote it. It must never be
/// taken for the end of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Newer(pub(crate) String);

impl Newer {
    /// What to tell the operator.
    pub(crate) fn text(&self) -> String {
        format!("{} was written by a newer program; start that one, nothing was changed here", self.0)
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
    Reset = 10,
    Promise = 11,
    MemberRemoved = 12,
    DamagedRange = 13,
    /// Of the store itself, and nothing that this program needs.
    Skipped = FIRST_SKIPPED,
}

impl RunKind {
    pub(crate) fn from_byte(byte: u8) -> Option<RunKind> {
        use RunKind::*;
        if byte >= FIRST_SKIPPED {
            return Some(Skipped);
        }
        [
            GroupCreated,
            GroupRemoved,
            HardState,
            TruncateSuffix,
            Data,
            NoOp,
            Configuration,
            TruncatePrefix,
            Reset,
            Promise,
            MemberRemoved,
            DamagedRange,
        ]
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

/// A copy of an older run of the same identity, made to free its file or to repair it.
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
    /// A run without entries.
    pub(crate) fn control(kind: RunKind, group: GroupKey, sequence: u64) -> RunHeader {
        RunHeader { kind, rewritten: false, group, sequence, index: 0, term: 0, count: 0, payload: 0 }
    }

    /// Index of the last entry; `index` itself for a run without entries.
    pub(crate) fn last(&self) -> LogIndex {
        self.index.saturating_add(u64::from(self.count.saturating_sub(1)))
    }
}

/// The common size of all entries, if they have one.
fn equal_size(ends: &[u32]) -> Option<u32> {
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

/// Appends header and table of a run to `out`; the checksums of payload and header are filled in by [`seal_run`].
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
    let start = out.len();
    out.extend_from_slice(&head);
    if table > 0 {
        ends.iter().for_each(|end| out.extend_from_slice(&end.to_le_bytes()));
        let crc = crc32c::crc32c(&out[start + RUN_HEADER..]);
        out[start + 56..start + 60].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Finishes the run whose header and table stand in `head`: its number in the part, the checksum of its payload and
/// that of the header. Returns the last.
pub(crate) fn seal_run(seed: u32, number: u32, head: &mut [u8], payload_crc: u32) -> u32 {
    head[6..8].copy_from_slice(&(number as u16).to_le_bytes());
    head[60..64].copy_from_slice(&payload_crc.to_le_bytes());
    let crc = crc32c::crc32c_append(seed, &head[4..RUN_HEADER]);
    head[..4].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// A run found in bytes, with the places of its parts in them.
#[derive(Clone, Debug)]
pub(crate) struct RunView {
    pub(crate) header: RunHeader,
    /// Checksum of the header (of the whole run in version 1): what the digest of a part is made of.
    pub(crate) crc: u32,
    /// Number in the part modulo 65536; 0 in version 1.
    pub(crate) number: u16,
    entry_bytes: Option<u32>,
    table: Range<usize>,
    pub(crate) payload: Range<usize>,
    /// Bytes up to the next run.
    pub(crate) len: usize,
}

/// Why there is no good run.
#[derive(Debug)]
pub(crate) enum RunError {
    /// Nothing that can be attributed to anybody stands there.
    Broken(&'static str),
    /// The header is right, what belongs to it is not.
    Damaged(Box<RunView>, &'static str),
    /// A newer program wrote it.
    Newer(Newer),
}

/// Reads and verifies the run at the start of `bytes`; the ranges of the view are relative to it.
pub(crate) fn decode_run(file: &SegmentHeader, bytes: &[u8]) -> Result<RunView, RunError> {
    let v1 = file.layout == Layout::V1;
    let head = if v1 { RUN_HEADER_V1 } else { RUN_HEADER };
    if bytes.len() < head {
        return Err(RunError::Broken("a run is cut short"));
    }
    let crc = u32_at(bytes, 0);
    if !v1 && crc32c::crc32c_append(file.seed(), &bytes[4..head]) != crc {
        return Err(RunError::Broken("the checksum of a run's header does not match"));
    }
    let (flags, count, payload) = (bytes[5], u32_at(bytes, 40), u32_at(bytes, 44));
    let table = u32_at(bytes, 52) as usize;
    let end = head.saturating_add(table).saturating_add(payload as usize);
    if end > bytes.len() || count as usize > MAX_RUN_ENTRIES {
        return Err(RunError::Broken("a run is longer than its place"));
    }
    if v1 && crc32c::crc32c_append(file.seed(), &bytes[4..end]) != crc {
        return Err(RunError::Broken("a run's checksum does not match"));
    }
    let unknown =
        || RunError::Newer(Newer(format!("a record of kind {} with flags {:#x}", bytes[4], bytes[5])));
    let kind = RunKind::from_byte(bytes[4]).ok_or_else(unknown)?;
    if flags & !(FLAG_EQUAL | FLAG_REWRITTEN) != 0 || (v1 && kind as u8 > RunKind::TruncatePrefix as u8) {
        return Err(unknown());
    }
    let entry_bytes = (flags & FLAG_EQUAL != 0).then(|| u32_at(bytes, 48));
    let fits = match entry_bytes {
        Some(size) => table == 0 && u64::from(size) * u64::from(count) == u64::from(payload),
        None => table == count as usize * 4,
    };
    if !fits {
        return Err(RunError::Broken("a run's entry lengths do not fit"));
    }
    if kind.is_entries() && (count == 0 || u64_at(bytes, 24).checked_add(u64::from(count)).is_none()) {
        return Err(RunError::Broken("a run without an entry"));
    }
    let view = RunView {
        header: RunHeader {
            kind,
            rewritten: flags & FLAG_REWRITTEN != 0,
            group: GroupKey {
                number: GroupNumber(u32_at(bytes, 8)),
                incarnation: Incarnation(u32_at(bytes, 12)),
            },
            sequence: u64_at(bytes, 16),
            index: u64_at(bytes, 24),
            term: u64_at(bytes, 32),
            count,
            payload,
        },
        crc,
        number: if v1 { 0 } else { u16_at(bytes, 6) },
        entry_bytes,
        table: head..head + table,
        payload: head + table..end,
        len: align(end),
    };
    let table_crc = if table > 0 { crc32c::crc32c(&bytes[view.table.clone()]) } else { 0 };
    if !v1
        && (table_crc != u32_at(bytes, 56)
            || crc32c::crc32c(&bytes[view.payload.clone()]) != u32_at(bytes, 60))
    {
        return Err(RunError::Damaged(Box::new(view), "a run's checksum does not match"));
    }
    Ok(view)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_id::StoreId;

    fn key() -> GroupKey {
        GroupKey { number: GroupNumber(3), incarnation: Incarnation(4) }
    }

    fn file(salt: u64) -> SegmentHeader {
        let layout = Layout::V2 { stream: 0, block_log2: 12, store: StoreId([1; 16]) };
        SegmentHeader { number: 1, salt, bytes: 1 << 16, layout }
    }

    fn encoded(header: &RunHeader, ends: &[u32], payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_run(header, ends, &mut out);
        seal_run(file(77).seed(), 5, &mut out, crc32c::crc32c(payload));
        out.extend_from_slice(payload);
        out.resize(align(out.len()), 0);
        out
    }

    fn data() -> RunHeader {
        RunHeader { index: 7, term: 9, count: 3, payload: 6, ..RunHeader::control(RunKind::Data, key(), 5) }
    }

    #[test]
    fn runs_round_trip_and_each_flipped_bit_is_laid_at_the_right_door() {
        for (ends, payload) in [(vec![2, 4, 6], &b"aabbcc"[..]), (vec![1, 1, 6], &b"abbbbb"[..])] {
            let header = data();
            let mut bytes = encoded(&header, &ends, payload);
            let view = decode_run(&file(77), &bytes).unwrap();
            assert_eq!((view.header, view.number), (header, 5));
            assert_eq!((view.ends(&bytes), view.len), (ends, bytes.len()));
            assert!(decode_run(&file(78), &bytes).is_err(), "another life of the file");
            for bit in 0..view.payload.end * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                match decode_run(&file(77), &bytes) {
                    Err(RunError::Broken(_)) => assert!(bit < RUN_HEADER * 8, "bit {bit}"),
                    Err(RunError::Damaged(view, _)) => {
                        assert!(bit >= RUN_HEADER * 8, "bit {bit}");
                        assert_eq!(view.header, header);
                    }
                    other => panic!("bit {bit}: {other:?}"),
                }
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn what_a_newer_program_wrote_is_not_taken_for_damage() {
        let good = encoded(&data(), &[2, 4, 6], b"aabbcc");
        for (at, value) in [(4, 9), (4, 14), (4, 127), (5, 0x40)] {
            let mut bytes = good.clone();
            bytes[at] = value;
            let crc = crc32c::crc32c_append(file(77).seed(), &bytes[4..RUN_HEADER]);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
            assert!(matches!(decode_run(&file(77), &bytes), Err(RunError::Newer(_))), "{at}: {value}");
            bytes[8] ^= 1;
            assert!(
                matches!(decode_run(&file(77), &bytes), Err(RunError::Broken(_))),
                "the checksum comes first"
            );
        }
        let skipped = RunHeader { payload: 6, ..RunHeader::control(RunKind::Skipped, key(), 0) };
        let bytes = encoded(&skipped, &[], b"aabbcc");
        assert_eq!(decode_run(&file(77), &bytes).unwrap().header.kind, RunKind::Skipped);
    }

    #[test]
    fn equal_sizes_are_recognised() {
        assert_eq!(equal_size(&[3, 6, 9]), Some(3));
        assert_eq!(equal_size(&[0, 0]), Some(0));
        assert_eq!(equal_size(&[3, 7, 9]), None);
        assert_eq!(equal_size(&[]), None);
    }
}
