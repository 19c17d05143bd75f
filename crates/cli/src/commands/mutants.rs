//! `ringraft sim --mutant`: bugs put back on purpose, and how many seeds the simulator takes to find each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use ringraft_core::Mutant;
use ringraft_core::mutants::choose;
use ringraft_sim::cluster::{Length, Profile, SimOptions, SimReport, SimViolation, run as simulate};
use serde_json::{Value, json};

use crate::exit::Exit;

/// Seeds within which every mutant must be found.
const ENOUGH: u64 = 5000;

/// Prints every mutant.
pub fn list() -> Exit {
    for mutant in Mutant::ALL {
        println!("{:<42} {:<4} {:<9} {}", mutant.name(), mutant.entry(), mutant.room(), mutant.what());
    }
    Exit::Fine
}

/// Between the first seeds of two draws.
const APART: u64 = 100_000;

/// Which seeds are simulated for each mutant.
pub struct Hunt {
    /// The first seed.
    pub start: u64,
    /// Seeds at most, [`ENOUGH`] unless given.
    pub seeds: Option<u64>,
    /// So many times, each from another first seed.
    pub draws: u64,
    /// Of each seed.
    pub length: Length,
}

/// How a mutant was found in one draw.
struct Found {
    /// Seeds that were simulated, the one that shows it included.
    seeds: u64,
    seed: u64,
    violation: SimViolation,
}

/// Every draw of a mutant, the one that took least first.
struct Draws(Vec<Option<Found>>);

impl Draws {
    fn of(mut draws: Vec<Option<Found>>) -> Draws {
        draws.sort_by_key(|found| found.as_ref().map_or(u64::MAX, |found| found.seeds));
        Draws(draws)
    }

    /// The lower one of the two in the middle where there are as many on both sides.
    fn median(&self) -> Option<&Found> {
        self.0[(self.0.len() - 1) / 2].as_ref()
    }

    fn all_found(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }

    fn row(&self, limit: u64) -> String {
        let seeds = |found: &Option<Found>| match found {
            Some(found) => found.seeds.to_string(),
            None => format!("not in {limit}"),
        };
        let middle = match self.median() {
            Some(Found { seeds, violation, .. }) => format!("{seeds:>5}  {}", violation.checker),
            None => format!("    -  not in {limit} seeds"),
        };
        match self.0.as_slice() {
            [_] => middle,
            several => format!("{middle}  ({})", several.iter().map(seeds).collect::<Vec<_>>().join(", ")),
        }
    }

    fn json(&self, mutant: Mutant) -> Value {
        let found = self.median();
        let seeds: Vec<Option<u64>> = self.0.iter().map(|draw| draw.as_ref().map(|f| f.seeds)).collect();
        json!({"name": mutant.name(), "entry": mutant.entry(), "seeds": found.map(|f| f.seeds), "draws": seeds,
            "seed": found.map(|f| f.seed), "checker": found.map(|f| f.violation.checker.clone()),
            "event": found.map(|f| f.violation.event), "message": found.map(|f| f.violation.message.clone())})
    }
}

/// Puts each of the mutants back and simulates seeds until a rule is broken. A mutant is found when every draw finds it.
pub fn hunt(mutants: &[Mutant], plan: &Hunt, world: impl Fn(Mutant) -> Profile, as_json: bool) -> Exit {
    let begin = Instant::now();
    let limit = plan.seeds.unwrap_or(ENOUGH);
    let (mut found, mut rows) = (0, Vec::new());
    for mutant in mutants {
        let starts = (0..plan.draws).map(|draw| plan.start.wrapping_add(draw * APART));
        let draws = starts.map(|start| find(*mutant, start, limit, plan.length, world(*mutant)));
        let draws = Draws::of(draws.collect());
        found += usize::from(draws.all_found());
        let row = draws.row(limit);
        if as_json {
            eprintln!("{:<42} {row}", mutant.name());
        } else {
            println!("{:<42} {:<4} {row}", mutant.name(), mutant.entry());
        }
        rows.push(draws.json(*mutant));
    }
    let ok = found == mutants.len();
    if as_json {
        let took = begin.elapsed().as_secs();
        println!("{}", json!({"ok": ok, "found": found, "mutants": rows, "seconds": took}));
    } else {
        println!("{found} of {} found", mutants.len());
    }
    if ok { Exit::Fine } else { Exit::Failed }
}

/// The first seed that shows the mutant; the same however many run side by side.
fn find(mutant: Mutant, start: u64, limit: u64, length: Length, profile: Profile) -> Option<Found> {
    choose(Some(mutant));
    let (next, best) = (AtomicU64::new(0), AtomicU64::new(limit));
    let found: Mutex<Option<(u64, SimReport)>> = Mutex::new(None);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= best.load(Ordering::Relaxed) {
                        break;
                    }
                    let seed = start.wrapping_add(number);
                    let report = simulate(&SimOptions { seed, profile, length, ..SimOptions::default() });
                    let mut found = found.lock();
                    if report.violation.is_some() && found.as_ref().is_none_or(|(at, _)| number < *at) {
                        best.fetch_min(number, Ordering::Relaxed);
                        *found = Some((number, report));
                    }
                }
            });
        }
    });
    choose(None);
    let (number, report) = found.into_inner()?;
    Some(Found { seeds: number + 1, seed: report.seed, violation: report.violation? })
}
