//! The host: a fixed set of threads that runs any number of groups.

mod blank;
mod bootstrap_question;
pub(crate) mod descriptors;
mod endings;
mod groups;
mod network;
pub(crate) mod options;
pub(crate) mod recover_cluster;
pub(crate) mod service;
#[cfg(all(test, shuttle))]
mod shuttle_tests;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringraft_core::{GroupId, NodeDescription, PeerId, Status};
use ringraft_net::Transport;
use ringraft_ring::{Consumer, Producer, Wake, ring};

use crate::error::StartError;
use crate::handler::{Control, LaneEvent, LogEntryAndClosureHandler};
use crate::host::bootstrap_question::BootstrapQuestion;
use crate::host::network::{check_listening, open_network};
use crate::host::options::{HostOptions, StoreOptions};
use crate::host::store::Opened;
use crate::identity::cluster_gate::ClusterGate;
use crate::node::Node;
use crate::pipeline::{
    DamageReports, DiskControl, DiskEvent, DiskLoop, FsmLoop, LaneLoop, LaneParts, LaneRings, LaneShared,
    NetThread, NetWaker, ReadLoop, Running, StoreWatch, Threads, lane_rings,
};
use crate::rpc::user::UserProcessor;
use crate::rpc::{LaneSink, Outbox, Place, Processors, RoutingTable, SinkRings, UserProcessors};
use crate::task::completion::{CompletionSink, SinkId};
use crate::task::promise::{Waiter, promise};
use crate::thread::on_host_thread;
use crate::thread::sync::{Mutex, Ordering};
use blank::{Asked, remember_on_disk};
pub use groups::GroupStart;

/// Slots of a read worker's ring; a lane keeps what does not fit.
const READ_RING: usize = if cfg!(shuttle) { 2 } else { 256 };

/// Runs raft groups in this process: lanes, state-machine workers, one log store, one network endpoint. A handle: clones name
/// the same host, and the last one that goes shuts it down.
#[derive(Clone)]
pub struct RaftHost(Arc<Inner>);

struct Inner {
    endpoint: String,
    max_task_bytes: usize,
    /// Payload bytes that the store takes in one entry.
    largest_entry: usize,
    /// Content of a frame at most.
    frame_bytes: usize,
    fsm_workers: usize,
    /// Groups begin without members and wait for a leader,
    rejoined: bool,
    /// but for those with a higher creation number.
    rejoined_after: Option<u64>,
    gate: Arc<ClusterGate>,
    /// Asked for groups without memory; `None` where they begin without a vote anyway, or shall not ask.
    question: Option<BootstrapQuestion>,
    /// Blank groups for which was asked, and what came out; they have not been started yet.
    asked: Mutex<BTreeMap<GroupId, Asked>>,
    lanes: Vec<(LaneRings, Arc<LaneShared>)>,
    disk: Producer<DiskEvent>,
    disk_control: Arc<DiskControl>,
    routes: Arc<RoutingTable>,
    users: Arc<UserProcessors>,
    transport: Arc<dyn Transport>,
    worker_started: Mutex<bool>,
    listen_address: Option<SocketAddr>,
    store_watch: Arc<StoreWatch>,
    threads: Threads,
    groups: Mutex<Groups>,
}

/// Groups that run or are being started or stopped.
#[derive(Default)]
struct Groups {
    by_id: BTreeMap<GroupId, PeerId>,
    /// Groups that are being removed; nobody starts them meanwhile.
    removing: BTreeSet<GroupId>,
    /// Groups started so far: spreads them over lanes and workers.
    started: usize,
    closing: bool,
}

/// Wakes an owner that sleeps in the event loop it drives.
struct LoopWake(NetWaker);

impl Wake for LoopWake {
    fn wake(&self) {
        self.0.wake();
    }
}

impl RaftHost {
    /// Checks the options and that the host can listen, raises the limit of open files as far as the process may, opens the store, binds the
    /// network, starts the threads. A blank directory is taken into use only after the checks: what a start with a wrong endpoint leaves behind would refuse the next one, with the right endpoint.
    ///
    /// # Errors
    /// [`StartError`] says what is wrong and what to do; nothing is left running.
    pub fn start(mut options: HostOptions) -> Result<RaftHost, StartError> {
        options.validate()?;
        descriptors::share_out(&mut options)?;
        check_listening(&options.transport, &options.endpoint)?;
        let store = std::mem::replace(&mut options.store, StoreOptions::Memory);
        let Opened { storage, rejoined, rejoined_after, membership } = store::open(store, &options)?;
        let gate = Arc::new(ClusterGate::new(&membership.cluster_id, options.require_cluster_id));
        let limits = options.lane_limits();
        let frame_bytes = options.net.frame_limits.content;
        let (event_loop, transport, listen_address) =
            open_network(&options.transport, &options.endpoint, options.net)?;
        let net_waker = event_loop.waker();

        let (mut rings_of_lanes, mut intakes, mut lanes) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.lanes {
            let wake: Option<Arc<dyn Wake>> = match options.fuse_net {
                true => Some(Arc::new(LoopWake(net_waker.clone()))),
                false => None,
            };
            let bytes = options.max_queued_bytes / (options.lanes * options.fsm_workers);
            let entry_bytes = options.max_queued_bytes / options.lanes;
            let (size, workers) = (options.apply_ring_size, options.fsm_workers);
            let (rings, intake) = lane_rings(size, workers, bytes, entry_bytes, wake);
            lanes.push(Arc::new(LaneShared::new(intake.waker())));
            rings_of_lanes.push(rings);
            intakes.push(intake);
        }
        let store_watch = Arc::new(StoreWatch::default());
        let control_rings: Vec<_> = rings_of_lanes.iter().map(|rings| rings.control.clone()).collect();
        let (disk, disk_consumer) = ring(options.disk_ring_size);
        let disk_control = Arc::<DiskControl>::default();
        let (fsm, fsm_consumers) = rings(options.fsm_workers, options.fsm_ring_size);
        let (reads, read_consumers) = rings(options.read_workers, READ_RING);
        let reader = storage.reader();
        let largest_entry = storage.largest_entry();

        if let Some(place) = membership.place {
            remember_on_disk(&gate, place, disk.clone());
        }
        let routes = Arc::new(RoutingTable::in_cluster(Arc::clone(&gate)));
        let stored = storage.stored_groups().into_iter().filter(|stored| stored.key.is_some());
        routes.unopened().set(stored.map(|stored| (stored.group, stored.creation)));
        // Schedules of shuttle have no clock to wait by.
        let asks = !rejoined && options.bootstrap_ask_ms > 0 && !cfg!(shuttle);
        let question = asks.then(|| BootstrapQuestion {
            limit: Duration::from_millis(options.bootstrap_ask_ms),
            transport: options.transport.clone(),
            endpoint: options.endpoint.clone(),
        });
        let users = Arc::new(options.users);
        let sink = if options.fuse_net {
            LaneSink::Local { control: Vec::new(), entries: Vec::new(), room: options.turn_events }
        } else {
            let sink = |rings: &LaneRings| SinkRings {
                control: rings.control.clone(),
                entries: rings.entries.clone(),
                entry_room: Arc::clone(&rings.entry_room),
            };
            LaneSink::Rings(rings_of_lanes.iter().map(sink).collect())
        };
        let processors =
            Processors::new(Arc::clone(&routes), Arc::clone(&users), Arc::clone(&transport), sink);

        let threads = Threads::default();
        let wake_net: Arc<dyn Fn() + Send + Sync> = Arc::new(move || net_waker.wake());
        let (stages_running, stage_guards) = Running::new(1 + options.fsm_workers, wake_net);
        let close_stages: Arc<dyn Fn() + Send + Sync> = {
            let (disk, fsm, reads) = (disk.clone(), fsm.clone(), reads.clone());
            Arc::new(move || {
                disk.close();
                fsm.iter().for_each(Producer::close);
                reads.iter().for_each(Producer::close);
            })
        };
        let (_, lane_guards) = Running::new(options.lanes, close_stages);
        let host = RaftHost(Arc::new(Inner {
            endpoint: options.endpoint,
            max_task_bytes: options.max_task_bytes.min(largest_entry),
            largest_entry,
            frame_bytes,
            fsm_workers: options.fsm_workers,
            rejoined,
            rejoined_after,
            gate,
            question,
            asked: Mutex::default(),
            lanes: rings_of_lanes.into_iter().zip(lanes.iter().cloned()).collect(),
            disk: disk.clone(),
            disk_control: Arc::clone(&disk_control),
            routes,
            users,
            transport: Arc::clone(&transport),
            worker_started: Mutex::default(),
            listen_address,
            store_watch: Arc::clone(&store_watch),
            threads,
            groups: Mutex::default(),
        }));
        // From here on a failure drops the host, which ends what was started. The guards of stages that never began must go
        // before it: the thread that drives the network waits for them.
        let mut stage_guards = stage_guards;
        if host.0.users.needs_worker() {
            host.0.start_worker()?;
        }
        let threads = &host.0.threads;
        let mut net = Some((event_loop, processors));
        for ((number, intake), guard) in intakes.into_iter().enumerate().zip(lane_guards) {
            let handler = LogEntryAndClosureHandler::new(number as u16, limits, Arc::clone(&transport));
            let parts = LaneParts {
                handler,
                intake,
                shared: Arc::clone(&lanes[number]),
                outbox: Outbox::new(Arc::clone(&transport)),
                disk: disk.clone(),
                disk_control: Arc::clone(&disk_control),
                fsm: fsm.clone(),
                reads: reads.clone(),
                turn_events: options.turn_events,
                guard,
                stages_running: stages_running.clone(),
                net: if options.fuse_net { net.take() } else { None },
            };
            threads.spawn(format!("rr-lane-{number}"), move || LaneLoop::new(parts).run())?;
        }
        if let Some((event_loop, processors)) = net {
            let net = NetThread { event_loop, processors, running: stages_running.clone() };
            threads.spawn("rr-net".to_owned(), move || net.run())?;
        }
        let Some(disk_guard) = stage_guards.pop() else { return Err(StartError::HostStopped) };
        let disk_loop = DiskLoop {
            ring: disk_consumer,
            control: disk_control,
            storage,
            outbox: Outbox::new(transport),
            damage: DamageReports::default(),
            max_write_bytes: options.max_write_bytes,
            lanes: lanes.clone(),
            lane_rings: control_rings.clone(),
            writes: Vec::new(),
            watch: store_watch,
            _guard: disk_guard,
        };
        threads.spawn("rr-disk".to_owned(), move || disk_loop.run())?;
        for ((number, ring), guard) in fsm_consumers.into_iter().enumerate().zip(stage_guards) {
            let slow_apply_ms = options.slow_apply_ms;
            let fsm_loop = FsmLoop { ring, lanes: lanes.clone(), slow_apply_ms, _guard: guard };
            threads.spawn(format!("rr-fsm-{number}"), move || fsm_loop.run())?;
        }
        for (number, ring) in read_consumers.into_iter().enumerate() {
            let (lanes, lane_rings) = (lanes.clone(), control_rings.clone());
            let read_loop = ReadLoop { ring, reader: Arc::clone(&reader), lanes, lane_rings };
            threads.spawn(format!("rr-read-{number}"), move || read_loop.run())?;
        }
        Ok(host)
    }

    /// `ip:port` under which others reach this host.
    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// Where the host listens; `None` in-process.
    pub fn listen_address(&self) -> Option<SocketAddr> {
        self.0.listen_address
    }

    /// The cluster that this host belongs to, for processors of requests and for who wants to know its id.
    pub fn cluster_gate(&self) -> Arc<ClusterGate> {
        Arc::clone(&self.0.gate)
    }

    /// The running replica of a group.
    pub fn node(&self, group_id: &GroupId) -> Option<Node> {
        self.0.routes.node(group_id.as_str())
    }

    /// Every running replica, in order of group name.
    pub fn nodes(&self) -> Vec<Node> {
        self.0.routes.nodes()
    }

    /// Has requests of `class` handled by `processor`. A later registration for the same class takes its place. The classes of
    /// raft itself cannot be taken. Requests that come earlier are refused as of an unknown class;
    /// [`HostOptions::register_user_processor`] is in time for all.
    ///
    /// The processor runs on the network's thread and should take microseconds. In one turn of it such requests get 2 ms together.
    pub fn register_user_processor(&self, class: &str, processor: Arc<dyn UserProcessor>) {
        self.0.users.register(class, processor, Place::Network);
    }

    /// Has requests of `class` handled by `processor` on a thread of the host's for that, `rr-user`: for what takes longer than a write, so
    /// that no group waits for it. Connections take turns there; four requests of each wait, and then it is not read until one is
    /// done.
    ///
    /// # Errors
    /// [`StartError::Thread`] when the thread cannot be started, which the first registration does.
    pub fn register_user_processor_on_worker(
        &self,
        class: &str,
        processor: Arc<dyn UserProcessor>,
    ) -> Result<(), StartError> {
        self.0.start_worker()?;
        self.0.users.register(class, processor, Place::Worker);
        Ok(())
    }

    /// Registers a sink for completions; the same as [`SinkId::register`].
    pub fn register_sink(&self, sink: Arc<dyn CompletionSink>) -> SinkId {
        SinkId::register(sink)
    }

    /// Names of the threads that this host runs; their number does not depend on the groups.
    pub fn threads(&self) -> Vec<String> {
        self.0.threads.names()
    }

    /// Why the log store takes nothing any more; `None` while it does. It is final: every group of the host has failed with it, and only a
    /// new start, on a disk that works, serves again.
    pub fn store_error(&self) -> Option<Status> {
        self.0.store_watch.error()
    }

    /// Calls `then` once, when the log store has failed: at once on this thread when it has already, else on the thread of the disk
    /// stage, after the groups were told. It must not block, and must not wait for the host; a panic in it is logged and goes no further.
    /// A host that ends first drops it.
    pub fn on_store_failed(&self, then: impl FnOnce(&Status) + Send + 'static) {
        self.0.store_watch.add(Box::new(then));
    }

    /// What the host and its groups are doing. Asks the owners, and waits for each group at most a second.
    pub fn describe(&self) -> HostDescription {
        let describe = |node: Node| (node.group_id().clone(), node.describe(Duration::from_secs(1)));
        let groups = self.nodes().into_iter().map(describe).collect();
        HostDescription { endpoint: self.0.endpoint.clone(), threads: self.threads(), groups }
    }

    /// Stops every group and every thread, and waits for them. Every completion is answered. Safe to call twice, and from many
    /// threads; on a thread of the host itself it only starts the end and does not wait.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }
}

impl Inner {
    /// Starts the worker of users' processors, once.
    fn start_worker(&self) -> Result<(), StartError> {
        let mut started = self.worker_started.lock();
        if !*started {
            let (users, transport) = (Arc::clone(&self.users), Arc::clone(&self.transport));
            self.threads.spawn("rr-user".to_owned(), move || users.run_worker(&transport))?;
            *started = true;
        }
        Ok(())
    }

    /// Asks a lane, whose answer comes; `None` when the host has stopped.
    fn control<T>(
        &self,
        lane: u16,
        make: impl FnOnce(crate::task::promise::Promise<T>) -> Control,
    ) -> Option<Waiter<T>> {
        let (answer, waiter) = promise();
        let event = LaneEvent::Control(Box::new(make(answer)));
        self.lanes[usize::from(lane)].0.control.publish(event).ok()?;
        Some(waiter)
    }

    fn shutdown(&self) {
        self.groups.lock().closing = true;
        self.users.close_worker();
        for (_, lane) in &self.lanes {
            lane.stop.store(true, Ordering::Release);
            lane.wake();
        }
        if !on_host_thread() {
            self.threads.join();
            self.routes.clear();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl fmt::Debug for RaftHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftHost").field("endpoint", &self.0.endpoint).finish_non_exhaustive()
    }
}

fn rings<T: Send>(count: usize, size: usize) -> (Vec<Producer<T>>, Vec<Consumer<T>>) {
    (0..count).map(|_| ring(size)).unzip()
}

/// What a host is doing.
#[derive(Clone, Debug)]
pub struct HostDescription {
    /// `ip:port` under which others reach it.
    pub endpoint: String,
    /// Names of its threads.
    pub threads: Vec<String>,
    /// What each group's owner says, or why it does not.
    pub groups: Vec<(GroupId, Result<NodeDescription, Status>)>,
}

impl fmt::Display for HostDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "host {}: {} threads, {} groups", self.endpoint, self.threads.len(), self.groups.len())?;
        for (group, described) in &self.groups {
            match described {
                Ok(description) => writeln!(f, "{description}")?,
                Err(status) => writeln!(f, "{group}: {status}")?,
            }
        }
        Ok(())
    }
}
