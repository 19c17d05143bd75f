//! Opening the log store of a host: whose it is, and whether it may be taken into use.

use std::path::Path;
use std::sync::Arc;

use ringraft_storage::{
    CreationKind, Disk, Identity, LogStorage, MemoryLogStorage, RealDisk, SegmentLog, SegmentLogOptions,
    StorageError,
};

use crate::error::StartError;
use crate::host_options::{StartMode, StoreOptions};

/// Opens the store, if it may be used in this mode by this host.
pub(crate) fn open(
    store: StoreOptions,
    mode: StartMode,
    endpoint: &str,
    cluster: &str,
) -> Result<Box<dyn LogStorage>, StartError> {
    if mode == StartMode::Rejoin {
        return Err(StartError::RejoinUnsupported);
    }
    let leave = |blank: bool, dir: &str| match (blank, mode) {
        (true, StartMode::Existing) => Err(StartError::BlankDirectory { dir: dir.to_owned() }),
        _ => Ok(()),
    };
    match store {
        StoreOptions::Memory => {
            leave(true, "the memory store")?;
            Ok(Box::new(MemoryLogStorage::new()))
        }
        StoreOptions::Custom { storage, blank } => {
            leave(blank, "the given store")?;
            Ok(storage)
        }
        StoreOptions::Segment { dir, options } => {
            let text = dir.display().to_string();
            // A directory that is not there must not come into being by a refused start.
            leave(!dir.exists(), &text)?;
            let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&dir).map_err(|error| failed(&dir, error))?);
            match Identity::read(&*disk).map_err(|error| failed(&dir, error))? {
                Some(owner) => owner.check(endpoint, cluster).map_err(|error| failed(&dir, error))?,
                None => {
                    leave(true, &text)?;
                    Identity::create(&*disk, endpoint, cluster, CreationKind::Bootstrap)
                        .map_err(|error| failed(&dir, error))?;
                }
            }
            open_segments(disk, options).map_err(|error| failed(&dir, error))
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
        error => StartError::Store(error.to_string()),
    }
}
