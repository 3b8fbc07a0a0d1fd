//! A command in a pod, by way of the API server: what `kubectl exec` does, as a process of its own, so that a place of an
//! existing cluster is used like any other.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::super::install;

/// Arguments of the internal command `pod-exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct PodExecArgs {
    #[arg(long)]
    kubeconfig: PathBuf,
    #[arg(long)]
    context: Option<String>,
    #[arg(long)]
    namespace: String,
    #[arg(long)]
    pod: String,
    #[arg(long)]
    container: Option<String>,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    argv: Vec<String>,
}

/// `pod-exec`: passes both outputs on and returns the command's exit code.
///
/// # Errors
/// If the command cannot be started.
pub(crate) async fn run(args: &PodExecArgs) -> Result<i32> {
    let client = install::client_for(&args.kubeconfig, args.context.as_deref()).await?;
    let pods = Api::<Pod>::namespaced(client, &args.namespace);
    let params = AttachParams { container: args.container.clone(), ..AttachParams::default().stdin(false) };
    let place = || format!("running {:?} in {}/{}", args.argv[0], args.namespace, args.pod);
    let mut process = pods.exec(&args.pod, &args.argv, &params).await.with_context(place)?;
    let (from_out, from_err) = (process.stdout(), process.stderr());
    let status = process.take_status();
    let (copied_out, copied_err) =
        tokio::join!(pass_on(from_out, std::io::stdout()), pass_on(from_err, std::io::stderr()));
    copied_out.and(copied_err).with_context(place)?;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let status = status.with_context(place).context("the connection ended before the command")?;
    process.join().await.with_context(place)?;
    exit_code(&status).with_context(place)
}

/// Passes bytes on as they come.
async fn pass_on(from: Option<impl AsyncRead + Unpin>, mut to: impl Write) -> std::io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut buffer = vec![0; 16 << 10];
    loop {
        match from.read(&mut buffer).await? {
            0 => return to.flush(),
            length => to.write_all(&buffer[..length])?,
        }
    }
}

/// The exit code that the final Status tells; an error if the command was not even started.
fn exit_code(status: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Status) -> Result<i32> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.iter().filter_map(|details| details.causes.as_ref()).flatten();
    let code = causes.filter(|cause| cause.reason.as_deref() == Some("ExitCode")).find_map(|cause| {
        let text = cause.message.as_deref()?;
        text.parse().ok()
    });
    code.with_context(|| status.message.clone().unwrap_or_default())
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
