use ringraft_core::{ChunkKind, Configuration};

use super::{Checker, Event};

/// Every quorum of a configuration in a log meets every quorum of the one before it there: a change goes through a joint
/// configuration, or moves one voter (Raft §6, thesis §4.1). Members that were forced upon a node are the operator's affair.
#[derive(Default)]
pub struct QuorumOverlap {
    forced: Vec<Configuration>,
}

/// Whether any two majorities of these sets of voters have a member in common.
fn overlap(a: &Configuration, b: &Configuration) -> bool {
    let (quorum_a, quorum_b) = (a.peers.len() / 2 + 1, b.peers.len() / 2 + 1);
    // Two majorities can be disjoint exactly when those only in one set, and the shared ones dealt out between them, suffice.
    let shared = a.peers.iter().filter(|peer| b.peers.contains(peer)).count();
    let (only_a, only_b) = (a.peers.len() - shared, b.peers.len() - shared);
    quorum_a.saturating_sub(only_a) + quorum_b.saturating_sub(only_b) > shared
}

/// Whether every quorum of one configuration meets every quorum of the next; each is a set of voters and, while joint, the
/// old set, and a joint quorum has majorities of both.
fn adjacent(before: (&Configuration, &Configuration), after: (&Configuration, &Configuration)) -> bool {
    let halves = |pair: (&Configuration, &Configuration)| {
        [Some(pair.0.clone()), Some(pair.1.clone())]
            .into_iter()
            .flatten()
            .filter(|half| !half.is_empty())
            .collect::<Vec<_>>()
    };
    halves(before).iter().any(|a| halves(after).iter().any(|b| overlap(a, b)))
}

impl Checker for QuorumOverlap {
    fn name(&self) -> &'static str {
        "quorum overlap"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        let (node, log, first) = match event {
            Event::Appended { node, log, first } => (node, log, first),
            Event::Forced { conf } => {
                self.forced.push((*conf).clone());
                return Ok(());
            }
            _ => return Ok(()),
        };
        for (index, entry) in log.entries_from(*first) {
            let ChunkKind::Configuration { conf, old_conf } = &entry.kind else { continue };
            let before = log.entries_until(index).find_map(|(_, entry)| match &entry.kind {
                ChunkKind::Configuration { conf, old_conf } => Some((conf, old_conf)),
                _ => None,
            });
            if let Some(before) = before
                && !adjacent(before, (conf, old_conf))
                && !(old_conf.is_empty() && self.forced.contains(conf))
            {
                return Err(format!(
                    "{node} has {conf} | {old_conf} at {index} after {} | {}: quorums need not meet",
                    before.0, before.1
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Configuration {
        if text.is_empty() { Configuration::default() } else { text.parse().unwrap() }
    }

    #[test]
    fn majorities_that_must_meet_and_that_need_not() {
        let meets = |a, b| overlap(&conf(a), &conf(b));
        assert!(meets("a:1,b:1,c:1", "a:1,b:1,c:1"));
        assert!(meets("a:1,b:1,c:1", "a:1,b:1,c:1,d:1"), "one more");
        assert!(meets("a:1,b:1,c:1", "a:1,b:1"), "one less");
        assert!(!meets("a:1,b:1,c:1", "a:1,b:1,d:1"), "{{a,c}} and {{b,d}}");
        assert!(!meets("a:1", "b:1"));
        assert!(!meets("a:1,b:1,c:1", "a:1,b:1,c:1,d:1,e:1"));
    }

    #[test]
    fn a_joint_configuration_leads_from_one_to_another() {
        let (old, new, none) = (conf("a:1,b:1,c:1"), conf("c:1,d:1,e:1"), conf(""));
        assert!(!adjacent((&old, &none), (&new, &none)));
        assert!(adjacent((&old, &none), (&new, &old)));
        assert!(adjacent((&new, &old), (&new, &none)));
        assert!(adjacent((&new, &old), (&old, &none)), "a change that is taken back");
        assert!(!adjacent((&new, &old), (&conf("f:1"), &none)));
    }
}
