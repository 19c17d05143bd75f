//! The operating system's file system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, DiskFile, DiskLock, file_system, io_error};
use crate::traits::StorageError;

/// Slices that one `pwritev` takes at most on Linux and the BSDs.
const IOV_MAX: usize = 1024;

/// Name of the file whose lock stands for the directory.
const LOCK_NAME: &str = "LOCK";

/// A directory of the operating system.
#[derive(Debug)]
pub struct RealDisk {
    directory: PathBuf,
}

impl RealDisk {
    /// The directory at `path`, created with its parents when it is missing.
    ///
    /// # Errors
    /// [`StorageError::Io`] when it cannot be created or made durable in its parents.
    pub fn new(path: impl AsRef<Path>) -> Result<RealDisk, StorageError> {
        let directory = path.as_ref().to_path_buf();
        let parents = parents_to_sync(&directory);
        let shown = directory.display().to_string();
        fs::create_dir_all(&directory).map_err(|e| io_error("create directory", &shown, &e))?;
        for (parent, made) in parents {
            match sync_directory(&parent) {
                // Whoever made the directory in it may see it, we need not.
                Err(e) if !made && e.kind() == io::ErrorKind::PermissionDenied => {}
                other => other.map_err(|e| io_error("sync directory", parent.display().to_string(), &e))?,
            }
        }
        file_system::warn_of(&directory);
        Ok(RealDisk { directory })
    }

    /// The directory's path.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// The directories that must be synced for `directory` to be found again once it is made, and whether its making
/// changes them. The direct parent is always among them: an earlier start may have ended between making and syncing.
fn parents_to_sync(directory: &Path) -> Vec<(PathBuf, bool)> {
    let mut parents = Vec::new();
    for path in directory.ancestors().filter(|p| !p.as_os_str().is_empty()) {
        let made = !path.is_dir();
        if !made && !parents.is_empty() {
            break;
        }
        let Some(parent) = path.parent() else { break };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        parents.push((parent.to_path_buf(), made));
    }
    parents
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

impl Disk for RealDisk {
    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, StorageError> {
        let path = self.path(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.at(name))
            .map_err(|e| io_error("open", &path, &e))?;
        Ok(Arc::new(RealFile { file, path }))
    }

    fn create(&self, name: &str, bytes: u64) -> Result<Arc<dyn DiskFile>, StorageError> {
        let path = self.path(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.at(name))
            .map_err(|e| io_error("create", &path, &e))?;
        let file = RealFile { file, path };
        file.set_len(bytes)?;
        Ok(Arc::new(file))
    }

    fn list(&self) -> Result<Vec<String>, StorageError> {
        let failed = |e: io::Error| io_error("list", self.directory.display().to_string(), &e);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_file()
                && let Ok(name) = entry.file_name().into_string()
                && name != LOCK_NAME
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        fs::remove_file(self.at(name)).map_err(|e| io_error("remove", self.path(name), &e))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        fs::rename(self.at(from), self.at(to)).map_err(|e| io_error("rename", self.path(from), &e))
    }

    fn sync_dir(&self) -> Result<(), StorageError> {
        sync_directory(&self.directory)
            .map_err(|e| io_error("sync directory", self.directory.display().to_string(), &e))
    }

    fn lock(&self) -> Result<DiskLock, StorageError> {
        let path = self.path(LOCK_NAME);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.at(LOCK_NAME))
            .map_err(|e| io_error("open", &path, &e))?;
        match file.try_lock() {
            Ok(()) => Ok(DiskLock::new(file)),
            Err(TryLockError::WouldBlock) => Err(StorageError::Refused(format!(
                "data directory {} is used by another process; stop that process or name another directory",
                self.directory.display()
            ))),
            Err(TryLockError::Error(e)) => Err(io_error("lock", path, &e)),
        }
    }

    fn path(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }
}

struct RealFile {
    file: File,
    path: String,
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, StorageError> {
        loop {
            match self.file.read_at(buf, offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(|e| io_error("read", &self.path, &e)),
            }
        }
    }

    fn write_vectored_at(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> Result<(), StorageError> {
        let mut rest = parts;
        let mut at = offset;
        IoSlice::advance_slices(&mut rest, 0); // skips empty slices at the front
        while !rest.is_empty() {
            match write_some(&self.file, at, &rest[..rest.len().min(IOV_MAX)]) {
                Ok(0) => {
                    return Err(io_error("write", &self.path, &io::Error::from(io::ErrorKind::WriteZero)));
                }
                Ok(n) => {
                    at += n as u64;
                    IoSlice::advance_slices(&mut rest, n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(io_error("write", &self.path, &e)),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), StorageError> {
        self.file.sync_data().map_err(|e| io_error("fdatasync", &self.path, &e))
    }

    fn len(&self) -> Result<u64, StorageError> {
        Ok(self.file.metadata().map_err(|e| io_error("stat", &self.path, &e))?.len())
    }

    fn set_len(&self, bytes: u64) -> Result<(), StorageError> {
        self.file.set_len(bytes).map_err(|e| io_error("resize", &self.path, &e))
    }

    fn path(&self) -> String {
        self.path.clone()
    }
}

/// One `pwritev`; may write less than asked.
#[allow(unsafe_code)]
fn write_some(file: &File, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    let count = libc::c_int::try_from(parts.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: IoSlice is guaranteed to have the layout of iovec; the slice outlives the call, which only reads it
    // and the buffers it names; `count` is at most its length; the descriptor is open.
    let written = unsafe { libc::pwritev(file.as_raw_fd(), parts.as_ptr().cast(), count, offset) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(written as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_slices_than_one_call_takes_are_all_written() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path().join("a/b")).unwrap();
        let file = disk.create("f", 10_000).unwrap();
        let bytes: Vec<u8> = (0..3000u32).map(|i| (i % 251) as u8).collect();
        let mut parts: Vec<IoSlice<'_>> = bytes.chunks(1).map(IoSlice::new).collect();
        parts.insert(7, IoSlice::new(&[]));
        file.write_vectored_at(5, &mut parts).unwrap();
        file.sync_data().unwrap();
        let mut back = vec![0; 3000];
        file.read_exact_at(5, &mut back).unwrap();
        assert_eq!(back, bytes);
        assert_eq!(file.len().unwrap(), 10_000);
        assert!(matches!(file.read_exact_at(9_999, &mut [0; 2]), Err(StorageError::Damaged { .. })));
    }

    #[test]
    fn every_directory_that_gets_a_new_entry_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let new = [(at("a/b"), true), (at("a"), true), (dir.path().to_path_buf(), true)];
        assert_eq!(parents_to_sync(&at("a/b/c")), new);
        RealDisk::new(at("a/b/c")).unwrap();
        assert_eq!(parents_to_sync(&at("a/b/c")), [(at("a/b"), false)]);
        assert_eq!(parents_to_sync(Path::new("no-such-directory")), [(PathBuf::from("."), true)]);
        assert_eq!(parents_to_sync(Path::new("/")), []);
    }

    #[test]
    fn a_second_owner_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path()).unwrap();
        let held = disk.lock().unwrap();
        let error = RealDisk::new(dir.path()).unwrap().lock().err().unwrap();
        assert!(error.to_string().contains("another process"), "{error}");
        drop(held);
        disk.lock().unwrap();
        assert!(disk.list().unwrap().is_empty(), "the lock is no file of the store");
    }
}
