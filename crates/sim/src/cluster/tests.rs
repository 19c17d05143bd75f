use super::*;

fn green(profile: Profile, seeds: std::ops::Range<u64>) -> SimReport {
    let mut total = SimReport::default();
    for seed in seeds {
        let report = run(&SimOptions { seed, profile, ..SimOptions::default() });
        assert_eq!(report.violation, None, "seed {seed}, profile {profile:?}");
        total.events += report.events;
        total.commits += report.commits;
    }
    total
}

#[test]
fn seeds_of_every_profile_are_green() {
    for profile in [Profile::Swarm, Profile::Network, Profile::Disk] {
        let total = green(profile, 0..12);
        assert!(total.events > 100_000 && total.commits > 1000, "{profile:?}: {total:?}");
    }
}

#[test]
fn a_seed_is_bit_equal_when_it_is_run_again() {
    for seed in 100..105 {
        let options = SimOptions { seed, ..SimOptions::default() };
        let (first, second) = (run(&options), run(&options));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_eq!((first.events, first.commits), (second.events, second.commits), "seed {seed}");
        let other = run(&SimOptions { seed: seed + 1000, ..options });
        assert_ne!(first.trace_hash, other.trace_hash);
    }
}

/// `SEEDS=1000..2000 PROFILE=disk cargo test --release -p ringraft-sim soak -- --ignored --nocapture`
#[test]
#[ignore = "runs as many seeds as it is asked to"]
fn soak() {
    let range = std::env::var("SEEDS").unwrap_or_else(|_| "0..100".to_owned());
    let (from, to) = range.split_once("..").unwrap();
    let profile = match std::env::var("PROFILE").as_deref() {
        Ok("network") => Profile::Network,
        Ok("disk") => Profile::Disk,
        _ => Profile::Swarm,
    };
    let (start, mut events, mut broken) = (std::time::Instant::now(), 0, 0);
    for seed in from.parse::<u64>().unwrap()..to.parse().unwrap() {
        let report = run(&SimOptions {
            seed,
            profile,
            trace: std::env::var("TRACE").is_ok(),
            ..SimOptions::default()
        });
        events += report.events;
        if let Some(violation) = report.violation {
            broken += 1;
            report.trace.iter().for_each(|line| println!("{line}"));
            println!("seed {seed}: {} at {}: {}", violation.checker, violation.event, violation.message);
        }
    }
    println!(
        "{events} events, {:.0} a second, {broken} broken",
        events as f64 / start.elapsed().as_secs_f64()
    );
}
