//! Reads, changes of members, transfers, forced members.

use ringraft_core::{Configuration, MembershipChange, NodeImpl, NodeState, PeerId, ReadOnlyOption};
use ringraft_sim::script::{Link, NodeName, Settings, World, WorldError};

use crate::Run;
use crate::random::Random;

/// Nodes that belong to no group at first.
const SPARES: [NodeName; 2] = [11, 12];

/// What a seed does besides writing.
pub(crate) struct Calls {
    /// Whether voters promise leases; then clocks run at nearly the same rate.
    pub(crate) leases: bool,
    /// Microseconds of a node's clock in a millisecond, by its number modulo the length.
    rates: [u64; 4],
    /// Whether all but one are lost at the end.
    disaster: bool,
    /// A leader that is cut off and stands still, while the others go on.
    pub(crate) stranded: Option<NodeName>,
    /// What the seed's trouble is after that; nothing else.
    trouble: u64,
}

impl Calls {
    pub(crate) fn new(random: &mut Random, settings: &mut Settings) -> Calls {
        let leases = random.chance(60);
        settings.lease_reads = leases;
        settings.catchup_margin = [1, 4, 1000][random.below(3) as usize];
        settings.read_index_timeout_ms = [100, 2000][random.below(2) as usize];
        settings.max_pending_reads = [2, 1000][random.below(2) as usize];
        // A lease is 90 percent of the promise: rates may differ by less than 10.
        let rates = std::array::from_fn(|_| 970 + random.below(61));
        Calls { leases, rates, disaster: random.chance(15), stranded: None, trouble: 0 }
    }

    /// Microseconds of this node's clock in a millisecond.
    pub(crate) fn rate(&self, name: NodeName) -> u64 {
        self.rates[name as usize % self.rates.len()]
    }
}

/// Adds nodes that wait to be told of a group.
pub(crate) fn add_spares(world: &mut World) {
    for name in SPARES {
        world.add_node(name, Configuration::default()).expect("fresh nodes start");
    }
}

fn peer(world: &World, name: NodeName) -> Result<PeerId, WorldError> {
    Ok(world.node(name)?.options().server_id.clone())
}

impl Run {
    /// One random call. Most are made where they can succeed.
    pub(crate) fn call(&mut self) -> Result<(), WorldError> {
        let running = self.running();
        let leads = |n: &NodeName| self.world.node(*n).is_ok_and(NodeImpl::is_leader);
        let leaders: Vec<NodeName> = running.iter().copied().filter(leads).collect();
        let pool = if leaders.is_empty() || self.random.chance(10) { &running } else { &leaders };
        let Some(name) = self.random.pick(pool) else { return Ok(()) };
        match self.random.below(100) {
            0..30 => self.read(name),
            30..60 => match self.random.pick(&running) {
                Some(any) => self.read(any),
                None => Ok(()),
            },
            60..85 => self.change(name),
            85..97 => {
                self.stats.transfers += 1;
                let to = if self.random.chance(70) { self.random.pick(&self.world.names()) } else { None };
                self.world.transfer(name, to)
            }
            _ => {
                // What is in force already: nothing happens.
                let conf = self.world.node(name)?.configuration();
                if conf.is_joint() || conf.conf.is_empty() {
                    Ok(())
                } else {
                    self.world.reset_peers(name, conf.conf.clone())
                }
            }
        }
    }

    /// Now and then a leader is cut off and stands still for some time: what was on its way to it still comes, and reads are asked of
    /// it while the others elect another. Gives what happens instead of something else, if so.
    pub(crate) fn strand_a_leader(&mut self) -> Option<Result<(), WorldError>> {
        let stranded = self.calls.as_ref()?.stranded;
        match stranded {
            Some(name) if self.random.below(500) == 0 || !self.world.is_running(name) => {
                self.isolate(name, false);
            }
            Some(name) => {
                return match self.random.below(100) {
                    0..8 => Some(self.read(name)),
                    8..16 => Some(self.propose()),
                    _ => None,
                };
            }
            None if self.trouble > 0 && self.random.below(200) == 0 => {
                let leads = |n: &NodeName| self.world.node(*n).is_ok_and(NodeImpl::is_leader);
                let leaders: Vec<NodeName> = self.running().into_iter().filter(leads).collect();
                if let Some(name) = self.random.pick(&leaders) {
                    self.isolate(name, true);
                }
            }
            None => {}
        }
        None
    }

    fn isolate(&mut self, name: NodeName, cut: bool) {
        for other in self.world.names() {
            for link in [Link { from: name, to: other }, Link { from: other, to: name }] {
                match cut {
                    true => self.world.network_mut().cut(link),
                    false => self.world.network_mut().heal(link),
                }
            }
        }
        if let Some(calls) = &mut self.calls {
            calls.stranded = cut.then_some(name);
            // Nothing else goes wrong meanwhile: the others are to get far.
            std::mem::swap(&mut self.trouble, &mut calls.trouble);
        }
    }

    fn read(&mut self, name: NodeName) -> Result<(), WorldError> {
        let mode = if self.random.chance(60) { ReadOnlyOption::LeaseBased } else { ReadOnlyOption::Safe };
        let count = 1 + self.random.below(3);
        self.stats.reads += count;
        self.world.read(name, count as usize, mode)
    }

    fn change(&mut self, name: NodeName) -> Result<(), WorldError> {
        self.stats.changes += 1;
        let names: Vec<NodeName> = self.running();
        let some = |run: &mut Run, percent| -> Vec<PeerId> {
            let chosen: Vec<NodeName> =
                names.iter().copied().filter(|_| run.random.chance(percent)).collect();
            chosen.into_iter().filter_map(|n| peer(&run.world, n).ok()).collect()
        };
        let Some(one) = self.random.pick(&names) else { return Ok(()) };
        let one = peer(&self.world, one)?;
        let change = match self.random.below(10) {
            0..4 => MembershipChange::AddPeer(one),
            4..6 => MembershipChange::RemovePeer(one),
            6..8 => MembershipChange::ChangePeers(Configuration::of_peers(some(self, 60))),
            8 => MembershipChange::AddLearners(some(self, 20)),
            _ => MembershipChange::ResetLearners(some(self, 20)),
        };
        self.world.change(name, change, None)
    }

    /// In some seeds all nodes but one are lost for good, one that has everything that was committed; it is forced to be the
    /// only member, and fresh ones are added. Gives its number.
    pub(crate) fn lose_the_majority(&mut self) -> Result<Option<NodeName>, String> {
        if !self.calls.as_ref().is_some_and(|calls| calls.disaster) {
            return Ok(None);
        }
        let text = |e: WorldError| e.to_string();
        let all = self.world.names();
        let standing =
            |n: &NodeName| self.world.node(*n).ok().map(|n| (n.term(), n.last_log_id(), n.state()));
        let running: Vec<_> = all.iter().filter_map(|n| standing(n).map(|s| (*n, s))).collect();
        // An operator takes the one with the longest log and the highest term, if one has both and all are there to compare.
        let last = running.iter().map(|(_, (_, last, _))| *last).max();
        let term = running.iter().map(|(_, (term, ..))| *term).max();
        let best = running
            .iter()
            .find(|(_, (t, l, state))| Some(*t) == term && Some(*l) == last && state.is_active());
        let Some((survivor, _)) = best.copied().filter(|_| running.len() == all.len()) else {
            return Ok(None);
        };
        if running.iter().any(|(_, (.., state))| *state == NodeState::Error) {
            return Ok(None);
        }
        let lost: Vec<PeerId> = all.iter().filter_map(|n| peer(&self.world, *n).ok()).collect();
        self.trouble = 0;
        for name in &all {
            self.partition(*name);
            if *name != survivor {
                self.world.crash(*name).map_err(text)?;
            }
        }
        self.world.automatic(None, |a| (a.persist, a.apply, a.read) = (true, true, true)).map_err(text)?;
        let only = peer(&self.world, survivor).map_err(text)?;
        self.stats.forced += 1;
        let fresh = [21, 22];
        for name in fresh {
            self.world.add_node(name, Configuration::default()).map_err(text)?;
        }
        for _ in 0..6_000 {
            for name in [survivor].into_iter().chain(fresh) {
                self.world.tick(name, 10).map_err(text)?;
            }
            self.world.stabilize(&[]).map_err(text)?;
            self.check()?;
            let node = self.world.node(survivor).map_err(text)?;
            if node.configuration().voters().any(|voter| *voter != only && lost.contains(voter)) {
                // At first, and again when it was refused because this leader is changing members.
                let conf = Configuration::of_peers(vec![only.clone()]);
                self.world.reset_peers(survivor, conf).map_err(text)?;
                continue;
            }
            if self.world.open_calls(survivor) > 0
                || !node.is_leader()
                || node.committed_index() < node.last_log_id().index
            {
                continue;
            }
            let missing = fresh.into_iter().filter_map(|n| peer(&self.world, n).ok());
            let missing = missing.filter(|p| !node.configuration().conf.contains(p));
            match missing.collect::<Vec<_>>().first() {
                Some(next) => {
                    self.world
                        .change(survivor, MembershipChange::AddPeer(next.clone()), None)
                        .map_err(text)?;
                }
                None if self.converged() => return Ok(Some(survivor)),
                None => {}
            }
        }
        let node = self.world.node(survivor).map_err(text)?;
        Err(format!("the survivor does not come to lead the others\n{}", node.describe()))
    }
}
