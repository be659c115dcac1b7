//! What the runtime asks for one attachment beyond the network's configuration: capabilities (`runtimeConfig`), and what older runtimes say
//! in `args.cni` and CNI_ARGS (CNI conventions, "Dynamic plugin specific fields").

use super::{Failure, Reason};
use crate::workload::{Asked, Mac};
use ipnet::IpNet;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The capabilities of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// `ips`: the addresses that the pod shall have, one per family at most; empty: felix chooses.
    pub ips: Vec<IpAddr>,
    /// `mac`: the MAC address of the pod's side; none: a derived one.
    pub mac: Option<Mac>,
    /// `portMappings` and `bandwidth`; nothing of an interface that another plugin makes.
    pub asked: Asked,
}

/// Reads what a configuration and CNI_ARGS ask for. Where several places name the same thing, `runtimeConfig` counts before `args.cni`, and
/// that before CNI_ARGS.
///
/// # Errors
/// The first field that makes no sense, or that Twill cannot do.
pub fn runtime_config(config: &Value, arguments: &BTreeMap<&str, String>) -> Result<RuntimeConfig, Failure> {
    let asked = config.get("runtimeConfig").unwrap_or(&Value::Null);
    if !absent(&asked["deviceID"]) {
        let message = "runtimeConfig.deviceID: twill-cni makes a veth; it cannot use a device. Leave the capability out of the network, or \
                       attach the device by another network";
        return Err(Failure::new(Reason::UnsupportedField, message));
    }
    Ok(RuntimeConfig { ips: ips(config, arguments)?, mac: mac(config, arguments)?, asked: Asked::default() })
}

fn ips(config: &Value, arguments: &BTreeMap<&str, String>) -> Result<Vec<IpAddr>, Failure> {
    let places = [
        ("runtimeConfig.ips", config.pointer("/runtimeConfig/ips")),
        ("args.cni.ips", config.pointer("/args/cni/ips")),
    ];
    for (field, value) in places {
        let Some(value) = value.filter(|value| !absent(value)) else { continue };
        let texts: Option<Vec<&str>> = value.as_array().and_then(|all| all.iter().map(Value::as_str).collect());
        let Some(texts) = texts else {
            let message = format!("{field}: {value} is not a list of addresses");
            return Err(Failure::new(Reason::InvalidConfig, message));
        };
        return addresses(field, &texts, Reason::InvalidConfig);
    }
    match arguments.get("IP").filter(|text| !text.is_empty()) {
        Some(text) => addresses("CNI_ARGS: IP", &text.split(',').collect::<Vec<_>>(), Reason::InvalidEnvironment),
        None => Ok(Vec::new()),
    }
}

fn addresses(field: &str, texts: &[&str], reason: Reason) -> Result<Vec<IpAddr>, Failure> {
    let mut found: Vec<IpAddr> = Vec::new();
    for text in texts {
        // The prefix length is the network's: pods of Twill have host addresses.
        let address = text.parse().or_else(|_| text.parse::<IpNet>().map(|net| net.addr()));
        let Ok(address) = address else {
            return Err(Failure::new(reason, format!("{field}: {text:?} is not an IP address")));
        };
        if found.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            let message = format!("{field}: {text} is a second address of its family; a pod has one of each");
            return Err(Failure::new(reason, message));
        }
        found.push(address);
    }
    found.sort_unstable();
    Ok(found)
}

fn mac(config: &Value, arguments: &BTreeMap<&str, String>) -> Result<Option<Mac>, Failure> {
    let places = [
        ("runtimeConfig.mac", config.pointer("/runtimeConfig/mac")),
        ("args.cni.mac", config.pointer("/args/cni/mac")),
    ];
    for (field, value) in places {
        let Some(value) = value.filter(|value| !absent(value)) else { continue };
        let mac = value.as_str().and_then(parse_mac);
        return mac.map(Some).ok_or_else(|| Failure::new(Reason::InvalidConfig, wrong_mac(field, &value.to_string())));
    }
    let Some(text) = arguments.get("MAC").filter(|text| !text.is_empty()) else { return Ok(None) };
    let wrong = || Failure::new(Reason::InvalidEnvironment, wrong_mac("CNI_ARGS: MAC", text));
    parse_mac(text).map(Some).ok_or_else(wrong)
}

fn wrong_mac(field: &str, text: &str) -> String {
    format!("{field}: {text} is not the MAC address of one interface, such as 02:11:22:33:44:55")
}

/// Six octets of two hex digits; unicast, and not all zero.
fn parse_mac(text: &str) -> Option<Mac> {
    let octet = |part: &str| {
        let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| u8::from_str_radix(part, 16).ok()).flatten()
    };
    let octets: Vec<u8> = text.split([':', '-']).map(octet).collect::<Option<_>>()?;
    let mac: Mac = octets.try_into().ok()?;
    (mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

/// Capabilities that a runtime has nothing to say about come as null, or empty.
fn absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(config: Value, arguments: &[(&'static str, &str)]) -> Result<RuntimeConfig, Failure> {
        runtime_config(&config, &arguments.iter().map(|(key, value)| (*key, (*value).to_owned())).collect())
    }

    #[test]
    fn nothing_asked_is_nothing() {
        for config in
            [json!({}), json!({"runtimeConfig": {"ips": [], "mac": "", "deviceID": "", "portMappings": null}})]
        {
            assert_eq!(read(config, &[("IP", "")]).unwrap(), RuntimeConfig::default());
        }
    }

    #[test]
    fn addresses_and_mac_are_read_in_the_order_of_their_places() {
        let all = [("IP", "10.0.0.3"), ("MAC", "02:00:00:00:00:03")];
        let third = read(json!({}), &all).unwrap();
        assert_eq!((third.ips, third.mac), (vec!["10.0.0.3".parse().unwrap()], Some([2, 0, 0, 0, 0, 3])));
        let args = json!({"args": {"cni": {"ips": ["10.0.0.2/24"], "mac": "02:00:00:00:00:02"}}});
        let second = read(args.clone(), &all).unwrap();
        assert_eq!((second.ips, second.mac), (vec!["10.0.0.2".parse().unwrap()], Some([2, 0, 0, 0, 0, 2])));
        let mut config = args;
        config["runtimeConfig"] = json!({"ips": ["fd42::1", "10.0.0.1"], "mac": "02-00-00-00-00-0A"});
        let first = read(config, &all).unwrap();
        assert_eq!(first.ips, ["10.0.0.1", "fd42::1"].map(|text| text.parse::<IpAddr>().unwrap()));
        assert_eq!(first.mac, Some([2, 0, 0, 0, 0, 10]));
    }

    #[test]
    fn what_makes_no_sense_is_named_with_the_code_of_its_place() {
        let capability = |name: &str, value: Value| json!({"runtimeConfig": {name: value}});
        let cases = [
            (capability("deviceID", json!("0000:03:00.1")), Reason::UnsupportedField, "deviceID"),
            (capability("ips", json!("10.0.0.1")), Reason::InvalidConfig, "runtimeConfig.ips"),
            (capability("ips", json!(["10.0.0.256"])), Reason::InvalidConfig, "10.0.0.256"),
            (capability("ips", json!(["10.0.0.1", "10.0.0.2"])), Reason::InvalidConfig, "10.0.0.2"),
            (capability("mac", json!("01:00:5e:00:00:01")), Reason::InvalidConfig, "runtimeConfig.mac"),
            (capability("mac", json!("00:00:00:00:00:00")), Reason::InvalidConfig, "runtimeConfig.mac"),
            (capability("mac", json!("2:0:0:0:0:1")), Reason::InvalidConfig, "runtimeConfig.mac"),
            (capability("mac", json!(7)), Reason::InvalidConfig, "runtimeConfig.mac"),
            (json!({"args": {"cni": {"ips": [7]}}}), Reason::InvalidConfig, "args.cni.ips"),
        ];
        for (config, reason, names) in cases {
            let failure = read(config, &[]).unwrap_err();
            assert_eq!((failure.reason, failure.message.contains(names)), (reason, true), "{failure}");
        }
        for (key, value) in [("IP", "x"), ("MAC", "x")] {
            assert_eq!(read(json!({}), &[(key, value)]).unwrap_err().reason, Reason::InvalidEnvironment);
        }
    }
}
