//! The end of the stream: turns operations into batches, one vectored write and one fdatasync each.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use ringraft_core::Mutant;

use super::format::{
    BATCH_HEADER, BatchHeader, DATA_START, RUN_HEADER, RunHeader, align, encode_run, seal_run,
};
use super::index::{Place, Segment};
use super::options::SegmentLogOptions;
use super::prepare::{Preparer, Spare};
use crate::traits::StorageError;

/// Payloads up to this size are copied beside their header: cheaper than one more slice for the kernel.
const COPY_BYTES: usize = 1024;

/// What the next write consists of, in order.
enum Piece {
    /// Scratch bytes up to this end.
    Scratch(usize),
    Payload(Bytes),
}

/// Builds the bytes of one batch part: headers in a reused buffer, large payloads as they are.
#[derive(Default)]
struct BatchEncoder {
    scratch: Vec<u8>,
    pieces: Vec<Piece>,
    bytes: usize,
    runs: u32,
    digest: u32,
}

impl BatchEncoder {
    fn begin(&mut self) {
        self.scratch.clear();
        self.scratch.resize(BATCH_HEADER, 0);
        self.pieces.clear();
        self.bytes = BATCH_HEADER;
        self.runs = 0;
        self.digest = 0;
    }

    /// Adds a run; returns its length with padding. It starts `bytes` into the part.
    fn push(&mut self, seed: u32, header: &RunHeader, ends: &[u32], payload: &Bytes) -> u32 {
        let start = self.scratch.len();
        encode_run(header, ends, &mut self.scratch);
        let end = self.scratch.len();
        let crc = seal_run(seed, &mut self.scratch[start..], payload);
        self.digest = crc32c::crc32c_append(self.digest, &crc.to_le_bytes());
        let len = align(end - start + payload.len());
        let padding = len - (end - start) - payload.len();
        if payload.len() <= COPY_BYTES {
            self.scratch.extend_from_slice(payload);
        } else {
            self.pieces.push(Piece::Scratch(end));
            self.pieces.push(Piece::Payload(payload.clone()));
        }
        self.scratch.resize(self.scratch.len() + padding, 0);
        self.runs += 1;
        self.bytes += len;
        len as u32
    }

    fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(self.pieces.len() + 1);
        let mut from = 0;
        for piece in &self.pieces {
            match piece {
                Piece::Scratch(end) => {
                    slices.push(IoSlice::new(&self.scratch[from..*end]));
                    from = *end;
                }
                Piece::Payload(payload) => slices.push(IoSlice::new(payload)),
            }
        }
        slices.push(IoSlice::new(&self.scratch[from..]));
        slices
    }
}

/// Bytes that a run takes at most.
pub(crate) fn run_bound(entries: usize, payload: usize) -> u64 {
    align(RUN_HEADER + entries * 4 + payload) as u64
}

/// A position in the stream: nothing before it is needed to go on from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Segment file.
    pub(crate) file: u64,
    /// Byte in it where the next part starts.
    pub(crate) offset: u64,
    /// Sequence of the next part.
    pub(crate) sequence: u64,
}

/// Writes the stream.
pub(crate) struct Stream {
    sync: bool,
    keep_prepared: usize,
    keep_spare: usize,
    pub(crate) preparer: Preparer,
    /// Every file that holds a part of the stream.
    pub(crate) segments: BTreeMap<u64, Arc<Segment>>,
    spares: Vec<Spare>,
    file_bytes: u64,
    current: Arc<Segment>,
    offset: u64,
    sequence: u64,
    /// Last part that is known to be durable.
    synced: u64,
    unsynced: Vec<Arc<Segment>>,
    encoder: BatchEncoder,
    /// Stream bytes since the checkpoint that the store was opened from: what was replayed, and written after that.
    pub(crate) written: u64,
}

impl Stream {
    /// Goes on at `position`, everything before it being durable, `replayed` bytes of it after the checkpoint.
    /// `segments` holds the file of the position.
    pub(crate) fn new(
        options: &SegmentLogOptions,
        preparer: Preparer,
        segments: BTreeMap<u64, Arc<Segment>>,
        current: Arc<Segment>,
        position: Position,
        replayed: u64,
    ) -> Stream {
        Stream {
            sync: options.sync,
            keep_prepared: options.prepared_files,
            keep_spare: options.recycled_files,
            preparer,
            segments,
            spares: Vec::new(),
            file_bytes: options.file_bytes,
            current,
            offset: position.offset,
            sequence: position.sequence,
            synced: position.sequence - 1,
            unsynced: Vec::new(),
            encoder: BatchEncoder::default(),
            written: replayed,
        }
    }

    /// Where the next part goes.
    pub(crate) fn position(&self) -> Position {
        Position { file: self.current.number(), offset: self.offset, sequence: self.sequence }
    }

    /// Largest [`run_bound`] that one run may have: it must fit in an empty file.
    pub(crate) fn largest_run(&self) -> u64 {
        self.file_bytes - DATA_START - BATCH_HEADER as u64
    }

    fn room(&self) -> u64 {
        self.current.header.bytes - self.offset
    }

    /// Starts a batch of at most `bound` bytes of runs. It stands in one file when an empty file can hold it.
    pub(crate) fn begin(&mut self, bound: u64) -> Result<(), StorageError> {
        if bound + BATCH_HEADER as u64 > self.room() && self.offset > DATA_START {
            self.roll()?;
        }
        self.encoder.begin();
        Ok(())
    }

    /// Adds a run to the batch and tells where it will stand.
    pub(crate) fn push(
        &mut self,
        header: &RunHeader,
        ends: &[u32],
        payload: &Bytes,
    ) -> Result<Place, StorageError> {
        let bound = run_bound(ends.len(), payload.len());
        if self.encoder.bytes as u64 + bound > self.room() {
            self.write_part(true)?;
            self.roll()?;
            self.encoder.begin();
            if self.encoder.bytes as u64 + bound > self.room() {
                return Err(StorageError::Refused(format!(
                    "a record of {} bytes does not fit in a segment file of {} bytes; raise file_bytes or bound \
                     the size of an entry",
                    payload.len(),
                    self.current.header.bytes
                )));
            }
        }
        let offset = self.offset + self.encoder.bytes as u64;
        let len = self.encoder.push(self.current.header.seed(), header, ends, payload);
        Ok(Place { segment: Arc::clone(&self.current), offset, len })
    }

    /// Writes what was pushed.
    pub(crate) fn finish(&mut self) -> Result<(), StorageError> {
        self.write_part(false)
    }

    /// The last part that is known to be durable; never one that is only now being written.
    fn vouched_for(&self) -> u64 {
        if Mutant::H8BatchVouchesForItself.is_active() { self.sequence } else { self.synced }
    }

    fn write_part(&mut self, more: bool) -> Result<(), StorageError> {
        if self.encoder.runs == 0 && more {
            return Ok(()); // nothing stood before the file ended
        }
        let header = BatchHeader {
            sequence: self.sequence,
            synced: self.vouched_for(),
            body: (self.encoder.bytes - BATCH_HEADER) as u32,
            runs: self.encoder.runs,
            digest: self.encoder.digest,
            more,
        };
        header.encode(&self.current.header, &mut self.encoder.scratch[..BATCH_HEADER]);
        self.current.file.write_vectored_at(self.offset, &mut self.encoder.slices())?;
        // The payloads may be large; the next batch may be long in coming.
        self.encoder.pieces.clear();
        self.offset += self.encoder.bytes as u64;
        self.written += self.encoder.bytes as u64;
        self.sequence += 1;
        if self.unsynced.last().is_none_or(|s| s.number() != self.current.number()) {
            self.unsynced.push(Arc::clone(&self.current));
        }
        Ok(())
    }

    fn roll(&mut self) -> Result<(), StorageError> {
        let next = self.preparer.take()?;
        self.segments.insert(next.number(), Arc::clone(&next));
        self.current = next;
        self.offset = DATA_START;
        if self.preparer.in_background() { self.top_up() } else { Ok(()) }
    }

    /// Asks for files until enough are ahead.
    pub(crate) fn top_up(&mut self) -> Result<(), StorageError> {
        while self.preparer.asked() < self.keep_prepared {
            let spare = self.spares.pop();
            self.preparer.request(spare)?;
        }
        Ok(())
    }

    /// Makes everything written durable, unless the store runs without.
    pub(crate) fn sync(&mut self) -> Result<(), StorageError> {
        if self.sync { self.sync_now() } else { Ok(()) }
    }

    /// Makes everything written durable.
    pub(crate) fn sync_now(&mut self) -> Result<(), StorageError> {
        for segment in &self.unsynced {
            segment.file.sync_data()?;
        }
        self.unsynced.clear();
        self.synced = self.sequence - 1;
        Ok(())
    }

    /// Gives up a file that no checkpoint and no run needs: it is recycled, or removed when there are enough.
    pub(crate) fn free(&mut self, number: u64) -> Result<(), StorageError> {
        let Some(segment) = self.segments.remove(&number) else { return Ok(()) };
        self.keep_or_remove(
            Spare { name: segment.name.clone(), file: Arc::clone(&segment.file) },
            segment.header.bytes,
        )
    }

    /// Takes in an old file of `bytes` bytes that nobody needs.
    pub(crate) fn keep_or_remove(&mut self, spare: Spare, bytes: u64) -> Result<(), StorageError> {
        if bytes == self.file_bytes && self.spares.len() < self.keep_spare {
            self.spares.push(spare);
            return Ok(());
        }
        self.preparer.remove(spare.name)
    }
}
