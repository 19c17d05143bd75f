//! One seed from beginning to end, and making a failing one smaller.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::World;
use crate::cluster::{SimOptions, SimReport, SimViolation};

/// Simulates one seed.
pub fn run(options: &SimOptions) -> SimReport {
    let mut world = World::new(options);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = match result {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some((violation.checker.to_owned(), violation.message)),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(("no panic".to_owned(), text.unwrap_or_default()))
        }
    };
    world.report_core_marks();
    let torn: u64 = world.hosts.iter().map(|host| host.disk.torn_sectors()).sum();
    if torn > 0 {
        world.report.faults.insert("torn_sector", torn);
    }
    if let Some((checker, message)) = &violation {
        world.note(|| format!("VIOLATION {checker} is violated: {}", crate::script::format::short(message)));
    }
    let mut report = std::mem::take(&mut world.report);
    report.trace = std::mem::take(&mut world.trace.lines);
    report.virtual_us = world.now;
    report.violation =
        violation.map(|(checker, message)| SimViolation { checker, message, event: report.events });
    report
}

/// Drops faults one by one as long as the same rule stays broken; gives the smallest options found, after at most `runs`
/// simulations.
pub fn shrink(options: &SimOptions, report: &SimReport, runs: usize) -> (SimOptions, SimReport) {
    let (mut smallest, mut found) = (options.clone(), report.clone());
    let Some(wanted) = report.violation.as_ref().map(|violation| violation.checker.clone()) else {
        return (smallest, found);
    };
    let mut left = runs;
    let mut size = found.fault_numbers.len().div_ceil(2);
    while size > 0 && left > 0 {
        let numbers: Vec<u64> = found.fault_numbers.iter().map(|(number, _)| *number).collect();
        let mut smaller = false;
        for part in numbers.chunks(size) {
            if left == 0 {
                break;
            }
            left -= 1;
            let mut tried = smallest.clone();
            tried.skip.extend(part);
            let outcome = run(&tried);
            if outcome.violation.as_ref().is_some_and(|violation| violation.checker == wanted) {
                (smallest, found, smaller) = (tried, outcome, true);
                break;
            }
        }
        if !smaller {
            size /= 2;
        }
    }
    (smallest, found)
}
