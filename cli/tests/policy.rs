//! `twill policy test` and `twill policy diff`, by the executable.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const SHOP: &str = "
apiVersion: v1
kind: Pod
metadata: {name: front, namespace: shop, labels: {app: front}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-0, namespace: shop, labels: {app: cart}}
spec: {nodeName: n1, containers: [{name: c, ports: [{name: web, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop, labels: {app: cart}}
spec: {nodeName: n2, containers: [{name: c, ports: [{name: web, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
";

const CART: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: cart, namespace: shop}
spec:
  podSelector: {matchLabels: {app: cart}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: front}}}]
    ports: [{port: web}]
";

const TEST: &str = "
apiVersion: twill.network/v1
kind: PolicyTest
cases:
- name: the front reaches every cart
  from: shop/front
  to: {namespace: shop, labels: {app: cart}}
  expect: Allow
- name: carts do not reach each other
  from: {labels: {app: cart}}
  to: {labels: {app: cart}}
  ports: [8080, 53/UDP, icmp]
  expect: Deny
- from: 203.0.113.1
  to: shop/cart-0
  port: 8080
  protocol: TCP
  expect: Deny
";

/// Exit code, standard output, standard error.
fn run(directory: &Path, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_twill"))
        .args(args)
        .env("TWILL_DATASTORE", format!("sqlite:{}/t.db", directory.display()))
        .current_dir(directory)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn files() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [("shop.yaml", SHOP), ("cart.yaml", CART), ("test.yaml", TEST)] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

#[test]
fn assertions_hold_without_a_cluster_and_a_datastore_is_not_looked_for() {
    let directory = files();
    let (code, out, err) = run(directory.path(), &["policy", "test", "shop.yaml", "cart.yaml", "test.yaml"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "9 assertions of 3 cases: all hold\n", ""));
    let (code, out, _) = run(directory.path(), &["policy", "test", ".", "-o", "json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["assertions"], &told["failed"]), (0, &9.into(), &0.into()));
    assert_eq!((&told["cases"][1]["line"], &told["cases"][1]["assertions"]), (&9.into(), &6.into()));
}

#[test]
fn an_assertion_that_does_not_hold_is_explained_with_its_line_and_exits_2() {
    let directory = files();
    let (code, out, _) = run(directory.path(), &["policy", "test", "shop.yaml", "test.yaml"]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("FAILED test.yaml:9: carts do not reach each other: expected Deny\nshop/cart-0 ("), "{out}");
    assert!(out.ends_with("9 assertions of 3 cases: 7 failed\n"), "{out}");
    std::fs::write(directory.path().join("cart.yaml"), CART.replace("app: front", "app: back")).unwrap();
    let (code, out, _) = run(directory.path(), &["policy", "test", "shop.yaml", "test.yaml", "cart.yaml"]);
    assert_eq!(code, 2, "{out}");
    let fix = "fix: add {podSelector: {matchLabels: {app: front}}} to NetworkPolicy shop/cart ingress[0].from";
    assert_eq!(out.matches(fix).count(), 2, "{out}");
    let (_, out, _) = run(directory.path(), &["policy", "test", "shop.yaml", "test.yaml", "cart.yaml", "-o", "yaml"]);
    let told: Value = serde_saphyr::from_str(&out).unwrap();
    assert_eq!(told["cases"][0]["failed"][0]["ingress"]["allowed"], false);
}

#[test]
fn a_case_about_nobody_and_what_is_misspelt_are_errors_with_file_and_line() {
    let directory = files();
    let wrong = [
        (
            "{labels: {app: cart}}\n  to",
            "{labels: {app: card}}\n  to",
            "test.yaml:10: cases[1].from: no running pod with app=card",
        ),
        ("shop/cart-0", "shop/cart-9", "test.yaml:15: cases[2].to: there is no pod shop/cart-9"),
        (
            "from: 203.0.113.1",
            "from: [1]",
            "test.yaml:14: cases[2].from: must be NAMESPACE/POD, a node's name, an address",
        ),
        ("53/UDP", "99999", "test.yaml:12: cases[1].ports: \"99999\" is no port"),
        ("port: 8080", "prot: 8080", "test.yaml:16: cases[2].prot: is no field here"),
        ("expect: Allow", "expect: Yes", "test.yaml:8: cases[0].expect: "),
        ("network/v1", "network/v2", "test.yaml:2: apiVersion: is twill.network/v2; use twill.network/v1"),
        (
            "to: shop/cart-0\n  port: 8080\n  protocol: TCP",
            "to: shop/cart-0\n  protocol: TCP",
            "test.yaml:16: cases[2].protocol: \"TCP\" needs a port",
        ),
    ];
    for (old, new, sentence) in wrong {
        assert!(TEST.contains(old), "{old}");
        std::fs::write(directory.path().join("test.yaml"), TEST.replacen(old, new, 1)).unwrap();
        let (code, out, err) = run(directory.path(), &["policy", "test", "shop.yaml", "cart.yaml", "test.yaml"]);
        assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{err}");
        assert!(err.starts_with(&format!("twill: {sentence}")), "{err}");
    }
    let (code, _, err) = run(directory.path(), &["policy", "test", "shop.yaml"]);
    assert!(code == 1 && err.contains("the files hold no PolicyTest"), "{err}");
    assert_eq!(run(directory.path(), &["policy", "test"]).0, 3);
}

/// A pod that has run to its end cannot be reached, which is no policy's doing.
#[test]
fn nothing_is_asserted_of_a_connection_that_cannot_be() {
    let directory = files();
    let shop = SHOP.replacen("[{containerPort: 80}]}]}", "[{containerPort: 80}]}]}\nstatus: {phase: Succeeded}", 1);
    std::fs::write(directory.path().join("shop.yaml"), shop).unwrap();
    let test = "apiVersion: twill.network/v1\nkind: PolicyTest\ncases:\n- {from: shop/front, to: shop/cart-0, port: 1, expect: Deny}\n";
    std::fs::write(directory.path().join("test.yaml"), test).unwrap();
    let (code, out, _) = run(directory.path(), &["policy", "test", "shop.yaml", "cart.yaml", "test.yaml"]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("impossible: shop/front has run to its end"), "{out}");
}

/// The shop in a datastore, its pods with addresses.
fn stored(directory: &Path) {
    assert_eq!(run(directory, &["apply", "-f", "shop.yaml"]).0, 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = twill_datastore::Datastore::open(&format!("sqlite:{}/t.db", directory.display())).await.unwrap();
        for (pod, ip) in [("front", "10.42.0.1"), ("cart-0", "10.42.0.2"), ("cart-1", "10.42.0.3")] {
            let key = twill_datastore::Key::namespaced("shop", pod);
            let mut object: twill_crds::Pod = store.get(&key).await.unwrap().unwrap();
            let status = serde_json::json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]});
            object.status = Some(serde_json::from_value(status).unwrap());
            store.update_status(&object).await.unwrap();
        }
    });
}

#[test]
fn a_diff_tells_what_closes_and_a_deletion_what_opens() {
    let directory = files();
    stored(directory.path());
    let (code, out, err) = run(directory.path(), &["policy", "diff", "cart.yaml"]);
    assert_eq!((code, err.as_str()), (2, ""), "{out}");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = out.lines().map(words).collect();
    assert_eq!(
        lines[2],
        "closes shop/front shop/cart-0, shop/cart-1 [app=cart] 1-8079/TCP, 8081-65535/TCP, all UDP, all SCTP, protocols without ports 2"
    );
    assert_eq!(
        lines[1],
        "closes shop/cart-0, shop/cart-1 [app=cart] shop/cart-0, shop/cart-1 [app=cart] all 8080/TCP 2"
    );
    assert!(out.ends_with("0 pairs open, 6 pairs close, in whole or in part\n"), "{out}");
    assert_eq!(run(directory.path(), &["apply", "-f", "cart.yaml"]).0, 0);
    let (code, out, _) = run(directory.path(), &["policy", "diff", "cart.yaml"]);
    assert_eq!((code, out.as_str()), (0, "nothing opens or closes\n"));
    let (code, out, _) =
        run(directory.path(), &["policy", "diff", "--delete", "networkpolicy/shop/cart", "-o", "json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, told.as_array().unwrap().len()), (2, 3));
    assert_eq!((&told[0]["change"], &told[0]["to"]["pods"][1]), (&"Opens".into(), &"shop/cart-1".into()));
    assert_eq!(told[0]["declaredPorts"][0], "8080/TCP");
}

#[test]
fn a_diff_needs_policies_and_names_what_is_not_there() {
    let directory = files();
    stored(directory.path());
    assert_eq!(run(directory.path(), &["policy", "diff"]).0, 3);
    for (word, sentence) in [
        ("networkpolicy/shop/none", "there is no NetworkPolicy shop/none"),
        ("pod/shop/front", "Pod is no kind of policy"),
        ("cart", "write KIND/NAME"),
    ] {
        let (code, _, err) = run(directory.path(), &["policy", "diff", "--delete", word]);
        assert!(code == 1 && err.contains(sentence), "{err}");
    }
    let (code, _, err) = run(directory.path(), &["policy", "diff", "cart.yaml", "--connections", "--run-dir", "none"]);
    assert!(code == 1 && err.contains("no daemon answers at none/felix.sock"), "{err}");
    let (code, _, err) = run(directory.path(), &["policy", "diff", "shop.yaml"]);
    assert_eq!(
        (code, err.as_str()),
        (0, "warning: 4 objects in the files passed over: neither a policy nor a namespace\n")
    );
}

#[test]
fn a_diff_counts_isolations_of_namespaces_and_their_labels() {
    let directory = files();
    stored(directory.path());
    let isolation = "
apiVersion: twill.network/v1
kind: NamespaceIsolation
metadata: {name: closed}
spec: {namespaceSelector: {matchLabels: {closed: 'yes'}}, allow: [SameNamespace]}
";
    let shop = "---\n{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {closed: 'yes'}}}\n";
    std::fs::write(directory.path().join("closed.yaml"), isolation).unwrap();
    let diff = |text: String| {
        std::fs::write(directory.path().join("closed.yaml"), text).unwrap();
        run(directory.path(), &["policy", "diff", "closed.yaml"])
    };
    assert_eq!(diff(isolation.to_owned()), (0, "nothing opens or closes\n".into(), String::new()));
    let (code, out, err) = diff(format!("{isolation}{shop}"));
    assert!(code == 2 && err.is_empty() && out.contains("closes"), "{out}{err}");
}

#[test]
fn a_datastores_objects_are_the_base_of_a_test_and_those_of_files_replace_them() {
    let directory = files();
    stored(directory.path());
    assert_eq!(run(directory.path(), &["apply", "-f", "cart.yaml"]).0, 0);
    let url = format!("sqlite:{}/t.db", directory.path().display());
    let (code, out, err) = run(directory.path(), &["policy", "test", "test.yaml", "--datastore", &url]);
    assert_eq!(code, 0, "{out}{err}");
    std::fs::write(directory.path().join("cart.yaml"), CART.replace("app: front", "app: back")).unwrap();
    let (code, out, _) = run(directory.path(), &["policy", "test", "test.yaml", "cart.yaml", "--datastore", &url]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("shop/front (10.42.0.1) -> shop/cart-0 (10.42.0.2) 8080/TCP: denied"), "{out}");
}

#[test]
fn host_policies_count_in_tests_and_in_what_a_diff_tells() {
    let directory = files();
    let edge = "
apiVersion: twill.network/v1
kind: HostPolicy
metadata: {name: edge}
spec:
  interfaces: [eth0]
  directions: [Ingress, Forwarded]
  ingress: [{from: [{cidrs: [203.0.113.0/24]}], ports: [{port: 443}, {port: 30080}]}]
";
    let cases = "
apiVersion: twill.network/v1
kind: PolicyTest
cases:
- {name: the web, from: 203.0.113.1, to: 192.0.2.1, ports: [443, 22], interface: eth0, expect: Allow}
- {name: others, from: 198.51.100.1, to: 192.0.2.1, port: 443, interface: eth0, expect: Deny}
- {name: inside, from: 198.51.100.1, to: 192.0.2.1, port: 443, interface: eth1, expect: Allow}
- {name: a NodePort, from: 203.0.113.1, to: shop/cart-1, port: 8080, interface: eth0, through: 'n1:30080', expect: Allow}
- {name: another, from: 203.0.113.1, to: shop/cart-1, port: 8080, interface: eth0, through: 'n1:30081', expect: Deny}
";
    let node = "
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
";
    for (name, text) in [("edge.yaml", edge), ("cases.yaml", cases), ("node.yaml", node)] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let files = ["policy", "test", "shop.yaml", "node.yaml", "edge.yaml", "cases.yaml"];
    let (code, out, err) = run(directory.path(), &files);
    let assumed = "2 assertions may depend on what nodes need, which only they know: taken for what nodes usually need; --host-state FILE tells what one said\n";
    assert_eq!((code, out), (0, format!("{assumed}6 assertions of 5 cases: all hold\n")), "{err}");
    let vague = cases.replace("port: 443, interface: eth0,", "port: 443,");
    std::fs::write(directory.path().join("cases.yaml"), vague).unwrap();
    let (code, out, _) = run(directory.path(), &files);
    assert!(code == 2 && out.contains("443/TCP: depends on the interface"), "{out}");

    stored(directory.path());
    let (code, out, err) = run(directory.path(), &["policy", "diff", "edge.yaml"]);
    assert!(code == 2 && err.is_empty(), "{out}{err}");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = out.lines().map(words).collect();
    let told = "closes n1 Forwarded outside in 203.0.113.0/24 1-442/TCP, 444-30079/TCP, 30081-65535/TCP, all UDP, all SCTP, ICMP and 2 more eth0 +edge";
    assert!(lines.contains(&told.to_owned()), "{out}");
    let needs = "what nodes need is taken for what they usually do; --host-state FILE takes what `twill policy host -o json` says on one\n";
    let cuts =
        "nodes judge new connections so once the change is confirmed; no HostPolicy cuts a connection that is open\n";
    assert!(out.ends_with(&format!("{needs}{cuts}")), "{out}");
    assert_eq!(run(directory.path(), &["apply", "-f", "edge.yaml"]).0, 0);
    assert_eq!(run(directory.path(), &["policy", "diff", "edge.yaml"]).1, "nothing opens or closes\n");
    let (code, out, _) = run(directory.path(), &["policy", "diff", "--delete", "hostpolicy/edge", "-o", "json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 2 && told.as_array().unwrap().iter().all(|one| one["change"] == "Opens"), "{out}");
    assert_eq!((&told[0]["nodes"][0], &told[0]["interfaces"][0]), (&"n1".into(), &"eth0".into()));
    let by = serde_json::json!([{"name": "edge", "change": "Removed"}]);
    assert_eq!((&told[0]["nodeCount"], &told[0]["hostPolicies"]), (&1.into(), &by));
    assert_eq!(told[0]["openConnections"], "Kept");
}

const EDGE: &str = "
apiVersion: twill.network/v1
kind: HostPolicy
metadata: {name: edge}
spec: {ingress: [{from: [{nodes: {}}], ports: [{port: 9100}]}]}
";

/// What a node says that serves SSH at another port and enforces the policy.
fn says(directory: &Path) {
    let edge: Value = serde_saphyr::from_str(EDGE).unwrap();
    let ssh = serde_json::json!({"direction": "ingress", "protocol": 6, "ports": [2222, 2222], "peers": "any", "reason": "SSH is served here"});
    let state =
        serde_json::json!({"node": "n1", "confirmed": ["edge"], "confirmedPolicies": [edge], "failsafes": [ssh]});
    std::fs::write(directory.join("n1.json"), state.to_string()).unwrap();
}

#[test]
fn nodes_are_named_in_tests_and_their_own_word_counts() {
    let directory = files();
    let cases = "
apiVersion: twill.network/v1
kind: PolicyTest
cases:
- {name: metrics, from: {nodeLabels: {role: monitor}}, to: n1, port: 9100, expect: Allow}
- {name: not from pods, from: shop/cart-1, to: n1, port: 9100, expect: Deny}
- {name: SSH, from: 203.0.113.1, to: n1, port: 2222, expect: Allow}
- {name: no other SSH, from: 203.0.113.1, to: n1, port: 22, expect: Deny}
- {name: a node reaches others, from: n1, to: {nodeLabels: {role: monitor}}, port: 1, expect: Deny}
";
    let nodes = "
apiVersion: v1
kind: Node
metadata: {name: n2, labels: {role: monitor}}
";
    for (name, text) in [("edge.yaml", EDGE), ("cases.yaml", cases), ("nodes.yaml", nodes)] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    says(directory.path());
    let files = ["policy", "test", "shop.yaml", "nodes.yaml", "edge.yaml", "cases.yaml"];
    let (code, out, err) = run(directory.path(), &[&files[..], &["--host-state", "n1.json"]].concat());
    assert!(code == 0 && out.contains("1 assertion may depend on what nodes need"), "{out}{err}");
    let (code, out, _) = run(directory.path(), &files);
    assert!(code == 2 && out.ends_with("5 assertions of 5 cases: 2 failed\n"), "{out}");
    assert!(out.contains("FAILED cases.yaml:8: no other SSH: expected Deny"), "{out}");
    for (old, new, sentence) in [
        ("to: n1, port: 22,", "to: n3, port: 22,", "cases[3].to: there is no node n3; a pod is written NAMESPACE/POD"),
        (
            "from: {nodeLabels: {role: monitor}}",
            "from: {nodeLabels: {role: x}}",
            "cases[0].from: no node with role=x is there",
        ),
    ] {
        assert!(cases.contains(old), "{old}");
        std::fs::write(directory.path().join("cases.yaml"), cases.replace(old, new)).unwrap();
        let (code, _, err) = run(directory.path(), &files);
        assert!(code == 1 && err.contains(sentence), "{err}");
    }
}

#[test]
fn a_node_is_explained_by_its_name_and_by_its_own_word() {
    let directory = files();
    std::fs::write(directory.path().join("edge.yaml"), EDGE).unwrap();
    says(directory.path());
    stored(directory.path());
    assert_eq!(run(directory.path(), &["apply", "-f", "edge.yaml"]).0, 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let url = format!("sqlite:{}/t.db", directory.path().display());
        let store = twill_datastore::Datastore::open(&url).await.unwrap();
        let mut node: twill_crds::Node = store.get(&twill_datastore::Key::cluster("n1")).await.unwrap().unwrap();
        let addresses = serde_json::json!([{"type": "InternalIP", "address": "192.0.2.1"}]);
        node.status.get_or_insert_default().addresses = serde_json::from_value(addresses).unwrap();
        store.update_status(&node).await.unwrap();
    });
    let explain =
        |more: &[&str]| run(directory.path(), &[&["explain", "203.0.113.1", "--run-dir", "none"], more].concat());
    let (code, out, _) = explain(&["n1:22"]);
    assert!(code == 0 && out.contains("node n1 was not asked what it needs"), "{out}");
    let (code, out, err) = explain(&["n1:22", "--host-state", "n1.json"]);
    assert!(code == 2 && !out.contains("was not asked") && out.contains("isolated by HostPolicy edge"), "{out}{err}");
    let (code, out, _) = explain(&["192.0.2.1:2222", "--host-state", "n1.json", "-o", "json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    let need = serde_json::json!({"node": "n1", "reason": "SSH is served here", "assumed": false});
    assert_eq!((code, &told[0]["ingress"]["failsafe"], &told[0]["notes"]), (0, &need, &Value::Null), "{out}");
    let (code, _, err) = explain(&["n7:22"]);
    assert!(code == 1 && err.contains("there is no node n7"), "{err}");
    let (code, _, err) = explain(&["n1:22", "--host-state", "edge.yaml"]);
    assert!(code == 1 && err.contains("edge.yaml is no answer of `twill policy host -o json`"), "{err}");
}

#[test]
fn a_node_port_is_followed_to_what_its_service_selects() {
    let directory = files();
    let more = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {type: NodePort, selector: {app: cart}, ports: [{port: 80, targetPort: web, nodePort: 30080}]}
---
apiVersion: twill.network/v1
kind: PolicyTest
cases:
- {from: 203.0.113.1, to: n1, port: 30080, expect: Deny}
- {from: 203.0.113.1, to: n1, port: 30081, expect: Allow}
";
    std::fs::write(directory.path().join("more.yaml"), more).unwrap();
    let (code, out, err) = run(directory.path(), &["policy", "test", "shop.yaml", "cart.yaml", "more.yaml"]);
    assert_eq!((code, out.as_str()), (0, "2 assertions of 2 cases: all hold\n"), "{err}");
    let (code, out, _) = run(directory.path(), &["policy", "test", "shop.yaml", "more.yaml"]);
    let sentence = "-> shop/cart-0 (198.18.0.1) 8080/TCP, the NodePort 30080 of node n1 (Service shop/cart): allowed";
    assert!(code == 2 && out.contains(sentence), "{out}");
}

#[test]
fn a_node_that_is_called_by_digits_is_named_and_seen_beyond_a_tunnel_at_its_address_there() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = "
apiVersion: twill.network/v1
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.42.0.0/16, encapsulation: {protocol: VXLAN, when: WHEN}}
---
apiVersion: twill.network/v1
kind: IPBlock
metadata: {name: 10-42-9-0-26}
spec: {cidr: 10.42.9.0/26, node: '4711'}
---
apiVersion: v1
kind: Node
metadata: {name: '4711'}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop}
spec: {nodeName: n2, containers: [{name: c}]}
status: {podIPs: [{ip: 10.42.1.5}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.42.9.0/32}}]}]}
---
apiVersion: twill.network/v1
kind: PolicyTest
cases:
- {from: 4711, to: shop/db, port: 80, expect: Allow}
- {from: 192.0.2.1, to: shop/db, port: 80, expect: Deny}
";
    let tested = |when: &str| {
        std::fs::write(directory.path().join("all.yaml"), cluster.replace("WHEN", when)).unwrap();
        run(directory.path(), &["policy", "test", "all.yaml"])
    };
    let (code, out, err) = tested("Always");
    assert_eq!((code, out.as_str()), (0, "2 assertions of 2 cases: all hold\n"), "{err}");
    let (code, out, _) = tested("CrossSubnet");
    let sentence = "--interface NAME says by which it goes";
    assert!(code == 2 && out.contains("80/TCP: depends on the interface") && out.contains(sentence), "{out}");
}
