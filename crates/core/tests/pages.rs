//! The places in the code that `docs/glossary.md` and `CONTRIBUTING.md` name exist.
#![allow(clippy::disallowed_methods)] // reads files, as tests may

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The cells of each row of the tables in `text`.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let rows = text.lines().filter(|l| l.starts_with("| "));
    rows.map(|l| l.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

fn code(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn each_word_of_the_glossary_is_where_it_says() {
    let text = read(&root().join("docs/glossary.md"));
    let (mut words, mut missing) = (Vec::new(), Vec::new());
    for row in rows(&text) {
        let [word, meaning, place] = row[..] else { continue };
        let [path, name] = code(place)[..] else { continue };
        assert!(!meaning.is_empty(), "{word} has no meaning");
        if !read(&root().join("crates").join(path)).contains(name) {
            missing.push(format!("{word}: {path} has no {name}"));
        }
        assert!(!words.contains(&word.to_owned()), "{word} stands there twice");
        words.push(word.to_owned());
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(words.len() > 40, "the tables are not read: {words:?}");
}

#[test]
fn each_place_to_look_at_is_there() {
    let text = read(&root().join("CONTRIBUTING.md"));
    let mut places = 0;
    for row in rows(&text) {
        // A file without a folder stands in that of the file before it.
        let mut folder = PathBuf::new();
        for place in row.iter().skip(1).flat_map(|cell| code(cell)) {
            if place.contains(' ') {
                continue;
            }
            let path = match place.strip_prefix('/') {
                Some(path) => root().join(path),
                None if place.contains('/') && root().join(place).exists() => root().join(place),
                None if place.contains('/') => root().join("crates").join(place),
                None if place.contains('.') => folder.join(place),
                None => root().join(place),
            };
            folder = path.parent().unwrap().to_owned();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let found = match name.split_once('*') {
                Some((begin, end)) => std::fs::read_dir(&folder).unwrap().any(|entry| {
                    let name = entry.unwrap().file_name().to_string_lossy().into_owned();
                    name.starts_with(begin) && name.ends_with(end)
                }),
                None => path.exists(),
            };
            assert!(found, "{place} of {row:?} is not there");
            places += 1;
        }
    }
    assert!(places > 50, "the table is not read: {places}");
}

/// Every file below `folder`, but for what is built.
fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() && !path.ends_with("target") {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Files are where the table of findings says, and the tests, scripts and mutants that show a mend are there.
#[test]
fn what_the_findings_name_is_there() {
    let text = read(&root().join("docs/findings.md"));
    let mut files = Vec::new();
    files_below(&root().join("crates"), &mut files);
    let sources = files.iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let code_of_all: String = sources.map(|path| read(path)).collect();
    let is_there = |name: &str| match name {
        _ if name.contains(' ') || name.contains("::") => true,
        _ if name.ends_with(".rs") || name.ends_with(".txt") => files.iter().any(|path| path.ends_with(name)),
        // A name with a case of its own is that of a file, a command or a type.
        _ if name.contains(['/', '.', '-']) || !name.contains('_') => true,
        _ => code_of_all.contains(&format!("fn {name}(")) || code_of_all.contains(&format!("\"{name}\"")),
    };
    let (mut missing, mut named) = (Vec::new(), 0);
    for row in rows(&text) {
        let [id, _, _, place, shown] = row[..] else { continue };
        let mutants = shown.split('*').skip(1).step_by(2).filter(|word| word.contains('_'));
        for name in code(shown).into_iter().chain(code(place).into_iter().take(1)).chain(mutants) {
            named += 1;
            if !is_there(name) {
                missing.push(format!("{id} names {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(named > 200, "the tables are not read: {named}");
}

#[test]
fn links_of_the_pages_lead_somewhere() {
    let docs = root().join("docs");
    let pages = std::fs::read_dir(&docs).unwrap().map(|entry| entry.unwrap().path());
    let mut dead = Vec::new();
    for page in pages.filter(|p| p.extension().is_some_and(|e| e == "md")) {
        let text = read(&page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !docs.join(file).exists() {
                dead.push(format!("{}: {target}", page.display()));
            }
        }
        assert!(!text.contains("\n<<<<<<< "), "{}: both sides of a merge", page.display());
    }
    assert!(dead.is_empty(), "{dead:#?}");
}
