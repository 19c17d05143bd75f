//! The configuration file of a server: TOML, with SOFAJRaft's AtomicServer keys in this project's spelling.

mod error;
mod keys;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ringraft::{
    Configuration, HostOptions, NodeOptions, PeerId, ReadOnlyOption, SegmentLogOptions, StartMode,
    StoreOptions, TransportOptions, derive_cluster_id,
};
use toml::{Table, Value};

use crate::ranges::Ranges;
use keys::{KEYS, Values, hint_for, missing, parse_address, parse_conf, parse_listen};

pub use error::ConfigError;

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
    /// `conf`: the members of every group, as `ip:port,name:port,…`; the same on all servers.
    pub conf: Configuration,
    /// `server_address`: which of the members this server is. Others reach it there; a name needs `listen`.
    pub server_address: PeerId,
    /// `listen`: `ip:port` to listen at, where that is not `server_address`: on all addresses of the machine, behind a translation of
    /// addresses, or because `server_address` is a name; absent means at `server_address`.
    pub listen: Option<SocketAddr>,
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
    /// `cluster_id`: id of the cluster, the same on all servers; absent means the one that the data directory remembers, and for a cluster
    /// that is being created [`derive_cluster_id`] of `group_id` and `conf`.
    pub cluster_id: Option<String>,
    /// `require_cluster_id`: refuse requests that do not name the cluster, as those of earlier programs (false).
    pub require_cluster_id: bool,
    /// `bootstrap_ask_ms`: how long a blank server asks the others whether the groups have lived before; 0 means not at all (2000).
    pub bootstrap_ask_ms: u64,
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
        let values = Values(&table);
        let store = values.store()?;
        let group_id = values.required_text("group_id")?;
        let conf = parse_conf(&values.required_text("conf")?)?;
        let server_address = parse_address("server_address", &values.required_text("server_address")?)?;
        let data_path = values.path("data_path")?;
        let listen = values.text("listen")?.as_deref().map(parse_listen).transpose()?;
        let data_path = match store {
            Store::Segment => data_path.ok_or_else(|| missing("data_path"))?,
            Store::Memory => data_path.unwrap_or_default(),
        };
        let config = AtomicConfig {
            group_id,
            data_path,
            conf,
            server_address,
            listen,
            min_slot: values.number("min_slot", 0, i64::MAX)?.unwrap_or(0),
            max_slot: values.number("max_slot", 0, i64::MAX)?.unwrap_or(i64::MAX),
            total_slots: values.count("total_slots", MAX_SLOTS)?.unwrap_or(1),
            election_timeout_ms: values.millis("election_timeout_ms", 10)?.unwrap_or(1000),
            max_election_delay_ms: values.millis("max_election_delay_ms", 1)?.unwrap_or(1000),
            store,
            segment_file_bytes: values
                .number("segment_file_bytes", MIN_FILE_BYTES, MAX_FILE_BYTES)?
                .map(|n| n as u64),
            lanes: values.count("lanes", 256)?,
            fsm_workers: values.count("fsm_workers", 256)?,
            lease_reads: values.flag("lease_reads")?.unwrap_or(false),
            cluster_id: values.text("cluster_id")?,
            require_cluster_id: values.flag("require_cluster_id")?.unwrap_or(false),
            bootstrap_ask_ms: values.millis("bootstrap_ask_ms", 0)?.unwrap_or(2000),
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
        if self.listen.is_none() && self.server_address.endpoint().parse::<SocketAddr>().is_err() {
            let example = format!("\"0.0.0.0:{}\"", self.server_address.port());
            return Err(ConfigError::NameWithoutListen { server: self.server_address.clone(), example });
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
        options.transport = TransportOptions::Tcp { listen: self.listen };
        options.start_mode = start_mode;
        options.cluster_id = self.cluster_id.clone();
        options.initial_cluster_id = Some(derive_cluster_id(&options.cluster, &self.group_id, &self.conf));
        options.require_cluster_id = self.require_cluster_id;
        options.bootstrap_ask_ms = self.bootstrap_ask_ms;
        options.facts = [
            ("atomic.group_id", self.group_id.clone()),
            ("atomic.total_slots", self.total_slots.to_string()),
            ("atomic.min_slot", self.min_slot.to_string()),
            ("atomic.max_slot", self.max_slot.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        options.max_task_bytes = MAX_COMMAND_BYTES;
        if let Some(lanes) = self.lanes {
            options.lanes = lanes;
            options.fuse_net = lanes == 1;
        }
        if let Some(workers) = self.fsm_workers {
            options.fsm_workers = workers;
        }
        // Many lanes and workers, which share it, need more than the default.
        let least = options.lanes * options.fsm_workers * (1 << 20);
        options.max_queued_bytes = options.max_queued_bytes.max(least);
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
        if let Some(listen) = self.listen {
            text("listen", listen.to_string());
        }
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
        if let Some(id) = &self.cluster_id {
            table.insert("cluster_id".to_owned(), Value::String(id.clone()));
        }
        if self.bootstrap_ask_ms != 2000 {
            table.insert("bootstrap_ask_ms".to_owned(), Value::Integer(self.bootstrap_ask_ms as i64));
        }
        if self.require_cluster_id {
            table.insert("require_cluster_id".to_owned(), Value::Boolean(true));
        }
        if self.lease_reads {
            table.insert("lease_reads".to_owned(), Value::Boolean(true));
        }
        table.to_string()
    }
}

#[cfg(test)]
mod tests;
