//! Amounts of resources (`100m`, `1.5Gi`, `2e3`) and what pods request of them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::controllers::object::list;

/// Amounts by resource name, in thousandths.
pub(crate) type Amounts = BTreeMap<String, i128>;

/// An amount in thousandths, rounded up; nothing if it cannot be read.
pub(crate) fn parse(text: &str) -> Option<i128> {
    let digits = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (factor, divisor): (i128, i128) = match suffix {
        "n" => (1, 1_000_000),
        "u" => (1, 1000),
        "m" => (1, 1),
        "" => (1000, 1),
        "k" => (1000 * 1000, 1),
        "M" => (1000 * 1_000_000, 1),
        "G" => (1000 * 1_000_000_000, 1),
        "T" => (1000 * 1_000_000_000_000, 1),
        "P" => (1000 * 1_000_000_000_000_000, 1),
        "E" => (1000 * 1_000_000_000_000_000_000, 1),
        "Ki" => (1000 << 10, 1),
        "Mi" => (1000 << 20, 1),
        "Gi" => (1000 << 30, 1),
        "Ti" => (1000 << 40, 1),
        "Pi" => (1000 << 50, 1),
        "Ei" => (1000 << 60, 1),
        exponent => match exponent.strip_prefix(['e', 'E'])?.parse::<i32>().ok()? {
            power @ 0..=18 => (1000 * 10i128.pow(power as u32), 1),
            power @ -18..0 => (1000, 10i128.pow(power.unsigned_abs())),
            _ => return None,
        },
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 || whole.len() + fraction.len() > 20 {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let below = divisor * 10i128.pow(fraction.len() as u32);
    let product = mantissa.checked_mul(factor)?;
    Some(product.div_euclid(below) + i128::from(product.rem_euclid(below) != 0))
}

fn value(quantity: &Value) -> i128 {
    match quantity {
        Value::String(text) => parse(text).unwrap_or(0),
        other => other.as_i64().map_or(0, |number| i128::from(number) * 1000),
    }
}

/// The amounts of a resource list.
pub(crate) fn amounts(resources: &Value) -> Amounts {
    resources.as_object().into_iter().flatten().map(|(name, quantity)| (name.clone(), value(quantity))).collect()
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *sum.entry(name.clone()).or_default() += amount;
    }
}

/// What a pod requests: its containers together, or more if one of those that run first needs more.
pub(crate) fn requests(pod: &Value) -> Amounts {
    let mut sum = Amounts::new();
    for container in list(pod, "/spec/containers") {
        add(&mut sum, &amounts(&container["resources"]["requests"]));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in list(pod, "/spec/initContainers") {
        let own = amounts(&container["resources"]["requests"]);
        let mut needed = sidecars.clone();
        add(&mut needed, &own);
        for (name, amount) in needed {
            let entry = peak.entry(name).or_default();
            *entry = amount.max(*entry);
        }
        if container["restartPolicy"] == "Always" {
            add(&mut sidecars, &own);
        }
    }
    add(&mut sum, &sidecars);
    for (name, amount) in peak {
        let entry = sum.entry(name).or_default();
        *entry = amount.max(*entry);
    }
    add(&mut sum, &amounts(&pod["spec"]["overhead"]));
    sum
}
