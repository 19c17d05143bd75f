//! Entries as SOFAJRaft's log storage holds them: codec V2 for writing, V1 and V2 for reading, and the entry checksum.
//!
//! Ringraft's own segment log does not use this form; importing and exporting Java data directories does.

use bytes::{Buf, Bytes};
use crc::{CRC_64_ECMA_182, Crc, Table};
use protobuf::{EnumOrUnknown, Message};
use ringraft_core::{ChunkKind, Configuration, InvalidConfiguration, InvalidPeerId, LogId, PeerId};

use crate::generated::enum_::EntryType;
use crate::generated::log::PBLogEntry;

static CRC64: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_ECMA_182);

/// Before a V2 entry: magic, version 1, reserved.
const V2_HEAD: [u8; 6] = [0xbb, 0xd2, 1, 0, 0, 0];
/// First byte of a V1 entry.
const V1_MAGIC: u8 = 0xb8;

/// One log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it stands.
    pub id: LogId,
    /// What it is.
    pub kind: ChunkKind,
    /// Its payload; empty for configurations.
    pub data: Bytes,
    /// Its checksum, when it has one; not verified by reading it (see [`LogEntry::is_corrupted`]).
    pub checksum: Option<u64>,
}

impl LogEntry {
    /// Whether the entry has a checksum and it does not match.
    pub fn is_corrupted(&self) -> bool {
        self.checksum.is_some_and(|stated| stated != entry_checksum(self.id, &self.kind, &self.data))
    }
}

/// Why bytes are not a log entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogEntryError {
    /// Neither codec's magic.
    #[error("a log entry begins with {0:02x?} (bb d2 or b8 expected)")]
    Magic(Vec<u8>),
    /// A V2 entry of an unknown version.
    #[error("log entry codec version {0} is not known (1 expected)")]
    Version(u8),
    /// A V1 entry that ends within a field.
    #[error("a log entry of {0} bytes ends within a field")]
    Truncated(usize),
    /// A V2 entry that is no PBLogEntry.
    #[error("PBLogEntry: {0}")]
    Protobuf(String),
    /// A type without a meaning.
    #[error("log entry type {0} is not a no-op (1), data (2) or a configuration (3)")]
    Type(i32),
    /// Index, term or a length is negative.
    #[error("log entry's {field} is {value}, but must not be negative")]
    Negative {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: i64,
    },
    /// Peers on an entry that is no configuration.
    #[error("log entry of type {0} names peers")]
    Peers(i32),
    /// A peer id that is none.
    #[error(transparent)]
    PeerId(#[from] InvalidPeerId),
    /// A configuration without voters, or that lists a peer twice.
    #[error(transparent)]
    Configuration(#[from] InvalidConfiguration),
}

/// CRC-64/ECMA-182, the checksum of SOFAJRaft's entries and files.
pub fn crc64(bytes: &[u8]) -> u64 {
    CRC64.checksum(bytes)
}

/// SOFAJRaft's checksum of an entry: its type, and the CRC-64 of its id, of each peer's text and of its payload, all
/// combined by exclusive or.
pub fn entry_checksum(id: LogId, kind: &ChunkKind, data: &[u8]) -> u64 {
    let mut position = [0; 16];
    position[..8].copy_from_slice(&id.index.to_be_bytes());
    position[8..].copy_from_slice(&id.term.to_be_bytes());
    let mut checksum = type_of(kind).0 as u64 ^ crc64(&position);
    if let ChunkKind::Configuration { conf, old_conf } = kind {
        for peers in [&conf.peers, &old_conf.peers, &conf.learners, &old_conf.learners] {
            checksum ^= peers.iter().fold(0, |sum, peer| sum ^ crc64(peer.to_string().as_bytes()));
        }
    }
    if !data.is_empty() {
        checksum ^= crc64(data);
    }
    checksum
}

fn type_of(kind: &ChunkKind) -> (i32, EntryType) {
    match kind {
        ChunkKind::NoOp => (1, EntryType::ENTRY_TYPE_NO_OP),
        ChunkKind::Data => (2, EntryType::ENTRY_TYPE_DATA),
        ChunkKind::Configuration { .. } => (3, EntryType::ENTRY_TYPE_CONFIGURATION),
    }
}

/// Encodes an entry with codec V2, byte for byte as Java does.
pub fn encode_log_entry(entry: &LogEntry) -> Vec<u8> {
    let mut message = PBLogEntry::new();
    message.type_ = Some(EnumOrUnknown::new(type_of(&entry.kind).1));
    message.set_term(entry.id.term as i64);
    message.set_index(entry.id.index as i64);
    if let ChunkKind::Configuration { conf, old_conf } = &entry.kind {
        let texts = |peers: &[PeerId]| peers.iter().map(|peer| peer.to_string().into()).collect();
        message.peers = texts(&conf.peers);
        message.old_peers = texts(&old_conf.peers);
        message.learners = texts(&conf.learners);
        message.old_learners = texts(&old_conf.learners);
    }
    message.set_data(entry.data.clone());
    message.checksum = entry.checksum.map(|checksum| checksum as i64);
    let mut bytes = V2_HEAD.to_vec();
    // Writing to memory cannot fail, and every required field is set above.
    let written = message.write_to_vec(&mut bytes);
    debug_assert!(written.is_ok(), "{written:?}");
    bytes
}

/// Decodes an entry of either codec. Its payload shares `bytes`.
///
/// # Errors
/// [`LogEntryError`]: to Java too such an entry is damage, not something to skip.
pub fn decode_log_entry(bytes: &Bytes) -> Result<LogEntry, LogEntryError> {
    match bytes.first() {
        Some(&V1_MAGIC) => decode_v1(bytes.slice(1..)),
        Some(&first) if first == V2_HEAD[0] => decode_v2(bytes),
        _ => Err(magic(bytes)),
    }
}

fn magic(bytes: &[u8]) -> LogEntryError {
    LogEntryError::Magic(bytes[..bytes.len().min(2)].to_vec())
}

/// The four lists of peers of an entry, as texts.
#[derive(Default)]
struct PeerTexts {
    peers: Vec<Bytes>,
    old_peers: Vec<Bytes>,
    learners: Vec<Bytes>,
    old_learners: Vec<Bytes>,
}

fn entry(
    (number, term, index): (i32, i64, i64),
    texts: PeerTexts,
    data: Bytes,
    checksum: Option<u64>,
) -> Result<LogEntry, LogEntryError> {
    let count =
        |value: i64, field| u64::try_from(value).map_err(|_| LogEntryError::Negative { field, value });
    let id = LogId::new(count(index, "index")?, count(term, "term")?);
    let named = [&texts.peers, &texts.old_peers, &texts.learners, &texts.old_learners];
    let kind = match number {
        1 | 2 if named.iter().any(|list| !list.is_empty()) => return Err(LogEntryError::Peers(number)),
        1 => ChunkKind::NoOp,
        2 => ChunkKind::Data,
        3 => {
            let conf = Configuration { peers: ids(&texts.peers)?, learners: ids(&texts.learners)? };
            let old_conf =
                Configuration { peers: ids(&texts.old_peers)?, learners: ids(&texts.old_learners)? };
            conf.validate()?;
            match old_conf.validate() {
                Ok(()) | Err(InvalidConfiguration::NoVoter) => {}
                Err(error) => return Err(error.into()),
            }
            ChunkKind::Configuration { conf, old_conf }
        }
        other => return Err(LogEntryError::Type(other)),
    };
    Ok(LogEntry { id, kind, data, checksum })
}

fn ids(texts: &[Bytes]) -> Result<Vec<PeerId>, InvalidPeerId> {
    texts
        .iter()
        .map(|text| match std::str::from_utf8(text) {
            Ok(text) => text.parse(),
            Err(_) => Err(InvalidPeerId(String::from_utf8_lossy(text).into_owned())),
        })
        .collect()
}

fn decode_v2(bytes: &Bytes) -> Result<LogEntry, LogEntryError> {
    if bytes.len() < V2_HEAD.len() || bytes[1] != V2_HEAD[1] {
        return Err(magic(bytes));
    }
    if bytes[2] != V2_HEAD[2] {
        return Err(LogEntryError::Version(bytes[2]));
    }
    // The three reserved bytes are not looked at, as in Java.
    let body = bytes.slice(V2_HEAD.len()..);
    let message = PBLogEntry::parse_from_tokio_bytes(&body)
        .map_err(|error| LogEntryError::Protobuf(error.to_string()))?;
    let numbers = (message.type_.map_or(0, |t| t.value()), message.term(), message.index());
    let checksum = message.checksum.map(|checksum| checksum as u64);
    let texts = PeerTexts {
        peers: message.peers,
        old_peers: message.old_peers,
        learners: message.learners,
        old_learners: message.old_learners,
    };
    entry(numbers, texts, message.data.unwrap_or_default(), checksum)
}

/// A V1 entry behind its magic byte: fixed-width numbers, two lists of peers, payload to the end.
fn decode_v1(mut rest: Bytes) -> Result<LogEntry, LogEntryError> {
    let len = rest.len() + 1;
    let truncated = |_| LogEntryError::Truncated(len);
    let number = rest.try_get_i32().map_err(truncated)?;
    let index = rest.try_get_i64().map_err(truncated)?;
    let term = rest.try_get_i64().map_err(truncated)?;
    let mut list = || -> Result<Vec<Bytes>, LogEntryError> {
        let count = rest.try_get_i32().map_err(truncated)?;
        if count < 0 {
            return Err(LogEntryError::Negative { field: "number of peers", value: count.into() });
        }
        // Grows with the bytes that are there, not with the stated number.
        let mut texts = Vec::new();
        for _ in 0..count {
            let text = rest.try_get_u16().map_err(truncated)?;
            if usize::from(text) > rest.len() {
                return Err(LogEntryError::Truncated(len));
            }
            texts.push(rest.split_to(usize::from(text)));
        }
        Ok(texts)
    };
    let texts = PeerTexts { peers: list()?, old_peers: list()?, ..PeerTexts::default() };
    entry((number, term, index), texts, rest, None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Bytes {
        let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect::<Vec<u8>>()
            .into()
    }

    fn data(index: u64, term: u64, payload: &'static [u8]) -> LogEntry {
        let id = LogId::new(index, term);
        LogEntry { id, kind: ChunkKind::Data, data: Bytes::from_static(payload), checksum: None }
    }

    fn no_op() -> LogEntry {
        LogEntry { id: LogId::new(7, 0), kind: ChunkKind::NoOp, data: Bytes::new(), checksum: None }
    }

    fn conf(conf: &str, old_conf: &str) -> LogEntry {
        let kind =
            ChunkKind::Configuration { conf: conf.parse().unwrap(), old_conf: old_conf.parse().unwrap() };
        LogEntry { id: LogId::new(1, 1), kind, data: Bytes::new(), checksum: None }
    }

    const TWO: &str = "127.0.0.1:8081,127.0.0.1:8082";

    fn checksum(entry: &LogEntry) -> u64 {
        entry_checksum(entry.id, &entry.kind, &entry.data)
    }

    #[test]
    fn crc64_gives_the_known_values() {
        assert_eq!(crc64(b"123456789"), 0x6c40_df5f_0b49_7347);
        assert_eq!(crc64(b""), 0);
        assert_eq!(crc64(b"a"), 0x548f_1201_6245_1c62);
        assert_eq!(crc64(b"127.0.0.1:8081"), 0xc574_d921_f23c_90a8);
        assert_eq!(crc64(b"127.0.0.1:8081::100"), 0x170d_705e_b054_b49d);
        assert_eq!(crc64(b"hello"), 0x4054_4a30_6137_b6ec);
        assert_eq!(crc64(&hex("0000000000000001 0000000000000001")), 0x4705_222c_42b8_cc25);
        assert_eq!(crc64(&hex("0000000000000064 0000000000000003")), 0x51fe_45cf_407e_7cbe);
    }

    #[test]
    fn entry_checksums_are_javas() {
        assert_eq!(checksum(&data(100, 3, b"hello")), 0x11aa_0fff_2149_ca50);
        assert_eq!(checksum(&data(100, 3, b"")), 0x51fe_45cf_407e_7cbc);
        assert_eq!(checksum(&no_op()), 0x19c9_4b57_90bc_e503);
        assert_eq!(checksum(&conf(TWO, "")), 0x8014_0010_b886_9793);
        assert_eq!(checksum(&conf(TWO, "127.0.0.1:8081")), 0x4560_d931_4aba_073b);
        let with_learner = format!("{TWO},127.0.0.1:9000::100/learner");
        assert_eq!(checksum(&conf(&with_learner, "127.0.0.1:8081")), 0x5126_0c4d_eb45_b8fd);
        assert_eq!(checksum(&data(46, 6, b"sum\x001")), 0x4065_d929_4174_f6bb);
        let three = "127.0.0.1:28081,127.0.0.1:28082,127.0.0.1:28083";
        let at_45 = LogEntry { id: LogId::new(45, 6), ..conf(three, "") };
        assert_eq!(checksum(&at_45), 0x04ba_f057_a43d_443a);
    }

    #[test]
    fn v2_is_written_and_read_as_java_does() {
        let checked = LogEntry { checksum: Some(0x11aa_0fff_2149_ca50), ..data(100, 3, b"hello") };
        let peers =
            "BBD201000000080310011801220E3132372E302E302E313A38303831220E3132372E302E302E313A38303832";
        let joint = format!("{peers}2A0E3132372E302E302E313A383038313200");
        let with_learner = format!("{TWO},127.0.0.1:9000::100/learner");
        for (entry, text) in [
            (data(100, 3, b"hello"), "BBD201000000 0802 1003 1864 3205 68656C6C6F".to_owned()),
            (checked.clone(), "BBD2010000000802100318643205 68656C6C6F 38D094A78AF2FF83D511".to_owned()),
            (data(100, 3, b""), "BBD2010000000802100318643200".to_owned()),
            (no_op(), "BBD2010000000801100018073200".to_owned()),
            (conf(TWO, ""), format!("{peers}3200")),
            (conf(TWO, "127.0.0.1:8081"), joint.clone()),
            (
                conf(&with_learner, "127.0.0.1:8081"),
                format!("{joint}42133132372E302E302E313A393030303A3A313030"),
            ),
        ] {
            assert_eq!(encode_log_entry(&entry), hex(&text), "{entry:?}");
            assert_eq!(decode_log_entry(&hex(&text)).unwrap(), entry);
        }
        assert!(!checked.is_corrupted() && !data(100, 3, b"hello").is_corrupted());
        assert!(LogEntry { data: Bytes::from_static(b"hellO"), ..checked }.is_corrupted());
        assert_eq!(decode_log_entry(&hex("BBD201FFFFFF0801100018073200")), Ok(no_op()), "reserved bytes");
    }

    #[test]
    fn v1_is_read() {
        let numbers = "00000002 0000000000000064 0000000000000003 00000000 00000000";
        assert_eq!(decode_log_entry(&hex(&format!("B8 {numbers} 68656C6C6F"))), Ok(data(100, 3, b"hello")));
        let empty = hex(&format!("B8 {numbers}"));
        assert_eq!((decode_log_entry(&empty), empty.len()), (Ok(data(100, 3, b"")), 29));
        let two =
            hex("B80000000300000000000000010000000000000001 00000002 000E3132372E302E302E313A38303831 \
             000E3132372E302E302E313A38303832 00000000");
        assert_eq!(decode_log_entry(&two), Ok(conf(TWO, "")));
        for len in 1..two.len() {
            assert_eq!(decode_log_entry(&two.slice(..len)), Err(LogEntryError::Truncated(len)));
        }
    }

    #[test]
    fn damage_is_named() {
        let refusal = |text: &str| decode_log_entry(&hex(text)).unwrap_err();
        assert_eq!(refusal(""), LogEntryError::Magic(vec![]));
        assert_eq!(refusal("0102"), LogEntryError::Magic(vec![1, 2]));
        assert_eq!(refusal("BBD3010000000801100018073200"), LogEntryError::Magic(vec![0xbb, 0xd3]));
        assert_eq!(refusal("BBD2020000000801100018073200"), LogEntryError::Version(2));
        assert!(matches!(refusal("BBD20100000008011000"), LogEntryError::Protobuf(_)));
        assert_eq!(refusal("BBD2010000000800100018073200"), LogEntryError::Type(0));
        assert_eq!(refusal("BBD2010000000809100018073200"), LogEntryError::Type(9));
        assert_eq!(
            refusal("BBD201000000080118073200 10ffffffffffffffffff01"),
            LogEntryError::Negative { field: "term", value: -1 }
        );
        assert_eq!(
            refusal("BBD2010000000803100118013200"),
            LogEntryError::Configuration(InvalidConfiguration::NoVoter)
        );
        assert_eq!(refusal("BBD201000000080210011801 2203613a31 3200"), LogEntryError::Peers(2));
        assert!(matches!(refusal("BBD201000000080310011801 220161 3200"), LogEntryError::PeerId(_)));
        let many = "B8 00000003 0000000000000001 0000000000000001 7fffffff";
        assert!(matches!(refusal(many), LogEntryError::Truncated(_)), "a stated number takes no memory");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn noise_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), v1 in any::<bool>()) {
            let _ = decode_log_entry(&bytes.clone().into());
            if v1 {
                bytes.insert(0, V1_MAGIC);
            } else {
                bytes.splice(0..0, V2_HEAD);
            }
            if let Ok(entry) = decode_log_entry(&bytes.into()) {
                prop_assert_eq!(decode_log_entry(&encode_log_entry(&entry).into()), Ok(entry));
            }
        }
    }
}
