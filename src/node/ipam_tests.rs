//! Tests of [`super`].
use super::*;

fn owner(number: u32) -> Attachment {
    Attachment { container_id: format!("c{number}"), ifname: "eth0".into() }
}

#[test]
fn a_slash_24_has_254_and_each_is_given_once() {
    let mut ipam = Ipam::new("10.244.1.0/24".parse().unwrap());
    assert_eq!(ipam.capacity(), 254);
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..254 {
        assert!(seen.insert(ipam.allocate(&owner(number)).unwrap()));
    }
    assert!(!seen.contains(&"10.244.1.0".parse().unwrap()) && !seen.contains(&"10.244.1.255".parse().unwrap()));
    assert!(ipam.allocate(&owner(999)).is_err());
    ipam.release(&owner(7));
    assert!(ipam.allocate(&owner(999)).is_ok());
}

#[test]
fn the_same_attachment_keeps_its_address_and_a_freed_one_rests() {
    let mut ipam = Ipam::new("10.244.1.0/24".parse().unwrap());
    let first = ipam.allocate(&owner(1)).unwrap();
    assert_eq!(ipam.allocate(&owner(1)), Ok(first));
    ipam.release(&owner(1));
    assert_ne!(ipam.allocate(&owner(2)), Ok(first));
}

#[test]
fn what_is_reserved_at_start_is_not_given_again() {
    let mut ipam = Ipam::new("10.244.1.0/24".parse().unwrap());
    let taken = "10.244.1.9".parse().unwrap();
    assert!(ipam.reserve(taken, &owner(1)) && ipam.reserve(taken, &owner(1)));
    assert!(!ipam.reserve(taken, &owner(2)));
    assert!(!ipam.reserve("10.244.2.9".parse().unwrap(), &owner(3)));
    assert!((10..300).filter_map(|number| ipam.allocate(&owner(number)).ok()).all(|address| address != taken));
}
