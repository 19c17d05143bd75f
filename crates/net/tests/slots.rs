//! Slots for connections: strangers cannot use them up for those who need them.

mod harness;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use harness::raw::*;
use harness::*;
use ringraft_net::{ConnectionClass, NetLoopOptions};
use ringraft_proto::encode_heartbeat;

#[test]
fn who_is_in_use_does_not_give_way() {
    let options = NetLoopOptions { max_inbound_connections: 2, ..quick() };
    let mut host = Tcp::new().host(options);
    let (mut first, mut second) = (joined(&mut host), joined(&mut host));
    let unanswered = asked(&mut host, &mut first, 1);
    asked(&mut host, &mut second, 2);
    let mut third = raw(&host);
    until_closed(&mut host, &mut third);
    assert_eq!((host.metric("refused"), host.metric("evicted")), (1, 0));
    answered(&mut host, &mut first, unanswered);
    drop(second);
    drive(&mut [&mut host], "one leaves", |hosts| hosts[0].metric("inbound_connections") == 1);
    joined(&mut host);
    assert!(is_open(&mut first));
}

/// Shows rule X6: slots.
#[test]
fn silent_strangers_give_way_to_newcomers() {
    let options = NetLoopOptions { max_unproven_connections: 2, ..quick() };
    let mut host = Tcp::new().host(options);
    let mut served = joined(&mut host);
    asked(&mut host, &mut served, 1);
    // Who is served here does not count among them.
    let mut silent: Vec<TcpStream> = (0..5).map(|_| joined(&mut host)).collect();
    for stream in &mut silent[..3] {
        until_closed(&mut host, stream);
    }
    assert!(silent[3..].iter_mut().all(is_open) && is_open(&mut served));
    assert_eq!(host.metric("inbound_connections"), 3);
}

#[test]
fn heartbeats_and_requests_that_nobody_serves_earn_no_slot() {
    let options = NetLoopOptions { max_inbound_connections: 40, member_reserve: 0, ..quick() };
    let mut host = Tcp::new().host(options);
    host.seen.serves = |frame| frame.content != "nonsense";
    let mut flood: Vec<TcpStream> = (0..40).map(|_| joined(&mut host)).collect();
    for (n, stream) in flood.iter_mut().enumerate() {
        stream.write_all(&bytes_of(&encode_heartbeat(1))).unwrap();
        if n % 2 == 0 {
            stream.write_all(&bytes_of(&request(2, Bytes::from_static(b"nonsense")))).unwrap();
        }
    }
    drive(&mut [&mut host], "all are heard", |hosts| hosts[0].metric("frames_in") == 60);
    for id in 0..10 {
        let mut operator = joined(&mut host);
        let handle = asked(&mut host, &mut operator, id);
        answered(&mut host, &mut operator, handle);
        flood.push(operator);
    }
    assert_eq!(host.metric("refused"), 0);
    assert!(flood[40..].iter_mut().all(is_open), "those who were served stay");
}

#[test]
fn an_operator_gets_in_under_a_flood_of_silent_connections() {
    let options = NetLoopOptions { max_inbound_connections: 200, max_unproven_connections: 100, ..quick() };
    let mut host = Tcp::new().host(options);
    let mut flood: Vec<TcpStream> = Vec::new();
    for round in 0..20 {
        flood.extend((0..60).map(|_| raw(&host)));
        let mut operator = raw(&host);
        operator.write_all(&bytes_of(&request(round, Bytes::new()))).unwrap();
        flood.extend((0..10).map(|_| raw(&host)));
        drive(&mut [&mut host], "the operator is heard", |hosts| {
            hosts[0].seen.requests.len() == round as usize + 1
        });
        let handle = host.seen.requests[round as usize].0;
        answered(&mut host, &mut operator, handle);
    }
    assert_eq!(host.metric("refused"), 0);
    assert!(host.metric("inbound_connections") <= 200);
}

#[test]
fn one_address_has_a_cap_of_its_own() {
    let world = Inproc::new();
    let options = NetLoopOptions { max_connections_per_address: 2, ..quick() };
    let mut server = world.host(options);
    let mut greedy = world.host(quick());
    let links = [ConnectionClass::Log, ConnectionClass::Control]
        .map(|class| greedy.transport.link(&server.endpoint, class));
    drive(&mut [&mut greedy, &mut server], "two connections are up", |hosts| {
        hosts[0].seen.connected.len() == 2
    });
    for link in links {
        greedy.send(link, 1, Bytes::new()).unwrap();
        greedy.transport.flush(link);
    }
    drive(&mut [&mut greedy, &mut server], "both are in use", |hosts| hosts[1].seen.requests.len() == 2);
    greedy.transport.link(&server.endpoint, ConnectionClass::Bulk);
    drive(&mut [&mut greedy, &mut server], "the third is refused", |hosts| hosts[1].metric("refused") > 0);
    assert_eq!(server.metric("inbound_connections"), 2);
    let mut other = world.host(quick());
    other.transport.link(&server.endpoint, ConnectionClass::Log);
    drive(&mut [&mut other, &mut server], "another address is not affected", |hosts| {
        hosts[1].metric("inbound_connections") == 3
    });
}

#[test]
fn members_addresses_have_a_reserve() {
    let world = Inproc::new();
    let options = NetLoopOptions { max_inbound_connections: 8, ..quick() };
    let mut server = world.host(options);
    // Six busy strangers have all that strangers get; the seventh does not come in.
    let mut strangers: Vec<Host> = (0..7).map(|_| world.host(quick())).collect();
    for stranger in &mut strangers[..6] {
        let link = stranger.transport.link(&server.endpoint, ConnectionClass::Control);
        drive(&mut [stranger, &mut server], "it is up", |hosts| !hosts[0].seen.connected.is_empty());
        stranger.send(link, 1, Bytes::new()).unwrap();
        stranger.transport.flush(link);
        let before = server.seen.requests.len();
        drive(&mut [stranger, &mut server], "it is busy", |hosts| hosts[1].seen.requests.len() > before);
    }
    strangers[6].transport.link(&server.endpoint, ConnectionClass::Control);
    drive(&mut [&mut strangers[6], &mut server], "no more strangers", |hosts| hosts[1].metric("refused") > 0);
    strangers.pop();
    // A member, which is known because the server has a link to it.
    let mut member = world.host(quick());
    server.transport.link(&member.endpoint, ConnectionClass::Log);
    for class in [ConnectionClass::Log, ConnectionClass::Control, ConnectionClass::Bulk] {
        let before = server.metric("accepted");
        let link = member.transport.link(&server.endpoint, class);
        drive(&mut [&mut member, &mut server], "a member gets in", |hosts| {
            hosts[1].metric("accepted") > before
        });
        drive(&mut [&mut member, &mut server], "and is up", |hosts| {
            hosts[0].send(link, 2, Bytes::new()).is_ok()
        });
        member.transport.flush(link);
    }
    // The third one found all slots taken, and those of the strangers are not sacred.
    assert_eq!((server.metric("inbound_connections"), server.metric("evicted")), (8, 1));
}

#[test]
fn on_one_machine_members_are_told_apart_by_what_they_carry() {
    let options = NetLoopOptions { max_inbound_connections: 40, ..quick() };
    let mut host = Tcp::new().host(options);
    let peer = Tcp::new().host(quick());
    // A link makes the address of a member known, which is the address of everybody here.
    host.transport.link(&peer.endpoint, ConnectionClass::Log);
    let mut member = joined(&mut host);
    let handle = asked(&mut host, &mut member, 1);
    host.transport.member_spoke(handle, None, &mut || Some(peer.endpoint.clone()));
    answered(&mut host, &mut member, handle);
    // Served, busy, and as many as there are slots.
    let mut clients: Vec<TcpStream> = Vec::new();
    for id in 0..39 {
        let mut client = joined(&mut host);
        asked(&mut host, &mut client, id);
        clients.push(client);
    }
    // Then more than there are slots.
    let mut flood: Vec<TcpStream> = (0..60).map(|_| joined(&mut host)).collect();
    assert!(is_open(&mut member), "a member's connection outlives the flood");
    // Another connection of a member gets in, and what it asks is heard before it can be taken for one of the flood.
    let mut fresh = raw(&host);
    fresh.write_all(&bytes_of(&request(99, Bytes::new()))).unwrap();
    flood.extend((0..10).map(|_| raw(&host)));
    drive(&mut [&mut host], "it is heard", |hosts| {
        hosts[0].seen.requests.iter().any(|(handle, _)| handle.request == 99)
    });
    let handle = host.seen.requests.iter().find(|(handle, _)| handle.request == 99).unwrap().0;
    host.transport.member_spoke(handle, None, &mut || Some(peer.endpoint.clone()));
    answered(&mut host, &mut fresh, handle);
    flood.extend((0..60).map(|_| joined(&mut host)));
    assert!(is_open(&mut member) && is_open(&mut fresh));
    assert!(host.metric("inbound_connections") <= 40);
}

#[test]
fn the_cap_can_be_lowered_and_raised() {
    let options = NetLoopOptions { max_inbound_connections: 10, member_reserve: 0, ..quick() };
    let mut host = Tcp::new().host(options);
    let _silent: Vec<TcpStream> = (0..10).map(|_| joined(&mut host)).collect();
    host.transport.set_max_inbound_connections(4);
    let mut later: Vec<TcpStream> = Vec::new();
    while host.metric("inbound_connections") > 4 {
        later.push(joined(&mut host));
        assert!(later.len() <= 10, "each that comes makes more than its own room");
    }
    joined(&mut host);
    assert_eq!(host.metric("inbound_connections"), 4);
    // No further than the options say, and never to nothing.
    host.transport.set_max_inbound_connections(1000);
    later.extend((0..20).map(|_| joined(&mut host)));
    assert_eq!(host.metric("inbound_connections"), 10);
    host.transport.set_max_inbound_connections(0);
    let mut one = joined(&mut host);
    let handle = asked(&mut host, &mut one, 1);
    answered(&mut host, &mut one, handle);
}

#[test]
fn connections_that_came_and_went_leave_nothing_behind() {
    let options = NetLoopOptions { max_unproven_connections: 10, ..quick() };
    let mut host = Tcp::new().host(options);
    for _ in 0..2000 {
        joined(&mut host);
    }
    drive(&mut [&mut host], "all are gone", |hosts| hosts[0].metric("inbound_connections") == 0);
    assert_eq!(host.metric("held_bytes"), 0);
}

const CHILD: &str = "RINGRAFT_NET_TEST_FEW_DESCRIPTORS";

/// Runs in a process of its own that has few descriptors: answers every request until its input ends.
fn serve_with_few_descriptors() {
    let mut host = Tcp::new().host(quick());
    println!("listening at {}", host.endpoint);
    let end = std::thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let mut answered = 0;
    while !end.is_finished() {
        host.turn(Duration::from_millis(5));
        while let Some((handle, _)) = host.seen.requests.get(answered) {
            answered += 1;
            host.transport.reply(*handle, response(*handle, Bytes::new())).unwrap();
            host.transport.flush_reply(*handle);
        }
    }
}

/// Silent connections take every descriptor that a process has: whoever asks something is heard all the same.
#[test]
fn without_descriptors_the_silent_make_room() {
    if std::env::var_os(CHILD).is_some() {
        return serve_with_few_descriptors();
    }
    let this = std::env::current_exe().unwrap();
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\""])
        .arg(this)
        .args(["--exact", "without_descriptors_the_silent_make_room", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let endpoint = lines
        .find_map(|line| line.unwrap().split_once("listening at ").map(|(_, at)| at.trim().to_owned()))
        .unwrap();
    let mut silent: Vec<TcpStream> = Vec::new();
    for id in 0..5 {
        silent.extend((0..100).map(|_| TcpStream::connect(&endpoint).unwrap()));
        let mut operator = TcpStream::connect(&endpoint).unwrap();
        operator.set_read_timeout(Some(PATIENCE)).unwrap();
        operator.write_all(&bytes_of(&request(id, Bytes::new()))).unwrap();
        let mut answer = vec![0; 20 + CLASS.len()];
        operator.read_exact(&mut answer).unwrap();
        assert_eq!(answer[5..9], id.to_be_bytes());
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
