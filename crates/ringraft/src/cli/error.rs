//! Why a call of a [`CliService`](crate::CliService) failed.

use ringraft_core::{RaftError, Status};

use crate::rpc::cli::is_refusal;
use crate::rpc::client::RpcError;

/// Why administration did nothing, or may have done nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// None of the members that were asked named a leader; nothing was done.
    #[error(
        "Fail to get leader of group {group}: {reasons}; name members that are up, or wait for an election"
    )]
    NoLeader {
        /// The group.
        group: String,
        /// What each of them said.
        reasons: String,
    },
    /// A [`RouteTable`](crate::RouteTable) does not know the group.
    #[error("Group {0} is not registered in RouteTable; call update_configuration first")]
    NotRegistered(String),
    /// The request was refused and has no effect.
    #[error("{0}")]
    Refused(Status),
    /// The request was not sent.
    #[error("{0}")]
    NotSent(RpcError),
    /// The request was sent; it may have had an effect or may yet have one. Ask for the members before repeating it.
    #[error("the outcome is unknown: {0}")]
    Unknown(Status),
}

impl CliError {
    /// What a server's error means.
    pub(super) fn of_status(status: Status) -> CliError {
        if is_refusal(status.error) { CliError::Refused(status) } else { CliError::Unknown(status) }
    }

    /// The code, where there is one.
    pub fn code(&self) -> Option<RaftError> {
        match self {
            CliError::Refused(status) | CliError::Unknown(status) => Some(status.error),
            _ => None,
        }
    }

    /// Whether the request may have had an effect.
    pub fn is_unknown(&self) -> bool {
        matches!(self, CliError::Unknown(_))
    }

    /// Whether nothing was done, and the next leader, or the same a moment later, may do it.
    pub(super) fn is_worth_a_retry(&self) -> bool {
        match self {
            CliError::Refused(status) => {
                matches!(status.error, RaftError::NotPermitted | RaftError::Again | RaftError::Busy)
            }
            CliError::NoLeader { .. } | CliError::NotSent(RpcError::NotConnected { .. }) => true,
            _ => false,
        }
    }
}
