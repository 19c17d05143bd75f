//! Room downstream: who goes on while others wait for it.

use super::*;

#[test]
fn a_hot_group_leaves_its_lane_to_others() {
    let limits = LaneLimits { group_turn_tasks: 3, group_backlog: 7, ..LaneLimits::default() };
    let mut world = World::new(limits);
    let (hot, other) = (world.open("hot"), world.open("other"));
    assert_eq!(world.lane.task_room(0), 7);
    let mut events: Vec<_> = (0..9).map(|tag| world.task(hot, tag)).collect();
    events.push(world.task(other, 100));
    world.turn(events);
    assert_eq!(world.lane.task_room(0), 1, "six of nine wait; the ring keeps what more there is");
    world.stages();
    world.turn(Vec::new());
    world.stages();
    let first: Vec<_> = world.log.lock().iter().map(|(group, _)| group.clone()).collect();
    assert_eq!(first[..4], ["hot", "hot", "hot", "other"], "the share of one turn");
    world.settle();
    let outcomes = world.take_outcomes();
    assert_eq!(outcomes.len(), 10);
    assert!(outcomes.iter().all(|(_, outcome)| outcome.is_ok()), "{outcomes:?}");
    let applied: Vec<_> =
        world.log.lock().iter().filter(|(g, _)| g == "hot").map(|(_, d)| d.clone()).collect();
    let expected: Vec<_> = (0..9).map(|tag: u64| tag.to_string().into_bytes()).collect();
    assert_eq!(applied, expected, "in the order in which they came");
    assert_eq!(world.lane.task_room(0), 7, "nothing waits any more");
}

#[test]
fn by_default_one_group_cannot_take_a_turn() {
    for turn in [1, 4, 4096, 1 << 20] {
        let share = LaneLimits::for_turns_of(turn).group_turn_tasks;
        assert!(share < turn || turn == 1, "{share} of {turn}");
    }
}

/// The worker of one group stands still: that group waits, with what it has committed, and the other, on the same lane, does not.
/// Shows rule R2.
#[test]
fn a_worker_that_stands_still_holds_back_its_own_groups_only() {
    let mut world = World::new(LaneLimits::default());
    let (slow, fine) = (world.open_at("slow", 0), world.open_at("fine", 1));
    world.settle();
    world.still[0] = true;
    for tag in 0..3 {
        world.turn(vec![world.task(slow, tag)]);
        world.settle();
    }
    assert_eq!((world.lane.task_room(0), world.out.fsm[0].len()), (0, 1), "one turn is with the worker");
    assert!(world.lane.holds_back());
    assert!(world.lane.takes_entries(&world.out), "entries of leaders wait for the disk alone");
    let description = world.describe(slow).expect("it runs");
    assert_eq!((description.committed_index, description.state), (4, NodeState::Leader));
    // Votes go on, for the slow group as well.
    world.turn(vec![world.vote_request(slow, 99, true)]);
    assert_eq!(world.replies.len(), 1);
    assert!(world.lane.task_room(1) > 0);
    world.turn(vec![world.task(fine, 10)]);
    world.settle();
    assert_eq!(world.take_outcomes(), [(10, Ok(2))]);
    assert_eq!(world.out.fsm[0].len(), 1, "nothing has gathered for the worker meanwhile");
    world.still[0] = false;
    world.settle();
    assert_eq!(world.take_outcomes(), [(0, Ok(2)), (1, Ok(3)), (2, Ok(4))]);
    assert!(!world.lane.holds_back() && world.lane.task_room(0) > 0);
}

/// The disk is full: whatever brings work for it waits, whoever's it is, and control does not.
/// Shows rule R2. Shows rule R3.
#[test]
fn while_the_disk_is_full_only_bulk_waits() {
    let mut world = World::new(LaneLimits::default());
    let handle = world.open("g");
    world.turn(vec![world.task(handle, 0)]);
    assert!(!world.out.disk.is_empty(), "the disk has not taken it");
    world.turn(vec![world.vote_request(handle, 99, true)]);
    assert_eq!(world.replies.len(), 1, "votes go on");
    assert_eq!((world.lane.task_room(0), world.lane.task_room(1)), (0, 0));
    assert!(!world.lane.takes_entries(&world.out));
    world.settle();
    world.turn(Vec::new());
    assert!(world.lane.task_room(0) > 0 && world.lane.takes_entries(&world.out));
    assert_eq!(world.take_outcomes(), [(0, Ok(2))]);
}

/// Tasks of a group that is gone are answered by a worker that has room, not by one that may stand still.
#[test]
fn tasks_of_a_group_that_is_gone_are_answered_where_there_is_room() {
    let mut world = World::new(LaneLimits::default());
    let gone = GroupHandle { lane: 0, slot: 9, generation: 1 };
    world.still[0] = true;
    let event = world.task(gone, 5);
    world.lane.on_tasks(world.now, 1, &mut vec![event], &mut world.out);
    world.settle();
    assert_eq!(world.take_outcomes(), [(5, Err(ApplyError::Shutdown))]);
}

/// What came on the connection for entries keeps its order; all else overtakes it.
#[test]
fn an_order_to_campaign_and_probes_stay_among_the_entries() {
    let world = World::new(LaneLimits::default());
    let handle = GroupHandle { lane: 0, slot: 0, generation: 1 };
    let event = |request| {
        let reply = ReplyHandle { connection: 1, generation: 1, request: 9 };
        let from = "b:1".parse().unwrap();
        LaneEvent::Request(Box::new(RequestEvent { handle, from, reply, codec: 1, request }))
    };
    let append = |kind| {
        RaftRequest::AppendEntries(AppendEntriesRequest {
            kind,
            term: 1,
            prev_log: LogId::default(),
            committed_index: 0,
            rejoined: 0,
            promise_wanted: 0,
            entries: Vec::new(),
            extensions: Default::default(),
        })
    };
    assert!(event(append(AppendKind::Entries)).goes_with_entries());
    assert!(event(append(AppendKind::Probe)).goes_with_entries());
    let order = TimeoutNowRequest { term: 1 };
    assert!(event(RaftRequest::TimeoutNow(order)).goes_with_entries());
    assert!(!event(append(AppendKind::Heartbeat)).goes_with_entries());
    assert!(!world.vote_request(handle, 9, false).goes_with_entries());
    assert!(!world.task(handle, 0).goes_with_entries(), "a task comes on no connection");
}

/// A bound of unapplied entries below what a worker reports by itself: the owner holds entries back, and must be woken.
#[test]
fn a_worker_wakes_the_owner_that_holds_entries_back() {
    let mut world = World::new(LaneLimits::default());
    world.max_unapplied_entries = 4;
    let handle = world.open("g");
    world.turn(vec![
        world.task(handle, 0),
        world.task(handle, 1),
        world.task(handle, 2),
        world.task(handle, 3),
    ]);
    world.settle();
    assert_eq!(world.wakes, 0, "nothing is held back");
    let tasks = (4..10).map(|tag| world.task(handle, tag)).collect();
    world.turn(tasks);
    world.stages();
    world.turn(Vec::new());
    assert_eq!(world.out.fsm[0].len(), 1, "committed, and handed over as far as the bound allows");
    world.stages();
    assert_eq!(world.wakes, 1, "the rest waits for what was applied now");
    world.settle();
    assert_eq!(world.take_outcomes().len(), 10);
}

/// Its election time-out counts from when the vote is durable: it must not learn of that only when it is over.
#[test]
fn the_disk_wakes_an_owner_that_has_granted_a_vote() {
    let mut world = World::new(LaneLimits::default());
    let handle = world.open("g");
    let before = world.disk_wakes;
    world.turn(vec![world.vote_request(handle, 9, false)]);
    world.stages();
    assert!(
        matches!(&world.replies.pop().unwrap().response, RaftResponse::RequestVote(r) if r.granted && r.term == 9)
    );
    assert_eq!(world.disk_wakes, before + 1);
    world.turn(Vec::new());
    let before = world.disk_wakes;
    world.turn(vec![world.vote_request(handle, 9, true)]);
    world.stages();
    assert_eq!(world.disk_wakes, before, "nothing more to wait for");
}
