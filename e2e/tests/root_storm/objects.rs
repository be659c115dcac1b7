//! The objects of a storm, as a scheduler and kubelets keep them, whatever a node's way to the datastore does. Its server has as much to do as all
//! else: who is told that it does not answer now tries again, as any client does.

use crate::SOON;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use twill_crds::{IPBlock, Pod};
use twill_datastore::{Datastore, Error, Filter, Key, Preconditions};

pub(crate) struct Objects {
    store: Datastore,
    runtime: tokio::runtime::Runtime,
}

impl Objects {
    pub(crate) fn of(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = runtime.block_on(Datastore::open_existing(url)).unwrap();
        Self { store, runtime }
    }

    /// Its UID.
    pub(crate) fn create_pod(&self, name: &str, node: &str) -> String {
        let pod: Pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": "storm"}},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "example.invalid/c"}]},
        }))
        .unwrap();
        let created = self.again(async || match self.store.create(&pod).await {
            // Of an earlier try the answer was lost.
            Err(Error::AlreadyExists(_)) => self.get(name).await,
            created => created,
        });
        created.unwrap().metadata.uid.unwrap()
    }

    /// The kubelet tells of addresses.
    pub(crate) fn report(&self, name: &str, addresses: &[IpAddr]) {
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let reported = self.again(async || {
            let mut pod = self.get(name).await?;
            pod.status = serde_json::from_value(json!({"phase": "Running", "podIPs": ips})).unwrap();
            self.store.update_status(&pod).await
        });
        reported.unwrap();
    }

    pub(crate) fn delete_pod(&self, name: &str) {
        let key = Key::namespaced("default", name);
        let deleted = self.again(async || match self.store.delete::<Pod>(&key, &Preconditions::default()).await {
            Err(Error::NotFound(_)) => Ok(()),
            deleted => deleted.map(drop),
        });
        deleted.unwrap();
    }

    pub(crate) fn blocks(&self) -> Vec<IPBlock> {
        self.again(async || self.store.list::<IPBlock>(&Filter::default()).await).unwrap().items
    }

    async fn get(&self, name: &str) -> Result<Pod, Error> {
        let found = self.store.get::<Pod>(&Key::namespaced("default", name)).await?;
        found.ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    fn again<T>(&self, call: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
        let began = Instant::now();
        loop {
            match self.runtime.block_on(call()) {
                Err(Error::Unavailable(_)) if began.elapsed() < SOON => std::thread::sleep(Duration::from_millis(500)),
                outcome => return outcome,
            }
        }
    }
}
