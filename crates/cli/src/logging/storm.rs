//! Storms in the log: the same warning over and over, from each of ten thousand groups or at each frame of a client gone mad, is written
//! a few times and then counted.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Lines of one place in the program that are written in each window; of warnings and errors.
const BURST: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);

/// The format of log lines, with a bound on those that say the same.
#[derive(Default)]
pub struct Calm {
    format: Format,
    /// By place in the program; there are as many as the program has.
    places: Mutex<HashMap<Identifier, Place>>,
}

struct Place {
    window: Instant,
    lines: u32,
    left_out: u64,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Written,
    /// Written, with a word that so many before it were not.
    After(u64),
    /// Written, with a word that those that follow are not.
    Last,
    LeftOut,
}

impl Place {
    fn new(now: Instant) -> Place {
        Place { window: now, lines: 0, left_out: 0 }
    }

    fn next(&mut self, now: Instant) -> Fate {
        if now.saturating_duration_since(self.window) >= WINDOW {
            (self.window, self.lines) = (now, 0);
        }
        self.lines = self.lines.saturating_add(1);
        if self.lines > BURST {
            self.left_out += 1;
            return Fate::LeftOut;
        }
        match std::mem::take(&mut self.left_out) {
            0 if self.lines == BURST => Fate::Last,
            0 => Fate::Written,
            left_out => Fate::After(left_out),
        }
    }
}

impl Calm {
    fn fate(&self, event: &Event<'_>) -> Fate {
        let metadata = event.metadata();
        // What somebody asks for, he gets.
        if *metadata.level() > Level::WARN {
            return Fate::Written;
        }
        let now = Instant::now();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.entry(metadata.callsite()).or_insert_with(|| Place::new(now)).next(now)
    }
}

impl<S, N> FormatEvent<S, N> for Calm
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let fate = self.fate(event);
        if fate == Fate::LeftOut {
            return Ok(());
        }
        self.format.format_event(context, writer.by_ref(), event)?;
        let seconds = WINDOW.as_secs();
        match fate {
            Fate::After(count) => writeln!(writer, "  {count} lines like this were left out before it"),
            Fate::Last => writeln!(writer, "  further lines like this are left out for up to {seconds} s"),
            Fate::Written | Fate::LeftOut => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_written_in_part_and_counted() {
        let start = Instant::now();
        let mut place = Place::new(start);
        for _ in 1..BURST {
            assert_eq!(place.next(start), Fate::Written);
        }
        assert_eq!(place.next(start), Fate::Last);
        for _ in 0..500 {
            assert_eq!(place.next(start), Fate::LeftOut);
        }
        assert_eq!(place.next(start + WINDOW), Fate::After(500));
        assert_eq!(place.next(start + WINDOW), Fate::Written);
    }
}
