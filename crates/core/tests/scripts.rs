//! Runs the golden scripts of `testdata/`, whose language `docs/scripts.md` describes.
//!
//! `REWRITE=1 cargo test -p ringraft-core --test scripts` writes the traces into the files as they are; commit the
//! changes only when you understand what caused them.
#![allow(clippy::disallowed_methods)] // reads files and the environment, as tests may

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ringraft_sim::script;

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "txt"));
    paths.sort();
    paths
}

fn run(path: &Path, rewrite: bool) -> Result<(), script::ScriptError> {
    if rewrite {
        if script::rewrite(path)? {
            eprintln!("rewrote {}", path.display());
        }
        return Ok(());
    }
    let outcome = script::check_file(path)?;
    assert!(outcome.commands > 0, "{} is empty", path.display());
    Ok(())
}

#[test]
fn every_script_runs_as_it_says() {
    // With a known bug put back in: its script must notice.
    #[cfg(feature = "mutants")]
    if let Ok(name) = std::env::var("MUTANT") {
        let mutant =
            ringraft_core::Mutant::named(&name).unwrap_or_else(|| panic!("there is no mutant {name}"));
        ringraft_core::mutants::choose(Some(mutant));
    }
    let rewrite = std::env::var("REWRITE").is_ok_and(|v| v == "1");
    let paths = scripts();
    assert!(!paths.is_empty(), "there are no scripts");
    let mut failures = Vec::new();
    for path in paths {
        // A panic of the node fails its script, not those after it.
        match catch_unwind(AssertUnwindSafe(|| run(&path, rewrite))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failures.push(format!("{}\n{error}", path.display())),
            Err(_) => failures.push(format!("{}\na panic, see above", path.display())),
        }
    }
    assert!(failures.is_empty(), "{} scripts fail\n\n{}", failures.len(), failures.join("\n\n"));
}

/// A script must fail when any one of its trace lines, or any one of its expectations, is not what happens.
#[test]
fn a_corrupted_script_fails() {
    let mut corrupted = 0;
    for path in scripts() {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let candidates: Vec<usize> = (0..lines.len())
            .filter(|i| lines[*i].starts_with("  ") || lines[*i].starts_with("expect "))
            .collect();
        // One line near the end of each script: everything before it is as it should be.
        let Some(at) = candidates.iter().rev().nth(candidates.len() / 10) else { continue };
        let mut bad: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
        bad[*at] = match lines[*at].strip_prefix("expect ") {
            Some(_) => format!("{}x", lines[*at]),
            None => format!("{} x", lines[*at]),
        };
        let result = script::check(&bad.join("\n"));
        assert!(result.is_err(), "{} passes with line {} corrupted", path.display(), at + 1);
        corrupted += 1;
    }
    assert!(corrupted > 0);
}
