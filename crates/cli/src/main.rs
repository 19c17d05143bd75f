//! The `ringraft` program.
// A program: nothing of it can be reached from elsewhere, and `pub` says what a module offers to the others.
#![allow(unreachable_pub)]

// First: its macros take the place of the standard ones in all that follows.
#[macro_use]
mod output;

mod commands;
mod demo;
mod exit;
mod logging;
mod signals;

use clap::{Parser, Subcommand};

use exit::Exit;

/// A multi-raft replication engine: run a server, talk to it, watch it survive.
///
/// Every command has an example in its own --help. With --json a command prints one JSON object as the last line of stdout;
/// logs and progress go to stderr. Exit status: 0 fine, 1 a check failed or the operation was refused, 2 wrong usage or
/// configuration, 3 outcome unknown.
#[derive(Parser)]
#[command(name = "ringraft", version, after_help = "Start here:\n  ringraft demo")]
struct Cli {
    /// What to log to stderr: error, warn, info, debug, trace, or a filter such as ringraft=debug (else RUST_LOG decides)
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Server(commands::server::ServerArgs),
    Client(commands::client::ClientArgs),
    Admin(commands::admin::AdminArgs),
    Describe(commands::describe::DescribeArgs),
    Recover(commands::recover::RecoverArgs),
    Demo(commands::demo::DemoArgs),
    Script(commands::script::ScriptArgs),
    Sim(commands::sim::SimArgs),
    Bench(commands::bench::BenchArgs),
    BenchNode(commands::bench::node::BenchNodeArgs),
}

fn main() -> std::process::ExitCode {
    let exit = output::guard(run);
    logging::flush();
    exit.into()
}

fn run() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::print_usage(&error),
    };
    let default = match &cli.command {
        Command::Server(_) => "info",
        // What simulated nodes warn of is what is done to them on purpose.
        Command::Sim(_) => "off",
        _ => "warn",
    };
    if let Err(message) = logging::start(cli.log.as_deref(), default) {
        return Exit::Usage.say(&message);
    }
    match cli.command {
        Command::Server(args) => commands::server::run(&args),
        Command::Client(args) => commands::client::run(&args),
        Command::Admin(args) => commands::admin::run(&args),
        Command::Describe(args) => commands::describe::run(&args),
        Command::Recover(args) => commands::recover::run(&args),
        Command::Demo(args) => commands::demo::run(&args),
        Command::Script(args) => commands::script::run(&args),
        Command::Sim(args) => commands::sim::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::BenchNode(args) => commands::bench::node::run(&args),
    }
}
