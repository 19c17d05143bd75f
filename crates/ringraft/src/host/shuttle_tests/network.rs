//! Requests of others, taken by a thread of their own or by the lane itself: a leader elsewhere writes through this host.

use bytes::BytesMut;
use ringraft_core::{AppendEntriesRequest, AppendKind, ChunkBuilder, Extensions, LogId, RaftRequest};
use ringraft_proto::{Envelope, Frame, FrameDecoder, FrameLimits, RequestFrame, encode_raft_request};

use super::*;
use crate::pipeline::ScriptedNet;

/// The request of a leader at `b:1`, as it comes off the wire.
fn frame(id: u32, group: &str, request: AppendEntriesRequest) -> RequestFrame {
    let request = RaftRequest::AppendEntries(request);
    let sent = encode_raft_request(id, &Envelope::new(group, "b:1", ENDPOINT), 1000, &request);
    let mut bytes: BytesMut = sent.parts.iter().flat_map(|part| part.iter().copied()).collect();
    match FrameDecoder::new(FrameLimits::default()).decode(&mut bytes) {
        Ok(Some(Frame::Request(frame))) => frame,
        other => panic!("not a request: {other:?}"),
    }
}

/// Entries with these tags, behind so many others, committed up to `committed_index`.
fn entries(before: u64, tags: std::ops::Range<u64>, committed_index: u64) -> AppendEntriesRequest {
    let mut builder = ChunkBuilder::new();
    tags.for_each(|tag| builder.push(&tag.to_be_bytes()));
    let chunk = builder.take(before + 1, 1).expect("not empty");
    let prev_log = LogId::new(before, u64::from(before > 0));
    let (kind, extensions) = (AppendKind::Entries, Extensions::default());
    AppendEntriesRequest {
        kind,
        term: 1,
        prev_log,
        committed_index,
        rejoined: 0,
        promise_wanted: 0,
        entries: vec![Arc::new(chunk)],
        extensions,
    }
}

/// Starts a member that follows, and gives the gate that opens when it has applied `last`.
fn start_follower(
    host: &RaftHost,
    name: &str,
    ledger: &Arc<Ledger>,
    mut options: NodeOptions,
    last: u64,
) -> Arc<Gate> {
    options.initial_conf = "a:1,b:1,c:1".parse().expect("a configuration");
    let done = Arc::new(Gate::default());
    done.close();
    let machine = Recorder { opens: Some((last, Arc::clone(&done))), ..Recorder::new(ledger) };
    let (group, server) = (name.parse().expect("a name"), ENDPOINT.parse().expect("a peer"));
    host.start_group(group, server, options, Box::new(machine)).expect("the group starts");
    done
}

/// Entries one after the other for two groups: each request is answered once, each entry is applied, though the next stages
/// are full most of the time.
pub(super) fn a_leader_elsewhere_writes(change: fn(&mut HostOptions)) {
    explore(move || {
        let mut options = tight();
        change(&mut options);
        let (host, ledger) =
            (RaftHost::start(options).expect("the host starts"), Arc::new(Ledger::default()));
        let net = ScriptedNet::newest();
        let done = [("g", 0), ("h", 100)].map(|(name, from)| {
            start_follower(&host, name, &ledger, node_options(ApplyTaskMode::Blocking), from + 5)
        });
        for entry in 0..6 {
            for (id, name, tag) in [(entry as u32, "g", entry), (entry as u32 + 100, "h", entry + 100)] {
                // What was sent before is committed, whether this host has it on disk or not.
                net.deliver(frame(id, name, entries(entry, tag..tag + 1, entry)));
            }
        }
        // The last once more, committed now; nothing is written for it. (A heartbeat would overtake entries that are held back.)
        for (id, name, tag) in [(6, "g", 5), (106, "h", 105)] {
            net.deliver(frame(id, name, entries(5, tag..tag + 1, 6)));
        }
        net.await_replies(14);
        done.iter().for_each(|done| done.pass());
        host.shutdown();
        let mut replies = net.replies();
        replies.sort_unstable();
        assert_eq!(replies, (0..7).chain(100..107).collect::<Vec<_>>(), "each is answered once");
        let applied = ledger.applied.lock();
        let of_group = |first| applied.iter().copied().filter(|tag| tag / 100 == first).collect::<Vec<_>>();
        assert_eq!((of_group(0), of_group(1)), ((0..6).collect(), (100..106).collect()));
    });
}

#[test]
fn a_leader_elsewhere_writes_through_a_network_thread() {
    a_leader_elsewhere_writes(|_| {});
}

#[test]
fn a_leader_elsewhere_writes_through_a_lane_that_drives_the_network() {
    a_leader_elsewhere_writes(|options| options.fuse_net = true);
}

#[test]
fn a_leader_elsewhere_writes_through_two_lanes() {
    a_leader_elsewhere_writes(|options| (options.lanes, options.fsm_workers) = (2, 2));
}

/// Reads, then the disk stand still while a leader writes on: the lane holds requests back that it could take as soon as the disk
/// has room, whether or not the reads have. Nothing is urgent for a follower, so that a lane that went to sleep over them would
/// sleep until an election, and the read worker would wait for room in its ring as long.
fn followers_read_back(change: fn(&mut HostOptions)) {
    explore(move || {
        let mut options = tight();
        options.turn_events = 1;
        change(&mut options);
        let fused = options.fuse_net;
        let (reads, disk) = (Arc::new(Reads::default()), Arc::new(Gate::default()));
        let store =
            ScriptedStore { reads: Arc::clone(&reads), gate: Some(Arc::clone(&disk)), ..Default::default() };
        options.store = store.into_options();
        reads.gate.close();
        let (host, ledger) =
            (RaftHost::start(options).expect("the host starts"), Arc::new(Ledger::default()));
        let net = ScriptedNet::newest();
        let mut node_options = node_options(ApplyTaskMode::Blocking);
        let raft = &mut node_options.raft_options;
        (raft.max_entries_size, raft.max_body_size) = (1, 1);
        (raft.max_unstable_bytes, raft.max_logs_in_memory_bytes) = (1, 0);
        raft.max_unapplied_entries = 1;
        let groups: Vec<(String, u64)> = (0..6).map(|id| (format!("g{id}"), id * 100)).collect();
        let follower = |(name, from): &(String, u64)| {
            start_follower(&host, name, &ledger, node_options.clone(), from + 1)
        };
        let done: Vec<_> = groups.iter().map(follower).collect();
        for (name, from) in &groups {
            net.deliver(frame(*from as u32, name, entries(0, *from..from + 2, 2)));
        }
        // Each has its entries on disk, and wants the second from the store, or both if the worker had no room for the first in time.
        net.await_replies(groups.len());
        yield_until(|| reads.count.load(Ordering::Relaxed) > 0);
        disk.close();
        for repeat in 1..3 {
            for (name, from) in &groups {
                net.deliver(frame(*from as u32 + repeat, name, entries(2, from + 2..from + 3, 2)));
            }
        }
        let (rings, _) = &host.0.lanes[0];
        // A lane that drives the network does not sleep while it hands requests back.
        yield_until(|| fused || rings.entries.remaining_capacity() == 0);
        disk.open();
        reads.gate.open();
        net.await_replies(18);
        done.iter().for_each(|done| done.pass());
        host.shutdown();
        assert_eq!(net.replies().len(), 18);
    });
}

#[test]
fn followers_read_back_behind_a_network_thread() {
    followers_read_back(|_| {});
}

#[test]
fn followers_read_back_behind_a_lane_that_drives_the_network() {
    followers_read_back(|options| options.fuse_net = true);
}

/// The host ends while requests come in: none is answered twice, and nobody waits for ever.
#[test]
fn a_host_ends_while_requests_come_in() {
    explore(|| {
        for fuse_net in [false, true] {
            let mut options = tight();
            options.fuse_net = fuse_net;
            let (host, ledger) =
                (RaftHost::start(options).expect("the host starts"), Arc::new(Ledger::default()));
            let net = ScriptedNet::newest();
            start_follower(&host, "g", &ledger, node_options(ApplyTaskMode::Blocking), 0);
            let sender = {
                let net = Arc::clone(&net);
                spawn(move || {
                    for entry in 0..6 {
                        net.deliver(frame(entry as u32, "g", entries(entry, entry..entry + 1, entry)));
                    }
                })
            };
            host.shutdown();
            join(vec![sender]);
            let mut replies = net.replies();
            let count = replies.len();
            replies.sort_unstable();
            replies.dedup();
            assert_eq!(replies.len(), count, "answered twice");
        }
    });
}
