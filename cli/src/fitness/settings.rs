//! Settings of the kernel's network stack.

use super::Finding;

/// `rp_filter`: the way back has to be by the same link.
const STRICT: u8 = 1;

/// Values of files below `/proc/sys/net`; none: the kernel has no such setting.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Whether settings can be changed from here: in most containers they cannot.
    pub(crate) writable: bool,
    pub(crate) ip_forward: Option<String>,
    /// How sources are checked on all links at least.
    pub(crate) rp_filter: Option<String>,
    /// The link of the default route, and how sources are checked on it.
    pub(crate) uplink: Option<(String, Option<String>)>,
    pub(crate) disable_ipv6: Option<String>,
}

pub(crate) fn verdict(facts: &Facts) -> Vec<Finding> {
    let forwarding = match (facts.ip_forward.as_deref(), facts.writable) {
        (Some("1"), _) => Finding::fine("forwarding", "net.ipv4.ip_forward is 1"),
        (Some(_), true) => Finding::fine("forwarding", "net.ipv4.ip_forward is 0; felix sets it to 1"),
        (Some(_), false) => Finding::unfit(
            "forwarding",
            "net.ipv4.ip_forward is 0 and cannot be set from here",
            "sysctl -w net.ipv4.ip_forward=1 on the node, or give felix a /proc/sys that it may write",
        ),
        (None, _) => {
            Finding::unfit("forwarding", "there is no net.ipv4.ip_forward", "run this on the node, with /proc mounted")
        }
    };
    let ipv6 = match facts.disable_ipv6.as_deref() {
        Some("0") => Finding::fine("IPv6 of the node", "net.ipv6.conf.all.disable_ipv6 is 0"),
        value => Finding::warning(
            "IPv6 of the node",
            format!("net.ipv6.conf.all.disable_ipv6 is {}", value.unwrap_or("not there")),
            "sysctl -w net.ipv6.conf.all.disable_ipv6=0, or have IPv4 pools only",
        ),
    };
    vec![forwarding, reverse_path(facts), ipv6]
}

/// The kernel goes by the greater of a link's own setting and that of all.
fn reverse_path(facts: &Facts) -> Finding {
    let value = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<u8>().ok()).unwrap_or(0);
    let all = value(&facts.rp_filter);
    let own = facts.uplink.as_ref().map_or(0, |(_, text)| value(text));
    let link = facts.uplink.as_ref().map_or("all", |(name, _)| name.as_str());
    let key = |link: &str| match link.contains('.') {
        true => format!("net/ipv4/conf/{link}/rp_filter"),
        false => format!("net.ipv4.conf.{link}.rp_filter"),
    };
    let by = if all >= own { "all" } else { link };
    if all.max(own) != STRICT {
        return Finding::fine("reverse path", format!("{} is {}", key(by), all.max(own)));
    }
    Finding::warning(
        "reverse path",
        format!(
            "{} is 1 (strict): packets that come in by another of several uplinks are dropped; bgpd changes that only while IPv4 is encapsulated",
            key(by)
        ),
        format!("sysctl -w {}=2; felix checks the sources of pods itself", key(link)),
    )
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn states(writable: bool, ip_forward: &str, rp_filter: &str, disable_ipv6: &str) -> Vec<State> {
        let value = |text: &str| Some(text.to_owned());
        let facts = Facts {
            writable,
            ip_forward: value(ip_forward),
            rp_filter: value(rp_filter),
            uplink: None,
            disable_ipv6: value(disable_ipv6),
        };
        verdict(&facts).into_iter().map(|finding| finding.state).collect()
    }

    #[test]
    fn forwarding_is_on_or_can_be_set() {
        assert_eq!(states(false, "1", "0", "0"), [State::Fine; 3]);
        assert_eq!(states(true, "0", "2", "0"), [State::Fine; 3]);
        assert_eq!(states(false, "0", "0", "0")[0], State::Unfit);
        assert_eq!(verdict(&Facts { writable: true, ..Facts::default() })[0].state, State::Unfit);
    }

    #[test]
    fn strict_reverse_paths_and_no_ipv6_are_told() {
        assert_eq!(states(true, "1", "1", "1"), [State::Fine, State::Warning, State::Warning]);
    }

    #[test]
    fn the_uplinks_own_setting_counts_where_it_is_the_greater() {
        let told = |all: &str, link: &str, own: &str| {
            let uplink = Some((link.to_owned(), Some(own.to_owned())));
            let finding = reverse_path(&Facts { rp_filter: Some(all.to_owned()), uplink, ..Facts::default() });
            (finding.state, finding.found, finding.remedy)
        };
        for (all, own, found) in
            [("0", "0", "all.rp_filter is 0"), ("1", "2", "eth0.rp_filter is 2"), ("2", "1", "all.rp_filter is 2")]
        {
            let (state, said, _) = told(all, "eth0", own);
            assert_eq!((state, said), (State::Fine, format!("net.ipv4.conf.{found}")), "{all} {own}");
        }
        for (all, link, own, found, remedy) in [
            ("0", "eth0", "1", "net.ipv4.conf.eth0.rp_filter is 1", "net.ipv4.conf.eth0.rp_filter=2"),
            ("1", "eth0", "0", "net.ipv4.conf.all.rp_filter is 1", "net.ipv4.conf.eth0.rp_filter=2"),
            ("0", "eth0.7", "1", "net/ipv4/conf/eth0.7/rp_filter is 1", "net/ipv4/conf/eth0.7/rp_filter=2"),
        ] {
            let (state, said, way_out) = told(all, link, own);
            assert!(state == State::Warning && said.contains(found) && way_out.contains(remedy), "{said} {way_out}");
        }
    }
}
