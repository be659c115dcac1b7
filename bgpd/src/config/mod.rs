//! The file of a speaker that runs alone. In: YAML text. Out: a valid [`LoneConfig`], or one sentence with the line.

use crate::speaker::{Config, Export, Import, NextHopRule, Peer, PeerAsn};
use crate::wire::{Families, Family};
use ipnet::IpNet;
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
    listen: Option<Vec<Listen>>,
    #[serde(default)]
    install_routes: bool,
    route_protocol: Option<Spanned<u8>>,
    #[serde(default)]
    originate: Vec<Spanned<IpNet>>,
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
    address: IpAddr,
    port: Option<u16>,
    asn: FileAsn,
    #[serde(rename = "localASN")]
    local_asn: Option<u32>,
    source: Option<IpAddr>,
    #[serde(default)]
    passive: bool,
    import: Option<FileImport>,
    export: Option<FileExport>,
    password: Option<String>,
    hold_time: Option<u16>,
    multihop: Option<u8>,
    graceful_restart: Option<FileRestart>,
    families: Option<Vec<FileFamily>>,
    #[serde(default)]
    as_override: bool,
    #[serde(rename = "allowOwnAS")]
    allow_own_as: Option<Count>,
    #[serde(default)]
    reflector_client: bool,
    next_hop: Option<FileNextHop>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FileAsn {
    Number(u32),
    Word(AsnWord),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum AsnWord {
    Internal,
    External,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Flag(bool),
    Number(u8),
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
        if file.asn.value == 0 {
            return Err(wrong(&file.asn, "asn 0 is reserved (RFC 7607)"));
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
        let peers = peers(&file)?;
        let listen = match &file.listen {
            Some(listen) => listen.iter().map(|l| SocketAddr::new(l.address, l.port.unwrap_or(BGP_PORT))).collect(),
            None => vec![
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), BGP_PORT),
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), BGP_PORT),
            ],
        };
        let speaker = Config { asn: file.asn.value, router_id: file.router_id.value, listen, originate, peers };
        let route_protocol = file.route_protocol.map_or(RTPROT_BGPD, |protocol| protocol.value);
        Ok(Self { speaker, install_routes: file.install_routes, route_protocol })
    }
}

fn originate(nets: &[Spanned<IpNet>]) -> Result<BTreeSet<IpNet>, ConfigError> {
    let mut originate = BTreeSet::new();
    for net in nets {
        let trunc = net.value.trunc();
        if trunc != net.value {
            return Err(wrong(net, &format!("originate {}: did you mean {trunc}?", net.value)));
        }
        if !originate.insert(trunc) {
            return Err(wrong(net, &format!("originate {trunc} stands here twice")));
        }
    }
    Ok(originate)
}

fn peers(file: &File) -> Result<BTreeMap<String, Peer>, ConfigError> {
    let mut peers = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    for peer in &file.peers {
        let FilePeer { name, address, .. } = &peer.value;
        if name.is_empty() {
            return Err(wrong(peer, "a peer needs a name"));
        }
        if let Some(other) = addresses.insert(*address, name) {
            return Err(wrong(
                peer,
                &format!("peers {other} and {name} have one address, {address}; one of them must go"),
            ));
        }
        let read = self::peer(&peer.value, file.asn.value);
        let read = read.map_err(|text| wrong(peer, &format!("peer {name}: {text}")))?;
        if peers.insert(name.clone(), read).is_some() {
            return Err(wrong(peer, &format!("two peers are named {name}; give one another name")));
        }
    }
    Ok(peers)
}

fn peer(file: &FilePeer, own: u32) -> Result<Peer, String> {
    let shown = file.local_asn.unwrap_or(own);
    let asn = match file.asn {
        FileAsn::Number(0) => return Err("asn 0 is reserved (RFC 7607)".to_owned()),
        FileAsn::Number(asn) => PeerAsn::Number(asn),
        FileAsn::Word(AsnWord::Internal) => PeerAsn::Number(shown),
        FileAsn::Word(AsnWord::External) => PeerAsn::External,
    };
    if let Some(hold @ 1..=2) = file.hold_time {
        return Err(format!(
            "holdTime {hold} is too short; 0 switches it off, otherwise at least 3 (RFC 4271 section 4.2)"
        ));
    }
    if file.password.as_ref().is_some_and(|password| password.is_empty() || password.len() > 80) {
        return Err("password must have 1 to 80 octets (tcp(7), TCP_MD5SIG)".to_owned());
    }
    if file.source.is_some_and(|source| source.is_ipv4() != file.address.is_ipv4()) {
        return Err("source and address are of different families".to_owned());
    }
    let restart = file.graceful_restart.as_ref().map(|restart| restart.restart_time);
    if restart.is_some_and(|seconds| seconds > 4095) {
        return Err("restartTime must be below 4096 (RFC 4724 section 3)".to_owned());
    }
    if file.local_asn == Some(0) || file.multihop == Some(0) || file.port == Some(0) {
        return Err("localASN, multihop and port must not be 0; leave the key out for the default".to_owned());
    }
    let families: Families = match &file.families {
        None => Families::ALL,
        Some(families) if families.is_empty() => return Err("families must name one at least".to_owned()),
        Some(families) => families.iter().map(family).collect(),
    };
    let external = asn != PeerAsn::Number(shown);
    if file.reflector_client && external {
        return Err("reflectorClient is for peers in our own AS (RFC 4456)".to_owned());
    }
    Ok(Peer {
        address: file.address,
        port: file.port.unwrap_or(BGP_PORT),
        asn,
        local_asn: file.local_asn,
        source: file.source,
        password: file.password.clone(),
        hold_time: file.hold_time.unwrap_or(90),
        ttl: file.multihop,
        passive: file.passive,
        families,
        next_hop_v4: None,
        next_hop_v6: None,
        graceful_restart: restart,
        import: match file.import {
            Some(FileImport::All) => Import::All,
            Some(FileImport::None) => Import::None,
            // RFC 8212: nothing crosses an AS boundary unasked.
            None if external => Import::None,
            None => Import::All,
        },
        export: match file.export {
            Some(FileExport::All) => Export::All,
            Some(FileExport::None) => Export::None,
            Some(FileExport::Own) => Export::Own,
            None if external => Export::None,
            None => Export::All,
        },
        allow_own_as: match file.allow_own_as {
            None => 0,
            Some(Count::Flag(allowed)) => u8::from(allowed),
            Some(Count::Number(count)) => count,
        },
        as_override: file.as_override,
        reflector_client: file.reflector_client,
        next_hop: match file.next_hop {
            None | Some(FileNextHop::Auto) => NextHopRule::Auto,
            Some(FileNextHop::Own) => NextHopRule::Own,
            Some(FileNextHop::Keep) => NextHopRule::Keep,
        },
    })
}

fn family(family: &FileFamily) -> Family {
    match family {
        FileFamily::Ipv4 => Family::Ipv4Unicast,
        FileFamily::Ipv6 => Family::Ipv6Unicast,
    }
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
            (peer("asn: 1, holdTime: 2"), 4, "holdTime 2"),
            (peer("asn: 1, gracefulRestart: {restartTime: 4096}"), 4, "restartTime"),
            (peer("asn: 1, reflectorClient: true"), 4, "reflectorClient"),
            (peer("asn: 1, source: 'fd00::1'"), 4, "source"),
            ("asn: 65000\nrouterID: 1.1.1.1\nbgp: true\n".to_owned(), 3, "bgp"),
        ];
        for (text, line, word) in cases {
            let error = LoneConfig::parse(&text).unwrap_err().to_string();
            assert!(error.contains(&format!("line {line}")) && error.contains(word), "{error}\n{text}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
