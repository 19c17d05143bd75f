//! Every checker fires: histories that only a broken node, a wiped disk or made-up messages can bring forth.

use std::sync::Arc;

use ringraft_core::{HardState, LogId, LogOp};

use super::counted_at_once::all_committed;
use super::*;
use crate::script::format::peer_of;
use crate::script::{ScriptError, World, run};

/// The rule that a script breaks.
fn broken_rule(text: &str) -> &'static str {
    match run(text) {
        Err(ScriptError::Violation { violation, .. }) => violation.checker,
        other => panic!("expected a broken rule, got {other:?}"),
    }
}

/// Node 1 leads a group of three whose entries 1/1 and 2/1 are committed everywhere.
const COMMITTED: &str =
    "add-nodes 1 2 3\ncampaign 1\nstabilize\npropose 1 a\nstabilize\ntick 1 100\nstabilize\n";

struct NoDisks;

impl Disks for NoDisks {
    fn stable(&self, _: &PeerId) -> Option<&LogImage> {
        None
    }
}

#[test]
fn two_leaders_of_a_term() {
    // Grants that nobody gave.
    let text = "add-nodes 1 2 3 4 5\ncampaign 1\ndeliver 1->3\ndeliver 3->1\ndeliver 1->4\ndeliver 4->1\n\
                campaign 2\ndeliver 2->3\ndeliver 3->2\ndeliver 2->4\ndeliver 4->2\n\
                inject vote-reply from=3 to=1 ticket=5 term=1 granted=true\n\
                inject vote-reply from=4 to=1 ticket=6 term=1 granted=true\nexpect 1 state=LEADER\n\
                inject vote-reply from=3 to=2 ticket=5 term=1 granted=true\n\
                inject vote-reply from=4 to=2 ticket=6 term=1 granted=true\n";
    // The second leader's first entry is the first thing that shows.
    assert!(["election safety", "log matching"].contains(&broken_rule(text)));
    let mut checker = ElectionSafety::default();
    let (log, disks) = (LogImage::default(), NoDisks);
    let mut leaders = World::new();
    leaders.add_nodes(&[1], &[]).unwrap();
    let mut others = World::new();
    others.add_nodes(&[2], &[]).unwrap();
    let event = |node| Event::Stepped { node, log: &log, disks: &disks };
    assert!(checker.observe(&event(leaders.node(1).unwrap())).is_ok());
    assert!(checker.observe(&event(others.node(2).unwrap())).is_err());
}

#[test]
fn a_wiped_voter_votes_again() {
    let text = "add-nodes 1 2 3\ninject vote from=2 to=1 term=5\ncrash 1\nwipe 1\nrestart 1\n\
                inject vote from=3 to=1 term=5\n";
    assert_eq!(broken_rule(text), "one vote a term");
}

#[test]
fn one_position_with_two_contents() {
    let text = format!("{COMMITTED}add-nodes 9 conf=none\ninject append from=8 to=9 term=1 entries=1:x\n");
    assert_eq!(broken_rule(&text), "log matching");
}

#[test]
fn a_leader_that_cuts_its_own_log() {
    let mut world = World::new();
    world.add_nodes(&[1], &[]).unwrap();
    let node = world.node(1).unwrap();
    let long = LogImage::preset(HardState::default(), &[1, 1]);
    let short = LogImage::preset(HardState::default(), &[1]);
    let mut checker = LeaderAppendOnly::default();
    let event = |log| Event::Stepped { node, log, disks: &NoDisks };
    assert!(checker.observe(&event(&short)).is_ok() && checker.observe(&event(&long)).is_ok());
    assert!(checker.observe(&event(&short)).is_err());
}

#[test]
fn two_state_machines_that_differ_and_a_gap() {
    let (one, two) =
        (LogImage::preset(HardState::default(), &[1, 1]), LogImage::preset(HardState::default(), &[2]));
    let (a, b): (PeerId, PeerId) = ("a:1".parse().unwrap(), "b:1".parse().unwrap());
    let chunks = |log: &LogImage, from| log.read(from, from, 1).remove(0);
    let mut checker = StateMachineSafety::default();
    let mut deliver = |node: &PeerId, chunk: &EntryChunk, stable: &LogImage| {
        checker.observe(&Event::Delivered { node, chunk, stable })
    };
    assert!(deliver(&a, &chunks(&one, 1), &one).is_ok());
    assert!(deliver(&b, &chunks(&two, 1), &two).unwrap_err().contains("another"));
    assert!(deliver(&a, &chunks(&one, 1), &one).unwrap_err().contains("is next"));
    assert!(deliver(&a, &chunks(&one, 2), &two).unwrap_err().contains("its disk lacks"));
}

#[test]
fn a_commit_that_nobody_holds() {
    let text = "add-nodes 1 2 3\ncampaign 1\nstabilize\nhold 1->2\nhold 1->3\npropose 1 a\n\
                inject append-reply from=2 to=1 ticket=9 term=1 success=true\n";
    assert_eq!(broken_rule(text), "commit rule");
}

/// What breaks it in a node is put back by a mutant (`docs/testing.md`); here are the two sides of the comparison.
#[test]
fn what_a_leader_knows_to_be_held_is_committed() {
    let world = leader();
    let node = world.node(1).unwrap();
    assert_eq!(node.committable_index(), Some(node.committed_index()));
    let mut followers = World::new();
    followers.add_nodes(&[1, 2, 3], &[]).unwrap();
    assert_eq!(followers.node(1).unwrap().committable_index(), None, "it does not lead");
    assert!(all_committed("a", Some(3), 3).is_ok() && all_committed("a", None, 3).is_ok());
    assert!(all_committed("a", Some(4), 3).unwrap_err().contains("up to 4"));
}

#[test]
fn a_leader_without_what_was_committed() {
    let text = format!(
        "{COMMITTED}crash 1\ncrash 2\ncrash 3\nwipe 2\nwipe 3\nrestart 2\nrestart 3\npreset 2 term=7\npreset 3 term=7\n\
         campaign 2\nstabilize\n"
    );
    assert_eq!(broken_rule(&text), "leader completeness");
}

#[test]
fn a_state_machine_that_is_ahead_of_its_disk_or_of_its_commit_index() {
    let mut world = World::new();
    world.add_nodes(&[1, 2], &[]).unwrap();
    let node = world.node(1).unwrap();
    let (log, short) = (LogImage::preset(HardState::default(), &[1, 1]), LogImage::default());
    let chunk = log.read(1, 1, 1).remove(0);
    let deliver = |checker: &mut AppliedStable, stable: &LogImage| {
        checker.observe(&Event::Delivered { node: name(node), chunk: &chunk, stable })
    };
    let mut checker = AppliedStable::default();
    assert!(deliver(&mut checker, &short).unwrap_err().contains("its disk ends"));
    assert!(deliver(&mut checker, &log).is_ok());
    let step = Event::Stepped { node, log: &log, disks: &NoDisks };
    assert!(checker.observe(&step).unwrap_err().contains("as committed"));
    checker.observe(&Event::Restarted { node: name(node) }).unwrap();
    assert!(checker.observe(&step).is_ok());
}

#[test]
fn a_change_of_voters_without_a_joint_configuration() {
    let text = "add-nodes 1 2 3 4\ninject append from=1 to=4 term=1 entries=1:conf=1+2+3,1:conf=1+4+5|1+2+3,1:conf=1+4+5\n";
    assert!(run(text).is_ok() || !matches!(run(text), Err(ScriptError::Violation { .. })));
    let text = "add-nodes 1 2 3 4\ninject append from=1 to=4 term=1 entries=1:conf=1+2+3,1:conf=1+4+5\n";
    assert_eq!(broken_rule(text), "quorum overlap");
}

/// A single voter that leads term 1 and has committed its first entry.
fn leader() -> World {
    let mut world = World::new();
    world.add_nodes(&[1], &[]).unwrap();
    assert_eq!((world.node(1).unwrap().term(), world.node(1).unwrap().committed_index()), (1, 1));
    world
}

#[test]
fn a_read_that_misses_what_was_committed() {
    let (world, log) = (leader(), LogImage::preset(HardState::default(), &[1]));
    let node = world.node(1).unwrap();
    let (read, early) = (CallToken(2), CallToken(1));
    let mut checker = LinearizableReads::default();
    checker.observe(&Event::CallMade { node: name(node), call: early }).unwrap();
    checker.observe(&Event::Stepped { node, log: &log, disks: &NoDisks }).unwrap();
    checker.observe(&Event::CallMade { node: name(node), call: read }).unwrap();
    let may = |call, index, delivered| Event::MayRead {
        node: name(node),
        call,
        index,
        delivered,
        by_lease_of: None,
    };
    assert!(checker.observe(&may(early, 0, 0)).is_ok(), "it was asked before");
    assert!(checker.observe(&may(read, 0, 0)).unwrap_err().contains("1 was committed"));
    assert!(checker.observe(&may(read, 2, 1)).is_err(), "it does not have what it waits for");
    assert!(checker.observe(&may(read, 1, 1)).is_ok());
}

#[test]
fn a_lease_that_outlives_a_commit_of_a_later_term() {
    let (world, log) = (leader(), LogImage::preset(HardState::default(), &[1]));
    let node = world.node(1).unwrap();
    let mut checker = LeaseSafety::default();
    let may = |by_lease_of| Event::MayRead {
        node: name(node),
        call: CallToken(1),
        index: 1,
        delivered: 1,
        by_lease_of,
    };
    assert!(checker.observe(&may(Some(0))).is_ok(), "nobody has committed in term 1 yet");
    checker.observe(&Event::Stepped { node, log: &log, disks: &NoDisks }).unwrap();
    assert!(checker.observe(&may(Some(0))).unwrap_err().contains("term 1 has committed"));
    assert!(checker.observe(&may(Some(1))).is_ok() && checker.observe(&may(None)).is_ok());
}

#[test]
fn a_call_that_ends_twice_or_elsewhere() {
    let (a, b): (PeerId, PeerId) = ("a:1".parse().unwrap(), "b:1".parse().unwrap());
    let mut checker = OneOutcome::default();
    for call in [CallToken(1), CallToken(2)] {
        checker.observe(&Event::CallMade { node: &a, call }).unwrap();
    }
    let mut ends = |node, call| checker.observe(&Event::CallEnded { node, call: CallToken(call) });
    assert!(ends(&a, 1).is_ok());
    assert!(ends(&a, 1).unwrap_err().contains("twice"));
    assert!(ends(&b, 2).unwrap_err().contains("made at a:1"));
}

#[test]
fn a_change_of_members_before_the_one_before_is_committed() {
    let mut world = World::new();
    world.add_nodes(&[1], &[]).unwrap();
    let node = world.node(1).unwrap();
    let (old, new, none) = ("a:1,b:1", "a:1,c:1", "");
    let log = |entries: &[(&str, &str)]| configurations(node, entries);
    let mut checker = ChangeInOrder::default();
    let mut step = |log: LogImage| checker.observe(&Event::Stepped { node, log: &log, disks: &NoDisks });
    assert_eq!(step(log(&[(old, none)])), Ok(()));
    assert_eq!(step(log(&[(old, none), (old, none)])), Ok(()), "carried on");
    let changed = [(old, none), (old, none), (new, old), (new, none)];
    assert!(step(log(&changed)).unwrap_err().contains("is not committed"));
    let mut fresh = ChangeInOrder::default();
    let carried = log(&[(new, old), (new, old), (new, none)]);
    let event = Event::Stepped { node, log: &carried, disks: &NoDisks };
    assert!(fresh.observe(&event).unwrap_err().contains("is not committed"), "left by a new leader");
}

/// A log of configurations, each with its old half, all of the node's term.
fn configurations(node: &NodeImpl, entries: &[(&str, &str)]) -> LogImage {
    let mut log = LogImage::default();
    for (at, (conf, old_conf)) in entries.iter().enumerate() {
        let id = LogId::new(at as u64 + 1, node.term());
        let chunk = EntryChunk::configuration(id, conf.parse().unwrap(), old_conf.parse().unwrap());
        log.apply(&LogOp::Append(Arc::new(chunk)));
    }
    log
}

#[test]
fn a_vote_for_somebody_who_has_not_caught_up() {
    struct Newcomer(LogImage);
    impl Disks for Newcomer {
        fn stable(&self, _: &PeerId) -> Option<&LogImage> {
            Some(&self.0)
        }
    }
    let mut world = World::new();
    world.settings.catchup_margin = 0;
    world.add_nodes(&[1], &[]).unwrap();
    let node = world.node(1).unwrap();
    let (own, both) = (name(node).to_string(), format!("{},b:1", name(node)));
    let before = configurations(node, &[(&own, "")]);
    let after = configurations(node, &[(&own, ""), (&both, &own)]);
    let observe = |held: &LogImage| {
        let (mut checker, disks) = (ChangeInOrder::default(), Newcomer(held.clone()));
        checker.observe(&Event::Stepped { node, log: &before, disks: &disks })?;
        checker.observe(&Event::Stepped { node, log: &after, disks: &disks })
    };
    assert_eq!(observe(&before), Ok(()));
    assert!(observe(&LogImage::default()).unwrap_err().contains("has not caught up"));
}

#[test]
fn a_removed_member_that_asks_for_votes_and_one_that_was_not_removed() {
    let world = leader();
    let node = world.node(1).unwrap();
    let own = node.configuration().conf.to_string();
    // What is committed is entry 1.
    let marked = |confs: &[(&str, &str)], at| {
        let mut log = configurations(node, confs);
        log.apply(&LogOp::MemberRemoved { at });
        log
    };
    let step = |checker: &mut RemovedAreSilent, log: &LogImage| {
        checker.observe(&Event::Stepped { node, log, disks: &NoDisks })
    };
    let asks = |checker: &mut RemovedAreSilent| checker.observe(&Event::PreVoteSent { node: name(node) });
    let removed = marked(&[("b:1", "")], LogId::new(1, 1));
    let mut checker = RemovedAreSilent::default();
    assert_eq!((asks(&mut checker), step(&mut checker, &removed)), (Ok(()), Ok(())));
    assert_eq!(asks(&mut checker), Ok(()), "it may have asked in the turn in which it learned of it");
    step(&mut checker, &removed).unwrap();
    assert!(asks(&mut checker).unwrap_err().contains("knows that entry"));
    for (wrong, at) in [
        (marked(&[(&own, "")], LogId::new(1, 1)), "names it"),
        (marked(&[("b:1", ""), ("b:1", "")], LogId::new(2, 1)), "not committed"),
        (marked(&[("b:1", "")], LogId::new(1, 2)), "not committed"),
    ] {
        assert!(step(&mut RemovedAreSilent::default(), &wrong).unwrap_err().contains(at));
    }
}

#[test]
fn a_configuration_that_is_cut_off_and_goes_on() {
    let world = leader();
    let node = world.node(1).unwrap();
    assert_eq!(node.configuration().id.index, 1);
    let step = |log: &LogImage| {
        ConfigurationOfLog::default().observe(&Event::Stepped { node, log, disks: &NoDisks })
    };
    let own = node.configuration().conf.to_string();
    assert_eq!(step(&configurations(node, &[(&own, "")])), Ok(()));
    assert!(step(&configurations(node, &[("a:1", "")])).unwrap_err().contains("entry 1"));
    assert!(step(&configurations(node, &[(&own, ""), ("b:1", "")])).unwrap_err().contains("entry 2"));
    assert!(step(&LogImage::preset(HardState::default(), &[1])).unwrap_err().contains("entry 0"));
}

#[test]
fn what_a_voter_acknowledged_before_its_disk_was_lost() {
    struct Lost(LogImage, [LogImage; 1]);
    impl Disks for Lost {
        fn stable(&self, node: &PeerId) -> Option<&LogImage> {
            (*node == peer_of(1)).then_some(&self.0)
        }

        fn lost(&self, node: &PeerId) -> &[LogImage] {
            if *node == peer_of(2) { &self.1 } else { &[] }
        }
    }
    let committed = |lost: fn(&LogImage) -> LogImage| {
        let (mut world, mut checker) = (World::new(), CommitRule::default());
        world.add_nodes(&[1, 2, 3], &[]).unwrap();
        let (node, log) = (world.node(1).unwrap(), LogImage::default());
        checker.observe(&Event::Stepped { node, log: &log, disks: &NoDisks }).unwrap();
        world.campaign(1).unwrap();
        world.stabilize(&[]).unwrap();
        let node = world.node(1).unwrap();
        assert_eq!(node.committed_index(), 1);
        let log = configurations(node, &[(&node.configuration().conf.to_string(), "")]);
        let disks = Lost(log.clone(), [lost(&log)]);
        checker.observe(&Event::Stepped { node, log: &log, disks: &disks })
    };
    assert_eq!(committed(LogImage::clone), Ok(()), "its acknowledgement may be on its way");
    assert!(committed(|_| LogImage::default()).unwrap_err().contains("no majority"));
}
