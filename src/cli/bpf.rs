//! `portolan bpf`: what the pinned maps of this node hold.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use clap::Subcommand;
use portolan_core::datapath::{FrontendKey, Tables};
use portolan_ebpf::{AddrKey, FlowKey, FlowVal};
use serde_json::{Value, json};

use super::Output;
use crate::agent::BPFFS;
use crate::datapath::{convert, pin_dir, read};
use crate::sys::abi::Abi;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Frontends with their backends, pods, node addresses, links
    Dump {
        /// Form of the output
        #[arg(short, long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Counters by hook and event
    Counters {
        /// Form of the output
        #[arg(short, long, value_enum, default_value = "text")]
        output: Output,
    },
    /// The flow table
    Flows,
}

pub(super) fn run(command: &Command) -> Result<i32> {
    let pins = pin_dir(Path::new(BPFFS));
    match command {
        Command::Dump { output } => print(*output, &dump(&pins)?),
        Command::Counters { output } => print(*output, &json!(read::counters(&pins)?)),
        Command::Flows => print(Output::Json, &flows(&pins)?),
    }
}

fn print(output: Output, value: &Value) -> Result<i32> {
    match output {
        Output::Json => println!("{}", serde_json::to_string(value)?),
        Output::Text => print!("{}", serde_yaml::to_string(value)?),
    }
    Ok(0)
}

fn dump(pins: &Path) -> Result<Value> {
    let tables = read::tables(pins)?;
    let node_addrs: BTreeMap<String, u32> = read::entries::<Abi<AddrKey>, u32>(pins, "node_addrs")?
        .into_iter()
        .map(|(key, flags)| (convert::ip(&key.0.addr, key.0.family).to_string(), flags))
        .collect();
    let frontends: BTreeMap<String, Value> =
        tables.frontends.keys().filter(|key| key.port != 0).map(|key| (name(key), backends(&tables, key))).collect();
    Ok(json!({
        "frontends": frontends,
        "endpoints": read::endpoints(pins)?,
        "nodeAddresses": node_addrs,
        "backends": tables.backends.len(),
        "flows": read::entries::<Abi<FlowKey>, Abi<FlowVal>>(pins, "flows")?.len(),
        "links": read::links(pins)?,
    }))
}

fn name(key: &FrontendKey) -> String {
    let protocol = key.protocol.map(|protocol| protocol.to_string()).unwrap_or_default();
    format!("{}:{}/{protocol}", key.address, key.port)
}

fn backends(tables: &Tables, key: &FrontendKey) -> Value {
    match tables.resolve(key) {
        Some(backends) => {
            json!(backends.iter().map(|backend| format!("{}:{}", backend.address, backend.port)).collect::<Vec<_>>())
        }
        None => json!("broken: a slot or backend is missing"),
    }
}

fn flows(pins: &Path) -> Result<Value> {
    let side = |addr: &portolan_ebpf::Addr, family: u8, port: u16| {
        format!("{}:{}", convert::ip(addr, family), u16::from_be(port))
    };
    let all: Vec<Value> = read::entries::<Abi<FlowKey>, Abi<FlowVal>>(pins, "flows")?
        .into_iter()
        .map(|(Abi(key), Abi(value))| {
            json!({
                "direction": if key.dir == portolan_ebpf::DIR_REPLY { "reply" } else { "forward" },
                "protocol": key.proto,
                "from": [side(&key.src, key.family, key.sport), side(&key.dst, key.family, key.dport)],
                "to": [side(&value.src, key.family, value.sport), side(&value.dst, key.family, value.dport)],
                "service": value.svc_id,
                "flags": value.flags,
            })
        })
        .collect();
    Ok(Value::Array(all))
}
