//! Where the etcd is and how to log in, as one URL says it:
//! `etcd:http://HOST:PORT[,HOST:PORT…][/PREFIX][?ca=FILE&cert=FILE&key=FILE&user=NAME&passwordFile=FILE]`.
//!
//! In flows the URL; out flow its parts, or what is wrong with it and the way out. No file is touched here.

use std::path::PathBuf;

/// The URL's parts, consistent with each other.
#[derive(Debug, PartialEq)]
pub(super) struct Address {
    /// `http://host:port` or `https://host:port`; at least one.
    pub(super) endpoints: Vec<String>,
    /// Begins with a slash and ends with none.
    pub(super) prefix: String,
    pub(super) tls: Option<Tls>,
    pub(super) login: Option<Login>,
}

/// Files of an encrypted connection.
#[derive(Debug, PartialEq)]
pub(super) struct Tls {
    /// Certificates of who signs the servers'.
    pub(super) ca: PathBuf,
    /// Our own certificate and its key.
    pub(super) own: Option<(PathBuf, PathBuf)>,
}

/// Who we are to etcd's own authentication.
#[derive(Debug, PartialEq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password_file: PathBuf,
}

const PREFIX: &str = "/twill/v1";
const PORT: u16 = 2379;
const FORM: &str = "write etcd:http://HOST:2379";
const NO_PASSWORD: &str = "holds a user or a password, which everybody on the machine can read in the list of processes; \
     write the password into a file and ?user=NAME&passwordFile=FILE";

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("etcd:").unwrap_or(url);
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (scheme, place) = match (place.strip_prefix("http://"), place.strip_prefix("https://")) {
            (Some(place), _) => ("http", place),
            (_, Some(place)) => ("https", place),
            _ => return Err(format!("names no server; {FORM}")),
        };
        let (hosts, prefix) = split_prefix(scheme, place)?;
        let mut parameters = Parameters::parse(query)?;
        let tls = parameters.tls(scheme == "https")?;
        let login = parameters.login()?;
        let endpoints = hosts.iter().map(|host| endpoint(scheme, host)).collect::<Result<_, _>>()?;
        Ok(Self { endpoints, prefix: normal(prefix)?, tls, login })
    }
}

/// The URL as it may be shown.
pub(super) fn shown(url: &str) -> String {
    let (place, query) = url.split_once('?').map_or((url, None), |(place, query)| (place, Some(query)));
    let place = match (place.find("//"), place.rfind('@')) {
        (Some(from), Some(to)) if from < to => format!("{}//…{}", &place[..from], &place[to..]),
        _ => place.to_owned(),
    };
    let hidden = |part: &str| if part.starts_with("password=") { "password=…".to_owned() } else { part.to_owned() };
    match query {
        None => place,
        Some(query) => format!("{place}?{}", query.split('&').map(hidden).collect::<Vec<_>>().join("&")),
    }
}

/// The hosts, and the prefix behind the last of them. Each host may repeat the scheme, as etcd's own lists do.
fn split_prefix<'a>(scheme: &str, place: &'a str) -> Result<(Vec<&'a str>, &'a str), String> {
    let (mut hosts, mut prefix) = (Vec::new(), "");
    let mut parts = place.split(',').peekable();
    while let Some(part) = parts.next() {
        let host = match part.split_once("://") {
            Some((found, host)) if found == scheme => host,
            Some(_) => return Err(format!("mixes http and https; write {scheme}:// for all servers")),
            None => part,
        };
        let (host, path) = host.split_once('/').unwrap_or((host, ""));
        if parts.peek().is_some() && !path.is_empty() {
            return Err("has a prefix in the list of servers; write it once, behind the last of them".into());
        }
        hosts.push(host);
        prefix = path;
    }
    Ok((hosts, prefix))
}

fn endpoint(scheme: &str, host: &str) -> Result<String, String> {
    if host.contains('@') {
        return Err(NO_PASSWORD.into());
    }
    let bracketed = host.starts_with('[');
    let (name, port) = match (bracketed, host.rfind("]:"), host.rfind(':')) {
        (true, Some(at), _) => (&host[..=at], Some(&host[at + 2..])),
        (false, _, Some(at)) => (&host[..at], Some(&host[at + 1..])),
        _ => (host, None),
    };
    let port = match port.map(str::parse::<u16>) {
        None => PORT,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => return Err(format!("has no port number behind \"{name}\"; {FORM}")),
    };
    let plain = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let address = |name: &str| {
        name.strip_prefix('[')
            .and_then(|n| n.strip_suffix(']'))
            .is_some_and(|n| n.parse::<std::net::Ipv6Addr>().is_ok())
    };
    if if bracketed { address(name) } else { plain(name) } {
        return Ok(format!("{scheme}://{name}:{port}"));
    }
    Err(format!("has a server \"{host}\" that is no host name or address; {FORM}, an IPv6 address in brackets"))
}

fn normal(prefix: &str) -> Result<String, String> {
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() {
        return Ok(PREFIX.into());
    }
    let fit = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    if prefix.split('/').all(fit) {
        return Ok(format!("/{prefix}"));
    }
    Err(format!("has the prefix \"/{prefix}\"; use letters, digits, '-', '_' and single slashes, as in {PREFIX}"))
}

struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn parse(query: &str) -> Result<Self, String> {
        let mut found: Vec<(String, String)> = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name {
                "password" => return Err(NO_PASSWORD.into()),
                "ca" | "cert" | "key" | "user" | "passwordFile" if value.is_empty() => {
                    return Err(format!("has nothing behind {name}=; name a value or leave it out"));
                }
                "ca" | "cert" | "key" | "user" | "passwordFile" if found.iter().all(|(other, _)| other != name) => {
                    found.push((name.to_owned(), decoded(value)?));
                }
                "ca" | "cert" | "key" | "user" | "passwordFile" => return Err(format!("names {name} twice")),
                _ => return Err(format!("has \"{name}\", which is none of ca, cert, key, user, passwordFile")),
            }
        }
        Ok(Self(found))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(found, _)| found == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn tls(&mut self, encrypted: bool) -> Result<Option<Tls>, String> {
        let [ca, cert, key] = ["ca", "cert", "key"].map(|name| self.take(name).map(PathBuf::from));
        match (encrypted, ca, cert, key) {
            (false, None, None, None) => Ok(None),
            (false, ..) => Err("names ca, cert or key, which only encrypted connections use; write https://".into()),
            (true, None, ..) => {
                Err("names no certificate authority to know the servers by; add ca=FILE, in PEM form".into())
            }
            (true, Some(ca), None, None) => Ok(Some(Tls { ca, own: None })),
            (true, Some(ca), Some(cert), Some(key)) => Ok(Some(Tls { ca, own: Some((cert, key)) })),
            (true, ..) => Err("names one of cert and key without the other; name both or neither".into()),
        }
    }

    fn login(&mut self) -> Result<Option<Login>, String> {
        match (self.take("user"), self.take("passwordFile").map(PathBuf::from)) {
            (None, None) => Ok(None),
            (Some(user), Some(password_file)) => Ok(Some(Login { user, password_file })),
            _ => Err("names one of user and passwordFile without the other; name both or neither".into()),
        }
    }
}

/// `%2F` and the like, for file names with `&` or `%` in them.
fn decoded(text: &str) -> Result<String, String> {
    let wrong = || format!("has \"{text}\"; write a '%' as %25 there");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let digits = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok()).ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_of_a_url_are_found() {
        let address = Address::parse("etcd:http://127.0.0.1:2379").unwrap();
        assert_eq!(address.endpoints, ["http://127.0.0.1:2379"]);
        assert_eq!((address.prefix.as_str(), address.tls, address.login), ("/twill/v1", None, None));
        let url =
            "etcd:https://a:1,https://b.c,[fd00::1]:3/my/cluster/?ca=/e/ca%26.pem&cert=c&key=k&user=u&passwordFile=p";
        let address = Address::parse(url).unwrap();
        assert_eq!(address.endpoints, ["https://a:1", "https://b.c:2379", "https://[fd00::1]:3"]);
        assert_eq!(address.prefix, "/my/cluster");
        assert_eq!(address.tls, Some(Tls { ca: "/e/ca&.pem".into(), own: Some(("c".into(), "k".into())) }));
        assert_eq!(address.login, Some(Login { user: "u".into(), password_file: "p".into() }));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_way_out() {
        let cases = [
            ("etcd:", "write etcd:http://HOST:2379"),
            ("etcd:localhost:2379", "write etcd:http://HOST:2379"),
            ("etcd:http://", "no host name"),
            ("etcd:http://a:x", "no port number behind \"a\""),
            ("etcd:http://fd00::1:2379", "in brackets"),
            ("etcd:http://a,https://b", "write http:// for all"),
            ("etcd:http://a/p,b", "behind the last"),
            ("etcd:http://a/p//q", "single slashes"),
            ("etcd:http://a/.p", "single slashes"),
            ("etcd:https://a", "add ca=FILE"),
            ("etcd:http://a?ca=f", "write https://"),
            ("etcd:https://a?ca=f&cert=f", "name both or neither"),
            ("etcd:http://a?user=u", "name both or neither"),
            ("etcd:http://a?user=u&user=v&passwordFile=f", "names user twice"),
            ("etcd:http://a?user=", "nothing behind user="),
            ("etcd:http://a?tls=no", "none of ca, cert"),
            ("etcd:https://a?ca=%zz", "write a '%' as %25"),
            ("etcd:http://root:secret@a:2379", "?user=NAME&passwordFile=FILE"),
            ("etcd:http://a?user=u&password=secret", "?user=NAME&passwordFile=FILE"),
        ];
        for (url, expected) in cases {
            let problem = Address::parse(url).unwrap_err();
            assert!(problem.contains(expected), "{url}: {problem}");
            assert!(!problem.contains("secret"), "{problem}");
        }
    }

    #[test]
    fn a_password_is_not_shown_again() {
        assert_eq!(shown("etcd:http://root:secret@a:2379/p"), "etcd:http://…@a:2379/p");
        assert_eq!(shown("etcd:http://a?user=u&password=secret"), "etcd:http://a?user=u&password=…");
        assert_eq!(shown("etcd:http://a:1/p?user=u"), "etcd:http://a:1/p?user=u");
    }
}
