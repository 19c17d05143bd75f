//! Segment files in use, by number: shared by who writes, who reads and who keeps house.

use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::files::OpenFiles;
use super::format::SegmentHeader;
use crate::disk::DiskFile;
use crate::traits::StorageError;

/// One life of a segment file.
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    files: Arc<OpenFiles>,
    /// Bytes of runs that some group's log still needs.
    pub(crate) live: AtomicU64,
    /// This life of the file is over.
    freed: AtomicBool,
}

impl Segment {
    pub(crate) fn new(header: SegmentHeader, files: Arc<OpenFiles>) -> Arc<Segment> {
        Arc::new(Segment { header, files, live: AtomicU64::new(0), freed: AtomicBool::new(false) })
    }

    /// The file, opened when it is not open.
    pub(crate) fn file(&self) -> Result<Arc<dyn DiskFile>, StorageError> {
        let file = self.files.get(self.number())?;
        // Whoever frees the file does so first and closes it then: one of both closes what was opened here.
        if self.freed.load(Ordering::SeqCst) {
            self.files.forget(self.number());
        }
        Ok(file)
    }

    /// Nobody reads it any more, or must look again: its place is given up.
    pub(crate) fn free(&self) {
        self.freed.store(true, Ordering::SeqCst);
        self.files.forget(self.number());
    }

    /// How to name the file to a person.
    pub(crate) fn path(&self) -> String {
        self.files.path(self.number())
    }

    /// Something is wrong at `offset`.
    pub(crate) fn damaged(&self, offset: u64, what: String) -> StorageError {
        StorageError::Damaged { path: self.path(), offset, what }
    }

    pub(crate) fn number(&self) -> u64 {
        self.header.number
    }

    pub(crate) fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// A run of `bytes` bytes in it belongs to a log from now on.
    pub(crate) fn retain(&self, bytes: u32) {
        self.live.fetch_add(u64::from(bytes), Ordering::Relaxed);
    }

    /// A run of `bytes` bytes in it belongs to no log any more.
    pub(crate) fn release(&self, bytes: u32) {
        self.live.fetch_sub(u64::from(bytes), Ordering::Relaxed);
    }
}

/// Every file that holds a part of the stream. One in which a run of some log stands is there: only who owns the store takes
/// files out, and only those without a live byte. Numbers are never used again.
#[derive(Default)]
pub(crate) struct Segments {
    files: RwLock<BTreeMap<u64, Arc<Segment>>>,
}

impl Segments {
    pub(crate) fn new(files: BTreeMap<u64, Arc<Segment>>) -> Arc<Segments> {
        Arc::new(Segments { files: RwLock::new(files) })
    }

    pub(crate) fn get(&self, number: u64) -> Option<Arc<Segment>> {
        self.files.read().get(&number).cloned()
    }

    pub(crate) fn insert(&self, segment: Arc<Segment>) {
        self.files.write().insert(segment.number(), segment);
    }

    pub(crate) fn remove(&self, number: u64) -> Option<Arc<Segment>> {
        self.files.write().remove(&number)
    }

    /// The files whose numbers are in the range, ascending.
    pub(crate) fn range(&self, numbers: impl RangeBounds<u64>) -> Vec<Arc<Segment>> {
        self.files.read().range(numbers).map(|(_, segment)| Arc::clone(segment)).collect()
    }

    /// Numbers of the files that hold a run of some log.
    pub(crate) fn live<T: FromIterator<u64>>(&self) -> T {
        self.files.read().values().filter(|s| s.live() > 0).map(|s| s.number()).collect()
    }

    /// As [`Segment::release`], for a run in file `number`.
    pub(crate) fn release(&self, number: u64, bytes: u32) {
        if let Some(segment) = self.files.read().get(&number) {
            segment.release(bytes);
        }
    }
}
