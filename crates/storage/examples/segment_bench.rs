//! Measures the segment log on a real disk: batches and entries a second for several batch sizes, beside the
//! floor, which is a bare write and fdatasync of as many bytes in a file that was written before.
//!
//! `cargo run --release -p ringraft-storage --example segment_bench -- DIRECTORY [SECONDS]`

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringraft_core::{ChunkBuilder, EntryChunk, LogOp};
use ringraft_storage::{
    Disk, GroupWrite, LogStorage, MemoryLogStorage, RealDisk, SegmentLog, SegmentLogOptions, WriteBatch,
};

const ENTRY: usize = 16;

fn chunk(first: u64, entries: usize) -> Arc<EntryChunk> {
    let mut builder = ChunkBuilder::new();
    for i in 0..entries {
        builder.push(&[i as u8; ENTRY]);
    }
    Arc::new(builder.take(first, 1).expect("a batch has entries"))
}

/// Median and 99th percentile in microseconds.
fn percentiles(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort_unstable();
    let at = |p: usize| times[(times.len() - 1) * p / 100].as_secs_f64() * 1e6;
    (at(50), at(99))
}

fn floor(dir: &Path, bytes: usize, time: Duration) -> Result<(f64, f64, f64), Box<dyn Error>> {
    let disk = RealDisk::new(dir.join("floor"))?;
    let size = 16 << 20;
    let file = disk.create("floor", size)?;
    file.write_at(0, &vec![0; size as usize])?;
    file.sync_data()?;
    let data = vec![7u8; bytes];
    let (start, mut times, mut at) = (Instant::now(), Vec::new(), 0);
    while start.elapsed() < time {
        let begin = Instant::now();
        file.write_at(at, &data)?;
        file.sync_data()?;
        times.push(begin.elapsed());
        at = (at + bytes as u64) % (size - bytes as u64);
    }
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    let (p50, p99) = percentiles(times);
    Ok((rate, p50, p99))
}

/// Batches a second of a store, with the median and 99th percentile of a batch, in microseconds.
fn run(log: &mut dyn LogStorage, entries: usize, time: Duration) -> Result<(f64, f64, f64), Box<dyn Error>> {
    let (group, state) = log.open_group(&"bench".parse()?)?;
    let mut next = state.last_index + 1;
    let (start, mut times, mut spent) = (Instant::now(), Vec::new(), Duration::ZERO);
    while start.elapsed() < time {
        let chunks: Vec<_> = (0..64).map(|i| chunk(next + i * entries as u64, entries)).collect();
        for chunk in chunks {
            next = chunk.last_index() + 1;
            let batch = WriteBatch { writes: vec![GroupWrite { group, ops: vec![LogOp::Append(chunk)] }] };
            let begin = Instant::now();
            log.submit(&batch)?;
            log.complete()?;
            let took = begin.elapsed();
            spent += took;
            times.push(took);
        }
        // As a group does after a snapshot: a part of the log goes and its files come back.
        if next > 200_000 && next % 7 == 1 {
            let ops = vec![LogOp::TruncatePrefix { first_kept: next - 100_000 }];
            log.submit(&WriteBatch { writes: vec![GroupWrite { group, ops }] })?;
            log.complete()?;
        }
        log.maintain()?;
    }
    let rate = times.len() as f64 / spent.as_secs_f64();
    let (p50, p99) = percentiles(times);
    Ok((rate, p50, p99))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("usage: segment_bench DIRECTORY [SECONDS]")?;
    let time = Duration::from_secs_f64(args.next().map_or(Ok(2.0), |s| s.parse())?);
    let dir = Path::new(&dir);
    println!("| store | entries a batch | batches/s | entries/s | ns an entry | p50 µs | p99 µs |");
    println!("| --- | --: | --: | --: | --: | --: | --: |");
    for entries in [1, 100, 1000] {
        let line = |name: &str, (rate, p50, p99): (f64, f64, f64)| {
            let each = rate * entries as f64;
            println!(
                "| {name} | {entries} | {rate:.0} | {each:.0} | {:.1} | {p50:.1} | {p99:.1} |",
                1e9 / each
            );
        };
        let work = dir.join(format!("segment-bench-{}-{entries}", std::process::id()));
        // Header of batch and run are part of what must be written.
        line("floor", floor(&work, 96 + entries * ENTRY, time)?);
        let begin = Instant::now();
        let mut log = SegmentLog::open_dir(work.join("sync"), SegmentLogOptions::default())?;
        let opened = begin.elapsed();
        line("segment log", run(&mut log, entries, time)?);
        drop(log);
        let options = SegmentLogOptions { sync: false, ..SegmentLogOptions::default() };
        let mut log = SegmentLog::open_dir(work.join("no-sync"), options)?;
        line("segment log, no sync", run(&mut log, entries, time)?);
        drop(log);
        line("memory store", run(&mut MemoryLogStorage::new(), entries, time / 4)?);
        let begin = Instant::now();
        drop(SegmentLog::open_dir(work.join("sync"), SegmentLogOptions::default())?);
        eprintln!("first open {opened:.1?}, open again {:.1?}", begin.elapsed());
        std::fs::remove_dir_all(&work)?;
    }
    Ok(())
}
