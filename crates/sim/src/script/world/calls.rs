//! Calls: reads, changes of members, transfers. Each is numbered and has one outcome.

use ringraft_core::{CallToken, Configuration, Input, MembershipChange, ReadOnlyOption};

use super::{NodeName, World, WorldError};
use crate::checkers::Event;
use crate::script::format;

impl World {
    /// The number of the next call.
    fn next_call(&mut self, name: NodeName) -> CallToken {
        self.last_call += 1;
        let call = CallToken(self.last_call);
        self.calls.insert(call, name);
        self.observe(&Event::CallMade { node: &format::peer_of(name), call });
        call
    }

    /// Asks a node for reads that share one round.
    ///
    /// # Errors
    /// It is not running.
    pub fn read(&mut self, name: NodeName, count: usize, mode: ReadOnlyOption) -> Result<(), WorldError> {
        self.node(name)?;
        let calls = (0..count).map(|_| self.next_call(name)).collect();
        // A leader with others asks them, which takes more than one step, or lets the reads pass by its lease.
        let by_lease = self.node(name).is_ok_and(|n| n.is_leader() && n.configuration().voters().count() > 1);
        self.reads_by_lease = by_lease && mode == ReadOnlyOption::LeaseBased;
        let result = self.step_once(name, Input::ReadIndex { calls, mode });
        self.reads_by_lease = false;
        result?;
        self.settle(name)
    }

    /// Asks a node to change the members.
    ///
    /// # Errors
    /// It is not running.
    pub fn change(
        &mut self,
        name: NodeName,
        change: MembershipChange,
        prev_index: Option<u64>,
    ) -> Result<(), WorldError> {
        self.node(name)?;
        let call = self.next_call(name);
        self.step(name, Input::ChangeMembers { call, change, prev_index })
    }

    /// Asks a node to hand leadership over.
    ///
    /// # Errors
    /// It is not running.
    pub fn transfer(&mut self, name: NodeName, to: Option<NodeName>) -> Result<(), WorldError> {
        self.node(name)?;
        let call = self.next_call(name);
        self.step(name, Input::TransferLeadership { call, to: to.map(format::peer_of) })
    }

    /// Forces a configuration upon a node.
    ///
    /// # Errors
    /// It is not running.
    pub fn reset_peers(&mut self, name: NodeName, conf: Configuration) -> Result<(), WorldError> {
        self.node(name)?;
        let call = self.next_call(name);
        self.observe(&Event::Forced { conf: &conf });
        self.step(name, Input::ResetPeers { call, conf })
    }

    /// How many calls of a node have no outcome yet.
    pub fn open_calls(&self, name: NodeName) -> usize {
        self.calls.values().filter(|of| **of == name).count()
    }
}
