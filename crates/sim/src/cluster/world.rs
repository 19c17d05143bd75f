//! The world: virtual time, the queue of what happens next, and the hosts.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;

use ringraft::{ClusterGate, SinkId};
use ringraft_core::{Mark, Marks};
use ringraft_net::{ConnectionClass, Endpoint, LinkId};
use ringraft_proto::Frame;
use rustc_hash::FxHashMap;

use super::clock::HostClock;
use super::host::Host;
use super::last_calls::LastCalls;
use super::lives::Lives;
use super::machine::Outbox;
use super::network::Network;
use super::operators::Operators;
use super::oracle::Oracle;
use super::other_cluster::CLUSTER;
use super::patience::{Quiet, Unwritten};
use super::plan::{MS, Plan};
use super::random::Random;
use super::readers::Watch;
use super::standstill::Standstill;
use super::strain::Act;
use super::trace::Trace;
use super::transport::ConnectionId;
use super::workload::Workload;
use super::{SimOptions, SimReport};
use crate::checkers::Violation;

/// What happens at some moment. Those of a process carry its life and come to nothing in a later one.
pub(super) enum Event {
    Turn(usize, u32),
    Write(usize, u32),
    Synced(usize, u32),
    /// No batch may have come since that many batches.
    Vouch(usize, u32, u64),
    /// A worker applies.
    Apply(usize, u32, usize),
    Read(usize, u32),
    Deliver(ConnectionId, usize, Box<Frame>),
    Connect {
        host: usize,
        life: u32,
        link: LinkId,
        endpoint: Endpoint,
        class: ConnectionClass,
    },
    Close(ConnectionId, bool),
    Heal(Vec<(usize, usize)>),
    /// Requests that nobody answered are given up.
    Sweep(usize, u32),
    Client(usize),
    Fault(u64),
    Start(usize),
    /// Some of those who hear the leader of a group get slow; soon it is lost.
    HinderLeader {
        group: usize,
        near: Vec<usize>,
        last: u64,
        random: Random,
    },
    /// The leader of a group, whoever it is by then, is lost.
    LoseLeader {
        group: usize,
        random: Random,
    },
    /// The next act of a fault.
    Act(Act),
    /// Readers look for somebody to ask.
    Readers,
    /// A disk stage tells the lane what is durable.
    Told(usize, u32),
    /// An operator ends a process whose store has failed.
    Replace(usize, u32),
    DiskRoom(usize),
    Operator,
    /// Somebody of another cluster speaks.
    OtherCluster,
    /// A group is to be removed and made anew.
    Renew(usize),
    /// A host goes on with that.
    Move(usize, usize),
    Calm,
    Check,
    /// A trial of a worker that stands still goes on.
    Standstill,
}

/// A cluster and everything around it.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    slots: Vec<Option<Event>>,
    free: Vec<usize>,
    order: u64,
    pub(super) random: Random,
    pub(super) fault_random: Random,
    pub(super) hosts: Vec<Host>,
    pub(super) network: Network,
    pub(super) oracle: Oracle,
    pub(super) workload: Workload,
    pub(super) operators: Operators,
    pub(super) lives: Lives,
    /// The cluster of every host.
    pub(super) gate: Arc<ClusterGate>,
    pub(super) watch: Watch,
    pub(super) outbox: Arc<Outbox>,
    pub(super) sink: SinkId,
    pub(super) report: SimReport,
    pub(super) skip: BTreeSet<u64>,
    /// Faults happen.
    pub(super) chaos: bool,
    pub(super) clients_run: bool,
    pub(super) finished: bool,
    /// When the last phase began, and when every group had a leader in it.
    pub(super) calm_since: u64,
    pub(super) led_since: Option<u64>,
    pub(super) quiet: Option<Quiet>,
    pub(super) last_calls: LastCalls,
    pub(super) standstill: Standstill,
    /// Until when no other fault in several acts begins.
    pub(super) strained: u64,
    /// Until when clients ask nothing of a group.
    pub(super) hushed: Vec<u64>,
    /// Heartbeats that a leader has sent to a host since that last answered, and since when, by group, leader and host.
    pub(super) heartbeats: FxHashMap<(usize, usize, usize), (u32, u64)>,
    /// What leaders wait to write, by host and group.
    pub(super) unwritten: Vec<Vec<Unwritten>>,
    pub(super) trace: Trace,
    /// Kept from turn to turn so that turns do not allocate.
    pub(super) scratch_events: Vec<ringraft::handler::LaneEvent>,
    core_marks: [u64; Mark::ALL.len()],
}

/// A rule that a world found broken.
pub(super) fn broken(checker: &'static str, message: impl Into<String>) -> Violation {
    Violation { checker, message: message.into() }
}

impl World {
    pub(super) fn new(options: &SimOptions) -> World {
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
            queue: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            order: 0,
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

    pub(super) fn at(&mut self, at: u64, event: Event) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        self.slots[slot] = Some(event);
        self.order += 1;
        self.queue.push(Reverse((at.max(self.now), self.order, slot)));
    }

    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(super) fn count(&mut self, fault: &'static str) {
        *self.report.faults.entry(fault).or_default() += 1;
    }

    pub(super) fn mark(&mut self, mark: &'static str) {
        *self.report.marks.entry(mark).or_default() += 1;
    }

    /// Counts branches that a turn's steps took.
    pub(super) fn core_marks(&mut self, marks: Marks) {
        if !marks.is_empty() {
            marks.iter().for_each(|mark| self.core_marks[mark as usize] += 1);
        }
    }

    /// Writes the core's marks into the report.
    pub(super) fn report_core_marks(&mut self) {
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
    pub(super) fn run(&mut self) -> Result<(), Violation> {
        while !self.finished {
            let Some(Reverse((at, order, slot))) = self.queue.pop() else {
                return Err(broken("liveness", "nothing happens any more"));
            };
            let Some(event) = self.slots[slot].take() else { continue };
            self.free.push(slot);
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
            let failed =
                expired.into_iter().map(|context| super::network::Arrival::Failed(context, "no answer came"));
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
