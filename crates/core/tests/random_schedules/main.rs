//! Random schedules under the safety checkers: loss, duplication, reordering, partitions, crashes, disks that complete
//! late, lose what is in flight or fail. Every other seed also reads, by quorum and by lease, changes members, moves
//! leaders and forces members. Afterwards everything heals and the group must come together, with every call ended.
//!
//! A failure prints its seed and the end of its trace; `SEED=n cargo test -p ringraft-core --test random_schedules` runs
//! that one alone, `SEEDS=n` n of them, from `START=s` on. With `--features mutants`, `MUTANT=name` puts a known bug back in.
#![allow(clippy::disallowed_methods)] // reads the environment, as tests may

mod calls;
mod random;

use std::panic::{AssertUnwindSafe, catch_unwind};

use calls::Calls;
use random::Random;
use ringraft_core::{NodeImpl, NodeState};
use ringraft_sim::script::{Filter, Link, NodeName, ReadAnswer, World, WorldError};

/// What a run did, to see that runs do something.
#[derive(Clone, Copy, Debug, Default)]
struct Stats {
    steps: u64,
    terms: u64,
    commits: u64,
    crashes: u64,
    reads: u64,
    changes: u64,
    transfers: u64,
    forced: u64,
}

struct Run {
    world: World,
    random: Random,
    /// How often things go wrong, in percent; drawn for each seed.
    trouble: u64,
    proposed: u64,
    stats: Stats,
    /// Reads and what operators do, in every other seed.
    calls: Option<Calls>,
}

impl Run {
    fn new(seed: u64, trace: bool) -> Run {
        let mut random = Random(seed);
        let mut world = if trace { World::new() } else { World::without_trace() };
        let s = &mut world.settings;
        s.max_entries_size = 1 + random.below(4) as usize;
        s.max_body_size = [1, 5, 1000][random.below(3) as usize];
        s.max_tail_bytes = [1, 200, 1 << 20][random.below(3) as usize];
        s.max_replicator_inflight_msgs = 1 + random.below(4) as usize;
        s.max_unstable_entries = [2, 8, 1000][random.below(3) as usize];
        s.max_unapplied_entries = [4, 1000][random.below(2) as usize];
        s.step_down_when_vote_timedout = random.chance(50);
        s.max_election_delay_ms = [100, 300, 1000][random.below(3) as usize];
        s.rpc_default_timeout_ms = [300, 5000][random.below(2) as usize];
        s.max_unapplied_bytes = [1, 500, 64 << 20][random.below(3) as usize];
        let calls = (seed % 2 == 1).then(|| Calls::new(&mut random, &mut world.settings));
        let voters: Vec<NodeName> = (1..=3 + random.below(3) as NodeName).collect();
        let learners: &[NodeName] = if random.chance(30) { &[9] } else { &[] };
        let trouble = [0, 2, 10, 30][random.below(4) as usize];
        world.add_nodes(&voters, learners).expect("fresh nodes start");
        if calls.is_some() {
            calls::add_spares(&mut world);
        }
        let mut run = Run { world, random, trouble, proposed: 0, stats: Stats::default(), calls };
        for name in run.world.names() {
            let (persist, apply, read) =
                (run.random.chance(40), run.random.chance(60), run.random.chance(60));
            let changed = run.world.automatic(Some(name), |a| {
                (a.persist, a.apply, a.read) = (persist, apply, read);
            });
            changed.expect("the node exists");
        }
        run
    }

    fn running(&self) -> Vec<NodeName> {
        self.world.names().into_iter().filter(|n| self.world.is_running(*n)).collect()
    }

    /// One random event. What is impossible just now is no event.
    fn event(&mut self) -> Result<(), WorldError> {
        if self.calls.is_some() {
            if let Some(event) = self.strand_a_leader() {
                return event;
            }
            if self.random.chance(8) {
                return self.call();
            }
        }
        let roll = self.random.below(100);
        if roll < 55 {
            return self.message();
        }
        let running = self.running();
        let Some(name) = self.random.pick(&running) else { return self.restart() };
        match roll {
            55..70 => {
                let ms = [1, 10, 50, 100, 100, 500, 1500][self.random.below(7) as usize];
                self.pass_time(name, ms)
            }
            70..80 => self.propose(),
            80..90 => {
                let writes = 1 + self.random.below(3) as usize;
                self.world.persist(name, writes)
            }
            90..92 => self.world.applied(name, None),
            92..94 => {
                let answers = [ReadAnswer::Good, ReadAnswer::Good, ReadAnswer::OneMore, ReadAnswer::Fails];
                let bad = if self.random.chance(self.trouble) { 4 } else { 2 };
                // A failed read of what is to be applied ends the node, and that is right.
                self.world.answer_read(name, answers[self.random.below(bad) as usize])
            }
            94..96 => self.restart(),
            96..98 if self.random.chance(self.trouble * 2) => {
                self.stats.crashes += 1;
                self.world.crash(name)
            }
            98 if self.random.chance(self.trouble) => self.world.fail_disk(name),
            99 if self.random.chance(20 + self.trouble) => {
                self.partition(name);
                Ok(())
            }
            _ => {
                let names = self.world.names();
                let peer = self.random.pick(&names).unwrap_or(name);
                self.world.connect(name, peer)
            }
        }
    }

    /// Cuts one node off, in one direction or both, or ends every cut.
    fn partition(&mut self, name: NodeName) {
        let (cut, inward, outward) =
            (self.random.chance(self.trouble * 2), self.random.chance(70), self.random.chance(70));
        for from in self.world.names() {
            for to in self.world.names() {
                let link = Link { from, to };
                if !cut {
                    self.world.network_mut().heal(link);
                } else if (inward && to == name) || (outward && from == name) {
                    self.world.network_mut().cut(link);
                }
            }
        }
    }

    fn message(&mut self) -> Result<(), WorldError> {
        let links = self.world.network().busy_links();
        let Some(link) = self.random.pick(&links) else { return Ok(()) };
        let queued = self.world.network().queued(link).count() as u64;
        let skip = if self.random.chance(self.trouble) { self.random.below(queued) as usize } else { 0 };
        let filter = Filter { skip, count: Some(1), ..Filter::default() };
        if !self.random.chance(self.trouble) {
            return self.world.deliver(link, filter).map(drop);
        }
        match self.random.below(3) {
            0 => drop(self.world.drop_messages(link, filter)),
            1 if queued < 20 => drop(self.world.duplicate(link, filter)),
            _ => return self.world.break_connection(link, filter).map(drop),
        }
        Ok(())
    }

    fn propose(&mut self) -> Result<(), WorldError> {
        let leaders: Vec<NodeName> =
            self.running().into_iter().filter(|n| self.world.node(*n).is_ok_and(|n| n.is_leader())).collect();
        let Some(leader) = self.random.pick(&leaders) else { return Ok(()) };
        let payloads: Vec<Vec<u8>> = (0..=self.random.below(5))
            .map(|_| {
                self.proposed += 1;
                format!("p{}", self.proposed).into_bytes()
            })
            .collect();
        self.world.propose(leader, &payloads)
    }

    fn restart(&mut self) -> Result<(), WorldError> {
        let failed = |n: &NodeName| self.world.node(*n).is_ok_and(|n| n.state() == NodeState::Error);
        if let Some(name) = self.running().into_iter().find(failed) {
            self.world.crash(name)?;
        }
        let down: Vec<NodeName> =
            self.world.names().into_iter().filter(|n| !self.world.is_running(*n)).collect();
        let Some(name) = self.random.pick(&down) else { return Ok(()) };
        let kept = [0, 1, usize::MAX][self.random.below(3) as usize];
        self.world.restart(name, kept)
    }

    /// Clocks of their own that know nothing of each other; with leases, clocks that differ in their rates a little.
    fn pass_time(&mut self, name: NodeName, ms: u64) -> Result<(), WorldError> {
        let stranded = self.calls.as_ref().and_then(|calls| calls.stranded);
        let Some(calls) = self.calls.as_ref().filter(|calls| calls.leases) else {
            return if stranded == Some(name) { Ok(()) } else { self.world.tick(name, ms) };
        };
        for other in self.world.names() {
            self.world.pause_micros(other, ms * calls.rate(other))?;
        }
        // Who is told later has stood still for so long.
        for other in self.running() {
            if stranded != Some(other) && (other == name || self.random.chance(70)) {
                self.world.tick(other, 0)?;
            }
        }
        Ok(())
    }

    /// Everything works again: within a minute of virtual time there is one leader and equal state machines.
    fn heal(&mut self) -> Result<(), String> {
        let text = |e: WorldError| e.to_string();
        self.trouble = 0;
        if let Some(calls) = &mut self.calls {
            calls.stranded = None;
        }
        for name in self.world.names() {
            self.partition(name);
            let failed = self.world.node(name).is_ok_and(|n| n.state() == NodeState::Error);
            if failed {
                self.world.crash(name).map_err(text)?;
            }
            if !self.world.is_running(name) {
                self.world.restart(name, usize::MAX).map_err(text)?;
            }
        }
        self.world.automatic(None, |a| (a.persist, a.apply, a.read) = (true, true, true)).map_err(text)?;
        let names = self.world.names();
        for _ in 0..6_000 {
            for name in &names {
                self.world.tick(*name, 10).map_err(text)?;
            }
            self.check()?;
            self.world.stabilize(&[]).map_err(text)?;
            if self.converged() {
                return Ok(());
            }
        }
        let shown: Vec<String> =
            names.iter().filter_map(|n| self.world.node(*n).ok()).map(|n| n.describe().to_string()).collect();
        Err(format!("the group does not come together\n{}", shown.join("\n")))
    }

    fn converged(&self) -> bool {
        let names = self.world.names();
        let nodes: Vec<_> = names.iter().filter_map(|n| self.world.node(*n).ok()).collect();
        let leads =
            |n: &&&NodeImpl| n.is_leader() && n.term() == nodes.iter().map(|n| n.term()).max().unwrap_or(0);
        let Some(leader) = nodes.iter().find(leads) else { return false };
        let conf = leader.configuration();
        let member = |n: &&&NodeImpl| {
            conf.conf.peers.iter().chain(&conf.conf.learners).any(|p| *p == n.options().server_id)
        };
        // Who is no member any more may never hear of it.
        !conf.is_joint()
            && names.iter().all(|n| self.world.open_calls(*n) == 0)
            && nodes.iter().filter(member).all(|n| {
                n.term() == leader.term()
                    && n.leader_id() == leader.leader_id()
                    && n.applied_index() == leader.last_log_id().index
            })
    }

    fn go(&mut self, steps: u64) -> Result<(), String> {
        for _ in 0..steps {
            match self.event() {
                Ok(()) | Err(WorldError::Nothing(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
            self.stats.steps += 1;
            self.check()?;
        }
        let leader = match self.lose_the_majority()? {
            Some(survivor) => survivor,
            None => {
                self.heal()?;
                let leads = |n: &NodeName| self.world.node(*n).is_ok_and(NodeImpl::is_leader);
                self.world.names().into_iter().find(leads).ok_or("nobody leads")?
            }
        };
        self.check()?;
        // Also who was a member once has a part of it.
        let whole = &self.world.fsm(leader).map_err(|e| e.to_string())?.data;
        let differs = |n: NodeName| self.world.fsm(n).is_ok_and(|fsm| !whole.starts_with(&fsm.data));
        if let Some(name) = self.world.names().into_iter().find(|n| differs(*n)) {
            return Err(format!("the state machines of {leader} and {name} differ"));
        }
        let node = self.world.node(leader).map_err(|e| e.to_string())?;
        (self.stats.terms, self.stats.commits) = (node.term(), node.committed_index());
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        self.world.violation().map_or(Ok(()), |v| Err(v.to_string()))
    }
}

/// Runs a seed; a failure comes with the end of the trace of a second, equal run.
fn run(seed: u64, steps: u64) -> Stats {
    let attempt = |trace: bool| {
        let mut run = Run::new(seed, trace);
        let result = catch_unwind(AssertUnwindSafe(|| run.go(steps)));
        (run, result.unwrap_or_else(|_| Err("a panic, see above".to_owned())))
    };
    let (first, result) = attempt(false);
    if let Err(failure) = result {
        let (mut again, repeated) = attempt(true);
        let trace = again.world.take_trace();
        let end = trace[trace.len().saturating_sub(120)..].join("\n");
        panic!("SEED={seed}: {failure}\nagain: {:?}\n{end}", repeated.err().is_some());
    }
    first.stats
}

#[test]
fn random_schedules_keep_every_rule() {
    // With a known bug put back in: the rules must find it.
    #[cfg(feature = "mutants")]
    if let Ok(name) = std::env::var("MUTANT") {
        let mutant =
            ringraft_core::Mutant::named(&name).unwrap_or_else(|| panic!("there is no mutant {name}"));
        ringraft_core::mutants::choose(Some(mutant));
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    if let Some(seed) = number("SEED") {
        eprintln!("{:?}", run(seed, 3_000));
        return;
    }
    let mut total = Stats::default();
    let start = number("START").unwrap_or(0);
    for seed in start..start + number("SEEDS").unwrap_or(400) {
        let stats = run(seed, 3_000);
        total.steps += stats.steps;
        total.terms += stats.terms;
        total.commits += stats.commits;
        total.crashes += stats.crashes;
        total.reads += stats.reads;
        total.changes += stats.changes;
        total.transfers += stats.transfers;
        total.forced += stats.forced;
    }
    eprintln!("{total:?}");
    let calls = [total.reads, total.changes, total.transfers, total.forced];
    assert!(calls.iter().all(|n| *n > 0), "no calls were made: {total:?}");
    assert!(total.commits > 1_000 && total.terms > 200 && total.crashes > 100, "nothing happened: {total:?}");
}

/// The same seed has the same trace.
#[test]
fn a_run_can_be_repeated() {
    let traces: Vec<Vec<String>> = (0..2)
        .map(|_| {
            let mut run = Run::new(7, true);
            run.go(500).expect("seed 7 is fine");
            run.world.take_trace()
        })
        .collect();
    assert!(traces[0].len() > 500);
    assert_eq!(traces[0], traces[1]);
}

/// The links of a world are named by its nodes.
#[test]
fn messages_to_nobody_are_refused() {
    let mut world = World::new();
    world.add_nodes(&[1], &[]).expect("a fresh node starts");
    assert_eq!(world.deliver(Link { from: 1, to: 2 }, Filter::default()), Ok(0));
    assert_eq!(world.tick(2, 10), Err(WorldError::UnknownNode(2)));
}
