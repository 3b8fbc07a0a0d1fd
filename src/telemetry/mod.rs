//! Logs, the health of control loops, and the port that tells it.

pub mod health;
pub mod server;

use tracing_subscriber::EnvFilter;

use crate::api::config::Debug;

/// Sends logs to standard error. `RUST_LOG` wins over the configuration.
pub fn init(debug: &Debug) {
    let mut directives = if debug.enabled { "info,portolan=debug".to_owned() } else { "info".to_owned() };
    if !debug.verbose.is_empty() {
        directives = format!("{directives},portolan::{}=trace", debug.verbose);
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(directives));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}
