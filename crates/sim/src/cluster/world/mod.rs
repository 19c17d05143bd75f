//! The world: virtual time, the queue of what happens next, and the hosts.
//!
//! It is one whole in several files: each has what the world does in one matter, and what it remembers for it.

mod disk_damage;
mod disk_stage;
mod event;
mod faults;
mod fsm_stage;
mod last_calls;
mod leases;
mod liveness;
mod lives;
mod network;
mod operators;
mod other_cluster;
mod patience;
mod process;
mod readers;
mod replicas;
pub(super) mod run;
mod standstill;
mod strain;
mod strangers;
mod trace;
mod turn;
mod workload;

use std::collections::BTreeSet;
use std::sync::Arc;

use ringraft::{ClusterGate, SinkId};
use ringraft_core::{Mark, Marks};
use rustc_hash::FxHashMap;

use self::event::Event;
use self::last_calls::LastCalls;
use self::lives::Lives;
use self::network::Network;
use self::operators::Operators;
use self::other_cluster::CLUSTER;
use self::patience::{Quiet, Unwritten};
use self::readers::Watch;
use self::standstill::Standstill;
use self::trace::Trace;
use self::workload::Workload;
use crate::checkers::Violation;
use crate::cluster::agenda::Agenda;
use crate::cluster::checks::broken;
use crate::cluster::clock::{HostClock, MS};
use crate::cluster::host::Host;
use crate::cluster::machine::Outbox;
use crate::cluster::oracle::Oracle;
use crate::cluster::plan::Plan;
use crate::cluster::random::Random;
use crate::cluster::{SimOptions, SimReport};

/// A cluster and everything around it.
struct World {
    plan: Plan,
    now: u64,
    agenda: Agenda<Event>,
    random: Random,
    fault_random: Random,
    hosts: Vec<Host>,
    network: Network,
    oracle: Oracle,
    workload: Workload,
    operators: Operators,
    lives: Lives,
    /// The cluster of every host.
    gate: Arc<ClusterGate>,
    watch: Watch,
    outbox: Arc<Outbox>,
    sink: SinkId,
    report: SimReport,
    skip: BTreeSet<u64>,
    /// Faults happen.
    chaos: bool,
    clients_run: bool,
    finished: bool,
    /// When the last phase began, and when every group had a leader in it.
    calm_since: u64,
    led_since: Option<u64>,
    quiet: Option<Quiet>,
    last_calls: LastCalls,
    standstill: Standstill,
    /// Until when no other fault in several acts begins.
    strained: u64,
    /// Until when clients ask nothing of a group.
    hushed: Vec<u64>,
    /// Heartbeats that a leader has sent to a host since that last answered, and since when, by group, leader and host.
    heartbeats: FxHashMap<(usize, usize, usize), (u32, u64)>,
    /// What leaders wait to write, by host and group.
    unwritten: Vec<Vec<Unwritten>>,
    trace: Trace,
    /// Kept from turn to turn so that turns do not allocate.
    scratch_events: Vec<ringraft::handler::LaneEvent>,
    core_marks: [u64; Mark::ALL.len()],
}

impl World {
    fn new(options: &SimOptions) -> World {
        let mut plan = Plan::draw(options);
        let lives = Lives::draw(&mut plan, options.seed);
        let random = Random::new(options.seed);
        let mut clocks = random.fork(3);
        let hosts: Vec<Host> = (0..plan.hosts)
            .map(|number| {
                let ppm = clocks.range(0, 2 * plan.clock_ppm) as i64 - plan.clock_ppm as i64;
                Host::new(number, HostClock::new(clocks.sized(1, 1 << 40), ppm), &plan)
            })
            .collect();
        let peers: Vec<_> = hosts.iter().map(|host| host.peer.clone()).collect();
        let outbox = Arc::new(Outbox::default());
        let mut world = World {
            now: 0,
            agenda: Agenda::new(),
            random: random.fork(2),
            fault_random: random.fork(4),
            network: Network::default(),
            oracle: Oracle::new(&peers, plan.groups.len(), plan.bounds()),
            workload: Workload::new(plan.clients, plan.groups.len()),
            operators: Operators::default(),
            lives,
            gate: Arc::new(ClusterGate::new(CLUSTER, false)),
            watch: Watch::default(),
            sink: SinkId::register(Arc::clone(&outbox) as _),
            outbox,
            report: SimReport { seed: options.seed, ..SimReport::default() },
            skip: options.skip.clone(),
            chaos: true,
            clients_run: true,
            finished: false,
            calm_since: 0,
            led_since: None,
            quiet: None,
            last_calls: LastCalls::default(),
            standstill: Standstill::default(),
            strained: 0,
            hushed: vec![0; plan.groups.len()],
            heartbeats: FxHashMap::default(),
            unwritten: vec![vec![None; plan.groups.len()]; plan.hosts],
            trace: Trace::new(options.trace),
            scratch_events: Vec::new(),
            core_marks: [0; Mark::ALL.len()],
            hosts,
            plan,
        };
        for host in 0..world.plan.hosts {
            let delay = world.random.below(20 * MS);
            world.after(delay, Event::Start(host));
        }
        for client in 0..world.plan.clients {
            let delay = world.random.range(1, 4 * world.plan.election_timeout_ms * MS);
            world.after(delay, Event::Client(client));
        }
        world.start_operators();
        world.start_readers();
        world.start_renewals();
        world.start_other_cluster();
        let gap = world.plan.fault_gap + 2 * world.plan.election_timeout_ms * MS;
        world.after(gap, Event::Fault(0));
        let chaos = world.plan.chaos;
        world.after(chaos, Event::Calm);
        world
    }

    fn at(&mut self, at: u64, event: Event) {
        self.agenda.plan(at.max(self.now), event);
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    fn count(&mut self, fault: &'static str) {
        *self.report.faults.entry(fault).or_default() += 1;
    }

    fn mark(&mut self, mark: &'static str) {
        *self.report.marks.entry(mark).or_default() += 1;
    }

    /// Counts branches that a turn's steps took.
    fn core_marks(&mut self, marks: Marks) {
        if !marks.is_empty() {
            marks.iter().for_each(|mark| self.core_marks[mark as usize] += 1);
        }
    }

    /// Writes the core's marks into the report.
    fn report_core_marks(&mut self) {
        for mark in Mark::ALL {
            let count = std::mem::take(&mut self.core_marks[mark as usize]);
            if count > 0 {
                *self.report.marks.entry(mark.name()).or_default() += count;
            }
        }
    }

    /// Runs until everything is over.
    ///
    /// # Errors
    /// A rule that was broken.
    fn run(&mut self) -> Result<(), Violation> {
        while !self.finished {
            let Some((at, order, event)) = self.agenda.next() else {
                return Err(broken("liveness", "nothing happens any more"));
            };
            self.now = at;
            let hash = self.report.trace_hash ^ at.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ order;
            self.report.trace_hash = hash.rotate_left(9).wrapping_mul(0xA24B_AED4_963E_E407);
            self.happen(event)?;
            if self.chaos && self.report.events > self.plan.budget {
                self.calm()?;
            }
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Turn(host, life) => self.turn(host, life),
            Event::Write(host, life) => self.write(host, life),
            Event::Synced(host, life) => self.write_done(host, life),
            Event::Apply(host, life, worker) => self.apply(host, life, worker),
            Event::Read(host, life) => self.read(host, life),
            Event::Deliver(connection, direction, frame) => {
                self.report.events += 1;
                self.deliver(connection, direction, *frame);
                Ok(())
            }
            Event::Connect { host, life, link, endpoint, class } => {
                self.connect(host, life, link, endpoint, class);
                Ok(())
            }
            Event::Close(connection, client_end) => {
                self.report.events += 1;
                self.close(connection, client_end);
                Ok(())
            }
            Event::Heal(ways) => {
                self.heal(&ways);
                Ok(())
            }
            Event::Sweep(host, life) => {
                self.sweep(host, life);
                Ok(())
            }
            Event::Client(client) => self.client(client),
            Event::Fault(number) => {
                self.report.events += 1;
                self.fault(number);
                self.drain_outcomes()
            }
            Event::HinderLeader { group, near, last, random } => {
                self.hinder_leader(group, &near, last, random);
                Ok(())
            }
            Event::LoseLeader { group, random } => {
                self.report.events += 1;
                self.lose_leader(group, random);
                self.drain_outcomes()
            }
            Event::Act(act) => {
                self.report.events += 1;
                self.act(act);
                self.drain_outcomes()
            }
            Event::Readers => self.readers(),
            Event::Vouch(host, life, batches) => self.vouch(host, life, batches),
            Event::Told(host, life) => {
                self.told(host, life);
                Ok(())
            }
            Event::Start(host) => {
                self.report.events += 1;
                self.start(host)?;
                self.drain_outcomes()
            }
            Event::Replace(host, life) => {
                if self.hosts[host].life == life {
                    let mut r = self.random.fork(self.now ^ 99);
                    let power = r.chance(400).then(|| r.next());
                    let away = r.sized(1, self.plan.election_timeout_ms * MS);
                    self.crash(host, power, away, &mut r);
                }
                self.drain_outcomes()
            }
            Event::DiskRoom(host) => {
                self.hosts[host].disk.limit_bytes(None);
                self.hosts[host].disk_full = false;
                Ok(())
            }
            Event::Operator => self.operator(),
            Event::OtherCluster => self.other_cluster_speaks(),
            Event::Renew(number) => {
                self.renew(number);
                Ok(())
            }
            Event::Move(number, host) => {
                self.move_on(number, host)?;
                self.drain_outcomes()
            }
            Event::Calm => self.calm(),
            Event::Check => self.check_rest(),
            Event::Standstill => self.standstill(),
        }
    }

    /// Requests that have waited for long are given up by the transport.
    fn sweep(&mut self, host: usize, life: u32) {
        if self.hosts[host].life != life {
            return;
        }
        let patience = 2 * self.plan.rpc_timeout_ms * MS;
        let limit = self.now.saturating_sub(patience);
        if let Some(transport) = self.transport(host) {
            let now = self.now;
            transport.set_now(now);
            let expired = transport.expire(limit);
            let any = !expired.is_empty();
            let failed = expired
                .into_iter()
                .map(|context| crate::cluster::host::Arrival::Failed(context, "no answer came"));
            self.hosts[host].arrivals.extend(failed);
            if any {
                self.wake(host, 0);
            }
            self.after(patience / 2, Event::Sweep(host, life));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Whoever still waits is told while there is somebody to tell.
        self.hosts.clear();
        self.sink.unregister();
    }
}
