//! `ringraft server`: one AtomicServer process.

use std::path::PathBuf;

use clap::Args;
use ringraft::{StartError, StartMode};
use ringraft_atomic::{AtomicConfig, AtomicServer, ServerError};

use crate::exit::Exit;
use crate::signals;

const EXAMPLE: &str = r#"Example, one of three servers (write one file for each, with its own server_address and data_path):

  cat > s1.toml <<'EOF'
  group_id = "atomic"
  data_path = "/tmp/ringraft/s1"
  conf = "127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083"
  server_address = "127.0.0.1:8081"
  total_slots = 8
  EOF
  ringraft server --config s1.toml --bootstrap

A fourth server that joins them (conf in its file lists all four), and the group that it joins:

  ringraft server --config s4.toml --rejoin
  ringraft admin add-peer 127.0.0.1:8084 --group atomic_0 --conf 127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083

The other keys: listen (ip:port to listen at, where that is not server_address, which then may be name:port), min_slot, max_slot, election_timeout_ms, max_election_delay_ms, store ("segment" or "memory"),
segment_file_bytes, lanes, fsm_workers, lease_reads (true or false). SIGTERM or ctrl-C ends the server cleanly."#;

/// Runs one AtomicServer: a replica of every range group of counters
///
/// The data directory remembers whose it is. A blank one is taken into use only with a flag, because a member that has lost its disk
/// must not vote as if it had never lived: --bootstrap for the first members of a new cluster, --rejoin for a server that is to be
/// added to one (`ringraft admin add-peer`), or that comes back without its disk.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct ServerArgs {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Take a blank data directory into use: this member is new, and its cluster is being created
    #[arg(long, conflicts_with = "rejoin")]
    pub bootstrap: bool,
    /// Take a blank data directory into use and wait for the leader of each group: this server joins a cluster that exists, or has
    /// lost its disk, and then votes and counts only when it has caught up with what the others have committed since
    #[arg(long)]
    pub rejoin: bool,
    /// End when stdin ends, so that a server does not outlive whoever started it
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
}

/// Runs the server until somebody ends it.
pub fn run(args: &ServerArgs) -> Exit {
    let path = args.config.display();
    let config = match AtomicConfig::load(&args.config) {
        Ok(config) => config,
        Err(error) => return Exit::Usage.say(&format!("configuration {path}: {error}")),
    };
    if let Err(error) = signals::survive_file_size_limit() {
        return Exit::Failed.say(&format!("cannot install a signal handler: {error}"));
    }
    let mode = match (args.bootstrap, args.rejoin) {
        (true, _) => StartMode::Bootstrap,
        (_, true) => StartMode::Rejoin,
        _ => StartMode::Existing,
    };
    let server = match AtomicServer::start(&config, mode) {
        Ok(server) => server,
        Err(error) => return exit_of(&error).say(&format!("the server does not start: {error}")),
    };
    if args.until_stdin_closes {
        end_with_stdin();
    }
    let (address, groups) = (&config.server_address, config.total_slots);
    tracing::info!(%address, groups, data = %config.data_path.display(), "serving");
    let ended = match signals::wait_for_end() {
        Ok(signal) => {
            tracing::info!(signal, "shutting down");
            Exit::Fine
        }
        Err(error) => Exit::Failed.say(&format!("cannot install a signal handler: {error}")),
    };
    server.shutdown();
    tracing::info!("shut down");
    ended
}

fn exit_of(error: &ServerError) -> Exit {
    match error {
        ServerError::Start(StartError::Store(_) | StartError::Net(_) | StartError::Thread { .. }) => {
            Exit::Failed
        }
        _ => Exit::Usage,
    }
}

fn end_with_stdin() {
    std::thread::spawn(|| {
        // Whatever comes is thrown away; an error is an end, too.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        signals::end_this_process();
    });
}
