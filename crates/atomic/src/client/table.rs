//! What the client knows about the cluster: ranges, groups, servers, leaders.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use protobuf::Message;
use ringraft::PeerId;
use ringraft_proto::generated::atomic as proto;

use crate::ranges::Ranges;

use super::server::Server;

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

/// Reads the answer to `GetSlotsRequest`: the ranges and the server's cluster, empty when it does not know it. An error says what is
/// wrong with it.
pub(crate) fn decode_slots(content: &[u8]) -> Result<(Vec<SlotInfo>, String), String> {
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
    Ok((message.slots.into_iter().map(slot).collect(), message.cluster_id))
}

/// `ip:port` of a peer id.
pub(crate) fn endpoint_of(peer: &str) -> Option<Arc<str>> {
    let peer: PeerId = peer.parse().ok()?;
    Some(peer.endpoint().into())
}

/// Ranges with the leader of each, as far as it is known.
pub(crate) struct SlotTable {
    ranges: Ranges,
    leaders: Vec<Mutex<Option<Arc<Server>>>>,
    servers: RwLock<Vec<Arc<Server>>>,
}

impl SlotTable {
    /// A table of these slots and of servers that are known beside those that the slots name.
    ///
    /// # Errors
    /// What is wrong with the slots.
    pub(crate) fn new(slots: &[SlotInfo], known: &[Arc<str>]) -> Result<SlotTable, String> {
        let ranges = Ranges::from_starts(slots.iter().map(|slot| slot.start).collect())
            .ok_or("the server named no ranges, or they do not ascend")?;
        let leaders = slots.iter().map(|_| Mutex::new(None)).collect();
        let table = SlotTable { ranges, leaders, servers: RwLock::default() };
        for endpoint in known {
            table.server(endpoint);
        }
        table.learn(slots);
        Ok(table)
    }

    pub(crate) fn len(&self) -> usize {
        self.leaders.len()
    }

    pub(crate) fn locate(&self, key: &str) -> usize {
        self.ranges.locate_key(key)
    }

    /// Takes in what a server says of the slots: servers that are new, and leaders of slots whose leader is not known, or is avoided.
    /// A leader that is avoided is not believed: who names it may not have missed it yet. Slots of another number say nothing.
    pub(super) fn learn(&self, slots: &[SlotInfo]) {
        if slots.len() != self.leaders.len() {
            return;
        }
        let now = Instant::now();
        for (slot, leader) in slots.iter().zip(&self.leaders) {
            for endpoint in slot.peers.iter().filter_map(|peer| endpoint_of(peer)) {
                self.server(&endpoint);
            }
            let Some(named) = endpoint_of(&slot.leader).map(|endpoint| self.server(&endpoint)) else {
                continue;
            };
            let mut leader = leader.lock();
            if !named.is_avoided(now) && leader.as_ref().is_none_or(|known| known.is_avoided(now)) {
                *leader = Some(named);
            }
        }
    }

    /// Whom to ask: the leader of the slot, else some server, another one for each turn. Who is avoided is asked last.
    pub(super) fn target(&self, slot: usize, turn: usize) -> Arc<Server> {
        self.fit_leader(slot).unwrap_or_else(|| self.any_server(slot + turn))
    }

    /// The leader of the slot, unless it is avoided.
    pub(super) fn fit_leader(&self, slot: usize) -> Option<Arc<Server>> {
        self.leader(slot).filter(|leader| !leader.is_avoided(Instant::now()))
    }

    /// The leader of the slot, as far as it is known.
    pub(super) fn leader(&self, slot: usize) -> Option<Arc<Server>> {
        self.leaders[slot].lock().clone()
    }

    /// Some server that has answered something within `time`, another one for each turn.
    pub(super) fn any_heard(&self, turn: usize, time: Duration) -> Option<Arc<Server>> {
        let (now, servers) = (Instant::now(), self.servers.read());
        let in_turn = |step: usize| &servers[(turn + step) % servers.len()];
        (0..servers.len()).map(in_turn).find(|server| server.is_heard(now, time)).cloned()
    }

    /// Some server, another one for each turn; when all are avoided, the one for which that ends first.
    pub(super) fn any_server(&self, turn: usize) -> Arc<Server> {
        let (now, servers) = (Instant::now(), self.servers.read());
        let in_turn = |step: usize| &servers[(turn + step) % servers.len()];
        let fit = (0..servers.len()).map(in_turn).find(|server| !server.is_avoided(now));
        let server = fit.or_else(|| servers.iter().min_by_key(|server| server.avoided_until()));
        // There is always one: the client does not start without.
        server.cloned().unwrap_or_else(|| Arc::new(Server::new("".into())))
    }

    /// `leader` leads the slot.
    pub(super) fn set_leader(&self, slot: usize, leader: &Arc<Server>) {
        let mut known = self.leaders[slot].lock();
        if known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, leader)) {
            *known = Some(Arc::clone(leader));
        }
    }

    /// `server` does not lead the slot; another one that was learnt meanwhile stays.
    pub(super) fn clear_leader(&self, slot: usize, server: &Arc<Server>) {
        let mut leader = self.leaders[slot].lock();
        if leader.as_ref().is_some_and(|leader| Arc::ptr_eq(leader, server)) {
            *leader = None;
        }
    }

    /// Every server that is known.
    pub(super) fn servers(&self) -> Vec<Arc<Server>> {
        self.servers.read().clone()
    }

    /// The server at an endpoint, which is known from now on.
    pub(super) fn server(&self, endpoint: &Arc<str>) -> Arc<Server> {
        let find = |servers: &[Arc<Server>]| servers.iter().find(|s| s.endpoint() == endpoint).cloned();
        let known = find(&self.servers.read());
        known.unwrap_or_else(|| {
            let mut servers = self.servers.write();
            find(&servers).unwrap_or_else(|| {
                let server = Arc::new(Server::new(Arc::clone(endpoint)));
                servers.push(Arc::clone(&server));
                server
            })
        })
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

    fn target(table: &SlotTable, slot: usize, turn: usize) -> String {
        table.target(slot, turn).endpoint().to_string()
    }

    #[test]
    fn a_known_leader_is_asked_and_else_everybody_in_turn() {
        let table = table();
        assert_eq!(target(&table, 0, 0), "b:1");
        assert_eq!(target(&table, 0, 1), "b:1");
        let mut asked: Vec<String> = (0..2).map(|turn| target(&table, 1, turn)).collect();
        asked.sort();
        assert_eq!(asked, ["a:1", "b:1"]);
    }

    #[test]
    fn only_the_server_that_was_wrong_is_forgotten() {
        let table = table();
        table.clear_leader(0, &table.server(&"a:1".into()));
        assert_eq!(target(&table, 0, 1), "b:1");
        table.clear_leader(0, &table.server(&"b:1".into()));
        table.set_leader(0, &table.server(&"c:1".into()));
        assert_eq!(target(&table, 0, 5), "c:1");
        assert!(
            (0..3).any(|turn| &**table.any_server(turn).endpoint() == "c:1"),
            "a redirect makes a server known"
        );
    }

    #[test]
    fn who_is_avoided_is_asked_last() {
        let table = table();
        let now = Instant::now();
        let [a, b] = ["a:1", "b:1"].map(|endpoint| table.server(&endpoint.into()));
        b.was_silent(now);
        assert!((0..4).all(|turn| target(&table, 0, turn) == "a:1"), "though the other is its leader");
        assert!((0..4).all(|turn| target(&table, 1, turn) == "a:1"), "whoever has the turn");
        a.was_unreachable(now);
        assert_eq!(target(&table, 0, 0), "a:1", "its penalty is shorter");
        b.heard(now);
        assert_eq!(target(&table, 0, 0), "b:1", "an answer ends it");
    }

    #[test]
    fn leaders_are_learnt_where_they_are_missing_and_from_who_knows_better() {
        let table = table();
        let slot = |start, leader: &str| SlotInfo {
            start,
            group: "g".into(),
            peers: vec!["d:1".into()],
            leader: leader.into(),
        };
        let [a, b] = ["a:1", "b:1"].map(|endpoint| table.server(&endpoint.into()));
        table.learn(&[slot(0, "a:1"), slot(10, "a:1")]);
        assert!(Arc::ptr_eq(&table.leader(0).unwrap(), &b), "who answers requests is not doubted");
        assert!(Arc::ptr_eq(&table.leader(1).unwrap(), &a));
        assert!(table.servers().iter().any(|server| &**server.endpoint() == "d:1"), "new members are known");
        b.was_silent(Instant::now());
        table.learn(&[slot(0, "b:1"), slot(10, "b:1")]);
        assert!(Arc::ptr_eq(&table.leader(1).unwrap(), &a), "the silent one is not believed to lead");
        table.learn(&[slot(0, "d:1")]);
        assert!(Arc::ptr_eq(&table.leader(0).unwrap(), &b), "other slots are those of another cluster");
        table.learn(&[slot(0, "d:1"), slot(10, "d:1")]);
        assert_eq!(&**table.leader(0).unwrap().endpoint(), "d:1");
    }

    #[test]
    fn slots_must_make_sense() {
        assert!(SlotTable::new(&[], &[]).is_err());
        assert!(decode_slots(&[0xff]).is_err());
        let refusal = proto::SlotsResponse { error: "no".into(), ..Default::default() };
        assert_eq!(decode_slots(&refusal.write_to_bytes().unwrap()), Err("no".into()));
    }
}
