//! Which group of which lane a request is for (SOFAJRaft's `NodeManager`).

use std::sync::Arc;

use ringraft_core::{GroupId, PeerId, RaftError, Status};
use rustc_hash::FxHashMap;

use crate::handler::GroupHandle;
use crate::identity::cluster_gate::ClusterGate;
use crate::identity::creation;
use crate::node::Node;
use crate::rpc::unopened_groups::UnopenedGroups;
use crate::thread::sync::RwLock;

/// One running replica.
struct Route {
    server_id: PeerId,
    text: String,
    /// Creation number of the life that runs.
    creation: u64,
    handle: GroupHandle,
    node: Option<Node>,
}

/// The replicas that run on a host, by group.
#[derive(Default)]
pub struct RoutingTable {
    routes: RwLock<FxHashMap<GroupId, Route>>,
    gate: Arc<ClusterGate>,
    unopened: UnopenedGroups,
}

impl RoutingTable {
    /// A table without groups.
    pub fn new() -> RoutingTable {
        RoutingTable::default()
    }

    /// A table without groups on a host of this cluster.
    pub fn in_cluster(gate: Arc<ClusterGate>) -> RoutingTable {
        RoutingTable { gate, ..RoutingTable::default() }
    }

    pub(crate) fn unopened(&self) -> &UnopenedGroups {
        &self.unopened
    }

    pub(crate) fn gate(&self) -> &ClusterGate {
        &self.gate
    }

    /// Makes a replica of the life with this creation number reachable. A host runs one replica of a group.
    pub fn insert(&self, group_id: GroupId, server_id: PeerId, creation: u64, handle: GroupHandle) {
        let text = server_id.to_string();
        let route = Route { server_id, text, creation, handle, node: None };
        self.routes.write().insert(group_id, route);
    }

    pub(crate) fn insert_node(&self, node: Node) {
        let server_id = node.server_id().clone();
        let text = server_id.to_string();
        let (creation, handle) = (node.creation(), node.handle());
        let route = Route { server_id, text, creation, handle, node: Some(node.clone()) };
        self.routes.write().insert(node.group_id().clone(), route);
    }

    /// Makes a group unreachable.
    pub fn remove(&self, group_id: &GroupId) {
        self.routes.write().remove(group_id);
    }

    /// Makes one life of a group unreachable; says whether it was reachable. A later life that has taken its place stays.
    pub(crate) fn remove_life(&self, group_id: &GroupId, handle: GroupHandle) -> bool {
        let mut routes = self.routes.write();
        let found = routes.get(group_id).is_some_and(|route| route.handle == handle);
        let removed = if found { routes.remove(group_id) } else { None };
        drop(routes);
        removed.is_some()
    }

    pub(crate) fn clear(&self) {
        self.routes.write().clear();
    }

    pub(crate) fn node(&self, group_id: &str) -> Option<Node> {
        self.routes.read().get(group_id).and_then(|route| route.node.clone())
    }

    /// The replica that a request of a `CliService` names, or the one that runs here when it names none. A host runs one replica of a
    /// group, so that naming none is never ambiguous.
    ///
    /// # Errors
    /// `ENOENT` when there is none, `EINVAL` when the text is no peer id, `EACCES` when the node refuses such requests: what Java
    /// answers. `EWRONGCREATION` when the request names another creation number than 0, which means any, and than the group's.
    pub(crate) fn cli_node(&self, group: &str, peer: &str, creation: u64) -> Result<Node, Status> {
        let not_found = |message| Status::new(RaftError::NotFound, message);
        let found = self.node(group);
        let node = if peer.trim().is_empty() {
            found.ok_or_else(|| not_found(format!("Empty nodes in group {group}")))?
        } else {
            let id: PeerId = peer
                .parse()
                .map_err(|_| Status::new(RaftError::Invalid, format!("Fail to parse peer: {peer}")))?;
            found
                .filter(|node| *node.server_id() == id)
                .ok_or_else(|| not_found(format!("Fail to find node {peer} in group {group}")))?
        };
        if node.refuses_cli() {
            let message = format!("Cli service is not allowed to access node {}", node.node_id());
            return Err(Status::new(RaftError::Access, message));
        }
        creation::check_call(group, creation, node.creation())?;
        Ok(node)
    }

    pub(crate) fn nodes(&self) -> Vec<Node> {
        let mut nodes: Vec<Node> =
            self.routes.read().values().filter_map(|route| route.node.clone()).collect();
        nodes.sort_by(|a, b| a.group_id().cmp(b.group_id()));
        nodes
    }

    /// The lane of a group that runs here.
    pub(crate) fn lane(&self, group: &str) -> Option<u16> {
        self.routes.read().get(group).map(|route| route.handle.lane)
    }

    /// The group that a request names, and the replica that it is for. `creation` is the number that the request carries.
    ///
    /// # Errors
    /// `ENOENT` when no such replica runs here, `EINVAL` when the text is no peer id: what Java answers; `EWRONGCREATION` when another life
    /// of the group runs here.
    pub fn find(&self, group: &str, peer: &str, creation: u64) -> Result<GroupHandle, Status> {
        if let Some(route) = self.routes.read().get(group) {
            let is_it = || peer.parse::<PeerId>().map(|peer| peer == route.server_id);
            if route.text == peer || is_it().map_err(|_| bad_peer_id(peer))? {
                // Together with what is found: another life may take the place at any moment.
                return creation::check(group, creation, route.creation).map(|()| route.handle);
            }
        } else {
            peer.parse::<PeerId>().map_err(|_| bad_peer_id(peer))?;
        }
        Err(Status::new(RaftError::NotFound, format!("Peer id not found: {peer}, group: {group}")))
    }
}

fn bad_peer_id(text: &str) -> Status {
    Status::new(RaftError::Invalid, format!("Fail to parse peerId: {text}"))
}

impl std::fmt::Debug for RoutingTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoutingTable").field("groups", &self.routes.read().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_found_by_any_spelling_of_their_id() {
        let table = RoutingTable::new();
        let handle = GroupHandle { lane: 1, slot: 2, generation: 3 };
        table.insert("g".parse().unwrap(), "a:1".parse().unwrap(), 0, handle);
        assert_eq!(table.find("g", "a:1", 0), Ok(handle));
        assert_eq!(table.find("g", "a:1::100", 0), Ok(handle), "a priority is not identity");
        let missing = table.find("g", "a:2", 0).unwrap_err();
        assert_eq!((missing.error.code(), &*missing.message), (1012, "Peer id not found: a:2, group: g"));
        assert_eq!(table.find("h", "a:1", 0).unwrap_err().error.code(), 1012);
        assert_eq!(table.find("g", "nonsense", 0).unwrap_err().error.code(), 1015);
        assert_eq!(table.find("h", "nonsense", 0).unwrap_err().error.code(), 1015);
        table.remove(&"g".parse().unwrap());
        assert!(table.find("g", "a:1", 0).is_err());
    }

    /// Two callers stop a group, the first of them starts it again: the second must not stop the new life.
    #[test]
    fn a_late_stop_leaves_the_next_life_alone() {
        let table = RoutingTable::new();
        let (group, server): (GroupId, PeerId) = ("g".parse().unwrap(), "a:1".parse().unwrap());
        let first = GroupHandle { lane: 1, slot: 2, generation: 3 };
        let second = GroupHandle { generation: 5, ..first };
        table.insert(group.clone(), server.clone(), 0, first);
        assert!(table.remove_life(&group, first));
        table.insert(group.clone(), server, 0, second);
        assert!(!table.remove_life(&group, first));
        assert_eq!(table.find("g", "a:1", 0), Ok(second));
        assert!(table.remove_life(&group, second));
    }
}
