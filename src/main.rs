//! The multi-call binary: `portolan`, and the CNI plugin when it is called `portolan-cni`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let called_as = std::env::args_os().next().unwrap_or_default();
    let is_plugin = Path::new(&called_as).file_name().is_some_and(|name| name == "portolan-cni");
    let code = if is_plugin {
        portolan::cni::plugin::main()
    } else {
        portolan::cli::main().unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            1
        })
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
