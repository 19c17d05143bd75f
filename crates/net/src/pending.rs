//! Requests that wait for an answer.

use std::collections::VecDeque;

use crate::RequestContext;

/// Slots that are made before one is used again, so that ids do not repeat early on a link with few requests under way.
const RESTING: usize = 256;

/// Contexts of outstanding requests by Bolt request id.
///
/// An id is a slot and the slot's generation, so an answer that comes twice, late, or for a request never made
/// finds nothing. The table grows with use up to its bound and survives the connection: generations go on.
#[derive(Debug)]
pub(crate) struct PendingTable {
    slots: Vec<Slot>,
    /// Oldest first: a slot rests for as long as possible, so that an id comes again as late as possible.
    free: VecDeque<u32>,
    bound: u32,
    index_bits: u32,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    since: u32,
    context: Option<RequestContext>,
}

impl PendingTable {
    /// At most `bound` contexts wait at a time (1 to 2^20).
    pub(crate) fn new(bound: u32) -> Self {
        let index_bits = bound.next_power_of_two().trailing_zeros().max(1);
        Self { slots: Vec::new(), free: VecDeque::new(), bound, index_bits }
    }

    /// Keeps a context and names it; `None` when the table is full. `now` is any clock that counts seconds.
    pub(crate) fn insert(&mut self, context: RequestContext, now: u32) -> Option<u32> {
        let grows = match self.free.is_empty() {
            true => self.slots.len() < self.bound as usize,
            false => self.slots.len() < RESTING.min(self.bound as usize),
        };
        let index = if grows {
            // Generation 0 is left out, so that id 0 never occurs: it reads like "no id" in every trace.
            self.slots.push(Slot { generation: 1, since: 0, context: None });
            self.slots.len() as u32 - 1
        } else {
            self.free.pop_front()?
        };
        let slot = &mut self.slots[index as usize];
        slot.context = Some(context);
        slot.since = now;
        Some((slot.generation << self.index_bits) | index)
    }

    /// Gives the context back, once.
    pub(crate) fn take(&mut self, id: u32) -> Option<RequestContext> {
        let index = id & ((1 << self.index_bits) - 1);
        let slot = self.slots.get_mut(index as usize)?;
        if slot.generation != id >> self.index_bits {
            return None;
        }
        let context = slot.context.take()?;
        self.release(index);
        Some(context)
    }

    fn release(&mut self, index: u32) {
        let last = u32::MAX >> self.index_bits;
        let slot = &mut self.slots[index as usize];
        slot.generation = if slot.generation == last { 1 } else { slot.generation + 1 };
        self.free.push_back(index);
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes everything out.
    pub(crate) fn drain(&mut self) -> Vec<RequestContext> {
        self.drain_where(|_| true)
    }

    /// Takes out what has waited for at least `limit` seconds.
    pub(crate) fn drain_expired(&mut self, now: u32, limit: u32) -> Vec<RequestContext> {
        self.drain_where(|slot| now.wrapping_sub(slot.since) >= limit)
    }

    fn drain_where(&mut self, gone: impl Fn(&Slot) -> bool) -> Vec<RequestContext> {
        if self.len() == 0 {
            return Vec::new();
        }
        let mut out = Vec::new();
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.context.is_some() && gone(slot) {
                out.extend(slot.context.take());
                self.release(index as u32);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(ticket: u64) -> RequestContext {
        RequestContext { lane: 0, kind: 0, slot: 0, generation: 0, ticket }
    }

    #[test]
    fn an_answer_finds_its_request_once() {
        let mut table = PendingTable::new(4);
        let ids: Vec<u32> = (0..4).map(|n| table.insert(context(n), 0).unwrap()).collect();
        assert_eq!(table.insert(context(9), 0), None);
        for (n, id) in ids.iter().enumerate().rev() {
            assert_eq!(table.take(*id).unwrap().ticket, n as u64);
            assert_eq!(table.take(*id), None);
        }
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_late_or_foreign_id_finds_nothing() {
        let mut table = PendingTable::new(3);
        let old = table.insert(context(1), 0).unwrap();
        table.take(old).unwrap();
        let new = table.insert(context(2), 0).unwrap();
        assert_ne!(old, new);
        for foreign in [0, old, new ^ 1, u32::MAX, 3] {
            assert_eq!(table.take(foreign), None, "{foreign}");
        }
        assert_eq!(table.take(new).unwrap().ticket, 2);
    }

    #[test]
    fn generations_wrap_without_id_zero() {
        let mut table = PendingTable::new(1 << 20);
        let mut seen = std::collections::HashSet::new();
        for n in 0..10_000 {
            let id = table.insert(context(n), 0).unwrap();
            assert_ne!(id, 0);
            seen.insert(id);
            assert_eq!(table.take(id).unwrap().ticket, n);
        }
        // 2^12 generations but one would have been over by now, had one slot been used again and again.
        assert_eq!(seen.len(), 10_000);
        let ids = RESTING * ((1 << 12) - 1);
        for n in 10_000..ids as u64 {
            let id = table.insert(context(n), 0).unwrap();
            assert!(id != 0 && seen.insert(id), "id {id} comes again after {n}");
            table.take(id).unwrap();
        }
        assert!(seen.contains(&table.insert(context(0), 0).unwrap()), "only now they begin anew");
    }

    #[test]
    fn what_nobody_answers_expires() {
        let mut table = PendingTable::new(8);
        table.insert(context(1), 10).unwrap();
        let young = table.insert(context(2), 15).unwrap();
        let old: Vec<u64> = table.drain_expired(20, 10).iter().map(|c| c.ticket).collect();
        assert_eq!(old, [1]);
        assert_eq!(table.take(young).unwrap().ticket, 2);
    }
}
