//! Looking into a lane from outside: the simulator's checkers do, between turns.

use ringraft_core::NodeImpl;

use crate::handler::{GroupHandle, LogEntryAndClosureHandler};

impl LogEntryAndClosureHandler {
    /// The node of a group. `None` when the group is gone or a step of it panicked.
    pub fn node(&self, handle: GroupHandle) -> Option<&NodeImpl> {
        let slot = self.slots.get(handle.slot as usize)?;
        let group = slot.group.as_deref().filter(|group| group.handle == handle)?;
        group.panicked().is_none().then(|| group.node())
    }
}
