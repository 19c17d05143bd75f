//! Linearizability of the history of one register: a Wing–Gong–Lowe search with a memory of visited states.
//!
//! Keys are checked one by one, for a history is linearizable exactly when each of its objects' histories is (Herlihy and
//! Wing 1990). Operations without an answer may have happened at any time after their call, or never.

mod search;
#[cfg(test)]
mod tests;

pub use search::{Verdict, check};

/// What a client asks of a register, which holds 0 at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegisterOp {
    /// Answers the value.
    Read,
    /// Sets the value; answers 0.
    Write(u64),
    /// Adds, wrapping; answers the new value.
    Add(u64),
    /// Sets `new` if the value is `expected`; answers whether it did, as 1 or 0.
    CompareAndSet {
        /// What the value must be.
        expected: u64,
        /// What it becomes.
        new: u64,
    },
}

impl RegisterOp {
    /// Does it to a register and gives the answer.
    pub fn apply(self, value: &mut u64) -> u64 {
        match self {
            RegisterOp::Read => *value,
            RegisterOp::Write(new) => {
                *value = new;
                0
            }
            RegisterOp::Add(more) => {
                *value = value.wrapping_add(more);
                *value
            }
            RegisterOp::CompareAndSet { expected, new } => {
                let swaps = *value == expected;
                if swaps {
                    *value = new;
                }
                u64::from(swaps)
            }
        }
    }
}

/// One operation as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What was asked.
    pub op: RegisterOp,
    /// When the call began. Any numbers that order all calls and answers of a history, each used once.
    pub called: u64,
    /// When the answer came, and what it was; `None` when nobody knows whether it was carried out.
    pub answered: Option<(u64, u64)>,
}
