//! The servers themselves: that they start, keep their state, and know who is who.
#![allow(clippy::unwrap_used)]

use twill_control_plane::{ApiServer, Etcd, distribution_etcd};

#[test]
#[ignore = "needs root: make test"]
fn the_distributions_etcd_starts_again_where_it_was() {
    let mut etcd = Etcd::start(&distribution_etcd().unwrap()).unwrap();
    let url = etcd.url();
    etcd.kill();
    assert_eq!(etcd.pid(), None);
    etcd.start_again().unwrap();
    assert_eq!(etcd.url(), url);
    let tls = Etcd::start_with_tls(&distribution_etcd().unwrap()).unwrap();
    assert!(tls.url().starts_with("https://") && tls.authority().is_some());
}

#[test]
#[ignore = "needs a Kubernetes API server"]
fn an_api_server_keeps_its_objects_and_refuses_strangers() {
    let mut server = ApiServer::start().unwrap();
    server.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: kept, namespace: default}}").unwrap();
    let stranger = server.kubeconfig_of("system:serviceaccount:default:nobody", &["system:serviceaccounts"]).unwrap();
    let refused = server.kubectl_with(&stranger, &["get", "configmaps"], "").unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("system:serviceaccount:default:nobody"), "{refused:?}");
    server.kill();
    assert!(!server.kubectl(&["get", "configmap", "kept"]).unwrap().status.success());
    server.start_again().unwrap();
    assert!(server.kubectl(&["get", "configmap", "kept"]).unwrap().status.success());
}
