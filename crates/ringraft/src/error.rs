//! Why a host or a node does not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use ringraft_core::{GroupId, InvalidGroupId, PeerId, Status};
use ringraft_storage::StorageError;

use crate::options::OptionsError;

/// Which rule a [`HostOptions`](crate::HostOptions) breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostOptionsError {
    /// Not an address that others can connect to.
    #[error("endpoint {0:?} is not valid; give the ip:port under which the other hosts reach this one")]
    Endpoint(String),
    /// The address that means "any of mine": to whoever gets it from a peer it means himself.
    #[error(
        "endpoint {0} is no address that others can connect to; give the ip under which they reach this host"
    )]
    Unspecified(String),
    /// A name, and no address to listen at beside it.
    #[error(
        "endpoint {0} is no address to listen at; give TransportOptions::Tcp one, or write the endpoint in digits"
    )]
    Name(String),
    /// A count that must not be zero or absurd.
    #[error("{name} is {value}; it must be between 1 and {max}")]
    Count {
        /// The field.
        name: &'static str,
        /// Its value.
        value: usize,
        /// The largest that is allowed.
        max: usize,
    },
    /// Rings have a power of two of slots.
    #[error("{name} is {value}; it must be a power of two between 2 and 1048576")]
    RingSize {
        /// The field.
        name: &'static str,
        /// Its value.
        value: usize,
    },
    /// Net loop and lane can share a thread only when there is one lane.
    #[error("fuse_net is on with {0} lanes; turn it off or use one lane")]
    FusedLanes(usize),
    /// Lanes share the bound, or the state-machine workers of each of them, and each needs a part of it.
    #[error(
        "{name} is {bytes}; it must be at least {least}, which is 1 MiB for each of {parts} that share it"
    )]
    HostBytes {
        /// The field.
        name: &'static str,
        /// Its value.
        bytes: usize,
        /// The least that it may be.
        least: usize,
        /// Lanes, or lanes times state-machine workers.
        parts: usize,
    },
    /// Out of range.
    #[error("max_task_bytes is {0}; it must be between 1 and 67108864")]
    TaskBytes(usize),
    /// Out of range.
    #[error("max_write_bytes is {0}; it must be between 65536 and 1073741824")]
    WriteBytes(usize),
    /// An entry must fit into one file of the log.
    #[error(
        "max_task_bytes is {task}, which does not fit into a log file of {file} bytes; lower it or raise file_bytes"
    )]
    TaskOverFile {
        /// The largest task in bytes.
        task: usize,
        /// The size of a file in bytes.
        file: u64,
    },
    /// An entry must fit into one frame.
    #[error(
        "max_task_bytes is {task}, which does not fit into a frame of {frame} bytes; lower it or raise net.frame_limits"
    )]
    TaskOverFrame {
        /// The largest task in bytes.
        task: usize,
        /// The largest content of a frame in bytes.
        frame: usize,
    },
    /// An id of a cluster is a short text.
    #[error("{name} has {bytes} bytes; it must have between 1 and 255")]
    ClusterId {
        /// The field.
        name: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// Names and values of facts are short texts.
    #[error(
        "fact {0:?} is not valid; names have between 1 and 255 bytes and do not begin with \"ringraft.\", values have at most 65535"
    )]
    Fact(String),
    /// A bound or time of the network loop.
    #[error("net: {0}")]
    Net(String),
}

/// Why a host or a group did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The host's options are wrong.
    #[error("host options: {0}")]
    HostOptions(#[from] HostOptionsError),
    /// The node's options are wrong.
    #[error("options of group {group}: {error}")]
    Options {
        /// Which group.
        group: GroupId,
        /// Which rule.
        error: OptionsError,
    },
    /// The group's name is wrong.
    #[error(transparent)]
    GroupId(#[from] InvalidGroupId),
    /// Nothing was ever stored in the directory, and nobody said that this is meant.
    #[error(
        "{dir} holds no data of a member: start with bootstrap if the cluster is being created and this host is one of its first \
         members; start with rejoin if the host joins a cluster that exists, or if its disk was lost"
    )]
    BlankDirectory {
        /// The directory, or "the memory store".
        dir: String,
    },
    /// The directory belongs to another member or cluster, or another process uses it.
    #[error("{dir}: {reason}")]
    ForeignDirectory {
        /// The directory.
        dir: PathBuf,
        /// Whose it is, and what to do.
        reason: String,
    },
    /// The directory belongs to another server or cluster.
    #[error(
        "{dir} belongs to server {owner} of cluster {owner_cluster}, but this is server {endpoint} of cluster {cluster}; give this \
         host a directory of its own, or correct its endpoint or cluster"
    )]
    OtherOwner {
        /// The directory.
        dir: PathBuf,
        /// The server that it belongs to, `ip:port`.
        owner: String,
        /// The cluster that it belongs to.
        owner_cluster: String,
        /// This host's endpoint.
        endpoint: String,
        /// This host's cluster.
        cluster: String,
    },
    /// The directory belongs to a cluster of another id.
    #[error(
        "{dir} belongs to the cluster with id {known}, but cluster_id is {given}; give this host a directory of its own, or leave \
         cluster_id out: the directory remembers it"
    )]
    OtherClusterId {
        /// The directory.
        dir: PathBuf,
        /// The id that it remembers.
        known: String,
        /// The id that was given.
        given: String,
    },
    /// The directory was made with another value of something that cannot be changed.
    #[error(
        "{dir} was made with {} = {known}, but now it is {given}; it cannot be changed: set it back, or name another directory",
        fact_key(name)
    )]
    OtherFact {
        /// The directory.
        dir: PathBuf,
        /// Name of the fact; behind its last dot stands the name of the setting.
        name: String,
        /// The value that the directory remembers.
        known: String,
        /// The value that was given.
        given: String,
    },
    /// Rejoin was asked for in a directory that is in use.
    #[error(
        "{dir} is not blank: start without rejoin to go on with what it holds; to rejoin without it, wipe it first"
    )]
    NotBlank {
        /// The directory, or "the given store".
        dir: String,
    },
    /// The highest creation number before a loss was given for a directory that was not lost.
    #[error(
        "{dir} did not begin by rejoin, so that rejoined_after does not fit it: it remembers which groups it has had; leave it out"
    )]
    NotRejoined {
        /// The directory, or "the given store".
        dir: String,
    },
    /// The store holds, or has removed, another life of the group.
    #[error("{reason}")]
    OtherLife {
        /// Which group.
        group: GroupId,
        /// Which life the store knows, and what to do.
        reason: String,
    },
    /// The group is being removed from this host, or its log is being dropped.
    #[error("group {group} is being removed from this host, or its log dropped; start it when that is done")]
    BeingRemoved {
        /// Which group.
        group: GroupId,
    },
    /// Bootstrap was asked for in a directory whose member joined a cluster that existed.
    #[error(
        "{dir} began by rejoin: its groups wait for the leaders of a cluster that exists, and cannot found one; start without bootstrap, \
         or, if the cluster is being created and nothing in it is needed, wipe it first"
    )]
    BeganAsRejoin {
        /// The directory.
        dir: PathBuf,
    },
    /// The files of a store are there, and not the file that says whose they are.
    #[error(
        "IDENTITY is missing in {dir}, though there are files of a store: {files}; bring it back, or, if it is lost, wipe the directory and \
         start with rejoin (after a first start that failed, repeat its flag)"
    )]
    IdentityMissing {
        /// The directory.
        dir: PathBuf,
        /// Names of files that were found.
        files: String,
    },
    /// The system refused an operation on the log store's files.
    #[error("log store: {operation} of {path} failed: {message}; {}", store_hint(*os_error))]
    StoreIo {
        /// What was attempted.
        operation: &'static str,
        /// On which file.
        path: String,
        /// The system's words.
        message: String,
        /// The system's number, if it gave one.
        os_error: Option<i32>,
    },
    /// What was durable once cannot be read back.
    #[error(
        "{path} is damaged at byte {offset}: {what}; empty {dir} and start with rejoin: the other members have what it held"
    )]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// The file.
        path: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The log store cannot be opened or used for another reason.
    #[error("log store: {0}")]
    Store(String),
    /// The process may have too few files and connections open.
    #[error("the process may have {limit} files open, the host needs {needed}; raise ulimit -n to {needed}")]
    Descriptors {
        /// The limit, hard or soft, whichever holds.
        limit: u64,
        /// What files and the fewest connections need.
        needed: u64,
    },
    /// The host cannot listen: the port is taken, or the address is not one of this machine.
    #[error("cannot listen at {address}: {message}; {}", listen_hint(*kind))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What kind of error it is.
        kind: io::ErrorKind,
        /// The system's words.
        message: String,
    },
    /// The network cannot be used for another reason.
    #[error("network: {0}")]
    Net(String),
    /// A thread cannot be started.
    #[error("cannot start thread {name}: {message}")]
    Thread {
        /// The thread's name.
        name: String,
        /// The system's words.
        message: String,
    },
    /// The group's server id is not an address of this host.
    #[error(
        "server id {server} is not on this host, whose endpoint is {endpoint}; others would look for it elsewhere"
    )]
    WrongEndpoint {
        /// The server id.
        server: PeerId,
        /// The host's endpoint.
        endpoint: String,
    },
    /// One store holds one replica of a group.
    #[error(
        "group {group} is already running on this host as {server}; a store holds one replica of a group"
    )]
    OneReplica {
        /// Which group.
        group: GroupId,
        /// The replica that runs.
        server: PeerId,
    },
    /// The core refused what it was given.
    #[error("group {group}: {status}")]
    Node {
        /// Which group.
        group: GroupId,
        /// Why.
        status: Status,
    },
    /// The host is shutting down or has stopped.
    #[error("the host is shut down")]
    HostStopped,
    /// Called on a thread of the host itself, which would wait for itself.
    #[error(
        "groups cannot be started or stopped on a thread of the host (a state machine, completion or processor)"
    )]
    OwnThread,
}

/// The setting that a fact is about.
fn fact_key(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, key)| key)
}

// No kind of error is made of these. The numbers are the same on all Unix systems.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const MORE_FILES: &str = "allow more open files (ulimit -n) and start again";

impl StartError {
    /// What the store says of a group, as who starts or removes it is told.
    pub(crate) fn of_store(error: StorageError) -> StartError {
        let reason = error.to_string();
        match error {
            StorageError::OtherLife { group, .. } => StartError::OtherLife { group, reason },
            _ => StartError::Store(reason),
        }
    }

    /// An error of the network that is told by its text alone.
    #[cfg(not(shuttle))]
    pub(crate) fn of_net(text: String) -> StartError {
        match os_error(&text) {
            Some(ENFILE | EMFILE) => StartError::Net(format!("{text}; {MORE_FILES}")),
            _ => StartError::Net(text),
        }
    }
}

/// The system's number in the words of the standard library, "… (os error 13)": all that errors that can be cloned keep of it.
pub(crate) fn os_error(message: &str) -> Option<i32> {
    let (_, rest) = message.rsplit_once("(os error ")?;
    rest.strip_suffix(')')?.parse().ok()
}

/// The way out of an error of a file, by the system's number.
fn store_hint(os_error: Option<i32>) -> &'static str {
    if let Some(ENFILE | EMFILE) = os_error {
        return MORE_FILES;
    }
    match os_error.map_or(io::ErrorKind::Other, |number| io::Error::from_raw_os_error(number).kind()) {
        io::ErrorKind::PermissionDenied => {
            "let the user that runs this program read and write the directory, and start again"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory => {
            "something else stands there; name a directory that is empty or this server's"
        }
        io::ErrorKind::NotFound => {
            "see that the directory can be made and is not taken away, and start again"
        }
        io::ErrorKind::ReadOnlyFilesystem => "mount the disk for writing and start again",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "free space, or raise the limit, and start again"
        }
        _ => "see to the disk and start again",
    }
}

/// The way out of an error of a listening socket.
fn listen_hint(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => "another program listens there: stop it or choose another port",
        io::ErrorKind::AddrNotAvailable => "it is no address of this machine: correct it",
        io::ErrorKind::PermissionDenied => "choose a port above 1023, or give the program the right to it",
        _ => "correct the address",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_number_is_found_in_its_words() {
        for number in [2, 13, 24, 28] {
            assert_eq!(os_error(&io::Error::from_raw_os_error(number).to_string()), Some(number));
        }
        assert_eq!(os_error("the thread that prepares files is gone"), None);
    }

    #[test]
    fn the_way_out_fits_the_error() {
        let (eacces, enotdir, emfile, enospc, erofs) = (13, 20, 24, 28, 30);
        for (number, word) in [
            (eacces, "user"),
            (enotdir, "something else stands there"),
            (emfile, "ulimit -n"),
            (enospc, "free space"),
            (erofs, "for writing"),
        ] {
            let message = io::Error::from_raw_os_error(number).to_string();
            let error = StartError::StoreIo {
                operation: "open",
                path: "/data".into(),
                message: message.clone(),
                os_error: os_error(&message),
            };
            let text = error.to_string();
            assert!(text.contains(word) && text.contains("/data") && text.contains(&message), "{text}");
        }
    }
}
