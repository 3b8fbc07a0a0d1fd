//! `netstat`: the counters of /proc/net/snmp (RFC 4113 and its like) of the namespace that this process is in.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// Counters by protocol and name.
pub(crate) type Counters = BTreeMap<String, BTreeMap<String, i64>>;

/// Reads all counters.
///
/// # Errors
/// If the file is not there or not as expected.
pub(crate) fn read() -> Result<Counters> {
    let path = "/proc/self/net/snmp";
    parse(&std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?)
}

/// Two lines a protocol: names, then values.
fn parse(text: &str) -> Result<Counters> {
    let mut all = Counters::new();
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (Some((protocol, names)), Some((again, values))) = (names.split_once(':'), values.split_once(':')) else {
            bail!("a line without a protocol: {names:?}");
        };
        if protocol != again {
            bail!("names of {protocol} are followed by values of {again}");
        }
        let values = values.split_whitespace().map(|value| value.parse().context("a counter is no number"));
        let pairs = names.split_whitespace().map(str::to_owned).zip(values);
        all.insert(protocol.to_owned(), pairs.map(|(name, value)| Ok((name, value?))).collect::<Result<_>>()?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_come_in_pairs_of_lines() {
        let all = parse("Tcp: RtoMin MaxConn\nTcp: 200 -1\nUdp: InCsumErrors\nUdp: 7\n").unwrap();
        assert_eq!((all["Tcp"]["MaxConn"], all["Udp"]["InCsumErrors"]), (-1, 7));
        assert!(parse("Tcp: A\nUdp: 1\n").is_err());
    }
}
