//! What the programs among the tests have in common: they end when told to, with what they started.

use std::future::Future;
use std::process::ExitCode;

use anyhow::Result;

/// Runs to the end, or until interrupted: what was started ends with the future that holds it. Whether all is well is the
/// exit code, and 2 that it could not be found out.
pub(crate) fn to_its_end(run: impl Future<Output = Result<bool>>) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = outcome.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                outcome = run => outcome,
                _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            }
        })
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
