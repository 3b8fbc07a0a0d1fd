//! Environment variables that tell a container of Services (`NAME_SERVICE_HOST` and the older `NAME_PORT_…` links).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

/// Variables of one Service; none if it has no cluster address.
pub(super) fn variables(service: &Service) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let Some(spec) = &service.spec else { return env };
    let Some(address) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { return env };
    let upper = |name: &str| name.to_uppercase().replace('-', "_");
    let name = upper(&service.name_any());
    env.insert(format!("{name}_SERVICE_HOST"), address.to_owned());
    for (at, port) in spec.ports.iter().flatten().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{address}:{}", protocol.to_lowercase(), port.port);
        if at == 0 {
            env.insert(format!("{name}_SERVICE_PORT"), port.port.to_string());
            env.insert(format!("{name}_PORT"), url.clone());
        }
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            env.insert(format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string());
        }
        let link = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        env.insert(format!("{link}_PROTO"), protocol.to_lowercase());
        env.insert(format!("{link}_PORT"), port.port.to_string());
        env.insert(format!("{link}_ADDR"), address.to_owned());
        env.insert(link, url);
    }
    env
}

#[cfg(test)]
#[path = "services_tests.rs"]
mod tests;
