//! A new beginning for a server that does not run, when the others are gone for good (after hashicorp/raft's `RecoverCluster`).

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use ringraft_core::{
    Configuration, EntryChunk, GroupId, HardState, LogId, LogIndex, LogOp, PeerId, RecoveredState, Term, Vote,
};
use ringraft_storage::{GroupWrite, StorageError, WriteBatch};

use crate::error::StartError;
use crate::host::options::{HostOptions, StartMode, StoreOptions};
use crate::host::store;

/// Terms that a recovered group leaps ahead at most.
const LEAP: u64 = 1 << 16;

/// What [`recover_cluster`] did to one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// The group.
    pub group: GroupId,
    /// The members by the log, as it was; `None` where it had no configuration.
    pub old: Option<Configuration>,
    /// Index of the entry that now ends the log and names the server as the sole voter.
    pub index: LogIndex,
    /// Its term, which the server is in from now on.
    pub term: Term,
}

/// Which groups [`recover_cluster`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoverGroups {
    /// Every group that the store knows; of those that have a majority elsewhere this makes two.
    All,
    /// These.
    Named(Vec<GroupId>),
}

/// Why [`recover_cluster`] did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The server's id names none.
    #[error("{server_id} is no server that could be a voter: {reason}")]
    Server {
        /// What was given.
        server_id: PeerId,
        /// Which rule it breaks.
        reason: String,
    },
    /// The server's id is not on the host of the options: made a voter it would never lead, and nobody else could.
    #[error(
        "{server_id} is not on the host {endpoint}, whose store is to be changed; give the id under which the replica runs there"
    )]
    WrongEndpoint {
        /// What was given.
        server_id: PeerId,
        /// The endpoint of the options.
        endpoint: String,
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
         recover the group from a server that kept its disk"
    )]
    Rejoining {
        /// The group.
        group: GroupId,
    },
    /// The store failed; nothing was changed, or all of it, and the server tells which when it starts.
    #[error("the store failed: {0}")]
    Storage(#[from] StorageError),
}

/// **Unsafe for the data:** makes a server that does not run the sole voter of groups, durably, without asking anybody. For when a majority
/// is gone for good and the server cannot, or shall not, be started before; to one that runs
/// [`CliService::reset_peer`](crate::CliService::reset_peer) does the same.
///
/// Each log gets a configuration entry in a new term at its end, in one durable write for all groups. Whatever stands in the logs before
/// becomes committed by that, also what was never acknowledged; what only other servers had is gone. So:
///
/// * do it on **one** server, that with the most complete log, and wipe the directories of all others first: on two, or with one that
///   comes back with its disk, there are two groups of one name;
/// * name only groups that have lost their majority;
/// * then start it, and add the others, which start blank with [`StartMode::Rejoin`].
///
/// `options` are those with which the host starts; of them the store, the endpoint, the cluster and the facts count, and a blank store is refused
/// whatever the start mode says. `server_id` is the replica's, as in [`RaftGroupService::new`](crate::RaftGroupService::new), and must be at the endpoint.
///
/// # Errors
/// [`RecoverError`]; then nothing was changed, unless it is [`RecoverError::Storage`].
pub fn recover_cluster(
    mut options: HostOptions,
    groups: &RecoverGroups,
    server_id: &PeerId,
) -> Result<Vec<RecoveredGroup>, RecoverError> {
    let conf = Configuration::of_peers(vec![server_id.clone()]);
    conf.validate()
        .map_err(|error| RecoverError::Server { server_id: server_id.clone(), reason: error.to_string() })?;
    if server_id.endpoint() != options.endpoint {
        let endpoint = options.endpoint;
        return Err(RecoverError::WrongEndpoint { server_id: server_id.clone(), endpoint });
    }
    let given = std::mem::replace(&mut options.store, StoreOptions::Memory);
    options.start_mode = StartMode::Existing;
    let opened = store::open(given, &options)?;
    let (mut storage, began_blank) = (opened.storage, opened.rejoined);
    let known: Vec<GroupId> = storage.groups().into_iter().map(|(group, _)| group).collect();
    let wanted: BTreeSet<&GroupId> = match groups {
        RecoverGroups::All => known.iter().collect(),
        RecoverGroups::Named(named) => named.iter().collect(),
    };
    if let Some(group) = wanted.iter().find(|group| !known.contains(group)) {
        let names: Vec<&str> = known.iter().map(GroupId::as_str).collect();
        return Err(RecoverError::UnknownGroup { group: (*group).clone(), known: names.join(", ") });
    }
    let (mut batch, mut done) = (WriteBatch::default(), Vec::new());
    for group in wanted {
        let (key, recovered) = storage.open_group(group)?;
        let (ops, recovered) = plan(group, &recovered, &conf, began_blank)?;
        batch.writes.push(GroupWrite { group: key, ops });
        done.push(recovered);
    }
    if !batch.is_empty() {
        storage.submit(&batch)?;
        if let Some(refused) = storage.complete()?.pop() {
            return Err(refused.reason.into());
        }
    }
    Ok(done)
}

/// The operations that give one log its new member.
fn plan(
    group: &GroupId,
    recovered: &RecoveredState,
    conf: &Configuration,
    began_blank: bool,
) -> Result<(Vec<LogOp>, RecoveredGroup), RecoverError> {
    let HardState { term, vote } = &recovered.hard_state;
    // Between its creation and its first write a group that rejoins looks like a new one.
    let blank = recovered.last_index == 0 && recovered.hard_state == HardState::default();
    if *vote == Vote::Withheld || began_blank && blank {
        return Err(RecoverError::Rejoining { group: group.clone() });
    }
    let last_term = recovered.terms.last().map_or(recovered.before_first.term, |(_, term)| *term);
    // Others may have gone on to later terms: a leap makes it unlikely that one of their entries has this term, too.
    let leap = 1 + RandomState::new().hash_one(group.as_str()) % LEAP;
    let term = (*term).max(last_term) + leap;
    let id = LogId::new(recovered.last_index + 1, term);
    let entry = EntryChunk::configuration(id, conf.clone(), Configuration::default());
    let mut ops = vec![LogOp::HardState(HardState { term, vote: Vote::None }), LogOp::Append(entry.into())];
    if recovered.member_removed != LogId::default() {
        // It is to lead, whatever it was told by the members that are gone.
        ops.push(LogOp::MemberRemoved { at: LogId::default() });
    }
    let old = recovered.configurations.last().map(|entry| entry.conf.clone());
    Ok((ops, RecoveredGroup { group: group.clone(), old, index: id.index, term }))
}
