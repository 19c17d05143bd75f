//! What callers hand to a group (SOFAJRaft's `Task`), and how they hear what became of it.

pub(crate) mod closure_queue;
pub(crate) mod completion;
pub(crate) mod credit;
pub(crate) mod promise;
pub(crate) mod propose_future;

use bytes::Bytes;
use ringraft_core::Term;

use crate::task::completion::{ApplyResult, Completion};

/// A command for the state machines of a group, and where its outcome goes.
#[derive(Debug)]
pub struct Task {
    /// The command. Small ones are copied into the log; the caller's buffer is released then.
    pub data: Bytes,
    /// Where the outcome goes.
    pub done: Completion,
    /// Refuse the task with [`ApplyError::TermMismatch`](crate::ApplyError::TermMismatch) unless the group is in this
    /// term: guards against a leader that lost its place and got it back in between.
    pub expected_term: Option<Term>,
}

impl Task {
    /// A task for whatever term the group is in.
    pub fn new(data: impl Into<Bytes>, done: Completion) -> Task {
        Task { data: data.into(), done, expected_term: None }
    }

    /// A task whose outcome goes to a closure.
    pub fn with_closure(data: impl Into<Bytes>, closure: impl FnOnce(ApplyResult) + Send + 'static) -> Task {
        Task::new(data, Completion::closure(closure))
    }

    /// The same task, for this term only.
    #[must_use]
    pub fn in_term(mut self, term: Term) -> Task {
        self.expected_term = Some(term);
        self
    }
}
