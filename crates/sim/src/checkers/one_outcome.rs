use ringraft_core::{CallToken, PeerId};
use rustc_hash::FxHashMap;

use super::{Checker, Event};

/// Every call has one outcome, told by the node that was asked.
#[derive(Default)]
pub struct OneOutcome {
    open: FxHashMap<CallToken, PeerId>,
}

impl Checker for OneOutcome {
    fn name(&self) -> &'static str {
        "one outcome a call"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::CallMade { node, call } => drop(self.open.insert(*call, (*node).clone())),
            Event::CallEnded { node, call } => match self.open.remove(call) {
                Some(asked) if asked == **node => {}
                Some(asked) => {
                    return Err(format!("call @{} was made at {asked} and ends at {node}", call.0));
                }
                None => return Err(format!("call @{} of {node} ends twice, or was never made", call.0)),
            },
            // Nobody waits for the calls of a process that is gone.
            Event::Restarted { node } => self.open.retain(|_, asked| asked != *node),
            _ => {}
        }
        Ok(())
    }
}
