//! Where the datastore's servers are: addresses that are written, and what names lead to. Asked again and again, and answers are waited for
//! here, so nobody else waits.

use crate::host::known::By;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::watch;
use twill_datastore::io::servers::{Server, servers};

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
pub fn start(url: String) -> watch::Receiver<Places> {
    let (sender, receiver) = watch::channel(Places::new());
    tokio::spawn(async move {
        loop {
            let servers = read(&url).await;
            let (places, all) = resolve(&servers).await;
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
    // What is also written counts as that.
    places.sort_by_key(|(place, by)| (*place, *by != By::Address));
    places.dedup_by_key(|(place, _)| *place);
    (places, all)
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

    #[tokio::test]
    async fn what_is_written_as_an_address_is_known_without_asking() {
        let url = "etcd:http://192.0.2.1:2379,etcd.example:2379";
        assert_eq!(written(url).await, [("192.0.2.1:2379".parse().unwrap(), By::Address)]);
        assert_eq!(written("etcd:nothing").await, []);
    }
}
