//! The end of the stream: turns operations into batches, one vectored write and one fdatasync each.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use ringraft_core::Mutant;

use super::format::{
    DATA_START, PART_HEADER, PartHeader, RUN_HEADER, RunHeader, align, encode_run, seal_run, segment_name,
};
use super::index::Place;
use super::options::SegmentLogOptions;
use super::prepare::{Prepared, Preparer};
use super::segments::Segments;
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
        self.scratch.resize(PART_HEADER, 0);
        self.pieces.clear();
        self.bytes = PART_HEADER;
        self.runs = 0;
        self.digest = 0;
    }

    /// Adds a run; returns its length with padding. It starts `bytes` into the part.
    fn push(&mut self, seed: u32, header: &RunHeader, ends: &[u32], payload: &Bytes) -> u32 {
        let start = self.scratch.len();
        encode_run(header, ends, &mut self.scratch);
        let end = self.scratch.len();
        let payload_crc = crc32c::crc32c(payload);
        let crc = seal_run(seed, self.runs, &mut self.scratch[start..], payload_crc);
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

    /// Fills the part up with zeros, so that the next one starts in a block of its own.
    fn pad(&mut self, block: u64) {
        let padding = self.bytes.next_multiple_of(block as usize) - self.bytes;
        self.scratch.resize(self.scratch.len() + padding, 0);
        self.bytes += padding;
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
    /// Life of the part before it.
    pub(crate) life: u32,
}

/// The part of a file that its blocks fill.
fn whole_blocks(bytes: u64, block: u64) -> u64 {
    bytes - bytes % block
}

/// What a batch needs of the stream before any of it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    /// Bytes of runs, at most.
    pub(crate) bytes: u64,
    /// Files beside the current one, at most.
    pub(crate) files: usize,
}

/// Files that wait for their sync at most when batches complete without it.
const MAX_UNSYNCED: usize = 16;

/// Writes the stream.
pub(crate) struct Stream {
    sync: bool,
    preparer: Preparer,
    /// Files of the batch that is being written, taken before it begins.
    hand: VecDeque<Prepared>,
    /// Every file that holds a part of the stream.
    pub(crate) segments: Arc<Segments>,
    /// What the blocks of a new file hold.
    file_bytes: u64,
    current: Prepared,
    offset: u64,
    /// Sequence of the next part.
    sequence: u64,
    /// Which opening of the store this is.
    life: u32,
    /// Every part up to this one is durable.
    synced: u64,
    /// Whether there is a part with operations and nothing behind it says yet that it was durable.
    unvouched: bool,
    /// Files with parts that are not known to be durable. They stay open: only the descriptor that wrote is told of
    /// an error by every kernel.
    unsynced: Vec<Prepared>,
    encoder: BatchEncoder,
    /// Bytes written since the stream was opened, and those that the start replayed.
    pub(crate) written: u64,
}

impl Stream {
    pub(crate) fn new(
        options: &SegmentLogOptions,
        preparer: Preparer,
        segments: Arc<Segments>,
        current: Prepared,
        position: Position,
        replayed: u64,
    ) -> Stream {
        Stream {
            sync: options.sync,
            preparer,
            hand: VecDeque::new(),
            segments,
            file_bytes: whole_blocks(options.file_bytes, options.block_bytes),
            current,
            offset: position.offset,
            sequence: position.sequence,
            life: position.life,
            synced: position.sequence - 1,
            unvouched: replayed > 0,
            unsynced: Vec::new(),
            encoder: BatchEncoder::default(),
            written: replayed,
        }
    }

    /// Where the next part goes.
    pub(crate) fn position(&self) -> Position {
        Position {
            file: self.current.segment.number(),
            offset: self.offset,
            sequence: self.sequence,
            life: self.life,
        }
    }

    /// Largest [`run_bound`] that one run may have: it must fit in an empty file.
    pub(crate) fn largest_run(&self) -> u64 {
        self.file_bytes - DATA_START - PART_HEADER as u64
    }

    /// Bytes of runs that can surely be written; `u64::MAX` while there is no reason to doubt that there is space.
    pub(crate) fn room_for_runs(&self) -> u64 {
        let Some(files) = self.preparer.last_files() else { return u64::MAX };
        let files = (files + self.hand.len()) as u64;
        self.room().saturating_sub(PART_HEADER as u64) + files * self.largest_run()
    }

    fn room(&self) -> u64 {
        let header = &self.current.segment.header;
        whole_blocks(header.bytes, header.block()) - self.offset
    }

    /// Whether a batch of that many bytes of runs begins in the next file: it stands in one file when an empty one can
    /// hold it.
    fn begins_in_next_file(&self, bytes: u64) -> bool {
        bytes + PART_HEADER as u64 > self.room() && self.offset > DATA_START
    }

    /// What a batch of runs of these sizes at most needs. Runs that are smaller than that never need more: where they
    /// stand is never behind where they would stand.
    pub(crate) fn need(&self, sizes: impl Iterator<Item = u64> + Clone) -> Need {
        let bytes = sizes.clone().sum();
        let header = PART_HEADER as u64;
        let mut need = Need { bytes, files: 0 };
        let mut room = self.room();
        if self.begins_in_next_file(bytes) {
            need.files = 1;
            room = self.file_bytes - DATA_START;
        }
        if bytes + header <= room {
            return need;
        }
        let mut used = header;
        for size in sizes {
            if used + size > room {
                need.files += 1;
                room = self.file_bytes - DATA_START;
                used = header;
            }
            used += size;
        }
        need
    }

    /// Whether a batch can begin without waiting for a file.
    pub(crate) fn is_ready_for(&self, need: Need) -> bool {
        self.hand.len() + self.preparer.ready() >= need.files
    }

    /// Starts a batch of what [`need`](Stream::need) was told.
    ///
    /// # Errors
    /// Those of [`Preparer::take`]; nothing is written then, and the stream is as it was.
    pub(crate) fn begin(&mut self, need: Need) -> Result<(), StorageError> {
        while self.hand.len() < need.files {
            self.hand.push_back(self.preparer.take()?);
        }
        if self.unsynced.len() > MAX_UNSYNCED {
            self.sync_now()?;
        }
        if self.begins_in_next_file(need.bytes) {
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
                    self.current.segment.header.bytes
                )));
            }
        }
        let offset = self.offset + self.encoder.bytes as u64;
        let segment = Arc::clone(&self.current.segment);
        let len = self.encoder.push(segment.header.seed(), header, ends, payload);
        Ok(Place { segment, offset, len })
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
        let header = PartHeader {
            sequence: self.sequence,
            synced: self.vouched_for(),
            body: (self.encoder.bytes - PART_HEADER) as u32,
            runs: self.encoder.runs,
            digest: self.encoder.digest,
            more,
            life: self.life,
        };
        header.encode(&self.current.segment.header, &mut self.encoder.scratch[..PART_HEADER]);
        self.encoder.pad(self.current.segment.header.block());
        self.current.file.write_vectored_at(self.offset, &mut self.encoder.slices())?;
        // The payloads may be large; the next batch may be long in coming.
        self.encoder.pieces.clear();
        self.offset += self.encoder.bytes as u64;
        self.written += self.encoder.bytes as u64;
        self.sequence += 1;
        self.unvouched = self.encoder.runs > 0 || header.synced + 1 < header.sequence;
        let number = self.current.segment.number();
        if self.unsynced.last().is_none_or(|file| file.segment.number() != number) {
            self.unsynced.push(self.current.clone());
        }
        Ok(())
    }

    /// Writes down, durably, that everything up to here was durable, when nothing says so yet: what cannot be read of it later is
    /// damage and no torn write. Does nothing while something is not durable.
    pub(crate) fn vouch(&mut self) -> Result<(), StorageError> {
        if !self.unvouched || self.synced + 1 != self.sequence {
            return Ok(());
        }
        let need = self.need(std::iter::empty());
        if need.files > 0 && !self.is_ready_for(need) {
            return Ok(()); // it does not wait for a file, and takes none from a full disk
        }
        self.begin(need)?;
        self.write_part(false)?;
        self.sync()
    }

    /// Goes on in the next of the files that [`begin`](Stream::begin) took.
    fn roll(&mut self) -> Result<(), StorageError> {
        let next = self.hand.pop_front().ok_or_else(|| {
            StorageError::Poisoned("a batch takes more files than were made ready for it".to_owned())
        })?;
        self.segments.insert(Arc::clone(&next.segment));
        let full = std::mem::replace(&mut self.current, next);
        self.preparer.files().keep(full.segment.number(), full.file);
        self.offset = DATA_START;
        Ok(())
    }

    /// Makes files ready, as far as that works.
    pub(crate) fn top_up(&mut self) {
        self.preparer.top_up();
    }

    /// Makes everything written durable, unless the store runs without.
    pub(crate) fn sync(&mut self) -> Result<(), StorageError> {
        if self.sync { self.sync_now() } else { Ok(()) }
    }

    /// Makes everything written durable.
    pub(crate) fn sync_now(&mut self) -> Result<(), StorageError> {
        for file in &self.unsynced {
            file.file.sync_data()?;
        }
        self.unsynced.clear();
        self.synced = self.sequence - 1;
        Ok(())
    }

    /// Gives up a file that no checkpoint and no run needs.
    pub(crate) fn free(&mut self, number: u64) {
        let Some(segment) = self.segments.remove(number) else { return };
        segment.free();
        self.give(segment_name(number), segment.header.bytes);
    }

    /// Takes in an old file of `bytes` bytes that nobody needs: it is recycled, or removed when there are enough.
    pub(crate) fn give(&mut self, name: String, bytes: u64) {
        self.preparer.give(name, bytes);
    }
}
