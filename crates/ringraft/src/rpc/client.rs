//! A client for users' requests, for programs that host no group.

use std::time::Duration;

use bytes::Bytes;
use ringraft_core::Status;

use crate::error::StartError;

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcResponse {
    /// Class of the message.
    pub class: Bytes,
    /// The serialized message.
    pub content: Bytes,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// There is no connection; the request was not sent. It is being re-established: try again later.
    #[error("no connection to {endpoint}: {reason}")]
    NotConnected {
        /// Where to.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// Too many requests are waiting; this one was not sent.
    #[error("too many requests to {endpoint} are waiting")]
    Busy {
        /// Where to.
        endpoint: String,
    },
    /// The server answered with an error.
    #[error("{endpoint} answered: {status}")]
    Remote {
        /// Who.
        endpoint: String,
        /// What.
        status: Status,
    },
    /// The request was sent and the connection broke: it may have been handled.
    #[error("connection to {endpoint} was lost before the answer: {reason}")]
    Lost {
        /// Where to.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// The request was sent and not answered in time: it may have been or may yet be handled.
    #[error("{endpoint} did not answer within {timeout_ms} ms")]
    TimedOut {
        /// Where to.
        endpoint: String,
        /// How long was waited.
        timeout_ms: u64,
    },
    /// The client is shut down; the request was not sent.
    #[error("the client is shut down")]
    Closed,
}

impl RpcError {
    /// Whether the server certainly did not take the request, so that repeating it is safe. An answer of the server
    /// ([`Remote`](RpcError::Remote)) is for the caller to judge by its code; here it counts as taken.
    pub fn was_not_sent(&self) -> bool {
        matches!(self, RpcError::NotConnected { .. } | RpcError::Busy { .. } | RpcError::Closed)
    }
}

/// Settings of an [`RpcClient`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcClientOptions {
    /// How long a call waits for a connection before it fails, in milliseconds (1000); part of the call's own time-out.
    pub connect_timeout_ms: u64,
}

impl Default for RpcClientOptions {
    fn default() -> RpcClientOptions {
        RpcClientOptions { connect_timeout_ms: 1000 }
    }
}

/// The outcome of a call.
pub type RpcResult = Result<RpcResponse, RpcError>;

/// Sends requests to hosts, over one connection each. It runs one thread of its own.
pub struct RpcClient {
    _options: RpcClientOptions,
}

impl RpcClient {
    /// Starts the client's thread.
    ///
    /// # Errors
    /// [`StartError::Net`] or [`StartError::Thread`] when the system refuses.
    pub fn new(options: RpcClientOptions) -> Result<RpcClient, StartError> {
        Ok(RpcClient { _options: options })
    }

    /// Sends a request of `class` to the host at `endpoint` (`ip:port`) and waits for the answer.
    ///
    /// # Errors
    /// [`RpcError`].
    pub fn call(&self, endpoint: &str, class: &str, content: Bytes, timeout: Duration) -> RpcResult {
        let _ = (endpoint, class, content, timeout);
        Err(RpcError::Closed)
    }

    /// As [`call`](RpcClient::call) without waiting: `done` gets the outcome exactly once, on the client's thread, and must not block.
    pub fn call_async(
        &self,
        endpoint: &str,
        class: &str,
        content: Bytes,
        timeout: Duration,
        done: impl FnOnce(RpcResult) + Send + 'static,
    ) {
        let _ = (endpoint, class, content, timeout);
        done(Err(RpcError::Closed));
    }

    /// Ends the client: calls that wait fail with [`RpcError::Closed`] or [`RpcError::Lost`]. Safe to call twice.
    pub fn shutdown(&self) {}
}
