//! Sessions between nodes that a BGPPeer names by label, with a password out of a Secret.

use super::*;
use k8s_openapi::api::core::v1::Secret;
use std::os::unix::fs::PermissionsExt;
use twill_crds::names::NAMESPACE;
use twill_crds::{BGPConfiguration, BGPPeer};

impl Cluster {
    fn established(&self) -> [u32; 3] {
        [0, 1, 2].map(|index| self.status(index).established)
    }

    fn secret(&self, password: &str) {
        let value = json!({"metadata": {"name": "mesh", "namespace": NAMESPACE}, "stringData": {"password": password}});
        let mut secret: Secret = serde_json::from_value(value).unwrap();
        self.runtime.block_on(async {
            match self.store.get::<Secret>(&Key::namespaced(NAMESPACE, "mesh")).await.unwrap() {
                None => drop(self.store.create(&secret).await.unwrap()),
                Some(known) => {
                    secret.metadata = known.metadata;
                    self.store.update(&secret).await.unwrap();
                }
            }
        });
    }
}

#[test]
#[ignore = "needs root: make test"]
fn a_password_out_of_a_secret_is_waited_for_and_followed_and_never_told() {
    let cluster = Cluster::new();
    cluster.converged();
    let reference = json!({"secretKeyRef": {"name": "mesh", "key": "password"}});
    cluster.create::<BGPPeer>(json!({"metadata": {"name": "all"},
        "spec": {"remote": {"nodeSelector": {}}, "asn": "internal", "password": reference}}));
    cluster.create::<BGPConfiguration>(json!({"metadata": {"name": "default"}, "spec": {"topology": "Fabric"}}));
    within(CONVERGED, "without the Secret there is no session", || cluster.established() == [0, 0, 0]);
    let problems = cluster.status(0).problems;
    assert!(
        problems.iter().any(|problem| problem.contains("BGPPeer all") && problem.contains("Secret mesh")),
        "{problems:?}"
    );

    cluster.secret("first one");
    within(CONVERGED, "with it there are all", || cluster.established() == [2, 2, 2]);
    let peers = || cluster.ask(0, &json!({"op": "peers"})).unwrap();
    assert!(peers()[0]["name"] == "all/n2" && peers()[1]["name"] == "all/n3", "{}", peers());
    let since = || peers()[0]["since"].as_u64().unwrap();
    within(CONVERGED, "for some time", || since() >= 2);
    cluster.secret("second one");
    within(CONVERGED, "a new one resets the sessions", || since() < 2 && cluster.established() == [2, 2, 2]);

    let state = cluster.directory.path().join("n1");
    let kept = state.join("bgpd.json");
    within(SECOND * 5, "it is kept for a start without datastore", || {
        std::fs::read_to_string(&kept).is_ok_and(|text| text.contains("c2Vjb25kIG9uZQ=="))
    });
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let network = cluster.runtime.block_on(cluster.store.get::<NodeNetwork>(&Key::cluster("n1"))).unwrap();
    let told = format!("{}{}{}", peers(), json!(network), json!(cluster.status(0)));
    assert!(!told.contains("second one") && !told.contains("c2Vjb25kIG9uZQ"), "{told}");

    cluster.kill(0);
    cluster.start(0);
    within(CONVERGED, "a start goes on with it", || cluster.established() == [2, 2, 2]);
}
