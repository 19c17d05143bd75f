//! What the demo is doing: a bar on a terminal, plain lines otherwise.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::board::Board;

/// Speaks on stderr.
#[derive(Clone)]
pub struct Progress {
    bar: Option<ProgressBar>,
    start: Instant,
}

impl Progress {
    /// A bar if stderr is a terminal.
    pub fn new() -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}");
            ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        Progress { bar, start: Instant::now() }
    }

    /// Says something that stays.
    pub fn say(&self, text: &str) {
        let line = format!("{:6.1} s  {text}", self.start.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// Says something that the next one replaces; without a terminal it stays.
    pub fn tell(&self, text: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(text.to_owned());
                bar.tick();
            }
            None => self.say(text),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn period(&self) -> Duration {
        if self.bar.is_some() { Duration::from_millis(200) } else { Duration::from_secs(1) }
    }
}

/// Shows the load's numbers until it is dropped.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to show `board`, of a cluster of `servers`.
    pub fn start(progress: &Progress, board: &Arc<Board>, servers: usize) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let (progress, board, stopped) = (progress.clone(), Arc::clone(board), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let (mut at, mut before) = (Instant::now(), 0);
            while !stopped.load(Ordering::Relaxed) {
                std::thread::park_timeout(progress.period());
                let (now, acked) = (Instant::now(), board.acked.load(Ordering::Relaxed));
                if now - at < progress.period() {
                    continue;
                }
                let rate = (acked - before) as f64 / (now - at).as_secs_f64();
                (at, before) = (now, acked);
                progress.tell(&line(&board, acked, rate, servers));
            }
        });
        Watch { stop, thread: Some(thread) }
    }
}

fn line(board: &Board, acked: u64, rate: f64, servers: usize) -> String {
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let leads = board.leads(servers);
    let leads: Vec<String> = leads.iter().enumerate().map(|(i, n)| format!("s{}:{n}", i + 1)).collect();
    let (reads, unknown, failed) = (load(&board.reads), load(&board.unknown), load(&board.failed));
    format!(
        "{acked} writes ({rate:.0}/s), {reads} reads, {unknown} unknown, {failed} failed, leaders {}",
        leads.join(" ")
    )
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has nothing to say but its panic, which was reported.
            let _ = thread.join();
        }
    }
}
