//! Log lines that somebody outside can cause: how often they are written, and what of his texts they show.

use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Least time between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(10);

/// Characters of a text from the wire that a line shows.
const SHOWN: usize = 64;

/// Lets one line of a kind pass in ten seconds and counts the others: whoever can cause a line at will could otherwise fill the
/// disk that the log shares with the store. Any thread may ask.
#[derive(Debug, Default)]
pub struct LogLimiter {
    /// A handful of kinds, which are constants: a list is as quick as a map.
    kinds: Mutex<Vec<Kind>>,
}

#[derive(Debug)]
struct Kind {
    name: &'static str,
    last: Instant,
    left_out: u64,
}

impl LogLimiter {
    /// A limiter under which nothing was written yet.
    pub fn new() -> LogLimiter {
        LogLimiter::default()
    }

    /// Whether a line of this kind may be written now: `Some` with how many were left out since the last one, which the line
    /// should tell; `None` counts one more.
    pub fn pass(&self, kind: &'static str) -> Option<u64> {
        self.pass_at(kind, Instant::now())
    }

    fn pass_at(&self, name: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = self.kinds.lock();
        let Some(kind) = kinds.iter_mut().find(|kind| kind.name == name) else {
            kinds.push(Kind { name, last: now, left_out: 0 });
            return Some(0);
        };
        if now.saturating_duration_since(kind.last) < INTERVAL {
            kind.left_out += 1;
            return None;
        }
        kind.last = now;
        Some(std::mem::take(&mut kind.left_out))
    }
}

/// Shows a text from the wire in a log line: in quotes, with escapes for whatever a terminal or the next line could mistake for
/// something else, and cut after 64 characters.
pub struct WireText<'a>(pub &'a [u8]);

impl fmt::Display for WireText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A character has four bytes at most, so nothing that is shown is looked for beyond these.
        let head = &self.0[..self.0.len().min(SHOWN * 4)];
        let text = String::from_utf8_lossy(head);
        let shown = text.char_indices().nth(SHOWN).map_or(text.len(), |(end, _)| end);
        write!(f, "{:?}", &text[..shown])?;
        if shown < text.len() || head.len() < self.0.len() {
            write!(f, " and more, {} bytes in all", self.0.len())?;
        }
        Ok(())
    }
}

impl fmt::Debug for WireText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_a_kind_passes_and_tells_of_the_others() {
        let limiter = LogLimiter::new();
        let start = Instant::now();
        assert_eq!(limiter.pass_at("a", start), Some(0));
        for n in 0..1000 {
            assert_eq!(limiter.pass_at("a", start + Duration::from_millis(n * 9)), None);
        }
        assert_eq!(limiter.pass_at("b", start), Some(0), "another kind has its own count");
        assert_eq!(limiter.pass_at("a", start + INTERVAL), Some(1000));
        assert_eq!(limiter.pass_at("a", start + INTERVAL * 2), Some(0));
        // Clocks of two threads may be read in one order and arrive in the other.
        assert_eq!(limiter.pass_at("a", start), None);
    }

    #[test]
    fn texts_from_the_wire_cannot_pretend() {
        assert_eq!(WireText(b"com.Class").to_string(), "\"com.Class\"");
        let forged = WireText(b"x\nERROR store lost\x1b[2J\r\x07\"").to_string();
        assert_eq!(forged, r#""x\nERROR store lost\u{1b}[2J\r\u{7}\"""#);
        assert!(!WireText(&[0xff, 0xfe, b'a']).to_string().contains('\u{1b}'));
        // Marks that turn the direction of what follows are no better than escape codes.
        assert!(WireText("\u{202e}".as_bytes()).to_string().is_ascii());
        let long = WireText(&[b'a'; 70_000]).to_string();
        assert_eq!(long, format!("{:?} and more, 70000 bytes in all", "a".repeat(64)));
        let wide = "ü".repeat(65);
        assert_eq!(WireText(wide.as_bytes()).to_string().matches('ü').count(), 64);
    }
}
