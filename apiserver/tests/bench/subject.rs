//! A server that is measured.

use std::path::Path;

use anyhow::{Context, Result};

use crate::process::client::Client;
use crate::process::{Installation, Process};
use crate::real::RealServer;
use crate::server::Server;

/// A running server, its processes and a client of it.
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) client: Client,
    /// Processes of which the memory counts, the API server first.
    processes: Vec<u32>,
    _running: Running,
}

/// What ends with the subject.
enum Running {
    Ours { _process: Process, _installation: Box<Installation> },
    Real { _server: RealServer },
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Now, of all processes together.
    pub(crate) now: u64,
    /// Now, of the API server alone.
    pub(crate) server: u64,
    /// The most that there was, of all processes together.
    pub(crate) peak: u64,
}

impl Subject {
    /// Ours as the harness runs it, with its log and without controllers, since the real one has none of its own either.
    pub(crate) fn ours() -> Self {
        let installation = Installation::new("bench");
        let log = installation.scratch.path("data.log");
        let process = installation.start(&[format!("--data-log={}", log.display())]);
        let (client, id) = (installation.admin(&process), process.id());
        let running = Running::Ours { _process: process, _installation: Box::new(installation) };
        Self { name: "ours".into(), client, processes: vec![id], _running: running }
    }

    /// A real one and its etcd.
    pub(crate) async fn real(assets: &Path) -> Result<Self> {
        let server = RealServer::start(assets).await?;
        let Server::Other(other) = &server.server else { anyhow::bail!("a real server is none of ours") };
        let client = Client::with(other.port, other.connector.clone(), &other.token);
        let name = format!("kube-apiserver {} and etcd", server.version()?);
        Ok(Self { name, client, processes: server.processes().to_vec(), _running: Running::Real { _server: server } })
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        let mut memory = Memory::default();
        for (index, process) in self.processes.iter().enumerate() {
            let path = format!("/proc/{process}/status");
            let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
            let field = |name: &str| -> Result<u64> {
                let line =
                    text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{path}: {name}"))?;
                Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
            };
            memory.now += field("VmRSS")?;
            memory.peak += field("VmHWM")?;
            if index == 0 {
                memory.server = field("VmRSS")?;
            }
        }
        Ok(memory)
    }
}
