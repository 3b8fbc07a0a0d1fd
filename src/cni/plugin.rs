//! The plugin's commands.

use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::{Value, json};

use super::client::{self, Allocated, Request};
use super::protocol::{Added, CniError, NetConf, Params, VERSIONS, result};
use super::wire;
use crate::api::attachment::Attachment;

/// Runs the command of the environment; prints the result or the error; the exit code is for `main`.
#[must_use]
pub fn main() -> i32 {
    let mut input = String::new();
    let read = std::io::stdin().read_to_string(&mut input);
    let command = std::env::var("CNI_COMMAND").unwrap_or_default();
    let outcome = match read {
        Ok(_) => run(&command, &input, Path::new(super::SOCKET)),
        Err(error) => Err(CniError::new(CniError::IO, "standard input cannot be read", error.to_string())),
    };
    let version = serde_json::from_str::<NetConf>(&input).map(|conf| conf.cni_version).unwrap_or_default();
    match outcome {
        Ok(Some(document)) => {
            println!("{document}");
            0
        }
        Ok(None) => 0,
        Err(error) => {
            println!("{}", error.to_json(&version));
            1
        }
    }
}

/// One command against the agent at `socket`.
///
/// # Errors
/// As the specification wants it.
pub fn run(command: &str, input: &str, socket: &Path) -> Result<Option<Value>, CniError> {
    if command == "VERSION" {
        return Ok(Some(json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS})));
    }
    let conf = NetConf::parse(input)?;
    let env = |name: &str| std::env::var(name).ok();
    match command {
        "ADD" => add(&conf, &Params::from_env(env, true)?, socket).map(Some),
        "DEL" => del(&Params::from_env(env, false)?, socket).map(|()| None),
        "CHECK" => check(&conf, &Params::from_env(env, true)?).map(|()| None),
        "STATUS" => client::ask::<Value>(socket, &Request::Ping)
            .map(|_| None)
            .map_err(|error| CniError::new(CniError::NOT_AVAILABLE, "the agent is not ready", chain(&error))),
        "GC" => collect(&conf, socket).map(|()| None),
        other => Err(CniError::new(CniError::INVALID_ENVIRONMENT, format!("unknown CNI_COMMAND {other:?}"), "")),
    }
}

fn add(conf: &NetConf, params: &Params, socket: &Path) -> Result<Value, CniError> {
    let namespace = File::open(&params.netns).map_err(|error| {
        CniError::new(CniError::IO, format!("cannot open the network namespace {}", params.netns), error.to_string())
    })?;
    let (container_id, ifname) = (params.container_id.clone(), params.ifname.clone());
    let allocated: Allocated = ask(
        socket,
        &Request::Allocate {
            container_id: container_id.clone(),
            ifname: ifname.clone(),
            namespace: params.namespace.clone(),
            pod: params.pod.clone(),
        },
    )?;
    let device = node_device(&container_id, &ifname);
    let made = wire::make(&device, &ifname, &namespace, allocated.address, allocated.mtu)
        .map_err(|error| CniError::new(CniError::INTERNAL, "cannot make the pod's interface", error.to_string()))
        .and_then(|pair| {
            let attach = Request::Attach {
                container_id: container_id.clone(),
                ifname: ifname.clone(),
                ifindex: pair.host.index,
                pod_mac: pair.pod.mac,
                host_mac: pair.host.mac,
            };
            ask::<Value>(socket, &attach)?;
            Ok(pair)
        });
    let pair = match made {
        Ok(pair) => pair,
        Err(error) => {
            // Nothing half-made stays: neither the veth nor the address.
            let undone = wire::remove(&device).err().map(|error| error.to_string());
            let released = ask::<Value>(socket, &Request::Release { container_id, ifname }).err();
            let more: Vec<String> = undone.into_iter().chain(released.map(|error| error.message)).collect();
            let details = [vec![error.details], more].concat().join("; ");
            return Err(CniError::new(error.code, error.message, details));
        }
    };
    let added = Added {
        address: allocated.address,
        host_name: device,
        host_mac: mac(pair.host.mac),
        pod_name: ifname,
        pod_mac: mac(pair.pod.mac),
        netns: params.netns.clone(),
    };
    Ok(result(&conf.cni_version, &added))
}

/// Removes the veth, then gives the address back. While the agent is away only the first is done: it drops endpoints
/// whose device is gone when it starts.
fn del(params: &Params, socket: &Path) -> Result<(), CniError> {
    let device = node_device(&params.container_id, &params.ifname);
    wire::remove(&device)
        .map_err(|error| CniError::new(CniError::IO, format!("cannot remove {device}"), error.to_string()))?;
    let release = Request::Release { container_id: params.container_id.clone(), ifname: params.ifname.clone() };
    match client::ask::<Value>(socket, &release) {
        Ok(_) | Err(client::Error::Unreachable { .. }) => Ok(()),
        Err(error) => Err(CniError::new(CniError::INTERNAL, "the address was not released", chain(&error))),
    }
}

/// Removes the veths and gives back the addresses of all but the valid attachments.
fn collect(conf: &NetConf, socket: &Path) -> Result<(), CniError> {
    let Some(valid) = &conf.valid_attachments else {
        return Err(CniError::new(CniError::DECODING, "GC needs cni.dev/valid-attachments", ""));
    };
    let valid = valid
        .iter()
        .map(|entry| Attachment { container_id: entry.container_id.clone(), ifname: entry.ifname.clone() })
        .collect();
    ask::<Value>(socket, &Request::Retain { valid }).map(drop)
}

fn check(conf: &NetConf, params: &Params) -> Result<(), CniError> {
    let previous = conf.prev_result.as_ref().and_then(|result| result["ips"][0]["address"].as_str());
    let address: Option<Ipv4Addr> = previous.and_then(|text| text.split('/').next()?.parse().ok());
    let Some(address) = address else {
        return Err(CniError::new(CniError::DECODING, "CHECK needs the prevResult of ADD", ""));
    };
    let namespace = File::open(&params.netns).map_err(|error| {
        CniError::new(CniError::IO, format!("cannot open the network namespace {}", params.netns), error.to_string())
    })?;
    let device = node_device(&params.container_id, &params.ifname);
    wire::check(&device, &params.ifname, &namespace, address).map_err(|error| {
        CniError::new(CniError::INTERNAL, "the pod's interface is not as ADD left it", error.to_string())
    })
}

fn ask<T: serde::de::DeserializeOwned>(socket: &Path, request: &Request) -> Result<T, CniError> {
    client::ask(socket, request).map_err(|error| {
        let code = match error {
            client::Error::Unreachable { .. } => CniError::TRY_AGAIN_LATER,
            _ => CniError::INTERNAL,
        };
        CniError::new(code, error.to_string(), chain(&error))
    })
}

fn node_device(container_id: &str, ifname: &str) -> String {
    Attachment { container_id: container_id.to_owned(), ifname: ifname.to_owned() }.device()
}

/// The sources of an error.
fn chain(error: &dyn std::error::Error) -> String {
    let mut parts = Vec::new();
    let mut next = error.source();
    while let Some(source) = next {
        parts.push(source.to_string());
        next = source.source();
    }
    parts.join(": ")
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}
