//! Links are given up when nobody answers, and come back when somebody does.

mod harness;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use harness::*;
use ringraft_net::{ConnectionClass, Endpoint, NetLoopOptions};

const LONG: Duration = Duration::from_secs(3600);

/// Silence is noticed within milliseconds.
fn impatient() -> NetLoopOptions {
    NetLoopOptions {
        silence_probe: Duration::from_millis(5),
        heartbeat_ack_timeout: Duration::from_millis(5),
        heartbeat_interval: LONG,
        inbound_idle_limit: LONG,
        ..quick()
    }
}

/// An address where connections are forwarded to a host, until they are swallowed: accepted, read and never answered.
struct Proxy {
    endpoint: Endpoint,
    swallows: Arc<AtomicBool>,
}

impl Proxy {
    fn before(host: &Host) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint(listener.local_addr().unwrap().to_string().into());
        let swallows = Arc::<AtomicBool>::default();
        let (to, flag) = (host.endpoint.0.to_string(), swallows.clone());
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let Ok(near) = near else { return };
                let far = TcpStream::connect(&to).unwrap();
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let flag = flag.clone();
                    std::thread::spawn(move || pump(from, to, &flag));
                }
            }
        });
        Proxy { endpoint, swallows }
    }

    fn swallow(&self, on: bool) {
        self.swallows.store(on, Ordering::Release);
    }
}

/// Forwards until an end closes. What arrives while it swallows is lost, and with it the sense of everything behind it.
fn pump(mut from: TcpStream, mut to: TcpStream, swallows: &AtomicBool) {
    let mut dead = false;
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        dead |= swallows.load(Ordering::Acquire);
        if !dead && to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    if !dead {
        let _ = to.shutdown(std::net::Shutdown::Both);
    }
}

fn answer_all(host: &mut Host, answered: &mut usize) {
    while let Some((handle, _)) = host.seen.requests.get(*answered) {
        *answered += 1;
        // Its connection may be gone.
        let _ = host.transport.reply(*handle, response(*handle, Bytes::new()));
        host.transport.flush_reply(*handle);
    }
}

#[test]
fn a_link_whose_requests_are_swallowed_is_left_and_comes_back() {
    let mut server = Tcp::new().host(quick());
    let mut client = Tcp::new().host(impatient());
    let proxy = Proxy::before(&server);
    let link = client.transport.link(&proxy.endpoint, ConnectionClass::Log);
    client.transport.extensions_announced(&proxy.endpoint, true);
    drive(&mut [&mut client, &mut server], "the link comes up", |hosts| hosts[0].seen.connected.len() == 1);
    let mut count = 0;
    client.send(link, 1, Bytes::new()).unwrap();
    client.transport.flush(link);
    drive(&mut [&mut client, &mut server], "a request is answered", |hosts| {
        answer_all(hosts[1], &mut count);
        hosts[0].tickets() == [1]
    });
    proxy.swallow(true);
    client.send(link, 2, Bytes::new()).unwrap();
    client.transport.flush(link);
    drive(&mut [&mut client, &mut server], "it is given up", |hosts| hosts[0].seen.failed.len() == 1);
    assert_eq!(client.seen.failed[0].0.ticket, 2);
    // It comes up again and is as silent: it is given up again, whether or not anybody asks anything.
    drive(&mut [&mut client, &mut server], "attempts go on", |hosts| hosts[0].seen.connected.len() > 3);
    proxy.swallow(false);
    let mut ticket = 2;
    drive(&mut [&mut client, &mut server], "a request is answered again", |hosts| {
        answer_all(hosts[1], &mut count);
        ticket += 1;
        let _ = hosts[0].send(link, ticket, Bytes::new());
        hosts[0].transport.flush(link);
        hosts[0].tickets().len() > 1
    });
}

fn only_peers_with_extensions_are_left<W: World>() {
    let world = W::new();
    let (mut client, server, link) =
        linked(&world, NetLoopOptions { heartbeat_interval: Duration::from_millis(5), ..impatient() });
    client.send(link, 1, Bytes::new()).unwrap();
    client.transport.flush(link);
    // The server is not driven any more. For all that is known it is a Java node.
    drive(&mut [&mut client], "many heartbeats go unanswered", |hosts| {
        hosts[0].metric("heartbeats_sent") > 20
    });
    assert_eq!((client.metric("closed"), client.seen.failed.len()), (0, 0));
    client.transport.extensions_announced(&server.endpoint, true);
    drive(&mut [&mut client], "the link breaks", |hosts| !hosts[0].seen.failed.is_empty());
    assert_eq!(client.seen.failed[0].0.ticket, 1);
}

#[test]
fn only_peers_with_extensions_are_left_over_tcp() {
    only_peers_with_extensions_are_left::<Tcp>();
}

#[test]
fn only_peers_with_extensions_are_left_in_process() {
    only_peers_with_extensions_are_left::<Inproc>();
}

#[test]
fn a_host_that_is_heard_is_tried_at_once() {
    // Attempts are so rare that only what is heard can bring the link up.
    let rare = NetLoopOptions { reconnect_backoff_min: LONG, reconnect_backoff_max: LONG, ..quick() };
    let mut host = Tcp::new().host(rare);
    let endpoint = Tcp::new().nobody();
    host.transport.link(&endpoint, ConnectionClass::Log);
    drive(&mut [&mut host], "it cannot be reached", |hosts| hosts[0].metric("connect_failures") == 1);
    let mut peer = Tcp::new().host_at(&endpoint, quick());
    peer.transport.link(&host.endpoint, ConnectionClass::Control);
    drive(&mut [&mut host, &mut peer], "its first heartbeat is enough", |hosts| {
        !hosts[0].seen.connected.is_empty()
    });
}

#[test]
fn a_member_that_speaks_from_elsewhere_is_tried_at_once() {
    let rare = NetLoopOptions { reconnect_backoff_min: LONG, reconnect_backoff_max: LONG, ..quick() };
    let mut host = Tcp::new().host(rare);
    // Its name is not the address that it speaks from.
    let port = Tcp::new().nobody().0.rsplit(':').next().unwrap().to_owned();
    let (endpoint, address) = (Endpoint(format!("localhost:{port}").into()), format!("127.0.0.1:{port}"));
    host.transport.link(&endpoint, ConnectionClass::Log);
    drive(&mut [&mut host], "it cannot be reached", |hosts| hosts[0].metric("connect_failures") > 0);
    let mut peer = Tcp::new().host_at(&Endpoint(address.into()), quick());
    let link = peer.transport.link(&host.endpoint, ConnectionClass::Control);
    let mut spoke = 0;
    drive(&mut [&mut host, &mut peer], "the link comes up", |hosts| {
        if hosts[1].send(link, 1, Bytes::new()).is_ok() {
            hosts[1].transport.flush(link);
        }
        while let Some((handle, _)) = hosts[0].seen.requests.get(spoke) {
            spoke += 1;
            hosts[0].transport.member_spoke(*handle, Some(true), &mut || Some(endpoint.clone()));
        }
        !hosts[0].seen.connected.is_empty()
    });
}

const CHILD: &str = "RINGRAFT_NET_TEST_OWN_NETWORK";

fn set_loopback(state: &str) {
    let done = Command::new("ip").args(["link", "set", "lo", state]).status().unwrap();
    assert!(done.success(), "ip link set lo {state}");
}

/// Runs in a network of its own, whose only interface can be taken down.
fn lose_the_network() {
    set_loopback("up");
    let options = NetLoopOptions {
        peer_user_timeout: Duration::from_millis(300),
        foreign_user_timeout: LONG,
        heartbeat_interval: LONG,
        silence_probe: LONG,
        inbound_idle_limit: LONG,
        ..quick()
    };
    let mut client = Tcp::new().host(options.clone());
    let (mut server, mut java) = (Tcp::new().host(options.clone()), Tcp::new().host(options));
    let link = client.transport.link(&server.endpoint, ConnectionClass::Log);
    let to_java = client.transport.link(&java.endpoint, ConnectionClass::Log);
    drive(&mut [&mut client, &mut server, &mut java], "the links are up", |hosts| {
        hosts[0].seen.connected.len() == 2
    });
    drive(&mut [&mut client, &mut server, &mut java], "and have said so", |hosts| {
        hosts[0].metric("frames_in") == 2
    });
    client.transport.extensions_announced(&server.endpoint, true);
    set_loopback("down");
    for link in [link, to_java] {
        client.send(link, link.0.into(), Bytes::new()).unwrap();
        client.transport.flush(link);
    }
    drive(&mut [&mut client, &mut server, &mut java], "the system gives it up", |hosts| {
        !hosts[0].seen.failed.is_empty()
    });
    let failed: Vec<u64> = client.seen.failed.iter().map(|(context, _)| context.ticket).collect();
    assert_eq!(failed, [u64::from(link.0)], "only that of the peer with extensions");
    set_loopback("up");
    let mut count = 0;
    drive(&mut [&mut client, &mut server, &mut java], "a request is answered again", |hosts| {
        answer_all(hosts[1], &mut count);
        let _ = hosts[0].send(link, 9, Bytes::new());
        hosts[0].transport.flush(link);
        hosts[0].tickets().contains(&9)
    });
}

#[test]
fn what_the_system_finds_lost_is_left() {
    if std::env::var_os(CHILD).is_some() {
        return lose_the_network();
    }
    let possible = Command::new("unshare").args(["-n", "ip", "link", "show", "lo"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        println!("skipped: this needs the rights to make a network namespace, and `unshare` and `ip`");
        return;
    }
    let done = Command::new("unshare")
        .arg("-n")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "what_the_system_finds_lost_is_left", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .status()
        .unwrap();
    assert!(done.success());
}
