//! Server processes: three of them or fewer, on loopback or each on a network of its own behind a bridge.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, PipeReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringraft::PeerId;
use ringraft_atomic::client::describe;
use ringraft_atomic::{AtomicClient, ClientOptions, ServerDescription};

use super::bridge;

/// Servers of a cluster, unless its plan has fewer.
pub const SERVERS: usize = 3;
/// A pipe takes nothing more when a writer has stood still for so long.
const FULL_PIPE: Duration = Duration::from_millis(300);
/// How long a cluster may take until every group has a leader that all know.
pub const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a server has to describe itself.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(2);
/// How long a request of the honest client may take before it is unknown.
const REQUEST_LIMIT: Duration = Duration::from_secs(2);

/// Descriptors that a server may have.
#[derive(Clone, Copy, Debug)]
pub enum Descriptors {
    /// The soft limit of most systems; the hard one is higher.
    Usual,
    /// This many and no more.
    Hard(u64),
}

/// Where a server's log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stderr {
    /// To a file.
    File,
    /// To a pipe whose reader goes away when it is told.
    Pipe,
    /// To a pipe that is full, and that nobody reads.
    FullPipe,
    /// To a disk that is full.
    Full,
}

/// What a cluster is made of. Whatever is not here is as by default.
#[derive(Clone)]
pub struct Plan {
    /// At most [`SERVERS`].
    pub servers: usize,
    pub groups: usize,
    /// Files of the log: small, so that they are rolled.
    pub segment_file_bytes: u64,
    pub descriptors: Descriptors,
    pub stderr: Stderr,
    pub lease_reads: bool,
    /// Each server in a network of its own.
    pub bridged: bool,
    /// The program of each server.
    pub programs: [PathBuf; SERVERS],
    /// A library that is loaded before those of each server.
    pub preload: Option<Preload>,
}

/// A library that stands before the C library, and what it is told of a server.
#[derive(Clone)]
pub struct Preload {
    pub library: PathBuf,
    /// Variables of a server's environment, by its data directory.
    pub variables: Arc<dyn Fn(&Path) -> Vec<(&'static str, OsString)> + Send + Sync>,
}

/// The program that is tested.
pub fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_ringraft").into()
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            servers: SERVERS,
            groups: 8,
            segment_file_bytes: 1 << 20,
            descriptors: Descriptors::Usual,
            stderr: Stderr::File,
            lease_reads: false,
            bridged: false,
            programs: [program(), program(), program()],
            preload: None,
        }
    }
}

/// A cluster. Dropping it kills its processes and removes its files.
pub struct Servers {
    dir: tempfile::TempDir,
    plan: Plan,
    peers: Vec<PeerId>,
    children: Vec<Option<Child>>,
    readers: Vec<PipeReader>,
}

impl Servers {
    /// Starts the servers on blank directories below `dir` and waits until every group has a leader that all know.
    ///
    /// # Errors
    /// What went wrong.
    pub fn start(dir: &Path, plan: Plan) -> Result<Servers, String> {
        let dir = tempfile::tempdir_in(dir).map_err(|error| format!("no directory: {error}"))?;
        let peer = |server: usize| match plan.bridged {
            true => PeerId::new(&bridge::address(server), 8081),
            false => PeerId::new("127.0.0.1", free_port()),
        };
        let peers = (0..plan.servers).map(peer).collect();
        let children = (0..plan.servers).map(|_| None).collect();
        let mut servers = Servers { dir, plan, peers, children, readers: Vec::new() };
        if servers.plan.bridged {
            bridge::make()?;
        }
        for server in 0..servers.plan.servers {
            servers.write_config(server)?;
            servers.spawn(server, &["--bootstrap"])?;
        }
        servers.wait_until_whole(START_LIMIT)?;
        Ok(servers)
    }

    fn write_config(&self, server: usize) -> Result<(), String> {
        let conf = self.peers.iter().map(PeerId::endpoint).collect::<Vec<_>>().join(",");
        let (address, data) = (self.address(server), self.data(server));
        let Plan { groups, segment_file_bytes, lease_reads, .. } = &self.plan;
        let text = format!(
            "group_id = \"atomic\"\ndata_path = {data:?}\nconf = {conf:?}\nserver_address = {address:?}\n\
             total_slots = {groups}\nsegment_file_bytes = {segment_file_bytes}\nlease_reads = {lease_reads}\n"
        );
        fs::write(self.config(server), text).map_err(|error| format!("cannot write a configuration: {error}"))
    }

    fn config(&self, server: usize) -> PathBuf {
        self.dir.path().join(format!("{server}.toml"))
    }

    /// Where a server keeps its data.
    pub fn data(&self, server: usize) -> PathBuf {
        self.dir.path().join(format!("data{server}"))
    }

    /// Where everything of the cluster is.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where a server logs.
    pub fn log(&self, server: usize) -> PathBuf {
        self.dir.path().join(format!("{server}.log"))
    }

    /// Where all of them log.
    pub fn logs(&self) -> impl Iterator<Item = PathBuf> + '_ {
        (0..self.plan.servers).map(|server| self.log(server))
    }

    /// `ip:port` of a server.
    pub fn address(&self, server: usize) -> String {
        self.peers[server].endpoint()
    }

    /// Process id of a server that runs.
    pub fn pid(&self, server: usize) -> Option<u32> {
        self.children[server].as_ref().map(Child::id)
    }

    /// Process ids of the servers that run.
    pub fn pids(&self) -> Vec<u32> {
        (0..self.plan.servers).filter_map(|server| self.pid(server)).collect()
    }

    /// Starts the process of a server.
    ///
    /// # Errors
    /// What went wrong.
    pub fn spawn(&mut self, server: usize, flags: &[&str]) -> Result<(), String> {
        let fail = |error: io::Error| format!("cannot start server {server}: {error}");
        let limit = match self.plan.descriptors {
            Descriptors::Usual => "ulimit -Sn 1024".to_owned(),
            Descriptors::Hard(limit) => format!("ulimit -n {limit}"),
        };
        let start = format!("{limit} && exec \"$0\" \"$@\"");
        let mut command = if self.plan.bridged {
            let mut command = Command::new("unshare");
            command.args(["--net", "sh", "-c", &format!("{} && {start}", bridge::prelude(server))]);
            command
        } else {
            let mut command = Command::new("sh");
            command.args(["-c", &start]);
            command
        };
        command
            .arg(&self.plan.programs[server])
            .args(["server", "--until-stdin-closes", "--config"])
            .arg(self.config(server))
            .args(flags)
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        if let Some(preload) = &self.plan.preload {
            command.env("LD_PRELOAD", &preload.library).envs((preload.variables)(&self.data(server)));
        }
        match self.plan.stderr {
            Stderr::File => {
                let log = File::options().create(true).append(true).open(self.log(server));
                command.stderr(log.map_err(fail)?)
            }
            Stderr::Pipe | Stderr::FullPipe => {
                let (reader, writer) = io::pipe().map_err(fail)?;
                if self.plan.stderr == Stderr::FullPipe {
                    fill(writer.try_clone().map_err(fail)?);
                }
                self.readers.push(reader);
                command.stderr(writer)
            }
            Stderr::Full => command.stderr(File::options().write(true).open("/dev/full").map_err(fail)?),
        };
        let mut child = command.spawn().map_err(fail)?;
        if self.plan.bridged {
            bridge::connect(server, &mut child)?;
        }
        self.children[server] = Some(child);
        Ok(())
    }

    /// Has the program of a server be another one from its next start on.
    pub fn replace_program(&mut self, server: usize, program: PathBuf) {
        self.plan.programs[server] = program;
    }

    /// Lets go of the pipes that log lines go to.
    pub fn close_readers(&mut self) {
        self.readers.clear();
    }

    /// Ends a server without warning.
    pub fn kill(&mut self, server: usize) {
        if let Some(mut child) = self.children[server].take() {
            // It fails for a process that has ended, which is as well.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks a server to end; whether it does with status 0.
    ///
    /// # Errors
    /// When it does not end within half a minute.
    pub fn terminate(&mut self, server: usize) -> Result<bool, String> {
        let Some(mut child) = self.children[server].take() else { return Ok(true) };
        self.signal_pids(&[child.id()], "TERM")?;
        match wait(&mut child)? {
            Some(status) => Ok(status.success()),
            None => {
                self.children[server] = Some(child);
                Err(format!("server {server} does not end on SIGTERM"))
            }
        }
    }

    /// Sends a signal to all that run, at one moment, and waits for their ends.
    ///
    /// # Errors
    /// When one does not end within half a minute.
    pub fn end_all_by(&mut self, name: &str) -> Result<Vec<ExitStatus>, String> {
        self.signal_pids(&self.pids(), name)?;
        let mut statuses = Vec::new();
        for server in 0..self.plan.servers {
            let Some(child) = &mut self.children[server] else { continue };
            let status = wait(child)?;
            statuses.push(status.ok_or_else(|| format!("server {server} does not end on SIG{name}"))?);
            self.children[server] = None;
        }
        Ok(statuses)
    }

    /// Sends a signal, such as `STOP` or `CONT`.
    ///
    /// # Errors
    /// When the server does not run.
    pub fn signal(&self, server: usize, name: &str) -> Result<(), String> {
        let pid = self.pid(server).ok_or_else(|| format!("server {server} does not run"))?;
        self.signal_pids(&[pid], name)
    }

    fn signal_pids(&self, pids: &[u32], name: &str) -> Result<(), String> {
        let all = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        let kill = Command::new("sh").args(["-c", &format!("kill -{name} {all}")]).status();
        if kill.is_ok_and(|status| status.success()) { Ok(()) } else { Err(format!("no SIG{name} to {all}")) }
    }

    /// Servers that have ended by themselves, with how and the last that they logged.
    pub fn ended(&mut self) -> Vec<String> {
        let logs: Vec<PathBuf> = self.logs().collect();
        let status = |(server, child): (usize, &mut Option<Child>)| {
            let status = child.as_mut()?.try_wait().ok()??;
            Some(format!("server {server} has ended ({status}) {}", tail(&logs[server])))
        };
        self.children.iter_mut().enumerate().filter_map(status).collect()
    }

    /// What a server says about itself.
    pub fn describe(&self, server: usize) -> Option<ServerDescription> {
        describe(&self.peers[server], "", DESCRIBE_LIMIT).ok()
    }

    /// What all say about themselves at one time; `None` for those that do not answer.
    pub fn describe_all(&self) -> Vec<Option<ServerDescription>> {
        std::thread::scope(|scope| {
            let asked: Vec<_> =
                (0..self.plan.servers).map(|server| scope.spawn(move || self.describe(server))).collect();
            asked.into_iter().map(|thread| thread.join().ok().flatten()).collect()
        })
    }

    /// The highest term that anybody has for each group, from whoever answers.
    pub fn terms(&self) -> BTreeMap<String, u64> {
        let mut terms = BTreeMap::new();
        for group in self.describe_all().into_iter().flatten().flat_map(|server| server.groups) {
            let term = terms.entry(group.group).or_insert(group.term);
            *term = group.term.max(*term);
        }
        terms
    }

    /// The server that leads a group as its leader sees it.
    pub fn leader_of(&self, group: usize) -> Option<usize> {
        let all = self.describe_all();
        let leads = |server: &Option<ServerDescription>| {
            server.as_ref().is_some_and(|server| {
                server.groups.get(group).is_some_and(|group| group.leader == server.node)
            })
        };
        all.iter().position(leads)
    }

    /// Positions of the groups that a server knows another leader of.
    pub fn groups_not_led_by(&self, server: usize) -> Vec<usize> {
        let Some(description) = self.describe(server) else { return Vec::new() };
        let groups = description.groups.iter().enumerate();
        groups.filter(|(_, group)| group.leader != description.node).map(|(group, _)| group).collect()
    }

    /// Waits until every server that runs names the same leader for each group and reports no error.
    ///
    /// # Errors
    /// When that takes longer than `limit`, or a server ends: what is missing.
    pub fn wait_until_whole(&mut self, limit: Duration) -> Result<Duration, String> {
        let start = Instant::now();
        loop {
            let missing = match self.missing() {
                None => return Ok(start.elapsed()),
                Some(missing) => missing,
            };
            let ended = self.ended();
            if !ended.is_empty() || start.elapsed() > limit {
                let elapsed = start.elapsed().as_millis();
                return Err(format!("not whole after {elapsed} ms: {missing}; {}", ended.join(", ")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Why the cluster is not whole, if it is not.
    pub fn missing(&self) -> Option<String> {
        let all = self.describe_all();
        let running = (0..self.plan.servers).filter(|server| self.children[*server].is_some());
        let mut described = Vec::new();
        for server in running {
            match &all[server] {
                Some(description) if description.groups.len() == self.plan.groups => {
                    described.push(description);
                }
                Some(_) => return Some(format!("server {server} is starting")),
                None => return Some(format!("server {server} does not answer")),
            }
        }
        let first = described.first()?;
        for (position, group) in first.groups.iter().enumerate() {
            for server in &described {
                let replica = &server.groups[position];
                if !replica.error.is_empty() {
                    return Some(format!("{} of {}: {}", group.group, server.node, replica.error));
                }
                if replica.leader.is_empty() || replica.leader != group.leader {
                    return Some(format!(
                        "{}: {} knows the leader {:?}",
                        group.group, server.node, replica.leader
                    ));
                }
            }
        }
        None
    }

    /// A new client.
    ///
    /// # Errors
    /// When nobody answers it.
    pub fn client(&self) -> Result<AtomicClient, String> {
        let options = ClientOptions { timeout: REQUEST_LIMIT, ..ClientOptions::default() };
        AtomicClient::connect(&self.peers, options).map_err(|error| format!("no client: {error}"))
    }

    /// Runs `ringraft admin` for a group of this cluster.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn admin(&self, command: &[&str], group: usize) -> Result<Output, String> {
        let conf = self.peers.iter().map(PeerId::endpoint).collect::<Vec<_>>().join(",");
        let mut all = Command::new(program());
        all.arg("admin").args(command).args(["--group", &format!("atomic_{group}"), "--conf", &conf]);
        all.stdin(Stdio::null()).output().map_err(|error| format!("no admin: {error}"))
    }

    /// Cuts a server off from the others without a word, or lets it back.
    ///
    /// # Errors
    /// When the bridge cannot be set.
    pub fn cut(&self, server: usize, cut: bool) -> Result<(), String> {
        bridge::cut(server, cut)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in 0..self.plan.servers {
            self.kill(server);
        }
        if self.plan.bridged {
            bridge::remove();
        }
    }
}

/// How a process has ended; `None` when it has not after half a minute.
fn wait(child: &mut Child) -> Result<Option<ExitStatus>, String> {
    let deadline = Instant::now() + START_LIMIT;
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Ok(status) => return Ok(status),
            Err(error) => return Err(format!("cannot wait for {}: {error}", child.id())),
        }
    }
    Ok(None)
}

/// Fills a pipe and keeps it full until its reader is gone.
fn fill(mut pipe: io::PipeWriter) {
    let pages = Arc::new(AtomicU64::new(0));
    std::thread::spawn({
        let pages = Arc::clone(&pages);
        // It stands still in a write when the pipe is full, and ends when the reader is gone.
        move || {
            while pipe.write_all(&[b'.'; 4096]).is_ok() {
                pages.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let mut before = u64::MAX;
    while before != pages.load(Ordering::Relaxed) || before == 0 {
        before = pages.load(Ordering::Relaxed);
        std::thread::sleep(FULL_PIPE);
    }
}

/// A port that is free, below those that the system gives to outgoing connections.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id().wrapping_mul(7919) % 10_000) as u16;
    loop {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The last line of a log.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or_default().chars().take(300).collect()
}
