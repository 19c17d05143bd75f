use ringraft_core::{Configuration, LogIndex};

use super::per_node::PerNode;
use super::{Checker, Event, leads, name};

/// A leader commits only what a majority (of each half while joint) holds durably, and only by an entry of its own
/// term (Raft §5.4.2).
#[derive(Default)]
pub struct CommitRule {
    seen: PerNode<LogIndex>,
}

impl Checker for CommitRule {
    fn name(&self) -> &'static str {
        "commit rule"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        let (node, log, disks) = match event {
            Event::Stepped { node, log, disks } => (*node, *log, *disks),
            Event::Restarted { node } => {
                self.seen.remove(node);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let committed = node.committed_index();
        let before = std::mem::replace(self.seen.entry(name(node), || 0), committed);
        if committed < before {
            return Err(format!("{} took its commit index back from {before} to {committed}", name(node)));
        }
        if committed == before || !leads(node) {
            return Ok(());
        }
        if log.entry(committed).map(|e| e.term) != Some(node.term()) {
            return Err(format!(
                "{} commits up to {committed} by an entry that is not of its term {}",
                name(node),
                node.term()
            ));
        }
        let chain = log.chain_at(committed);
        let majority = |half: &Configuration| {
            let holders =
                half.peers.iter().filter(|p| disks.stable(p).is_some_and(|l| l.chain_at(committed) == chain));
            holders.count() > half.peers.len() / 2
        };
        let conf = node.configuration();
        if !majority(&conf.conf) || (conf.is_joint() && !majority(&conf.old_conf)) {
            return Err(format!("{} commits {committed}, which no majority holds durably", name(node)));
        }
        Ok(())
    }
}
