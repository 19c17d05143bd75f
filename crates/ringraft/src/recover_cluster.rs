//! Members for a server that does not run (hashicorp/raft's `RecoverCluster`).

use ringraft_core::{
    ChunkKind, Configuration, EntryChunk, GroupId, HardState, LogId, LogIndex, LogOp, RecoveredState, Term,
};
use ringraft_storage::{GroupWrite, StorageError, WriteBatch};

use crate::error::StartError;
use crate::host_options::{HostOptions, StartMode};
use crate::store;

/// What [`recover_cluster`] did to one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// The group.
    pub group: GroupId,
    /// The members by the log, as it was; `None` where it had no configuration.
    pub old: Option<Configuration>,
    /// Index of the entry that now ends the log and names the new members.
    pub index: LogIndex,
    /// Its term, which the server is in from now on.
    pub term: Term,
}

/// Why [`recover_cluster`] did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The members are none that a group could have.
    #[error("the new members {conf} are not valid: {reason}")]
    Members {
        /// What was given.
        conf: Configuration,
        /// Which rule it breaks.
        reason: String,
    },
    /// The store cannot be opened: it belongs to somebody else, is blank, damaged, or in use by a server that runs.
    #[error(transparent)]
    Store(#[from] StartError),
    /// The store does not know a group.
    #[error("the store has no group {group}; it has {known}")]
    UnknownGroup {
        /// What was asked for.
        group: GroupId,
        /// What there is.
        known: String,
    },
    /// The replica has lost its disk before and had not caught up: others may hold what it lacks.
    #[error(
        "the replica of group {group} has lost its disk before and not caught up since, so that it may lack what was acknowledged; \
         recover the cluster from a server that kept its disk"
    )]
    Rejoining {
        /// The group.
        group: GroupId,
    },
    /// The store failed; nothing was changed, or all of it, and the server tells which when it starts.
    #[error("the store failed: {0}")]
    Storage(#[from] StorageError),
}

/// **Unsafe for the data:** gives groups of a server that does not run other members, durably, without asking anybody. For when a majority
/// is gone for good and the server cannot, or shall not, be started before; of one that runs,
/// [`CliService::reset_peers`](crate::CliService::reset_peers) does the same until its next start.
///
/// Each log gets a configuration entry in a new term at its end, in one durable write for all groups. Whatever stands in the logs before
/// becomes committed by that, also what was never acknowledged; what only the lost servers had is gone. Take the server with the most
/// complete log, and see to it that the lost ones never come back with their disks: there would be two groups of one name. The other
/// members start blank with [`StartMode::Rejoin`].
///
/// `options` are those with which the host starts; of them the store, the endpoint and the cluster name count, and a blank store is refused
/// whatever the start mode says. No groups means all that the store knows. `conf` are the new members; the server should be
/// one of its voters, or it will not lead.
///
/// # Errors
/// [`RecoverError`]; then nothing was changed, unless it is [`RecoverError::Storage`].
pub fn recover_cluster(
    options: HostOptions,
    groups: &[GroupId],
    conf: &Configuration,
) -> Result<Vec<RecoveredGroup>, RecoverError> {
    let invalid = |reason: String| RecoverError::Members { conf: conf.clone(), reason };
    conf.validate().map_err(|error| invalid(error.to_string()))?;
    let opened = store::open(options.store, StartMode::Existing, &options.endpoint, &options.cluster)?;
    let mut storage = opened.storage;
    let known: Vec<GroupId> = storage.groups().into_iter().map(|(group, _)| group).collect();
    if let Some(group) = groups.iter().find(|group| !known.contains(group)) {
        let names: Vec<&str> = known.iter().map(GroupId::as_str).collect();
        return Err(RecoverError::UnknownGroup { group: group.clone(), known: names.join(", ") });
    }
    let wanted = if groups.is_empty() { &known[..] } else { groups };
    let (mut batch, mut done) = (WriteBatch::default(), Vec::new());
    for group in wanted {
        let (key, recovered) = storage.open_group(group)?;
        let (ops, recovered) = plan(group, &recovered, conf)?;
        batch.writes.push(GroupWrite { group: key, ops });
        done.push(recovered);
    }
    if !batch.is_empty() {
        storage.submit(&batch)?;
        storage.complete()?;
    }
    Ok(done)
}

/// The operations that give one log its new members.
fn plan(
    group: &GroupId,
    recovered: &RecoveredState,
    conf: &Configuration,
) -> Result<(Vec<LogOp>, RecoveredGroup), RecoverError> {
    let HardState { term, voted_for } = &recovered.hard_state;
    if voted_for.as_ref().is_some_and(ringraft_core::PeerId::is_empty) {
        return Err(RecoverError::Rejoining { group: group.clone() });
    }
    let last_term = recovered.terms.last().map_or(recovered.before_first.term, |(_, term)| *term);
    // A term of its own: nobody else has entries in it.
    let term = (*term).max(last_term) + 1;
    let id = LogId::new(recovered.last_index + 1, term);
    let entry = EntryChunk::configuration(id, conf.clone(), Configuration::default());
    debug_assert!(matches!(entry.kind(), ChunkKind::Configuration { .. }));
    let ops = vec![LogOp::HardState(HardState { term, voted_for: None }), LogOp::Append(entry.into())];
    let old = recovered.configurations.last().map(|entry| entry.conf.clone());
    Ok((ops, RecoveredGroup { group: group.clone(), old, index: id.index, term }))
}
