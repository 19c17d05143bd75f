use std::net::TcpListener;

use ringraft::inproc::Network;
use ringraft::{
    HostOptions, HostOptionsError, NodeOptions, RaftGroupService, RaftHost, StartError, StartMode,
    StoreOptions,
};

use crate::restart::free_ports;
use crate::support::{Journal, memory_options, quick};

fn group(host: &RaftHost, name: &str, server: &str, options: NodeOptions) -> Result<(), StartError> {
    let server_id = server.parse().expect("peer");
    RaftGroupService::new(name, server_id, options, Journal(Default::default())).start(host).map(|_| ())
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let mut options = HostOptions::new(&address, StoreOptions::Memory);
    options.start_mode = StartMode::Bootstrap;
    let error = RaftHost::start(options).unwrap_err();
    assert!(matches!(&error, StartError::Listen { kind: std::io::ErrorKind::AddrInUse, .. }), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
}

#[test]
fn wrong_options_stop_a_host_before_it_starts() {
    let mut options = HostOptions::new("nowhere", StoreOptions::Memory);
    options.start_mode = StartMode::Bootstrap;
    assert!(matches!(RaftHost::start(options), Err(StartError::HostOptions(_))));
    let memory = HostOptions::new(format!("127.0.0.1:{}", free_ports(1)[0]), StoreOptions::Memory);
    assert!(matches!(RaftHost::start(memory), Err(StartError::BlankDirectory { .. })));
    let mut named = HostOptions::new("localhost:1", StoreOptions::Memory);
    named.start_mode = StartMode::Bootstrap;
    let name = |error: &StartError| matches!(error, StartError::HostOptions(HostOptionsError::Name(_)));
    assert!(RaftHost::start(named).is_err_and(|error| name(&error)), "a name is no address to listen at");
}

/// A first start that fails leaves no mark that refuses the next one.
#[test]
fn a_directory_is_not_claimed_by_a_host_that_cannot_listen() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let start = |endpoint: &str| {
        let mut options = HostOptions::new(endpoint, StoreOptions::segment(&data));
        options.start_mode = StartMode::Bootstrap;
        RaftHost::start(options)
    };
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    // A port of somebody else, an address of no machine (RFC 5737), a name, and any address.
    for endpoint in
        [taken.local_addr().expect("bound").to_string().as_str(), "192.0.2.1:1", "localhost:1", "0.0.0.0:1"]
    {
        let error = start(endpoint).unwrap_err();
        assert!(error.to_string().contains(endpoint), "{error}");
        assert!(!data.exists(), "{error} left something behind");
    }
    start(&format!("127.0.0.1:{}", free_ports(1)[0])).expect("the right endpoint").shutdown();
}

#[test]
fn groups_are_checked_before_they_start() {
    let network = Network::new();
    let host = RaftHost::start(memory_options(&network, "127.0.0.1:1")).expect("starts");
    let good = || quick(&"127.0.0.1:1".parse().expect("conf"));
    let wrong = NodeOptions { election_timeout_ms: 0, ..good() };
    assert!(matches!(group(&host, "g", "127.0.0.1:1", wrong), Err(StartError::Options { .. })));
    assert!(matches!(group(&host, "1 g", "127.0.0.1:1", good()), Err(StartError::GroupId(_))));
    let elsewhere = group(&host, "g", "127.0.0.1:2", good());
    assert!(matches!(elsewhere, Err(StartError::WrongEndpoint { .. })), "{elsewhere:?}");
    group(&host, "g", "127.0.0.1:1", good()).expect("starts");
    let twice = group(&host, "g", "127.0.0.1:1:1", good());
    assert!(matches!(twice, Err(StartError::OneReplica { .. })), "{twice:?}");
    host.shutdown();
    assert!(matches!(group(&host, "h", "127.0.0.1:1", good()), Err(StartError::HostStopped)));
}

#[test]
fn a_host_that_is_dropped_ends() {
    let network = Network::new();
    drop(RaftHost::start(memory_options(&network, "127.0.0.1:1")).expect("starts"));
    // Its name is free again: the loop is gone.
    drop(RaftHost::start(memory_options(&network, "127.0.0.1:1")).expect("starts again"));
}
