//! Table and property tests of the plan.
use super::super::pool::{Block, PoolSpec};
use super::super::selector::{Requirement, Selector, SelectorError};
use super::*;
use proptest::prelude::*;

fn cidr(text: &str) -> Block {
    Block { cidr: Some(text.into()), ..Block::default() }
}

fn pool(created: i64, blocks: &[&str]) -> PoolSpec {
    PoolSpec { created, blocks: blocks.iter().map(|text| cidr(text)).collect(), ..PoolSpec::default() }
}

fn color(value: &str) -> Result<Selector, SelectorError> {
    Ok(Selector(vec![Requirement::from_api("color", "In", vec![value.into()])?]))
}

fn name(text: &str) -> ServiceName {
    ServiceName { namespace: "default".into(), name: text.into() }
}

fn service(created: i64, color: &str, ingress: &[&str]) -> ServiceInput {
    ServiceInput {
        labels: BTreeMap::from([("color".into(), color.into())]),
        ingress: ingress.iter().map(|text| text.parse().unwrap()).collect(),
        families: BTreeSet::from([Family::V4]),
        created,
        held_since: created,
        known: true,
        ..ServiceInput::default()
    }
}

fn world(pools: &[(&str, PoolSpec)], services: &[(&str, ServiceInput)]) -> World {
    World {
        pools: pools.iter().map(|(name, spec)| ((*name).to_owned(), Pool::new(spec))).collect(),
        services: services.iter().map(|(text, service)| (name(text), service.clone())).collect(),
    }
}

fn strings(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// Total, used and available of each way to write a pool (decision 2).
#[test]
fn counts() {
    let spec = |blocks: &[&str], cidrs: &[&str], allow| PoolSpec {
        blocks: blocks.iter().map(|text| cidr(text)).collect(),
        cidrs: cidrs.iter().map(|text| cidr(text)).collect(),
        allow_first_last: allow,
        ..PoolSpec::default()
    };
    for (spec, total) in [
        (spec(&[], &["20.0.10.0/24"], None), 254),
        (spec(&[], &["20.0.10.0/24"], Some(true)), 256),
        (spec(&["20.0.10.0/24"], &[], None), 256),
        (spec(&["20.0.10.0/24"], &[], Some(false)), 254),
        (spec(&["20.0.10.0/30"], &[], Some(false)), 2),
        (spec(&["20.0.10.0/31"], &[], Some(false)), 2),
        (spec(&["20.0.10.0/32"], &[], Some(false)), 1),
        (spec(&["2001:db8::/126"], &[], Some(false)), 2),
        (spec(&["2001:db8::/127"], &[], Some(false)), 2),
        (spec(&["2001:db8::/64"], &[], None), 1_u128 << 64),
        (spec(&[], &[], None), 0),
    ] {
        let mut services = vec![];
        if total > 0
            && total < 300
            && spec.blocks.iter().chain(&spec.cidrs).all(|b| !b.cidr.as_ref().unwrap().contains(':'))
        {
            services.push(("web", service(0, "blue", &[])));
        }
        let used = services.len() as u128;
        let plan = plan(&world(&[("p", spec.clone())], &services));
        assert_eq!((plan.pools["p"].total, plan.pools["p"].used), (total, used), "{spec:?}");
    }
}

#[test]
fn the_walkthrough() {
    let mut blue = pool(0, &[]);
    blue.cidrs = vec![cidr("20.0.10.0/24")];
    blue.selector = color("blue");
    let mut red = pool(0, &[]);
    red.cidrs = vec![cidr("30.0.10.0/24")];
    red.selector = color("red");
    let plan = plan(&world(&[("blue-pool", blue), ("red-pool", red)], &[("cni", service(1, "blue", &[]))]));
    let address = plan.services[&name("cni")].ingress[0];
    assert!(address.to_string().starts_with("20.0.10."), "{address}");
    assert_eq!(plan.pools["blue-pool"].total - plan.pools["blue-pool"].used, 253);
    assert_eq!(plan.pools["red-pool"].total - plan.pools["red-pool"].used, 254);
}

#[test]
fn the_newer_of_two_overlapping_pools_gives_out_nothing() {
    let pools = [("b-old", pool(1, &["10.0.10.0/24"])), ("a-new", pool(2, &["10.0.20.0/24", "10.0.10.0/28"]))];
    let plan = plan(&world(&pools, &[]));
    assert_eq!(plan.pools["b-old"].conflict, None);
    let message = plan.pools["a-new"].conflict.clone().unwrap();
    assert_eq!(
        message,
        "Pool conflicts since range '10.0.10.0 - 10.0.10.15' overlaps range '10.0.10.0 - 10.0.10.255' from IP Pool 'b-old'"
    );
}

#[test]
fn a_pool_can_conflict_with_itself() {
    let plan = plan(&world(&[("p", pool(1, &["10.0.10.0/24", "10.0.10.64/28"]))], &[("s", service(0, "x", &[]))]));
    assert!(plan.pools["p"].conflict.clone().unwrap().contains("'p'"));
    assert_eq!(plan.services[&name("s")].refusals, [Refusal::NoPool]);
}

#[test]
fn disabled_and_losing_pools_take_nothing_back() {
    let mut disabled = pool(1, &["10.0.10.0/24"]);
    disabled.disabled = true;
    let services = [("has", service(0, "x", &["10.0.10.7"])), ("new", service(1, "x", &[]))];
    let plan = plan(&world(&[("p", disabled)], &services));
    assert_eq!(strings(&plan.services[&name("has")].ingress), ["10.0.10.7"]);
    assert_eq!(plan.services[&name("new")].refusals, [Refusal::NoPool]);
}

#[test]
fn a_selector_or_pool_that_is_gone_takes_the_address() {
    let mut red = pool(1, &["10.0.10.0/24"]);
    red.selector = color("red");
    let result = plan(&world(&[("p", red)], &[("s", service(0, "blue", &["10.0.10.7"]))]));
    assert_eq!(
        result.services[&name("s")],
        ServiceResult { refusals: vec![Refusal::NoPool], ..ServiceResult::default() }
    );
    let mut foreign = service(0, "blue", &["10.0.10.7"]);
    foreign.known = false;
    assert!(plan(&world(&[], &[("s", foreign)])).services.is_empty(), "another controller's address stays");
}

#[test]
fn of_two_holders_the_older_keeps_the_address() {
    let services = [("a-young", service(9, "x", &["10.0.10.7"])), ("b-old", service(1, "x", &["10.0.10.7"]))];
    let plan = plan(&world(&[("p", pool(1, &["10.0.10.0/24"]))], &services));
    assert_eq!(strings(&plan.services[&name("b-old")].ingress), ["10.0.10.7"]);
    assert_ne!(strings(&plan.services[&name("a-young")].ingress), ["10.0.10.7"]);
}

#[test]
fn a_full_pool_is_out_of_ips_and_bad_blocks_are_listed() {
    let services = [("a", service(1, "x", &[])), ("b", service(2, "x", &[]))];
    let result = plan(&world(&[("p", pool(1, &["10.0.10.1/32"]))], &services));
    assert_eq!(result.services[&name("b")].refusals, [Refusal::OutOfIps]);
    let mut bad = pool(1, &["10.0.10.0/33"]);
    bad.blocks.push(Block { start: Some("10.0.0.9".into()), stop: Some("10.0.0.1".into()), cidr: None });
    bad.blocks.push(Block::default());
    assert_eq!(Pool::new(&bad).errors.len(), 3);
}

#[test]
fn an_address_that_is_reserved_since_stays_with_its_holder() {
    let mut spec = pool(1, &["20.0.10.0/30"]);
    spec.allow_first_last = Some(false);
    let result = plan(&world(&[("p", spec)], &[("a", service(1, "x", &["20.0.10.0"])), ("b", service(2, "x", &[]))]));
    assert_eq!(strings(&result.services[&name("a")].ingress), ["20.0.10.0"]);
    assert_ne!(strings(&result.services[&name("b")].ingress), ["20.0.10.3"]);
    assert_eq!((result.pools["p"].total, result.pools["p"].used), (2, 1), "it does not count among those to give out");
}

#[test]
fn an_address_of_another_controller_stays_where_no_pool_selects() {
    let mut foreign = service(1, "x", &["198.18.9.9"]);
    foreign.known = false;
    assert!(plan(&world(&[], &[("a", foreign)])).services.is_empty());
}

/// A pool whose selector has an operator that is none.
fn unreadable(created: i64, blocks: &[&str]) -> PoolSpec {
    PoolSpec {
        selector: Requirement::from_api("color", "Equals", vec![]).map(|_| Selector::default()),
        ..pool(created, blocks)
    }
}

#[test]
fn a_pool_that_cannot_be_understood_gives_nothing_out_and_takes_nothing_back() {
    let services = [
        ("has", service(1, "x", &["10.0.10.7"])),
        ("other", service(2, "x", &["10.0.20.7"])),
        ("new", service(3, "x", &[])),
    ];
    let broken = unreadable(1, &["10.0.10.0/24"]);
    let result = plan(&world(&[("broken", broken.clone()), ("fine", pool(2, &["10.0.20.0/24"]))], &services));
    assert_eq!(strings(&result.services[&name("has")].ingress), ["10.0.10.7"]);
    assert_eq!(strings(&result.services[&name("other")].ingress), ["10.0.20.7"]);
    assert!(strings(&result.services[&name("new")].ingress)[0].starts_with("10.0.20."));
    assert_eq!(result.pools["broken"].used, 1);
    // It is still the older one of two that overlap: what it gave out is not given out again.
    let result = plan(&world(&[("broken", broken), ("late", pool(2, &["10.0.10.0/24"]))], &services));
    assert!(result.pools["late"].conflict.is_some());
    assert_eq!(result.services[&name("new")].refusals, [Refusal::NoPool]);
}

#[test]
fn a_block_that_became_unreadable_moves_nobody() {
    let services = [("has", service(1, "x", &["10.0.10.7"])), ("new", service(3, "x", &[]))];
    let result = plan(&world(&[("p", pool(1, &["10.0.10.0/33", "10.0.20.0/24"]))], &services));
    assert_eq!(strings(&result.services[&name("has")].ingress), ["10.0.10.7"]);
    assert!(strings(&result.services[&name("new")].ingress)[0].starts_with("10.0.20."));
    let mut foreign = service(1, "x", &["10.0.10.7"]);
    foreign.known = false;
    let result = plan(&world(&[("p", pool(1, &["10.0.10.0/33", "10.0.20.0/24"]))], &[("s", foreign)]));
    assert!(strings(&result.services[&name("s")].ingress)[0].starts_with("10.0.20."));
}

fn asks(created: i64, requested: &[&str], ingress: &[&str]) -> ServiceInput {
    let requested = requested.iter().map(|text| text.parse().unwrap()).collect();
    ServiceInput { requested, ..service(created, "blue", ingress) }
}

#[test]
fn requested_addresses_are_granted_or_refused_with_the_cause() {
    let mut red = pool(2, &["10.0.20.0/24"]);
    red.selector = color("red");
    let mut reserving = pool(3, &["10.0.30.0/24"]);
    reserving.allow_first_last = Some(false);
    let mut disabled = pool(4, &["10.0.40.0/24"]);
    disabled.disabled = true;
    let pools = [("blue", pool(1, &["10.0.10.0/24"])), ("red", red), ("reserving", reserving), ("disabled", disabled)];
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    for (requested, granted, refusals) in [
        (vec!["10.0.10.20"], vec!["10.0.10.20"], vec![]),
        (vec!["10.0.10.20", "10.0.10.22"], vec!["10.0.10.20", "10.0.10.22"], vec![]),
        (vec!["10.0.10.9"], vec![], vec![Refusal::Taken(ip("10.0.10.9"))]),
        (vec!["10.0.10.20", "10.0.10.9"], vec!["10.0.10.20"], vec![Refusal::Taken(ip("10.0.10.9"))]),
        (vec!["10.0.20.1"], vec![], vec![Refusal::NotSelected(ip("10.0.20.1"))]),
        (vec!["10.0.30.0"], vec![], vec![Refusal::Taken(ip("10.0.30.0"))]),
        (vec!["10.0.40.1"], vec![], vec![Refusal::NoPoolWith(ip("10.0.40.1"))]),
        (vec!["10.9.9.9"], vec![], vec![Refusal::NoPoolWith(ip("10.9.9.9"))]),
    ] {
        let services = [("holder", service(1, "blue", &["10.0.10.9"])), ("s", asks(2, &requested, &[]))];
        let result = plan(&world(&pools, &services)).services[&name("s")].clone();
        assert_eq!(
            (strings(&result.ingress), result.refusals),
            (granted.iter().map(|s| (*s).to_owned()).collect(), refusals),
            "{requested:?}"
        );
    }
}

#[test]
fn a_request_that_changes_moves_and_one_that_ends_does_not() {
    let pools = [("p", pool(1, &["10.0.10.0/24"]))];
    let moved = plan(&world(&pools, &[("s", asks(1, &["10.0.10.21"], &["10.0.10.20"]))]));
    assert_eq!(strings(&moved.services[&name("s")].ingress), ["10.0.10.21"]);
    let ended = plan(&world(&pools, &[("s", asks(1, &[], &["10.0.10.20"]))]));
    assert_eq!(strings(&ended.services[&name("s")].ingress), ["10.0.10.20"]);
    let mut typo = asks(1, &[], &["10.0.10.20"]);
    typo.unreadable = vec!["10.0.10".into()];
    let typo = plan(&world(&pools, &[("s", typo)]));
    assert_eq!(typo.services[&name("s")].refusals, [Refusal::NotAnAddress("10.0.10".into())]);
}

#[test]
fn who_asks_for_one_address_is_served_before_those_to_whom_all_are_equal() {
    let services = [("any", service(1, "x", &[])), ("one", asks(9, &["10.0.10.1"], &[]))];
    let result = plan(&world(&[("p", pool(1, &["10.0.10.1/32"]))], &services));
    assert_eq!(strings(&result.services[&name("one")].ingress), ["10.0.10.1"]);
    assert_eq!(result.services[&name("any")].refusals, [Refusal::OutOfIps]);
}

#[test]
fn both_families_are_served_from_any_pools_and_a_missing_one_is_refused() {
    let mut dual = service(1, "x", &[]);
    dual.families = BTreeSet::from([Family::V4, Family::V6]);
    let pools = [("four", pool(1, &["10.0.10.0/24"])), ("six", pool(2, &["2001:db8::/64"]))];
    let both = plan(&world(&pools, &[("s", dual.clone())])).services[&name("s")].clone();
    assert_eq!(both.ingress.iter().map(|ip| Family::of(*ip)).collect::<Vec<_>>(), [Family::V4, Family::V6]);
    assert_eq!(both.refusals, []);
    let one = plan(&world(&pools[..1], &[("s", dual.clone())])).services[&name("s")].clone();
    assert_eq!((one.ingress.len(), one.refusals), (1, vec![Refusal::NoPool]));
    // The family that is not asked for any more goes.
    let mut single = dual;
    single.families = BTreeSet::from([Family::V6]);
    single.ingress = vec!["10.0.10.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    let six = plan(&world(&pools, &[("s", single)])).services[&name("s")].clone();
    assert_eq!(strings(&six.ingress), ["2001:db8::7"]);
}

#[test]
fn the_older_write_of_one_address_counts_and_the_loser_is_told() {
    let mut stray = service(1, "x", &["10.0.10.7"]);
    stray.held_since = 100;
    let mut holder = service(5, "x", &["10.0.10.7"]);
    holder.held_since = 50;
    let result = plan(&world(&[("p", pool(1, &["10.0.10.0/24"]))], &[("stray", stray), ("holder", holder)]));
    assert_eq!(strings(&result.services[&name("holder")].ingress), ["10.0.10.7"]);
    let loser = &result.services[&name("stray")];
    assert_eq!(loser.duplicates, [Duplicate { address: "10.0.10.7".parse().unwrap(), holder: name("holder") }]);
    assert_ne!(strings(&loser.ingress), ["10.0.10.7"]);
}

#[test]
fn without_a_pool_nothing_is_touched_that_we_have_not_touched_before() {
    let mut untouched = service(1, "x", &[]);
    untouched.known = false;
    assert!(plan(&world(&[], &[("s", untouched.clone())])).services.is_empty());
    assert_eq!(
        plan(&world(&[], &[("s", service(1, "x", &["10.0.10.7"]))])).services[&name("s")].refusals,
        [Refusal::NoPool]
    );
    untouched.marked = true;
    assert_eq!(plan(&world(&[], &[("s", untouched)])).services[&name("s")].refusals, [Refusal::NoPool]);
}

#[test]
fn when_the_winner_goes_the_oldest_loser_wins_and_gives_out() {
    let mut pools = vec![
        ("a", pool(1, &["10.0.10.0/24"])),
        ("b", pool(2, &["10.0.10.0/25", "2001:db8::/64"])),
        ("c", pool(3, &["10.0.10.0/26"])),
    ];
    let of = |pools: &[(&str, PoolSpec)]| {
        let result = plan(&world(pools, &[]));
        result.pools.values().map(|pool| pool.conflict.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(of(&pools), [false, true, true]);
    pools.remove(0);
    assert_eq!(of(&pools), [false, true]);
    pools[0].1.blocks.remove(0);
    assert_eq!(of(&pools), [false, false], "without the overlap both are in order");
}

proptest! {
    #[test]
    fn addresses_are_unique_contained_and_stable(
        blocks in prop::collection::vec((0_u8..4, 26_u8..=32), 1..4),
        count in 0_usize..80,
    ) {
        let pools: Vec<(String, PoolSpec)> = blocks.iter().enumerate()
            .map(|(at, (net, prefix))| (format!("p{at}"), pool(at as i64, &[&format!("10.0.{net}.0/{prefix}")])))
            .collect();
        let mut world = World {
            pools: pools.iter().map(|(name, spec)| (name.clone(), Pool::new(spec))).collect(),
            services: (0..count).map(|at| (name(&format!("s{at}")), service(at as i64, "x", &[]))).collect(),
        };
        let first = plan(&world);
        let given: Vec<IpAddr> = first.services.values().flat_map(|result| result.ingress.clone()).collect();
        prop_assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len(), "unique");
        for address in &given {
            prop_assert!(world.pools.values().any(|pool| pool.offers(*address)), "contained");
        }
        for result in first.services.values() {
            prop_assert_eq!(result.refusals.is_empty(), result.ingress.len() == 1);
        }
        let room: u128 = first.pools.values().filter(|pool| pool.conflict.is_none()).map(|pool| pool.total).sum();
        prop_assert_eq!(given.len() as u128, room.min(count as u128), "nobody waits while there is room");
        for (name, result) in &first.services {
            world.services.get_mut(name).unwrap().ingress.clone_from(&result.ingress);
        }
        prop_assert_eq!(plan(&world), first, "a restart moves nobody");
    }
}
