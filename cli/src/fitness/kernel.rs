//! What the kernel has, tried in a network namespace of its own.

use super::Finding;

/// What became of each trial: `Err` holds the kernel's words.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The whole table; `true` if the kernel keeps others from changing it.
    pub(crate) table: Result<bool, String>,
    pub(crate) conntrack: Result<(), String>,
    pub(crate) vxlan: Result<(), String>,
    pub(crate) ipip: Result<(), String>,
    pub(crate) multipath: Result<(), String>,
    pub(crate) ipv6: Result<(), String>,
}

pub(crate) fn verdict(facts: &Facts) -> Vec<Finding> {
    let table = match &facts.table {
        Ok(true) => Finding::fine("nftables", "takes our table, and keeps others from changing it"),
        Ok(false) => Finding::fine(
            "nftables",
            "takes our table; before Linux 6.9 changes by others are repaired, not prevented (owner, persist)",
        ),
        Err(words) => Finding::unfit(
            "nftables",
            format!("does not take our table: {words}"),
            "use a kernel of 5.10 or later with CONFIG_NF_TABLES_INET, CONFIG_NFT_CT and CONFIG_NFT_NAT, and load them: modprobe -a nf_tables nft_ct nft_chain_nat",
        ),
    };
    let conntrack = need(
        &facts.conntrack,
        "conntrack",
        "connections can be listed",
        "modprobe -a nf_conntrack nf_conntrack_netlink",
    );
    let multipath = need(
        &facts.multipath,
        "multipath",
        "routes over several tunnels",
        "use a kernel with CONFIG_IP_ROUTE_MULTIPATH and CONFIG_LWTUNNEL",
    );
    let vxlan = match &facts.vxlan {
        Ok(()) => Finding::fine("VXLAN", "with metadata of routes"),
        Err(words) => Finding::warning(
            "VXLAN",
            words.clone(),
            "modprobe vxlan; without it every pool needs encapsulation.protocol None or IPIP",
        ),
    };
    let ipip = match &facts.ipip {
        Ok(()) => Finding::fine("IP-in-IP", "with metadata of routes"),
        Err(words) => Finding::warning(
            "IP-in-IP",
            words.clone(),
            "modprobe ipip, or use VXLAN: set encapsulation.protocol of every IPPool to VXLAN or None",
        ),
    };
    let ipv6 = match &facts.ipv6 {
        Ok(()) => Finding::fine("IPv6", "takes routes"),
        Err(words) => Finding::warning(
            "IPv6",
            words.clone(),
            "boot without ipv6.disable=1, or have IPv4 pools only: kubectl get ippools",
        ),
    };
    vec![table, conntrack, multipath, vxlan, ipip, ipv6]
}

fn need(trial: &Result<(), String>, check: &'static str, fine: &str, remedy: &str) -> Finding {
    match trial {
        Ok(()) => Finding::fine(check, fine),
        Err(words) => Finding::unfit(check, words.clone(), remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn all() -> Facts {
        Facts { table: Ok(true), conntrack: Ok(()), vxlan: Ok(()), ipip: Ok(()), multipath: Ok(()), ipv6: Ok(()) }
    }

    fn states(facts: &Facts) -> Vec<State> {
        verdict(facts).into_iter().map(|finding| finding.state).collect()
    }

    #[test]
    fn a_kernel_with_all_of_it_is_fine_and_so_is_one_without_owners() {
        assert_eq!(states(&all()), [State::Fine; 6]);
        assert_eq!(states(&Facts { table: Ok(false), ..all() }), [State::Fine; 6]);
    }

    #[test]
    fn tunnels_and_ipv6_are_wanted_and_the_rest_is_needed() {
        let no = || Err("no".to_owned());
        assert_eq!(states(&Facts { ipip: no(), vxlan: no(), ipv6: no(), ..all() })[3..], [State::Warning; 3]);
        for facts in [
            Facts { table: Err("no".to_owned()), ..all() },
            Facts { conntrack: no(), ..all() },
            Facts { multipath: no(), ..all() },
        ] {
            assert_eq!(states(&facts).into_iter().filter(|state| *state == State::Unfit).count(), 1, "{facts:?}");
        }
        let text = verdict(&Facts { ipip: no(), ..all() }).remove(4).remedy;
        assert!(text.contains("use VXLAN"), "{text}");
    }
}
