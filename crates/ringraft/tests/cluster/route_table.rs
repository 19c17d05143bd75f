//! The `RouteTable` against hosts in one process (SOFAJRaft's `RouteTableTest`).

use std::time::Duration;

use ringraft::inproc::Network;
use ringraft::{ApplyError, CliError, PeerId, RaftError, RouteTable, Status};

use crate::cli_service::service;
use crate::support::{Cluster, LIMIT, eventually, write};

const THREE: &str = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3";
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn leaders_are_found_again() {
    let network = Network::new();
    let (mut cluster, cli) = (Cluster::of(&network, THREE, |_| {}), service(&network));
    write(&cluster.members, 1);
    let table = RouteTable::new();
    let stranger = table.refresh_leader(&cli, "g", LIMIT).unwrap_err();
    assert_eq!(stranger, CliError::NotRegistered("g".to_owned()));
    table.update_configuration("g", cluster.conf.clone()).expect("registered");
    assert_eq!(table.select_leader("g"), None);
    let leader = table.refresh_leader(&cli, "g", LIMIT).expect("found");
    assert_eq!(table.select_leader("g"), Some(leader.clone()));
    cluster.lose(&leader);
    let next = eventually("another leader", || {
        table.refresh_leader(&cli, "g", LIMIT).ok().filter(|next| *next != leader)
    });
    assert_eq!(table.select_leader("g"), Some(next));
    cluster.members.drain(..).for_each(|member| member.host.shutdown());
    let error = table.refresh_leader(&cli, "g", SHORT).unwrap_err();
    assert!(error.to_string().starts_with("Fail to get leader of group g"), "{error}");
    assert!(table.refresh_configuration(&cli, "g", SHORT).is_err());
}

#[test]
fn the_first_member_may_be_down() {
    let network = Network::new();
    let (mut cluster, cli) = (Cluster::of(&network, THREE, |_| {}), service(&network));
    write(&cluster.members, 1);
    let first = cluster.conf.peers[0].clone();
    cluster.lose(&first);
    write(&cluster.members, 1);
    let table = RouteTable::new();
    table.update_configuration("g", cluster.conf.clone()).expect("registered");
    let leader = table.refresh_leader(&cli, "g", LIMIT).expect("found");
    assert_ne!(leader, first);
    cluster.shutdown();
}

#[test]
fn members_are_learnt() {
    let network = Network::new();
    let (mut cluster, cli) = (Cluster::of(&network, THREE, |_| {}), service(&network));
    write(&cluster.members, 1);
    let table = RouteTable::new();
    table.update_configuration("g", cluster.conf.clone()).expect("registered");
    assert_eq!(table.refresh_configuration(&cli, "g", LIMIT).expect("told"), cluster.conf);
    let (fourth, fifth) = (cluster.join(&network, "127.0.0.1:4"), cluster.join(&network, "127.0.0.1:5"));
    cli.add_peer("g", &cluster.conf, &fourth).expect("added");
    cli.add_learners("g", &cluster.conf, std::slice::from_ref(&fifth)).expect("added");
    let conf = table.refresh_configuration(&cli, "g", LIMIT).expect("told");
    assert!(conf.contains(&fourth) && conf.learners == [fifth]);
    assert_eq!(table.get_configuration("g"), Some(conf));
    cluster.shutdown();
}

/// A client whose table is old all over: the leader does not lead, and in the end no member that it knows is one.
#[test]
fn requests_find_the_leader_by_themselves() {
    let network = Network::new();
    let (mut cluster, cli) = (Cluster::of(&network, THREE, |_| {}), service(&network));
    write(&cluster.members, 1);
    let table = RouteTable::new();
    table.update_configuration("g", cluster.conf.clone()).expect("registered");
    let propose = |cluster: &Cluster, table: &RouteTable, asked: &mut Vec<PeerId>| {
        table.with_leader(&cli, "g", LIMIT, |leader| {
            asked.push(leader.clone());
            let gone = || Status::new(RaftError::HostDown, "is down");
            let member = cluster.members.iter().find(|m| m.host.endpoint() == leader.endpoint());
            let node = &member.ok_or_else(gone)?.node;
            node.propose("x").wait(LIMIT).map_err(|error| match error {
                ApplyError::NotLeader { .. } => Status::new(RaftError::NotPermitted, error.to_string()),
                other => Status::new(RaftError::Internal, other.to_string()),
            })
        })
    };
    let follower = cluster.followers()[0].clone();
    table.update_leader("g", Some(follower.clone()));
    let mut asked = Vec::new();
    propose(&cluster, &table, &mut asked).expect("applied");
    assert_eq!(asked.first(), Some(&follower));
    let leader = asked.last().expect("somebody").clone();
    assert_eq!(table.select_leader("g"), Some(leader.clone()));
    assert_ne!(leader, follower);
    cluster.lose(&leader);
    asked.clear();
    propose(&cluster, &table, &mut asked).expect("applied");
    assert!(asked.first() == Some(&leader) && asked.last() != Some(&leader), "{asked:?}");
    // Anything else ends it.
    let other = table.with_leader(&cli, "g", LIMIT, |_| Err::<(), _>(Status::new(RaftError::Invalid, "no")));
    assert_eq!(other, Err(CliError::Refused(Status::new(RaftError::Invalid, "no"))));
    cluster.shutdown();
}
