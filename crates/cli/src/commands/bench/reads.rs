//! `ringraft bench --reads`: what reads of each kind cost, side by side.

use serde_json::{Value, json};

use super::args::{BenchArgs, summary};
use crate::exit::Exit;

/// One summary of the lines of all nodes, with one object for each kind of read.
pub fn add_up(args: &BenchArgs, rows: &[Value]) -> Value {
    let phase = |(position, kind): (usize, &super::load::Reads)| {
        let rows: Vec<&Value> = rows.iter().map(|row| &row["phases"][position]).collect();
        let number = |row: &Value, key: &str| row[key].as_f64().unwrap_or(0.0);
        let sum = |key: &str| rows.iter().map(|row| number(row, key)).sum::<f64>();
        let rate: f64 = rows.iter().map(|row| number(row, "ops") / number(row, "seconds").max(1e-9)).sum();
        let busiest = rows.iter().max_by(|a, b| number(a, "ops").total_cmp(&number(b, "ops")));
        let of_busiest = |key: &str| busiest.map_or(Value::Null, |row| row[key].clone());
        let ops = sum("ops");
        let per_read = |total: f64| if ops > 0.0 { json!(total / ops) } else { Value::Null };
        // A round is one heartbeat to each of the others.
        let rounds = sum("heartbeats") / (args.nodes as f64 - 1.0).max(1.0);
        json!({
            "kind": kind.to_string(), "reads_per_s": rate.round(), "p50_us": of_busiest("p50_us"),
            "p99_us": of_busiest("p99_us"), "p999_us": of_busiest("p999_us"), "errors": sum("errors"),
            "cpu_us_per_read": per_read(sum("cpu_s") * 1e6), "cpu_cores": sum("cpu_s") / args.seconds,
            "heartbeat_rounds_per_100_reads": per_read(rounds * 100.0),
            "fsyncs_per_s": sum("fsyncs") / args.seconds,
        })
    };
    let phases: Vec<Value> = args.reads.iter().enumerate().map(phase).collect();
    summary(args, rows[0]["system"].as_str().unwrap_or("ringraft"), json!({ "reads": phases }))
}

/// Prints the summary; a run in which one kind was not read at all has failed.
pub fn print(args: &BenchArgs, summary: &Value) -> Exit {
    let phases = summary["reads"].as_array().cloned().unwrap_or_default();
    if args.json {
        println!("{summary}");
    } else {
        println!(
            "{:>9} {:>12} {:>9} {:>9} {:>8} {:>9} {:>12} {:>24}",
            "reads",
            "reads/s",
            "p50 us",
            "p99 us",
            "errors",
            "us CPU",
            "fsyncs/s",
            "heartbeat rounds per 100"
        );
        for phase in &phases {
            let number = |key: &str| phase[key].as_f64().unwrap_or(0.0);
            println!(
                "{:>9} {:>12} {:>9} {:>9} {:>8} {:>9.2} {:>12.0} {:>24.4}",
                phase["kind"].as_str().unwrap_or(""),
                number("reads_per_s"),
                number("p50_us"),
                number("p99_us"),
                number("errors"),
                number("cpu_us_per_read"),
                number("fsyncs_per_s"),
                number("heartbeat_rounds_per_100_reads"),
            );
        }
    }
    let idle = phases.iter().find(|phase| phase["reads_per_s"].as_f64().unwrap_or(0.0) == 0.0);
    match idle {
        Some(phase) => Exit::Failed.say(&format!("no {} read was done; see the errors above", phase["kind"])),
        None => Exit::Fine,
    }
}
