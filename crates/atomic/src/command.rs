//! What the log of a range group carries, and what the state machine answers.

use bytes::Bytes;
use protobuf::Message;
use ringraft_proto::generated::atomic as proto;

/// Longest key in bytes.
pub const MAX_KEY_BYTES: usize = 4096;

/// A command on one counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Sets the counter.
    Set {
        /// The counter's name.
        key: String,
        /// Its new value.
        value: i64,
    },
    /// Sets the counter if it has the expected value; one that was never set has 0.
    CompareAndSet {
        /// The counter's name.
        key: String,
        /// The value that it must have.
        expect: i64,
        /// Its new value then.
        new_value: i64,
    },
    /// Adds to the counter, which starts at 0, and answers with the sum (which wraps around, as in Java).
    IncrementAndGet {
        /// The counter's name.
        key: String,
        /// What is added.
        delta: i64,
    },
    /// Reads the counter.
    Get {
        /// The counter's name.
        key: String,
    },
}

/// Why something is not a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCommand {
    /// Not the expected message.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// A message of a later version, or none at all.
    #[error("the command names no operation that this version knows")]
    NoOperation,
    /// A counter needs a name.
    #[error("the key is empty; name the counter")]
    EmptyKey,
    /// The name is too long.
    #[error("the key has {0} bytes; {MAX_KEY_BYTES} are allowed")]
    LongKey(usize),
}

impl From<protobuf::Error> for InvalidCommand {
    fn from(error: protobuf::Error) -> InvalidCommand {
        InvalidCommand::Malformed(error.to_string())
    }
}

/// How a counter is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// As an entry of the log: sees every write that was acknowledged before it.
    #[default]
    ThroughLog,
    /// What some server has applied; may be old.
    Local,
    /// Sees every write that was acknowledged before it, and costs no entry: a quorum confirms the leader, then the asked replica answers
    /// once it has applied as much.
    Quorum {
        /// Which replica answers.
        from: ReadFrom,
        /// The leader's lease may stand for the quorum: no round trip between servers, and right only while their clocks run
        /// at about the same rate. Without `lease_reads` at the servers it is a read through the quorum all the same.
        lease: bool,
    },
}

/// Which replica answers a read through a quorum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// The leader: one round trip to the other voters.
    #[default]
    Leader,
    /// Any, another one for each attempt: a follower asks the leader first, and the leader has less to do.
    AnyReplica,
}

/// What the state machine answers to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The counter was set, or (`false`) had another value than expected.
    Changed(bool),
    /// The counter's value; `None` when it was never set.
    Value(Option<i64>),
}

impl Command {
    /// The counter's name.
    pub fn key(&self) -> &str {
        match self {
            Command::Set { key, .. }
            | Command::CompareAndSet { key, .. }
            | Command::IncrementAndGet { key, .. }
            | Command::Get { key } => key,
        }
    }

    /// Whether it leaves every counter as it is, so that carrying it out twice does no harm.
    pub fn is_read(&self) -> bool {
        matches!(self, Command::Get { .. })
    }

    /// Checks the key.
    ///
    /// # Errors
    /// [`InvalidCommand::EmptyKey`], [`InvalidCommand::LongKey`].
    pub fn validate(&self) -> Result<(), InvalidCommand> {
        match self.key().len() {
            0 => Err(InvalidCommand::EmptyKey),
            len if len > MAX_KEY_BYTES => Err(InvalidCommand::LongKey(len)),
            _ => Ok(()),
        }
    }

    /// The entry of the log.
    ///
    /// # Errors
    /// [`InvalidCommand::Malformed`] when it does not fit a message (more than 2 GiB).
    pub fn encode(self) -> Result<Bytes, InvalidCommand> {
        use proto::command::Op;
        let op = match self {
            Command::Set { key, value } => Op::Set(set_request(key, value)),
            Command::CompareAndSet { key, expect, new_value } => {
                Op::CompareAndSet(compare_and_set_request(key, expect, new_value))
            }
            Command::IncrementAndGet { key, delta } => Op::IncrementAndGet(increment_request(key, delta)),
            Command::Get { key } => Op::Get(get_request(key, ReadMode::ThroughLog)),
        };
        let message = proto::Command { op: Some(op), ..Default::default() };
        Ok(message.write_to_bytes()?.into())
    }

    /// Reads an entry of the log.
    ///
    /// # Errors
    /// [`InvalidCommand`].
    pub fn decode(entry: &[u8]) -> Result<Command, InvalidCommand> {
        use proto::command::Op;
        let message = proto::Command::parse_from_bytes(entry)?;
        let command = match message.op.ok_or(InvalidCommand::NoOperation)? {
            Op::Set(set) => set.into(),
            Op::CompareAndSet(cas) => cas.into(),
            Op::IncrementAndGet(inc) => inc.into(),
            Op::Get(get) => Command::Get { key: get.key },
            _ => return Err(InvalidCommand::NoOperation),
        };
        Ok(command)
    }
}

pub(crate) fn set_request(key: String, value: i64) -> proto::SetRequest {
    proto::SetRequest { key, value, ..Default::default() }
}

pub(crate) fn compare_and_set_request(
    key: String,
    expect: i64,
    new_value: i64,
) -> proto::CompareAndSetRequest {
    proto::CompareAndSetRequest { key, expect, new_value, ..Default::default() }
}

pub(crate) fn increment_request(key: String, delta: i64) -> proto::IncrementAndGetRequest {
    proto::IncrementAndGetRequest { key, delta, ..Default::default() }
}

pub(crate) fn get_request(key: String, mode: ReadMode) -> proto::GetRequest {
    let (through_log, through_quorum, lease) = match mode {
        ReadMode::ThroughLog => (true, false, false),
        ReadMode::Local => (false, false, false),
        ReadMode::Quorum { lease, .. } => (false, true, lease),
    };
    proto::GetRequest { key, through_log, through_quorum, lease, ..Default::default() }
}

impl From<proto::SetRequest> for Command {
    fn from(message: proto::SetRequest) -> Command {
        Command::Set { key: message.key, value: message.value }
    }
}

impl From<proto::CompareAndSetRequest> for Command {
    fn from(message: proto::CompareAndSetRequest) -> Command {
        Command::CompareAndSet { key: message.key, expect: message.expect, new_value: message.new_value }
    }
}

impl From<proto::IncrementAndGetRequest> for Command {
    fn from(message: proto::IncrementAndGetRequest) -> Command {
        Command::IncrementAndGet { key: message.key, delta: message.delta }
    }
}

impl Answer {
    /// The response of an applied entry: nothing but the number, for its meaning is known to whoever asked.
    pub fn encode(self) -> Bytes {
        match self {
            Answer::Changed(false) => Bytes::from_static(&[0]),
            Answer::Changed(true) => Bytes::from_static(&[1]),
            Answer::Value(None) => Bytes::new(),
            Answer::Value(Some(value)) => Bytes::copy_from_slice(&value.to_le_bytes()),
        }
    }

    /// Reads the response of an applied entry; `None` when it is none.
    pub fn decode(response: &[u8]) -> Option<Answer> {
        match *response {
            [] => Some(Answer::Value(None)),
            [changed @ 0..=1] => Some(Answer::Changed(changed == 1)),
            _ => response.try_into().ok().map(|bytes| Answer::Value(Some(i64::from_le_bytes(bytes)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(key: &str) -> [Command; 4] {
        let key = key.to_owned();
        [
            Command::Set { key: key.clone(), value: -7 },
            Command::CompareAndSet { key: key.clone(), expect: 1, new_value: i64::MIN },
            Command::IncrementAndGet { key: key.clone(), delta: i64::MAX },
            Command::Get { key },
        ]
    }

    #[test]
    fn commands_round_trip() {
        for command in all("kö") {
            assert_eq!(Command::decode(&command.clone().encode().unwrap()), Ok(command));
        }
    }

    #[test]
    fn what_is_no_command_is_refused() {
        assert_eq!(Command::decode(&[]), Err(InvalidCommand::NoOperation));
        assert!(matches!(Command::decode(&[0x0a, 0x7f, 1]), Err(InvalidCommand::Malformed(_))));
        // Field 15, of a version that does not exist yet.
        assert_eq!(Command::decode(&[0x7a, 0x00]), Err(InvalidCommand::NoOperation));
    }

    #[test]
    fn keys_have_a_length() {
        for command in all("") {
            assert_eq!(command.validate(), Err(InvalidCommand::EmptyKey));
        }
        for command in all(&"x".repeat(MAX_KEY_BYTES + 1)) {
            assert_eq!(command.validate(), Err(InvalidCommand::LongKey(MAX_KEY_BYTES + 1)));
        }
        for command in all(&"x".repeat(MAX_KEY_BYTES)) {
            assert_eq!(command.validate(), Ok(()));
        }
    }

    #[test]
    fn answers_round_trip() {
        for answer in [
            Answer::Changed(true),
            Answer::Changed(false),
            Answer::Value(None),
            Answer::Value(Some(0)),
            Answer::Value(Some(i64::MIN)),
        ] {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
        assert_eq!(Answer::decode(&[2]), None);
        assert_eq!(Answer::decode(&[0; 9]), None);
    }

    proptest::proptest! {
        #[test]
        fn hostile_entries_do_not_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            let _ = Command::decode(&bytes);
            let _ = Answer::decode(&bytes);
        }
    }
}
