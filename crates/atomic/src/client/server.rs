//! What the client remembers of one server: when it was heard, and whether it is better asked last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a server is avoided after it did not answer; it doubles with each time that follows without an answer in between.
const SILENCE_PENALTY: Duration = Duration::from_secs(2);
/// Longest penalty.
const LONGEST_PENALTY: Duration = Duration::from_secs(32);
/// How long a server is avoided that cannot be reached. That is found out quickly, and it may be restarting.
const UNREACHABLE_PENALTY: Duration = Duration::from_millis(500);

/// A server. One that is *avoided* is asked when nobody else is left to ask. Whatever it answers ends that, and so does time.
#[derive(Debug)]
pub(super) struct Server {
    endpoint: Arc<str>,
    /// All times below are milliseconds after this.
    epoch: Instant,
    /// 0 means never.
    heard: AtomicU64,
    avoided_until: AtomicU64,
    /// Times in a row that it was found silent.
    strikes: AtomicU32,
    /// It was asked who leads, and has not answered yet.
    is_asked: AtomicBool,
    asked: AtomicU64,
}

impl Server {
    pub(super) fn new(endpoint: Arc<str>) -> Server {
        Server {
            endpoint,
            epoch: Instant::now(),
            heard: AtomicU64::new(0),
            avoided_until: AtomicU64::new(0),
            strikes: AtomicU32::new(0),
            is_asked: AtomicBool::new(false),
            asked: AtomicU64::new(0),
        }
    }

    /// `ip:port`.
    pub(super) fn endpoint(&self) -> &Arc<str> {
        &self.endpoint
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }

    /// It has answered something.
    pub(super) fn heard(&self, now: Instant) {
        self.heard.store(self.millis(now).max(1), Ordering::Relaxed);
        if self.avoided_until.load(Ordering::Relaxed) != 0 {
            self.strikes.store(0, Ordering::Relaxed);
            self.avoided_until.store(0, Ordering::Relaxed);
        }
    }

    /// For how long it has answered nothing though a request has been waiting for it since `sent`.
    pub(super) fn silence(&self, sent: Instant, now: Instant) -> Duration {
        let since = self.millis(sent).max(self.heard.load(Ordering::Relaxed));
        Duration::from_millis(self.millis(now).saturating_sub(since))
    }

    /// Whether it has answered something within the last `time`.
    pub(super) fn is_heard(&self, now: Instant, time: Duration) -> bool {
        let heard = self.heard.load(Ordering::Relaxed);
        heard != 0 && Duration::from_millis(self.millis(now).saturating_sub(heard)) <= time
    }

    /// It did not answer. Counts once while it is avoided.
    pub(super) fn was_silent(&self, now: Instant) {
        if self.is_avoided(now) {
            return;
        }
        let strikes = self.strikes.fetch_add(1, Ordering::Relaxed).min(16);
        self.avoid(now, SILENCE_PENALTY.saturating_mul(1 << strikes).min(LONGEST_PENALTY));
    }

    /// It could not be reached: nothing was sent.
    pub(super) fn was_unreachable(&self, now: Instant) {
        self.avoid(now, UNREACHABLE_PENALTY);
    }

    fn avoid(&self, now: Instant, penalty: Duration) {
        self.avoided_until.fetch_max(self.millis(now + penalty), Ordering::Relaxed);
    }

    pub(super) fn is_avoided(&self, now: Instant) -> bool {
        self.avoided_until.load(Ordering::Relaxed) > self.millis(now)
    }

    /// Until when it is avoided, to compare servers that all are.
    pub(super) fn avoided_until(&self) -> u64 {
        self.avoided_until.load(Ordering::Relaxed)
    }

    /// Whether it may be asked who leads: not while an earlier question waits, and not sooner than `pause` after it. Whoever is told
    /// yes asks, and says so when the question has ended.
    pub(super) fn begin_question(&self, now: Instant, pause: Duration) -> bool {
        let (at, last) = (self.millis(now), self.asked.load(Ordering::Relaxed));
        let too_soon = last != 0 && Duration::from_millis(at.saturating_sub(last)) < pause;
        if too_soon || self.is_asked.swap(true, Ordering::Relaxed) {
            return false;
        }
        self.asked.store(at.max(1), Ordering::Relaxed);
        true
    }

    pub(super) fn end_question(&self) {
        self.is_asked.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn server() -> (Server, Instant) {
        let server = Server::new("a:1".into());
        let now = server.epoch + SECOND;
        (server, now)
    }

    #[test]
    fn silence_counts_from_the_request_or_from_what_was_heard_since() {
        let (server, sent) = server();
        assert_eq!(server.silence(sent, sent + SECOND), SECOND);
        assert!(!server.is_heard(sent, SECOND));
        server.heard(sent + SECOND);
        assert!(server.is_heard(sent + 2 * SECOND, SECOND) && !server.is_heard(sent + 3 * SECOND, SECOND));
        assert_eq!(server.silence(sent, sent + SECOND), Duration::ZERO, "it answers others, it is alive");
        assert_eq!(server.silence(sent, sent + 3 * SECOND), 2 * SECOND);
    }

    #[test]
    fn the_penalty_doubles_decays_and_is_forgiven() {
        let (server, now) = server();
        server.was_silent(now);
        server.was_silent(now);
        assert!(server.is_avoided(now + SILENCE_PENALTY - SECOND), "once");
        let later = now + SILENCE_PENALTY;
        assert!(!server.is_avoided(later), "it has decayed");
        server.was_silent(later);
        assert!(server.is_avoided(later + SILENCE_PENALTY), "twice as long");
        server.heard(later);
        assert!(!server.is_avoided(later));
        server.was_silent(later);
        assert!(!server.is_avoided(later + SILENCE_PENALTY), "from the beginning");
        let mut now = later;
        for _ in 0..100 {
            now += 2 * LONGEST_PENALTY;
            server.was_silent(now);
            assert!(!server.is_avoided(now + LONGEST_PENALTY));
        }
    }

    #[test]
    fn one_question_at_a_time() {
        let (server, now) = server();
        assert!(server.begin_question(now, SECOND));
        assert!(!server.begin_question(now + 2 * SECOND, SECOND), "it has not answered");
        server.end_question();
        assert!(!server.begin_question(now + SECOND / 2, SECOND), "too soon");
        assert!(server.begin_question(now + SECOND, SECOND));
    }
}
