//! `forward-policy`: whether this network namespace's kernel forwards IPv4 packets, by the policy of an nftables chain of
//! our own, and how many it was to forward. It needs no `nft`.

use std::io;

use anyhow::Context;
use serde_json::json;

use crate::nftables::{Attributes, Kind, Nfnetlink, attribute};

/// Our table.
const TABLE: &str = "portolan_e2e_forward";
/// Our chain.
const CHAIN: &str = "forward";
/// `NF_INET_FORWARD`.
const FORWARD: u32 = 2;
/// `NF_DROP`.
const DROP: u32 = 0;

/// Arguments of `forward-policy`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to do.
    #[arg(value_enum)]
    action: Action,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Action {
    /// Say whether the kernel has nf_tables.
    Supported,
    /// Drop whatever is to be forwarded, and count it from now on.
    Drop,
    /// Print how many packets were to be forwarded.
    Count,
    /// Take the policy away.
    Remove,
}

/// Does it.
///
/// # Errors
/// What the kernel says.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let kernel = Nfnetlink::open().context("opening an nfnetlink socket")?;
    match args.action {
        Action::Supported => {
            kernel.get(Kind::Generation, &Attributes::default()).context("asking for nf_tables")?;
        }
        Action::Drop => {
            remove(&kernel)?;
            kernel.commit(&[(Kind::NewTable, table()), (Kind::NewChain, chain())]).context("adding the chain")?;
        }
        Action::Count => {
            let chain = kernel.get(Kind::GetChain, &Attributes::default().text(1, TABLE).text(3, CHAIN));
            let packets = packets(&chain.context("reading the chain")?).context("the chain has no counter")?;
            crate::print_json(&json!({ "packets": packets }))?;
        }
        Action::Remove => remove(&kernel)?,
    }
    Ok(())
}

fn table() -> Attributes {
    Attributes::default().text(1, TABLE)
}

/// With the chain's own counters: they count what reaches the policy.
fn chain() -> Attributes {
    let hook = Attributes::default().number(1, FORWARD).number(2, 0);
    let counters = Attributes::default().long(1, 0).long(2, 0);
    let named = Attributes::default().text(1, TABLE).text(3, CHAIN);
    named.nested(4, &hook).number(5, DROP).text(7, "filter").nested(8, &counters)
}

fn packets(chain: &[u8]) -> Option<u64> {
    let value = attribute(attribute(chain, 8)?, 2)?;
    Some(u64::from_be_bytes(*value.first_chunk::<8>()?))
}

fn remove(kernel: &Nfnetlink) -> anyhow::Result<()> {
    match kernel.commit(&[(Kind::DeleteTable, table())]) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("removing the table"),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "forward_policy_tests.rs"]
mod tests;
