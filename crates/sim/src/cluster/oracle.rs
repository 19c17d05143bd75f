//! The checkers of every group, and the logs that the hosts must have by what they were told to write.

use ringraft::handler::{DiskWrite, FsmTask, OutReply, OutSend};
use ringraft_core::{LogOp, NodeImpl, NodeState, PeerId, RaftRequest, RaftResponse, RecoveredState, Term};
use ringraft_storage::{GroupKey, LogReader, WriteBatch};
use rustc_hash::FxHashMap;

use super::checks::broken;
use super::checks::{
    Bounds, Load, OpenRequest, acknowledges, binds_itself, log_as_written, speaks_for, stable_mark,
    term_of_the_group, votes,
};
use super::recovery::explain;
use crate::LogImage;
use crate::checkers::{Checkers, Disks, Event, Violation};

/// One replica's log by what its node emitted.
#[derive(Default)]
pub(super) struct ReplicaLog {
    /// With everything that was emitted.
    pub(super) accepted: LogImage,
    /// With what the store said is durable.
    pub(super) stable: LogImage,
    /// Last entry that the process has handed to its state machine.
    delivered: u64,
    /// What may or may not have survived a crash.
    on_the_way: Vec<LogOp>,
    /// What was durable when the disk was lost, each time.
    lost: Vec<LogImage>,
}

/// Every replica of one group.
pub(super) struct GroupOracle {
    checkers: Checkers,
    peers: Vec<PeerId>,
    pub(super) logs: Vec<ReplicaLog>,
    /// The highest term that a member has voted for itself in.
    begun: Term,
    /// Terms with a leader.
    pub(super) led: u64,
    last_led: u64,
    /// When the leader of the latest term was first seen, in microseconds.
    pub(super) led_at: u64,
    /// Which term each host leads, and since when.
    leads: Vec<Option<(Term, u64)>>,
}

struct Stable<'a> {
    peers: &'a [PeerId],
    logs: &'a [ReplicaLog],
}

impl Disks for Stable<'_> {
    fn stable(&self, node: &PeerId) -> Option<&LogImage> {
        let at = self.peers.iter().position(|peer| peer == node)?;
        self.logs.get(at).map(|log| &log.stable)
    }

    fn lost(&self, node: &PeerId) -> &[LogImage] {
        let at = self.peers.iter().position(|peer| peer == node);
        at.and_then(|at| self.logs.get(at)).map_or(&[], |log| &log.lost)
    }
}

/// All groups.
pub(super) struct Oracle {
    pub(super) groups: Vec<GroupOracle>,
    pub(super) truncations: u64,
    bounds: Bounds,
}

impl Oracle {
    pub(super) fn new(peers: &[PeerId], groups: usize, bounds: Bounds) -> Oracle {
        let group = |_| GroupOracle {
            checkers: Checkers::default(),
            peers: peers.to_vec(),
            logs: peers.iter().map(|_| ReplicaLog::default()).collect(),
            begun: 0,
            led: 0,
            last_led: 0,
            led_at: 0,
            leads: vec![None; peers.len()],
        };
        Oracle { groups: (0..groups).map(group).collect(), truncations: 0, bounds }
    }

    /// A store was opened: what it holds must be explained, and counts as durable from now on. Of one that was
    /// damaged entries may be refused to a reader.
    pub(super) fn recovered(
        &mut self,
        group: usize,
        host: usize,
        key: GroupKey,
        recovered: &RecoveredState,
        reader: &dyn LogReader,
        damaged: bool,
    ) -> Result<(), Violation> {
        let oracle = &mut self.groups[group];
        let log = &mut oracle.logs[host];
        let on_the_way = std::mem::take(&mut log.on_the_way);
        let image = explain(&log.stable, &on_the_way, key, recovered, reader, damaged).map_err(|what| {
            broken("what was durable is recovered", format!("host {host}, group {group}: {what}"))
        })?;
        log.delivered = 0;
        log.accepted = image.clone();
        log.stable = image;
        oracle.checkers.observe(&Event::Restarted { node: &oracle.peers[host] })
    }

    /// A process is gone; of what it had not made durable only the submitted batch may have reached the disk.
    pub(super) fn crashed(
        &mut self,
        host: usize,
        submitted: Option<&WriteBatch>,
        by_key: &FxHashMap<GroupKey, usize>,
    ) {
        for write in submitted.iter().flat_map(|batch| &batch.writes) {
            if let Some(group) = by_key.get(&write.group) {
                self.groups[*group].logs[host].on_the_way.extend(write.ops.iter().cloned());
            }
        }
    }

    /// A disk was lost with everything on it.
    pub(super) fn wiped(&mut self, host: usize) {
        for oracle in &mut self.groups {
            let mut before = std::mem::take(&mut oracle.logs[host]);
            before.lost.push(before.stable);
            oracle.logs[host].lost = before.lost;
            let wiped = oracle.checkers.observe(&Event::Wiped { node: &oracle.peers[host] });
            debug_assert!(wiped.is_ok(), "a lost disk breaks no rule by itself");
        }
    }

    /// Power was lost: nothing changes in what may be found, for a batch may survive in any part.
    pub(super) fn lost_power(&mut self, _host: usize) {}

    /// A node emitted operations.
    pub(super) fn wrote(&mut self, group: usize, host: usize, ops: &[LogOp]) -> Result<(), Violation> {
        let oracle = &mut self.groups[group];
        let log = &mut oracle.logs[host].accepted;
        let mut first = None;
        for op in ops {
            match op {
                LogOp::TruncateSuffix { .. } => self.truncations += 1,
                LogOp::HardState(state) if state.vote.candidate() == Some(&oracle.peers[host]) => {
                    oracle.begun = oracle.begun.max(state.term);
                }
                LogOp::HardState(state) => {
                    term_of_the_group(state.term, oracle.begun).map_err(|what| {
                        broken(
                            "a term is begun by a candidate",
                            format!("host {host}, group {group}: {what}"),
                        )
                    })?;
                }
                _ => {}
            }
            log.apply(op);
            if let LogOp::Append(chunk) = op {
                first = Some(first.map_or(chunk.first_index(), |f: u64| f.min(chunk.first_index())));
            }
        }
        match first {
            Some(first) => {
                oracle.checkers.observe(&Event::Appended { node: &oracle.peers[host], log, first })
            }
            None => Ok(()),
        }
    }

    /// A write is durable.
    pub(super) fn synced(&mut self, host: usize, batch: &WriteBatch, by_key: &FxHashMap<GroupKey, usize>) {
        for write in &batch.writes {
            let Some(group) = by_key.get(&write.group) else { continue };
            let log = &mut self.groups[*group].logs[host].stable;
            write.ops.iter().for_each(|op| log.apply(op));
        }
    }

    /// A turn of a node is over.
    pub(super) fn stepped(
        &mut self,
        group: usize,
        host: usize,
        node: &NodeImpl,
        now: u64,
    ) -> Result<(), Violation> {
        let oracle = &mut self.groups[group];
        if node.is_leader() && node.term() > oracle.last_led {
            oracle.last_led = node.term();
            oracle.led += 1;
            oracle.led_at = now;
        }
        // A majority has left the term of this one: nobody has answered it since, and it has had a turn just now.
        let term = node.term();
        let leads = &mut oracle.leads[host];
        // Votes that were given long ago may arrive late.
        *leads = node.is_leader().then(|| leads.filter(|l| l.0 == term).unwrap_or((term, now)));
        let patience = 3000 * node.options().election_timeout_ms;
        if let Some((_, since)) = *leads
            && term < oracle.last_led
            && now > oracle.led_at.max(since) + patience
        {
            let what =
                format!("host {host} leads group {group} in term {term} long after term {}", oracle.last_led);
            return Err(broken("a leader without a quorum steps down", what));
        }
        let disks = Stable { peers: &oracle.peers, logs: &oracle.logs };
        oracle.checkers.observe(&Event::Stepped { node, log: &oracle.logs[host].accepted, disks: &disks })?;
        if node.state() == NodeState::Error {
            return Ok(());
        }
        let log = &oracle.logs[host];
        let says = |checker, result: Result<(), String>| {
            result.map_err(|what| broken(checker, format!("host {host} {what}")))
        };
        says("log matching", log_as_written(&log.accepted, node.last_log_id()))?;
        // Not only up to there: what the disk holds there must be what the node means.
        says("stable mark", stable_mark(&log.accepted, &log.stable, node.stable_index()))?;
        let load = Load {
            unstable_entries: node.unstable_entries(),
            tail_bytes: node.tail_bytes(),
            unapplied_entries: log.delivered.saturating_sub(node.applied_index()),
            unapplied_bytes: node.unapplied_bytes(),
        };
        says("bounded memory", self.bounds.check(&load))
    }

    /// Entries leave for a state machine.
    pub(super) fn delivered(&mut self, group: usize, host: usize, task: &FsmTask) -> Result<(), Violation> {
        let FsmTask::Committed { chunk, .. } = task else { return Ok(()) };
        let oracle = &mut self.groups[group];
        oracle.logs[host].delivered = chunk.last_index();
        let stable = &oracle.logs[host].stable;
        oracle.checkers.observe(&Event::Delivered { node: &oracle.peers[host], chunk, stable })
    }

    /// A request leaves: a candidate's own vote is a promise.
    pub(super) fn sending(&mut self, group: usize, host: usize, send: &OutSend) -> Result<(), Violation> {
        match &send.request {
            RaftRequest::RequestVote(request) if !request.pre_vote => {
                let peer = self.groups[group].peers[host].clone();
                self.promised(group, host, request.term, &peer)
            }
            RaftRequest::RequestVote(_) => {
                let oracle = &mut self.groups[group];
                oracle.checkers.observe(&Event::PreVoteSent { node: &oracle.peers[host] })
            }
            _ => Ok(()),
        }
    }

    /// An answer leaves: a vote is a promise, and so is an acknowledgement.
    pub(super) fn answering(
        &mut self,
        host: usize,
        request: &OpenRequest,
        reply: &OutReply,
    ) -> Result<(), Violation> {
        let stable = &self.groups[request.group].logs[host].stable;
        if let Some(term) = reply.response.term() {
            speaks_for(stable, term)
                .map_err(|what| broken("term durable before it is told", format!("host {host} {what}")))?;
        }
        if let RaftResponse::AppendEntries(response) = &reply.response {
            binds_itself(stable, response.promised).map_err(|what| {
                broken("promise durable before it is given", format!("host {host} {what}"))
            })?;
        }
        match &reply.response {
            RaftResponse::RequestVote(response) if response.granted && request.vote => {
                self.promised(request.group, host, response.term, &request.from)
            }
            RaftResponse::AppendEntries(response) if response.success => {
                let Some((last, term)) = request.entries else { return Ok(()) };
                acknowledges(stable, last, term)
                    .map_err(|what| broken("acknowledged when durable", format!("host {host} {what}")))
            }
            _ => Ok(()),
        }
    }

    fn promised(
        &mut self,
        group: usize,
        host: usize,
        term: u64,
        candidate: &PeerId,
    ) -> Result<(), Violation> {
        let oracle = &mut self.groups[group];
        let voter = &oracle.peers[host];
        oracle.checkers.observe(&Event::VoteSent { voter, term, candidate })?;
        votes(&oracle.logs[host].stable, term, candidate)
            .map_err(|what| broken("vote durable before it is sent", format!("host {host} {what}")))
    }
}

/// Operations of a lane's writes that were not seen before; `seen` says how many writes, and operations of the last, were.
pub(super) fn unseen(
    disk: &[DiskWrite],
    seen: (usize, usize),
) -> impl Iterator<Item = (&DiskWrite, &[LogOp])> {
    let from = seen.0.saturating_sub(1);
    disk.iter().enumerate().skip(from).map(move |(at, write)| {
        let skip = if at + 1 == seen.0 { seen.1.min(write.ops.len()) } else { 0 };
        (write, &write.ops[skip..])
    })
}
