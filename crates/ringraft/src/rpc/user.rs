//! Requests of users: processors that the application registers (SOFAJRaft's `RpcProcessor` on the raft server).

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use ringraft_core::{RaftError, Status};
use ringraft_net::{LogLimiter, ReplyHandle, WireText};

use crate::thread::panic_text;

/// A request of a class that the application has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRequest {
    /// The class under which it came.
    pub class: Bytes,
    /// The serialized message. It shares the receive buffer: copy what is kept for long.
    pub content: Bytes,
    /// How long the sender waits, in milliseconds; `None` means no limit.
    pub timeout_ms: Option<u32>,
}

/// Handles requests of one class.
pub trait UserProcessor: Send + Sync {
    /// Takes one request, and answers through the responder now or later, from any thread. A panic answers the request with an error.
    ///
    /// Called on the network thread, which may be an owner thread, so that it must not block and should take microseconds; or, when it was
    /// [registered there](crate::RaftHost::register_user_processor_on_worker), on the host's worker, where other such requests wait
    /// for it.
    fn handle(&self, request: UserRequest, responder: Responder);
}

impl<F: Fn(UserRequest, Responder) + Send + Sync> UserProcessor for F {
    fn handle(&self, request: UserRequest, responder: Responder) {
        self(request, responder);
    }
}

/// Has a processor handle a request. A panic of it drops the responder, which answers with an error.
pub(crate) fn handle_guarded(
    processor: &dyn UserProcessor,
    request: UserRequest,
    responder: Responder,
    log: &LogLimiter,
) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| processor.handle(request, responder)))
        && let Some(left_out) = log.pass("panic")
    {
        let panic = WireText(panic_text(&*payload).as_bytes());
        tracing::error!(%panic, left_out, "a user's processor panicked");
    }
}

/// How an answer gets back to where its request came from.
pub(crate) trait AnswerPath: Send + Sync {
    /// Sends the answer. Never blocks.
    fn answer(&self, route: AnswerRoute, answer: Answer);
}

/// Names the request to its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnswerRoute {
    /// The connection and the request on it.
    pub(crate) handle: ReplyHandle,
    /// Codec byte to echo.
    pub(crate) codec: u8,
}

/// An answer to a user's request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A message of a class.
    Message(String, Bytes),
    /// An `ErrorResponse`.
    Error(Status),
}

/// Answers one user request, exactly once, from any thread; a responder that is dropped answers with an error.
pub struct Responder(Option<(Arc<dyn AnswerPath>, AnswerRoute)>);

impl Responder {
    /// Answers the request behind a handle, repeating its codec byte.
    pub(crate) fn to(path: &Arc<dyn AnswerPath>, handle: ReplyHandle, codec: u8) -> Responder {
        Responder(Some((Arc::clone(path), AnswerRoute { handle, codec })))
    }

    /// Answers with a message.
    pub fn respond(mut self, class: &str, content: impl Into<Bytes>) {
        self.send(Answer::Message(class.to_owned(), content.into()));
    }

    /// Answers with an error (`ErrorResponse`).
    pub fn fail(mut self, status: Status) {
        self.send(Answer::Error(status));
    }

    fn send(&mut self, answer: Answer) {
        if let Some((path, route)) = self.0.take() {
            path.answer(route, answer);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.send(Answer::Error(Status::new(
                RaftError::Internal,
                "the request was dropped without an answer",
            )));
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder")
    }
}
