//! A few nodes with explicit queues, disks and clocks, in which nothing moves unless it is told to.

mod calls;
mod disks;
mod effects;
mod messages;
mod nodes;

use std::collections::BTreeMap;

use ringraft_core::{CallToken, Configuration, CoreOptions, NodeImpl, NodeState, PeerId, Term, Ticket, Time};

use super::host::{Automatic, Host, ModelFsm};
use super::network::{Network, What};
use crate::checkers::{Checkers, Disks, Violation};
use crate::log_image::LogImage;
use crate::model_disk::ModelDisk;

pub use super::host::Settings;
pub use super::network::NodeName;

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
    /// Calls without outcome.
    calls: BTreeMap<CallToken, NodeName>,
    /// Whether a leader lets reads pass by its lease if it does so in this step.
    reads_by_lease: bool,
    last_call: u64,
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
            calls: BTreeMap::new(),
            reads_by_lease: false,
            last_call: 0,
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

    pub(super) fn host(&self, name: NodeName) -> Result<&Host, WorldError> {
        self.hosts.get(&name).ok_or(WorldError::UnknownNode(name))
    }

    pub(super) fn host_mut(&mut self, name: NodeName) -> Result<&mut Host, WorldError> {
        self.hosts.get_mut(&name).ok_or(WorldError::UnknownNode(name))
    }

    /// Adds a line to the trace; the text is made only when there is a trace.
    pub(in crate::script) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }
}
