//! `docs/conformance.md` names only scripts and tests that exist, and leaves no line without one or a reason.
#![allow(clippy::disallowed_methods)] // reads files, as tests may

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Reasons begin like this.
const OUT_OF_SCOPE: &str = "out of scope: ";

/// Lines of NodeTest.
const NODE_TEST_LINES: u32 = 64;

fn crates() -> PathBuf {
    let core = Path::new(env!("CARGO_MANIFEST_DIR"));
    core.parent().expect("the crate stands among the others").to_path_buf()
}

/// Every file below `folder` with this ending.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for path in entries.map(|e| e.unwrap().path()) {
        if path.is_dir() && !path.ends_with("target") {
            files(&path, ending, found);
        } else if path.extension().is_some_and(|e| e == ending) {
            found.push(path);
        }
    }
}

/// Names of the test functions in a source text.
fn tests_of(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ").or_else(|| line.strip_prefix("pub fn "))
            && std::mem::take(&mut is_test)
        {
            names.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names
}

fn exists(name: &str, scripts: &BTreeSet<String>, tests: &BTreeSet<String>) -> bool {
    match name.strip_suffix("()") {
        Some(test) => tests.contains(test),
        None => scripts.contains(name),
    }
}

/// What is wrong with a page.
fn faults(page: &str, scripts: &BTreeSet<String>, tests: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for row in
        page.lines().filter(|l| l.starts_with('|') && !l.starts_with("|---") && !l.starts_with("| Line"))
    {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [line, scenario, shown] = cells[..] else {
            faults.push(format!("{row}: not three cells"));
            continue;
        };
        if !seen.insert(line.to_owned()) {
            faults.push(format!("{line} stands twice"));
        }
        if scenario.is_empty() {
            faults.push(format!("{line} says nothing"));
        }
        let names: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        let reason = shown.strip_prefix(OUT_OF_SCOPE).is_some_and(|reason| !reason.is_empty());
        if names.is_empty() && !reason {
            faults.push(format!("{line} has neither a script, nor a test, nor a reason"));
        }
        faults.extend(
            names
                .iter()
                .filter(|n| !exists(n, scripts, tests))
                .map(|n| format!("{line} names {n}, which does not exist")),
        );
    }
    faults.extend(
        (1..=NODE_TEST_LINES)
            .filter(|n| !seen.contains(&n.to_string()))
            .map(|n| format!("line {n} of NodeTest is missing")),
    );
    faults
}

fn workspace() -> (String, BTreeSet<String>, BTreeSet<String>) {
    let page = crates().parent().expect("the workspace").join("docs/conformance.md");
    let page = fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
    let (mut texts, mut sources) = (Vec::new(), Vec::new());
    files(&crates().join("core/testdata"), "txt", &mut texts);
    files(&crates(), "rs", &mut sources);
    let scripts = texts.iter().filter_map(|p| p.file_name()?.to_str().map(str::to_owned)).collect();
    let tests = sources.iter().flat_map(|p| tests_of(&fs::read_to_string(p).unwrap())).collect();
    (page, scripts, tests)
}

#[test]
fn every_line_names_what_exists() {
    let (page, scripts, tests) = workspace();
    let faults = faults(&page, &scripts, &tests);
    assert!(faults.is_empty(), "docs/conformance.md:\n{}", faults.join("\n"));
}

#[test]
fn a_page_that_rots_is_found() {
    let (page, scripts, tests) = workspace();
    let broken = |from: &str, to: &str| {
        assert!(page.contains(from), "{from}");
        faults(&page.replacen(from, to, 1), &scripts, &tests)
    };
    assert_eq!(
        broken("`append_term.txt`", "`append_terms.txt`"),
        ["A1 names append_terms.txt, which does not exist"]
    );
    assert!(broken("`learners_do_not_count()`", "`learners_count()`")[0].contains("learners_count()"));
    assert!(
        broken("`shutdown.txt` `a_host_without_groups_ends()`", "")
            .iter()
            .any(|f| f.starts_with("1 has neither"))
    );
    assert!(broken("| 45 | ", "| 44 | ").iter().any(|f| f == "line 45 of NodeTest is missing"));
    assert!(broken("out of scope: metrics |", "out of scope: |").iter().any(|f| f.contains("neither")));
}
