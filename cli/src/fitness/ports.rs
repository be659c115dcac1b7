//! Ports that Twill needs.

use super::Finding;
use twill_crds::names::{BGP_PORT, VXLAN_PORT};

/// What uses them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Local addresses of TCP sockets that listen, as the kernel writes them: hexadecimal, `ADDRESS:PORT`.
    pub(crate) listeners: Vec<String>,
    /// Whether our own bgpd runs.
    pub(crate) own_bgpd: bool,
    /// VXLAN devices of others, with their ports.
    pub(crate) vxlan_devices: Vec<(String, u16)>,
}

pub(crate) fn verdict(facts: &Facts) -> Vec<Finding> {
    let taken = facts.listeners.iter().any(|local| port(local) == Some(BGP_PORT));
    let bgp = match (facts.own_bgpd, taken) {
        (true, _) => Finding::fine("port 179", "Twill's own bgpd runs here"),
        (false, false) => Finding::fine("port 179", "nobody listens on it"),
        (false, true) => Finding::unfit(
            "port 179",
            "another BGP speaker (BIRD, FRR, GoBGP, calico-node) listens on it",
            "ss -Hltnp 'sport = 179' names it; stop it, or set spec.listenPort of BGPConfiguration default",
        ),
    };
    let device = facts.vxlan_devices.iter().find(|(_, port)| *port == VXLAN_PORT);
    let vxlan = match device {
        None => Finding::fine("VXLAN port", format!("UDP {VXLAN_PORT} is no other device's")),
        Some((name, _)) => Finding::warning(
            "VXLAN port",
            format!("device {name} has UDP {VXLAN_PORT}; pools with VXLAN would not work"),
            format!(
                "ip link delete {name} if nobody uses it, or set another spec.vxlanPort in BGPConfiguration default"
            ),
        ),
    };
    vec![bgp, vxlan]
}

/// The port of `0100007F:00B3`.
fn port(local: &str) -> Option<u16> {
    u16::from_str_radix(local.rsplit(':').next()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn with(listeners: &[&str]) -> Facts {
        Facts { listeners: listeners.iter().map(|local| (*local).to_owned()).collect(), ..Facts::default() }
    }

    #[test]
    fn another_speaker_is_told_and_our_own_is_none() {
        assert_eq!(verdict(&with(&["00000000:0016", "0100007F:1AE1"]))[0].state, State::Fine);
        for local in ["00000000:00B3", "00000000000000000000000000000000:00B3", "0B011FAC:00B3"] {
            assert_eq!(verdict(&with(&[local]))[0].state, State::Unfit, "{local}");
        }
        assert_eq!(verdict(&Facts { own_bgpd: true, ..with(&["00000000:00B3"]) })[0].state, State::Fine);
    }

    #[test]
    fn a_device_on_our_port_is_named() {
        let devices = |port| Facts { vxlan_devices: vec![("vxlan.calico".to_owned(), port)], ..Facts::default() };
        let taken = verdict(&devices(4789)).remove(1);
        assert!(taken.state == State::Warning && taken.found.contains("vxlan.calico"), "{taken:?}");
        assert_eq!(verdict(&devices(8472))[1].state, State::Fine);
    }
}
