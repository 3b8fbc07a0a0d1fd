//! The harness: clusters of namespaces with a real control plane, and scenarios played on them. It runs the product's
//! binaries and reads its manifests, and never links it.

mod bpf_map;
mod cli;
mod cluster;
mod image;
mod kubelet;
mod pki;
mod progress;
mod report;
mod scenario;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The one TLS provider of the whole process.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("error: a TLS provider was installed before");
        return ExitCode::from(2);
    }
    match cli::main() {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
