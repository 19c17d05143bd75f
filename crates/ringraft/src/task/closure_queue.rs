//! Completions of proposed entries, in the order of the log (SOFAJRaft's `ClosureQueue`).

use std::collections::VecDeque;

use ringraft_core::{LogIndex, Mutant, Term};

use crate::task::completion::Completion;

/// Completions of consecutive entries.
#[derive(Debug)]
pub struct ClosureBatch {
    /// Index of the entry of the first completion.
    pub first_index: LogIndex,
    /// The term of the entries.
    pub term: Term,
    /// One an entry.
    pub completions: Vec<Completion>,
}

impl ClosureBatch {
    /// The completion of the entry at `index`.
    pub fn get(&self, index: LogIndex) -> Option<&Completion> {
        self.completions.get(usize::try_from(index.checked_sub(self.first_index)?).ok()?)
    }

    fn last_index(&self) -> LogIndex {
        self.first_index + self.completions.len() as u64 - 1
    }
}

/// Completions of entries that this node has proposed and that are not committed yet: one batch a proposal, ascending.
#[derive(Debug, Default)]
pub struct ClosureQueue {
    batches: VecDeque<ClosureBatch>,
}

impl ClosureQueue {
    /// Appends the completions of entries from `first_index` on, which is above all that wait.
    pub fn append(&mut self, first_index: LogIndex, term: Term, completions: Vec<Completion>) {
        debug_assert!(
            self.batches.back().is_none_or(|batch| batch.last_index() < first_index)
                || Mutant::D23ClosuresOutliveLeadership.is_active()
        );
        if completions.iter().any(|completion| !completion.is_none()) {
            self.batches.push_back(ClosureBatch { first_index, term, completions });
        }
    }

    /// Takes the completions of entries up to `index` and adds them to `into`.
    pub fn pop_until(&mut self, index: LogIndex, into: &mut Vec<ClosureBatch>) {
        while let Some(batch) = self.batches.front_mut() {
            if batch.first_index > index {
                return;
            }
            if batch.last_index() > index {
                let rest = batch.completions.split_off((index + 1 - batch.first_index) as usize);
                let first_index = std::mem::replace(&mut batch.first_index, index + 1);
                let completions = std::mem::replace(&mut batch.completions, rest);
                into.push(ClosureBatch { first_index, term: batch.term, completions });
                return;
            }
            into.extend(self.batches.pop_front());
        }
    }

    /// Takes every completion: who leads no more does not hear what becomes of the entries, and proposes others at the same indexes.
    pub(crate) fn end_of_leadership(&mut self) -> Vec<Completion> {
        if Mutant::D23ClosuresOutliveLeadership.is_active() { Vec::new() } else { self.take_all() }
    }

    /// Takes all that wait, in order.
    pub fn take_all(&mut self) -> Vec<Completion> {
        self.batches.drain(..).flat_map(|batch| batch.completions).collect()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// How many entries are waited for.
    pub fn len(&self) -> usize {
        self.batches.iter().map(|batch| batch.completions.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::completion::SinkId;
    use std::sync::Arc;

    struct Nobody;
    impl crate::task::completion::CompletionSink for Nobody {
        fn complete(&self, _: u64, _: Result<&crate::Applied, &crate::ApplyError>) {}
    }

    #[test]
    fn completions_leave_with_their_entries() {
        let sink = SinkId::register(Arc::new(Nobody));
        let some = |n: u64| (0..n).map(|tag| Completion::sink(sink, tag)).collect::<Vec<_>>();
        let mut queue = ClosureQueue::default();
        queue.append(5, 1, some(3));
        queue.append(10, 2, some(2));
        let mut popped = Vec::new();
        queue.pop_until(4, &mut popped);
        assert!(popped.is_empty());
        queue.pop_until(6, &mut popped);
        assert_eq!((popped[0].first_index, popped[0].completions.len()), (5, 2));
        queue.pop_until(10, &mut popped);
        let shape: Vec<_> = popped.iter().map(|b| (b.first_index, b.term, b.completions.len())).collect();
        assert_eq!(shape, [(5, 1, 2), (7, 1, 1), (10, 2, 1)]);
        assert!(popped[2].get(10).is_some() && popped[2].get(11).is_none() && popped[2].get(9).is_none());
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.take_all().len(), 1);
        assert!(queue.is_empty());
    }

    #[test]
    fn entries_that_nobody_waits_for_cost_nothing() {
        let mut queue = ClosureQueue::default();
        queue.append(1, 1, vec![Completion::none(), Completion::none()]);
        assert!(queue.is_empty());
    }
}
