use ringraft_core::{ChunkKind, Configuration, LogIndex, PeerId};

use crate::LogImage;

use super::per_node::PerNode;
use super::{Checker, Event, leads, name};

/// A leader commits only what a majority (of each half while joint) holds durably, and only by an entry of its own
/// term (Raft §5.4.2).
///
/// What a voter held when its disk was lost counts as long as the leader does not know of the loss: its acknowledgement may be on
/// its way. No candidate that lacks the entry can be elected for that, because who has lost its disk votes again only when it holds an
/// entry that the others committed since. Once the leader knows, nothing that such a voter holds counts.
#[derive(Default)]
pub struct CommitRule {
    seen: PerNode<Seen>,
}

/// A node when it was last seen.
#[derive(Default)]
struct Seen {
    committed: LogIndex,
    /// End of the log.
    end: LogIndex,
    /// Whom it knew to have lost their disks.
    rejoining: Vec<PeerId>,
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
        let seen = self.seen.entry(name(node), || Seen { committed, ..Seen::default() });
        let rejoining = node.rejoining_peers().cloned().collect();
        let now = Seen { committed, end: log.last_index(), rejoining };
        let Seen { committed: before, end, rejoining: knew } = std::mem::replace(seen, now);
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
        let knows = |peer: &PeerId| node.rejoining_peers().any(|known| known == peer);
        let held = |peer: &&PeerId| {
            // It may have learned of the loss between two looks, after it had committed.
            !(knows(peer) && knew.contains(peer))
                && (disks.stable(peer).is_some_and(holds) || disks.lost(peer).iter().any(holds))
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
