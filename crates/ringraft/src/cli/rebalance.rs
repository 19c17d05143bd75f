//! Spreading leaders over hosts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringraft_core::{Configuration, PeerId};

use super::{CliError, CliService, PAUSE};

/// How long members may go on naming a leader that has handed over; longer, and it was elected again.
const SETTLING: Duration = Duration::from_secs(2);

/// Who leads after [`CliService::rebalance`], and why it stopped early.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebalanced {
    /// Leaders by group, as far as it came.
    pub leaders: BTreeMap<String, PeerId>,
    /// What it stopped at; `None` when every group was looked at.
    pub error: Option<CliError>,
}

impl CliService {
    /// Moves leaders so that none of `conf` leads more than its share, ⌈groups / members⌉, with as few transfers as it takes: first it
    /// asks for the leader of every group, then it moves what is over a share to those that lead least and are alive. Stops at the
    /// first group of which no leader is found or moved. `moved` hears of each transfer as it happens: group, old leader, target.
    pub fn rebalance(
        &self,
        groups: &[String],
        conf: &Configuration,
        mut moved: impl FnMut(&str, &PeerId, &PeerId),
    ) -> Rebalanced {
        let mut leaders = BTreeMap::new();
        let error = self.move_leaders(groups, conf, &mut leaders, &mut moved).err();
        Rebalanced { leaders, error }
    }

    fn move_leaders(
        &self,
        groups: &[String],
        conf: &Configuration,
        leaders: &mut BTreeMap<String, PeerId>,
        moved: &mut impl FnMut(&str, &PeerId, &PeerId),
    ) -> Result<(), CliError> {
        for group in groups {
            leaders.insert(group.clone(), self.get_leader(group, conf)?);
        }
        let share = leaders.len().div_ceil(conf.peers.len().max(1));
        let mut led: BTreeMap<PeerId, usize> = BTreeMap::new();
        for leader in leaders.values() {
            *led.entry(leader.clone()).or_default() += 1;
        }
        // Each transfer brings one group nearer to its place; elections may undo some, but not for ever.
        let mut transfers = groups.len() * conf.peers.len();
        loop {
            let mut undone = false;
            for (group, leader) in leaders.iter_mut() {
                if led.get(leader).is_none_or(|count| *count <= share) || transfers == 0 {
                    continue;
                }
                let alive = self.get_alive_peers(group, conf)?.peers;
                let count = |peer: &PeerId| led.get(peer).copied().unwrap_or_default();
                let below = |peer: &&PeerId| **peer != *leader && conf.contains(peer) && count(peer) < share;
                let Some(target) = alive.iter().filter(below).min_by_key(|peer| count(peer)) else {
                    continue;
                };
                self.transfer_leader(group, conf, Some(target))?;
                transfers -= 1;
                moved(group, leader, target);
                // The target was told to campaign, and somebody else may have won.
                let new = self.leader_after(group, conf, leader)?;
                undone |= new != *target;
                for (peer, change) in [(&*leader, -1), (&new, 1)] {
                    let count = led.entry(peer.clone()).or_default();
                    *count = count.saturating_add_signed(change);
                }
                *leader = new;
            }
            if !undone {
                return Ok(());
            }
        }
    }

    /// The leader of a group that `old` has handed over. Members that have not heard of the new one yet may still name the old.
    fn leader_after(&self, group: &str, conf: &Configuration, old: &PeerId) -> Result<PeerId, CliError> {
        let limit = Instant::now() + SETTLING;
        loop {
            let leader = self.get_leader(group, conf)?;
            if leader != *old || Instant::now() >= limit {
                return Ok(leader);
            }
            std::thread::sleep(PAUSE);
        }
    }
}
