//! Where the datastore's servers are: addresses that are written, what names lead to, and what stands behind the Service of an API server.
//! Asked again and again, and answers are waited for here, so nobody else waits.

use crate::host::known::By;
use k8s_openapi::api::discovery::v1::EndpointPort;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::watch;
use twill_crds::EndpointSlice;
use twill_datastore::io::servers::{Server, servers};
use twill_datastore::{Datastore, Key};

/// Pause after names were answered, and after one was not.
const AGAIN: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(5);
/// Addresses that count of an answer; no datastore has more servers behind a name.
const MOST: usize = 16;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// What is known of a datastore's servers by now.
pub type Places = Vec<(SocketAddr, By)>;

/// Starts to ask. A name without an answer is left out: who remembers what it led to goes on with that.
pub fn start(datastore: Datastore, url: String) -> watch::Receiver<Places> {
    let (sender, receiver) = watch::channel(Places::new());
    tokio::spawn(async move {
        loop {
            let servers = read(&url).await;
            let (mut places, mut all) = resolve(&servers).await;
            if url.starts_with("kubernetes:") {
                let behind = api_servers(&datastore).await;
                all &= behind.is_some();
                places.extend(behind.unwrap_or_default().into_iter().map(|place| (place, By::Name)));
                each_once(&mut places);
            }
            sender.send_if_modified(|last| {
                let changed = *last != places;
                *last = places;
                changed
            });
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(if all { AGAIN } else { SOON }) => {}
            }
        }
    });
    receiver
}

/// The servers that are written as addresses.
pub async fn written(url: &str) -> Places {
    let address = |server: &Server| Some((SocketAddr::new(server.host.parse().ok()?, server.port), By::Address));
    read(url).await.iter().filter_map(address).collect()
}

async fn read(url: &str) -> Vec<Server> {
    servers(url).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "where the datastore is cannot be read");
        Vec::new()
    })
}

/// What stands behind the Service by which an API server is reached in its cluster; none: nobody answers. There an API server writes itself.
async fn api_servers(datastore: &Datastore) -> Option<BTreeSet<SocketAddr>> {
    let key = Key::namespaced("default", "kubernetes");
    match tokio::time::timeout(ANSWER, datastore.get::<EndpointSlice>(&key)).await {
        Ok(Ok(slice)) => Some(slice.as_ref().map(endpoints).unwrap_or_default()),
        Ok(Err(error)) => {
            tracing::debug!(%error, "what stands behind the Service of the API server is not read");
            None
        }
        Err(_) => {
            tracing::debug!("what stands behind the Service of the API server is not read in time");
            None
        }
    }
}

/// All of its TCP ports at all of its addresses, also of those that are not ready: they will be.
fn endpoints(slice: &EndpointSlice) -> BTreeSet<SocketAddr> {
    let is_tcp = |port: &&EndpointPort| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
    let ports = slice.ports.iter().flatten().filter(is_tcp).filter_map(|port| u16::try_from(port.port?).ok());
    let ports: Vec<u16> = ports.collect();
    let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses).filter_map(|a| a.parse().ok());
    let all = addresses.flat_map(|address: IpAddr| ports.iter().map(move |port| SocketAddr::new(address, *port)));
    capped("kubernetes.default", all)
}

/// All that these lead to, in order, and whether each had an answer.
async fn resolve(servers: &[Server]) -> (Places, bool) {
    let (mut places, mut all) = (Places::new(), true);
    for Server { host, port } in servers {
        if let Ok(address) = host.parse::<IpAddr>() {
            places.push((SocketAddr::new(address, *port), By::Address));
            continue;
        }
        match tokio::time::timeout(ANSWER, tokio::net::lookup_host((host.as_str(), *port))).await {
            Ok(Ok(found)) => places.extend(capped(host, found).into_iter().map(|place| (place, By::Name))),
            Ok(Err(error)) => {
                tracing::debug!(%host, %error, "a name of the datastore is not answered");
                all = false;
            }
            Err(_) => {
                tracing::debug!(%host, "a name of the datastore is not answered in time");
                all = false;
            }
        }
    }
    each_once(&mut places);
    (places, all)
}

/// What is also written counts as that.
fn each_once(places: &mut Places) {
    places.sort_by_key(|(place, by)| (*place, *by != By::Address));
    places.dedup_by_key(|(place, _)| *place);
}

/// The addresses that count of an answer. In their order, so that they are the same ones however a server turns them.
fn capped(host: &str, found: impl Iterator<Item = SocketAddr>) -> BTreeSet<SocketAddr> {
    let mut found: BTreeSet<SocketAddr> = found.collect();
    if let Some(first_over) = found.iter().nth(MOST).copied() {
        let over = found.split_off(&first_over).len();
        tracing::debug!(%host, over, "a name of the datastore leads to more addresses than count");
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn server(host: &str, port: u16) -> Server {
        Server { host: host.to_owned(), port }
    }

    #[tokio::test]
    async fn names_lead_to_addresses_and_one_without_an_answer_hinders_no_other() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        // The name that no machine has, by RFC 6761, and the one that each has.
        let servers = [server("twill.invalid", 1), server("localhost", 2379), server("fd00::1", 6443)];
        let (places, all) = resolve(&servers).await;
        assert!(!all && places.contains(&(at("[fd00::1]:6443"), By::Address)), "{places:?}");
        assert!(places.iter().any(|(place, by)| place.ip().is_loopback() && *by == By::Name), "{places:?}");
        assert!(resolve(&servers[1..]).await.1);
    }

    #[test]
    fn of_a_long_answer_the_same_addresses_count_in_whatever_order_they_come() {
        let answer: Vec<SocketAddr> = (0..70).map(|n| format!("192.0.2.{n}:2379").parse().unwrap()).collect();
        let first: Vec<SocketAddr> = capped("e", answer.iter().copied()).into_iter().collect();
        assert_eq!(first, answer[..MOST]);
        assert_eq!(capped("e", answer.iter().rev().copied()), first.iter().copied().collect());
        assert_eq!(capped("e", answer[..MOST].iter().copied()).len(), MOST);
    }

    #[test]
    fn every_endpoint_of_an_api_servers_service_is_one_ready_or_not() {
        let slice = serde_json::json!({"metadata": {"namespace": "default", "name": "kubernetes"}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}},
                {"addresses": ["192.0.2.2"], "conditions": {"ready": false}}, {"addresses": ["none"]}],
            "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}, {"name": "any"}]});
        let found: Vec<String> =
            endpoints(&serde_json::from_value(slice).unwrap()).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:6443", "192.0.2.2:6443"]);
    }

    #[tokio::test]
    async fn what_is_written_as_an_address_is_known_without_asking() {
        let url = "etcd:http://192.0.2.1:2379,etcd.example:2379";
        assert_eq!(written(url).await, [("192.0.2.1:2379".parse().unwrap(), By::Address)]);
        assert_eq!(written("etcd:nothing").await, []);
    }
}
