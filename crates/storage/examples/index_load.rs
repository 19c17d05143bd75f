//! Measures what the index of the segment log costs where it costs most: many groups, each with many runs of one small entry, written by
//! turns. Memory while it writes, what a checkpoint takes, the longest call of housekeeping, and a start in a process of its own.
//!
//! `cargo run --release -p ringraft-storage --example index_load -- DIRECTORY [--groups 100000] [--runs 40] [--batch 1000]`
//!
//! It makes a directory of its own below DIRECTORY and removes it. `DIRECTORY --open` measures a start alone, and leaves everything.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ringraft_core::{ChunkBuilder, LogOp};
use ringraft_storage::{
    GroupKey, GroupOpening, GroupWrite, LogStorage, SegmentLog, SegmentLogOptions, WriteBatch,
};

/// Bytes of an entry.
const ENTRY: [u8; 16] = [7; 16];

/// Batches between two calls of housekeeping.
const BATCHES_A_CALL: usize = 16;

struct Settings {
    dir: PathBuf,
    groups: usize,
    runs: u64,
    batch: usize,
    open: bool,
}

fn settings() -> Result<Settings, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: index_load DIRECTORY [--groups N] [--runs N] [--batch N] [--open]";
    let dir = PathBuf::from(args.next().ok_or(usage)?);
    let mut settings = Settings { dir, groups: 100_000, runs: 40, batch: 1000, open: false };
    while let Some(arg) = args.next() {
        let mut number = || args.next().ok_or(usage)?.parse::<usize>().map_err(Box::<dyn Error>::from);
        match arg.as_str() {
            "--groups" => settings.groups = number()?,
            "--runs" => settings.runs = number()? as u64,
            "--batch" => settings.batch = number()?.max(1),
            "--open" => settings.open = true,
            other => return Err(format!("{other}? {usage}").into()),
        }
    }
    Ok(settings)
}

/// MiB of memory: now, and at most so far.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.unwrap_or(0) / 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

/// MiB of the files with this ending, each.
fn sizes(dir: &Path, ending: &str) -> Result<Vec<f64>, Box<dyn Error>> {
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(ending) {
            sizes.push(entry.metadata()?.len() as f64 / f64::from(1 << 20));
        }
    }
    sizes.sort_by(f64::total_cmp);
    Ok(sizes)
}

#[derive(Default)]
struct Calls {
    longest: Duration,
    all: Duration,
    over_10_ms: usize,
}

impl Calls {
    fn maintain(&mut self, log: &mut SegmentLog) -> Result<(), Box<dyn Error>> {
        let begin = Instant::now();
        log.maintain()?;
        let took = begin.elapsed();
        self.longest = self.longest.max(took);
        self.all += took;
        self.over_10_ms += usize::from(took > Duration::from_millis(10));
        Ok(())
    }
}

fn openings(groups: usize) -> Result<Vec<GroupOpening>, Box<dyn Error>> {
    let opening = |n| Ok(GroupOpening { group: format!("group{n:06}").parse()?, creation: 0 });
    (0..groups).map(opening).collect()
}

fn write(dir: &Path, settings: &Settings) -> Result<(), Box<dyn Error>> {
    let mut log = SegmentLog::open_dir(dir, SegmentLogOptions::default())?;
    let mut groups: Vec<GroupKey> = Vec::with_capacity(settings.groups);
    for opened in log.open_groups(&openings(settings.groups)?)? {
        groups.push(opened?.key);
    }
    println!("{} groups: {} MiB of memory", groups.len(), memory().0);
    let (mut calls, mut batches, mut longest_batch) = (Calls::default(), 0, Duration::ZERO);
    let start = Instant::now();
    for run in 1..=settings.runs {
        for groups in groups.chunks(settings.batch) {
            let mut writes = Vec::with_capacity(groups.len());
            for group in groups {
                let mut builder = ChunkBuilder::new();
                builder.push(&ENTRY);
                let chunk = builder.take(run, 1).ok_or("a chunk has an entry")?;
                writes.push(GroupWrite { group: *group, ops: vec![LogOp::Append(chunk.into())] });
            }
            let begin = Instant::now();
            log.submit(&WriteBatch { writes })?;
            log.complete()?;
            longest_batch = longest_batch.max(begin.elapsed());
            batches += 1;
            if batches % BATCHES_A_CALL == 0 {
                calls.maintain(&mut log)?;
            }
        }
        if (run * 4).is_multiple_of(settings.runs) {
            println!("{run} runs a group after {:.1?}: {} MiB of memory", start.elapsed(), memory().0);
        }
    }
    for _ in 0..100 {
        calls.maintain(&mut log)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    log.vouch()?;
    let (now, peak) = memory();
    println!(
        "written: {now} MiB of memory, {peak} at most; longest batch {longest_batch:.1?}; housekeeping: longest call \
         {:.1?}, {} calls over 10 ms, {:.1?} in all",
        calls.longest, calls.over_10_ms, calls.all
    );
    let segments = sizes(dir, ".seg")?;
    println!(
        "segment files {:.0} MiB, checkpoints {:.1?} MiB",
        segments.iter().sum::<f64>(),
        sizes(dir, ".ckpt")?
    );
    Ok(())
}

fn open(dir: &Path, settings: &Settings) -> Result<(), Box<dyn Error>> {
    let begin = Instant::now();
    let mut log = SegmentLog::open_dir(dir, SegmentLogOptions::default())?;
    let (took, (now, peak)) = (begin.elapsed(), memory());
    println!("open: {took:.2?}, {now} MiB of memory, {peak} at most");
    let begin = Instant::now();
    let opened = log.open_groups(&openings(settings.groups)?)?;
    let entries: u64 = opened.iter().flatten().map(|group| group.recovered.last_index).sum();
    println!("{} groups with {entries} entries told in {:.2?}", opened.len(), begin.elapsed());
    let reader = log.reader();
    let (begin, mut read) = (Instant::now(), 0);
    for group in opened.iter().flatten().step_by(opened.len() / 100 + 1) {
        let chunks = reader.read(group.key, 1, group.recovered.last_index, 1 << 20)?;
        read += chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
    }
    println!("{read} entries of every {}th group read in {:.2?}", opened.len() / 100 + 1, begin.elapsed());
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let settings = settings()?;
    if settings.open {
        return open(&settings.dir, &settings);
    }
    let dir = settings.dir.join(format!("index-load-{}", std::process::id()));
    let written = write(&dir, &settings).and_then(|()| {
        // Memory that a process has had stays its own: a start is measured in another one.
        let groups = settings.groups.to_string();
        let child = Command::new(std::env::current_exe()?)
            .arg(&dir)
            .args(["--open", "--groups", &groups])
            .status()?;
        if child.success() { Ok(()) } else { Err("the start failed".into()) }
    });
    std::fs::remove_dir_all(&dir)?;
    written
}
