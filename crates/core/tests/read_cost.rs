//! What reads without an entry cost in messages: heartbeats are shared by all reads that wait.

use ringraft_core::{AppendKind, NodeState, RaftRequest, ReadOnlyOption};
use ringraft_sim::script::{Body, Filter, Link, World};

/// Readers that read again as soon as they are answered.
const READERS: usize = 1000;
const READS: usize = 100_000;

/// Takes one message off its link. Says whether it was a heartbeat.
fn deliver_one(world: &mut World, link: Link) -> bool {
    let is_heartbeat = world.network().queued(link).next().is_some_and(|message| {
        matches!(&message.body, Body::Request(RaftRequest::AppendEntries(r)) if r.kind == AppendKind::Heartbeat)
    });
    world.deliver(link, Filter { count: Some(1), ..Filter::default() }).unwrap();
    is_heartbeat
}

/// Heartbeats for [`READS`] reads at a leader of `voters`, whose turns take at most `turn` new reads between two messages.
fn heartbeats(voters: u32, turn: usize) -> usize {
    let mut world = World::without_trace();
    world.settings.max_pending_reads = READERS;
    let names: Vec<u32> = (1..=voters).collect();
    world.add_nodes(&names, &[]).unwrap();
    world.campaign(1).unwrap();
    world.stabilize(&[]).unwrap();
    assert_eq!(world.node(1).unwrap().state(), NodeState::Leader);
    let (mut begun, mut heartbeats) = (0, 0);
    for step in 0.. {
        if begun - world.open_calls(1) >= READS {
            break;
        }
        assert!(step < READS, "reads are answered");
        let idle = (READERS - world.open_calls(1)).min(turn);
        if idle > 0 {
            begun += idle;
            world.read(1, idle, ReadOnlyOption::Safe).unwrap();
        }
        let links = world.network().busy_links();
        heartbeats += usize::from(deliver_one(&mut world, links[step % links.len()]));
    }
    heartbeats
}

#[test]
fn a_thousand_readers_share_heartbeats() {
    for voters in [3, 5] {
        // Either all that were answered read again at once, or the leader's turns take a tenth of them, and messages come in between.
        for turn in [READERS, READERS / 10] {
            let rounds = heartbeats(voters, turn) as f64 / f64::from(voters - 1);
            assert!(rounds > 0.0, "reads need a quorum");
            assert!(
                rounds < READS as f64 / 100.0,
                "{rounds} rounds for {READS} reads of {voters} voters, {turn} a turn"
            );
        }
    }
}

/// How many heartbeats a leader with waiting reads sends to a peer that cannot be reached, when every one fails at once.
fn heartbeats_to_nobody(voters: u32) -> usize {
    let mut world = World::without_trace();
    let names: Vec<u32> = (1..=voters).collect();
    world.add_nodes(&names, &[]).unwrap();
    world.campaign(1).unwrap();
    world.stabilize(&[]).unwrap();
    let away = Link { from: 1, to: 2 };
    let before = world.clock(1).unwrap();
    let mut heartbeats = 0;
    for _ in 0..1000 {
        world.read(1, 1, ReadOnlyOption::Safe).unwrap();
        heartbeats += world.break_connection(away, Filter::default()).unwrap();
    }
    assert_eq!(world.clock(1).unwrap(), before, "no time has passed");
    heartbeats
}

/// A peer that cannot be reached refuses as fast as it is asked: it is asked when its next heartbeat is due, and not for every read.
#[test]
fn an_unreachable_peer_is_not_asked_without_end() {
    for voters in [2, 3] {
        assert!(heartbeats_to_nobody(voters) <= 2, "of {voters} voters");
    }
}
