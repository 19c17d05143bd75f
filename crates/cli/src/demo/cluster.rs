//! Server processes on loopback, which never outlive the demo: three at first, and spare ones that may join.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringraft::{Configuration, PeerId};
use ringraft_atomic::client::describe;
use ringraft_atomic::{AtomicConfig, ServerDescription, Store};

use crate::signals::Interrupted;

/// Servers of a cluster at first.
pub const SERVERS: usize = 3;

/// How long anything may take that should take a second or two.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Below the ports that the system gives to outgoing connections: one of those could take a server's port while it is down, and a client
/// that keeps trying could even connect to itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// What a demo's cluster is made of.
pub struct ClusterOptions {
    /// Where the servers keep their files.
    pub dir: PathBuf,
    /// Range groups.
    pub groups: usize,
    /// A follower's patience.
    pub election_timeout_ms: u64,
    /// Random spread on top of it.
    pub max_election_delay_ms: u64,
    /// From which port on free ones are looked for.
    pub seed: u64,
    /// Servers that are not started and no members at first.
    pub spare: usize,
}

struct Server {
    peer: PeerId,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// Server processes. Dropping it kills them.
pub struct Cluster {
    servers: Vec<Server>,
    interrupted: Interrupted,
}

impl Cluster {
    /// Writes the configurations and starts the first three processes on blank directories.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub fn start(options: &ClusterOptions, interrupted: Interrupted) -> Result<Cluster, String> {
        let peers: Vec<PeerId> = free_ports(SERVERS + options.spare, options.seed)?
            .map(|port| PeerId::new("127.0.0.1", port))
            .collect();
        let conf = Configuration::of_peers(peers[..SERVERS].to_vec());
        let mut cluster = Cluster { servers: Vec::new(), interrupted };
        for (i, peer) in peers.into_iter().enumerate() {
            let dir = options.dir.join(format!("server{}", i + 1));
            let server = write_server(&dir, peer, &conf, options)
                .map_err(|error| format!("cannot write to {}: {error}", dir.display()))?;
            cluster.servers.push(server);
        }
        for server in 0..SERVERS {
            cluster.spawn(server, &["--bootstrap"])?;
        }
        Ok(cluster)
    }

    /// Starts a spare server on a blank directory; it is no member of anything before a leader adds it.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub fn join(&mut self, server: usize) -> Result<(), String> {
        self.spawn(server, &["--rejoin"])
    }

    /// The servers that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.servers.len()).filter(|server| self.servers[*server].child.is_some()).collect()
    }

    /// Peer ids of the servers, those that have not been started included.
    pub fn peers(&self) -> Vec<PeerId> {
        self.servers.iter().map(|server| server.peer.clone()).collect()
    }

    /// Process id of a running server.
    pub fn pid(&self, server: usize) -> Option<u32> {
        self.servers[server].child.as_ref().map(Child::id)
    }

    /// Ends a server without warning (SIGKILL).
    ///
    /// # Errors
    /// What went wrong, for people.
    pub fn kill(&mut self, server: usize) -> Result<(), String> {
        let Some(mut child) = self.servers[server].child.take() else { return Ok(()) };
        child
            .kill()
            .and_then(|()| child.wait())
            .map_err(|error| format!("cannot kill server {}: {error}", server + 1))?;
        Ok(())
    }

    /// Starts a server again on the directory that it has.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub fn restart(&mut self, server: usize) -> Result<(), String> {
        self.spawn(server, &[])
    }

    /// What a server says about itself; `None` when it does not answer.
    pub fn describe(&self, server: usize) -> Option<ServerDescription> {
        describe(&self.servers[server].peer, "", Duration::from_millis(1000)).ok()
    }

    /// Waits until `done` says so.
    ///
    /// # Errors
    /// When somebody interrupts, a server ends by itself, or `limit` is over: then `what` was waited for.
    pub fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&Cluster) -> bool,
    ) -> Result<Duration, String> {
        let start = Instant::now();
        while !done(self) {
            self.check()?;
            if start.elapsed() > limit {
                return Err(format!("waited {} s for {what}, in vain", limit.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(start.elapsed())
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// When somebody interrupts or a server ends by itself.
    pub fn sleep(&mut self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.check()?;
            std::thread::sleep((end - Instant::now()).min(Duration::from_millis(20)));
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        if self.interrupted.is_set() {
            return Err("interrupted".to_owned());
        }
        for (i, server) in self.servers.iter_mut().enumerate() {
            let Some(child) = &mut server.child else { continue };
            if let Ok(Some(status)) = child.try_wait() {
                server.child = None;
                let (log, tail) = (server.log.display(), tail(&server.log));
                return Err(format!(
                    "server {} ended by itself ({status}); the end of {log}:\n{tail}",
                    i + 1
                ));
            }
        }
        Ok(())
    }

    fn spawn(&mut self, server: usize, flags: &[&str]) -> Result<(), String> {
        let fail = |error: io::Error| format!("cannot start server {}: {error}", server + 1);
        let program = std::env::current_exe().map_err(fail)?;
        let server = &mut self.servers[server];
        let log = File::options().create(true).append(true).open(&server.log).map_err(fail)?;
        let child = Command::new(program)
            .args(["server", "--until-stdin-closes", "--config"])
            .arg(&server.config)
            .args(flags)
            // The pipe's other end closes when this process ends, however it ends.
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(fail)?)
            .stderr(log)
            .spawn()
            .map_err(fail)?;
        server.child = Some(child);
        Ok(())
    }

    /// What the servers that run say about themselves; `None` when one does not answer.
    pub fn describe_all(&self) -> Option<Vec<ServerDescription>> {
        self.running().into_iter().map(|server| self.describe(server)).collect()
    }

    /// The leader of each group: the server that says so, in the latest term. `None` while a group has none.
    pub fn leaders(&self, groups: usize) -> Option<Vec<usize>> {
        let servers: Vec<(usize, ServerDescription)> =
            self.running().into_iter().filter_map(|server| Some((server, self.describe(server)?))).collect();
        let leader_of = |group: usize| {
            let replicas = servers.iter().filter_map(|(server, all)| Some((server, all.groups.get(group)?)));
            let leading = replicas.filter(|(_, replica)| replica.state == "LEADER");
            leading.max_by_key(|(_, replica)| replica.term).map(|(server, _)| *server)
        };
        (0..groups).map(leader_of).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in &mut self.servers {
            if let Some(child) = &mut server.child {
                // It fails for a process that has ended, which is as well.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

fn write_server(
    dir: &Path,
    peer: PeerId,
    conf: &Configuration,
    options: &ClusterOptions,
) -> io::Result<Server> {
    fs::create_dir_all(dir)?;
    let mut conf = conf.clone();
    if !conf.contains(&peer) {
        // A server names itself; one that joins begins without members all the same.
        conf.peers.push(peer.clone());
    }
    let config = AtomicConfig {
        group_id: "atomic".into(),
        data_path: dir.join("data"),
        conf,
        server_address: peer.clone(),
        min_slot: 0,
        max_slot: i64::MAX,
        total_slots: options.groups,
        election_timeout_ms: options.election_timeout_ms,
        max_election_delay_ms: options.max_election_delay_ms,
        store: Store::Segment,
        // Small: three servers prepare their files on one disk.
        segment_file_bytes: Some(16 << 20),
        lanes: None,
        fsm_workers: None,
        lease_reads: false,
        listen: None,
        cluster_id: None,
        require_cluster_id: false,
        bootstrap_ask_ms: 2000,
    };
    let path = dir.join("server.toml");
    fs::write(&path, config.to_toml())?;
    Ok(Server { peer, config: path, log: dir.join("server.log"), child: None })
}

/// Ports on which nobody listens now, from a place that depends on the seed.
///
/// # Errors
/// When there are not enough.
pub fn free_ports(count: usize, seed: u64) -> Result<impl Iterator<Item = u16>, String> {
    let width = u64::from(PORTS.end - PORTS.start);
    let first = (seed ^ u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15)) % width;
    let candidates = (0..width).map(|i| PORTS.start + ((first + i) % width) as u16);
    let free: Vec<u16> =
        candidates.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).take(count).collect();
    if free.len() < count {
        return Err(format!("no {count} free ports between {} and {} on 127.0.0.1", PORTS.start, PORTS.end));
    }
    Ok(free.into_iter())
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
