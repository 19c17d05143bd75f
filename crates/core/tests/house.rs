//! The files of each crate stand on each other in one direction, and each is small enough to be read in one go.
#![allow(clippy::disallowed_methods)] // reads files, as tests may

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a file may have in lines.
const MOST_LINES: usize = 500;

/// Files that are longer, with the reason.
const LONG: [(&str, &str); 0] = [];

/// Crates whose files still stand in circles. Never add one: say what ties the files, and untie them.
const TIED: [&str; 0] = [];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The path of a module within its crate.
type Module = Vec<String>;

/// Sources below `folder`, with their paths.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
}

fn names_of_crates() -> Vec<String> {
    let entries = std::fs::read_dir(crates()).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<_> = entries
        .filter(|entry| entry.path().join("src").is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What a file defines and names, as far as a reader without a compiler can tell.
#[derive(Default)]
struct Source {
    path: String,
    /// Names that it defines itself.
    defined: BTreeSet<String>,
    /// Names that it imports or hands on, and from where.
    imported: BTreeMap<String, Vec<String>>,
    /// Paths that it uses. What it only hands on (`pub use`) is not among them: whoever uses it is tied to where it is defined.
    used: Vec<Vec<String>>,
}

/// The text without comments and without the tests at its end.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let of_tests = line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test");
        if of_tests && lines.peek().is_some_and(|next| next.ends_with('{')) {
            break;
        }
        code.push_str(line.split("//").next().unwrap());
        code.push('\n');
    }
    code
}

/// The paths of a `use` tree, each with the name that it gets.
fn paths_of(tree: &str, before: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let parts = |path: &str| -> Vec<String> {
        let own = path.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty());
        before.iter().cloned().chain(own.filter(|part| part != "self" || before.is_empty())).collect()
    };
    match tree.split_once('{') {
        None => {
            let (path, alias) =
                tree.split_once(" as ").map_or((tree, None), |(p, alias)| (p, Some(alias.trim())));
            let path = parts(path);
            let Some(last) = path.last().cloned() else { return };
            found.push((alias.map_or(last, str::to_owned), path));
        }
        Some((head, rest)) => {
            let before = parts(head);
            let inside = rest.rsplit_once('}').map_or(rest, |(inside, _)| inside);
            let (mut depth, mut start) = (0_usize, 0);
            for (at, letter) in inside.char_indices().chain([(inside.len(), ',')]) {
                match letter {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        let one = inside[start..at].trim();
                        if !one.is_empty() {
                            paths_of(one, &before, found);
                        }
                        start = at + 1;
                    }
                    _ => {}
                }
            }
        }
    }
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn read(path: &Path, shown: String) -> Source {
    let text = std::fs::read_to_string(path).unwrap();
    let code = code(&text);
    let mut source = Source { path: shown, ..Source::default() };
    let mut rest = String::new();
    let mut statement: Option<(bool, String)> = None;
    for line in code.lines() {
        let trimmed = line.trim_start();
        let visible = trimmed.starts_with("pub");
        let bare = trimmed.strip_prefix("pub").map_or(trimmed, |after| match after.strip_prefix('(') {
            Some(scope) => scope.split_once(')').map_or("", |(_, after)| after.trim_start()),
            None => after.trim_start(),
        });
        if statement.is_none() && bare.starts_with("use ") {
            statement = Some((visible, String::new()));
        }
        let Some((visible, so_far)) = &mut statement else {
            let mut words = line.split(|letter| !is_name(letter)).filter(|word| !word.is_empty());
            while let Some(word) = words.next() {
                if ["fn", "struct", "enum", "trait", "type", "const", "static"].contains(&word) {
                    source.defined.extend(words.next().map(str::to_owned));
                }
            }
            rest.push_str(line);
            rest.push('\n');
            continue;
        };
        so_far.push_str(if so_far.is_empty() { bare.trim_start_matches("use ") } else { line });
        if so_far.trim_end().ends_with(';') {
            let mut found = Vec::new();
            paths_of(so_far.trim_end().trim_end_matches(';'), &[], &mut found);
            if !*visible {
                source.used.extend(found.iter().map(|(_, path)| path.clone()));
            }
            source.imported.extend(found);
            statement = None;
        }
    }
    for path in rest.split(|letter| !is_name(letter) && letter != ':').filter(|word| word.contains("::")) {
        source.used.push(path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect());
    }
    source
}

/// The module that defines what `path` means in `at`, or `None` when it is none of this crate's.
fn defined_in(
    sources: &BTreeMap<Module, Source>,
    name: &str,
    at: &[String],
    path: &[String],
    depth: u8,
) -> Option<Module> {
    let (first, mut rest) = path.split_first()?;
    let mut module: Module = match first.as_str() {
        "crate" => Vec::new(),
        "self" => at.to_vec(),
        "super" => {
            let mut module = at.to_vec();
            module.pop();
            while rest.first().is_some_and(|part| part == "super") {
                module.pop();
                rest = &rest[1..];
            }
            module
        }
        first if first == name => Vec::new(),
        _ => {
            let child: Module = at.iter().chain([first]).cloned().collect();
            if !sources.contains_key(&child) {
                let imported = sources.get(at)?.imported.get(first).filter(|imported| *imported != path)?;
                let path: Vec<_> = imported.iter().chain(rest).cloned().collect();
                return (depth > 0).then(|| defined_in(sources, name, at, &path, depth - 1))?;
            }
            child
        }
    };
    while let Some(part) = rest.first() {
        let child: Module = module.iter().chain([part]).cloned().collect();
        if !sources.contains_key(&child) {
            break;
        }
        (module, rest) = (child, &rest[1..]);
    }
    let source = sources.get(&module)?;
    if let Some(part) = rest.first().filter(|part| !source.defined.contains(*part) && depth > 0)
        && let Some(imported) = source.imported.get(part)
        && let Some(found) = defined_in(sources, name, &module, imported, depth - 1)
    {
        return Some(found);
    }
    Some(module)
}

/// Whose names each module uses. A part may name the module that it is a part of: a whole in several files is still one.
fn arrows(name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let folder = crates().join(name).join("src");
    let (mut found, mut sources_of) = (Vec::new(), BTreeMap::new());
    sources(&folder, &mut found);
    for path in found {
        let shown = path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
        let parts: Vec<_> = shown.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if parts.iter().any(|part| part == "tests" || part.ends_with("_tests")) {
            continue;
        }
        let module =
            parts.into_iter().filter(|part| !["mod", "lib", "main"].contains(&part.as_str())).collect();
        sources_of.insert(module, read(&path, shown));
    }
    let crate_name = if name == "ringraft" { name.to_owned() } else { format!("ringraft_{name}") };
    let arrow = |(module, source): (&Module, &Source)| {
        let to = source.used.iter().filter_map(|path| defined_in(&sources_of, &crate_name, module, path, 8));
        let to = to.filter(|to| !module.starts_with(to)).map(|to| sources_of[&to].path.clone());
        (source.path.clone(), to.collect())
    };
    sources_of.iter().map(arrow).collect()
}

/// Everything that is reached from `from`, over one arrow or more.
fn reached<'a>(arrows: &'a BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<&'a str> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(file) = next.pop() {
        for to in arrows.get(file).into_iter().flatten() {
            if reached.insert(to.as_str()) {
                next.push(to);
            }
        }
    }
    reached
}

#[test]
fn no_file_imports_one_that_imports_it() {
    let mut wrong = Vec::new();
    for name in names_of_crates() {
        let arrows = arrows(&name);
        let tied: Vec<_> =
            arrows.keys().filter(|file| reached(&arrows, file).contains(file.as_str())).collect();
        let ties = tied.iter().flat_map(|file| {
            let to = arrows[*file]
                .iter()
                .filter(|to| tied.contains(to) && reached(&arrows, to).contains(file.as_str()));
            to.map(move |to| format!("{file} -> {to}"))
        });
        match TIED.contains(&name.as_str()) {
            false if !tied.is_empty() => {
                wrong.push(format!("crates/{name}/src: {:#?}", ties.collect::<Vec<_>>()))
            }
            true if tied.is_empty() => {
                wrong.push(format!("{name} has no circles any more: take it out of TIED"))
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "files stand in circles:\n{}", wrong.join("\n"));
}

#[test]
fn arrows_are_found() {
    let arrows = arrows("core");
    assert!(arrows["node/election.rs"].contains("node/role.rs"), "{arrows:#?}");
    assert!(arrows["node/mod.rs"].contains("effects.rs"), "over lib.rs, which hands it on: {arrows:#?}");
    assert!(arrows.values().map(BTreeSet::len).sum::<usize>() > 100, "{arrows:#?}");
}

#[test]
fn each_file_can_be_read_in_one_go() {
    let mut found = Vec::new();
    for name in names_of_crates() {
        for folder in ["src", "tests", "benches", "examples"] {
            let folder = crates().join(&name).join(folder);
            if folder.is_dir() {
                sources(&folder, &mut found);
            }
        }
    }
    let mut wrong = Vec::new();
    for path in found {
        let shown = path.strip_prefix(crates()).unwrap().to_str().unwrap().to_owned();
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        let exempt = LONG.iter().any(|(file, _)| *file == shown);
        if (lines > MOST_LINES) != exempt {
            wrong.push(format!("{shown}: {lines} lines"));
        }
    }
    assert!(wrong.is_empty(), "over {MOST_LINES} lines, or no more and still in LONG: {wrong:#?}");
}
