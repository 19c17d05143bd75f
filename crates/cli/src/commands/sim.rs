//! `ringraft sim`: deterministic simulation of whole clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use ringraft_core::Mutant;
use ringraft_sim::cluster::{
    Length, MIN_COMMITS, Profile, SimOptions, SimReport, fault_names, marks, run as simulate, shrink,
};
use serde_json::{Value, json};

use crate::exit::Exit;

const EXAMPLE: &str = "Examples:
  ringraft sim --seeds 1000
  ringraft sim --for 60s --profile disk
  ringraft sim --seed 4711 --trace
  ringraft sim --seeds 20000 --length short --full

Each seed is a cluster of its own: hosts, groups, network, disks, clocks and faults follow from it alone. A broken rule prints
the one command that shows it again. docs/testing.md says what is simulated.";

/// Every this many seeds one is run twice, and both runs must be bit-equal.
const TWICE: u64 = 50;
/// Violations that are made smaller; of more the seed is told as it was.
const SHRUNK: usize = 5;
/// Violations after which a run ends.
const ENOUGH: usize = 100;
/// Simulations that shrinking one violation may cost.
const SHRINK_RUNS: usize = 200;

/// Simulates clusters under faults, each from one seed, and checks every rule of raft at every event
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct SimArgs {
    /// How many seeds
    #[arg(long, value_name = "N", conflicts_with_all = ["seed", "duration"])]
    seeds: Option<u64>,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 1, conflicts_with = "seed")]
    start: u64,
    /// This seed only
    #[arg(long, value_name = "S", conflicts_with = "duration")]
    seed: Option<u64>,
    /// As many seeds as fit into this time, such as 60s or 5m
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    duration: Option<Duration>,
    /// Hosts, 1 to 7; otherwise each seed draws them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=7))]
    nodes: Option<u8>,
    /// Groups, 1 to 200; otherwise each seed draws them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=200))]
    groups: Option<u8>,
    /// Which worlds to draw; swarm, or the one that suits the mutant
    #[arg(long, value_name = "PROFILE")]
    profile: Option<WorldProfile>,
    /// Puts a bug back: its name, or `list`; `all`, `canary` or several names see to it that each is found. Only in builds with
    /// mutants
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// How often each mutant is looked for, from other seeds each time; the median is told
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100), requires = "mutant")]
    draws: u64,
    /// How long each seed's faults go on
    #[arg(long, value_name = "LENGTH", default_value = "any")]
    length: WorldLength,
    /// Fail also when a kind of fault or a mark was never reached
    #[arg(long)]
    full: bool,
    /// Numbers of faults that are left out, as a shrunk violation prints them
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    skip: Vec<u64>,
    /// Print the trace of a violation, or of the one seed that was asked for
    #[arg(long)]
    trace: bool,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
}

/// Which worlds to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WorldProfile {
    /// Any mix of features and faults
    Swarm,
    /// Faults of network, process and clock, logs in memory
    Network,
    /// The segment log on a simulated disk
    Disk,
    /// Sixty days of virtual time
    Days,
    /// Members, transfers and reads, and faults of network, clock and disk, all in every world
    All,
}

/// How long each seed's faults go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WorldLength {
    /// 8,000 to 100,000 events
    Any,
    /// About 15,000 events
    Short,
    /// About 250,000 events
    Long,
}

impl WorldLength {
    fn length(self) -> Length {
        match self {
            WorldLength::Any => Length::Any,
            WorldLength::Short => Length::Short,
            WorldLength::Long => Length::Long,
        }
    }
}

impl WorldProfile {
    /// The one that was asked for, or that suits the mutant.
    fn of(args: &SimArgs) -> WorldProfile {
        let mutant = || args.mutant.as_deref().and_then(Mutant::named);
        args.profile.unwrap_or_else(|| mutant().map_or(WorldProfile::Swarm, WorldProfile::suiting))
    }

    /// The one in which a mutant shows soonest.
    fn suiting(mutant: Mutant) -> WorldProfile {
        if mutant.room() == "storage" { WorldProfile::Disk } else { WorldProfile::Swarm }
    }

    fn world(self) -> Profile {
        match self {
            WorldProfile::Swarm => Profile::Swarm,
            WorldProfile::Network => Profile::Network,
            WorldProfile::Disk => Profile::Disk,
            WorldProfile::Days => Profile::Days,
            WorldProfile::All => Profile::All,
        }
    }

    fn name(self) -> &'static str {
        match self {
            WorldProfile::Swarm => "swarm",
            WorldProfile::Network => "network",
            WorldProfile::Disk => "disk",
            WorldProfile::Days => "days",
            WorldProfile::All => "all",
        }
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("give seconds, minutes or hours, such as 60s, 5m or 1h".to_owned()),
    };
    match digits.parse::<u64>() {
        Ok(count @ 1..=1_000_000) => Ok(Duration::from_secs(count * unit)),
        _ => Err("give a time from 1s to 1000000s".to_owned()),
    }
}

/// A broken rule and how to see it again.
struct Found {
    seed: u64,
    checker: String,
    message: String,
    event: u64,
    replay: String,
    trace: Vec<String>,
}

/// What all seeds together did.
#[derive(Default)]
struct Totals {
    seeds: u64,
    events: u64,
    commits: u64,
    answered: u64,
    /// Seeds with too few commits to prove anything.
    void: u64,
    virtual_us: u64,
    faults: BTreeMap<&'static str, u64>,
    marks: BTreeMap<&'static str, u64>,
    trace_hash: u64,
    found: Vec<Found>,
}

impl Totals {
    fn add(&mut self, report: &SimReport) {
        self.seeds += 1;
        self.events += report.events;
        self.commits += report.commits;
        self.answered += report.answered;
        self.void += u64::from(report.commits < MIN_COMMITS);
        self.virtual_us += report.virtual_us;
        // In no order, for seeds run side by side.
        self.trace_hash ^= report.trace_hash.wrapping_mul(report.seed | 1);
        for (into, from) in [(&mut self.faults, &report.faults), (&mut self.marks, &report.marks)] {
            from.iter().for_each(|(name, count)| *into.entry(name).or_default() += count);
        }
    }

    /// Kinds of faults that never happened.
    fn faults_missed(&self) -> Vec<&'static str> {
        fault_names().filter(|name| !self.faults.contains_key(name)).collect()
    }

    /// Marks that were never reached.
    fn marks_missed(&self) -> Vec<&'static str> {
        marks().filter(|mark| !self.marks.contains_key(mark)).collect()
    }
}

/// Runs the simulation.
pub fn run(args: &SimArgs) -> Exit {
    // A panic inside a world is a violation that is reported as such; what was replayed and shrunk says only once where it was.
    let places = Mutex::new(BTreeSet::new());
    std::panic::set_hook(Box::new(move |info| {
        if let Some(place) = info.location().map(ToString::to_string)
            && places.lock().insert(place.clone())
        {
            eprintln!("panic at {place}");
        }
    }));
    if let Some(name) = &args.mutant
        && let Some(exit) = put_back(args, name)
    {
        return exit;
    }
    let begin = Instant::now();
    let totals = Mutex::new(Totals::default());
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let wanted = match (args.seed, args.seeds, args.duration) {
        (Some(_), _, _) => 1,
        (_, _, Some(_)) => u64::MAX,
        (_, Some(seeds), _) => seeds,
        _ => 100,
    };
    let first = args.seed.unwrap_or(args.start);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(wanted as usize);
    let bar = std::io::stderr().is_terminal().then(|| progress_bar(args, wanted));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= wanted || args.duration.is_some_and(|limit| begin.elapsed() >= limit) {
                        break;
                    }
                    one_seed(args, first.wrapping_add(number), number, &totals);
                    if let Some(bar) = &bar {
                        tell_progress(bar, args, &totals.lock(), begin.elapsed());
                    }
                    if totals.lock().found.len() >= ENOUGH {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    let totals = totals.into_inner();
    let missed = args.full && !(totals.faults_missed().is_empty() && totals.marks_missed().is_empty());
    let ok = totals.found.is_empty() && !missed;
    tell(args, &totals, begin.elapsed(), ok);
    if ok { Exit::Fine } else { Exit::Failed }
}

/// Counts seeds, or seconds when only a time is given.
fn progress_bar(args: &SimArgs, wanted: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} {msg}");
    let steps = args.duration.map_or(wanted, |limit| limit.as_secs());
    ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn tell_progress(bar: &ProgressBar, args: &SimArgs, totals: &Totals, took: Duration) {
    bar.set_position(if args.duration.is_some() { took.as_secs() } else { totals.seeds });
    let faults: u64 = totals.faults.values().sum();
    bar.set_message(format!(
        "{:.1} million events, {faults} faults, {} violations",
        totals.events as f64 / 1e6,
        totals.found.len()
    ));
}

/// Puts the mutant of this name back; gives the exit when there is nothing left to do.
#[cfg(feature = "mutants")]
fn put_back(args: &SimArgs, name: &str) -> Option<Exit> {
    use crate::commands::mutants::{Hunt, hunt, list};
    let plan = Hunt { start: args.start, seeds: args.seeds, draws: args.draws, length: args.length.length() };
    let world = |mutant| args.profile.unwrap_or_else(|| WorldProfile::suiting(mutant)).world();
    match name {
        "list" => Some(list()),
        "all" => Some(hunt(Mutant::ALL, &plan, world, args.json)),
        "canary" => Some(hunt(&[Mutant::CANARY], &plan, world, args.json)),
        names => match names.split(',').map(Mutant::named).collect::<Option<Vec<_>>>().as_deref() {
            // One by itself is not hunted for: its seeds are run as any others, so that each can be looked at.
            Some([mutant]) if args.draws == 1 => {
                ringraft_core::mutants::choose(Some(*mutant));
                None
            }
            Some(several) => Some(hunt(several, &plan, world, args.json)),
            None => {
                Some(Exit::Usage.say(&format!("no mutant is called {name}; --mutant list names them all")))
            }
        },
    }
}

#[cfg(not(feature = "mutants"))]
fn put_back(_: &SimArgs, _: &str) -> Option<Exit> {
    let message = "this build has no mutants; get one with: cargo run --profile sim -p ringraft-cli --features mutants -- sim";
    Some(Exit::Usage.say(message))
}

fn options(args: &SimArgs, seed: u64) -> SimOptions {
    SimOptions {
        seed,
        nodes: args.nodes.map(usize::from),
        groups: args.groups.map(usize::from),
        profile: WorldProfile::of(args).world(),
        length: args.length.length(),
        skip: args.skip.iter().copied().collect(),
        trace: args.trace && args.seed.is_some(),
    }
}

fn one_seed(args: &SimArgs, seed: u64, number: u64, totals: &Mutex<Totals>) {
    let options = options(args, seed);
    let report = simulate(&options);
    let mut found = report.violation.as_ref().map(|violation| {
        let first = totals.lock().found.len() < SHRUNK;
        let (small, shown) =
            if first { shrink(&options, &report, SHRINK_RUNS) } else { (options.clone(), report.clone()) };
        let violation = shown.violation.clone().unwrap_or_else(|| violation.clone());
        let trace = if args.trace {
            simulate(&SimOptions { trace: true, ..small.clone() }).trace
        } else {
            Vec::new()
        };
        Found {
            seed,
            checker: violation.checker,
            message: violation.message,
            event: violation.event,
            replay: replay(args, &small),
            trace,
        }
    });
    if found.is_none() && args.seed.is_some() && args.trace {
        report.trace.iter().for_each(|line| eprintln!("{line}"));
    }
    if found.is_none() && number.is_multiple_of(TWICE) {
        let again = simulate(&options);
        if again.trace_hash != report.trace_hash {
            found = Some(Found {
                seed,
                checker: "bit-equal replay".to_owned(),
                message: format!("two runs differ: {:016x} and {:016x}", report.trace_hash, again.trace_hash),
                event: report.events,
                replay: replay(args, &options),
                trace: Vec::new(),
            });
        }
    }
    let mut totals = totals.lock();
    totals.add(&report);
    totals.found.extend(found);
}

/// The one command that shows a violation again.
fn replay(args: &SimArgs, options: &SimOptions) -> String {
    let mut text =
        format!("ringraft sim --seed {} --profile {}", options.seed, WorldProfile::of(args).name());
    if let Some(mutant) = &args.mutant {
        text += &format!(" --mutant {mutant}");
    }
    if args.length != WorldLength::Any {
        text += if args.length == WorldLength::Short { " --length short" } else { " --length long" };
    }
    if let Some(nodes) = args.nodes {
        text += &format!(" --nodes {nodes}");
    }
    if let Some(groups) = args.groups {
        text += &format!(" --groups {groups}");
    }
    if !options.skip.is_empty() {
        let numbers: Vec<String> = options.skip.iter().map(u64::to_string).collect();
        text += &format!(" --skip {}", numbers.join(","));
    }
    text
}

fn tell(args: &SimArgs, totals: &Totals, took: Duration, ok: bool) {
    let per_second = (totals.events as f64 / took.as_secs_f64().max(1e-9)) as u64;
    let (faults_missed, marks_missed) = (totals.faults_missed(), totals.marks_missed());
    for found in &totals.found {
        eprintln!(
            "seed {}: {} is violated at event {}: {}",
            found.seed, found.checker, found.event, found.message
        );
        found.trace.iter().for_each(|line| eprintln!("  {line}"));
        eprintln!("  replay: {}", found.replay);
    }
    let faults: u64 = totals.faults.values().sum();
    if args.json {
        let violation = |found: &Found| {
            json!({"seed": found.seed, "checker": found.checker, "message": found.message, "event": found.event,
                "replay": found.replay})
        };
        let violations: Vec<Value> = totals.found.iter().map(violation).collect();
        println!(
            "{}",
            json!({"ok": ok, "seeds": totals.seeds, "seeds_void": totals.void, "events": totals.events,
                "events_per_s": per_second, "commits": totals.commits, "answered": totals.answered,
                "virtual_s": totals.virtual_us / 1_000_000, "faults": totals.faults, "faults_total": faults,
                "faults_missed": faults_missed, "marks": totals.marks, "marks_missed": marks_missed,
                "trace_hash": format!("{:016x}", totals.trace_hash),
                "violations_found": totals.found.len(), "violations": violations})
        );
        return;
    }
    println!(
        "{} seeds, {} events ({per_second} a second), {} commits, {} answers, {faults} faults, {} s of virtual time: \
         {} violations",
        totals.seeds,
        totals.events,
        totals.commits,
        totals.answered,
        totals.virtual_us / 1_000_000,
        totals.found.len()
    );
    println!("{} seeds are void: they have fewer than {MIN_COMMITS} commits", totals.void);
    println!("faults: {}", list(&totals.faults));
    println!("marks: {}", list(&totals.marks));
    if !faults_missed.is_empty() {
        println!("faults that never happened: {}", faults_missed.join(", "));
    }
    if !marks_missed.is_empty() {
        println!("marks missed: {}", marks_missed.join(", "));
    }
    println!("trace hash {:016x}", totals.trace_hash);
}

fn list(counts: &BTreeMap<&'static str, u64>) -> String {
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}
