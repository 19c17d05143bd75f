use ringraft_core::{ChunkKind, Configuration, LogIndex};

use super::{Checker, Event, leads, name};

/// At most one configuration of a leader's log is not committed, besides its first entry, which says the last one again (thesis
/// §4.1: the next change begins when the one before is committed).
#[derive(Default)]
pub struct OneChangeAtATime {
    /// The highest index that any node ever knew as committed.
    committed: LogIndex,
    forced: Vec<Configuration>,
}

impl Checker for OneChangeAtATime {
    fn name(&self) -> &'static str {
        "one change at a time"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        let (node, log) = match event {
            Event::Stepped { node, log, .. } => (node, log),
            Event::Forced { conf } => {
                self.forced.push((*conf).clone());
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.committed = self.committed.max(node.committed_index());
        if !leads(node) || node.configuration().id.index <= self.committed {
            return Ok(());
        }
        let mut changes = 0;
        let mut after: Option<(&Configuration, &Configuration)> = None;
        for (index, entry) in log.entries_until(log.last_index() + 1) {
            let ChunkKind::Configuration { conf, old_conf } = &entry.kind else { continue };
            let this = (conf, old_conf);
            if after.is_some_and(|after| after != this && !self.forced.contains(after.0)) {
                changes += 1;
            }
            after = Some(this);
            if index <= self.committed {
                break;
            }
        }
        if changes > 1 {
            let (conf, committed) = (node.configuration(), self.committed);
            return Err(format!(
                "{} leads with {changes} changes of members in its log, the last {} at {}, and only {committed} is committed",
                name(node),
                conf.conf,
                conf.id
            ));
        }
        Ok(())
    }
}
