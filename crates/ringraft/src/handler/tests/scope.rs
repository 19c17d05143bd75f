//! Groups that begin, end and fail, and nobody beside them.

use super::*;

#[test]
fn damage_that_a_read_finds_fails_the_group_and_another_error_does_not() {
    let mut world = World::new(LaneLimits::default());
    let (one, two) = (world.open("g"), world.open("h"));
    let read = |handle, error| LaneEvent::LogRead {
        handle,
        ticket: ringraft_core::Ticket(99),
        result: Box::new(Err(error)),
    };
    let damaged = StorageError::Damaged { path: "f".into(), offset: 7, what: "checksum".into() };
    let io = StorageError::Io {
        operation: "read",
        path: "f".into(),
        message: "EIO".into(),
        kind: ringraft_storage::IoKind::Other,
    };
    world.turn(vec![read(one, damaged), read(two, io)]);
    let described = world.describe(one).unwrap();
    assert_eq!(described.state, NodeState::Error);
    assert!(described.last_error.unwrap().message.contains("checksum"));
    assert_eq!(world.describe(two).unwrap().state, NodeState::Leader);
}

/// Shows rule O2.
#[test]
fn what_belongs_to_an_earlier_life_is_dropped() {
    let mut world = World::new(LaneLimits::default());
    let first = world.open("g");
    let (answer, closed) = promise();
    world.turn(vec![
        world.task(first, 0),
        LaneEvent::Control(Box::new(Control::Close { handle: first, answer })),
        world.task(first, 1),
    ]);
    world.settle();
    assert_eq!(closed.wait(Some(std::time::Duration::ZERO)), Some(true));
    let outcomes = world.take_outcomes();
    assert!(matches!(outcomes[0], (0, Err(ApplyError::Unknown(_)))), "handed on, then lost: {outcomes:?}");
    assert_eq!(outcomes[1..], [(1, Err(ApplyError::Shutdown))]);
    let second = world.open("g");
    assert_eq!((second.slot, first.slot), (0, 0), "the slot is used again");
    assert_ne!(first.generation, second.generation);
    world.turn(vec![world.task(first, 2), world.vote_request(first, 5, true)]);
    world.settle();
    assert_eq!(world.take_outcomes(), [(2, Err(ApplyError::Shutdown))]);
    assert!(matches!(world.replies.pop().unwrap().response, RaftResponse::Error(_)));
    assert!(world.describe(first).is_none());
    world.turn(vec![world.task(second, 3)]);
    world.settle();
    assert!(matches!(world.take_outcomes()[..], [(3, Ok(_))]));
}

/// Shows rule O1: a lane touches no node of another one, whatever is meant for it and comes here.
#[test]
fn a_group_of_another_lane_is_left_alone() {
    let mut world = World::new(LaneLimits::default());
    let own = world.open("g");
    let term = world.describe(own).unwrap().term;
    let other = GroupHandle { lane: own.lane + 1, ..own };
    world.turn(vec![world.task(other, 0), world.vote_request(other, term + 1, false)]);
    world.settle();
    assert_eq!(world.take_outcomes(), [(0, Err(ApplyError::Shutdown))]);
    assert!(matches!(world.replies.pop().unwrap().response, RaftResponse::Error(_)));
    assert_eq!(world.describe(own).unwrap().term, term);
}

/// A debug assertion of the core stands for any bug in it.
/// Shows rule X1.
#[cfg(debug_assertions)]
#[test]
fn a_panic_in_a_step_stops_its_group_only() {
    let mut world = World::new(LaneLimits::default());
    let (broken, fine) = (world.open("broken"), world.open("fine"));
    world.turn(vec![world.task(broken, 0), world.task(fine, 1)]);
    let progress = world.progress[0].1.clone();
    let _ = world.board.applied(broken, &progress, 1_000_000);
    world.turn(vec![world.task(broken, 2)]);
    world.settle();
    let mut outcomes = world.take_outcomes();
    outcomes.sort_by_key(|(tag, _)| *tag);
    assert!(
        matches!(&outcomes[0], (0, Err(ApplyError::Unknown(s))) if s.error == RaftError::BadNode),
        "{outcomes:?}"
    );
    assert!(matches!(outcomes[1], (1, Ok(_))), "{outcomes:?}");
    assert!(matches!(outcomes[2], (2, Err(ApplyError::Failed(_)))), "{outcomes:?}");
    let described = world.describe(broken).unwrap();
    assert_eq!(described.state, NodeState::Error);
    assert!(described.last_error.is_some());
    world.turn(vec![world.vote_request(broken, 5, true)]);
    assert!(matches!(world.replies.pop().unwrap().response, RaftResponse::Error(Status { .. })));
    world.turn(vec![world.task(fine, 3), world.task(broken, 4)]);
    world.settle();
    assert_eq!(world.take_outcomes().len(), 2, "each has its outcome");
}

/// Opened in the store just before it failed, by another group's write.
#[test]
fn no_group_starts_over_a_store_that_has_failed() {
    let mut world = World::new(LaneLimits::default());
    let first = world.open("first");
    let failure = Status::new(RaftError::Io, "gone");
    world.lane.on_store_failed(world.now, &failure, &mut world.out);
    world.settle();
    assert_eq!(world.describe(first).unwrap().state, NodeState::Error);
    assert_eq!(world.try_open("second", 0), Err(failure));
}

#[test]
fn a_stop_closes_every_group() {
    let mut world = World::new(LaneLimits::default());
    let (a, b) = (world.open("a"), world.open("b"));
    world.turn(vec![world.task(a, 0), LaneEvent::Control(Box::new(Control::Stop)), world.task(b, 1)]);
    assert!(world.lane.is_stopping());
    world.settle();
    let mut outcomes = world.take_outcomes();
    outcomes.sort_by_key(|(tag, _)| *tag);
    assert!(
        matches!(outcomes[..], [(0, Err(ApplyError::Unknown(_))), (1, Err(ApplyError::Shutdown))]),
        "{outcomes:?}"
    );
    assert!(world.describe(a).is_none() && world.describe(b).is_none());
}

/// Shows rule P7: each group whose log is damaged stops, and says so, and nobody beside it; those of other lanes are named, too.
#[test]
fn groups_whose_logs_are_damaged_stop_and_say_so() {
    let mut world = World::new(LaneLimits::default());
    let names = ["a", "b", "c"];
    let handles = names.map(|name| world.open(name));
    let keys = names.map(|name| world.storage.open_group(&name.parse().unwrap()).unwrap().0);
    let damaged = |key| DamagedGroup::new(key, Status::new(RaftError::Io, "checksum"));
    let mut elsewhere = keys[2];
    elsewhere.number.0 += 100;
    let mut groups = vec![damaged(keys[2]), damaged(keys[0]), damaged(elsewhere)];
    groups.sort_by_key(|group| group.key);
    let groups: Arc<[DamagedGroup]> = groups.into();
    world.turn(vec![LaneEvent::Control(Box::new(Control::Damaged { groups: Arc::clone(&groups) }))]);
    let states: Vec<_> = handles.iter().map(|handle| world.describe(*handle).unwrap().state).collect();
    assert_eq!(states, [NodeState::Error, NodeState::Leader, NodeState::Error]);
    for group in &*groups {
        assert_eq!(group.has_stopped(), group.key != elsewhere, "{:?}", group.key);
    }
}
