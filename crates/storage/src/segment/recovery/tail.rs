//! The end of the stream and what must be written there before it counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringraft_core::Mutant;

use super::super::index::Segment;
use super::super::stream::Position;
use crate::traits::StorageError;

/// The end of the stream.
pub(super) struct Tail {
    pub(super) position: Position,
    /// Parts that were read but may only stand in the page cache: a failed fsync leaves clean pages that the disk
    /// never got, so that reading them back proves nothing.
    pub(super) suspects: Vec<(Arc<Segment>, u64, Vec<u8>)>,
    /// Where part headers stand or may stand beyond the end, which must never be taken for batches that follow.
    pub(super) stale: Vec<(Arc<Segment>, u64)>,
}

impl Tail {
    /// Where the stream goes on.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    pub(super) fn make_durable(&self) -> Result<(), StorageError> {
        let mut touched: BTreeMap<u64, &Arc<Segment>> = BTreeMap::new();
        for (segment, offset, bytes) in &self.suspects {
            if Mutant::H1RecoveryTrustsThePageCache.is_active() {
                break;
            }
            segment.file.write_at(*offset, bytes)?;
            touched.insert(segment.number(), segment);
        }
        for (segment, offset) in &self.stale {
            let zeros = vec![0; segment.header.part_header()];
            segment.file.write_at(*offset, &zeros)?;
            touched.insert(segment.number(), segment);
        }
        for segment in touched.values() {
            segment.file.sync_data()?;
        }
        Ok(())
    }
}
