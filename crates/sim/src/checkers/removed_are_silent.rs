use ringraft_core::{ChunkKind, LogId, LogIndex, NodeState};
use rustc_hash::FxHashMap;

use super::per_node::PerNode;
use super::{Checker, Event, name};

/// Who has written down that it was removed was: by a committed configuration that does not name it. It asks for no votes, not
/// after a restart either, and the mark goes when a newer configuration names it.
#[derive(Default)]
pub struct RemovedAreSilent {
    /// Committed configurations by index, up to the highest index that any node knew as committed.
    committed: FxHashMap<LogIndex, (LogId, ChunkKind)>,
    highest: LogIndex,
    /// What each node had written down when it was looked at last, and whether it had at the look before.
    marks: PerNode<(LogId, bool)>,
}

impl Checker for RemovedAreSilent {
    fn name(&self) -> &'static str {
        "removed members are silent"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        let (node, log) = match event {
            Event::Stepped { node, log, .. } => (*node, *log),
            Event::Restarted { node } | Event::Wiped { node } => {
                self.marks.remove(node);
                return Ok(());
            }
            // One that was asked for in the same turn in which the node learned of its removal may leave after the look.
            Event::PreVoteSent { node } => {
                let (at, twice) = *self.marks.entry(node, Default::default);
                return match at.index > 0 && twice {
                    true => Err(format!("{node} asks for votes, and knows that entry {at} removed it")),
                    false => Ok(()),
                };
            }
            _ => return Ok(()),
        };
        let committed = node.committed_index();
        for (index, entry) in log.entries_from(self.highest + 1).take_while(|(index, _)| *index <= committed)
        {
            if matches!(entry.kind, ChunkKind::Configuration { .. }) {
                self.committed.insert(index, (LogId::new(index, entry.term), entry.kind.clone()));
            }
        }
        self.highest = self.highest.max(committed);
        let (own, at) = (name(node), log.member_removed());
        let seen = self.marks.entry(own, Default::default);
        let before = std::mem::replace(seen, (at, at.index > 0 && seen.0.index > 0)).0;
        if at.index == 0 || node.state() == NodeState::Error {
            return Ok(());
        }
        if at != before {
            let removes = |kind: &ChunkKind| match kind {
                ChunkKind::Configuration { conf, old_conf } => {
                    let names = |conf: &ringraft_core::Configuration| {
                        conf.contains(own) || conf.learners.contains(own)
                    };
                    !names(conf) && !names(old_conf)
                }
                _ => false,
            };
            if !self.committed.get(&at.index).is_some_and(|(id, kind)| *id == at && removes(kind)) {
                return Err(format!(
                    "{own} takes itself for removed by entry {at}, which is not committed or names it"
                ));
            }
        }
        let conf = node.configuration();
        if conf.names(own) && conf.id.index > at.index {
            return Err(format!(
                "{own} takes itself for removed by entry {at}, and entry {} names it again",
                conf.id
            ));
        }
        Ok(())
    }
}
