//! `ringraft server`: one AtomicServer process.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};

use clap::Args;
use ringraft::StartMode;
use ringraft_atomic::{AtomicConfig, AtomicServer, ServerDescription};

use super::start_error;
use crate::exit::Exit;
use crate::logging::ASKED;
use crate::signals::{self, Signal};

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

The other keys: listen (ip:port to listen at, where that is not server_address, which then may be name:port), min_slot, max_slot,
election_timeout_ms, max_election_delay_ms, store ("segment" or "memory"), segment_file_bytes, lanes, fsm_workers, lease_reads (true or
false), cluster_id, require_cluster_id (true or false), bootstrap_ask_ms. group_id, total_slots, min_slot and max_slot are fixed for
ever at the first start. SIGTERM, SIGHUP or ctrl-C ends the server cleanly, and a second SIGTERM or ctrl-C at once; SIGUSR2 writes what `ringraft describe`
shows into the log. It ends by itself, with status 1, when its log store has failed."#;

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
    /// Take a blank data directory into use: this member is new, and its cluster is being created. For the first start only: do not leave
    /// it in a unit file
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

/// What the server's main thread waits for.
enum Happening {
    Signal(Signal),
    StdinClosed,
    /// The start is over; `Err` is a panic in it.
    Started(std::thread::Result<Result<Box<Running>, (Exit, String)>>),
    StoreFailed,
}

struct Running {
    config: AtomicConfig,
    server: AtomicServer,
}

/// Runs the server until somebody ends it, or its log store has failed.
pub fn run(args: &ServerArgs) -> Exit {
    let (tell, happenings) = mpsc::channel();
    // Before anything else, so that whoever ends a server that is starting does not find the system's default.
    let signals = tell.clone();
    if let Err(error) = signals::survive_file_size_limit().and_then(|()| {
        // The receiver is there for as long as the process.
        signals::listen(move |signal| drop(signals.send(Happening::Signal(signal))))
    }) {
        return Exit::Failed.say(&format!("cannot install a signal handler: {error}"));
    }
    if args.until_stdin_closes {
        let tell = tell.clone();
        std::thread::spawn(move || {
            // Whatever comes is thrown away; an error is an end, too.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = tell.send(Happening::StdinClosed);
        });
    }
    // On a thread of its own: it may take long, or hang with its disk, and can be ended all the same.
    let (path, mode, starts) = (args.config.clone(), mode_of(args), tell.clone());
    let start = move || {
        let started = catch_unwind(AssertUnwindSafe(|| start(&path, mode)));
        let _ = starts.send(Happening::Started(started));
    };
    if let Err(error) = std::thread::Builder::new().name("start".to_owned()).spawn(start) {
        return Exit::Failed.say(&format!("cannot start a thread: {error}"));
    }
    let running = loop {
        match happenings.recv() {
            Ok(Happening::Started(Ok(Ok(running)))) => break running,
            Ok(Happening::Started(Ok(Err((exit, message))))) => return exit.say(&message),
            Ok(Happening::Started(Err(panic))) => resume_unwind(panic),
            Ok(Happening::Signal(Signal::Describe)) => tracing::info!("the server is starting"),
            // Nothing was acknowledged yet, and the store is made to be left at any moment.
            Ok(Happening::Signal(Signal::End(signal))) => return end_of_start(signal),
            Ok(Happening::StdinClosed) => return end_of_start("end of stdin"),
            Ok(Happening::StoreFailed) => {}
            Err(_) => return Exit::Failed.say("nothing is left that could end the server"),
        }
    };
    serve(&running, tell, &happenings)
}

fn end_of_start(reason: &str) -> Exit {
    tracing::info!(reason, "ended while starting");
    Exit::Fine
}

fn mode_of(args: &ServerArgs) -> StartMode {
    match (args.bootstrap, args.rejoin) {
        (true, _) => StartMode::Bootstrap,
        (_, true) => StartMode::Rejoin,
        _ => StartMode::Existing,
    }
}

fn start(path: &Path, mode: StartMode) -> Result<Box<Running>, (Exit, String)> {
    let config = AtomicConfig::load(path)
        .map_err(|error| (Exit::Usage, format!("configuration {}: {error}", path.display())))?;
    match AtomicServer::start(&config, mode) {
        Ok(server) => Ok(Box::new(Running { config, server })),
        Err(error) => {
            let (exit, text) = start_error::of_server(&error, &config);
            Err((exit, format!("the server does not start: {text}")))
        }
    }
}

/// Serves until somebody ends it. A server whose only store has failed serves nothing and never will: it ends, so that whoever
/// looks after it can see that and start it again.
fn serve(running: &Running, tell: Sender<Happening>, happenings: &Receiver<Happening>) -> Exit {
    let Running { config, server } = running;
    server.on_store_failed(move |_| drop(tell.send(Happening::StoreFailed)));
    let (address, groups) = (&config.server_address, config.total_slots);
    tracing::info!(%address, groups, data = %config.data_path.display(), "serving");
    loop {
        match happenings.recv() {
            Ok(Happening::Signal(Signal::Describe)) => describe(server),
            Ok(Happening::Signal(Signal::End(signal))) => {
                tracing::info!(signal, "shutting down");
                break;
            }
            Ok(Happening::StdinClosed) => {
                tracing::info!("shutting down: stdin has ended");
                break;
            }
            Ok(Happening::Started(_)) => {}
            Ok(Happening::StoreFailed) | Err(_) => break,
        }
    }
    // Hands leadership over, after a failure of the store, too.
    server.shutdown();
    match server.store_error() {
        None => {
            tracing::info!("shut down");
            Exit::Fine
        }
        Some(status) => Exit::Failed.say(&format!(
            "the log store has failed, and the server has ended: {}; nothing that was acknowledged is lost: free space, or see to the disk, and \
             start the server again",
            status.message
        )),
    }
}

/// Writes what `ringraft describe` shows into the log.
fn describe(server: &AtomicServer) {
    let ServerDescription { node, cluster_id, threads, fds, rss_kb, groups } = server.describe();
    tracing::info!(target: ASKED, %node, %cluster_id, threads, fds, rss_kb, groups = groups.len(), "describe");
    for g in groups {
        tracing::info!(
            target: ASKED,
            group = %g.group, state = %g.state, term = g.term, leader = %g.leader, last = g.last, stable = g.stable, commit = g.commit,
            applied = g.applied, conf = %g.conf, keys = g.keys, error = %g.error, "describe"
        );
    }
}
