//! The end of the stream and what must be written there before it counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringraft_core::Mutant;

use super::super::format::PART_HEADER;
use super::super::segments::Segment;
use super::super::stream::Position;
use crate::traits::StorageError;

/// What is written to one file, at which offsets.
type Writes<'a> = (&'a Arc<Segment>, Vec<(u64, &'a [u8])>);

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

    /// What was read proves nothing about the medium; all of it is written again.
    fn not_proven_durable(&self) -> &[(Arc<Segment>, u64, Vec<u8>)] {
        if Mutant::H1RecoveryTrustsThePageCache.is_active() { &[] } else { &self.suspects }
    }

    /// Rule P9: who counts it now must find it again after the power has failed.
    pub(super) fn make_durable(&self) -> Result<(), StorageError> {
        let zeros = [0; PART_HEADER];
        let mut writes: BTreeMap<u64, Writes<'_>> = BTreeMap::new();
        for (segment, offset, bytes) in self.not_proven_durable() {
            writes.entry(segment.number()).or_insert((segment, Vec::new())).1.push((*offset, bytes));
        }
        for (segment, offset) in &self.stale {
            let zeros = &zeros[..segment.header.part_header()];
            writes.entry(segment.number()).or_insert((segment, Vec::new())).1.push((*offset, zeros));
        }
        // One file after the other, each through the descriptor that wrote it.
        for (segment, writes) in writes.values() {
            let file = segment.file()?;
            for (offset, bytes) in writes {
                file.write_at(*offset, bytes)?;
            }
            file.sync_data()?;
        }
        Ok(())
    }
}
