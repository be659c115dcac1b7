//! What `twill crds` prints, on a real API server:
//!
//! 1. it is taken without a warning, and every definition is established and structural;
//! 2. the API server decides every case of `crds/src/definitions/cases.yaml` as the table says, and stores what is accepted as
//!    the embedded datastore does, defaults included;
//! 3. `kubectl get` shows what an operator looks for, and `kubectl explain` has a word on every field.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::{Value, json};
use twill_control_plane::ApiServer;
use twill_crds::definitions::{self, cases, cases::Case};
use twill_crds::{known, names, validate};

/// An API server that has our definitions.
struct Cluster(ApiServer);

/// Whether it was done, standard output, standard error.
type Answer = (bool, String, String);

impl Cluster {
    fn start() -> Self {
        let cluster = Self(ApiServer::start().unwrap());
        let yaml = definitions::yaml().unwrap();
        let (done, _, err) = cluster.kubectl(&["apply", "--server-side", "-f", "-"], &yaml);
        // What an API server takes though it does not like it comes as a warning.
        assert_eq!((done, err.as_str()), (true, ""));
        cluster.succeeds(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"], "");
        cluster
    }

    fn kubectl(&self, args: &[&str], input: &str) -> Answer {
        let output = self.0.kubectl_with(&self.0.kubeconfig(), args, input).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    fn succeeds(&self, args: &[&str], input: &str) -> String {
        let (done, out, err) = self.kubectl(args, input);
        assert!(done, "kubectl {args:?}: {err}");
        out
    }

    /// The object as it would be stored, or the refusal.
    fn decide(&self, case: &Case) -> Result<Value, String> {
        let dry_run = ["-f", "-", "-o", "json", "--dry-run=server", "--validate=ignore"];
        let verb = if case.from.is_some() { "replace" } else { "create" };
        if let Some(stored) = case.stored() {
            self.succeeds(&["create", "-f", "-"], &stored.to_string());
        }
        let (done, out, err) = self.kubectl(&[&[verb], &dry_run[..]].concat(), &case.object().to_string());
        if let Some(stored) = case.stored() {
            self.succeeds(&["delete", "-f", "-"], &stored.to_string());
        }
        if done { Ok(serde_json::from_str(&out).unwrap()) } else { Err(err) }
    }
}

#[test]
#[ignore = "needs a Kubernetes API server"]
fn an_api_server_takes_every_definition() {
    let cluster = Cluster::start();
    let found: Value = serde_json::from_str(&cluster.succeeds(&["get", "crd", "-o", "json"], "")).unwrap();
    let found = found["items"].as_array().unwrap();
    assert_eq!(found.len(), definitions::all().len());
    for definition in found {
        let conditions = definition["status"]["conditions"].as_array().unwrap();
        let is = |kind: &str| conditions.iter().find(|c| c["type"] == kind).map(|c| c["status"] == "True");
        assert_eq!(
            (is("Established"), is("NamesAccepted"), is("NonStructuralSchema")),
            (Some(true), Some(true), None),
            "{}: {conditions:?}",
            definition["metadata"]["name"]
        );
    }
}

#[test]
#[ignore = "needs a Kubernetes API server"]
fn an_api_server_decides_every_case_as_the_table_says() {
    let cluster = Cluster::start();
    let mut wrong = Vec::new();
    for case in cases::all() {
        match (cluster.decide(&case), &case.refused) {
            (Ok(stored), None) => {
                let mut here = case.object();
                let kind = known::of(names::GROUP, &case.kind).unwrap();
                validate::admit(&kind, &mut here, case.stored().as_ref()).unwrap();
                assert_eq!(stored["spec"], here["spec"], "{}", case.case);
            }
            (Err(text), Some(field))
                if text.contains(field) && text.contains(case.says.as_deref().unwrap_or_default()) => {}
            (outcome, _) => wrong.push(format!("{}: {outcome:?}", case.case)),
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
#[ignore = "needs a Kubernetes API server"]
fn an_operator_sees_what_matters() {
    let cluster = Cluster::start();
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "twill.network/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        object("IPPool", "rack-1", json!({"cidr": "10.60.0.0/16", "encapsulation": {"protocol": "VXLAN"}})),
        object("IPBlock", "10-60-0-0-26", json!({"cidr": "10.60.0.0/26", "node": "n1"})),
        object("IPBlock", "10-60-0-64-26", json!({"cidr": "10.60.0.64/26", "node": "n2"})),
        object("IPReservation", "gateways", json!({"addresses": ["10.60.0.7"], "pod": {"namespace": "shop", "name": "db-0"}})),
        object("BGPConfiguration", "default", json!({})),
        object("BGPPeer", "tor", json!({"remote": {"address": "172.31.1.1"}, "asn": "external"})),
        object("NodeNetwork", "n1", json!({})),
        object("NamespaceIsolation", "tenants", json!({"namespaceSelector": {}})),
        object("HostPolicy", "nodes", json!({})),
    ]});
    cluster.succeeds(&["create", "-f", "-"], &list.to_string());
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "Fine", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let report = |kind: &str, name: &str, status: Value| {
        let patch = json!({"status": status}).to_string();
        cluster.succeeds(&["patch", kind, name, "--subresource=status", "--type=merge", "-p", &patch], "");
    };
    report(
        "pool",
        "rack-1",
        json!({"conditions": [condition("Ready")], "blocks": {"total": 1024, "claimed": 2}, "addresses": {"used": 7}}),
    );
    report("block", "10-60-0-64-26", json!({"used": 7}));
    report("ipres", "gateways", json!({"holder": {"node": "n1", "podUID": "u"}}));
    report("peer", "tor", json!({"nodes": 4, "established": 3}));
    let bgp = json!({"addresses": ["172.31.1.11"], "asn": 64512, "conditions": [condition("BGPReady")]});
    let felix = json!({"conditions": [condition("NetworkReady"), condition("PolicySynced")]});
    report("nodenet", "n1", json!({"bgp": bgp, "felix": felix}));

    // The last column is the age.
    let row = |args: &[&str]| -> Vec<String> {
        let out = cluster.succeeds(&[&["get", "--no-headers"], args].concat(), "");
        assert_eq!(out.lines().count(), 1, "{out}");
        let mut cells: Vec<String> = out.split_whitespace().map(str::to_owned).collect();
        cells.pop();
        cells
    };
    assert_eq!(row(&["pool"]), ["rack-1", "10.60.0.0/16", "VXLAN", "false", "false", "2", "7", "True"]);
    assert_eq!(row(&["block", "--field-selector=spec.node=n2"]), ["10-60-0-64-26", "10.60.0.64/26", "n2", "7"]);
    assert_eq!(row(&["ipres"]), ["gateways", r#"["10.60.0.7"]"#, "shop", "db-0", "n1"]);
    assert_eq!(row(&["bgpconfig"]), ["default", "64512", "Auto", "179"]);
    assert_eq!(row(&["peer"]), ["tor", "172.31.1.1", "external", "4", "3"]);
    assert_eq!(row(&["nodenet"]), ["n1", "172.31.1.11", "64512", "True", "True", "True"]);
    assert_eq!(row(&["nsiso"]), ["tenants", r#"["Ingress","Egress"]"#, r#"["SameNamespace","DNS"]"#]);
    assert_eq!(row(&["hostpol"]), ["nodes", "1000", r#"["Ingress"]"#, "[]", "SelfTest"]);
    let all = cluster.succeeds(&["get", "twill", "-o", "name"], "");
    assert_eq!(all.lines().count(), 9, "the category has every kind: {all}");

    for definition in definitions::all() {
        let kind = definition["spec"]["names"]["plural"].as_str().unwrap();
        let text = cluster.succeeds(&["explain", &format!("{kind}.spec")], "");
        assert!(
            text.contains("DESCRIPTION:") && !text.contains("<empty>") && !text.contains("<no description>"),
            "{text}"
        );
    }
}
