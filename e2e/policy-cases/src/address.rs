//! CIDRs around a pod's address, which nobody knows before the pod runs: a placeholder stands for them until then.

use serde_json::Value;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// No address is known for a pod that a placeholder names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The pod, as `namespace/name`.
    pub pod: String,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no address is known for pod {}, around which a CIDR is asked for", self.pod)
    }
}

impl std::error::Error for Unknown {}

/// The block of 2^`bits` addresses around the pod's.
pub(crate) fn host_bits(pod: &str, bits: u8) -> String {
    format!("around {pod} less {bits}")
}

/// The block of this prefix length around the pod's address.
pub(crate) fn prefix(pod: &str, length: u8) -> String {
    format!("around {pod} first {length}")
}

/// The object with CIDRs in place of placeholders.
///
/// # Errors
/// If the address of a pod in a placeholder is not known.
pub fn resolve(object: &Value, address: &dyn Fn(&str) -> Option<IpAddr>) -> Result<Value, Unknown> {
    Ok(match object {
        Value::String(text) => Value::String(cidr(text, address)?.unwrap_or_else(|| text.clone())),
        Value::Array(items) => items.iter().map(|v| resolve(v, address)).collect::<Result<_, _>>()?,
        Value::Object(map) => Value::Object(
            map.iter().map(|(k, v)| Ok((k.clone(), resolve(v, address)?))).collect::<Result<_, Unknown>>()?,
        ),
        other => other.clone(),
    })
}

/// The CIDR that a placeholder means; nothing if the text is none.
fn cidr(text: &str, address: &dyn Fn(&str) -> Option<IpAddr>) -> Result<Option<String>, Unknown> {
    let words: Vec<&str> = text.split(' ').collect();
    let ["around", pod, how @ ("less" | "first"), number] = words[..] else { return Ok(None) };
    let Ok(number) = number.parse::<u32>() else { return Ok(None) };
    let found = address(pod).ok_or_else(|| Unknown { pod: pod.to_owned() })?;
    let width = if found.is_ipv4() { 32 } else { 128 };
    let length = if how == "less" { width - number } else { number };
    Ok(Some(match found {
        IpAddr::V4(a) => {
            let bits = mask(u128::from(a.to_bits()), width, length);
            format!("{}/{length}", Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)))
        }
        IpAddr::V6(a) => format!("{}/{length}", Ipv6Addr::from_bits(mask(a.to_bits(), width, length))),
    }))
}

/// The bits of a prefix; those of the host are zero.
fn mask(bits: u128, width: u32, length: u32) -> u128 {
    let host = width - length;
    bits.checked_shr(host).and_then(|b| b.checked_shl(host)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    #[test]
    fn placeholders_become_cidrs_of_the_pods_family() {
        let object = json!({"cidr": host_bits("z/c", 8), "except": [prefix("z/c", 4), "0.0.0.0/0"], "port": 80});
        let four = resolve(&object, &|_| Some("10.42.7.200".parse().unwrap())).unwrap();
        assert_eq!(four, json!({"cidr": "10.42.7.0/24", "except": ["0.0.0.0/4", "0.0.0.0/0"], "port": 80}));
        let six = resolve(&object, &|_| Some("fd42:1::7:c8".parse().unwrap())).unwrap();
        assert_eq!(six, json!({"cidr": "fd42:1::7:0/120", "except": ["f000::/4", "0.0.0.0/0"], "port": 80}));
        let error = resolve(&object, &|_| None).unwrap_err();
        assert_eq!(error, Unknown { pod: "z/c".into() });
    }
}
