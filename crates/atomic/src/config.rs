//! The configuration file of a server: TOML, with SOFAJRaft's AtomicServer keys in this project's spelling.

use std::path::{Path, PathBuf};

use ringraft::{
    Configuration, HostOptions, NodeOptions, PeerId, ReadOnlyOption, SegmentLogOptions, StartMode,
    StoreOptions,
};
use toml::{Table, Value};

use crate::ranges::Ranges;

/// Most range groups of a server.
pub const MAX_SLOTS: usize = 100_000;

/// More than any command has; small, so that a file of the log may be.
const MAX_COMMAND_BYTES: usize = 64 << 10;

/// Bounds of `segment_file_bytes`.
const MIN_FILE_BYTES: i64 = 1 << 20;
const MAX_FILE_BYTES: i64 = 1 << 30;

/// Where a server keeps its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Store {
    /// On disk: every acknowledged write is durable on a majority.
    #[default]
    Segment,
    /// In memory: gone with the process. For experiments only.
    Memory,
}

/// Settings of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtomicConfig {
    /// `group_id`: the groups are called `<group_id>_<i>`.
    pub group_id: String,
    /// `data_path`: directory of the log; needed unless the store is in memory.
    pub data_path: PathBuf,
    /// `conf`: the members of every group, as `ip:port,ip:port,…`; the same on all servers.
    pub conf: Configuration,
    /// `server_address`: which of the members this server is.
    pub server_address: PeerId,
    /// `min_slot`: smallest hash of the first range (0).
    pub min_slot: i64,
    /// `max_slot`: end of the last range (9223372036854775807).
    pub max_slot: i64,
    /// `total_slots`: range groups: 1..=100000 (1).
    pub total_slots: usize,
    /// `election_timeout_ms`: a follower's patience (1000).
    pub election_timeout_ms: u64,
    /// `max_election_delay_ms`: random spread on top of it (1000).
    pub max_election_delay_ms: u64,
    /// `store`: `"segment"` or `"memory"` (segment).
    pub store: Store,
    /// `segment_file_bytes`: size of a file of the log; absent means 64 MiB.
    pub segment_file_bytes: Option<u64>,
    /// `lanes`: owner threads; absent means by the number of cores.
    pub lanes: Option<usize>,
    /// `fsm_workers`: state-machine threads; absent means by the number of cores.
    pub fsm_workers: Option<usize>,
    /// `lease_reads`: servers promise what lease reads stand on (false); the same on all servers. Without it a lease read is a read
    /// through the quorum.
    pub lease_reads: bool,
}

/// What is wrong with a configuration file, and the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {message}; give the path of the server's configuration file")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        message: String,
    },
    /// Not TOML.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// No such key.
    #[error("unknown key {key:?}; {hint}")]
    UnknownKey {
        /// The key.
        key: String,
        /// What to write instead.
        hint: String,
    },
    /// A key that must be there is not.
    #[error("key {key:?} is missing; add it, for example {key} = {example}")]
    Missing {
        /// The key.
        key: &'static str,
        /// A value that would do.
        example: &'static str,
    },
    /// A value of the wrong type.
    #[error("{key} is {value}, which is {found}; write {expected}, for example {key} = {example}")]
    Type {
        /// The key.
        key: &'static str,
        /// The value as written.
        value: String,
        /// Its type.
        found: &'static str,
        /// The type that is wanted.
        expected: &'static str,
        /// A value that would do.
        example: &'static str,
    },
    /// An empty text.
    #[error("{key} is blank; fill it in, for example {key} = {example}")]
    Blank {
        /// The key.
        key: &'static str,
        /// A value that would do.
        example: &'static str,
    },
    /// A number out of its range.
    #[error("{key} is {value}; it must be between {min} and {max}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        value: i64,
        /// The smallest that is allowed.
        min: i64,
        /// The largest that is allowed.
        max: i64,
    },
    /// Files of the log end where a sector ends.
    #[error("segment_file_bytes is {0}; it must be a multiple of 512")]
    FileBytes(u64),
    /// The range ends before it begins.
    #[error("min_slot is {min} and max_slot is {max}; min_slot must not be above max_slot")]
    SlotBounds {
        /// `min_slot`.
        min: i64,
        /// `max_slot`.
        max: i64,
    },
    /// More ranges than the bounds can be cut into.
    #[error(
        "total_slots is {total}, but {min}..{max} cannot be cut into that many ranges of equal step without an empty one; lower total_slots"
    )]
    SlotCount {
        /// `total_slots`.
        total: usize,
        /// `min_slot`.
        min: i64,
        /// `max_slot`.
        max: i64,
    },
    /// A name of which no group can be made.
    #[error("group_id is {value:?}: {message}")]
    GroupId {
        /// The name.
        value: String,
        /// Why not.
        message: String,
    },
    /// An address that is none.
    #[error("{key} holds {value:?}, which is not an address; write ip:port, for example \"127.0.0.1:8081\"")]
    Address {
        /// The key.
        key: &'static str,
        /// The address as written.
        value: String,
    },
    /// A member that stands twice.
    #[error("conf lists {0} more than once; list each member once")]
    Duplicate(PeerId),
    /// A configuration in which nobody votes.
    #[error("conf is {0:?}, in which nobody votes; list at least one member without /learner")]
    NoVoter(String),
    /// This server is not a member.
    #[error(
        "server_address {server} is not in conf ({conf}); add it there, on every server, or correct server_address"
    )]
    NotMember {
        /// `server_address`.
        server: PeerId,
        /// `conf`.
        conf: Configuration,
    },
    /// A word that is not one of those allowed.
    #[error("{key} is {value:?}; write one of {allowed}")]
    Word {
        /// The key.
        key: &'static str,
        /// The word as written.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A rule of the engine that the values break together.
    #[error("{0}")]
    Options(String),
}

/// Every key, with a value that would do.
const KEYS: [(&str, &str); 14] = [
    ("group_id", "\"atomic\""),
    ("data_path", "\"/var/lib/ringraft\""),
    ("conf", "\"127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083\""),
    ("server_address", "\"127.0.0.1:8081\""),
    ("min_slot", "0"),
    ("max_slot", "9223372036854775807"),
    ("total_slots", "8"),
    ("election_timeout_ms", "1000"),
    ("max_election_delay_ms", "1000"),
    ("store", "\"segment\""),
    ("segment_file_bytes", "67108864"),
    ("lanes", "1"),
    ("fsm_workers", "1"),
    ("lease_reads", "true"),
];

fn example(key: &str) -> &'static str {
    KEYS.iter().find(|(name, _)| *name == key).map_or("…", |(_, value)| value)
}

impl AtomicConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(path: &Path) -> Result<AtomicConfig, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::File { path: path.to_owned(), message: error.to_string() })?;
        AtomicConfig::parse(&text)
    }

    /// Reads and checks the text of a file.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str) -> Result<AtomicConfig, ConfigError> {
        let table: Table = text
            .parse()
            .map_err(|error: toml::de::Error| ConfigError::Syntax(error.to_string().trim_end().to_owned()))?;
        if let Some(key) = table.keys().find(|key| KEYS.iter().all(|(name, _)| name != key)) {
            return Err(ConfigError::UnknownKey { key: key.clone(), hint: hint_for(key) });
        }
        let keys = Keys(&table);
        let store = keys.store()?;
        let group_id = keys.required_text("group_id")?;
        let conf = parse_conf(&keys.required_text("conf")?)?;
        let server_address = parse_address("server_address", &keys.required_text("server_address")?)?;
        let data_path = match store {
            Store::Segment => keys.required_text("data_path")?,
            Store::Memory => keys.text("data_path")?.unwrap_or_default(),
        };
        let config = AtomicConfig {
            group_id,
            data_path: data_path.into(),
            conf,
            server_address,
            min_slot: keys.number("min_slot", 0, i64::MAX)?.unwrap_or(0),
            max_slot: keys.number("max_slot", 0, i64::MAX)?.unwrap_or(i64::MAX),
            total_slots: keys.count("total_slots", MAX_SLOTS)?.unwrap_or(1),
            election_timeout_ms: keys.millis("election_timeout_ms", 10)?.unwrap_or(1000),
            max_election_delay_ms: keys.millis("max_election_delay_ms", 1)?.unwrap_or(1000),
            store,
            segment_file_bytes: keys
                .number("segment_file_bytes", MIN_FILE_BYTES, MAX_FILE_BYTES)?
                .map(|n| n as u64),
            lanes: keys.count("lanes", 256)?,
            fsm_workers: keys.count("fsm_workers", 256)?,
            lease_reads: keys.flag("lease_reads")?.unwrap_or(false),
        };
        config.check()?;
        Ok(config)
    }

    /// The rules that concern more than one key.
    fn check(&self) -> Result<(), ConfigError> {
        if !self.conf.contains(&self.server_address) && !self.conf.learners.contains(&self.server_address) {
            return Err(ConfigError::NotMember {
                server: self.server_address.clone(),
                conf: self.conf.clone(),
            });
        }
        if self.min_slot > self.max_slot {
            return Err(ConfigError::SlotBounds { min: self.min_slot, max: self.max_slot });
        }
        self.ranges()?;
        if let Some(bytes) = self.segment_file_bytes.filter(|bytes| !bytes.is_multiple_of(512)) {
            return Err(ConfigError::FileBytes(bytes));
        }
        let longest = self.group_name(self.total_slots - 1);
        if let Err(error) = longest.parse::<ringraft::GroupId>() {
            return Err(ConfigError::GroupId { value: self.group_id.clone(), message: error.to_string() });
        }
        let options = |message: String| ConfigError::Options(message);
        self.node_options().validate_for(&self.server_address).map_err(|error| options(error.to_string()))?;
        self.host_options(StartMode::Existing).validate().map_err(|error| options(error.to_string()))
    }

    /// The ranges of hashes, one a group.
    ///
    /// # Errors
    /// [`ConfigError::SlotCount`]; never for a configuration that [`parse`](AtomicConfig::parse) has passed.
    pub fn ranges(&self) -> Result<Ranges, ConfigError> {
        let (min, max, total) = (self.min_slot, self.max_slot, self.total_slots);
        Ranges::cut(min, max, total).ok_or(ConfigError::SlotCount { total, min, max })
    }

    /// Name of the group that serves a range.
    pub fn group_name(&self, range: usize) -> String {
        format!("{}_{range}", self.group_id)
    }

    /// Options of every group.
    pub fn node_options(&self) -> NodeOptions {
        let mut options = NodeOptions::with_initial_conf(self.conf.clone());
        options.election_timeout_ms = self.election_timeout_ms;
        options.raft_options.max_election_delay_ms = self.max_election_delay_ms;
        if self.lease_reads {
            options.raft_options.read_only_options = ReadOnlyOption::LeaseBased;
        }
        options
    }

    /// Options of the host.
    pub fn host_options(&self, start_mode: StartMode) -> HostOptions {
        let store = match self.store {
            Store::Segment => {
                let mut options = SegmentLogOptions::default();
                options.file_bytes = self.segment_file_bytes.unwrap_or(options.file_bytes);
                StoreOptions::Segment { dir: self.data_path.clone(), options }
            }
            Store::Memory => StoreOptions::Memory,
        };
        let mut options = HostOptions::new(self.server_address.endpoint(), store);
        options.start_mode = start_mode;
        options.max_task_bytes = MAX_COMMAND_BYTES;
        if let Some(lanes) = self.lanes {
            options.lanes = lanes;
            options.fuse_net = lanes == 1;
        }
        if let Some(workers) = self.fsm_workers {
            options.fsm_workers = workers;
        }
        options
    }

    /// The file that says the same.
    pub fn to_toml(&self) -> String {
        let mut table = Table::new();
        let mut text = |key: &str, value: String| table.insert(key.to_owned(), Value::String(value));
        text("group_id", self.group_id.clone());
        text("data_path", self.data_path.display().to_string());
        text("conf", self.conf.to_string());
        text("server_address", self.server_address.to_string());
        text("store", if self.store == Store::Memory { "memory".into() } else { "segment".into() });
        let mut number = |key: &str, value: i64| table.insert(key.to_owned(), Value::Integer(value));
        number("min_slot", self.min_slot);
        number("max_slot", self.max_slot);
        number("total_slots", self.total_slots as i64);
        number("election_timeout_ms", self.election_timeout_ms as i64);
        number("max_election_delay_ms", self.max_election_delay_ms as i64);
        if let Some(bytes) = self.segment_file_bytes {
            number("segment_file_bytes", bytes as i64);
        }
        for (key, value) in [("lanes", self.lanes), ("fsm_workers", self.fsm_workers)] {
            if let Some(value) = value {
                number(key, value as i64);
            }
        }
        if self.lease_reads {
            table.insert("lease_reads".to_owned(), Value::Boolean(true));
        }
        table.to_string()
    }
}

/// The values of a file, by type.
struct Keys<'a>(&'a Table);

impl Keys<'_> {
    fn text(&self, key: &'static str) -> Result<Option<String>, ConfigError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => {
                Err(ConfigError::Blank { key, example: example(key) })
            }
            Some(Value::String(text)) => Ok(Some(text.trim().to_owned())),
            Some(other) => Err(wrong_type(key, other, "a text in quotes")),
        }
    }

    fn required_text(&self, key: &'static str) -> Result<String, ConfigError> {
        self.text(key)?.ok_or(ConfigError::Missing { key, example: example(key) })
    }

    fn number(&self, key: &'static str, min: i64, max: i64) -> Result<Option<i64>, ConfigError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Integer(value)) if (min..=max).contains(value) => Ok(Some(*value)),
            Some(Value::Integer(value)) => Err(ConfigError::Range { key, value: *value, min, max }),
            Some(other) => Err(wrong_type(key, other, "a whole number")),
        }
    }

    fn count(&self, key: &'static str, max: usize) -> Result<Option<usize>, ConfigError> {
        Ok(self.number(key, 1, max as i64)?.map(|value| value as usize))
    }

    fn flag(&self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Boolean(value)) => Ok(Some(*value)),
            Some(other) => Err(wrong_type(key, other, "true or false without quotes")),
        }
    }

    fn millis(&self, key: &'static str, min: i64) -> Result<Option<u64>, ConfigError> {
        Ok(self.number(key, min, 3_600_000)?.map(|value| value as u64))
    }

    fn store(&self) -> Result<Store, ConfigError> {
        match self.text("store")?.as_deref() {
            None | Some("segment") => Ok(Store::Segment),
            Some("memory") => Ok(Store::Memory),
            Some(other) => Err(ConfigError::Word {
                key: "store",
                value: other.to_owned(),
                allowed: "\"segment\", \"memory\"",
            }),
        }
    }
}

fn wrong_type(key: &'static str, value: &Value, expected: &'static str) -> ConfigError {
    let found = match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    };
    ConfigError::Type { key, value: value.to_string(), found, expected, example: example(key) }
}

fn parse_address(key: &'static str, text: &str) -> Result<PeerId, ConfigError> {
    let invalid = || ConfigError::Address { key, value: text.to_owned() };
    let peer: PeerId = text.parse().map_err(|_| invalid())?;
    if peer.ip().is_empty() || peer.port() == 0 { Err(invalid()) } else { Ok(peer) }
}

fn parse_conf(text: &str) -> Result<Configuration, ConfigError> {
    let mut conf = Configuration::default();
    for member in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let learner = member.strip_suffix("/learner");
        let peer = parse_address("conf", learner.unwrap_or(member))?;
        if conf.peers.contains(&peer) || conf.learners.contains(&peer) {
            return Err(ConfigError::Duplicate(peer));
        }
        if learner.is_some() { conf.learners.push(peer) } else { conf.peers.push(peer) }
    }
    if conf.peers.is_empty() { Err(ConfigError::NoVoter(text.to_owned())) } else { Ok(conf) }
}

/// The key that was probably meant, else all of them.
fn hint_for(key: &str) -> String {
    let plain = |text: &str| text.replace(['_', '-'], "").to_lowercase();
    let near = KEYS.iter().find(|(name, _)| plain(name) == plain(key) || one_edit_apart(name, key));
    match near {
        Some((name, _)) => format!("did you mean {name}?"),
        None => format!("the keys are {}", KEYS.map(|(name, _)| name).join(", ")),
    }
}

/// Whether one letter was left out, put in or exchanged.
fn one_edit_apart(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let same_start = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let same_end =
        a[same_start..].iter().rev().zip(b[same_start..].iter().rev()).take_while(|(x, y)| x == y).count();
    a.len().max(b.len()) - same_start - same_end == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        group_id = "atomic"
        data_path = "/tmp/x"
        conf = "127.0.0.1:8081, 127.0.0.1:8082,127.0.0.1:8083"
        server_address = "127.0.0.1:8082"
    "#;

    /// The good file with one key set to another value, or (`""`) left out.
    fn with(key: &str, value: &str) -> Result<AtomicConfig, ConfigError> {
        let mut lines: Vec<String> =
            GOOD.lines().filter(|l| !l.trim().starts_with(key)).map(str::to_owned).collect();
        if !value.is_empty() {
            lines.push(format!("{key} = {value}"));
        }
        AtomicConfig::parse(&lines.join("\n"))
    }

    fn error(key: &str, value: &str) -> ConfigError {
        with(key, value).unwrap_err()
    }

    #[test]
    fn a_file_with_the_required_keys_gets_sofajrafts_defaults() {
        let config = AtomicConfig::parse(GOOD).unwrap();
        assert_eq!((config.min_slot, config.max_slot, config.total_slots), (0, i64::MAX, 1));
        assert_eq!(config.election_timeout_ms, 1000);
        assert_eq!(config.conf.to_string(), "127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083");
        assert_eq!(config.group_name(0), "atomic_0");
        assert_eq!(config.host_options(StartMode::Existing).endpoint, "127.0.0.1:8082");
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let mut config = with("total_slots", "8").unwrap();
        (config.lanes, config.max_election_delay_ms, config.segment_file_bytes) =
            (Some(2), 77, Some(1 << 24));
        config.lease_reads = true;
        assert_eq!(AtomicConfig::parse(&config.to_toml()), Ok(config));
    }

    #[test]
    fn a_file_that_is_not_there() {
        let error = AtomicConfig::load(Path::new("/nowhere/x.toml")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/x.toml"), "{error}");
    }

    #[test]
    fn syntax_errors_name_the_line() {
        let error = AtomicConfig::parse("group_id = \"atomic\"\nconf = ").unwrap_err();
        assert!(matches!(&error, ConfigError::Syntax(text) if text.contains("line 2")), "{error}");
    }

    #[test]
    fn unknown_keys_are_refused_and_the_near_one_is_named() {
        let hint = |key: &str| match error(key, "1") {
            ConfigError::UnknownKey { hint, .. } => hint,
            other => panic!("{other}"),
        };
        assert_eq!(hint("totalSlots"), "did you mean total_slots?");
        assert_eq!(hint("total_slot"), "did you mean total_slots?");
        assert!(hint("colour").starts_with("the keys are group_id,"));
    }

    #[test]
    fn required_keys() {
        for key in ["group_id", "data_path", "conf", "server_address"] {
            assert!(matches!(error(key, ""), ConfigError::Missing { key: k, .. } if k == key));
        }
        let in_memory = format!("{}\nstore = \"memory\"", GOOD.replace("data_path = \"/tmp/x\"", ""));
        assert_eq!(AtomicConfig::parse(&in_memory).unwrap().store, Store::Memory);
    }

    #[test]
    fn blank_texts() {
        for key in ["group_id", "data_path", "conf", "server_address"] {
            assert!(matches!(error(key, "\"  \""), ConfigError::Blank { key: k, .. } if k == key));
        }
    }

    #[test]
    fn wrong_types_name_both() {
        let expected =
            "total_slots is \"8\", which is a text; write a whole number, for example total_slots = 8";
        assert_eq!(error("total_slots", "\"8\"").to_string(), expected);
        assert!(matches!(error("conf", "[\"127.0.0.1:1\"]"), ConfigError::Type { found: "a list", .. }));
        assert!(matches!(error("lease_reads", "\"true\""), ConfigError::Type { found: "a text", .. }));
    }

    #[test]
    fn numbers_have_a_range() {
        for (key, value) in [
            ("min_slot", -1),
            ("max_slot", -1),
            ("total_slots", 0),
            ("total_slots", 100_001),
            ("election_timeout_ms", 9),
            ("max_election_delay_ms", 0),
            ("segment_file_bytes", 4096),
            ("lanes", 0),
            ("fsm_workers", 257),
        ] {
            let found = error(key, &value.to_string());
            assert!(
                matches!(found, ConfigError::Range { key: k, value: v, .. } if k == key && v == value),
                "{found}"
            );
        }
    }

    #[test]
    fn slots_must_fit_their_bounds() {
        let file = |extra: &str| AtomicConfig::parse(&format!("{GOOD}\n{extra}")).unwrap_err();
        assert_eq!(file("min_slot = 5\nmax_slot = 4"), ConfigError::SlotBounds { min: 5, max: 4 });
        let crowded = file("max_slot = 10\ntotal_slots = 11");
        assert_eq!(crowded, ConfigError::SlotCount { total: 11, min: 0, max: 10 });
    }

    #[test]
    fn group_names_must_be_valid() {
        assert!(matches!(error("group_id", "\"1 group\""), ConfigError::GroupId { .. }));
    }

    #[test]
    fn addresses_must_be_addresses() {
        for bad in ["host", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", ":80"] {
            let server = error("server_address", &format!("{bad:?}"));
            assert_eq!(server, ConfigError::Address { key: "server_address", value: bad.into() });
            let conf = error("conf", &format!("\"127.0.0.1:8082,{bad}\""));
            assert_eq!(conf, ConfigError::Address { key: "conf", value: bad.into() });
        }
    }

    #[test]
    fn members_stand_once() {
        let found = error("conf", "\"127.0.0.1:8082,127.0.0.1:8082\"");
        assert_eq!(found, ConfigError::Duplicate("127.0.0.1:8082".parse().unwrap()));
    }

    #[test]
    fn somebody_must_vote() {
        assert!(matches!(error("conf", "\"127.0.0.1:8082/learner\""), ConfigError::NoVoter(_)));
        assert!(matches!(error("conf", "\",\""), ConfigError::NoVoter(_)));
    }

    #[test]
    fn the_server_must_be_a_member() {
        let found = error("server_address", "\"127.0.0.1:9\"");
        assert!(matches!(found, ConfigError::NotMember { .. }));
        assert!(found.to_string().contains("127.0.0.1:9 is not in conf (127.0.0.1:8081,"));
    }

    #[test]
    fn files_of_the_log_end_with_a_sector() {
        assert_eq!(error("segment_file_bytes", "2000001"), ConfigError::FileBytes(2_000_001));
    }

    #[test]
    fn stores_have_names() {
        assert!(matches!(error("store", "\"rocksdb\""), ConfigError::Word { key: "store", .. }));
    }

    #[test]
    fn rules_of_the_engine_hold_too() {
        // The heartbeat period is at least 10 ms, so that 10 ms of patience are too few.
        assert!(matches!(error("election_timeout_ms", "10"), ConfigError::Options(_)));
    }
}
