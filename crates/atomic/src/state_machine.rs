//! The state machine of a range group, and what readers outside of it may see.

use std::sync::Arc;

use parking_lot::RwLock;
use ringraft::{ConfigurationEntry, Iterator, RaftError, StateMachine, Status};

use crate::command::Command;
use crate::counters::Counters;

/// What one replica has applied, for readers on other threads.
#[derive(Debug)]
pub struct Replica {
    counters: RwLock<Counters>,
    conf: RwLock<Option<String>>,
}

impl Replica {
    /// An empty replica.
    pub fn new() -> Arc<Replica> {
        Arc::new(Replica { counters: RwLock::default(), conf: RwLock::default() })
    }

    /// A counter as this replica has it now: another replica may have more.
    pub fn get(&self, key: &str) -> Option<i64> {
        self.counters.read().get(key)
    }

    /// Reads something of one moment.
    pub fn read<T>(&self, look: impl FnOnce(&Counters) -> T) -> T {
        look(&self.counters.read())
    }

    /// The last committed configuration; `None` before one was applied.
    pub fn conf(&self) -> Option<String> {
        self.conf.read().clone()
    }
}

/// Applies commands to a [`Replica`].
pub struct AtomicStateMachine {
    group: String,
    replica: Arc<Replica>,
}

impl AtomicStateMachine {
    /// A state machine that writes to `replica`.
    pub fn new(group: impl Into<String>, replica: Arc<Replica>) -> AtomicStateMachine {
        AtomicStateMachine { group: group.into(), replica }
    }
}

impl StateMachine for AtomicStateMachine {
    fn on_apply(&mut self, iter: &mut Iterator<'_>) {
        // One lock a batch; readers see all of it or nothing.
        let mut counters = self.replica.counters.write();
        while let Some(entry) = iter.next() {
            match Command::decode(entry.data) {
                Ok(command) => {
                    let answer = counters.apply(entry.index, command);
                    if iter.has_done() {
                        iter.set_response(answer.encode());
                    }
                }
                Err(error) => {
                    // The same on every replica: to skip it here and apply it in a later version would part them.
                    let message = format!("entry {} is no command: {error}", entry.index);
                    iter.set_error_and_rollback(1, Status::new(RaftError::StateMachine, message));
                    return;
                }
            }
        }
    }

    fn on_leader_start(&mut self, term: u64) {
        tracing::info!(group = %self.group, term, "leads");
    }

    fn on_leader_stop(&mut self, status: &Status) {
        tracing::info!(group = %self.group, %status, "leads no more");
    }

    fn on_error(&mut self, status: &Status) {
        tracing::error!(group = %self.group, %status, "the replica has failed and serves no more; fix the cause and restart");
    }

    fn on_configuration_committed(&mut self, entry: &ConfigurationEntry) {
        *self.replica.conf.write() = Some(entry.conf.to_string());
    }
}
