//! The real operator as a process of the test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::apiserver::free_port;
use super::{ApiServer, eventually};

/// A running operator; it is killed when this goes.
pub(crate) struct Operator {
    child: Child,
    health: SocketAddr,
    log: PathBuf,
}

impl Operator {
    /// Starts it as `identity`, by the rights of a service account, and waits until it is ready.
    pub(crate) async fn start(server: &ApiServer, identity: &str, account: &str) -> Self {
        let kubeconfig = server.operator_kubeconfig(account).await;
        let config = server.dir.join("config.yaml");
        let text = "k8sServiceHost: 127.0.0.1\nk8sServicePort: 1\nipv4NativeRoutingCIDR: 10.0.0.0/8\n";
        std::fs::write(&config, text).unwrap();
        let log = server.dir.join(format!("{identity}.log"));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let health = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
        command.arg("operator").arg("--config").arg(&config).arg("--kubeconfig").arg(&kubeconfig);
        command.arg("--health-address").arg(health.to_string()).env("POD_NAME", identity);
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let operator = Self { child: command.spawn().unwrap(), health, log };
        eventually(&format!("operator {identity} is ready"), Duration::from_secs(30), || async {
            operator.get("/readyz")
        })
        .await;
        assert_eq!(operator.get("/healthz"), Ok(()));
        operator
    }

    /// Asks the health port.
    pub(crate) fn get(&self, path: &str) -> Result<(), String> {
        let exchange = || {
            let mut stream = TcpStream::connect_timeout(&self.health, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = exchange().map_err(|error| error.to_string())?;
        if answer.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(answer) }
    }

    /// Sends SIGSTOP, SIGCONT and the like.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// SIGTERM: it must end well.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}; its log:\n{}", self.log());
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
