//! `nettool`: the workload and the probe of the harness in one small static binary.
//!
//! As a workload (`serve`, the default) it answers who it is, from what it reads in its own namespaces at request time.
//! As a probe it dials addresses (never names, never through a proxy) and prints what came of it as JSON. It judges
//! nothing: whether an outcome is right is decided by the harness.

mod arp;
mod bad_checksum;
mod client;
mod connect_loop;
mod content;
mod decoy;
mod forward_policy;
mod hold;
mod http;
mod ident;
mod netstat;
mod nftables;
mod outcome;
mod port;
mod probe;
mod serve;
mod stop;
mod sys;
mod target;
mod transfer;
mod udp_stream;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "nettool", version, about = "The workload and the probe of the portolan harness")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve HTTP and UDP and say who answers (the default).
    Serve(serve::Args),
    /// Print who this process is: pod, address, namespace cookie.
    Whoami,
    /// Send requests to targets and print each outcome.
    Probe(probe::Args),
    /// Connect again and again and print latencies, errors and SYN retransmissions.
    ConnectLoop(connect_loop::Args),
    /// Download a long stream with known content and verify every byte.
    Transfer(transfer::Args),
    /// Send a numbered UDP stream to an echo server and print loss, duplicates, reordering and the longest gap.
    UdpStream(udp_stream::Args),
    /// Ask by ARP who has an address and print every answer.
    ArpProbe(arp::Args),
    /// Print the network namespace's counters of the protocols.
    Netstat,
    /// Send a UDP datagram whose checksum is wrong: a planted fault.
    SendBadChecksum(bad_checksum::Args),
    /// Do nothing until SIGTERM: a pod to run probes in.
    Hold,
    /// Let this network namespace forward nothing, and count what it was to forward.
    ForwardPolicy(forward_policy::Args),
    /// Listen on a port with a lie for an answer: a planted fault.
    ListenDecoy(decoy::Args),
}

fn main() -> anyhow::Result<()> {
    // Before any thread exists, so that every thread inherits the mask and only the waiter sees the signal.
    stop::block_signals()?;
    match Cli::parse().command.unwrap_or_else(|| Command::Serve(serve::Args::default())) {
        Command::Serve(args) => serve::run(&args),
        Command::Whoami => print_json(&ident::Identity::read()?),
        Command::Probe(args) => probe::run(&args),
        Command::ConnectLoop(args) => connect_loop::run(&args),
        Command::Transfer(args) => transfer::run(&args),
        Command::UdpStream(args) => udp_stream::run(&args),
        Command::ArpProbe(args) => arp::run(&args),
        Command::Netstat => print_json(&netstat::read()?),
        Command::SendBadChecksum(args) => bad_checksum::run(&args),
        Command::Hold => hold::run(),
        Command::ForwardPolicy(args) => forward_policy::run(&args),
        Command::ListenDecoy(args) => decoy::run(&args),
    }
}

/// Prints one JSON document on one line.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

/// Parses durations like `20ms`, `1.5s`, `2m`.
fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let split =
        text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(|| format!("`{text}` has no unit (ms, s, m)"))?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("`{number}` is not a number"))?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        other => return Err(format!("unknown unit `{other}` (use us, ms, s or m)")),
    };
    std::time::Duration::try_from_secs_f64(seconds).map_err(|error| format!("`{text}`: {error}"))
}
