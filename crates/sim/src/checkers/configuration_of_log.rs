use ringraft_core::{ChunkKind, Configuration, LogIndex};

use super::per_node::PerNode;
use super::{Checker, Event, name};

/// A node goes by the last configuration in its log, committed or not (thesis §4.1), and when that is cut off by the one before it.
/// Members that were forced upon a node are the operator's affair.
#[derive(Default)]
pub struct ConfigurationOfLog {
    /// End of the log when the node was last seen, the chain up to there, and the configuration that it went by.
    seen: PerNode<(LogIndex, Option<u64>, LogIndex)>,
    forced: Vec<Configuration>,
}

impl Checker for ConfigurationOfLog {
    fn name(&self) -> &'static str {
        "configuration of the log"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        let (node, log) = match event {
            Event::Stepped { node, log, .. } => (*node, *log),
            Event::Forced { conf } => {
                self.forced.push((*conf).clone());
                return Ok(());
            }
            _ => return Ok(()),
        };
        let (last, entry) = (log.last_index(), node.configuration());
        let now = (last, log.chain_at(last), entry.id.index);
        let (end, chain, index) = std::mem::replace(self.seen.entry(name(node), || (0, None, 0)), now);
        let is_configuration = |kind: &ChunkKind| matches!(kind, ChunkKind::Configuration { .. });
        let grown = log.chain_at(end) == chain && index == entry.id.index;
        if grown && !log.entries_from(end + 1).any(|(_, entry)| is_configuration(&entry.kind)) {
            return Ok(());
        }
        if entry.old_conf.is_empty() && self.forced.contains(&entry.conf) {
            return Ok(());
        }
        let of_log = log.entries_until(last + 1).find(|(_, entry)| is_configuration(&entry.kind));
        let same = of_log.is_none_or(|(_, logged)| match &logged.kind {
            ChunkKind::Configuration { conf, old_conf } => (conf, old_conf) == (&entry.conf, &entry.old_conf),
            _ => false,
        });
        let of_log = of_log.map_or(0, |(index, _)| index);
        if of_log != entry.id.index || !same {
            return Err(format!(
                "{} goes by the configuration of entry {}, and the last one in its log is that of entry {of_log}",
                name(node),
                entry.id.index
            ));
        }
        Ok(())
    }
}
