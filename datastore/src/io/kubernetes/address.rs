//! Where the API server is and who we are to it: `kubernetes:[FILE][?context=NAME]`, and what that names on the disk.

use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use std::path::{Path, PathBuf};

/// The service account that Kubernetes gives every pod.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the URL says after `kubernetes:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Address {
    file: Option<PathBuf>,
    context: Option<String>,
}

/// The client's configuration, and which files it was made of.
pub(super) struct Loaded {
    pub(super) config: Config,
    pub(super) files: Vec<PathBuf>,
    /// For people: what was read.
    pub(super) source: String,
}

impl Loaded {
    /// Where the server is, for people.
    pub(super) fn server(&self) -> String {
        self.config.cluster_url.to_string().trim_end_matches('/').to_owned()
    }
}

impl Address {
    /// Out of the text after `kubernetes:`; or what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (file, query) = text.split_once('?').map_or((text, None), |(file, query)| (file, Some(query)));
        // `kubernetes:///path` is the same file as `kubernetes:/path`.
        let file = file.strip_prefix("//").unwrap_or(file);
        if !file.is_empty() && !file.starts_with('/') {
            return Err(format!(
                "{file} is no absolute path; write kubernetes: or kubernetes:/path/to/kubeconfig?context=NAME"
            ));
        }
        let context = match query.map(|query| query.split_once('=')) {
            None => None,
            Some(Some(("context", name))) if !name.is_empty() => Some(name.to_owned()),
            Some(_) => return Err("has an unknown part after '?'; only context=NAME may stand there".into()),
        };
        Ok(Self { file: (!file.is_empty()).then(|| file.into()), context })
    }

    /// Reads the service account of this pod, or the kubeconfig.
    pub(super) async fn load(&self) -> Result<Loaded, String> {
        if self.file.is_none() && self.context.is_none() && in_cluster() {
            return service_account();
        }
        let files = match &self.file {
            Some(file) => vec![file.clone()],
            None => usual_files()?,
        };
        let named = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(":");
        self.kubeconfig(files).await.map_err(|problem| {
            format!("kubeconfig {named}: {problem}; correct it, or name another: kubernetes:/path/to/kubeconfig?context=NAME")
        })
    }

    async fn kubeconfig(&self, files: Vec<PathBuf>) -> Result<Loaded, String> {
        let kubeconfig = merged(&files)?;
        let context = self.context(&kubeconfig)?;
        refuse_proxy(&kubeconfig, &context)?;
        let source = format!(
            "kubeconfig {}, context {context}",
            files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(":")
        );
        let files = files.into_iter().chain(credentials(&kubeconfig, &context)).collect();
        let options = KubeConfigOptions { context: Some(context), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| chain(&e))?;
        check_server(&config.cluster_url)?;
        Ok(Loaded { config, files, source })
    }

    /// The context that is meant, which must be there.
    fn context(&self, kubeconfig: &Kubeconfig) -> Result<String, String> {
        let names: Vec<&str> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
        let wanted = self.context.as_deref().or(kubeconfig.current_context.as_deref()).unwrap_or_default();
        let there = if names.is_empty() { "no context".to_owned() } else { names.join(", ") };
        match wanted {
            "" => Err(format!("current-context is not set and the URL names none; it has {there}")),
            _ if names.contains(&wanted) => Ok(wanted.to_owned()),
            _ => Err(format!("context {wanted} is not in it; it has {there}")),
        }
    }
}

/// Whether this process runs in a pod that has a service account.
fn in_cluster() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(ACCOUNT).join("token").exists()
}

fn service_account() -> Result<Loaded, String> {
    let config = Config::incluster().map_err(|e| format!("the pod's service account in {ACCOUNT}: {}", chain(&e)))?;
    let files = ["token", "ca.crt"].map(|file| Path::new(ACCOUNT).join(file)).to_vec();
    Ok(Loaded { config, files, source: format!("the service account in {ACCOUNT}") })
}

/// `$KUBECONFIG`, or the file in the home directory.
fn usual_files() -> Result<Vec<PathBuf>, String> {
    if let Some(paths) = std::env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty()) {
        return Ok(std::env::split_paths(&paths).filter(|path| path.exists()).collect::<Vec<_>>())
            .and_then(|files| if files.is_empty() { Err(none(&paths.to_string_lossy())) } else { Ok(files) });
    }
    let file = std::env::home_dir().unwrap_or_else(|| "/root".into()).join(".kube/config");
    if file.exists() { Ok(vec![file]) } else { Err(none(&file.display().to_string())) }
}

fn none(looked: &str) -> String {
    format!(
        "this process is in no pod with a service account, and there is no kubeconfig ({looked}); set KUBECONFIG or write kubernetes:/path/to/kubeconfig"
    )
}

fn merged(files: &[PathBuf]) -> Result<Kubeconfig, String> {
    files.iter().try_fold(Kubeconfig::default(), |merged, file| {
        let one = Kubeconfig::read_from(file).map_err(|e| chain(&e))?;
        merged.merge(one).map_err(|e| chain(&e))
    })
}

/// Our connections go straight to the API server; one that was meant to go through a proxy would not.
fn refuse_proxy(kubeconfig: &Kubeconfig, context: &str) -> Result<(), String> {
    let cluster = cluster_of(kubeconfig, context);
    match cluster.and_then(|cluster| cluster.proxy_url.as_deref()).filter(|url| !url.is_empty()) {
        Some(url) => Err(format!("proxy-url {url} is not supported; use a server that is reached directly")),
        None => Ok(()),
    }
}

/// A server that is no URL would end the process when the first call is made.
fn check_server(server: &http::Uri) -> Result<(), String> {
    match (server.scheme_str(), server.host()) {
        (Some("https" | "http"), Some(host)) if !host.is_empty() => Ok(()),
        _ => Err(format!("server {server} is no URL of a server; write https://HOST:PORT")),
    }
}

/// The files that a context names beside the kubeconfig.
fn credentials(kubeconfig: &Kubeconfig, context: &str) -> Vec<PathBuf> {
    let user = context_of(kubeconfig, context).and_then(|context| context.user.as_ref());
    let user = user.and_then(|name| kubeconfig.auth_infos.iter().find(|user| user.name == *name));
    let user = user.and_then(|user| user.auth_info.as_ref());
    let of_user = user.map(|user| [&user.client_certificate, &user.client_key, &user.token_file]);
    let of_cluster = cluster_of(kubeconfig, context).map(|cluster| &cluster.certificate_authority);
    of_user.into_iter().flatten().chain(of_cluster).flatten().map(PathBuf::from).collect()
}

fn context_of<'k>(kubeconfig: &'k Kubeconfig, context: &str) -> Option<&'k kube::config::Context> {
    kubeconfig.contexts.iter().find(|named| named.name == context)?.context.as_ref()
}

fn cluster_of<'k>(kubeconfig: &'k Kubeconfig, context: &str) -> Option<&'k kube::config::Cluster> {
    let name = &context_of(kubeconfig, context)?.cluster;
    kubeconfig.clusters.iter().find(|named| named.name == *name)?.cluster.as_ref()
}

/// An error and what it came from, each said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_file_and_a_context_or_leaves_them_out() {
        let address = |file: Option<&str>, context: Option<&str>| Address {
            file: file.map(Into::into),
            context: context.map(Into::into),
        };
        assert_eq!(Address::parse(""), Ok(address(None, None)));
        assert_eq!(Address::parse("/etc/k"), Ok(address(Some("/etc/k"), None)));
        assert_eq!(Address::parse("///etc/k"), Ok(address(Some("/etc/k"), None)));
        let arn = "arn:aws:eks:eu-west-1:1:cluster/a";
        assert_eq!(Address::parse(&format!("/etc/k?context={arn}")), Ok(address(Some("/etc/k"), Some(arn))));
        assert_eq!(Address::parse("?context=a=b"), Ok(address(None, Some("a=b"))));
        assert!(Address::parse("etc/k").unwrap_err().contains("is no absolute path; write kubernetes:"));
        assert!(Address::parse("/etc/k?user=x").unwrap_err().contains("only context=NAME"));
        assert!(Address::parse("/etc/k?context=").unwrap_err().contains("only context=NAME"));
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_kubeconfig_is_said_with_its_field() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        let problem = async |text: &str, url: &str| {
            std::fs::write(&file, text).unwrap();
            Address::parse(&format!("{}{url}", file.display())).unwrap().load().await.err().unwrap()
        };
        let whole = |cluster: &str| {
            format!(
                "clusters: [{{name: c, cluster: {{{cluster}}}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n\
                 current-context: x\nusers: [{{name: u, user: {{}}}}]"
            )
        };
        let server = "server: 'https://127.0.0.1:1'";
        let missing = Address::parse("/nowhere/config").unwrap().load().await.err().unwrap();
        assert!(missing.contains("kubeconfig /nowhere/config: ") && missing.contains("No such file"), "{missing}");
        assert!(problem("{", "").await.contains("parse kubeconfig YAML"));
        assert!(problem("contexts: []", "").await.contains("current-context is not set"));
        let other = problem(&whole(server), "?context=y").await;
        assert!(other.contains("context y is not in it; it has x; correct it, or name another"), "{other}");
        let authority = problem(&whole(&format!("{server}, certificate-authority: gone.crt")), "").await;
        assert!(authority.contains("certificate authority") && authority.contains("gone.crt"), "{authority}");
        for odd in ["127.0.0.1:6443", "/", "tcp://127.0.0.1:6443", "api"] {
            let server = problem(&whole(&format!("server: '{odd}'")), "").await;
            let said =
                server.contains(&format!("server {odd}")) && server.contains("is no URL of a server; write https://");
            assert!(said, "{server}");
        }
        let proxy = problem(&whole(&format!("{server}, proxy-url: 'http://p'")), "").await;
        assert!(proxy.contains("proxy-url http://p is not supported"), "{proxy}");
        std::fs::write(&file, whole(server)).unwrap();
        let loaded = Address::parse(&file.display().to_string()).unwrap().load().await.ok().unwrap();
        assert_eq!(loaded.files, [file]);
    }
}
