//! The peers that a lane talks to, by number: a number fits into what travels with a request.

use std::sync::Arc;

use ringraft_core::PeerId;
use ringraft_net::{ConnectionClass, Endpoint, LinkId, Transport};
use rustc_hash::FxHashMap;

/// Bits of a context's ticket that hold the core's ticket; the peer's number stands above them.
const TICKET_BITS: u32 = 48;

/// A peer and the paths to its host.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) text: Arc<str>,
    pub(crate) log: LinkId,
    pub(crate) control: LinkId,
    /// Whether its last answer announced ringraft's extensions.
    announced: bool,
}

/// Numbers peers as they turn up. They are never forgotten: there are as many as the configurations name.
#[derive(Debug, Default)]
pub(crate) struct PeerTable {
    numbers: FxHashMap<PeerId, u16>,
    peers: Vec<Peer>,
}

impl PeerTable {
    /// The number of a peer; `None` when there are more than numbers.
    pub(crate) fn number(&mut self, id: &PeerId, transport: &Arc<dyn Transport>) -> Option<u16> {
        if let Some(number) = self.numbers.get(id) {
            return Some(*number);
        }
        let number = u16::try_from(self.peers.len()).ok()?;
        let endpoint = Endpoint(id.endpoint().into());
        let log = transport.link(&endpoint, ConnectionClass::Log);
        let control = transport.link(&endpoint, ConnectionClass::Control);
        self.peers.push(Peer { id: id.clone(), text: id.to_string().into(), log, control, announced: false });
        self.numbers.insert(id.clone(), number);
        Some(number)
    }

    /// Notes whether an answer of the peer announced ringraft's extensions. The network treats hosts that do not as Java nodes.
    pub(crate) fn announced(&mut self, number: u16, announced: bool, transport: &Arc<dyn Transport>) {
        if let Some(peer) = self.peers.get_mut(usize::from(number))
            && std::mem::replace(&mut peer.announced, announced) != announced
        {
            transport.extensions_announced(&Endpoint(peer.id.endpoint().into()), announced);
        }
    }

    pub(crate) fn get(&self, number: u16) -> Option<&Peer> {
        self.peers.get(usize::from(number))
    }

    /// Every peer of a host.
    pub(crate) fn at<'a>(&'a self, endpoint: &'a str) -> impl Iterator<Item = &'a PeerId> {
        self.peers.iter().map(|peer| &peer.id).filter(move |id| id.endpoint() == endpoint)
    }
}

/// The core's ticket and a peer's number in one.
pub(crate) fn pack(peer: u16, ticket: u64) -> u64 {
    debug_assert!(ticket >> TICKET_BITS == 0, "a node sends fewer than 2^48 requests");
    u64::from(peer) << TICKET_BITS | ticket
}

/// The peer's number and the core's ticket.
pub(crate) fn unpack(packed: u64) -> (u16, u64) {
    ((packed >> TICKET_BITS) as u16, packed & ((1 << TICKET_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_come_back() {
        for (peer, ticket) in [(0, 0), (7, 1), (u16::MAX, (1 << 48) - 1)] {
            assert_eq!(unpack(pack(peer, ticket)), (peer, ticket));
        }
    }
}
