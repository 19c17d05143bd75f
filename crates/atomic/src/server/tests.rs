use std::time::Duration;

use ringraft::inproc::Network;
use ringraft::{RpcClient, RpcClientOptions, StoreOptions, TransportOptions};

use super::*;

/// A host that serves requests while none of its groups has started.
#[test]
fn a_starting_server_says_that_it_is_starting() {
    let network = Network::new();
    let mut options = HostOptions::new("127.0.0.1:1", StoreOptions::Memory);
    options.start_mode = StartMode::Bootstrap;
    options.transport = TransportOptions::Inproc(network.clone());
    let ranges = Ranges::cut(0, i64::MAX, 1).unwrap();
    let served = Arc::new(Served::new("127.0.0.1:1".to_owned(), ranges));
    served.register(&mut options);
    let host = RaftHost::start(options).unwrap();
    let client =
        RpcClient::inproc(RpcClientOptions { connect_timeout_ms: 10_000 }, &network, "client").unwrap();
    let ask = |class: &str, message: Vec<u8>| {
        client.call("127.0.0.1:1", class, message.into(), Duration::from_secs(60)).unwrap().content
    };
    let get = proto::GetRequest { key: "k".to_owned(), ..Default::default() };
    let answer = ask(class::ATOMIC_GET_REQUEST, get.write_to_bytes().unwrap());
    let kind = ReplyKind::Value;
    let failure = reply::decode(kind, kind.class().as_bytes(), &answer).unwrap().unwrap_err();
    assert!(failure.status.message.contains("the server is starting"), "{failure:?}");
    let answer = ask(class::ATOMIC_GET_SLOTS_REQUEST, Vec::new());
    let slots = proto::SlotsResponse::parse_from_bytes(&answer).unwrap();
    assert!(!slots.success && slots.error.contains("the server is starting"), "{slots:?}");
    assert_eq!(slots.error_code, RaftError::Again.code());
    let answer = ask(class::ATOMIC_DESCRIBE_REQUEST, Vec::new());
    let refused = ServerDescription::decode(&answer).unwrap_err();
    assert!(refused.contains("the server is starting"), "{refused}");
    client.shutdown();
    host.shutdown();
}
