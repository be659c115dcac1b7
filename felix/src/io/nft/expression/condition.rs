//! What a rule asks of a packet, as expressions.

use super::*;

impl Expressions<'_> {
    pub(super) fn condition(&mut self, m: &Match) {
        match m {
            Match::Family(family) => self.family(*family),
            Match::Interface { side, name, negated } => self.interface(*side, name, *negated),
            Match::Set { key, set, negated } => {
                self.load(key);
                self.expression("lookup", |w| {
                    w.string(1, set);
                    w.u32(2, register(0));
                    w.u32(5, if *negated { LOOKUP_INVERTED } else { 0 });
                });
            }
            Match::Address { side, net, negated } => self.address(*side, *net, *negated),
            Match::Protocol(protocol) => self.protocol(*protocol),
            Match::Ports { protocol, side, ranges } => {
                self.protocol(*protocol);
                self.payload(TRANSPORT_HEADER, if *side == End::Source { 0 } else { 2 }, 2, 0);
                self.ports(ranges);
            }
            Match::OriginalPorts { protocol, range } => {
                self.protocol(*protocol);
                self.expression("ct", |w| {
                    w.u32(1, register(0));
                    w.u32(2, CT_DESTINATION_PORT);
                    w.attribute(3, &[CT_ORIGINAL]);
                });
                self.ports(std::slice::from_ref(range));
            }
            Match::ToThisHost => {
                self.address_type(FIB_DESTINATION);
                self.compare(EQUAL, &LOCAL_ADDRESS.to_ne_bytes());
            }
            Match::Translated => {
                self.expression("ct", |w| {
                    w.u32(1, register(0));
                    w.u32(2, CT_STATUS);
                });
                self.masked(&DESTINATION_TRANSLATED.to_ne_bytes());
                self.compare(NOT_EQUAL, &[0; 4]);
            }
            Match::ForeignSource => {
                self.address_type(FIB_SOURCE);
                self.compare(NOT_EQUAL, &LOCAL_ADDRESS.to_ne_bytes());
            }
            Match::Icmpv6Types(types) => {
                self.protocol(ICMPV6);
                self.payload(TRANSPORT_HEADER, 0, 1, 0);
                self.icmpv6_types(types);
            }
            Match::Within(rate) => self.expression("limit", |w| limit(w, *rate)),
            Match::Opened { source, destination, port } => self.opened(*source, *destination, *port),
            Match::CtState(states) => {
                self.connection(CT_STATE, None);
                self.masked(&states.bits().to_ne_bytes());
                self.compare(NOT_EQUAL, &[0; 4]);
            }
            Match::TcpFlags { mask, value, negated } => {
                self.protocol(TCP);
                self.payload(TRANSPORT_HEADER, 13, 1, 0);
                self.masked(&[*mask]);
                self.compare(equality(*negated), &[*value]);
            }
            Match::VxlanVni { port, vni, negated } => {
                self.protocol(UDP);
                self.payload(TRANSPORT_HEADER, 2, 2, 0);
                self.compare(EQUAL, &port.to_be_bytes());
                // UDP header 8, VXLAN flags 4.
                self.payload(TRANSPORT_HEADER, 12, 3, 0);
                self.compare(equality(*negated), &vni.to_be_bytes()[1..]);
            }
        }
    }

    pub(super) fn family(&mut self, family: Family) {
        if self.family.replace(family) != Some(family) {
            self.meta(META_NFPROTO, 0);
            self.compare(EQUAL, &[family.number()]);
        }
    }

    pub(super) fn protocol(&mut self, protocol: u8) {
        if self.protocol.replace(protocol) != Some(protocol) {
            self.meta(META_L4PROTO, 0);
            self.compare(EQUAL, &[protocol]);
        }
    }

    fn interface(&mut self, side: Direction, name: &Interface, negated: bool) {
        self.meta(if side == Direction::In { META_IIFNAME } else { META_OIFNAME }, 0);
        match name {
            Interface::Named(name) => {
                self.compare(equality(negated), crate::ruleset::Key::interface(name).bytes());
            }
            Interface::Prefix(prefix) => self.compare(equality(negated), prefix.as_bytes()),
        }
    }

    fn address(&mut self, side: End, net: IpNet, negated: bool) {
        let (family, offset) = match (net, side) {
            (IpNet::V4(_), End::Source) => (Family::V4, 12),
            (IpNet::V4(_), End::Destination) => (Family::V4, 16),
            (IpNet::V6(_), End::Source) => (Family::V6, 8),
            (IpNet::V6(_), End::Destination) => (Family::V6, 24),
        };
        self.family(family);
        let (network, mask) = match net {
            IpNet::V4(net) => (net.network().octets().to_vec(), net.netmask().octets().to_vec()),
            IpNet::V6(net) => (net.network().octets().to_vec(), net.netmask().octets().to_vec()),
        };
        self.payload(NETWORK_HEADER, offset, u32::try_from(network.len()).unwrap_or_default(), 0);
        if net.prefix_len() < net.max_prefix_len() {
            self.masked(&mask);
        }
        self.compare(equality(negated), &network);
    }

    fn opened(&mut self, source: IpAddr, destination: IpAddr, port: Option<(u8, u16)>) {
        let (of_source, of_destination) =
            if source.is_ipv4() { (CT_SOURCE_V4, CT_DESTINATION_V4) } else { (CT_SOURCE_V6, CT_DESTINATION_V6) };
        for (key, address) in [(of_source, source), (of_destination, destination)] {
            self.connection(key, Some(CT_ORIGINAL));
            self.compare(EQUAL, crate::ruleset::Key::addr(address).bytes());
        }
        let Some((protocol, port)) = port else { return };
        self.protocol(protocol);
        if port != 0 {
            self.connection(CT_DESTINATION_PORT, Some(CT_ORIGINAL));
            self.compare(EQUAL, &port.to_be_bytes());
        }
    }

    fn ports(&mut self, ranges: &[RangeInclusive<u16>]) {
        if let [one] = ranges {
            let (first, last) = (one.start().to_be_bytes(), one.end().to_be_bytes());
            if first == last {
                self.compare(EQUAL, &first);
            } else {
                self.compare(GREATER_OR_EQUAL, &first);
                self.compare(LESS_OR_EQUAL, &last);
            }
            return;
        }
        let ranges = merged(ranges.iter().map(|r| (u32::from(*r.start()), u32::from(*r.end()))).collect());
        let bytes = |port: u32| port.to_be_bytes()[2..].to_vec();
        self.anonymous(AnonymousSet {
            key: (crate::io::nft::set::type_number(KeyType::Port), 2),
            interval: ranges.iter().any(|(first, last)| first != last),
            ranges: ranges.into_iter().map(|(first, last)| (bytes(first), bytes(last))).collect(),
        });
    }

    fn icmpv6_types(&mut self, types: &[u8]) {
        if let [one] = types {
            return self.compare(EQUAL, &[*one]);
        }
        let distinct: std::collections::BTreeSet<u8> = types.iter().copied().collect();
        self.anonymous(AnonymousSet {
            key: (crate::io::nft::set::ICMPV6_TYPE, 1),
            interval: false,
            ranges: distinct.into_iter().map(|t| (vec![t], vec![t])).collect(),
        });
    }
}

/// Sorted, and joined where they overlap or touch: the kernel refuses overlaps.
fn merged(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    let mut out: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some(previous) if first <= previous.1 + 1 => previous.1 = previous.1.max(last),
            _ => out.push((first, last)),
        }
    }
    out
}
