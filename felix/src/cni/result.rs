//! The result of an ADD in the shape of the version that was asked for (CNI specification, section 5).

use crate::workload::{HOST_MAC, Mac, Plan};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::Path;
use twill_crds::names::{GATEWAY_V4, GATEWAY_V6};

/// The result. `ips[].version` exists before 1.0, `interfaces[].mtu` since 1.1.
#[must_use]
pub fn result(version: &str, plan: &Plan, netns: &Path) -> Value {
    let mut interfaces = vec![
        json!({"name": plan.host_name, "mac": text(HOST_MAC)}),
        json!({"name": plan.pod_name, "mac": text(plan.pod_mac), "sandbox": netns}),
    ];
    if version == "1.1.0" {
        for interface in &mut interfaces {
            interface["mtu"] = json!(plan.mtu);
        }
    }
    let old = version.starts_with("0.");
    let (mut ips, mut routes) = (Vec::new(), Vec::new());
    for address in &plan.addresses {
        let (family, len, everything, gateway) = match address {
            IpAddr::V4(_) => ("4", 32, "0.0.0.0/0", GATEWAY_V4.to_string()),
            IpAddr::V6(_) => ("6", 128, "::/0", GATEWAY_V6.to_string()),
        };
        let mut ip = json!({"address": format!("{address}/{len}"), "gateway": gateway, "interface": 1});
        if old {
            ip["version"] = json!(family);
        }
        ips.push(ip);
        routes.push(json!({"dst": everything, "gw": gateway}));
    }
    json!({"cniVersion": version, "interfaces": interfaces, "ips": ips, "routes": routes, "dns": {}})
}

/// The result of an ADD for an interface that another plugin makes: addresses, each with the range and the gateway of its block, and the
/// routes that the configuration's `ipam.routes` asks for. There are no interfaces in it.
#[must_use]
pub fn lent(version: &str, addresses: &[(IpAddr, IpNet)], routes: &Value) -> Value {
    let mut ips = Vec::new();
    for (address, block) in addresses {
        let family = if address.is_ipv4() { "4" } else { "6" };
        // Ordinal 0 of a block is nobody's on this network: no pod gets it.
        let gateway = block.network().to_string();
        let mut ip = json!({"address": format!("{address}/{}", block.prefix_len()), "gateway": gateway});
        if version.starts_with("0.") {
            ip["version"] = json!(family);
        }
        ips.push(ip);
    }
    let routes: Vec<Value> = routes.as_array().into_iter().flatten().map(|route| by_way_of(route, addresses)).collect();
    json!({"cniVersion": version, "ips": ips, "routes": routes, "dns": {}})
}

/// A route with its gateway: without one of its own, that of the addresses of its family. Plugins compare it with the kernel's on CHECK.
fn by_way_of(route: &Value, addresses: &[(IpAddr, IpNet)]) -> Value {
    let mut route = route.clone();
    let is_v4 = !route["dst"].as_str().unwrap_or_default().contains(':');
    let block = addresses.iter().find(|(address, _)| address.is_ipv4() == is_v4).map(|(_, block)| block);
    if let (true, Some(block), true) = (route.is_object(), block, route["gw"].is_null()) {
        route["gw"] = json!(block.network().to_string());
    }
    route
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            host_name: "twl0123456789a".into(),
            pod_name: "eth0".into(),
            pod_mac: [2, 0, 0, 0, 0, 0x1f],
            mtu: 1500,
            alias: String::new(),
            addresses: vec!["10.42.0.5".parse().unwrap(), "fd42::5".parse().unwrap()],
            bandwidth: None,
        }
    }

    #[test]
    fn the_newest_version_has_mtus_and_no_family() {
        let expected = json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": "twl0123456789a", "mac": "02:74:77:69:6c:6c", "mtu": 1500},
                {"name": "eth0", "mac": "02:00:00:00:00:1f", "mtu": 1500, "sandbox": "/run/netns/a"},
            ],
            "ips": [
                {"address": "10.42.0.5/32", "gateway": "169.254.1.1", "interface": 1},
                {"address": "fd42::5/128", "gateway": "fe80::1", "interface": 1},
            ],
            "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0", "gw": "fe80::1"}],
            "dns": {},
        });
        assert_eq!(result("1.1.0", &plan(), Path::new("/run/netns/a")), expected);
    }

    #[test]
    fn what_is_lent_has_its_block_s_range_and_gateway_and_no_interface() {
        let addresses = [("10.42.0.5", "10.42.0.0/26"), ("fd42::5", "fd42::/122")]
            .map(|(address, block)| (address.parse().unwrap(), block.parse().unwrap()));
        let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "192.0.2.0/24", "gw": "192.0.2.1"}]);
        let with_gateways = json!([{"dst": "0.0.0.0/0", "gw": "10.42.0.0"}, {"dst": "::/0", "gw": "fd42::"}, {"dst": "192.0.2.0/24", "gw": "192.0.2.1"}]);
        let expected = json!({
            "cniVersion": "1.1.0",
            "ips": [{"address": "10.42.0.5/26", "gateway": "10.42.0.0"}, {"address": "fd42::5/122", "gateway": "fd42::"}],
            "routes": with_gateways, "dns": {},
        });
        assert_eq!(lent("1.1.0", &addresses, &routes), expected);
        assert_eq!(lent("0.4.0", &addresses, &Value::Null)["ips"][1]["version"], "6");
    }

    #[test]
    fn older_versions_have_their_own_shapes() {
        let middle = result("1.0.0", &plan(), Path::new("/n"));
        assert_eq!((middle["interfaces"][0].get("mtu"), middle["ips"][0].get("version")), (None, None));
        for version in ["0.3.1", "0.4.0"] {
            let old = result(version, &plan(), Path::new("/n"));
            assert_eq!((&old["ips"][0]["version"], &old["ips"][1]["version"]), (&json!("4"), &json!("6")));
            assert_eq!(old["cniVersion"], version);
        }
    }
}
