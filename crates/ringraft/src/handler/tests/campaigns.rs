//! Campaigns of a lane that was late, and of one with many groups.

use super::*;

/// The lane did not run for longer than any election time-out. It does not campaign over what it could not hear: the leader's
/// heartbeats are read in a moment.
#[test]
fn a_lane_that_was_late_waits_before_it_campaigns() {
    let mut world = world_of_three(LaneLimits::default());
    let handle = world.open("g");
    world.turn(vec![world.heartbeat(handle, 1)]);
    for _ in 0..3 {
        world.now = world.now.after_millis(5000);
        world.turn(Vec::new());
        assert!(world.campaigns().is_empty(), "it does not campaign over a gap of its own");
        let heartbeat = world.heartbeat(handle, 1);
        world.now = world.now.after_millis(10);
        world.turn(vec![heartbeat]);
        assert!(world.wait(900).is_empty(), "the leader is there");
    }
    assert_eq!(world.describe(handle).unwrap().term, 1, "no term was begun");
    // A leader that is really gone is not waited for without end, however late the lane is each time.
    let mut gaps = 0;
    while world.campaigns().is_empty() {
        world.now = world.now.after_millis(1000);
        world.turn(Vec::new());
        gaps += 1;
        assert!(gaps < 10, "four election time-outs are enough");
    }
}

/// A host of a thousand groups hears of no leader any more: it campaigns for one after the other, and first where somebody waits.
#[test]
fn campaigns_of_a_lane_are_spread() {
    let mut world = world_of_three(LaneLimits::default());
    let handles: Vec<_> = (0..1000).map(|n| world.open(&format!("g{n}"))).collect();
    let heartbeats = handles.iter().map(|handle| world.heartbeat(*handle, 1)).collect();
    world.turn(heartbeats);
    assert!(world.wait(2000).len() <= 220, "their patience ends within a second, but not all begin");
    let wanted = handles[998];
    world.turn(vec![world.task(wanted, 7)]);
    assert_eq!(world.wait(10).first(), Some(&wanted.slot), "a client waits");
    let begun = world.wait(1000);
    assert!((190..=210).contains(&begun.len()), "{} campaigns in a second", begun.len());
    // The rest hears of a leader, and wants no more.
    let heartbeats = handles.iter().map(|handle| world.heartbeat(*handle, 2)).collect();
    world.turn(heartbeats);
    assert!(world.wait(500).is_empty());
}
