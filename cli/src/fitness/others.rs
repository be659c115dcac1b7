//! Who else owns pods, routes or packets here: other networks and what they left behind, and firewalls.

use super::Finding;
use std::collections::BTreeSet;
use twill_crds::names::IPVS_DEVICE;
use twill_felix::io::nft::ForeignChain;

/// What is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Network configurations that the runtime prefers to ours.
    pub(crate) conflists: Vec<String>,
    /// Names of all links.
    pub(crate) links: Vec<String>,
    /// Chains of all tables but ours.
    pub(crate) chains: Vec<ForeignChain>,
    /// Why they cannot be read.
    pub(crate) unreadable: Option<String>,
    /// Tables of the older iptables, which do not show as chains.
    pub(crate) legacy_tables: Vec<String>,
}

impl Facts {
    fn link(&self, is: impl Fn(&str) -> bool) -> Option<&str> {
        self.links.iter().map(String::as_str).find(|name| is(name))
    }

    fn chain(&self, is: impl Fn(&ForeignChain) -> bool) -> Option<&ForeignChain> {
        self.chains.iter().find(|chain| is(chain))
    }
}

/// A network of pods that leaves traces: the beginnings of its links and of its chains, and how to be rid of it.
struct Network {
    name: &'static str,
    links: &'static [&'static str],
    chains: &'static [&'static str],
    remedy: &'static str,
}

const NETWORKS: [Network; 5] = [
    Network {
        name: "Calico",
        links: &["cali", "vxlan.calico", "vxlan-v6.calico"],
        chains: &["cali-", "cali:"],
        remedy: "kubectl delete -f calico.yaml, move 10-calico.conflist away, then reboot the node",
    },
    Network {
        name: "Flannel",
        links: &["flannel", "cni0"],
        chains: &["FLANNEL-"],
        remedy: "kubectl delete -f kube-flannel.yml; ip link delete flannel.1; ip link delete cni0; then reboot the node",
    },
    Network {
        name: "Cilium",
        links: &["cilium_", "lxc"],
        chains: &["CILIUM_", "OLD_CILIUM_"],
        remedy: "cilium uninstall; cilium-dbg post-uninstall-cleanup --all-state; then reboot the node",
    },
    Network {
        name: "Weave Net",
        links: &["weave"],
        chains: &["WEAVE"],
        remedy: "kubectl -n kube-system delete daemonset weave-net; weave reset; then reboot the node",
    },
    Network {
        name: "kube-router",
        links: &["kube-bridge"],
        chains: &["KUBE-ROUTER-", "KUBE-NWPLCY-", "KUBE-POD-FW-"],
        remedy: "kubectl -n kube-system delete daemonset kube-router; kube-router --cleanup-config; then reboot the node",
    },
];

pub(crate) fn verdict(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![conflists(facts)];
    let traces: Vec<Finding> = NETWORKS.iter().filter_map(|network| traces(facts, network)).collect();
    match traces.is_empty() {
        true => findings
            .push(Finding::fine("other networks", "no traces of Calico, Flannel, Cilium, Weave Net, kube-router")),
        false => findings.extend(traces),
    }
    findings.extend(firewalls(facts));
    findings.push(services(facts));
    findings
}

fn conflists(facts: &Facts) -> Finding {
    if facts.conflists.is_empty() {
        return Finding::fine("network configurations", "none is preferred to ours");
    }
    let names = facts.conflists.join(", ");
    Finding::unfit(
        "network configurations",
        format!("the runtime prefers {names} to ours, by name"),
        format!("move {names} out of the directory once that network is not used any more"),
    )
}

/// What a network has left, which would route, filter or own pods beside us.
fn traces(facts: &Facts, network: &Network) -> Option<Finding> {
    let begins = |name: &str, with: &[&str]| with.iter().any(|beginning| name.starts_with(beginning));
    let link = facts.link(|name| begins(name, network.links)).map(|name| format!("link {name}"));
    let chain = facts.chain(|chain| begins(&chain.name, network.chains));
    let chain = chain.map(|chain| format!("chain {} of table {} {}", chain.name, chain.family, chain.table));
    let found: Vec<String> = link.into_iter().chain(chain).collect();
    (!found.is_empty())
        .then(|| Finding::unfit("other networks", format!("{}: {}", network.name, found.join(", ")), network.remedy))
}

fn firewalls(facts: &Facts) -> Vec<Finding> {
    if let Some(words) = &facts.unreadable {
        return vec![Finding::warning(
            "firewalls",
            format!("rules of others cannot be read: {words}"),
            "nft list ruleset",
        )];
    }
    let mut findings = Vec::new();
    if facts.chain(|chain| chain.table == "firewalld").is_some() {
        findings.push(Finding::unfit(
            "firewalls",
            "firewalld rejects what it does not know, packets of pods among it",
            "systemctl disable --now firewalld",
        ));
    }
    if let Some(chain) = facts.chain(|chain| chain.forward && chain.drops) {
        findings.push(forward(facts, chain));
    }
    if let Some(chain) = facts.chain(|chain| chain.input && chain.drops) {
        findings.push(Finding::warning(
            "firewalls",
            format!("{} drops what comes to this node and is not allowed", named(chain)),
            "allow from the other nodes: TCP 179 (BGP), UDP 4789 (VXLAN), IP protocol 4 (IP-in-IP)",
        ));
    }
    if !facts.legacy_tables.is_empty() {
        findings.push(Finding::warning(
            "firewalls",
            format!("the older iptables has tables here that were not looked into: {}", facts.legacy_tables.join(", ")),
            "iptables-legacy-save shows them; FORWARD must not drop: iptables-legacy -P FORWARD ACCEPT",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::fine("firewalls", "nobody else drops by default"));
    }
    findings
}

fn forward(facts: &Facts, chain: &ForeignChain) -> Finding {
    let beside = |beginning: &str| {
        facts.chain(|other| {
            (&other.family, &other.table) == (&chain.family, &chain.table) && other.name.starts_with(beginning)
        })
    };
    let found = format!("{} drops what is forwarded and not allowed", named(chain));
    let tool = if chain.family == "ip6" { "ip6tables" } else { "iptables" };
    let remedy = if beside("DOCKER").is_some() {
        format!(r#"{tool} -P FORWARD ACCEPT, and {{"ip-forward-no-drop": true}} in /etc/docker/daemon.json for good"#)
    } else if beside("ufw").is_some() {
        "ufw default allow routed, or ufw disable".to_owned()
    } else if chain.name == "FORWARD" {
        format!("{tool} -P FORWARD ACCEPT, and so in whatever sets it at boot")
    } else {
        format!("nft add chain {} {} {} '{{ policy accept; }}'", chain.family, chain.table, chain.name)
    };
    Finding::unfit("firewalls", found, remedy)
}

fn named(chain: &ForeignChain) -> String {
    format!("chain {} of table {} {}", chain.name, chain.family, chain.table)
}

/// Who leads connections to Services to pods: not Twill.
fn services(facts: &Facts) -> Finding {
    let mut modes = BTreeSet::new();
    if facts.chain(|chain| chain.name == "KUBE-SERVICES").is_some() {
        modes.insert("iptables");
    }
    if facts.chain(|chain| chain.table == "kube-proxy").is_some() {
        modes.insert("nftables");
    }
    if facts.link(|name| name == IPVS_DEVICE).is_some() {
        modes.remove("iptables");
        modes.insert("IPVS");
    }
    let modes: Vec<&str> = modes.into_iter().collect();
    match modes.as_slice() {
        ["IPVS"] => Finding::unfit(
            "kube-proxy",
            "in mode IPVS, where egress policies of pods see addresses of Services in place of the pods behind them",
            "set its mode to nftables or iptables, run kube-proxy --cleanup and start it again",
        ),
        [mode] => Finding::fine("kube-proxy", format!("in mode {mode}")),
        [] => Finding::warning(
            "kube-proxy",
            "not seen yet; without it Services lead nowhere",
            "on Kubernetes start it before Twill, or give Twill the API server's own address (apiServer.host in the Helm chart)",
        ),
        several => Finding::warning(
            "kube-proxy",
            format!("left traces of several modes: {}", several.join(", ")),
            "kube-proxy --cleanup, then start it again",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn chain(table: &str, name: &str) -> ForeignChain {
        ForeignChain {
            family: "ip".to_owned(),
            table: table.to_owned(),
            name: name.to_owned(),
            ..ForeignChain::default()
        }
    }

    fn forward(table: &str, name: &str) -> ForeignChain {
        ForeignChain { forward: true, drops: true, ..chain(table, name) }
    }

    fn with(chains: Vec<ForeignChain>) -> Facts {
        Facts { chains, ..Facts::default() }
    }

    fn told<'a>(findings: &'a [Finding], check: &str) -> Vec<&'a Finding> {
        findings.iter().filter(|finding| finding.check == check).collect()
    }

    #[test]
    fn an_empty_node_lacks_only_kube_proxy() {
        let findings = verdict(&with(Vec::new()));
        let not_fine: Vec<_> = findings.iter().filter(|finding| finding.state != State::Fine).collect();
        assert_eq!(not_fine.len(), 1, "{not_fine:?}");
        assert_eq!(not_fine[0].check, "kube-proxy");
    }

    #[test]
    fn each_other_network_is_known_by_its_links_and_by_its_chains() {
        for (name, link, left) in [
            ("Calico", "cali0123456789a", "cali-FORWARD"),
            ("Flannel", "flannel.1", "FLANNEL-FWD"),
            ("Cilium", "cilium_host", "CILIUM_FORWARD"),
            ("Weave Net", "weave", "WEAVE-NPC"),
            ("kube-router", "kube-bridge", "KUBE-ROUTER-FORWARD"),
        ] {
            let links = vec!["lo".to_owned(), link.to_owned()];
            for facts in [Facts { links, ..with(Vec::new()) }, with(vec![chain("filter", left)])] {
                let findings = verdict(&facts);
                let found = told(&findings, "other networks");
                assert_eq!((found.len(), found[0].state), (1, State::Unfit), "{name}");
                assert!(found[0].found.starts_with(name) && !found[0].remedy.is_empty(), "{found:?}");
            }
        }
        let ours = Facts {
            links: ["lo", "eth0", "twl0123456789a", "docker0"].map(str::to_owned).to_vec(),
            ..with(Vec::new())
        };
        assert_eq!(told(&verdict(&ours), "other networks")[0].state, State::Fine);
    }

    #[test]
    fn who_drops_what_is_forwarded_is_named_with_its_own_remedy() {
        let remedy = |chains| told(&verdict(&with(chains)), "firewalls")[0].clone();
        let docker = remedy(vec![forward("filter", "FORWARD"), chain("filter", "DOCKER-USER")]);
        assert!(docker.remedy.contains("daemon.json") && docker.state == State::Unfit, "{docker:?}");
        let ufw = remedy(vec![forward("filter", "FORWARD"), chain("filter", "ufw-before-forward")]);
        assert!(ufw.remedy.starts_with("ufw"), "{ufw:?}");
        let plain = remedy(vec![forward("filter", "FORWARD"), chain("nat", "DOCKER")]);
        assert!(plain.remedy.starts_with("iptables -P FORWARD ACCEPT"), "{plain:?}");
        let own = remedy(vec![forward("mine", "pass")]);
        assert!(own.remedy.starts_with("nft add chain ip mine pass"), "{own:?}");
        let firewalld = remedy(vec![chain("firewalld", "filter_FORWARD")]);
        assert!(firewalld.remedy.contains("firewalld") && firewalld.state == State::Unfit, "{firewalld:?}");
        let input = remedy(vec![ForeignChain { input: true, drops: true, ..chain("filter", "INPUT") }]);
        assert!(input.remedy.contains("TCP 179") && input.state == State::Warning, "{input:?}");
        let open = remedy(vec![ForeignChain { forward: true, ..chain("filter", "FORWARD") }]);
        assert_eq!(open.state, State::Fine);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let unread = Facts { unreadable: Some("not permitted".to_owned()), ..Facts::default() };
        assert_eq!(told(&verdict(&unread), "firewalls")[0].state, State::Warning);
        let legacy = Facts { legacy_tables: vec!["filter".to_owned()], ..with(Vec::new()) };
        assert!(told(&verdict(&legacy), "firewalls")[0].remedy.contains("iptables-legacy"));
        let preferred = Facts { conflists: vec!["10-calico.conflist".to_owned()], ..with(Vec::new()) };
        let findings = verdict(&preferred);
        assert_eq!(told(&findings, "network configurations")[0].state, State::Unfit);
    }

    #[test]
    fn the_mode_of_kube_proxy_is_told() {
        let mode = |facts: Facts| told(&verdict(&facts), "kube-proxy")[0].clone();
        let iptables = || chain("nat", "KUBE-SERVICES");
        assert!(mode(with(vec![iptables()])).found.ends_with("iptables"));
        assert!(mode(with(vec![chain("kube-proxy", "services")])).found.ends_with("nftables"));
        let ipvs = Facts { links: vec![IPVS_DEVICE.to_owned()], ..with(vec![iptables()]) };
        assert!(mode(ipvs.clone()).found.contains("IPVS") && mode(ipvs).state == State::Unfit);
        assert_eq!(mode(with(vec![iptables(), chain("kube-proxy", "services")])).state, State::Warning);
    }
}
