use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ringraft::inproc::Network;
use ringraft::{
    RaftError, RaftHost, Responder, RpcClient, RpcClientOptions, RpcError, StartMode, Status, StoreOptions,
    UserRequest,
};

use crate::restart::free_ports;
use crate::support::{Cluster, LIMIT, memory_options};

fn tcp_host() -> RaftHost {
    let endpoint = format!("127.0.0.1:{}", free_ports(1)[0]);
    let mut options = ringraft::HostOptions::new(endpoint, StoreOptions::Memory);
    options.start_mode = StartMode::Bootstrap;
    RaftHost::start(options).expect("starts")
}

#[test]
fn users_requests_are_answered_once_whatever_happens() {
    let host = tcp_host();
    let kept: Arc<Mutex<Vec<Responder>>> = Arc::default();
    let keep = kept.clone();
    let handle = move |request: UserRequest, responder: Responder| match &request.content[..] {
        b"echo" => responder.respond("test.Answer", request.content),
        b"fail" => responder.fail(Status::new(RaftError::Again, "not now")),
        b"drop" => drop(responder),
        b"panic" => panic!("as asked"),
        b"later" => {
            std::thread::spawn(move || responder.respond("test.Answer", "from another thread"));
        }
        _ => keep.lock().push(responder),
    };
    host.register_user_processor("test.Request", Arc::new(handle));
    let client = RpcClient::new(RpcClientOptions::default()).expect("starts");
    let call = |content: &'static str, timeout| {
        client.call(host.endpoint(), "test.Request", Bytes::from_static(content.as_bytes()), timeout)
    };
    let answer = call("echo", LIMIT).expect("answered");
    assert_eq!((&answer.class[..], &answer.content[..]), (&b"test.Answer"[..], &b"echo"[..]));
    assert_eq!(call("later", LIMIT).expect("answered").content, "from another thread");
    let remote = |result: Result<_, RpcError>| match result {
        Err(RpcError::Remote { status, .. }) => status,
        other => panic!("{other:?}"),
    };
    assert_eq!(remote(call("fail", LIMIT)), Status::new(RaftError::Again, "not now"));
    assert_eq!(remote(call("drop", LIMIT)).error, RaftError::Internal);
    assert_eq!(remote(call("panic", LIMIT)).error, RaftError::Internal);
    let unknown = remote(client.call(host.endpoint(), "test.Unknown", Bytes::new(), LIMIT));
    assert!(
        unknown.message.contains("test.Unknown") && unknown.message.contains("nobody serves"),
        "{unknown}"
    );
    let silent = call("keep", Duration::from_millis(50));
    assert!(matches!(&silent, Err(error @ RpcError::TimedOut { .. }) if !error.was_not_sent()), "{silent:?}");
    assert_eq!(kept.lock().len(), 1);
    host.shutdown();
    kept.lock().clear(); // answers into the void
    client.shutdown();
    assert_eq!(call("echo", LIMIT), Err(RpcError::Closed));
}

#[test]
fn nobody_there_is_not_sent() {
    let client = RpcClient::new(RpcClientOptions { connect_timeout_ms: 50 }).expect("starts");
    let endpoint = format!("127.0.0.1:{}", free_ports(1)[0]);
    let error = client.call(&endpoint, "test.Request", Bytes::new(), LIMIT).unwrap_err();
    assert!(matches!(error, RpcError::NotConnected { .. }), "{error}");
    assert!(error.was_not_sent());
}

#[test]
fn calls_that_wait_end_with_the_client() {
    let host = tcp_host();
    let kept: Arc<Mutex<Vec<Responder>>> = Arc::default();
    let keep = kept.clone();
    let handle = move |_: UserRequest, responder| keep.lock().push(responder);
    host.register_user_processor("test.Request", Arc::new(handle));
    let client = RpcClient::new(RpcClientOptions::default()).expect("starts");
    let (sender, outcome) = std::sync::mpsc::channel();
    client.call_async(host.endpoint(), "test.Request", Bytes::new(), LIMIT, move |result| {
        sender.send(result).expect("the test waits");
    });
    crate::support::eventually("the request is there", || (kept.lock().len() == 1).then_some(()));
    client.shutdown();
    assert!(matches!(outcome.recv_timeout(LIMIT), Ok(Err(RpcError::Lost { .. }))));
    host.shutdown();
}

#[test]
fn everybody_names_the_leader() {
    use ringraft_proto::generated::cli::{GetLeaderRequest, GetLeaderResponse};
    use ringraft_proto::protobuf::Message;

    let network = Network::new();
    let cluster = Cluster::in_memory(&network, |_, _| {});
    let leader = cluster.leader().node.server_id().to_string();
    let client = RpcClient::inproc(RpcClientOptions::default(), &network, "client").expect("starts");
    let ask = |endpoint: &str, group: &str| {
        let mut request = GetLeaderRequest::new();
        request.set_group_id(group.to_owned());
        let content = Bytes::from(request.write_to_bytes().expect("encodes"));
        client.call(endpoint, ringraft_proto::class::GET_LEADER_REQUEST, content, LIMIT)
    };
    for member in &cluster.members {
        crate::support::eventually("knows the leader", || member.node.leader_id());
        let answer = ask(member.host.endpoint(), "g").expect("answered");
        let response = GetLeaderResponse::parse_from_bytes(&answer.content).expect("parses");
        assert_eq!(response.leader_id(), leader);
    }
    let unknown = ask(cluster.members[0].host.endpoint(), "nobody").unwrap_err();
    assert!(
        matches!(&unknown, RpcError::Remote { status, .. } if status.error == RaftError::NotFound),
        "{unknown}"
    );
    cluster.shutdown();
    let lonely = RaftHost::start(memory_options(&network, "127.0.0.1:9")).expect("starts");
    let none = ask("127.0.0.1:9", "g").unwrap_err();
    assert!(
        matches!(&none, RpcError::Remote { status, .. } if status.message == "Empty nodes in group g"),
        "{none}"
    );
    lonely.shutdown();
}

/// Requests that take long are handled beside the groups: here they take for ever, and entries are committed all the same, on the one
/// thread that owns the groups and drives the network.
#[test]
fn commits_go_on_while_requests_on_the_worker_stand_still() {
    let endpoint = format!("127.0.0.1:{}", free_ports(1)[0]);
    let mut options = ringraft::HostOptions::new(&*endpoint, StoreOptions::Memory);
    options.start_mode = StartMode::Bootstrap;
    (options.lanes, options.fuse_net) = (1, true);
    let member =
        crate::support::start_member(options, crate::support::quick(&endpoint.parse().expect("one peer")));
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Mutex::new(released);
    let stuck = move |request: UserRequest, responder: Responder| {
        let _ = released.lock().recv();
        responder.respond("test.Answer", request.content);
    };
    member.host.register_user_processor_on_worker("test.Wide", Arc::new(stuck)).expect("starts");
    let write =
        |request: UserRequest, responder: Responder| responder.respond("test.Answer", request.content);
    member.host.register_user_processor("test.Write", Arc::new(write));
    assert!(member.host.threads().contains(&"rr-user".to_owned()));
    let flood: Vec<RpcClient> =
        (0..4).map(|_| RpcClient::new(RpcClientOptions::default()).expect("starts")).collect();
    let (sender, answers) = std::sync::mpsc::channel();
    for client in &flood {
        // More than waits there, so that the connection stands still as well.
        for _ in 0..20 {
            let sender = sender.clone();
            client.call_async(&endpoint, "test.Wide", Bytes::from_static(b"x"), LIMIT * 2, move |result| {
                let _ = sender.send(result);
            });
        }
    }
    crate::support::write(std::slice::from_ref(&member), 50);
    // Whoever asks something else on another connection is heard.
    let client = RpcClient::new(RpcClientOptions::default()).expect("starts");
    client.call(&endpoint, "test.Write", Bytes::new(), LIMIT).expect("answered");
    crate::support::write(std::slice::from_ref(&member), 50);
    assert!(answers.try_recv().is_err(), "the worker stands still");
    for _ in 0..80 {
        let _ = release.send(());
        answers.recv_timeout(LIMIT).expect("answered").expect("and well");
    }
    member.host.shutdown();
}
