//! The workload: HTTP and UDP servers that say who they are. One thread a connection, bounded; beyond the bound a client
//! gets 503 at once, so a flood is visible as such and never as a timeout.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::ident::{Answer, Identity};
use crate::{content, http, stop, sys};

mod udp;

/// Longest time a request may take to arrive, and an answer to be taken.
const IO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connections in flight may go on after SIGTERM.
const DRAIN: Duration = Duration::from_millis(500);
/// How often a paced stream is written to.
const PACE: Duration = Duration::from_millis(10);

/// Arguments of `serve`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// TCP port to serve HTTP on.
    #[arg(long, default_value_t = 80)]
    port: u16,
    /// UDP port to echo on.
    #[arg(long, default_value_t = 80)]
    udp_port: u16,
    /// Most connections at a time.
    #[arg(long, default_value_t = 1024)]
    max_connections: usize,
}

impl Default for Args {
    fn default() -> Self {
        Self { port: 80, udp_port: 80, max_connections: 1024 }
    }
}

/// Serves until SIGTERM.
///
/// # Errors
/// If a port cannot be bound.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", args.port)).with_context(|| format!("bind TCP port {}", args.port))?;
    let udp = udp::bind(args.udp_port).with_context(|| format!("bind UDP port {}", args.udp_port))?;
    let active = Arc::new(AtomicUsize::new(0));
    let draining = Arc::clone(&active);
    stop::on_signal(move || {
        let end = Instant::now() + DRAIN;
        while draining.load(Ordering::SeqCst) > 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::process::exit(0);
    })?;
    std::thread::Builder::new().name("udp".into()).stack_size(128 << 10).spawn(move || udp::serve(&udp))?;
    eprintln!("serving HTTP on :{} and UDP on :{}", args.port, args.udp_port);
    accept(&listener, &active, args.max_connections)
}

fn accept(listener: &TcpListener, active: &Arc<AtomicUsize>, limit: usize) -> anyhow::Result<()> {
    loop {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                // A client that gave up, or no descriptors for the moment: neither ends a server.
                eprintln!("accept: {error}");
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
        };
        if stop::stopped() {
            return Ok(());
        }
        if active.fetch_add(1, Ordering::SeqCst) >= limit {
            let mut stream = stream;
            let _ = stream.set_write_timeout(Some(Duration::from_millis(100)));
            let _ = http::respond(&mut stream, "503 Service Unavailable", "text/plain", &[], b"too many connections\n");
            active.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let counter = Arc::clone(active);
        let worker = std::thread::Builder::new().name("http".into()).stack_size(256 << 10).spawn(move || {
            if let Err(error) = handle(stream, peer) {
                eprintln!("{peer}: {error:#}");
            }
            counter.fetch_sub(1, Ordering::SeqCst);
        });
        if let Err(error) = worker {
            active.fetch_sub(1, Ordering::SeqCst);
            eprintln!("thread: {error}");
        }
    }
}

fn handle(mut stream: TcpStream, peer: SocketAddr) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let (method, target) = match http::read_request(&stream) {
        Ok(request) => request,
        // A bare connect (a TCP probe) is no fault of anybody.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
        Err(error) => return Err(error).context("request"),
    };
    if method != "GET" && method != "HEAD" {
        return Ok(http::respond(&mut stream, "405 Method Not Allowed", "text/plain", &[], b"GET only\n")?);
    }
    let answer = answer(peer, local, None)?;
    let json = serde_json::to_string(&answer)?;
    match target.split('?').next().unwrap_or_default() {
        "/" => {
            let Identity { pod, address, prefix, .. } = &answer.identity;
            let body = format!("PodName: {pod} | PodIP: eth0 {address}/{prefix}\n");
            http::respond(&mut stream, "200 OK", "text/plain", &[("X-Nettool-Whoami", json)], body.as_bytes())?;
        }
        "/whoami" => http::respond(&mut stream, "200 OK", "application/json", &[], format!("{json}\n").as_bytes())?,
        "/healthz" => http::respond(&mut stream, "200 OK", "text/plain", &[], b"ok\n")?,
        "/bytes" => send_bytes(&mut stream, &target, &json)?,
        _ => http::respond(
            &mut stream,
            "404 Not Found",
            "text/plain",
            &[],
            b"paths: / /whoami /healthz /bytes?n=N&rate=BYTES_PER_S\n",
        )?,
    }
    Ok(())
}

/// Who answers, and what this socket saw of the peer.
///
/// # Errors
/// If the identity cannot be read.
fn answer(peer: SocketAddr, local: SocketAddr, payload: Option<String>) -> anyhow::Result<Answer> {
    Ok(Answer {
        identity: Identity::read()?,
        peer_address: peer.ip().to_string(),
        peer_port: peer.port(),
        server_address: local.ip().to_string(),
        server_port: local.port(),
        payload,
    })
}

/// Sends `n` bytes of known content, at most `rate` bytes a second (0: unpaced), then a line with the number of segments
/// that this side had to retransmit: the receiver cannot see that from its own end.
fn send_bytes(stream: &mut TcpStream, target: &str, whoami: &str) -> anyhow::Result<()> {
    let number = |name| http::query(target, name).map_or(Ok(0), str::parse::<u64>);
    let (Ok(total), Ok(rate)) = (number("n"), number("rate")) else {
        return Ok(http::respond(stream, "400 Bad Request", "text/plain", &[], b"n and rate are numbers of bytes\n")?);
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nX-Nettool-Whoami: {whoami}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let started = Instant::now();
    let mut buffer = vec![0; 16 << 10];
    let mut sent = 0_u64;
    while sent < total {
        let allowed = if rate == 0 { total } else { (started.elapsed() + PACE).as_millis() as u64 * rate / 1000 };
        let length = allowed.min(total).saturating_sub(sent).min(buffer.len() as u64) as usize;
        if length == 0 {
            std::thread::sleep(PACE);
            continue;
        }
        content::fill(sent, &mut buffer[..length]);
        stream.write_all(&buffer[..length])?;
        sent += length as u64;
    }
    let retransmits = sys::tcp_info(&*stream)?.total_retransmits;
    stream.write_all(format!("retransmits={retransmits}\n").as_bytes())?;
    Ok(())
}
