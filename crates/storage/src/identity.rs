//! Whose a data directory is: written once when it is created, checked at every start.

use crate::disk::Disk;
use crate::traits::StorageError;

const NAME: &str = "IDENTITY";
const TEMPORARY: &str = "IDENTITY.tmp";
const MAGIC: [u8; 8] = *b"RRIDENTI";
const VERSION: u32 = 1;

/// How a data directory came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreationKind {
    /// It started blank as one of the first members, with an initial configuration.
    Bootstrap,
    /// It started blank as that of a member without memory, which waits for a leader.
    Rejoin,
}

impl CreationKind {
    fn byte(self) -> u8 {
        match self {
            CreationKind::Bootstrap => 1,
            CreationKind::Rejoin => 2,
        }
    }

    fn from_byte(byte: u8) -> Option<CreationKind> {
        match byte {
            1 => Some(CreationKind::Bootstrap),
            2 => Some(CreationKind::Rejoin),
            _ => None,
        }
    }
}

/// The owner that a data directory remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The server as its peers name it, `ip:port`.
    pub server_id: String,
    /// The cluster it belongs to.
    pub cluster: String,
    /// How the directory was created.
    pub creation: CreationKind,
}

impl Identity {
    /// What the directory remembers; `None` when it is blank in this respect.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when the file cannot be understood, [`StorageError::Io`].
    pub fn read(disk: &dyn Disk) -> Result<Option<Identity>, StorageError> {
        if !disk.list()?.iter().any(|name| name == NAME) {
            return Ok(None);
        }
        let file = disk.open(NAME)?;
        let mut bytes = vec![0; file.len()?.min(1 << 20) as usize];
        file.read_exact_at(0, &mut bytes)?;
        decode(&bytes).map(Some).map_err(|what| StorageError::Damaged {
            path: disk.path(NAME),
            offset: 0,
            what,
        })
    }

    /// Makes a blank directory remember its owner, durably. After a crash the directory is blank or has all of it.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when it already remembers one, somebody uses the directory, or a name is longer
    /// than 65535 bytes, [`StorageError::Io`].
    pub fn create(
        disk: &dyn Disk,
        server_id: &str,
        cluster: &str,
        creation: CreationKind,
    ) -> Result<Identity, StorageError> {
        let identity = Identity { server_id: server_id.to_owned(), cluster: cluster.to_owned(), creation };
        // Two servers that start in the same blank directory must not both find it blank.
        let _lock = disk.lock()?;
        if let Some(owner) = Identity::read(disk)? {
            return Err(StorageError::Refused(format!(
                "{} already belongs to server {} of cluster {}; name an empty data directory",
                disk.path(NAME),
                owner.server_id,
                owner.cluster
            )));
        }
        for text in [server_id, cluster] {
            if text.len() > usize::from(u16::MAX) {
                return Err(StorageError::Refused(format!(
                    "server id and cluster name have at most 65535 bytes, one has {}",
                    text.len()
                )));
            }
        }
        if disk.list()?.iter().any(|name| name == TEMPORARY) {
            disk.remove(TEMPORARY)?;
        }
        let file = disk.create(TEMPORARY, 0)?;
        file.write_at(0, &encode(&identity))?;
        file.sync_data()?;
        disk.rename(TEMPORARY, NAME)?;
        disk.sync_dir()?;
        Ok(identity)
    }

    /// Refuses a directory of somebody else.
    ///
    /// # Errors
    /// [`StorageError::Refused`] naming both owners and the ways out.
    pub fn check(&self, server_id: &str, cluster: &str) -> Result<(), StorageError> {
        if self.server_id == server_id && self.cluster == cluster {
            return Ok(());
        }
        Err(StorageError::Refused(format!(
            "the data directory belongs to server {} of cluster {}, but this is server {server_id} of cluster \
             {cluster}; point data_dir at this server's own directory, or correct the server id or cluster name",
            self.server_id, self.cluster
        )))
    }
}

fn encode(identity: &Identity) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[identity.creation.byte(), 0, 0, 0]);
    for text in [&identity.server_id, &identity.cluster] {
        out.extend_from_slice(&(text.len() as u16).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Result<Identity, String> {
    let short = || "the file ends early".to_owned();
    let (body, crc) = bytes.split_at_checked(bytes.len().wrapping_sub(4)).ok_or_else(short)?;
    let rest = body.strip_prefix(&MAGIC).ok_or("not an identity file")?;
    if crc32c::crc32c(body).to_le_bytes() != crc {
        return Err("checksum does not match".to_owned());
    }
    let (version, rest) = rest.split_at_checked(4).ok_or_else(short)?;
    if version != VERSION.to_le_bytes() {
        return Err(format!("unknown format version {version:?}; use the program version that wrote it"));
    }
    let (kind, mut rest) = rest.split_at_checked(4).ok_or_else(short)?;
    let creation = CreationKind::from_byte(kind[0]).ok_or("unknown kind of creation")?;
    let mut text = || {
        let (len, after) = rest.split_at_checked(2).ok_or_else(short)?;
        let len = usize::from(u16::from_le_bytes([len[0], len[1]]));
        let (text, after) = after.split_at_checked(len).ok_or_else(short)?;
        rest = after;
        String::from_utf8(text.to_vec()).map_err(|e| e.to_string())
    };
    Ok(Identity { server_id: text()?, cluster: text()?, creation })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn a_directory_remembers_whose_it_is() {
        let disk = MemoryDisk::new();
        assert_eq!(Identity::read(&disk).unwrap(), None);
        let made = Identity::create(&disk, "127.0.0.1:80", "demo", CreationKind::Bootstrap).unwrap();
        disk.crash(1);
        let found = Identity::read(&disk).unwrap().unwrap();
        assert_eq!(found, made);
        found.check("127.0.0.1:80", "demo").unwrap();
        let error = found.check("127.0.0.1:81", "demo").unwrap_err().to_string();
        assert!(error.contains("127.0.0.1:80") && error.contains("127.0.0.1:81"), "{error}");
        assert!(found.check("127.0.0.1:80", "other").is_err());
        let again = Identity::create(&disk, "x", "y", CreationKind::Bootstrap);
        assert!(matches!(again, Err(StorageError::Refused(_))));
    }

    #[test]
    fn a_directory_in_use_does_not_change_its_owner() {
        let disk = MemoryDisk::new();
        let log = crate::SegmentLog::open(std::sync::Arc::new(disk.clone()), Default::default()).unwrap();
        assert_eq!(Identity::read(&disk).unwrap(), None);
        let late = Identity::create(&disk, "b", "c", CreationKind::Bootstrap);
        assert!(matches!(late, Err(StorageError::Refused(_))), "{late:?}");
        drop(log);
        Identity::create(&disk, "b", "c", CreationKind::Bootstrap).unwrap();
    }

    #[test]
    fn a_crash_at_any_point_leaves_nothing_or_all() {
        for operations in 0..6 {
            for seed in 0..8 {
                let disk = MemoryDisk::new();
                disk.power_off_after(operations);
                let done = Identity::create(&disk, "s", "c", CreationKind::Bootstrap).is_ok();
                disk.crash(seed);
                let found = Identity::read(&disk).unwrap();
                assert!(!done || found.is_some(), "after {operations} operations");
                if found.is_none() {
                    Identity::create(&disk, "s", "c", CreationKind::Bootstrap).unwrap();
                }
            }
        }
    }

    #[test]
    fn damage_is_seen() {
        let disk = MemoryDisk::new();
        Identity::create(&disk, "server", "cluster", CreationKind::Bootstrap).unwrap();
        let len = disk.contents(NAME).unwrap().len() as u64;
        for offset in 0..len {
            disk.flip_bit(NAME, offset, 3);
            assert!(matches!(Identity::read(&disk), Err(StorageError::Damaged { .. })), "byte {offset}");
            disk.flip_bit(NAME, offset, 3);
        }
    }
}
