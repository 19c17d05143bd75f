//! The outcome of a proposal, for whoever awaits it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::task::completion::{ApplyError, ApplyResult};
use crate::task::promise::Waiter;

/// The outcome of [`Node::propose`](crate::Node::propose): await it, or block with [`wait`](ProposeFuture::wait).
///
/// Whoever asks again after the outcome was given gets [`ApplyError::Unknown`] with `EINVAL`. Dropping it does not take the proposal back.
#[must_use = "the outcome of a proposal matters; drop it on purpose if it does not"]
pub struct ProposeFuture(Waiter<ApplyResult>);

impl ProposeFuture {
    pub(crate) fn new(waiter: Waiter<ApplyResult>) -> ProposeFuture {
        ProposeFuture(waiter)
    }

    /// Blocks until the outcome is there, or for `timeout`.
    ///
    /// # Errors
    /// The outcome; [`ApplyError::Unknown`] with `ETIMEDOUT` when the time is over, and at once with `EPERM` on a thread of a host
    /// (in a state machine or a completion), which would wait for itself. The proposal goes on in both cases.
    pub fn wait(&mut self, timeout: Duration) -> ApplyResult {
        let outcome = self.0.wait_for_host(timeout);
        outcome.unwrap_or_else(|reason| Err(ApplyError::Unknown(reason.status(timeout))))
    }
}

impl Future for ProposeFuture {
    type Output = ApplyResult;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<ApplyResult> {
        self.0.poll(context).map(|outcome| outcome.unwrap_or_else(|status| Err(ApplyError::Unknown(status))))
    }
}

impl std::fmt::Debug for ProposeFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProposeFuture")
    }
}
