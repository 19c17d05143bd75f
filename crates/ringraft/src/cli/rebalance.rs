//! Spreading leaders over hosts.

use std::collections::{BTreeMap, VecDeque};

use ringraft_core::{Configuration, PeerId};

use super::{CliError, CliService};

/// Who leads after [`CliService::rebalance`], and why it stopped early.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebalanced {
    /// Leaders by group, as far as it came.
    pub leaders: BTreeMap<String, PeerId>,
    /// What it stopped at; `None` when every group was looked at.
    pub error: Option<CliError>,
}

impl CliService {
    /// Moves leaders so that none of `conf` leads more than its share, ⌈groups / members⌉. Stops at the first group of which no leader
    /// is found or moved. `moved` hears of each transfer as it happens.
    pub fn rebalance(
        &self,
        groups: &[String],
        conf: &Configuration,
        mut moved: impl FnMut(&str, &PeerId, &PeerId),
    ) -> Rebalanced {
        let share = groups.len().div_ceil(conf.peers.len().max(1));
        let mut queue: VecDeque<&str> = groups.iter().map(String::as_str).collect();
        let mut led: BTreeMap<PeerId, usize> = BTreeMap::new();
        let mut leaders = BTreeMap::new();
        // Each transfer brings one group nearer to its place; elections may undo some, but not for ever.
        let mut transfers = groups.len() * conf.peers.len();
        let mut run = || -> Result<(), CliError> {
            while let Some(group) = queue.pop_front() {
                let leader = self.get_leader(group, conf)?;
                leaders.insert(group.to_owned(), leader.clone());
                let count = led.entry(leader.clone()).or_default();
                *count += 1;
                if *count <= share || transfers == 0 {
                    continue;
                }
                let alive = self.get_alive_peers(group, conf)?.peers;
                let below =
                    |peer: &&PeerId| **peer != leader && led.get(peer).copied().unwrap_or_default() < share;
                let Some(target) = alive.iter().filter(below).min_by_key(|peer| led.get(peer).copied())
                else {
                    continue;
                };
                self.transfer_leader(group, conf, Some(target))?;
                moved(group, &leader, target);
                transfers -= 1;
                if let Some(count) = led.get_mut(&leader) {
                    *count -= 1;
                }
                queue.push_back(group);
            }
            Ok(())
        };
        let error = run().err();
        Rebalanced { leaders, error }
    }
}
