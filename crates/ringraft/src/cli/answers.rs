//! What the answers to administration mean.

use ringraft_core::{RaftError, Status};
use ringraft_proto::{BoltMessage, class, decode_error_response};

use super::error::CliError;
use crate::rpc::client::{RpcError, RpcResponse};

/// The request was taken, and its answer cannot be understood.
pub(super) fn nonsense(what: String) -> CliError {
    CliError::Unknown(Status::new(RaftError::Internal, what))
}

/// An answer that is a message, or carries an error.
pub(super) fn message<M: BoltMessage>(response: &RpcResponse) -> Result<M, CliError> {
    if response.class != M::CLASS {
        let class = String::from_utf8_lossy(&response.class);
        return Err(nonsense(format!("the answer is a {class}, not a {}", M::CLASS)));
    }
    let message =
        M::parse_from_tokio_bytes(&response.content).map_err(|error| nonsense(error.to_string()))?;
    match message.error_response() {
        Some(error) if error.errorCode() != 0 => {
            let status = Status::new(RaftError::from_code(error.errorCode()), error.errorMsg());
            Err(CliError::of_status(status))
        }
        _ => Ok(message),
    }
}

/// An answer that says "done".
pub(super) fn done(response: &RpcResponse) -> Result<(), CliError> {
    if response.class != class::ERROR_RESPONSE {
        return Err(nonsense(format!("the answer is a {}", String::from_utf8_lossy(&response.class))));
    }
    match decode_error_response(&response.content) {
        Ok(None) => Ok(()),
        Ok(Some(status)) => Err(CliError::of_status(status)),
        Err(error) => Err(nonsense(error.to_string())),
    }
}

impl From<RpcError> for CliError {
    fn from(error: RpcError) -> CliError {
        match error {
            RpcError::Remote { status, .. } => CliError::of_status(status),
            error if error.was_not_sent() => CliError::NotSent(error),
            error => CliError::Unknown(Status::new(RaftError::TimedOut, error.to_string())),
        }
    }
}
