//! What an attack came to, and the table of all of them.

use std::process::ExitCode;
use std::time::Instant;

/// Letters of one failure that are printed.
const LETTERS: usize = 220;

/// Whether one attack was held.
pub struct Verdict {
    /// Everything that was not as it must be; empty when the attack was held.
    pub failures: Vec<String>,
    /// What was measured, for people.
    pub figures: Vec<String>,
}

impl Verdict {
    /// Nothing wrong so far.
    pub fn new() -> Verdict {
        Verdict { failures: Vec::new(), figures: Vec::new() }
    }

    /// Notes a failure unless `fine`.
    pub fn expect(&mut self, fine: bool, why: impl FnOnce() -> String) {
        if !fine {
            self.failures.push(why());
        }
    }

    /// Notes what was measured.
    pub fn note(&mut self, figure: impl Into<String>) {
        self.figures.push(figure.into());
    }
}

/// The lines of a run.
pub struct Table {
    held: usize,
    all: usize,
    start: Instant,
}

impl Table {
    /// An empty one.
    pub fn new() -> Table {
        Table { held: 0, all: 0, start: Instant::now() }
    }

    /// Runs one attack and prints its line. An attack that cannot be carried out counts as not held.
    pub fn run(&mut self, name: &str, attack: impl FnOnce() -> Result<Verdict, String>) {
        let start = Instant::now();
        let verdict = attack().unwrap_or_else(|error| Verdict {
            failures: vec![format!("it could not be carried out: {error}")],
            figures: Vec::new(),
        });
        let seconds = start.elapsed().as_secs();
        self.all += 1;
        let result = if verdict.failures.is_empty() {
            self.held += 1;
            "held".to_owned()
        } else {
            let short = |why: &String| why.chars().take(LETTERS).collect::<String>();
            format!("NOT HELD: {}", verdict.failures.iter().map(short).collect::<Vec<_>>().join("; "))
        };
        println!("{name:<44} {result}  [{}, {seconds} s]", verdict.figures.join(", "));
    }

    /// Prints the last line; the status of the whole.
    pub fn finish(self) -> ExitCode {
        println!("{} s", self.start.elapsed().as_secs());
        println!("{} of {} held", self.held, self.all);
        if self.all > 0 && self.held == self.all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
