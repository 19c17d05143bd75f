//! What `ringraft admin` says and returns when a call has failed.

use ringraft::{CliError, RaftError};

use crate::exit::Exit;

/// One word for scripts.
pub(super) fn kind(error: &CliError) -> &'static str {
    match error {
        CliError::NoLeader { .. } => "no_leader",
        CliError::NotSent(_) => "unreachable",
        CliError::Unknown(_) => "unknown",
        _ => "refused",
    }
}

/// The status that goes with an error.
pub(super) fn exit_of(error: &CliError) -> Exit {
    if error.is_unknown() { Exit::Unknown } else { Exit::Failed }
}

/// What to do about an error, where the error does not say it itself.
pub(super) fn advice(error: &CliError) -> &'static str {
    match (error, error.code()) {
        (CliError::Unknown(_), _) => "; look with get-peers and get-leader before you repeat it",
        (_, Some(RaftError::CatchUp)) => {
            "; the members are unchanged: start the new one with ringraft server --rejoin, and repeat this"
        }
        (_, Some(RaftError::Access)) => "; the server's disable_cli is on",
        (_, Some(RaftError::Busy)) => "; repeat this when that is over",
        _ => "",
    }
}
