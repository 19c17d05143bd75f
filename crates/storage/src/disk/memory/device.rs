//! The device below the files: power, space, and the faults that are planned for it.

use std::io;

use super::super::io_error;
use super::FsyncFailure;
use crate::traits::StorageError;

/// Power, space, chance and planned faults.
#[derive(Default)]
pub(super) struct Device {
    /// Goes up at every crash: handles and locks of an earlier life are dead.
    pub(super) life: u64,
    pub(super) operations: u64,
    /// Bytes of all files.
    pub(super) used: u64,
    pub(super) power_off_at: Option<u64>,
    pub(super) off: bool,
    pub(super) fail_at: Option<u64>,
    pub(super) fsync_failure: Option<(u64, FsyncFailure)>,
    pub(super) byte_limit: Option<u64>,
    /// Files that are open.
    pub(super) open_files: usize,
    /// Most that were open at a time.
    pub(super) most_open_files: usize,
    pub(super) open_limit: Option<usize>,
    /// The error of every new file.
    pub(super) refused_creation: Option<i32>,
    pub(super) short_reads: bool,
    /// Bytes of a block that a loss of power may spoil as a whole; 0 for one sector.
    pub(super) tear: usize,
    /// Reads until one fails.
    pub(super) failing_read: Option<u64>,
    /// Reads until one returns another bit than the medium holds.
    pub(super) corrupt_read: Option<u64>,
    /// Writes until one lands in another place.
    pub(super) misdirected_write: Option<u64>,
    /// Syncs of the directory until one reports success and does nothing.
    pub(super) lost_dir_sync: Option<u64>,
    /// Sectors that a loss of power or a failed write kept from the medium or the page cache.
    pub(super) torn_sectors: u64,
    pub(super) random: u64,
}

impl Device {
    pub(super) fn random(&mut self) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn coin(&mut self) -> bool {
        self.random() & 1 == 1
    }

    /// Counts an operation that changes something; `Err` when it is one that was chosen to fail.
    pub(super) fn operation(&mut self, what: &'static str, path: &str) -> Result<(), StorageError> {
        self.alive(what, path)?;
        let number = self.operations;
        self.operations += 1;
        if self.power_off_at.is_some_and(|at| number >= at) {
            self.off = true;
        }
        if self.fail_at == Some(number) || self.off {
            return Err(io_error(what, path, &io::Error::from_raw_os_error(libc::EIO)));
        }
        Ok(())
    }

    pub(super) fn alive(&self, what: &'static str, path: &str) -> Result<(), StorageError> {
        if self.off {
            return Err(io_error(what, path, &io::Error::from_raw_os_error(libc::EIO)));
        }
        Ok(())
    }

    /// Whether `more` bytes fit under the limit.
    pub(super) fn room(&self, more: u64, what: &'static str, path: &str) -> Result<(), StorageError> {
        if self.byte_limit.is_some_and(|limit| self.used + more > limit) {
            return Err(io_error(what, path, &io::Error::from_raw_os_error(libc::ENOSPC)));
        }
        Ok(())
    }

    /// Whether one more file may be open.
    pub(super) fn descriptor(&self, what: &'static str, path: &str) -> Result<(), StorageError> {
        if self.open_limit.is_some_and(|limit| self.open_files >= limit) {
            return Err(io_error(what, path, &io::Error::from_raw_os_error(libc::EMFILE)));
        }
        Ok(())
    }

    /// Everything that was planned is forgotten, but for the byte limit.
    pub(super) fn forget_plans(&mut self) {
        self.power_off_at = None;
        self.off = false;
        self.fail_at = None;
        self.fsync_failure = None;
        self.short_reads = false;
        self.failing_read = None;
        self.corrupt_read = None;
        self.misdirected_write = None;
        self.lost_dir_sync = None;
        self.open_limit = None;
        self.refused_creation = None;
    }
}

/// Counts a plan down; true when its time has come, once.
pub(super) fn is_due(plan: &mut Option<u64>) -> bool {
    match plan {
        Some(0) => {
            *plan = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}
