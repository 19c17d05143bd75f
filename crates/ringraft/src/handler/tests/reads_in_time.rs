//! Reads that futures wait for end in their time, though the worker that is to answer them stands still.

use std::time::Duration;

use ringraft_core::ReadOnlyOption;

use super::*;
use crate::task::completion::ApplyResult;
use crate::task::promise::Waiter;

/// A read whose future ends two seconds after `clock`, in the way in which a node asks for it.
fn read(world: &mut World, handle: GroupHandle, clock: fn() -> Time) -> Waiter<ApplyResult> {
    let (promise, waiter) = promise();
    let tell = world.statuses[0].read_deadlines().add(clock, 2000, promise.expiry()).unwrap();
    if tell {
        world.turn(vec![LaneEvent::Control(Box::new(Control::WatchReads { handle }))]);
    }
    let done = Completion::promise(promise);
    world.turn(vec![LaneEvent::Read(ReadEvent { handle, mode: ReadOnlyOption::Safe, done })]);
    waiter
}

fn outcome(waiter: &Waiter<ApplyResult>) -> Option<ApplyResult> {
    waiter.wait(Some(Duration::ZERO))
}

#[test]
fn a_read_behind_a_state_machine_that_stands_still_ends_in_its_time() {
    let mut world = World::new(LaneLimits::default());
    let handle = world.open("g");
    world.still[0] = true;
    let tasks = vec![world.task(handle, 1)];
    world.turn(tasks);
    world.settle();
    let waiters = [read(&mut world, handle, || Time(0)), read(&mut world, handle, || Time(0))];
    world.settle();
    assert!(world.out.fsm[0].iter().any(|task| matches!(task, FsmTask::ReadIndex { .. })), "with the worker");
    assert!(world.lane.next_deadline().is_some_and(|at| at <= Time(2_000_000)), "the owner looks in time");
    world.now = Time(1_999_999);
    world.turn(Vec::new());
    assert_eq!(waiters.each_ref().map(outcome), [None, None]);
    world.now = Time(2_000_000);
    world.turn(Vec::new());
    for waiter in &waiters {
        let Some(Err(ApplyError::ReadFailed(status))) = outcome(waiter) else { panic!("it waits") };
        assert_eq!(status.error, RaftError::TimedOut, "{status}");
    }
    // It goes on: what it says about them now is for nobody.
    world.still[0] = false;
    world.settle();
    let again = read(&mut world, handle, || Time(2_000_000));
    world.settle();
    assert!(outcome(&again).is_some_and(|outcome| outcome.is_ok()));
    assert_eq!(waiters.each_ref().map(outcome), [None, None], "told once");
}

/// A refusal is told on the worker, too.
#[test]
fn a_read_of_a_group_that_ends_ends_with_it() {
    let mut world = World::new(LaneLimits::default());
    let handle = world.open("g");
    world.still[0] = true;
    let waiter = read(&mut world, handle, || Time(0));
    let (answer, closed) = promise();
    world.turn(vec![LaneEvent::Control(Box::new(Control::Close { handle, answer }))]);
    assert_eq!(outcome(&waiter), Some(Err(ApplyError::Shutdown)));
    assert_eq!(closed.wait(Some(Duration::ZERO)), None, "the state machine is still there");
    world.still[0] = false;
    world.settle();
    assert_eq!(closed.wait(Some(Duration::ZERO)), Some(true));
}
