//! Opening the log store of a host: whose it is, and whether it may be taken into use.

use std::path::Path;
use std::sync::Arc;

use ringraft_storage::{
    CreationKind, Disk, Identity, LogStorage, MemoryLogStorage, RealDisk, SegmentLog, SegmentLogOptions,
    StorageError,
};

use crate::error::{StartError, os_error};
use crate::host_options::{StartMode, StoreOptions};

/// A store, and how it began.
pub(crate) struct Opened {
    pub(crate) storage: Box<dyn LogStorage>,
    /// Groups on it begin without members and without a vote: they may have voted and acknowledged before.
    pub(crate) rejoined: bool,
}

/// Opens the store, if it may be used in this mode by this host.
pub(crate) fn open(
    store: StoreOptions,
    mode: StartMode,
    endpoint: &str,
    cluster: &str,
) -> Result<Opened, StartError> {
    let rejoins = mode == StartMode::Rejoin;
    let leave = |blank: bool, dir: &str| match (blank, mode) {
        (true, StartMode::Existing) => Err(StartError::BlankDirectory { dir: dir.to_owned() }),
        _ => Ok(()),
    };
    match store {
        StoreOptions::Memory => {
            leave(true, "the memory store")?;
            Ok(Opened { storage: Box::new(MemoryLogStorage::new()), rejoined: rejoins })
        }
        StoreOptions::Custom { storage, blank } => {
            leave(blank, "the given store")?;
            Ok(Opened { storage, rejoined: rejoins && blank })
        }
        StoreOptions::Segment { dir, options } => {
            let text = dir.display().to_string();
            // A directory that is not there must not come into being by a refused start.
            leave(!dir.exists(), &text)?;
            let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&dir).map_err(|error| failed(&dir, error))?);
            let owner = match Identity::read(&*disk).map_err(|error| failed(&dir, error))? {
                Some(owner) if owner.server_id != endpoint || owner.cluster != cluster => {
                    return Err(StartError::OtherOwner {
                        dir,
                        owner: owner.server_id,
                        owner_cluster: owner.cluster,
                        endpoint: endpoint.to_owned(),
                        cluster: cluster.to_owned(),
                    });
                }
                Some(owner) => Ok(owner),
                None => {
                    leave(true, &text)?;
                    let kind = if rejoins { CreationKind::Rejoin } else { CreationKind::Bootstrap };
                    Identity::create(&*disk, endpoint, cluster, kind)
                }
            };
            let rejoined = owner.map_err(|error| failed(&dir, error))?.creation == CreationKind::Rejoin;
            let storage = open_segments(disk, options).map_err(|error| failed(&dir, error))?;
            Ok(Opened { storage, rejoined })
        }
    }
}

fn open_segments(
    disk: Arc<dyn Disk>,
    options: SegmentLogOptions,
) -> Result<Box<dyn LogStorage>, StorageError> {
    Ok(Box::new(SegmentLog::open(disk, options)?))
}

fn failed(dir: &Path, error: StorageError) -> StartError {
    match error {
        StorageError::Refused(reason) => StartError::ForeignDirectory { dir: dir.to_owned(), reason },
        StorageError::Io { operation, path, message, .. } => {
            let os_error = os_error(&message);
            StartError::StoreIo { operation, path, message, os_error }
        }
        StorageError::Damaged { path, offset, what } => {
            StartError::Damaged { dir: dir.to_owned(), path, offset, what }
        }
        error => StartError::Store(error.to_string()),
    }
}
