//! The replicated state machine of the simulated groups: registers, and a list of what was applied.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use ringraft::{Applied, ApplyError, CompletionSink, Iterator, StateMachine};
use ringraft_core::LogIndex;

use crate::linearizability::RegisterOp;

/// A command: its number, the register, what to do; the rest is filling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) id: u64,
    pub(super) key: u64,
    pub(super) op: RegisterOp,
}

const HEAD: usize = 33;

impl Command {
    pub(super) fn encode(self, filling: usize) -> Bytes {
        let (kind, a, b) = match self.op {
            RegisterOp::Read => (0_u8, 0, 0),
            RegisterOp::Write(value) => (1, value, 0),
            RegisterOp::Add(value) => (2, value, 0),
            RegisterOp::CompareAndSet { expected, new } => (3, expected, new),
        };
        let mut out = Vec::with_capacity(HEAD + filling);
        out.extend_from_slice(&self.id.to_le_bytes());
        out.push(kind);
        for number in [self.key, a, b] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.resize(HEAD + filling, self.id as u8);
        out.into()
    }

    pub(super) fn decode(data: &[u8]) -> Option<Command> {
        let number = |at: usize| Some(u64::from_le_bytes(data.get(at..at + 8)?.try_into().ok()?));
        let (id, key, a, b) = (number(0)?, number(9)?, number(17)?, number(25)?);
        let op = match data.get(8)? {
            0 => RegisterOp::Read,
            1 => RegisterOp::Write(a),
            2 => RegisterOp::Add(a),
            3 => RegisterOp::CompareAndSet { expected: a, new: b },
            _ => return None,
        };
        Some(Command { id, key, op })
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Command { id, key, op } = self;
        match op {
            RegisterOp::Read => write!(f, "{id}: r{key}?"),
            RegisterOp::Write(value) => write!(f, "{id}: r{key}={value}"),
            RegisterOp::Add(value) => write!(f, "{id}: r{key}+{value}"),
            RegisterOp::CompareAndSet { expected, new } => write!(f, "{id}: r{key}={new} if {expected}"),
        }
    }
}

/// Where a command was applied and what was answered, or why it was not.
pub(super) type Answer = Result<(LogIndex, Bytes), ApplyError>;

/// One command as a state machine applied it.
#[derive(Clone, Copy, Debug)]
pub(super) struct AppliedCommand {
    pub(super) host: usize,
    pub(super) group: usize,
    pub(super) index: LogIndex,
    pub(super) id: u64,
}

/// What the state machines and completions of a world report; the world takes it after each call.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) applied: Mutex<Vec<AppliedCommand>>,
    pub(super) broken: Mutex<Vec<String>>,
    pub(super) outcomes: Mutex<Vec<(u64, Answer)>>,
}

impl CompletionSink for Outbox {
    fn complete(&self, tag: u64, outcome: Result<&Applied, &ApplyError>) {
        let outcome = outcome.map(|a| (a.index, a.response.clone())).map_err(Clone::clone);
        self.outcomes.lock().push((tag, outcome));
    }
}

/// One replica's registers.
pub(super) struct Registers {
    pub(super) host: usize,
    pub(super) group: usize,
    pub(super) values: Arc<Values>,
    pub(super) outbox: Arc<Outbox>,
}

/// Values of registers.
pub(super) type Values = Mutex<BTreeMap<u64, u64>>;

impl StateMachine for Registers {
    fn on_apply(&mut self, iter: &mut Iterator<'_>) {
        while let Some(entry) = iter.next() {
            let Some(command) = Command::decode(entry.data) else {
                let message =
                    format!("host {} applies {} bytes that nobody proposed", self.host, entry.data.len());
                self.outbox.broken.lock().push(message);
                continue;
            };
            let response = command.op.apply(self.values.lock().entry(command.key).or_default());
            let (host, group, index, id) = (self.host, self.group, entry.index, command.id);
            self.outbox.applied.lock().push(AppliedCommand { host, group, index, id });
            if iter.has_done() {
                iter.set_response(Bytes::copy_from_slice(&response.to_le_bytes()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_round_trip() {
        for op in [
            RegisterOp::Read,
            RegisterOp::Write(7),
            RegisterOp::Add(3),
            RegisterOp::CompareAndSet { expected: 1, new: 2 },
        ] {
            let command = Command { id: 9, key: 4, op };
            assert_eq!(Command::decode(&command.encode(5)), Some(command));
        }
        assert_eq!(Command::decode(b"short"), None);
    }
}
