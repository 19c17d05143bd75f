//! When which group wants a tick: one queue a lane, lazy, so that a deadline that moves later costs nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ringraft_core::Time;

/// Deadlines of a lane's groups. A group stands in it when it has a deadline; an entry that fires early or late is harmless,
/// for the group's own deadline decides.
#[derive(Debug, Default)]
pub(crate) struct TimerQueue {
    entries: BinaryHeap<Reverse<(Time, u32, u32)>>,
}

impl TimerQueue {
    /// The group in `slot` wants to be looked at then.
    pub(crate) fn arm(&mut self, at: Time, slot: u32, generation: u32) {
        self.entries.push(Reverse((at, slot, generation)));
    }

    /// The next entry that is due: slot and generation.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<(Time, u32, u32)> {
        match self.entries.peek() {
            Some(Reverse((at, _, _))) if *at <= now => self.entries.pop().map(|Reverse(entry)| entry),
            _ => None,
        }
    }

    /// When the next entry is due.
    pub(crate) fn next(&self) -> Option<Time> {
        self.entries.peek().map(|Reverse((at, _, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_fire_in_order() {
        let mut queue = TimerQueue::default();
        queue.arm(Time(30), 1, 0);
        queue.arm(Time(10), 2, 0);
        assert_eq!(queue.next(), Some(Time(10)));
        assert_eq!(queue.pop_due(Time(9)), None);
        assert_eq!(queue.pop_due(Time(30)), Some((Time(10), 2, 0)));
        assert_eq!(queue.pop_due(Time(30)), Some((Time(30), 1, 0)));
        assert_eq!(queue.pop_due(Time(30)), None);
    }
}
