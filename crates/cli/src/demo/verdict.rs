//! Whether the replicas are equal, and the demo's report.

use std::fmt;
use std::time::Duration;

use ringraft_atomic::ServerDescription;
use serde_json::{Value, json};

/// Whether every replica of every group has applied the same commands; an error names the first that has failed.
pub fn is_quiet(servers: &[ServerDescription]) -> Result<bool, String> {
    for server in servers {
        if let Some(group) = server.groups.iter().find(|group| !group.error.is_empty()) {
            return Err(format!("{} on {} has failed: {}", group.group, server.node, group.error));
        }
    }
    let Some((first, others)) = servers.split_first() else { return Ok(true) };
    let equal = |other: &ServerDescription| {
        other.groups.len() == first.groups.len()
            && other
                .groups
                .iter()
                .zip(&first.groups)
                .all(|(a, b)| a.group == b.group && a.fsm_index == b.fsm_index)
    };
    Ok(others.iter().all(equal))
}

/// Groups whose replicas differ although they have applied the same commands, and how.
pub fn differences(servers: &[ServerDescription]) -> Vec<String> {
    let Some((first, others)) = servers.split_first() else { return Vec::new() };
    let differs = |position: usize| {
        let group = &first.groups[position];
        let other = others.iter().find(|other| {
            other.groups.get(position).is_none_or(|replica| replica.fsm_hash != group.fsm_hash)
        })?;
        let hash =
            |server: &ServerDescription| server.groups.get(position).map_or(0, |replica| replica.fsm_hash);
        Some(format!(
            "{} at index {}: {} has {:016x}, {} has {:016x}",
            group.group,
            group.fsm_index,
            first.node,
            hash(first),
            other.node,
            hash(other)
        ))
    };
    (0..first.groups.len()).filter_map(differs).collect()
}

/// Everything that the demo has found out.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub groups: usize,
    pub acked: u64,
    pub unknown: u64,
    pub failed: u64,
    pub reads: u64,
    pub load_time: Duration,
    pub p50_us: u64,
    pub p99_us: u64,
    pub kills: usize,
    pub groups_moved: usize,
    /// How long each group that lost its leader was out.
    pub failovers: Vec<Duration>,
    /// How long each restarted server took to have what the others had.
    pub catch_ups: Vec<Duration>,
    pub counters: usize,
    pub lost: u64,
    pub diverged: u64,
    /// Threads of the server process with the most of them.
    pub threads: u64,
    pub first_difference: Option<String>,
    pub first_failure: Option<String>,
    /// What happened to the members, where that is shown.
    pub members: Option<Members>,
}

/// A cluster that grew, moved its leaders, and shrank.
#[derive(Clone, Debug, Default)]
pub struct Members {
    /// Members of every group at first, as `ip:port`.
    pub before: Vec<String>,
    /// Members of every group in the end.
    pub after: Vec<String>,
    /// Rounds of transfers, each of which moved the leader of every group.
    pub moves: usize,
    /// Leaders that were removed from their groups.
    pub leaders_removed: usize,
    /// How long each server took to join every group.
    pub joins: Vec<Duration>,
    /// How long each group was without an answer when its leader handed over.
    pub hand_overs: Vec<Duration>,
    /// Reads that failed because nobody was known to lead.
    pub reads_leaderless: u64,
    /// Reads that failed otherwise.
    pub reads_failed: u64,
}

impl Members {
    fn ok(&self) -> bool {
        self.reads_failed == 0 && !self.hand_overs.is_empty()
    }

    fn to_json(&self) -> Value {
        json!({
            "members_before": self.before,
            "members_after": self.after,
            "moves": self.moves,
            "leaders_removed": self.leaders_removed,
            "join_ms_max": percentile_ms(&self.joins, 100),
            "hand_overs": self.hand_overs.len(),
            "hand_over_ms_p50": percentile_ms(&self.hand_overs, 50),
            "hand_over_ms_p99": percentile_ms(&self.hand_overs, 99),
            "hand_over_ms_max": percentile_ms(&self.hand_overs, 100),
            "reads_leaderless": self.reads_leaderless,
            "reads_failed": self.reads_failed,
        })
    }
}

impl Report {
    /// Whether the cluster kept every promise.
    pub fn ok(&self) -> bool {
        self.lost == 0
            && self.diverged == 0
            && self.acked > 0
            && self.members.as_ref().is_none_or(Members::ok)
    }

    fn writes_per_s(&self) -> f64 {
        self.acked as f64 / self.load_time.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The object of `--json`.
    pub fn to_json(&self) -> Value {
        let mut all = self.common_json();
        if let (Some(all), Some(members)) = (all.as_object_mut(), &self.members)
            && let Value::Object(members) = members.to_json()
        {
            all.extend(members);
        }
        all
    }

    fn common_json(&self) -> Value {
        json!({
            "ok": self.ok(),
            "groups": self.groups,
            "acked": self.acked,
            "unknown": self.unknown,
            "failed": self.failed,
            "reads": self.reads,
            "writes_per_s": self.writes_per_s().round(),
            "p50_us": self.p50_us,
            "p99_us": self.p99_us,
            "kills": self.kills,
            "groups_moved": self.groups_moved,
            "failover_ms_max": percentile_ms(&self.failovers, 100),
            "failover_ms_p99": percentile_ms(&self.failovers, 99),
            "failover_ms_p50": percentile_ms(&self.failovers, 50),
            "catch_up_ms_max": percentile_ms(&self.catch_ups, 100),
            "counters": self.counters,
            "lost": self.lost,
            "diverged": self.diverged,
            "threads": self.threads,
            "first_difference": self.first_difference,
            "first_failure": self.first_failure,
        })
    }
}

/// The time that this share of the times does not exceed, in whole milliseconds; 0 when there are none.
fn percentile_ms(times: &[Duration], percent: usize) -> u64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).map_or(0, |time| time.as_millis() as u64)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<22} {value}");
        row("writes acknowledged", format!("{} ({:.0}/s)", self.acked, self.writes_per_s()))?;
        row("latency p50 / p99", format!("{:.1} / {:.1} ms", ms(self.p50_us), ms(self.p99_us)))?;
        row("reads", self.reads.to_string())?;
        row("unknown / failed", format!("{} / {}", self.unknown, self.failed))?;
        if let Some(failure) = &self.first_failure {
            row("  first failure", failure.clone())?;
        }
        let spread = |times: &[Duration]| {
            let out = |percent| percentile_ms(times, percent);
            format!("p50 {} ms, p99 {} ms, max {} ms", out(50), out(99), out(100))
        };
        if let Some(members) = &self.members {
            row("members at first", members.before.join(" "))?;
            row("members in the end", members.after.join(" "))?;
            row("joining", format!("max {} ms a server", percentile_ms(&members.joins, 100)))?;
            row("leaders moved", format!("{} times, {} removed", members.moves, members.leaders_removed))?;
            row(
                "pause per hand-over",
                format!("{} of {}", spread(&members.hand_overs), members.hand_overs.len()),
            )?;
            row("reads without leader", members.reads_leaderless.to_string())?;
            row("reads failed", members.reads_failed.to_string())?;
        } else {
            row("kill -9", format!("{}, {} groups moved", self.kills, self.groups_moved))?;
            row("failover", spread(&self.failovers))?;
            row("catch-up", format!("max {} ms", percentile_ms(&self.catch_ups, 100)))?;
        }
        row("counters checked", self.counters.to_string())?;
        row("lost / diverged", format!("{} / {}", self.lost, self.diverged))?;
        row("threads a server", format!("{} for {} groups", self.threads, self.groups))?;
        if let Some(difference) = &self.first_difference {
            row("first difference", difference.clone())?;
        }
        let verdict = if self.ok() { "every acknowledged write is there" } else { "FAILED" };
        write!(f, "  {:<22} {verdict}", "verdict")
    }
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use ringraft_atomic::GroupDescription;

    use super::*;

    fn server(groups: &[(u64, u64)]) -> ServerDescription {
        let group = |(i, (fsm_index, fsm_hash)): (usize, &(u64, u64))| GroupDescription {
            group: format!("g_{i}"),
            fsm_index: *fsm_index,
            fsm_hash: *fsm_hash,
            ..GroupDescription::default()
        };
        ServerDescription {
            groups: groups.iter().enumerate().map(group).collect(),
            ..ServerDescription::default()
        }
    }

    #[test]
    fn quiet_is_when_all_have_applied_the_same() {
        assert_eq!(is_quiet(&[server(&[(1, 1), (2, 2)]), server(&[(1, 1), (2, 3)])]), Ok(true));
        assert_eq!(is_quiet(&[server(&[(1, 1), (2, 2)]), server(&[(1, 1), (3, 2)])]), Ok(false));
        assert_eq!(is_quiet(&[server(&[(1, 1)]), server(&[])]), Ok(false));
        let mut failed = server(&[(1, 1)]);
        failed.groups[0].error = "disk".into();
        assert!(is_quiet(&[server(&[(1, 1)]), failed]).is_err());
    }

    #[test]
    fn differences_are_found_and_named() {
        let same = [server(&[(1, 5), (2, 6)]), server(&[(1, 5), (2, 6)])];
        assert!(differences(&same).is_empty());
        let found = differences(&[server(&[(1, 5), (2, 6)]), server(&[(1, 5), (2, 7)])]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("g_1 at index 2"), "{found:?}");
    }

    #[test]
    fn a_report_fails_for_what_was_lost_or_never_tried() {
        let good = Report { acked: 1, ..Report::default() };
        assert!(good.ok());
        assert!(!Report { lost: 1, ..good.clone() }.ok());
        assert!(!Report { diverged: 1, ..good.clone() }.ok());
        assert!(!Report { acked: 0, ..good.clone() }.ok());
        let members = Members { hand_overs: vec![Duration::from_millis(1)], ..Members::default() };
        let with = |members: Members| Report { members: Some(members), ..good.clone() };
        assert!(with(members.clone()).ok());
        assert!(with(Members { reads_leaderless: 1, ..members.clone() }).ok());
        assert!(!with(Members { reads_failed: 1, ..members.clone() }).ok());
        assert!(!with(Members::default()).ok(), "nothing was handed over");
        assert_eq!(with(members).to_json()["hand_over_ms_max"], 1);
    }

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(
            (percentile_ms(&times, 50), percentile_ms(&times, 99), percentile_ms(&times, 100)),
            (50, 99, 100)
        );
        assert_eq!((percentile_ms(&times[..1], 99), percentile_ms(&[], 99)), (1, 0));
    }
}
