//! Ingress controllers with hostNetwork, whose requests come from their node: to closed namespaces they come through where an isolation
//! selects their node, from its own address and out of a tunnel.
//!
//! ```text
//!      spine
//!     /     \
//!  tor-r1  tor-r2      the controller on n1, another process on n2; b on n2 (same rack), c on n3 (another rack, by VXLAN)
//!   n1 n2    n3
//! ```
#![allow(clippy::unwrap_used)]

mod support;

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use support::{pod, two_racks};
use twill_crds::{Node, Object};
use twill_datastore::{Datastore, Key};
use twill_e2e::{Lab, within};
use twill_lab::io::netns;

const POOL: &str = "apiVersion: twill.network/v1
kind: IPPool
metadata: {name: test}
spec: {cidr: 10.42.0.0/16, encapsulation: {protocol: VXLAN, when: CrossSubnet}}
";
const SOON: Duration = Duration::from_secs(20);

fn isolation(controllers: &str) -> String {
    format!(
        "apiVersion: twill.network/v1
kind: NamespaceIsolation
metadata: {{name: closed}}
spec: {{namespaceSelector: {{}}, allow: [IngressControllers], ingressControllers: {controllers}}}
"
    )
}

fn label(lab: &Lab, node: &str, label: (&str, &str)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Datastore::open_existing(&lab.status().unwrap().datastore).await.unwrap();
        let mut node: Node = store.get(&Key::cluster(node)).await.unwrap().unwrap();
        node.meta_mut().labels.get_or_insert_default().insert(label.0.to_owned(), label.1.to_owned());
        store.update(&node).await.unwrap();
    });
}

#[test]
#[ignore = "needs root: make test"]
fn controllers_of_selected_nodes_reach_closed_namespaces_and_other_nodes_do_not() {
    let pods = [pod("b", "n2"), pod("c", "n3")].concat();
    let lab = two_racks("  topology: Mesh\n  resources: [pool.yaml, pods.yaml]\n");
    let lab = Lab::up("controllers", &lab, &[("pool.yaml", POOL), ("pods.yaml", &pods)]).unwrap();
    let status = lab.status().unwrap();
    let netns = |name: &str| status.nodes.iter().find(|node| node.name == name).unwrap().netns.clone();
    let reaches = |node: &str, pod: &str| {
        let to = SocketAddr::new(lab.pod(&format!("default/{pod}")).unwrap().ips[0].parse().unwrap(), 80);
        let connect = || {
            let stream = TcpStream::connect_timeout(&to, Duration::from_millis(500));
            Ok(stream.ok().and_then(|stream| stream.local_addr().ok()).map(|own| own.ip().to_string()))
        };
        netns::inside(&netns(node), connect).unwrap()
    };
    let (plain, tunnelled) = (reaches("n1", "b").unwrap(), reaches("n1", "c").unwrap());
    assert!(plain == "172.31.1.11" && tunnelled.starts_with("10.42."), "{plain} {tunnelled}");

    lab.apply(&isolation("{}")).unwrap();
    within(SOON, "other nodes are shut out", || reaches("n1", "b").is_none() && reaches("n1", "c").is_none()).unwrap();
    assert!(reaches("n2", "b").is_some() && reaches("n3", "c").is_some(), "a node always reaches its own pods");

    label(&lab, "n1", ("edge", "yes"));
    lab.apply(&isolation("{nodeSelector: {matchLabels: {edge: 'yes'}}}")).unwrap();
    within(SOON, "the selected node is let in, by tunnel, too", || {
        reaches("n1", "b").is_some() && reaches("n1", "c").is_some()
    })
    .unwrap();
    assert_eq!((reaches("n2", "c"), reaches("n3", "b")), (None, None), "and nobody else");
    let told = lab.ask("n1", &["explain", &tunnelled, "default/c:80"]).unwrap();
    assert!(told.contains("node n1") && told.contains("80/TCP: allowed"), "{told}");
}
