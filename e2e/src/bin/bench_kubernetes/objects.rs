//! Objects as a cluster has them: pods of about 3 KiB as the API server keeps them, nodes with the images that a kubelet lists.

use serde_json::{Value, json};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use twill_crds::{Namespace, NetworkPolicy, Node, Pod};

/// Namespaces that the pods are spread over.
pub(crate) const NAMESPACES: usize = 20;

/// Differs from number to number, as hashes and tokens do, so that nothing is compressed that would not be.
fn token(number: usize, salt: &str) -> String {
    format!("{:016x}", BuildHasherDefault::<DefaultHasher>::default().hash_one((number, salt)))
}

pub(crate) fn namespace(number: usize) -> String {
    format!("team-{:02}", number % NAMESPACES)
}

pub(crate) fn node_name(number: usize) -> String {
    format!("worker-{number:04}")
}

pub(crate) fn a_namespace(number: usize) -> serde_json::Result<Namespace> {
    let name = namespace(number);
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"team": name, "stage": "production"}}}))
}

/// One lets in what its own team sends.
pub(crate) fn a_policy(number: usize) -> serde_json::Result<NetworkPolicy> {
    let from = json!([{"namespaceSelector": {"matchLabels": {"team": namespace(number)}}}]);
    let spec = json!({"podSelector": {}, "ingress": [{"from": from, "ports": [{"port": 8080}]}]});
    serde_json::from_value(json!({"metadata": {"namespace": namespace(number), "name": "own-team"}, "spec": spec}))
}

/// A node as its kubelet keeps it.
pub(crate) fn a_node(number: usize) -> serde_json::Result<Node> {
    let name = node_name(number);
    let images: Vec<Value> = (0..40)
        .map(|image| {
            let digest = [0, 1, 2, 3].map(|part| token(image, &part.to_string())).concat();
            let names = json!([
                format!("registry.example/shop/service-{image:02}@sha256:{digest}"),
                format!("registry.example/shop/service-{image:02}:v1.{image}.0")
            ]);
            json!({"names": names, "sizeBytes": 31_457_280 + image})
        })
        .collect();
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": format!("Kubelet{kind}"), "message": "as the kubelet says", "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let room =
        json!({"cpu": "16", "memory": "65536Mi", "pods": "110", "ephemeral-storage": "200Gi", "hugepages-2Mi": "0"});
    let address = format!("10.{}.{}.10", 128 + number / 250, number % 250);
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": format!("zone-{}", number % 3), "topology.kubernetes.io/region": "here"}},
        "spec": {"providerID": format!("metal://{}", token(number, "machine"))},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "capacity": room, "allocatable": room, "images": images,
            "conditions": [condition("MemoryPressure", "False"), condition("DiskPressure", "False"), condition("PIDPressure", "False"), condition("Ready", "True")],
            "nodeInfo": {"machineID": token(number, "id"), "systemUUID": token(number, "uuid"), "bootID": token(number, "boot"),
                "kernelVersion": "6.12.0", "osImage": "Debian GNU/Linux 13 (trixie)", "containerRuntimeVersion": "containerd://2.1.0",
                "kubeletVersion": "v1.34.0", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64"}},
    }))
}

fn container(number: usize, name: &str) -> Value {
    let env: Vec<Value> = (0..8)
        .map(|e| json!({"name": format!("{}_SETTING_{e}", name.to_uppercase()), "value": format!("{}-of-{name}", token(number % 200, &e.to_string()))}))
        .collect();
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "initialDelaySeconds": 3, "periodSeconds": 10});
    json!({
        "name": name, "image": format!("registry.example/shop/{name}:v1.{}.0", number % 40), "env": env,
        "ports": [{"name": "http", "containerPort": 8080}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "readinessProbe": probe, "livenessProbe": probe,
        "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}, {"name": "scratch", "mountPath": "/tmp"}],
    })
}

/// A pod that its scheduler has placed.
pub(crate) fn a_pod(number: usize, node: &str) -> serde_json::Result<Pod> {
    let app = format!("service-{:03}", number % 200);
    let template = token(number % 200, "template")[..10].to_owned();
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-{template}"), "uid": uuid(number % 200), "controller": true, "blockOwnerDeletion": true});
    serde_json::from_value(json!({
        "metadata": {
            "namespace": namespace(number), "name": format!("{app}-{template}-{number:05}"), "ownerReferences": [owner],
            "labels": {"app": app, "app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "shop", "pod-template-hash": template},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"}},
        "spec": {
            "nodeName": node, "containers": [container(number, "app"), container(number, "proxy")],
            "volumes": [{"name": "config", "configMap": {"name": app}}, {"name": "scratch", "emptyDir": {}}]},
    }))
}

fn uuid(number: usize) -> String {
    let [a, b] = ["a", "b"].map(|salt| token(number, salt));
    format!("{}-{}-4{}-8{}-{}", &a[..8], &a[8..12], &a[13..16], &b[..3], &b[4..16])
}

/// The pod with what its kubelet says once it runs.
pub(crate) fn running(mut pod: Pod, number: usize) -> serde_json::Result<Pod> {
    let address = format!("10.42.{}.{}", number / 250 % 250, number % 250 + 1);
    let state = |name: &str| {
        json!({"name": name, "image": format!("registry.example/shop/{name}:v1.{}.0", number % 40), "ready": true, "started": true, "restartCount": 0,
            "imageID": format!("registry.example/shop/{name}@sha256:{}", token(number % 40, "image")), "containerID": format!("containerd://{}{}", token(number, name), token(number, "id")),
            "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}}})
    };
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"});
    let kinds = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let conditions = kinds.map(condition);
    pod.status = Some(serde_json::from_value(json!({
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": "10.128.0.10", "startTime": "2026-01-01T00:00:00Z",
        "conditions": conditions,
        "containerStatuses": [state("app"), state("proxy")]}))?);
    Ok(pod)
}
