//! Nodes of a world: their life, their time, what is proposed to them.

use ringraft_core::{ChunkBuilder, Configuration, CoreOptions, Effects, Input, NodeImpl, NodeState, Time};

use super::{NodeName, Role, World, WorldError};
use crate::checkers::Event;
use crate::log_image::LogImage;
use crate::model_disk::ModelDisk;
use crate::script::format;
use crate::script::host::{Automatic, Host, ModelFsm};

impl World {
    /// Adds and starts nodes with these voters and learners as their initial configuration.
    ///
    /// # Errors
    /// One exists already, or does not start.
    pub fn add_nodes(&mut self, voters: &[NodeName], learners: &[NodeName]) -> Result<(), WorldError> {
        let peers = |names: &[NodeName]| names.iter().map(|n| format::peer_of(*n)).collect();
        self.add_group(&Configuration { peers: peers(voters), learners: peers(learners) })
    }

    /// Adds and starts the members of this configuration, with the priorities that they have in it.
    ///
    /// # Errors
    /// One exists already, or does not start.
    pub fn add_group(&mut self, conf: &Configuration) -> Result<(), WorldError> {
        for name in conf.peers.iter().chain(&conf.learners).filter_map(format::name_of) {
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
        let peer = format::peer_of(name);
        let host = Host {
            // As it stands among the members, with its priority.
            peer: conf.peers.iter().find(|member| **member == peer).cloned().unwrap_or(peer),
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

    pub(super) fn start(&mut self, name: NodeName) -> Result<(), WorldError> {
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
        // Nobody waits for the calls of a process that is gone.
        self.calls.retain(|_, node| *node != name);
        let host = self.host_mut(name)?;
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

    /// The settings that a node has from its next start on.
    ///
    /// # Errors
    /// It does not exist.
    pub fn settings_of(&mut self, name: NodeName) -> Result<&mut CoreOptions, WorldError> {
        Ok(&mut self.host_mut(name)?.settings)
    }

    /// Empties the disk of a node that is down.
    ///
    /// # Errors
    /// It is running.
    pub fn wipe(&mut self, name: NodeName) -> Result<(), WorldError> {
        self.set_disk(name, LogImage::default())?;
        let host = self.host(name)?;
        // The promises of a member that knows that it lost its disk are harmless. Of any other they are not.
        if host.settings.rejoin {
            let peer = host.peer.clone();
            self.observe(&Event::Wiped { node: &peer });
        }
        Ok(())
    }

    /// Whether a blank disk of a node, from its next start on, is that of a member that has lost its own.
    ///
    /// # Errors
    /// It does not exist.
    pub fn rejoin(&mut self, name: NodeName) -> Result<(), WorldError> {
        self.host_mut(name)?.settings.rejoin = true;
        Ok(())
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

    pub(super) fn tick_at(&mut self, name: NodeName, at: Time) -> Result<(), WorldError> {
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

    /// Lets time pass at a node without telling it, in microseconds, for clocks whose rates differ a little.
    ///
    /// # Errors
    /// It does not exist.
    pub fn pause_micros(&mut self, name: NodeName, us: u64) -> Result<(), WorldError> {
        let host = self.host_mut(name)?;
        host.now = Time(host.now.0 + us);
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
}
