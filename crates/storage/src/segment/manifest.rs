//! Which files a store has in use: two copies of a list, changed before a file may be used and before it may go.
//!
//! Both copies say the same; a change counts when both are durable, so that one unreadable copy never hides a file.

use parking_lot::Mutex;

use super::format::{Cursor, FORMAT_VERSION, put32, put64, u16_at, u32_at, u64_at};
use crate::disk::Disk;
use crate::store_id::StoreId;
use crate::traits::StorageError;

/// Names of the copies, in the order in which they are written.
pub(crate) const COPIES: [&str; 2] = ["MANIFEST-a", "MANIFEST-b"];

const MAGIC: [u8; 8] = *b"RRMANIFE";
const HEADER: usize = 72;
const ENTRY: usize = 32;

/// The files have multiples of this length, so that a full disk does not stop a change that frees space.
const GRAIN: usize = 64 << 10;

/// Files that a manifest may name; bounds what a damaged one makes a reader allocate.
const MAX_FILES: u32 = 1 << 24;

/// A segment file that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ManifestFile {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) bytes: u64,
    /// Format version of the file.
    pub(crate) version: u16,
}

/// What a store has in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) store: StoreId,
    /// One more than that of the manifest before.
    pub(crate) sequence: u64,
    /// How many times the store has been opened.
    pub(crate) life: u32,
    /// Number of the checkpoint file that counts.
    pub(crate) checkpoint: u64,
    /// Number of the one before it, which is kept; 0 for none.
    pub(crate) checkpoint_before: u64,
    /// Ascending by number.
    pub(crate) files: Vec<ManifestFile>,
}

impl Manifest {
    /// The entry of a file.
    pub(crate) fn file(&self, number: u64) -> Option<&ManifestFile> {
        let at = self.files.binary_search_by_key(&number, |f| f.number).ok()?;
        self.files.get(at)
    }

    /// Adds a file, or replaces what is said of it.
    pub(crate) fn add(&mut self, file: ManifestFile) {
        match self.files.binary_search_by_key(&file.number, |f| f.number) {
            Ok(at) => self.files[at] = file,
            Err(at) => self.files.insert(at, file),
        }
    }

    /// Takes a file out.
    pub(crate) fn remove(&mut self, number: u64) {
        self.files.retain(|f| f.number != number);
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.files.len() * ENTRY);
        out.extend_from_slice(&MAGIC);
        put32(&mut out, FORMAT_VERSION);
        put32(&mut out, 0); // stream 0
        out.extend_from_slice(&self.store.0);
        put64(&mut out, self.sequence);
        put32(&mut out, self.life);
        put32(&mut out, self.files.len() as u32);
        put64(&mut out, self.checkpoint);
        put64(&mut out, self.checkpoint_before);
        out.resize(HEADER, 0);
        for file in &self.files {
            put64(&mut out, file.number);
            put64(&mut out, file.salt);
            put64(&mut out, file.bytes);
            out.extend_from_slice(&file.version.to_le_bytes());
            out.extend_from_slice(&[0; 6]); // no footer
        }
        let crc = crc32c::crc32c(&out[HEADER..]);
        out[64..68].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..68]);
        out[68..72].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Manifest, String> {
        if bytes.len() < HEADER || bytes[..8] != MAGIC {
            return Err("not a manifest".to_owned());
        }
        if crc32c::crc32c(&bytes[..68]) != u32_at(bytes, 68) {
            return Err("the checksum of the header does not match".to_owned());
        }
        if u32_at(bytes, 8) != FORMAT_VERSION {
            return Err(format!(
                "format version {} is not {FORMAT_VERSION}; use the program version that wrote it",
                u32_at(bytes, 8)
            ));
        }
        let count = u32_at(bytes, 44);
        if count > MAX_FILES {
            return Err(format!("it names {count} files"));
        }
        let entries = bytes[HEADER..].get(..count as usize * ENTRY).ok_or("it ends early")?;
        if crc32c::crc32c(entries) != u32_at(bytes, 64) {
            return Err("the checksum of the entries does not match".to_owned());
        }
        if u16_at(bytes, 12) != 0 {
            return Err(format!(
                "it is that of stream {}, and this program has one stream",
                u16_at(bytes, 12)
            ));
        }
        let mut cursor = Cursor::new(entries);
        let mut files = Vec::with_capacity(count as usize);
        while !cursor.is_empty() {
            let (number, salt, bytes) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
            let rest = cursor.take(8)?;
            files.push(ManifestFile { number, salt, bytes, version: u16_at(rest, 0) });
        }
        if files.windows(2).any(|two| two[0].number >= two[1].number) {
            return Err("its files are not in order".to_owned());
        }
        Ok(Manifest {
            store: StoreId::read(&bytes[16..32]),
            sequence: u64_at(bytes, 32),
            life: u32_at(bytes, 40),
            checkpoint: u64_at(bytes, 48),
            checkpoint_before: u64_at(bytes, 56),
            files,
        })
    }

    /// The manifest of a directory; `None` when it has none.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when copies exist and none can be read, [`StorageError::Io`].
    pub(crate) fn read(disk: &dyn Disk, names: &[String]) -> Result<Option<Manifest>, StorageError> {
        let mut newest: Option<Manifest> = None;
        let mut unreadable: Option<(&str, String)> = None;
        for name in COPIES.iter().filter(|copy| names.iter().any(|n| n == *copy)) {
            let file = disk.open(name)?;
            let mut bytes = vec![0; file.len()? as usize];
            file.read_exact_at(0, &mut bytes)?;
            match Manifest::decode(&bytes) {
                Ok(found) if newest.as_ref().is_none_or(|n| n.sequence < found.sequence) => {
                    newest = Some(found);
                }
                Ok(_) => {}
                Err(what) => {
                    tracing::warn!(path = %disk.path(name), %what, "a copy of the manifest cannot be read");
                    unreadable = Some((name, what));
                }
            }
        }
        match (newest, unreadable) {
            (None, Some((name, what))) => {
                Err(StorageError::Damaged { path: disk.path(name), offset: 0, what })
            }
            (newest, _) => Ok(newest),
        }
    }

    /// Writes both copies, one after the other, durably.
    fn write(&self, disk: &dyn Disk) -> Result<(), StorageError> {
        let names = disk.list()?;
        let mut bytes = self.encode();
        let room = bytes.len().next_multiple_of(GRAIN) as u64;
        for name in COPIES {
            // A copy is missing only while a store is opened, whose failure is final: the next start makes the names that it
            // finds durable.
            let (file, new) = match names.iter().any(|n| n == name) {
                true => (disk.open(name)?, false),
                false => (disk.create(name, room)?, true),
            };
            if file.len()? < room {
                bytes.resize(room as usize, 0);
            }
            file.write_at(0, &bytes)?;
            file.sync_data()?;
            if new {
                disk.sync_dir()?;
            }
        }
        Ok(())
    }
}

/// The manifest of a store that is open, shared by those who change it: the owner and the thread that prepares files.
pub(crate) struct SharedManifest {
    /// What both copies on the disk say.
    durable: Mutex<Manifest>,
}

impl SharedManifest {
    /// Takes over what was read, or was made for a new store.
    pub(crate) fn new(manifest: Manifest) -> SharedManifest {
        SharedManifest { durable: Mutex::new(manifest) }
    }

    /// Makes a change durable. After an error the old one stands in memory and either may stand on the disk: the same change may be tried
    /// again, for each attempt writes all of it.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub(crate) fn change(
        &self,
        disk: &dyn Disk,
        change: impl FnOnce(&mut Manifest),
    ) -> Result<(), StorageError> {
        let mut durable = self.durable.lock();
        let mut next = durable.clone();
        change(&mut next);
        if next == *durable {
            return Ok(());
        }
        // A failed attempt may have left this sequence on the disk, and with it another list.
        next.sequence = durable.sequence + 1;
        match next.write(disk) {
            Ok(()) => {
                *durable = next;
                Ok(())
            }
            Err(error) => {
                durable.sequence = next.sequence;
                Err(error)
            }
        }
    }

    /// A copy of what is durable.
    pub(crate) fn get(&self) -> Manifest {
        self.durable.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    fn manifest() -> Manifest {
        Manifest {
            store: StoreId([9; 16]),
            sequence: 1,
            life: 1,
            checkpoint: 1,
            checkpoint_before: 0,
            files: vec![ManifestFile { number: 1, salt: 5, bytes: 8192, version: 2 }],
        }
    }

    fn read(disk: &MemoryDisk) -> Result<Option<Manifest>, StorageError> {
        Manifest::read(disk, &disk.list().unwrap())
    }

    fn fresh(disk: &MemoryDisk) -> SharedManifest {
        let first = manifest();
        first.write(disk).unwrap();
        SharedManifest::new(first)
    }

    #[test]
    fn a_change_is_there_whole_or_not_at_all_wherever_the_power_goes() {
        for operations in 0..8 {
            for seed in 0..6 {
                let disk = MemoryDisk::new();
                let shared = fresh(&disk);
                let before = disk.operations();
                disk.power_off_after(operations);
                let more = ManifestFile { number: 2, salt: 6, bytes: 8192, version: 2 };
                let done = shared.change(&disk, |m| m.add(more)).is_ok();
                disk.crash(seed);
                let found = read(&disk).unwrap().unwrap();
                assert!(found.file(1).is_some());
                assert!(!done || found.file(2).is_some(), "{operations} of {before}, seed {seed}");
            }
        }
    }

    #[test]
    fn either_copy_is_enough_and_a_flipped_bit_is_seen() {
        let disk = MemoryDisk::new();
        let shared = fresh(&disk);
        shared.change(&disk, |m| m.life = 7).unwrap();
        for name in COPIES {
            for offset in 0..(HEADER + ENTRY) as u64 {
                let copy = disk.fork();
                copy.flip_bit(name, offset, (offset % 8) as u8);
                assert_eq!(read(&copy).unwrap().unwrap().life, 7, "{name} at {offset}");
            }
        }
        for name in COPIES {
            disk.flip_bit(name, 33, 1);
        }
        assert!(matches!(read(&disk), Err(StorageError::Damaged { .. })));
        assert_eq!(read(&MemoryDisk::new()).unwrap(), None);
    }

    #[test]
    fn a_failed_change_can_be_tried_again() {
        for operation in 0..4 {
            let disk = MemoryDisk::new();
            let shared = fresh(&disk);
            disk.fail_operation_after(operation);
            assert!(shared.change(&disk, |m| m.checkpoint = 4).is_err());
            assert_eq!(shared.get().checkpoint, 1);
            shared.change(&disk, |m| m.checkpoint = 5).unwrap();
            assert_eq!(read(&disk).unwrap().unwrap().checkpoint, 5);
        }
    }
}
