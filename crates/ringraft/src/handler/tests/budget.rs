//! Bounds in bytes: what the lane hands on, and who gets it.

use super::*;

/// A host whose groups have `entries` commands of `bytes` bytes each in their logs, and which has just been started again. Both
/// workers stand still.
fn started_again(limits: LaneLimits, groups: usize, entries: usize, bytes: usize) -> World {
    let mut before = World::new(LaneLimits::default());
    for group in 0..groups {
        let handle = before.open(&format!("g{group}"));
        for _ in 0..entries {
            let data = Bytes::from(vec![group as u8; bytes]);
            before.turn(vec![LaneEvent::Apply(ApplyEvent::new(handle, None, data, Completion::none()))]);
        }
        before.settle();
    }
    let mut world = World::new(limits);
    world.storage = before.storage;
    (world.still, world.deep_rings) = ([true; 2], true);
    for group in 0..groups {
        world.open(&format!("g{group}"));
    }
    world
}

impl World {
    /// Bytes of entries that stand before a worker, by group.
    fn handed_out(&self, worker: usize) -> Vec<(GroupHandle, usize)> {
        let tasks = self.rings[worker].iter().chain(&self.out.fsm[worker]);
        tasks
            .filter_map(|task| match task {
                FsmTask::Committed { handle, chunk, .. } => Some((*handle, chunk.memory_bytes())),
                _ => None,
            })
            .collect()
    }
}

/// Shows rule R1 at a start: the logs hold 20 MiB, and what is in memory for a state machine that stands still is what the option says.
#[test]
fn replay_stands_before_a_state_machine_in_bounded_memory() {
    const BOUND: usize = 1 << 20;
    let limits = LaneLimits { worker_bytes: BOUND, ..LaneLimits::default() };
    let (groups, entries, bytes) = (20, 64, 16 << 10);
    let mut world = started_again(limits, groups, entries, bytes);
    let (mut applied, mut rounds, mut most) = (0, 0, 0);
    while applied < groups * entries {
        world.settle();
        let held: usize = world.handed_out(0).iter().map(|(_, bytes)| bytes).sum();
        assert!(world.lane.unapplied_bytes(0) >= held);
        most = most.max(held);
        // Whoever applies something wakes the lane, though the next groups in line are others.
        let (wakes, starved) = (world.wakes, world.lane.is_starved());
        world.still = [false; 2];
        world.stages();
        world.still = [true; 2];
        assert!(!starved || world.wakes > wakes, "nobody tells the lane that there is room");
        applied = world.log.lock().len();
        rounds += 1;
        assert!(rounds < 10_000, "{applied} applied");
    }
    // Each group in line crosses its share by one entry.
    let bound = BOUND + groups * (bytes + 1024);
    assert!((BOUND / 2..=bound).contains(&most), "{most} bytes were handed out at once, {bound} are allowed");
    world.settle();
    assert_eq!(world.lane.unapplied_bytes(0), 0, "everything was given back");
    for group in 0..groups {
        let name = format!("g{group}");
        assert_eq!(world.log.lock().iter().filter(|(of, _)| *of == name).count(), entries);
    }
}

#[test]
fn groups_get_a_workers_bytes_in_turn() {
    let limits = LaneLimits { worker_bytes: 64 << 10, ..LaneLimits::default() };
    let (groups, entries) = (8, 200);
    let mut world = started_again(limits, groups, entries, 1000);
    // When half of everything is applied, no group is far ahead of another.
    while { world.log.lock().len() } < groups * entries / 2 {
        world.settle();
        world.still = [false; 2];
        world.stages();
        world.still = [true; 2];
    }
    let log = world.log.lock();
    let of = |group| log.iter().filter(|(of, _)| *of == format!("g{group}")).count();
    let counts: Vec<_> = (0..groups).map(of).collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(most - least <= 64, "{counts:?}");
}

#[test]
fn a_group_that_ends_gives_its_bytes_back() {
    let limits = LaneLimits { worker_bytes: 4096, ..LaneLimits::default() };
    let mut world = started_again(limits, 2, 50, 1000);
    world.settle();
    assert!(world.lane.is_starved());
    world.turn(vec![LaneEvent::Control(Box::new(Control::Stop))]);
    assert_eq!((world.lane.unapplied_bytes(0), world.lane.is_starved()), (0, false));
}

/// A task that is larger than every bound passes.
#[test]
fn one_large_entry_passes() {
    let limits = LaneLimits { worker_bytes: 1, ..LaneLimits::default() };
    let mut world = started_again(limits, 1, 3, 100_000);
    world.still = [false; 2];
    world.settle();
    assert_eq!(world.log.lock().len(), 3);
}

/// Tasks count until they are in a proposal or refused, in the backlog of their group as well.
#[test]
fn tasks_count_until_the_lane_has_taken_or_refused_them() {
    let limits = LaneLimits { group_turn_tasks: 2, ..LaneLimits::default() };
    let mut world = World::new(limits);
    let handle = world.open("g");
    let task = |of: GroupHandle, term, bytes: usize| {
        let data = Bytes::from(vec![1; bytes]);
        LaneEvent::Apply(ApplyEvent::new(of, term, data, Completion::none()))
    };
    world.turn(vec![task(handle, None, 5000), task(handle, None, 1023), task(handle, None, 3000)]);
    assert_eq!(
        world.lane.take_task_bytes(0),
        5000,
        "the small one does not count, the last is over the share of the turn"
    );
    world.settle();
    assert_eq!(world.lane.take_task_bytes(0), 3000);
    let other = world.open_at("other", 1);
    world.settle();
    world.turn(vec![task(other, None, 7000)]);
    let of_both = (world.lane.take_task_bytes(0), world.lane.take_task_bytes(1));
    assert_eq!(of_both, (0, 7000), "each counts for the worker of its group");
    let gone = GroupHandle { generation: handle.generation + 2, ..handle };
    world.turn(vec![task(handle, Some(99), 2000), task(gone, None, 4000)]);
    assert_eq!(world.lane.take_task_bytes(0), 6000, "refusals");
    world.settle();
    world.turn((0..4).map(|_| task(handle, None, 2000)).collect());
    world.turn(vec![LaneEvent::Control(Box::new(Control::Stop))]);
    assert_eq!(world.lane.take_task_bytes(0), 8000, "the backlog of a group that ends is refused");
}

/// A peer that is never heard of lags in every group; what is kept for it is bounded for all of them together, and the oldest goes first.
#[test]
fn what_groups_keep_for_peers_is_bounded_for_the_lane() {
    let limits = LaneLimits { tail_bytes: 100_000, ..LaneLimits::default() };
    let mut world = World::new(limits);
    world.learner = Some("b:1".parse().unwrap());
    let groups: Vec<_> = (0..8).map(|number| world.open(&format!("g{number}"))).collect();
    for handle in &groups {
        for _ in 0..3 {
            let data = Bytes::from(vec![1; 10_000]);
            world.turn(vec![LaneEvent::Apply(ApplyEvent::new(*handle, None, data, Completion::none()))]);
            world.settle();
        }
    }
    let kept: Vec<_> = groups.iter().map(|handle| world.lane.node(*handle).unwrap().tail_bytes()).collect();
    assert_eq!(kept.iter().sum::<usize>(), world.lane.tail_bytes());
    assert!((60_000..=100_000).contains(&world.lane.tail_bytes()), "{kept:?}");
    assert!(kept[0] == 0 && kept[7] > 30_000, "{kept:?}");
    assert_eq!(world.log.lock().len(), 24);
    world.turn(vec![LaneEvent::Control(Box::new(Control::Stop))]);
    assert_eq!(world.lane.tail_bytes(), 0);
}
