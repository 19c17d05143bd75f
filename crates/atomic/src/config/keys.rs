//! The keys of the file and the types of their values.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::PathBuf;

use ringraft::{Configuration, PeerId};
use toml::{Table, Value};

use super::{ConfigError, Store};

/// Every key, with a value that would do.
pub(super) const KEYS: [(&str, &str); 18] = [
    ("group_id", "\"atomic\""),
    ("data_path", "\"/var/lib/ringraft\""),
    ("conf", "\"127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083\""),
    ("server_address", "\"127.0.0.1:8081\""),
    ("listen", "\"0.0.0.0:8081\""),
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
    ("cluster_id", "\"0123456789abcdef0123456789abcdef\""),
    ("require_cluster_id", "true"),
    ("bootstrap_ask_ms", "2000"),
];

fn example(key: &str) -> &'static str {
    KEYS.iter().find(|(name, _)| *name == key).map_or("…", |(_, value)| value)
}

/// The values of a file, by type.
pub(super) struct Values<'a>(pub(super) &'a Table);

impl Values<'_> {
    pub(super) fn text(&self, key: &'static str) -> Result<Option<String>, ConfigError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => {
                Err(ConfigError::Blank { key, example: example(key) })
            }
            Some(Value::String(text)) => Ok(Some(text.trim().to_owned())),
            Some(other) => Err(wrong_type(key, other, "a text in quotes")),
        }
    }

    pub(super) fn required_text(&self, key: &'static str) -> Result<String, ConfigError> {
        self.text(key)?.ok_or_else(|| missing(key))
    }

    /// A path; `~` stands for a directory in shells only.
    pub(super) fn path(&self, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        match self.text(key)? {
            Some(value) if value.starts_with('~') => Err(ConfigError::Home { key, value }),
            value => Ok(value.map(PathBuf::from)),
        }
    }

    pub(super) fn number(&self, key: &'static str, min: i64, max: i64) -> Result<Option<i64>, ConfigError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Integer(value)) if (min..=max).contains(value) => Ok(Some(*value)),
            Some(Value::Integer(value)) => Err(ConfigError::Range { key, value: *value, min, max }),
            Some(other) => Err(wrong_type(key, other, "a whole number")),
        }
    }

    pub(super) fn count(&self, key: &'static str, max: usize) -> Result<Option<usize>, ConfigError> {
        Ok(self.number(key, 1, max as i64)?.map(|value| value as usize))
    }

    pub(super) fn flag(&self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Boolean(value)) => Ok(Some(*value)),
            Some(other) => Err(wrong_type(key, other, "true or false without quotes")),
        }
    }

    pub(super) fn millis(&self, key: &'static str, min: i64) -> Result<Option<u64>, ConfigError> {
        Ok(self.number(key, min, 3_600_000)?.map(|value| value as u64))
    }

    pub(super) fn store(&self) -> Result<Store, ConfigError> {
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

pub(super) fn missing(key: &'static str) -> ConfigError {
    ConfigError::Missing { key, example: example(key) }
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

pub(super) fn parse_address(key: &'static str, text: &str) -> Result<PeerId, ConfigError> {
    let invalid = || ConfigError::Address { key, value: text.to_owned() };
    let peer: PeerId = text.parse().map_err(|_| invalid())?;
    if peer.ip().is_empty() || peer.port() == 0 {
        return Err(invalid());
    }
    let ip: Result<IpAddr, _> = peer.ip().trim_start_matches('[').trim_end_matches(']').parse();
    if ip.is_ok_and(|ip| ip.to_canonical().is_unspecified()) {
        return Err(ConfigError::Unspecified { key, value: text.to_owned() });
    }
    Ok(peer)
}

pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, ConfigError> {
    let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    address.ok_or_else(|| ConfigError::Listen(text.to_owned()))
}

pub(super) fn parse_conf(text: &str) -> Result<Configuration, ConfigError> {
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
pub(super) fn hint_for(key: &str) -> String {
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
