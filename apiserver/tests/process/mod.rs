//! The program `apiserver` as a process, with an authority of its own, and clients that speak TLS with it on loopback.

#![allow(clippy::unwrap_used, reason = "test code: a program that cannot be started or asked ends the test")]
#![allow(dead_code, reason = "not every test needs all of it")]

pub(crate) mod client;
pub(crate) mod pki;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use client::Client;
use pki::{Authority, Issued};

/// Longest time until the program serves: a machine may be busy.
const START: Duration = Duration::from_secs(60);

/// A directory that goes with the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(what: &str) -> Self {
        let path = std::env::temp_dir().join(format!("apiserver-{what}-{:016x}", fastrand::u64(..)));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a server is started with, again and again.
pub(crate) struct Installation {
    pub(crate) scratch: Scratch,
    pub(crate) authority: Authority,
    pub(crate) administrator: Issued,
}

impl Installation {
    pub(crate) fn new(what: &str) -> Self {
        let scratch = Scratch::new(what);
        let authority = Authority::new("cluster");
        let serving = authority.server();
        scratch.write("ca.crt", &authority.pem());
        scratch.write("serving.crt", &serving.chain);
        scratch.write("serving.key", &serving.key);
        let accounts = rcgen::KeyPair::generate().unwrap();
        scratch.write("sa.key", &accounts.serialize_pem());
        scratch.write("sa.pub", &accounts.public_key_pem());
        let administrator = authority.client("admin", "system:masters");
        Self { scratch, authority, administrator }
    }

    /// Starts the program, with more flags, and waits until it serves.
    pub(crate) fn start(&self, flags: &[String]) -> Process {
        let file = |name: &str| self.scratch.path(name).display().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_apiserver"));
        command.args([
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            "--secure-port=0".to_owned(),
            "--controllers=".to_owned(),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--tls-cert-file={}", file("serving.crt")),
            format!("--tls-private-key-file={}", file("serving.key")),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
        ]);
        command.args(flags).env("NO_COLOR", "1").stdin(Stdio::null()).stderr(Stdio::piped());
        Process::spawn(command)
    }

    /// A client that trusts the server and shows a certificate.
    pub(crate) fn client(&self, process: &Process, shown: Option<&Issued>) -> Client {
        Client::new(process.port, &self.authority, shown)
    }

    pub(crate) fn admin(&self, process: &Process) -> Client {
        self.client(process, Some(&self.administrator))
    }
}

/// The running program; dropping it kills it.
pub(crate) struct Process {
    child: Child,
    pub(crate) port: u16,
}

impl Process {
    /// Starts the program with these flags alone.
    pub(crate) fn start(flags: &[String]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_apiserver"));
        command.args(flags).env("NO_COLOR", "1").stdin(Stdio::null()).stderr(Stdio::piped());
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (send, receive) = mpsc::channel();
        // Reads to the end, so that the program never waits for a full pipe.
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| drop(send.send(line))));
        let mut told = Vec::new();
        let port = loop {
            match receive.recv_timeout(START) {
                Ok(line) => {
                    let after = line.split_once("serving address=127.0.0.1:").map(|(_, rest)| rest.to_owned());
                    told.push(line);
                    if let Some(rest) = after {
                        break rest.split_whitespace().next().unwrap().parse().unwrap();
                    }
                }
                Err(why) => {
                    let _ = child.kill();
                    panic!("the program does not serve ({why}); it said:\n{}", told.join("\n"));
                }
            }
        };
        Self { child, port }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes of a file.
pub(crate) fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
