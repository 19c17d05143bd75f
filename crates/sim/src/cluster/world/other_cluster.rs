//! Nodes of another cluster that has groups of the same names, and one of whose addresses is a host's by mistake. What they say would
//! fit in every way: terms, members, places in the log. Only the cluster that it means is another.
//!
//! They speak in a third of the seeds, also when everything is to be at rest: nothing of what they say is taken in, so that they end no
//! leadership, move no term, and bring no entry.

use std::sync::Arc;

use ringraft_core::{
    AppendEntriesRequest, AppendKind, EntryChunk, Extensions, LogId, NodeImpl, RaftRequest,
    RequestVoteRequest, TimeoutNowRequest,
};
use ringraft_proto::{Envelope, Frame, encode_raft_request};

use super::World;
use super::event::Event;
use crate::checkers::Violation;
use crate::cluster::checks::broken;
use crate::cluster::clock::MS;
use crate::cluster::host::Arrival;
use crate::cluster::random::Random;
use crate::cluster::transport::{ConnectionId, decode};

/// The cluster of the simulated hosts.
pub(super) const CLUSTER: &str = "ours";

/// The cluster of the others.
const OTHER: &str = "theirs";

/// A connection that is none of the simulated hosts'.
const CONNECTION: ConnectionId = ConnectionId::MAX;

/// What one of them says to a node.
fn words(node: &NodeImpl, r: &mut Random) -> RaftRequest {
    let (term, last) = (node.term() + r.range(1, 3), node.last_log_id());
    match r.below(4) {
        // By the order of a leader, so that no promise stands in the way; with a longer log than anybody's.
        0 | 1 => RaftRequest::RequestVote(RequestVoteRequest {
            term,
            last_log: LogId::new(last.index + 10, last.term.max(1)),
            pre_vote: r.chance(200),
            transfer: true,
            extensions: Extensions::NONE,
            conf_index: 0,
        }),
        // Commits an entry that nobody here has.
        2 => {
            let entry = EntryChunk::no_op(LogId::new(last.index + 1, term));
            RaftRequest::AppendEntries(AppendEntriesRequest {
                kind: AppendKind::Entries,
                term,
                prev_log: last,
                committed_index: last.index + 1,
                entries: vec![Arc::new(entry)],
                extensions: Extensions::NONE,
                rejoined: 0,
                promise_wanted: 0,
            })
        }
        _ => RaftRequest::TimeoutNow(TimeoutNowRequest { term: node.term() }),
    }
}

impl World {
    /// Draws whether there is such a cluster. From a stream of its own, so that all else of a seed stays as it was.
    pub(super) fn start_other_cluster(&mut self) {
        let mut r = self.random_of_the_other();
        if r.chance(330) {
            let begin = r.range(0, 4 * self.plan.election_timeout_ms * MS);
            self.after(begin, Event::OtherCluster);
        }
    }

    fn random_of_the_other(&self) -> Random {
        Random::new(self.report.seed).fork(0xC20)
    }

    /// One says something to a node that runs, in the name of a member of its group.
    pub(super) fn other_cluster_speaks(&mut self) -> Result<(), Violation> {
        let mut r = self.random_of_the_other().fork(self.now);
        let timeout = self.plan.election_timeout_ms * MS;
        let next = r.range(timeout / 8, 2 * timeout);
        self.after(next, Event::OtherCluster);
        let group = r.index(self.plan.groups.len());
        let members = &self.plan.groups[group];
        if members.is_empty() {
            return Ok(());
        }
        let (host, from) = (members[r.index(members.len())], members[r.index(members.len())]);
        let Some(node) = self.node(group, host).filter(|node| node.state().is_active()) else {
            return Ok(());
        };
        let request = words(node, &mut r);
        let (name, from, to) = (
            self.lives.group_id(group),
            self.hosts[from].peer.to_string(),
            self.hosts[host].peer.to_string(),
        );
        let creation = self.lives.creation(group);
        let envelope = Envelope { cluster_id: OTHER, creation, ..Envelope::new(name.as_str(), &from, &to) };
        let timeout_ms = i32::try_from(self.plan.rpc_timeout_ms).unwrap_or(i32::MAX);
        let frame = encode_raft_request(r.below(1 << 31) as u32, &envelope, timeout_ms, &request);
        let Frame::Request(frame) = decode(&frame).map_err(|what| broken("codec", what))? else {
            return Err(broken("codec", "a request was decoded as an answer"));
        };
        self.report.events += 1;
        self.mark("another cluster spoke");
        self.hosts[host].arrivals.push_back(Arrival::Request(CONNECTION, frame));
        self.wake(host, 0);
        Ok(())
    }
}
