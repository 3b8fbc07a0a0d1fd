//! Tests of [`super`].
use super::*;

#[test]
fn the_packets_of_a_chain_are_read_and_not_its_bytes() {
    let counters = Attributes::default().long(1, 420).long(2, 7);
    let bytes = |attributes: Attributes| attributes.into_bytes();
    let chain = Attributes::default().text(3, CHAIN).number(5, DROP).nested(8, &counters);
    assert_eq!(packets(&bytes(chain)), Some(7));
    assert_eq!(packets(&bytes(Attributes::default().text(3, CHAIN))), None);
}

/// The kernel's own word, where this may make a network namespace.
#[test]
fn the_kernel_takes_the_chain_and_counts_nothing_yet() {
    let tried = std::thread::spawn(|| {
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
            return None;
        }
        let kernel = Nfnetlink::open().unwrap();
        kernel.get(Kind::Generation, &Attributes::default()).ok()?;
        remove(&kernel).expect("one that is not there is no error");
        kernel.commit(&[(Kind::NewTable, table()), (Kind::NewChain, chain())]).unwrap();
        let read = || kernel.get(Kind::GetChain, &Attributes::default().text(1, TABLE).text(3, CHAIN));
        let counted = packets(&read().unwrap());
        remove(&kernel).unwrap();
        assert_eq!(read().unwrap_err().kind(), io::ErrorKind::NotFound);
        Some(counted)
    });
    match tried.join().unwrap() {
        Some(counted) => assert_eq!(counted, Some(0)),
        None => eprintln!("skipped: no right to make a network namespace, or no nf_tables"),
    }
}
