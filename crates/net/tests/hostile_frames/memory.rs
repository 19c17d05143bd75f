//! Memory that strangers can take: each kind has a bound for all of them together.

use super::*;

/// Pages of address space of this process.
#[cfg(target_os = "linux")]
fn address_space() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<usize>().unwrap() * 4096
}

/// Shows rule X3.
#[cfg(target_os = "linux")]
#[test]
fn stated_lengths_take_no_memory() {
    let mut host = Tcp::new().host(NetLoopOptions { first_frame_deadline: PATIENCE * 2, ..quick() });
    let before = address_space();
    let mut streams: Vec<TcpStream> = Vec::new();
    // 60 x 64 MiB are stated, a few bytes each are sent.
    for _ in 0..60 {
        let mut stream = joined(&mut host);
        stream.write_all(&head(5, 0, 64 << 20)).unwrap();
        stream.write_all(b"Class and a little more").unwrap();
        streams.push(stream);
    }
    let sent = 60 * (22 + 23);
    drive(&mut [&mut host], "all bytes arrive", |hosts| hosts[0].metric("bytes_in") == sent);
    let grown = address_space().saturating_sub(before);
    // Other tests of this process run beside this one, hence the room.
    assert!(grown < 1 << 30, "{grown} bytes more than before");
    assert_eq!(host.metric("inbound_connections"), 60);
}

#[test]
fn incomplete_frames_share_a_bound() {
    let options = NetLoopOptions { max_buffered_bytes: 100_000, ..quick() };
    let mut host = Tcp::new().host(options);
    let mut streams: Vec<TcpStream> = (0..5).map(|_| joined(&mut host)).collect();
    for stream in &mut streams {
        stream.write_all(&head(5, 0, 1 << 20)).unwrap();
        stream.write_all(&[b'x'; 30_000]).unwrap();
    }
    drive(&mut [&mut host], "some are closed", |hosts| hosts[0].metric("inbound_connections") == 3);
    // Their bytes are free again: another connection can send as much.
    drop(streams);
    drive(&mut [&mut host], "all are closed", |hosts| hosts[0].metric("inbound_connections") == 0);
    let mut stream = joined(&mut host);
    stream.write_all(&bytes_of(&request(1, pattern(1, 90_000)))).unwrap();
    drive(&mut [&mut host], "a large frame arrives", |hosts| hosts[0].seen.requests.len() == 1);
    stream.write_all(&bytes_of(&request(2, Bytes::new()))).unwrap();
    drive(&mut [&mut host], "and one after it", |hosts| hosts[0].seen.requests.len() == 2);
}

/// Shows rule X6: memory.
#[test]
fn whoever_holds_the_memory_pays_and_no_bystander() {
    let options = NetLoopOptions { max_buffered_bytes: 1_000_000, ..quick() };
    let mut host = Tcp::new().host(options);
    let mut innocent: Vec<TcpStream> = (0..30).map(|_| joined(&mut host)).collect();
    for stream in &mut innocent {
        stream.write_all(&bytes_of(&encode_heartbeat(1))).unwrap();
    }
    drive(&mut [&mut host], "all have said something", |hosts| hosts[0].metric("frames_in") == 30);
    let mut holders: Vec<TcpStream> = (0..4).map(|_| joined(&mut host)).collect();
    for stream in &mut holders {
        stream.write_all(&head(5, 0, 1 << 20)).unwrap();
        stream.write_all(&[b'x'; 230_000]).unwrap();
    }
    let begun = 4 * (22 + 230_000) + 30 * 22;
    drive(&mut [&mut host], "they hold most of it", |hosts| hosts[0].metric("bytes_in") == begun);
    // The next one goes beyond what is left, again and again, and the innocent go on talking meanwhile.
    let (mut rounds, mut floods) = (0, Vec::new());
    while holders.iter_mut().any(is_open) {
        rounds += 1;
        assert!(rounds < 100, "those who hold the memory keep it");
        let mut flood = joined(&mut host);
        flood.write_all(&head(5, 0, 1 << 20)).unwrap();
        let flood_sent = send_some(&mut flood, &[b'y'; 200_000]);
        let frames = host.metric("frames_in");
        for stream in &mut innocent {
            stream.write_all(&bytes_of(&encode_heartbeat(2))).unwrap();
        }
        let (before, sent) = (host.metric("evicted"), host.metric("bytes_in") + flood_sent as u64);
        drive(&mut [&mut host], "the heartbeats and the flood arrive", |hosts| {
            hosts[0].metric("frames_in") >= frames + 30
                && (hosts[0].metric("bytes_in") >= sent || hosts[0].metric("evicted") > before)
        });
        floods.push(flood);
    }
    for (n, stream) in innocent.iter_mut().enumerate() {
        assert!(is_open(stream), "the innocent {n} was closed");
    }
    assert!(host.metric("held_bytes") <= 1_000_000);
}

#[test]
fn fast_senders_stay_within_the_bound_as_well() {
    let limit = 300_000;
    let options = NetLoopOptions {
        max_buffered_bytes: limit,
        read_buffer_bytes: 4096,
        read_budget_bytes: 4096,
        ..quick()
    };
    let mut host = Tcp::new().host(options);
    let mut streams: Vec<TcpStream> = (0..8).map(|_| joined(&mut host)).collect();
    for stream in &mut streams {
        stream.write_all(&head(5, 0, 8 << 20)).unwrap();
        // More than a turn reads, so that no socket ever runs dry.
        assert!(send_some(stream, &[b'x'; 200_000]) > 100_000);
    }
    drive(&mut [&mut host], "somebody is closed for it", |hosts| {
        let held = hosts[0].metric("held_bytes");
        assert!(held <= limit as u64, "{held} bytes are held");
        hosts[0].metric("evicted") > 3
    });
    assert!(host.seen.requests.is_empty());
}

#[test]
fn whole_frames_that_nobody_takes_are_counted() {
    let options = NetLoopOptions { max_buffered_bytes: 1_000_000, ..quick() };
    let mut host = Tcp::new().host(options);
    host.seen.room = Some(0);
    let mut streams: Vec<TcpStream> = (0..10).map(|_| joined(&mut host)).collect();
    let threads: Vec<_> = streams
        .drain(..)
        .map(|mut stream| {
            let frame = bytes_of(&request(1, pattern(1, 300_000)));
            std::thread::spawn(move || {
                let _ = stream.write_all(&frame);
                stream
            })
        })
        .collect();
    drive(&mut [&mut host], "most are closed", |hosts| {
        assert!(hosts[0].metric("held_bytes") <= 1_000_000);
        hosts[0].metric("evicted") >= 7
    });
    host.seen.room = None;
    drive(&mut [&mut host], "the others are served", |hosts| !hosts[0].seen.requests.is_empty());
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn strangers_cannot_spend_the_memory_of_links() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = NetLoopOptions { max_buffered_bytes: 100_000, ..quick() };
    let mut host = Tcp::new().host(options);
    let endpoint = Endpoint(listener.local_addr().unwrap().to_string().into());
    let link = host.transport.link(&endpoint, ConnectionClass::Control);
    drive(&mut [&mut host], "the link comes up", |hosts| hosts[0].seen.connected.len() == 1);
    let (mut peer, _) = listener.accept().unwrap();
    host.send(link, 1, Bytes::new()).unwrap();
    host.transport.flush(link);
    let mut answer = [0; 22 + 22 + CLASS.len()];
    peer.read_exact(&mut answer).unwrap();
    let id = u32::from_be_bytes(answer[27..31].try_into().unwrap());
    let answer = bytes_of(&encode_response(id, 1, ResponseStatus::Success, CLASS, &[b'z'; 90_000]));
    peer.write_all(&answer[..80_000]).unwrap();
    drive(&mut [&mut host], "most of the answer is there", |hosts| hosts[0].metric("bytes_in") == 80_000);
    for _ in 0..5 {
        let mut stream = joined(&mut host);
        stream.write_all(&head(5, 0, 1 << 20)).unwrap();
        let _ = stream.write_all(&[b'x'; 120_000]);
        until_closed(&mut host, &mut stream);
    }
    peer.write_all(&answer[80_000..]).unwrap();
    drive(&mut [&mut host], "the answer is whole", |hosts| hosts[0].tickets() == [1]);
}

#[test]
fn unread_answers_of_all_together_are_bounded() {
    let options = NetLoopOptions { max_total_outbound_bytes: 1_000_000, ..quick() };
    let mut host = Tcp::new().host(options);
    let mut streams: Vec<TcpStream> = (0..4).map(|_| joined(&mut host)).collect();
    for (n, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&bytes_of(&request(n as u32, Bytes::new()))).unwrap();
        drive(&mut [&mut host], "the request arrives", |hosts| hosts[0].seen.requests.len() == n + 1);
    }
    let handles: Vec<_> = host.seen.requests.iter().map(|(handle, _)| *handle).collect();
    // Nothing is flushed, so that it waits as it does when the peer does not read.
    host.reply(handles[0], pattern(1, 100_000)).unwrap();
    host.reply(handles[1], pattern(2, 600_000)).unwrap();
    host.reply(handles[2], pattern(3, 500_000)).unwrap();
    host.reply(handles[3], pattern(4, 1000)).unwrap();
    until_closed(&mut host, &mut streams[1]);
    assert_eq!(host.metric("evicted"), 1, "one was enough");
    let expected = bytes_of(&response(handles[3], pattern(4, 1000)));
    host.transport.flush_reply(handles[3]);
    assert_eq!(receive(&mut host, &mut streams[3], expected.len()), expected);
    assert!(is_open(&mut streams[0]) && is_open(&mut streams[2]));
}
