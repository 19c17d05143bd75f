//! Whose requests a host carries out, and what a member does that remembers nothing.

use std::sync::Arc;

use ringraft::inproc::Network;
use ringraft::{
    CliError, Configuration, GroupId, HostOptions, NodeOptions, PeerId, RaftError, RaftGroupService,
    RaftHost, StartMode, StoreOptions, derive_cluster_id,
};
use ringraft_core::{HardState, Vote};
use ringraft_storage::disk::MemoryDisk;
use ringraft_storage::{
    GroupKey, GroupOpening, LogReader, LogStorage, MemoryLogStorage, OpenedGroup, RefusedWrites, SegmentLog,
    SegmentLogOptions, StorageError, StoredGroup, WriteBatch,
};

use crate::cli_service::service;
use crate::restart::{free_ports, options};
use crate::support::{
    Cluster, Journal, LIMIT, Member, change, converge, eventually, leader_of, memory_options, quick,
    start_member, write,
};

const THREE: &str = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3";

fn peer(text: &str) -> PeerId {
    text.parse().expect("a peer id")
}

/// A host of a cluster, over an in-process network and a store in memory.
fn of_cluster(network: &Network, endpoint: &str, conf: &str) -> Member {
    let conf: Configuration = conf.parse().expect("a configuration");
    let mut host = memory_options(network, endpoint);
    host.initial_cluster_id = Some(derive_cluster_id(&host.cluster, "g", &conf));
    start_member(host, quick(&conf))
}

fn commands(member: &Member) -> Vec<Vec<u8>> {
    member.applied.entries.lock().iter().map(|(_, data)| data.clone()).collect()
}

/// Two clusters with one group name both have the third server among their members; it belongs to the second.
#[test]
fn two_clusters_that_name_one_server_do_not_merge() {
    let network = Network::new();
    let (first, second) = (THREE, "127.0.0.1:3,127.0.0.1:4,127.0.0.1:5");
    let of_second: Vec<Member> =
        ["127.0.0.1:3", "127.0.0.1:4", "127.0.0.1:5"].map(|e| of_cluster(&network, e, second)).into();
    write(&of_second, 5);
    let second_term = converge(&of_second, 5).len() as u64;
    assert_eq!(second_term, 5);
    let shared = &of_second[0];
    let (term, expected) = (shared.node.term(), commands(shared));

    // The first cluster has a majority without the server, writes much more, and its terms go beyond the other's.
    let mut of_first: Vec<Member> =
        ["127.0.0.1:1", "127.0.0.1:2"].map(|e| of_cluster(&network, e, first)).into();
    let id = |members: &[Member]| members[0].host.cluster_gate().id().map(str::to_owned);
    assert_ne!(id(&of_first), id(&of_second));
    write(&of_first, 30);
    while leader_of(&of_first).node.term() <= term + 2 {
        let leader = leader_of(&of_first);
        let other = of_first.iter().find(|m| m.node.server_id() != leader.node.server_id()).expect("two");
        // Refused while the other catches up.
        let _ = leader.node.transfer_leadership_to(Some(other.node.server_id().clone())).wait(LIMIT);
    }
    write(&of_first, 5);
    converge(&of_first, 35);

    let leader = leader_of(&of_first);
    let alive = leader.node.list_peers(LIMIT).expect("it leads");
    let alive: Vec<&PeerId> = alive.alive_peers().collect();
    assert!(!alive.contains(&&peer("127.0.0.1:3")), "it answers the first cluster nothing: {alive:?}");
    assert_eq!((shared.node.term(), commands(shared)), (term, expected.clone()), "nothing moved");
    write(&of_second, 3);
    let merged = converge(&of_second, 8);
    assert_eq!(merged.len(), 8);
    assert_eq!(merged[..5].iter().map(|(_, data)| data.clone()).collect::<Vec<_>>(), expected);

    // Who administers the first cluster does not reach into the second.
    let cli = service(&network);
    let only_shared: Configuration = "127.0.0.1:3".parse().expect("a configuration");
    let first_only = cli.in_cluster(&id(&of_first).expect("known"));
    let refusal = first_only.get_leader("g", &only_shared).unwrap_err();
    assert!(matches!(&refusal, CliError::Refused(s) if s.error == RaftError::WrongCluster), "{refusal}");
    let refusal = first_only.reset_peer("g", &peer("127.0.0.1:3"), &[peer("127.0.0.1:3")]).unwrap_err();
    assert_eq!(refusal.code(), Some(RaftError::WrongCluster), "{refusal}");
    cli.in_cluster(&id(&of_second).expect("known")).get_leader("g", &only_shared).expect("its own cluster");
    cli.get_leader("g", &only_shared).expect("who names no cluster asks whatever it is");

    of_first.drain(..).chain(of_second).for_each(|member| member.host.shutdown());
}

/// Without ids, as hosts of earlier programs, everything is accepted: a cluster can be upgraded server by server.
#[test]
fn hosts_with_and_without_an_id_form_a_cluster() {
    let network = Network::new();
    let mut members = vec![of_cluster(&network, "127.0.0.1:1", THREE)];
    let conf: Configuration = THREE.parse().expect("a configuration");
    for endpoint in ["127.0.0.1:2", "127.0.0.1:3"] {
        members.push(start_member(memory_options(&network, endpoint), quick(&conf)));
    }
    write(&members, 10);
    converge(&members, 10);
    // Whoever hears the one that knows as a leader knows, too.
    let knows = |member: &Member| member.host.cluster_gate().id().map(str::to_owned);
    let id = knows(&members[0]);
    eventually("all know", || {
        let leader = leader_of(&members);
        if leader.node.server_id() != members[0].node.server_id() {
            let _ = leader.node.transfer_leadership_to(Some(members[0].node.server_id().clone())).wait(LIMIT);
        }
        members.iter().all(|member| knows(member) == id).then_some(())
    });
    write(&members, 5);
    converge(&members, 15);
    members.iter().for_each(|member| member.host.shutdown());
}

#[test]
fn a_host_may_insist_that_requests_name_their_cluster() {
    let network = Network::new();
    let cluster = Cluster::in_memory(&network, |host, _| {
        host.initial_cluster_id = Some("ours".to_owned());
        host.require_cluster_id = true;
    });
    write(&cluster.members, 3);
    converge(&cluster.members, 3);
    let refusal = service(&network).get_leader("g", &cluster.conf).unwrap_err();
    assert_eq!(refusal.code(), Some(RaftError::WrongCluster), "{refusal}");
    service(&network).in_cluster("ours").get_leader("g", &cluster.conf).expect("named");
    cluster.shutdown();
}

/// A member that joins is told its cluster by the first leader, and remembers it.
#[test]
fn a_member_that_joins_learns_its_cluster_for_good() {
    let dir = tempfile::tempdir().expect("a directory");
    let endpoints: Vec<String> = free_ports(2).iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let conf: Configuration = endpoints[0].parse().expect("a configuration");
    let mut founder = options(dir.path(), &endpoints[0], StartMode::Bootstrap);
    founder.initial_cluster_id = Some("ours".to_owned());
    let start_joiner = |mode| {
        let joiner = options(dir.path(), &endpoints[1], mode);
        start_member(joiner, quick(&conf))
    };
    let mut members = vec![start_member(founder, quick(&conf)), start_joiner(StartMode::Rejoin)];
    assert_eq!(members[1].host.cluster_gate().id(), None);
    eventually("it is added", || change(&members, |node| node.add_peer(peer(&endpoints[1]))).ok());
    write(&members, 3);
    converge(&members, 3);
    assert_eq!(members[1].host.cluster_gate().id(), Some("ours"), "before it took anything of the leader's");
    members.remove(1).host.shutdown();
    let again = start_joiner(StartMode::Existing);
    assert_eq!(again.host.cluster_gate().id(), Some("ours"));
    members.push(again);
    converge(&members, 3);
    members.iter().for_each(|member| member.host.shutdown());
}

// --- members without memory, with bootstrap left in their unit file ---

fn asking(network: &Network, endpoint: &str, limit_ms: u64) -> HostOptions {
    let mut options = memory_options(network, endpoint);
    options.bootstrap_ask_ms = limit_ms;
    options
}

fn is_rejoining(member: &Member) -> bool {
    member.node.describe(LIMIT).expect("described").rejoining
}

/// Longer than any test may take: who waits for the limit where it need not does not pass.
const FOR_EVER: u64 = 600_000;

#[test]
fn members_that_are_all_new_found_their_group() {
    let network = Network::new();
    let conf: Configuration = THREE.parse().expect("a configuration");
    let start = |endpoint: String| {
        let (network, conf) = (network.clone(), conf.clone());
        std::thread::spawn(move || start_member(asking(&network, &endpoint, FOR_EVER), quick(&conf)))
    };
    let starting: Vec<_> = conf.peers.iter().map(|peer| start(peer.endpoint())).collect();
    let members: Vec<Member> = starting.into_iter().map(|thread| thread.join().expect("starts")).collect();
    write(&members, 5);
    converge(&members, 5);
    members.iter().for_each(|member| member.host.shutdown());
}

#[test]
fn a_first_member_that_comes_late_joins_without_a_vote() {
    let network = Network::new();
    let conf: Configuration = THREE.parse().expect("a configuration");
    let mut members: Vec<Member> = ["127.0.0.1:1", "127.0.0.1:2"]
        .map(|endpoint| start_member(asking(&network, endpoint, 1), quick(&conf)))
        .into();
    write(&members, 10);
    converge(&members, 10);
    members.push(start_member(asking(&network, "127.0.0.1:3", FOR_EVER), quick(&conf)));
    converge(&members, 10);
    write(&members, 5);
    eventually("it votes and counts", || (!is_rejoining(&members[2])).then_some(()));
    members.iter().for_each(|member| member.host.shutdown());
}

#[test]
fn a_member_that_is_cut_off_is_not_stopped() {
    let network = Network::new();
    let conf: Configuration = THREE.parse().expect("a configuration");
    let alone = start_member(asking(&network, "127.0.0.1:3", 50), quick(&conf));
    assert!(!is_rejoining(&alone));
    assert_eq!(alone.node.list_peers(LIMIT).map(drop).unwrap_err().error, RaftError::NotPermitted);
    alone.host.shutdown();
}

/// Three members, of which one loses its memory while `up` of the others run.
fn lost_memory(up: usize) -> (Network, Cluster, Member) {
    let network = Network::new();
    let mut cluster = Cluster::in_memory(&network, |_, _| {});
    write(&cluster.members, 10);
    converge(&cluster.members, 10);
    let lost = cluster.followers()[0].clone();
    cluster.lose(&lost);
    while cluster.members.len() > up {
        let other = cluster.members[0].node.server_id().clone();
        cluster.lose(&other);
    }
    let limit = if up == 0 { 50 } else { FOR_EVER };
    let blank = start_member(asking(&network, &lost.endpoint(), limit), quick(&cluster.conf));
    (network, cluster, blank)
}

/// Shows rule P12.
#[test]
fn a_member_that_has_lost_its_memory_is_told_so_by_two_by_one_and_by_nobody() {
    let (_network, mut cluster, blank) = lost_memory(2);
    cluster.members.push(blank);
    write(&cluster.members, 5);
    converge(&cluster.members, 15);
    eventually("it counts again", || cluster.members.last().filter(|member| !is_rejoining(member)).map(drop));
    cluster.shutdown();

    let (_network, cluster, blank) = lost_memory(1);
    assert!(is_rejoining(&blank), "one that was there is enough");
    cluster.shutdown();
    blank.host.shutdown();

    // A net and no proof: nobody is there to say it.
    let (_network, _, blank) = lost_memory(0);
    assert!(!is_rejoining(&blank));
    blank.host.shutdown();
}

/// A crash right after the start, when the peers are gone: the replica must not come back as a voter.
#[test]
fn that_a_vote_is_withheld_is_durable_before_the_replica_exists() {
    let network = Network::new();
    let conf: Configuration = THREE.parse().expect("a configuration");
    let others: Vec<Member> = ["127.0.0.1:1", "127.0.0.1:2"]
        .map(|endpoint| start_member(asking(&network, endpoint, 1), quick(&conf)))
        .into();
    write(&others, 3);
    let small = SegmentLogOptions { file_bytes: 1 << 20, background: false, ..SegmentLogOptions::default() };
    let disk = MemoryDisk::new();
    let log = SegmentLog::open(Arc::new(disk.clone()), small.clone()).expect("a log");
    let mut host = asking(&network, "127.0.0.1:3", FOR_EVER);
    host.store = StoreOptions::Custom { storage: Box::new(log), blank: true };
    host.max_task_bytes = 512 << 10;
    // So long a time-out that nothing but the start writes.
    let mut node: NodeOptions = quick(&conf);
    node.election_timeout_ms = 60_000;
    let member = start_member(host, node);
    let copy = disk.fork();
    copy.crash(7);
    let mut log = SegmentLog::open(Arc::new(copy), small).expect("a log");
    let (_, recovered) = log.open_group(&"g".parse().expect("a group")).expect("opened");
    let HardState { vote, .. } = recovered.hard_state;
    assert_eq!(vote, Vote::Withheld);
    member.host.shutdown();
    others.iter().for_each(|member| member.host.shutdown());
}

/// Many groups are asked for in one go; what came out is kept until they are started.
#[test]
fn many_groups_are_asked_for_at_once() {
    let network = Network::new();
    let mut cluster = Cluster::in_memory(&network, |_, _| {});
    write(&cluster.members, 5);
    converge(&cluster.members, 5);
    let lost = cluster.followers()[0].clone();
    cluster.lose(&lost);
    let blank = RaftHost::start(asking(&network, &lost.endpoint(), FOR_EVER)).expect("starts");
    let named = |name: String| (name.parse::<GroupId>().expect("a group"), cluster.conf.clone());
    let mut groups: Vec<_> = (0..5000).map(|n| named(format!("many{n}"))).collect();
    groups.push(named("g".to_owned()));
    blank.ask_peers(&groups).expect("asked");
    cluster.shutdown();
    // Nobody is there any more to be asked: a second question would wait for ever.
    let start = |group: &str| {
        let journal = Journal(Arc::default());
        let service = RaftGroupService::new(group, lost.clone(), quick(&cluster.conf), journal);
        service.start(&blank).expect("starts").describe(LIMIT).expect("described").rejoining
    };
    assert!(start("g") && !start("many7"));
    blank.shutdown();
}

/// A store that takes no writes of a group, as one does after an operation that broke its rules.
struct Refusing(MemoryLogStorage, Option<GroupKey>);

impl LogStorage for Refusing {
    fn open_groups(
        &mut self,
        groups: &[GroupOpening],
    ) -> Result<Vec<Result<OpenedGroup, StorageError>>, StorageError> {
        self.0.open_groups(groups)
    }

    fn remove_group(&mut self, group: GroupKey) -> Result<(), StorageError> {
        self.0.remove_group(group)
    }

    fn stored_groups(&self) -> Vec<StoredGroup> {
        self.0.stored_groups()
    }

    fn submit(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        self.1 = batch.writes.first().map(|write| write.group);
        Ok(())
    }

    fn complete(&mut self) -> Result<Vec<RefusedWrites>, StorageError> {
        let refuse =
            |group| RefusedWrites { group, reason: StorageError::Invalid { group, what: "as asked".into() } };
        Ok(self.1.take().map(refuse).into_iter().collect())
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.0.reader()
    }
}

#[test]
fn a_replica_whose_vote_cannot_be_withheld_does_not_start() {
    let (network, cluster, blank) = lost_memory(2);
    blank.host.shutdown();
    let mut options = asking(&network, blank.host.endpoint(), FOR_EVER);
    options.store =
        StoreOptions::Custom { storage: Box::new(Refusing(MemoryLogStorage::new(), None)), blank: true };
    let host = RaftHost::start(options).expect("starts");
    let service = RaftGroupService::new(
        "g",
        blank.node.server_id().clone(),
        quick(&cluster.conf),
        Journal(Arc::default()),
    );
    let error = service.start(&host).map(drop).unwrap_err().to_string();
    assert!(error.contains("as asked"), "{error}");
    assert!(host.store_error().is_none(), "it concerns the group alone");
    host.shutdown();
    cluster.shutdown();
}
