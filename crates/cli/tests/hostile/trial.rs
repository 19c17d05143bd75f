//! One attack on one cluster: honest load before, meanwhile and afterwards, and what must hold all the time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::attack::load::{Load, LoadOptions, p99_ms, silent_seconds};
use crate::attack::sandbox::Sandbox;
use crate::attack::servers::{Plan, SERVERS, Servers};
use crate::attack::verdict::Verdict;
use crate::attack::watch::{Logs, Watch};

/// Honest load alone, whose latency the attack's is printed beside.
const QUIET: Duration = Duration::from_secs(2);
/// The first second of an attack does not count: what was on its way may end in it.
const GRACE: Duration = Duration::from_secs(1);
/// How long after the attack a write may take to be acknowledged, and the cluster to be whole.
const AFTERWARDS: Duration = Duration::from_secs(10);

/// What must hold.
pub(crate) struct Rules {
    /// Most resident memory of a server, in MiB, at any moment of the attack.
    pub(crate) rss_mib: u64,
    /// Most descriptors of a server.
    pub(crate) descriptors: u64,
    /// Most lines that a server logs.
    pub(crate) log_lines: u64,
    /// Most of them that are warnings or errors.
    pub(crate) warnings: u64,
    pub(crate) elections: Elections,
}

/// Which leaders may fall. The writes of the others must go on: one is acknowledged in each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elections {
    Nowhere,
    /// In this group.
    Of(usize),
    /// Everywhere: the attack itself says when writes must go on.
    Anywhere,
}

impl Elections {
    fn may_be_in(self, group: usize) -> bool {
        self == Elections::Anywhere || self == Elections::Of(group)
    }
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            rss_mib: 128,
            descriptors: 8192,
            log_lines: 100,
            warnings: 100,
            elections: Elections::Nowhere,
        }
    }
}

/// A cluster under load, for the attack to act on.
pub(crate) struct Trial<'a> {
    pub(crate) servers: &'a mut Servers,
    pub(crate) load: &'a Load,
    pub(crate) verdict: &'a mut Verdict,
}

impl Trial<'_> {
    /// Where the servers listen.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        (0..SERVERS).filter_map(|server| self.servers.address(server).parse().ok()).collect()
    }

    /// Lets the attack go on.
    pub(crate) fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Notes how long something took, if it came.
    pub(crate) fn note_pause(&mut self, what: &str, time: Option<Duration>) {
        let time = time.map_or("never".to_owned(), |time| format!("after {} ms", time.as_millis()));
        self.verdict.note(format!("{what} {time}"));
    }
}

/// Starts a cluster, puts load on it, lets `attack` loose, and judges.
pub(crate) fn run(
    sandbox: &Sandbox,
    plan: Plan,
    load: LoadOptions,
    rules: &Rules,
    attack: impl FnOnce(&mut Trial<'_>) -> Result<(), String>,
) -> Result<Verdict, String> {
    let mut verdict = Verdict::new();
    let mut servers = Servers::start(sandbox.dir.path(), plan)?;
    let load = Load::start(servers.client()?, load);
    let start = Instant::now();
    load.wait_for_ack(None, start, AFTERWARDS).ok_or("nothing was acknowledged before the attack")?;
    std::thread::sleep(QUIET);

    let quiet = load.acks_between(start, Instant::now());
    let terms = servers.terms();
    let logs = Logs::mark(servers.logs());
    let watch = Watch::start(servers.pids());
    let begin = Instant::now();
    attack(&mut Trial { servers: &mut servers, load: &load, verdict: &mut verdict })?;
    let end = Instant::now();
    let peak = watch.stop();

    let after = load.wait_for_ack(None, end, AFTERWARDS);
    verdict.expect(after.is_some(), || "no write was acknowledged after the attack".into());
    if let Err(error) = servers.wait_until_whole(AFTERWARDS) {
        verdict.failures.push(error);
    }
    let terms_now = servers.terms();
    let number = |group: &str| group.rsplit('_').next().and_then(|number| number.parse().ok());
    let fallen = terms
        .iter()
        .filter(|(group, term)| terms_now.get(*group).is_none_or(|now| now != *term))
        .filter(|(group, _)| number(group).is_none_or(|group| !rules.elections.may_be_in(group)))
        .count();
    verdict.expect(fallen == 0, || format!("leaders fell in {fallen} of {} groups", terms.len()));
    verdict.failures.extend(servers.ended());
    let logged = logs.since();
    let done = load.finish();

    let attacked = done.acks.iter().filter(|ack| (begin..end).contains(&ack.at)).copied().collect::<Vec<_>>();
    let silent = silent_seconds(&done.acks, begin + GRACE, end, |group| !rules.elections.may_be_in(group));
    verdict.expect(rules.elections == Elections::Anywhere || silent.is_empty(), || {
        format!("no commit in the seconds {silent:?} of {}", (end - begin).as_secs())
    });
    verdict.expect(peak.rss_mib <= rules.rss_mib, || {
        format!("{} MiB of memory, {} allowed", peak.rss_mib, rules.rss_mib)
    });
    verdict.expect(peak.descriptors <= rules.descriptors, || {
        format!("{} descriptors, {} allowed", peak.descriptors, rules.descriptors)
    });
    verdict.expect(logged.lines <= rules.log_lines, || {
        format!("{} log lines, {} allowed", logged.lines, rules.log_lines)
    });
    verdict.expect(logged.warnings <= rules.warnings, || {
        format!("{} warnings in a log, {} allowed", logged.warnings, rules.warnings)
    });
    verdict.expect(logged.escapes == 0, || format!("{} raw escape bytes in a log", logged.escapes));
    verdict.expect(logged.forged == 0, || format!("{} forged lines in a log", logged.forged));
    verdict.expect(done.lost == 0, || format!("{} counters are wrong or cannot be read", done.lost));
    verdict.failures.extend(done.failures);
    let rate = attacked.len() as f64 / (end - begin).as_secs_f64();
    verdict.note(format!("{rate:.0} acks/s, {} unknown, {} refused", done.unknown, done.refused));
    verdict.note(format!("p99 {:.0} ms, quiet {:.0} ms", p99_ms(&attacked), p99_ms(&quiet)));
    verdict.note(format!(
        "rss {} MiB, fds {}, log lines {}, warnings {}",
        peak.rss_mib, peak.descriptors, logged.lines, logged.warnings
    ));
    Ok(verdict)
}
