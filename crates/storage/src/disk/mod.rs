//! What the store needs of a file system: one directory, files of fixed size, explicit durability.

mod file_system;
mod memory;
pub(crate) mod mutants;
mod real;

use std::io::{self, IoSlice};
use std::sync::Arc;

pub use memory::{Damage, FsyncFailure, MemoryDisk};
pub use real::RealDisk;

use crate::traits::{IoKind, StorageError};

/// One open file of a [`Disk`]. All methods may be called from any thread.
///
/// Nothing that was written is durable before [`sync_data`](DiskFile::sync_data) returned `Ok`. A process that
/// wants a file-size limit (`RLIMIT_FSIZE`) reported as an error instead of being killed must ignore `SIGXFSZ`.
#[allow(clippy::len_without_is_empty)] // a length in bytes that may fail, not a collection
pub trait DiskFile: Send + Sync {
    /// Reads at most `buf.len()` bytes at `offset`; returns how many, 0 only at or after the end of the file.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, StorageError>;

    /// Writes all parts one after the other at `offset`; the slices are used up.
    ///
    /// # Errors
    /// [`StorageError::Io`]; any part of the bytes may then have been written.
    fn write_vectored_at(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> Result<(), StorageError>;

    /// Makes the file's data durable, and its length when that changed.
    ///
    /// # Errors
    /// [`StorageError::Io`]; what was written since the last success may then be lost, and a later call proves
    /// nothing about it.
    fn sync_data(&self) -> Result<(), StorageError>;

    /// Length in bytes.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    fn len(&self) -> Result<u64, StorageError>;

    /// Cuts or extends the file (with zeros).
    ///
    /// # Errors
    /// [`StorageError::Io`].
    fn set_len(&self, bytes: u64) -> Result<(), StorageError>;

    /// How to name the file to a person: the path under which it was opened. The store opens a file again after it
    /// has renamed it, so that this is the name of the file's present life.
    fn path(&self) -> String;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// As for [`write_vectored_at`](DiskFile::write_vectored_at).
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.write_vectored_at(offset, &mut [IoSlice::new(bytes)])
    }

    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// [`StorageError::Io`]; [`StorageError::Damaged`] when the file ends before.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            match self.read_at(at, &mut buf[done..])? {
                0 => {
                    let what = format!("the file ends {} bytes early", buf.len() - done);
                    return Err(StorageError::Damaged { path: self.path(), offset: at, what });
                }
                n => done += n,
            }
        }
        Ok(())
    }
}

/// Holds the exclusive right to a directory until it is dropped.
pub struct DiskLock {
    _held: Box<dyn std::any::Any + Send + Sync>,
}

impl DiskLock {
    /// A lock that lasts as long as `held` lives.
    pub fn new(held: impl std::any::Any + Send + Sync) -> DiskLock {
        DiskLock { _held: Box::new(held) }
    }
}

/// One directory. Creation, renaming and removal are durable only after [`sync_dir`](Disk::sync_dir).
pub trait Disk: Send + Sync {
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// [`StorageError::Io`], also when it does not exist.
    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, StorageError>;

    /// Creates a file of `bytes` zero bytes, which must not exist yet.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    fn create(&self, name: &str, bytes: u64) -> Result<Arc<dyn DiskFile>, StorageError>;

    /// Names of all files, sorted.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    fn list(&self) -> Result<Vec<String>, StorageError>;

    /// Removes a file; handles that are open stay usable.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    fn remove(&self, name: &str) -> Result<(), StorageError>;

    /// Renames a file, replacing `to` when it exists.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError>;

    /// Makes everything that was created, renamed or removed durable.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    fn sync_dir(&self) -> Result<(), StorageError>;

    /// Takes the directory for this process.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when another owner has it, else [`StorageError::Io`].
    fn lock(&self) -> Result<DiskLock, StorageError>;

    /// How to name a file of the directory to a person.
    fn path(&self, name: &str) -> String;
}

/// A system error in the store's words.
pub(crate) fn io_error(operation: &'static str, path: impl Into<String>, error: &io::Error) -> StorageError {
    let kind = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => IoKind::Full,
        Some(libc::EMFILE | libc::ENFILE) => IoKind::Descriptors,
        Some(libc::EACCES | libc::EPERM) => IoKind::Permission,
        Some(libc::ENOTDIR | libc::EISDIR | libc::EEXIST) => IoKind::WrongType,
        _ => IoKind::Other,
    };
    StorageError::Io { operation, path: path.into(), message: error.to_string(), kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_names_its_own_way_out() {
        for (errno, kind, words) in [
            (libc::ENOSPC, IoKind::Full, "free space"),
            (libc::EDQUOT, IoKind::Full, "quota"),
            (libc::EFBIG, IoKind::Full, "file sizes"),
            (libc::EMFILE, IoKind::Descriptors, "ulimit -n"),
            (libc::ENFILE, IoKind::Descriptors, "ulimit -n"),
            (libc::EACCES, IoKind::Permission, "the user of this process"),
            (libc::ENOTDIR, IoKind::WrongType, "another path"),
            (libc::EISDIR, IoKind::WrongType, "another path"),
            (libc::EIO, IoKind::Other, "replace the disk"),
        ] {
            let error = io_error("open", "dir/f", &io::Error::from_raw_os_error(errno));
            let text = error.to_string();
            assert!(matches!(error, StorageError::Io { kind: k, .. } if k == kind), "{text}");
            assert!(text.contains("open of dir/f") && text.contains(words), "{text}");
            assert!(errno == libc::EIO || !text.contains("replace the disk"), "{text}");
        }
    }
}
