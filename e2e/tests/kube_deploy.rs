//! What is deployed, held against a real API server.
//!
//! 1. The chart is sound, and deploy/twill.yaml is what it says with its default values.
//! 2. The API server takes every object of the manifest as it is, and the chart with other values.
//! 3. A node writes only what is its own, whatever its account may do by RBAC.
//! 4. Each account may do what its code does, and not more.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use twill_control_plane::{ApiServer, asset};
use twill_e2e::{failed, repository, succeeded};

const NAMESPACE: &str = "twill-system";

fn chart() -> String {
    repository().join("deploy/helm/twill").display().to_string()
}

/// helm beside the programs of the control plane, or on the PATH.
fn helm_program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        asset("helm").ok().or_else(|| std::env::split_paths(&path).map(|at| at.join("helm")).find(|at| at.is_file()));
    found.expect(
        "helm 3 is neither in KUBEBUILDER_ASSETS (/usr/local/kubebuilder/bin) nor on the PATH; put it into one of them",
    )
}

fn helm(arguments: &[&str]) -> Output {
    Command::new(helm_program()).args(arguments).output().unwrap()
}

fn rendered(more: &[&str]) -> String {
    let chart = chart();
    let all = ["template", "twill", &chart, "--namespace", NAMESPACE, "--kube-version", "1.30.0", "--include-crds"];
    succeeded(helm(&[&all, more].concat())).unwrap()
}

fn manifest() -> String {
    fs::read_to_string(repository().join("deploy/twill.yaml")).unwrap()
}

/// A server on which the manifest was applied.
fn deployed() -> ApiServer {
    let server = ApiServer::start().unwrap();
    server.apply(&manifest()).unwrap();
    let crds = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
    succeeded(server.kubectl(&crds).unwrap()).unwrap();
    server
}

#[test]
#[ignore = "needs helm and a Kubernetes API server: make test-kubernetes"]
fn the_chart_is_sound_and_the_manifest_is_what_it_says() {
    succeeded(helm(&["lint", "--strict", &chart()])).unwrap();
    let output =
        Command::new(repository().join("scripts/manifest")).arg(chart()).env("HELM", helm_program()).output().unwrap();
    assert!(
        succeeded(output).unwrap() == manifest(),
        "deploy/twill.yaml is not what the chart says; make manifest writes it"
    );
}

#[test]
#[ignore = "needs a Kubernetes API server: make test-kubernetes"]
fn the_api_server_takes_every_object_and_a_second_time_changes_nothing() {
    let server = deployed();
    let again = server.kubectl_with(&server.kubeconfig(), &["diff", "--server-side", "-f", "-"], &manifest()).unwrap();
    assert!(again.status.success(), "the second time changes nothing: {}", String::from_utf8_lossy(&again.stdout));
}

#[test]
#[ignore = "needs helm and a Kubernetes API server: make test-kubernetes"]
fn the_api_server_takes_the_chart_with_other_values_too() {
    let server = deployed();
    for values in [
        "image.digest=sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "log.format=json,log.level=twill_felix=debug\\,info",
        "apiServer.host=192.0.2.1,apiServer.port=8443",
        "node.maxUnavailable=10%,controller.replicas=1,nodeRestriction=false",
        "node.annotations.a=b,node.nodeSelector.c=d,controller.annotations.e=f",
        "uninstall=true",
        "node.bgpd.metrics=[::]:9179",
        "imagePullSecrets[0]=registry",
        "ipPools[0].name=pods,ipPools[0].spec.cidr=10.244.0.0/16",
    ] {
        let text = rendered(&["--set", values]);
        let dry = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
        let output = server.kubectl_with(&server.kubeconfig(), &dry, &text).unwrap();
        succeeded(output).unwrap_or_else(|error| panic!("{values}: {error:#}"));
    }
}

#[test]
#[ignore = "needs helm and a Kubernetes API server: make test-kubernetes"]
fn values_that_mean_nothing_are_refused() {
    for values in [
        "node.maxUnavailable=0",
        "image.digest=latest",
        "log.format=xml",
        "nodeRestrictions=true",
        "paths.run=run",
        "node.bgpd.metrics=9179",
    ] {
        let chart = chart();
        let error = failed(helm(&["template", "twill", &chart, "--kube-version", "1.30.0", "--set", values])).unwrap();
        assert!(error.contains("schema"), "{values}: {error}");
    }
}

fn network(node: &str) -> String {
    format!("apiVersion: twill.network/v1\nkind: NodeNetwork\nmetadata: {{name: {node}}}\nspec: {{}}\n")
}

fn block(name: &str, cidr: &str, node: &str) -> String {
    format!(
        "apiVersion: twill.network/v1\nkind: IPBlock\nmetadata: {{name: {name}}}\nspec: {{cidr: {cidr}, node: {node}}}\n"
    )
}

/// A token of the nodes' account, bound to a pod on a node if one is named.
fn token(server: &ApiServer, node: Option<&str>) -> String {
    let mut arguments = vec!["--namespace", NAMESPACE, "create", "token", "twill-node"];
    let pod = node.map(|node| format!("twill-node-{node}"));
    if let (Some(pod), Some(node)) = (&pod, node) {
        server
            .apply(&format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\n---\napiVersion: v1\nkind: Pod\n\
                 metadata: {{name: {pod}, namespace: {NAMESPACE}}}\nspec: {{nodeName: {node}, \
                 serviceAccountName: twill-node, containers: [{{name: c, image: i}}]}}\n"
            ))
            .unwrap();
        arguments.extend(["--bound-object-kind=Pod", "--bound-object-name", pod]);
    }
    succeeded(server.kubectl(&arguments).unwrap()).unwrap().trim().to_owned()
}

/// A kubeconfig with the server's address and nobody's credentials beside a token.
fn kubeconfig(server: &ApiServer, token: &str) -> PathBuf {
    let text = fs::read_to_string(server.kubeconfig()).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["users"][0]["user"] = serde_json::json!({"token": token});
    let path = server
        .directory()
        .join(format!("token-{}.kubeconfig", token.len() + usize::from(token.as_bytes()[token.len() - 1])));
    fs::write(&path, config.to_string()).unwrap();
    path
}

#[test]
#[ignore = "needs a Kubernetes API server: make test-kubernetes"]
fn a_node_writes_only_what_is_its_own() {
    let server = deployed();
    let (n1, unbound) = (token(&server, Some("n1")), token(&server, None));
    let (n1, unbound) = (kubeconfig(&server, &n1), kubeconfig(&server, &unbound));
    let create = |who: &PathBuf, text: &str| server.kubectl_with(who, &["create", "-f", "-"], text).unwrap();
    // The policy takes a moment to be in force.
    let in_force = twill_e2e::within(std::time::Duration::from_secs(30), "the policy is in force", || {
        let dry = ["create", "--dry-run=server", "-f", "-"];
        !server.kubectl_with(&n1, &dry, &network("n2")).unwrap().status.success()
    });
    in_force.unwrap();
    succeeded(create(&n1, &network("n1"))).unwrap();
    succeeded(create(&n1, &block("10-42-0-0-26", "10.42.0.0/26", "n1"))).unwrap();
    server.apply(&[network("n2"), block("10-42-0-64-26", "10.42.0.64/26", "n2")].join("---\n")).unwrap();
    let others = "node n1 may not write what belongs to node n2";
    for (output, why) in [
        (create(&n1, &network("n2")), others),
        (create(&n1, &block("10-42-0-128-26", "10.42.0.128/26", "n2")), others),
        (server.kubectl_with(&n1, &["delete", "ipblock", "10-42-0-64-26"], "").unwrap(), others),
        (server.kubectl_with(&n1, &["delete", "nodenetwork", "n2"], "").unwrap(), others),
        (create(&unbound, &network("n3")), "names no node"),
    ] {
        let error = failed(output).unwrap();
        assert!(error.contains(why), "{error}");
    }
    let read = |name: &str| {
        let output = server.kubectl(&["get", "nodenetwork", name, "-o", "json"]).unwrap();
        serde_json::from_str::<serde_json::Value>(&succeeded(output).unwrap()).unwrap()
    };
    let replace = |name: &str| {
        let mut object = read(name);
        object["status"] = serde_json::json!({});
        server.kubectl_with(&n1, &["replace", "--subresource=status", "-f", "-"], &object.to_string()).unwrap()
    };
    succeeded(replace("n1")).unwrap();
    assert!(failed(replace("n2")).unwrap().contains(others), "status is guarded, too");
    succeeded(server.kubectl_with(&n1, &["delete", "ipblock", "10-42-0-0-26"], "").unwrap()).unwrap();
    succeeded(server.kubectl_with(&n1, &["delete", "nodenetwork", "n1"], "").unwrap()).unwrap();
}

#[test]
#[ignore = "needs a Kubernetes API server: make test-kubernetes"]
fn each_account_may_do_what_its_code_does_and_not_more() {
    let server = deployed();
    let optional = repository().join("e2e/tests/support/cluster_network_policies.yaml");
    server.apply(&fs::read_to_string(optional).unwrap()).unwrap();
    succeeded(server.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]).unwrap())
        .unwrap();
    let may = |account: &str, verb: &str, what: &str| {
        let who = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
        let (what, part) = what.split_once('/').unwrap_or((what, ""));
        let part = format!("--subresource={part}");
        server.kubectl(&["auth", "can-i", verb, what, &part, &who, "--all-namespaces"]).unwrap().status.success()
    };
    for what in [
        "nodes",
        "pods",
        "namespaces",
        "networkpolicies",
        "clusternetworkpolicies.policy.networking.k8s.io",
        "namespaceisolations",
        "hostpolicies",
        "ippools",
        "ipblocks",
        "ipreservations",
        "bgppeers",
        "bgpfilters",
        "bgpconfigurations",
    ] {
        assert!(may("twill-node", "list", what) && may("twill-node", "watch", what), "{what}");
    }
    for (account, verb, what) in [
        ("twill-node", "get", "pods"),
        ("twill-node", "get", "namespaces"),
        ("twill-node", "get", "nodes"),
        ("twill-node", "create", "ipblocks"),
        ("twill-node", "delete", "ipblocks"),
        ("twill-node", "create", "events.events.k8s.io"),
        ("twill-node", "update", "nodenetworks.twill.network/status"),
        ("twill-node", "update", "ipreservations.twill.network/status"),
        ("twill-controller", "delete", "ipblocks"),
        ("twill-controller", "delete", "nodenetworks"),
        ("twill-controller", "list", "pods"),
        ("twill-controller", "update", "ippools.twill.network/status"),
        ("twill-controller", "update", "bgppeers.twill.network/status"),
        ("twill-controller", "watch", "ipreservations"),
        ("twill-controller", "update", "ipreservations.twill.network/status"),
        ("twill-controller", "watch", "bgpfilters"),
        ("twill-controller", "update", "bgpfilters.twill.network/status"),
        ("twill-controller", "update", "bgpconfigurations.twill.network/status"),
        ("twill-controller", "update", "namespaceisolations.twill.network/status"),
        ("twill-controller", "update", "clusternetworkpolicies.policy.networking.k8s.io/status"),
    ] {
        assert!(may(account, verb, what), "{account} {verb} {what}");
    }
    for account in ["twill-node", "twill-controller"] {
        for (verb, what) in [
            ("get", "secrets"),
            ("list", "secrets"),
            ("get", "configmaps"),
            ("update", "pods"),
            ("create", "pods"),
            ("update", "nodes"),
            ("patch", "nodes"),
            ("update", "ippools"),
            ("create", "bgppeers"),
            ("update", "bgpconfigurations"),
            ("update", "namespaceisolations"),
            ("update", "clusternetworkpolicies.policy.networking.k8s.io"),
            ("update", "networkpolicies"),
            ("update", "ipblocks"),
            ("update", "nodes/status"),
            ("create", "pods/exec"),
            ("create", "serviceaccounts/token"),
            ("deletecollection", "ipblocks"),
            ("create", "clusterrolebindings"),
            ("impersonate", "users"),
        ] {
            assert!(!may(account, verb, what), "{account} may {verb} {what}");
        }
    }
    assert!(!may("twill-node", "get", "leases") && !may("twill-controller", "create", "ipblocks"));
    // It leads by one Lease, and has no copy of all pods.
    assert!(!may("twill-controller", "get", "leases") && !may("twill-controller", "watch", "pods"));
}
