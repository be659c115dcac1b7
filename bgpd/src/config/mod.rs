//! The file of a speaker that runs alone. In: YAML text. Out: a valid [`LoneConfig`], or one sentence with the line.

mod add_path;
mod bfd;
mod bmp;
mod filters;
mod limit;
mod peer;
mod remote;
mod role;

use crate::speaker::{Config, Peer, Range, Templates, Unnumbered};
use filters::Filters;
use ipnet::IpNet;
use remote::Remote;
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use thiserror::Error;
use twill_crds::names::{BGP_PORT, RTPROT_BGPD};

/// A speaker that runs alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoneConfig {
    /// The speaker.
    pub speaker: Config,
    /// Whether learned routes go into the kernel's main table.
    pub install_routes: bool,
    /// The kernel's protocol number for these routes.
    pub route_protocol: u8,
}

/// What is wrong with the file.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// It is not YAML, has an unknown key, or a value of the wrong type; the text names the line.
    #[error("{0}")]
    Syntax(String),
    /// A value is not possible.
    #[error("line {line}: {text}")]
    Value {
        /// Line, from 1.
        line: u64,
        /// What and why.
        text: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    asn: Spanned<u32>,
    #[serde(rename = "routerID")]
    router_id: Spanned<Ipv4Addr>,
    listen: Option<Vec<Spanned<Listen>>>,
    #[serde(default)]
    install_routes: bool,
    route_protocol: Option<Spanned<u8>>,
    #[serde(default)]
    originate: Vec<Spanned<IpNet>>,
    #[serde(default)]
    bmp: Vec<Spanned<bmp::FileStation>>,
    #[serde(default)]
    filters: BTreeMap<String, Spanned<serde_json::Value>>,
    #[serde(default)]
    peers: Vec<Spanned<FilePeer>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Listen {
    address: IpAddr,
    port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FilePeer {
    name: String,
    address: Option<IpAddr>,
    interface: Option<String>,
    range: Option<IpNet>,
    max_peers: Option<u16>,
    port: Option<u16>,
    asn: FileAsn,
    #[serde(rename = "localASN")]
    local_asn: Option<u32>,
    source: Option<IpAddr>,
    #[serde(default)]
    passive: bool,
    #[serde(default)]
    filters: Vec<String>,
    import: Option<FileImport>,
    export: Option<FileExport>,
    password: Option<String>,
    hold_time: Option<u16>,
    multihop: Option<u8>,
    ttl_security: Option<u8>,
    graceful_restart: Option<FileRestart>,
    families: Option<Vec<FileFamily>>,
    #[serde(default)]
    as_override: bool,
    #[serde(rename = "allowOwnAS")]
    allow_own_as: Option<Count>,
    #[serde(default)]
    reflector_client: bool,
    next_hop: Option<FileNextHop>,
    extended_next_hop: Option<bool>,
    add_path: Option<add_path::FileAddPath>,
    bfd: Option<bfd::FileBfd>,
    max_prefixes: Option<limit::FileLimit>,
    role: Option<role::FileRole>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FileAsn {
    Number(i64),
    Word(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Flag(bool),
    Number(i64),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileImport {
    All,
    None,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileExport {
    All,
    None,
    Own,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileRestart {
    restart_time: u16,
    long_lived_stale_time: Option<u32>,
}

#[derive(Deserialize)]
enum FileFamily {
    #[serde(rename = "ipv4")]
    Ipv4,
    #[serde(rename = "ipv6")]
    Ipv6,
}

#[derive(Deserialize)]
enum FileNextHop {
    Auto,
    #[serde(rename = "Self")]
    Own,
    Keep,
}

impl LoneConfig {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// One sentence that names the line.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let file: File =
            serde_saphyr::from_str(text).map_err(|error| ConfigError::Syntax(sentence(&error.to_string())))?;
        if let Some(text) = reserved(file.asn.value) {
            return Err(wrong(&file.asn, &format!("asn {text}")));
        }
        if file.router_id.value.is_unspecified() {
            return Err(wrong(&file.router_id, "routerID must not be 0.0.0.0"));
        }
        if let Some(protocol) = file.route_protocol.as_ref().filter(|protocol| protocol.value <= 4) {
            return Err(wrong(
                protocol,
                "routeProtocol must be above 4: up to there the kernel's own routes are meant",
            ));
        }
        let originate = originate(&file.originate)?;
        let bmp = bmp::read(&file.bmp)?;
        let filters = filters::read(&file.filters)?;
        let (peers, templates) = peers(&file, &filters)?;
        let listen = match &file.listen {
            Some(listen) => self::listen(listen)?,
            None => vec![
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), BGP_PORT),
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), BGP_PORT),
            ],
        };
        let speaker = Config {
            asn: file.asn.value,
            router_id: file.router_id.value,
            listen,
            originate,
            peers,
            templates,
            shared: Default::default(),
            bmp,
            exclusive: false,
            step: None,
            complete: true,
            shutdown: None,
            leaving: false,
        };
        let route_protocol = file.route_protocol.map_or(RTPROT_BGPD, |protocol| protocol.value);
        Ok(Self { speaker, install_routes: file.install_routes, route_protocol })
    }
}

fn listen(entries: &[Spanned<Listen>]) -> Result<Vec<SocketAddr>, ConfigError> {
    let mut listen = Vec::new();
    for entry in entries {
        let Listen { address, port } = entry.value;
        let socket = SocketAddr::new(address, port.unwrap_or(BGP_PORT));
        if socket.port() == 0 {
            return Err(wrong(entry, "listen: port must not be 0; leave the key out for 179"));
        }
        if address.is_multicast() || is_mapped(address) {
            return Err(wrong(entry, &format!("listen: {address} is no address of this machine; use a unicast one")));
        }
        if listen.contains(&socket) {
            return Err(wrong(entry, &format!("listen {socket} stands here twice")));
        }
        listen.push(socket);
    }
    Ok(listen)
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

/// Why a number is nobody's AS.
fn reserved(asn: u32) -> Option<&'static str> {
    match asn {
        0 => Some("0 is reserved (RFC 7607)"),
        23456 => Some("23456 is reserved (AS_TRANS, RFC 6793); use another number"),
        _ => None,
    }
}

fn originate(nets: &[Spanned<IpNet>]) -> Result<BTreeSet<IpNet>, ConfigError> {
    let mut originate = BTreeSet::new();
    for net in nets {
        let trunc = net.value.trunc();
        if trunc != net.value {
            return Err(wrong(net, &format!("originate {}: did you mean {trunc}?", net.value)));
        }
        if trunc.addr().is_multicast() {
            return Err(wrong(net, &format!("originate {trunc} is multicast; only unicast prefixes can be announced")));
        }
        if !originate.insert(trunc) {
            return Err(wrong(net, &format!("originate {trunc} stands here twice")));
        }
    }
    Ok(originate)
}

fn peers(file: &File, filters: &Filters) -> Result<(BTreeMap<String, Peer>, Templates), ConfigError> {
    let (mut peers, mut templates) = (BTreeMap::new(), Templates::default());
    let (mut remotes, mut names) = (BTreeMap::new(), BTreeSet::new());
    for peer in &file.peers {
        let name = &peer.value.name;
        if name.is_empty() {
            return Err(wrong(peer, "a peer needs a name"));
        }
        let wrong_peer = |text: String| wrong(peer, &format!("peer {name}: {text}"));
        let remote = remote::remote(&peer.value).map_err(wrong_peer)?;
        let who = remote.to_string();
        if let Some(other) = remotes.insert(who.clone(), name) {
            return Err(wrong(peer, &format!("peers {other} and {name} have one {who}; one of them must go")));
        }
        if !names.insert(name.clone()) {
            return Err(wrong(peer, &format!("two peers are named {name}; give one another name")));
        }
        let read = peer::peer(&peer.value, &remote, file.asn.value, filters).map_err(wrong_peer)?;
        match remote {
            Remote::Address(_) => drop(peers.insert(name.clone(), read)),
            Remote::Interface(interface, address) => {
                templates.unnumbered.insert(name.clone(), Unnumbered { interface, address, peer: read });
            }
            Remote::Range(prefix, most) => {
                templates.ranges.insert(name.clone(), Range { prefix, most, peer: read });
            }
        }
    }
    Ok((peers, templates))
}

fn wrong<T>(at: &Spanned<T>, text: &str) -> ConfigError {
    ConfigError::Value { line: at.referenced.line(), text: text.to_owned() }
}

/// The first line of a message: the rest shows the text around it.
fn sentence(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fsm::LocalRole;
    use crate::speaker::{Beyond, MaxPrefixes};
    use crate::speaker::{Export, Import, NextHopRule, PeerAsn};
    use crate::wire::Role;
    use crate::wire::{Families, Family};

    const EXAMPLE: &str = "\
asn: 65000
routerID: 10.99.1.1
listen: [{address: 0.0.0.0, port: 179}]
installRoutes: false
originate: [10.1.0.0/24, 'fd10:1::/64']
peers:
- {name: a, address: 10.99.1.2, asn: 65001, passive: true, import: all, export: none}
- {name: b, address: 10.99.2.2, asn: 65002, import: none, export: all, password: secret, holdTime: 9,
   gracefulRestart: {restartTime: 120}}
";

    #[test]
    fn the_example_of_the_contract_is_read() {
        let config = LoneConfig::parse(EXAMPLE).unwrap();
        let (a, b) = (&config.speaker.peers["a"], &config.speaker.peers["b"]);
        assert!(a.passive && a.import == Import::All && a.export == Export::None && a.families == Families::ALL);
        assert_eq!((b.password.as_deref(), b.hold_time, b.graceful_restart), (Some("secret"), 9, Some(120)));
        assert_eq!(config.speaker.originate.len(), 2);
        assert_eq!(config.speaker.listen, ["0.0.0.0:179".parse().unwrap()]);
        assert!(!config.install_routes && config.route_protocol == RTPROT_BGPD);
    }

    #[test]
    fn optional_keys_of_the_contract_are_read() {
        let text = "asn: 65000\nrouterID: 1.1.1.1\nrouteProtocol: 90\npeers:\n- {name: a, address: 'fd00::2', asn: external, \
                    asOverride: true, allowOwnAS: 2, nextHop: Self, localASN: 65009, multihop: 8, families: [ipv6]}\n\
                    - {name: b, address: 10.0.0.3, asn: internal, allowOwnAS: true, reflectorClient: true, nextHop: Keep}\n";
        let config = LoneConfig::parse(text).unwrap();
        let (a, b) = (&config.speaker.peers["a"], &config.speaker.peers["b"]);
        assert!(a.as_override && a.allow_own_as == 2 && a.next_hop == NextHopRule::Own && a.ttl == Some(8));
        assert_eq!((a.asn, a.families), (PeerAsn::External, Families::only(Family::Ipv6Unicast)));
        assert!(b.reflector_client && b.allow_own_as == 1 && b.asn == PeerAsn::Number(65000));
        assert_eq!(config.route_protocol, 90);
        assert_eq!(config.speaker.listen.len(), 2, "both families by default");
    }

    #[test]
    fn a_limit_and_a_role_are_read() {
        let text = "asn: 1\nrouterID: 1.1.1.1\npeers:\n- {name: a, address: 10.0.0.2, asn: 2, maxPrefixes: {limit: 9}, role: {local: Customer}}\n\
                    - {name: b, address: 10.0.0.3, asn: 3, maxPrefixes: {limit: 8, whenExceeded: Refuse}, role: {local: RouteServerClient, strict: true}}\n";
        let config = LoneConfig::parse(text).unwrap();
        let (a, b) = (&config.speaker.peers["a"], &config.speaker.peers["b"]);
        let close = Beyond::Close(std::time::Duration::from_secs(300));
        assert_eq!(a.max_prefixes, Some(MaxPrefixes { limit: 9, then: close }));
        assert_eq!(b.max_prefixes, Some(MaxPrefixes { limit: 8, then: Beyond::Refuse }));
        assert_eq!(a.role, Some(LocalRole { ours: Role::Customer, strict: false }));
        assert_eq!(b.role, Some(LocalRole { ours: Role::RouteServerClient, strict: true }));
    }

    #[test]
    fn filters_are_named_by_peers() {
        let text = "asn: 1\nrouterID: 1.1.1.1\nfilters:\n  lan: {import: [{match: {prefixes: [{cidr: 10.0.0.0/8, maxLength: 24}]}, action: Accept}]}\n\
                    \x20 tag:\n    export:\n    - {set: {addCommunities: ['1:2']}, action: Accept}\n\
                    peers:\n- {name: e, address: 10.0.0.2, asn: 2, filters: [lan, tag]}\n- {name: i, address: 10.0.0.3, asn: 1}\n";
        let config = LoneConfig::parse(text).unwrap();
        let (e, i) = (&config.speaker.peers["e"], &config.speaker.peers["i"]);
        assert_eq!(
            (e.import_filter.name(0), e.export_filter.name(0)),
            ("filter lan: import[0]", "filter tag: export[0]")
        );
        assert!(i.import_filter.is_empty() && i.export_filter.is_empty());
    }

    #[test]
    fn without_filters_nothing_crosses_an_as_boundary() {
        let text = "asn: 1\nrouterID: 1.1.1.1\npeers:\n- {name: e, address: 10.0.0.2, asn: 2}\n- {name: i, address: 10.0.0.3, asn: 1}\n";
        let config = LoneConfig::parse(text).unwrap();
        let (e, i) = (&config.speaker.peers["e"], &config.speaker.peers["i"]);
        assert_eq!(
            (&e.import, e.export, &i.import, i.export),
            (&Import::None, Export::None, &Import::All, Export::All)
        );
    }

    #[test]
    fn what_is_wrong_is_said_in_one_sentence_with_its_line() {
        let peer =
            |text: &str| format!("asn: 65000\nrouterID: 1.1.1.1\npeers:\n- {{name: a, address: 10.0.0.2, {text}}}\n");
        let cases = [
            (EXAMPLE.replace("passive: true", "pasive: true"), 7, "pasive"),
            (EXAMPLE.replace("asn: 65000\n", "asn: 0\n"), 1, "reserved"),
            (EXAMPLE.replace("routerID: 10.99.1.1", "routerID: 0.0.0.0"), 2, "routerID"),
            (EXAMPLE.replace("10.1.0.0/24", "10.1.0.1/24"), 5, "did you mean 10.1.0.0/24?"),
            (EXAMPLE.replace("10.99.2.2", "10.99.1.2"), 8, "a and b"),
            (EXAMPLE.replace("name: b", "name: a"), 8, "named a"),
            (EXAMPLE.replace("asn: 65000\n", "asn: 23456\n"), 1, "AS_TRANS"),
            (peer("asn: 23456"), 4, "AS_TRANS"),
            (peer("asn: 4294967296"), 4, "no AS number"),
            (peer("asn: -1"), 4, "no AS number"),
            (peer("asn: extern"), 4, "internal or external"),
            (peer("asn: 1, localASN: 23456"), 4, "localASN"),
            (peer("asn: 1, allowOwnAS: 300"), 4, "0 to 255"),
            (EXAMPLE.replace("10.99.2.2", "'::ffff:10.99.2.2'"), 8, "write 10.99.2.2"),
            (EXAMPLE.replace("10.99.2.2", "'fe80::2'"), 8, "link-local"),
            (EXAMPLE.replace("10.99.2.2", "224.0.0.5"), 8, "single router"),
            (EXAMPLE.replace("10.99.2.2", "0.0.0.0"), 8, "single router"),
            (EXAMPLE.replace("port: 179}", "port: 0}"), 3, "port must not be 0"),
            (EXAMPLE.replace("port: 179}", "port: 179}, {address: 0.0.0.0}"), 3, "twice"),
            (EXAMPLE.replace("10.1.0.0/24", "224.0.0.0/4"), 5, "multicast"),
            (peer("asn: 1, holdTime: 2"), 4, "holdTime 2"),
            (peer("asn: 1, gracefulRestart: {restartTime: 4096}"), 4, "restartTime"),
            (peer("asn: 1, reflectorClient: true"), 4, "reflectorClient"),
            (peer("asn: 1, source: 'fd00::1'"), 4, "source"),
            ("asn: 65000\nrouterID: 1.1.1.1\nbgp: true\n".to_owned(), 3, "bgp"),
            (peer("asn: 1, filters: [f]"), 4, "no filter f"),
            (peer("asn: 1, ttlSecurity: 0"), 4, "ttlSecurity 0"),
            (peer("asn: 1, ttlSecurity: 1, multihop: 2"), 4, "exclude each other"),
            (peer("asn: 1, maxPrefixes: {limit: 0}"), 4, "limit 0"),
            (peer("asn: 1, maxPrefixes: {limit: 9, retryAfter: 0}"), 4, "retryAfter 0"),
            (peer("asn: 1, maxPrefixes: {limit: 9, whenExceeded: Warn, retryAfter: 9}"), 4, "Close alone"),
            (peer("asn: 1, maxPrefixes: {limit: 9, whenExceeded: Panic}"), 4, "Panic"),
            (peer("asn: 65000, role: {local: Peer}"), 4, "another AS"),
            (peer("asn: 1, role: {local: Boss}"), 4, "Boss"),
            (
                format!("filters:\n  f: {{import: [{{action: Accept}}]}}\n{}", peer("asn: 1, filters: [f, f]")),
                6,
                "twice",
            ),
            (format!("filters:\n  f: {{import: [{{}}]}}\n{}", peer("asn: 1")), 2, "filter f: import[0]: does nothing"),
            (
                format!("filters:\n  f: {{import: [{{action: Accept, mtch: {{}}}}]}}\n{}", peer("asn: 1")),
                2,
                "filter f: import[0].mtch: is no field",
            ),
            (
                format!(
                    "filters:\n  f:\n    export:\n    - {{match: {{communities: ['1']}}, action: Accept}}\n{}",
                    peer("asn: 1")
                ),
                3,
                "export[0].match.communities[0]",
            ),
        ];
        for (text, line, word) in cases {
            let error = LoneConfig::parse(&text).unwrap_err().to_string();
            assert!(error.contains(&format!("line {line}")) && error.contains(word), "{error}\n{text}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
