use ringraft_core::{CallToken, LogIndex};
use rustc_hash::FxHashMap;

use super::{Checker, Event};

/// A read is answered from a state machine that was given everything that anybody knew as committed when the read was asked
/// (thesis §6.4).
#[derive(Default)]
pub struct LinearizableReads {
    /// The highest index that any node ever knew as committed: what clients may have been told is at or below it.
    committed: LogIndex,
    /// What was committed when a read was asked.
    floors: FxHashMap<CallToken, LogIndex>,
}

impl Checker for LinearizableReads {
    fn name(&self) -> &'static str {
        "linearizable reads"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Stepped { node, .. } => self.committed = self.committed.max(node.committed_index()),
            Event::CallMade { call, .. } => drop(self.floors.insert(*call, self.committed)),
            Event::CallEnded { call, .. } => drop(self.floors.remove(call)),
            Event::MayRead { node, call, index, delivered, .. } => {
                let floor = self.floors.get(call).copied().unwrap_or_default();
                if *delivered < floor || delivered < index {
                    return Err(format!(
                        "{node} may read @{} at {index} with {delivered} handed over; {floor} was committed when it was asked",
                        call.0
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
