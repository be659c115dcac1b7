//! What a pod's spec asks of its network by CNI's capabilities, in the words that a kubelet's runtime has for it.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use twill_crds::Pod;

/// By the name of the capability; what the pod does not ask for is not in it.
#[must_use]
pub fn capabilities(pod: &Pod) -> BTreeMap<&'static str, Value> {
    let ports = Some(port_mappings(pod)).filter(|ports| !ports.is_empty()).map(|ports| ("portMappings", json!(ports)));
    let bandwidth = bandwidth(pod).map(|bandwidth| ("bandwidth", bandwidth));
    ports.into_iter().chain(bandwidth).collect()
}

/// `kubernetes.io/ingress-bandwidth` and `egress-bandwidth`, quantities of bits per second. One that makes no sense limits nothing.
fn bandwidth(pod: &Pod) -> Option<Value> {
    let annotations = pod.metadata.annotations.as_ref()?;
    let mut asked = Map::new();
    for direction in ["ingress", "egress"] {
        let text = annotations.get(&format!("kubernetes.io/{direction}-bandwidth"));
        if let Some(rate) = text.and_then(|text| bits(text)) {
            asked.insert(format!("{direction}Rate"), json!(rate));
            // As runtimes do, which have nothing to say about it.
            asked.insert(format!("{direction}Burst"), json!(u32::MAX));
        }
    }
    (!asked.is_empty()).then_some(Value::Object(asked))
}

/// A quantity of whole bits.
fn bits(text: &str) -> Option<u64> {
    const SUFFIXES: [(&str, u64); 7] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("", 1),
    ];
    let (digits, factor) = SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, factor)))?;
    digits.parse::<u64>().ok()?.checked_mul(*factor).filter(|bits| *bits > 0)
}

fn port_mappings(pod: &Pod) -> Vec<Value> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let mapped = ports.filter_map(|port| Some((port, port.host_port.filter(|port| *port > 0)?)));
    let mapping = |(port, host_port): (&k8s_openapi::api::core::v1::ContainerPort, i32)| {
        json!({
            "hostPort": host_port,
            "containerPort": port.container_port,
            "protocol": port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
            "hostIP": port.host_ip.as_deref().unwrap_or_default(),
        })
    };
    mapped.map(mapping).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pod(ports: Value) -> Pod {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [{"name": "c", "ports": ports}]},
        });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn bandwidth_comes_from_annotations_in_bits() {
        let mut limited = pod(json!([]));
        let annotations = [("kubernetes.io/ingress-bandwidth", "10M"), ("kubernetes.io/egress-bandwidth", "1Gi")];
        limited.metadata.annotations = Some(annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        let asked = capabilities(&limited);
        assert_eq!(asked["bandwidth"]["ingressRate"], 10_000_000);
        assert_eq!(asked["bandwidth"]["egressRate"], 1_u64 << 30);
        assert_eq!([bits("1e6"), bits("-1"), bits("0"), bits("M")], [None; 4]);
    }

    #[test]
    fn host_ports_are_asked_for_and_nothing_else() {
        assert!(capabilities(&pod(json!([{"containerPort": 80}, {"containerPort": 81, "hostPort": 0}]))).is_empty());
        let asked = capabilities(&pod(json!([
            {"containerPort": 80, "hostPort": 8080},
            {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "172.31.1.11"},
        ])));
        let expected = json!([
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""},
            {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "172.31.1.11"},
        ]);
        assert_eq!(asked.into_iter().collect::<Vec<_>>(), [("portMappings", expected)]);
    }
}
