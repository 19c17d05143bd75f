//! The question of a member that remembers nothing of a group: do its peers remember more?
//!
//! `bootstrap` left in a unit file takes every blank disk into use, also that of a member whose disk was lost: it would vote as if it had never
//! lived. So a blank member of the initial configuration asks the others first. Who answers that entries of the group are committed has seen it
//! alive, for nothing is committed without a majority of those members. It is a net and not a proof: peers that are down, cut off, or do
//! not know yet what is committed say nothing (`docs/decisions/0011-whose-directory.md`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use protobuf::Message;
use ringraft_core::{Configuration, GroupId, RaftError};
use ringraft_proto::generated::group_state::{GroupMemory, GroupStateRequest, GroupStateResponse};
use ringraft_proto::{class, protobuf};
use ringraft_storage::GroupOpening;

use crate::error::StartError;
use crate::host::options::TransportOptions;
use crate::rpc::client::{RpcClient, RpcClientOptions, RpcError, RpcResult};
use crate::rpc::group_state::MAX_GROUPS;

/// Bytes of group names in one question, about.
const MAX_NAME_BYTES: usize = 256 << 10;

/// How long a peer that is not reached is tried, and one that is reached may take, before it is asked again.
const ATTEMPT: Duration = Duration::from_millis(500);

/// Pause before a peer is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// How a host asks.
pub(crate) struct BootstrapQuestion {
    /// At most so long.
    pub(crate) limit: Duration,
    /// As the host speaks to its peers.
    pub(crate) transport: TransportOptions,
    /// The host itself, which is not asked.
    pub(crate) endpoint: String,
}

/// One peer, some groups.
struct Part<'a> {
    endpoint: String,
    groups: Vec<&'a GroupOpening>,
    content: Bytes,
    /// When it is asked next; `None` while it is being asked, or has said all that it will.
    due: Option<Instant>,
    /// It may say more.
    open: bool,
}

impl BootstrapQuestion {
    /// The groups of which somebody has committed entries, with who said so. Waits until
    /// enough peers have said what they remember, and no longer than the limit.
    ///
    /// # Errors
    /// [`StartError::Net`] or [`StartError::Thread`] when the system refuses a connection's means.
    pub(crate) fn ask(
        &self,
        cluster_id: &str,
        groups: &[(GroupOpening, Configuration)],
    ) -> Result<BTreeMap<GroupId, String>, StartError> {
        let mut parts = self.parts(cluster_id, groups);
        let mut found = BTreeMap::new();
        if parts.is_empty() || self.limit.is_zero() {
            return Ok(found);
        }
        let client = Arc::new(self.client()?);
        let deadline = Instant::now() + self.limit;
        let (sender, answers) = mpsc::channel();
        while parts.iter().any(|part| part.open) {
            let now = Instant::now();
            if now >= deadline {
                break;
            }
            for (number, part) in parts.iter_mut().enumerate() {
                if part.due.take_if(|due| *due <= now).is_some() {
                    let sender = sender.clone();
                    let done = move |result: RpcResult| {
                        // Nobody listens any more when the time is over.
                        let _ = sender.send((number, result));
                    };
                    let timeout = ATTEMPT.min(deadline - now);
                    let content = part.content.clone();
                    client.call_async(&part.endpoint, class::GROUP_STATE_REQUEST, content, timeout, done);
                }
            }
            let next = parts.iter().filter_map(|part| part.due).min().unwrap_or(deadline).min(deadline);
            if let Ok((number, result)) = answers.recv_timeout(next.saturating_duration_since(now))
                && let Some(part) = parts.get_mut(number)
            {
                part.open = part.take(result, &mut found);
                part.due = part.open.then(|| Instant::now() + PAUSE);
                // What one has said of a group, no other can take back.
                for part in parts.iter_mut().filter(|part| part.open) {
                    part.open = part.groups.iter().any(|asked| !found.contains_key(&asked.group));
                    part.due = part.due.filter(|_| part.open);
                }
            }
        }
        client.shutdown();
        Ok(found)
    }

    /// Every peer with its groups, as many at a time as a question may have.
    fn parts<'a>(&self, cluster_id: &str, groups: &'a [(GroupOpening, Configuration)]) -> Vec<Part<'a>> {
        let mut by_peer: BTreeMap<String, Vec<&GroupOpening>> = BTreeMap::new();
        for (group, conf) in groups {
            for endpoint in conf.peers.iter().map(|peer| peer.endpoint()).filter(|e| *e != self.endpoint) {
                let of_peer = by_peer.entry(endpoint).or_default();
                if of_peer.last() != Some(&group) {
                    of_peer.push(group);
                }
            }
        }
        let mut parts = Vec::new();
        for (endpoint, groups) in by_peer {
            let (mut rest, now) = (&groups[..], Instant::now());
            while !rest.is_empty() {
                let mut bytes = 0;
                let fits = rest.iter().take(MAX_GROUPS).take_while(|group| {
                    bytes += group.group.as_str().len();
                    bytes <= MAX_NAME_BYTES
                });
                let (these, others) = rest.split_at(fits.count().max(1));
                rest = others;
                let question = GroupStateRequest {
                    groups: these.iter().map(|asked| asked.group.as_str().to_owned()).collect(),
                    creations: creations(these),
                    cluster_id: cluster_id.to_owned(),
                    ..Default::default()
                };
                // Only messages beyond 2 GiB cannot be written.
                let content = question.write_to_bytes().unwrap_or_default().into();
                let (endpoint, groups) = (endpoint.clone(), these.to_vec());
                parts.push(Part { endpoint, groups, content, due: Some(now), open: true });
            }
        }
        parts
    }

    fn client(&self) -> Result<RpcClient, StartError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let options = RpcClientOptions { connect_timeout_ms: ATTEMPT.as_millis() as u64 };
        match &self.transport {
            TransportOptions::Tcp { .. } => RpcClient::new(options),
            TransportOptions::Inproc(network) => {
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                RpcClient::inproc(options, network, &format!("{} asks {number}", self.endpoint))
            }
        }
    }
}

/// Their creation numbers, where one has any.
fn creations(groups: &[&GroupOpening]) -> Vec<u64> {
    let numbered = groups.iter().any(|asked| asked.creation != 0);
    if numbered { groups.iter().map(|asked| asked.creation).collect() } else { Vec::new() }
}

impl Part<'_> {
    /// Takes an answer; says whether the peer may say more.
    fn take(&self, result: RpcResult, found: &mut BTreeMap<GroupId, String>) -> bool {
        let response = match result {
            Ok(response) => response,
            Err(RpcError::Remote { status, .. }) => {
                // A Java node, an earlier program, or a server of another cluster: it will never say more.
                if status.error == RaftError::WrongCluster {
                    tracing::warn!(peer = %self.endpoint, %status, "a member of the initial configuration belongs to another cluster");
                }
                return false;
            }
            Err(_) => return true,
        };
        let Ok(answer) = GroupStateResponse::parse_from_bytes(&response.content) else { return false };
        if response.class != class::GROUP_STATE_RESPONSE {
            return false;
        }
        let mut more = false;
        for (group, memory) in self.groups.iter().zip(&answer.memory) {
            match memory.enum_value_or(GroupMemory::GROUP_MEMORY_NOTHING) {
                GroupMemory::GROUP_MEMORY_NOTHING => {}
                GroupMemory::GROUP_MEMORY_OPENING | GroupMemory::GROUP_MEMORY_LOG => more = true,
                GroupMemory::GROUP_MEMORY_COMMITTED => {
                    found.entry(group.group.clone()).or_insert_with(|| self.endpoint.clone());
                }
            }
        }
        more
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use ringraft_core::Status;

    use super::*;
    use crate::rpc::client::RpcResponse;

    fn question(limit_ms: u64) -> BootstrapQuestion {
        let network = ringraft_net::inproc::Network::new();
        BootstrapQuestion {
            limit: Duration::from_millis(limit_ms),
            transport: TransportOptions::Inproc(network),
            endpoint: "a:1".to_owned(),
        }
    }

    fn opening(name: &str, creation: u64) -> GroupOpening {
        GroupOpening { group: name.parse().unwrap(), creation }
    }

    fn groups(count: usize, name: impl Fn(usize) -> String) -> Vec<(GroupOpening, Configuration)> {
        (0..count).map(|n| (opening(&name(n), 0), "a:1,b:1,c:1".parse().unwrap())).collect()
    }

    #[test]
    fn every_peer_is_asked_for_many_groups_at_once_but_never_for_too_many() {
        let many = groups(10_000, |n| format!("g{n}"));
        let parts = question(1).parts("c", &many);
        assert_eq!(parts.len(), 2 * 3, "two peers, 4096 at a time");
        assert!(parts.iter().all(|part| part.endpoint != "a:1" && part.groups.len() <= MAX_GROUPS));
        let asked: usize = parts.iter().map(|part| part.groups.len()).sum();
        assert_eq!(asked, 2 * 10_000);
        let content = |creation| {
            let asked = [(opening("g", creation), "b:1".parse().unwrap())];
            question(1).parts("c", &asked)[0].content.clone()
        };
        assert_eq!(GroupStateRequest::parse_from_bytes(&content(7)).unwrap().creations, [7]);
        assert_eq!(content(0).len() + 3, content(7).len(), "nothing is said of groups without numbers");
        let long = groups(3, |n| format!("g{n}{}", "x".repeat(200)));
        assert_eq!(question(1).parts("c", &long).len(), 2);
        assert!(question(1).parts("c", &[(opening("g", 0), "a:1".parse().unwrap())]).is_empty(), "alone");
    }

    #[test]
    fn nobody_who_is_silent_is_waited_for_beyond_the_limit() {
        assert!(question(30).ask("", &groups(2, |n| format!("g{n}"))).unwrap().is_empty());
        assert!(question(0).ask("", &groups(2, |n| format!("g{n}"))).unwrap().is_empty());
    }

    #[test]
    fn only_what_is_committed_counts() {
        let names: Vec<GroupOpening> = (0..4).map(|n| opening(&format!("g{n}"), n)).collect();
        let part = Part {
            endpoint: "b:1".to_owned(),
            groups: names.iter().collect(),
            content: Bytes::new(),
            due: None,
            open: true,
        };
        let answer = |memory: &[i32], class: &'static str| {
            let memory = memory.iter().map(|value| protobuf::EnumOrUnknown::from_i32(*value)).collect();
            let content = GroupStateResponse { memory, ..Default::default() }.write_to_bytes().unwrap();
            Ok(RpcResponse { class: Bytes::from_static(class.as_bytes()), content: content.into() })
        };
        let ours = class::GROUP_STATE_RESPONSE;
        let mut found = BTreeMap::new();
        assert!(!part.take(answer(&[0, 0, 0, 0], ours), &mut found), "blank: it has said all");
        assert!(part.take(answer(&[0, 2, 1, 0], ours), &mut found), "it may learn what is committed");
        assert!(
            !part.take(answer(&[77, 0], ours), &mut found),
            "an answer of a newer program, and a short one"
        );
        let remote =
            |error| Err(RpcError::Remote { endpoint: "b:1".into(), status: Status::new(error, "no") });
        assert!(!part.take(remote(RaftError::Internal), &mut found), "an unknown class");
        assert!(!part.take(remote(RaftError::WrongCluster), &mut found));
        assert!(!part.take(answer(&[3, 3, 3, 3], "another.Class"), &mut found));
        assert!(part.take(Err(RpcError::TimedOut { endpoint: "b:1".into(), timeout_ms: 1 }), &mut found));
        assert!(found.is_empty());
        assert!(!part.take(answer(&[0, 3, 0, 0], ours), &mut found));
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [(names[1].group.clone(), "b:1".to_owned())]);
    }
}
