//! That these tests can fail: one wake-up at a time is broken, and the schedules find each, as a deadlock.

use super::network::a_leader_elsewhere_writes;
use super::progress::{a_few_entries_at_a_time, one_after_the_other};
use super::room::{Slow, a_stage_is_slow, the_last_finds_no_room};
use crate::thread::breakage::{Breakage, set};

#[test]
#[should_panic(expected = "deadlock")]
fn an_owner_that_does_not_say_that_it_waits_for_the_disk() {
    set(Breakage::UrgentFlag);
    one_after_the_other(|_, _| {});
}

#[test]
#[should_panic(expected = "deadlock")]
fn an_owner_that_does_not_say_that_it_waits_for_the_state_machine() {
    set(Breakage::AwaitsApplyFlag);
    a_few_entries_at_a_time(|_| {});
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_lane_that_is_not_woken() {
    set(Breakage::Bell);
    a_stage_is_slow(Slow::StateMachine, 8, |_| {});
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_lane_that_drives_the_network_and_is_not_woken() {
    set(Breakage::Bell);
    a_stage_is_slow(Slow::Disk, 8, |options| options.fuse_net = true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_lane_that_does_not_try_once_more() {
    set(Breakage::SecondTry);
    the_last_finds_no_room();
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_lane_that_does_not_look_once_more() {
    set(Breakage::LastLook);
    a_leader_elsewhere_writes(|_| {});
}

#[test]
#[should_panic(expected = "deadlock")]
fn stages_that_do_not_say_that_there_is_room() {
    set(Breakage::Room);
    a_stage_is_slow(Slow::Disk, 8, |_| {});
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_lane_that_sleeps_over_its_rings_for_bulk() {
    set(Breakage::Announce);
    one_after_the_other(|_, _| {});
}
