use ringraft_core::LogIndex;

use super::per_node::PerNode;
use super::{Checker, Event, name};

/// Nothing reaches a state machine that is not both committed and durable at its own node. Shows rule P5.
#[derive(Default)]
pub struct AppliedStable {
    /// Last entry that was handed over.
    delivered: PerNode<LogIndex>,
}

impl Checker for AppliedStable {
    fn name(&self) -> &'static str {
        "applied when stable"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Delivered { node, chunk, stable } => {
                if chunk.last_index() > stable.last_index() {
                    let last = stable.last_index();
                    return Err(format!("{node} applies {}, its disk ends at {last}", chunk.last_index()));
                }
                *self.delivered.entry(node, || 0) = chunk.last_index();
            }
            Event::Restarted { node } => self.delivered.remove(node),
            Event::Stepped { node, .. } => {
                let delivered = *self.delivered.entry(name(node), || 0);
                if delivered > node.committed_index() {
                    return Err(format!(
                        "{} applies {delivered}, it knows {} as committed",
                        name(node),
                        node.committed_index()
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
