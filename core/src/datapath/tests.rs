//! Property tests: no prefix of a plan leaves an empty window, and plans converge.
use super::*;
use crate::service::ServiceName;
use proptest::prelude::*;

type World = BTreeMap<PortName, ServicePort>;

/// A world of up to four Service ports over six backends.
fn worlds() -> impl Strategy<Value = World> {
    let port = (prop::collection::btree_set(0_u8..6, 0..5), prop::collection::btree_set(0_u8..6, 0..3), 0_u8..4);
    prop::collection::btree_map(0_u8..4, port, 0..4).prop_map(|ports| {
        ports
            .into_iter()
            .map(|(number, (ready, rest, kinds))| (name(number), service_port(number, &ready, &rest, kinds)))
            .collect()
    })
}

fn name(number: u8) -> PortName {
    let service = ServiceName { namespace: "default".into(), name: format!("s{number}") };
    PortName { service, port: 80, protocol: Protocol::Tcp }
}

fn backend(number: u8) -> Backend {
    Backend { address: IpAddr::from([10, 0, 0, number]), port: 8080, protocol: Protocol::Tcp }
}

fn service_port(number: u8, ready: &BTreeSet<u8>, rest: &BTreeSet<u8>, kinds: u8) -> ServicePort {
    let mut frontends = BTreeSet::from([frontend([10, 96, 0, number], 80, FrontendKind::ClusterIp)]);
    if kinds & 1 != 0 {
        frontends.insert(frontend([0, 0, 0, 0], 30000 + u16::from(number), FrontendKind::NodePort));
    }
    if kinds & 2 != 0 {
        // Two Services may claim one address: all odd ones share it.
        frontends.insert(frontend([198, 18, 0, number % 2], 80, FrontendKind::ExternalIp));
    }
    ServicePort {
        frontends,
        selectable: ready.iter().copied().map(backend).collect(),
        known: ready.union(rest).copied().map(backend).collect(),
    }
}

fn frontend(address: [u8; 4], port: u16, kind: FrontendKind) -> Frontend {
    Frontend { address: address.into(), port, protocol: Protocol::Tcp, kind }
}

/// What each frontend should resolve to.
fn expected(world: &World) -> BTreeMap<FrontendKey, BTreeSet<Backend>> {
    let mut all = BTreeMap::new();
    for port in world.values() {
        for frontend in &port.frontends {
            all.entry(key(frontend)).or_insert_with(|| port.selectable.clone());
        }
    }
    all
}

proptest! {
    #[test]
    fn histories_converge_without_an_empty_window(history in prop::collection::vec(worlds(), 1..6), restart in any::<bool>()) {
        let mut planner = Planner::default();
        let mut kernel = Tables::default();
        let mut before: BTreeMap<FrontendKey, BTreeSet<Backend>> = BTreeMap::new();
        for world in history {
            let after = expected(&world);
            if restart {
                planner = Planner::adopt(kernel.clone());
            }
            for op in planner.plan(&world) {
                kernel.apply(&op);
                for key in kernel.frontends.keys().filter(|key| key.port != 0) {
                    prop_assert!(kernel.resolve(key).is_some(), "{key:?} dangles after {op:?}");
                }
                for (key, old) in &before {
                    let Some(new) = after.get(key) else { continue };
                    if old.is_empty() || new.is_empty() {
                        continue;
                    }
                    let seen = kernel.resolve(key);
                    prop_assert!(seen.is_some_and(|seen| !seen.is_empty()), "{key:?} is empty after {op:?}");
                }
            }
            for (key, backends) in &after {
                prop_assert_eq!(kernel.resolve(key), Some(backends.clone()));
            }
            let ports = kernel.frontends.keys().filter(|key| key.port != 0).count();
            prop_assert_eq!(ports, after.len());
            let known: BTreeSet<&Backend> = world.values().flat_map(|port| &port.known).collect();
            prop_assert_eq!(kernel.backends.values().collect::<BTreeSet<_>>(), known);
            prop_assert_eq!(planner.plan(&world), vec![]);
            prop_assert_eq!(planner.tables(), &kernel);
            before = after;
        }
    }
}

#[test]
fn a_foreign_edit_is_repaired_from_what_the_kernel_holds() {
    let world: World = BTreeMap::from([(name(1), service_port(1, &BTreeSet::from([1, 2]), &BTreeSet::new(), 3))]);
    let mut planner = Planner::default();
    let mut kernel = Tables::default();
    planner.plan(&world).iter().for_each(|op| kernel.apply(op));
    let id = *kernel.backends.keys().next().unwrap();
    kernel.backends.insert(id, backend(9));
    let ops = Planner::adopt(kernel.clone()).plan(&world);
    assert!(!ops.is_empty());
    ops.iter().for_each(|op| kernel.apply(op));
    for (key, backends) in expected(&world) {
        assert_eq!(kernel.resolve(&key), Some(backends));
    }
}

#[test]
fn ids_are_not_reused_soon() {
    let world = |number| -> World {
        BTreeMap::from([(name(number), service_port(number, &BTreeSet::from([number]), &BTreeSet::new(), 0))])
    };
    let mut planner = Planner::default();
    planner.plan(&world(1));
    let first: Vec<u32> = planner.tables().services.keys().copied().collect();
    planner.plan(&world(2));
    planner.plan(&world(1));
    assert!(planner.tables().services.keys().all(|id| !first.contains(id)));
}
