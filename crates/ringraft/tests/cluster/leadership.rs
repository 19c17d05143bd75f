//! Who leads: transfers and priorities (SOFAJRaft's `NodeTest`; the numbers are those of `conformance.md`).

use ringraft::inproc::Network;
use ringraft::{ApplyError, CallDone, CallFailure, Endpoint, PeerId, RaftError};

use crate::support::{Cluster, LIMIT, change, converge, eventually, refused, write};

const THREE: &str = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3";

fn endpoint(peer: &PeerId) -> Endpoint {
    Endpoint(peer.endpoint().as_str().into())
}

/// 47
#[test]
fn leadership_goes_where_it_is_sent() {
    let network = Network::new();
    let cluster = Cluster::of(&network, THREE, |_| {});
    write(&cluster.members, 5);
    converge(&cluster.members, 5);
    let old = cluster.leader();
    let target = cluster.followers()[0].clone();
    let done = old.node.transfer_leadership_to(Some(target.clone())).wait(LIMIT);
    assert!(matches!(done, Ok(CallDone::Transferred { term }) if term > 1), "{done:?}");
    eventually("the target leads", || cluster.at(&target).node.is_leader().then_some(()));
    let stranger: PeerId = "127.0.0.1:9".parse().expect("a peer id");
    let to_nobody = cluster.at(&target).node.transfer_leadership_to(Some(stranger)).wait(LIMIT);
    assert_eq!(refused(to_nobody), RaftError::Invalid);
    let itself = cluster.at(&target).node.transfer_leadership_to(Some(target.clone())).wait(LIMIT);
    assert!(matches!(itself, Ok(CallDone::Transferred { .. })), "{itself:?}");
    write(&cluster.members, 5);
    cluster.at(&target).node.transfer_leadership_to(None).wait(LIMIT).expect("somebody else");
    eventually("it leads no more", || (!cluster.at(&target).node.is_leader()).then_some(()));
    write(&cluster.members, 5);
    assert_eq!(converge(&cluster.members, 15).len(), 15);
    cluster.shutdown();
}

/// 48, 49
#[test]
fn a_transfer_to_one_that_is_cut_off_is_given_up() {
    let network = Network::new();
    let cluster = Cluster::of(&network, THREE, |_| {});
    write(&cluster.members, 5);
    converge(&cluster.members, 5);
    let leader = cluster.leader();
    let target = cluster.followers()[0].clone();
    for peer in cluster.conf.peers.iter().filter(|peer| **peer != target) {
        network.cut(&endpoint(&target), &endpoint(peer));
    }
    leader.node.propose("the target does not hold it").wait(LIMIT).expect("two are enough");
    let mut transfer = leader.node.transfer_leadership_to(Some(target.clone()));
    assert_eq!(leader.node.propose("meanwhile").wait(LIMIT), Err(ApplyError::Busy));
    let again = leader.node.transfer_leadership_to(Some(target.clone())).wait(LIMIT);
    assert_eq!(refused(again), RaftError::Busy);
    assert_eq!(refused(transfer.wait(LIMIT)), RaftError::TimedOut);
    // It leads on, and takes writes again.
    leader.node.propose("after").wait(LIMIT).expect("it leads");
    for peer in cluster.conf.peers.iter().filter(|peer| **peer != target) {
        network.heal(&endpoint(&target), &endpoint(peer));
    }
    converge(&cluster.members, 7);
    eventually("the transfer succeeds", || {
        let node = &cluster.leader().node;
        match node.transfer_leadership_to(Some(target.clone())).wait(LIMIT) {
            Ok(_) => Some(()),
            Err(CallFailure::Unknown(_)) => None,
            Err(CallFailure::Failed(status)) => {
                assert!(matches!(status.error, RaftError::NotPermitted | RaftError::TimedOut), "{status}");
                None
            }
        }
    });
    eventually("the target leads", || cluster.at(&target).node.is_leader().then_some(()));
    cluster.shutdown();
}

/// 51
#[test]
fn a_leader_that_ends_orders_another_to_campaign() {
    let network = Network::new();
    // Without the order nobody would campaign for a minute.
    let mut cluster = Cluster::of(&network, THREE, |node| node.election_timeout_ms = 2000);
    write(&cluster.members, 5);
    converge(&cluster.members, 5);
    let (old, term) = (cluster.leader().node.server_id().clone(), cluster.leader().node.term());
    cluster.lose(&old);
    write(&cluster.members, 5);
    assert_eq!(cluster.leader().node.term(), term + 1, "one candidacy was enough");
    cluster.shutdown();
}

/// 17, 18
#[test]
fn priority_zero_never_leads() {
    for (conf, leads) in [
        ("127.0.0.1:1::50,127.0.0.1:2::0,127.0.0.1:3::0", "127.0.0.1:1"),
        ("127.0.0.1:1::0,127.0.0.1:2::0,127.0.0.1:3", "127.0.0.1:3"),
    ] {
        let network = Network::new();
        let cluster = Cluster::of(&network, conf, |_| {});
        write(&cluster.members, 3);
        assert_eq!(cluster.leader().node.server_id().endpoint(), leads);
        let to_best = cluster.leader().node.transfer_leadership_to(None).wait(LIMIT);
        assert_eq!(refused(to_best), RaftError::Invalid, "nobody else may lead");
        cluster.shutdown();
    }
}

/// 21: who is preferred is removed, and the next one leads.
#[test]
fn the_next_in_priority_follows_the_first() {
    let network = Network::new();
    let cluster = Cluster::of(&network, "127.0.0.1:1::100,127.0.0.1:2::60,127.0.0.1:3::0", |_| {});
    write(&cluster.members, 3);
    converge(&cluster.members, 3);
    let first = cluster.conf.peers[0].clone();
    let leads = |peer: &PeerId| cluster.at(peer).node.is_leader().then_some(());
    if cluster.leader().node.server_id() != &first {
        // It started last.
        cluster.leader().node.transfer_leadership_to(Some(first.clone())).wait(LIMIT).expect("moved");
        eventually("the first leads", || leads(&first));
    }
    change(&cluster.members, |node| node.remove_peer(first.clone())).expect("changed");
    eventually("the second leads", || leads(&cluster.conf.peers[1]));
    cluster.shutdown();
}
