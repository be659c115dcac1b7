//! Where the servers' programs are.

use anyhow::bail;
use std::path::PathBuf;

const DEFAULT: &str = "/usr/local/kubebuilder/bin";

/// A program of the control plane, by envtest's convention.
///
/// # Errors
/// It is not there; says how to bring it.
pub fn asset(name: &str) -> anyhow::Result<PathBuf> {
    let directory = std::env::var_os("KUBEBUILDER_ASSETS").map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from);
    let path = directory.join(name);
    if !path.is_file() {
        bail!(
            "{name} is not in {}; set KUBEBUILDER_ASSETS to a directory with etcd, kube-apiserver and kubectl, as envtest lays one out, \
             and for nodes kubelet, kube-controller-manager and kube-scheduler beside them",
            directory.display()
        );
    }
    Ok(path)
}

/// The distribution's etcd.
///
/// # Errors
/// It is not there.
pub fn distribution_etcd() -> anyhow::Result<PathBuf> {
    let places = ["/usr/bin/etcd", "/usr/sbin/etcd", "/usr/local/bin/etcd"].map(PathBuf::from);
    let found = places.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| anyhow::anyhow!("etcd is not installed; apt-get install etcd-server"))
}
