//! `listen-decoy`: a planted fault. It answers like a workload, with a name and an address that are not true, so that a
//! harness which only looks at the form of an answer is caught.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::Context;

use crate::{http, stop};

/// Arguments of `listen-decoy`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Port to listen on, on all addresses.
    port: u16,
    /// Body of the answer.
    #[arg(long, default_value = "PodName: decoy | PodIP: eth0 10.244.99.99/32\n")]
    body: String,
    /// Value of the identity header, none by default.
    #[arg(long)]
    whoami: Option<String>,
}

/// Answers until SIGTERM.
///
/// # Errors
/// If the port cannot be bound.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", args.port)).with_context(|| format!("bind TCP port {}", args.port))?;
    stop::on_signal(|| std::process::exit(0))?;
    let headers: Vec<(&str, String)> = args.whoami.iter().map(|value| ("X-Nettool-Whoami", value.clone())).collect();
    for stream in listener.incoming() {
        let answered = stream.and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            http::read_request(&stream)?;
            http::respond(&mut stream, "200 OK", "text/plain", &headers, args.body.as_bytes())
        });
        if let Err(error) = answered {
            eprintln!("decoy: {error}");
        }
    }
    Ok(())
}
