//! Which servers a datastore's URL leads to, by name or address: for whoever must let the way to them open.

use super::{etcd, kubernetes};
use crate::Error;

/// A server as it is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// A name, or an address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// The servers of a datastore: those of an etcd URL, or the one that a kubeconfig or this pod's environment names. A file has none. Reads
/// files, and asks nobody.
///
/// # Errors
/// [`Error::Open`] if the URL, the kubeconfig or a file that it names is wrong.
pub async fn servers(url: &str) -> Result<Vec<Server>, Error> {
    match url.split_once(':') {
        Some(("etcd", _)) => etcd::servers(url),
        Some(("kubernetes", _)) => Ok(vec![kubernetes::server(url).await?]),
        _ => Ok(Vec::new()),
    }
}

/// The server of `scheme://host:port/…`; with a port that its scheme means, where none is written.
pub(super) fn server_of(url: &http::Uri) -> Option<Server> {
    let host = url.host()?.trim_start_matches('[').trim_end_matches(']');
    let usual = if url.scheme_str() == Some("http") { 80 } else { 443 };
    Some(Server { host: host.to_owned(), port: url.port_u16().unwrap_or(usual) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn read(url: &str) -> Vec<(String, u16)> {
        servers(url).await.unwrap().into_iter().map(|one| (one.host, one.port)).collect()
    }

    #[tokio::test]
    async fn an_etcd_url_names_its_servers() {
        let url = "etcd:http://192.0.2.1:2379,[fd00::1]:2380,etcd.example:4001,192.0.2.2/p?user=u&passwordFile=/f";
        let all = [("192.0.2.1", 2379), ("fd00::1", 2380), ("etcd.example", 4001), ("192.0.2.2", 2379)];
        assert_eq!(read(url).await, all.map(|(host, port)| (host.to_owned(), port)));
        assert!(matches!(servers("etcd:x").await, Err(Error::Open { .. })));
        assert_eq!(read("sqlite:/a/b").await, []);
    }

    #[tokio::test]
    async fn a_kubeconfig_names_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let url = format!("kubernetes:{}", file.path().display());
        for (server, host, port) in [
            ("https://api.example:6443", "api.example", 6443),
            ("https://[fd00::1]:6443/", "fd00::1", 6443),
            ("https://api.example/k8s/c1", "api.example", 443),
            ("http://192.0.2.1", "192.0.2.1", 80),
        ] {
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{{name: c, cluster: {{server: \"{server}\"}}}}]\n\
                 users: [{{name: u, user: {{token: t}}}}]\ncontexts: [{{name: a, context: {{cluster: c, user: u}}}}]\n"
            );
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(read(&url).await, [(host.to_owned(), port)], "{server}");
        }
        std::fs::write(file.path(), "{}").unwrap();
        assert!(matches!(servers(&url).await, Err(Error::Open { .. })));
    }
}
