//! A bridge, and behind it servers that have a network each: links can be cut without anybody being told.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Name of the bridge.
const BRIDGE: &str = "rrbridge";
/// How long a process may take until it has a network of its own.
const LIMIT: Duration = Duration::from_secs(10);

/// Address of a server.
pub fn address(server: usize) -> String {
    format!("10.77.0.{}", server + 1)
}

/// What the shell of a server does in its new network, before the server: it waits for its link.
pub fn prelude(server: usize) -> String {
    let address = address(server);
    format!("read go && ip link set lo up && ip addr add {address}/24 dev eth0 && ip link set eth0 up")
}

/// Makes the bridge.
///
/// # Errors
/// What `ip` says.
pub fn make() -> Result<(), String> {
    ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    ip(&["addr", "add", "10.77.0.254/24", "dev", BRIDGE])?;
    ip(&["link", "set", BRIDGE, "up"])
}

/// Takes the bridge away. The links of servers are gone with their processes.
pub fn remove() {
    // Without a bridge there is nothing to take away.
    let _ = ip(&["link", "del", BRIDGE]);
}

/// Gives a server that waits in its new network a link to the bridge, and lets it go on.
///
/// # Errors
/// What went wrong.
pub fn connect(server: usize, child: &mut Child) -> Result<(), String> {
    let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let (pid, start) = (child.id().to_string(), Instant::now());
    while network(&pid).is_none() || network(&pid) == network("self") {
        if start.elapsed() > LIMIT {
            return Err(format!("server {server} got no network of its own"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let link = link(server);
    // The system takes away the network of a process that has ended in its own time; that of an earlier attack may still be there.
    let _ = ip(&["link", "del", &link]);
    ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
    ip(&["link", "set", &link, "master", BRIDGE, "up"])?;
    let stdin = child.stdin.as_mut().ok_or("a server without stdin")?;
    stdin.write_all(b"go\n").map_err(|error| format!("cannot let server {server} go on: {error}"))
}

/// Cuts a server off, or lets it back. A link that leaves the bridge keeps its carrier: nobody is told that what is sent gets nowhere.
///
/// # Errors
/// What `ip` says.
pub fn cut(server: usize, cut: bool) -> Result<(), String> {
    let link = link(server);
    if cut { ip(&["link", "set", &link, "nomaster"]) } else { ip(&["link", "set", &link, "master", BRIDGE]) }
}

fn link(server: usize) -> String {
    format!("rr{server}")
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("ip {args:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {args:?}: {}", said.trim())) }
}
