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

/// How a mutant was found.
struct Found {
    /// Seeds that were simulated, the one that shows it included.
    seeds: u64,
    seed: u64,
    violation: SimViolation,
}

/// Puts each of the mutants back and simulates seeds from `start` on until a rule is broken.
pub fn hunt(
    mutants: &[Mutant],
    start: u64,
    seeds: Option<u64>,
    length: Length,
    world: impl Fn(Mutant) -> Profile,
    as_json: bool,
) -> Exit {
    let begin = Instant::now();
    let limit = seeds.unwrap_or(ENOUGH);
    let (mut found, mut rows) = (0, Vec::new());
    for mutant in mutants {
        let result = find(*mutant, start, limit, length, world(*mutant));
        found += usize::from(result.is_some());
        let row = match &result {
            Some(Found { seeds, violation, .. }) => format!("{seeds:>5}  {}", violation.checker),
            None => format!("    -  not in {limit} seeds"),
        };
        if as_json {
            eprintln!("{:<42} {row}", mutant.name());
        } else {
            println!("{:<42} {:<4} {row}", mutant.name(), mutant.entry());
        }
        rows.push((*mutant, result));
    }
    if as_json {
        let row = |(mutant, result): &(Mutant, Option<Found>)| {
            let found = result.as_ref();
            json!({"name": mutant.name(), "entry": mutant.entry(), "seeds": found.map(|f| f.seeds),
                "seed": found.map(|f| f.seed), "checker": found.map(|f| f.violation.checker.clone()),
                "event": found.map(|f| f.violation.event), "message": found.map(|f| f.violation.message.clone())})
        };
        let rows: Vec<Value> = rows.iter().map(row).collect();
        let ok = found == mutants.len();
        println!(
            "{}",
            json!({"ok": ok, "found": found, "mutants": rows, "seconds": begin.elapsed().as_secs()})
        );
    } else {
        println!("{found} of {} found", mutants.len());
    }
    if found == mutants.len() { Exit::Fine } else { Exit::Failed }
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
