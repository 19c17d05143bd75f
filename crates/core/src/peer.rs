//! Who takes part: peer ids, configurations, configuration entries.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use crate::types::LogId;

/// Identity of a replica: `ip:port[:idx[:priority]]` (SOFAJRaft's `PeerId`).
///
/// Two ids are the same peer when ip, port and idx are equal; the election priority is an attribute. Texts
/// are compared as they stand: `localhost` is not `127.0.0.1`. Cloning costs one reference count.
#[derive(Clone)]
pub struct PeerId {
    ip: Arc<str>,
    port: u16,
    idx: u32,
    priority: i32,
}

/// Bytes of a peer's text at most: longer than any host name, and short enough to be kept for whoever names itself so.
const MAX_TEXT: usize = 320;

/// Election priority of a peer that takes no part in priority election.
pub const PRIORITY_DISABLED: i32 = -1;

/// Why a text is not a [`PeerId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "peer id {0:?} is not valid: expected ip:port, ip:port:idx, ip:port::priority or ip:port:idx:priority"
)]
pub struct InvalidPeerId(pub String);

impl PeerId {
    /// A peer with idx 0 and no election priority.
    pub fn new(ip: &str, port: u16) -> PeerId {
        PeerId { ip: ip.into(), port, idx: 0, priority: PRIORITY_DISABLED }
    }

    /// SOFAJRaft's empty peer, `0.0.0.0:0`, which stands for "nobody" on the wire and on disk.
    pub fn empty() -> PeerId {
        PeerId::new("0.0.0.0", 0)
    }

    /// The same peer with this election priority.
    #[must_use]
    pub fn with_priority(self, priority: i32) -> PeerId {
        PeerId { priority, ..self }
    }

    /// Whether this is the empty peer.
    pub fn is_empty(&self) -> bool {
        &*self.ip == "0.0.0.0" && self.port == 0 && self.idx == 0
    }

    /// The ip or host name, as written.
    pub fn ip(&self) -> &str {
        &self.ip
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Distinguishes replicas of one group behind the same address; usually 0.
    pub fn idx(&self) -> u32 {
        self.idx
    }

    /// Election priority: -1 disabled, 0 never elected, larger is preferred.
    pub fn priority(&self) -> i32 {
        self.priority
    }

    /// `ip:port`, the address that others connect to.
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.ip, self.port)
    }
}

impl PartialEq for PeerId {
    fn eq(&self, other: &PeerId) -> bool {
        self.port == other.port && self.idx == other.idx && self.ip == other.ip
    }
}

impl Eq for PeerId {}

impl Hash for PeerId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.port.hash(state);
        self.idx.hash(state);
        self.ip.hash(state);
    }
}

impl PartialOrd for PeerId {
    fn partial_cmp(&self, other: &PeerId) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PeerId {
    fn cmp(&self, other: &PeerId) -> std::cmp::Ordering {
        (&self.ip, self.port, self.idx).cmp(&(&other.ip, other.port, other.idx))
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.ip, self.port)?;
        match (self.idx, self.priority) {
            (0, PRIORITY_DISABLED) => Ok(()),
            (idx, PRIORITY_DISABLED) => write!(f, ":{idx}"),
            (0, priority) => write!(f, "::{priority}"),
            (idx, priority) => write!(f, ":{idx}:{priority}"),
        }
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PeerId {
    type Err = InvalidPeerId;

    fn from_str(text: &str) -> Result<PeerId, InvalidPeerId> {
        let invalid = || InvalidPeerId(text.to_owned());
        if text.len() > MAX_TEXT {
            return Err(invalid());
        }
        // An IPv6 address keeps its brackets as part of the ip text.
        let (ip, rest) = match text.strip_prefix('[').and_then(|t| t.find(']')) {
            Some(end) => {
                let (ip, rest) = text.split_at(end + 2);
                (ip, rest.strip_prefix(':').ok_or_else(invalid)?)
            }
            None => text.split_once(':').ok_or_else(invalid)?,
        };
        let mut parts = rest.split(':');
        let port = parts.next().and_then(|p| p.parse().ok()).ok_or_else(invalid)?;
        let (idx, priority) = match (parts.next(), parts.next(), parts.next()) {
            (None, _, _) => (0, PRIORITY_DISABLED),
            (Some(idx), None, _) => (idx.parse().map_err(|_| invalid())?, PRIORITY_DISABLED),
            (Some(idx), Some(priority), None) => {
                let idx = if idx.is_empty() { 0 } else { idx.parse().map_err(|_| invalid())? };
                (idx, priority.parse().ok().filter(|p| *p >= -1).ok_or_else(invalid)?)
            }
            _ => return Err(invalid()),
        };
        Ok(PeerId { ip: ip.into(), port, idx, priority })
    }
}

/// The members of a group: voters and learners, disjoint (SOFAJRaft's `Configuration`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Voters, in the order in which the configuration entry lists them.
    pub peers: Vec<PeerId>,
    /// Replicas that receive the log but never vote or count.
    pub learners: Vec<PeerId>,
}

/// Why a text or a set of peers is not a usable [`Configuration`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfiguration {
    /// One of the peers cannot be parsed.
    #[error(transparent)]
    Peer(#[from] InvalidPeerId),
    /// A peer is listed twice, or as voter and as learner.
    #[error("configuration lists peer {0} more than once; list each peer once, as voter or as learner")]
    Duplicate(PeerId),
    /// A configuration without voters can decide nothing.
    #[error("configuration has no voter; name at least one peer as ip:port")]
    NoVoter,
}

impl Configuration {
    /// A configuration of these voters and no learners.
    pub fn of_peers(peers: Vec<PeerId>) -> Configuration {
        Configuration { peers, learners: Vec::new() }
    }

    /// Whether it has neither voters nor learners.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.learners.is_empty()
    }

    /// Whether `peer` votes.
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.peers.contains(peer)
    }

    /// Voters that make a majority: ⌊n/2⌋+1.
    pub fn quorum(&self) -> usize {
        self.peers.len() / 2 + 1
    }

    /// Checks that there is a voter and that no peer stands twice.
    ///
    /// # Errors
    /// [`InvalidConfiguration`] with the offending peer.
    pub fn validate(&self) -> Result<(), InvalidConfiguration> {
        if self.peers.is_empty() {
            return Err(InvalidConfiguration::NoVoter);
        }
        let all: Vec<&PeerId> = self.peers.iter().chain(&self.learners).collect();
        for (i, peer) in all.iter().enumerate() {
            if all[..i].contains(peer) {
                return Err(InvalidConfiguration::Duplicate((*peer).clone()));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for peer in &self.peers {
            write!(f, "{separator}{peer}")?;
            separator = ",";
        }
        for learner in &self.learners {
            write!(f, "{separator}{learner}/learner")?;
            separator = ",";
        }
        Ok(())
    }
}

impl FromStr for Configuration {
    type Err = InvalidConfiguration;

    /// Parses `a:1,b:2,c:3/learner`; the empty text is the empty configuration.
    fn from_str(text: &str) -> Result<Configuration, InvalidConfiguration> {
        let mut conf = Configuration::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            match part.strip_suffix("/learner") {
                Some(learner) => conf.learners.push(learner.parse()?),
                None => conf.peers.push(part.parse()?),
            }
        }
        if !conf.is_empty() {
            conf.validate()?;
        }
        Ok(conf)
    }
}

/// A configuration with the log position that carries it (SOFAJRaft's `ConfigurationEntry`).
///
/// While `old` is not empty the group is *joint*: every decision needs both majorities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigurationEntry {
    /// Where the entry stands in the log; 0/0 for the initial configuration before it is logged.
    pub id: LogId,
    /// The (new) configuration.
    pub conf: Configuration,
    /// The configuration that is being left; empty unless joint.
    pub old_conf: Configuration,
}

impl ConfigurationEntry {
    /// Whether both `conf` and `old_conf` decide.
    pub fn is_joint(&self) -> bool {
        !self.old_conf.peers.is_empty()
    }

    /// Whether `peer` votes in either half.
    pub fn is_voter(&self, peer: &PeerId) -> bool {
        self.conf.contains(peer) || self.old_conf.contains(peer)
    }

    /// Whether `peer` is a learner and votes in neither half.
    pub fn is_learner(&self, peer: &PeerId) -> bool {
        !self.is_voter(peer) && (self.conf.learners.contains(peer) || self.old_conf.learners.contains(peer))
    }

    /// Whether `peer` is a member: a voter or a learner in either half.
    pub fn names(&self, peer: &PeerId) -> bool {
        self.is_voter(peer) || self.conf.learners.contains(peer) || self.old_conf.learners.contains(peer)
    }

    /// Every voter of both halves, each once, in the order of the entry.
    pub fn voters(&self) -> impl Iterator<Item = &PeerId> {
        self.conf.peers.iter().chain(self.old_conf.peers.iter().filter(|p| !self.conf.contains(p)))
    }

    /// Every learner of both halves that does not vote, each once.
    pub fn learners(&self) -> impl Iterator<Item = &PeerId> {
        let old = self.old_conf.learners.iter().filter(|p| !self.conf.learners.contains(p));
        self.conf.learners.iter().chain(old).filter(|p| !self.is_voter(p))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_texts_round_trip() {
        for (text, canonical) in [
            ("127.0.0.1:8081", "127.0.0.1:8081"),
            ("127.0.0.1:8081:3", "127.0.0.1:8081:3"),
            ("localhost:80:0:7", "localhost:80::7"),
            ("h:1::100", "h:1::100"),
            ("h:1:2:3", "h:1:2:3"),
            ("[::1]:80:1", "[::1]:80:1"),
        ] {
            assert_eq!(text.parse::<PeerId>().unwrap().to_string(), canonical);
        }
        for bad in
            ["", "host", "host:", "host:80:", "host:80::", "host:x", "host:80:1:2:3", "[::1]80", "h:70000"]
        {
            assert!(bad.parse::<PeerId>().is_err(), "{bad:?}");
        }
        // What a stranger calls itself is remembered: as voted for, as leader, as parsed.
        let long = format!("{}:80", "h".repeat(MAX_TEXT));
        assert!(long.parse::<PeerId>().is_err());
    }

    #[test]
    fn priority_is_not_identity() {
        let plain: PeerId = "a:1".parse().unwrap();
        let preferred: PeerId = "a:1::100".parse().unwrap();
        assert_eq!(plain, preferred);
        assert_ne!(plain, "a:1:1".parse().unwrap());
    }

    #[test]
    fn configurations_are_checked() {
        let conf: Configuration = "a:1, b:2,c:3/learner".parse().unwrap();
        assert_eq!(conf.to_string(), "a:1,b:2,c:3/learner");
        assert_eq!(conf.quorum(), 2);
        assert!("a:1,a:1/learner".parse::<Configuration>().is_err());
        assert!("a:1/learner".parse::<Configuration>().is_err());
    }

    #[test]
    fn joint_voters_are_listed_once() {
        let entry = ConfigurationEntry {
            id: LogId::default(),
            conf: "a:1,b:1,d:1/learner".parse().unwrap(),
            old_conf: "b:1,c:1,d:1".parse().unwrap(),
        };
        let voters: Vec<String> = entry.voters().map(ToString::to_string).collect();
        assert_eq!(voters, ["a:1", "b:1", "c:1", "d:1"]);
        assert_eq!(entry.learners().count(), 0, "a peer that still votes is no learner");
    }
}
