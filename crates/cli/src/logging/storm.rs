//! Storms in the log: the same warning over and over, from each of ten thousand groups or at each frame of a client gone mad, is written
//! a few times and then counted. News are for reading, an election of each group among them; but somebody outside can cause them, too, with raft
//! requests that he has made up, so that they have a bound, far above what honest groups have to say.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Lines of one place in the program that are written in each window: of warnings and errors, and of news.
const BURST: u32 = 20;
const BURST_OF_NEWS: u32 = 2000;
const WINDOW: Duration = Duration::from_secs(10);

/// Target of lines that were asked for, by a signal: as many as there are groups.
pub const ASKED: &str = "ringraft::asked";

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

    fn next(&mut self, now: Instant, burst: u32) -> Fate {
        if now.saturating_duration_since(self.window) >= WINDOW {
            (self.window, self.lines) = (now, 0);
        }
        self.lines = self.lines.saturating_add(1);
        if self.lines > burst {
            self.left_out += 1;
            return Fate::LeftOut;
        }
        match std::mem::take(&mut self.left_out) {
            0 if self.lines == burst => Fate::Last,
            0 => Fate::Written,
            left_out => Fate::After(left_out),
        }
    }
}

impl Calm {
    fn fate(&self, event: &Event<'_>) -> Fate {
        let metadata = event.metadata();
        let burst = match *metadata.level() {
            _ if metadata.target() == ASKED => return Fate::Written,
            Level::ERROR | Level::WARN => BURST,
            Level::INFO => BURST_OF_NEWS,
            // What somebody asks for, he gets.
            _ => return Fate::Written,
        };
        let now = Instant::now();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.entry(metadata.callsite()).or_insert_with(|| Place::new(now)).next(now, burst)
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
        for burst in [BURST, BURST_OF_NEWS] {
            let mut place = Place::new(start);
            for _ in 1..burst {
                assert_eq!(place.next(start, burst), Fate::Written);
            }
            assert_eq!(place.next(start, burst), Fate::Last);
            for _ in 0..500 {
                assert_eq!(place.next(start, burst), Fate::LeftOut);
            }
            assert_eq!(place.next(start + WINDOW, burst), Fate::After(500));
            assert_eq!(place.next(start + WINDOW, burst), Fate::Written);
        }
    }

    /// What a subscriber with this format has written.
    #[derive(Clone, Default)]
    struct Out(std::sync::Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Out {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_level_has_its_bound_and_details_have_none() {
        let out = Out::default();
        let make = out.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(Calm::default())
            .with_max_level(Level::DEBUG)
            .with_writer(move || make.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 * BURST_OF_NEWS {
                tracing::warn!("a warning");
                tracing::info!("some news");
                tracing::debug!("a detail");
                tracing::info!(target: ASKED, "an answer");
            }
        });
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let count = |what| text.lines().filter(|line| line.ends_with(what)).count() as u32;
        // A slow machine may begin another window.
        assert!(count("a warning") <= 3 * BURST, "{}", count("a warning"));
        assert!((BURST_OF_NEWS..3 * BURST_OF_NEWS).contains(&count("some news")), "{}", count("some news"));
        assert_eq!((count("a detail"), count("an answer")), (3 * BURST_OF_NEWS, 3 * BURST_OF_NEWS));
    }
}
