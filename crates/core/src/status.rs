//! Result codes that travel between processes and reach users (SOFAJRaft's `RaftError` and `Status`).

use std::fmt;

macro_rules! raft_errors {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Error codes with SOFAJRaft's numbers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum RaftError { $($(#[$doc])* $name,)*
            /// A number that this version does not know; kept as received.
            Other(i32),
        }

        impl RaftError {
            /// The number on the wire.
            pub fn code(self) -> i32 {
                match self { $(RaftError::$name => $code,)* RaftError::Other(code) => code }
            }

            /// The error of a number from the wire; never 0, which means success.
            pub fn from_code(code: i32) -> RaftError {
                match code { $($code => RaftError::$name,)* other => RaftError::Other(other) }
            }

            /// SOFAJRaft's name of the error.
            pub fn name(self) -> &'static str {
                match self { $(RaftError::$name => $text,)* RaftError::Other(_) => "UNKNOWN" }
            }
        }
    };
}

raft_errors! {
    /// Unspecified failure.
    Unknown = -1, "UNKNOWN";
    /// A time-out inside raft, such as losing contact with a quorum.
    RaftTimedOut = 10001, "ERAFTTIMEDOUT";
    /// The state machine failed.
    StateMachine = 10002, "ESTATEMACHINE";
    /// A new peer did not catch up.
    CatchUp = 10003, "ECATCHUP";
    /// The leader was removed from the configuration.
    LeaderRemoved = 10004, "ELEADERREMOVED";
    /// The peer set was forced.
    SetPeer = 10005, "ESETPEER";
    /// The node was shut down.
    NodeShutdown = 10006, "ENODESHUTDOWN";
    /// A request carried a higher term.
    HigherTermRequest = 10007, "EHIGHERTERMREQUEST";
    /// A response carried a higher term.
    HigherTermResponse = 10008, "EHIGHERTERMRESPONSE";
    /// The node is in an error state.
    BadNode = 10009, "EBADNODE";
    /// A vote was given to a candidate.
    VoteForCandidate = 10010, "EVOTEFORCANDIDATE";
    /// A new leader appeared.
    NewLeader = 10011, "ENEWLEADER";
    /// Two leaders claim one term.
    LeaderConflict = 10012, "ELEADERCONFLICT";
    /// Leadership was transferred.
    TransferLeadership = 10013, "ETRANSFERLEADERSHIP";
    /// The entry was compacted away.
    LogDeleted = 10014, "ELOGDELETED";
    /// There is no user entry in the range.
    NoMoreUserLog = 10015, "ENOMOREUSERLOG";
    /// The request means another cluster than the receiver belongs to. ringraft's own: its numbers begin at 20001.
    WrongCluster = 20001, "EWRONGCLUSTER";
    /// The request means another life of the group than the one that the receiver has: their creation numbers differ.
    WrongCreation = 20002, "EWRONGCREATION";
    /// Malformed request.
    Request = 1000, "EREQUEST";
    /// The component is stopping.
    Stop = 1001, "ESTOP";
    /// Try again later.
    Again = 1002, "EAGAIN";
    /// Interrupted by a newer request.
    Interrupted = 1003, "EINTR";
    /// Internal or transport failure.
    Internal = 1004, "EINTERNAL";
    /// Cancelled.
    Cancelled = 1005, "ECANCELED";
    /// The host is unreachable.
    HostDown = 1006, "EHOSTDOWN";
    /// The process is shutting down.
    Shutdown = 1007, "ESHUTDOWN";
    /// Not permitted in this role.
    NotPermitted = 1008, "EPERM";
    /// Overloaded, or busy with something exclusive.
    Busy = 1009, "EBUSY";
    /// No answer in time.
    TimedOut = 1010, "ETIMEDOUT";
    /// Older than what is already there.
    Stale = 1011, "ESTALE";
    /// No such group, peer or file.
    NotFound = 1012, "ENOENT";
    /// It is already there.
    Exists = 1013, "EEXISTS";
    /// Input or output failed.
    Io = 1014, "EIO";
    /// Invalid argument.
    Invalid = 1015, "EINVAL";
    /// Access denied.
    Access = 1016, "EACCES";
}

/// A failure with its code and a message for people (SOFAJRaft's `Status` that is not OK).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Status {
    /// What kind of failure.
    pub error: RaftError,
    /// What happened, with names and values.
    pub message: String,
}

impl Status {
    /// A failure with this code and message.
    pub fn new(error: RaftError, message: impl Into<String>) -> Status {
        Status { error, message: message.into() }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}): {}", self.error.name(), self.error.code(), self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        for code in [-1, 10001, 10015, 1000, 1009, 1016, 77] {
            assert_eq!(RaftError::from_code(code).code(), code);
        }
        assert_eq!(Status::new(RaftError::Busy, "full").to_string(), "EBUSY(1009): full");
    }
}
