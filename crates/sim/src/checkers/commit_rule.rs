use ringraft_core::{ChunkKind, Configuration, LogIndex, PeerId};

use crate::LogImage;

use super::per_node::PerNode;
use super::{Checker, Event, leads, name};

/// A leader commits only what a majority (of each half while joint) holds durably, and only by an entry of its own
/// term (Raft §5.4.2).
///
/// What a voter held when its disk was lost counts as long as the leader does not know of the loss: its acknowledgement may be on
/// its way. No candidate that lacks the entry can be elected for that, because who has lost its disk votes again only when it holds an
/// entry that the others committed since.
#[derive(Default)]
pub struct CommitRule {
    /// Commit index and end of the log when the node was last seen.
    seen: PerNode<(LogIndex, LogIndex)>,
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
        let seen = self.seen.entry(name(node), || (0, committed));
        let (before, end) = std::mem::replace(seen, (committed, log.last_index()));
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
        let holds = |log: &LogImage| log.chain_at(committed) == chain;
        let known_to_rejoin =
            |peer: &PeerId| node.describe().replicators.iter().any(|r| r.peer == *peer && r.rejoining);
        let held = |peer: &&PeerId| {
            disks.stable(peer).is_some_and(holds)
                || disks.lost(peer).iter().any(holds) && !known_to_rejoin(peer)
        };
        let majority = |half: &Configuration| half.peers.iter().filter(held).count() > half.peers.len() / 2;
        // Between two looks it may have committed first and then logged another configuration: any that was in force will do.
        let conf = |kind: &ChunkKind| match kind {
            ChunkKind::Configuration { conf, old_conf } => Some((conf.clone(), old_conf.clone())),
            _ => None,
        };
        let mut in_force: Vec<_> =
            log.entries_from(end + 1).filter_map(|(_, entry)| conf(&entry.kind)).collect();
        in_force.extend(log.entries_until(end + 1).find_map(|(_, entry)| conf(&entry.kind)));
        if in_force.is_empty() {
            let entry = node.configuration();
            in_force.push((entry.conf.clone(), entry.old_conf.clone()));
        }
        let decides = |(new, old): &(Configuration, Configuration)| {
            majority(new) && (old.peers.is_empty() || majority(old))
        };
        if !in_force.iter().any(decides) {
            return Err(format!("{} commits {committed}, which no majority holds durably", name(node)));
        }
        Ok(())
    }
}
