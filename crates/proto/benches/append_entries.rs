//! Cost of an entry in AppendEntriesRequest: by hand beside the generated code, in the same run.
//!
//! `cargo bench -p ringraft-proto` prints nanoseconds an entry, the best of several rounds.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ringraft_core::{AppendEntriesRequest, AppendKind, ChunkBuilder, Extensions, LogId};
use ringraft_proto::generated::rpc;
use ringraft_proto::protobuf::Message;
use ringraft_proto::{
    Envelope, Frame, FrameDecoder, FrameLimits, RequestFrame, decode_append_entries, encode_append_entries,
};

const PAYLOAD: usize = 16;

fn request(entries: usize) -> AppendEntriesRequest {
    let mut builder = ChunkBuilder::new();
    (0..entries).for_each(|i| builder.push(&[i as u8; PAYLOAD]));
    let chunk = builder.take(1001, 3).expect("there are entries");
    AppendEntriesRequest {
        kind: AppendKind::Entries,
        term: 3,
        prev_log: LogId::new(1000, 3),
        committed_index: 990,
        entries: vec![Arc::new(chunk)],
        extensions: Extensions::CONFLICT_HINT,
        rejoined: 0,
        promise_wanted: 0,
    }
}

fn envelope() -> Envelope<'static> {
    let own = Envelope::new("atomic_0", "127.0.0.1:8081", "127.0.0.1:8082");
    Envelope { cluster_id: "0123456789abcdef0123456789abcdef", ..own }
}

fn received(request: &AppendEntriesRequest) -> RequestFrame {
    let frame = encode_append_entries(1, &envelope(), 5000, request);
    let mut buf = BytesMut::from(&frame.parts.concat()[..]);
    match FrameDecoder::new(FrameLimits::default()).decode(&mut buf) {
        Ok(Some(Frame::Request(frame))) => frame,
        other => panic!("{other:?}"),
    }
}

/// Nanoseconds an entry of `work`, best of 12 rounds of 40 ms; one round when only trying that it runs.
fn measure(entries: usize, mut work: impl FnMut()) -> f64 {
    let rounds = if std::env::args().any(|arg| arg == "--bench") { 12 } else { 1 };
    let mut best = f64::MAX;
    for _ in 0..rounds {
        let (start, mut rounds) = (Instant::now(), 0_u32);
        while start.elapsed() < Duration::from_millis(40) {
            (0..16).for_each(|_| work());
            rounds += 16;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(rounds) / entries as f64);
    }
    best
}

fn main() {
    println!("ns an entry of {PAYLOAD} B       encode  generated     decode  generated");
    for entries in [1, 64, 1024] {
        let request = request(entries);
        let frame = received(&request);
        let message =
            rpc::AppendEntriesRequest::parse_from_tokio_bytes(&frame.content).expect("it was encoded");
        let content: Bytes = frame.content.clone();
        let encode = measure(entries, || {
            let frame = encode_append_entries(1, &envelope(), 5000, black_box(&request));
            black_box(frame);
        });
        let generated_encode = measure(entries, || {
            black_box(black_box(&message).write_to_bytes().expect("it is complete"));
        });
        let decode = measure(entries, || {
            black_box(decode_append_entries(black_box(&frame)).expect("it was encoded"));
        });
        let generated_decode = measure(entries, || {
            let message = rpc::AppendEntriesRequest::parse_from_tokio_bytes(black_box(&content));
            black_box(message.expect("it was encoded"));
        });
        println!(
            "{entries:>5} entries a request {encode:>12.2} {generated_encode:>10.2} {decode:>10.2} {generated_decode:>10.2}"
        );
    }
}
