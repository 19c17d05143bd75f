//! Names and headers of segment files, of both versions.

use super::bytes::{u16_at, u32_at, u64_at};
use crate::store_id::StoreId;

/// Version of the files that this program writes.
pub(crate) const FORMAT_VERSION: u32 = 2;

/// First bytes of a segment file.
const SEGMENT_MAGIC: [u8; 8] = *b"RRSEGLOG";

/// Bytes before the first part of a file: the header has a block of its own, however a disk tears.
pub(crate) const DATA_START: u64 = 4096;

/// The smallest block that a file may have, as a power of two: parts of every file start at multiples of it.
pub(crate) const SMALLEST_BLOCK_LOG2: u8 = 9;

/// Bytes before the first part in a file of version 1.
const DATA_START_V1: u64 = 512;

/// First word of a part before the salt is mixed in.
const PART_MAGIC: u32 = 0x4252_5232;

/// As [`PART_MAGIC`], in a file of version 1.
const PART_MAGIC_V1: u32 = 0x4252_5231;

/// Bytes of a part's header.
pub(crate) const PART_HEADER: usize = 64;

/// Bytes of a part's header in a file of version 1.
const PART_HEADER_V1: usize = 40;

/// Name of segment file `number`.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:016x}.seg")
}

/// The number in a segment file's name; `None` when it is not one.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    numbered(name, ".seg").filter(|n| segment_name(*n) == name)
}

/// The number in a name of 16 hexadecimal digits with this ending.
pub(crate) fn numbered(name: &str, ending: &str) -> Option<u64> {
    let digits = name.strip_suffix(ending).filter(|d| d.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// What depends on the version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Written by an earlier program; read only.
    V1,
    V2 {
        stream: u16,
        /// Parts start at multiples of 2 to the power of this.
        block_log2: u8,
        store: StoreId,
    },
}

/// Identity of one life of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) bytes: u64,
    pub(crate) layout: Layout,
}

impl SegmentHeader {
    /// The block that starts a file of version 2.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Layout::V2 { stream, block_log2, store } = self.layout else {
            unreachable!("files of version 1 are read only");
        };
        let mut out = Vec::with_capacity(DATA_START as usize);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&stream.to_le_bytes());
        out.extend_from_slice(&u16::from(block_log2).to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&store.0);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.resize(DATA_START as usize, 0);
        out
    }

    /// Reads the first bytes of a file, at least 64.
    pub(crate) fn decode(start: &[u8]) -> Result<SegmentHeader, String> {
        if start.len() < 64 || start[..8] != SEGMENT_MAGIC {
            return Err("not a segment file".to_owned());
        }
        let checked = |end: usize| match crc32c::crc32c(&start[..end]) == u32_at(start, end) {
            true => Ok(()),
            false => Err("file header checksum does not match".to_owned()),
        };
        let layout = match u32_at(start, 8) {
            1 => {
                checked(40)?;
                Layout::V1
            }
            2 => {
                checked(56)?;
                let block_log2 = u16_at(start, 14);
                let store = StoreId::read(&start[40..56]);
                if !(u16::from(SMALLEST_BLOCK_LOG2)..=20).contains(&block_log2) {
                    return Err(format!("blocks of 2^{block_log2} bytes"));
                }
                Layout::V2 { stream: u16_at(start, 12), block_log2: block_log2 as u8, store }
            }
            version => {
                return Err(format!(
                    "format version {version} is not one of 1 and {FORMAT_VERSION}; use the program version that wrote it"
                ));
            }
        };
        Ok(SegmentHeader {
            number: u64_at(start, 16),
            salt: u64_at(start, 24),
            bytes: u64_at(start, 32),
            layout,
        })
    }

    /// What checksums of headers in this file start from, so that bytes of an earlier life never validate.
    pub(crate) fn seed(&self) -> u32 {
        crc32c::crc32c(&self.salt.to_le_bytes())
    }

    /// First word of every part in this file.
    pub(crate) fn part_magic(&self) -> u32 {
        let magic = if self.layout == Layout::V1 { PART_MAGIC_V1 } else { PART_MAGIC };
        magic ^ (self.salt >> 32) as u32
    }

    /// Where the first part stands.
    pub(crate) fn data_start(&self) -> u64 {
        if self.layout == Layout::V1 { DATA_START_V1 } else { DATA_START }
    }

    /// Bytes of the header of a part.
    pub(crate) fn part_header(&self) -> usize {
        if self.layout == Layout::V1 { PART_HEADER_V1 } else { PART_HEADER }
    }

    /// Parts start at multiples of this.
    pub(crate) fn block(&self) -> u64 {
        match self.layout {
            Layout::V1 => 8,
            Layout::V2 { block_log2, .. } => 1 << block_log2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_and_every_flipped_bit_is_seen() {
        let layout = Layout::V2 { stream: 3, block_log2: 12, store: StoreId([7; 16]) };
        let header = SegmentHeader { number: 8, salt: 0x1234_5678_9abc_def0, bytes: 1 << 16, layout };
        let mut block = header.encode();
        assert_eq!((block.len() as u64, SegmentHeader::decode(&block)), (DATA_START, Ok(header)));
        for bit in 0..60 * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&block).is_err(), "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(segment_number(&segment_name(0xabc)), Some(0xabc));
        assert_eq!(segment_number("abc.seg"), None);
    }
}
