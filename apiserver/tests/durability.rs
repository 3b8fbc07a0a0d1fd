//! The program under load, killed with SIGKILL at random points again and again, and started again from its log: nothing
//! that was acknowledged is lost or changed, what was not acknowledged happened whole or not at all, and a watch that goes
//! on from the last revision it saw misses nothing.
//!
//! The points are counted in acknowledged writes, not in time, and follow from a seed; `DURABILITY_SEED` plays one again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

#[path = "durability/follower.rs"]
mod follower;
mod process;
#[path = "durability/writer.rs"]
mod writer;

use std::io::Write;
use std::path::Path;

use follower::Follower;
use process::{Installation, Process, bytes};
use tokio::sync::watch;
use writer::Writer;

const WRITERS: usize = 4;
const KILLS: usize = 12;
/// Writes that are acknowledged between two starts.
const BETWEEN: std::ops::Range<usize> = 1..150;

/// Bytes of a record before its payload: length, and two checksums.
const HEADER: usize = 12;

/// Where each record begins.
fn records(log: &[u8]) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut at = 8;
    while let Some(header) = log.get(at..at + 4) {
        starts.push(at);
        at += HEADER + u32::from_le_bytes(header.try_into().unwrap()) as usize;
    }
    starts
}

/// Leaves the beginning of a record at the end of the log, as a process that dies while it writes does.
fn tear(path: &Path, chance: &mut fastrand::Rng) {
    let log = bytes(path);
    let starts = records(&log);
    let start = starts[chance.usize(..starts.len())];
    let length = HEADER + u32::from_le_bytes(log[start..start + 4].try_into().unwrap()) as usize;
    let torn = &log[start..start + chance.usize(1..length)];
    std::fs::File::options().append(true).open(path).unwrap().write_all(torn).unwrap();
}

/// Lets everybody write until `most` writes are acknowledged, and then kills the server.
async fn load(writers: Vec<Writer>, installation: &Installation, process: Process, most: usize) -> Vec<Writer> {
    let (count, mut counted) = watch::channel(0usize);
    let mut tasks = Vec::new();
    for mut writer in writers {
        let (client, count) = (installation.admin(&process), count.clone());
        tasks.push(tokio::spawn(async move {
            writer.work(&client, &count).await;
            writer
        }));
    }
    drop(count);
    // An error means that all of them ended before, which only a server that is gone can bring about.
    let reached = counted.wait_for(|count| *count >= most).await.is_ok();
    assert!(reached, "the server ended by itself");
    process.kill();
    let mut writers = Vec::new();
    for task in tasks {
        writers.push(task.await.unwrap());
    }
    writers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let seed = std::env::var("DURABILITY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(fastrand::u64(..));
    println!("DURABILITY_SEED={seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let installation = Installation::new("durability");
    let log = installation.scratch.path("data.log");
    let flags = [format!("--data-log={}", log.display())];
    let mut writers: Vec<Writer> = (0..WRITERS).map(|index| Writer::new(index, chance.u64(..))).collect();
    let mut process = installation.start(&flags);
    let follower = Follower::start(installation.admin(&process)).await;
    let mut newest = 0;
    for round in 0..KILLS {
        writers = load(writers, &installation, process, chance.usize(BETWEEN)).await;
        let torn = chance.bool();
        if torn {
            tear(&log, &mut chance);
        }
        process = installation.start(&flags);
        follower.goes_on_with(installation.admin(&process));
        let client = installation.admin(&process);
        let (revision, objects) = writer::list(&client).await;
        for writer in &mut writers {
            writer.check(&objects, round);
        }
        let acknowledged = writers.iter().map(Writer::newest).max().unwrap();
        assert!(revision >= acknowledged.max(newest), "round {round}: {revision} < {acknowledged}, torn: {torn}");
        newest = revision;
    }
    let (revision, objects) = writer::list(&installation.admin(&process)).await;
    let seen = follower.until(revision).await;
    let total: usize = writers.iter().map(|writer| writer.check_events(&seen)).sum();
    follower::check_state(&seen, &objects);
    println!("{total} writes, {KILLS} kills, newest revision {revision}");
    assert!(total >= KILLS, "hardly anything was written");
}
