//! Who gets one of the slots for inbound connections, and who makes room for whom.
//!
//! A connection has a rank, by what is known of it. Rule X6: when slots run short, the one of the lowest rank that was of no use for longest goes:
//! a silent stranger before one that has been served, both before anybody from a member's address, and a connection that carries raft
//! requests in a member's name last of all. Nobody is asked to prove who he is, so that a rank can be had by pretending; what it
//! takes is to do all the time what members do.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::{Engine, Slot};
use crate::Inbound;
use crate::address::Address;
use crate::hub::ConnectionId;
use crate::metrics::NetMetrics;
use crate::peer::Peer;
use crate::socket::Socket;
use crate::standing::{
    MEMBER, MEMBER_FROM_ELSEWHERE, NEIGHBOUR, RANKS, SILENT_NEIGHBOUR, SILENT_STRANGER, STRANGER, Standing,
};

/// A connection that was served gives way to strangers when nothing was asked on it for so long.
const IDLE: Duration = Duration::from_secs(1);

/// Connections that are looked at to find one that gives way: what a newcomer may cost.
const LOOKS: usize = 64;

/// Connections closed for one newcomer at most, when the cap was lowered below what is open.
const EVICTIONS: usize = 2;

/// Connections in about the order in which they were last of use. Those that are gone, or of another rank, are found out when their turn
/// comes.
#[derive(Debug, Default)]
struct Line {
    count: usize,
    queue: VecDeque<(ConnectionId, Instant)>,
}

impl Line {
    fn enter(&mut self, id: ConnectionId, at: Instant) {
        self.count += 1;
        self.queue.push_back((id, at));
    }

    fn has_many_leftovers(&self) -> bool {
        self.queue.len() > 2 * self.count + LOOKS
    }
}

/// The counts and orders behind the decisions.
#[derive(Debug, Default)]
pub(super) struct Admission {
    ranks: [Line; RANKS],
    /// Strangers by block of addresses.
    blocks: HashMap<Address, Line>,
    /// Addresses of members.
    known: HashSet<Address>,
}

/// The caps, in the order in which they are looked at.
#[derive(Clone, Copy, Debug)]
enum Cap {
    Address,
    Silent,
    Total,
}

impl Admission {
    /// Members live there.
    pub(super) fn knows(&self, address: &Address) -> bool {
        self.known.contains(address)
    }

    fn total(&self) -> usize {
        self.ranks.iter().map(|line| line.count).sum()
    }

    fn enter<S>(&mut self, peer: &Peer<S>, standing: &Standing) {
        let (id, at) = (peer.shared.id, peer.last_of_use());
        self.ranks[standing.rank()].enter(id, at);
        if standing.is_stranger() {
            self.blocks.entry(standing.address.block()).or_default().enter(id, at);
        }
    }

    fn leave(&mut self, standing: &Standing) {
        self.ranks[standing.rank()].count -= 1;
        if !standing.is_stranger() {
            return;
        }
        let block = standing.address.block();
        if let Some(line) = self.blocks.get_mut(&block) {
            line.count -= 1;
            if line.count == 0 {
                self.blocks.remove(&block);
            }
        }
    }
}

impl<S: Socket> Engine<S> {
    /// A new inbound connection.
    pub(super) fn enter(&mut self, peer: &Peer<S>) {
        if let Some(standing) = peer.standing() {
            self.admission.enter(peer, standing);
        }
    }

    /// The inbound connection is gone.
    pub(super) fn leave(&mut self, peer: &Peer<S>) {
        if let Some(standing) = peer.standing() {
            self.admission.leave(standing);
        }
    }

    /// Something became known of an inbound connection.
    pub(super) fn restand(&mut self, peer: &Peer<S>, before: Option<&Standing>) {
        let (Some(before), Some(standing)) = (before, peer.standing()) else { return };
        if before.rank() != standing.rank() {
            self.admission.leave(before);
            self.admission.enter(peer, standing);
        }
    }

    /// A member lives at this address.
    pub(super) fn know(&mut self, address: Address) {
        if !self.admission.known.insert(address.clone()) {
            return;
        }
        for slot in 0..self.slots.len() {
            let Some(mut peer) = self.slots[slot].peer.take() else { continue };
            let before = peer.standing().cloned();
            if peer.learn(|standing| standing.known |= standing.address == address) {
                self.restand(&peer, before.as_ref());
            }
            self.slots[slot].peer = Some(peer);
        }
    }

    /// The connection carries raft requests in a member's name.
    pub(super) fn promote(&mut self, id: ConnectionId) {
        if self.peer_mut(id).is_none() {
            return;
        }
        let Some(mut peer) = self.slots[id.slot as usize].peer.take() else { return };
        let before = peer.standing().cloned();
        if peer.learn(|standing| standing.member = true) {
            self.restand(&peer, before.as_ref());
            self.count_held(&mut peer);
        }
        self.slots[id.slot as usize].peer = Some(peer);
    }

    /// Whether one more connection from there is taken. Closes others for it where it must; counts it as refused where it may not.
    pub(crate) fn make_room(&mut self, address: &Address, now: Instant, inbound: &mut dyn Inbound) -> bool {
        self.drop_leftovers(&address.block());
        let known = self.admission.knows(address);
        for cap in [Cap::Address, Cap::Silent, Cap::Total] {
            for _ in 0..EVICTIONS {
                if !self.is_reached(cap, address, known) {
                    break;
                }
                let Some(id) = self.who_gives_way(cap, address, known, now) else {
                    NetMetrics::add(&self.hub.metrics.refused, 1);
                    return false;
                };
                self.evict(id, now, inbound);
            }
        }
        true
    }

    /// The process has no descriptors left: closes a connection that is of no use now. `false` when there is none.
    pub(crate) fn spare_descriptor(&mut self, now: Instant, inbound: &mut dyn Inbound) -> bool {
        let idle = self.first_idle(&[SILENT_STRANGER, STRANGER, SILENT_NEIGHBOUR, NEIGHBOUR], now);
        if let Some(id) = idle {
            self.evict(id, now, inbound);
        }
        idle.is_some()
    }

    fn evict(&mut self, id: ConnectionId, now: Instant, inbound: &mut dyn Inbound) {
        NetMetrics::add(&self.hub.metrics.evicted, 1);
        self.close(id, "it was of no use for longest when others wanted in", now, inbound);
    }

    fn is_reached(&self, cap: Cap, address: &Address, known: bool) -> bool {
        let (options, ranks) = (&self.hub.options, &self.admission.ranks);
        match cap {
            Cap::Address => {
                let here = self.admission.blocks.get(&address.block()).map_or(0, |line| line.count);
                !known && here >= options.max_connections_per_address
            }
            Cap::Silent => {
                let silent = if known { SILENT_NEIGHBOUR } else { SILENT_STRANGER };
                ranks[silent].count >= options.max_unproven_connections
            }
            Cap::Total => {
                let max = self.hub.max_inbound_connections();
                let strangers = ranks[SILENT_STRANGER].count + ranks[STRANGER].count;
                self.admission.total() >= max || (!known && strangers >= max - self.reserved())
            }
        }
    }

    /// Slots that strangers never get.
    fn reserved(&self) -> usize {
        self.hub.options.member_reserve.min(self.hub.max_inbound_connections() / 4)
    }

    fn who_gives_way(
        &mut self,
        cap: Cap,
        address: &Address,
        known: bool,
        now: Instant,
    ) -> Option<ConnectionId> {
        match cap {
            Cap::Address => {
                let block = address.block();
                let mut line = self.admission.blocks.remove(&block)?;
                let found = first_to_go(&mut line.queue, &self.slots, false, now, |standing| {
                    standing.is_stranger() && standing.address.block() == block
                });
                self.admission.blocks.insert(block, line);
                found
            }
            Cap::Silent => self.first_idle(&[if known { SILENT_NEIGHBOUR } else { SILENT_STRANGER }], now),
            Cap::Total if !known => self.first_idle(&[SILENT_STRANGER, STRANGER], now),
            Cap::Total => {
                let idle = [SILENT_STRANGER, STRANGER, SILENT_NEIGHBOUR, NEIGHBOUR];
                // A member may have to come in while everybody else is busy.
                let busy = [STRANGER, NEIGHBOUR, MEMBER_FROM_ELSEWHERE];
                self.first_idle(&idle, now).or_else(|| self.first_of(&busy, true, now)).or_else(|| {
                    let too_many = self.admission.ranks[MEMBER].count > self.reserved();
                    if too_many { self.first_of(&[MEMBER], true, now) } else { None }
                })
            }
        }
    }

    fn first_idle(&mut self, ranks: &[usize], now: Instant) -> Option<ConnectionId> {
        self.first_of(ranks, false, now)
    }

    fn first_of(&mut self, ranks: &[usize], busy_too: bool, now: Instant) -> Option<ConnectionId> {
        ranks.iter().find_map(|rank| {
            let queue = &mut self.admission.ranks[*rank].queue;
            first_to_go(queue, &self.slots, busy_too, now, |standing| standing.rank() == *rank)
        })
    }

    /// Connections come and go without ever being looked for; what they leave in the lines must not pile up.
    fn drop_leftovers(&mut self, block: &Address) {
        let slots = &self.slots;
        for (rank, line) in self.admission.ranks.iter_mut().enumerate() {
            if line.has_many_leftovers() {
                line.queue.retain(|(id, _)| standing(slots, *id).is_some_and(|s| s.rank() == rank));
            }
        }
        if let Some(line) = self.admission.blocks.get_mut(block)
            && line.has_many_leftovers()
        {
            let here = |s: &Standing| s.is_stranger() && s.address.block() == *block;
            line.queue.retain(|(id, _)| standing(slots, *id).is_some_and(here));
        }
    }
}

fn living<S>(slots: &[Slot<S>], id: ConnectionId) -> Option<&Peer<S>> {
    let slot = slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
    slot.peer.as_deref()
}

fn standing<S>(slots: &[Slot<S>], id: ConnectionId) -> Option<&Standing> {
    living(slots, id)?.standing()
}

/// The connection of a line that was of no use for longest, about: who has been of use since it was last looked at goes to the end.
fn first_to_go<S>(
    queue: &mut VecDeque<(ConnectionId, Instant)>,
    slots: &[Slot<S>],
    busy_too: bool,
    now: Instant,
    belongs: impl Fn(&Standing) -> bool,
) -> Option<ConnectionId> {
    for _ in 0..LOOKS {
        let (id, at) = queue.pop_front()?;
        let Some(peer) = living(slots, id).filter(|peer| peer.standing().is_some_and(&belongs)) else {
            continue;
        };
        let last = peer.last_of_use();
        if last == at && (busy_too || peer.is_idle(now, IDLE)) {
            return Some(id);
        }
        queue.push_back((id, last));
    }
    None
}
