//! What the client knows about the cluster: ranges, groups, servers, leaders.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use protobuf::Message;
use ringraft::PeerId;
use ringraft_proto::generated::atomic as proto;

use crate::ranges::Ranges;

/// A range of hashes and who serves it, as a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    /// Smallest hash of the range; it ends where the next begins.
    pub start: i64,
    /// Name of the group.
    pub group: String,
    /// Peer ids of the voters.
    pub peers: Vec<String>,
    /// Peer id of the leader; empty when the server knew none.
    pub leader: String,
}

/// Reads the answer to `GetSlotsRequest`; an error says what is wrong with it.
pub(crate) fn decode_slots(content: &[u8]) -> Result<Vec<SlotInfo>, String> {
    let message = proto::SlotsResponse::parse_from_bytes(content).map_err(|error| error.to_string())?;
    if !message.success {
        return Err(message.error);
    }
    let slot = |slot: proto::Slot| SlotInfo {
        start: slot.start,
        group: slot.group,
        peers: slot.peers,
        leader: slot.leader,
    };
    Ok(message.slots.into_iter().map(slot).collect())
}

/// `ip:port` of a peer id.
pub(crate) fn endpoint_of(peer: &str) -> Option<Arc<str>> {
    let peer: PeerId = peer.parse().ok()?;
    Some(peer.endpoint().into())
}

/// Ranges with the leader of each, as far as it is known.
pub(crate) struct SlotTable {
    ranges: Ranges,
    leaders: Vec<Mutex<Option<Arc<str>>>>,
    servers: RwLock<Vec<Arc<str>>>,
}

impl SlotTable {
    /// A table of these slots and of servers that are known beside those that the slots name.
    ///
    /// # Errors
    /// What is wrong with the slots.
    pub(crate) fn new(slots: &[SlotInfo], known: &[Arc<str>]) -> Result<SlotTable, String> {
        let ranges = Ranges::from_starts(slots.iter().map(|slot| slot.start).collect())
            .ok_or("the server named no ranges, or they do not ascend")?;
        let leaders = slots.iter().map(|slot| Mutex::new(endpoint_of(&slot.leader))).collect();
        let table = SlotTable { ranges, leaders, servers: RwLock::new(known.to_vec()) };
        for peer in slots.iter().flat_map(|slot| &slot.peers) {
            if let Some(endpoint) = endpoint_of(peer) {
                table.add_server(&endpoint);
            }
        }
        Ok(table)
    }

    pub(crate) fn len(&self) -> usize {
        self.leaders.len()
    }

    pub(crate) fn locate(&self, key: &str) -> usize {
        self.ranges.locate_key(key)
    }

    /// Whom to ask: the leader of the slot, else some server, another one for each turn.
    pub(crate) fn target(&self, slot: usize, turn: usize) -> Arc<str> {
        if let Some(leader) = &*self.leaders[slot].lock() {
            return Arc::clone(leader);
        }
        self.any_server(slot + turn)
    }

    /// Some server, another one for each turn.
    pub(crate) fn any_server(&self, turn: usize) -> Arc<str> {
        let servers = self.servers.read();
        // There is always one: the client does not start without.
        servers.get(turn % servers.len().max(1)).cloned().unwrap_or_else(|| "".into())
    }

    /// `leader` leads the slot.
    pub(crate) fn set_leader(&self, slot: usize, leader: &Arc<str>) {
        self.add_server(leader);
        *self.leaders[slot].lock() = Some(Arc::clone(leader));
    }

    /// `server` does not lead the slot; another one that was learnt meanwhile stays.
    pub(crate) fn clear_leader(&self, slot: usize, server: &str) {
        let mut leader = self.leaders[slot].lock();
        if leader.as_deref() == Some(server) {
            *leader = None;
        }
    }

    fn add_server(&self, endpoint: &Arc<str>) {
        if !self.servers.read().contains(endpoint) {
            let mut servers = self.servers.write();
            if !servers.contains(endpoint) {
                servers.push(Arc::clone(endpoint));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> SlotTable {
        let slot = |start, leader: &str| SlotInfo {
            start,
            group: format!("g_{start}"),
            peers: vec!["a:1".into(), "b:1".into()],
            leader: leader.into(),
        };
        SlotTable::new(&[slot(0, "b:1"), slot(10, "")], &["a:1".into()]).unwrap()
    }

    #[test]
    fn a_known_leader_is_asked_and_else_everybody_in_turn() {
        let table = table();
        assert_eq!(&*table.target(0, 0), "b:1");
        assert_eq!(&*table.target(0, 1), "b:1");
        let mut asked: Vec<String> = (0..2).map(|turn| table.target(1, turn).to_string()).collect();
        asked.sort();
        assert_eq!(asked, ["a:1", "b:1"]);
    }

    #[test]
    fn only_the_server_that_was_wrong_is_forgotten() {
        let table = table();
        table.clear_leader(0, "a:1");
        assert_eq!(&*table.target(0, 1), "b:1");
        table.clear_leader(0, "b:1");
        table.set_leader(0, &"c:1".into());
        assert_eq!(&*table.target(0, 5), "c:1");
        assert!((0..3).any(|turn| &*table.any_server(turn) == "c:1"), "a redirect makes a server known");
    }

    #[test]
    fn slots_must_make_sense() {
        assert!(SlotTable::new(&[], &[]).is_err());
        assert!(decode_slots(&[0xff]).is_err());
        let refusal = proto::SlotsResponse { error: "no".into(), ..Default::default() };
        assert_eq!(decode_slots(&refusal.write_to_bytes().unwrap()), Err("no".into()));
    }
}
