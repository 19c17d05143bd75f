//! A lease stands on voters that are bound: what nobody sees as long as nobody campaigns in the gap.

use ringraft_core::{NodeImpl, PeerId};

use super::World;
use crate::checkers::Violation;
use crate::cluster::checks::broken;

impl World {
    /// While a leader may answer reads by its lease, a majority of its voters, and of the old ones while joint, helps no candidate
    /// (thesis §6.4.1). A host that is down helps nobody, and keeps its promise when it starts.
    ///
    /// # Errors
    /// Too many of them are free to elect somebody else.
    pub(super) fn lease_stands(&self, group: usize, host: usize, node: &NodeImpl) -> Result<(), Violation> {
        if !node.holds_lease(self.hosts[host].clock.now(self.now)) {
            return Ok(());
        }
        let is_bound = |peer: &PeerId| {
            let voter = self.hosts.iter().position(|other| other.peer == *peer);
            voter.is_none_or(|voter| voter == host || self.helps_nobody(group, voter))
        };
        let conf = node.configuration();
        for half in [&conf.conf.peers, &conf.old_conf.peers] {
            let free: Vec<&PeerId> = half.iter().filter(|peer| !is_bound(peer)).collect();
            if 2 * free.len() >= half.len() && !half.is_empty() {
                let term = node.term();
                let what = format!(
                    "host {host} holds a lease of term {term} in group {group}, and of {half:?} nothing binds {free:?}"
                );
                return Err(broken("a lease stands on promises", what));
            }
        }
        Ok(())
    }

    fn helps_nobody(&self, group: usize, host: usize) -> bool {
        let Some(process) = &self.hosts[host].process else { return true };
        let node = process.handles[group].and_then(|handle| process.lane.node(handle));
        let now = self.hosts[host].clock.now(self.now);
        node.is_none_or(|node| node.is_rejoining() || node.is_bound(now))
    }
}
