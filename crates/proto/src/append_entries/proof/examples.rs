//! Single messages: bytes as captured from Java, and what is refused with which words.

use super::*;

#[test]
fn the_captured_frame_is_encoded_byte_for_byte() {
    let golden = "0101000101000000320100001388003a00270000003e636f6d2e616c697061792e736f66612e6a726166742e7270632e527063\
        526571756573747324417070656e64456e7472696573526571756573740a03677270120f3132372e302e302e313a32383038321a0f\
        3132372e302e302e313a32383038310a03677270120f3132372e302e302e313a32383038321a0f3132372e302e302e313a32383038\
        312001280130013a0608011002200540014a0568656c6c6f";
    let hello = request(vec![chunk(2, &[b"hello"])]);
    let frame = encode_append_entries(0x32, &JAVA, 5000, &hello);
    assert_eq!(frame.parts.len(), 1, "a small payload is copied");
    let hex: String = frame.parts[0].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, golden);
}

#[test]
fn the_three_shapes_are_told_apart_by_data() {
    let ids = "0a03677270120f3132372e302e302e313a32383038321a0f3132372e302e302e313a3238303831";
    let shape = |kind, prev_log, committed_index, entries| {
        let request = AppendEntriesRequest { kind, prev_log, committed_index, ..request(entries) };
        let content = encode(&request).content;
        assert_eq!(decode_content(&content).unwrap().request, request);
        content.iter().map(|b| format!("{b:02x}")).collect::<String>().replace(ids, "")
    };
    assert_eq!(shape(AppendKind::Probe, LogId::default(), 0, vec![]), "20012800300040004a00");
    assert_eq!(shape(AppendKind::Heartbeat, LogId::new(1, 1), 1, vec![]), "2001280130014001");
    let conf = "127.0.0.1:28081,127.0.0.1:28082,127.0.0.1:28083".parse().unwrap();
    let conf = Arc::new(EntryChunk::configuration(LogId::new(1, 1), conf, Configuration::default()));
    let entries = shape(AppendKind::Entries, LogId::default(), 0, vec![conf]);
    let hex = |text: String| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let peers: String = (1..=3).map(|n| "1a0f".to_owned() + &hex(format!("127.0.0.1:2808{n}"))).collect();
    assert_eq!(entries, format!("2001280030003a3908011003{peers}20004000"));
    assert_eq!(
        shape(AppendKind::Entries, LogId::new(1, 1), 1, vec![chunk(2, &[b""])]),
        "2001280130013a060801100220004001"
    );
}

#[test]
fn large_payloads_are_shared_on_the_way_out_and_in() {
    let big = vec![7; 100_000];
    let chunks = vec![chunk(2, &[&big])];
    let frame = encode_append_entries(1, &JAVA, 5000, &request(chunks.clone()));
    assert_eq!(frame.parts.len(), 2);
    assert_eq!(frame.parts[1].as_ptr(), chunks[0].payload().as_ptr());
    let received = receive(&frame);
    let range = received.content.as_ptr_range();
    let decoded = decode_append_entries(&received).unwrap().request.entries;
    assert!(range.contains(&decoded[0].payload().as_ptr()), "a large payload shares the receive buffer");
    let small = receive(&encode_append_entries(1, &JAVA, 5000, &request(vec![chunk(2, &[b"hello"])])));
    let range = small.content.as_ptr_range();
    let decoded = decode_append_entries(&small).unwrap().request.entries;
    assert!(!range.contains(&decoded[0].payload().as_ptr()), "a small one does not pin it");
}

#[test]
fn the_extension_field_stands_before_the_payload() {
    let mut request = request(vec![chunk(2, &[b"hello"])]);
    request.extensions = Extensions::CONFLICT_HINT;
    let content = receive(&encode_append_entries(1, &JAVA, 5000, &request)).content;
    let crc = crc32c::crc32c(b"hello").to_le_bytes();
    let expected = [&[0xc0, 0x3e, 1, 0xdd, 0x3e][..], &crc, &[0x4a, 5], b"hello"].concat();
    assert!(content.ends_with(&expected), "{content:?}");
}

#[test]
fn a_payload_that_was_damaged_on_the_way_is_refused() {
    let large = vec![7; 100_000];
    for entries in [
        vec![chunk(2, &[b"hello", b"", b"world"])],
        vec![chunk(2, &[b"a"]), chunk(3, &[&large]), chunk(4, &[&large, b"z"]), chunk(6, &[b"end"])],
    ] {
        let request = AppendEntriesRequest { extensions: Extensions::CONFLICT_HINT, ..request(entries) };
        let frame = encode(&request);
        let len: usize = request.entries.iter().map(|chunk| chunk.payload().len()).sum();
        let payload_at = frame.content.len() - len;
        for at in [0, 1, len / 2, len - 1] {
            let mut content = frame.content.to_vec();
            content[payload_at + at] ^= 4;
            let refused = decode_content(&content.into()).map(|_| ()).unwrap_err();
            assert!(matches!(refused, DecodeError::DataChecksum { .. }), "{refused:?}");
        }
        // Once more over the same chunks, which know their checksums now: as to a second peer.
        assert_eq!(encode(&request).content, frame.content);
        let payload = |request: &AppendEntriesRequest| -> Vec<u8> {
            request.entries.iter().flat_map(|chunk| chunk.payload().to_vec()).collect()
        };
        assert_eq!(payload(&decode_append_entries(&frame).unwrap().request), payload(&request));
    }
}

#[test]
fn a_receiver_knows_the_checksum_that_it_has_checked() {
    let request = AppendEntriesRequest { extensions: Extensions(1), ..request(vec![chunk(2, &[b"hello"])]) };
    let decoded = decode_content(&encode(&request).content).unwrap().request.entries;
    assert_eq!(
        decoded[0].payload_crc(|_| unreachable!("it came with the request")),
        crc32c::crc32c(b"hello")
    );
}

#[test]
fn too_many_entries_are_refused() {
    let empty: Vec<&[u8]> = vec![b""; MAX_APPEND_ENTRIES];
    let full = generated(&request(vec![chunk(2, &empty)]));
    let decode = |message: &rpc::AppendEntriesRequest| {
        decode_content(&message.write_to_bytes().unwrap().into()).map(|i| i.request.entry_count())
    };
    assert_eq!(decode(&full), Ok(MAX_APPEND_ENTRIES));
    let mut over = full.clone();
    for _ in 0..20 {
        over.entries.push(full.entries[0].clone());
        assert_eq!(decode(&over), Err(DecodeError::TooManyEntries(MAX_APPEND_ENTRIES)));
    }
}

#[test]
fn peers_of_all_entries_together_are_bounded() {
    let decode = |entries: usize, peers: usize| {
        let mut message = generated(&request(vec![chunk(2, &[b""])]));
        message.entries[0].set_type(EntryType::ENTRY_TYPE_CONFIGURATION);
        message.entries[0].peers = (0..peers).map(|port| format!("h:{port}")).collect();
        message.entries = vec![message.entries[0].clone(); entries];
        decode_content(&message.write_to_bytes().unwrap().into()).map(|i| i.request.entry_count())
    };
    assert_eq!(decode(1024, 20), Ok(1024));
    assert_eq!(decode(257, 256), Err(DecodeError::TooManyPeers(65_536)));
}

#[test]
fn stated_lengths_cannot_overflow() {
    // 16,384 entries of almost 2 MiB each state 32 GiB.
    let mut message = generated(&request(vec![chunk(2, &[b"x"])]));
    message.entries[0].set_data_len((1 << 21) - 1);
    message.entries = vec![message.entries[0].clone(); MAX_APPEND_ENTRIES];
    let content = message.write_to_bytes().unwrap().into();
    let refused = decode_content(&content);
    assert!(
        matches!(refused, Err(DecodeError::PayloadLength { stated, .. }) if stated < 1 << 22),
        "{refused:?}"
    );
    message.entries[1].set_data_len(i64::MAX);
    let content = message.write_to_bytes().unwrap().into();
    assert!(matches!(decode_content(&content), Err(DecodeError::PayloadLength { .. })));
}

#[test]
fn refusals_say_what_is_wrong() {
    let base = generated(&request(vec![chunk(2, &[b"hello", b"x"])]));
    let refusal = |change: &dyn Fn(&mut rpc::AppendEntriesRequest)| {
        let mut message = base.clone();
        change(&mut message);
        decode_content(&message.write_to_bytes().unwrap().into()).unwrap_err()
    };
    assert_eq!(
        refusal(&|m| m.entries[1].set_data_len(2)),
        DecodeError::PayloadLength { stated: 7, received: 6 }
    );
    assert!(matches!(
        refusal(&|m| m.entries[1].set_data_len(-1)),
        DecodeError::Negative { field: "data_len", value: -1, .. }
    ));
    let mut fields = split(&base.write_to_bytes().unwrap());
    fields.retain(|field| field[0] != tag::COMMITTED_INDEX as u8);
    assert!(matches!(
        decode_content(&fields.concat().into()),
        Err(DecodeError::Missing { field: "committed_index", .. })
    ));
    assert!(matches!(refusal(&|m| m.set_term(0)), DecodeError::EntryTerm { term: 1, most: 0, .. }));
    assert!(matches!(
        refusal(&|m| m.entries[1].set_term(0)),
        DecodeError::EntryTerm { position: 1, term: 0, least: 1, .. }
    ));
    assert!(matches!(
        refusal(&|m| m.entries[0].peers.push("a:1".into())),
        DecodeError::Peers { position: 0, value: 2, peers: 1 }
    ));
    assert!(matches!(
        refusal(&|m| m.entries[1].set_type(EntryType::ENTRY_TYPE_CONFIGURATION)),
        DecodeError::Peers { position: 1, value: 3, peers: 0 }
    ));
    assert!(matches!(
        refusal(&|m| m.entries[1].set_type(EntryType::ENTRY_TYPE_UNKNOWN)),
        DecodeError::EntryType { position: 1, value: 0 }
    ));
    assert!(matches!(refusal(&|m| m.set_prev_log_index(i64::MAX)), DecodeError::IndexRange { count: 2, .. }));
    let wrong =
        RequestFrame { class: Bytes::from_static(b"x.Y"), ..encode(&request(vec![chunk(2, &[b""])])) };
    assert_eq!(decode_append_entries(&wrong), Err(DecodeError::Class("x.Y".into())));
}
