//! Processes begin over what their disks hold, and end.

use std::collections::VecDeque;
use std::sync::Arc;

use ringraft::handler::{
    Control, LaneEvent, LaneOutput, LogEntryAndClosureHandler, ProgressBoard, StableClosureEventHandler,
    WriteQueue,
};
use ringraft::rpc::{LaneSink, Outbox as Dispatcher, Processors, RoutingTable, UserProcessors};
use ringraft_core::{CoreOptions, RaftError, Status};
use ringraft_storage::{SegmentLog, StorageError};
use rustc_hash::FxHashMap;

use super::World;
use super::event::Event;
use crate::checkers::Violation;
use crate::cluster::checks::{Answers, broken};
use crate::cluster::clock::MS;
use crate::cluster::host::{Process, Store, WORKERS};
use crate::cluster::plan::StoreKind;
use crate::cluster::random::Random;
use crate::cluster::transport::SimTransport;

impl World {
    pub(super) fn transport(&self, host: usize) -> Option<Arc<SimTransport>> {
        self.hosts[host].process.as_ref().map(|process| Arc::clone(&process.transport))
    }

    /// Starts the process of a host over whatever its disk holds.
    pub(super) fn start(&mut self, host: usize) -> Result<(), Violation> {
        if self.hosts[host].process.is_some() || self.hosts[host].left_dead {
            return Ok(());
        }
        self.hosts[host].returning = false;
        self.hosts[host].replacing = false;
        // A read that lies once passes for a torn tail when a store is opened (`docs/testing.md`).
        self.hosts[host].disk.corrupt_read_after(None);
        let opened = match &self.plan.store {
            StoreKind::Memory => {
                let store = self.hosts[host].memory.take().unwrap_or_default();
                Ok(Store::Memory(store.reopen()))
            }
            StoreKind::Segment(options) => {
                let disk = Arc::new(self.hosts[host].disk.clone());
                SegmentLog::open(disk, options.clone()).map(|log| Store::Segment(Box::new(log)))
            }
        };
        // A file that is prepared for later may be what the power went with; the store was open by then.
        let opened = match opened {
            Ok(_) if self.hosts[host].power_is_off() => {
                Err(StorageError::Poisoned("the power went while the store was opened".to_owned()))
            }
            opened => opened,
        };
        let damaged = self.is_damaged(host);
        let started = opened.and_then(|store| self.open_process(host, store));
        match started {
            Ok(Ok(())) => {
                if damaged {
                    self.mark("damaged store started");
                }
                Ok(())
            }
            Ok(Err(_)) if damaged && self.hosts[host].proof.may_miss(&self.hosts[host].disk) => {
                self.refused(host, "damage of the last batch passes for a torn write");
                self.drain_outcomes()
            }
            Ok(Err(violation)) => Err(violation),
            Err(StorageError::Damaged { .. }) if damaged => {
                self.refused(host, "damaged store refused");
                self.drain_outcomes()
            }
            Err(error) => self.start_failed(host, &error),
        }
    }

    /// The store could not be opened: with a fault that explains it the host tries again later.
    fn start_failed(&mut self, host: usize, error: &StorageError) -> Result<(), Violation> {
        self.note(|| format!("host {host} cannot start: {error}"));
        let mut r = self.random.fork(self.now);
        let io = matches!(error, StorageError::Io { .. } | StorageError::Poisoned(_));
        let explained = self.hosts[host].power_is_off() || self.hosts[host].disk_suspect;
        if !io || !explained {
            return Err(broken("recovery", format!("host {host} cannot open its store: {error}")));
        }
        if self.hosts[host].power_is_off() {
            self.mark("power cut inside recovery");
        }
        let power = self.hosts[host].power_is_off().then(|| r.next());
        let away = r.sized(MS, self.plan.election_timeout_ms * MS);
        self.crash(host, power, away, &mut r);
        Ok(())
    }

    pub(super) fn core_options(&self, group: usize, host: usize) -> CoreOptions {
        let plan = &self.plan;
        let conf = self.initial_conf(group, host);
        let mut options = CoreOptions::new(self.lives.group_id(group), self.hosts[host].peer.clone(), conf);
        options.rejoin = self.rejoins(group, host);
        options.lease_reads = plan.operators.lease_reads;
        options.read_index_timeout_ms = plan.rpc_timeout_ms;
        options.catchup_margin = plan.operators.catchup_margin;
        options.disk_stall_timeout_ms = plan.operators.disk_stall_ms;
        options.election_timeout_ms = plan.election_timeout_ms;
        if plan.operators.uneven {
            // A change of options that goes from host to host: each life has others.
            let mut r = self.random.fork(u64::from(self.hosts[host].life) << 32 | 1 << 24 | host as u64);
            let timeouts = [plan.shortest_timeout_ms(), plan.election_timeout_ms];
            options.election_timeout_ms = timeouts[r.index(2)];
            options.lease_reads = r.chance(950);
        }
        options.max_election_delay_ms = plan.election_delay_ms;
        options.election_heartbeat_factor = plan.heartbeat_factor;
        options.step_down_when_vote_timedout = plan.step_down_when_vote_timedout;
        options.max_entries_size = plan.entries_size;
        options.max_body_size = plan.body_size;
        options.max_replicator_inflight_msgs = plan.inflight_msgs;
        options.max_replicator_inflight_bytes = plan.inflight_bytes;
        options.rpc_default_timeout_ms = plan.rpc_timeout_ms;
        options.max_unstable_entries = plan.unstable_entries;
        options.max_unstable_bytes = plan.unstable_bytes();
        options.max_unapplied_entries = plan.unapplied_entries;
        options.max_unapplied_bytes = plan.unapplied_bytes;
        options.max_tail_bytes = plan.tail_bytes;
        options
    }

    fn open_process(&mut self, host: usize, mut store: Store) -> Result<Result<(), Violation>, StorageError> {
        let transport = Arc::new(SimTransport::new(self.plan.net.outbox));
        transport.take_fresh(self.now);
        let routes = Arc::new(RoutingTable::in_cluster(Arc::clone(&self.gate)));
        let sink = LaneSink::Local { control: Vec::new(), entries: Vec::new(), room: 0 };
        let dynamic: Arc<dyn ringraft_net::Transport> = Arc::clone(&transport) as _;
        let processors = Processors::new(
            Arc::clone(&routes),
            Arc::<UserProcessors>::default(),
            Arc::clone(&dynamic),
            sink,
        );
        self.removals_go_on(host, store.as_log())?;
        let reader = store.as_log().reader();
        let groups = self.plan.groups.len();
        let mut process = Box::new(Process {
            transport,
            processors,
            routes,
            lane: LogEntryAndClosureHandler::new(0, self.plan.limits, Arc::clone(&dynamic)),
            out: LaneOutput::new(WORKERS, 1),
            seen_disk: (0, 0),
            seen_fsm: [0; WORKERS],
            control: VecDeque::new(),
            tasks: Default::default(),
            board: ProgressBoard::new(),
            failed: Vec::new(),
            lane_dispatcher: Dispatcher::new(Arc::clone(&dynamic)),
            disk_dispatcher: Dispatcher::new(dynamic),
            disk: StableClosureEventHandler::new(),
            store,
            reader,
            disk_ring: VecDeque::new(),
            disk_queue: WriteQueue::new(),
            writing: None,
            waits_for_room: false,
            telling: None,
            batches: 0,
            workers: Default::default(),
            read_ring: VecDeque::new(),
            read_busy: false,
            handles: vec![None; groups],
            registers: vec![None; groups],
            by_handle: FxHashMap::default(),
            by_key: FxHashMap::default(),
            by_slot: Vec::new(),
            answers: Answers::default(),
            next_turn: None,
            stopping: None,
        });
        let life = self.hosts[host].life;
        let now = self.hosts[host].clock.now(self.now);
        for group in 0..groups {
            if !self.plan.groups[group].contains(&host) || !self.lives.runs(group, host) {
                continue;
            }
            if let Err(violation) = self.open_replica(&mut process, host, group)? {
                return Ok(Err(violation));
            }
        }
        process.lane.end_turn(now, &mut process.out);
        self.note(|| format!("host {host} starts, life {life}"));
        self.hosts[host].process = Some(process);
        self.wake(host, 1);
        self.after(self.plan.election_timeout_ms * MS, Event::Sweep(host, life));
        Ok(self.observe_turn(host))
    }

    /// The process is gone. With `power` the machine loses power, too, and what was not synced survives by that chance.
    /// It comes back after `away`, unless something else brings it back already.
    pub(super) fn crash(&mut self, host: usize, power: Option<u64>, away: u64, r: &mut Random) {
        let was_running = self.hosts[host].process.is_some();
        let process = self.hosts[host].process.take();
        self.hosts[host].life += 1;
        self.hosts[host].arrivals.clear();
        self.drop_ends(host, r);
        if let Some(process) = process {
            let Process { store, disk_ring, writing, by_key, .. } = *process;
            let submitted = writing.filter(|(_, submitted)| *submitted).map(|(batch, _)| batch);
            self.oracle.crashed(host, submitted.as_ref(), &by_key);
            drop(disk_ring);
            if let Store::Memory(store) = store {
                self.hosts[host].memory = Some(store);
            }
        }
        if let Some(seed) = power {
            self.hosts[host].disk.crash(seed);
            self.hosts[host].power_off_at = None;
            self.hosts[host].damage_planned = false;
            self.hosts[host].disk_suspect = self.hosts[host].disk_full;
            self.oracle.lost_power(host);
        }
        if was_running {
            self.mark(if power.is_some() { "recovered after power loss" } else { "recovered after kill" });
        }
        self.note(|| format!("host {host} is down, power {}", power.is_some()));
        if !self.hosts[host].left_dead && !std::mem::replace(&mut self.hosts[host].returning, true) {
            self.after(away, Event::Start(host));
        }
    }

    /// The process is asked to end; it comes back after `away`.
    pub(super) fn begin_shutdown(&mut self, host: usize, away: u64) {
        let Some(process) = &mut self.hosts[host].process else { return };
        if process.stopping.is_none() {
            process.stopping = Some(away);
            process.control.push_back(LaneEvent::Control(Box::new(Control::Stop)));
            self.wake(host, 1);
        }
    }

    /// Ends a process that was asked to, once all of its stages are empty.
    pub(super) fn end_if_stopped(&mut self, host: usize) -> Result<(), Violation> {
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        let Some(away) = process.stopping else { return Ok(()) };
        let idle = process.lane.is_stopping()
            && process.out.is_empty()
            && process.control.is_empty()
            && process.tasks.iter().all(VecDeque::is_empty)
            && process.disk_is_idle()
            && process.writing.is_none()
            && process.telling.is_none()
            && process.workers.iter().all(|worker| worker.ring.is_empty() && !worker.busy)
            && process.read_ring.is_empty();
        if !idle {
            return Ok(());
        }
        process.workers.iter_mut().for_each(|worker| worker.fsm.shutdown());
        // What was still arriving belongs to nobody; what was taken in has been answered.
        if process.disk.failed().is_none() {
            let ended = process.answers.ended();
            ended.map_err(|what| broken("one answer a request", format!("host {host} {what}")))?;
        }
        let mut r = self.random.fork(self.now ^ 77);
        self.crash(host, None, away, &mut r);
        self.drain_outcomes()
    }

    /// An operator ends the process of this host soon, and starts it again.
    pub(super) fn replace_soon(&mut self, host: usize) {
        if !std::mem::replace(&mut self.hosts[host].replacing, true) {
            let life = self.hosts[host].life;
            let delay = self.random.sized(1, self.plan.election_timeout_ms * MS);
            self.after(delay, Event::Replace(host, life));
        }
    }

    /// Says that the store has failed and lets the process end soon, as an operator would.
    pub(super) fn store_failed(&mut self, host: usize, status: &Status) -> Result<(), Violation> {
        self.mark("store failed");
        self.note(|| format!("the store of host {host} fails: {status}"));
        let explained = self.hosts[host].disk_suspect || self.is_damaged(host);
        if status.error != RaftError::Io || !explained {
            return Err(broken(
                "store",
                format!("the store of host {host} failed without a fault: {status}"),
            ));
        }
        self.replace_soon(host);
        Ok(())
    }
}
