//! Committed entries on their way through a state machine (SOFAJRaft's `Iterator`, `IteratorImpl`).

use std::sync::Arc;

use bytes::Bytes;
use ringraft_core::{ChunkKind, EntryChunk, LogIndex, RaftError, Status, Term};

use crate::task::closure_queue::ClosureBatch;

/// One committed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Where it stands in the log.
    pub index: LogIndex,
    /// The term in which it was proposed.
    pub term: Term,
    /// The command.
    pub data: &'a [u8],
}

/// The committed commands of one batch, in log order. Configurations and placeholders are left out: the engine consumes them.
///
/// The outcome of a task is delivered after [`StateMachine::on_apply`](crate::StateMachine::on_apply) has returned, for the
/// whole batch.
pub struct Iterator<'a> {
    chunks: &'a [Arc<EntryChunk>],
    closures: &'a [ClosureBatch],
    /// The chunk that `next` looks at, and the position in it.
    chunk: usize,
    position: usize,
    /// The chunk, position and index of the entry that `next` returned last.
    current: Option<(usize, usize, LogIndex)>,
    responses: Vec<(LogIndex, Bytes)>,
    rollback: Option<Rollback>,
}

/// A batch that the state machine refused to finish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rollback {
    /// First index that does not count as applied.
    pub(crate) from: LogIndex,
    /// Why.
    pub(crate) status: Status,
}

/// What an iterator leaves behind.
pub(crate) struct Consumed {
    /// Answers of the state machine, ascending by index.
    pub(crate) responses: Vec<(LogIndex, Bytes)>,
    /// Set when the batch was not finished.
    pub(crate) rollback: Option<Rollback>,
}

impl<'a> Iterator<'a> {
    pub(crate) fn new(chunks: &'a [Arc<EntryChunk>], closures: &'a [ClosureBatch]) -> Iterator<'a> {
        let mut iterator = Iterator {
            chunks,
            closures,
            chunk: 0,
            position: 0,
            current: None,
            responses: Vec::new(),
            rollback: None,
        };
        iterator.skip_to_data();
        iterator
    }

    pub(crate) fn finish(self) -> Consumed {
        Consumed { responses: self.responses, rollback: self.rollback }
    }

    /// Whether any command is left.
    pub fn has_next(&self) -> bool {
        self.chunk < self.chunks.len() && self.rollback.is_none()
    }

    /// The next command; `None` at the end of the batch.
    #[allow(clippy::should_implement_trait)] // the name of SOFAJRaft's; it lends from the batch and has more to say
    #[inline]
    pub fn next(&mut self) -> Option<Entry<'a>> {
        if !self.has_next() {
            return None;
        }
        let chunk: &'a EntryChunk = &self.chunks[self.chunk];
        let position = self.position;
        let index = chunk.first_index() + position as u64;
        self.current = Some((self.chunk, position, index));
        self.position += 1;
        if self.position == chunk.len() {
            self.chunk += 1;
            self.position = 0;
            self.skip_to_data();
        }
        Some(Entry { index, term: chunk.term(), data: chunk.entry(position) })
    }

    /// The rest of the current run of commands at once: consecutive entries of one term that share a buffer. `None` at the end
    /// of the batch. Responses can be set by index with [`set_response_at`](Iterator::set_response_at).
    pub fn next_chunk(&mut self) -> Option<Entries<'a>> {
        if !self.has_next() {
            return None;
        }
        let chunk: &'a EntryChunk = &self.chunks[self.chunk];
        let entries = Entries { chunk, position: self.position };
        let last = chunk.len() - 1;
        self.current = Some((self.chunk, last, chunk.last_index()));
        self.chunk += 1;
        self.position = 0;
        self.skip_to_data();
        Some(entries)
    }

    /// Index of the command that [`next`](Iterator::next) returned last; 0 before the first.
    pub fn index(&self) -> LogIndex {
        self.current.map_or(0, |(_, _, index)| index)
    }

    /// Term of the command that [`next`](Iterator::next) returned last; 0 before the first.
    pub fn term(&self) -> Term {
        self.current.map_or(0, |(chunk, _, _)| self.chunks[chunk].term())
    }

    /// Whether somebody here waits for the current command: true only on the node that proposed it, while it still led.
    pub fn has_done(&self) -> bool {
        self.current.is_some_and(|(_, _, index)| {
            self.closures.iter().any(|batch| batch.get(index).is_some_and(|done| !done.is_none()))
        })
    }

    /// The answer to whoever waits for the current command ([`Applied::response`](crate::Applied::response)); the last one
    /// counts. Nothing happens when nobody waits or before the first command.
    pub fn set_response(&mut self, response: impl Into<Bytes>) {
        if let Some((_, _, index)) = self.current {
            self.set_response_at(index, response);
        }
    }

    /// As [`set_response`](Iterator::set_response), for an earlier command of the batch. Indexes must not descend from call
    /// to call; a call that does is ignored.
    pub fn set_response_at(&mut self, index: LogIndex, response: impl Into<Bytes>) {
        match self.responses.last_mut() {
            Some((last, _)) if *last > index => {
                tracing::warn!(index, last = *last, "a response out of order was ignored");
            }
            Some((last, slot)) if *last == index => *slot = response.into(),
            _ => self.responses.push((index, response.into())),
        }
    }

    /// Gives up: the last `ntail` commands that were taken (at least 1; the current one counts as 1) do not count as applied. The
    /// node goes to error state, and whoever waits for them or for later ones of the batch gets
    /// [`ApplyError::Unknown`](crate::ApplyError::Unknown) with `ESTATEMACHINE`. The first call counts.
    pub fn set_error_and_rollback(&mut self, ntail: u64, status: Status) {
        if self.rollback.is_some() {
            return;
        }
        let first = self.chunks.first().map_or(0, |chunk| chunk.first_index());
        let current = self.current.map_or(first, |(_, _, index)| index);
        let from = current.saturating_sub(ntail.max(1) - 1).max(first);
        let message = format!("the state machine gave up at index {current}: {status}");
        self.rollback = Some(Rollback { from, status: Status::new(RaftError::StateMachine, message) });
    }

    fn skip_to_data(&mut self) {
        while self.chunks.get(self.chunk).is_some_and(|chunk| !matches!(chunk.kind(), ChunkKind::Data)) {
            self.chunk += 1;
        }
    }
}

/// Consecutive commands of one term that share a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    chunk: &'a EntryChunk,
    position: usize,
}

impl<'a> Entries<'a> {
    /// Index of the first of them.
    pub fn first_index(&self) -> LogIndex {
        self.chunk.first_index() + self.position as u64
    }

    /// Their term.
    pub fn term(&self) -> Term {
        self.chunk.term()
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.chunk.len() - self.position
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> std::iter::Iterator for Entries<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        if self.is_empty() {
            return None;
        }
        let position = self.position;
        self.position += 1;
        let index = self.chunk.first_index() + position as u64;
        Some(Entry { index, term: self.chunk.term(), data: self.chunk.entry(position) })
    }
}
