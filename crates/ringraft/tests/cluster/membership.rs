//! Members come and go (SOFAJRaft's `NodeTest`; the numbers are those of `conformance.md`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringraft::inproc::Network;
use ringraft::{ApplyError, CallDone, CallFailure, Configuration, Endpoint, NodeState, PeerId, RaftError};

use crate::support::{Cluster, LIMIT, Member, change, converge, eventually, leader_of, refused, write};

const THREE: &str = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3";

fn peers(texts: &[&str]) -> Vec<PeerId> {
    texts.iter().map(|text| text.parse().expect("a peer id")).collect()
}

/// 5
#[test]
fn without_a_leader_nothing_is_changed() {
    let network = Network::new();
    let mut cluster = Cluster::of(&network, "127.0.0.1:1", |node| {
        node.initial_conf = THREE.parse().expect("a configuration");
    });
    let [other] = <[PeerId; 1]>::try_from(peers(&["127.0.0.1:4"])).expect("one");
    let node = &cluster.members[0].node;
    assert!(matches!(node.propose("x").wait(LIMIT), Err(ApplyError::NotLeader { .. })));
    assert_eq!(refused(node.add_peer(other.clone()).wait(LIMIT)), RaftError::NotPermitted);
    assert_eq!(refused(node.remove_peer(other.clone()).wait(LIMIT)), RaftError::NotPermitted);
    assert_eq!(refused(node.transfer_leadership_to(Some(other)).wait(LIMIT)), RaftError::NotPermitted);
    assert_eq!(node.list_peers(LIMIT).unwrap_err().error, RaftError::NotPermitted);
    cluster.lose(&"127.0.0.1:1".parse().expect("a peer id"));
}

/// 10, 13
#[test]
fn learners_learn_and_do_not_count() {
    let network = Network::new();
    let learner = &peers(&["127.0.0.1:2"])[0];
    let mut cluster = Cluster::of(&network, "127.0.0.1:1", |node| {
        node.initial_conf = "127.0.0.1:1,127.0.0.1:2/learner".parse().expect("a configuration");
    });
    write(&cluster.members, 10);
    let members = cluster.leader().node.list_peers(LIMIT).expect("it leads");
    assert_eq!((&members.learners, members.alive_learners().count()), (&vec![learner.clone()], 0));
    cluster.join(&network, "127.0.0.1:2");
    assert_eq!(converge(&cluster.members, 10).len(), 10);
    let alive = || cluster.leader().node.list_peers(LIMIT).ok()?.alive_learners().next().cloned();
    assert_eq!(eventually("the learner is alive", alive), *learner);
    assert_eq!(cluster.at(learner).node.state(), NodeState::Follower);
    cluster.shutdown();
}

/// 14
#[test]
fn learners_make_no_quorum() {
    let network = Network::new();
    let mut cluster = Cluster::of(&network, THREE, |_| {});
    let learners = [cluster.join(&network, "127.0.0.1:4"), cluster.join(&network, "127.0.0.1:5")];
    let new = change(&cluster.members, |node| node.add_learners(learners.to_vec())).expect("changed");
    assert_eq!(new.learners, learners);
    write(&cluster.members, 10);
    converge(&cluster.members, 10);
    let leader = cluster.leader().node.server_id().clone();
    for follower in cluster.followers() {
        cluster.lose(&follower);
    }
    let lost = cluster.at(&leader).node.propose("lost").wait(LIMIT);
    assert!(matches!(lost, Err(ApplyError::Unknown(_) | ApplyError::NotLeader { .. })), "{lost:?}");
    for learner in &learners {
        assert_eq!(cluster.at(learner).applied.entries.lock().len(), 10);
    }
    cluster.shutdown();
}

/// 12
#[test]
fn learners_are_replaced() {
    let network = Network::new();
    let mut cluster = Cluster::of(&network, THREE, |_| {});
    let learners: Vec<PeerId> =
        ["127.0.0.1:4", "127.0.0.1:5", "127.0.0.1:6"].map(|at| cluster.join(&network, at)).into();
    change(&cluster.members, |node| node.add_learners(learners.clone())).expect("changed");
    write(&cluster.members, 5);
    converge(&cluster.members, 5);
    let kept = learners[..2].to_vec();
    let new = change(&cluster.members, |node| node.reset_learners(kept.clone())).expect("changed");
    assert_eq!(new.learners, kept);
    let removed = vec![learners[1].clone()];
    let new = change(&cluster.members, |node| node.remove_learners(removed.clone())).expect("changed");
    assert_eq!(new.learners, learners[..1]);
    let voter = cluster.conf.peers[0].clone();
    let refusal = change(&cluster.members, |node| node.add_learners(vec![voter.clone()]));
    assert_eq!(refused(refusal), RaftError::Invalid);
    write(&cluster.members, 5);
    let gone: Vec<Member> = cluster.members.drain(4..).collect();
    converge(&cluster.members, 10);
    // Who is no member any more is sent nothing.
    for member in &gone {
        assert_eq!(member.applied.entries.lock().len(), 5);
        member.host.shutdown();
    }
    cluster.shutdown();
}

/// 31
#[test]
fn a_group_grows() {
    let network = Network::new();
    let mut cluster = Cluster::of(&network, "127.0.0.1:1", |_| {});
    write(&cluster.members, 10);
    let missing = &peers(&["127.0.0.1:9"])[0];
    assert_eq!(refused(change(&cluster.members, |n| n.add_peer(missing.clone()))), RaftError::CatchUp);
    let second = cluster.join(&network, "127.0.0.1:2");
    let new = change(&cluster.members, |node| node.add_peer(second.clone())).expect("changed");
    assert_eq!(new.peers.len(), 2);
    assert_eq!(refused(change(&cluster.members, |n| n.add_peer(second.clone()))), RaftError::Exists);
    let third = cluster.join(&network, "127.0.0.1:3");
    // While one that does not answer catches up, nobody else is added.
    let leader = &cluster.leader().node;
    let mut first = leader.add_peer(missing.clone());
    assert_eq!(refused(leader.add_peer(third.clone()).wait(LIMIT)), RaftError::Busy);
    assert_eq!(refused(leader.transfer_leadership_to(None).wait(LIMIT)), RaftError::Busy);
    assert_eq!(refused(first.wait(LIMIT)), RaftError::CatchUp);
    let new = change(&cluster.members, |node| node.add_peer(third.clone())).expect("changed");
    assert_eq!(new.to_string(), THREE);
    assert_eq!(converge(&cluster.members, 10).len(), 10);
    cluster.shutdown();
}

/// 32, 34
#[test]
fn a_follower_goes_and_comes_back_without_memory() {
    let network = Network::new();
    let mut cluster = Cluster::of(&network, THREE, |_| {});
    write(&cluster.members, 10);
    converge(&cluster.members, 10);
    let follower = cluster.followers()[0].clone();
    let new = change(&cluster.members, |node| node.remove_peer(follower.clone())).expect("changed");
    assert!(!new.contains(&follower) && new.peers.len() == 2);
    let term = cluster.leader().node.term();
    cluster.lose(&follower);
    write(&cluster.members, 10);
    cluster.join(&network, &follower.endpoint());
    change(&cluster.members, |node| node.add_peer(follower.clone())).expect("changed");
    assert_eq!(converge(&cluster.members, 20).len(), 20);
    assert_eq!(cluster.leader().node.term(), term, "nobody was disturbed");
    cluster.shutdown();
}

/// 33, 52
#[test]
fn a_leader_that_is_removed_hands_over() {
    let network = Network::new();
    let mut cluster = Cluster::of(&network, THREE, |_| {});
    write(&cluster.members, 10);
    let old = cluster.leader().node.server_id().clone();
    let new = change(&cluster.members, |node| node.remove_peer(old.clone())).expect("changed");
    assert!(!new.contains(&old));
    cluster.lose(&old);
    write(&cluster.members, 10);
    cluster.join(&network, &old.endpoint());
    change(&cluster.members, |node| node.add_peer(old.clone())).expect("changed");
    assert_eq!(converge(&cluster.members, 20).len(), 20);
    cluster.shutdown();
}

/// 35
#[test]
fn members_forced_upon_a_blank_node_elect_it() {
    let network = Network::new();
    let conf: Configuration = "127.0.0.1:1".parse().expect("a configuration");
    // Not by rejoin: who has lost its memory leads nobody, whatever it is told.
    let cluster = Cluster::of(&network, "127.0.0.1:1", |node| node.initial_conf = Configuration::default());
    let node = &cluster.members[0].node;
    assert_eq!(
        node.reset_peers(Configuration::default())
            .wait(LIMIT)
            .unwrap_err()
            .to_string()
            .matches("EINVAL")
            .count(),
        1
    );
    assert_eq!(node.reset_peers(conf).wait(LIMIT), Ok(CallDone::PeersReset));
    write(&cluster.members, 3);
    cluster.shutdown();
}

/// 36
#[test]
fn who_is_left_is_forced_to_go_on() {
    let network = Network::new();
    let mut cluster = Cluster::of(&network, THREE, |_| {});
    write(&cluster.members, 10);
    converge(&cluster.members, 10);
    let left = cluster.conf.peers[0].clone();
    let lost = cluster.conf.peers[1..].to_vec();
    lost.iter().for_each(|peer| cluster.lose(peer));
    let alone = Configuration::of_peers(vec![left.clone()]);
    for _ in 0..2 {
        assert_eq!(cluster.at(&left).node.reset_peers(alone.clone()).wait(LIMIT), Ok(CallDone::PeersReset));
    }
    write(&cluster.members, 10);
    for peer in &lost {
        cluster.join(&network, &peer.endpoint());
        change(&cluster.members, |node| node.add_peer(peer.clone())).expect("changed");
    }
    assert_eq!(converge(&cluster.members, 20).len(), 20);
    cluster.shutdown();
}

/// 59
#[test]
fn a_group_of_one_wanders() {
    let network = Network::new();
    let mut cluster = Cluster::of(&network, "127.0.0.1:1", |_| {});
    write(&cluster.members, 2);
    for number in 2..6 {
        let next = cluster.join(&network, &format!("127.0.0.1:{number}"));
        let conf = Configuration::of_peers(vec![next.clone()]);
        let new = change(&cluster.members, |node| node.change_peers(conf.clone())).expect("changed");
        assert_eq!(new, conf);
        eventually("the new one leads", || cluster.at(&next).node.is_leader().then_some(()));
        cluster.members.remove(0).host.shutdown();
        write(&cluster.members, 2);
    }
    assert_eq!(converge(&cluster.members, 10).len(), 10);
    cluster.shutdown();
}

/// 60
#[test]
fn several_come_at_once_or_not_at_all() {
    let network = Network::new();
    let mut cluster = Cluster::of(&network, "127.0.0.1:1", |_| {});
    write(&cluster.members, 5);
    cluster.join(&network, "127.0.0.1:2");
    let conf: Configuration = THREE.parse().expect("a configuration");
    let refusal = change(&cluster.members, |node| node.change_peers(conf.clone()));
    assert_eq!(refused(refusal), RaftError::CatchUp);
    assert_eq!(cluster.leader().node.list_peers(LIMIT).expect("leads").peers.len(), 1);
    cluster.join(&network, "127.0.0.1:3");
    assert_eq!(change(&cluster.members, |node| node.change_peers(conf.clone())), Ok(conf));
    assert_eq!(converge(&cluster.members, 5).len(), 5);
    cluster.shutdown();
}

/// 61: the joint configuration is logged and its new half has no quorum. The leader steps down, and whoever leads when the quorum
/// is back finishes the change.
#[test]
fn a_joint_change_is_finished_by_the_next_leader() {
    let network = Network::new();
    let cluster = Cluster::of(&network, "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3,127.0.0.1:4", |_| {});
    write(&cluster.members, 5);
    converge(&cluster.members, 5);
    let leader = cluster.leader();
    let followers = cluster.followers();
    let endpoint = |peer: &PeerId| Endpoint(peer.endpoint().as_str().into());
    let cut_off = &followers[0];
    for peer in cluster.conf.peers.iter().filter(|peer| *peer != cut_off) {
        network.cut(&endpoint(cut_off), &endpoint(peer));
    }
    let two = Configuration::of_peers(vec![leader.node.server_id().clone(), cut_off.clone()]);
    let outcome = leader.node.change_peers(two.clone()).wait(LIMIT);
    assert!(matches!(outcome, Err(CallFailure::Unknown(_))), "{outcome:?}");
    for peer in cluster.conf.peers.iter().filter(|peer| *peer != cut_off) {
        network.heal(&endpoint(cut_off), &endpoint(peer));
    }
    let finished = || {
        let leads =
            cluster.members.iter().find(|m| two.contains(m.node.server_id()) && m.node.is_leader())?;
        (leads.node.describe(LIMIT).ok()?.configuration == two.to_string()).then_some(())
    };
    eventually("the change is finished", finished);
    cluster.shutdown();
}

/// 64
#[test]
fn no_acknowledged_write_is_lost_while_members_change() {
    let network = Network::new();
    let mut cluster = Cluster::of(&network, THREE, |_| {});
    cluster.join(&network, "127.0.0.1:4");
    cluster.join(&network, "127.0.0.1:5");
    leader_of(&cluster.members);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = |number: usize| {
        let nodes: Vec<_> = cluster.members.iter().map(|member| member.node.clone()).collect();
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            for n in 0_u32.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let data = format!("{number}:{n}");
                let leader = nodes.iter().find(|node| node.is_leader());
                if let Some(node) = leader
                    && node.propose(data.clone()).wait(LIMIT).is_ok()
                {
                    acknowledged.push(data.into_bytes());
                }
            }
            acknowledged
        })
    };
    let writers: Vec<_> = (0..2).map(writer).collect();
    let all: Vec<PeerId> = cluster.members.iter().map(|member| member.node.server_id().clone()).collect();
    for round in 0..8 {
        // Three of the five, always others.
        let voters: Vec<PeerId> = (0..3).map(|n| all[(round * 2 + n) % 5].clone()).collect();
        let conf = Configuration::of_peers(voters);
        let done = || match change(&cluster.members, |node| node.change_peers(conf.clone())) {
            Ok(_) => Some(()),
            // Lost with a leader, or one was slow on a busy machine: again.
            Err(CallFailure::Unknown(_)) => None,
            Err(CallFailure::Failed(status)) if status.error == RaftError::CatchUp => None,
            Err(failure) => panic!("{failure}"),
        };
        eventually("the change is done", done);
    }
    let conf = Configuration::of_peers(all);
    eventually("all are voters", || change(&cluster.members, |node| node.change_peers(conf.clone())).ok());
    stop.store(true, Ordering::Relaxed);
    let acknowledged: Vec<Vec<u8>> = writers.into_iter().flat_map(|w| w.join().expect("no panic")).collect();
    assert!(!acknowledged.is_empty());
    let entries = converge(&cluster.members, acknowledged.len());
    let held: std::collections::HashSet<&[u8]> = entries.iter().map(|(_, data)| &data[..]).collect();
    for data in &acknowledged {
        assert!(held.contains(&data[..]), "{} was acknowledged", String::from_utf8_lossy(data));
    }
    cluster.shutdown();
}

/// A host that was asked to stop says so instead of letting callers wait.
#[test]
fn calls_end_with_the_node() {
    let network = Network::new();
    let cluster = Cluster::of(&network, "127.0.0.1:1", |_| {});
    let node = cluster.leader().node.clone();
    write(&cluster.members, 1);
    let mut waits = node.add_peer("127.0.0.1:9".parse().expect("a peer id"));
    cluster.shutdown();
    let outcome = waits.wait(LIMIT);
    assert!(outcome.is_err(), "{outcome:?}");
    let late = node.remove_peer("127.0.0.1:9".parse().expect("a peer id")).wait(Duration::from_secs(5));
    assert_eq!(refused(late), RaftError::NodeShutdown);
    assert_eq!(node.list_peers(LIMIT).unwrap_err().error, RaftError::NodeShutdown);
}
