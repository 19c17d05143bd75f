//! The load: sessions that send one request at a time and check every answer, on a few threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use ringraft_atomic::{AtomicClient, ClientError, Command, Outcome, ReadFrom, ReadMode};

use super::board::Board;
use super::checker::Register;

/// Counters that one session owns.
const REGISTERS: usize = 8;
/// How long a request may take: longer than any failover should.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest latency that the histogram tells apart, in microseconds.
const LATENCY_MAX_US: u64 = 60_000_000;
/// A linearizable read by whichever replica is asked.
const QUORUM_ANYWHERE: ReadMode = ReadMode::Quorum { from: ReadFrom::AnyReplica, lease: false };
/// Reads on their way at a time when everything is read at the end.
const READ_WINDOW: usize = 512;

/// How much load.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Threads.
    pub workers: usize,
    /// Sessions of each thread.
    pub sessions: usize,
    /// Requests a second, all together; 0 means as many as there are answers.
    pub rate: u64,
    /// Decides what is sent.
    pub seed: u64,
    /// Two reads of three go through a quorum, half of them at any replica; otherwise all go through the log.
    pub quorum_reads: bool,
}

/// A load that runs.
pub struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<Worker>>,
}

struct Shared {
    client: AtomicClient,
    board: Arc<Board>,
    failovers: Arc<Mutex<Vec<Duration>>>,
    /// Position of the server with an `ip:port`.
    servers: Vec<String>,
    stop: AtomicBool,
}

/// What remains of a load.
pub struct Finished {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
}

struct Worker {
    shared: Arc<Shared>,
    sessions: Vec<Session>,
    answers: Receiver<(usize, Request, Result<Outcome, ClientError>)>,
    sender: Sender<(usize, Request, Result<Outcome, ClientError>)>,
    latency_us: Histogram<u64>,
    pause: Duration,
}

/// One client whose requests follow each other.
struct Session {
    id: u64,
    random: u64,
    registers: Vec<Register>,
    /// Values are unique: the session's id in the upper half, this below.
    sequence: i64,
    /// Counters that are written once: whether that was acknowledged.
    once: Vec<bool>,
    quorum_reads: bool,
    /// Read this register next, to learn what became of an unknown write.
    doubtful: Option<usize>,
}

#[derive(Clone, Debug)]
enum Request {
    Set { register: usize, value: i64 },
    CompareAndSet { register: usize, value: i64 },
    Get { register: usize, mode: ReadMode },
    Add { tally: usize },
    Once,
}

impl Load {
    /// Starts the threads. `servers` are the `ip:port`s whose positions the board speaks of.
    pub fn start(
        client: AtomicClient,
        board: Arc<Board>,
        servers: Vec<String>,
        options: &LoadOptions,
    ) -> Load {
        let failovers = Arc::default();
        let shared = Arc::new(Shared { client, board, failovers, servers, stop: AtomicBool::new(false) });
        let pause = match options.rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(options.workers as f64 / rate as f64),
        };
        let worker = |i: usize| {
            let ids = i * options.sessions..(i + 1) * options.sessions;
            let sessions = ids.map(|id| Session::new(id as u64, options)).collect();
            let (sender, answers) = mpsc::channel();
            // The bounds are constants that the histogram accepts.
            let latency_us =
                Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).unwrap_or_else(|e| unreachable!("{e}"));
            let worker = Worker { shared: Arc::clone(&shared), sessions, answers, sender, latency_us, pause };
            std::thread::spawn(move || worker.run())
        };
        let workers = (0..options.workers).map(worker).collect();
        Load { shared, workers }
    }

    /// How long each outage took that has ended.
    pub fn failovers(&self) -> Vec<Duration> {
        self.shared.failovers.lock().clone()
    }

    /// Sends nothing more and waits for what is on its way.
    ///
    /// # Errors
    /// When a worker has panicked.
    pub fn stop(self) -> Result<Finished, String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let joined: Result<Vec<Worker>, _> = self.workers.into_iter().map(JoinHandle::join).collect();
        let workers = joined.map_err(|_| "a worker of the load has panicked".to_owned())?;
        Ok(Finished { shared: self.shared, workers })
    }
}

impl Finished {
    /// Latency of acknowledged writes, in microseconds.
    pub fn latency_us(&self) -> Histogram<u64> {
        let mut all: Histogram<u64> =
            Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).unwrap_or_else(|e| unreachable!("{e}"));
        for worker in &self.workers {
            // The bounds are the same.
            let _ = all.add(&worker.latency_us);
        }
        all
    }

    /// How long each outage took.
    pub fn failovers(&self) -> Vec<Duration> {
        self.shared.failovers.lock().clone()
    }

    /// Reads every counter through the log and checks it. Gives how many there are; `progress` is told how many were read.
    ///
    /// # Errors
    /// When a counter cannot be read.
    pub fn verify(&mut self, mut progress: impl FnMut(usize, usize)) -> Result<usize, String> {
        let mut checks: Vec<(String, Check)> = Vec::new();
        for session in self.workers.iter_mut().flat_map(|worker| &mut worker.sessions) {
            for (i, register) in std::mem::take(&mut session.registers).into_iter().enumerate() {
                checks.push((register_key(session.id, i), Check::Register(register)));
            }
            for (i, acked) in session.once.iter().enumerate() {
                checks.push((
                    once_key(session.id, i),
                    Check::Once { value: once_value(session.id, i), acked: *acked },
                ));
            }
        }
        let board = &self.shared.board;
        checks.extend((0..board.tallies()).map(|tally| (tally_key(tally), Check::Tally(tally))));
        let total = checks.len();
        let mut pending = checks.into_iter();
        let (sender, answers) = mpsc::channel();
        let (mut waiting, mut done) = (0, 0);
        loop {
            for (key, check) in pending.by_ref().take(READ_WINDOW - waiting) {
                let sender = sender.clone();
                let command = Command::Get { key: key.clone() };
                self.shared.client.submit(command, ReadMode::ThroughLog, PATIENCE, move |outcome| {
                    // Whoever verifies waits for every answer.
                    let _ = sender.send((key, check, outcome));
                });
                waiting += 1;
            }
            if waiting == 0 {
                return Ok(total);
            }
            let Ok((key, check, outcome)) = answers.recv() else { return Ok(total) };
            waiting -= 1;
            done += 1;
            let value = outcome.map_err(|error| format!("{key} cannot be read: {error}"))?.value();
            board.check(check.read(&key, value, board));
            progress(done, total);
        }
    }
}

/// What a counter must hold at the end.
enum Check {
    Register(Register),
    Tally(usize),
    Once { value: i64, acked: bool },
}

impl Check {
    fn read(self, key: &str, value: Option<i64>, board: &Board) -> Result<(), String> {
        match self {
            Check::Register(mut register) => register.read(key, value),
            Check::Tally(tally) => board.tally(tally).lock().read(key, value),
            Check::Once { value: wanted, acked } => match value {
                Some(value) if value == wanted => Ok(()),
                None if !acked => Ok(()),
                None => Err(format!("{key}: the acknowledged {wanted} is not there")),
                Some(value) => Err(format!("{key}: only {wanted} was ever written, found {value}")),
            },
        }
    }
}

// What differs stands first: FNV-1 carries a difference in the last letters not far enough up to change the range, and then
// some groups would hardly ever be asked, and their outages be as long as the pause between two requests.

fn register_key(session: u64, register: usize) -> String {
    format!("{session}/{register}/register")
}

fn tally_key(tally: usize) -> String {
    format!("{tally}/tally")
}

fn once_key(session: u64, number: usize) -> String {
    format!("{session}/{number}/once")
}

fn once_value(session: u64, number: usize) -> i64 {
    ((session as i64 + 1) << 32) + number as i64
}

impl Worker {
    fn run(mut self) -> Worker {
        let mut ready: Vec<usize> = (0..self.sessions.len()).collect();
        let mut waiting = 0;
        let mut next_send = Instant::now();
        loop {
            let stop = self.shared.stop.load(Ordering::Relaxed);
            if stop && waiting == 0 {
                return self;
            }
            let now = Instant::now();
            // Time that was lost is not made up for: that would be a burst after each outage.
            next_send = next_send.max(now.checked_sub(Duration::from_millis(50)).unwrap_or(now));
            while !stop && next_send <= now {
                let Some(session) = ready.pop() else { break };
                self.send(session);
                waiting += 1;
                next_send += self.pause;
            }
            let limit = match (stop, ready.is_empty()) {
                (false, false) => next_send.saturating_duration_since(now),
                _ => Duration::from_millis(50),
            };
            match self.answers.recv_timeout(limit) {
                Ok((session, request, outcome)) => {
                    waiting -= 1;
                    self.take(session, &request, outcome);
                    ready.push(session);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self,
            }
        }
    }

    fn send(&mut self, session: usize) {
        let tallies = self.shared.board.tallies();
        let (request, command) = self.sessions[session].next(tallies);
        let mode = match request {
            Request::Get { mode, .. } => mode,
            _ => ReadMode::default(),
        };
        let sender = self.sender.clone();
        self.shared.client.submit(command, mode, PATIENCE, move |outcome| {
            // The worker waits for every answer.
            let _ = sender.send((session, request, outcome));
        });
    }

    fn take(&mut self, session: usize, request: &Request, outcome: Result<Outcome, ClientError>) {
        let board = &self.shared.board;
        let is_read = matches!(request, Request::Get { .. });
        let by_the_leader = !matches!(request, Request::Get { mode: QUORUM_ANYWHERE, .. });
        let count = |counter: &std::sync::atomic::AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match &outcome {
            Ok(outcome) => {
                if by_the_leader
                    && let Some(server) =
                        self.shared.servers.iter().position(|server| **server == *outcome.server)
                {
                    board.success(outcome.slot, server, &self.shared.failovers);
                }
                if is_read {
                    count(&board.reads);
                } else {
                    count(&board.acked);
                    self.latency_us.saturating_record(outcome.latency.as_micros() as u64);
                }
            }
            Err(ClientError::Unknown(_)) => {
                count(&board.unknown);
            }
            Err(error) => board.fail(&error.to_string()),
        }
        match &outcome {
            Err(ClientError::Unknown(_) | ClientError::NotLeader(_)) if is_read => {
                count(&board.reads_leaderless);
            }
            Err(_) if is_read => {
                count(&board.reads_failed);
            }
            _ => {}
        }
        board.check(self.sessions[session].take(request, outcome.as_ref(), board));
    }
}

impl Session {
    fn new(id: u64, options: &LoadOptions) -> Session {
        // Never 0, at which the generator would stay.
        let random = (options.seed.wrapping_add(id + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let registers = vec![Register::default(); REGISTERS];
        Session {
            id,
            random,
            registers,
            sequence: 0,
            once: Vec::new(),
            quorum_reads: options.quorum_reads,
            doubtful: None,
        }
    }

    /// Marsaglia's xorshift.
    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) % below
    }

    fn unique(&mut self) -> i64 {
        self.sequence += 1;
        ((self.id as i64 + 1) << 32) + self.sequence
    }

    fn read_mode(&mut self) -> ReadMode {
        match (self.quorum_reads, self.draw(3)) {
            (false, _) | (_, 0) => ReadMode::ThroughLog,
            (_, 1) => ReadMode::Quorum { from: ReadFrom::Leader, lease: false },
            _ => QUORUM_ANYWHERE,
        }
    }

    fn next(&mut self, tallies: usize) -> (Request, Command) {
        let register = self.draw(REGISTERS as u64) as usize;
        let choice = self.draw(100);
        if let Some(register) = self.doubtful.take() {
            let mode = self.read_mode();
            return (Request::Get { register, mode }, Command::Get { key: register_key(self.id, register) });
        }
        let key = register_key(self.id, register);
        match choice {
            0..40 => {
                let value = self.unique();
                (Request::Set { register, value }, Command::Set { key, value })
            }
            40..55 => {
                let value = self.unique();
                let expect = self.registers[register].expected();
                (
                    Request::CompareAndSet { register, value },
                    Command::CompareAndSet { key, expect, new_value: value },
                )
            }
            55..75 => {
                let tally = self.draw(tallies as u64) as usize;
                (Request::Add { tally }, Command::IncrementAndGet { key: tally_key(tally), delta: 1 })
            }
            75..80 => {
                let number = self.once.len();
                self.once.push(false);
                let (key, value) = (once_key(self.id, number), once_value(self.id, number));
                (Request::Once, Command::Set { key, value })
            }
            _ => (Request::Get { register, mode: self.read_mode() }, Command::Get { key }),
        }
    }

    /// Checks an answer and remembers what it says.
    fn take(
        &mut self,
        request: &Request,
        outcome: Result<&Outcome, &ClientError>,
        board: &Board,
    ) -> Result<(), String> {
        let unknown = matches!(outcome, Err(ClientError::Unknown(_)));
        match *request {
            Request::Set { register, value } => match outcome {
                Ok(_) => self.registers[register].acked(value),
                Err(_) if unknown => self.registers[register].unknown(value),
                Err(_) => {}
            },
            Request::CompareAndSet { register, value } => match outcome.map(Outcome::changed) {
                Ok(Some(true)) => self.registers[register].acked(value),
                Ok(_) => {
                    self.doubtful = Some(register);
                    return self.registers[register].comparison_failed(&register_key(self.id, register));
                }
                Err(_) if unknown => self.registers[register].unknown(value),
                Err(_) => {}
            },
            Request::Get { register, .. } => {
                if let Ok(outcome) = outcome {
                    return self.registers[register].read(&register_key(self.id, register), outcome.value());
                }
            }
            Request::Add { tally } => match outcome.map(Outcome::value) {
                Ok(sum) => return board.tally(tally).lock().acked(&tally_key(tally), sum.unwrap_or(0)),
                Err(_) if unknown => board.tally(tally).lock().unknown(),
                Err(_) => {}
            },
            Request::Once => {
                if let (Ok(_), Some(acked)) = (outcome, self.once.last_mut()) {
                    *acked = true;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ringraft_atomic::Ranges;

    use super::*;

    /// A group that is asked once in a second seems to be out for a second whenever its leader is killed.
    #[test]
    fn every_group_gets_its_share_of_the_load() {
        for groups in [2, 8, 16] {
            let ranges = Ranges::cut(0, i64::MAX, groups).unwrap();
            let mut registers = vec![0; groups];
            for session in 0..64 {
                for register in 0..REGISTERS {
                    registers[ranges.locate_key(&register_key(session, register))] += 1;
                }
            }
            let fair = 64 * REGISTERS / groups;
            assert!(registers.iter().all(|count| *count > fair / 2), "{registers:?}");
        }
    }
}
