//! How the client's requests travel.

use std::time::Duration;

use bytes::Bytes;
use ringraft::{RpcClient, RpcResult};

/// Takes the outcome of one call, exactly once.
pub(crate) type CallDone = Box<dyn FnOnce(RpcResult) + Send>;

/// Sends one request to one server.
pub(crate) trait ClientTransport: Send + Sync {
    /// Sends it and returns; `done` gets the outcome, on a thread that it must not block, or at once on this one.
    fn call(&self, endpoint: &str, class: &'static str, content: Bytes, timeout: Duration, done: CallDone);

    /// Ends it: what waits gets its outcome.
    fn shutdown(&self);
}

impl<T: ClientTransport + ?Sized> ClientTransport for Box<T> {
    fn call(&self, endpoint: &str, class: &'static str, content: Bytes, timeout: Duration, done: CallDone) {
        (**self).call(endpoint, class, content, timeout, done);
    }

    fn shutdown(&self) {
        (**self).shutdown();
    }
}

impl ClientTransport for RpcClient {
    fn call(&self, endpoint: &str, class: &'static str, content: Bytes, timeout: Duration, done: CallDone) {
        self.call_async(endpoint, class, content, timeout, done);
    }

    fn shutdown(&self) {
        RpcClient::shutdown(self);
    }
}
