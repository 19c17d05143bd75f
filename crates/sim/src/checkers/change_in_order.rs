use ringraft_core::{ChunkKind, Configuration, LogIndex, NodeState, PeerId, Term};

use super::per_node::PerNode;
use super::{Checker, Event, leads, name};
use crate::LogImage;

/// A leader changes the members one step at a time: the configuration before is committed, and so is an entry of its own term
/// (Raft §6; Ongaro, raft-dev 2015), who gets a vote has caught up (thesis §4.2.1), and it does not hand leadership over meanwhile.
#[derive(Default)]
pub struct ChangeInOrder {
    /// Term, its first index, and end of the log when the node was last seen leading.
    seen: PerNode<Option<(Term, LogIndex, LogIndex)>>,
    /// What was forced upon any node.
    forced: Vec<Configuration>,
}

impl Checker for ChangeInOrder {
    fn name(&self) -> &'static str {
        "members change in order"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        let (node, log, disks) = match event {
            Event::Stepped { node, log, disks } => (*node, *log, *disks),
            Event::Forced { conf } => {
                self.forced.push((*conf).clone());
                return Ok(());
            }
            _ => return Ok(()),
        };
        let seen = self.seen.entry(name(node), || None);
        if !leads(node) {
            *seen = None;
            return Ok(());
        }
        let (term, committed) = (node.term(), node.committed_index());
        let (start, from) = match *seen {
            Some((of, start, last)) if of == term => (start, last + 1),
            _ => {
                let end = log.last_index() + 1;
                let own = log.entries_until(end).take_while(|(_, entry)| entry.term == term);
                let start = own.last().map_or(end, |(index, _)| index);
                (start, start)
            }
        };
        *seen = Some((term, start, log.last_index()));
        for (index, entry) in log.entries_from(from) {
            let ChunkKind::Configuration { conf, old_conf } = &entry.kind else { continue };
            let before = log.entries_until(index).find_map(|(at, entry)| match &entry.kind {
                ChunkKind::Configuration { conf, old_conf } => Some((at, conf, old_conf)),
                _ => None,
            });
            let Some((at, conf_before, old_before)) = before else { continue };
            // The first entry of a leader carries on what it found, or was made to find.
            let was_forced = || old_conf.is_empty() && self.forced.contains(conf);
            let forced = index == start && (old_before.is_empty() || was_forced());
            if (conf_before, old_before) == (conf, old_conf) || forced {
                continue;
            }
            let changes = format!("{} of term {term} has {conf} | {old_conf} at {index}", name(node));
            if committed < at {
                return Err(format!("{changes}, and the one before at {at} is not committed"));
            }
            if committed < start {
                return Err(format!("{changes}, and no entry of its term is committed"));
            }
            if node.state() == NodeState::Transferring {
                return Err(format!("{changes} while it hands leadership over"));
            }
            let voted = |peer: &PeerId| conf_before.contains(peer) || old_before.contains(peer);
            let near = (index - 1).saturating_sub(node.options().catchup_margin);
            let holds = |held: &LogImage| held.chain_at(near).is_some_and(|c| Some(c) == log.chain_at(near));
            // A later leader may have cut off what it held, and its disk may be lost.
            let excused = |held: &LogImage| held.hard_state().term > term;
            let behind = |peer: &&PeerId| {
                let now = disks.stable(peer).is_none_or(|held| !holds(held) && !excused(held));
                let lost = disks.lost(peer).iter().any(holds);
                **peer != *name(node) && !voted(peer) && now && !lost
            };
            if let Some(peer) = conf.peers.iter().find(behind) {
                return Err(format!("{changes}, and {peer}, which gets a vote, has not caught up"));
            }
        }
        Ok(())
    }
}
