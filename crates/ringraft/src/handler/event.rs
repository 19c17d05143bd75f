//! What travels between the stages.

use bytes::Bytes;
use ringraft_core::Term;

use crate::completion::Completion;
use crate::future::Promise;
use crate::handler::GroupHandle;
use crate::node::NodeDescription;
use crate::task::Task;

/// A task on its way to its owner.
#[derive(Debug)]
pub struct ApplyEvent {
    /// Whose it is.
    pub handle: GroupHandle,
    /// The term that it is meant for; 0 means any.
    pub expected_term: Term,
    /// The command.
    pub data: Bytes,
    /// Where the outcome goes.
    pub done: Completion,
}

impl ApplyEvent {
    pub(crate) fn new(
        handle: GroupHandle,
        expected_term: Option<Term>,
        data: Bytes,
        done: Completion,
    ) -> ApplyEvent {
        // No task runs in term 0, and 0 would mean "any": u64::MAX matches no term either.
        let expected_term = expected_term.map_or(0, |term| if term == 0 { Term::MAX } else { term });
        ApplyEvent { handle, expected_term, data, done }
    }
}

/// What an owner takes from its apply ring.
#[derive(Debug)]
pub enum LaneEvent {
    /// A task.
    Apply(ApplyEvent),
    /// A command of the host.
    Control(Box<Control>),
}

impl LaneEvent {
    /// The task that a caller gets back.
    pub(crate) fn into_task(self) -> Option<Task> {
        match self {
            LaneEvent::Apply(ApplyEvent { expected_term, data, done, .. }) => Some(Task {
                data,
                done,
                expected_term: match expected_term {
                    0 => None,
                    Term::MAX => Some(0),
                    term => Some(term),
                },
            }),
            LaneEvent::Control(_) => None,
        }
    }
}

/// A command of the host to an owner.
pub enum Control {
    /// Say what is known of a group; `None` when it is gone.
    Describe {
        /// Which group.
        handle: GroupHandle,
        /// Where the answer goes.
        answer: Promise<Option<NodeDescription>>,
    },
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Control::Describe { .. } => "Describe",
        })
    }
}
