//! The cluster that a client means: every request of it says so, and servers of another refuse it.

use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use bytes::Bytes;
use ringraft::{RaftError, RpcError, RpcResult};
use ringraft_proto::{class, put_cluster_id};

use super::ClientError;
use super::table::{SlotInfo, endpoint_of};
use super::transport::{CallDone, ClientTransport};

/// Sends requests in the name of a cluster, once that is known.
pub(super) struct InCluster<T> {
    transport: T,
    id: OnceLock<Box<str>>,
}

impl<T: ClientTransport> InCluster<T> {
    /// With the id that the caller was told, if it was.
    pub(super) fn new(transport: T, id: Option<&str>) -> InCluster<T> {
        InCluster { transport, id: id.map(Box::from).map_or_else(OnceLock::new, OnceLock::from) }
    }

    pub(super) fn knows(&self) -> bool {
        self.id.get().is_some()
    }

    /// A server has told its cluster; an empty id says that it does not know it.
    pub(super) fn learn(&self, id: &str) {
        if !id.is_empty() {
            self.id.get_or_init(|| id.into());
        }
    }

    /// Servers that the caller named and that are no members of what the first to answer belongs to may belong to another cluster: then the
    /// caller means both, and which one it gets would depend on who was quicker.
    ///
    /// # Errors
    /// [`ClientError::WrongCluster`] naming both.
    pub(super) fn check_strangers(
        &self,
        servers: &[Arc<str>],
        slots: &[SlotInfo],
        limit: Duration,
    ) -> Result<(), ClientError> {
        let is_member = |server: &Arc<str>| {
            slots.iter().flat_map(|slot| &slot.peers).any(|peer| endpoint_of(peer).as_ref() == Some(server))
        };
        let (sender, answers) = mpsc::channel();
        for server in servers.iter().filter(|server| !is_member(server)) {
            let sender = sender.clone();
            let done = Box::new(move |result: RpcResult| {
                // Nobody listens any more when another has refused.
                let _ = sender.send(result);
            });
            self.call(server, class::ATOMIC_GET_SLOTS_REQUEST, Bytes::new(), limit, done);
        }
        drop(sender);
        // Each call has its end, and the channel with the last of them.
        match answers.into_iter().find_map(|result| wrong_cluster(&result)) {
            Some(message) => Err(ClientError::WrongCluster(message)),
            None => Ok(()),
        }
    }
}

/// What a server of another cluster said.
pub(super) fn wrong_cluster(result: &RpcResult) -> Option<String> {
    match result {
        Err(error @ RpcError::Remote { status, .. }) if status.error == RaftError::WrongCluster => {
            Some(error.to_string())
        }
        _ => None,
    }
}

impl<T: ClientTransport> ClientTransport for InCluster<T> {
    fn call(&self, endpoint: &str, class: &'static str, content: Bytes, timeout: Duration, done: CallDone) {
        let content = match self.id.get() {
            Some(id) => {
                let mut named = Vec::with_capacity(content.len() + id.len() + 4);
                named.extend_from_slice(&content);
                put_cluster_id(&mut named, id);
                named.into()
            }
            None => content,
        };
        self.transport.call(endpoint, class, content, timeout, done);
    }

    fn shutdown(&self) {
        self.transport.shutdown();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use parking_lot::Mutex;
    use protobuf::Message;
    use ringraft::{PeerId, RpcResponse, Status};
    use ringraft_proto::cluster_id_of;
    use ringraft_proto::generated::atomic as proto;

    use super::*;
    use crate::client::{AtomicClient, ClientOptions};
    use crate::command::Answer;
    use crate::reply::{self, Reply, ReplyKind};

    /// Id and members of a cluster.
    type Cluster = (&'static str, &'static [&'static str]);

    /// Servers, each of a cluster of the members of which it tells; every request and the cluster that it meant.
    #[derive(Clone)]
    struct Servers {
        clusters: Arc<Mutex<BTreeMap<&'static str, Cluster>>>,
        asked: Arc<Mutex<Vec<(String, String)>>>,
    }

    impl ClientTransport for Servers {
        fn call(&self, endpoint: &str, class: &'static str, content: Bytes, _: Duration, done: CallDone) {
            let meant = cluster_id_of(&content).unwrap();
            self.asked.lock().push((endpoint.to_owned(), meant.to_owned()));
            let Some((id, members)) = self.clusters.lock().get(endpoint).copied() else {
                return done(Err(RpcError::NotConnected {
                    endpoint: endpoint.into(),
                    reason: "down".into(),
                }));
            };
            if !meant.is_empty() && !id.is_empty() && meant != id {
                let status = Status::new(RaftError::WrongCluster, format!("means {meant}, belongs to {id}"));
                return done(Err(RpcError::Remote { endpoint: endpoint.into(), status }));
            }
            let (class, content) = if class == class::ATOMIC_GET_SLOTS_REQUEST {
                let slot = proto::Slot {
                    group: "g_0".into(),
                    peers: members.iter().map(|member| (*member).to_owned()).collect(),
                    leader: members[0].into(),
                    ..Default::default()
                };
                let cluster_id = id.to_owned();
                let slots = vec![slot];
                let message = proto::SlotsResponse { success: true, slots, cluster_id, ..Default::default() };
                (class::ATOMIC_SLOTS_RESPONSE, message.write_to_bytes().unwrap().into())
            } else {
                let reply = Reply { answer: Answer::Changed(true), group: "g_0".into(), index: 1 };
                (ReplyKind::Boolean.class(), reply::encode(ReplyKind::Boolean, "g_0", &Ok(reply)))
            };
            done(Ok(RpcResponse { class: class.into(), content }));
        }

        fn shutdown(&self) {}
    }

    const FIRST: Cluster = ("first", &["a:1", "b:1", "c:1"]);
    const SECOND: Cluster = ("second", &["c:1", "d:1"]);

    fn connect(conf: &[&str], id: Option<&str>) -> (Servers, Result<AtomicClient, ClientError>) {
        let clusters =
            [("a:1", FIRST), ("b:1", FIRST), ("c:1", SECOND), ("d:1", SECOND), ("old:1", ("", SECOND.1))];
        let servers = Servers { clusters: Arc::new(Mutex::new(clusters.into())), asked: Arc::default() };
        let peers: Vec<PeerId> = conf.iter().map(|peer| peer.parse().unwrap()).collect();
        let options = ClientOptions {
            cluster_id: id.map(str::to_owned),
            timeout: Duration::from_millis(500),
            ..ClientOptions::default()
        };
        let client = AtomicClient::over(Box::new(servers.clone()), &peers, options);
        (servers, client)
    }

    #[test]
    fn every_request_names_the_cluster_once_it_is_known() {
        let (servers, client) = connect(&["a:1", "b:1"], None);
        client.unwrap().set("k", 1).unwrap();
        let told = |endpoint: &str, meant: &str| (endpoint.to_owned(), meant.to_owned());
        assert_eq!(*servers.asked.lock(), [told("a:1", ""), told("a:1", "first")]);
        let (servers, client) = connect(&["a:1"], Some("first"));
        client.unwrap().set("k", 1).unwrap();
        assert!(servers.asked.lock().iter().all(|(_, meant)| meant == "first"));
    }

    #[test]
    fn servers_of_another_cluster_are_told_from_those_that_are_down() {
        let kind = |conf: &[&str], id| connect(conf, id).1.map(drop).map_err(|error| error.kind());
        assert_eq!(kind(&["c:1", "d:1"], Some("first")), Err("wrong_cluster"));
        assert_eq!(kind(&["down:1"], Some("first")), Err("timeout"));
        assert_eq!(kind(&["c:1", "a:1"], Some("first")), Ok(()), "one of the right cluster is enough");
        assert_eq!(kind(&["old:1"], Some("first")), Ok(()), "an earlier program refuses nobody");
    }

    #[test]
    fn who_names_servers_of_two_clusters_is_told_so() {
        let error = connect(&["c:1", "a:1"], None).1.map(drop).unwrap_err();
        assert_eq!(error.kind(), "wrong_cluster");
        assert!(error.to_string().contains("first") && error.to_string().contains("second"), "{error}");
        assert!(connect(&["c:1", "down:1"], None).1.is_ok(), "one that is down is of no cluster");
    }

    /// The shared server is a member by the first cluster's list, and refuses its clients: they go elsewhere.
    #[test]
    fn a_server_that_belongs_elsewhere_is_left() {
        let (servers, client) = connect(&["a:1", "b:1", "c:1"], None);
        let client = client.unwrap();
        for key in 0..20 {
            client.set(&key.to_string(), 1).unwrap();
        }
        assert!(servers.asked.lock().iter().all(|(_, meant)| meant != "second"));
        // When all belong elsewhere it is said what is wrong.
        for endpoint in ["a:1", "b:1"] {
            servers.clusters.lock().insert(endpoint, SECOND);
        }
        assert_eq!(client.set("k", 1).unwrap_err().kind(), "wrong_cluster");
    }
}
