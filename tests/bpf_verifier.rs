//! Tier 3: the kernel's verifier accepts every program of the committed object, maps are pinned with the shape that the
//! agent expects, and an agent that starts again takes over what its predecessor left. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, with the line")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aya::programs::ProgramInfo;
use portolan::datapath::{Datapath, read};
use portolan_core::datapath::Planner;
use portolan_core::service::{Backend, Frontend, FrontendKind, PortName, Protocol, ServiceName, ServicePort};
use support::Bpffs;

fn world() -> BTreeMap<PortName, ServicePort> {
    let service = ServiceName { namespace: "default".into(), name: "web".into() };
    let name = PortName { service, port: 80, protocol: Protocol::Tcp };
    let frontend =
        |address: &str, port, kind| Frontend { address: address.parse().unwrap(), port, protocol: Protocol::Tcp, kind };
    let backend = |last| Backend { address: [10, 244, 0, last].into(), port: 8080, protocol: Protocol::Tcp };
    let port = ServicePort {
        frontends: BTreeSet::from([
            frontend("10.96.0.9", 80, FrontendKind::ClusterIp),
            frontend("0.0.0.0", 30080, FrontendKind::NodePort),
            frontend("198.18.0.7", 80, FrontendKind::LoadBalancer),
        ]),
        selectable: BTreeSet::from([backend(1), backend(2)]),
        known: BTreeSet::from([backend(1), backend(2), backend(3)]),
    };
    BTreeMap::from([(name, port)])
}

#[test]
fn programs_load_and_a_second_agent_takes_the_maps_over() {
    let Some(bpffs) = Bpffs::mount("verifier") else { return };
    let mut first = Datapath::open(&bpffs.0).expect("the verifier accepts every program");
    let mut planner = Planner::default();
    first.apply(&planner.plan(&world())).unwrap();
    let pins = first.pins().to_path_buf();
    drop(first);

    let second = Datapath::open(&bpffs.0).expect("the pins of the first are of this shape");
    assert_eq!(second.pins(), pins);
    let kernel = read::tables(&pins).unwrap();
    assert_eq!(&kernel, planner.tables());
    assert_eq!(Planner::adopt(kernel).plan(&world()), vec![], "nothing changed, so nothing is written");
}

#[test]
fn what_somebody_else_does_to_the_small_maps_is_repaired() {
    let Some(bpffs) = Bpffs::mount("repair") else { return };
    let mut datapath = Datapath::open(&bpffs.0).unwrap();
    let pod = std::net::Ipv4Addr::new(10, 244, 0, 9);
    let config = portolan_ebpf::NodeConfig { snat_port_min: 7, ..Default::default() };
    datapath.configure(config).unwrap();
    datapath.put_endpoint(pod, portolan_ebpf::EndpointVal { ifindex: 3, ..Default::default() }).unwrap();
    datapath.set_node_addrs(&BTreeMap::from([(pod, 1)])).unwrap();
    datapath.put_device(2, portolan_ebpf::DeviceVal { mac: [1; 6], ..Default::default() }).unwrap();
    assert_eq!(datapath.repair().unwrap(), Vec::<&str>::new());
    // Another process writes to the pinned maps.
    let mut other = Datapath::open(&bpffs.0).unwrap();
    other.configure(portolan_ebpf::NodeConfig::default()).unwrap();
    other.retain_endpoints(&[]).unwrap();
    other.set_node_addrs(&BTreeMap::from([(std::net::Ipv4Addr::new(10, 0, 0, 1), 2)])).unwrap();
    other.put_device(2, portolan_ebpf::DeviceVal::default()).unwrap();
    assert_eq!(datapath.repair().unwrap(), ["config", "endpoints", "node_addrs", "devices"]);
    assert_eq!(datapath.repair().unwrap(), Vec::<&str>::new());
    assert_eq!(read::endpoints(datapath.pins()).unwrap()[0].ifindex, 3);
}

#[test]
fn a_directory_that_is_no_bpf_file_system_is_refused() {
    let Err(error) = Datapath::open(Path::new("/proc")) else { panic!("/proc was taken for a BPF file system") };
    assert!(format!("{error:#}").contains("no BPF file system"), "{error:#}");
}

/// The pinned programs, by name.
fn programs(pins: &Path) -> BTreeMap<String, ProgramInfo> {
    let objects: Vec<_> = std::fs::read_dir(pins.join("programs")).unwrap().map(|dir| dir.unwrap().path()).collect();
    let [object] = &objects[..] else { panic!("one object is in use, not {objects:?}") };
    let files = std::fs::read_dir(object).unwrap().map(|file| file.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), ProgramInfo::from_pin(file.path()).unwrap())).collect()
}

fn program_ids(pins: &Path) -> BTreeMap<String, u32> {
    programs(pins).into_iter().map(|(name, info)| (name, info.id())).collect()
}

/// The kernel gives up at a million; what is near that on this kernel may be over it on another, and each node's
/// first agent waits for it.
#[test]
fn no_program_is_hard_to_verify() {
    let Some(bpffs) = Bpffs::mount("budget") else { return };
    let datapath = Datapath::open(&bpffs.0).unwrap();
    for (name, info) in programs(datapath.pins()) {
        let count = info.verified_instruction_count().unwrap();
        println!("{name}: {count} instructions verified");
        assert!(count < 200_000, "{name}: {count}");
    }
}

#[test]
fn programs_are_taken_over_only_if_they_are_the_same_and_use_the_pinned_maps() {
    let Some(bpffs) = Bpffs::mount("programs") else { return };
    let first = Datapath::open(&bpffs.0).unwrap();
    let pins = first.pins().to_path_buf();
    let loaded = program_ids(&pins);
    assert_eq!(loaded.len(), 12);
    drop(first);

    let second = Datapath::open(&bpffs.0).unwrap();
    assert_eq!(program_ids(&pins), loaded, "nothing is verified twice");
    // What another build left goes once this one has taken its place.
    std::fs::create_dir(pins.join("programs/0123456789abcdef")).unwrap();
    second.remove_other_shapes().unwrap();
    assert_eq!(program_ids(&pins), loaded);
    drop(second);

    // A program is missing, as after a crash between two pins.
    let object = std::fs::read_dir(pins.join("programs")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(object.join("to_lo")).unwrap();
    drop(Datapath::open(&bpffs.0).unwrap());
    let again = program_ids(&pins);
    assert!(again.len() == 12 && again.iter().all(|(name, id)| loaded[name] != *id), "{loaded:?} {again:?}");

    // A map was made anew: programs that use the former one would see nothing of what the agent writes.
    std::fs::remove_file(pins.join("maps/frontends")).unwrap();
    drop(Datapath::open(&bpffs.0).unwrap());
    let anew = program_ids(&pins);
    assert!(anew.iter().all(|(name, id)| again[name] != *id), "{again:?} {anew:?}");
}
