//! A few nodes with explicit queues, disks and clocks, in which nothing moves unless it is told to.

use std::collections::BTreeMap;

use ringraft_core::{
    ChunkBuilder, Configuration, CoreOptions, Effects, FsmEvent, Input, LogIndex, LogOp, LogRead, NodeImpl,
    NodeState, PeerId, RaftError, RaftRequest, RaftResponse, Reply, ReplyToken, Status, Term, Ticket, Time,
};

use super::format;
use super::host::{Automatic, Host, ModelFsm, Waiting};
use super::network::{Body, Filter, Kind, Link, Message, Network, What};
use crate::checkers::{Checkers, Disks, Event, Violation};
use crate::log_image::LogImage;
use crate::model_disk::ModelDisk;

/// Number of a node; node N is the peer `127.0.0.1:(8080+N)`.
pub type NodeName = u32;

/// Settings for the nodes that are added next: the core's options with the core's defaults.
///
/// Group, server id and initial configuration in it are replaced for every node.
pub type Settings = CoreOptions;

/// Why a world does not do what it is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// No node has this number.
    #[error("there is no node {0}; add it with add-nodes")]
    UnknownNode(NodeName),
    /// There is a node of this number already.
    #[error("node {0} exists already")]
    Exists(NodeName),
    /// The node is down.
    #[error("node {0} is down; restart it first")]
    Down(NodeName),
    /// The node is running.
    #[error("node {0} is running; crash it first")]
    Running(NodeName),
    /// The node refuses to start.
    #[error("node {0} does not start: {1}")]
    Start(NodeName, String),
    /// Something did not come to an end.
    #[error("{0} does not come to rest")]
    Endless(String),
    /// There is nothing of the kind.
    #[error("{0}")]
    Nothing(String),
}

/// Who asked, and how the answer finds its way back.
#[derive(Clone, Copy, Debug)]
struct Asked {
    asker: NodeName,
    ticket: Ticket,
    run: u32,
    what: What,
    /// Whether the request was made up: nobody waits for the answer.
    injected: bool,
}

/// How a log read is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAnswer {
    /// As asked.
    Good,
    /// With an error.
    Fails,
    /// With one entry more than asked, when there is one.
    OneMore,
    /// With the second entry missing.
    Hole,
}

/// What a step changed that a reader of the trace wants to see.
#[derive(PartialEq, Eq)]
struct Role {
    state: NodeState,
    term: Term,
    leader: Option<PeerId>,
}

impl Role {
    fn of(node: &NodeImpl) -> Role {
        Role { state: node.state(), term: node.term(), leader: node.leader_id().cloned() }
    }
}

struct AllDisks<'a>(&'a BTreeMap<NodeName, Host>);

impl Disks for AllDisks<'_> {
    fn stable(&self, node: &PeerId) -> Option<&LogImage> {
        self.0.values().find(|h| h.peer == *node).map(|h| h.disk.stable())
    }
}

/// The world of a script.
pub struct World {
    /// Settings for the nodes that are added next.
    pub settings: Settings,
    hosts: BTreeMap<NodeName, Host>,
    network: Network,
    asked: BTreeMap<u64, Asked>,
    last_token: u64,
    checkers: Checkers,
    violation: Option<Violation>,
    trace: Option<Vec<String>>,
    votes_asked: u64,
    automatic: Automatic,
}

impl Default for World {
    fn default() -> World {
        World::new()
    }
}

impl World {
    /// An empty world that traces what happens.
    pub fn new() -> World {
        let group = match "g".parse() {
            Ok(group) => group,
            Err(error) => unreachable!("{error}"),
        };
        World {
            settings: CoreOptions::new(group, PeerId::empty(), Configuration::default()),
            hosts: BTreeMap::new(),
            network: Network::default(),
            asked: BTreeMap::new(),
            last_token: 0,
            checkers: Checkers::default(),
            violation: None,
            trace: Some(Vec::new()),
            votes_asked: 0,
            automatic: Automatic { persist: true, apply: true, read: true },
        }
    }

    /// An empty world that keeps no trace, for long random runs.
    pub fn without_trace() -> World {
        World { trace: None, ..World::new() }
    }

    // --- looking ---

    /// Every node's number.
    pub fn names(&self) -> Vec<NodeName> {
        self.hosts.keys().copied().collect()
    }

    /// A running node.
    ///
    /// # Errors
    /// It does not exist or is down.
    pub fn node(&self, name: NodeName) -> Result<&NodeImpl, WorldError> {
        self.host(name)?.node.as_ref().ok_or(WorldError::Down(name))
    }

    /// Whether the node is running.
    pub fn is_running(&self, name: NodeName) -> bool {
        self.hosts.get(&name).is_some_and(|h| h.node.is_some())
    }

    /// A node's disk.
    ///
    /// # Errors
    /// It does not exist.
    pub fn disk(&self, name: NodeName) -> Result<&ModelDisk, WorldError> {
        Ok(&self.host(name)?.disk)
    }

    /// A node's state machine.
    ///
    /// # Errors
    /// It does not exist.
    pub fn fsm(&self, name: NodeName) -> Result<&ModelFsm, WorldError> {
        Ok(&self.host(name)?.fsm)
    }

    /// A node's clock.
    ///
    /// # Errors
    /// It does not exist.
    pub fn clock(&self, name: NodeName) -> Result<Time, WorldError> {
        Ok(self.host(name)?.now)
    }

    /// The messages under way.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The messages under way, to hold, cut or lose some.
    pub fn network_mut(&mut self) -> &mut Network {
        &mut self.network
    }

    /// The first rule that was broken, if any.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Takes the trace lines since the last call.
    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn host(&self, name: NodeName) -> Result<&Host, WorldError> {
        self.hosts.get(&name).ok_or(WorldError::UnknownNode(name))
    }

    fn host_mut(&mut self, name: NodeName) -> Result<&mut Host, WorldError> {
        self.hosts.get_mut(&name).ok_or(WorldError::UnknownNode(name))
    }

    /// Adds a line to the trace; the text is made only when there is a trace.
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    // --- nodes ---

    /// Adds and starts nodes with these voters and learners as their initial configuration.
    ///
    /// # Errors
    /// One exists already, or does not start.
    pub fn add_nodes(&mut self, voters: &[NodeName], learners: &[NodeName]) -> Result<(), WorldError> {
        let peers = |names: &[NodeName]| names.iter().map(|n| format::peer_of(*n)).collect();
        let conf = Configuration { peers: peers(voters), learners: peers(learners) };
        for name in voters.iter().chain(learners).copied() {
            self.add_node(name, conf.clone())?;
        }
        Ok(())
    }

    /// Adds and starts one node with this initial configuration, which may be empty.
    ///
    /// # Errors
    /// It exists already, or does not start.
    pub fn add_node(&mut self, name: NodeName, conf: Configuration) -> Result<(), WorldError> {
        if self.hosts.contains_key(&name) {
            return Err(WorldError::Exists(name));
        }
        let host = Host {
            peer: format::peer_of(name),
            node: None,
            run: 0,
            now: Time(0),
            disk: ModelDisk::default(),
            fsm: ModelFsm::default(),
            automatic: self.automatic,
            written: 0,
            reported: 0,
            waiting: Vec::new(),
            reads: Vec::new(),
            settings: self.settings.clone(),
            conf,
        };
        self.hosts.insert(name, host);
        self.start(name)
    }

    fn start(&mut self, name: NodeName) -> Result<(), WorldError> {
        let host = self.host_mut(name)?;
        let options = CoreOptions {
            server_id: host.peer.clone(),
            initial_conf: host.conf.clone(),
            ..host.settings.clone()
        };
        let recovered = host.disk.stable().recover();
        let seed = u64::from(name) + 1_000 * u64::from(host.run);
        let mut node = NodeImpl::new(host.now, options, recovered, seed)
            .map_err(|s| WorldError::Start(name, format::status(&s)))?;
        let mut fx = Effects::new();
        let before = Role { state: NodeState::Uninitialized, term: 0, leader: None };
        node.start(host.now, &mut fx);
        host.run += 1;
        host.node = Some(node);
        let peer = host.peer.clone();
        self.observe(&Event::Restarted { node: &peer });
        self.absorb(name, &before, 0, fx);
        self.settle(name)
    }

    /// The process of a node ends at once; what its disk has in flight may survive or not, see
    /// [`restart`](Self::restart).
    ///
    /// # Errors
    /// It is not running.
    pub fn crash(&mut self, name: NodeName) -> Result<(), WorldError> {
        self.node(name)?;
        let host = self.host_mut(name)?;
        host.crash();
        let in_flight: Vec<String> = host.disk.in_flight().map(|s| s.to_string()).collect();
        self.note(|| match in_flight.len() {
            0 => format!("{name} crashed"),
            _ => format!("{name} crashed with writes {} in flight", in_flight.join(" ")),
        });
        Ok(())
    }

    /// Starts a node that is down; of the writes that were in flight the `kept` oldest survived.
    ///
    /// # Errors
    /// It is running or does not start.
    pub fn restart(&mut self, name: NodeName, kept: usize) -> Result<(), WorldError> {
        if self.is_running(name) {
            return Err(WorldError::Running(name));
        }
        self.host_mut(name)?.disk.reopen(kept);
        self.start(name)
    }

    /// Empties the disk of a node that is down.
    ///
    /// # Errors
    /// It is running.
    pub fn wipe(&mut self, name: NodeName) -> Result<(), WorldError> {
        self.set_disk(name, LogImage::default())
    }

    /// Replaces what is on the disk of a node that is down.
    ///
    /// # Errors
    /// It is running.
    pub fn set_disk(&mut self, name: NodeName, image: LogImage) -> Result<(), WorldError> {
        if self.is_running(name) {
            return Err(WorldError::Running(name));
        }
        self.host_mut(name)?.disk = ModelDisk::with(image);
        Ok(())
    }

    /// Which things happen by themselves at a node; `None` means every node, also later ones.
    ///
    /// # Errors
    /// The node does not exist.
    pub fn automatic(
        &mut self,
        name: Option<NodeName>,
        change: impl Fn(&mut Automatic),
    ) -> Result<(), WorldError> {
        match name {
            Some(name) => change(&mut self.host_mut(name)?.automatic),
            None => {
                change(&mut self.automatic);
                self.hosts.values_mut().for_each(|h| change(&mut h.automatic));
            }
        }
        for name in self.names() {
            self.settle(name)?;
        }
        Ok(())
    }

    // --- time and proposals ---

    /// Moves a node's own clock, stopping at every deadline on the way.
    ///
    /// # Errors
    /// It is not running.
    pub fn tick(&mut self, name: NodeName, ms: u64) -> Result<(), WorldError> {
        let target = self.clock(name)?.after_millis(ms);
        self.node(name)?;
        for _ in 0..1_000_000 {
            let due = self.host(name)?.node.as_ref().and_then(NodeImpl::deadline);
            let Some(due) = due.filter(|d| *d <= target) else {
                self.host_mut(name)?.now = target;
                return Ok(());
            };
            self.tick_at(name, due)?;
        }
        Err(WorldError::Endless(format!("the clock of node {name}")))
    }

    fn tick_at(&mut self, name: NodeName, at: Time) -> Result<(), WorldError> {
        let host = self.host_mut(name)?;
        host.now = host.now.max(at);
        self.step(name, Input::Tick)
    }

    /// Lets time pass at a node without telling it: it learns of it with whatever happens next.
    ///
    /// # Errors
    /// It does not exist.
    pub fn pause(&mut self, name: NodeName, ms: u64) -> Result<(), WorldError> {
        let host = self.host_mut(name)?;
        host.now = host.now.after_millis(ms);
        Ok(())
    }

    /// Moves a node's own clock until it asks for votes or pre-votes, or elects itself.
    ///
    /// # Errors
    /// It is not running, or it never campaigns.
    pub fn campaign(&mut self, name: NodeName) -> Result<(), WorldError> {
        let (asked, term) = (self.votes_asked, self.node(name)?.term());
        for _ in 0..100 {
            let Some(due) = self.node(name)?.deadline() else { break };
            self.tick_at(name, due)?;
            if self.votes_asked != asked || self.node(name)?.term() != term {
                return Ok(());
            }
        }
        Err(WorldError::Nothing(format!("node {name} does not campaign")))
    }

    /// Proposes entries as one chunk.
    ///
    /// # Errors
    /// It is not running. A refused proposal is no error here; it is in the trace.
    pub fn propose(&mut self, name: NodeName, payloads: &[Vec<u8>]) -> Result<(), WorldError> {
        let host = self.host_mut(name)?;
        let node = host.node.as_mut().ok_or(WorldError::Down(name))?;
        let mut builder = ChunkBuilder::new();
        payloads.iter().for_each(|p| builder.push(p));
        let (before, committed) = (Role::of(node), node.committed_index());
        let mut fx = Effects::new();
        match node.propose(host.now, &mut builder, &mut fx) {
            Ok(p) => self
                .note(|| format!("{name} proposed {}..={} in term {}", p.first_index, p.last_index, p.term)),
            Err(error) => self.note(|| format!("{name} refuses: {}", format::short(&error.to_string()))),
        }
        self.absorb(name, &before, committed, fx);
        self.settle(name)
    }

    /// A connection to `peer` came up at a node.
    ///
    /// # Errors
    /// It is not running.
    pub fn connect(&mut self, name: NodeName, peer: NodeName) -> Result<(), WorldError> {
        self.step(name, Input::PeerConnected { peer: format::peer_of(peer) })
    }

    /// The node is told to stop.
    ///
    /// # Errors
    /// It is not running.
    pub fn shutdown(&mut self, name: NodeName) -> Result<(), WorldError> {
        self.step(name, Input::Shutdown)
    }

    // --- disk and state machine ---

    /// Makes the `count` oldest writes in flight durable, and tells the node.
    ///
    /// # Errors
    /// It is not running, or nothing is in flight.
    pub fn persist(&mut self, name: NodeName, count: usize) -> Result<(), WorldError> {
        self.node(name)?;
        let Some(sequence) = self.host_mut(name)?.disk.sync(count) else {
            return Err(WorldError::Nothing(format!("node {name} has no write in flight")));
        };
        self.host_mut(name)?.reported = sequence;
        self.note(|| format!("{name} write {sequence} is durable"));
        self.release_waiting(name)?;
        self.step(name, Input::Persisted { sequence })
    }

    /// Everything in flight fails, and the node is told.
    ///
    /// # Errors
    /// It is not running.
    pub fn fail_disk(&mut self, name: NodeName) -> Result<(), WorldError> {
        self.node(name)?;
        self.host_mut(name)?.disk.fail();
        self.note(|| format!("{name} disk fails"));
        let status = Status::new(RaftError::Io, "write failed");
        self.step(name, Input::Failed { status })
    }

    /// The state machine has applied everything that it was given, or only up to `index`.
    ///
    /// # Errors
    /// It is not running, or was not given that much.
    pub fn applied(&mut self, name: NodeName, index: Option<LogIndex>) -> Result<(), WorldError> {
        self.node(name)?;
        let fsm = &mut self.host_mut(name)?.fsm;
        let index = index.unwrap_or(fsm.delivered);
        if index > fsm.delivered {
            let message = format!("node {name} was given entries up to {} only", fsm.delivered);
            return Err(WorldError::Nothing(message));
        }
        fsm.applied = fsm.applied.max(index);
        self.step(name, Input::Applied { index })
    }

    /// Answers the oldest log read of a node.
    ///
    /// # Errors
    /// It is not running, or waits for no read.
    pub fn answer_read(&mut self, name: NodeName, answer: ReadAnswer) -> Result<(), WorldError> {
        self.answer_read_once(name, answer)?;
        self.settle(name)
    }

    fn answer_read_once(&mut self, name: NodeName, answer: ReadAnswer) -> Result<(), WorldError> {
        self.node(name)?;
        let host = self.host_mut(name)?;
        if host.reads.is_empty() {
            return Err(WorldError::Nothing(format!("node {name} reads nothing")));
        }
        let LogRead { ticket, from, to, max_bytes } = host.reads.remove(0);
        let to = if answer == ReadAnswer::OneMore { to + 1 } else { to };
        let mut entries = host.disk.stable().read(from, to, max_bytes);
        if answer == ReadAnswer::Hole {
            let last = entries.last().map_or(0, |c| c.last_index());
            let parts = [(from, from), (from + 2, last)];
            entries =
                parts.iter().flat_map(|(a, b)| entries.iter().filter_map(|c| c.share(*a, *b))).collect();
        }
        let result = match answer {
            ReadAnswer::Fails => Err(Status::new(RaftError::Io, "read failed")),
            _ => Ok(entries),
        };
        self.note(|| {
            let text = match &result {
                Ok(chunks) => chunks.iter().map(|c| format!(" [{}]", format::chunk(c))).collect(),
                Err(status) => format!(" {}", format::status(status)),
            };
            format!("{name} read #{}:{text}", ticket.0)
        });
        self.step_once(name, Input::LogRead { ticket, result })
    }

    // --- messages ---

    /// Delivers messages of one link. Gives how many moved.
    ///
    /// # Errors
    /// The nodes never existed.
    pub fn deliver(&mut self, link: Link, filter: Filter) -> Result<usize, WorldError> {
        let messages = self.network.take(link, filter);
        let count = messages.len();
        for message in messages {
            self.deliver_message(link, message)?;
        }
        Ok(count)
    }

    fn deliver_message(&mut self, link: Link, message: Message) -> Result<(), WorldError> {
        let Message { kind, ticket, run, body } = message;
        let (from, to) = (link.from, link.to);
        if !self.is_running(to) {
            self.note(|| format!("{from}->{to} #{} {kind} is lost: {to} is down", ticket.0));
            return Ok(());
        }
        match body {
            Body::Request(request) => {
                self.note(|| format!("{to} gets #{} {kind} from {from}", ticket.0));
                let asked = Asked { asker: from, ticket, run, what: kind.what, injected: false };
                self.request(from, to, asked, request)
            }
            Body::Response(result) if self.host(to)?.run == run => {
                self.note(|| format!("{to} gets #{} {kind} from {from}", ticket.0));
                self.step(to, Input::Response { from: format::peer_of(from), ticket, result })
            }
            Body::Response(_) => {
                self.note(|| format!("{from}->{to} #{} {kind} is lost: {to} was started again", ticket.0));
                Ok(())
            }
        }
    }

    fn request(
        &mut self,
        from: NodeName,
        to: NodeName,
        asked: Asked,
        request: RaftRequest,
    ) -> Result<(), WorldError> {
        self.last_token += 1;
        self.asked.insert(self.last_token, asked);
        let reply = ReplyToken(self.last_token);
        self.step(to, Input::Request { from: format::peer_of(from), reply, request })
    }

    /// Loses messages of one link. Gives how many.
    pub fn drop_messages(&mut self, link: Link, filter: Filter) -> usize {
        let messages = self.network.take(link, filter);
        for m in &messages {
            self.note(|| format!("{link} #{} {} is lost", m.ticket.0, m.kind));
        }
        messages.len()
    }

    /// Duplicates messages of one link: a copy of each stands behind it. Gives how many.
    pub fn duplicate(&mut self, link: Link, filter: Filter) -> usize {
        let copies = self.network.duplicate(link, filter);
        for message in &copies {
            self.note(|| format!("{link} #{} {} twice", message.ticket.0, message.kind));
        }
        copies.len()
    }

    /// The connection breaks: messages of one link are lost and those who asked learn of it. Gives how many.
    ///
    /// # Errors
    /// The nodes never existed.
    pub fn break_connection(&mut self, link: Link, filter: Filter) -> Result<usize, WorldError> {
        let messages = self.network.take(link, filter);
        let count = messages.len();
        for Message { kind, ticket, run, .. } in messages {
            let (asker, other) = if kind.reply { (link.to, link.from) } else { (link.from, link.to) };
            self.note(|| format!("{link} #{} {kind} is lost, {asker} gets an error", ticket.0));
            if self.is_running(asker) && self.host(asker)?.run == run {
                let result = Err(Status::new(RaftError::HostDown, "connection lost"));
                self.step(asker, Input::Response { from: format::peer_of(other), ticket, result })?;
            }
        }
        Ok(count)
    }

    /// Delivers everything that is not held between these nodes (all when empty) until nothing moves.
    ///
    /// # Errors
    /// It does not come to rest.
    pub fn stabilize(&mut self, among: &[NodeName]) -> Result<(), WorldError> {
        let within = |l: &Link| among.is_empty() || (among.contains(&l.from) && among.contains(&l.to));
        for _ in 0..20_000 {
            let mut moved = 0;
            for link in self.network.busy_links().into_iter().filter(|l| within(l)) {
                moved += self.deliver(link, Filter::default())?;
            }
            if moved == 0 {
                return Ok(());
            }
        }
        Err(WorldError::Endless("the exchange of messages".to_owned()))
    }

    /// Gives a node a made-up request; the answer goes nowhere.
    ///
    /// # Errors
    /// The receiver is not running.
    pub fn inject_request(
        &mut self,
        from: NodeName,
        to: NodeName,
        request: RaftRequest,
    ) -> Result<(), WorldError> {
        self.node(to)?;
        let asked =
            Asked { asker: from, ticket: Ticket(0), run: 0, what: What::of(&request), injected: true };
        self.request(from, to, asked, request)
    }

    /// Gives a node a made-up answer to the request of this ticket.
    ///
    /// # Errors
    /// The receiver is not running.
    pub fn inject_response(
        &mut self,
        from: NodeName,
        to: NodeName,
        ticket: Ticket,
        result: Result<RaftResponse, Status>,
    ) -> Result<(), WorldError> {
        self.step(to, Input::Response { from: format::peer_of(from), ticket, result })
    }

    // --- the machinery ---

    fn step(&mut self, name: NodeName, input: Input) -> Result<(), WorldError> {
        self.step_once(name, input)?;
        self.settle(name)
    }

    fn step_once(&mut self, name: NodeName, input: Input) -> Result<(), WorldError> {
        let host = self.host_mut(name)?;
        let node = host.node.as_mut().ok_or(WorldError::Down(name))?;
        let (before, committed) = (Role::of(node), node.committed_index());
        let mut fx = Effects::new();
        node.step(host.now, input, &mut fx);
        self.absorb(name, &before, committed, fx);
        Ok(())
    }

    /// Does what a step asks for, in the order of [`NodeImpl`]'s contract.
    fn absorb(&mut self, name: NodeName, before: &Role, committed: LogIndex, fx: Effects) {
        self.note_role(name, before, committed);
        let Effects { log, write_sequence, sends, replies, reads, fsm, abandoned } = fx;
        if !log.is_empty() {
            self.write(name, write_sequence, log);
        }
        for send in sends {
            if matches!(send.request, RaftRequest::RequestVote(_)) {
                self.votes_asked += 1;
            }
            let kind = Kind { what: What::of(&send.request), reply: false };
            let Some(to) = format::peer(&send.to).parse().ok() else { continue };
            let run = self.hosts.get(&name).map_or(0, |h| h.run);
            let message = Message { kind, ticket: send.ticket, run, body: Body::Request(send.request) };
            self.emit(name, Link { from: name, to }, message, send.after_durable, true);
        }
        for reply in replies {
            self.reply(name, reply);
        }
        for event in fsm {
            self.note(|| format!("{name} fsm {}", format::fsm_event(&event)));
            if let FsmEvent::Committed(chunk) = &event {
                self.deliver_to_fsm(name, chunk);
            }
        }
        if let Some(status) = abandoned {
            self.note(|| format!("{name} abandons its proposals: {}", format::status(&status)));
        }
        for read in reads {
            self.note(|| format!("{name} reads #{} {}..={}", read.ticket.0, read.from, read.to));
            if let Some(host) = self.hosts.get_mut(&name) {
                host.reads.push(read);
            }
        }
        let World { hosts, checkers, .. } = self;
        if let Some((node, log)) = hosts.get(&name).and_then(|h| Some((h.node.as_ref()?, h.disk.accepted())))
        {
            let event = Event::Stepped { node, log, disks: &AllDisks(hosts) };
            let result = checkers.observe(&event);
            self.remember(result);
        }
    }

    fn note_role(&mut self, name: NodeName, before: &Role, committed: LogIndex) {
        let Some(node) = self.hosts.get(&name).and_then(|h| h.node.as_ref()) else { return };
        let (now, commit) = (Role::of(node), node.committed_index());
        if now != *before {
            let leader = format::optional_peer(now.leader.as_ref());
            self.note(|| format!("{name} {} term={} leader={leader}", now.state, now.term));
        }
        if commit != committed {
            self.note(|| format!("{name} commit {commit}"));
        }
    }

    fn write(&mut self, name: NodeName, sequence: u64, ops: Vec<LogOp>) {
        for op in &ops {
            self.note(|| format!("{name} write {sequence}: {}", format::log_op(op)));
        }
        let World { hosts, checkers, .. } = self;
        let Some(host) = hosts.get_mut(&name) else { return };
        let first = ops.iter().find_map(|op| match op {
            LogOp::Append(chunk) => Some(chunk.first_index()),
            _ => None,
        });
        host.disk.write(sequence, ops);
        host.written = sequence;
        if host.automatic.persist {
            host.disk.sync(usize::MAX);
        }
        if let Some(first) = first {
            let event = Event::Appended { node: &host.peer, log: host.disk.accepted(), first };
            let result = checkers.observe(&event);
            self.remember(result);
        }
    }

    fn reply(&mut self, name: NodeName, reply: Reply) {
        let Some(asked) = self.asked.remove(&reply.token.0) else {
            self.remember(Err(Violation {
                checker: "one answer a request",
                message: format!("{name} answers {:?} twice", reply.token),
            }));
            return;
        };
        let message = Message {
            kind: Kind { what: asked.what, reply: true },
            ticket: asked.ticket,
            run: asked.run,
            body: Body::Response(Ok(reply.response)),
        };
        let queued = !asked.injected;
        self.emit(name, Link { from: name, to: asked.asker }, message, reply.after_durable, queued);
    }

    fn emit(&mut self, name: NodeName, link: Link, message: Message, after_durable: bool, queued: bool) {
        let Some(host) = self.hosts.get_mut(&name) else { return };
        let sequence = host.written;
        let waits = after_durable && sequence > host.disk.synced_sequence();
        self.note(|| {
            let wait = if waits { format!(" (waits for write {sequence})") } else { String::new() };
            format!("{link} {}{wait}", format::message(&message))
        });
        match self.hosts.get_mut(&name) {
            Some(host) if waits => host.waiting.push(Waiting { sequence, link, message, queued }),
            _ => self.leave(link, message, queued),
        }
    }

    /// A message leaves its node: now it binds.
    fn leave(&mut self, link: Link, message: Message, queued: bool) {
        let (voter, asker) = (format::peer_of(link.from), format::peer_of(link.to));
        match &message.body {
            Body::Request(RaftRequest::RequestVote(r)) if !r.pre_vote => {
                self.observe(&Event::VoteSent { voter: &voter, term: r.term, candidate: &voter });
            }
            Body::Response(Ok(RaftResponse::RequestVote(r)))
                if r.granted && message.kind.what == What::Vote =>
            {
                self.observe(&Event::VoteSent { voter: &voter, term: r.term, candidate: &asker });
            }
            _ => {}
        }
        let (kind, ticket) = (message.kind, message.ticket);
        if queued && !self.network.push(link, message) {
            self.note(|| format!("{link} #{} {kind} is lost: the link is cut", ticket.0));
        }
    }

    fn release_waiting(&mut self, name: NodeName) -> Result<(), WorldError> {
        let host = self.host_mut(name)?;
        let synced = host.disk.synced_sequence();
        let (ready, rest) =
            std::mem::take(&mut host.waiting).into_iter().partition(|w: &Waiting| w.sequence <= synced);
        host.waiting = rest;
        let ready: Vec<Waiting> = ready;
        for Waiting { link, message, queued, .. } in ready {
            self.note(|| format!("{link} #{} {} leaves", message.ticket.0, message.kind));
            self.leave(link, message, queued);
        }
        Ok(())
    }

    fn deliver_to_fsm(&mut self, name: NodeName, chunk: &ringraft_core::EntryChunk) {
        let World { hosts, checkers, .. } = self;
        let Some(host) = hosts.get_mut(&name) else { return };
        host.fsm.take(chunk);
        let event = Event::Delivered { node: &host.peer, chunk, stable: host.disk.stable() };
        let result = checkers.observe(&event);
        self.remember(result);
    }

    /// Lets happen what happens by itself at a node.
    fn settle(&mut self, name: NodeName) -> Result<(), WorldError> {
        for _ in 0..100_000 {
            let host = self.host_mut(name)?;
            let Some(node) = host.node.as_ref().filter(|n| n.state().is_active()) else { return Ok(()) };
            let synced = host.disk.synced_sequence();
            if host.automatic.persist && host.disk.sync(usize::MAX).is_some() {
                // Switched to automatic with writes in flight.
                self.release_waiting(name)?;
            } else if host.automatic.persist && synced > host.reported {
                host.reported = synced;
                self.step_once(name, Input::Persisted { sequence: synced })?;
            } else if host.automatic.read && !host.reads.is_empty() {
                self.answer_read_once(name, ReadAnswer::Good)?;
            } else if host.automatic.apply && host.fsm.delivered > node.applied_index() {
                let index = host.fsm.delivered;
                host.fsm.applied = index;
                self.step_once(name, Input::Applied { index })?;
            } else {
                return Ok(());
            }
        }
        Err(WorldError::Endless(format!("node {name}")))
    }

    fn observe(&mut self, event: &Event<'_>) {
        let result = self.checkers.observe(event);
        self.remember(result);
    }

    fn remember(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.note(|| format!("VIOLATION {}", format::short(&violation.to_string())));
            self.violation.get_or_insert(violation);
        }
    }
}
