//! Peers that do not answer, refuse what they are sent, or whose answers do not count: one line in the log for each host, not one for each group
//! that misses it.

use ringraft_core::{GroupId, NodeDescription, PeerId, Status, Time};
use rustc_hash::FxHashMap;

/// Time between two lines about one host.
const PAUSE_MS: u64 = 30_000;

/// Hosts remembered at most; beyond that, those of which nothing was told lately are forgotten.
const HOSTS: usize = 1024;

/// Characters of a refusal that are shown.
const SHOWN: usize = 240;

/// What was told of which host.
#[derive(Debug, Default)]
pub(super) struct SilentPeers {
    silent: Lines,
    refusing: Lines,
    of_another_life: Lines,
}

/// When which host was told of last, for one kind of trouble.
#[derive(Debug, Default)]
struct Lines(FxHashMap<String, Told>);

#[derive(Debug)]
struct Told {
    at: Time,
    /// Requests that were not told of since.
    left_out: u64,
}

impl SilentPeers {
    /// A request of a group, which is described as it is now, was not answered in time. Which peer it went to the node does not say: those that
    /// are paused after an error are named, so that a host that refuses connections may stand beside one that hangs.
    pub(super) fn tell(&mut self, now: Time, node: &NodeDescription) {
        for r in node.replicators.iter().filter(|r| r.consecutive_errors > 0) {
            let host = r.peer.endpoint();
            if let Some(left_out) = self.silent.is_due(now, &host) {
                tracing::warn!(%host, group = %node.group_id, left_out, "no answer in time, probing again");
            }
        }
    }

    /// A host refused entries or a heartbeat of a group, and will go on doing so until somebody changes something there: its replica stays
    /// behind. The words are its own, and could forge lines.
    pub(super) fn tell_refusal(&mut self, now: Time, host: &str, group: &GroupId, status: &Status) {
        if let Some(left_out) = self.refusing.is_due(now, host) {
            let said: String = status.message.chars().take(SHOWN).collect();
            tracing::warn!(%host, %group, ?said, left_out, "a peer refuses what it is sent; its replica stays behind until that is mended");
        }
    }

    /// An answer of a peer does not count, since it is not of the life that asked.
    pub(super) fn tell_of_another_life(
        &mut self,
        now: Time,
        from: &PeerId,
        group: &GroupId,
        status: &Status,
    ) {
        let host = from.endpoint();
        if let Some(left_out) = self.of_another_life.is_due(now, &host) {
            tracing::warn!(%host, %group, %status, left_out, "a peer cannot take part");
        }
    }
}

impl Lines {
    /// Takes note of one more line; how many were left out before it if it is to be told.
    fn is_due(&mut self, now: Time, host: &str) -> Option<u64> {
        if let Some(told) = self.0.get_mut(host) {
            if now < told.at.after_millis(PAUSE_MS) {
                told.left_out += 1;
                return None;
            }
            told.at = now;
            return Some(std::mem::take(&mut told.left_out));
        }
        if self.0.len() >= HOSTS {
            self.0.retain(|_, told| now < told.at.after_millis(PAUSE_MS));
        }
        if self.0.len() < HOSTS {
            self.0.insert(host.to_owned(), Told { at: now, left_out: 0 });
        }
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_told_of_once_in_a_while_with_what_was_left_out() {
        let mut peers = Lines::default();
        let at = |ms: u64| Time(ms * 1000);
        assert_eq!(peers.is_due(at(0), "a:1"), Some(0));
        for ms in 1..=500 {
            assert_eq!(peers.is_due(at(ms), "a:1"), None);
        }
        assert_eq!(peers.is_due(at(500), "b:1"), Some(0), "each host for itself");
        assert_eq!(peers.is_due(at(PAUSE_MS), "a:1"), Some(500));
        assert_eq!(peers.is_due(at(2 * PAUSE_MS), "a:1"), Some(0));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut peers = Lines::default();
        for host in 0..3 * HOSTS {
            peers.is_due(Time(host as u64), &format!("h{host}:1"));
        }
        assert!(peers.0.len() <= HOSTS);
        assert_eq!(peers.is_due(Time(3 * PAUSE_MS * 1000), "new:1"), Some(0));
        assert_eq!(peers.0.len(), 1);
    }
}
