//! Settings of the segment log.

use std::time::Duration;

use crate::traits::StorageError;

/// Smallest accepted size of a segment file, in bytes: its header and one block.
const MIN_FILE_BYTES: u64 = 8 << 10;

/// Largest accepted size of a segment file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Settings of a [`SegmentLog`](crate::SegmentLog).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentLogOptions {
    /// Size of a segment file in bytes (64 MiB). One entry must fit in a file. May change between starts.
    pub file_bytes: u64,
    /// Bytes of a block (4096): a power of two from 512 to 65536. No batch shares a block with an earlier one, so that a device that tears a
    /// block at a loss of power harms nothing that was acknowledged. Choose the device's physical block; files keep the block they were
    /// made with.
    pub block_bytes: u64,
    /// Empty files kept ready ahead of the one being written (2); at least 1. With 1 a batch that goes on in the
    /// next file waits when that one took longer to prepare than the present one to fill.
    pub prepared_files: usize,
    /// Freed files kept for recycling beside the prepared ones (4); more are removed.
    pub recycled_files: usize,
    /// Whether a batch completes only after fdatasync (true). Without it a batch is durable against a crash of
    /// the process, but not of the machine: for benches and tests only.
    pub sync: bool,
    /// Stream bytes after which [`maintain`](crate::LogStorage::maintain) writes a checkpoint (256 MiB): bounds what
    /// a start must replay.
    pub checkpoint_bytes: u64,
    /// A file is emptied by rewriting when at most this share of it lives, in percent (25); 0 turns it off. The
    /// store's size stays below about 100 / this times what lives.
    pub rewrite_live_percent: u8,
    /// Bytes that one call of `maintain` rewrites at most, about (1 MiB).
    pub rewrite_bytes: u64,
    /// Files that stay open for reading at most (64), at least 1. Others are opened when they are read. Beside them
    /// the files that are written and `prepared_files` are open.
    pub open_files: usize,
    /// How long a write that needs another file waits for one while none can be prepared (10 s), until the store
    /// fails. It does not wait for space: see [`StorageError::NoRoom`].
    pub prepare_patience: Duration,
    /// Whether a thread of the store prepares files ahead (true); otherwise `maintain` does, as a
    /// simulator needs it.
    pub background: bool,
}

impl Default for SegmentLogOptions {
    fn default() -> SegmentLogOptions {
        SegmentLogOptions {
            file_bytes: 64 << 20,
            block_bytes: 4096,
            prepared_files: 2,
            recycled_files: 4,
            sync: true,
            checkpoint_bytes: 256 << 20,
            rewrite_live_percent: 25,
            rewrite_bytes: 1 << 20,
            open_files: 64,
            prepare_patience: Duration::from_secs(10),
            background: true,
        }
    }
}

impl SegmentLogOptions {
    /// The block as a power of two.
    pub(crate) fn block_log2(&self) -> u8 {
        self.block_bytes.trailing_zeros() as u8
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`StorageError::Refused`] naming the setting, its value and what is accepted.
    pub fn validate(&self) -> Result<(), StorageError> {
        let refuse = |text: String| Err(StorageError::Refused(text));
        if !(MIN_FILE_BYTES..=MAX_FILE_BYTES).contains(&self.file_bytes)
            || !self.file_bytes.is_multiple_of(512)
        {
            return refuse(format!(
                "file_bytes = {} is out of range: choose a multiple of 512 from {MIN_FILE_BYTES} to {MAX_FILE_BYTES}",
                self.file_bytes
            ));
        }
        let fits = self.block_bytes <= self.file_bytes / 2;
        if !self.block_bytes.is_power_of_two() || !(512..=64 << 10).contains(&self.block_bytes) || !fits {
            return refuse(format!(
                "block_bytes = {} is out of range: choose a power of two from 512 to 65536 and at most half of file_bytes",
                self.block_bytes
            ));
        }
        if !(1..=64).contains(&self.prepared_files) {
            return refuse(format!(
                "prepared_files = {} is out of range: choose 1 to 64",
                self.prepared_files
            ));
        }
        if self.recycled_files > 1024 {
            return refuse(format!(
                "recycled_files = {} is out of range: choose 0 to 1024",
                self.recycled_files
            ));
        }
        if self.rewrite_live_percent > 80 {
            return refuse(format!(
                "rewrite_live_percent = {} is out of range: choose 0 to 80, above it rewriting eats the disk",
                self.rewrite_live_percent
            ));
        }
        if self.open_files == 0 {
            return refuse("open_files must be at least 1".to_owned());
        }
        if self.rewrite_bytes == 0 || self.checkpoint_bytes == 0 {
            return refuse("rewrite_bytes and checkpoint_bytes must be at least 1".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_its_error() {
        let good = SegmentLogOptions::default;
        good().validate().unwrap();
        for (bad, name) in [
            (SegmentLogOptions { file_bytes: 100, ..good() }, "file_bytes"),
            (SegmentLogOptions { file_bytes: (64 << 20) + 1, ..good() }, "file_bytes"),
            (SegmentLogOptions { block_bytes: 1000, ..good() }, "block_bytes"),
            (SegmentLogOptions { block_bytes: 256, ..good() }, "block_bytes"),
            (SegmentLogOptions { prepared_files: 0, ..good() }, "prepared_files"),
            (SegmentLogOptions { recycled_files: 9999, ..good() }, "recycled_files"),
            (SegmentLogOptions { rewrite_live_percent: 90, ..good() }, "rewrite_live_percent"),
            (SegmentLogOptions { open_files: 0, ..good() }, "open_files"),
            (SegmentLogOptions { rewrite_bytes: 0, ..good() }, "rewrite_bytes"),
        ] {
            assert!(bad.validate().unwrap_err().to_string().contains(name));
        }
    }
}
