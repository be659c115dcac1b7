//! Labs whose objects are in a Kubernetes API server.
//!
//! 1. The demonstration is the same there.
//! 2. The API server is away for a minute: nothing breaks, and everything catches up.
//! 3. An API server that somebody lives in is no lab's, and a lab that goes leaves nothing of its own but namespaces.
#![allow(clippy::unwrap_used)]

mod support;

use support::away::{Server, demonstrate, survive};
use support::one_rack;
use twill_control_plane::ApiServer;
use twill_e2e::Lab;

impl Server for ApiServer {
    fn kill(&mut self) {
        Self::kill(self);
    }

    fn start_again(&mut self) {
        Self::start_again(self).unwrap();
    }
}

#[test]
#[ignore = "needs a Kubernetes API server"]
fn the_demonstration_on_an_api_server_and_nothing_is_left_in_it() {
    let server = ApiServer::start().unwrap();
    let lab = Lab::new("kdemo").unwrap().with_kubeconfig(server.kubeconfig());
    demonstrate(&lab, "kubernetes");
    let other = Lab::new("kother").unwrap().with_kubeconfig(server.kubeconfig());
    let refused = other.up_text(&one_rack("  datastore: kubernetes\n"), &[]).unwrap_err().to_string();
    assert!(refused.contains(&format!("is lab {}'s", lab.name)), "{refused}");
    drop(other);
    assert!(lab.probe(&[]).is_ok_and(|probe| probe.differences == 0), "who was refused has hurt nobody");
    drop(lab);
    let kinds = "nodes,pods,networkpolicies,ippools,ipblocks,nodenetworks,bgpconfigurations,bgppeers";
    let left = server.kubectl(&["get", kinds, "-A", "-o", "name"]).unwrap();
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    assert_eq!(left, "");
    assert!(!server.kubectl(&["get", "configmap", "twill-lab"]).unwrap().status.success());
    // And so it is free for the next.
    let next = Lab::new("knext").unwrap().with_kubeconfig(server.kubeconfig());
    next.up_text(&one_rack("  datastore: kubernetes\n"), &[]).unwrap();
}

#[test]
#[ignore = "needs a Kubernetes API server"]
fn the_api_server_is_away_for_a_minute() {
    let server = ApiServer::start().unwrap();
    let lab = Lab::new("kaway").unwrap().with_kubeconfig(server.kubeconfig());
    survive(&lab, "kubernetes", || Box::new(server));
}

#[test]
#[ignore = "needs a Kubernetes API server"]
fn an_api_server_that_somebody_lives_in_is_refused_and_left_alone() {
    let server = ApiServer::start().unwrap();
    server.apply("{apiVersion: v1, kind: Node, metadata: {name: somebodys}}").unwrap();
    let lab = Lab::new("kguest").unwrap().with_kubeconfig(server.kubeconfig());
    let refused = lab.up_text(&one_rack("  datastore: kubernetes\n"), &[]).unwrap_err().to_string();
    assert!(refused.contains("Node somebodys") && refused.contains("not there for this lab alone"), "{refused}");
    drop(lab);
    assert!(server.kubectl(&["get", "node", "somebodys"]).unwrap().status.success());
}
