//! A place that a run has for itself: processes that end with it, a network of its own, many descriptors.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio, exit};

use signal_hook::consts::{SIGINT, SIGTERM};

/// Set inside, so that nobody enters twice; says what was to be had.
const INSIDE: &str = "RINGRAFT_SANDBOX";
/// What the program is started with: as many descriptors as the hard limit gives, and a loopback device that is up.
const START: &str = "ulimit -Sn \"$(ulimit -Hn)\"; exec \"$0\" \"$@\"";
const START_WITH_NETWORK: &str = "ip link set lo up && ulimit -Sn \"$(ulimit -Hn)\" && exec \"$0\" \"$@\"";
/// Namespaces for mounts, network and processes. The last one makes the kernel kill whatever is left when the run ends.
const NAMESPACES: [&str; 6] = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Where a run is.
pub struct Sandbox {
    /// Whether it has namespaces of its own, and may make networks.
    pub networks: bool,
    /// Descriptors that this process may have open.
    pub descriptors: usize,
    /// Directory of everything that the run writes; gone when it ends.
    pub dir: tempfile::TempDir,
}

/// Starts this program again inside of namespaces, as root or as who the user namespace makes root, else without any; returns inside.
///
/// # Errors
/// When the program cannot be started again, or no directory made.
pub fn enter() -> Result<Sandbox, String> {
    if let Some(kind) = env::var_os(INSIDE) {
        return arrive(kind == "namespaces");
    }
    let me = env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    let as_root: Vec<&str> = NAMESPACES.to_vec();
    let as_user: Vec<&str> = [&["--user", "--map-root-user"], &NAMESPACES[..]].concat();
    let namespaces = [as_root, as_user].into_iter().find(|flags| works(flags));
    let mut command = match &namespaces {
        Some(flags) => {
            let mut command = Command::new("unshare");
            command.args(flags).args(["sh", "-c", START_WITH_NETWORK]);
            command
        }
        None => {
            let mut command = Command::new("sh");
            command.args(["-c", START]);
            command
        }
    };
    command.env(INSIDE, if namespaces.is_some() { "namespaces" } else { "plain" });
    Err(format!("cannot start again: {}", command.arg(me).args(env::args_os().skip(1)).exec()))
}

fn works(flags: &[&str]) -> bool {
    let mut command = Command::new("unshare");
    command.args(flags).args(["sh", "-c", "ip link set lo up"]);
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn arrive(networks: bool) -> Result<Sandbox, String> {
    let dir = tempfile::Builder::new()
        .prefix("ringraft-attack-")
        .tempdir()
        .map_err(|error| format!("no temporary directory: {error}"))?;
    end_on_signals(dir.path().to_owned())?;
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let descriptors = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let descriptors =
        descriptors.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(1024);
    Ok(Sandbox { networks, descriptors, dir })
}

/// The first process of a namespace gets no signal that it does not ask for: without this, ctrl-C would do nothing.
fn end_on_signals(dir: PathBuf) -> Result<(), String> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])
        .map_err(|error| format!("no signal handler: {error}"))?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            // The servers write on until this process is gone; what they write now is in files that have no name.
            let _ = std::fs::remove_dir_all(dir);
            exit(130);
        }
    });
    Ok(())
}
