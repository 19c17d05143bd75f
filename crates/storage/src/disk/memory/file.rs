//! Handles of files and of the lock.

use std::io::{self, IoSlice};

use super::super::{DiskFile, io_error};
use super::device::{Device, is_due};
use super::inode::{Inode, SECTOR};
use super::{Damage, FsyncFailure, MemoryDisk};
use crate::traits::StorageError;

pub(super) struct MemoryLock {
    pub(super) disk: MemoryDisk,
    pub(super) life: u64,
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        if state.device.life == self.life {
            state.locked = false;
        }
    }
}

pub(super) struct MemoryFile {
    pub(super) disk: MemoryDisk,
    pub(super) inode: u64,
    pub(super) life: u64,
    pub(super) path: String,
}

impl MemoryFile {
    fn failed(&self, operation: &'static str, errno: i32) -> StorageError {
        io_error(operation, &self.path, &io::Error::from_raw_os_error(errno))
    }

    /// Runs `f` on the file's inode unless the handle belongs to an earlier life.
    fn with<T>(
        &self,
        operation: &'static str,
        f: impl FnOnce(&mut Device, &mut Inode, &mut Vec<Damage>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let state = &mut *self.disk.state.lock();
        if state.device.life != self.life {
            return Err(self.failed(operation, libc::EBADF));
        }
        let inode = state.inodes.get_mut(&self.inode).ok_or_else(|| self.failed(operation, libc::ESTALE))?;
        f(&mut state.device, inode, &mut state.damage)
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        self.disk.state.lock().device.open_files -= 1;
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, StorageError> {
        self.with("read", |device, inode, _| {
            device.alive("read", &self.path)?;
            if is_due(&mut device.failing_read) {
                return Err(self.failed("read", libc::EIO));
            }
            let start = (offset as usize).min(inode.current.len());
            let mut n = buf.len().min(inode.current.len() - start);
            if device.short_reads && n > 1 {
                n = 1 + device.random() as usize % n;
            }
            buf[..n].copy_from_slice(&inode.current[start..start + n]);
            if n > 0 && is_due(&mut device.corrupt_read) {
                let at = device.random();
                buf[at as usize % n] ^= 1 << (at >> 61);
            }
            Ok(n)
        })
    }

    fn write_vectored_at(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> Result<(), StorageError> {
        self.with("write", |device, inode, damage| {
            let verdict = device.operation("write", &self.path);
            let number = device.operations;
            let (mut start, bytes) = (offset as usize, parts.iter().map(|p| p.len()).sum::<usize>());
            if verdict.is_ok() && start + bytes > inode.current.len() {
                let growth = start + bytes - inode.current.len();
                device.room(growth as u64, "write", &self.path)?;
                device.used += growth as u64;
                inode.resize(start + bytes);
            }
            if verdict.is_ok() {
                if is_due(&mut device.misdirected_write) && inode.current.len() > SECTOR {
                    let sectors = inode.current.len() / SECTOR;
                    let elsewhere = device.random() as usize % sectors * SECTOR;
                    if elsewhere != start {
                        start = elsewhere;
                        damage.push(Damage { path: self.path.clone(), operation: number });
                    }
                }
                for part in parts.iter() {
                    inode.write(start, part, number);
                    start += part.len();
                }
                return Ok(());
            }
            // A failed write may have done any part of its work.
            let data: Vec<u8> = parts.iter().flat_map(|p| p.iter().copied()).collect();
            for sector in start / SECTOR..(start + bytes).div_ceil(SECTOR) {
                if device.coin() {
                    device.torn_sectors += 1;
                    continue;
                }
                let from = start.max(sector * SECTOR);
                let to = (start + bytes).min((sector + 1) * SECTOR);
                inode.write(from, &data[from - start..to - start], number);
            }
            verdict
        })
    }

    fn sync_data(&self) -> Result<(), StorageError> {
        self.with("fdatasync", |device, inode, _| {
            device.operation("fdatasync", &self.path)?;
            match device.fsync_failure {
                Some((0, outcome)) => {
                    device.fsync_failure = None;
                    if outcome == FsyncFailure::RevertsToOld {
                        device.used = device.used + inode.durable.len() as u64 - inode.current.len() as u64;
                        inode.current = inode.durable.clone();
                    }
                    if outcome != FsyncFailure::StaysDirty {
                        inode.dirty.clear();
                    }
                    return Err(self.failed("fdatasync", libc::EIO));
                }
                Some((calls, outcome)) => device.fsync_failure = Some((calls - 1, outcome)),
                None => {}
            }
            inode.sync();
            Ok(())
        })
    }

    fn len(&self) -> Result<u64, StorageError> {
        self.with("stat", |_, inode, _| Ok(inode.current.len() as u64))
    }

    fn set_len(&self, bytes: u64) -> Result<(), StorageError> {
        self.with("resize", |device, inode, _| {
            device.operation("resize", &self.path)?;
            let before = inode.current.len() as u64;
            if bytes > before {
                device.room(bytes - before, "resize", &self.path)?;
            }
            device.used = device.used + bytes - before;
            inode.resize(bytes as usize);
            Ok(())
        })
    }

    fn path(&self) -> String {
        self.path.clone()
    }
}
