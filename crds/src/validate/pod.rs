//! Defaults and rules of Pod, as far as networking reads it; the rest is the kubelet's.

use super::{Problem, policy};
use crate::Pod;
use k8s_openapi::api::core::v1::Container;
use serde_json::Value;
use std::collections::BTreeSet;

/// A port's protocol is TCP; a hostNetwork pod's port is the node's, too.
pub(super) fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else { return };
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        let ports = containers.filter_map(|container| container.get_mut("ports")?.as_array_mut()).flatten();
        for port in ports.filter_map(Value::as_object_mut) {
            if port.get("protocol").is_none_or(Value::is_null) {
                port.insert("protocol".into(), "TCP".into());
            }
            if host_network && port.get("hostPort").is_none_or(Value::is_null) {
                let number = port.get("containerPort").cloned().unwrap_or_default();
                port.insert("hostPort".into(), number);
            }
        }
    }
}

/// Rules of a pod; its node, once set, does not change.
pub(super) fn check(new: &Pod, old: Option<&Pod>) -> Result<(), Problem> {
    let Some(spec) = &new.spec else { return Ok(()) };
    for (n, container) in spec.containers.iter().enumerate() {
        ports(&format!("spec.containers[{n}]"), container)?;
    }
    for (n, container) in spec.init_containers.iter().flatten().enumerate() {
        ports(&format!("spec.initContainers[{n}]"), container)?;
    }
    let Some(old) = old.and_then(|old| old.spec.as_ref()) else { return Ok(()) };
    if old.host_network.unwrap_or_default() != spec.host_network.unwrap_or_default() {
        return Err(Problem::new("spec.hostNetwork", "cannot change; delete the pod and create another"));
    }
    let was = old.node_name.as_deref().filter(|node| !node.is_empty());
    if was.is_some_and(|was| spec.node_name.as_deref() != Some(was)) {
        let problem = format!("is {} and cannot change; delete the pod and create another", was.unwrap_or_default());
        return Err(Problem::new("spec.nodeName", problem));
    }
    Ok(())
}

fn ports(field: &str, container: &Container) -> Result<(), Problem> {
    let mut names = BTreeSet::new();
    for (n, port) in container.ports.iter().flatten().enumerate() {
        let field = format!("{field}.ports[{n}]");
        if !(1..=65535).contains(&port.container_port) {
            return Err(Problem::new(
                format!("{field}.containerPort"),
                format!("is {}; use 1 to 65535", port.container_port),
            ));
        }
        if let Some(protocol) = port.protocol.as_deref().filter(|p| !matches!(*p, "TCP" | "UDP" | "SCTP")) {
            let problem = format!("\"{protocol}\" is no protocol; use TCP, UDP or SCTP");
            return Err(Problem::new(format!("{field}.protocol"), problem));
        }
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            policy::port_name(&format!("{field}.name"), name)?;
            if !names.insert(name) {
                return Err(Problem::new(
                    format!("{field}.name"),
                    format!("\"{name}\" is another port's name; choose one more"),
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::Object;
    use crate::validate::admit;
    use serde_json::{Value, json};

    fn pod(spec: Value, old: Option<Value>) -> Result<Value, String> {
        let make = |spec| json!({"metadata": {"name": "p", "namespace": "a"}, "spec": spec});
        let mut object = make(spec);
        let old = old.map(make);
        admit(&crate::Pod::kind(), &mut object, old.as_ref()).map_err(|invalid| invalid.field)?;
        Ok(object["spec"].take())
    }

    fn ports(ports: Value) -> Result<Value, String> {
        let spec = json!({"containers": [{"name": "c", "ports": ports}]});
        Ok(pod(spec, None)?["containers"][0]["ports"].take())
    }

    #[test]
    fn ports_are_defaulted_and_checked() {
        assert_eq!(ports(json!([{"containerPort": 80}])).unwrap()[0]["protocol"], "TCP");
        assert!(ports(json!([{"containerPort": 0}])).unwrap_err().ends_with("ports[0].containerPort"));
        assert!(ports(json!([{"containerPort": 80, "name": "Http"}])).unwrap_err().ends_with("ports[0].name"));
        let twice = json!([{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}]);
        assert!(ports(twice).unwrap_err().ends_with("ports[1].name"));
        let host = json!({"hostNetwork": true, "containers": [{"name": "c", "ports": [{"containerPort": 80}]}]});
        assert_eq!(pod(host, None).unwrap()["containers"][0]["ports"][0]["hostPort"], 80);
    }

    #[test]
    fn a_pod_stays_on_its_node() {
        let on = |node: &str| json!({"nodeName": node, "containers": []});
        assert!(pod(on("n1"), Some(json!({"containers": []}))).is_ok());
        assert!(pod(on("n1"), Some(on("n1"))).is_ok());
        assert_eq!(pod(on("n2"), Some(on("n1"))), Err("spec.nodeName".into()));
        let host = json!({"nodeName": "n1", "hostNetwork": true, "containers": []});
        assert_eq!(pod(host, Some(on("n1"))), Err("spec.hostNetwork".into()));
    }
}
