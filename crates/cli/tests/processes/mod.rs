//! Real processes of the built program, on loopback. Every test binary uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::fs::{self, File};
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take that should take a second or two, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program.
pub fn ringraft(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringraft"));
    command.args(args);
    command
}

/// Runs the program to its end.
pub fn run(args: &[&str]) -> Output {
    ringraft(args).stdin(Stdio::null()).output().unwrap()
}

/// What a program said on stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The JSON object in the last line of stdout.
pub fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_else(|| panic!("nothing on stdout; stderr: {}", stderr(output)));
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error} in {last:?}"))
}

/// Checks exit status and message of a program that must refuse: it names everything in `words` and does not panic.
pub fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// A port that is free, below those that the system gives to outgoing connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        // Test binaries may run at the same time: each begins elsewhere.
        let first = (std::process::id().wrapping_mul(7919) % 10_000) as u16;
        let port = 10_000 + (first + offset) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A cluster in a temporary directory; its processes end with it.
pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub addresses: Vec<String>,
    pub servers: Vec<Option<Child>>,
}

impl Cluster {
    /// Writes the configurations of so many servers and starts none. `more` is added to each.
    pub fn configure(servers: usize, more: &str) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let addresses: Vec<String> = (0..servers).map(|_| format!("127.0.0.1:{}", free_port())).collect();
        let cluster = Cluster { dir, addresses, servers: (0..servers).map(|_| None).collect() };
        for server in 0..servers {
            cluster.write_config(server, more);
        }
        cluster
    }

    /// Starts all servers of a new cluster and waits for leaders.
    pub fn start(servers: usize, more: &str) -> Cluster {
        let mut cluster = Cluster::configure(servers, more);
        for server in 0..servers {
            cluster.spawn(server, &["--bootstrap"]);
        }
        cluster.wait_for_leaders();
        cluster
    }

    pub fn write_config(&self, server: usize, more: &str) {
        let (address, conf) = (&self.addresses[server], self.conf());
        let data = self.data(server);
        let text = format!(
            "group_id = \"atomic\"\ndata_path = {data:?}\nconf = {conf:?}\nserver_address = {address:?}\n\
             election_timeout_ms = 300\nmax_election_delay_ms = 300\nsegment_file_bytes = 1048576\n{more}\n"
        );
        fs::write(self.config(server), text).unwrap();
    }

    pub fn conf(&self) -> String {
        self.addresses.join(",")
    }

    pub fn config(&self, server: usize) -> PathBuf {
        self.dir.path().join(format!("{server}.toml"))
    }

    pub fn data(&self, server: usize) -> PathBuf {
        self.dir.path().join(format!("data{server}"))
    }

    /// What a server has logged.
    pub fn log(&self, server: usize) -> String {
        fs::read_to_string(self.dir.path().join(format!("{server}.log"))).unwrap_or_default()
    }

    /// Starts a server process and does not wait.
    pub fn spawn(&mut self, server: usize, flags: &[&str]) {
        let config = self.config(server);
        let mut command = ringraft(&["server", "--until-stdin-closes", "--config"]);
        command.arg(config).args(flags);
        self.spawn_as(server, command);
    }

    /// Starts a process as the server.
    pub fn spawn_as(&mut self, server: usize, command: Command) {
        let path = self.dir.path().join(format!("{server}.log"));
        let log = File::options().create(true).append(true).open(path).unwrap();
        self.spawn_with_stderr(server, command, log.into());
    }

    /// Starts a process as the server, with another stderr than its log file.
    pub fn spawn_with_stderr(&mut self, server: usize, mut command: Command, stderr: Stdio) {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        self.servers[server] = Some(child);
    }

    /// A server command that cannot start, run to its end.
    pub fn refused(&self, server: usize, flags: &[&str]) -> Output {
        let config = self.config(server);
        let mut command = ringraft(&["server", "--config"]);
        command.arg(config).args(flags).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        wait_for_output(command)
    }

    pub fn kill(&mut self, server: usize) {
        if let Some(mut child) = self.servers[server].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Asks a server to end and waits for it.
    pub fn terminate(&mut self, server: usize) -> ExitStatus {
        self.signal(server, "TERM");
        self.wait_for_end(server)
    }

    /// Sends a signal to a server.
    pub fn signal(&self, server: usize, signal: &str) {
        let kill = format!("kill -{signal} {}", self.servers[server].as_ref().unwrap().id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for a server that is about to end.
    pub fn wait_for_end(&mut self, server: usize) -> ExitStatus {
        wait_for_end(&mut self.servers[server].take().unwrap())
    }

    pub fn wait_for_leaders(&mut self) {
        self.wait_until("leaders", |cluster| {
            let output = cluster.client(&["slots"]);
            let slots = output.status.success().then(|| json(&output)["slots"].clone());
            let led = |slot: &Value| slot["leader"].as_str().is_some_and(|leader| !leader.is_empty());
            slots.and_then(|slots| slots.as_array().cloned()).is_some_and(|slots| slots.iter().all(led))
        });
    }

    /// Waits until `done`; fails with the logs when it takes too long or a server ends.
    pub fn wait_until(&mut self, what: &str, mut done: impl FnMut(&Cluster) -> bool) {
        let start = Instant::now();
        while !done(self) {
            let ended = self.servers.iter_mut().flatten().any(|child| child.try_wait().unwrap().is_some());
            if ended || start.elapsed() > PATIENCE {
                let logs: Vec<String> = (0..self.servers.len()).map(|server| self.log(server)).collect();
                panic!("waited for {what} (a server ended: {ended}); logs:\n{}", logs.join("\n---\n"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One request of the client.
    pub fn client(&self, args: &[&str]) -> Output {
        let conf = self.conf();
        let mut all = vec!["client"];
        all.extend(args);
        all.extend(["--conf", &conf, "--json"]);
        run(&all)
    }

    /// One request of the client that must succeed: its value.
    pub fn ask(&self, args: &[&str]) -> Value {
        let output = self.client(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        json(&output)["value"].clone()
    }

    /// What a server says about itself, if it does.
    pub fn describe(&self, server: usize) -> Option<Value> {
        let output = run(&["describe", "--addr", &self.addresses[server], "--timeout", "2000", "--json"]);
        output.status.success().then(|| json(&output))
    }

    /// No server has panicked, and none has ended.
    pub fn assert_healthy(&mut self) {
        for server in 0..self.servers.len() {
            assert!(!self.log(server).contains("panicked"), "{}", self.log(server));
            if let Some(child) = &mut self.servers[server] {
                assert_eq!(child.try_wait().unwrap(), None, "{}", self.log(server));
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.servers.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits for a process that is about to end.
pub fn wait_for_end(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("the process did not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a process that must end by itself.
pub fn wait_for_output(mut command: Command) -> Output {
    let mut child = command.spawn().unwrap();
    let status = wait_for_end(&mut child);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
    Output { status, stdout, stderr }
}

/// A command under a limit of the size of files, in KiB.
pub fn with_file_limit(kib: u64, config: &Path, flags: &[&str]) -> Command {
    // Blocks of `ulimit -f` have 512 bytes in a POSIX shell.
    let script = format!("ulimit -f {}; exec \"$0\" \"$@\"", kib * 2);
    let mut command = Command::new("sh");
    command.args([
        "-c",
        &script,
        env!("CARGO_BIN_EXE_ringraft"),
        "server",
        "--until-stdin-closes",
        "--config",
    ]);
    command.arg(config).args(flags);
    command
}
