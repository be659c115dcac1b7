//! What a cluster costs an agent in memory: 100,000 pods, 10,000 policies, 1,000 namespaces by default, none of the pods here.
//!
//! `cargo run --release -p twill-felix --example memory_bench [PODS POLICIES NAMESPACES]`

use serde_json::{Value, json};
use std::time::Instant;
use twill_crds::Pod;
use twill_datastore::{Followed, Index, Revision};
use twill_felix::base::{Settings, skeleton};
use twill_felix::compile::Compiler;
use twill_felix::index::Event;
use twill_felix::model;

/// Pods of one ReplicaSet: the same labels.
const REPLICAS: u32 = 10;
/// Pods held as the API shows them, to compare with.
const SAMPLE: u32 = 2_000;

fn main() {
    let numbers: Vec<u32> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let of = |i: usize, default| numbers.get(i).copied().unwrap_or(default);
    let (pods, policies, namespaces) = (of(0, 100_000), of(1, 10_000), of(2, 1_000));
    println!("{pods} pods, {policies} policies, {namespaces} namespaces");
    println!("a pod as the API shows it: {} bytes of JSON", pod(1, namespaces).to_string().len());

    let begun = resident();
    let mut whole = Index::default();
    for i in 0..SAMPLE {
        let object: Pod = serde_json::from_value(pod(i, namespaces)).expect("the benchmark's own pod");
        whole.apply(Followed::Applied(object, Revision(1)));
    }
    println!("whole, {SAMPLE} of them: {} bytes of RSS per pod", (resident() - begun) / u64::from(SAMPLE));

    let begun = resident();
    let started = Instant::now();
    let mut compiler = Compiler::new(skeleton(&Settings::default()));
    for i in 0..namespaces {
        let object = json!({"metadata": {"name": format!("team-{i}"), "labels": {"tier": format!("t{}", i % 3)}}});
        let labels = model::namespace_labels(&serde_json::from_value(object).expect("the benchmark's own namespace"));
        compiler.apply(Event::NamespaceApplied { name: format!("team-{i}"), labels });
    }
    for i in 0..policies {
        let object = serde_json::from_value(policy(i, namespaces)).expect("the benchmark's own policy");
        compiler.apply(Event::PolicyApplied(model::network_policy(&object)));
    }
    let without = resident();
    for i in 0..pods {
        let object: Pod = serde_json::from_value(pod(i, namespaces)).expect("the benchmark's own pod");
        compiler.apply(Event::PodApplied(model::Pod::read(&object)));
    }
    compiler.commit();
    let with = resident();
    println!(
        "what felix keeps: {} bytes of RSS per pod, {} per policy; {:.2?} with the reading",
        (with - without) / u64::from(pods),
        (without - begun) / u64::from(policies),
        started.elapsed()
    );
    assert_eq!(compiler.pods().count(), pods as usize);
    drop(whole);
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// A pod as a Deployment makes it, with what the kubelet and admission add.
fn pod(i: u32, namespaces: u32) -> Value {
    let (set, namespace) = (i / REPLICAS, format!("team-{}", i / REPLICAS % namespaces));
    let address = std::net::Ipv4Addr::from_bits(0x0a00_0001 + i).to_string();
    let env: Vec<Value> =
        (0..12).map(|n| json!({"name": format!("SETTING_{n}"), "value": format!("value-{n}")})).collect();
    let field = json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}, "f:tier": {}}, "f:ownerReferences": {".": {}}},
        "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:env": {}, "f:image": {}, "f:name": {}, "f:ports": {}}}}});
    let container = |name: &str| {
        json!({"name": name, "image": "registry.example/team/app:1.2.3", "env": env,
            "ports": [{"name": name, "containerPort": 8080, "protocol": "TCP"}],
            "resources": {"limits": {"cpu": "1", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10},
            "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
            "terminationMessagePath": "/dev/termination-log", "imagePullPolicy": "IfNotPresent"})
    };
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("app{set}-5d8f7c9b4-{i:05}"), "namespace": namespace, "uid": format!("{i:08}-2222-3333-4444-555555555555"),
            "resourceVersion": i.to_string(), "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": format!("app{set}"), "tier": "web", "pod-template-hash": "5d8f7c9b4", "team": namespace},
            "annotations": {"checksum/config": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("app{set}-5d8f7c9b4"), "uid": "u", "controller": true}],
            "managedFields": [{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "fieldsV1": field},
                {"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "subresource": "status", "fieldsV1": field}]},
        "spec": {"nodeName": format!("node-{}", i % 1000), "containers": [container("web"), container("proxy")],
            "volumes": [{"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            "serviceAccountName": "default", "schedulerName": "default-scheduler", "dnsPolicy": "ClusterFirst"},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": "10.200.0.1",
            "conditions": [condition("Initialized"), condition("Ready"), condition("ContainersReady"), condition("PodScheduled")],
            "containerStatuses": [{"name": "web", "ready": true, "restartCount": 0, "image": "registry.example/team/app:1.2.3",
                "imageID": "registry.example/team/app@sha256:0123456789abcdef", "containerID": "containerd://0123456789abcdef"}]}})
}

fn policy(i: u32, namespaces: u32) -> Value {
    json!({"metadata": {"namespace": format!("team-{}", i % namespaces), "name": format!("policy{i}")},
        "spec": {"podSelector": {"matchLabels": {"app": format!("app{i}")}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"tier": "web"}}}], "ports": [{"port": 8080}]}]}})
}
