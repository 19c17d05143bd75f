//! The clock by which a read is judged that a leader answers by its lease.

use std::time::Duration;

use ringraft_core::{ReadOnlyOption, RequestVoteResponse};

use super::*;

/// What a peer answers that grants and promises everything.
pub(super) fn answers(world: &mut World) -> Vec<LaneEvent> {
    let sends: Vec<_> = world.out.sends.drain(..).collect();
    let answer = |send: crate::handler::OutSend| {
        let response = match &send.request {
            RaftRequest::RequestVote(request) => RaftResponse::RequestVote(RequestVoteResponse {
                term: if request.pre_vote { request.term - 1 } else { request.term },
                granted: true,
                removed: None,
            }),
            RaftRequest::AppendEntries(request) => RaftResponse::AppendEntries(AppendEntriesResponse {
                term: request.term,
                success: true,
                last_log_index: (request.kind != AppendKind::Entries).then_some(request.last_verified()),
                conflict: None,
                promised: request.promise_wanted,
                rejoining: 0,
                extensions: request.extensions,
            }),
            other => panic!("{other:?}"),
        };
        LaneEvent::Response(Box::new(ResponseEvent { context: send.context, result: Ok(response.into()) }))
    };
    sends.into_iter().map(answer).collect()
}

/// The lane begins a turn while the lease runs, does not run for a while, and then takes a read: whether that is answered by the lease.
fn is_answered(pause: u64) -> bool {
    let mut world = World::new(LaneLimits::default());
    world.members = "a:1,b:1".parse().unwrap();
    world.lease_reads = true;
    let handle = world.open("g");
    for _ in 0..100 {
        world.now = Time(world.now.0 + 100_000);
        for _ in 0..4 {
            world.stages();
            let mut events = answers(&mut world);
            events.extend(world.reads());
            world.turn(events);
        }
    }
    world.settle();
    world.out.sends.clear();
    let (begin, taken) = (world.now, Time(world.now.0 + pause));
    let (promise, waiter) = promise();
    let done = Completion::promise(promise);
    world.lane.begin_turn(begin, &mut world.out);
    let mut tasks = vec![LaneEvent::Read(ReadEvent { handle, mode: ReadOnlyOption::LeaseBased, done })];
    world.lane.on_tasks(begin, 0, &mut tasks, &mut world.out);
    world.lane.on_tick(taken, &mut world.out);
    world.lane.end_turn(taken, &mut world.out);
    world.stages();
    matches!(waiter.wait(Some(Duration::ZERO)), Some(Ok(_)))
}

#[test]
fn a_read_is_judged_by_the_clock_at_the_end_of_its_turn() {
    assert!(is_answered(0), "the lease runs");
    assert!(!is_answered(10_000_000), "it had ended when the read was taken");
}
