//! Tier 2: kubectl's exec, cp, attach and port-forward through either API server to the harness's kubelet, by WebSocket and
//! by SPDY. Needs root, kubectl and a control plane (KUBEBUILDER_ASSETS).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, with the line")]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use nix::libc;
use nix::pty::{Winsize, openpty};
use support::{Cluster, Harness};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A pod with the programs of the machine, since images here have no shell; one container reads what is typed, one has a
/// terminal. Both answer HTTP.
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: streams}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: server
    image: portolan/nettool:dev
    imagePullPolicy: Never
    command: [/.portolan-tools/nettool]
    env: &path [{name: PATH, value: /usr/bin:/bin}]
    volumeMounts: &programs
    - {name: usr, mountPath: /usr, readOnly: true}
    - {name: bin, mountPath: /bin, readOnly: true}
    - {name: lib, mountPath: /lib, readOnly: true}
    - {name: lib64, mountPath: /lib64, readOnly: true}
  - name: reader
    image: portolan/nettool:dev
    imagePullPolicy: Never
    stdin: true
    command: [sh, -c, 'while read -r line; do echo "read $line"; echo "also $line" >&2; done; echo over; exec sleep 3600']
    env: *path
    volumeMounts: *programs
  - name: terminal
    image: portolan/nettool:dev
    imagePullPolicy: Never
    stdin: true
    tty: true
    command: [sh, -c, 'while read -r line; do [ -t 1 ] && echo "terminal $line $(stty size)"; done']
    env: *path
    volumeMounts: *programs
  volumes:
  - {name: usr, hostPath: {path: /usr}}
  - {name: bin, hostPath: {path: /usr/bin}}
  - {name: lib, hostPath: {path: /usr/lib}}
  - {name: lib64, hostPath: {path: /usr/lib64}}
"#;

/// kubectl against one cluster, over one protocol.
struct Kubectl<'a> {
    harness: &'a Harness,
    cluster: &'a str,
    websocket: bool,
}

impl Kubectl<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.harness.command("kubectl", self.cluster);
        command.arg("--").args(args);
        for name in ["KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"] {
            command.env(name, self.websocket.to_string());
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it with something to read.
    fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // A program that ends early reads no more, which is no fault of kubectl's.
            scope.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output().unwrap()
        })
    }

    fn good(&self, args: &[&str], input: &[u8]) -> String {
        let output = self.run(args, input);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{args:?}, WebSocket {}: {}\n{out}{err}", self.websocket, output.status);
        out
    }

    /// Runs it on a terminal of a size.
    fn on_terminal(&self, args: &[&str], columns: u16, rows: u16) -> (Child, File) {
        let pair = openpty(Some(&Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }), None).unwrap();
        let side = || Stdio::from(pair.slave.try_clone().unwrap());
        let mut command = self.command(args);
        command.stdin(side()).stdout(side()).stderr(side());
        // SAFETY: system calls with scalars between fork and exec.
        #[allow(unsafe_code, reason = "a terminal becomes the controlling one before exec")]
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                if libc::ioctl(0, libc::TIOCSCTTY, 0) == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            });
        }
        let child = command.spawn().unwrap();
        (child, File::from(pair.master))
    }
}

/// `kube` asks for channels of a WebSocket, which no kubectl does.
fn port_forward_of_kube(kubeconfig: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asking = async {
        let config = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
        let config = kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default()).await;
        let pods: Api<Pod> = Api::namespaced(kube::Client::try_from(config.unwrap()).unwrap(), "default");
        let mut forward = pods.portforward("streams", &[80, 9]).await.unwrap();
        let refused = forward.take_error(9).unwrap();
        let mut stream = forward.take_stream(80).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        (text(&answer), refused.await)
    };
    let asked = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), asking).await });
    let (answer, refused) = asked.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("streams"), "{answer:?}");
    assert!(refused.is_some_and(|why| why.contains("forwarding port 9")), "nothing listens there");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads until a text has come; the test's own timeout is the cluster's end, by which the program ends too.
fn read_until(from: &mut impl Read, wanted: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !text(&seen).contains(wanted) {
        let length = from.read(&mut buffer).unwrap_or(0);
        assert!(length > 0, "ended without {wanted:?}: {:?}", text(&seen));
        seen.extend_from_slice(&buffer[..length]);
    }
    text(&seen)
}

/// Bytes in which a lost or doubled piece shows.
fn content(length: u32) -> Vec<u8> {
    (0..length / 4).flat_map(|at| at.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect()
}

fn exec(kubectl: &Kubectl<'_>) {
    let output =
        kubectl.run(&["exec", "streams", "-c", "server", "--", "sh", "-c", "echo out; echo err >&2; exit 7"], b"");
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(7), "out\n"), "{output:?}");
    assert!(text(&output.stderr).starts_with("err\n"), "{output:?}");
    // It ends only if the end of standard input comes through.
    let counted = kubectl.good(&["exec", "-i", "streams", "-c", "server", "--", "wc", "-c"], b"12345");
    assert_eq!(counted.trim(), "5");
    let sent = content(4 << 20);
    let output = kubectl.run(&["exec", "-i", "streams", "-c", "server", "--", "cat"], &sent);
    assert!(output.status.success() && output.stdout == sent, "{} bytes came back", output.stdout.len());
    // A program that reads nothing of it is not waited for.
    kubectl.good(&["exec", "-i", "streams", "-c", "server", "--", "true"], b"12345");
    // Of more than is on its way at once, kubectl may hear that nobody takes it before it hears how the program ended: the
    // API server closes a connection on which there is something unread. It ends, however.
    kubectl.run(&["exec", "-i", "streams", "-c", "server", "--", "true"], &sent);
    let output = kubectl.run(&["exec", "streams", "-c", "server", "--", "no-such-program"], b"");
    assert!(!output.status.success(), "{output:?}");
}

fn copy(kubectl: &Kubectl<'_>) {
    let dir = std::env::temp_dir().join(format!("streams-{}-{}", kubectl.cluster, std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (there, back) = (dir.join("there"), dir.join("back"));
    std::fs::write(&there, content(1 << 20)).unwrap();
    let name = |path: &PathBuf| path.display().to_string();
    kubectl.good(&["cp", &name(&there), "streams:/tmp/file", "-c", "server"], b"");
    kubectl.good(&["cp", "streams:/tmp/file", &name(&back), "-c", "server"], b"");
    assert!(std::fs::read(&back).unwrap() == content(1 << 20), "a copy of a copy is the same");
    std::fs::remove_dir_all(dir).unwrap();
}

fn terminals(kubectl: &Kubectl<'_>) {
    let wait = "stty size; until [ \"$(stty size)\" = '50 120' ]; do sleep 0.05; done; echo resized; exit 3";
    let args = ["exec", "-it", "streams", "-c", "server", "--", "sh", "-c", wait];
    let (mut child, mut terminal) = kubectl.on_terminal(&args, 100, 40);
    read_until(&mut terminal, "40 100");
    let size = Winsize { ws_row: 50, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    set_size(&terminal, &size);
    read_until(&mut terminal, "resized");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let (mut child, mut terminal) = kubectl.on_terminal(&["attach", "-it", "streams", "-c", "terminal"], 90, 30);
    read_until(&mut terminal, "If you don't see");
    terminal.write_all(b"typed\r").unwrap();
    read_until(&mut terminal, "terminal typed 30 90");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[allow(unsafe_code, reason = "nix has no call for it")]
fn set_size(terminal: &File, size: &Winsize) {
    use std::os::fd::AsRawFd;
    // SAFETY: the size is of the kernel's own shape and outlives the call.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(size)) };
    assert_eq!(done, 0);
}

/// What is typed is read by the program, and what it writes is shown; it goes on when the client has left.
fn attach(kubectl: &Kubectl<'_>) {
    for word in ["one", "two"] {
        let mut child =
            kubectl.command(&["attach", "-i", "streams", "-c", "reader"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        writeln!(stdin, "{word}").unwrap();
        read_until(&mut stdout, &format!("read {word}\n"));
        read_until(&mut stderr, &format!("also {word}\n"));
        drop(stdin);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn port_forward(kubectl: &Kubectl<'_>) {
    let mut child = kubectl.command(&["port-forward", "pod/streams", ":80"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_else(|| {
        let mut error = String::new();
        child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        panic!("no port in {line:?}: {error}")
    });
    let port: u16 = port.parse().unwrap();
    // One after the other, and two at once.
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        stream
    };
    let answer = |mut stream: TcpStream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("streams"), "{answer:?}");
    };
    answer(ask());
    let (one, two) = (ask(), ask());
    answer(two);
    answer(one);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn play(cluster: &str, up: &[&str]) {
    let Some(harness) = Harness::new() else { return };
    let _down = Cluster(&harness, cluster);
    let upped = harness.run("up", cluster, up);
    let mut kubectl = Kubectl { harness: &harness, cluster, websocket: true };
    kubectl.good(&["apply", "-f", "-"], POD.as_bytes());
    kubectl.good(&["wait", "pod/streams", "--for=condition=Ready", "--timeout=60s"], b"");
    for websocket in [true, false] {
        kubectl.websocket = websocket;
        exec(&kubectl);
        copy(&kubectl);
        attach(&kubectl);
        terminals(&kubectl);
        port_forward(&kubectl);
    }
    port_forward_of_kube(Path::new(text(&upped.stdout).trim()));
}

#[test]
fn through_our_own_api_server() {
    play("streams-own", &[]);
}

#[test]
fn through_a_real_api_server() {
    let Ok(assets) = std::env::var("KUBEBUILDER_ASSETS") else {
        eprintln!("skipped: KUBEBUILDER_ASSETS names no control plane");
        return;
    };
    play("streams-real", &["--control-plane", &assets]);
}
