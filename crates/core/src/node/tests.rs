use super::*;

fn node() -> NodeImpl {
    let (own, conf) = ("a:1".parse().unwrap(), "a:1,b:1,c:1".parse().unwrap());
    let options = CoreOptions::new("g".parse().unwrap(), own, conf);
    NodeImpl::new(Time(0), options, RecoveredState::default(), 1).unwrap()
}

/// The invariants are asked at the end of every kind of step.
#[test]
#[should_panic(expected = "only what the log holds is committed")]
fn a_step_that_breaks_an_invariant_stops_the_node() {
    let (mut node, mut fx) = (node(), Effects::new());
    node.start(Time(0), &mut fx);
    node.committed = 1;
    node.step(Time(1), Input::Tick, &mut fx);
}

#[test]
fn a_follower_carries_nothing_of_a_leader() {
    let (mut node, mut fx) = (node(), Effects::new());
    node.start(Time(0), &mut fx);
    assert!(node.role.leadership().is_none() && node.role.replicators().len() == 0);
    assert!(std::mem::size_of::<Role>() <= 96, "a leadership stands on the heap");
}
