//! Answers in groups that have a creation number.

use super::lease_reads::answers;
use super::*;

/// Lets the peers grant and acknowledge everything for a while, as members of the life with this number.
fn go_on(world: &mut World, theirs: u64) {
    for _ in 0..100 {
        world.now = Time(world.now.0 + 100_000);
        for _ in 0..4 {
            world.stages();
            let mut events = answers(world);
            for event in &mut events {
                if let LaneEvent::Response(response) = event
                    && let Ok(answer) = &mut response.result
                {
                    answer.creation = theirs;
                }
            }
            events.extend(world.reads());
            world.turn(events);
        }
    }
}

/// Shows rule P13: a member that runs a program without creation numbers grants and acknowledges for whatever life it has, and one of another
/// life does not know better. Neither elects anybody, nor commits anything, nor moves a term.
#[test]
fn answers_of_another_life_elect_nobody_and_commit_nothing() {
    for (ours, theirs, counts) in [(7, 0, false), (7, 6, false), (7, 7, true), (0, 0, true), (0, 7, false)] {
        let mut world = world_of_three(LaneLimits::default());
        world.creation = ours;
        let handle = world.open("g");
        go_on(&mut world, theirs);
        let described = world.describe(handle).unwrap();
        assert_eq!(described.state == NodeState::Leader, counts, "{theirs} answers {ours}: {described}");
        assert_eq!(described.term > 0, counts, "a term that nobody agreed to");
        if counts {
            // It leads, and its peers are replaced by such members.
            go_on(&mut world, ours + 1);
            let committed = world.describe(handle).unwrap().committed_index;
            let task = world.task(handle, 1);
            world.turn(vec![task]);
            go_on(&mut world, ours + 1);
            assert_eq!(world.describe(handle).unwrap().committed_index, committed, "acknowledged by nobody");
        }
    }
}
