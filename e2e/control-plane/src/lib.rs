//! Real servers for tests: an etcd, and an etcd with a kube-apiserver before it, on loopback, in a directory of their own, gone
//! when they are dropped.
//!
//! In flow where their programs are and what is to be different; out flow addresses, credentials, and hands on the processes: kill,
//! start again with the same state, pause. Which programs: etcd of the distribution or of the directory that envtest's convention
//! names (`KUBEBUILDER_ASSETS`, by default `/usr/local/kubebuilder/bin`: etcd, kube-apiserver, kubectl).
//!
//! For nodes with kubelets there are kube-controller-manager and kube-scheduler, too, of the same directory.
//!
//! A server ends with the thread that started it, too: whatever becomes of a test, nothing is left.

mod api_server;
mod assets;
mod certificates;
mod etcd;
mod ports;
mod process;

pub use api_server::{ApiServer, KUBERNETES_SERVICE};
pub use assets::{asset, distribution_etcd};
pub use certificates::{Authority, Identity};
pub use etcd::Etcd;
pub use ports::free_port;
