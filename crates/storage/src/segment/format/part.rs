//! The header of a batch part.

use super::bytes::{u32_at, u64_at};
use super::file::{Layout, PART_HEADER, SegmentHeader};
use super::run::Newer;

const FLAG_MORE: u32 = 1;
const FLAG_VOUCH: u32 = 2;

/// Start of a batch part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartHeader {
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
    /// Which opening of the store wrote it; 0 in files of version 1.
    pub(crate) life: u32,
}

impl PartHeader {
    /// Writes the header to the front of `out`.
    pub(crate) fn encode(&self, file: &SegmentHeader, out: &mut [u8]) {
        let mut flags = if self.more { FLAG_MORE } else { 0 };
        if self.runs == 0 {
            flags |= FLAG_VOUCH;
        }
        out[..PART_HEADER].fill(0);
        out[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        out[16..24].copy_from_slice(&self.synced.to_le_bytes());
        out[24..28].copy_from_slice(&self.body.to_le_bytes());
        out[28..32].copy_from_slice(&self.runs.to_le_bytes());
        out[32..36].copy_from_slice(&self.digest.to_le_bytes());
        out[36..40].copy_from_slice(&flags.to_le_bytes());
        out[40..44].copy_from_slice(&self.life.to_le_bytes());
        let crc = crc32c::crc32c_append(file.seed(), &out[8..PART_HEADER]);
        out[..4].copy_from_slice(&file.part_magic().to_le_bytes());
        out[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// The header at the start of `bytes`, when it is one of this file's life.
    ///
    /// # Errors
    /// [`Newer`] when its checksum is right and it holds what this program does not know.
    pub(crate) fn decode(file: &SegmentHeader, bytes: &[u8]) -> Result<Option<PartHeader>, Newer> {
        let len = file.part_header();
        if bytes.len() < len
            || u32_at(bytes, 0) != file.part_magic()
            || u32_at(bytes, 4) != crc32c::crc32c_append(file.seed(), &bytes[8..len])
        {
            return Ok(None);
        }
        let flags = u32_at(bytes, 36);
        let v1 = file.layout == Layout::V1;
        if !v1 && (flags & !(FLAG_MORE | FLAG_VOUCH) != 0 || bytes[44..PART_HEADER].iter().any(|b| *b != 0)) {
            return Err(Newer(format!("a batch part with flags {flags:#x}")));
        }
        Ok(Some(PartHeader {
            sequence: u64_at(bytes, 8),
            synced: u64_at(bytes, 16),
            body: u32_at(bytes, 24),
            runs: u32_at(bytes, 28),
            digest: u32_at(bytes, 32),
            more: flags & FLAG_MORE != 0,
            life: if v1 { 0 } else { u32_at(bytes, 40) },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_id::StoreId;

    #[test]
    fn headers_round_trip_and_what_is_not_known_is_told_from_what_is_broken() {
        let layout = Layout::V2 { stream: 0, block_log2: 9, store: StoreId([1; 16]) };
        let file = SegmentHeader { number: 8, salt: 0x1234_5678_9abc_def0, bytes: 1 << 16, layout };
        let part = PartHeader { sequence: 1, synced: 2, body: 3, runs: 4, digest: 5, more: true, life: 6 };
        let mut bytes = [0; PART_HEADER];
        part.encode(&file, &mut bytes);
        assert_eq!(PartHeader::decode(&file, &bytes), Ok(Some(part)));
        let other = SegmentHeader { salt: 1, ..file };
        assert_eq!(PartHeader::decode(&other, &bytes), Ok(None));
        for bit in 0..PART_HEADER * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(PartHeader::decode(&file, &bytes), Ok(None), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for at in [37, 50, 63] {
            let mut newer = bytes;
            newer[at] = 1;
            let crc = crc32c::crc32c_append(file.seed(), &newer[8..]);
            newer[4..8].copy_from_slice(&crc.to_le_bytes());
            assert!(PartHeader::decode(&file, &newer).is_err(), "byte {at}");
        }
    }
}
