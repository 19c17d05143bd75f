//! Requests of peers that a lane has not answered yet.

use ringraft_core::{RaftResponse, ReplyToken};
use ringraft_net::ReplyHandle;

use crate::handler::{GroupHandle, OutReply};

/// Where an answer goes, and whose request it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) group: GroupHandle,
    pub(crate) handle: ReplyHandle,
    pub(crate) codec: u8,
}

impl Waiting {
    /// The answer, from a group with this creation number.
    pub(crate) fn answer(self, creation: u64, response: RaftResponse) -> OutReply {
        OutReply { handle: self.handle, codec: self.codec, creation, response }
    }
}

/// Gives each request a token and takes it back with the answer.
#[derive(Debug, Default)]
pub(crate) struct ReplyTable {
    slots: Vec<(u32, Option<Waiting>)>,
    free: Vec<u32>,
}

impl ReplyTable {
    pub(crate) fn insert(&mut self, waiting: Waiting) -> ReplyToken {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            (self.slots.len() - 1) as u32
        });
        let (generation, slot) = &mut self.slots[index as usize];
        *generation = generation.wrapping_add(1);
        *slot = Some(waiting);
        ReplyToken(u64::from(*generation) << 32 | u64::from(index))
    }

    /// The request of a token; `None` when it was answered before.
    pub(crate) fn take(&mut self, token: ReplyToken) -> Option<Waiting> {
        let index = token.0 as u32;
        let (generation, slot) = self.slots.get_mut(index as usize)?;
        if u64::from(*generation) != token.0 >> 32 {
            return None;
        }
        let waiting = slot.take()?;
        self.free.push(index);
        Some(waiting)
    }

    /// Takes every request of a group.
    pub(crate) fn take_group(&mut self, group: GroupHandle) -> Vec<Waiting> {
        let mut taken = Vec::new();
        for (index, (_, slot)) in self.slots.iter_mut().enumerate() {
            if let Some(waiting) = slot.take_if(|waiting| waiting.group == group) {
                taken.push(waiting);
                self.free.push(index as u32);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_answers_once() {
        let group = GroupHandle { lane: 0, slot: 0, generation: 0 };
        let waiting =
            Waiting { group, handle: ReplyHandle { connection: 1, generation: 2, request: 3 }, codec: 1 };
        let mut table = ReplyTable::default();
        let first = table.insert(waiting);
        assert_eq!(table.take(first).unwrap().handle, waiting.handle);
        assert!(table.take(first).is_none());
        let second = table.insert(waiting);
        assert!(table.take(first).is_none(), "the slot lives another life");
        assert_eq!(table.take_group(group).len(), 1);
        assert!(table.take(second).is_none());
    }
}
