//! Opening the log store of a host: whose it is, how it began, and whether it may be taken into use.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ringraft_storage::{
    CreationKind, Disk, Expect, Identity, LogStorage, MemoryLogStorage, RealDisk, SegmentLog,
    SegmentLogOptions, StorageError,
};

use crate::error::{StartError, os_error};
use crate::host::options::{HostOptions, StartMode, StoreOptions};

/// A store, and how it began.
pub(crate) struct Opened {
    pub(crate) storage: Box<dyn LogStorage>,
    /// Groups on it begin without members and without a vote: they may have voted and acknowledged before.
    pub(crate) rejoined: bool,
    /// But for those with a higher creation number: they began when the disk was lost already.
    pub(crate) rejoined_after: Option<u64>,
    /// The cluster that it belongs to.
    pub(crate) membership: Membership,
}

/// Which cluster a store belongs to, and where it remembers that.
pub(crate) struct Membership {
    /// Empty while it is not known.
    pub(crate) cluster_id: String,
    /// `None` for stores that remember nothing.
    pub(crate) place: Option<IdentityPlace>,
}

/// An identity and its directory, whose lock the open store holds.
pub(crate) struct IdentityPlace {
    disk: Arc<dyn Disk>,
    identity: Identity,
}

impl IdentityPlace {
    /// Has the directory remember its cluster, durably.
    pub(crate) fn remember_cluster(&mut self, cluster_id: &str) -> Result<(), StorageError> {
        let identity = Identity { cluster_id: cluster_id.to_owned(), ..self.identity.clone() };
        identity.replace(&*self.disk)?;
        self.identity = identity;
        Ok(())
    }
}

/// Opens the store, if this host may use it in its start mode. What stands in `host.store` is not looked at.
pub(crate) fn open(store: StoreOptions, host: &HostOptions) -> Result<Opened, StartError> {
    match store {
        StoreOptions::Memory => in_memory(Box::new(MemoryLogStorage::new()), true, host, "the memory store"),
        StoreOptions::Custom { storage, blank } => in_memory(storage, blank, host, "the given store"),
        StoreOptions::Segment { dir, options } => {
            // A directory that is not there must not come into being by a refused start.
            if host.start_mode == StartMode::Existing && !dir.exists() {
                return Err(StartError::BlankDirectory { dir: dir.display().to_string() });
            }
            let disk = RealDisk::new(&dir).map_err(|error| failed(&dir, error))?;
            Directory { dir: &dir, disk: Arc::new(disk), host }.open(options)
        }
    }
}

/// A store that remembers no owner.
fn in_memory(
    storage: Box<dyn LogStorage>,
    blank: bool,
    host: &HostOptions,
    name: &str,
) -> Result<Opened, StartError> {
    match (blank, host.start_mode) {
        (true, StartMode::Existing) => return Err(StartError::BlankDirectory { dir: name.to_owned() }),
        (false, StartMode::Rejoin) => return Err(StartError::NotBlank { dir: name.to_owned() }),
        _ => {}
    }
    let rejoined = host.start_mode == StartMode::Rejoin;
    if host.rejoined_after.is_some() && !rejoined {
        return Err(StartError::NotRejoined { dir: name.to_owned() });
    }
    let rejoined_after = host.rejoined_after;
    let cluster_id = first_cluster_id(host, blank && !rejoined);
    Ok(Opened { storage, rejoined, rejoined_after, membership: Membership { cluster_id, place: None } })
}

/// The cluster of a store that does not remember one.
fn first_cluster_id(host: &HostOptions, founds: bool) -> String {
    let initial = if founds { host.initial_cluster_id.clone() } else { None };
    host.cluster_id.clone().or(initial).unwrap_or_default()
}

/// Name of the fact that says which creation numbers had been given when the disk was lost.
const REJOINED_AFTER: &str = "ringraft.rejoined_after";

/// What the directory shall remember, and what the library has it remember.
fn facts(host: &HostOptions) -> BTreeMap<String, String> {
    let own = host.rejoined_after.map(|last| (REJOINED_AFTER.to_owned(), last.to_string()));
    host.facts.clone().into_iter().chain(own).collect()
}

/// The directory of a segment log.
struct Directory<'a> {
    dir: &'a Path,
    disk: Arc<dyn Disk>,
    host: &'a HostOptions,
}

impl Directory<'_> {
    fn open(self, options: SegmentLogOptions) -> Result<Opened, StartError> {
        match Identity::read(&*self.disk).map_err(|error| failed(self.dir, error))? {
            Some(identity) => self.reopen(identity, options),
            None => self.create(options),
        }
    }

    /// One that was taken into use before.
    fn reopen(self, identity: Identity, options: SegmentLogOptions) -> Result<Opened, StartError> {
        self.check_owner(&identity)?;
        self.check_mode(&identity)?;
        let log =
            SegmentLog::open_expecting(Arc::clone(&self.disk), options, Expect::Existing(identity.store))
                .map_err(|error| failed(self.dir, error))?;
        let amended = self.amended(&identity, &log);
        if amended != identity {
            amended.replace(&*self.disk).map_err(|error| failed(self.dir, error))?;
        }
        Ok(self.opened(log, amended))
    }

    /// What the directory remembers from now on: more than before, and nothing else.
    fn amended(&self, identity: &Identity, log: &SegmentLog) -> Identity {
        let mut amended = identity.clone();
        if amended.store.is_none() {
            (amended.store, amended.taken_over) = (Some(log.store_id()), true);
        }
        if amended.cluster_id.is_empty() {
            // What a bootstrap would compute today need not be what the cluster's other members would.
            amended.cluster_id = first_cluster_id(self.host, false);
        }
        for (name, value) in facts(self.host) {
            amended.facts.entry(name).or_insert(value);
        }
        amended
    }

    /// One without an identity: blank, or left behind by a start that did not come to its end. The identity is written last, so that
    /// whatever a crash leaves before is such a rest, and whatever is missing after it is damage.
    fn create(self, options: SegmentLogOptions) -> Result<Opened, StartError> {
        if self.host.start_mode == StartMode::Bootstrap {
            self.check_loss(CreationKind::Bootstrap)?;
        }
        let kind = match self.host.start_mode {
            StartMode::Bootstrap => CreationKind::Bootstrap,
            StartMode::Rejoin => CreationKind::Rejoin,
            // Rule P11: a lost disk looks like a new one, and whoever has lost it must not vote as if he had never lived.
            StartMode::Existing => {
                return Err(match self.store_files()? {
                    files if files.is_empty() => {
                        StartError::BlankDirectory { dir: self.dir.display().to_string() }
                    }
                    files => StartError::IdentityMissing { dir: self.dir.to_owned(), files },
                });
            }
        };
        // Somebody who is making a store here has no identity yet, either.
        drop(self.disk.lock().map_err(|error| failed(self.dir, error))?);
        let log = match SegmentLog::open_expecting(Arc::clone(&self.disk), options, Expect::Blank) {
            Ok(log) => log,
            Err(error @ (StorageError::Refused(_) | StorageError::Damaged { .. })) => {
                return Err(match self.store_files()? {
                    files if files.is_empty() => failed(self.dir, error),
                    files => StartError::IdentityMissing { dir: self.dir.to_owned(), files },
                });
            }
            Err(error) => return Err(failed(self.dir, error)),
        };
        let mut identity = Identity::new(&self.host.endpoint, &self.host.cluster, kind, log.store_id());
        identity.cluster_id = first_cluster_id(self.host, kind == CreationKind::Bootstrap);
        identity.facts = facts(self.host);
        identity.create(&*self.disk).map_err(|error| failed(self.dir, error))?;
        Ok(self.opened(log, identity))
    }

    fn opened(self, log: SegmentLog, identity: Identity) -> Opened {
        Opened {
            storage: Box::new(log),
            rejoined: identity.creation == CreationKind::Rejoin,
            rejoined_after: identity.facts.get(REJOINED_AFTER).and_then(|last| last.parse().ok()),
            membership: Membership {
                cluster_id: identity.cluster_id.clone(),
                place: Some(IdentityPlace { disk: self.disk, identity }),
            },
        }
    }

    fn check_owner(&self, identity: &Identity) -> Result<(), StartError> {
        let (host, dir) = (self.host, self.dir.to_owned());
        // Rule P10: in the hands of another member the votes and acknowledgements of this one would be broken.
        if identity.server_id != host.endpoint || identity.cluster != host.cluster {
            return Err(StartError::OtherOwner {
                dir,
                owner: identity.server_id.clone(),
                owner_cluster: identity.cluster.clone(),
                endpoint: host.endpoint.clone(),
                cluster: host.cluster.clone(),
            });
        }
        if let Some(given) = &host.cluster_id
            && !identity.cluster_id.is_empty()
            && *given != identity.cluster_id
        {
            let (known, given) = (identity.cluster_id.clone(), given.clone());
            return Err(StartError::OtherClusterId { dir, known, given });
        }
        let changed = |(name, given): (String, String)| {
            let known = identity.facts.get(&name).filter(|known| **known != given)?;
            Some((name, known.clone(), given))
        };
        match facts(host).into_iter().find_map(changed) {
            Some((name, known, given)) => Err(StartError::OtherFact { dir, name, known, given }),
            None => Ok(()),
        }
    }

    /// A flag that does not fit is refused, not passed over: whoever gave it believes something of the directory that is not so.
    fn check_mode(&self, identity: &Identity) -> Result<(), StartError> {
        self.check_loss(identity.creation)?;
        match (self.host.start_mode, identity.creation) {
            (StartMode::Rejoin, _) => Err(StartError::NotBlank { dir: self.dir.display().to_string() }),
            (StartMode::Bootstrap, CreationKind::Rejoin) => {
                Err(StartError::BeganAsRejoin { dir: self.dir.to_owned() })
            }
            (StartMode::Bootstrap, _) => {
                let dir = self.dir.display();
                tracing::info!(%dir, "bootstrap is for blank directories only and not needed here: this one is in use already");
                Ok(())
            }
            (StartMode::Existing, _) => Ok(()),
        }
    }

    /// Whoever says which groups there were when the disk was lost believes that it was.
    fn check_loss(&self, began: CreationKind) -> Result<(), StartError> {
        match began {
            CreationKind::Rejoin => Ok(()),
            _ if self.host.rejoined_after.is_none() => Ok(()),
            _ => Err(StartError::NotRejoined { dir: self.dir.display().to_string() }),
        }
    }

    /// Names of the files of a store, a few of them.
    fn store_files(&self) -> Result<String, StartError> {
        let names = self.disk.list().map_err(|error| failed(self.dir, error))?;
        let mut found: Vec<&str> =
            names.iter().map(String::as_str).filter(|name| is_store_file(name)).collect();
        let more = found.len().saturating_sub(4);
        found.truncate(4);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        Ok(found.join(", ") + &more)
    }
}

/// Whether a segment log of any version calls its files so.
fn is_store_file(name: &str) -> bool {
    name.ends_with(".seg")
        || name.ends_with(".ckpt")
        || name.starts_with("MANIFEST-")
        || name.starts_with("checkpoint-")
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

#[cfg(all(test, not(shuttle)))]
#[path = "store_tests.rs"]
mod tests;
