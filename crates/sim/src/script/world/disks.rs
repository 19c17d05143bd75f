//! Disks and state machines of a world.

use ringraft_core::{Input, LogIndex, LogRead, RaftError, Status};

use super::{NodeName, ReadAnswer, World, WorldError};
use crate::script::format;

impl World {
    /// Makes the `count` oldest writes in flight durable, and tells the node.
    ///
    /// # Errors
    /// It is not running, or nothing is in flight.
    pub fn persist(&mut self, name: NodeName, count: usize) -> Result<(), WorldError> {
        self.node(name)?;
        let Some(sequence) = self.host_mut(name)?.disk.sync(count) else {
            return Err(WorldError::Nothing(format!("node {name} has no write in flight")));
        };
        self.host_mut(name)?.reported = sequence;
        self.note(|| format!("{name} write {sequence} is durable"));
        self.release_waiting(name)?;
        self.step(name, Input::Persisted { sequence })
    }

    /// Everything in flight fails, and the node is told.
    ///
    /// # Errors
    /// It is not running.
    pub fn fail_disk(&mut self, name: NodeName) -> Result<(), WorldError> {
        self.node(name)?;
        self.host_mut(name)?.disk.fail();
        self.note(|| format!("{name} disk fails"));
        let status = Status::new(RaftError::Io, "write failed");
        self.step(name, Input::Failed { status })
    }

    /// The state machine has applied everything that it was given, or only up to `index`.
    ///
    /// # Errors
    /// It is not running, or was not given that much.
    pub fn applied(&mut self, name: NodeName, index: Option<LogIndex>) -> Result<(), WorldError> {
        self.node(name)?;
        let fsm = &mut self.host_mut(name)?.fsm;
        let index = index.unwrap_or(fsm.delivered);
        if index > fsm.delivered {
            let message = format!("node {name} was given entries up to {} only", fsm.delivered);
            return Err(WorldError::Nothing(message));
        }
        fsm.applied = fsm.applied.max(index);
        self.step(name, Input::Applied { index })
    }

    /// Answers the oldest log read of a node.
    ///
    /// # Errors
    /// It is not running, or waits for no read.
    pub fn answer_read(&mut self, name: NodeName, answer: ReadAnswer) -> Result<(), WorldError> {
        self.answer_read_once(name, answer)?;
        self.settle(name)
    }

    pub(super) fn answer_read_once(&mut self, name: NodeName, answer: ReadAnswer) -> Result<(), WorldError> {
        self.node(name)?;
        let host = self.host_mut(name)?;
        if host.reads.is_empty() {
            return Err(WorldError::Nothing(format!("node {name} reads nothing")));
        }
        let LogRead { ticket, from, to, max_bytes } = host.reads.remove(0);
        let to = if answer == ReadAnswer::OneMore { to + 1 } else { to };
        let mut entries = host.disk.stable().read(from, to, max_bytes);
        if answer == ReadAnswer::Hole {
            let last = entries.last().map_or(0, |c| c.last_index());
            let parts = [(from, from), (from + 2, last)];
            entries =
                parts.iter().flat_map(|(a, b)| entries.iter().filter_map(|c| c.share(*a, *b))).collect();
        }
        let result = match answer {
            ReadAnswer::Fails => Err(Status::new(RaftError::Io, "read failed")),
            _ => Ok(entries),
        };
        self.note(|| {
            let text = match &result {
                Ok(chunks) => chunks.iter().map(|c| format!(" [{}]", format::chunk(c))).collect(),
                Err(status) => format!(" {}", format::status(status)),
            };
            format!("{name} read #{}:{text}", ticket.0)
        });
        self.step_once(name, Input::LogRead { ticket, result })
    }
}
