//! Groups that come and go: removal, names that are used again, new groups on hosts that have lost their disks.

use std::sync::Arc;

use ringraft::inproc::Network;
use ringraft::{
    CliError, Configuration, GroupId, GroupStart, HostOptions, Node, NodeOptions, RaftError, RaftHost,
    StartError, StartMode, StoreOptions,
};

use crate::cli_service::service;
use crate::restart::free_ports;
use crate::support::{
    Applied, Cluster, Journal, LIMIT, Member, converge, eventually, leader_of, memory_options, quick, write,
};

const THREE: &str = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3";

fn g() -> GroupId {
    "g".parse().expect("a group")
}

/// Options of a life of a group.
fn life(conf: &str, creation: u64) -> NodeOptions {
    NodeOptions { creation, ..quick(&conf.parse().expect("a configuration")) }
}

/// Starts a life of group `g` on a host.
fn begin(host: &RaftHost, options: NodeOptions) -> Result<Member, StartError> {
    let applied = Arc::new(Applied::default());
    let journal = Box::new(Journal(Arc::clone(&applied)));
    let server_id = host.endpoint().parse().expect("a peer id");
    let node = host.start_group(g(), server_id, options, journal)?;
    Ok(Member { host: host.clone(), node, applied })
}

fn is_other_life(started: Result<Member, StartError>) -> bool {
    started.is_err_and(|error| matches!(error, StartError::OtherLife { .. }))
}

/// Shows rule P13: who has removed a group starts it again only with a higher number, and then finds nothing of it.
#[test]
fn a_removed_group_begins_again_only_with_a_higher_number() {
    let network = Network::new();
    let cluster = Cluster::of(&network, THREE, |node| node.creation = 5);
    write(&cluster.members, 20);
    converge(&cluster.members, 20);
    let hosts: Vec<RaftHost> = cluster.members.iter().map(|member| member.host.clone()).collect();
    let wrong = hosts[0].remove_group(&g(), 4);
    assert!(matches!(wrong, Err(StartError::OtherLife { .. })), "{wrong:?}");
    assert!(hosts[0].node(&g()).is_some(), "the life that was not meant runs");
    for host in &hosts {
        assert!(host.remove_group(&g(), 5).expect("removed"));
        assert!(!host.remove_group(&g(), 5).expect("gone already"));
        assert!(host.node(&g()).is_none());
        for creation in [0, 4, 5] {
            assert!(is_other_life(begin(host, life(THREE, creation))), "{creation}");
        }
        let stored = host.stored_groups().expect("the store answers");
        assert!(matches!(&stored[..], [one] if one.key.is_none() && one.creation == 5), "{stored:?}");
    }
    let again: Vec<Member> = hosts.iter().map(|host| begin(host, life(THREE, 6)).expect("later")).collect();
    write(&again, 3);
    let entries = converge(&again, 3);
    assert_eq!(entries.len(), 3, "nothing of the earlier life");
    assert!(again.iter().all(|member| member.node.creation() == 6));
    let stored = hosts[0].stored_groups().expect("the store answers");
    assert!(matches!(&stored[..], [one] if one.key.is_some() && one.creation == 6), "{stored:?}");
    hosts.iter().for_each(RaftHost::shutdown);
}

/// A member that missed the removal goes on in the earlier life, campaigns in it for ever with rising terms, and moves nothing.
/// Shows rule P13.
#[test]
fn a_member_of_an_earlier_life_is_not_heard() {
    let network = Network::new();
    let cluster = Cluster::of(&network, THREE, |node| node.creation = 5);
    write(&cluster.members, 5);
    converge(&cluster.members, 5);
    let Cluster { mut members, .. } = cluster;
    let late = members.pop().expect("three");
    let again: Vec<Member> = members
        .iter()
        .map(|member| {
            member.host.remove_group(&g(), 5).expect("removed");
            begin(&member.host, life(THREE, 6)).expect("a later life")
        })
        .collect();
    write(&again, 5);
    converge(&again, 5);
    let term = leader_of(&again).node.term();
    // It has lost its leader, and asks whoever it knows for pre-votes.
    eventually("the late member notices", || late.node.leader_id().is_none().then_some(()));
    late.node.reset_peers(late_alone(&late)).wait(LIMIT).expect("it is made to lead alone");
    eventually("it leads what nobody else is in", || {
        late.node.propose("late").wait(LIMIT).ok().filter(|_| late.node.term() > term)
    });
    write(&again, 5);
    let entries = converge(&again, 10);
    assert!(entries.iter().all(|(_, data)| data != b"late"));
    assert_eq!(leader_of(&again).node.term(), term, "no term moved");
    // The third joins by doing as the others did.
    assert!(is_other_life(begin_stopped(&late, 6)), "the earlier life is still there");
    late.host.remove_group(&g(), 0).expect("removed, whatever it was");
    let mut whole = again;
    whole.push(begin(&late.host, life(THREE, 6)).expect("a later life"));
    write(&whole, 2);
    converge(&whole, 12);
    whole.iter().for_each(|member| member.host.shutdown());
}

/// What an operator asks of one life is not done to another.
#[test]
fn a_call_means_the_life_that_it_names() {
    let network = Network::new();
    let (cluster, cli) = (Cluster::of(&network, THREE, |node| node.creation = 5), service(&network));
    write(&cluster.members, 1);
    for fits in [0, 5] {
        assert!(cli.of_life(fits).get_peers("g", &cluster.conf).is_ok(), "{fits}");
    }
    let others = cli.of_life(4);
    let leader = cli.get_leader("g", &cluster.conf).expect("it leads");
    let code = |error: CliError| error.code();
    assert!(matches!(others.get_leader("g", &cluster.conf), Err(CliError::NoLeader { .. })));
    let refusal = others.reset_peer("g", &leader, std::slice::from_ref(&leader)).map_err(code);
    assert_eq!(refusal, Err(Some(RaftError::WrongCreation)));
    let described = cluster.members[0].node.describe(LIMIT).expect("described");
    assert!(described.creation == 5 && described.to_string().contains("creation number 5"), "{described}");
    cluster.shutdown();
}

fn late_alone(late: &Member) -> Configuration {
    late.node.server_id().to_string().parse().expect("a configuration")
}

fn begin_stopped(member: &Member, creation: u64) -> Result<Member, StartError> {
    member.host.stop_group(&g()).expect("stopped");
    begin(&member.host, life(THREE, creation))
}

fn rejoined(network: &Network, endpoint: &str, after: Option<u64>) -> RaftHost {
    let mut options = memory_options(network, endpoint);
    options.start_mode = StartMode::Rejoin;
    options.rejoined_after = after;
    RaftHost::start(options).expect("a host")
}

/// All hosts have lost their disks in turn; a group that was created since finds voters, one that may have lived there does not.
#[test]
fn a_group_is_new_on_a_rejoined_host_with_a_higher_number() {
    let network = Network::new();
    let endpoints = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"];
    let hosts = endpoints.map(|endpoint| rejoined(&network, endpoint, Some(5)));
    let new: Vec<Member> = hosts.iter().map(|host| begin(host, life(THREE, 6)).expect("new")).collect();
    write(&new, 3);
    converge(&new, 3);
    for host in &hosts {
        host.remove_group(&g(), 6).expect("removed");
    }
    let old: Vec<Node> = hosts
        .iter()
        .map(|host| {
            let name: GroupId = "old".parse().expect("a group");
            let server_id = host.endpoint().parse().expect("a peer id");
            let journal = Box::new(Journal(Default::default()));
            host.start_group(name, server_id, life(THREE, 5), journal).expect("started")
        })
        .collect();
    for node in &old {
        let described = node.describe(LIMIT).expect("described");
        assert!(!described.configuration.contains("127.0.0.1"), "it waits for a leader: {described}");
    }
    hosts.iter().for_each(RaftHost::shutdown);
}

/// Shows rule P13: a directory remembers its lives and removals over a restart; and many groups start and stop at once.
#[test]
fn many_groups_come_and_go_at_once_and_a_directory_remembers_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let endpoint = format!("127.0.0.1:{}", free_ports(1)[0]);
    let host = |mode| {
        let mut options = HostOptions::new(&endpoint, StoreOptions::segment(dir.path().join("data")));
        options.start_mode = mode;
        RaftHost::start(options).expect("a host")
    };
    let start = |n: u64, creation| GroupStart {
        group_id: format!("g{n}").parse().expect("a group"),
        server_id: endpoint.parse().expect("a peer id"),
        options: life(&endpoint, creation),
        state_machine: Box::new(Journal(Default::default())),
    };
    let ids: Vec<GroupId> = (0..50).map(|n| format!("g{n}").parse().expect("a group")).collect();
    let first = host(StartMode::Bootstrap);
    let started = first.start_groups((0..50).map(|n| start(n, n)).chain([start(7, 7)]).collect());
    assert!(matches!(started[50], Err(StartError::OneReplica { .. })), "{:?}", started[50]);
    for node in started.iter().take(50) {
        node.as_ref().expect("started").propose("x").wait(LIMIT).expect("written");
    }
    assert_eq!(first.stop_groups(&ids[..10]).expect("stopped"), 10);
    for id in &ids[..5] {
        assert!(first.remove_group(id, 0).expect("removed"));
    }
    first.shutdown();
    let second = host(StartMode::Existing);
    let stored = second.stored_groups().expect("the store answers");
    assert_eq!(stored.iter().filter(|stored| stored.key.is_some()).count(), 45);
    assert_eq!(stored.iter().filter(|stored| stored.key.is_none()).count(), 5);
    assert_eq!(stored.last().map(|stored| stored.creation), Some(4));
    let started = second.start_groups((0..50).map(|n| start(n, 0)).collect());
    assert!(started[..5].iter().all(|node| matches!(node, Err(StartError::OtherLife { .. }))));
    assert!(started[5..].iter().all(|node| node.as_ref().is_ok_and(|node| node.last_log_index() > 0)));
    let again = second.start_groups((0..5).map(|n| start(n, 100)).collect());
    for node in again {
        node.expect("a later life").propose("y").wait(LIMIT).expect("written");
    }
    second.shutdown();
}

/// Flips a bit of the entry that holds these bytes, in whatever file of the store it stands.
fn spoil(dir: &std::path::Path, needle: &[u8]) {
    for file in std::fs::read_dir(dir).expect("a directory") {
        let path = file.expect("a file").path();
        let mut bytes = std::fs::read(&path).expect("readable");
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[at] ^= 1;
            return std::fs::write(&path, bytes).expect("writable");
        }
    }
    panic!("no file holds it");
}

/// Shows rule P7: a damaged log fails its group, which says so and takes no part; dropped, it comes back, and nobody beside it notices.
#[test]
fn a_damaged_group_takes_no_part_until_its_log_is_dropped() {
    let (network, dir) = (Network::new(), tempfile::tempdir().expect("a directory"));
    let conf: Configuration = THREE.parse().expect("a configuration");
    let data = |endpoint: &str| dir.path().join(endpoint.replace(':', "_"));
    let host = |endpoint: &str, mode| {
        let mut options = memory_options(&network, endpoint);
        options.store = StoreOptions::segment(data(endpoint));
        options.start_mode = mode;
        RaftHost::start(options).expect("a host")
    };
    let neighbour = |host: &RaftHost| {
        let server_id = host.endpoint().parse().expect("a peer id");
        let journal = Box::new(Journal(Default::default()));
        host.start_group("h".parse().expect("a group"), server_id, quick(&conf), journal).expect("started")
    };
    let mut members: Vec<Member> = conf
        .peers
        .iter()
        .map(|peer| begin(&host(&peer.endpoint(), StartMode::Bootstrap), quick(&conf)).expect("started"))
        .collect();
    let neighbours: Vec<Node> = members.iter().map(|member| neighbour(&member.host)).collect();
    let needle = b"a command that is found on the disk";
    eventually("written", || leader_of(&members).node.propose(needle.to_vec()).wait(LIMIT).ok());
    write(&members, 20);
    converge(&members, 21);
    eventually("the neighbour serves", || neighbours.iter().find(|node| node.is_leader()).map(drop));

    let lost = members.iter().position(|member| !member.node.is_leader()).expect("a follower");
    let gone = members.remove(lost);
    let endpoint = gone.host.endpoint().to_owned();
    gone.host.shutdown();
    drop((gone, neighbours));
    spoil(&data(&endpoint), needle);
    let again = host(&endpoint, StartMode::Existing);
    let damaged = begin(&again, quick(&conf)).expect("it is there, to be looked at");
    let beside = neighbour(&again);
    let described = damaged.node.describe(LIMIT).expect("described");
    let error = described.last_error.clone().expect("it says why").message;
    assert_eq!(described.state, ringraft::NodeState::Error);
    assert!(error.contains("cannot be read back") && error.contains("rejoin"), "{error}");
    write(&members, 5);
    assert_eq!((damaged.node.state(), damaged.node.term()), (ringraft::NodeState::Error, described.term));
    eventually("the neighbour follows", || beside.leader_id());

    assert!(again.rejoin_group(&g(), 0).expect("dropped"));
    assert!(!again.rejoin_group(&"unknown".parse().expect("a group"), 0).expect("nothing to drop"));
    members.push(begin(&again, quick(&conf)).expect("started"));
    assert!(members[2].node.describe(LIMIT).expect("described").rejoining, "it begins without a vote");
    write(&members, 5);
    converge(&members, 31);
    eventually("it counts again", || {
        (!members[2].node.describe(LIMIT).expect("described").rejoining).then_some(())
    });
    // Without another member it is needed for every majority.
    let spare =
        members.iter().position(|member| !member.node.is_leader() && member.host.endpoint() != endpoint);
    members.remove(spare.expect("another follower")).host.shutdown();
    write(&members, 5);
    members.iter().for_each(|member| member.host.shutdown());
}
