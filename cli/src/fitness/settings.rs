//! Settings of the kernel's network stack.

use super::Finding;

/// Values of files below `/proc/sys/net`; none: the kernel has no such setting.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Whether settings can be changed from here: in most containers they cannot.
    pub(crate) writable: bool,
    pub(crate) ip_forward: Option<String>,
    pub(crate) rp_filter: Option<String>,
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
    let reverse = match facts.rp_filter.as_deref() {
        Some("1") => Finding::warning(
            "reverse path",
            "net.ipv4.conf.all.rp_filter is 1 (strict): packets that come in by another of several uplinks are dropped",
            "sysctl -w net.ipv4.conf.all.rp_filter=2; felix checks the sources of pods itself",
        ),
        value => {
            Finding::fine("reverse path", format!("net.ipv4.conf.all.rp_filter is {}", value.unwrap_or("not there")))
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
    vec![forwarding, reverse, ipv6]
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
}
