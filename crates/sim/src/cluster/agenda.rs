//! What happens when, in order of time; of what happens at the same moment, what was planned first comes first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events that have not happened yet.
pub(super) struct Agenda<Event> {
    /// Moment, number and slot.
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    /// The events, apart: they are large, and the queue moves its entries.
    slots: Vec<Option<Event>>,
    free: Vec<usize>,
    order: u64,
}

impl<Event> Agenda<Event> {
    /// Nothing happens.
    pub(super) fn new() -> Agenda<Event> {
        Agenda { queue: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), order: 0 }
    }

    /// Plans an event.
    pub(super) fn plan(&mut self, at: u64, event: Event) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        self.slots[slot] = Some(event);
        self.order += 1;
        self.queue.push(Reverse((at, self.order, slot)));
    }

    /// What happens next: the moment, the event's number, which is never given again, and the event.
    pub(super) fn next(&mut self) -> Option<(u64, u64, Event)> {
        while let Some(Reverse((at, order, slot))) = self.queue.pop() {
            if let Some(event) = self.slots[slot].take() {
                self.free.push(slot);
                return Some((at, order, event));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_planned_first_comes_first() {
        let mut agenda = Agenda::new();
        for (at, event) in [(2, 'c'), (1, 'a'), (2, 'd'), (1, 'b')] {
            agenda.plan(at, event);
        }
        assert_eq!(agenda.next(), Some((1, 2, 'a')));
        agenda.plan(1, 'B');
        let rest: String = std::iter::from_fn(|| agenda.next()).map(|(_, _, event)| event).collect();
        assert_eq!(rest, "bBcd");
    }
}
