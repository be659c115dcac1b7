//! Addresses that are lent to interfaces which other plugins make, one file each beside the store. Of such an address nothing in the kernel
//! says whose it is, so the files are what a store that was lost can be rebuilt from.
//!
//! In flow attachments, out flow the same. A file is there as a whole or not at all, before the store has the address, and until after it has
//! not.

use crate::ledger::{Attachment, Sandbox};
use crate::origin::{Kind, Origin};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// How the names of the files in the store's directory begin; the address follows.
pub(super) const PREFIX: &str = "lent-";
/// How the name of one ends that is not whole yet.
const NEW: &str = ".new";

/// Keeps all addresses of an attachment, durably.
pub(super) fn keep(directory: &Path, attachment: &Attachment) -> io::Result<()> {
    for address in &attachment.addresses {
        let path = path(directory, *address);
        let new = PathBuf::from(format!("{}{NEW}", path.display()));
        let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text(attachment).as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
    }
    fs::File::open(directory)?.sync_all()
}

/// Forgets addresses. Unknown ones are fine.
pub(super) fn forget(directory: &Path, addresses: &[IpAddr]) -> io::Result<()> {
    for address in addresses {
        match fs::remove_file(path(directory, *address)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// All that is kept, by sandbox. A file that cannot be read is left out, which the log says; one that is not whole is taken away.
pub(super) fn kept(directory: &Path) -> io::Result<Vec<Attachment>> {
    let mut found = BTreeMap::<Sandbox, Attachment>::new();
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory)?.map(|one| one.map(|one| one.path())).collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if rest.ends_with(NEW) {
            fs::remove_file(&path)?;
            continue;
        }
        let text = fs::read_to_string(&path)?;
        match rest.parse().ok().zip(read(&text)) {
            // Each file speaks for the address that it is named by.
            Some((address, read)) => {
                let one = found.entry(read.sandbox.clone()).or_insert(Attachment { addresses: Vec::new(), ..read });
                one.addresses.push(address);
            }
            None => tracing::warn!(path = %path.display(), "file of an address that is lent is damaged; left out"),
        }
    }
    Ok(found.into_values().collect())
}

fn path(directory: &Path, address: IpAddr) -> PathBuf {
    directory.join(format!("{PREFIX}{address}"))
}

fn text(attachment: &Attachment) -> String {
    let Attachment { sandbox, origin, .. } = attachment;
    json!({
        "containerId": sandbox.container_id, "ifname": sandbox.ifname, "namespace": attachment.namespace, "pod": attachment.pod,
        "uid": attachment.uid, "netns": attachment.netns, "bootId": attachment.boot_id, "asked": attachment.asked,
        "network": origin.network, "generation": origin.generation,
    })
    .to_string()
}

/// Without addresses.
fn read(text: &str) -> Option<Attachment> {
    let read: Value = serde_json::from_str(text).ok()?;
    let field = |name: &str| Some(read[name].as_str()?.to_owned());
    Some(Attachment {
        sandbox: Sandbox { container_id: field("containerId")?, ifname: field("ifname")? },
        namespace: field("namespace")?,
        pod: field("pod")?,
        uid: field("uid")?,
        netns: field("netns")?,
        boot_id: field("bootId")?,
        addresses: Vec::new(),
        origin: Origin { network: field("network")?, generation: field("generation")?, kind: Kind::Lent },
        asked: field("asked")?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::io::store::{FILE, Store};

    fn lent(container: &str, addresses: &[&str]) -> Attachment {
        Attachment {
            sandbox: Sandbox { container_id: container.into(), ifname: "net1".into() },
            namespace: "shop".into(),
            pod: "p".into(),
            uid: "u".into(),
            netns: "/run/netns/p".into(),
            boot_id: "b".into(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            origin: Origin { network: "bridge".into(), generation: "b/7".into(), kind: Kind::Lent },
            asked: String::new(),
        }
    }

    fn files(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|one| one.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.starts_with(PREFIX)).collect();
        names.sort();
        names
    }

    fn all(store: &Store) -> Vec<Attachment> {
        store.ledger().attachments().cloned().collect()
    }

    #[test]
    fn what_is_lent_comes_back_when_the_store_is_lost_or_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        let mut store = Store::open(place, 1).unwrap();
        let (both, one) = (lent("a", &["10.42.0.5", "fd42::5"]), lent("b", &["10.42.0.6"]));
        store.attach(both.clone()).unwrap();
        store.attach(one.clone()).unwrap();
        let own = Attachment { origin: Origin::default(), ..lent("c", &["10.42.0.7"]) };
        store.attach(own.clone()).unwrap();
        assert_eq!(files(place), ["lent-10.42.0.5", "lent-10.42.0.6", "lent-fd42::5"]);
        drop(store);
        assert_eq!(all(&Store::open(place, 2).unwrap()), [both.clone(), one.clone(), own]);
        for harm in [|path: &Path| fs::remove_file(path).unwrap(), |path: &Path| fs::write(path, "rubbish").unwrap()] {
            harm(&place.join(FILE));
            let store = Store::open(place, 3).unwrap();
            assert!(store.fresh().is_some());
            assert_eq!(all(&store), [both.clone(), one.clone()]);
        }
        let mut store = Store::open(place, 4).unwrap();
        store.release(&both.sandbox, 4).unwrap();
        assert_eq!(files(place), ["lent-10.42.0.6"]);
        store.replace(lent("b", &["10.42.0.8"]), 5).unwrap();
        assert_eq!(files(place), ["lent-10.42.0.8"]);
    }

    #[test]
    fn after_a_kill_between_file_and_store_no_address_has_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        let mut store = Store::open(place, 1).unwrap();
        store.attach(lent("a", &["10.42.0.5"])).unwrap();
        drop(store);
        // An ADD that was killed, one of the same sandbox with another address, and one whose address is somebody's.
        for (container, address) in [("b", "10.42.0.6"), ("a", "10.42.0.7"), ("c", "10.42.0.5")] {
            keep(place, &lent(container, &[address])).unwrap();
        }
        fs::write(place.join("lent-10.42.0.9.new"), "{").unwrap();
        for _ in 0..2 {
            let store = Store::open(place, 2).unwrap();
            assert_eq!(all(&store), [lent("a", &["10.42.0.5"]), lent("b", &["10.42.0.6"])]);
            assert_eq!(files(place), ["lent-10.42.0.5", "lent-10.42.0.6"]);
        }
    }

    #[test]
    fn a_file_that_says_nothing_hinders_no_start() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [("lent-10.42.0.5", ""), ("lent-nobody", "{}"), ("lent-10.42.0.6", "{\"containerId\": 3}")]
        {
            fs::write(directory.path().join(name), text).unwrap();
        }
        assert_eq!(all(&Store::open(directory.path(), 1).unwrap()), []);
    }
}
